//! Replay from outside: the same in every run, causal, and the same findings as over MQTT.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use std::path::Path;

use common::{Gateway, nearside, publish_all, write_site};
use serde_json::Value;

const STREAM: &str = r#"
[inference]
threads = 3
max_batch = 7
[[stream]]
name = "series"
topic = "series/{name}"
format = "json"
timestamp = "$.timestamp"
fields = { value = "$.value" }
windows = [{ kind = "tumbling", size = "1h" }]
models = ["robust-z", "forecaster"]
past = "36500d"
future = "36500d"
idle = "1h"
"#;

/// 600 rows of five minutes with a spike, a drop and a repeated time.
fn rows() -> Vec<(String, f64)> {
    let row = |n: i64| {
        let value = 50.0 + ((n * 37) % 17) as f64 / 4.0 + if n % 200 == 150 { 80.0 } else { 0.0 };
        let minute = if n == 300 { 299 * 5 } else { n * 5 };
        let (day, hour) = (10 + minute / 1_440, minute / 60 % 24);
        (format!("2014-04-{day:02} {hour:02}:{:02}:00", minute % 60), value)
    };
    (0..600).map(row).collect()
}

fn write_csv(path: &Path, rows: &[(String, f64)]) {
    let lines: String = rows.iter().map(|(time, value)| format!("{time},{value}\n")).collect();
    std::fs::write(path, format!("timestamp,value\n{lines}")).unwrap();
}

/// Replays a CSV; gives back scores, findings and summaries as text.
fn replay(folder: &Path, csv: &Path) -> [String; 3] {
    let site = write_site(folder, STREAM);
    let outputs = ["scores.csv", "findings.jsonl", "summaries.jsonl"].map(|name| folder.join(name));
    let [scores, findings, summaries] = outputs.each_ref().map(|path| path.to_str().unwrap());
    let arguments = [
        "replay",
        "--config",
        site.to_str().unwrap(),
        "--stream",
        "series",
        "--input",
        csv.to_str().unwrap(),
        "--scores",
        scores,
        "--findings",
        findings,
        "--summaries",
        summaries,
    ];
    let output = nearside(&arguments);
    assert!(output.status.success(), "{output:?}");
    outputs.map(|path| std::fs::read_to_string(path).unwrap())
}

#[test]
fn it_is_the_same_in_every_run_and_causal() {
    let folder = tempfile::tempdir().unwrap();
    let csv = folder.path().join("a.csv");
    write_csv(&csv, &rows());
    let first = replay(folder.path(), &csv);
    assert_eq!(first, replay(folder.path(), &csv), "byte for byte (I5)");
    let scores: Vec<&str> = first[0].lines().collect();
    assert_eq!(scores.len(), 601, "a row for each input row, and the header");
    assert_eq!(scores[0], "timestamp,value,score,flagged");
    assert!(scores[151].starts_with("2014-04-10 12:30:00,"), "{}", scores[151]);
    assert!(first[1].lines().count() >= 3, "the spikes are found: {}", first[1]);

    // What comes later changes no score.
    write_csv(&csv, &rows()[..400]);
    let cut = replay(folder.path(), &csv);
    assert_eq!(cut[0].lines().collect::<Vec<_>>(), scores[..401]);
}

/// What a finding says, without the stream's id, which the site's own key makes.
fn essence(finding: &Value) -> String {
    format!(
        "{} {} {} {} {}",
        finding["model"], finding["label"], finding["at"], finding["score"], finding["contributions"]
    )
}

/// Findings of all series, replayed one by one and then published together over MQTT, each in order.
async fn both_ways(series: &[Vec<(String, f64)>]) -> (Vec<String>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let mut replayed = Vec::new();
    for rows in series {
        let csv = folder.path().join("a.csv");
        write_csv(&csv, rows);
        let [scores, findings, _] = replay(folder.path(), &csv);
        assert_eq!(scores.lines().count(), rows.len() + 1);
        replayed.extend(findings.lines().map(|line| essence(&serde_json::from_str(line).unwrap())));
    }
    let cloud = common::Cloud::start().await;
    let gateway =
        Gateway::start(&format!("{STREAM}[uplink]\nurl = \"mqtt://{}\"\nbackoff_min = \"50ms\"\n", cloud.address));
    let longest = series.iter().map(Vec::len).max().unwrap();
    // A row of each in turn, so that their rows share forward passes.
    let turns =
        (0..longest).flat_map(|row| series.iter().enumerate().filter_map(move |(n, rows)| Some((n, rows.get(row)?))));
    let message = |(n, (time, value)): (usize, &(String, f64))| {
        (format!("series/{n}"), format!(r#"{{"timestamp":"{time}","value":{value}}}"#).into_bytes())
    };
    publish_all("a", gateway.broker, turns.map(message).collect()).await;
    gateway.wait_for("nearside_readings_total{stream=\"series\"}", series.iter().map(Vec::len).sum::<usize>() as f64);
    gateway.wait_for("nearside_uplink_sent_total{class=\"alert\"}", replayed.len() as f64);
    let events = cloud.events();
    let alerts = events.iter().filter(|(topic, _)| topic.ends_with("/alert"));
    let mut live: Vec<String> = alerts.map(|(_, event)| essence(&event["data"])).collect();
    live.sort();
    replayed.sort();
    (live, replayed)
}

#[tokio::test(flavor = "multi_thread")]
async fn mqtt_gives_the_same_findings() {
    let other: Vec<_> = rows().into_iter().map(|(time, value)| (time, 3.0 * value + (value * 7.0).sin())).collect();
    let third = other[..450].to_vec();
    let (live, replayed) = both_ways(&[rows(), other, third]).await;
    assert!(replayed.iter().any(|finding| finding.contains("forecaster")), "{replayed:?}");
    assert_eq!(live, replayed);
}

/// The Numenta Anomaly Benchmark, where `NEARSIDE_NAB` names its folder.
#[tokio::test(flavor = "multi_thread")]
async fn mqtt_gives_the_same_findings_on_recorded_series() {
    let Ok(folder) = std::env::var("NEARSIDE_NAB") else {
        println!("skipped: NEARSIDE_NAB names no folder");
        return;
    };
    let folders = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let mut files: Vec<_> =
        folders.flat_map(|path| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path())).collect();
    files.sort();
    let read = |path: &std::path::PathBuf| -> Vec<(String, f64)> {
        let text = std::fs::read_to_string(path).unwrap();
        let row = |line: &str| line.split_once(',').map(|(time, value)| (time.to_owned(), value.parse().unwrap()));
        text.lines().skip(1).filter_map(row).collect()
    };
    let series: Vec<_> = files.iter().map(read).collect();
    let (live, replayed) = both_ways(&series).await;
    assert!(!replayed.is_empty());
    assert_eq!(live, replayed);
}
