//! Trains the forecast of deterioration on courses of simulated patients. One of [`HELD_BACK`] patients is held back to choose the pass,
//! to calibrate (Platt, "Probabilistic outputs for support vector machines", 1999) and to choose the threshold.

use std::path::Path;

use candle_core::Tensor;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::checkpoint::Checkpoint;
use super::fit::{AT_ONCE, Epoch, Fit, PATIENCE, TrainReport};
use super::motion::binary_cross_entropy;
use super::samples::Samples;
use crate::ModelError;
use crate::card::{self, Metric, Training, TrainingData};
use crate::catalog;
use crate::diagnosis::deterioration::history::INPUTS;
use crate::diagnosis::deterioration::{LAYOUT, NAME};
use crate::eval::deterioration::{AlarmFigures, Course, Followed, forecasts};
use crate::mlp::{Network, Trainable};

/// Every this many-th patient is held back.
const HELD_BACK: usize = 5;
/// Of a patient's instants every this many-th is learnt from: neighbours hardly differ.
const EVERY: usize = 3;
/// The threshold is the lowest at which at least this share of alarms is right on the patients held back.
const LEAST_RIGHT: f64 = 0.5;
/// The version of the method; the weights' digest follows it.
const METHOD: &str = "1";

/// What the training is told besides.
#[derive(Clone, Copy, Debug)]
pub struct TrainDeterioration<'a> {
    /// The folder that card and weights are written to.
    pub out: &'a Path,
    /// Seed of everything random.
    pub seed: u64,
    /// Most passes.
    pub epochs: usize,
    /// Go on from where an earlier training into the same folder was stopped.
    pub resume: bool,
    /// The command that trains it again.
    pub command: &'a str,
    /// What the courses are, for the card.
    pub data: &'a str,
}

