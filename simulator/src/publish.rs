//! Publishes a fleet through real MQTT connections, paced by a factor of real time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nearside_schemas::{QoS, Timestamp};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::fleet::{Fleet, Message};

/// Unacknowledged messages of one connection.
const INFLIGHT: u16 = 512;
/// How long the last acknowledgements are waited for.
const LAST_ACKNOWLEDGEMENTS: Duration = Duration::from_secs(10);

/// A broker's address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broker {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// How a fleet is published.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Simulated seconds in a real one.
    pub speed: f64,
    /// The simulated instant that is now.
    pub start: Timestamp,
    /// Connections that the devices share.
    pub connections: usize,
    /// In front of the client ids.
    pub client_prefix: String,
}

/// What was published.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PublishReport {
    /// Messages handed to a connection.
    pub sent: u64,
    /// QoS 1 messages that the broker acknowledged.
    pub acknowledged: u64,
    /// Payload bytes sent.
    pub bytes: u64,
    /// Times a connection was lost.
    pub disconnects: u64,
}

#[derive(Default)]
struct Counts {
    acknowledged: AtomicU64,
    disconnects: AtomicU64,
}

/// Publishes until the fleet ends or `stop` turns true, then waits for the last acknowledgements. A connection that is lost is
/// made again, and what was not acknowledged is sent again.
pub async fn publish_fleet(
    fleet: Fleet,
    broker: &Broker,
    pace: &Pace,
    mut stop: watch::Receiver<bool>,
) -> PublishReport {
    let counts = Arc::new(Counts::default());
    let mut clients = Vec::new();
    for n in 0..pace.connections.max(1) {
        let mut options = MqttOptions::new(format!("{}-{n}", pace.client_prefix), &broker.host, broker.port);
        options.set_keep_alive(Duration::from_secs(30)).set_inflight(INFLIGHT).set_max_packet_size(1 << 20, 1 << 20);
        let (client, events) = AsyncClient::new(options, usize::from(INFLIGHT));
        clients.push((client, tokio::spawn(poll(events, counts.clone()))));
    }
    let began = Instant::now();
    let mut report = PublishReport::default();
    let mut awaited = 0;
    for message in fleet {
        let due = began + message.at.since(pace.start).div_f64(pace.speed.max(1e-6));
        tokio::select! {
            () = sleep_until(due) => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
        report.sent += 1;
        report.bytes += message.payload.len() as u64;
        awaited += u64::from(message.qos > QoS::AtMostOnce);
        // The same topic always takes the same connection: MQTT keeps order within one only.
        let connection = &clients[spread(&message.topic, clients.len())].0;
        if publish(connection, message).await.is_err() {
            break;
        }
    }
    let until = Instant::now() + LAST_ACKNOWLEDGEMENTS;
    while counts.acknowledged.load(Ordering::Acquire) < awaited && Instant::now() < until {
        sleep(Duration::from_millis(5)).await;
    }
    for (client, polling) in clients {
        // A broker that is gone needs no goodbye.
        let _ = client.try_disconnect();
        let ending = polling.abort_handle();
        if tokio::time::timeout(Duration::from_millis(200), polling).await.is_err() {
            ending.abort();
        }
    }
    report.acknowledged = counts.acknowledged.load(Ordering::Acquire);
    report.disconnects = counts.disconnects.load(Ordering::Acquire);
    report
}

async fn publish(client: &AsyncClient, message: Message) -> Result<(), rumqttc::ClientError> {
    let qos = match message.qos {
        QoS::AtMostOnce => rumqttc::QoS::AtMostOnce,
        QoS::AtLeastOnce => rumqttc::QoS::AtLeastOnce,
        QoS::ExactlyOnce => rumqttc::QoS::ExactlyOnce,
    };
    client.publish(message.topic, qos, false, message.payload).await
}

fn spread(topic: &str, connections: usize) -> usize {
    // FNV-1a: the same in every run.
    let hash = topic
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (hash % connections.max(1) as u64) as usize
}

async fn poll(mut events: rumqttc::EventLoop, counts: Arc<Counts>) {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_))) => {
                counts.acknowledged.fetch_add(1, Ordering::AcqRel);
            }
            Ok(Event::Outgoing(rumqttc::Outgoing::Disconnect)) => return,
            Ok(_) => {}
            Err(_) => {
                counts.disconnects.fetch_add(1, Ordering::AcqRel);
                sleep(Duration::from_millis(300)).await;
            }
        }
    }
}
