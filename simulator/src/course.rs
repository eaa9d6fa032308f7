//! Courses of invented patients over a day and more: vital signs as a ward would have them, to train and to test forecasts on.
//!
//! Some patients stay as they are, some recover, some get worse: of an infection, of their lungs, of a bleeding, of their heart's
//! rhythm; some get worse and turn by themselves. All walk about, are in pain, cough; probes slip, cuffs err, monitors stand still, and
//! much is measured only now and then. The figures are plausible, not measured.
//!
//! Promises: cohort, seed and number of a patient decide every value. Patients of [`Cohort::Test`] are drawn from other ranges: they
//! are older in their figures, get worse faster or slower, and their probes are worse.

use std::time::Duration;

use nearside_schemas::Timestamp;

use crate::random::{Random, SlowNoise};
use crate::rhythm;

/// Which patients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cohort {
    /// To learn from.
    Training,
    /// Others.
    Test,
}

/// What becomes of a patient.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fate {
    /// Nothing.
    Stable,
    /// Came ill and gets better.
    Recovering,
    /// An infection that spreads over hours.
    Sepsis,
    /// The lungs give out.
    Respiratory,
    /// Blood is lost.
    Bleeding,
    /// The heart's rhythm changes at once.
    Arrhythmia,
    /// Gets worse, is treated in time, gets better.
    Turned,
}

/// Vital signs at one instant; a value that was not measured is `None`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Vitals {
    /// When.
    pub time: Timestamp,
    /// Beats a minute.
    pub heart_rate: Option<f64>,
    /// Breaths a minute.
    pub respiration: Option<f64>,
    /// %.
    pub spo2: Option<f64>,
    /// mmHg.
    pub systolic: Option<f64>,
    /// °C.
    pub temperature: Option<f64>,
    /// Whether oxygen is given.
    pub oxygen: Option<bool>,
    /// Whether the patient is alert and not confused.
    pub is_alert: Option<bool>,
}

/// One patient's course: what was measured, and what was so.
#[derive(Clone, PartialEq, Debug)]
pub struct VitalCourse {
    /// What became of the patient.
    pub fate: Fate,
    /// As measured: with noise, faults and gaps.
    pub measured: Vec<Vitals>,
    /// As it was at the same instants, complete.
    pub truth: Vec<Vitals>,
}

/// Five vital signs in the order of [`VALUES`].
type Five = [f64; 5];
/// Heart rate, respiration, saturation, systolic pressure, temperature: what the body's own wandering and the instruments' noise are.
const WANDER: Five = [4.0, 1.1, 0.6, 5.5, 0.1];
const NOISE: Five = [1.5, 0.9, 0.5, 3.5, 0.06];
/// How long each wanders, seconds.
const WANDER_SECONDS: Five = [1_500.0, 1_200.0, 1_800.0, 3_600.0, 9_000.0];

/// How a patient is besides the illness.
struct Patient {
    usual: Five,
    fate: Fate,
    /// Where the illness takes the signs at its full size.
    towards: Five,
    /// Hour of its beginning, hours until its full size, and its full size.
    onset: f64,
    takes: f64,
    size: f64,
    /// Hour at which treatment works; only for those who turn.
    turns: f64,
    gets_oxygen_below: f64,
    is_confused_from: f64,
    /// Times of bustle: hour, length in hours, strength.
    bustle: Vec<(f64, f64, f64)>,
}

/// How a patient is measured.
struct Instruments {
    /// Seconds between messages, and between values of each sign.
    period: f64,
    every: Five,
    /// Spells without a value of a sign: which, from hour, length in hours; at 5 the whole monitor stands still.
    spells: Vec<(usize, f64, f64)>,
    /// How often a single value is far off.
    glitches: f64,
    tells_mind: bool,
}