/// Trains the network and writes its folder.
pub fn train_deterioration(
    settings: &TrainDeterioration<'_>,
    courses: impl Iterator<Item = Course>,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<TrainReport, ModelError> {
    let (mut samples, mut held_back) = (Samples::new(INPUTS, 1), Samples::new(INPUTS, 1));
    let mut kept: Vec<Followed> = Vec::new();
    for (number, course) in courses.enumerate() {
        let followed = course.follow();
        let is_held_back = (number + 1).is_multiple_of(HELD_BACK);
        let into = if is_held_back { &mut held_back } else { &mut samples };
        for instant in followed.instants.iter().step_by(EVERY) {
            let Some(is_before_onset) = instant.is_before_onset else { continue };
            into.inputs.extend(instant.inputs);
            into.targets.push(f32::from(u8::from(is_before_onset)));
        }
        kept.extend(is_held_back.then_some(followed));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
    let epochs = settings.epochs;
    let fit = Fit {
        layout: LAYOUT,
        loss: binary_cross_entropy,
        batch: 128,
        at_once: AT_ONCE,
        rate: 2e-3,
        weight_decay: 2e-2,
        epochs,
        patience: PATIENCE,
    };
    let checkpoint = Checkpoint::new(settings.out, settings.resume);
    let (bytes, mut report) = fit.run(&samples, &held_back, &mut rng, Some(&checkpoint), progress)?;
    let bytes = calibrated(&bytes, &held_back)?;
    report.sha256 = card::digest(&bytes);
    let scores = forecasts(&Network::load(LAYOUT, &bytes)?, &kept)?;
    let figures = choose(&kept, &scores);
    write(settings, &report, &figures, &bytes)?;
    checkpoint.remove()?;
    Ok(report)
}

/// Scales and shifts the logits so that probabilities are what comes, on samples held back. The network's end takes it in.
fn calibrated(bytes: &[u8], held_back: &Samples) -> Result<Vec<u8>, ModelError> {
    let mut logits = Vec::new();
    Network::load(LAYOUT, bytes)?.forward(&held_back.inputs, held_back.len(), &mut logits)?;
    let (scale, shift) = platt(&logits, &held_back.targets);
    let [w1, b1, w2, b2, w3, b3, skip] = Trainable::load(LAYOUT, bytes)?.into_tensors()?;
    let scaled = |tensor: Tensor, shift: f64| tensor.affine(scale, shift);
    let tensors = [w1, b1, w2, b2, scaled(w3, 0.0)?, scaled(b3, shift)?, scaled(skip, 0.0)?];
    Trainable::of(LAYOUT, tensors)?.to_bytes()
}

/// Scale and shift of logits with the least cross entropy, by Newton's method; a step that makes it worse is halved.
fn platt(logits: &[f32], targets: &[f32]) -> (f64, f64) {
    let loss = |(scale, shift): (f64, f64)| -> f64 {
        let each = logits.iter().zip(targets).map(|(z, y)| {
            let (z, y) = (scale * f64::from(*z) + shift, f64::from(*y));
            z.max(0.0) - z * y + (-z.abs()).exp().ln_1p()
        });
        each.sum()
    };
    let mut now = (1.0, 0.0);
    for _ in 0..50 {
        let Some((scale, shift)) = newton(now, logits, targets) else { break };
        let least = loss(now) * (1.0 + 1e-12);
        let part = |part: f64| (now.0 - part * scale, now.1 - part * shift);
        let Some(next) = (0..20).map(|halved| part(0.5_f64.powi(halved))).find(|next| loss(*next) <= least) else {
            break;
        };
        now = next;
    }
    if now.0.is_finite() && now.1.is_finite() && now.0 > 0.0 { now } else { (1.0, 0.0) }
}

/// Newton's step of scale and shift.
fn newton((scale, shift): (f64, f64), logits: &[f32], targets: &[f32]) -> Option<(f64, f64)> {
    let (mut ga, mut gb, mut haa, mut hab, mut hbb) = (0.0, 0.0, 1e-6, 0.0, 1e-6);
    for (z, y) in logits.iter().zip(targets) {
        let (z, y) = (f64::from(*z), f64::from(*y));
        let p = 1.0 / (1.0 + (-(scale * z + shift)).exp());
        let weight = p * (1.0 - p);
        ga += (p - y) * z;
        gb += p - y;
        haa += weight * z * z;
        hab += weight * z;
        hbb += weight;
    }
    let determinant: f64 = haa * hbb - hab * hab;
    (determinant.abs() >= 1e-9).then(|| ((hbb * ga - hab * gb) / determinant, (haa * gb - hab * ga) / determinant))
}

fn choose(kept: &[Followed], scores: &[Vec<f64>]) -> AlarmFigures {
    let all: Vec<AlarmFigures> = (2..19).map(|step| AlarmFigures::of(kept, scores, f64::from(step) * 0.05)).collect();
    let enough = all.iter().find(|figures| figures.precision() >= LEAST_RIGHT);
    let best = all.iter().max_by(|a, b| a.precision().total_cmp(&b.precision()));
    enough.or(best).cloned().unwrap_or_default()
}

fn write(
    settings: &TrainDeterioration<'_>,
    report: &TrainReport,
    figures: &AlarmFigures,
    bytes: &[u8],
) -> Result<(), ModelError> {
    let mut card = catalog::card(NAME, None)?;
    card.sha256 = Some(report.sha256.clone());
    card.version = format!("{METHOD}-{}", &report.sha256[..8]);
    card.threshold = (figures.threshold * 100.0).round() / 100.0;
    let licence = String::from("made by this program; Apache-2.0");
    card.training = Some(Training {
        command: settings.command.to_owned(),
        seed: settings.seed,
        data: vec![TrainingData { name: settings.data.to_owned(), licence }],
    });
    let rounded = |value: f64| (value * 1e4).round() / 1e4;
    card.metrics = vec![
        Metric {
            name: String::from("binary cross entropy before calibration, nats"),
            value: rounded(f64::from(report.held_back_loss)),
            on: format!("{} instants of simulated patients held back", report.held_back),
            command: settings.command.to_owned(),
        },
        Metric {
            name: format!(
                "share of alarms that an onset followed, at the threshold that was chosen so; {} of {} onsets told",
                figures.told, figures.onsets
            ),
            value: rounded(figures.precision()),
            on: String::from("simulated patients held back"),
            command: settings.command.to_owned(),
        },
    ];
    card::write_folder(settings.out, &card, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calibration_finds_scale_and_shift() {
        // Outcomes that follow a logit of 0.5 z - 1 in their shares.
        let (mut logits, mut targets) = (Vec::new(), Vec::new());
        for step in 0..60 {
            let z = (step - 30) as f32 / 5.0;
            let share = 1.0 / (1.0 + (1.0 - 0.5 * z).exp());
            for i in 0..200 {
                logits.push(z);
                targets.push(f32::from(u8::from((i as f32 + 0.5) / 200.0 < share)));
            }
        }
        let (scale, shift) = platt(&logits, &targets);
        assert!((scale - 0.5).abs() < 0.02 && (shift + 1.0).abs() < 0.03, "{scale} {shift}");
        assert!(platt(&[1.0, 2.0], &[1.0, 1.0]).0.is_finite());
    }
}
