//! Ingest: what the front door hands messages to. Decodes, asks for credit, journals, and after the commit hands the
//! readings to their shards in journal order.
//!
//! Promises: a message that a stream claims is acknowledged only after it is on disk (promise I1); credit comes before the acknowledgement; streams of
//! one connection that are full make that connection wait and no other (I3); the order in which shards see readings is
//! the journal's (I5).
//! Never: a payload, a topic or a key is logged (I2).

mod closing;
mod feedback;
mod ticks;
mod unclaimed;

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use actix::Addr;
use ahash::AHashMap;
use nearside_deadletters::{DeadLetter, DeadLetters};
use nearside_journal::{CommitOutcome, JournalHandle, Lsn, Record};
use nearside_schemas::codec::{Decode, Decoded, DecodedRow};
use nearside_schemas::{
    Answer, Durability, FEEDBACK_TOPIC, KeyValues, Personal, Publish, RefusalReason, SecretKey, SetAsideReason,
    StreamId, StreamMap, StreamName, Topic,
};
use nearside_telemetry::{Counter, Metric, Telemetry};
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;

use crate::awake::Awake;
use crate::credit::{ShardCredit, admit, try_admit};
use crate::error::ActorError;
use crate::feedback::FeedbackDesk;
use crate::fence::fenced;
use crate::outlet::Outlet;
use crate::read_ahead::Run;
use crate::recovery::Again;
use crate::stream::{Draft, OnItsWay, Shard, ShardBatch, StreamPlan, StreamRef, Work};
use unclaimed::Unclaimed;

/// Most topics whose stream is remembered, and most bytes of their names; beyond either the memory starts anew.
const REMEMBERED_TOPICS: usize = 262_144;
const REMEMBERED_BYTES: usize = 32 << 20;

/// A shard as ingest sees it.
#[derive(Clone)]
pub struct ShardHandle {
    /// Where its batches go.
    pub address: Addr<Shard>,
    /// Its credit.
    pub credit: Arc<ShardCredit>,
}

struct Definition {
    plan: Arc<StreamPlan>,
    decoder: Arc<dyn Decode>,
    readings: Counter,
    /// For each key part: whether it stands in the topic.
    key_from_topic: Vec<bool>,
}

/// Where a topic's messages go.
#[derive(Clone)]
enum Route {
    /// No stream claims the topic.
    None,
    /// The key stands in the topic: always the same stream.
    Stream(Arc<StreamRef>),
    /// Part of the key stands in the payload.
    Keyed { definition: usize, topic_key: KeyValues },
    /// There are as many streams as there may be.
    Overflow { definition: usize },
}

/// Where topics lead that were looked up before.
#[derive(Default)]
struct Remembered {
    routes: AHashMap<Topic, Route>,
    bytes: usize,
}

impl Remembered {
    fn insert(&mut self, topic: &Topic, route: &Route) {
        let bytes = topic.as_str().len();
        if self.routes.len() >= REMEMBERED_TOPICS || self.bytes + bytes > REMEMBERED_BYTES {
            *self = Self::default();
        }
        if self.routes.insert(topic.clone(), route.clone()).is_none() {
            self.bytes += bytes;
        }
    }
}

/// The intake of the gateway.
pub struct Ingest {
    definitions: Vec<Definition>,
    shards: Vec<ShardHandle>,
    journal: JournalHandle,
    outlet: Arc<Outlet>,
    stream_secret: SecretKey,
    topics: RwLock<Remembered>,
    streams: RwLock<StreamMap<Arc<StreamRef>>>,
    stream_count: AtomicUsize,
    max_streams: usize,
    /// Where messages go that could not be read.
    letters: DeadLetters,
    desk: Arc<FeedbackDesk>,
    draining: AtomicBool,
    unclaimed: Unclaimed,
    /// One is held by each tick that was not taken.
    ticks: OnItsWay,
    /// Ticks that were left out, in a row.
    left_out: AtomicUsize,
    /// The time of the last one that was recorded, in microseconds.
    last_tick: AtomicI64,
    awake: Arc<Awake>,
    credit_waits: Counter,
}