impl VitalCourse {
    /// The course of patient `number` over `hours`.
    pub fn new(cohort: Cohort, seed: u64, number: u64, hours: u64) -> Self {
        let side = u64::from(cohort == Cohort::Test);
        // Far from the streams of a fleet and of people who move.
        let mut random = Random::new(seed, (1 << 61) + 2 * number + side);
        let hours = hours as f64;
        let patient = Patient::draw(cohort, hours, &mut random);
        let instruments = Instruments::draw(cohort, hours, &mut random);
        let mut wander = WANDER_SECONDS.map(|tau| SlowNoise::new(tau, &mut random));
        // Midnight of a Monday and some hours.
        let start = Timestamp::from_secs(1_704_067_200 + random.below(24) as i64 * 3_600);
        let (mut truth, mut measured) = (Vec::new(), Vec::new());
        let mut due = [0.0; 5];
        let mut frozen: Option<Vitals> = None;
        let mut seconds = 0.0;
        while seconds < hours * 3_600.0 {
            let hour = seconds / 3_600.0;
            let time = start.plus(Duration::from_secs_f64(seconds));
            let own = wander.each_mut().map(|process| process.step(instruments.period, &mut random));
            let so = patient.at(hour, time, own);
            let seen = instruments.measure(hour, seconds, &so, &mut due, &mut random);
            let seen = match instruments.is_frozen(hour) {
                true => Vitals { time, ..*frozen.get_or_insert(seen) },
                false => {
                    frozen = None;
                    seen
                }
            };
            truth.push(so);
            measured.push(seen);
            seconds += instruments.period;
        }
        Self { fate: patient.fate, measured, truth }
    }
}

impl Patient {
    fn draw(cohort: Cohort, hours: f64, random: &mut Random) -> Self {
        let is_test = cohort == Cohort::Test;
        let fate = match random.uniform() {
            u if u < 0.42 => Fate::Stable,
            u if u < 0.56 => Fate::Recovering,
            u if u < 0.68 => Fate::Sepsis,
            u if u < 0.77 => Fate::Respiratory,
            u if u < 0.85 => Fate::Bleeding,
            u if u < 0.89 => Fate::Arrhythmia,
            _ => Fate::Turned,
        };
        let older = if is_test { 1.0 } else { 0.0 };
        let has_bad_lungs = random.chance(0.1 + 0.05 * older);
        let usual = [
            random.between(58.0, 92.0) + 2.0 * older,
            random.between(12.5, 18.5) + 0.5 * older + if has_bad_lungs { 2.0 } else { 0.0 },
            if has_bad_lungs { random.between(91.5, 94.5) } else { random.between(95.5, 98.8) - 0.4 * older },
            random.between(108.0, 152.0) + 4.0 * older,
            random.between(36.4, 37.1),
        ];
        // What it does to the signs, on average; each patient's body answers in its own way.
        let mean = match fate {
            Fate::Stable => [0.0; 5],
            Fate::Sepsis | Fate::Recovering | Fate::Turned => {
                [42.0, 11.0, -4.5, -36.0, if random.chance(0.8) { 1.9 } else { -1.3 }]
            }
            Fate::Respiratory => [24.0, 14.0, -10.0, 6.0, 0.5],
            Fate::Bleeding => [48.0, 8.0, -2.0, -48.0, -0.4],
            Fate::Arrhythmia => [random.pick(&[70.0, 60.0, -28.0]), 4.0, -2.0, -25.0, 0.0],
        };
        let spread = if is_test { 0.4 } else { 0.3 };
        let towards = mean.map(|change: f64| change * (1.0 + spread * random.normal()).clamp(0.2, 1.8));
        let pace = if is_test { random.between(0.5, 1.6) } else { random.between(0.7, 1.4) };
        let takes = pace
            * match fate {
                Fate::Bleeding => random.between(2.5, 8.0),
                Fate::Arrhythmia => 0.15,
                Fate::Recovering => random.between(10.0, 30.0),
                _ => random.between(5.0, 14.0),
            };
        let onset = if fate == Fate::Recovering { random.between(-2.0, 4.0) } else { random.between(2.0, hours - 3.0) };
        let size = if fate == Fate::Turned { random.between(0.35, 0.8) } else { random.between(0.8, 1.3) };
        let mut bustle = Vec::new();
        let mut hour = random.exponential(4.0);
        while hour < hours {
            bustle.push((hour, random.between(0.15, 0.8), random.between(0.3, 1.2)));
            hour += random.exponential(4.0);
        }
        Self {
            usual,
            fate,
            towards,
            onset,
            takes,
            size,
            turns: onset + takes * random.between(0.4, 0.9),
            gets_oxygen_below: random.between(89.0, 93.0),
            is_confused_from: random.between(0.75, 1.3),
            bustle,
        }
    }

