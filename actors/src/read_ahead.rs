//! What recovery reads ahead of the streams: one thread reads and decrypts the journal, as many as there are cores decode its messages,
//! so that none of that waits while streams settle at a tick.
//!
//! Promises: everything comes out in the journal's order, whichever thread decoded it (promise I5); what is read ahead is bounded (I4).
//! Never: it takes credit or hands a reading on.

use std::sync::Arc;

use nearside_journal::{Item, Lsn, Reader, Record};
use nearside_schemas::{FEEDBACK_TOPIC, Publish, QoS};
use tokio::sync::oneshot;

use crate::ingest::Ingest;
use crate::stream::Draft;

/// Items that travel together.
const ITEMS_AT_ONCE: usize = 512;
/// Batches read ahead: what streams take in between two ticks, and more.
const BATCHES_AHEAD: usize = 64;
/// Most threads that decode.
const DECODERS: usize = 4;

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
    /// Anything else, operators' feedback among it.
    Record(Lsn, Record),
    /// A damaged place.
    Damage,
}

/// The steps of each batch, in the journal's order; an error where a batch could not be decoded.
pub(crate) type Steps = flume::Receiver<oneshot::Receiver<Vec<Step>>>;

/// Begins to read.
pub(crate) fn read_ahead(mut reader: Reader, ingest: &Arc<Ingest>) -> Steps {
    let (in_order, steps) = flume::bounded(BATCHES_AHEAD);
    // Bounded by the other: a batch is in both.
    let (to_decode, decoding) = flume::unbounded::<(Vec<Item>, oneshot::Sender<Vec<Step>>)>();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for _ in 0..cores.min(DECODERS) {
        let (decoding, ingest) = (decoding.clone(), ingest.clone());
        tokio::task::spawn_blocking(move || {
            for (items, done) in decoding {
                // Whoever asked may not wait any more.
                let _ = done.send(decode(&ingest, items));
            }
        });
    }
    tokio::task::spawn_blocking(move || {
        loop {
            let items: Vec<Item> = reader.by_ref().take(ITEMS_AT_ONCE).collect();
            let (done, decoded) = oneshot::channel();
            if items.is_empty() || in_order.send(decoded).is_err() || to_decode.send((items, done)).is_err() {
                return;
            }
        }
    });
    steps
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