/// What ingest is built from.
pub struct IngestSetup {
    /// Where messages are recorded.
    pub journal: JournalHandle,
    /// Who counts what is set aside.
    pub outlet: Arc<Outlet>,
    /// Where messages go that could not be read.
    pub letters: DeadLetters,
    /// The key of stream ids.
    pub stream_secret: SecretKey,
    /// Most streams.
    pub max_streams: usize,
    /// Where feedback comes in.
    pub desk: Arc<FeedbackDesk>,
    /// Since when the gateway has listened.
    pub awake: Arc<Awake>,
}

/// Messages of a batch that hold no credit yet.
#[derive(Default)]
struct Chunk {
    /// Each with the number of its drafts.
    messages: Vec<(Publish, usize)>,
    drafts: Vec<Draft>,
    readings: usize,
}

/// What is ready for the journal: messages, and the work that they make.
#[derive(Default)]
struct Part {
    records: Vec<Record>,
    works: Vec<Work>,
}

/// Why letters are written of messages that a stream claims.
const LETTERS: &[SetAsideReason] = &[
    SetAsideReason::Malformed,
    SetAsideReason::NotFinite,
    SetAsideReason::TooLarge,
    SetAsideReason::BadKey,
    SetAsideReason::BadTimestamp,
    SetAsideReason::Panicked,
];
/// Credit is taken for about so many readings at once.
const READINGS_AT_ONCE: usize = 512;

impl Ingest {
    /// Builds the intake of these definitions.
    pub fn new(
        plans: &[Arc<StreamPlan>],
        shards: Vec<ShardHandle>,
        setup: IngestSetup,
        telemetry: &Telemetry,
    ) -> Result<Self, ActorError> {
        let IngestSetup { journal, outlet, letters, stream_secret, max_streams, desk, awake } = setup;
        let definitions = plans.iter().map(|plan| Definition::new(plan, telemetry)).collect::<Result<_, _>>()?;
        letters.expect(None, &[SetAsideReason::NoStream]);
        for plan in plans {
            letters.expect(Some(&plan.spec.name), LETTERS);
        }
        Ok(Self {
            definitions,
            shards,
            journal,
            outlet,
            stream_secret,
            topics: RwLock::default(),
            streams: RwLock::default(),
            stream_count: AtomicUsize::new(0),
            max_streams,
            letters,
            desk,
            draining: AtomicBool::new(false),
            unclaimed: Unclaimed::new(telemetry),
            ticks: OnItsWay::default(),
            left_out: AtomicUsize::new(0),
            last_tick: AtomicI64::new(i64::MIN),
            awake,
            credit_waits: telemetry.counter(Metric::CreditWaits, &[]),
        })
    }

    /// Since when the gateway has listened.
    pub fn awake(&self) -> &Awake {
        &self.awake
    }

