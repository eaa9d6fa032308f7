//! What the broker says of itself under `$SYS/broker/`: retained messages that are made anew every few seconds and never stored. At the
//! same time retained messages that have expired are forgotten.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use nearside_schemas::{QoS, Topic};

use crate::front_door::Shared;
use crate::message::{Delivery, Message};
use crate::packet::Carried;

/// Says it until the front door is gone.
pub(crate) async fn publish(shared: std::sync::Weak<Shared>, every: Duration) {
    let start = tokio::time::Instant::now();
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        shared.store.send(shared.retained.forget_expired(shared.clock.now()), None);
        say(&shared, start.elapsed());
    }
}

fn say(shared: &Arc<Shared>, uptime: Duration) {
    // Counted here and not with each message.
    shared.metrics.session_bytes.set(shared.for_sessions.budget.used() as f64);
    let figures = [
        ("$SYS/broker/version", concat!("nearside ", env!("CARGO_PKG_VERSION")).to_owned()),
        ("$SYS/broker/uptime", uptime.as_secs().to_string()),
        ("$SYS/broker/clients/connected", shared.open.load(Ordering::Acquire).to_string()),
        ("$SYS/broker/retained messages/count", shared.retained.count().to_string()),
    ];
    for (topic, text) in figures {
        // These are topics.
        let Ok(topic) = Topic::new(topic) else { continue };
        let (payload, carried) = (Bytes::from(text), Carried::default());
        let message = Message::new(topic, payload, QoS::AtMostOnce, true, carried, shared.clock.now());
        // What would be stored is not: it is out of date after a restart.
        shared.route(&Delivery { message, from: 0, is_compact: false }, &mut Vec::new());
    }
}
