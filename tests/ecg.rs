//! The simulated ward's ECG judged: exploration.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::collections::HashMap;
use std::time::Duration;

use nearside_models::catalog;
use nearside_models::diagnosis::ecg::beats::BeatFinder;
use nearside_models::diagnosis::ecg::class::BeatClass;
use nearside_models::diagnosis::ecg::decide;
use nearside_models::row_model::{Row, RowState};
use nearside_schemas::{FieldKind, FieldName, FieldPolicy, FieldSpec, FieldValue, Timestamp};
use nearside_simulator::{Fleet, FleetConfig, Incident, Profile};
use serde_json::Value;

#[test]
fn explore() {
    let from: u64 = std::env::var("FROM").map_or(521, |v| v.parse().unwrap());
    let to: u64 = std::env::var("TO").map_or(527, |v| v.parse().unwrap());
    let minutes: u64 = std::env::var("MINUTES").map_or(40, |v| v.parse().unwrap());
    let model = catalog::load("ecg-rhythm", None).unwrap();
    let name = FieldName::new("mv").unwrap();
    let fields = vec![FieldSpec { name, kind: FieldKind::Number, unit: Some("mV".into()), policy: FieldPolicy::Clear }];
    let (mut beats, mut odd) = (0, 0);
    for seed in from..to {
        let mut config = FleetConfig::new(Profile::Ward, 30, seed, Timestamp::from_secs(1_795_800_000));
        config.duration = Some(Duration::from_secs(60 * minutes));
        config.period_scale = 0.5;
        let fleet = Fleet::new(config);
        let incidents: Vec<Incident> = fleet.incidents().to_vec();
        let mut states: HashMap<String, (Box<dyn RowState>, BeatFinder)> = HashMap::new();
        for message in fleet.filter(|message| message.topic.ends_with("/ecg")) {
            let strip: Value = serde_json::from_slice(&message.payload).unwrap();
            let mv: Vec<f64> = serde_json::from_value(strip["mv"].clone()).unwrap();
            let start = Timestamp::from_millis(strip["ts"].as_i64().unwrap());
            let explained = incidents.iter().find(|i| {
                i.topics.contains(&message.topic) && (i.from..i.until.plus(Duration::from_secs(600))).contains(&start)
            });
            let (state, finder) = states
                .entry(message.topic.clone())
                .or_insert_with(|| (model.new_state(&fields), BeatFinder::new(250.0, 1)));
            let mut found = Vec::new();
            finder.restart(250.0, &mut found);
            found.clear();
            mv.iter().skip(17).for_each(|x| finder.push(&[*x], &mut found));
            finder.flush(&mut found);
            for (index, beat) in found.iter().enumerate() {
                let mut outputs = Vec::new();
                model.forward(&beat.inputs, beat.leads(), &mut outputs).unwrap();
                let (class, p) = decide(&outputs);
                beats += 1;
                if class != BeatClass::Normal && explained.is_none() {
                    odd += 1;
                    println!(
                        "seed {seed} {} +{:>5}s {class:?} p {p:.2} beat {index} of {} at {:.2} interval {:?} usual {:.2} q {:.2} amp {:.2}",
                        message.topic, start.since(Timestamp::from_secs(1_795_800_000)).as_secs(), found.len(), beat.at + 0.068, beat.interval, beat.usual_interval, beat.quality, beat.amplitude
                    );
                }
            }
            let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
            for (index, sample) in mv.iter().enumerate() {
                let time = start.plus(Duration::from_millis(4 * index as u64));
                inputs.clear();
                outputs.clear();
                let count = state.take(&Row { time, values: &[FieldValue::Number(*sample)] }, &mut inputs);
                if count > 0 {
                    model.forward(&inputs, count, &mut outputs).unwrap();
                }
                for sighting in state.judge(&outputs).sightings {
                    let why = explained.map_or("UNEXPLAINED", |i| i.kind.as_str());
                    println!("SAID seed {seed} {} +{}s {} [{why}] {}", message.topic, start.since(Timestamp::from_secs(1_795_800_000)).as_secs(), sighting.label, sighting.text);
                }
            }
        }
    }
    println!("{beats} beats, {odd} odd unexplained");
}
