//! A sensor that falls silent, from outside: told once, by a command too; not for the time in which the gateway was away.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use std::net::SocketAddr;

use common::{Gateway, PATIENCE, client, nearside, publish_all, write_site};
use rumqttc::{AsyncClient, Event, EventLoop, Packet, QoS};

/// The window closes and the actor goes to rest long before silence is told.
const SITE: &str = r#"
[streams]
retire_after = "500ms"
[[stream]]
name = "bed"
topic = "ward/{bed}"
format = "number"
fields = { pulse = "$" }
windows = [{ kind = "tumbling", size = "1s" }]
idle = "100ms"
silent_after = "3s"
[[rule]]
name = "call"
when = "finding.label == 'silent'"
cooldown = "1ms"
publish = { topic = "ward/{bed}/call", payload = "${finding.text}" }
"#;

/// Somebody who hears the calls.
struct Nurse {
    _client: AsyncClient,
    events: EventLoop,
}

impl Nurse {
    async fn at(broker: SocketAddr) -> Self {
        let (client, events) = client("nurse", broker);
        client.subscribe("ward/+/call", QoS::AtLeastOnce).await.unwrap();
        let mut nurse = Self { _client: client, events };
        while !matches!(nurse.events.poll().await.unwrap(), Event::Incoming(Packet::SubAck(_))) {}
        nurse
    }

    /// The next call: its topic and what it says.
    async fn called(&mut self) -> (String, String) {
        let called = async {
            loop {
                if let Event::Incoming(Packet::Publish(call)) = self.events.poll().await.unwrap() {
                    return (call.topic, String::from_utf8(call.payload.to_vec()).unwrap());
                }
            }
        };
        tokio::time::timeout(PATIENCE, called).await.expect("a call in time")
    }
}

fn from(bed: u8) -> Vec<(String, Vec<u8>)> {
    vec![(format!("ward/{bed}"), b"70".to_vec())]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_sensor_is_told_once() {
    let gateway = Gateway::start(SITE);
    let mut nurse = Nurse::at(gateway.broker).await;
    publish_all("one", gateway.broker, from(1)).await;
    assert_eq!(nurse.called().await, ("ward/1/call".into(), "\"nothing has come for 3s\"".into()));
    publish_all("two", gateway.broker, from(2)).await;
    assert_eq!(nurse.called().await.0, "ward/2/call", "the first is not told again");
    // Both are still silent, and one more was heard shortly before the gateway died.
    publish_all("three", gateway.broker, from(3)).await;
    let gateway = Gateway::start_in(gateway.kill(), &[]).map_err(drop).expect("it starts");
    let mut nurse = Nurse::at(gateway.broker).await;
    publish_all("four", gateway.broker, from(4)).await;
    let mut called = [nurse.called().await.0, nurse.called().await.0];
    called.sort();
    assert_eq!(called, ["ward/3/call", "ward/4/call"], "those that were told before are not told again");
    assert_eq!(gateway.terminate().0, Some(0));
}

/// The time of the rows is what passes there.
#[test]
fn a_replay_tells_of_it_too() {
    let folder = tempfile::tempdir().unwrap();
    let site =
        SITE.replace("format = \"number\"", "format = \"json\"\ntimestamp = \"ts\"").replace("\"$\"", "\"pulse\"");
    let path = write_site(folder.path(), &site);
    let rows = folder.path().join("rows.csv");
    std::fs::write(&rows, "bed,ts,pulse\n1,0,70\n1,1,70\n2,1,70\n2,2,70\n2,5,70\n1,9,70\n").unwrap();
    let findings = folder.path().join("findings.jsonl");
    let [path, rows, findings] = [path, rows, findings].map(|path| path.to_str().unwrap().to_owned());
    let arguments = ["replay", "--config", &path, "--stream", "bed", "--input", &rows, "--findings", &findings];
    let output = nearside(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = std::fs::read_to_string(&findings).unwrap();
    let at: Vec<String> = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|finding| format!("{} {}", finding["label"].as_str().unwrap(), finding["at"].as_str().unwrap()))
        .collect();
    assert_eq!(at, ["silent 1970-01-01T00:00:04Z", "silent 1970-01-01T00:00:08Z"], "bed 1, then bed 2: {lines}");
}
