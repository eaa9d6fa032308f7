//! What the program says to whoever runs it: what is wrong, and what to do about it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use common::{Gateway, PATIENCE, add_user, nearside, publish_all, write_site};
use nearside_schemas::{Clock, SystemClock};
use rumqttc::{AsyncClient, MqttOptions, QoS};

const SITE: &str = r#"
[[stream]]
name = "plain"
topic = "plain/{room}"
format = "json"
timestamp = { path = "$.ts", unit = "millis" }
fields = { value = "$.value", mood = "$.mood" }
privacy = { mood = "encrypt" }
windows = [{ kind = "count", rows = 4 }]
"#;

fn on_site(arguments: &[&str], site: &Path, more: &[&str]) -> Output {
    nearside(&[arguments, &[site.to_str().unwrap()], more].concat())
}

/// Exits with 1 and says all of these.
fn fails(output: &Output, says: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in says {
        assert!(text.contains(part), "`{part}` in: {text}");
    }
}

#[test]
fn a_site_that_has_not_run_yet_is_said_to_be_one() {
    let folder = tempfile::tempdir().unwrap();
    let site = write_site(folder.path(), SITE);
    for command in [["journal", "check"], ["outbox", "list"], ["deadletters", "list"]] {
        fails(&on_site(&command, &site, &[]), &["site `test-site` has not run yet", "data"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_left_is_named_with_its_remedy() {
    let gateway = Gateway::start(SITE);
    let site = gateway.site();
    fails(&on_site(&["run"], &site, &[]), &["a gateway runs on this data folder"]);
    fails(&on_site(&["deadletters", "show"], &site, &["999"]), &["error: ", "there is no letter 999"]);
    fails(&on_site(&["deadletters", "replay"], &site, &["999"]), &["error: ", "there is no letter 999"]);
    let messages = (0..9).map(|n| ("plain/a".to_owned(), format!("{{\"ts\":{n},\"value\":1}}").into_bytes()));
    publish_all("device", gateway.broker, messages.collect()).await;
    let (code, folder) = gateway.terminate();
    assert_eq!(code, Some(0));

    // Who reads the journal has read enough: that is no error.
    let mut show = Command::new(env!("CARGO_BIN_EXE_nearside"));
    let mut show = show.args(["journal", "show", site.to_str().unwrap()]);
    show = show.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = show.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));

    for file in ["sessions.redb", "checkpoint.redb"] {
        let path = folder.path().join("data").join(file);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, vec![7; whole.len()]).unwrap();
        fails(&on_site(&["run"], &site, &[]), &[file, "damaged", "move it away"]);
        std::fs::write(&path, whole).unwrap();
    }
}

#[test]
fn a_demonstration_whose_console_has_no_port_names_its_option() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = nearside(&["demo", "--seconds", "1", "--console", &address]);
    fails(&output, &[&address, "`--console`"]);
    let output = nearside(&["demo", "--console", "8080"]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("write 127.0.0.1:8080"));
}

/// Seconds where the stream expects milliseconds: nothing is decoded wrongly, and all of it is set aside; whoever looks finds out why.
#[tokio::test(flavor = "multi_thread")]
async fn seconds_for_milliseconds_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let site = write_site(folder.path(), SITE);
    let mut run = Command::new(env!("CARGO_BIN_EXE_nearside"))
        .args(["run", site.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines().map_while(Result::ok);
    let broker = lines.find_map(|line| line.trim().strip_prefix("devices  mqtt://").map(str::to_owned)).unwrap();
    let seconds = SystemClock.now().as_micros() / 1_000_000;
    let message = format!("{{\"ts\":{seconds},\"value\":1}}").into_bytes();
    publish_all("device", broker.parse().unwrap(), vec![("plain/a".to_owned(), message); 3]).await;
    // Stopping goes down the pipeline: what was acknowledged is judged before.
    assert!(Command::new("kill").args(["-TERM", &run.id().to_string()]).status().unwrap().success());
    drop(lines);
    let output = run.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let warnings: Vec<&str> = said.lines().filter(|line| line.contains("because of their time")).collect();
    assert_eq!(warnings.len(), 1, "said once: {said}");
    assert!(warnings[0].contains("plain") && warnings[0].contains("look like seconds"), "{said}");
}

/// Who is refused is named in the log where the site knows the name, with the address, and once; a name it does not know may be a
/// password in the wrong place.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_in_is_said_without_a_secret() {
    for (name, password, said) in [
        ("dora", "hunter2", "its password is wrong"),
        ("hunter2", "", "its user name is not in the user file"),
        ("vera", "word", "its user may not publish to that topic"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let users = folder.path().join("users.toml");
        add_user(&users, "dora", "device");
        add_user(&users, "vera", "viewer");
        let site = write_site(folder.path(), SITE);
        let text = std::fs::read_to_string(&site).unwrap().replace("[broker]\n", "[broker]\nusers = \"users.toml\"\n");
        std::fs::write(&site, text).unwrap();
        let gateway = Gateway::start_in(folder, &[]).map_err(drop).expect("it starts");
        for _ in 0..3 {
            let mut options = MqttOptions::new("private-id", gateway.broker.ip().to_string(), gateway.broker.port());
            options.set_credentials(name, password);
            let (client, mut events) = AsyncClient::new(options, 10);
            client.publish("private/topic", QoS::AtLeastOnce, false, "private payload").await.unwrap();
            let refused = async { while events.poll().await.is_ok() {} };
            tokio::time::timeout(PATIENCE, refused).await.expect("it is refused");
        }
        gateway.wait_until_said(said);
        let log = gateway.said();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("refused") || line.contains("let in")).collect();
        assert_eq!(lines.len(), 1, "{log}");
        assert!(lines[0].contains("WARN") && lines[0].contains("127.0.0.1"), "{log}");
        assert_eq!(lines[0].contains(&format!("\"{name}\"")), name != "hunter2", "{log}");
        assert!(!log.contains("hunter2") && !log.contains("private"), "{log}");
    }
}

