//! Reports and notes judged from outside: what is dangerous is found, what is not is left alone, and a private text's words stay in it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use common::{nearside, write_site};
use nearside_models::catalog;
use nearside_models::row_model::Row;
use nearside_schemas::{FieldKind, FieldName, FieldPolicy, FieldSpec, FieldValue, Personal, Timestamp};
use nearside_simulator::{Fleet, FleetConfig, Incident, IncidentKind, Profile};
use serde_json::Value;

const MARKERS: [&str; 4] = ["Ollenhauer", "202-555-0143", "crushing", "jaw"];
const ALARMING: &str = "Margarete Ollenhauer has crushing chest pain into the jaw, cold sweat. Call +1 202-555-0143.";

fn site(policy: &str) -> String {
    format!(
        r#"
[[stream]]
name = "notes"
topic = "ward/{{patient}}/note"
format = "json"
timestamp = {{ path = "$.ts", unit = "millis" }}
fields = {{ note = {{ path = "$.text", kind = "text" }} }}
windows = [{{ kind = "tumbling", size = "1h" }}]
models = ["text-triage"]
privacy = {{ patient = "pseudonym", note = "{policy}" }}
past = "36500d"
min_rows = 1
"#
    )
}

/// Replays notes through a stream with this policy; gives findings, summaries, scores and what was printed.
fn replay(policy: &str) -> [String; 4] {
    let folder = tempfile::tempdir().unwrap();
    let site = write_site(folder.path(), &site(policy));
    let texts = ["Ollenhauer slept well, no complaints this morning.", ALARMING, "患者突发剧烈胸痛,出冷汗。"];
    let line = |(hour, text): (usize, &&str)| {
        serde_json::json!({ "ts": 1_700_000_000_000_u64 + hour as u64 * 7_200_000, "text": text }).to_string() + "\n"
    };
    let input = folder.path().join("notes.jsonl");
    std::fs::write(&input, texts.iter().enumerate().map(line).collect::<String>()).unwrap();
    let outputs = ["findings.jsonl", "summaries.jsonl", "scores.csv"].map(|name| folder.path().join(name));
    let [findings, summaries, scores] = outputs.each_ref().map(|path| path.to_str().unwrap());
    let (site, input) = (site.to_str().unwrap(), input.to_str().unwrap());
    let fixed = ["--log", "debug", "replay", "--config", site, "--stream", "notes", "--input", input];
    let more = ["--key", "patient=mrn-1", "--findings", findings, "--summaries", summaries, "--scores", scores];
    let output = nearside(&[fixed.as_slice(), &more].concat());
    assert!(output.status.success(), "{output:?}");
    let [findings, summaries, scores] = outputs.map(|path| std::fs::read_to_string(path).unwrap());
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    [findings, summaries, scores, printed]
}

#[test]
fn a_private_note_is_judged_and_its_words_stay_in_it() {
    for policy in ["encrypt", "pseudonym", "drop"] {
        let seen = replay(policy);
        let findings: Vec<Value> = seen[0].lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let labels: Vec<&Value> = findings.iter().map(|finding| &finding["label"]).collect();
        assert_eq!(labels, ["chest_pain", "chest_pain"], "{policy}: {}", seen[0]);
        for text in &seen[..2] {
            for marker in MARKERS {
                assert!(!text.contains(marker), "{policy}: {marker} in {text}");
            }
        }
        assert!(MARKERS.iter().all(|marker| !seen[3].contains(marker)), "{policy}: {}", seen[3]);
    }
}

#[test]
fn a_public_report_says_which_words_spoke_for_the_judgement() {
    let [findings, ..] = replay("clear");
    let first: Value = serde_json::from_str(findings.lines().next().unwrap()).unwrap();
    let note = first["contributions"][0]["note"].as_str().unwrap();
    assert!(["chest", "crushing", "pain", "sweat"].iter().any(|word| note.contains(word)), "{note}");
    assert!(first["text"].as_str().unwrap().starts_with("A text came that suggests \"chest pain\" ("), "{first}");
}

/// The label of what the shipped model flags in a message's text.
fn flagged(payload: &[u8]) -> Option<&'static str> {
    let payload: Value = serde_json::from_slice(payload).unwrap();
    let name = FieldName::new("text").unwrap();
    let fields = [FieldSpec { name, kind: FieldKind::Text, unit: None, policy: FieldPolicy::Clear }];
    let mut state = catalog::load("text-triage", None).unwrap().new_state(&fields);
    let text = FieldValue::Text(Personal::new(payload["text"].as_str().unwrap().into()));
    state.take(&Row { time: Timestamp::from_secs(0), values: &[text] }, &mut Vec::new());
    state.judge(&[]).sightings.first().map(|sighting| sighting.label)
}

/// What the simulator's incidents write is flagged, what else it writes is not. None of its sentences was learnt from, single words were.
#[test]
fn the_simulated_city_and_ward_are_judged_right() {
    let (mut urgent, mut missed, mut false_alarms, mut ordinary) = (0, Vec::new(), Vec::new(), 0);
    for (profile, streams, topic) in [(Profile::City, 40, "/report"), (Profile::Ward, 40, "/note")] {
        for seed in 0..4 {
            let mut config = FleetConfig::new(profile, streams, seed, Timestamp::from_secs(1_700_000_000));
            config.duration = Some(std::time::Duration::from_secs(8 * 3_600));
            let fleet = Fleet::new(config);
            let is_text = |i: &&Incident| matches!(i.kind, IncidentKind::UrgentReport | IncidentKind::AlarmingNote);
            let incidents: Vec<Incident> = fleet.incidents().iter().filter(is_text).cloned().collect();
            for message in fleet.filter(|message| message.topic.ends_with(topic)) {
                // A message is sent a moment after it was written.
                let written = message.at.minus(std::time::Duration::from_millis(400))..=message.at;
                let during =
                    |i: &&Incident, at: Timestamp| i.topics.contains(&message.topic) && (i.from..i.until).contains(&at);
                let within = |at: Timestamp| incidents.iter().any(|incident| during(&incident, at));
                let text = String::from_utf8_lossy(&message.payload).into_owned();
                match (within(*written.start()), within(*written.end()), flagged(&message.payload)) {
                    (true, true, None) => missed.push(text),
                    (true, true, Some(_)) => urgent += 1,
                    (false, false, Some(label)) => false_alarms.push(format!("{label}: {text}")),
                    (false, false, None) => ordinary += 1,
                    _ => {}
                }
            }
        }
    }
    for list in [&mut missed, &mut false_alarms] {
        list.sort();
        list.dedup();
    }
    assert!(missed.is_empty() && false_alarms.is_empty(), "missed {missed:#?}, false alarms {false_alarms:#?}");
    assert!(urgent > 20 && ordinary > 200, "{urgent} urgent, {ordinary} ordinary");
}
