//! SUBSCRIBE and UNSUBSCRIBE (sections 3.8 to 3.11).

use nearside_schemas::PacketId;

use crate::connection::Connection;
use crate::filter;
use crate::packet::{self, Reason, Subscription, Version};

impl Connection {
    /// What a filter is refused for, if it is.
    fn objection(&self, filter: &str) -> Option<Reason> {
        let filter = filter::unshared(filter);
        if !self.shared.config.is_topic_in_bounds(filter) {
            return Some(Reason::TopicFilter);
        }
        (!self.principal.may_subscribe(filter)).then_some(Reason::NotAuthorized)
    }

    pub(crate) async fn subscribe(&self, id: PacketId, subscriptions: Vec<Subscription>) {
        let mut codes = Vec::new();
        let mut granted = Vec::new();
        for subscription in subscriptions {
            let objection = self.objection(&subscription.filter);
            let held = match objection {
                Some(reason) => Err(reason),
                None => self
                    .session()
                    .subscribe(subscription.clone(), self.shared.config.max_subscriptions)
                    .ok_or(Reason::QuotaExceeded),
            };
            match held {
                Ok(new) => {
                    let number = || self.shared.sessions.next_number();
                    self.shared.routes.subscribe(self.session(), &subscription, new, number).await;
                    codes.push(subscription.qos as u8);
                    granted.push((subscription, new));
                }
                Err(reason) => {
                    self.shared.metrics.refused.subscribe.inc();
                    codes.push(if self.version == Version::V5 { reason as u8 } else { 0x80 });
                }
            }
        }
        if !granted.is_empty() && !self.store().await {
            // Not on disk, so not granted.
            for (subscription, _) in &granted {
                self.forget(&subscription.filter).await;
            }
            codes.fill(Reason::Unspecified as u8);
            granted.clear();
        }
        self.outlet.send(|out| packet::suback(out, self.version, id, &codes));
        for (subscription, new) in granted {
            self.offer_retained(&subscription, new);
        }
    }

    /// Retained messages are for new subscriptions, or all, or none, as the client wants it; shared ones get none (section 4.8.2).
    fn offer_retained(&self, subscription: &Subscription, new: bool) {
        let wanted = subscription.retain_handling == 0 || (subscription.retain_handling == 1 && new);
        if !wanted || filter::share(&subscription.filter).is_some() {
            return;
        }
        let mut changes = Vec::new();
        let now = self.shared.clock.now();
        for message in self.shared.retained.matching(&subscription.filter, now, &mut changes) {
            self.session().offer_retained(subscription, message, &mut changes);
        }
        self.shared.store.send(changes, None);
    }

    pub(crate) async fn unsubscribe(&self, id: PacketId, filters: Vec<String>) {
        let mut codes = Vec::new();
        for filter in filters {
            codes.push(if self.forget(&filter).await { 0 } else { 0x11 });
        }
        self.store().await;
        self.outlet.send(|out| packet::unsuback(out, self.version, id, &codes));
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
