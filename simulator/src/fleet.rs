//! The fleet: all devices of a site, in simulated time, as one ordered stream of messages.
//!
//! Promises: the same configuration gives the same messages, byte for byte (promise I5); messages come in the order of
//! their sending time. Never: reads a clock, does input or output.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use nearside_schemas::{QoS, Timestamp};

use crate::city::City;
use crate::incident::{self, Incident, Span};
use crate::random::Random;
use crate::site::{Cadence, Outline, Site};
use crate::ward::Ward;

/// Which site is simulated.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Profile {
    /// Traffic, air, noise, energy, parking and reports of citizens.
    City,
    /// Vital signs, ECG, glucose, activity, notes and motion of patients.
    Ward,
}

impl FromStr for Profile {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "city" => Ok(Self::City),
            "ward" => Ok(Self::Ward),
            other => Err(format!("`{other}` is not a profile: write `city` or `ward`")),
        }
    }
}

/// What to simulate.
#[derive(Clone, PartialEq, Debug)]
pub struct FleetConfig {
    /// The site.
    pub profile: Profile,
    /// How many devices in all. A larger fleet holds the smaller one's devices; from 8 on a city has every kind of
    /// device, and each 6 make one more patient of a ward.
    pub streams: usize,
    /// Same seed, same messages.
    pub seed: u64,
    /// The first simulated instant. Devices live by it: a fleet that starts at eight in the morning starts in the rush
    /// hour. A gateway sets readings of the future aside, so a fleet that runs faster than real time starts in the past.
    pub start: Timestamp,
    /// Whether anything goes wrong.
    pub incidents: bool,
    /// Simulated time until the last message, in which all incidents lie, the first third without. `None`: the fleet
    /// never ends, and its incidents lie within the first day.
    pub duration: Option<Duration>,
    /// All periods are multiplied by this, from 0.01 to 100. Below 1, short runs show detectors more rows.
    pub period_scale: f64,
}

impl FleetConfig {
    /// A fleet with incidents, without end, with the usual periods.
    pub fn new(profile: Profile, streams: usize, seed: u64, start: Timestamp) -> Self {
        Self { profile, streams, seed, start, incidents: true, duration: None, period_scale: 1.0 }
    }
}

/// One message of a device. `Debug` shows no payload.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// When the device sends it, in simulated time.
    pub at: Timestamp,
    /// To which topic.
    pub topic: String,
    /// With which payload.
    pub payload: Vec<u8>,
    /// With which quality of service.
    pub qos: QoS,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message(at {}, {} bytes)", self.at, self.payload.len())
    }
}

/// When a device sends next. The order of the fields is the order of the messages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    sent: Timestamp,
    device: usize,
    /// The instant that the message speaks of.
    measured: Timestamp,
}

/// Where incidents live within a fleet without end.
const PLANNED_OF_ENDLESS: Duration = Duration::from_secs(86_400);
/// Streams of random numbers: devices take two each from 0 on, so these are out of their reach.
const PLAN_STREAM: u64 = u64::MAX;

/// All devices of a site: an iterator over their messages.
pub struct Fleet {
    profile: Profile,
    site: Box<dyn Site>,
    due: BinaryHeap<Reverse<Due>>,
    /// One source a device, for its delays and gaps alone.
    timing: Vec<Random>,
    incidents: Vec<Incident>,
    end: Option<Timestamp>,
    scale: f64,
}

impl Fleet {
    /// Builds the devices and plans the incidents.
    pub fn new(config: FleetConfig) -> Self {
        let scale = if config.period_scale.is_finite() { config.period_scale.clamp(0.01, 100.0) } else { 1.0 };
        let mut site: Box<dyn Site> = match config.profile {
            Profile::City => Box::new(City::new(config.streams, config.seed, config.start)),
            Profile::Ward => Box::new(Ward::new(config.streams, config.seed, config.start)),
        };
        let incidents = if config.incidents { plan(site.as_mut(), &config, scale) } else { Vec::new() };
        let mut timing: Vec<Random> =
            (0..site.devices().len() as u64).map(|device| Random::new(config.seed, 2 * device + 1)).collect();
        let due = site
            .devices()
            .iter()
            .zip(&mut timing)
            .enumerate()
            .map(|(device, (outline, random))| Reverse(first(outline, device, config.start, scale, random)))
            .collect();
        let end = config.duration.map(|duration| config.start.plus(duration));
        Self { profile: config.profile, site, due, timing, incidents, end, scale }
    }

