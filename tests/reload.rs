//! Another configuration while the gateway runs: no connection ends, windows of streams that are defined as before stay open, those of others
//! close, and a file that is wrong is refused as a whole. The same where the file changes while the gateway does not run.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Cloud, Gateway, PATIENCE, client, write_site};
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

/// Six readings of two definitions, then the end of the gateway; one definition is changed before the next start.
async fn change_while_it_does_not_run(end: impl Fn(Gateway) -> tempfile::TempDir) {
    let cloud = Cloud::start().await;
    let uplink = format!("[uplink]\nurl = \"mqtt://{}\"\n", cloud.address);
    let gateway = Gateway::start(&format!("{}{}{uplink}", stream("same", 10), stream("other", 10)));
    let (device, mut events) = client("device", gateway.broker);
    publish(&device, &mut events, "same/1", 6).await;
    publish(&device, &mut events, "other/1", 6).await;
    drop((device, events));
    let folder = end(gateway);
    write_site(folder.path(), &format!("{}{}{}{uplink}", stream("new", 3), stream("same", 10), stream("other", 4)));
    let gateway = Gateway::start_in(folder, &[]).unwrap();
    let rows = |name: &'static str, rows: u64| {
        move |_: &str, event: &serde_json::Value| event["data"]["stream"] == name && event["data"]["rows"] == rows
    };
    // What was acknowledged under the old definition is in a window of the old definition.
    assert_eq!(cloud.wait_for(rows("other", 6)).await["data"]["cause"], "drain");
    gateway.wait_for("nearside_ready{}", 1.0);
    let (device, mut events) = client("device", gateway.broker);
    publish(&device, &mut events, "same/1", 4).await;
    publish(&device, &mut events, "other/1", 4).await;
    assert_eq!(cloud.wait_for(rows("same", 10)).await["data"]["cause"], "full");
    assert_eq!(cloud.wait_for(rows("other", 4)).await["data"]["cause"], "full");
    assert_eq!(gateway.metric("nearside_stream_panics_total{stage=\"restore\"}"), 0.0, "no state is lost");
    for name in ["same", "other"] {
        let active = gateway.metric(&format!("nearside_streams_active{{stream=\"{name}\"}}"));
        assert_eq!(active, 1.0, "{name} is counted once, by the middle that is in force");
    }
    // The next start finds the new configuration in force.
    let (code, folder) = gateway.terminate();
    assert_eq!(code, Some(0));
    let gateway = Gateway::start_in(folder, &[]).unwrap();
    gateway.wait_for("nearside_ready{}", 1.0);
    assert_eq!(gateway.metric("nearside_windows_closed_total{stream=\"other\",cause=\"drain\"}"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_changed_between_a_stop_and_a_start_closes_the_windows_of_changed_streams() {
    change_while_it_does_not_run(|gateway| {
        let (code, folder) = gateway.terminate();
        assert_eq!(code, Some(0));
        folder
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_changed_between_a_crash_and_a_start_closes_the_windows_of_changed_streams() {
    change_while_it_does_not_run(Gateway::kill).await;
}

/// The start that takes the journal in under the configuration from before loses a part of those streams.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_whose_earlier_streams_end_says_so_and_the_next_one_goes_on() {
    if !cfg!(debug_assertions) {
        println!("skipped: failpoints are in builds with debug assertions only");
        return;
    }
    let cloud = Cloud::start().await;
    let uplink = format!("[uplink]\nurl = \"mqtt://{}\"\n", cloud.address);
    let gateway = Gateway::start(&format!("{}{uplink}", stream("other", 10)));
    let (device, mut events) = client("device", gateway.broker);
    publish(&device, &mut events, "other/1", 6).await;
    drop((device, events));
    let folder = gateway.kill();
    write_site(folder.path(), &format!("{}{uplink}", stream("other", 4)));
    let gateway = Gateway::start_in(folder, &[("NEARSIDE_FAILPOINT", "shard-closing:1:panic")]).unwrap();
    let (code, folder) = gateway.wait_for_end();
    let said = std::fs::read_to_string(folder.path().join("stderr.txt")).unwrap();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("could not be taken in") && said.contains("start again"), "{said}");
    let gateway = Gateway::start_in(folder, &[]).unwrap();
    gateway.wait_for("nearside_ready{}", 1.0);
    let closed = cloud.wait_for(|_, event| event["data"]["rows"] == 6).await;
    assert_eq!(closed["data"]["cause"], "drain");
    assert_eq!(gateway.terminate().0, Some(0));
}

/// A reload that waits for a stream whose network does not answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_during_a_reload_ends_it() {
    let site = stream("slow", 10).replace("robust-z", "forecaster")
        + "[streams]\nstream_credit = 1\n[inference]\nmax_batch = 1000\nmax_wait = \"10m\"\ndeadline = \"20m\"\n";
    let folder = tempfile::tempdir().unwrap();
    write_site(folder.path(), &site);
    let gateway = Gateway::start_with(folder, &[], &["--grace", "1"]).unwrap();
    gateway.wait_for("nearside_ready{}", 1.0);
    let (device, mut events) = client("device", gateway.broker);
    let sending = tokio::spawn(async move {
        for n in 0..500 {
            device.try_publish("slow/1", QoS::AtLeastOnce, false, format!("{n}")).unwrap();
        }
        while events.poll().await.is_ok() {}
    });
    gateway.wait_for("nearside_inference_queue_rows{model=\"forecaster\"}", 1.0);
    gateway.wait_for("nearside_ingest_credit_waits_total{}", 1.0);
    gateway.signal("HUP");
    gateway.wait_until_said("again");
    let (code, folder) = gateway.terminate();
    assert_eq!(code, Some(0));
    let said = std::fs::read_to_string(folder.path().join("stderr.txt")).unwrap();
    assert!(said.contains("the gateway stops") && said.contains("stopping"), "{said}");
    sending.abort();
}

/// A crash between the closing of windows at a stop and the checkpoint after it.
#[tokio::test(flavor = "multi_thread")]
async fn windows_that_a_stop_closed_stay_closed_after_a_crash() {
    if !cfg!(debug_assertions) {
        println!("skipped: failpoints are in builds with debug assertions only");
        return;
    }
    let cloud = Cloud::start().await;
    let site = |late: &str| {
        let head = "[[stream]]\nname = \"s\"\ntopic = \"s/{room}\"\nformat = \"number\"\nfields = { value = \"$\" }\n";
        let uplink = cloud.address;
        format!(
            "{head}idle = \"1h\"\nwindows = [{{ kind = \"tumbling\", size = \"720h\", {late} }}]\n\
             [streams]\non_stop = \"close\"\n[uplink]\nurl = \"mqtt://{uplink}\"\n"
        )
    };
    for (late, revision) in [("late = \"revise\", revise_for = \"720h\"", 1), ("late = \"set_aside\"", 0)] {
        let folder = tempfile::tempdir().unwrap();
        write_site(folder.path(), &site(late));
        let gateway = Gateway::start_in(folder, &[("NEARSIDE_FAILPOINT", "windows-closed:1")]).unwrap();
        let (device, mut events) = client("device", gateway.broker);
        publish(&device, &mut events, "s/1", 6).await;
        drop((device, events));
        let (code, folder) = gateway.terminate();
        assert_eq!(code, None, "it ends at the failpoint");
        let gateway = Gateway::start_in(folder, &[]).unwrap();
        gateway.wait_for("nearside_ready{}", 1.0);
        assert_eq!(gateway.metric("nearside_windows_closed_total{stream=\"s\",cause=\"drain\"}"), 1.0, "again");
        let (device, mut events) = client("device", gateway.broker);
        publish(&device, &mut events, "s/1", 2).await;
        if revision == 1 {
            // Each acknowledged reading is in the window's highest revision.
            let revised = |_: &str, event: &serde_json::Value| event["data"]["rows"] == 8;
            assert!(cloud.wait_for(revised).await["data"]["revision"].as_u64() >= Some(1));
        } else {
            gateway.wait_for("nearside_readings_set_aside_total{stream=\"s\",reason=\"late\"}", 2.0);
        }
        assert_eq!(gateway.terminate().0, Some(0));
    }
}
