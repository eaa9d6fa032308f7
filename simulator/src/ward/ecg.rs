//! A synthetic electrocardiogram: each beat is a sum of Gaussian waves, after McSharry et al., "A dynamical model for
//! generating synthetic electrocardiogram signals", IEEE Transactions on Biomedical Engineering 50(3), 2003, but placed
//! in time directly instead of through their differential equations.

use std::f64::consts::TAU;

use nearside_schemas::Timestamp;

use super::patient::Patient;
use crate::incident::IncidentKind;
use crate::payload::{millis, push_thousandths};
use crate::random::Random;

/// Samples a second.
pub(crate) const HZ: usize = 250;
/// Seconds in one message.
pub(crate) const STRIP_SECONDS: u64 = 10;
const SAMPLES: usize = HZ * STRIP_SECONDS as usize;

/// One wave: seconds from the R peak, height in mV, width (standard deviation) in seconds.
#[derive(Clone, Copy)]
struct Wave {
    at: f64,
    height: f64,
    width: f64,
}

const fn wave(at: f64, height: f64, width: f64) -> Wave {
    Wave { at, height, width }
}

/// P, Q, R, S, T of a sinus beat in lead II.
const SINUS: [Wave; 5] = [
    wave(-0.165, 0.13, 0.022),
    wave(-0.028, -0.11, 0.009),
    wave(0.0, 1.15, 0.011),
    wave(0.028, -0.24, 0.010),
    wave(0.270, 0.30, 0.048),
];
/// A beat from the ventricle: no P, a broad and tall QRS, T against it.
const VENTRICULAR: [Wave; 3] = [wave(0.0, 1.65, 0.040), wave(0.095, -0.45, 0.040), wave(0.320, -0.42, 0.065)];

/// One heartbeat of a strip.
struct Beat {
    /// Seconds from the start of the strip.
    at: f64,
    ventricular: bool,
    /// The intervals within a beat shrink with the square root of the time between beats (Bazett).
    stretch: f64,
}

/// Electrodes on one patient.
pub(crate) struct Electrodes {
    /// How tall this patient's waves are.
    gain: f64,
}

impl Electrodes {
    pub(crate) fn new(random: &mut Random) -> Self {
        Self { gain: random.between(0.8, 1.15) }
    }

    /// `{"ts":ms,"hz":250,"mv":[…2500 samples…]}`; `ts` is the time of the first sample.
    pub(crate) fn read(&mut self, at: Timestamp, patient: &Patient, random: &mut Random) -> Vec<u8> {
        let strip = if patient.level(at, |kind| kind == IncidentKind::LeadsOff) > 0.0 {
            // What is left is the amplifier's own noise.
            (0..SAMPLES).map(|_| 0.002 * random.normal()).collect()
        } else {
            let ventricular = patient.level(at, |kind| kind == IncidentKind::VentricularBeats) > 0.0;
            let body = patient.body();
            let beats = beats(body.heart_rate, body.respiration, ventricular, random);
            self.signal(&beats, body.respiration, random)
        };
        encode(at, &strip)
    }

    fn signal(&self, beats: &[Beat], respiration: f64, random: &mut Random) -> Vec<f64> {
        let (breath, hum) = (random.between(0.0, TAU), random.between(0.0, TAU));
        let mut samples: Vec<f64> = (0..SAMPLES)
            .map(|i| {
                let t = i as f64 / HZ as f64;
                // Breathing moves the base line; the mains hum at 50 Hz.
                0.05 * (TAU * respiration / 60.0 * t + breath).sin()
                    + 0.006 * (TAU * 50.0 * t + hum).sin()
                    + 0.010 * random.normal()
            })
            .collect();
        for beat in beats {
            let waves: &[Wave] = if beat.ventricular { &VENTRICULAR } else { &SINUS };
            let tall = self.gain * (1.0 + 0.03 * random.normal());
            for wave in waves {
                let centre = beat.at + wave.at * beat.stretch;
                add(&mut samples, centre, wave.height * tall, wave.width);
            }
        }
        samples
    }
}

