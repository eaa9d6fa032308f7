//! Real clients as devices and as the cloud's subscribers: mosquitto's and paho-mqtt. A client that the machine lacks is skipped
//! with a word.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use std::process::{Child, Command, Output, Stdio};

use common::{Cloud, Gateway};
use serde_json::Value;

fn site(cloud: &Cloud) -> String {
    format!(
        r#"
[[stream]]
name = "plain"
topic = "plain/{{room}}"
format = "number"
fields = {{ value = "$" }}
windows = [{{ kind = "count", rows = 6 }}]
[uplink]
url = "mqtt://{}"
backoff_min = "50ms"
"#,
        cloud.address
    )
}

/// Says what is skipped where a client is not there.
fn has(client: &str, found: bool) -> bool {
    if !found {
        println!("skipped: there is no {client} here");
    }
    found
}

/// What the subscriber printed: one event a line.
fn events(subscriber: Child) -> Vec<Value> {
    let Output { status, stdout, stderr } = subscriber.wait_with_output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn assert_is_the_summary(events: &[Value]) {
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(
        (&events[0]["type"], &events[0]["data"]["rows"]),
        (&"io.nearside.summary.v1".into(), &6.into()),
        "{events:?}"
    );
    assert_eq!(events[0]["data"]["fields"][0]["max"], 26.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_clients_are_devices_and_subscribers() {
    // Its help ends with 1.
    if !has("mosquitto_pub", Command::new("mosquitto_pub").arg("--help").output().is_ok()) {
        return;
    }
    let cloud = Cloud::start().await;
    let (port, topic) = (cloud.address.port().to_string(), "nearside/test-site/summary");
    let arguments = ["-p", &port, "-q", "1", "-t", topic, "-C", "1", "-W", "60"];
    let subscriber = Command::new("mosquitto_sub").args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    cloud.wait_for_subscribers(1).await;
    let gateway = Gateway::start(&site(&cloud));
    let port = gateway.broker.port().to_string();
    let kinds = ["mqttv311", "mqttv5"].into_iter().flat_map(|version| ["0", "1", "2"].map(|qos| (version, qos)));
    for (n, (version, qos)) in kinds.enumerate() {
        let value = format!("{}.5", 21 + n);
        let arguments = ["-V", version, "-p", &port, "-q", qos, "-t", "plain/厨房", "-m", &value];
        assert!(Command::new("mosquitto_pub").args(arguments).status().unwrap().success(), "{version} {qos}");
    }
    assert_is_the_summary(&events(subscriber));
    assert_eq!(gateway.terminate().0, Some(0));
}

const PAHO_SUBSCRIBER: &str = r#"
import sys, threading
import paho.mqtt.client as mqtt
done = threading.Event()
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
client.on_connect = lambda client, *_: client.subscribe("nearside/+/summary", qos=1)
def message(client, userdata, message):
    print(message.payload.decode(), flush=True)
    done.set()
client.on_message = message
client.connect("127.0.0.1", int(sys.argv[1]))
client.loop_start()
ended = done.wait(60)
client.disconnect()
client.loop_stop()
sys.exit(0 if ended else 1)
"#;

const PAHO_DEVICE: &str = r#"
import sys
import paho.mqtt.client as mqtt
value = 21.5
for version in (mqtt.MQTTv311, mqtt.MQTTv5):
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=version)
    client.connect("127.0.0.1", int(sys.argv[1]))
    client.loop_start()
    for qos in (0, 1, 2):
        sent = client.publish("plain/厨房", str(value), qos=qos)
        sent.wait_for_publish(30)
        assert sent.is_published(), (version, qos)
        value += 1
    client.disconnect()
    client.loop_stop()
"#;

#[tokio::test(flavor = "multi_thread")]
async fn paho_is_a_device_and_a_subscriber() {
    let imports = ["-c", "import paho.mqtt.client as m; m.CallbackAPIVersion"];
    if !has("paho-mqtt", Command::new("python3").args(imports).output().is_ok_and(|output| output.status.success())) {
        return;
    }
    let cloud = Cloud::start().await;
    let port = cloud.address.port().to_string();
    let subscriber =
        Command::new("python3").args(["-c", PAHO_SUBSCRIBER, &port]).stdout(Stdio::piped()).spawn().unwrap();
    cloud.wait_for_subscribers(1).await;
    let gateway = Gateway::start(&site(&cloud));
    let port = gateway.broker.port().to_string();
    assert!(Command::new("python3").args(["-c", PAHO_DEVICE, &port]).status().unwrap().success());
    assert_is_the_summary(&events(subscriber));
    assert_eq!(gateway.terminate().0, Some(0));
}
