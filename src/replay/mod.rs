//! Replay: recorded rows through the plain stream component, with the receive clock following event time.
//!
//! Promises: the same file, configuration and binary give the same scores, findings and summaries byte for byte (promise I5);
//! a row's score depends on it and earlier rows of its stream alone.
//! Never: it reads the machine's clock.

mod columns;
pub mod input;
mod jsonl;
mod look_ahead;

pub use look_ahead::LookAhead;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nearside_actors::stream::{Outputs, StreamComponent, StreamPlan};
use nearside_privacy::{KeyRing, PrivacyError};
use nearside_schemas::{KeyPurpose, KeySource, KeyValues, SecretKey, StreamId, StreamSpec, Timestamp};

use input::Recorded;

/// The keys of a replay: the site's where there are some, else fixed ones, so that results are the same anywhere.
pub struct ReplayKeys(KeyRing);

impl ReplayKeys {
    /// The site's keys, if its key file is there.
    pub fn of_site(key_file: &Path) -> Result<Self, PrivacyError> {
        if key_file.exists() { KeyRing::load(key_file).map(Self) } else { Ok(Self::fixed()) }
    }

    /// Keys that everybody knows. Nothing sealed with them leaves.
    pub fn fixed() -> Self {
        Self(KeyRing::from_master(SecretKey::new([0; 32])))
    }
}

/// The streams of one definition, driven row by row.
pub struct Replay {
    plan: Arc<StreamPlan>,
    keys: KeyRing,
    secret: SecretKey,
    streams: HashMap<StreamId, StreamComponent>,
    /// Streams in the order of their first row, which is the order in which time passes for them.
    order: Vec<StreamId>,
    now: Timestamp,
    next_tick: Timestamp,
    tick: Duration,
    future: Duration,
    set_aside: u64,
    inputs: Vec<f32>,
}

/// How a row was judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judgement {
    /// The highest score that a model of the stream gave it, 0 to 1.
    pub score: f64,
    /// Whether any model flagged it.
    pub flagged: bool,
}

impl Replay {
    /// A replay of one definition; `tick` is how often idle windows are looked for, `future` the definition's guard.
    pub fn new(plan: Arc<StreamPlan>, keys: ReplayKeys, tick: Duration, future: Duration) -> Self {
        let secret = keys.0.derive(KeyPurpose::StreamIds, b"v1");
        Self {
            plan,
            keys: keys.0,
            secret,
            streams: HashMap::new(),
            order: Vec::new(),
            now: Timestamp::MIN,
            next_tick: Timestamp::MIN,
            tick: tick.max(Duration::from_millis(1)),
            future,
            set_aside: 0,
            inputs: Vec::new(),
        }
    }

    /// The definition.
    pub fn spec(&self) -> &StreamSpec {
        &self.plan.spec
    }

    /// The keys.
    pub const fn keys(&self) -> &KeyRing {
        &self.keys
    }

    /// Rows that a stream set aside so far.
    pub const fn set_aside(&self) -> u64 {
        self.set_aside
    }

    /// Pushes a row; `next` is the time of the reading after it. Gives back how it was judged; `None` where it was set aside or no
    /// model judges.
    pub fn push(&mut self, recorded: &Recorded, next: Option<Timestamp>, out: &mut Outputs) -> Option<Judgement> {
        let Ok(reading) = &recorded.reading else { return None };
        let mut reading = reading.clone();
        // The receive clock follows event time and never goes back. One row far ahead of all others must not move it, or
        // all of those would count as past: it does not where the row after it goes on from where the clock stands.
        let goes_on = |next: Timestamp| next >= self.now.minus(self.future) && next < reading.time.minus(self.future);
        if reading.time <= self.now.plus(self.future) || !next.is_some_and(goes_on) {
            self.let_time_pass(reading.time, out);
        }
        reading.received = self.now;
        let id = self.stream(&recorded.key);
        let component = self.streams.get_mut(&id)?;
        component.on_reading(reading, out);
        answer(component, &self.plan, &mut self.inputs, out);
        self.set_aside += out.set_aside.drain(..).count() as u64;
        let judgements = out.scores.drain(..).map(|row| (row.verdict.score, row.verdict.flagged));
        judgements.fold(None, |so_far: Option<Judgement>, (score, flagged)| {
            let before = so_far.unwrap_or(Judgement { score, flagged });
            Some(Judgement { score: before.score.max(score), flagged: before.flagged || flagged })
        })
    }

    /// The input has ended: closes everything.
    pub fn drain(&mut self, out: &mut Outputs) {
        for id in &self.order {
            if let Some(component) = self.streams.get_mut(id) {
                component.drain(self.now, out);
            }
        }
    }

    fn stream(&mut self, key: &KeyValues) -> StreamId {
        let parts = key.iter().map(|part| part.expose().as_ref());
        let id = StreamId::derive(self.secret.as_bytes(), &self.plan.spec.name, parts);
        if !self.streams.contains_key(&id) {
            self.streams.insert(id, StreamComponent::new(self.plan.clone(), id, key.clone()));
            self.order.push(id);
        }
        id
    }

    fn let_time_pass(&mut self, time: Timestamp, out: &mut Outputs) {
        if time <= self.now {
            return;
        }
        self.now = time;
        if time < self.next_tick {
            return;
        }
        self.next_tick = time.floor(self.tick).plus(self.tick);
        for id in &self.order {
            let Some(component) = self.streams.get_mut(id) else { continue };
            // A stream hears of the time at which it wanted to, as it would have with ticks in between.
            while let Some(deadline) = component.next_deadline().filter(|deadline| *deadline < time) {
                // Time has come as far as it has heard of already: it does not go back.
                component.on_tick(deadline.max(component.heard_at()), true, out);
                answer(component, &self.plan, &mut self.inputs, out);
                if component.next_deadline() == Some(deadline) {
                    break;
                }
            }
        }
    }
}

/// Runs the networks for the requests at once. A score does not depend on its batch (promise I5), so this gives what
/// the gateway's batches give.
fn answer(component: &mut StreamComponent, plan: &StreamPlan, scratch: &mut Vec<f32>, out: &mut Outputs) {
    while !out.requests.is_empty() {
        for request in std::mem::take(&mut out.requests) {
            let model = &plan.models[request.model].model;
            scratch.clear();
            let outputs = match model.forward(&request.data, request.inputs, scratch) {
                Ok(()) => Some(scratch.as_slice()),
                Err(error) => {
                    tracing::error!(%error, "a forward pass failed");
                    None
                }
            };
            component.on_outputs(request.answered(), outputs, out);
        }
    }
}
