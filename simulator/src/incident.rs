//! Incidents: what goes wrong, where and when, planned before the first message is made.
//!
//! Promises: every incident lies within the planned time, after the quiet first part; no two meet at one device or
//! patient; the plan depends on the configuration and the seed alone.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use nearside_schemas::Timestamp;

use crate::random::Random;
use crate::rhythm;

/// How a sensor fails.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SensorFault {
    /// It repeats one value exactly.
    FlatLine,
    /// Single readings far above the truth.
    Spikes,
    /// It moves away from the truth steadily.
    Drift,
    /// It scatters many times more than before.
    Scatter,
}

/// How a bedside monitor loses its patient.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ProbeFault {
    /// The finger probe is off: messages come without `spo2`.
    Missing,
    /// The monitor repeats its last values exactly.
    Frozen,
}

/// What happens.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum IncidentKind {
    /// A crash on the ring road: speed collapses, the road fills, the junction behind it slows down.
    Crash,
    /// An air station whose sensors fail.
    AirSensorFault(SensorFault),
    /// A noise far above the street's, for minutes.
    NoiseEvent,
    /// A building draws more than twice its power.
    PowerSurge,
    /// The voltage of a building falls below the 207 V that EN 50160 allows.
    VoltageSag,
    /// A patient becomes septic over about ten minutes and ends at a NEWS2 far above 7.
    Deterioration,
    /// Oxygen saturation falls into the eighties within two minutes.
    Desaturation,
    /// The monitor loses its patient.
    ProbeOff(ProbeFault),
    /// The electrodes come off: the ECG is a flat line.
    LeadsOff,
    /// Every third heartbeat comes early from the ventricle and is broad.
    VentricularBeats,
    /// Glucose falls to about 50 mg/dL.
    Hypoglycaemia,
    /// Citizens report a danger: gas, fire, a live wire, someone hurt.
    UrgentReport,
    /// A nurse writes of a patient in danger.
    AlarmingNote,
    /// A patient who walks falls and stays on the floor.
    Fall,
    /// A patient gets up at night and walks about.
    BedExit,
    /// A patient lies for hours without turning.
    Immobility,
}

