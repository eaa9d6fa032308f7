//! The handle and the thread behind it.

use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flume::{Receiver, RecvTimeoutError, Sender};
use nearside_schemas::{KeySource, SetAsideReason, StreamName};
use nearside_telemetry::{Counter, Gauge, Metric, Telemetry};

use crate::area::{self, Filed, LetterId, name_of};
use crate::config::{DeadLetterError, DeadLettersConfig};
use crate::letter::{DeadLetter, Digest};

/// The label of letters whose topic no stream claims.
const NO_STREAM: &str = "none";
/// How often letters that somebody else took away are noticed.
const RECOUNT: Duration = Duration::from_secs(10);

enum Request {
    Put(DeadLetter),
    /// Answered once everything before it is on disk or given up.
    Flush(Sender<()>),
}

/// A way to set messages aside. The thread ends when all are gone.
#[derive(Clone)]
pub struct DeadLetters {
    requests: Sender<Request>,
    telemetry: Telemetry,
    busy: Counter,
}

impl DeadLetters {
    /// Opens the area in `folder`, making it where it is missing.
    ///
    /// # Errors
    /// Where the folder cannot be made or read.
    pub fn open(
        folder: &Path,
        config: &DeadLettersConfig,
        keys: Arc<dyn KeySource>,
        telemetry: &Telemetry,
    ) -> Result<Self, DeadLetterError> {
        config.validate()?;
        std::fs::create_dir_all(folder).map_err(area::storage(folder))?;
        let keeper = Keeper::new(folder, config, keys, telemetry)?;
        let (requests, queue) = flume::bounded(config.queue);
        std::thread::Builder::new()
            .name("deadletters".to_owned())
            .spawn(move || keeper.run(&queue))
            .map_err(DeadLetterError::Thread)?;
        let busy = telemetry.counter(Metric::DeadLettersShed, &["busy"]);
        Ok(Self { requests, telemetry: telemetry.clone(), busy })
    }

    /// Counts letters of a stream definition from 0, for each of these reasons: whoever watches a counter sees its first step only if it was
    /// there before. `None` stands for topics that no stream claims.
    pub fn expect(&self, stream: Option<&StreamName>, reasons: &[SetAsideReason]) {
        let stream = stream.map_or(NO_STREAM, StreamName::as_str);
        for reason in reasons {
            self.telemetry.counter(Metric::DeadLettersKept, &[stream, reason.label()]);
        }
    }

    /// Sets a message aside, without waiting. False where it is not kept because too many wait to be written; that is counted.
    pub fn put(&self, letter: DeadLetter) -> bool {
        let stream = letter.stream.clone().unwrap_or_else(|| NO_STREAM.to_owned());
        let reason = letter.reason.clone();
        let queued = self.requests.try_send(Request::Put(letter)).is_ok();
        if queued {
            self.telemetry.counter(Metric::DeadLettersKept, &[&stream, &reason]).inc();
        } else {
            self.busy.inc();
        }
        queued
    }

    /// Returns once everything put so far is on disk or given up.
    pub async fn flush(&self) {
        let (done, flushed) = flume::bounded(1);
        if self.requests.send_async(Request::Flush(done)).await.is_ok() {
            // The thread does not panic; were it to, there would be nothing left to wait for.
            let _ = flushed.recv_async().await;
        }
    }
}

/// The thread's side: the folder and what is in it.
struct Keeper {
    folder: PathBuf,
    quota: u64,
    most: usize,
    keys: Arc<dyn KeySource>,
    files: VecDeque<Filed>,
    digests: HashSet<Digest>,
    bytes: u64,
    next: u64,
    letters: Gauge,
    letter_bytes: Gauge,
    shed: Counter,
    failed: Counter,
}

impl Keeper {
    fn new(
        folder: &Path,
        config: &DeadLettersConfig,
        keys: Arc<dyn KeySource>,
        telemetry: &Telemetry,
    ) -> Result<Self, DeadLetterError> {
        let files: VecDeque<Filed> = area::files(folder)?.into();
        let keeper = Self {
            folder: folder.to_owned(),
            quota: config.quota.bytes(),
            most: config.most,
            keys,
            digests: files.iter().map(|file| file.digest).collect(),
            bytes: files.iter().map(|file| file.bytes).sum(),
            next: files.back().map_or(0, |file| file.id.0 + 1),
            files,
            letters: telemetry.gauge(Metric::DeadLetters, &[]),
            letter_bytes: telemetry.gauge(Metric::DeadLetterBytes, &[]),
            shed: telemetry.counter(Metric::DeadLettersShed, &["quota"]),
            failed: telemetry.counter(Metric::DeadLettersShed, &["disk"]),
        };
        keeper.observe();
        Ok(keeper)
    }

