//! What recovery reads ahead of the streams: one thread reads and decrypts the journal, one decodes its messages, so that neither waits while
//! streams settle at a tick.
//!
//! Promises: everything is decoded and comes out in the journal's order, so the same streams exist afterwards in every run, past the most that
//! there may be too (promise I5); what is read ahead is bounded, in records and in bytes (I4).
//! Never: it takes credit or hands a reading on.

use std::sync::Arc;

use nearside_journal::{Item, Lsn, Reader, Record};
use nearside_schemas::{FEEDBACK_TOPIC, Publish, QoS};

use crate::fence::fenced;
use crate::ingest::Ingest;
use crate::stream::Draft;

/// Items that travel together, and the bytes of them after which no other joins them.
const ITEMS_AT_ONCE: usize = 512;
const BYTES_AT_ONCE: usize = 256 << 10;
/// Batches that wait to be decoded.
const BATCHES_READ: usize = 8;
/// Batches that wait to be taken in: with small messages, what streams take in between two ticks, and more.
const BATCHES_AHEAD: usize = 32;

/// Messages that follow each other in the journal.
#[derive(Default)]
pub(crate) struct Run {
    /// Each with the number of its drafts.
    pub(crate) messages: Vec<(Lsn, usize)>,
    /// Those QoS 2 messages that the front door hears of.
    pub(crate) exactly_once: Vec<(Lsn, Publish)>,
    /// Their readings, but for what streams hold already.
    pub(crate) drafts: Vec<Draft>,
}

/// What the journal holds, ready to be taken in.
pub(crate) enum Step {
    /// Messages.
    Messages(Run),
    /// Anything else.
    Record(Lsn, Record),
    /// A damaged place, or a batch that could not be decoded.
    Damage,
}

/// The steps of each batch.
pub(crate) type Steps = flume::Receiver<Vec<Step>>;

/// Begins to read.
pub(crate) fn read_ahead(mut reader: Reader, ingest: &Arc<Ingest>) -> Steps {
    let (read, to_decode) = flume::bounded(BATCHES_READ);
    let (decoded, steps) = flume::bounded(BATCHES_AHEAD);
    tokio::task::spawn_blocking(move || {
        loop {
            let items = next_batch(&mut reader);
            if items.is_empty() || read.send(items).is_err() {
                return;
            }
        }
    });
    let ingest = ingest.clone();
    tokio::task::spawn_blocking(move || {
        for items in to_decode {
            let steps = fenced(|| decode(&ingest, items)).unwrap_or_else(|_| {
                tracing::error!("a part of the journal could not be decoded and is left out");
                vec![Step::Damage]
            });
            // Whoever asked may not wait any more.
            if decoded.send(steps).is_err() {
                return;
            }
        }
    });
    steps
}

fn next_batch(reader: &mut Reader) -> Vec<Item> {
    let (mut items, mut bytes) = (Vec::new(), 0);
    while items.len() < ITEMS_AT_ONCE && bytes < BYTES_AT_ONCE {
        let Some(item) = reader.next() else { break };
        if let Item::Record(_, record) = &item {
            bytes += record.size();
        }
        items.push(item);
    }
    items
}

fn decode(ingest: &Ingest, items: Vec<Item>) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut run = Run::default();
    for item in items {
        let step = match item {
            // Feedback acts on what stands behind it: it ends a run.
            Item::Record(lsn, Record::Publish(publish)) if publish.topic.as_str() != FEEDBACK_TOPIC => {
                let drafts = ingest.decode_again(lsn, &publish, &mut run.drafts);
                run.messages.push((lsn, drafts));
                if publish.qos == QoS::ExactlyOnce {
                    run.exactly_once.push((lsn, publish));
                }
                continue;
            }
            Item::Record(lsn, record) => Step::Record(lsn, record),
            Item::Damage(_) => Step::Damage,
        };
        if !run.messages.is_empty() {
            steps.push(Step::Messages(std::mem::take(&mut run)));
        }
        steps.push(step);
    }
    if !run.messages.is_empty() {
        steps.push(Step::Messages(run));
    }
    steps
}
