//! Commands over folders that others recorded: what is bad is set aside and said, the rest is judged, and nothing that is read is written
//! over.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use std::path::Path;
use std::process::Output;

use common::{nearside, write_site};
use serde_json::Value;

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Standard output as JSON and as nothing else.
fn answer(arguments: &[&str]) -> Value {
    let output = nearside(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", said(&output)))
}

fn refused(arguments: &[&str], because: &str) {
    let output = nearside(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", said(&output));
    assert!(said(&output).contains(because), "{arguments:?}: {}", said(&output));
}

fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn names(of: &Value) -> Vec<&str> {
    of.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect()
}

/// A record of 30 s at 250 Hz with a spike each second, in format 16.
fn record(folder: &Path, name: &str) {
    let sample = |at: i16| if at % 250 < 20 { 300 - 15 * (at % 250) } else { at % 7 };
    let samples: Vec<u8> = (0..7_500).map(sample).flat_map(i16::to_le_bytes).collect();
    write(folder, &format!("{name}.hea"), format!("{name} 1 250 7500\n{name}.dat 16 200 16 0 0 0 0 MLII\n"));
    write(folder, &format!("{name}.dat"), samples);
}

#[test]
fn one_bad_record_does_not_end_an_evaluation_of_heartbeats() {
    let folder = tempfile::tempdir().unwrap();
    let (data, beats) = (folder.path().join("data"), folder.path().join("beats.csv"));
    ["a", "b", "c"].iter().for_each(|name| record(&data, name));
    write(&data, "b.dat", b"short");
    write(&data, "c.atr", [0, 59 << 2, 0, 0]);
    write(&data, "d.hea", "d/2 1 250 100\n");
    let (data, beats) = (data.to_str().unwrap(), beats.to_str().unwrap());
    let done = answer(&["eval", "ecg", "--data", data, "--beats", beats]);
    assert_eq!((&done["records"], names(&done["set_aside"])), (&Value::from(2), vec!["b", "c.atr", "d"]));
    let figures = ["qrs_sensitivity", "qrs_precision", "classes", "mean_f1_n_s_v", "confusion"];
    assert!(figures.iter().all(|figure| done[figure].is_null()), "nothing is annotated: {done}");
    let written = std::fs::read_to_string(beats).unwrap();
    assert!(written.starts_with("record,time_s,label\na,") && written.contains("\nc,"), "{written}");
    for leads in ["0", "7"] {
        refused(&["eval", "ecg", "--data", data, "--leads", leads], "--leads");
    }
    refused(&["eval", "ecg", "--data", data, "--beats", &format!("{data}/a.dat")], "nothing was written");
    ["a", "c"].iter().for_each(|name| std::fs::remove_file(format!("{data}/{name}.dat")).unwrap());
    refused(&["eval", "ecg", "--data", data, "--beats", beats], "none of its 4 records");
}

#[test]
fn every_run_that_can_be_judged_gets_scores() {
    let folder = tempfile::tempdir().unwrap();
    let (data, scores) = (folder.path().join("data"), folder.path().join("scores"));
    let row = |n: u32| format!("2020-03-09 10:{:02}:{:02};{};{}", n / 60 % 60, n % 60, n % 5, n % 3);
    let labelled: String = (0..500).map(|n| format!("{};0\n", row(n))).collect();
    write(&data, "1.csv", format!("datetime;A;B;Anomaly\n{labelled}"));
    write(
        &data,
        "latin.csv",
        [&b"datetime;T\xe9;B;anomaly\n"[..], labelled.replacen(";0\n", ";\n", 1).as_bytes()].concat(),
    );
    write(&data, "one.csv", "datetime;A\n2020-03-09 10:00:00;1\n2020-03-09 10:00:01;2\n");
    write(&data, "empty.csv", "");
    let (data, scores) = (data.to_str().unwrap(), scores.to_str().unwrap());
    refused(&["eval", "skab", "--data", data, "--scores", data], "nothing was written");
    let done = answer(&["eval", "skab", "--data", data, "--scores", scores]);
    assert_eq!(done["files"], serde_json::json!({ "judged": 3, "labelled": 2, "set_aside": 1 }), "{done}");
    assert_eq!((names(&done["set_aside"]), names(&done["notes"])), (vec!["empty.csv"], vec!["latin.csv", "one.csv"]));
    for (name, lines) in [("1.csv", 501), ("latin.csv", 501), ("one.csv", 3)] {
        assert_eq!(std::fs::read_to_string(format!("{scores}/{name}")).unwrap().lines().count(), lines, "{name}");
    }
    let only = folder.path().join("only");
    write(&only, "empty.csv", "");
    refused(&["eval", "skab", "--data", only.to_str().unwrap()], "none of the 1 file");
}

#[test]
fn series_are_judged_with_and_without_windows() {
    let folder = tempfile::tempdir().unwrap();
    let (data, scores) = (folder.path().join("data"), folder.path().join("scores"));
    let row = |n: u32| {
        format!(
            "2014-04-0{} {:02}:{:02}:00,{}\n",
            1 + n / 288,
            n / 12 % 24,
            n % 12 * 5,
            if n == 900 { 500 } else { n % 7 }
        )
    };
    let rows: String = (0..1_200).map(row).collect();
    write(&data, "real/a.csv", format!("timestamp,value\n{rows}2014-04-06 00:00:00,\n"));
    write(&data, "real/b.csv", format!("timestamp,value\n{rows}"));
    let (data, scores) = (data.to_str().unwrap(), scores.to_str().unwrap());
    let arguments = ["eval", "anomaly", "--data", data, "--scores", scores];
    let done = answer(&arguments);
    assert_eq!(
        (names(&done["not_scored"]), &done["score_at_card_threshold"]),
        (vec!["real/a.csv", "real/b.csv"], &Value::Null)
    );
    let windows = r#"{"real/a.csv": [["2014-04-04 02:00:00.000000", "2014-04-04 04:00:00.000000"]]}"#;
    write(Path::new(data), "labels/combined_windows.json", windows);
    let done = answer(&arguments);
    assert!(done["score_leave_one_category_out"].is_null() && done["why_no_score"].is_string(), "{done}");
    assert!(done["score_at_card_threshold"].is_number() && done["categories"][0]["at_card"]["windows"] == 1, "{done}");
    assert_eq!((names(&done["files"]), names(&done["set_aside"])), (vec!["real/a.csv"], vec!["real/b.csv"]));
    assert_eq!((&done["files"][0]["rows_set_aside"], &done["files"][0]["windows"]), (&Value::from(1), &Value::from(1)));
    let written = std::fs::read_to_string(format!("{scores}/real/a.csv")).unwrap();
    assert!(written.starts_with("timestamp,value,anomaly_score,flagged\n") && written.lines().count() == 1_202);
    refused(&["eval", "anomaly", "--data", data, "--scores", &format!("{data}/real")], "nothing was written");
}

#[test]
fn glucose_is_judged_at_the_gateways_limits_and_in_its_unit() {
    let folder = tempfile::tempdir().unwrap();
    let row =
        |n: u32, value: String| format!("p,2014-02-0{}T{:02}:{:02}:00,{value}\n", 1 + n / 288, n / 12 % 24, n % 12 * 5);
    let value = |n: u32| if n == 50 { String::from("High") } else { format!("{}", 100 + n % 90) };
    let rows: String = (0..400).map(|n| row(n, value(n))).collect();
    let data = folder.path().join("mg");
    write(&data, "g.csv", format!("id,time,gl\n{rows}"));
    let done = answer(&["eval", "glucose", "--data", data.to_str().unwrap()]);
    assert_eq!((&done["rows_set_aside"], &done["low_alarms"]["limit_mg_dl"]), (&Value::from(1), &Value::from(70.0)));
    assert_eq!(done["high_alarms"]["limit_mg_dl"], 250.0);
    let forecasts = data.join("g.csv");
    refused(
        &["eval", "glucose", "--data", data.to_str().unwrap(), "--forecasts", forecasts.to_str().unwrap()],
        "nothing",
    );
    let data = folder.path().join("mmol");
    let rows: String = (0..400).map(|n| row(n, format!("{:.1}", 5.0 + f64::from(n % 9) / 3.0))).collect();
    write(&data, "g.csv", format!("id,time,gl\n{rows}"));
    let data = data.to_str().unwrap();
    refused(&["eval", "glucose", "--data", data], "--unit mmol/L");
    assert_eq!(answer(&["eval", "glucose", "--data", data, "--unit", "mmol/L"])["low_alarms"]["episodes"], 0);
}

#[test]
fn trainings_answer_in_json_and_refuse_what_gives_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let texts: String = (0..60)
        .map(|n| format!("the {} number {n} is here,{}\n", ["card", "pump"][n % 2], ["money", "water"][n % 2]))
        .collect();
    write(folder.path(), "texts/train.csv", format!("text,category\n{texts}"));
    let done = answer(&["train", "text", "--data", &path("texts"), "--epochs", "1", "--out", &path("model")]);
    assert_eq!(done["folder"], path("model"));
    refused(&["train", "text", "--data", &path("texts"), "--out", &path("texts")], "nothing was written");
    for task in ["anomaly", "multivariate", "activity", "sleep", "deterioration", "text"] {
        refused(&["train", task, "--epochs", "0", "--out", &path("none")], "at least one pass");
    }
    refused(&["train", "multivariate", "--data", &path("texts"), "--out", &path("none")], "too little to learn from");
    refused(&["train", "multivariate", "--data", &path("texts"), "--out", &path("texts")], "nothing was written");
    for task in ["glucose", "ecg"] {
        refused(
            &["train", task, "--epochs", "0", "--data", &path("texts"), "--out", &path("none")],
            "at least one pass",
        );
    }
}

#[test]
fn compression_speaks_of_what_was_asked() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("small").to_str().unwrap().to_owned();
    refused(&["compress", "forecaster", "--prune", "2", "--out", &out], "--prune");
    refused(&["compress", "forecaster", "--distill", "0", "--out", &out], "--distill");
    refused(&["compress", "forecaster", "--distill", "4000", "--out", &out], "units a layer");
    let done = nearside(&["compress", "deterioration", "--quantize", "q8_0", "--out", &out]);
    assert!(done.status.success() && said(&done).contains("AUROC"), "{}", said(&done));
    refused(&["compress", &out, "--quantize", "f16", "--out", &out], "nothing was written");
}

