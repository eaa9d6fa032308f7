//! Models that a site brings itself: signed, encrypted, refused with the reason, and put in force while the gateway runs without losing a
//! window.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Output;

use common::{Cloud, Gateway, client, nearside, publish_all, write_site};
use nearside_models::artefact;
use nearside_models::catalog;
use nearside_schemas::ModelName;
use rumqttc::{Event, Packet, QoS};

const STREAM: &str = "[[stream]]\nname = \"s\"\ntopic = \"s/{room}\"\nformat = \"number\"\nfields = { value = \"$\" }\n\
                      windows = [{ kind = \"count\", rows = 10 }]\n";

/// Writes a folder with the weights of the forecaster that ships, under a name and version.
fn forecaster(folder: &Path, name: &str, version: &str) -> PathBuf {
    let (mut card, weights) = catalog::parts("forecaster", None).unwrap();
    card.method = (name != "forecaster").then(|| String::from("forecaster"));
    card.name = ModelName::new(name).unwrap();
    card.version = version.to_owned();
    // As somebody would who puts it there: beside first, then in its place at once.
    let (draft, place) = (folder.join("draft").join(name), folder.join("models").join(name));
    artefact::write(&draft, &card, &weights).unwrap();
    std::fs::create_dir_all(folder.join("models")).unwrap();
    if place.exists() {
        std::fs::remove_dir_all(&place).unwrap();
    }
    std::fs::rename(&draft, &place).unwrap();
    place
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn succeed(arguments: &[&str]) -> String {
    let output = nearside(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    text(&output)
}

fn refused(arguments: &[&str], because: &str) {
    let output = nearside(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output));
    assert!(text(&output).contains(because), "{arguments:?}: {}", text(&output));
}

#[test]
fn a_model_is_signed_checked_listed_and_encrypted_from_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let model = forecaster(folder.path(), "pump-hall", "1").to_str().unwrap().to_owned();
    let key = succeed(&["models", "keygen", "--out", &path("vendor.key")]).trim().to_owned();
    assert!(key.starts_with("ed25519:"), "{key}");
    assert!(!nearside(&["models", "keygen", "--out", &path("vendor.key")]).status.success(), "never overwritten");

    let site = |required: bool| {
        let rest = format!(
            "[models]\nfolder = \"models\"\ntrusted_keys = [\"{key}\"]\nrequire_signature = {required}\n{STREAM}models = [\"pump-hall\"]\n"
        );
        write_site(folder.path(), &rest).to_str().unwrap().to_owned()
    };
    succeed(&["check", &site(false)]);
    refused(&["check", &site(true)], "nearside models sign");
    succeed(&["models", "sign", &model, "--key", &path("vendor.key")]);
    succeed(&["check", &site(true)]);
    assert!(succeed(&["models", "verify", &model, "--trust", &key]).contains("trusted"));
    let other = succeed(&["models", "keygen", "--out", &path("other.key")]).trim().to_owned();
    refused(&["models", "verify", &model, "--trust", &other], "trusted_keys");

    // A replay makes the key ring of nobody; the gateway's own is made by its first start.
    let gateway = Gateway::start_in(folder, &[]).expect("it starts");
    let site_key = gateway.key_file().to_str().unwrap().to_owned();
    let (code, folder) = gateway.terminate();
    assert_eq!(code, Some(0));
    succeed(&["models", "encrypt", &model, "--site-key", &site_key]);
    assert!(!Path::new(&model).join("model.safetensors").exists());
    let site = folder.path().join("site.toml").to_str().unwrap().to_owned();
    succeed(&["check", &site]);
    let listed = succeed(&["models", "list", &site]);
    let line = listed.lines().find(|line| line.starts_with("pump-hall")).unwrap();
    assert!(line.contains("folder") && line.contains("trusted"), "{line}");
    assert!(listed.contains("robust-z\t1\tshipped"), "{listed}");
    refused(&["models", "verify", &model], "no site's key");

    // Damaged, it is refused; the copy of what was in force stands in, so that the gateway starts.
    let card = Path::new(&model).join("card.toml");
    std::fs::write(&card, std::fs::read_to_string(&card).unwrap().replace("0.", "0.1")).unwrap();
    refused(&["models", "verify", &model, "--site-key", &site_key], "changed");
    assert!(succeed(&["check", &site]).contains("pump-hall@1 is used instead"));
    let gateway = Gateway::start_in(folder, &[]).map_err(drop).expect("it starts");
    assert_eq!(gateway.metric("nearside_model_changes_total{model=\"pump-hall\",outcome=\"refused\"}"), 1.0);
    assert_eq!(gateway.metric("nearside_model_in_force{model=\"pump-hall\",version=\"1\"}"), 1.0);
    assert_eq!(gateway.terminate().0, Some(0));
}