    fn run(mut self, queue: &Receiver<Request>) {
        let mut counted = Instant::now();
        loop {
            match queue.recv_timeout(RECOUNT) {
                Ok(Request::Put(letter)) => {
                    if let Err(error) = self.keep(&letter) {
                        self.failed.inc();
                        tracing::error!(%error, "a dead letter could not be kept");
                    }
                    self.observe();
                }
                Ok(Request::Flush(done)) => {
                    // Whoever asked may not wait any more.
                    let _ = done.send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if counted.elapsed() >= RECOUNT {
                self.recount();
                counted = Instant::now();
            }
        }
    }

    /// Looks at what is there: the command line takes letters away that it has replayed.
    fn recount(&mut self) {
        match area::files(&self.folder) {
            Ok(files) => {
                self.digests = files.iter().map(|file| file.digest).collect();
                self.bytes = files.iter().map(|file| file.bytes).sum();
                self.files = files.into();
                self.observe();
            }
            Err(error) => tracing::warn!(%error, "the dead letters could not be counted"),
        }
    }

    fn keep(&mut self, letter: &DeadLetter) -> Result<(), DeadLetterError> {
        let digest = letter.digest(self.keys.as_ref());
        if self.digests.contains(&digest) {
            return Ok(());
        }
        let sealed = letter.seal(self.keys.as_ref())?;
        let bytes = sealed.len() as u64;
        if bytes > self.quota {
            self.shed.inc();
            return Ok(());
        }
        while self.files.len() >= self.most || self.bytes + bytes > self.quota {
            if !self.shed_oldest()? {
                break;
            }
        }
        let id = LetterId(self.next);
        area::write_whole(&self.folder, &name_of(id, &digest), &sealed).map_err(area::storage(&self.folder))?;
        self.next += 1;
        self.bytes += bytes;
        self.digests.insert(digest);
        self.files.push_back(Filed { id, digest, bytes });
        Ok(())
    }

    fn shed_oldest(&mut self) -> Result<bool, DeadLetterError> {
        let Some(oldest) = self.files.pop_front() else { return Ok(false) };
        self.bytes = self.bytes.saturating_sub(oldest.bytes);
        self.digests.remove(&oldest.digest);
        let path = self.folder.join(name_of(oldest.id, &oldest.digest));
        match std::fs::remove_file(&path) {
            Ok(()) => self.shed.inc(),
            // Somebody replayed it in the meantime.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(area::storage(&path)(error)),
        };
        Ok(true)
    }

    fn observe(&self) {
        self.letters.set(self.files.len() as f64);
        self.letter_bytes.set(self.bytes as f64);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use nearside_schemas::{KeyPurpose, QoS, SecretKey, Timestamp};

    use super::*;

    struct Keys;

    impl KeySource for Keys {
        fn derive(&self, purpose: KeyPurpose, context: &[u8]) -> SecretKey {
            let material = [format!("{purpose:?}").as_bytes(), context].concat();
            SecretKey::new(blake3::derive_key("nearside test keys", &material))
        }
    }

    fn letter(number: i64) -> DeadLetter {
        DeadLetter {
            reason: String::from("panicked"),
            detail: String::new(),
            stage: String::from("decode"),
            stream: None,
            received: Timestamp::from_secs(number),
            topic: String::from("a/b"),
            qos: QoS::AtLeastOnce,
            retain: false,
            payload: Bytes::from_static(b"payload"),
        }
    }

    #[test]
    fn letters_that_somebody_took_away_are_not_counted() {
        let folder = tempfile::tempdir().unwrap();
        let telemetry = Telemetry::new();
        let config = DeadLettersConfig::default();
        let mut keeper = Keeper::new(folder.path(), &config, Arc::new(Keys), &telemetry).unwrap();
        (0..3).for_each(|number| keeper.keep(&letter(number)).unwrap());
        let (all, bytes) = (area::ids(folder.path()).unwrap(), keeper.bytes);
        all[..2].iter().for_each(|id| area::remove(folder.path(), *id).unwrap());
        keeper.recount();
        assert_eq!((keeper.files.len(), keeper.digests.len(), keeper.bytes), (1, 1, bytes / 3));
        keeper.keep(&letter(9)).unwrap();
        assert_eq!(area::ids(folder.path()).unwrap(), [all[2], LetterId(3)], "no id is used again");
        area::ids(folder.path()).unwrap().iter().for_each(|id| area::remove(folder.path(), *id).unwrap());
        keeper.recount();
        assert_eq!((keeper.files.len(), keeper.bytes, keeper.next), (0, 0, 4));
    }
}
