//! The uplink against real brokers that come and go: every item arrives, urgent ones first, under the same id each time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use common::puppet::{self, Does};
use common::{Cloud, Site, alert, config, rollup, rollup_of, wait_until};
use nearside_schemas::{ByteSize, HumanDuration};
use nearside_telemetry::Metric;
use nearside_uplink::{Protocol, UplinkConfig};

/// I1 towards the cloud, for both versions of MQTT.
async fn comes_and_goes(protocol: Protocol) {
    let (site, mut cloud) = (Site::new(), Cloud::away());
    site.put_all((0..300).map(rollup).chain((0..40).map(alert))).await;
    let paced = UplinkConfig { protocol, inflight: 32, backlog_rate: 500, ..config(cloud.address) };
    let uplink = site.uplink(paced);
    let mut expected: HashSet<String> = site.waiting().into_iter().collect();
    for round in 1..=3 {
        // It takes some without answering, so that what was in flight is lost with the connection.
        cloud.set_answering(round > 1);
        cloud.come().await;
        let before = cloud.count();
        let enough = if round > 1 { 20 } else { 1 };
        wait_until(|| cloud.count() >= before + enough).await;
        cloud.go();
        let new: Vec<_> = (0..5).map(|n| alert(1_000 * round + n)).collect();
        expected.extend(new.iter().map(|item| item.id()));
        site.put_all(new).await;
    }
    cloud.come().await;
    site.wait_until_empty().await;
    uplink.stop().await;

    let received = cloud.received.lock().unwrap().clone();
    let ids: HashSet<String> = received.iter().map(|(_, id, _)| id.clone()).collect();
    assert_eq!(ids, expected, "every item, and nothing else");
    let mut bytes: HashMap<&str, &[u8]> = HashMap::new();
    for (_, id, event) in &received {
        assert_eq!(*bytes.entry(id).or_insert(event), event.as_slice(), "sent again, it is the same");
    }
    assert!(received.len() > ids.len(), "what was not acknowledged came again");
    // Alerts that waited come before any roll-up that waited: the first of each in the order of arrival.
    let first_rollup = received.iter().position(|(class, _, _)| class == "rollup").unwrap();
    let alerts: HashSet<&str> = received[..first_rollup].iter().map(|(_, id, _)| id.as_str()).collect();
    assert!((0..40).all(|n| alerts.contains(alert(n).id().as_str())), "alerts first");
    assert_eq!(site.telemetry.total(Metric::UplinkConnects), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_that_comes_and_goes_gets_everything_over_mqtt_5() {
    comes_and_goes(Protocol::V5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_that_comes_and_goes_gets_everything_over_mqtt_3_1_1() {
    comes_and_goes(Protocol::V311).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_alert_overtakes_alerts_and_roll_ups_that_piled_up() {
    let (site, mut cloud) = (Site::new(), Cloud::away());
    site.put_all((0..200).map(alert).chain((0..200).map(rollup))).await;
    cloud.come().await;
    // Slow enough that the live one comes while most of the others wait.
    let uplink = site.uplink(UplinkConfig { backlog_rate: 100, ..config(cloud.address) });
    wait_until(|| cloud.count() >= 20).await;
    site.put_all([alert(9_999)]).await;
    site.wait_until_empty().await;
    uplink.stop().await;
    let received = cloud.received.lock().unwrap();
    let at = received.iter().position(|(_, id, _)| *id == alert(9_999).id()).unwrap();
    assert!(at < 300, "it came as number {at} of {}", received.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fallback_takes_over_and_the_first_is_used_again_once_it_is_back() {
    let (site, mut first, mut second) = (Site::new(), Cloud::away(), Cloud::away());
    second.come().await;
    site.put_all((0..10).map(rollup)).await;
    let uplink = site.uplink(UplinkConfig {
        fallback: vec![format!("mqtt://{}", second.address)],
        failback_every: HumanDuration::secs(1),
        ..config(first.address)
    });
    site.wait_until_empty().await;
    assert_eq!((first.count(), second.count()), (0, 10));
    first.come().await;
    // Only once the first is used again does anything reach it.
    let mut n = 10;
    while first.count() == 0 {
        site.put_all([rollup(n)]).await;
        n += 1;
        site.wait_until_empty().await;
        assert!(n < 5_000);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    first.go();
    site.put_all([rollup(n)]).await;
    site.wait_until_empty().await;
    uplink.stop().await;
    let ids: HashSet<String> =
        [&first, &second].iter().flat_map(|c| c.received.lock().unwrap().clone()).map(|(_, id, _)| id).collect();
    assert_eq!(ids.len() as i64, n + 1, "each item reached one of them");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_longer_than_the_grace_leaves_items_in_place() {
    let (site, mut cloud) = (Site::new(), Cloud::away());
    site.put_all((0..20).map(rollup)).await;
    cloud.set_answering(false);
    cloud.come().await;
    let uplink = site.uplink(config(cloud.address));
    wait_until(|| cloud.count() > 0).await;
    uplink.stop().await;
    assert_eq!(site.waiting().len(), 20, "sent is not acknowledged");
    cloud.go();
    let uplink = site.uplink(config(cloud.address));
    uplink.stop().await;
    assert_eq!(site.waiting().len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_cloud_will_never_take_becomes_a_dead_letter_and_the_rest_goes_on() {
    let poison = rollup(3).id();
    let (address, log) = {
        let poison = poison.clone();
        // 0x99: payload format invalid; 0x97: quota exceeded, once.
        puppet::start(move |id, before| match (id == poison, before) {
            (true, _) => Does::Answer(0x99),
            (false, 0) if id.contains(":5000000:") => Does::Answer(0x97),
            _ => Does::Answer(0),
        })
        .await
    };
    let site = Site::new();
    site.put_all((0..10).map(rollup).chain([rollup_of(&"long".repeat(600), 0)])).await;
    let uplink = site.uplink(UplinkConfig { max_item: ByteSize::kib(2), ..config(address) });
    site.wait_until_empty().await;
    uplink.stop().await;
    assert!(site.outbox.handle().flush().await);
    assert_eq!(site.outbox.handle().stats().dead, 2, "the poison and the one that is too large");
    let log = log.lock().unwrap();
    let taken: HashSet<&str> =
        log.iter().filter(|(_, does)| *does == Does::Answer(0)).map(|(id, _)| id.as_str()).collect();
    assert_eq!(taken.len(), 9, "all others, the one refused for now among them");
    assert_eq!(log.iter().filter(|(id, _)| *id == poison).count(), 1, "it is not sent again");
    assert_eq!(site.telemetry.total(Metric::UplinkRefused), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_that_fits_no_item_removes_none() {
    // The first publish of all is answered with another's packet id.
    let (address, log) = puppet::start({
        let first = std::sync::atomic::AtomicBool::new(true);
        move |_, _| match first.swap(false, std::sync::atomic::Ordering::AcqRel) {
            true => Does::AnswerAnother,
            false => Does::Answer(0),
        }
    })
    .await;
    let site = Site::new();
    site.put_all((0..5).map(rollup)).await;
    let uplink = site.uplink(UplinkConfig { inflight: 1, ..config(address) });
    site.wait_until_empty().await;
    uplink.stop().await;
    let log = log.lock().unwrap();
    let first = &log[0].0;
    assert_eq!(log.iter().filter(|(id, _)| id == first).count(), 2, "it was sent again");
    assert!(site.telemetry.total(Metric::UplinkErrors) >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_with_an_ipv6_address_is_reached() {
    let Ok(mut cloud) = Cloud::away_on("[::1]:0") else {
        println!("skipped: the system has no IPv6");
        return;
    };
    for protocol in [Protocol::V5, Protocol::V311] {
        let site = Site::new();
        site.put_all((0..3).map(rollup)).await;
        cloud.come().await;
        let uplink = site.uplink(UplinkConfig { protocol, ..config(cloud.address) });
        site.wait_until_empty().await;
        uplink.stop().await;
        cloud.go();
    }
    assert_eq!(cloud.count(), 6);
}
