//! Replay from outside: the same in every run, causal, and the same findings as over MQTT.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, ListArray, StringArray, TimestampMillisecondArray};
use arrow::datatypes::Int32Type;
use arrow::record_batch::RecordBatch;
use common::{Gateway, nearside, publish_all, write_site};
use parquet::arrow::ArrowWriter;
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

/// Two spikes of one hour, with a quarter of an hour of ordinary readings between, are two findings; what lasts is one.
#[test]
fn a_second_spike_within_the_hour_is_a_finding_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let csv = folder.path().join("a.csv");
    let row = |minute: i64| {
        let spike = if [305, 306, 322, 325].contains(&minute) { 80.0 } else { 0.0 };
        let value = 50.0 + ((minute * 37) % 17) as f64 / 4.0 + spike;
        (format!("2014-04-10 {:02}:{:02}:00", minute / 60, minute % 60), value)
    };
    write_csv(&csv, &(0..400).map(row).collect::<Vec<_>>());
    let first = replay(folder.path(), &csv);
    assert_eq!(first, replay(folder.path(), &csv), "byte for byte (I5)");
    let lines = |text: &str| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
    let spikes = |findings: &[Value], model: &str| {
        let of_model = |finding: &&Value| {
            let name = finding["model"]["name"].as_str().or(finding["model"].as_str()).unwrap();
            finding["label"] == "spike" && name.starts_with(model)
        };
        findings.iter().filter(of_model).cloned().collect::<Vec<_>>()
    };
    let told = lines(&first[1]);
    for model in ["robust-z", "forecaster"] {
        let found = spikes(&told, model);
        let figures: Vec<_> = found.iter().map(|f| (f["nth"].as_u64(), f["since"].as_str().unwrap())).collect();
        assert_eq!(figures, [(None, "2014-04-10T05:05:00Z"), (Some(2), "2014-04-10T05:22:00Z")], "{model}");
        assert_eq!(found[0]["window"], found[1]["window"]);
        assert!(found[1]["text"].as_str().unwrap().contains("the 2nd time"), "{}", found[1]["text"]);
    }
    let summaries = lines(&first[2]);
    let of_hour = summaries.iter().find(|summary| summary["start"] == "2014-04-10T05:00:00Z").unwrap();
    let rows = spikes(of_hour["findings"].as_array().unwrap(), "robust-z");
    assert_eq!(rows.iter().map(|f| f["rows"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 2], "what goes on counts");
}

/// Replays a file through the stream `series` of a site; gives back the program's result and the lines of `--scores`.
fn scores(site: &str, name: &str, content: &[u8], more: &[&str]) -> (std::process::Output, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let site = write_site(folder.path(), site);
    let (input, scores) = (folder.path().join(name), folder.path().join("scores.csv"));
    std::fs::write(&input, content).unwrap();
    let [site, input, output] = [&site, &input, &scores].map(|path| path.to_str().unwrap());
    let fixed = ["replay", "--config", site, "--stream", "series", "--input", input, "--scores", output];
    let result = nearside(&[&fixed, more].concat());
    let text = std::fs::read_to_string(&scores).unwrap_or_default();
    (result, text.lines().map(str::to_owned).collect())
}