/// What a device with a fault sends: enough for the forecaster to warm up, then a jump.
fn readings(from: usize, count: usize) -> Vec<(String, Vec<u8>)> {
    let value = |n: usize| 20.0 + (n as f64 * 0.7).sin() + if n % 400 == 399 { 60.0 } else { 0.0 };
    (from..from + count).map(|n| ("s/1".to_owned(), format!("{:.4}", value(n)).into_bytes())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_is_put_in_force_while_readings_come_and_no_window_is_lost() {
    let cloud = Cloud::start().await;
    let folder = tempfile::tempdir().unwrap();
    forecaster(folder.path(), "forecaster", "one");
    let uplink = format!("[uplink]\nurl = \"mqtt://{}\"\n", cloud.address);
    write_site(folder.path(), &format!("[models]\nfolder = \"models\"\n{STREAM}models = [\"forecaster\"]\n{uplink}"));
    let gateway = Gateway::start_in(folder, &[]).map_err(drop).expect("it starts");
    let root = gateway.folder.path().to_owned();
    publish_all("first", gateway.broker, readings(0, 405)).await;
    let of = |version: &'static str| {
        move |_: &str, event: &serde_json::Value| event["data"]["models"][0]["version"] == version
    };
    cloud.wait_for(of("one")).await;

    // A device goes on sending on one connection while the version changes.
    let (device, mut events) = client("second", gateway.broker);
    let sender = tokio::spawn(async move {
        for (topic, payload) in readings(405, 395) {
            device.publish(topic, QoS::AtLeastOnce, false, payload).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        device
    });
    let acknowledged = tokio::spawn(async move {
        let mut count = 0;
        while count < 395 {
            if let Event::Incoming(Packet::PubAck(_)) = events.poll().await.expect("the connection holds") {
                count += 1;
            }
        }
    });
    forecaster(&root, "forecaster", "two");
    gateway.wait_for("nearside_model_changes_total{model=\"forecaster\",outcome=\"in_force\"}", 1.0);
    tokio::time::timeout(common::PATIENCE, acknowledged).await.expect("all are acknowledged").unwrap();
    let _device = sender.await.unwrap();
    cloud.wait_for(of("two")).await;
    assert_eq!(gateway.metric("nearside_model_in_force{model=\"forecaster\",version=\"one\"}"), 0.0);
    assert_eq!(gateway.metric("nearside_model_in_force{model=\"forecaster\",version=\"two\"}"), 1.0);

    // 800 rows are 80 windows of 10, each once and whole, and what the forecaster knew of the stream lived on.
    gateway.wait_for("nearside_windows_closed_total{stream=\"s\",cause=\"full\"}", 80.0);
    let summaries = || {
        let events = cloud.events();
        let whole = events
            .iter()
            .filter(|(_, event)| event["data"]["rows"] == 10 && event["data"]["verdict"]["state"] == "judged");
        let ids: std::collections::BTreeSet<String> = whole.map(|(_, event)| event["id"].to_string()).collect();
        ids.len()
    };
    let end = std::time::Instant::now() + common::PATIENCE;
    while summaries() < 80 {
        assert!(std::time::Instant::now() < end, "{} windows: {:?}", summaries(), cloud.events().first());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }

    // A version that is damaged, and one that calls itself what is in force, change nothing.
    let place = root.join("models/forecaster");
    std::fs::write(place.join("model.safetensors"), b"nothing").unwrap();
    gateway.wait_for("nearside_model_changes_total{model=\"forecaster\",outcome=\"refused\"}", 1.0);
    let path = forecaster(&root, "forecaster", "two").join("card.toml");
    let card = std::fs::read_to_string(&path).unwrap().replace("threshold = 0.", "threshold = 0.0");
    std::fs::write(&path, card).unwrap();
    gateway.wait_for("nearside_model_changes_total{model=\"forecaster\",outcome=\"refused\"}", 2.0);
    assert_eq!(gateway.metric("nearside_model_in_force{model=\"forecaster\",version=\"two\"}"), 1.0);
    assert_eq!(gateway.terminate().0, Some(0));
}

fn last_line(text: &str) -> serde_json::Value {
    let line = text.lines().rev().find(|line| line.starts_with('{')).expect(text);
    serde_json::from_str(line).unwrap()
}

#[test]
fn a_compressed_model_is_smaller_says_what_it_cost_and_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let site =
        write_site(folder.path(), &format!("[models]\nfolder = \"models\"\n{STREAM}models = [\"forecaster\"]\n"));
    let site = site.to_str().unwrap().to_owned();
    std::fs::create_dir(folder.path().join("models")).unwrap();
    let out = path("models/forecaster");
    let done = succeed(&["compress", "forecaster", "--quantize", "q8_0", "--out", &out]);
    assert!(done.contains("weights file, bytes") && done.contains("forward pass"), "{done}");
    let figures = last_line(&done);
    let number = |at: &str| figures.pointer(at).and_then(serde_json::Value::as_f64).unwrap();
    assert!(number("/bytes/before") >= 3.0 * number("/bytes/after"), "{figures}");
    let (before, after) = (number("/accuracy/before/value"), number("/accuracy/after/value"));
    assert!((after / before - 1.0).abs() < 0.01, "{figures}");
    succeed(&["check", &site]);
    let version = figures["compressed"].as_str().unwrap().rsplit_once('@').unwrap().1.to_owned();
    let listed = succeed(&["models", "list", &site]);
    assert!(listed.contains(&format!("forecaster\t{version}\tfolder")), "{listed}");

    // A smaller network, of units of the larger one, and quantised besides.
    let done =
        succeed(&["compress", &out, "--prune", "0.5", "--epochs", "1", "--quantize", "f16", "--out", &path("half")]);
    let figures = last_line(&done);
    assert_eq!(figures["model"].as_str().unwrap(), format!("forecaster@{version}"));
    let half = succeed(&["models", "verify", &path("half")]);
    assert!(half.contains("good") && half.contains("name the folder `forecaster`, or the card `half`"), "{half}");
    assert!(!succeed(&["models", "verify", &out]).contains("name the folder"));
    // Heartbeats are measured on recordings alone.
    let done = succeed(&["compress", "ecg-rhythm", "--quantize", "q8_0", "--out", &path("ecg-rhythm")]);
    assert!(done.contains("accuracy: not measured") && !done.contains("0.0000"), "{done}");
    assert!(last_line(&done)["accuracy"]["after"].is_null(), "{done}");
    let card = std::fs::read_to_string(folder.path().join("ecg-rhythm/card.toml")).unwrap();
    assert!(!card.contains("[[metrics]]"), "{card}");
    refused(&["compress", "news2", "--quantize", "q8_0", "--out", &path("none")], "no weights");
    refused(&["compress", "ecg-rhythm", "--prune", "0.5", "--out", &path("none")], "can be quantised");
}

/// A site's own texts, of two labels.
fn texts(folder: &Path) {
    let words = [["card", "fee", "transfer", "account"], ["pump", "leak", "pipe", "valve"]];
    let line =
        |n: usize| format!("the {} is here, number {n},{}\n", words[n % 2][n / 2 % 4], ["money", "water"][n % 2]);
    let lines: String = (0..400).map(line).collect();
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("train.csv"), format!("text,category\n{}", lines.replace(" here,", " here"))).unwrap();
}

