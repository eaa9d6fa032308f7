//! Another configuration while the gateway runs: no connection ends, windows of streams that are defined as before stay open, those of others
//! close, and a file that is wrong is refused as a whole.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Cloud, Gateway, PATIENCE, client};
use rumqttc::{AsyncClient, Event, EventLoop, Packet, QoS};

fn stream(name: &str, rows: u32) -> String {
    format!(
        "[[stream]]\nname = \"{name}\"\ntopic = \"{name}/{{room}}\"\nformat = \"number\"\nfields = {{ value = \"$\" }}\n\
         windows = [{{ kind = \"count\", rows = {rows} }}]\nmodels = [\"robust-z\"]\n"
    )
}

async fn publish(client: &AsyncClient, events: &mut EventLoop, topic: &str, count: usize) {
    for n in 0..count {
        client.publish(topic, QoS::AtLeastOnce, false, format!("{n}")).await.unwrap();
    }
    let mut acknowledged = 0;
    let all = async {
        while acknowledged < count {
            if let Event::Incoming(Packet::PubAck(_)) = events.poll().await.expect("the connection holds") {
                acknowledged += 1;
            }
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("every message is acknowledged in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_put_in_force_without_ending_a_connection_or_a_window() {
    let cloud = Cloud::start().await;
    let uplink = format!("[uplink]\nurl = \"mqtt://{}\"\n", cloud.address);
    let gateway = Gateway::start(&format!("{}{}{uplink}", stream("same", 10), stream("other", 10)));
    let (device, mut events) = client("device", gateway.broker);
    publish(&device, &mut events, "same/1", 6).await;
    publish(&device, &mut events, "other/1", 6).await;

    // One definition stays, one changes, one comes; the file's own change is noticed.
    let head = std::fs::read_to_string(gateway.site()).unwrap();
    let head = &head[..head.find("[[stream]]").unwrap()];
    let write = |rest: &str| std::fs::write(gateway.site(), format!("{head}{rest}")).unwrap();
    write(&format!("{}{}{}{uplink}", stream("new", 3), stream("same", 10), stream("other", 4)));
    gateway.wait_for("nearside_reloads_total{outcome=\"done\"}", 1.0);
    let rows = |name: &'static str, rows: u64| {
        move |_: &str, event: &serde_json::Value| event["data"]["stream"] == name && event["data"]["rows"] == rows
    };
    let closed = cloud.wait_for(rows("other", 6)).await;
    assert_eq!(closed["data"]["cause"], "drain");

    publish(&device, &mut events, "same/1", 4).await;
    publish(&device, &mut events, "other/1", 4).await;
    publish(&device, &mut events, "new/1", 3).await;
    assert_eq!(cloud.wait_for(rows("same", 10)).await["data"]["cause"], "full");
    cloud.wait_for(rows("other", 4)).await;
    cloud.wait_for(rows("new", 3)).await;

    // A file that is wrong changes nothing.
    write(&format!("{}{uplink}", stream("same", 10).replace("robust-z", "robust-y")));
    gateway.wait_for("nearside_reloads_total{outcome=\"refused\"}", 1.0);
    publish(&device, &mut events, "new/1", 3).await;
    gateway.wait_for("nearside_windows_closed_total{stream=\"new\",cause=\"full\"}", 2.0);
    assert_eq!(gateway.terminate().0, Some(0));
}
