//! The way of a reading in virtual time, from the device to the cloud, with faults at any place: the journal is synced late, the machine
//! loses power, devices send again what nobody acknowledged, the outbox commits late, the uplink loses, delays, doubles and reorders items
//! and acknowledgements, windows are closed by a stop. In the end the cloud has for each window, in its highest revision, what a run without
//! faults over the same journal gives. The reference model is that run. Journal, checkpoint and outbox are models here, so that thousands
//! of seeds fit into a minute; the real ones on a disk that forgets are in `chain.rs`.
//!
//! `NEARSIDE_SEEDS=5000` takes more seeds than the default.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{Event, ID, Random, apply, events, new_stream, plan};
use nearside_actors::stream::{Outputs, StreamComponent, StreamPlan, StreamState};
use nearside_schemas::{SetAsideReason, Timestamp};

/// What leaves the site: a window's revision or a finding, and what it says.
#[derive(Clone)]
struct Item {
    subject: String,
    revision: u32,
    text: String,
}

/// Takes the items out of what a stream gave back.
fn items(out: &mut Outputs) -> Vec<Item> {
    let mut items = Vec::new();
    for summary in out.summaries.drain(..) {
        let text = serde_json::to_string(&(
            (summary.end, summary.cause, summary.rows, &summary.set_aside),
            (&summary.fields, &summary.findings, &summary.verdict),
        ));
        items.push(Item { subject: summary.window.to_string(), revision: summary.revision, text: text.unwrap() });
    }
    for raised in out.raised.drain(..) {
        let finding = raised.finding;
        let text = serde_json::to_string(&finding).unwrap();
        items.push(Item { subject: format!("{:?}", finding.id()), revision: 0, text });
    }
    items
}

/// What the cloud keeps: the highest revision of each subject.
#[derive(Default, PartialEq, Debug)]
struct Cloud(BTreeMap<String, (u32, String)>);

impl Cloud {
    fn take(&mut self, item: &Item) {
        let known = self.0.entry(item.subject.clone()).or_insert((item.revision, item.text.clone()));
        if item.revision > known.0 {
            *known = (item.revision, item.text.clone());
        } else if item.revision == known.0 {
            assert_eq!(known.1, item.text, "one revision of {} says one thing", item.subject);
        }
    }
}

/// The outbox: the highest revision of each subject until the cloud acknowledges it. What is not committed is lost with the power.
#[derive(Default)]
struct Outbox {
    uncommitted: Vec<Item>,
    waiting: BTreeMap<String, Item>,
    acknowledged: BTreeMap<String, u32>,
}

impl Outbox {
    fn commit(&mut self) {
        for item in self.uncommitted.drain(..) {
            let done = self.acknowledged.get(&item.subject).is_some_and(|revision| *revision >= item.revision);
            let newer = self.waiting.get(&item.subject).is_some_and(|other| other.revision >= item.revision);
            if !done && !newer {
                self.waiting.insert(item.subject.clone(), item);
            }
        }
    }

    fn acknowledge(&mut self, subject: &str, revision: u32) {
        let known = self.acknowledged.entry(subject.to_owned()).or_default();
        *known = revision.max(*known);
        if self.waiting.get(subject).is_some_and(|item| item.revision <= revision) {
            self.waiting.remove(subject);
        }
    }
}

/// The way to the cloud and back: what is on it arrives in any order, twice or not at all.
#[derive(Default)]
struct Network {
    items: Vec<Item>,
    acknowledgements: Vec<(String, u32)>,
}

impl Network {
    /// Something happens to one thing that is on the way.
    fn step(&mut self, random: &mut Random, outbox: &mut Outbox, cloud: &mut Cloud) {
        let pick = |random: &mut Random, length: usize| random.below(length as u64) as usize;
        if !self.items.is_empty() {
            let at = pick(random, self.items.len());
            let item = if random.below(6) == 0 { self.items[at].clone() } else { self.items.swap_remove(at) };
            if random.below(4) > 0 {
                cloud.take(&item);
                self.acknowledgements.push((item.subject, item.revision));
            }
        }
        if !self.acknowledgements.is_empty() {
            let at = pick(random, self.acknowledgements.len());
            let (subject, revision) = self.acknowledgements.swap_remove(at);
            if random.below(4) > 0 {
                outbox.acknowledge(&subject, revision);
            }
        }
    }
}

/// The end of a journal: everything closes, so that the cloud has all of it.
fn end(stream: &mut StreamComponent) -> Vec<Item> {
    let mut out = Outputs::default();
    stream.drain(Timestamp::MAX, &mut out);
    items(&mut out)
}

fn without_faults(plan: &Arc<StreamPlan>, journal: &[Event]) -> (Cloud, Vec<SetAsideReason>) {
    let (mut cloud, mut out) = (Cloud::default(), Outputs::default());
    let mut stream = new_stream(plan);
    let mut set_aside = Vec::new();
    for event in journal {
        apply(&mut stream, event, &mut out);
        set_aside.append(&mut out.set_aside);
        items(&mut out).iter().for_each(|item| cloud.take(item));
    }
    end(&mut stream).iter().for_each(|item| cloud.take(item));
    (cloud, set_aside)
}

