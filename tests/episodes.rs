//! What was over and comes again in one window is a finding and a command of its own, each once, whatever happens between.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeSet;
use std::time::Instant;

use common::{Cloud, Gateway, PATIENCE, client, publish_all, write_site};
use rumqttc::{Event, EventLoop, Packet, QoS};
use serde_json::Value;

/// 14 November 2023, 22:00 UTC.
const HOUR_MS: i64 = 1_699_999_200_000;

fn site(cloud: &Cloud) -> String {
    format!(
        r#"
[[stream]]
name = "glucose"
topic = "ward/{{bed}}/glucose"
format = "json"
timestamp = "$.ts"
fields = {{ sugar = {{ path = "$.sugar", unit = "mg/dL" }} }}
windows = [{{ kind = "tumbling", size = "1h" }}, {{ kind = "hopping", size = "30m", step = "10m" }}]
models = ["glucose-range"]
past = "36500d"
idle = "1h"
privacy = {{ bed = "clear" }}
[[rule]]
name = "look"
when = "finding.label == 'glucose_low'"
publish = {{ topic = "told/{{bed}}", payload = '{{"nth": ${{finding.nth}}, "sugar": ${{finding.seen.sugar}}}}' }}
cooldown = "0s"
time_to_live = "1h"
[uplink]
url = "mqtt://{}"
"#,
        cloud.address
    )
}

/// Readings of a bed, each so many minutes into the hour.
fn readings(of: &[(i64, f64)]) -> Vec<(String, Vec<u8>)> {
    let reading = |(minute, sugar): &(i64, f64)| {
        let text = format!(r#"{{"ts":{},"sugar":{sugar}}}"#, HOUR_MS + minute * 60_000);
        (String::from("ward/3/glucose"), text.into_bytes())
    };
    of.iter().map(reading).collect()
}

async fn listener(gateway: &Gateway) -> EventLoop {
    let (nurse, mut commands) = client("nurse", gateway.broker);
    nurse.subscribe("told/+", QoS::AtLeastOnce).await.unwrap();
    while !matches!(commands.poll().await.unwrap(), Event::Incoming(Packet::SubAck(_))) {}
    // The connection lives as long as somebody may ask for it.
    tokio::spawn(async move {
        let _held = nurse;
        std::future::pending::<()>().await;
    });
    commands
}

async fn next(commands: &mut EventLoop) -> Value {
    let heard = async {
        loop {
            if let Event::Incoming(Packet::Publish(publish)) = commands.poll().await.unwrap() {
                return serde_json::from_slice(&publish.payload).unwrap();
            }
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.expect("a command comes")
}

/// The alerts that the cloud has, as subjects, once there are so many.
async fn alerts(cloud: &Cloud, count: usize) -> BTreeSet<String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let alerts = cloud.events().into_iter().filter(|(topic, _)| topic.ends_with("/alert"));
        let subjects: BTreeSet<String> =
            alerts.map(|(_, event)| event["subject"].as_str().unwrap().to_owned()).collect();
        if subjects.len() >= count {
            return subjects;
        }
        assert!(Instant::now() < end, "{subjects:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_again_within_the_hour_is_told_again_and_once_over_a_crash() {
    let cloud = Cloud::start().await;
    let folder = tempfile::tempdir().unwrap();
    write_site(folder.path(), &site(&cloud));
    let gateway = Gateway::start_in(folder, &[]).expect("it runs");
    let mut commands = listener(&gateway).await;
    // Low, a dip back that ends nothing, and low again after 20 minutes without.
    let first = [(0, 60.0), (2, 72.0), (4, 66.0), (5, 100.0), (10, 110.0), (15, 110.0), (20, 100.0), (24, 61.0)];
    publish_all("sensor", gateway.broker, readings(&first)).await;
    assert_eq!(next(&mut commands).await, serde_json::json!({ "nth": 1, "sugar": 60.0 }));
    assert_eq!(next(&mut commands).await, serde_json::json!({ "nth": 2, "sugar": 61.0 }));
    assert_eq!(alerts(&cloud, 2).await.len(), 2);

    let gateway = Gateway::start_in(gateway.kill(), &[]).expect("it starts again");
    gateway.wait_for("nearside_ready{}", 1.0);
    let mut commands = listener(&gateway).await;
    let then = [(26, 65.0), (30, 100.0), (35, 100.0), (40, 100.0), (46, 62.0), (61, 100.0), (62, 100.0)];
    publish_all("sensor", gateway.broker, readings(&then)).await;
    assert_eq!(next(&mut commands).await, serde_json::json!({ "nth": 3, "sugar": 62.0 }), "the first two were given");

    let subjects = alerts(&cloud, 3).await;
    let ends: Vec<&str> = subjects.iter().map(|subject| subject.rsplit(':').next().unwrap()).collect();
    assert_eq!(ends, ["glucose_low", "glucose_low#2", "glucose_low#3"], "{subjects:?}");
    let is_hour = |_: &str, event: &Value| event["data"]["rows"] == 13;
    let summary = cloud.wait_for(is_hour).await;
    let findings = summary["data"]["findings"].as_array().unwrap();
    let figures: Vec<_> = findings.iter().map(|finding| (&finding["nth"], &finding["rows"])).collect();
    assert_eq!(figures, [(&Value::Null, &Value::from(2)), (&Value::from(2), &Value::from(2)), (&3.into(), &1.into())]);
    let state = gateway.state();
    let ids: BTreeSet<&str> = state["findings"].as_array().unwrap().iter().map(|f| f["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 3, "each can be named in feedback");
}
