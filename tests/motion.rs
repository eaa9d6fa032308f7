//! The simulated ward judged: who falls or gets up at night is found and nobody else is, and vital signs that are well raise nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::collections::HashMap;
use std::time::Duration;

use nearside_models::catalog;
use nearside_models::row_model::{Row, RowModel, RowState};
use nearside_schemas::{FieldKind, FieldName, FieldPolicy, FieldSpec, FieldValue, Timestamp};
use nearside_simulator::{Fleet, FleetConfig, Incident, IncidentKind, Message, Profile};
use serde_json::Value;

fn axes() -> Vec<FieldSpec> {
    let field = |name: &str| FieldSpec {
        name: FieldName::new(name).unwrap(),
        kind: FieldKind::Number,
        unit: Some("[g]".into()),
        policy: FieldPolicy::Clear,
    };
    ["x", "y", "z"].map(field).to_vec()
}

/// Shows a strip to a patient's state; gives the labels with their times.
fn judge(model: &dyn RowModel, state: &mut dyn RowState, message: &Message) -> Vec<(&'static str, Timestamp)> {
    let strip: Value = serde_json::from_slice(&message.payload).unwrap();
    let axis = |name: &str| -> Vec<f64> { serde_json::from_value(strip[name].clone()).unwrap() };
    let (x, y, z) = (axis("x"), axis("y"), axis("z"));
    let start = Timestamp::from_millis(strip["ts"].as_i64().unwrap());
    let (mut inputs, mut outputs, mut said) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..x.len() {
        let time = start.plus(Duration::from_millis(40 * index as u64));
        let values = [x[index], y[index], z[index]].map(FieldValue::Number);
        inputs.clear();
        outputs.clear();
        let count = state.take(&Row { time, values: &values }, &mut inputs);
        if count > 0 {
            model.forward(&inputs, count, &mut outputs).unwrap();
        }
        said.extend(state.judge(&outputs).sightings.iter().map(|sighting| (sighting.label, time)));
    }
    said
}

fn label_of(kind: IncidentKind) -> Option<&'static str> {
    match kind {
        IncidentKind::Fall => Some("fall_suggested"),
        IncidentKind::BedExit => Some("out_of_bed"),
        IncidentKind::Immobility => Some("immobile"),
        _ => None,
    }
}

#[test]
fn a_night_on_the_ward() {
    let model = catalog::load("activity", None).unwrap();
    // 21:00 on a Monday, four hours, two patients.
    let start = Timestamp::from_secs(1_704_142_800);
    let mut config = FleetConfig::new(Profile::Ward, 12, 4, start);
    config.duration = Some(Duration::from_secs(4 * 3_600));
    let fleet = Fleet::new(config);
    let incidents: Vec<Incident> = fleet.incidents().iter().filter(|i| label_of(i.kind).is_some()).cloned().collect();
    let mut states: HashMap<String, Box<dyn RowState>> = HashMap::new();
    let mut said: Vec<(String, &'static str, Timestamp)> = Vec::new();
    for message in fleet.filter(|message| message.topic.ends_with("/motion")) {
        let state = states.entry(message.topic.clone()).or_insert_with(|| model.new_state(&axes()));
        said.extend(
            judge(model.as_ref(), state.as_mut(), &message)
                .into_iter()
                .map(|(label, at)| (message.topic.clone(), label, at)),
        );
    }
    let about = |incident: &Incident, (topic, label, at): &(String, &'static str, Timestamp)| {
        let span = incident.from..incident.until.plus(Duration::from_secs(60));
        incident.topics.contains(topic) && span.contains(at) && label_of(incident.kind) == Some(*label)
    };
    assert_eq!(incidents.len(), 2, "{incidents:?}");
    for incident in &incidents {
        assert!(said.iter().any(|one| about(incident, one)), "{} is missed: {said:?}", incident.name);
    }
    // A fall at night is out of bed too.
    let is_explained = |one: &(String, &'static str, Timestamp)| {
        incidents.iter().any(|incident| {
            about(incident, one)
                || (incident.kind == IncidentKind::Fall && incident.topics.contains(&one.0) && one.1 == "out_of_bed")
        })
    };
    assert!(said.iter().all(is_explained), "{said:?}");
}

const VITALS: [&str; 7] = ["heart_rate", "respiration", "spo2", "oxygen", "systolic", "temperature", "consciousness"];

/// Four hours with incidents: what the score's trend and the forecast of deterioration say lies in an incident or soon after one.
#[test]
fn vital_signs_that_are_well_raise_nothing() {
    let fields: Vec<FieldSpec> = VITALS
        .iter()
        .map(|name| FieldSpec {
            name: FieldName::new(name).unwrap(),
            kind: FieldKind::Number,
            unit: None,
            policy: FieldPolicy::Clear,
        })
        .collect();
    let mut unexplained = Vec::new();
    let mut said = 0;
    for seed in 0..4 {
        let mut config = FleetConfig::new(Profile::Ward, 19, seed, Timestamp::from_secs(1_704_103_200));
        config.duration = Some(Duration::from_secs(4 * 3_600));
        let fleet = Fleet::new(config);
        let incidents: Vec<Incident> = fleet.incidents().to_vec();
        let models = ["news2", "deterioration"].map(|name| catalog::load(name, None).unwrap());
        let mut states: HashMap<(String, usize), Box<dyn RowState>> = HashMap::new();
        for message in fleet.filter(|message| message.topic.ends_with("/vitals")) {
            let payload: Value = serde_json::from_slice(&message.payload).unwrap();
            let time = Timestamp::from_millis(payload["ts"].as_i64().unwrap());
            let value = |name: &str| match &payload[name] {
                Value::Number(number) => FieldValue::Number(number.as_f64().unwrap()),
                Value::String(mind) => FieldValue::Number(f64::from(u8::from(mind != "A"))),
                _ => FieldValue::Missing,
            };
            let values = VITALS.map(value);
            for (index, model) in models.iter().enumerate() {
                let key = (message.topic.clone(), index);
                let state = states.entry(key).or_insert_with(|| model.new_state(&fields));
                let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
                let count = state.take(&Row { time, values: &values }, &mut inputs);
                model.forward(&inputs, count, &mut outputs).unwrap();
                for sighting in state.judge(&outputs).sightings {
                    said += 1;
                    let aftermath = Duration::from_secs(600);
                    let explains = |i: &Incident| {
                        i.topics.contains(&message.topic) && (i.from..i.until.plus(aftermath)).contains(&time)
                    };
                    if !incidents.iter().any(explains) {
                        unexplained.push((seed, sighting.label, time));
                    }
                }
            }
        }
    }
    assert!(said > 20, "{said}");
    assert!(unexplained.is_empty(), "{unexplained:?}");
}