    /// How ill, from 0 up.
    fn illness(&self, hour: f64) -> f64 {
        let smooth = |share: f64| {
            let x = share.clamp(0.0, 1.0);
            x * x * (3.0 - 2.0 * x)
        };
        let grown = self.size * smooth((hour - self.onset) / self.takes);
        match self.fate {
            Fate::Stable => 0.0,
            Fate::Recovering => 0.7 * self.size * (1.0 - smooth((hour - self.onset) / self.takes)),
            Fate::Turned => {
                let most = self.size * smooth((self.turns - self.onset) / self.takes);
                grown.min(most) * (1.0 - smooth((hour - self.turns) / 6.0))
            }
            _ => grown,
        }
    }

    fn at(&self, hour: f64, time: Timestamp, own: Five) -> Vitals {
        let ill = self.illness(hour);
        let night = rhythm::night(time);
        let warmth = 0.2 * rhythm::daily(rhythm::hour(time), 17.0);
        let daily = [-5.0 * night, -0.8 * night, -0.3 * night, -6.0 * night, warmth];
        let bustle: f64 = self
            .bustle
            .iter()
            .filter(|(from, length, _)| (*from..from + length).contains(&hour))
            .map(|(.., strength)| strength)
            .sum();
        let busy = [18.0 * bustle, 4.0 * bustle, -0.8 * bustle, 10.0 * bustle, 0.05 * bustle];
        let mut now: Five = std::array::from_fn(|i| {
            // Pressure holds at first and then gives way.
            let ill = if i == 3 && self.towards[3] < 0.0 { ill.powf(1.6) } else { ill };
            self.usual[i] + daily[i] + busy[i] + WANDER[i] * own[i] + ill * self.towards[i]
        });
        let oxygen = self.usual[2] + ill * self.towards[2] < self.gets_oxygen_below;
        now[2] = (now[2] + if oxygen { 3.0 } else { 0.0 }).clamp(60.0, 100.0);
        Vitals {
            time,
            heart_rate: Some(now[0].clamp(25.0, 220.0)),
            respiration: Some(now[1].clamp(4.0, 55.0)),
            spo2: Some(now[2]),
            systolic: Some(now[3].clamp(50.0, 230.0)),
            temperature: Some(now[4].clamp(33.0, 41.5)),
            oxygen: Some(oxygen),
            is_alert: Some(self.fate == Fate::Arrhythmia || ill < self.is_confused_from),
        }
    }
}

impl Instruments {
    fn draw(cohort: Cohort, hours: f64, random: &mut Random) -> Self {
        let is_test = cohort == Cohort::Test;
        let period = random.pick(&[60.0, 120.0, 300.0]);
        let cuff = random.pick(&[900.0, 1_800.0, 3_600.0]);
        let thermometer = random.pick(&[300.0, 3_600.0, 4.0 * 3_600.0]);
        let mut spells = Vec::new();
        let mut hour = random.exponential(if is_test { 5.0 } else { 8.0 });
        while hour < hours {
            spells.push((random.pick(&[0, 1, 2, 2, 2, 3, 5]), hour, random.between(0.2, 1.5)));
            hour += random.exponential(if is_test { 5.0 } else { 8.0 });
        }
        Self {
            period,
            every: [period, period, period, cuff, thermometer],
            spells,
            glitches: if is_test { 0.006 } else { 0.004 },
            tells_mind: random.chance(0.8),
        }
    }

