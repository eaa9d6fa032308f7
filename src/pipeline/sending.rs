//! The end of the way to the cloud: what a gateway that stops still sends.
//!
//! Promises: what is not sent stays in the outbox and goes at the next start, so nothing waits for a cloud that is away.

use std::time::Duration;

use nearside_outbox::OutboxHandle;
use nearside_telemetry::{Metric, Telemetry};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A cloud that is away so long is not waited for: a connection may just be on its way.
const AWAY: Duration = Duration::from_secs(1);

/// Whether the cloud is connected.
pub(super) fn is_connected(telemetry: &Telemetry) -> bool {
    telemetry.gauge(Metric::UplinkConnected, &[]).get() > 0.0
}

/// Lets the uplink send what waits, for as long as the cloud is there, at most for as long as `grace` lasts.
pub(super) async fn send_rest(
    outbox: &OutboxHandle,
    uplink: JoinHandle<()>,
    stop: &watch::Sender<bool>,
    grace: Duration,
    telemetry: &Telemetry,
) {
    let until = Instant::now() + grace;
    let mut there_at = Instant::now();
    while outbox.stats().waiting() > 0 && Instant::now() < until {
        if is_connected(telemetry) {
            there_at = Instant::now();
        } else if there_at.elapsed() >= AWAY {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.send_replace(true);
    if tokio::time::timeout(grace, uplink).await.is_err() {
        tracing::warn!("the uplink did not end in time");
    }
}