/// A site and all that is around it.
struct Site {
    plan: Arc<StreamPlan>,
    /// What is on disk.
    journal: Vec<Event>,
    /// What is written and not synced.
    unsynced: Vec<Event>,
    stream: StreamComponent,
    /// The first event that the stream has not taken.
    at: usize,
    /// The first event that the state does not hold, and the state.
    checkpoint: Option<(usize, Vec<u8>)>,
    set_aside: BTreeMap<usize, Vec<SetAsideReason>>,
    outbox: Outbox,
    network: Network,
    cloud: Cloud,
    power_losses: u32,
}

impl Site {
    fn new(plan: &Arc<StreamPlan>) -> Self {
        Self {
            plan: plan.clone(),
            journal: Vec::new(),
            unsynced: Vec::new(),
            stream: new_stream(plan),
            at: 0,
            checkpoint: None,
            set_aside: BTreeMap::new(),
            outbox: Outbox::default(),
            network: Network::default(),
            cloud: Cloud::default(),
            power_losses: 0,
        }
    }

    /// The stream takes what is on disk, or a part of it.
    fn handle(&mut self, most: usize) {
        for _ in 0..most.min(self.journal.len() - self.at) {
            let mut out = Outputs::default();
            apply(&mut self.stream, &self.journal[self.at], &mut out);
            self.set_aside.insert(self.at, std::mem::take(&mut out.set_aside));
            self.outbox.uncommitted.extend(items(&mut out));
            self.at += 1;
        }
    }

    /// The stream, what was not synced and what was not committed are gone; the way to the cloud is another, but what was on the old may
    /// still arrive.
    fn lose_power(&mut self) {
        self.power_losses += 1;
        self.unsynced.clear();
        self.outbox.uncommitted.clear();
        (self.at, self.stream) = match &self.checkpoint {
            None => (0, new_stream(&self.plan)),
            Some((covers, bytes)) => {
                let (_, key, state) = StreamState::decode(bytes).unwrap();
                let (stream, lost) = StreamComponent::restore(self.plan.clone(), ID, key, &state);
                assert_eq!(lost, 0);
                (*covers, stream)
            }
        };
    }

    /// One thing happens; `next` is the first event that the devices have not been told is safe.
    fn step(&mut self, random: &mut Random, source: &[Event], next: &mut usize) {
        match random.below(16) {
            0..=4 => {
                // What is on its way to the disk is sent again only after a loss of power.
                let from = *next + self.unsynced.len();
                let until = source.len().min(from + 1 + random.below(6) as usize);
                self.unsynced.extend(source[from.min(until)..until].iter().cloned());
            }
            5..=7 => {
                let synced = self.unsynced.len();
                self.journal.append(&mut self.unsynced);
                // An acknowledgement may be lost: then the same comes again.
                *next += if random.below(8) == 0 { random.below(synced as u64 + 1) as usize } else { synced };
            }
            8..=10 => self.handle(1 + random.below(8) as usize),
            11 => self.outbox.commit(),
            12 => {
                let waiting = self.outbox.waiting.values();
                self.network.items.extend(waiting.take(4).cloned());
            }
            13 | 14 => self.network.step(random, &mut self.outbox, &mut self.cloud),
            _ if random.below(3) == 0 => self.lose_power(),
            _ => {
                // A checkpoint is written when everything before it is committed.
                self.outbox.commit();
                let name = &self.plan.spec.name;
                self.checkpoint = Some((self.at, self.stream.snapshot().encode(name, self.stream.key())));
            }
        }
    }

    /// The network is mended and everything arrives.
    fn settle(&mut self) {
        self.journal.append(&mut self.unsynced);
        self.handle(usize::MAX);
        self.outbox.uncommitted.extend(end(&mut self.stream));
        self.outbox.commit();
        let late = std::mem::take(&mut self.network.items);
        late.iter().chain(self.outbox.waiting.values()).for_each(|item| self.cloud.take(item));
    }
}

#[test]
fn whatever_fails_on_the_way_the_cloud_has_each_window_as_without_faults() {
    let seeds: u64 = std::env::var("NEARSIDE_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000);
    let plan = plan();
    let (mut subjects, mut revised, mut losses) = (0, 0, 0);
    for seed in 1..=seeds {
        let mut random = Random(seed * 0x9E37_79B9);
        let source = events(&mut random);
        let mut site = Site::new(&plan);
        let mut next = 0;
        while next < source.len() {
            site.step(&mut random, &source, &mut next);
        }
        site.settle();
        let (cloud, set_aside) = without_faults(&plan, &site.journal);
        assert_eq!(site.cloud, cloud, "seed {seed}");
        let found: Vec<SetAsideReason> = site.set_aside.into_values().flatten().collect();
        assert_eq!(found, set_aside, "seed {seed}");
        subjects += cloud.0.len();
        revised += cloud.0.values().filter(|(revision, _)| *revision > 0).count();
        losses += site.power_losses;
    }
    println!("{seeds} seeds: {subjects} windows and findings, {revised} revised, {losses} losses of power");
    assert!(revised > 0 && losses > 0, "there was something to get wrong");
}
