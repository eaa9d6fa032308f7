//! The wall clock jumps while the gateway runs, an hour ahead and an hour back: every reading that was acknowledged is in a window or is
//! counted as set aside, and the gateway goes on.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeMap;
use std::time::Instant;

use common::{Cloud, Gateway, PATIENCE, publish_all, write_site};
use nearside_schemas::{Clock, SystemClock};

/// Rows in the highest revision of each window of a stream definition.
fn rows_in_windows(cloud: &Cloud, stream: &str) -> u64 {
    let mut windows: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (topic, event) in cloud.events() {
        let data = &event["data"];
        if !topic.ends_with("/summary") || data["stream"] != stream {
            continue;
        }
        let (revision, rows) = (data["revision"].as_u64().unwrap(), data["rows"].as_u64().unwrap());
        let known = windows.entry(data["window"].as_str().unwrap().to_owned()).or_insert((revision, rows));
        if revision > known.0 {
            *known = (revision, rows);
        }
    }
    windows.values().map(|(_, rows)| rows).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jumping_clock_loses_no_reading_and_stops_nothing() {
    if !cfg!(debug_assertions) {
        println!("skipped: the clock can be shifted in builds with debug assertions only");
        return;
    }
    const AT_ONCE: u64 = 20;
    let cloud = Cloud::start().await;
    let folder = tempfile::tempdir().unwrap();
    let shift = folder.path().join("shift");
    let stream = |name: &str, timestamp: &str, late: &str| {
        format!(
            "[[stream]]\nname = \"{name}\"\ntopic = \"{name}/{{room}}\"\nformat = \"json\"\n{timestamp}fields = {{ value = \"$.value\" }}\n\
             windows = [{{ kind = \"tumbling\", size = \"10s\", {late} }}]\nidle = \"2s\"\n"
        )
    };
    let (set_aside, revise) = ("late = \"set_aside\"", "late = \"revise\", revise_for = \"3h\"");
    let device_time = "timestamp = { path = \"$.ts\", unit = \"millis\" }\n";
    write_site(
        folder.path(),
        &format!(
            "[streams]\non_stop = \"close\"\n{}{}{}[uplink]\nurl = \"mqtt://{}\"\n",
            stream("device", device_time, set_aside),
            stream("revised", device_time, revise),
            stream("receipt", "", set_aside),
            cloud.address
        ),
    );
    let environment = [("NEARSIDE_CLOCK_SHIFT", shift.to_str().unwrap().to_owned())];
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut gateway = Gateway::start_in(folder, &environment).unwrap();
    gateway.wait_for("nearside_ready{}", 1.0);
    let mut sent = 0;
    for (step, seconds) in [0, 3_600, 0, -3_600, 0, 3_600, -3_600].into_iter().enumerate() {
        std::fs::write(&shift, seconds.to_string()).unwrap();
        // Until time has passed by the clock as it is now.
        let ticks = gateway.metric("nearside_journal_records_total{}");
        gateway.wait_for("nearside_journal_records_total{}", ticks + 2.0);
        // Devices have a clock of their own, which does not jump.
        let now_ms = SystemClock.now().as_micros() / 1_000;
        let reading = |n: u64| format!("{{\"ts\": {}, \"value\": {}}}", now_ms + n as i64, 1_000 * step as u64 + n);
        let messages = ["device", "revised", "receipt"]
            .into_iter()
            .flat_map(|name| (0..AT_ONCE).map(move |n| (format!("{name}/1"), reading(n).into_bytes())));
        publish_all("devices", gateway.broker, messages.collect()).await;
        sent += AT_ONCE;
        assert!(gateway.is_running() && gateway.get("/healthz").starts_with("HTTP/1.1 200"));
    }
    // The clock is right again: so are new readings.
    std::fs::write(&shift, "0").unwrap();
    let ts = SystemClock.now().as_micros() / 1_000;
    let last = format!("{{\"ts\": {ts}, \"value\": 1}}").into_bytes();
    publish_all("devices", gateway.broker, vec![("revised/2".to_owned(), last)]).await;
    // What was handed on before two ticks is judged.
    let records = gateway.metric("nearside_journal_records_total{}");
    gateway.wait_for("nearside_journal_records_total{}", records + 2.0);
    let set_aside = |name: &str| -> u64 {
        let line = format!("nearside_readings_set_aside_total{{stream=\"{name}\",");
        let page = gateway.get("/metrics");
        let counts = page.lines().filter(|text| text.starts_with(&line)).filter_map(|text| text.rsplit_once(' '));
        counts.map(|(_, count)| count.trim().parse::<f64>().unwrap() as u64).sum()
    };
    let streams = [("device", sent), ("revised", sent + 1), ("receipt", sent)];
    let aside = streams.map(|(name, _)| set_aside(name));
    // What is open still is closed by the stop.
    assert_eq!(gateway.terminate().0, Some(0));
    for ((name, sent), aside) in streams.into_iter().zip(aside) {
        let end = Instant::now() + PATIENCE;
        while rows_in_windows(&cloud, name) + aside < sent && Instant::now() < end {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let rows = rows_in_windows(&cloud, name);
        assert_eq!(rows + aside, sent, "{name}: {rows} in windows, {aside} set aside: each once");
        assert!(rows > 0, "{name}");
    }
}