/// A classifier of a site's own texts, smaller in every way there is, in force in a gateway, which says what it said before.
#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_classifier_of_texts_is_smaller_as_good_and_judges_in_a_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    texts(&folder.path().join("texts"));
    let data = path("texts");
    succeed(&["train", "text", "--data", &data, "--epochs", "4", "--out", &path("own")]);
    let mut version = String::new();
    for (how, smaller) in [
        (&["--quantize", "f16"][..], 1.2),
        (&["--quantize", "q8_0"], 1.9),
        (&["--quantize", "q4_0"], 2.0),
        (&["--prune", "0.5"], 1.2),
        (&["--prune", "0.5", "--quantize", "q8_0"], 2.0),
    ] {
        let out = path("models/text-triage");
        let done = succeed(&[&["compress", &path("own"), "--data", &data, "--out", &out][..], how].concat());
        let figures = last_line(&done);
        let number = |at: &str| figures.pointer(at).and_then(serde_json::Value::as_f64).unwrap();
        assert!(number("/bytes/before") >= smaller * number("/bytes/after"), "{how:?}: {figures}");
        assert!(number("/accuracy/before/value") > 90.0, "{figures}");
        assert!(number("/accuracy/after/value") > number("/accuracy/before/value") - 1.0, "{how:?}: {figures}");
        version = figures["compressed"].as_str().unwrap().rsplit_once('@').unwrap().1.to_owned();
        let tested = succeed(&["eval", "text", "--data", &data, "--folder", &out]);
        let accuracy = last_line(&tested)["report"]["labels"]["accuracy"].as_f64().unwrap();
        assert!((100.0 * accuracy - number("/accuracy/after/value")).abs() < 1e-6, "{tested}");
        assert!(succeed(&["models", "verify", &out]).contains("good"));
    }
    let stream = "[models]\nfolder = \"models\"\n[[stream]]\nname = \"notes\"\ntopic = \"s/{room}\"\nformat = \"json\"\n\
                  fields = { note = { path = \"$.note\", kind = \"text\" } }\n\
                  windows = [{ kind = \"count\", rows = 10 }]\nmodels = [\"text-triage\"]\n";
    write_site(folder.path(), stream);
    let gateway = Gateway::start_in(folder, &[]).map_err(drop).expect("it starts");
    let in_force = format!("nearside_model_in_force{{model=\"text-triage\",version=\"{version}\"}}");
    assert_eq!(gateway.metric(&in_force), 1.0);
    let note = |n: usize| (String::from("s/hall"), format!("{{\"note\": \"the pump has a leak, {n}\"}}").into_bytes());
    publish_all("notes", gateway.broker, (0..20).map(note).collect()).await;
    gateway.wait_for("nearside_findings_total{stream=\"notes\",label=\"water\",severity=\"notice\"}", 1.0);
    assert_eq!(gateway.terminate().0, Some(0));
}

