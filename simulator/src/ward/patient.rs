//! A patient's body, and the bedside monitor that shows it.

use std::time::Duration;

use nearside_schemas::Timestamp;

use super::routine::Routine;
use crate::incident::{Effect, IncidentKind, ProbeFault, level_of};
use crate::motion::pose::Pose;
use crate::payload::millis;
use crate::random::{Random, SlowNoise};
use crate::rhythm;
use crate::site::Grid;

/// The body as it is, before any instrument's noise.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Body {
    /// Beats a minute.
    pub(crate) heart_rate: f64,
    /// Breaths a minute.
    pub(crate) respiration: f64,
    /// Saturation of the arteries, %.
    pub(crate) spo2: f64,
    /// mmHg.
    pub(crate) systolic: f64,
    /// °C.
    pub(crate) temperature: f64,
    /// Whether oxygen is given.
    pub(crate) oxygen: bool,
    /// ACVPU: alert, new confusion, responds to voice, to pain, unresponsive.
    pub(crate) consciousness: char,
}

/// One patient: what is usual for them, how it wanders, and what befalls them.
pub(crate) struct Patient {
    grid: Grid,
    random: Random,
    usual: Body,
    wander: [SlowNoise; 5],
    effects: Vec<Effect>,
    body: Body,
    routine: Routine,
}

/// Streams of random numbers for the patients' days, far from those of bodies and devices.
const ROUTINES: u64 = u64::MAX / 4;

const STEP: Duration = Duration::from_secs(5);

/// Where sepsis takes a body: heart rate, respiration, saturation, systolic pressure, temperature. On the scale of the
/// Royal College of Physicians' NEWS2 (2017) 2 + 3 + 2 + 2 + 1 points; with oxygen and new confusion 15.
const SEPTIC: [f64; 5] = [121.0, 27.0, 92.3, 95.0, 38.7];

impl Patient {
    pub(crate) fn new(number: usize, seed: u64, start: Timestamp) -> Self {
        // The patients' own streams, far from those of devices.
        let mut random = Random::new(seed, u64::MAX / 2 + number as u64);
        let usual = Body {
            heart_rate: random.between(66.0, 79.0),
            respiration: random.between(13.8, 16.8),
            spo2: random.between(97.0, 98.2),
            systolic: random.between(120.0, 138.0),
            temperature: random.between(36.6, 36.95),
            oxygen: false,
            consciousness: 'A',
        };
        let wander = [300.0, 240.0, 420.0, 900.0, 3_600.0].map(|tau| SlowNoise::new(tau, &mut random));
        let routine = Routine::new(start, Random::new(seed, ROUTINES + number as u64));
        let mut patient =
            Self { grid: Grid::new(start, STEP), random, usual, wander, effects: Vec::new(), body: usual, routine };
        patient.body = patient.body_at(start);
        patient
    }

