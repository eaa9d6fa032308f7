//! Wills: what is published when a client goes without a word (section 3.1.2.5).
//!
//! Promise: a will is published only where its client could still connect and publish there itself; else it is dropped, counted and said.

use std::sync::Arc;

use nearside_schemas::{Publish, QoS};

use crate::access::{Holder, Principal};
use crate::front_door::Shared;
use crate::message::{Delivery, Message, Publisher};
use crate::packet::Will;
use crate::session::Session;

/// Whose a session is, and so its will.
#[derive(Clone)]
pub(crate) struct Owner {
    pub(crate) user: Option<String>,
    /// To whose share it counts; not known of who gave no name before the start.
    pub(crate) holder: Option<Holder>,
    /// Who came last, where somebody did since the start.
    pub(crate) last: Option<Arc<Principal>>,
}

impl Owner {
    fn may_publish(&self, shared: &Shared, session: &Session, topic: &str) -> bool {
        let now = shared.access.of_absent(self.user.as_deref(), session.client.as_str());
        now.is_some_and(|now| now.may_publish(topic)) && self.last.as_ref().is_none_or(|last| shared.trusts(last))
    }
}

/// A will is a message like any other: taken in, routed, retained.
pub(crate) async fn publish(shared: &Shared, session: &Session, owner: &Owner, will: Will) {
    if !owner.may_publish(shared, session, will.topic.as_str()) {
        shared.metrics.refused.will.inc();
        let address = owner.last.as_ref().and_then(|last| last.address);
        let why = "a will was not published: its user may not publish to that topic any more, or is gone";
        shared.refusals.say(address, shared.access.known(owner.user.as_deref()).as_deref(), why);
        return;
    }
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
    let batch = vec![publish];
    if !shared.intake.pass(&batch) {
        shared.intake.submit(batch, Box::new(|_| {})).await;
    }
    let mut message = Message::new(topic, payload, qos, retain, carried, received);
    let publisher = || Arc::new(Publisher { client: session.client.clone(), holder: owner.holder.clone() });
    message.publisher = retain.then(publisher);
    let mut changes = Vec::new();
    shared.route(&Delivery { message, from: session.number, is_compact: false }, &mut changes);
    shared.store.send(changes, None);
}
