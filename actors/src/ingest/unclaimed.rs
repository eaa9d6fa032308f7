//! Messages on topics that no stream claims.
//!
//! Promises: each is counted; the first of each of the first few topics is kept aside, encrypted, so that whoever looks after the site can
//! see which topics those are.
//! Never: a topic is logged: it may hold a key (promise I2).

use std::sync::atomic::Ordering;

use ahash::AHashSet;
use nearside_deadletters::{DeadLetter, DeadLetters};
use nearside_schemas::{Answer, Durability, FEEDBACK_TOPIC, Publish, QoS, SetAsideReason, Topic};
use nearside_telemetry::{Counter, Metric, Telemetry};
use parking_lot::Mutex;

use super::{Ingest, Route};

/// Most topics of which a message is kept.
const TOPICS: usize = 16;

pub(super) struct Unclaimed {
    messages: Counter,
    kept: Mutex<AHashSet<Topic>>,
}

impl Unclaimed {
    pub(super) fn new(telemetry: &Telemetry) -> Self {
        let messages = telemetry.counter(Metric::SetAside, &["none", SetAsideReason::NoStream.label()]);
        Self { messages, kept: Mutex::default() }
    }

    /// Takes a message that no stream claims.
    pub(super) fn take(&self, publish: &Publish, letters: &DeadLetters) {
        if self.messages.get() == 0 {
            tracing::warn!(
                "messages come on a topic that no stream claims (said once): `nearside deadletters list` shows the topics, \
                 nearside_readings_set_aside_total counts the messages"
            );
        }
        self.messages.inc();
        let mut kept = self.kept.lock();
        if kept.len() < TOPICS && kept.insert(publish.topic.clone()) {
            let letter = DeadLetter::of(publish, None, "route", SetAsideReason::NoStream);
            letters.put(letter.because("no stream claims this topic"));
        }
    }
}

impl Ingest {
    /// Takes messages that need no journal and answers them, or gives them back.
    ///
    /// # Errors
    /// Where they are to be taken by [`Ingest::take_in`].
    pub fn take_at_once(
        &self,
        batch: Vec<Publish>,
        unanswered: usize,
        answer: Answer,
    ) -> Result<(), (Vec<Publish>, Answer)> {
        let waits = unanswered > 0 || self.draining.load(Ordering::Acquire);
        if waits || batch.iter().any(|publish| self.is_kept(publish)) {
            return Err((batch, answer));
        }
        batch.iter().for_each(|publish| self.unclaimed.take(publish, &self.letters));
        answer(Durability::NotKept);
        Ok(())
    }

    /// Whether somebody would read the message from the journal. What no stream claims nobody would, but the packet ids of QoS 2 are
    /// known from there after a crash.
    fn is_kept(&self, publish: &Publish) -> bool {
        publish.qos == QoS::ExactlyOnce
            || publish.topic.as_str() == FEEDBACK_TOPIC
            || !matches!(self.route(&publish.topic), Route::None)
    }
}
