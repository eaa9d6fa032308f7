//! A model learns online from the site's own rows: a candidate is tried, shadowed, put in force and watched, and a start after a crash goes on
//! with it. Where it turns out worse, or its passes fail, the version before is in force again, through a crash too. Its weights are on disk
//! encrypted alone, and nothing of it on a stream of patients.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;

use common::{Gateway, PATIENCE, nearside, publish_all, write_site};
use nearside_models::artefact::{Library, ModelsConfig, SALT};
use nearside_models::recent::OnlineConfig;
use nearside_models::train::online::Version;
use nearside_models::{card, catalog};
use nearside_privacy::KeyRing;
use nearside_schemas::ModelName;

const SITE: &str = "[models.online]\nmodels = [\"forecaster\"]\nevery = \"1s\"\nrows = 2_000\nleast_rows = 100\nepochs = 20\n\
                    [[stream]]\nname = \"s\"\ntopic = \"s/{room}\"\nformat = \"number\"\nfields = { value = \"$\" }\n\
                    windows = [{ kind = \"count\", rows = 10 }]\nmodels = [\"forecaster\"]\n";

/// What came of the steps so far.
fn steps(gateway: &Gateway, outcome: &str) -> f64 {
    gateway.metric(&format!("nearside_online_steps_total{{model=\"forecaster\",outcome=\"{outcome}\"}}"))
}

/// A saw-tooth that no series of the training has.
fn saw(row: usize) -> f64 {
    (row % 37) as f64 + (row % 5) as f64 * 0.3
}

