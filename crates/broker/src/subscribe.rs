//! SUBSCRIBE and UNSUBSCRIBE (sections 3.8 to 3.11).

use std::collections::HashMap;

use nearside_schemas::{PacketId, Topic};

use crate::connection::{Connection, End};
use crate::filter;
use crate::packet::{self, Filters, Reason, Subscription, Subscriptions, Version};

/// Filters of a packet, and topics that a filter is held against, before others have their turn.
const FILTERS_A_TURN: usize = 64;
const TOPICS_A_TURN: usize = 256;

impl Connection {
    /// What a filter is refused for, if it is.
    fn objection(&self, filter: &str) -> Option<Reason> {
        let filter = filter::unshared(filter);
        if !self.shared.config.is_topic_in_bounds(filter) {
            return Some(Reason::TopicFilter);
        }
        (!self.principal.may_subscribe(filter)).then_some(Reason::NotAuthorized)
    }

    pub(crate) async fn subscribe(&self, id: PacketId, subscriptions: Subscriptions) -> Result<(), End> {
        let mut codes = Vec::new();
        // A filter that stands there several times is granted as it stood there last, and its retained messages are sent once.
        let mut granted: HashMap<String, (Subscription, bool)> = HashMap::new();
        for (place, subscription) in subscriptions.enumerate() {
            take_turns(place).await;
            match self.hold(&subscription).await {
                Ok(new) => {
                    codes.push(subscription.qos as u8);
                    let new = new || granted.get(&subscription.filter).is_some_and(|(_, new)| *new);
                    granted.insert(subscription.filter.clone(), (subscription, new));
                }
                Err(reason) => {
                    self.shared.metrics.refused.subscribe.inc();
                    if reason == Reason::NotAuthorized {
                        self.say_refused("a subscription was refused: its user may not subscribe to that filter");
                    }
                    codes.push(if self.version == Version::V5 { reason as u8 } else { 0x80 });
                }
            }
        }
        if !granted.is_empty() && !self.store().await {
            // Not on disk, so not granted.
            for filter in granted.keys() {
                self.forget(filter).await;
            }
            codes.fill(Reason::Unspecified as u8);
            granted.clear();
        }
        self.send(|out| packet::suback(out, self.version, id, &codes))?;
        let mut topics = None;
        for (subscription, new) in granted.into_values() {
            if self.is_over() {
                break;
            }
            self.offer_retained(&subscription, new, &mut topics).await;
        }
        Ok(())
    }

    /// Adds one subscription, or says why not. Gives back whether the session did not have the filter before.
    async fn hold(&self, subscription: &Subscription) -> Result<bool, Reason> {
        if let Some(reason) = self.objection(&subscription.filter) {
            return Err(reason);
        }
        let held = self.session().subscribe(subscription.clone(), self.shared.config.max_subscriptions);
        let new = held.ok_or(Reason::QuotaExceeded)?;
        if new && !self.shared.routes.has_room_for(&subscription.filter) {
            self.session().unsubscribe(&subscription.filter);
            return Err(Reason::QuotaExceeded);
        }
        let number = || self.shared.sessions.next_number();
        self.shared.routes.subscribe(self.session(), subscription, new, number).await;
        Ok(new)
    }

    /// Retained messages are for new subscriptions, or all, or none, as the client wants it; shared ones get none (section 4.8.2).
    /// They are as many as the session's queue holds; further ones shed the first, counted.
    ///
    /// `topics` are those that have one; what is retained on another meanwhile reaches the subscription as it is published.
    async fn offer_retained(&self, subscription: &Subscription, new: bool, topics: &mut Option<Vec<Topic>>) {
        let wanted = subscription.retain_handling == 0 || (subscription.retain_handling == 1 && new);
        if !wanted || filter::share(&subscription.filter).is_some() {
            return;
        }
        // A filter without wildcards is a topic.
        if let Ok(topic) = Topic::new(&subscription.filter) {
            return self.show(subscription, &[&topic]).await;
        }
        let topics = topics.get_or_insert_with(|| self.shared.retained.topics());
        for some in topics.chunks(TOPICS_A_TURN) {
            let is_asked_for = |topic: &&Topic| filter::matches(&subscription.filter, topic.as_str());
            let matching: Vec<&Topic> = some.iter().filter(is_asked_for).collect();
            self.show(subscription, &matching).await;
            // Whoever asks for everything again and again does not keep others from their turn.
            tokio::task::yield_now().await;
            if self.is_over() {
                return;
            }
        }
    }

    /// Hands the client the retained messages of these topics.
    async fn show(&self, subscription: &Subscription, topics: &[&Topic]) {
        if topics.is_empty() {
            return;
        }
        self.shared.store.room().await;
        let mut changes = Vec::new();
        self.shared.retained.show(topics, self.shared.clock.now(), |message| {
            self.session().offer_retained(subscription, message.clone(), &mut changes);
        });
        self.shared.store.send(changes, None);
    }

    pub(crate) async fn unsubscribe(&self, id: PacketId, filters: Filters) -> Result<(), End> {
        let mut codes = Vec::new();
        for (place, filter) in filters.enumerate() {
            take_turns(place).await;
            codes.push(if self.forget(&filter).await { 0 } else { 0x11 });
        }
        self.store().await;
        self.send(|out| packet::unsuback(out, self.version, id, &codes))
    }

    async fn forget(&self, filter: &str) -> bool {
        let known = self.session().unsubscribe(filter);
        if known {
            self.shared.routes.unsubscribe(self.session(), filter).await;
        }
        known
    }

    /// Stores the session's subscriptions, where it is kept. False where they are not on disk.
    async fn store(&self) -> bool {
        match self.shared.sessions.record(&self.session().client) {
            Some(record) => self.shared.store.commit(vec![record]).await,
            None => true,
        }
    }
}

/// Lets others of the thread have their turn now and then.
async fn take_turns(place: usize) {
    if place % FILTERS_A_TURN == FILTERS_A_TURN - 1 {
        tokio::task::yield_now().await;
    }
}
