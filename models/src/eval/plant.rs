//! Simulated devices of several sensors with faults that a person sees at once, to measure detectors of several fields by: how many of
//! the faults are told and named, and how often something is told of a device without fault.
//!
//! Other than the plants that the multivariate detector learns from ([`crate::train::plant`]): causes are shared by several sensors, and
//! it is the relation that breaks. Sensors follow a common cause (a rhythm, a duty cycle, something that wanders), some of them late, some
//! rarely, some rounded, some with heavy tails; others go their own way.
//!
//! Promises: the seed decides; a fault begins after [`NORMAL_ROWS`] rows.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::train::simulate::{log_uniform, normal};

/// Rows without a fault at the start of a device.
pub const NORMAL_ROWS: usize = 1_000;
/// Rows of a device with a fault.
pub const ROWS: usize = 4_500;

/// What is wrong with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// One field leaps for one row, by 20 of its deviations.
    Spike,
    /// Two fields that rose together move against each other for 500 rows.
    Inverted,
    /// A field moves slowly away from what the others say of it, by 2 to 5 of its deviations in 600 to 2,000 rows, and stays there.
    Drift,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Spike, Self::Inverted, Self::Drift];

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Spike => "spike",
            Self::Inverted => "inverted relation",
            Self::Drift => "slow drift",
        }
    }

    /// The labels that say what happened.
    pub const fn labels(self) -> &'static [&'static str] {
        match self {
            Self::Spike => &["spike", "drop"],
            Self::Inverted => &["changed_relation"],
            Self::Drift => &["drift", "changed_relation"],
        }
    }
}

/// A simulated device.
#[derive(Clone, Debug, PartialEq)]
pub struct Plant {
    /// Number of fields.
    pub fields: usize,
    /// Row-major; `None` where a sensor says nothing in a row.
    pub values: Vec<Option<f64>>,
    /// Rows in which a finding is about the fault; empty where there is none.
    pub faulty_rows: std::ops::Range<usize>,
    /// The fields at fault.
    pub faulty_fields: Vec<usize>,
}

/// Deviations that a spike leaps by.
const LEAP: f64 = 20.0;
/// Rows that a relation is inverted for.
const INVERTED_ROWS: usize = 500;
/// A rhythm grows and shrinks over this many rows, times 2 π.
const SWELL_ROWS: f64 = 800.0;
/// Causes of a device.
const CAUSES: usize = 2;

/// A device of `fields` sensors (3 at least) over `rows` rows.
pub fn simulate_plant(fields: usize, rows: usize, fault: Option<Fault>, rng: &mut ChaCha8Rng) -> Plant {
    let mut causes: [Cause; CAUSES] = std::array::from_fn(|_| Cause::draw(rng));
    let mut sensors: Vec<Sensor> = (0..fields).map(|_| Sensor::draw(rng)).collect();
    let first = rng.random_range(0..fields);
    let pair = [first, (first + 1) % fields];
    if matches!(fault, Some(Fault::Inverted | Fault::Drift)) {
        pair.iter().for_each(|field| sensors[*field].relate(rng));
    }
    let mut columns = vec![Vec::with_capacity(rows); fields];
    let mut shared = vec![Vec::with_capacity(rows); fields];
    for row in 0..rows {
        let now = causes.each_mut().map(|cause| cause.next(row as f64, rng));
        for (index, sensor) in sensors.iter_mut().enumerate() {
            let (common, own) = sensor.next(row as f64, &now, rng);
            shared[index].push(common);
            columns[index].push(common + own);
        }
    }
    let mut plant =
        Plant { fields, values: Vec::with_capacity(rows * fields), faulty_rows: 0..0, faulty_fields: Vec::new() };
    if let Some(fault) = fault {
        plant.put(fault, &pair, sensors[pair[0]].every, &mut columns, &shared, rng);
    }
    for row in 0..rows {
        let said = sensors.iter().zip(&columns).map(|(sensor, column)| sensor.shown(row, column[row]));
        plant.values.extend(said);
    }
    plant
}

impl Plant {
    fn put(
        &mut self,
        fault: Fault,
        pair: &[usize],
        every: usize,
        columns: &mut [Vec<f64>],
        shared: &[Vec<f64>],
        rng: &mut ChaCha8Rng,
    ) {
        let field = pair[0];
        let begin = rng.random_range(NORMAL_ROWS..NORMAL_ROWS + 500);
        let size = deviation(&columns[field][..NORMAL_ROWS]) * if rng.random::<bool>() { 1.0 } else { -1.0 };
        let column = &mut columns[field];
        (self.faulty_rows, self.faulty_fields) = match fault {
            Fault::Spike => {
                let begin = begin - begin % every;
                column[begin] += LEAP * size;
                (begin..begin + 3, vec![field])
            }
            Fault::Inverted => {
                let mean = shared[field][..NORMAL_ROWS].iter().sum::<f64>() / NORMAL_ROWS as f64;
                let end = begin + INVERTED_ROWS;
                (begin..end).for_each(|row| column[row] -= 2.0 * (shared[field][row] - mean));
                (begin..end, pair.to_vec())
            }
            Fault::Drift => {
                let (rows, size) = (rng.random_range(600..2_000), rng.random_range(2.0..5.0) * size);
                for (row, value) in column[begin..].iter_mut().enumerate() {
                    *value += size * (row as f64 / rows as f64).min(1.0);
                }
                (begin..begin + rows + 500, vec![field])
            }
        };
    }
}

