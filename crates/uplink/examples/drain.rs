//! How fast an outbox fills and drains: `cargo run --release -p nearside-uplink --example drain -- [ITEMS]`.
//!
//! Puts roll-ups, waits until they are on disk, then lets an uplink send them to a front door on loopback that acknowledges at once, with an
//! alert put every 100 ms meanwhile. Prints items a second of both ways and how long the slowest alert took from its put to the cloud.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement that cannot go on stops")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use common::{Cloud, Site, alert, config, rollup};
use nearside_uplink::UplinkConfig;

fn main() {
    let items: i64 = std::env::args().nth(1).and_then(|items| items.parse().ok()).unwrap_or(100_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (site, mut cloud) = (Site::new(), Cloud::away());
        let sealed: Vec<_> = (0..items).map(rollup).collect();
        let started = Instant::now();
        site.put_all(sealed).await;
        let put = started.elapsed();
        cloud.come().await;
        let started = Instant::now();
        let uplink = site.uplink(UplinkConfig { backlog_rate: 0, ..config(cloud.address) });
        let (mut n, mut put_at, mut slowest) = (0, HashMap::new(), Duration::ZERO);
        while site.outbox.handle().stats().waiting() > 0 {
            let item = alert(n);
            put_at.insert(item.id(), Instant::now());
            site.put_all([item]).await;
            n += 1;
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_millis(5)).await;
                let received = cloud.received.lock().unwrap();
                put_at.retain(|id, at| {
                    let came = received.iter().rev().any(|(class, known, _)| class == "alert" && known == id);
                    slowest = if came { slowest.max(at.elapsed()) } else { slowest };
                    !came
                });
            }
        }
        let drained = started.elapsed();
        uplink.stop().await;
        let rate = |time: Duration| items as f64 / time.as_secs_f64();
        println!("{items} items put and synced in {put:.2?}: {:.0} items/s", rate(put));
        println!("drained in {drained:.2?}: {:.0} items/s", rate(drained));
        println!("{n} alerts put meanwhile; the slowest reached the cloud after {slowest:.0?} (looked at every 5 ms)");
    });
}
