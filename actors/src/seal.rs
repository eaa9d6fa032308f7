//! The seal stage: summaries, findings and roll-ups become sealed items in the outbox.
//!
//! Promises: what leaves this stage towards the outbox was sealed by `privacy` and nothing else can be handed to the
//! uplink (promise I2); what cannot be sealed, or finds the outbox failed, is counted.

use std::sync::Arc;

use nearside_outbox::OutboxHandle;
use nearside_privacy::{Class, KeyRing, PrivacyError, Sealed, SealedItem, SummaryFormat};
use nearside_schemas::{Finding, KeyValues, RollUp, Summary};
use nearside_telemetry::{Metric, Telemetry};

use crate::stream::StreamPlan;

/// What is to be sealed.
pub enum SealMessage {
    /// A judged window.
    Summary {
        /// The summary.
        summary: Arc<Summary>,
        /// Its definition.
        plan: Arc<StreamPlan>,
    },
    /// A finding when it is first seen: leaves at once, ahead of summaries.
    Finding {
        /// The finding.
        finding: Arc<Finding>,
        /// The key of its stream.
        key: KeyValues,
        /// Its definition.
        plan: Arc<StreamPlan>,
    },
    /// A roll-up.
    RollUp(RollUp),
}

/// The component of the seal stage.
pub struct Sealer {
    keys: Arc<KeyRing>,
    format: SummaryFormat,
    outbox: OutboxHandle,
    telemetry: Telemetry,
}

impl Sealer {
    /// A sealer that puts items into `outbox`.
    pub fn new(keys: Arc<KeyRing>, format: SummaryFormat, outbox: OutboxHandle, telemetry: Telemetry) -> Self {
        Self { keys, format, outbox, telemetry }
    }

    /// Seals one message and queues it for the outbox, waiting while that is full.
    pub fn seal(&self, message: SealMessage) {
        let keys = &self.keys;
        let (class, item) = match &message {
            SealMessage::Summary { summary, plan } => {
                let sealed = nearside_privacy::seal_summary(summary, &plan.spec, keys, self.format);
                (Class::Summary, sealed.map(Sealed::into_item))
            }
            SealMessage::Finding { finding, key, plan } => {
                let sealed = nearside_privacy::seal_finding(finding, key, &plan.spec, &plan.site, keys);
                (Class::Alert, sealed.map(Sealed::into_item))
            }
            SealMessage::RollUp(rollup) => {
                (Class::RollUp, nearside_privacy::seal_rollup(rollup, keys).map(Sealed::into_item))
            }
        };
        self.queue(class.label(), item);
    }

    fn queue(&self, class: &str, item: Result<SealedItem, PrivacyError>) {
        match item {
            Ok(item) => {
                self.telemetry.counter(Metric::Summaries, &[class]).inc();
                self.telemetry.counter(Metric::SealedBytes, &[class]).inc_by(item.bytes().len() as u64);
                if !self.outbox.put_blocking(item) {
                    // The outbox has said why; what the item was made of is still in the journal.
                    self.telemetry.counter(Metric::OutboxRefused, &[]).inc();
                }
            }
            Err(error) => {
                self.telemetry.counter(Metric::SealErrors, &[class]).inc();
                tracing::error!(%error, class, "an item could not be sealed and does not leave the site");
            }
        }
    }
}