fn deviation(values: &[f64]) -> f64 {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt()
}

/// What several sensors follow; of the order of 1.
enum Cause {
    Rhythm { period: f64, phase: f64, sharpness: f64, swell: f64 },
    Wandering { keeps: f64, now: f64 },
}

impl Cause {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        let (period, phase) = (log_uniform(rng, 30.0, 400.0), rng.random_range(0.0..1.0));
        match rng.random_range(0..4) {
            0 | 1 => Self::Rhythm { period, phase, sharpness: 0.0, swell: rng.random_range(0.0..0.5) },
            2 => Self::Rhythm { period, phase, sharpness: log_uniform(rng, 1.0, 20.0), swell: 0.0 },
            _ => Self::Wandering { keeps: (-1.0 / log_uniform(rng, 3.0, 100.0)).exp(), now: 0.0 },
        }
    }

    fn next(&mut self, row: f64, rng: &mut ChaCha8Rng) -> f64 {
        match self {
            Self::Rhythm { period, phase, sharpness, swell } => {
                let wave = (std::f64::consts::TAU * (row / *period + *phase)).sin();
                // A duty cycle is a sine that is cut.
                if *sharpness > 0.0 {
                    return (*sharpness * wave).tanh();
                }
                let size = 1.0 + *swell * (row / SWELL_ROWS + *phase).sin();
                std::f64::consts::SQRT_2 * size * wave
            }
            Self::Wandering { keeps, now } => {
                *now = *keeps * *now + (1.0 - *keeps * *keeps).sqrt() * normal(rng);
                *now
            }
        }
    }
}

struct Sensor {
    /// How much of each cause.
    gains: [f64; CAUSES],
    /// Rows that it is late by, as an exponential mean.
    late_rows: f64,
    /// How much more it answers to what is large.
    bend: f64,
    noise: f64,
    is_heavy: bool,
    walk: f64,
    digit: f64,
    /// It says something in one of this many rows.
    every: usize,
    own: Option<Cause>,
    unit: f64,
    offset: f64,
    now_common: f64,
    now_walk: f64,
}

impl Sensor {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        let mut often = |share: f64, least: f64, most: f64| {
            let value = log_uniform(rng, least, most);
            if rng.random::<f64>() < share { value } else { 0.0 }
        };
        let (noise, walk, digit) = (often(1.0, 0.05, 0.6), often(0.2, 1e-3, 1e-2), often(0.2, 0.05, 0.4));
        let (late_rows, bend) = (1.0 + often(0.25, 1.0, 8.0), often(0.25, 0.05, 0.3));
        let every = if rng.random::<f64>() < 0.15 { rng.random_range(2..6) } else { 1 };
        let is_related = rng.random::<f64>() < 0.65;
        let mut gains = [0.0; CAUSES];
        if is_related {
            let sign = if rng.random::<bool>() { 1.0 } else { -1.0 };
            gains[rng.random_range(0..CAUSES)] = sign;
        }
        Self {
            gains,
            late_rows,
            bend,
            noise,
            is_heavy: rng.random::<f64>() < 0.2,
            walk,
            digit,
            every,
            own: (!is_related && rng.random::<bool>()).then(|| Cause::draw(rng)),
            unit: log_uniform(rng, 1e-3, 1e3),
            offset: 100.0 * normal(rng),
            now_common: 0.0,
            now_walk: 0.0,
        }
    }

    /// Makes it one that plainly rises with the first cause.
    fn relate(&mut self, rng: &mut ChaCha8Rng) {
        self.gains = [0.0; CAUSES];
        self.gains[0] = 1.0;
        (self.late_rows, self.every, self.own, self.is_heavy) = (1.0, 1, None, false);
        self.noise = log_uniform(rng, 0.05, 0.35);
        self.walk = self.walk.min(2e-3);
    }

    /// Its share of the causes, and what is its own.
    fn next(&mut self, row: f64, causes: &[f64; CAUSES], rng: &mut ChaCha8Rng) -> (f64, f64) {
        let common: f64 = self.gains.iter().zip(causes).map(|(gain, cause)| gain * cause).sum();
        let common = common + self.bend * (common * common - 1.0);
        self.now_common += (common - self.now_common) / self.late_rows;
        self.now_walk += self.walk * normal(rng);
        let heavy = if self.is_heavy { (0.7 * normal(rng)).exp() } else { 1.0 };
        let own = self.own.as_mut().map_or(0.0, |own| own.next(row, rng));
        (self.now_common, own + self.now_walk + self.noise * heavy * normal(rng))
    }

    fn shown(&self, row: usize, value: f64) -> Option<f64> {
        let value = if self.digit > 0.0 { (value / self.digit).round() * self.digit } else { value };
        row.is_multiple_of(self.every).then_some(self.offset + self.unit * value)
    }
}