    /// From now on refuses what comes.
    pub fn refuse(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// The stream with this key of the definition with this name, as a checkpoint remembers it; `None` where there is no such
    /// definition any more. There is room for it where fewer streams are permitted than there were: its windows hold what was acknowledged.
    pub fn adopt(&self, definition: &StreamName, key: KeyValues) -> Option<Arc<StreamRef>> {
        let index = self.definitions.iter().position(|known| known.plan.spec.name == *definition)?;
        let parts = self.definitions[index].plan.spec.key.len();
        if key.len() == parts { self.intern(index, key, usize::MAX) } else { None }
    }

    /// Decodes a message that the journal remembers, leaving out what streams hold already. Gives back how many drafts it made.
    pub(crate) fn decode_again(&self, lsn: Lsn, publish: &Publish, drafts: &mut Vec<Draft>) -> usize {
        let before = drafts.len();
        self.decode(publish, lsn, drafts);
        let mut kept = before;
        for at in before..drafts.len() {
            if !drafts[at].stream.holds(lsn) {
                drafts.swap(kept, at);
                kept += 1;
            }
        }
        drafts.truncate(kept);
        kept - before
    }

    /// Keeps a message aside that the journal remembers and that panicked when it was decoded again.
    pub(crate) fn set_aside_again(&self, publish: &Publish) {
        // It may have panicked anywhere, so its stream is not asked for.
        self.letters.put(DeadLetter::of(publish, None, "decode", SetAsideReason::Panicked));
    }

    /// Takes in messages that the journal remembers, waiting for credit where there is none for all of them.
    pub(crate) async fn take_again(&self, run: Run, again: &mut Again) {
        let Run { messages, mut drafts, .. } = run;
        let Some(first) = drafts.first().map(|draft| draft.lsn) else { return };
        if try_admit(&mut drafts, &mut again.works).is_ok() {
            again.first.get_or_insert(first);
            return;
        }
        for (lsn, count) in messages {
            let mut own: Vec<Draft> = drafts.drain(..count).collect();
            if own.is_empty() {
                continue;
            }
            if try_admit(&mut own, &mut again.works).is_err() {
                // Handed on first: waiting while holding credit could wait for itself.
                self.hand_on(lsn, again);
                admit(&mut own, &mut again.works).await;
            }
            again.first.get_or_insert(lsn);
        }
    }

    /// Hands work on to the shards; it comes from records up to and with `last`.
    pub fn hand_on(&self, last: Lsn, again: &mut Again) {
        let Again { first, works } = std::mem::take(again);
        let shards: Vec<Addr<Shard>> = self.shards.iter().map(|shard| shard.address.clone()).collect();
        dispatch(&shards, works, first.unwrap_or(last), Lsn(last.0 + 1));
    }

    /// The definitions' names.
    pub fn definition_names(&self) -> Vec<StreamName> {
        self.definitions.iter().map(|definition| definition.plan.spec.name.clone()).collect()
    }

    /// The positions of those of these definitions that there are.
    fn positions(&self, streams: &[StreamName]) -> Vec<usize> {
        let definitions = self.definitions.iter().map(|definition| &definition.plan.spec);
        definitions.enumerate().filter(|(_, spec)| streams.contains(&spec.name)).map(|(index, _)| index).collect()
    }

    /// Waits until every reading that was admitted is judged.
    pub async fn judged_through(&self) {
        for shard in &self.shards {
            shard.credit.unused().await;
        }
    }

    /// The shards.
    pub fn shards(&self) -> &[ShardHandle] {
        &self.shards
    }

    /// Readings admitted and not yet judged, of all shards.
    pub fn in_flight(&self) -> usize {
        self.shards.iter().map(|shard| shard.credit.used()).sum()
    }

    /// Whether every shard's thread is there.
    pub fn shards_live(&self) -> bool {
        self.shards.iter().all(|shard| shard.address.connected())
    }

    /// Readings decoded so far, by definition.
    pub fn readings(&self) -> Vec<u64> {
        self.definitions.iter().map(|definition| definition.readings.get()).collect()
    }

    /// The stream that a topic's messages go to, where the whole key stands in the topic.
    pub fn stream_of(&self, topic: &Topic) -> Option<StreamId> {
        match self.route(topic) {
            Route::Stream(stream) => Some(stream.id),
            Route::None | Route::Keyed { .. } | Route::Overflow { .. } => None,
        }
    }

    /// Takes the next messages of one connection; see [`Intake::submit`](nearside_schemas::Intake::submit).
    pub async fn take(&self, batch: Vec<Publish>, answer: Answer) {
        if self.draining.load(Ordering::Acquire) {
            answer(Durability::Refused(RefusalReason::Draining));
            return;
        }
        let mut part = Part::default();
        part.records.reserve(batch.len());
        let mut chunk = Chunk::default();
        // What became of parts that were committed before the last: the whole batch is durable only if all of it is.
        let refused = Arc::new(Mutex::new(None));
        for publish in batch {
            if publish.topic.as_str() == FEEDBACK_TOPIC {
                // It acts on what stands behind it: what stands in front is handed on first.
                self.admit_chunk(&mut chunk, &mut part, &refused).await;
                self.commit(std::mem::take(&mut part), Some(note_refusal(&refused))).await;
                self.take_published_feedback(publish, &refused).await;
                continue;
            }
            let before = chunk.drafts.len();
            self.decode(&publish, Lsn(chunk.messages.len() as u64), &mut chunk.drafts);
            let own = &chunk.drafts[before..];
            chunk.readings += own.iter().map(|draft| draft.readings.len()).sum::<usize>();
            chunk.messages.push((publish, own.len()));
            if chunk.readings >= READINGS_AT_ONCE {
                self.admit_chunk(&mut chunk, &mut part, &refused).await;
            }
        }
        self.admit_chunk(&mut chunk, &mut part, &refused).await;
        let whole = Box::new(move |last| {
            let earlier = refused.lock().take();
            answer(earlier.unwrap_or(last));
        });
        self.commit(part, Some(whole)).await;
    }

    /// Moves messages to `part` once they hold credit, message by message where there is none for all.
    async fn admit_chunk(&self, chunk: &mut Chunk, part: &mut Part, refused: &Arc<Mutex<Option<Durability>>>) {
        chunk.readings = 0;
        let place = |drafts: &mut [Draft], part: &Part| {
            drafts.iter_mut().for_each(|draft| draft.lsn = Lsn(part.records.len() as u64));
        };
        let (first, before) = (part.records.len() as u64, part.works.len());
        if try_admit(&mut chunk.drafts, &mut part.works).is_ok() {
            part.works[before..].iter_mut().for_each(|work| work.lsn.0 += first);
            part.records.extend(chunk.messages.drain(..).map(|(publish, _)| Record::Publish(publish)));
            return;
        }
        for (publish, count) in chunk.messages.drain(..) {
            // A message's readings are admitted together and handed on in the commit that holds its record: so all of it is
            // before a checkpoint or all of it is behind.
            let mut own: Vec<Draft> = chunk.drafts.drain(..count).collect();
            place(&mut own, part);
            if try_admit(&mut own, &mut part.works).is_err() {
                // What was admitted so far goes on its way first: waiting while holding credit could wait for itself.
                self.commit(std::mem::take(part), Some(note_refusal(refused))).await;
                self.credit_waits.inc();
                place(&mut own, part);
                admit(&mut own, &mut part.works).await;
            }
            part.records.push(Record::Publish(publish));
        }
    }

    /// Journals records; once they are on disk, answers and hands the readings to their shards.
    async fn commit(&self, Part { records, mut works }: Part, answer: Option<Answer>) {
        if records.is_empty() && works.is_empty() && answer.is_none() {
            return;
        }
        let shards: Vec<Addr<Shard>> = self.shards.iter().map(|shard| shard.address.clone()).collect();
        let done = Box::new(move |outcome: CommitOutcome, records: Vec<Record>| {
            if let Some(answer) = answer {
                answer(match outcome {
                    CommitOutcome::Durable { first } => Durability::Durable { below: first.0 + records.len() as u64 },
                    CommitOutcome::QuotaExceeded => Durability::Refused(RefusalReason::QuotaExceeded),
                    CommitOutcome::Failed => Durability::Refused(RefusalReason::StorageFailed),
                });
            }
            if let CommitOutcome::Durable { first } = outcome {
                works.iter_mut().for_each(|work| work.lsn.0 += first.0);
                dispatch(&shards, works, first, Lsn(first.0 + records.len() as u64));
            }
        });
        self.journal.append(records, done).await;
    }

    /// Appends the readings of a message to `drafts`, by stream.
    fn decode(&self, publish: &Publish, lsn: Lsn, drafts: &mut Vec<Draft>) {
        let route = self.route(&publish.topic);
        let definition = match &route {
            Route::None => return self.unclaimed.take(publish, &self.letters),
            Route::Overflow { definition } => {
                self.outlet.set_aside(*definition, SetAsideReason::Overflow, 1);
                return;
            }
            Route::Stream(stream) => stream.definition,
            Route::Keyed { definition, .. } => *definition,
        };
        let decoder = &self.definitions[definition].decoder;
        let mut decoded = Decoded::default();
        if fenced(|| decoder.decode(&publish.payload, publish.received, &mut decoded)).is_err() {
            decoded = Decoded::default();
            self.outlet.set_aside(definition, SetAsideReason::Panicked, 1);
            self.keep_aside(definition, publish, SetAsideReason::Panicked, "the decoder panicked");
        } else if decoded.rows.is_empty()
            && let Some(error) = decoded.errors.first()
        {
            self.keep_aside(definition, publish, error.reason, &error.detail);
        }
        for error in &decoded.errors {
            let name = &self.definitions[definition].plan.spec.name;
            if error.readings > 0 && self.outlet.is_first_set_aside(definition, error.reason) {
                tracing::warn!(
                    stream = %name,
                    reason = error.reason.label(),
                    "messages or readings are set aside (said once for each reason): `nearside deadletters list` shows them, \
                     nearside_readings_set_aside_total counts them"
                );
            }
            self.outlet.set_aside(definition, error.reason, error.readings);
            tracing::debug!(definition = %name, error = %error, "set aside");
        }
        self.definitions[definition].readings.inc_by(decoded.rows.len() as u64);
        match route {
            Route::Stream(stream) if !decoded.rows.is_empty() => {
                let readings = decoded.rows.into_iter().map(|row| row.reading).collect();
                drafts.push(Draft { stream, readings, lsn });
            }
            Route::Keyed { definition, topic_key } => {
                drafts.extend(self.group_by_key(definition, &topic_key, decoded.rows, lsn));
            }
            _ => {}
        }
    }

    /// Keeps a message that could not be read, for whoever looks into it.
    fn keep_aside(&self, definition: usize, publish: &Publish, reason: SetAsideReason, detail: &str) {
        let name = &self.definitions[definition].plan.spec.name;
        self.letters.put(DeadLetter::of(publish, Some(name), "decode", reason).because(detail));
    }

    /// Rows of one message by stream, in order of each stream's first row.
    fn group_by_key(&self, definition: usize, topic_key: &KeyValues, rows: Vec<DecodedRow>, lsn: Lsn) -> Vec<Draft> {
        let mut drafts: Vec<Draft> = Vec::new();
        // Where each stream's draft is: a message may hold as many streams as rows.
        let mut positions: StreamMap<usize> = StreamMap::default();
        let mut overflow = 0;
        for row in rows {
            let key = self.definitions[definition].whole_key(topic_key, row.key);
            let Some(stream) = self.intern(definition, key, self.max_streams) else {
                overflow += 1;
                continue;
            };
            match positions.entry(stream.id) {
                Entry::Occupied(known) => drafts[*known.get()].readings.push(row.reading),
                Entry::Vacant(new) => {
                    new.insert(drafts.len());
                    drafts.push(Draft { stream, readings: SmallVec::from_iter([row.reading]), lsn });
                }
            }
        }
        self.outlet.set_aside(definition, SetAsideReason::Overflow, overflow);
        drafts
    }

    fn route(&self, topic: &Topic) -> Route {
        if let Some(route) = self.topics.read().routes.get(topic) {
            return route.clone();
        }
        let route = self.find_route(topic);
        if !matches!(route, Route::Overflow { .. }) {
            self.topics.write().insert(topic, &route);
        }
        route
    }

    fn find_route(&self, topic: &Topic) -> Route {
        for (index, definition) in self.definitions.iter().enumerate() {
            let Some(parts) = definition.plan.spec.topic.matches(topic.as_str()) else { continue };
            let topic_key: KeyValues = parts.iter().map(|part| Personal::new(Arc::from(*part))).collect();
            if definition.key_from_topic.iter().any(|from_topic| !from_topic) {
                return Route::Keyed { definition: index, topic_key };
            }
            return match self.intern(index, topic_key, self.max_streams) {
                Some(stream) => Route::Stream(stream),
                None => Route::Overflow { definition: index },
            };
        }
        Route::None
    }

    /// The stream of a definition with this key; `None` where it is new and there are `most` streams or more.
    fn intern(&self, definition: usize, key: KeyValues, most: usize) -> Option<Arc<StreamRef>> {
        let name = &self.definitions[definition].plan.spec.name;
        let parts = key.iter().map(|part| part.expose().as_ref());
        let id = StreamId::derive(self.stream_secret.as_bytes(), name, parts);
        if let Some(stream) = self.streams.read().get(&id) {
            return Some(stream.clone());
        }
        let mut streams = self.streams.write();
        if let Some(stream) = streams.get(&id) {
            return Some(stream.clone());
        }
        if streams.len() >= most {
            return None;
        }
        let shard = id.bucket(self.shards.len());
        let stream = Arc::new(StreamRef::new(id, definition, shard, key, self.shards[shard].credit.stream()));
        streams.insert(id, stream.clone());
        self.stream_count.store(streams.len(), Ordering::Relaxed);
        Some(stream)
    }
}

impl Definition {
    fn new(plan: &Arc<StreamPlan>, telemetry: &Telemetry) -> Result<Self, ActorError> {
        let name = plan.spec.name.to_string();
        let decoder = nearside_schemas::codec::decoder(&plan.spec)
            .map_err(|source| ActorError::Codec { stream: name.clone(), source })?;
        Ok(Self {
            decoder,
            readings: telemetry.counter(Metric::Readings, &[&name]),
            key_from_topic: plan.spec.key.iter().map(|part| part.path.is_none()).collect(),
            plan: plan.clone(),
        })
    }