    pub(crate) fn strike(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Lives on until `at`.
    pub(crate) fn advance(&mut self, at: Timestamp) {
        while let Some(now) = self.grid.step_to(at) {
            for process in &mut self.wander {
                process.step(STEP.as_secs_f64(), &mut self.random);
            }
            self.body = self.body_at(now);
        }
    }

    /// The body now.
    pub(crate) fn body(&self) -> &Body {
        &self.body
    }

    /// What the patient does at an instant that is at most minutes before any asked for.
    pub(crate) fn pose(&mut self, at: Timestamp) -> Pose {
        self.routine.pose(at, &self.effects)
    }

    /// How much of an incident there is.
    pub(crate) fn level(&self, at: Timestamp, sort: impl Fn(IncidentKind) -> bool) -> f64 {
        level_of(&self.effects, at, sort)
    }

    /// What ails the monitor at this instant.
    fn probe_fault(&self, at: Timestamp) -> Option<ProbeFault> {
        self.effects.iter().find_map(|effect| match effect.kind {
            IncidentKind::ProbeOff(fault) if effect.level(at) > 0.0 => Some(fault),
            _ => None,
        })
    }

    fn body_at(&self, at: Timestamp) -> Body {
        let [heart, breath, oxygen, pressure, heat] = &self.wander;
        let night = rhythm::night(at);
        // Temperature is lowest before dawn and highest in the late afternoon.
        let warmth = 0.22 * rhythm::daily(rhythm::hour(at), 17.0);
        let healthy = [
            self.usual.heart_rate - 6.0 * night + 3.0 * heart.value(),
            self.usual.respiration - 0.8 * night + 0.8 * breath.value(),
            self.usual.spo2 - 0.3 * night + 0.35 * oxygen.value(),
            self.usual.systolic - 6.0 * night + 3.5 * pressure.value(),
            self.usual.temperature + warmth + 0.08 * heat.value(),
        ];
        let sepsis = self.level(at, |kind| kind == IncidentKind::Deterioration);
        let airway = self.level(at, |kind| kind == IncidentKind::Desaturation);
        let sugar = self.level(at, |kind| kind == IncidentKind::Hypoglycaemia);
        let mut values = healthy;
        for (value, septic) in values.iter_mut().zip(SEPTIC) {
            *value += sepsis * (septic - *value);
        }
        let [heart_rate, respiration, spo2, systolic, temperature] = values;
        Body {
            // Too little oxygen, or sugar, and the heart tries to make up for it.
            heart_rate: heart_rate + 24.0 * airway + 12.0 * sugar,
            respiration: respiration + 8.0 * airway,
            spo2: spo2 - 15.0 * airway,
            systolic: systolic + 8.0 * airway,
            temperature,
            oxygen: self.usual.oxygen || sepsis > 0.6,
            consciousness: if sepsis > 0.85 { 'C' } else { self.usual.consciousness },
        }
    }
}

/// A bedside monitor.
#[derive(Default)]
pub(crate) struct Monitor {
    /// What it showed last, which a frozen one repeats.
    last: Option<Shown>,
}

#[derive(Clone, Copy)]
struct Shown {
    heart_rate: f64,
    respiration: f64,
    spo2: f64,
    systolic: f64,
    temperature: f64,
    oxygen: bool,
    consciousness: char,
}

impl Monitor {
    /// `{"ts":ms,"heart_rate":…,"respiration":…,"spo2":…,"oxygen":0|1,"systolic":…,"temperature":…,"consciousness":"A"}`;
    /// without `spo2` while the probe is off.
    pub(crate) fn read(&mut self, at: Timestamp, patient: &Patient, random: &mut Random) -> Vec<u8> {
        let body = patient.body();
        let fresh = Shown {
            heart_rate: (body.heart_rate + 1.2 * random.normal()).clamp(20.0, 240.0),
            respiration: (body.respiration + 0.5 * random.normal()).clamp(3.0, 60.0),
            spo2: (body.spo2 + 0.3 * random.normal()).clamp(50.0, 100.0),
            systolic: (body.systolic + 2.0 * random.normal()).clamp(50.0, 240.0),
            temperature: body.temperature + 0.04 * random.normal(),
            oxygen: body.oxygen,
            consciousness: body.consciousness,
        };
        let fault = patient.probe_fault(at);
        let shown = match (fault, self.last) {
            (Some(ProbeFault::Frozen), Some(last)) => last,
            _ => fresh,
        };
        self.last = Some(shown);
        let spo2 = match fault {
            Some(ProbeFault::Missing) => String::new(),
            _ => format!(r#""spo2":{:.0},"#, shown.spo2),
        };
        format!(
            r#"{{"ts":{},"heart_rate":{:.0},"respiration":{:.0},{spo2}"oxygen":{},"systolic":{:.0},"temperature":{:.1},"consciousness":"{}"}}"#,
            millis(at),
            shown.heart_rate,
            shown.respiration,
            u8::from(shown.oxygen),
            shown.systolic,
            shown.temperature,
            shown.consciousness,
        )
        .into_bytes()
    }
}
