//! Ten thousand connections that say nothing, against a gateway with its own limits: whoever has something to say is served throughout.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use std::net::TcpStream;

use common::{Gateway, PLAIN_STREAM, publish_all, write_site};
use rlimit::Resource;

/// As many as a gateway takes if nothing else is said.
const CROWD: u64 = 10_000;
/// What this process has open beside them.
const BESIDE: u64 = 100;
/// What a process may have open where nobody has asked for more.
const USUAL: u64 = 1_024;

/// Three readings from a connection of its own; returns once they are acknowledged and counted.
async fn is_served(gateway: &Gateway, before: u32) {
    let readings = (0..3).map(|n| ("plain/a".to_owned(), vec![b'0' + n])).collect();
    publish_all(&format!("client-{before}"), gateway.broker, readings).await;
    gateway.wait_for("nearside_readings_total{stream=\"plain\"}", f64::from(before + 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_that_say_nothing_keep_nobody_out() {
    let (soft, hard) = Resource::NOFILE.get().unwrap();
    // The gateway asks for more by itself.
    Resource::NOFILE.set(soft.min(USUAL), hard).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let site = write_site(folder.path(), PLAIN_STREAM);
    let text = std::fs::read_to_string(&site).unwrap();
    // No connection ends by itself while the test runs.
    std::fs::write(&site, text.replacen("[broker]\n", "[broker]\nhandshake_timeout = \"10m\"\n", 1)).unwrap();
    let gateway = Gateway::start_in(folder, &[]).expect("the gateway runs");
    Resource::NOFILE.set(hard, hard).unwrap();
    let crowd = CROWD.min(hard.saturating_sub(BESIDE));
    if crowd < CROWD {
        println!("{crowd} connections instead of {CROWD}: this process may not open more files");
    }
    is_served(&gateway, 0).await;
    let mut silent = Vec::new();
    for n in 0..crowd {
        silent.push(TcpStream::connect(gateway.broker).unwrap());
        if n == crowd / 2 {
            is_served(&gateway, 3).await;
        }
    }
    gateway.wait_for("nearside_broker_connections{}", (crowd - BESIDE) as f64);
    // Each of these needs a place, and there is none but one of the crowd's.
    for n in 2..6 {
        is_served(&gateway, 3 * n).await;
    }
    if crowd == CROWD {
        assert!(gateway.metric("nearside_broker_connections_refused_total{reason=\"made_way\"}") > 0.0);
    }
    assert_eq!(gateway.metric("nearside_readings_total{stream=\"plain\"}"), 18.0);
    drop(silent);
    assert_eq!(gateway.terminate().0, Some(0));
}
