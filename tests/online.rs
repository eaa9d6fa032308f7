//! A model learns online from the site's own rows: a candidate is tried, shadowed, put in force and watched, and a start after a crash goes on
//! with it. Its weights are on disk encrypted alone, and nothing of it on a stream of patients.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Gateway, PATIENCE, nearside, publish_all, write_site};

const SITE: &str = "[models.online]\nmodels = [\"forecaster\"]\nevery = \"1s\"\nrows = 2_000\nleast_rows = 100\nepochs = 20\n\
                    [[stream]]\nname = \"s\"\ntopic = \"s/{room}\"\nformat = \"number\"\nfields = { value = \"$\" }\n\
                    windows = [{ kind = \"count\", rows = 10 }]\nmodels = [\"forecaster\"]\n";

/// What came of the steps so far.
fn steps(gateway: &Gateway, outcome: &str) -> f64 {
    gateway.metric(&format!("nearside_online_steps_total{{model=\"forecaster\",outcome=\"{outcome}\"}}"))
}

/// Publishes a saw-tooth that the shipped weights do not know until a step has come to this.
async fn publish_until(gateway: &Gateway, outcome: &str, row: &mut usize) {
    let end = std::time::Instant::now() + 2 * PATIENCE;
    while steps(gateway, outcome) < 1.0 {
        assert!(std::time::Instant::now() < end, "{outcome} does not come: {}", gateway.state()["learning"]);
        let value = |row: usize| (row % 37) as f64 + (row % 5) as f64 * 0.3;
        let rows = (*row..*row + 200).map(|row| ("s/1".to_owned(), format!("{:.2}", value(row)).into_bytes()));
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