#[test]
fn a_replay_spares_what_it_reads_and_names_the_columns_it_found() {
    let folder = tempfile::tempdir().unwrap();
    let stream = "[[stream]]\nname = \"s\"\ntopic = \"s/{room}\"\nformat = \"number\"\nfields = { value = \"$\" }\nmodels = [\"robust-z\"]\n\
                  windows = [{ kind = \"count\", rows = 10 }]\n";
    let site = write_site(folder.path(), stream).to_str().unwrap().to_owned();
    write(folder.path(), "x.csv", "Timestamp,Value\n2014-04-01 00:00:00,1\n");
    write(folder.path(), "odd.csv", "when,how much\n2014-04-01 00:00:00,1\n");
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let replay = |input: &str, more: [&str; 2]| {
        let (input, base) = (path(input), ["replay", "--config", &site, "--stream", "s", "--input"]);
        nearside(&[&base[..], &[&input], &more].concat())
    };
    for option in ["--scores", "--findings", "--summaries"] {
        let output = replay("x.csv", [option, &path("x.csv")]);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    }
    assert!(std::fs::read_to_string(path("x.csv")).unwrap().starts_with("Timestamp,Value\n"), "it is as it was");
    let output = replay("x.csv", ["--scores", &path("s.csv")]);
    assert!(output.status.success() && said(&output).contains("1 row, 0 set aside"), "{}", said(&output));
    let output = replay("odd.csv", ["--scores", &path("s.csv")]);
    assert!(
        output.status.code() == Some(2) && said(&output).contains("the file has: when, how much"),
        "{}",
        said(&output)
    );
}
