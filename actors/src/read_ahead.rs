//! What recovery reads ahead of the streams: one thread reads and decrypts the journal, one decodes its messages, so that neither waits while
//! streams settle at a tick.
//!
//! Promises: everything is decoded and comes out in the journal's order, so the same streams exist afterwards in every run, past the most that
//! there may be too (promise I5); what is read ahead is bounded, in records and in bytes (I4); it is known whether all was read, for what
//! was not must not count as covered (I1).
//! Never: it takes credit or hands a reading on.

use std::sync::Arc;

use nearside_journal::{Damage, DamageKind, Item, Lsn, Reader, Record};
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
    /// A damaged place, or a message that could not be decoded.
    Damage,
    /// A segment that the system does not give.
    Unreadable(String),
    /// All of it was read.
    End,
}

/// The steps of each batch.
pub(crate) type Steps = flume::Receiver<Vec<Step>>;

/// Begins to read. Where the steps end without [`Step::End`], not all was read.
pub(crate) fn read_ahead(mut reader: Reader, ingest: &Arc<Ingest>) -> Steps {
    let (read, to_decode) = flume::bounded(BATCHES_READ);
    let (decoded, steps) = flume::bounded(BATCHES_AHEAD);
    tokio::task::spawn_blocking(move || {
        loop {
            // An empty one is the end.
            let items = next_batch(&mut reader);
            let is_end = items.is_empty();
            if read.send(items).is_err() || is_end {
                return;
            }
        }
    });
    let ingest = ingest.clone();
    tokio::task::spawn_blocking(move || {
        let again = |lsn: Lsn, publish: &Publish, drafts: &mut Vec<Draft>| {
            let decoded = fenced(|| ingest.decode_again(lsn, publish, drafts)).ok();
            if decoded.is_none() {
                ingest.set_aside_again(publish);
            }
            decoded
        };
        for items in to_decode {
            let steps = if items.is_empty() { vec![Step::End] } else { decode(items, again) };
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

/// Makes steps of items. `again` decodes a message, says how many drafts it made, and `None` where it panicked: then it costs itself and
/// nothing that stands beside it (promise I3).
fn decode(items: Vec<Item>, again: impl Fn(Lsn, &Publish, &mut Vec<Draft>) -> Option<usize>) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut run = Run::default();
    for item in items {
        let step = match item {
            // Feedback acts on what stands behind it: it ends a run.
            Item::Record(lsn, Record::Publish(publish)) if publish.topic.as_str() != FEEDBACK_TOPIC => {
                let before = run.drafts.len();
                let drafts = again(lsn, &publish, &mut run.drafts);
                run.drafts.truncate(before + drafts.unwrap_or(0));
                run.messages.push((lsn, drafts.unwrap_or(0)));
                if publish.qos == QoS::ExactlyOnce {
                    run.exactly_once.push((lsn, publish));
                }
                if drafts.is_some() {
                    continue;
                }
                Step::Damage
            }
            Item::Record(lsn, record) => Step::Record(lsn, record),
            Item::Damage(Damage { kind: DamageKind::Unreadable, segment, .. }) => Step::Unreadable(segment),
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use nearside_schemas::{ClientId, Timestamp, Topic};

    use super::*;

    fn publish(payload: &'static str, qos: QoS) -> Record {
        Record::Publish(Publish {
            client: ClientId::new("device"),
            topic: Topic::new("ward/7").unwrap(),
            payload: Bytes::from_static(payload.as_bytes()),
            qos,
            packet_id: None,
            retain: false,
            received: Timestamp::from_secs(1),
        })
    }

    #[test]
    fn a_message_that_panics_costs_nothing_that_stands_beside_it() {
        let records = [
            publish("1", QoS::AtLeastOnce),
            publish("666", QoS::ExactlyOnce),
            publish("2", QoS::ExactlyOnce),
            Record::Tick(Timestamp::from_secs(2)),
            publish("3", QoS::AtLeastOnce),
        ];
        let items = records.into_iter().enumerate().map(|(n, record)| Item::Record(Lsn(n as u64), record)).collect();
        let steps = decode(items, |_, publish, _| (publish.payload != "666").then_some(0));
        let seen: Vec<String> = steps
            .iter()
            .map(|step| match step {
                Step::Messages(run) => {
                    let messages: Vec<u64> = run.messages.iter().map(|(lsn, _)| lsn.0).collect();
                    let twice: Vec<u64> = run.exactly_once.iter().map(|(lsn, _)| lsn.0).collect();
                    format!("{messages:?} {twice:?}")
                }
                Step::Record(lsn, _) => format!("record {}", lsn.0),
                Step::Damage => "damage".to_owned(),
                Step::Unreadable(_) | Step::End => "end".to_owned(),
            })
            .collect();
        assert_eq!(seen, ["[0, 1] [1]", "damage", "[2] [2]", "record 3", "[4] []"]);
    }
}
