//! The program from outside: devices, rules, cloud, bad input, wrong configurations.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Cloud, Gateway, PATIENCE, client, nearside, publish_all, write_site};
use nearside_schemas::{Clock, SystemClock};
use rumqttc::{Event, Packet, QoS};

const NAME: &str = "张三丰-Rumpelstilzchen";

fn site(cloud: &Cloud) -> String {
    format!(
        r#"
[[stream]]
name = "temperature"
topic = "城市/{{room}}/温度"
format = "json"
timestamp = "$.ts"
fields = {{ value = "$.value", who = {{ path = "$.who", kind = "text" }} }}
windows = [{{ kind = "count", rows = 20 }}]
models = ["robust-z"]
privacy = {{ room = "encrypt", who = "encrypt" }}
idle = "1s"
[[stream]]
name = "plain"
topic = "plain/{{room}}"
format = "number"
fields = {{ value = "$" }}
windows = [{{ kind = "count", rows = 3 }}]
[[rule]]
name = "cool"
streams = ["temperature"]
when = "finding.label == 'spike'"
publish = {{ topic = "城市/{{room}}/风扇", payload = '{{"seen": ${{finding.seen.value}}}}' }}
[uplink]
url = "mqtt://{}"
backoff_min = "50ms"
"#,
        cloud.address
    )
}