fn said(output: &std::process::Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// As a CSV file, in the order of the rows.
fn csv(rows: impl IntoIterator<Item = (String, f64)>) -> String {
    let lines: String = rows.into_iter().map(|(time, value)| format!("{time},{value}\n")).collect();
    format!("timestamp,value\n{lines}")
}

/// NEWS2 flags a heart rate of 135 (3 points) with a score of 3/20, below what ordinary scatter has by the other model.
#[test]
fn a_row_is_flagged_if_any_model_flags_it() {
    let site = STREAM.replace("[\"robust-z\", \"forecaster\"]", "[\"news2\", \"robust-z\"]").replace(
        "{ value = \"$.value\" }",
        "{ heart_rate = \"$.heart_rate\", respiration = \"$.respiration\", temperature = \"$.temperature\" }",
    );
    let row = |n: i64| format!("2014-04-10 {:02}:{:02}:00,{},15,37\n", n * 5 / 60, n * 5 % 60, 135 + n * 37 % 17);
    let content = "timestamp,heart_rate,respiration,temperature\n".to_owned() + &(0..200).map(row).collect::<String>();
    let (output, lines) = scores(&site, "a.csv", content.as_bytes(), &[]);
    said(&output);
    let cells: Vec<Vec<&str>> = lines[1..].iter().map(|line| line.split(',').collect()).collect();
    assert!(cells.iter().all(|cells| cells[3] == "1"), "every row is flagged");
    let score = |cells: &Vec<&str>| cells[2].parse::<f64>().unwrap();
    assert!(cells.iter().all(|cells| score(cells) >= 0.15), "the higher of two scores");
    assert!(cells.iter().any(|cells| (0.16..0.5).contains(&score(cells))), "some by the model that does not flag");
}

#[test]
fn one_row_of_another_century_moves_no_clock() {
    let guarded = STREAM.replace("past = \"36500d\"\nfuture = \"36500d\"", "past = \"7d\"\nfuture = \"5m\"");
    let mut rows = rows();
    for at in [0, 200] {
        rows.insert(at, ("2099-01-01 00:00:00".to_owned(), 50.0));
    }
    let (output, lines) = scores(&guarded, "a.csv", csv(rows.clone()).as_bytes(), &[]);
    assert!(said(&output).contains("602 rows, 2 set aside"), "{}", said(&output));
    assert_eq!(lines.len(), 603);
    // The clock moves on where rows agree, however far.
    let gap = rows[..100]
        .iter()
        .cloned()
        .chain((0..100).map(|n| (format!("2015-06-01 {:02}:{:02}:00", n / 60, n % 60), 50.0)));
    let (output, _) = scores(&guarded, "a.csv", csv(gap).as_bytes(), &[]);
    assert!(said(&output).contains("200 rows, 1 set aside"), "{}", said(&output));
}

#[test]
fn json_lines_are_matched_by_name_for_every_format() {
    let line = |n: usize, (time, value): &(String, f64)| {
        format!(r#"{{"ts":"{time}","reading":{value},"name":"s{}","valid":true,"tags":[1]}}"#, n % 2)
    };
    let rows = rows();
    let content: String = rows.iter().enumerate().map(|(n, row)| line(n, row) + "\n").collect();
    let keys = "[\"robust-z\", \"forecaster\"]\nprivacy = { name = \"clear\" }";
    let base = STREAM.replace("[\"robust-z\", \"forecaster\"]", keys);
    let with = |format: &str, timestamp: &str, path: &str| {
        let site = base.replace("\"json\"", &format!("\"{format}\""));
        site.replace("timestamp = \"$.timestamp\"", timestamp)
            .replace("value = \"$.value\"", &format!("reading = \"{path}\""))
    };
    let mut results = Vec::new();
    for site in [
        with("json", "timestamp = \"$.ts\"", "$.reading"),
        with("json", "timestamp = \"$.at\"", "$.elsewhere"),
        with("json", "", "$.reading"),
        with("cbor", "timestamp = \"$.ts\"", "$.reading"),
        with("number", "", "$"),
        with("senml", "", "power"),
        with("arrow_ipc", "timestamp = \"ts\"", "reading"),
        with("csv", "timestamp = \"0\"", "1"),
    ] {
        let (output, lines) = scores(&site, "a.jsonl", content.as_bytes(), &[]);
        let said = said(&output);
        assert!(said.contains("600 rows, 0 set aside"), "{said}\n{site}");
        let score = |line: &String| {
            line.rsplit_once(',').map(|(rest, flag)| (rest.rsplit_once(',').unwrap().1.to_owned(), flag.to_owned()))
        };
        results.push(lines[1..].iter().filter_map(score).collect::<Vec<_>>());
    }
    assert!(results.iter().all(|result| *result == results[0]), "the same rows whatever the stream's own format");
    // Two series, by the member that is their key: one of them alone has the same scores.
    let first: String =
        rows.iter().enumerate().filter(|(n, _)| n % 2 == 0).map(|(n, row)| line(n, row) + "\n").collect();
    let (_, lines) = scores(&with("json", "timestamp = \"$.ts\"", "$.reading"), "a.jsonl", first.as_bytes(), &[]);
    let alone: Vec<&str> = lines[1..].iter().map(|line| line.split(',').nth(2).unwrap()).collect();
    let together: Vec<&str> = results[0].iter().step_by(2).map(|(score, _)| score.as_str()).collect();
    assert_eq!(alone, together);
}

#[test]
fn rows_that_are_no_text_are_set_aside_alone() {
    let rows = rows();
    let mut content = csv(rows[..300].to_vec()).into_bytes();
    content.extend(b"2014-04-11 00:30:30,\xFF\xFE\n");
    content.extend(csv(rows[300..].to_vec()).into_bytes().into_iter().skip("timestamp,value\n".len()));
    let (output, lines) = scores(STREAM, "a.csv", &content, &[]);
    assert!(said(&output).contains("601 rows, 1 set aside"), "{}", said(&output));
    assert!(
        lines[301].starts_with("2014-04-11 00:30:30,") && lines[301].ends_with(",0.0000000000,0"),
        "{}",
        lines[301]
    );

    let mut content = Vec::new();
    for (n, (time, value)) in rows.iter().enumerate() {
        if n == 300 {
            content.extend(b"{\"timestamp\":\"\xFF\"}\nnot JSON\n\n");
        }
        content.extend(format!("{{\"timestamp\":\"{time}\",\"value\":{value}}}\n").into_bytes());
    }
    let (output, lines) = scores(STREAM, "a.jsonl", &content, &[]);
    assert!(said(&output).contains("602 rows, 2 set aside"), "{}", said(&output));
    assert!(said(&output).contains("the first is row 301: the row is not UTF-8"), "{}", said(&output));
    assert_eq!(lines.len(), 603);
}

/// Columns of any kind beside those that are read, a key, truth values, a value that is missing and one that is no number.
#[test]
fn parquet_files_are_read_by_name() {
    let ts = TimestampMillisecondArray::from_iter_values((0..300).map(|n| 1_397_088_000_000 + n * 300_000));
    let value = |n: usize| if n == 7 { f64::NAN } else { 50.0 + ((n * 37) % 17) as f64 / 4.0 };
    let values: Float64Array = (0..300).map(|n| (n != 5).then(|| value(n))).collect();
    let names: StringArray = (0..300).map(|n| Some(format!("s{}", n % 2))).collect();
    let tags = ListArray::from_iter_primitive::<Int32Type, _, _>((0..300).map(|n| Some(vec![Some(n)])));
    let working: BooleanArray = (0..300).map(|n| Some(n % 3 == 0)).collect();
    let columns: [(&str, ArrayRef); 5] = [
        ("tags", Arc::new(tags)),
        ("value", Arc::new(values)),
        ("name", Arc::new(names)),
        ("timestamp", Arc::new(ts)),
        ("working", Arc::new(working)),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    let content = writer.into_inner().unwrap();
    let site = STREAM.replace("{ value = \"$.value\" }", "{ value = \"$.value\", working = \"$.working\" }");
    let (output, lines) = scores(&site, "a.parquet", &content, &[]);
    assert!(said(&output).contains("300 rows, 1 set aside"), "{}", said(&output));
    assert!(said(&output).contains("the first is row 8: a number cannot be read"), "{}", said(&output));
    assert!(lines[1].starts_with("2014-04-10T00:00:00Z,50,"), "{}", lines[1]);
    // A missing value beside one that is there is no fault.
    assert!(lines[6].starts_with("2014-04-10T00:25:00Z,,"), "{}", lines[6]);
}

#[test]
fn scores_are_csv_whatever_a_cell_holds() {
    let content = "timestamp,value\n\"April 10, 2014 \"\"noon\"\"\",1\n2014-04-10 12:00:00,2\n";
    let (output, lines) = scores(STREAM, "a.csv", content.as_bytes(), &[]);
    assert!(said(&output).contains("2 rows, 1 set aside"), "{}", said(&output));
    assert_eq!(lines[1], "\"April 10, 2014 \"\"noon\"\"\",1,0.0000000000,0");
}

#[test]
fn a_key_that_the_stream_does_not_have_is_refused() {
    let (output, _) = scores(STREAM, "a.csv", csv(rows()).as_bytes(), &["--key", "nmae=x"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("--key nmae=…") && text.contains("has the key parts: name"), "{text}");
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