#[test]
fn what_cannot_be_done_to_a_classifier_of_texts_is_said_with_what_can() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    texts(&folder.path().join("texts"));
    succeed(&["train", "text", "--data", &path("texts"), "--epochs", "1", "--out", &path("own")]);
    let (own, out) = (path("own"), path("none"));
    refused(
        &["compress", &own, "--distill", "8", "--out", &out],
        "has no hidden units; a bag of n-grams can be pruned",
    );
    refused(&["compress", &own, "--quantize", "q8_0", "--encoder", &own, "--out", &out], "no head on an encoder");
    refused(&["compress", &own, "--quantize", "q8_0", "--data", &path("texts"), "--out", &own], "nothing was written");
    assert!(!folder.path().join("none").exists());
    let done = succeed(&["compress", &own, "--quantize", "q8_0", "--out", &path("small")]);
    assert!(done.contains("accuracy: not measured; name --data"), "{done}");
    // Cut off, and the digest on the card made to fit: what is left is no model.
    let (card, file) = (folder.path().join("small/card.toml"), folder.path().join("small/model.gguf"));
    let weights = std::fs::read(&file).unwrap();
    let whole = nearside_models::card::digest(&weights);
    std::fs::write(&file, &weights[..weights.len() / 2]).unwrap();
    refused(&["models", "verify", &path("small")], "SHA-256");
    let cut = nearside_models::card::digest(&weights[..weights.len() / 2]);
    let text = std::fs::read_to_string(&card).unwrap().replace(&whole, &cut);
    std::fs::write(&card, text).unwrap();
    refused(&["models", "verify", &path("small")], "it ends before all that it announces");
}

/// A recording of a site: a saw-tooth that nothing else has, or noise that nobody can learn.
fn record(folder: &Path, rows: usize, value: impl Fn(usize) -> f64) {
    std::fs::create_dir_all(folder).unwrap();
    let time = |row: usize| format!("2026-03-{:02} {:02}:{:02}:00", 1 + row / 1440, row / 60 % 24, row % 60);
    let lines: String = (0..rows).map(|row| format!("{},{:.3}\n", time(row), value(row))).collect();
    std::fs::write(folder.join("hall.csv"), format!("time,pressure\n{lines}")).unwrap();
}

#[test]
fn a_model_is_tuned_on_recordings_and_kept_only_where_it_is_better() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    record(&folder.path().join("saw"), 6_000, |row| (row % 37) as f64 + (row % 5) as f64 * 0.3);
    let done = succeed(&["finetune", "forecaster", "--data", &path("saw"), "--epochs", "4", "--out", &path("tuned")]);
    assert!(done.contains("frozen hidden1.weight, hidden1.bias"), "{done}");
    let report = last_line(&done);
    assert!(report["report"]["loss_after"].as_f64() < report["report"]["loss_before"].as_f64(), "{report}");
    let card = std::fs::read_to_string(folder.path().join("tuned/card.toml")).unwrap();
    assert!(
        card.contains("frozen = [\"hidden1.weight\", \"hidden1.bias\"]") && card.contains("from = \"forecaster@"),
        "{card}"
    );
    assert!(succeed(&["models", "verify", &path("tuned")]).contains("good"));

    // Without a pass nothing is better than before: nothing is written but by force.
    let arguments = ["finetune", "forecaster", "--data", &path("saw"), "--epochs", "0", "--out", &path("worse")];
    refused(&arguments, "not better");
    assert!(!folder.path().join("worse").exists());
    succeed(&[&arguments[..], &["--force"]].concat());
    refused(&["finetune", "news2", "--data", &path("saw"), "--out", &path("none")], "no weights");
    refused(
        &["finetune", "multivariate", "--data", &path("saw"), "--out", &path("none")],
        "learns each stream by itself",
    );
}

