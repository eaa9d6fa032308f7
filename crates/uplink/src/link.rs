//! One connection to a broker over rumqttc, MQTT 5 or 3.1.1, as one kind of events.
//!
//! rumqttc forgets what it queued when a session is lost, so nothing is left to it: each connection is a new client with a clean session.

use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode as Code5, PubAckReason, PublishProperties};
use rumqttc::v5::{ConnectionError as Error5, Event as Event5, Incoming as Packet5, MqttOptions as Options5};
use rumqttc::{ConnectReturnCode, ConnectionError, Event, MqttOptions, Outgoing, Packet, QoS, Transport, v5};
use tokio::sync::mpsc;

use crate::config::{CloudUrl, Protocol, UplinkError};
use crate::refusals::Refusal;

/// What a connection is made with.
pub(crate) struct LinkOptions<'a> {
    pub(crate) url: &'a CloudUrl,
    pub(crate) protocol: Protocol,
    pub(crate) client_id: &'a str,
    pub(crate) credentials: Option<(String, String)>,
    pub(crate) keep_alive: Duration,
    pub(crate) inflight: u16,
    /// The largest packet that is sent.
    pub(crate) max_packet: usize,
}

/// What happens on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LinkEvent {
    /// The broker accepted it, with the bounds it states.
    Connected { receive_maximum: Option<u16>, max_packet: Option<u32> },
    /// The next publish in order was written with this packet id.
    Written(u16),
    /// The broker answered a packet id.
    Answered(u16, Option<Refusal>),
    /// Something that concerns nobody.
    Other,
}

/// The largest packet that is read: a broker has only acknowledgements to send.
const MAX_INCOMING: u32 = 65_536;

