//! Incidents of the ward show in the patients' numbers, healthy patients score low, and personal text stays in notes.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use nearside_schemas::Timestamp;
use nearside_simulator::{Fleet, FleetConfig, Incident, IncidentKind, Message, ProbeFault, Profile, personal_markers};
use serde_json::Value;

use crate::{around, config, each_incident, find, json, mean, series};

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
        36,
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
    let fleet = Fleet::new(FleetConfig { incidents: false, duration: Some(day), ..config(Profile::Ward, 5, 9) });
    let all: Vec<u32> = fleet.filter(|m| m.topic.ends_with("vitals")).map(|m| news2(&json(&m))).collect();
    assert!(all.len() > 2_870);
    assert!(all.iter().all(|score| *score < 5), "{:?}", all.iter().max());
    assert!(mean(all.iter().map(|score| f64::from(*score))) < 0.3);
}

#[test]
fn saturation_falls_and_probes_come_off() {
    each_incident(
        Profile::Ward,
        36,
        |kind| kind == IncidentKind::Desaturation,
        |incident, messages| {
            let (before, during) = around(&series(messages, &incident.topics[0], "spo2"), incident);
            assert!(mean(before) > 95.0 && mean(during) < 85.0);
        },
    );
    let off = |wanted| move |kind| kind == IncidentKind::ProbeOff(wanted);
    each_incident(Profile::Ward, 36, off(ProbeFault::Missing), |incident, messages| {
        for message in messages.iter().filter(|message| message.topic == incident.topics[0]) {
            let value = json(message);
            let at = Timestamp::from_millis(value["ts"].as_i64().unwrap());
            let off = at >= incident.from && at < incident.until;
            assert_eq!(value.get("spo2").is_none(), off, "{value}");
        }
    });
    each_incident(Profile::Ward, 36, off(ProbeFault::Frozen), |incident, messages| {
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
        36,
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
        36,
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
        ..config(Profile::Ward, 18, 4)
    });
    let low = find(&fleet, |kind| kind == IncidentKind::Hypoglycaemia).expect("half a day has room for it");
    let falls = |incident: &&Incident| incident.kind == IncidentKind::Hypoglycaemia;
    let lows: Vec<String> =
        fleet.incidents().iter().filter(falls).flat_map(|incident| incident.topics.clone()).collect();
    let topics: Vec<String> =
        fleet.streams().filter(|(stream, ..)| *stream == "glucose").map(|(_, _, topic)| topic.to_owned()).collect();
    let messages: Vec<Message> = fleet.collect();
    let (_, during) = around(&glucose(&messages, &low.topics[0]), &low);
    assert!(mean(during) < 60.0);
    for topic in topics.iter().filter(|topic| !lows.contains(topic)) {
        let values = glucose(&messages, topic);
        let bounds = values.iter().fold((f64::MAX, f64::MIN), |(l, h), (_, v)| (l.min(*v), h.max(*v)));
        assert!(bounds.0 > 70.0 && bounds.1 > bounds.0 + 30.0, "{bounds:?}");
    }
}

#[test]
fn personal_markers_stand_in_notes_and_keys_alone() {
    let markers = personal_markers();
    let mut met: HashMap<&str, usize> = HashMap::new();
    let fleet = Fleet::new(FleetConfig { ..config(Profile::Ward, 96, 2) });
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