/// Adds a Gaussian to the samples within four widths of it.
fn add(samples: &mut [f64], centre: f64, height: f64, width: f64) {
    let index = |t: f64| (t * HZ as f64).clamp(0.0, SAMPLES as f64) as usize;
    let (from, to) = (index(centre - 4.0 * width), index(centre + 4.0 * width));
    for (i, sample) in samples.iter_mut().enumerate().take(to).skip(from) {
        let z = (i as f64 / HZ as f64 - centre) / width;
        *sample += height * (-0.5 * z * z).exp();
    }
}

/// The beats that touch a strip. The time between two varies with the breath (respiratory sinus arrhythmia), slower
/// with blood pressure at 0.1 Hz, and a little by itself.
fn beats(heart_rate: f64, respiration: f64, ventricular: bool, random: &mut Random) -> Vec<Beat> {
    let usual = 60.0 / heart_rate.clamp(20.0, 240.0);
    let stretch = usual.sqrt().clamp(0.6, 1.2);
    let (breath, pressure) = (random.between(0.0, TAU), random.between(0.0, TAU));
    let mut beats = Vec::new();
    let mut at = -usual * random.between(0.5, 1.5);
    let mut since = random.below(3);
    let end = STRIP_SECONDS as f64 + 0.5;
    while at < end {
        since += 1;
        let interval = usual
            * (1.0
                + 0.030 * (TAU * respiration / 60.0 * at + breath).sin()
                + 0.018 * (TAU * 0.1 * at + pressure).sin()
                + 0.010 * random.normal());
        if ventricular && since >= 3 {
            // It comes early, and the next sinus beat waits for its own time: two intervals hold three beats.
            since = 0;
            beats.push(Beat { at: at - 0.36 * usual, ventricular: true, stretch });
            at += interval * 0.64;
        } else {
            beats.push(Beat { at, ventricular: false, stretch });
            at += interval;
        }
    }
    beats
}

fn encode(at: Timestamp, samples: &[f64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(samples.len() * 7 + 64);
    out.extend_from_slice(format!(r#"{{"ts":{},"hz":{HZ},"mv":["#, millis(at)).as_bytes());
    for (i, sample) in samples.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        push_thousandths(&mut out, (sample * 1_000.0).round() as i32);
    }
    out.extend_from_slice(b"]}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times of the R peaks: local maxima above half of the tallest.
    fn peaks(samples: &[f64]) -> Vec<f64> {
        let top = samples.iter().copied().fold(0.0, f64::max);
        let mut peaks: Vec<f64> = Vec::new();
        for i in 1..samples.len() - 1 {
            let t = i as f64 / HZ as f64;
            let far = peaks.last().is_none_or(|last| t - last > 0.2);
            if far && samples[i] > 0.5 * top && samples[i] >= samples[i - 1] && samples[i] >= samples[i + 1] {
                peaks.push(t);
            }
        }
        peaks
    }

    fn strip(heart_rate: f64, ventricular: bool) -> Vec<f64> {
        let mut random = Random::new(5, 5);
        let beats = beats(heart_rate, 15.0, ventricular, &mut random);
        Electrodes::new(&mut random).signal(&beats, 15.0, &mut random)
    }

    #[test]
    fn a_strip_beats_at_the_heart_rate_with_some_variability() {
        for rate in [55.0, 75.0, 120.0] {
            let peaks = peaks(&strip(rate, false));
            let intervals: Vec<f64> = peaks.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let mean = intervals.iter().sum::<f64>() / intervals.len() as f64;
            assert!((60.0 / mean / rate - 1.0).abs() < 0.06, "{} for {rate}", 60.0 / mean);
            let deviation = intervals.iter().map(|i| (i - mean).powi(2)).sum::<f64>().sqrt();
            assert!(deviation > 0.0);
        }
    }

    #[test]
    fn ventricular_beats_come_early_and_are_followed_by_a_pause() {
        let beats = beats(75.0, 15.0, true, &mut Random::new(1, 1));
        let early = beats.iter().position(|beat| beat.ventricular && beat.at > 1.0).unwrap();
        let before = beats[early].at - beats[early - 1].at;
        let after = beats[early + 1].at - beats[early].at;
        assert!(before < 0.6 && after > 0.75 && after > before, "{before} {after}");
        assert!(beats.iter().filter(|beat| beat.ventricular).count() >= 3);
    }
}