    fn is_frozen(&self, hour: f64) -> bool {
        self.spells.iter().any(|(which, from, length)| *which == 5 && (*from..from + length).contains(&hour))
    }

    fn measure(&self, hour: f64, seconds: f64, so: &Vitals, due: &mut Five, random: &mut Random) -> Vitals {
        let exact = [so.heart_rate, so.respiration, so.spo2, so.systolic, so.temperature];
        let mut seen = [None; 5];
        for (i, exact) in exact.into_iter().enumerate() {
            let is_off =
                self.spells.iter().any(|(which, from, length)| *which == i && (*from..from + length).contains(&hour));
            if seconds < due[i] || is_off {
                continue;
            }
            due[i] = seconds + self.every[i] - 1.0;
            let far = [60.0, 12.0, -18.0, -45.0, -1.5][i];
            let off = if random.chance(self.glitches) { far * random.between(0.4, 1.0) } else { 0.0 };
            seen[i] = exact.map(|value| value + NOISE[i] * random.normal() + off);
        }
        let [heart_rate, respiration, spo2, systolic, temperature] = seen;
        let round = |value: Option<f64>, step: f64| value.map(|value| (value / step).round() * step);
        Vitals {
            time: so.time,
            heart_rate: round(heart_rate, 1.0),
            respiration: round(respiration, 1.0),
            spo2: round(spo2, 1.0).map(|value| value.min(100.0)),
            systolic: round(systolic, 1.0),
            temperature: round(temperature, 0.1),
            oxygen: so.oxygen,
            is_alert: so.is_alert.filter(|_| self.tells_mind),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn cohort_seed_and_number_decide() {
        let course = |cohort, seed, number| VitalCourse::new(cohort, seed, number, 12);
        let one = course(Cohort::Training, 1, 0);
        assert_eq!(one, course(Cohort::Training, 1, 0));
        for other in [course(Cohort::Training, 1, 1), course(Cohort::Training, 2, 0), course(Cohort::Test, 1, 0)] {
            assert_ne!(one.truth, other.truth);
        }
        assert!(one.truth.windows(2).all(|pair| pair[0].time < pair[1].time));
        assert_eq!(one.truth.len(), one.measured.len());
    }

    #[test]
    fn every_fate_comes_and_most_values_are_near_the_truth() {
        let mut fates: HashMap<Fate, usize> = HashMap::new();
        let (mut near, mut all, mut missing) = (0.0, 0.0, 0.0);
        for number in 0..200 {
            let course = VitalCourse::new(Cohort::Test, 3, number, 24);
            *fates.entry(course.fate).or_default() += 1;
            for (so, seen) in course.truth.iter().zip(&course.measured) {
                let (Some(so), seen) = (so.heart_rate, seen.heart_rate) else { panic!("the truth is whole") };
                all += 1.0;
                missing += f64::from(u8::from(seen.is_none()));
                near += f64::from(u8::from(seen.is_some_and(|seen| (seen - so).abs() < 6.0)));
            }
        }
        assert_eq!(fates.len(), 7, "{fates:?}");
        assert!(near / all > 0.9 && missing / all > 0.001, "{near} {missing} of {all}");
    }

    #[test]
    fn bleeding_lowers_the_pressure_and_lifts_the_pulse() {
        let worst = (0..300).map(|number| VitalCourse::new(Cohort::Training, 5, number, 30));
        let bleeding: Vec<VitalCourse> = worst.filter(|course| course.fate == Fate::Bleeding).collect();
        assert!(bleeding.len() > 5);
        let change = |of: fn(&Vitals) -> Option<f64>| {
            let changes =
                bleeding.iter().filter_map(|course| Some(of(course.truth.last()?)? - of(course.truth.first()?)?));
            changes.sum::<f64>() / bleeding.len() as f64
        };
        assert!(change(|vitals| vitals.systolic) < -15.0 && change(|vitals| vitals.heart_rate) > 15.0);
    }
}
