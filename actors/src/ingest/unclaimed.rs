//! Messages on topics that no stream claims.
//!
//! Promises: each is counted; the first of each of the first few topics is kept aside, encrypted, so that whoever looks after the site can
//! see which topics those are.
//! Never: a topic is logged: it may hold a key (promise I2).

use std::sync::atomic::Ordering;

use ahash::AHashSet;
use nearside_deadletters::{DeadLetter, DeadLetters};
use nearside_schemas::{FEEDBACK_TOPIC, Publish, SetAsideReason, Topic};
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
    /// Takes messages of which nothing has to be kept, and says so; see [`Intake::pass`](nearside_schemas::Intake::pass).
    pub fn pass(&self, batch: &[Publish]) -> bool {
        if self.draining.load(Ordering::Acquire) || batch.iter().any(|publish| self.is_kept(publish)) {
            return false;
        }
        batch.iter().for_each(|publish| self.unclaimed.take(publish, &self.letters));
        true
    }

    /// Whether somebody would read the message from the journal.
    fn is_kept(&self, publish: &Publish) -> bool {
        publish.topic.as_str() == FEEDBACK_TOPIC || !matches!(self.route(&publish.topic), Route::None)
    }
}