/// Weights that give finite numbers for what a model is tried with and none for a value far off its level: they take the newest value's
/// distance times almost the largest number there is.
fn failing(folder: &Path, version: &str) {
    let place = forecaster(folder, "forecaster", version);
    let path = place.join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let skip = &header["skip.weight"];
    let (start, outputs) =
        (skip["data_offsets"][0].as_u64().unwrap() as usize, skip["shape"][1].as_u64().unwrap() as usize);
    let data = &mut bytes[8 + length..];
    data.fill(0);
    data[start..start + 4 * outputs]
        .chunks_exact_mut(4)
        .for_each(|weight| weight.copy_from_slice(&1e38_f32.to_le_bytes()));
    let mut card = catalog::card("forecaster", Some(&place)).unwrap();
    card.sha256 = Some(nearside_models::card::digest(&bytes));
    let draft = folder.join("draft").join("failing");
    artefact::write(&draft, &card, &bytes).unwrap();
    std::fs::remove_dir_all(&place).unwrap();
    std::fs::rename(&draft, &place).unwrap();
}

const ONE: &str = "nearside_model_in_force{model=\"forecaster\",version=\"one\"}";
const TWO: &str = "nearside_model_in_force{model=\"forecaster\",version=\"two\"}";

/// A version whose passes fail is in force: it gives way to the one before, in this run and the next.
async fn rolls_back(gateway: Gateway) {
    let changes = |outcome: &str| format!("nearside_model_changes_total{{model=\"forecaster\",outcome=\"{outcome}\"}}");
    gateway.wait_for(&changes("in_force"), 1.0);
    assert_eq!(gateway.metric(TWO), 1.0);
    // A jump, and what comes once it is part of the past.
    publish_all("second", gateway.broker, readings(405, 440)).await;
    gateway.wait_for(&changes("rolled_back"), 1.0);
    assert_eq!((gateway.metric(ONE), gateway.metric(TWO)), (1.0, 0.0));
    let errors = gateway.metric("nearside_inference_errors_total{model=\"forecaster\"}");
    assert!(errors >= 1.0);
    publish_all("third", gateway.broker, readings(845, 400)).await;
    gateway.wait_for("nearside_inference_rows_total{model=\"forecaster\"}", 840.0);
    assert_eq!(
        gateway.metric("nearside_inference_errors_total{model=\"forecaster\"}"),
        errors,
        "the one before judges"
    );
    let (code, folder) = gateway.terminate();
    assert_eq!(code, Some(0));
    let gateway = Gateway::start_in(folder, &[]).map_err(drop).expect("it starts");
    assert_eq!((gateway.metric(ONE), gateway.metric(TWO)), (1.0, 0.0), "it is not tried again");
    assert!(gateway.metric(&changes("refused")) >= 1.0);
    assert_eq!(gateway.terminate().0, Some(0));
}

fn with_version_one() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    forecaster(folder.path(), "forecaster", "one");
    write_site(folder.path(), &format!("[models]\nfolder = \"models\"\n{STREAM}models = [\"forecaster\"]\n"));
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_whose_passes_fail_gives_way_to_the_one_before() {
    let gateway = Gateway::start_in(with_version_one(), &[]).map_err(drop).expect("it starts");
    publish_all("first", gateway.broker, readings(0, 405)).await;
    failing(gateway.folder.path(), "two");
    rolls_back(gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_found_at_the_start_is_on_trial_and_the_journal_is_taken_in_without_it() {
    let gateway = Gateway::start_in(with_version_one(), &[]).map_err(drop).expect("it starts");
    publish_all("first", gateway.broker, readings(0, 405)).await;
    let folder = gateway.kill();
    failing(folder.path(), "two");
    let gateway = Gateway::start_in(folder, &[]).map_err(drop).expect("it starts");
    assert_eq!((gateway.metric(ONE), gateway.metric(TWO)), (1.0, 0.0), "that which judged what the journal holds");
    rolls_back(gateway).await;
}
