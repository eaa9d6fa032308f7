//! The fleet from outside: order, periods, payloads, and incidents that really show.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use nearside_schemas::{Timestamp, TopicTemplate};
use nearside_simulator::{
    Fleet, FleetConfig, Incident, IncidentKind, Message, ProbeFault, Profile, SensorFault, personal_markers,
};
use proptest::prelude::*;
use serde_json::Value;

/// 2024-01-02, a Tuesday, at 09:00.
const TUESDAY: Timestamp = Timestamp::from_secs(1_704_186_000);
const HALF_HOUR: Duration = Duration::from_secs(1_800);

fn config(profile: Profile, streams: usize, seed: u64) -> FleetConfig {
    FleetConfig { duration: Some(HALF_HOUR), ..FleetConfig::new(profile, streams, seed, TUESDAY) }
}

/// The streams that both sites' configurations are written for: name, topic and seconds between messages.
const TABLE: [(&str, &str, Option<u64>); 12] = [
    ("traffic", "city/{junction}/traffic", Some(10)),
    ("traffic-zh", "城市/{junction}/交通", Some(10)),
    ("air", "city/{station}/air", Some(30)),
    ("noise", "city/{sensor}/noise", Some(10)),
    ("energy", "city/{building}/energy", Some(30)),
    ("parking", "city/{lot}/parking", Some(60)),
    ("reports", "city/{district}/report", None),
    ("vitals", "ward/{patient}/vitals", Some(30)),
    ("ecg", "ward/{patient}/ecg", Some(60)),
    ("glucose", "ward/{patient}/glucose", Some(300)),
    ("activity", "ward/{patient}/activity", Some(60)),
    ("notes", "ward/{patient}/note", None),
];

fn stream_of(topic: &str) -> (&'static str, String, Option<u64>) {
    let mut found = TABLE.iter().filter_map(|(name, template, period)| {
        let template = TopicTemplate::parse(template).unwrap();
        template.matches(topic).map(|parts| (*name, parts[0].to_owned(), *period))
    });
    let stream = found.next().unwrap_or_else(|| panic!("{topic} belongs to no stream"));
    assert!(found.next().is_none(), "{topic} belongs to two streams");
    stream
}

fn json(message: &Message) -> Value {
    serde_json::from_slice(&message.payload).unwrap()
}

/// The numbers of a field over one topic's messages: event time and value; messages without the field are left out.
fn series(messages: &[Message], topic: &str, field: &str) -> Vec<(Timestamp, f64)> {
    messages
        .iter()
        .filter(|message| message.topic == topic)
        .filter_map(|message| {
            let value = json(message);
            Some((Timestamp::from_millis(value["ts"].as_i64()?), value[field].as_f64()?))
        })
        .collect()
}

fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.into_iter().collect();
    assert!(!values.is_empty());
    values.iter().sum::<f64>() / values.len() as f64
}

/// Values before the incident, and while it stands at full size.
fn around(series: &[(Timestamp, f64)], incident: &Incident) -> (Vec<f64>, Vec<f64>) {
    let full = incident.from.plus(incident.until.since(incident.from).mul_f64(0.66));
    let fading = incident.until.minus(incident.until.since(incident.from).mul_f64(0.16));
    let values = |from: Timestamp, to: Timestamp| {
        series.iter().filter(|(at, _)| *at >= from && *at < to).map(|(_, value)| *value).collect()
    };
    (values(TUESDAY, incident.from), values(full, fading))
}

fn find(fleet: &Fleet, kind: impl Fn(IncidentKind) -> bool) -> Option<Incident> {
    fleet.incidents().iter().find(|incident| kind(incident.kind)).cloned()
}

/// Runs fleets of many seeds and hands each incident of a kind with its messages to `check`.
fn each_incident(
    profile: Profile,
    streams: usize,
    kind: impl Fn(IncidentKind) -> bool,
    check: impl Fn(&Incident, &[Message]),
) {
    let mut seen = 0;
    for seed in 0..12 {
        let fleet = Fleet::new(config(profile, streams, seed));
        if let Some(incident) = find(&fleet, &kind) {
            let messages: Vec<Message> = fleet.collect();
            check(&incident, &messages);
            seen += 1;
        }
        if seen == 3 {
            return;
        }
    }
    assert!(seen > 0, "no seed had such an incident");
}

