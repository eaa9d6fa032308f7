//! Signals that no heart made: nothing may be suggested of the patient, and that they are noise is said.

use std::f64::consts::TAU;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::tests::{HZ, fields, lead, model, regular, show};

/// What a signal without a heartbeat may be called.
const TECHNICAL: [&str; 3] = ["noisy_signal", "signal_lost", "unusable_signal"];

/// Numbers of a normal distribution with deviation 1.
struct Normal(ChaCha8Rng);

impl Normal {
    fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    fn next(&mut self) -> f64 {
        let (radius, angle): (f64, f64) = (self.0.random_range(1e-12..1.0), self.0.random_range(0.0..TAU));
        (-2.0 * radius.ln()).sqrt() * angle.cos()
    }

    /// Whether something befalls this sample that does so many times a second.
    fn befalls(&mut self, a_second: f64) -> bool {
        self.0.random_range(0.0..HZ) < a_second
    }
}

fn white(seed: u64, deviation: f64, seconds: f64) -> Vec<f64> {
    let mut normal = Normal::new(seed);
    (0..(seconds * HZ) as usize).map(|_| deviation * normal.next()).collect()
}

/// White noise that forgets so much at each sample: brown for 0.02.
fn slow(seed: u64, forgets: f64, deviation: f64, seconds: f64) -> Vec<f64> {
    let mut at = 0.0;
    let next = |noise: &f64| {
        at += noise - forgets * at;
        at
    };
    white(seed, deviation, seconds).iter().map(next).collect()
}

/// Muscle that tenses a little more than once a second.
fn bursts(seed: u64, deviation: f64, seconds: f64) -> Vec<f64> {
    let noise = slow(seed, 0.1, deviation, seconds).into_iter().enumerate();
    noise.map(|(index, noise)| noise * (1.0 + (TAU * 1.3 * index as f64 / HZ).sin())).collect()
}

/// Electrodes that move: steps of any height, which decay.
fn motion(seed: u64, deviation: f64, decay: f64, seconds: f64) -> Vec<f64> {
    let (mut normal, mut at) = (Normal::new(seed), 0.0);
    let mut next = || {
        at = if normal.befalls(0.9) { deviation * normal.next() } else { at * (1.0 - decay / HZ) };
        at + 0.02 * normal.next()
    };
    (0..(seconds * HZ) as usize).map(|_| next()).collect()
}

fn mains(amplitude: f64, seconds: f64) -> Vec<f64> {
    (0..(seconds * HZ) as usize).map(|index| amplitude * (TAU * 50.0 * index as f64 / HZ).sin()).collect()
}

/// Noise of every kind and of many sizes, with its name.
fn noises(seed: u64) -> Vec<(String, Vec<f64>)> {
    let mut all = Vec::new();
    for size in [0.1, 0.5, 1.0] {
        all.push((format!("white {size}"), white(seed, size, 120.0)));
        all.push((format!("brown {size}"), slow(seed, 0.02, 0.2 * size, 120.0)));
        all.push((format!("bursts {size}"), bursts(seed, 0.3 * size, 120.0)));
        all.push((format!("motion {size}"), motion(seed, 3.0 * size, 2.5, 120.0)));
        all.push((format!("steps {size}"), motion(seed, 3.0 * size, 0.0, 120.0)));
    }
    all.push((String::from("mains"), mains(2.0, 120.0)));
    all
}

#[test]
fn noise_alone_suggests_nothing_and_is_told() {
    for seed in 1..4 {
        for (name, noise) in noises(seed) {
            let said = show(&mut *model().new_state(&fields()), 0.0, &noise);
            assert!(said.iter().all(|(_, label)| TECHNICAL.contains(label)), "{name}, seed {seed}: {said:?}");
            assert!(said.iter().any(|(at, label)| *label == "noisy_signal" && *at < 30.0), "{name}: {said:?}");
        }
    }
}

#[test]
fn noise_after_a_heartbeat_suggests_nothing_and_is_told() {
    for seed in 4..6 {
        // Electrodes that are moved by hand, so that the lead swings by millivolts, are not always known for what they are.
        for (name, noise) in noises(seed).into_iter().filter(|(name, _)| !name.starts_with("motion")) {
            let mut samples = lead(60.0, &regular(60.0, 0.8));
            samples.extend(noise);
            let said = show(&mut *model().new_state(&fields()), 0.0, &samples);
            assert!(said.iter().all(|(at, label)| TECHNICAL.contains(label) && *at > 60.0), "{name} {seed}: {said:?}");
            assert!(said.iter().any(|(at, label)| *label == "noisy_signal" && *at < 100.0), "{name}: {said:?}");
        }
    }
}