/// A cloud that is away is not waited for: what it is to have is on disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_cloud_that_is_away() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    write_site(folder.path(), &format!("{SITE}[uplink]\nurl = \"mqtt://{nobody}\"\n"));
    // The test's patience is a minute.
    let gateway = Gateway::start_with(folder, &[], &["--grace", "3600"]).map_err(drop).expect("it starts");
    let now = SystemClock.now().as_micros() / 1_000;
    let message = |n: i64| ("plain/a".to_owned(), format!("{{\"ts\":{},\"value\":1}}", now + n).into_bytes());
    publish_all("device", gateway.broker, (0..9).map(message).collect()).await;
    gateway.wait_for("nearside_outbox_items{class=\"summary\"}", 2.0);
    let (code, folder) = gateway.terminate();
    assert_eq!(code, Some(0));
    let said = std::fs::read_to_string(folder.path().join("stderr.txt")).unwrap();
    assert!(said.contains("the cloud is away: 2 items wait on disk"), "{said}");
}

/// Prometheus sees a counter's first step only if the counter was there before.
#[test]
fn what_alerts_look_at_is_there_from_the_start() {
    let rule = "[[rule]]\nname = \"r\"\nwhen = \"true\"\npublish = { topic = \"x\", payload = \"y\" }\n";
    let gateway = Gateway::start(&format!("{SITE}{rule}[uplink]\nurl = \"mqtt://127.0.0.1:9\"\n"));
    let metrics = gateway.get("/metrics");
    let alerts = include_str!("../dashboards/alerts.yml");
    let expressions = alerts.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    let words = expressions.flat_map(|line| line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')));
    let names: Vec<&str> = words.filter(|word| word.starts_with("nearside_")).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        assert!(metrics.lines().any(|line| line.starts_with(&format!("{name}{{"))), "{name}: {metrics}");
    }
    for series in [
        "nearside_deadletters_total{stream=\"plain\",reason=\"malformed\"} 0",
        "nearside_deadletters_total{stream=\"none\",reason=\"no_stream\"} 0",
        "nearside_rule_errors_total{rule=\"r\"} 0",
    ] {
        assert!(metrics.lines().any(|line| line == series), "{series}: {metrics}");
    }
    assert_eq!(gateway.terminate().0, Some(0));
}

/// A number that is to leave encrypted is in the summary, and nowhere in clear.
#[test]
fn an_encrypted_number_is_in_the_summary() {
    let folder = tempfile::tempdir().unwrap();
    let site = write_site(folder.path(), SITE);
    let [input, summaries] = ["in.jsonl", "out.jsonl"].map(|name| folder.path().join(name));
    let rows: String = (0..4)
        .map(|n| format!("{{\"ts\":{},\"value\":1,\"mood\":7.25}}\n", 1_790_000_000_000i64 + n * 1_000))
        .collect();
    std::fs::write(&input, rows).unwrap();
    let [site, input, output] = [&site, &input, &summaries].map(|path| path.to_str().unwrap());
    let fixed = ["replay", "--config", site, "--stream", "plain", "--input", input, "--summaries", output];
    let result = nearside(&fixed);
    assert!(result.status.success(), "{result:?}");
    let text = std::fs::read_to_string(&summaries).unwrap();
    assert!(text.contains("\"sealed_fields\":{\"mood\":\"encrypted\"}") && !text.contains("7.25"), "{text}");
}