fn reading(n: i64, value: f64) -> Vec<u8> {
    let ts = SystemClock.now().as_micros() / 1_000 - 100_000 + n * 100;
    format!(r#"{{"ts":{ts},"value":{value},"who":"{NAME}"}}"#).into_bytes()
}

/// 120 ordinary readings and one that is not.
fn readings() -> Vec<(String, Vec<u8>)> {
    let value = |n: i64| if n == 110 { 95.0 } else { 20.0 + (n * 7 % 10) as f64 / 10.0 };
    (0..120).map(|n| ("城市/厨房/温度".to_owned(), reading(n, value(n)))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_becomes_a_command_and_a_sealed_summary() {
    let cloud = Cloud::start().await;
    let gateway = Gateway::start(&site(&cloud));
    let (fan, mut commands) = client("fan", gateway.broker);
    fan.subscribe("城市/+/风扇", QoS::AtLeastOnce).await.unwrap();
    while !matches!(commands.poll().await.unwrap(), Event::Incoming(Packet::SubAck(_))) {}
    publish_all("sensor", gateway.broker, readings()).await;

    // The device hears of it, on a Chinese topic.
    let command = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Event::Incoming(Packet::Publish(publish)) = commands.poll().await.unwrap() {
                return publish;
            }
        }
    })
    .await
    .unwrap();
    assert_eq!((command.topic.as_str(), &command.payload[..]), ("城市/厨房/风扇", &br#"{"seen": 95.0}"#[..]));

    // The cloud gets the finding and the summary of its window, and nothing personal in either.
    cloud.wait_for(|topic, event| topic == "nearside/test-site/alert" && event["data"]["label"] == "spike").await;
    let with_finding = |_: &str, event: &serde_json::Value| !event["data"]["findings"][0].is_null();
    let summary = cloud.wait_for(with_finding).await;
    assert_eq!(summary["specversion"], "1.0");
    assert_eq!(summary["data"]["rows"], 20);
    assert_eq!(summary["data"]["verdict"]["state"], "judged");
    assert_eq!(summary["data"]["fields"][0]["max"], 95.0);
    for (_, event) in cloud.events() {
        let text = event.to_string();
        assert!(!text.contains(NAME) && !text.contains("厨房"), "{text}");
    }

    // Whoever has the key reads it.
    let file = gateway.folder.path().join("events.jsonl");
    std::fs::write(&file, format!("{summary}\n")).unwrap();
    let opened = nearside(&["open", "--key", gateway.key_file().to_str().unwrap(), file.to_str().unwrap()]);
    let opened = String::from_utf8(opened.stdout).unwrap();
    assert!(opened.contains(NAME) && opened.contains("厨房"), "{opened}");

    // It says so about itself, stops in order, and its journal is whole.
    assert!(gateway.get("/readyz").contains("ready"));
    assert!(gateway.get("/").contains("temperature"));
    assert_eq!(gateway.metric("nearside_readings_total{stream=\"temperature\"}"), 120.0);
    let site = gateway.site();
    let (code, folder) = gateway.terminate();
    assert_eq!(code, Some(0));
    let check = nearside(&["journal", "check", site.to_str().unwrap()]);
    assert!(check.status.success(), "{check:?}");
    drop(folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_payloads_are_counted_and_disturb_nobody() {
    let cloud = Cloud::start().await;
    let gateway = Gateway::start(&site(&cloud));
    let ts = |offset_ms: i64| SystemClock.now().as_micros() / 1_000 + offset_ms;
    let topic = "城市/x/温度".to_owned();
    let deep = "[".repeat(100_000).into_bytes();
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("malformed", br#"{"ts":1,"value":"#.to_vec()),
        ("malformed", format!(r#"{{"ts":{},"value":"text"}}"#, ts(0)).into_bytes()),
        ("malformed", vec![0xFF, 0xFE, 0x00]),
        ("malformed", deep),
        ("malformed", format!(r#"{{"ts":{},"value":NaN}}"#, ts(0)).into_bytes()),
        ("malformed", format!(r#"{{"ts":{},"value":1e999}}"#, ts(0)).into_bytes()),
        ("bad_timestamp", br#"{"ts":"yesterday","value":1}"#.to_vec()),
        ("future", br#"{"ts":"2099-01-01T00:00:00Z","value":1}"#.to_vec()),
        ("past", br#"{"ts":"1999-01-01T00:00:00Z","value":1}"#.to_vec()),
        ("too_large", vec![b' '; 600 << 10]),
    ];
    let count = |reason: &str| bad.iter().filter(|(expected, _)| *expected == reason).count() as f64;
    let messages = bad.iter().map(|(_, payload)| (topic.clone(), payload.clone())).collect();
    publish_all("broken", gateway.broker, messages).await;
    publish_all("nobody", gateway.broker, vec![("no/such/topic".to_owned(), b"1".to_vec())]).await;
    for reason in ["malformed", "bad_timestamp", "future", "past", "too_large"] {
        let line = format!("nearside_readings_set_aside_total{{stream=\"temperature\",reason=\"{reason}\"}}");
        gateway.wait_for(&line, count(reason));
        assert_eq!(gateway.metric(&line), count(reason), "{reason}");
    }
    gateway.wait_for("nearside_readings_set_aside_total{stream=\"none\",reason=\"no_stream\"}", 1.0);
    // Those that could not be read are kept for whoever looks into it.
    let listed = || {
        let listed = nearside(&["deadletters", "list", "--json", gateway.site().to_str().unwrap()]);
        String::from_utf8(listed.stdout).unwrap()
    };
    let end = std::time::Instant::now() + PATIENCE;
    while !listed().contains("no_stream") && std::time::Instant::now() < end {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let listed = listed();
    assert_eq!(
        listed.lines().filter(|line| line.contains("\"malformed\"")).count() as f64,
        count("malformed"),
        "{listed}"
    );
    // So is the first on a topic that no stream claims: the log may not name it.
    let unclaimed = listed.lines().find(|line| line.contains("\"no_stream\"")).expect(&listed);
    assert!(unclaimed.contains("\"no/such/topic\""), "{unclaimed}");
    gateway.wait_until_said("`nearside deadletters list` shows the topics");
    assert!(!gateway.said().contains("no/such"), "{}", gateway.said());

    // A packet past the limit costs its own connection; the others go on.
    let (large, mut events) = client("large", gateway.broker);
    large.publish("plain/a", QoS::AtLeastOnce, false, vec![b'1'; 10 << 20]).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, async { while events.poll().await.is_ok() {} }).await;
    assert!(ended.is_ok(), "a 10 MiB packet ends its connection");
    let good = (0..3).map(|n| ("plain/a".to_owned(), format!("{n}.5").into_bytes())).collect();
    publish_all("good", gateway.broker, good).await;
    cloud.wait_for(|_, event| event["data"]["stream"] == "plain" && event["data"]["rows"] == 3).await;
    assert_eq!(gateway.terminate().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_cloud_summaries_wait_and_then_arrive_once() {
    let cloud = Cloud::start().await;
    let down = site(&cloud).replace(&cloud.address.to_string(), "127.0.0.1:1");
    let gateway = Gateway::start(&down);
    publish_all("good", gateway.broker, (0..9).map(|n| ("plain/a".to_owned(), vec![b'0' + n])).collect()).await;
    gateway.wait_for("nearside_outbox_items{class=\"summary\"}", 3.0);
    let (code, folder) = gateway.terminate();
    assert_eq!(code, Some(0));
    // The same data folder with a cloud that is there.
    let text = std::fs::read_to_string(folder.path().join("site.toml")).unwrap();
    let text = text.replace("127.0.0.1:1\"", &format!("{}\"", cloud.address));
    let path = folder.path().join("site.toml");
    std::fs::write(&path, text).unwrap();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_nearside")).arg("run").arg(&path).spawn().unwrap();
    for start in ["0", "3", "6"] {
        let min: f64 = start.parse().unwrap();
        cloud.wait_for(|_, event| event["data"]["fields"][0]["min"] == min).await;
    }
    let mut ids: Vec<String> = cloud.events().iter().map(|(_, event)| event["id"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.iter().filter(|id| id.contains(":count-3:")).count(), 3);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn wrong_configurations_and_surroundings_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let stream = "[[stream]]\nname = \"a\"\ntopic = \"a\"\nformat = \"number\"\nfields = { v = \"$\" }\nwindows = [{ kind = \"tumbling\", size = \"1s\" }]\n";
    let run = |rest: &str, command: &str| {
        let site = write_site(folder.path(), rest);
        let output = nearside(&[command, site.to_str().unwrap()]);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = run(&stream.replace("size", "sise"), "check");
    assert!(code == Some(2) && text.contains("did you mean `size`?") && text.contains("site.toml:12"), "{text}");
    let (code, text) = run(&format!("{stream}models = [\"robust-y\"]\n"), "run");
    assert!(code == Some(2) && text.contains("did you mean `robust-z`?"), "{text}");

    // A data folder that cannot be made.
    std::fs::write(folder.path().join("data"), "a file").unwrap();
    let (code, text) = run(stream, "run");
    assert!(code == Some(1) && text.contains("data folder") && text.contains("data_dir"), "{text}");
    std::fs::remove_file(folder.path().join("data")).unwrap();

    // A port in use.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let site = write_site(folder.path(), stream);
    let text = std::fs::read_to_string(&site).unwrap();
    std::fs::write(&site, text.replacen("127.0.0.1:0", &taken.local_addr().unwrap().to_string(), 1)).unwrap();
    let output = nearside(&["run", site.to_str().unwrap()]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && text.contains("another program uses the port"), "{text}");
}