    /// What goes wrong, in order of time.
    pub fn incidents(&self) -> &[Incident] {
        &self.incidents
    }

    /// All streams of the fleet: definition name, key and topic.
    pub fn streams(&self) -> impl Iterator<Item = (&'static str, &str, &str)> {
        self.site.devices().iter().map(|device| (device.stream, device.key.as_str(), device.topic.as_str()))
    }

    /// Everything personal in this fleet's messages: what [`crate::personal_markers`] lists, and the keys of patients.
    /// Empty for a city.
    pub fn personal_markers(&self) -> Vec<String> {
        if self.profile == Profile::City {
            return Vec::new();
        }
        let keys: BTreeSet<&str> = self.site.devices().iter().map(|device| device.key.as_str()).collect();
        crate::personal_markers().into_iter().chain(keys).map(str::to_owned).collect()
    }

    /// How many messages a simulated second the fleet sends on average.
    pub fn rate(&self) -> f64 {
        self.site.devices().iter().map(|device| 1.0 / mean_gap(device, self.scale).as_secs_f64()).sum()
    }
}

impl Iterator for Fleet {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        let Reverse(due) = *self.due.peek()?;
        if self.end.is_some_and(|end| due.sent >= end) {
            return None;
        }
        self.due.pop();
        let outline = self.site.devices().get(due.device)?;
        let topic = outline.topic.clone();
        let random = self.timing.get_mut(due.device)?;
        self.due.push(Reverse(next(outline, due, self.scale, random)));
        self.site.advance(due.measured);
        let payload = self.site.read(due.device, due.measured);
        Some(Message { at: due.sent, topic, payload, qos: QoS::AtLeastOnce })
    }
}

fn plan(site: &mut dyn Site, config: &FleetConfig, scale: f64) -> Vec<Incident> {
    let mut random = Random::new(config.seed, PLAN_STREAM);
    let places = site.places(random.below(1 << 16) as u64);
    let span = Span::new(config.start, config.duration.unwrap_or(PLANNED_OF_ENDLESS));
    let slots = incident::plan(&places, |device| site.group(device), span, config.streams, &mut random);
    let gaps: Vec<Duration> = site.devices().iter().map(|device| mean_gap(device, scale)).collect();
    let period = |device: usize| gaps.get(device).copied().unwrap_or(Duration::ZERO);
    slots.into_iter().filter_map(|slot| site.apply(slot, &period)).collect()
}

/// The time between two messages of a device, on average. At least what one message covers, so that strips never
/// overlap, and a second.
fn mean_gap(outline: &Outline, scale: f64) -> Duration {
    match outline.cadence {
        Cadence::Every { period, lag } => period.mul_f64(scale).max(lag).max(Duration::from_secs(1)),
        Cadence::NowAndThen { mean } => mean.mul_f64(scale).max(Duration::from_secs(1)),
    }
}

/// The way through the network: 20 to 320 ms, most of it short.
fn delay(random: &mut Random) -> Duration {
    Duration::from_millis(20 + random.exponential(40.0).min(300.0) as u64)
}

fn first(outline: &Outline, device: usize, start: Timestamp, scale: f64, random: &mut Random) -> Due {
    let gap = mean_gap(outline, scale);
    // Devices are not in step with each other; milliseconds are what their clocks show.
    let phase = Duration::from_millis((gap.as_millis() as f64 * random.uniform()) as u64);
    let lag = lag_of(outline);
    let measured = start.plus(phase);
    Due { sent: measured.plus(lag).plus(delay(random)), device, measured }
}

fn next(outline: &Outline, before: Due, scale: f64, random: &mut Random) -> Due {
    let gap = mean_gap(outline, scale);
    let measured = match outline.cadence {
        Cadence::Every { .. } => before.measured.plus(gap),
        Cadence::NowAndThen { .. } => {
            // Nobody writes two notes within a tenth of the usual time.
            let ms = gap.as_millis() as f64;
            before.measured.plus(Duration::from_millis((0.1 * ms + random.exponential(0.9 * ms)) as u64))
        }
    };
    let sent = measured.plus(lag_of(outline)).plus(delay(random));
    // What a device sends later arrives later.
    Due { sent: sent.max(before.sent), device: before.device, measured }
}

const fn lag_of(outline: &Outline) -> Duration {
    match outline.cadence {
        Cadence::Every { lag, .. } => lag,
        Cadence::NowAndThen { .. } => Duration::ZERO,
    }
}
