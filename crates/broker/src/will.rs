//! Wills: what is published when a client goes without a word (section 3.1.2.5).

use nearside_schemas::{Publish, QoS};

use crate::front_door::Shared;
use crate::message::{Delivery, Message};
use crate::packet::Will;
use crate::session::Session;

/// A will is a message like any other: taken in, routed, retained.
pub(crate) async fn publish(shared: &Shared, session: &Session, will: Will) {
    let received = shared.clock.now();
    let Will { topic, payload, qos, retain, carried, .. } = will;
    let publish = Publish {
        client: session.client.clone(),
        topic: topic.clone(),
        payload: payload.clone(),
        qos: QoS::AtMostOnce,
        packet_id: None,
        retain,
        received,
    };
    shared.intake.submit(vec![publish], 0, Box::new(|_| {})).await;
    let mut message = Message::new(topic, payload, qos, retain, carried, received);
    message.publisher = retain.then(|| session.client.clone());
    let mut changes = Vec::new();
    shared.route(&Delivery { message, from: session.number }, &mut changes);
    shared.store.send(changes, None);
}
