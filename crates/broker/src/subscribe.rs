//! SUBSCRIBE and UNSUBSCRIBE (sections 3.8 to 3.11).

use std::collections::HashMap;

use nearside_schemas::PacketId;

use crate::connection::{Connection, End};
use crate::filter;
use crate::packet::{self, Filters, Reason, Subscription, Subscriptions, Version};

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
        for subscription in subscriptions {
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
        for (subscription, new) in granted.into_values() {
            self.offer_retained(&subscription, new).await;
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
        let number = || self.shared.sessions.next_number();
        self.shared.routes.subscribe(self.session(), subscription, new, number).await;
        Ok(new)
    }

    /// Retained messages are for new subscriptions, or all, or none, as the client wants it; shared ones get none (section 4.8.2).
    /// They are as many as the session's queue holds; further ones shed the first, counted.
    async fn offer_retained(&self, subscription: &Subscription, new: bool) {
        let wanted = subscription.retain_handling == 0 || (subscription.retain_handling == 1 && new);
        if !wanted || filter::share(&subscription.filter).is_some() {
            return;
        }
        self.shared.store.room().await;
        let mut changes = Vec::new();
        let now = self.shared.clock.now();
        self.shared.retained.for_each_match(&subscription.filter, now, |message| {
            self.session().offer_retained(subscription, message.clone(), &mut changes);
        });
        self.shared.store.send(changes, None);
        // Whoever asks for everything again and again does not keep others from their turn.
        tokio::task::yield_now().await;
    }

    pub(crate) async fn unsubscribe(&self, id: PacketId, filters: Filters) -> Result<(), End> {
        let mut codes = Vec::new();
        for filter in filters {
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
