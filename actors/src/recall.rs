//! Recall: brings messages that panicked the code behind the journal back from it, and sets them aside as dead letters.
//!
//! Promises: whoever meets a panic never waits (promise I3); what is not kept is counted (I4); the message is set aside as the device
//! sent it, encrypted like any other letter, with no more of a reason than a label (I2).
//! Never: streams hold payloads for it. A message is on disk before any stream sees it, so its number is enough.

use std::sync::Arc;

use flume::Sender;
use nearside_deadletters::{DeadLetter, DeadLetters};
use nearside_journal::{Item, Lsn, Record, Storage, read_from};
use nearside_schemas::{KeySource, Publish, SetAsideReason, StreamName};
use nearside_telemetry::{Metric, Telemetry};

/// Messages that may wait to be brought back. A stream is parked after a few panics, so only many streams at once fill it.
const QUEUE: usize = 256;

struct Request {
    lsn: Lsn,
    stream: StreamName,
    stage: &'static str,
}

/// A way to set messages of the journal aside. The thread ends when all are gone.
#[derive(Clone)]
pub struct Recall {
    requests: Sender<Request>,
    telemetry: Telemetry,
}

impl Recall {
    /// Starts the thread that reads `storage`, a journal's.
    ///
    /// # Errors
    /// Where the system refuses a thread.
    pub fn start(
        storage: Arc<dyn Storage>,
        keys: Arc<dyn KeySource>,
        letters: DeadLetters,
        telemetry: &Telemetry,
    ) -> std::io::Result<Self> {
        let (requests, queue) = flume::bounded::<Request>(QUEUE);
        let gone = telemetry.counter(Metric::DeadLettersShed, &["gone"]);
        std::thread::Builder::new().name("recall".to_owned()).spawn(move || {
            for Request { lsn, stream, stage } in queue {
                match find(&storage, &keys, lsn) {
                    Some(publish) => {
                        letters.put(DeadLetter::of(&publish, Some(&stream), stage, SetAsideReason::Panicked));
                    }
                    // Its segment was freed or is damaged.
                    None => {
                        gone.inc();
                    }
                }
            }
        })?;
        Ok(Self { requests, telemetry: telemetry.clone() })
    }

    /// Sets the message with this number aside, which panicked `stage` of a stream of this definition. Does not wait.
    pub fn set_aside(&self, lsn: Lsn, stream: &StreamName, stage: &'static str) {
        if self.requests.try_send(Request { lsn, stream: stream.clone(), stage }).is_err() {
            self.telemetry.counter(Metric::DeadLettersShed, &["busy"]).inc();
        }
    }
}

fn find(storage: &Arc<dyn Storage>, keys: &Arc<dyn KeySource>, lsn: Lsn) -> Option<Publish> {
    let reader = read_from(storage.clone(), keys.clone(), lsn, Lsn(lsn.0 + 1)).ok()?;
    let mut records = reader.filter_map(|item| match item {
        Item::Record(number, record) => Some((number, record)),
        Item::Damage(_) => None,
    });
    match records.find(|(number, _)| *number >= lsn)? {
        (number, Record::Publish(publish)) if number == lsn => Some(publish),
        _ => None,
    }
}