    /// The key in the definition's order, from the parts in the topic and those in the payload.
    fn whole_key(&self, topic_key: &KeyValues, payload_key: KeyValues) -> KeyValues {
        let mut from_topic = topic_key.iter().cloned();
        let mut from_payload = payload_key.into_iter();
        let parts = self.key_from_topic.iter();
        parts.filter_map(|topic| if *topic { from_topic.next() } else { from_payload.next() }).collect()
    }
}

/// An answer that only notes the first refusal.
fn note_refusal(refused: &Arc<Mutex<Option<Durability>>>) -> Answer {
    let noted = refused.clone();
    Box::new(move |durability| {
        if matches!(durability, Durability::Refused(_)) {
            noted.lock().get_or_insert(durability);
        }
    })
}

/// Waits until every sender is dropped. False where one said that it failed.
async fn all_done(mut finished: tokio::sync::mpsc::UnboundedReceiver<()>) -> bool {
    let mut has_failed = false;
    while finished.recv().await.is_some() {
        has_failed = true;
    }
    !has_failed
}

/// Hands committed work to the shards, keeping its order within each.
fn dispatch(shards: &[Addr<Shard>], works: Vec<Work>, first: Lsn, next: Lsn) {
    let mut batches: Vec<Vec<Work>> = shards.iter().map(|_| Vec::new()).collect();
    for work in works {
        batches[work.admission.stream().shard].push(work);
    }
    for (shard, works) in shards.iter().zip(batches) {
        if !works.is_empty() && shard.try_send(ShardBatch { works, first, next }).is_err() {
            // Only a shard that has ended takes none, and no round of the checkpoint succeeds without it.
            tracing::error!("a shard did not take committed readings; they stay in the journal");
        }
    }
}