/// A pack of the energy stream as one record's values.
fn senml(messages: &[Message], topic: &str, name: &str) -> Vec<(Timestamp, f64)> {
    messages
        .iter()
        .filter(|message| message.topic == topic)
        .map(|message| {
            let pack = json(message);
            let record = pack.as_array().unwrap().iter().find(|record| record["n"] == name).unwrap();
            let time = pack[0]["bt"].as_f64().unwrap();
            (Timestamp::from_millis((time * 1_000.0).round() as i64), record["v"].as_f64().unwrap())
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn one_seed_gives_one_stream_of_messages(seed: u64, streams in 1usize..40, city: bool) {
        let profile = if city { Profile::City } else { Profile::Ward };
        let run = |seed| Fleet::new(config(profile, streams, seed)).take(300).collect::<Vec<_>>();
        let messages = run(seed);
        prop_assert!(messages == run(seed));
        prop_assert!(messages != run(seed.wrapping_add(1)));
        prop_assert!(messages.windows(2).all(|pair| pair[0].at <= pair[1].at));
        prop_assert!(messages.iter().all(|message| message.at >= TUESDAY && message.at < TUESDAY.plus(HALF_HOUR)));
    }
}

#[test]
fn devices_keep_their_period_and_topics_their_stream() {
    for (profile, streams) in [(Profile::City, 40), (Profile::Ward, 20)] {
        let fleet = Fleet::new(config(profile, streams, 3));
        let expected: BTreeMap<String, (&str, String)> =
            fleet.streams().map(|(stream, key, topic)| (topic.to_owned(), (stream, key.to_owned()))).collect();
        assert_eq!(expected.len(), streams, "topics are unique");
        let rate = fleet.rate();
        let mut times: BTreeMap<String, Vec<Timestamp>> = BTreeMap::new();
        let mut count = 0.0;
        for message in fleet {
            count += 1.0;
            times.entry(message.topic).or_default().push(message.at);
        }
        assert!((count / HALF_HOUR.as_secs_f64() / rate - 1.0).abs() < 0.1, "{count} messages, rate {rate}");
        for (topic, times) in times {
            let (stream, key, period) = stream_of(&topic);
            assert_eq!(expected[&topic], (stream, key));
            let Some(period) = period else { continue };
            assert!(times.len() as u64 >= 1_800 / period - 1, "{topic}: {}", times.len());
            for pair in times.windows(2) {
                let gap = pair[1].since(pair[0]).as_secs_f64();
                assert!((gap - period as f64).abs() < 0.4, "{topic}: {gap}");
            }
        }
    }
}

#[test]
fn a_scaled_period_gives_more_rows() {
    let slow = Fleet::new(config(Profile::City, 8, 1)).count();
    let fast = Fleet::new(FleetConfig { period_scale: 0.25, ..config(Profile::City, 8, 1) }).count();
    assert!((3.6..4.4).contains(&(fast as f64 / slow as f64)), "{slow} {fast}");
}

#[test]
fn every_kind_of_device_is_there_from_eight_on() {
    let kinds = |streams| {
        let fleet = Fleet::new(config(Profile::City, streams, 1));
        let kinds: std::collections::BTreeSet<_> = fleet.streams().map(|(stream, _, _)| stream).collect();
        kinds.len()
    };
    assert_eq!(kinds(8), 7);
    assert_eq!(kinds(200), 7);
    assert_eq!(Fleet::new(config(Profile::City, 0, 1)).count(), 0);
}

#[test]
fn every_payload_is_what_its_stream_says() {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (profile, streams) in [(Profile::City, 40), (Profile::Ward, 10)] {
        for seed in 0..2 {
            for message in Fleet::new(config(profile, streams, seed)) {
                let (stream, ..) = stream_of(&message.topic);
                check_payload(stream, &message);
                *seen.entry(stream).or_default() += 1;
            }
        }
    }
    assert_eq!(seen.len(), TABLE.len(), "every stream had messages: {seen:?}");
}

fn check_payload(stream: &str, message: &Message) {
    let text = || std::str::from_utf8(&message.payload).unwrap();
    let within = |value: &Value, low: f64, high: f64| {
        let number = value.as_f64().unwrap_or_else(|| panic!("{stream}: {value} is no number"));
        assert!((low..=high).contains(&number), "{stream}: {number} is not within {low} to {high}");
    };
    let sent_after = |ms: i64, lag: i64| {
        let delay = message.at.as_micros() / 1_000 - ms - lag;
        assert!((0..400).contains(&delay), "{stream}: {delay} ms on the way");
    };
    match stream {
        "traffic" | "traffic-zh" => {
            let value = json(message);
            sent_after(value["ts"].as_i64().unwrap(), 0);
            assert!(value["vehicles"].is_u64());
            within(&value["speed"], 1.0, 110.0);
            within(&value["occupancy"], 0.0, 100.0);
        }
        "air" => {
            let value = json(message);
            sent_after(value["ts"].as_i64().unwrap(), 0);
            ["pm25", "no2", "o3"].iter().for_each(|gas| within(&value[gas], 0.0, 600.0));
        }
        "noise" => {
            let level: f64 = text().parse().unwrap();
            assert!((35.0..110.0).contains(&level), "{level}");
        }
        "energy" => {
            let pack = json(message);
            let name = stream_of(&message.topic).1;
            assert_eq!(pack[0]["bn"], format!("{name}:"));
            sent_after((pack[0]["bt"].as_f64().unwrap() * 1_000.0).round() as i64, 0);
            assert_eq!((&pack[0]["n"], &pack[0]["u"]), (&"power".into(), &"W".into()));
            assert_eq!((&pack[1]["n"], &pack[1]["u"]), (&"voltage".into(), &"V".into()));
            within(&pack[0]["v"], 5_000.0, 300_000.0);
            within(&pack[1]["v"], 180.0, 245.0);
        }
        "parking" => {
            let rows = json(message);
            let times: Vec<i64> = rows.as_array().unwrap().iter().map(|row| row["ts"].as_i64().unwrap()).collect();
            assert_eq!(times.len(), 2);
            assert!(times[0] < times[1]);
            sent_after(times[1], 0);
            rows.as_array().unwrap().iter().for_each(|row| within(&row["free"], 0.0, 600.0));
        }
        "vitals" => {
            let value = json(message);
            sent_after(value["ts"].as_i64().unwrap(), 0);
            within(&value["heart_rate"], 40.0, 160.0);
            within(&value["respiration"], 8.0, 40.0);
            if value.get("spo2").is_some() {
                within(&value["spo2"], 70.0, 100.0);
            }
            within(&value["oxygen"], 0.0, 1.0);
            within(&value["systolic"], 80.0, 170.0);
            within(&value["temperature"], 35.0, 40.0);
            assert!(["A", "C", "V", "P", "U"].contains(&value["consciousness"].as_str().unwrap()));
        }
        "ecg" => {
            let value = json(message);
            sent_after(value["ts"].as_i64().unwrap(), 10_000);
            assert_eq!(value["hz"], 250);
            let samples = value["mv"].as_array().unwrap();
            assert_eq!(samples.len(), 2_500);
            samples.iter().for_each(|sample| within(sample, -2.0, 3.0));
        }
        "glucose" => {
            let map: BTreeMap<String, i64> = ciborium::from_reader(message.payload.as_slice()).unwrap();
            assert_eq!(map.len(), 2);
            let secs = map["ts"];
            assert!((0..1_400).contains(&(message.at.as_micros() / 1_000 - secs * 1_000)));
            assert!((40..300).contains(&map["mg_dl"]), "{map:?}");
        }
        "activity" => {
            let columns: Vec<&str> = text().split(',').collect();
            assert_eq!(columns.len(), 3);
            sent_after(columns[0].parse().unwrap(), 0);
            assert!(columns[1].parse::<u32>().unwrap() < 150);
            assert!(["lying", "sitting", "standing", "walking"].contains(&columns[2]));
        }
        "reports" | "notes" => {
            let value = json(message);
            sent_after(value["ts"].as_i64().unwrap(), 0);
            assert!(value["text"].as_str().unwrap().chars().count() > 8);
            assert!(!text().contains('{') || value.as_object().unwrap().len() == 2);
            assert!(!value["text"].as_str().unwrap().contains(['{', '}']), "a gap was not filled");
        }
        other => panic!("{other} is not in the table"),
    }
}

#[test]
fn half_an_hour_starts_quiet_and_holds_every_incident() {
    for (profile, streams, least) in [(Profile::City, 8, 4), (Profile::City, 100, 6), (Profile::Ward, 30, 5)] {
        for seed in 0..20 {
            let fleet = Fleet::new(config(profile, streams, seed));
            let incidents = fleet.incidents();
            let kinds: std::collections::HashSet<_> = incidents.iter().map(|incident| incident.kind).collect();
            assert!(kinds.len() >= least, "{profile:?} {streams} seed {seed}: {kinds:?}");
            let topics: Vec<&str> = fleet.streams().map(|(_, _, topic)| topic).collect();
            for incident in incidents {
                assert!(incident.from >= TUESDAY.plus(Duration::from_secs(600)), "{incident:?}");
                assert!(incident.until <= TUESDAY.plus(HALF_HOUR), "{incident:?}");
                assert!(incident.until.since(incident.from) >= Duration::from_secs(240), "{incident:?}");
                assert!(incident.detectable_by > incident.from && incident.detectable_by <= incident.until);
                let (stream, key, _) = stream_of(&incident.topics[0]);
                assert_eq!((stream, &key), (incident.stream, &incident.key));
                assert!(incident.topics.iter().all(|topic| topics.contains(&topic.as_str())));
            }
        }
    }
    let quiet = Fleet::new(FleetConfig { incidents: false, ..config(Profile::City, 100, 1) });
    assert!(quiet.incidents().is_empty());
}

#[test]
fn long_runs_hold_about_one_more_incident_in_three_stream_days() {
    let week = FleetConfig { duration: Some(Duration::from_secs(7 * 86_400)), ..config(Profile::City, 30, 5) };
    let incidents = Fleet::new(week).incidents().len();
    assert!((65..=77).contains(&incidents), "{incidents} for 210 stream-days");
}

#[test]
fn a_crash_stops_the_road_and_reaches_the_junction_behind() {
    each_incident(
        Profile::City,
        30,
        |kind| kind == IncidentKind::Crash,
        |crash, messages| {
            let (before, during) = around(&series(messages, &crash.topics[0], "speed"), crash);
            assert!(mean(before.clone()) > 35.0, "{}", mean(before));
            assert!(mean(during.clone()) < 12.0, "{}", mean(during));
            let (before, during) = around(&series(messages, &crash.topics[0], "occupancy"), crash);
            assert!(mean(during) > 2.0 * mean(before));
            let (before, during) = around(&series(messages, &crash.topics[1], "speed"), crash);
            let (before, during) = (mean(before), mean(during));
            assert!(during < 0.75 * before && during > 12.0, "{before} to {during}");
        },
    );
}

#[test]
fn ordinary_traffic_has_no_crash_in_it() {
    let fleet = Fleet::new(FleetConfig {
        incidents: false,
        duration: Some(Duration::from_secs(86_400)),
        ..config(Profile::City, 8, 2)
    });
    let messages: Vec<Message> = fleet.collect();
    let speeds = series(&messages, "city/ring-1/traffic", "speed");
    assert!(speeds.iter().all(|(_, speed)| *speed > 18.0), "{:?}", speeds.iter().map(|(_, s)| *s).fold(99.0, f64::min));
    // But there is a day in it: the rush hour is slower than the night.
    let at = |hour: i64| {
        let from = Timestamp::from_secs(1_704_186_000 + (hour - 9) * 3_600);
        mean(speeds.iter().filter(|(at, _)| *at >= from && *at < from.plus(HALF_HOUR)).map(|(_, speed)| *speed))
    };
    assert!(at(17) + 4.0 < at(26), "{} {}", at(17), at(26));
}

#[test]
fn air_sensors_fail_in_four_ways() {
    let fault = |wanted: SensorFault| move |kind| kind == IncidentKind::AirSensorFault(wanted);
    let spread = |values: &[f64]| {
        let centre = mean(values.iter().copied());
        mean(values.iter().map(|value| (value - centre).powi(2))).sqrt()
    };
    let around_all = |incident: &Incident, messages: &[Message]| {
        let all = series(messages, &incident.topics[0], "pm25");
        let inside: Vec<f64> =
            all.iter().filter(|(at, _)| *at >= incident.from && *at < incident.until).map(|(_, v)| *v).collect();
        (around(&all, incident).0, inside)
    };
    each_incident(Profile::City, 30, fault(SensorFault::FlatLine), |incident, messages| {
        let (before, during) = around_all(incident, messages);
        assert!(spread(&before) > 0.2 && spread(&during) < 1e-9, "{before:?} {during:?}");
    });
    each_incident(Profile::City, 30, fault(SensorFault::Spikes), |incident, messages| {
        let (before, during) = around_all(incident, messages);
        let top = before.iter().copied().fold(0.0, f64::max);
        assert!(during.iter().filter(|value| **value > 2.0 * top).count() >= 2, "{during:?}");
    });
    each_incident(Profile::City, 30, fault(SensorFault::Drift), |incident, messages| {
        let (before, during) = around_all(incident, messages);
        assert!(*during.last().unwrap() > 3.0 * mean(before));
    });
    each_incident(Profile::City, 30, fault(SensorFault::Scatter), |incident, messages| {
        let (before, during) = around_all(incident, messages);
        assert!(spread(&during) > 4.0 * spread(&before));
    });
}

#[test]
fn noise_power_and_voltage_leave_their_usual_range() {
    each_incident(
        Profile::City,
        30,
        |kind| kind == IncidentKind::NoiseEvent,
        |incident, messages| {
            let levels: Vec<(Timestamp, f64)> = messages
                .iter()
                .filter(|message| message.topic == incident.topics[0])
                .map(|message| (message.at, std::str::from_utf8(&message.payload).unwrap().parse().unwrap()))
                .collect();
            let (before, during) = around(&levels, incident);
            assert!(mean(during) > before.iter().copied().fold(0.0, f64::max) + 10.0);
        },
    );
    each_incident(
        Profile::City,
        30,
        |kind| kind == IncidentKind::PowerSurge,
        |incident, messages| {
            let (before, during) = around(&senml(messages, &incident.topics[0], "power"), incident);
            assert!(mean(during) > 1.5 * before.iter().copied().fold(0.0, f64::max));
        },
    );
    each_incident(
        Profile::City,
        30,
        |kind| kind == IncidentKind::VoltageSag,
        |incident, messages| {
            let (before, during) = around(&senml(messages, &incident.topics[0], "voltage"), incident);
            assert!(
                before.iter().all(|volts| *volts > 222.0) && during.iter().all(|volts| *volts < 207.0),
                "{during:?}"
            );
        },
    );
}

/// NEWS2 of one message on SpO2 scale 1: Royal College of Physicians, National Early Warning Score 2, 2017, chart 1.
fn news2(vitals: &Value) -> u32 {
    let number = |field: &str| vitals[field].as_f64().unwrap_or(f64::NAN);
    let heart = match number("heart_rate") {
        v if v <= 40.0 => 3,
        v if v <= 50.0 => 1,
        v if v <= 90.0 => 0,
        v if v <= 110.0 => 1,
        v if v <= 130.0 => 2,
        _ => 3,
    };
    let breath = match number("respiration") {
        v if v <= 8.0 => 3,
        v if v <= 11.0 => 1,
        v if v <= 20.0 => 0,
        v if v <= 24.0 => 2,
        _ => 3,
    };
    let saturation = match number("spo2") {
        v if v <= 91.0 => 3,
        v if v <= 93.0 => 2,
        v if v <= 95.0 => 1,
        _ => 0,
    };
    let pressure = match number("systolic") {
        v if v <= 90.0 => 3,
        v if v <= 100.0 => 2,
        v if v <= 110.0 => 1,
        v if v <= 219.0 => 0,
        _ => 3,
    };
    let heat = match number("temperature") {
        v if v <= 35.0 => 3,
        v if v <= 36.0 => 1,
        v if v <= 38.0 => 0,
        v if v <= 39.0 => 1,
        _ => 2,
    };
    let oxygen = if number("oxygen") > 0.0 { 2 } else { 0 };
    let mind = if vitals["consciousness"] == "A" { 0 } else { 3 };
    heart + breath + saturation + pressure + heat + oxygen + mind
}

fn scores(messages: &[Message], topic: &str) -> Vec<(Timestamp, u32)> {
    messages.iter().filter(|message| message.topic == topic).map(|m| (m.at, news2(&json(m)))).collect()
}

#[test]
fn a_deteriorating_patient_drifts_to_a_score_of_seven() {
    each_incident(
        Profile::Ward,
        30,
        |kind| kind == IncidentKind::Deterioration,
        |incident, messages| {
            let scores = scores(messages, &incident.topics[0]);
            let first = scores.iter().find(|(_, score)| *score >= 7).expect("never reaches 7").0;
            assert!(first >= incident.from.plus(Duration::from_secs(180)), "not at once");
            assert!(first <= incident.detectable_by, "{first} is later than {}", incident.detectable_by);
            let top = scores.iter().map(|(_, score)| *score).max().unwrap();
            assert!(top >= 12, "{top}");
            let before = scores.iter().filter(|(at, _)| *at < incident.from).map(|(_, score)| *score).max().unwrap();
            assert!(before <= 3, "{before}");
        },
    );
}

#[test]
fn a_day_of_healthy_patients_never_scores_five() {
    let day = Duration::from_secs(86_400);
    let fleet = Fleet::new(FleetConfig { incidents: false, duration: Some(day), ..config(Profile::Ward, 6, 9) });
    let all: Vec<u32> = fleet.filter(|m| m.topic.ends_with("vitals")).map(|m| news2(&json(&m))).collect();
    assert!(all.len() > 2_880);
    assert!(all.iter().all(|score| *score < 5), "{:?}", all.iter().max());
    assert!(mean(all.iter().map(|score| f64::from(*score))) < 0.3);
}

#[test]
fn saturation_falls_and_probes_come_off() {
    each_incident(
        Profile::Ward,
        30,
        |kind| kind == IncidentKind::Desaturation,
        |incident, messages| {
            let (before, during) = around(&series(messages, &incident.topics[0], "spo2"), incident);
            assert!(mean(before) > 95.0 && mean(during) < 85.0);
        },
    );
    let off = |wanted| move |kind| kind == IncidentKind::ProbeOff(wanted);
    each_incident(Profile::Ward, 30, off(ProbeFault::Missing), |incident, messages| {
        for message in messages.iter().filter(|message| message.topic == incident.topics[0]) {
            let value = json(message);
            let at = Timestamp::from_millis(value["ts"].as_i64().unwrap());
            let off = at >= incident.from && at < incident.until;
            assert_eq!(value.get("spo2").is_none(), off, "{value}");
        }
    });
    each_incident(Profile::Ward, 30, off(ProbeFault::Frozen), |incident, messages| {
        for field in ["heart_rate", "systolic", "temperature"] {
            let all = series(messages, &incident.topics[0], field);
            let inside: Vec<f64> =
                all.iter().filter(|(at, _)| *at >= incident.from && *at < incident.until).map(|(_, v)| *v).collect();
            assert!(inside.len() > 5 && inside.windows(2).all(|pair| pair[0] == pair[1]), "{field}: {inside:?}");
        }
    });
}

#[test]
fn the_ecg_shows_lost_leads_and_broad_beats() {
    let strips = |messages: &[Message], incident: &Incident| -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
        messages
            .iter()
            .filter(|message| message.topic == incident.topics[0])
            .map(|message| {
                let value = json(message);
                let at = Timestamp::from_millis(value["ts"].as_i64().unwrap());
                let samples = value["mv"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
                (at >= incident.from && at < incident.until, samples)
            })
            .partition_map()
    };
    let range =
        |strip: &[f64]| strip.iter().copied().fold(f64::MIN, f64::max) - strip.iter().copied().fold(f64::MAX, f64::min);
    each_incident(
        Profile::Ward,
        30,
        |kind| kind == IncidentKind::LeadsOff,
        |incident, messages| {
            let (during, before) = strips(messages, incident);
            assert!(!during.is_empty() && during.iter().all(|strip| range(strip) < 0.05));
            assert!(before.iter().all(|strip| range(strip) > 0.8));
        },
    );
    // A broad QRS spends many times longer far above the base line.
    let high = |strip: &[f64]| strip.iter().filter(|sample| **sample > 0.6).count();
    each_incident(
        Profile::Ward,
        30,
        |kind| kind == IncidentKind::VentricularBeats,
        |incident, messages| {
            let (during, before) = strips(messages, incident);
            let (during, before) =
                (mean(during.iter().map(|s| high(s) as f64)), mean(before.iter().map(|s| high(s) as f64)));
            assert!(during > 1.5 * before, "{before} to {during}");
        },
    );
}

/// Splits pairs by their flag.
trait PartitionMap<T> {
    fn partition_map(self) -> (Vec<T>, Vec<T>);
}

impl<T, I: Iterator<Item = (bool, T)>> PartitionMap<T> for I {
    fn partition_map(self) -> (Vec<T>, Vec<T>) {
        let mut parts = (Vec::new(), Vec::new());
        self.for_each(|(first, item)| if first { parts.0.push(item) } else { parts.1.push(item) });
        parts
    }
}

#[test]
fn meals_lift_glucose_and_long_runs_see_it_fall_too_low() {
    let glucose = |messages: &[Message], topic: &str| -> Vec<(Timestamp, f64)> {
        messages
            .iter()
            .filter(|message| message.topic == topic)
            .map(|message| {
                let map: BTreeMap<String, i64> = ciborium::from_reader(message.payload.as_slice()).unwrap();
                (Timestamp::from_secs(map["ts"]), map["mg_dl"] as f64)
            })
            .collect()
    };
    let fleet = Fleet::new(FleetConfig {
        duration: Some(Duration::from_secs(12 * 3_600)),
        period_scale: 1.0,
        ..config(Profile::Ward, 15, 4)
    });
    let low = find(&fleet, |kind| kind == IncidentKind::Hypoglycaemia).expect("half a day has room for it");
    let topics: Vec<String> =
        fleet.streams().filter(|(stream, ..)| *stream == "glucose").map(|(_, _, topic)| topic.to_owned()).collect();
    let messages: Vec<Message> = fleet.collect();
    let (_, during) = around(&glucose(&messages, &low.topics[0]), &low);
    assert!(mean(during) < 60.0);
    for topic in topics.iter().filter(|topic| **topic != low.topics[0]) {
        let values = glucose(&messages, topic);
        let bounds = values.iter().fold((f64::MAX, f64::MIN), |(l, h), (_, v)| (l.min(*v), h.max(*v)));
        assert!(bounds.0 > 70.0 && bounds.1 > bounds.0 + 30.0, "{bounds:?}");
    }
}

#[test]
fn personal_markers_stand_in_notes_and_keys_alone() {
    let markers = personal_markers();
    let mut met: HashMap<&str, usize> = HashMap::new();
    let fleet = Fleet::new(FleetConfig { ..config(Profile::Ward, 80, 2) });
    let mut all = fleet.personal_markers();
    all.retain(|marker| !markers.contains(&marker.as_str()));
    assert_eq!(all.len(), 16, "one key a patient: {all:?}");
    for message in fleet {
        let text = String::from_utf8_lossy(&message.payload).into_owned();
        let notes = message.topic.ends_with("/note");
        let mut personal = false;
        for marker in &markers {
            if text.contains(marker) {
                *met.entry(marker).or_default() += 1;
                personal = true;
            }
        }
        assert!(notes || !personal, "{} holds a marker", message.topic);
        assert!(!notes || personal || !text.contains("name"), "a note without its person");
        assert!(all.iter().all(|key| !text.contains(key.as_str())), "a key in a payload");
        assert!(all.iter().any(|key| message.topic.contains(key.as_str())));
    }
    assert!(met.len() > markers.len() / 2, "{met:?}");
    for message in Fleet::new(config(Profile::City, 60, 2)) {
        let text = String::from_utf8_lossy(&message.payload).into_owned();
        assert!(markers.iter().all(|marker| !text.contains(marker) && !message.topic.contains(marker)));
    }
    assert!(Fleet::new(config(Profile::City, 60, 2)).personal_markers().is_empty());
}