impl IncidentKind {
    /// Its name for people and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::AirSensorFault(SensorFault::FlatLine) => "air sensor stuck",
            Self::AirSensorFault(SensorFault::Spikes) => "air sensor spiking",
            Self::AirSensorFault(SensorFault::Drift) => "air sensor drifting",
            Self::AirSensorFault(SensorFault::Scatter) => "air sensor scattering",
            Self::NoiseEvent => "noise event",
            Self::PowerSurge => "power surge",
            Self::VoltageSag => "voltage sag",
            Self::Deterioration => "deterioration",
            Self::Desaturation => "desaturation",
            Self::ProbeOff(ProbeFault::Missing) => "finger probe off",
            Self::ProbeOff(ProbeFault::Frozen) => "monitor frozen",
            Self::LeadsOff => "ECG leads off",
            Self::VentricularBeats => "ventricular beats",
            Self::Hypoglycaemia => "hypoglycaemia",
            Self::UrgentReport => "urgent report",
            Self::AlarmingNote => "alarming note",
            Self::Fall => "fall",
            Self::BedExit => "out of bed at night",
            Self::Immobility => "long without turning",
        }
    }

    /// From its start to its end, recovery included, where the plan has room.
    pub(crate) const fn usual(self) -> Duration {
        Duration::from_secs(match self {
            Self::Crash | Self::AirSensorFault(_) => 9 * 60,
            Self::NoiseEvent | Self::Desaturation | Self::ProbeOff(_) | Self::LeadsOff => 6 * 60,
            Self::PowerSurge | Self::VentricularBeats => 7 * 60,
            Self::VoltageSag => 5 * 60,
            Self::Deterioration => 40 * 60,
            Self::Hypoglycaemia => 90 * 60,
            Self::UrgentReport | Self::AlarmingNote => 30 * 60,
            Self::Fall => 8 * 60,
            Self::BedExit => 6 * 60,
            Self::Immobility => 5 * 3_600,
        })
    }

    /// Whether it can begin at this time of day.
    fn can_begin(self, at: Timestamp) -> bool {
        match self {
            // When everybody has been in bed for a while, and is for a while longer.
            Self::BedExit => !(5.5..22.5).contains(&rhythm::hour(at)),
            _ => true,
        }
    }

    /// The share of its usual length that must have room.
    fn least_share(self) -> f64 {
        match self {
            // Shorter, it is nothing out of the ordinary.
            Self::Immobility => 1.3,
            _ => LEAST_SHARE,
        }
    }

    /// How long it takes from its start to its full size.
    pub(crate) const fn onset(self) -> Duration {
        Duration::from_secs(match self {
            Self::Crash => 60,
            Self::AirSensorFault(SensorFault::Drift) => 6 * 60,
            Self::AirSensorFault(_) | Self::ProbeOff(_) | Self::LeadsOff | Self::VentricularBeats => 0,
            Self::UrgentReport | Self::AlarmingNote | Self::Fall | Self::BedExit | Self::Immobility => 0,
            Self::NoiseEvent | Self::PowerSurge => 10,
            Self::VoltageSag => 5,
            Self::Deterioration => 10 * 60,
            Self::Desaturation => 90,
            Self::Hypoglycaemia => 40 * 60,
        })
    }

    /// How long the way back takes, within [`Self::usual`].
    pub(crate) const fn recovery(self) -> Duration {
        Duration::from_secs(match self {
            Self::Crash => 120,
            Self::AirSensorFault(_) | Self::ProbeOff(_) | Self::LeadsOff | Self::VentricularBeats => 0,
            Self::UrgentReport | Self::AlarmingNote | Self::Fall | Self::BedExit | Self::Immobility => 0,
            Self::NoiseEvent | Self::PowerSurge => 10,
            Self::VoltageSag => 5,
            Self::Deterioration => 10 * 60,
            Self::Desaturation => 60,
            Self::Hypoglycaemia => 20 * 60,
        })
    }
}

impl fmt::Display for IncidentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One incident of the plan: the truth that findings are compared with. Its key is that of an invented device or
/// patient.
#[derive(Clone, PartialEq, Debug)]
pub struct Incident {
    /// What happens.
    pub kind: IncidentKind,
    /// What happens where, for people.
    pub name: String,
    /// The stream definition that shows it best.
    pub stream: &'static str,
    /// The key of that stream.
    pub key: String,
    /// All topics that show it, that of `stream` and `key` first.
    pub topics: Vec<String>,
    /// The first instant at which anything differs (simulated time).
    pub from: Timestamp,
    /// The first instant at which all is as before again.
    pub until: Timestamp,
    /// By when a detector that works has seen it: full size, and ten messages more. Never after `until`.
    pub detectable_by: Timestamp,
}

/// What an incident does to one device or patient.
#[derive(Clone, Copy)]
pub(crate) struct Effect {
    pub(crate) kind: IncidentKind,
    pub(crate) from: Timestamp,
    pub(crate) until: Timestamp,
    /// 1 at the place itself, less where it spills over.
    pub(crate) strength: f64,
}

impl Effect {
    /// How much of the incident there is at `at`: from 0 up to `strength` in a straight line, and back.
    pub(crate) fn level(&self, at: Timestamp) -> f64 {
        if at < self.from || at >= self.until {
            return 0.0;
        }
        let whole = self.until.since(self.from).as_secs_f64();
        let ramp = |usual: Duration, share: f64| usual.as_secs_f64().min(whole * share).max(1e-6);
        let up = at.since(self.from).as_secs_f64() / ramp(self.kind.onset(), ONSET_SHARE);
        let recovery = self.kind.recovery();
        let down =
            if recovery.is_zero() { 1.0 } else { self.until.since(at).as_secs_f64() / ramp(recovery, RECOVERY_SHARE) };
        // Sudden faults are there at once.
        let up = if self.kind.onset().is_zero() { 1.0 } else { up };
        self.strength * up.min(down).clamp(0.0, 1.0)
    }
}