/// Publishes a saw-tooth that the shipped weights do not know until a step has come to this.
async fn publish_until(gateway: &Gateway, outcome: &str, row: &mut usize) {
    let end = std::time::Instant::now() + 2 * PATIENCE;
    while steps(gateway, outcome) < 1.0 {
        assert!(std::time::Instant::now() < end, "{outcome} does not come: {}", gateway.state()["learning"]);
        let rows = (*row..*row + 200).map(|row| ("s/1".to_owned(), format!("{:.2}", saw(row)).into_bytes()));
        publish_all("device", gateway.broker, rows.collect()).await;
        *row += 200;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

/// The version of the forecaster in force.
fn version(gateway: &Gateway) -> String {
    let metrics = gateway.get("/metrics");
    let mut lines =
        metrics.lines().filter(|line| line.starts_with("nearside_model_in_force") && line.ends_with(" 1.0"));
    let line = lines.next().expect("one is in force");
    line.split("version=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_regime_is_learnt_put_in_force_and_kept_through_a_crash() {
    let gateway = Gateway::start(SITE);
    let (shipped, mut row) = (version(&gateway), 0);
    publish_until(&gateway, "promoted", &mut row).await;
    gateway.wait_for("nearside_model_changes_total{model=\"forecaster\",outcome=\"in_force\"}", 1.0);
    assert!(steps(&gateway, "shadowing") >= 1.0, "it was in shadow before");
    let learnt = version(&gateway);
    assert_ne!(learnt, shipped);
    assert!(gateway.get("/").contains("Models that learn"));
    publish_until(&gateway, "settled", &mut row).await;
    let learnt_folder = gateway.folder.path().join("data/models/.online/forecaster");
    let versions = std::fs::read_dir(&learnt_folder).unwrap().flatten().map(|entry| entry.path());
    let folder = versions.filter(|path| path.is_dir()).max().expect("it is on disk");
    assert!(folder.join("model.safetensors.enc").exists() && !folder.join("model.safetensors").exists());

    let gateway = Gateway::start_in(gateway.kill(), &[]).map_err(drop).expect("it starts");
    gateway.wait_for("nearside_ready{}", 1.0);
    assert_eq!(version(&gateway), learnt);
    let (code, folder) = gateway.terminate();
    assert_eq!(code, Some(0));

    // Without the flag the model is the one that ships.
    write_site(folder.path(), &SITE[SITE.find("[[stream]]").unwrap()..]);
    let gateway = Gateway::start_in(folder, &[]).map_err(drop).expect("it starts");
    assert_eq!(version(&gateway), shipped);
    assert_eq!(gateway.terminate().0, Some(0));
}

/// As [`SITE`], with many rows in a message.
const SITE_OF_BATCHES: &str = "[models.online]\nmodels = [\"forecaster\"]\nevery = \"3s\"\nrows = 2_800\nleast_rows = 250\nepochs = 15\n\
                               [[stream]]\nname = \"s\"\ntopic = \"s/{room}\"\nformat = \"json\"\nrows = \"$.v\"\n\
                               fields = { value = \"$.x\" }\nwindows = [{ kind = \"count\", rows = 10 }]\nmodels = [\"forecaster\"]\n";

/// Publishes rows of a stream of [`SITE_OF_BATCHES`].
async fn publish_rows(gateway: &Gateway, rows: std::ops::Range<usize>, value: impl Fn(usize) -> f64) {
    let rows: Vec<String> = rows.map(|row| format!("{{\"x\":{:.3}}}", value(row))).collect();
    let messages =
        rows.chunks(700).map(|rows| ("s/1".to_owned(), format!("{{\"v\":[{}]}}", rows.join(",")).into_bytes()));
    publish_all("device", gateway.broker, messages.collect()).await;
}

/// A slow wave with noise, which the weights that ship know better than those that learnt the saw-tooth.
fn wave(row: usize) -> f64 {
    let hashed = (row as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let uniform = |shift: u32| f64::from((hashed >> shift) as u16) / f64::from(u16::MAX);
    18.0 + 60.0 * (row as f64 / 150.0).sin() + uniform(48) + uniform(32) + uniform(16) - 1.5
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_turns_out_worse_is_taken_back_and_stays_so_through_a_crash() {
    let gateway = Gateway::start(SITE_OF_BATCHES);
    let (shipped, mut row) = (version(&gateway), 0);
    let end = std::time::Instant::now() + 2 * PATIENCE;
    while steps(&gateway, "promoted") < 1.0 {
        assert!(std::time::Instant::now() < end, "nothing is promoted: {}", gateway.state()["learning"]);
        publish_rows(&gateway, row..row + 100, saw).await;
        row += 100;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    // The regime is gone at once: of all rows that it is compared on none is of the saw-tooth.
    publish_rows(&gateway, row..row + 2_800, wave).await;
    let in_force = "nearside_model_changes_total{model=\"forecaster\",outcome=\"in_force\"}";
    gateway.wait_for(in_force, 1.0);
    gateway.wait_for("nearside_online_steps_total{model=\"forecaster\",outcome=\"rolled_back\"}", 1.0);
    gateway.wait_until_said("rolled_back");
    assert_eq!(steps(&gateway, "settled"), 0.0);
    assert!(gateway.state()["learning"].to_string().contains(&format!("to {shipped}; loss")), "people are told");

    // Cut off, most likely before the version that ships is in force again.
    let folder = gateway.kill();
    write_site(folder.path(), &SITE_OF_BATCHES.replace("every = \"3s\"", "every = \"1h\""));
    let gateway = Gateway::start_in(folder, &[]).map_err(drop).expect("it starts");
    gateway.wait_for(&format!("nearside_model_in_force{{model=\"forecaster\",version=\"{shipped}\"}}"), 1.0);
    assert_eq!(version(&gateway), shipped);
    let gateway = Gateway::start_in(gateway.kill(), &[]).map_err(drop).expect("it starts");
    gateway.wait_for("nearside_ready{}", 1.0);
    assert_eq!(version(&gateway), shipped, "what was taken back does not come back");
    let learnt = std::fs::read_dir(gateway.folder.path().join("data/models/.online/forecaster")).unwrap().flatten();
    assert_eq!(learnt.filter(|entry| entry.path().is_dir()).count(), 0, "nor is it kept");
    assert_eq!(gateway.terminate().0, Some(0));
}

/// Weights that give finite numbers for what a model is tried with and none for a value far off its level: they take the newest value's
/// distance times almost the largest number there is.
fn failing() -> Version {
    let (mut card, weights) = catalog::parts("forecaster", None).unwrap();
    let mut bytes = weights.into_owned();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let skip = &header["skip.weight"];
    let number = |value: &serde_json::Value| value.as_u64().unwrap() as usize;
    let (start, outputs) = (number(&skip["data_offsets"][0]), number(&skip["shape"][1]));
    let data = &mut bytes[8 + length..];
    data.fill(0);
    let first = data[start..start + 4 * outputs].chunks_exact_mut(4);
    first.for_each(|weight| weight.copy_from_slice(&1e38_f32.to_le_bytes()));
    card.version = "1-failing".to_owned();
    card.sha256 = Some(card::digest(&bytes));
    Version { card, weights: bytes }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_that_a_crash_cut_off_is_on_trial_and_taken_back_where_its_passes_fail() {
    let gateway = Gateway::start(&SITE.replace("every = \"1s\"", "every = \"1h\""));
    let shipped = version(&gateway);
    // A jump now and then.
    let value = |n: usize| 20.0 + (n as f64 * 0.7).sin() + if n % 400 == 399 { 60.0 } else { 0.0 };
    let rows = |range: std::ops::Range<usize>| -> Vec<_> {
        range.map(|n| ("s/1".to_owned(), format!("{:.4}", value(n)).into_bytes())).collect()
    };
    publish_all("first", gateway.broker, rows(0..405)).await;

    // As the gateway does at a promotion, and is killed before it comes in force.
    let folder = gateway.kill();
    let name = ModelName::new("forecaster").unwrap();
    let online = OnlineConfig { models: vec![name], ..OnlineConfig::default() };
    let config = ModelsConfig { online, ..ModelsConfig::default() };
    let keys = KeyRing::load(&folder.path().join("data/site.key")).unwrap();
    let library = Library::new(&config, folder.path(), folder.path().join("data/models"), Some(Arc::new(keys)));
    library.put_learnt("forecaster", &failing(), [7; SALT]).unwrap();

    let change = |outcome: &str| format!("nearside_model_changes_total{{model=\"forecaster\",outcome=\"{outcome}\"}}");
    let gateway = Gateway::start_in(folder, &[]).map_err(drop).expect("it starts");
    gateway.wait_for(&change("in_force"), 1.0);
    assert_eq!(version(&gateway), "1-failing");
    // Its trial goes on in the next run.
    let gateway = Gateway::start_in(gateway.kill(), &[]).map_err(drop).expect("it starts");
    gateway.wait_for("nearside_ready{}", 1.0);
    assert_eq!((version(&gateway).as_str(), gateway.metric(&change("rolled_back"))), ("1-failing", 0.0));
    publish_all("second", gateway.broker, rows(405..845)).await;
    gateway.wait_for(&change("rolled_back"), 1.0);
    gateway.wait_until_said("the version before is in force again");
    assert_eq!(version(&gateway), shipped);
    let errors = "nearside_inference_errors_total{model=\"forecaster\"}";
    assert!(gateway.metric(errors) >= 1.0);

    let gateway = Gateway::start_in(gateway.kill(), &[]).map_err(drop).expect("it starts");
    gateway.wait_for("nearside_ready{}", 1.0);
    publish_all("third", gateway.broker, rows(845..1_245)).await;
    gateway.wait_for("nearside_inference_rows_total{model=\"forecaster\"}", 400.0);
    assert_eq!((version(&gateway), gateway.metric(errors)), (shipped, 0.0), "it is not tried again");
    assert_eq!(gateway.terminate().0, Some(0));
}

#[test]
fn what_cannot_learn_and_where_patients_are_judged_is_refused() {
    let run = |site: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = write_site(folder.path(), site);
        let output = nearside(&["run", path.to_str().unwrap()]);
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = run(&SITE.replace("\"forecaster\"", "\"robust-z\""));
    assert!(said.contains("cannot learn online"), "{said}");
    let glucose = "fields = { glucose = { path = \"$\", unit = \"mg/dL\" } }";
    let patients = SITE.replace("fields = { value = \"$\" }", glucose).replace(
        "rows = 10 }]\nmodels = [\"forecaster\"]",
        "rows = 10 }]\nmodels = [\"forecaster\", \"glucose-range\"]",
    );
    let said = run(&patients);
    assert!(said.contains("for patients"), "{said}");
    let said = run(&SITE.replace("every = \"1s\"", "every = \"1ms\""));
    assert!(said.contains("online.every"), "{said}");
}