enum Client {
    V311(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

/// A connection. Ends when it is dropped.
pub(crate) struct Link {
    client: Client,
    events: mpsc::Receiver<Result<LinkEvent, UplinkError>>,
}

impl Link {
    pub(crate) fn connect(options: &LinkOptions<'_>) -> Self {
        let (sender, events) = mpsc::channel(64);
        // In tasks of their own: polling must not be cancelled halfway through a connect or a write.
        let client = match options.protocol {
            Protocol::V311 => {
                let (client, event_loop) = rumqttc::AsyncClient::new(options_311(options), options.inflight.into());
                tokio::spawn(poll_311(event_loop, sender));
                Client::V311(client)
            }
            Protocol::V5 => {
                let (client, event_loop) = v5::AsyncClient::new(options_5(options), options.inflight.into());
                tokio::spawn(poll_5(event_loop, sender));
                Client::V5(client)
            }
        };
        Self { client, events }
    }

    /// Queues a publish. False where the client takes no more.
    pub(crate) fn publish(&self, topic: &str, content_type: &str, bytes: &[u8]) -> bool {
        match &self.client {
            Client::V311(client) => client.try_publish(topic, QoS::AtLeastOnce, false, bytes).is_ok(),
            Client::V5(client) => {
                let properties =
                    PublishProperties { content_type: Some(content_type.to_owned()), ..PublishProperties::default() };
                let bytes = bytes.to_vec();
                let qos = v5::mqttbytes::QoS::AtLeastOnce;
                client.try_publish_with_properties(topic, qos, false, bytes, properties).is_ok()
            }
        }
    }

    /// What happens next.
    pub(crate) async fn next(&mut self) -> Result<LinkEvent, UplinkError> {
        let ended = || Err(UplinkError::Away("the client ended".to_owned()));
        self.events.recv().await.unwrap_or_else(ended)
    }

    /// Says goodbye; where the broker is gone already, that is an end too.
    pub(crate) fn disconnect(&self) {
        let _ = match &self.client {
            Client::V311(client) => client.try_disconnect().is_ok(),
            Client::V5(client) => client.try_disconnect().is_ok(),
        };
    }
}

fn options_311(from: &LinkOptions<'_>) -> MqttOptions {
    let mut options = MqttOptions::new(from.client_id, &from.url.host, from.url.port);
    options.set_keep_alive(from.keep_alive).set_max_packet_size(MAX_INCOMING as usize, from.max_packet);
    options.set_inflight(from.inflight).set_clean_session(true);
    if from.url.tls {
        options.set_transport(Transport::tls_with_default_config());
    }
    if let Some((user, password)) = &from.credentials {
        options.set_credentials(user, password);
    }
    options
}

fn options_5(from: &LinkOptions<'_>) -> Options5 {
    let mut options = Options5::new(from.client_id, &from.url.host, from.url.port);
    options.set_keep_alive(from.keep_alive).set_max_packet_size(Some(MAX_INCOMING));
    options.set_outgoing_inflight_upper_limit(from.inflight).set_clean_start(true);
    if from.url.tls {
        options.set_transport(Transport::tls_with_default_config());
    }
    if let Some((user, password)) = &from.credentials {
        options.set_credentials(user, password);
    }
    options
}

async fn poll_311(mut event_loop: rumqttc::EventLoop, events: mpsc::Sender<Result<LinkEvent, UplinkError>>) {
    loop {
        let event = event_loop.poll().await.map(|event| match event {
            Event::Incoming(Packet::ConnAck(_)) => LinkEvent::Connected { receive_maximum: None, max_packet: None },
            Event::Incoming(Packet::PubAck(ack)) => LinkEvent::Answered(ack.pkid, None),
            Event::Outgoing(Outgoing::Publish(packet)) => LinkEvent::Written(packet),
            _ => LinkEvent::Other,
        });
        let event = event.map_err(classify_311);
        let ended = event.is_err();
        if events.send(event).await.is_err() || ended {
            return;
        }
    }
}

async fn poll_5(mut event_loop: v5::EventLoop, events: mpsc::Sender<Result<LinkEvent, UplinkError>>) {
    loop {
        let event = event_loop.poll().await.map(|event| match event {
            Event5::Incoming(Packet5::ConnAck(accepted)) => {
                let stated = accepted.properties;
                LinkEvent::Connected {
                    receive_maximum: stated.as_ref().and_then(|stated| stated.receive_max),
                    max_packet: stated.and_then(|stated| stated.max_packet_size),
                }
            }
            Event5::Incoming(Packet5::PubAck(ack)) => LinkEvent::Answered(ack.pkid, refusal(ack.reason)),
            Event5::Outgoing(Outgoing::Publish(packet)) => LinkEvent::Written(packet),
            _ => LinkEvent::Other,
        });
        let event = event.map_err(classify_5);
        let ended = event.is_err();
        if events.send(event).await.is_err() || ended {
            return;
        }
    }
}

const fn refusal(reason: PubAckReason) -> Option<Refusal> {
    match reason {
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => None,
        PubAckReason::UnspecifiedError => Some(Refusal::Unspecified),
        PubAckReason::ImplementationSpecificError => Some(Refusal::Implementation),
        PubAckReason::NotAuthorized => Some(Refusal::NotAuthorized),
        PubAckReason::TopicNameInvalid => Some(Refusal::TopicName),
        PubAckReason::PacketIdentifierInUse => Some(Refusal::PacketIdInUse),
        PubAckReason::QuotaExceeded => Some(Refusal::Quota),
        PubAckReason::PayloadFormatInvalid => Some(Refusal::PayloadFormat),
    }
}

fn classify_311(error: ConnectionError) -> UplinkError {
    use ConnectReturnCode::{BadClientId, BadUserNamePassword, NotAuthorized, RefusedProtocolVersion};
    match error {
        ConnectionError::ConnectionRefused(
            code @ (BadUserNamePassword | NotAuthorized | BadClientId | RefusedProtocolVersion),
        ) => UplinkError::Refused(format!("{code:?}")),
        error => UplinkError::Away(error.to_string()),
    }
}

fn classify_5(error: Error5) -> UplinkError {
    match error {
        Error5::ConnectionRefused(
            code @ (Code5::ServerUnavailable
            | Code5::ServerBusy
            | Code5::ServiceUnavailable
            | Code5::UseAnotherServer
            | Code5::ServerMoved
            | Code5::ConnectionRateExceeded
            | Code5::QuotaExceeded),
        ) => UplinkError::Away(format!("it says {code:?}")),
        Error5::ConnectionRefused(code) => UplinkError::Refused(format!("{code:?}")),
        error => UplinkError::Away(error.to_string()),
    }
}