/// Where the plan has little room, an onset takes at most this share of the incident …
const ONSET_SHARE: f64 = 0.65;
/// … and a recovery this share, so that some of it stands at full size.
const RECOVERY_SHARE: f64 = 0.15;

/// The combined level of the effects of one sort.
pub(crate) fn level_of(effects: &[Effect], at: Timestamp, sort: impl Fn(IncidentKind) -> bool) -> f64 {
    effects.iter().filter(|effect| sort(effect.kind)).map(|effect| effect.level(at)).fold(0.0, f64::max)
}

/// When the incident at full size has been shown in ten messages of a device with this period.
pub(crate) fn detectable_by(kind: IncidentKind, from: Timestamp, until: Timestamp, period: Duration) -> Timestamp {
    if kind == IncidentKind::Immobility {
        // It is the length that makes it one.
        return until;
    }
    let onset = kind.onset().min(until.since(from).mul_f64(ONSET_SHARE));
    from.plus(onset).plus(period.saturating_mul(10)).min(until)
}

/// Where an incident of one kind may be placed: devices, by index.
pub(crate) struct Places {
    pub(crate) kind: IncidentKind,
    pub(crate) devices: Vec<usize>,
}

/// One placed incident, before its site gives it a name.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Slot {
    pub(crate) kind: IncidentKind,
    pub(crate) device: usize,
    pub(crate) from: Timestamp,
    pub(crate) until: Timestamp,
}

/// The time that incidents are placed in.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    start: Timestamp,
    /// From the start of incidents to the end of the plan.
    room: Duration,
    whole: Duration,
}

impl Span {
    /// The first third is quiet, so that detectors warm up; of long runs, the first two hours.
    pub(crate) fn new(start: Timestamp, whole: Duration) -> Self {
        let quiet = (whole / 3).min(Duration::from_secs(2 * 3_600));
        Self { start: start.plus(quiet), room: whole.saturating_sub(quiet), whole }
    }
}

/// Less room than this and nothing is placed: it would be over before anyone could see it.
const LEAST_ROOM: Duration = Duration::from_secs(120);
/// Kinds that take longer than the room scaled by this are not placed at all.
const LEAST_SHARE: f64 = 0.2;
/// Time between two incidents at one device or patient.
const APART: Duration = Duration::from_secs(30 * 60);
/// However long the run: a plan is read by people.
const MOST: usize = 10_000;

/// Plans incidents: one of each kind that has a place, then about one per three stream-days. `group` says which
/// devices must not have two at once.
pub(crate) fn plan(
    places: &[Places],
    group: impl Fn(usize) -> usize,
    span: Span,
    streams: usize,
    random: &mut Random,
) -> Vec<Slot> {
    if span.room < LEAST_ROOM {
        return Vec::new();
    }
    let places: Vec<&Places> = places
        .iter()
        .filter(|places| {
            !places.devices.is_empty() && places.kind.usual().mul_f64(places.kind.least_share()) < span.room
        })
        .collect();
    let days = span.whole.as_secs_f64() / 86_400.0;
    let more = ((streams as f64 * days / 3.0).round() as usize).min(MOST);
    let extra: Vec<&Places> = (0..more).filter_map(|_| places.get(random.below(places.len())).copied()).collect();
    let mut taken: HashMap<usize, Vec<(Timestamp, Timestamp)>> = HashMap::new();
    let mut slots: Vec<Slot> =
        places.into_iter().chain(extra).filter_map(|places| place(places, &group, span, &mut taken, random)).collect();
    slots.sort_by_key(|slot| (slot.from, slot.device));
    slots
}