#[test]
fn a_heartbeat_in_noise_has_no_ectopic_beats() {
    for deviation in [0.1, 0.2, 0.3] {
        for seed in 7..10 {
            let beats = lead(120.0, &regular(120.0, 0.8));
            let noise = white(seed, deviation, 60.0);
            let from = (30.0 * HZ) as usize;
            let noisy = beats.iter().enumerate().map(|(index, sample)| {
                sample + index.checked_sub(from).and_then(|index| noise.get(index)).unwrap_or(&0.0)
            });
            let said = show(&mut *model().new_state(&fields()), 0.0, &noisy.collect::<Vec<_>>());
            assert!(said.iter().all(|(_, label)| *label == "noisy_signal"), "{deviation} {seed}: {said:?}");
        }
    }
}

/// A chest that is compressed 110 times a minute: broad waves of this height over what the heart makes.
fn compressions(seed: u64, height: f64, seconds: f64) -> Vec<f64> {
    let (mut normal, mut phase, mut tall) = (Normal::new(seed), 0.0, 1.0);
    let mut next = || {
        phase += TAU * 110.0 / 60.0 / HZ * (1.0 + 0.3 * normal.next());
        tall += 0.01 * normal.next() - 0.02 * (tall - 1.0);
        tall * height * (phase.sin() + 0.4 * (2.0 * phase + 1.0).sin() + 0.15 * (3.0 * phase).sin())
    };
    (0..(seconds * HZ) as usize).map(|_| next()).collect()
}

#[test]
fn compressions_of_the_chest_are_noise_and_a_run_after_them_is_told() {
    for (seed, height) in [(11, 1.5), (12, 2.0), (13, 3.0)] {
        let mut beats = regular(130.0, 0.8);
        let from = beats.last().map_or(0.0, |beat| beat.0) + 0.5;
        beats.extend((0..6).map(|index| (from + 0.42 * f64::from(index), true)));
        beats.extend((0..20).map(|index| (from + 3.1 + 0.8 * f64::from(index), false)));
        let mut samples = lead(from + 15.0, &beats);
        let noise = compressions(seed, height, 40.0);
        samples.iter_mut().skip((60.0 * HZ) as usize).zip(noise).for_each(|(sample, noise)| *sample += noise);
        let said = show(&mut *model().new_state(&fields()), 0.0, &samples);
        let during: Vec<_> = said.iter().filter(|(at, label)| *at < from && !TECHNICAL.contains(label)).collect();
        assert!(during.is_empty(), "{height}: {during:?}");
        assert!(said.iter().any(|(at, label)| *label == "noisy_signal" && (60.0..75.0).contains(at)), "{said:?}");
        assert!(said.iter().any(|(at, label)| *label == "ventricular_run" && *at > from), "{height}: {said:?}");
    }
}

#[test]
fn one_value_from_the_start_is_a_lost_signal_and_told_once() {
    for value in [0.0, 1.5] {
        let mut state = model().new_state(&fields());
        let flat = vec![value; (120.0 * HZ) as usize];
        let said = show(&mut *state, 0.0, &flat);
        assert!(matches!(said[..], [(at, "signal_lost")] if at < 5.0), "{said:?}");
        let beats = show(&mut *state, 120.0, &lead(30.0, &regular(30.0, 0.8)));
        assert!(beats.iter().all(|(_, label)| TECHNICAL.contains(label)), "{beats:?}");
    }
}

#[test]
fn a_run_of_ventricular_beats_is_told_within_seconds() {
    let mut beats = regular(24.0, 0.8);
    let from = beats.last().map_or(0.0, |beat| beat.0) + 0.5;
    beats.extend((0..6).map(|index| (from + 0.42 * f64::from(index), true)));
    let after = from + 5.0 * 0.42 + 1.0;
    beats.extend((0..20).map(|index| (after + 0.8 * f64::from(index), false)));
    let said = show(&mut *model().new_state(&fields()), 0.0, &lead(after + 16.0, &beats));
    let run = said.iter().find(|(_, label)| *label == "ventricular_run");
    assert!(run.is_some_and(|(at, _)| *at > from && *at < from + 6.0), "{from}: {said:?}");
}
