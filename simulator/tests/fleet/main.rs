//! The fleet from outside: order, periods, payloads, and incidents that really show.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod city;
mod ward;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use nearside_schemas::{Timestamp, TopicTemplate};
use nearside_simulator::{Fleet, FleetConfig, Incident, IncidentKind, Message, Profile};
use proptest::prelude::*;
use serde_json::Value;

/// 2024-01-02, a Tuesday, at 09:00.
const TUESDAY: Timestamp = Timestamp::from_secs(1_704_186_000);

const HALF_HOUR: Duration = Duration::from_secs(1_800);

fn config(profile: Profile, streams: usize, seed: u64) -> FleetConfig {
    FleetConfig { duration: Some(HALF_HOUR), ..FleetConfig::new(profile, streams, seed, TUESDAY) }
}

/// The streams that both sites' configurations are written for: name, topic and seconds between messages.
const TABLE: [(&str, &str, Option<u64>); 13] = [
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
    ("motion", "ward/{patient}/motion", Some(10)),
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
    for (profile, streams) in [(Profile::City, 40), (Profile::Ward, 24)] {
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
    for (profile, streams) in [(Profile::City, 40), (Profile::Ward, 12)] {
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
        "motion" => {
            let value = json(message);
            sent_after(value["ts"].as_i64().unwrap(), 10_000);
            assert_eq!(value["hz"], 25);
            for axis in ["x", "y", "z"] {
                let samples = value[axis].as_array().unwrap();
                assert_eq!(samples.len(), 250);
                samples.iter().for_each(|sample| within(sample, -8.0, 8.0));
            }
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
    for (profile, streams, least) in [(Profile::City, 8, 4), (Profile::City, 100, 6), (Profile::Ward, 36, 5)] {
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