/// Finds a free device and time. A device that has had nothing yet is preferred; where all tries fail, there is no room.
fn place(
    places: &Places,
    group: &impl Fn(usize) -> usize,
    span: Span,
    taken: &mut HashMap<usize, Vec<(Timestamp, Timestamp)>>,
    random: &mut Random,
) -> Option<Slot> {
    const TRIES: usize = 200;
    let length = places.kind.usual().min(span.room.mul_f64(0.8));
    let spare = span.room.saturating_sub(length).as_secs_f64();
    for attempt in 0..TRIES {
        let device = *places.devices.get(random.below(places.devices.len()))?;
        let from = span.start.plus(Duration::from_secs_f64((spare * random.uniform()).floor()));
        let until = from.plus(length);
        if !places.kind.can_begin(from) {
            continue;
        }
        let others = taken.entry(group(device)).or_default();
        // In the second half of the tries a device may be used again, at last with less time between.
        let apart = if attempt < TRIES * 3 / 4 { APART } else { Duration::from_secs(60) };
        let fresh = others.is_empty() || attempt >= TRIES / 2;
        if fresh && others.iter().all(|(start, end)| until.plus(apart) <= *start || end.plus(apart) <= from) {
            others.push((from, until));
            return Some(Slot { kind: places.kind, device, from, until });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(n: u64) -> Duration {
        Duration::from_secs(n * 60)
    }

    #[test]
    fn a_level_rises_stands_and_falls() {
        let start = Timestamp::from_secs(1_000);
        let effect = Effect { kind: IncidentKind::Crash, from: start, until: start.plus(minutes(9)), strength: 1.0 };
        assert_eq!(effect.level(start.minus(Duration::from_micros(1))), 0.0);
        assert_eq!(effect.level(start.plus(Duration::from_secs(30))), 0.5);
        assert_eq!(effect.level(start.plus(minutes(4))), 1.0);
        assert!(effect.level(start.plus(Duration::from_secs(9 * 60 - 40))) < 1.0);
        assert_eq!(effect.level(start.plus(minutes(9))), 0.0);
    }

    #[test]
    fn sudden_faults_are_there_at_once() {
        let start = Timestamp::from_secs(1_000);
        let effect = Effect { kind: IncidentKind::LeadsOff, from: start, until: start.plus(minutes(6)), strength: 1.0 };
        assert_eq!(effect.level(start), 1.0);
        assert_eq!(effect.level(effect.until.minus(Duration::from_micros(1))), 1.0);
    }

    #[test]
    fn plans_keep_to_their_room_and_apart() {
        let start = Timestamp::from_secs(1_700_000_000);
        let kinds = [IncidentKind::Crash, IncidentKind::Deterioration, IncidentKind::VoltageSag];
        for (seed, whole) in (0..40u64).zip([minutes(6), minutes(30), minutes(600), minutes(14_400)].iter().cycle()) {
            let places: Vec<Places> =
                kinds.iter().map(|kind| Places { kind: *kind, devices: (0..30).collect() }).collect();
            let slots = plan(&places, |device| device / 3, Span::new(start, *whole), 300, &mut Random::new(seed, 0));
            assert!(!slots.is_empty());
            for slot in &slots {
                assert!(slot.from >= start.plus((*whole / 3).min(minutes(120))), "{slot:?}");
                assert!(slot.until <= start.plus(*whole), "{slot:?}");
            }
            for (i, a) in slots.iter().enumerate() {
                for b in &slots[i + 1..] {
                    assert!(a.device / 3 != b.device / 3 || a.until < b.from || b.until < a.from, "{a:?} {b:?}");
                }
            }
        }
    }

    #[test]
    fn a_run_too_short_for_anything_stays_quiet() {
        let places = [Places { kind: IncidentKind::Crash, devices: vec![0] }];
        let span = Span::new(Timestamp::from_secs(0), Duration::from_secs(60));
        assert!(plan(&places, |device| device, span, 1, &mut Random::new(1, 1)).is_empty());
    }
}
