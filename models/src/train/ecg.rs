//! Trains the ensemble that classes beats: AdamW on weighted cross-entropy, each member with other patients held back.
//!
//! Beats are those that our own detector finds, each lead of a beat a sample of its own, so that one lead is enough later. Normal beats are
//! by far the most, so one in [`NORMAL_SHARE`] is drawn anew for each member; a patient weighs by a power of its share in a class, so that
//! none speaks for all. Inputs are blurred with noise and hidden units dropped: there are few patients. Of each member's passes the one is
//! kept that is best on the patients held back.
//!
//! Early beats and atrial fibrillation are in few patients, so each is shown with rhythms made of its own beats too: [`super::ecg_rhythms`].
//!
//! The classes' prior is the one with the best mean F1 where each patient is judged by the member that has not seen it: no patient chooses
//! for itself. It is one for all members, and ventricular beats come before F1: see [`LEAST_V_SENSITIVITY`].

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::ecg_rhythms::{fibrillating, premature};
use super::{Epoch, TrainReport};
use crate::ModelError;
use crate::card::{self, Training, TrainingData};
use crate::catalog;
use crate::diagnosis::ecg::beats::INPUTS;
use crate::diagnosis::ecg::class::{BeatClass, CLASSES};
use crate::diagnosis::ecg::network::{HIDDEN, MEMBERS, Member, Network, OUTPUTS, Scaling, to_bytes, weighed};
use crate::diagnosis::ecg::{MOST_LEADS, NAME};
use crate::eval::ecg::EcgOutcome;
use crate::eval::ecg_data::{Patient, each_record};

/// How the network is trained.
#[derive(Clone, Copy, Debug)]
pub struct TrainEcg {
    /// Seed of the weights, of who is held back and of the order of samples.
    pub seed: u64,
    /// Most passes of each member over its samples.
    pub epochs: usize,
}

const BATCH: usize = 256;
const RATE: f64 = 2e-3;
const WEIGHT_DECAY: f64 = 0.02;
/// Share of the hidden units that a step leaves out.
const DROPOUT: f32 = 0.2;
/// Deviation of the noise on standardised inputs.
const NOISE: f32 = 0.5;
/// One normal beat in so many is a sample of a member; in fibrillation one in so many is a sample at all.
const NORMAL_SHARE: usize = 4;
const FIBRILLATING_SHARE: usize = 8;
/// The power of its share in a class that a patient weighs by.
const PATIENT_POWER: f32 = 0.7;
/// What an early beat that was made weighs.
const MADE_EARLY: f32 = 0.3;
/// Factors of S and V that are tried.
const PRIORS: [f32; 12] = [1.0, 0.85, 0.7, 0.6, 0.5, 0.42, 0.35, 0.3, 0.25, 0.2, 0.16, 0.12];
/// The sensitivity for V that no choice may fall below, and how far below the most of any it may be where none reaches that.
const LEAST_V_SENSITIVITY: f64 = 0.91;
const LEAST_V_MARGIN: f64 = 0.01;
/// A sample weighs at most so many times the mean.
const MOST_WEIGHT: f32 = 20.0;
/// Passes without improvement after which a member is done.
const PATIENCE: usize = 4;
/// The version of the method; the weights' digest follows it.
const METHOD: &str = "3";

/// A patient to learn from.
#[derive(Clone, Debug)]
pub struct Learner {
    /// What was recorded.
    pub patient: Patient,
    /// The same with early beats, and as if the atria fibrillated.
    made: [Patient; 2],
}

impl Learner {
    /// Reads all annotated records of a folder. The seed is that of the rhythms that are made.
    pub fn read(folder: &Path, leads: usize, seed: u64, progress: impl FnMut(&str)) -> Result<Vec<Self>, ModelError> {
        let mut learners = Vec::new();
        let mut stream = 0;
        each_record(folder, progress, |record| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(stream);
            stream += 1;
            if record.annotations.is_some() {
                let made = [premature(record, &mut rng), fibrillating(record, &mut rng)];
                let made = made.map(|made| Patient::of(&made, leads));
                learners.push(Self { patient: Patient::of(record, leads), made });
            }
        })?;
        Ok(learners)
    }
}

/// Where a sample comes from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    Recorded,
    Early,
    Fibrillating,
}

/// A beat in one lead.
#[derive(Clone, Copy)]
struct Sample<'a> {
    inputs: &'a [f32],
    class: usize,
    patient: usize,
    origin: Origin,
}

impl Sample<'_> {
    /// Whether it is one of the many normal ones, of which a member gets some.
    fn is_common(&self) -> bool {
        self.class == 0 && self.origin == Origin::Recorded
    }
}

/// Trains the ensemble; gives the weights file's bytes and the passes of all members.
pub fn train_ecg_network(
    learners: &[&Learner],
    settings: TrainEcg,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<(Vec<u8>, TrainReport), ModelError> {
    let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
    let samples = samples(learners);
    let recorded = samples.iter().filter(|sample| sample.origin == Origin::Recorded);
    let scaling = Scaling::of(&recorded.map(|sample| sample.inputs).collect::<Vec<_>>());
    let mut order: Vec<usize> = (0..learners.len()).collect();
    order.shuffle(&mut rng);
    let mut members = Vec::with_capacity(MEMBERS);
    let mut judged = Vec::new();
    let mut report = TrainReport { samples: samples.len(), ..TrainReport::default() };
    for number in 0..MEMBERS {
        let out =
            |patient: usize| order.iter().position(|one| *one == patient).is_some_and(|at| at % MEMBERS == number);
        let (mut held_back, kept): (Vec<Sample<'_>>, Vec<Sample<'_>>) =
            samples.iter().partition(|sample| out(sample.patient));
        held_back.retain(|sample| sample.origin == Origin::Recorded);
        let mut on_pass = |epoch: &Epoch| {
            let shown =
                Epoch { epoch: number * settings.epochs + epoch.epoch, epochs: MEMBERS * settings.epochs, ..*epoch };
            progress(&shown);
            report.epochs.push(shown);
        };
        let (member, best) = train_member(&kept, &held_back, &scaling, settings.epochs, &mut rng, &mut on_pass)?;
        for (_, learner) in learners.iter().enumerate().filter(|(patient, _)| out(*patient)) {
            judge(&member, &learner.patient, &scaling, &mut judged)?;
        }
        members.push(member);
        report.held_back += held_back.len();
        report.best_epoch = report.best_epoch.max(best.epoch);
        report.held_back_loss += best.held_back_loss / MEMBERS as f32;
    }
    let bytes = to_bytes(&scaling, &members, &prior(&judged))?;
    Network::load(&bytes)?;
    report.sha256 = card::digest(&bytes);
    Ok((bytes, report))
}

/// The found beats whose class is annotated and told apart.
fn labelled(patient: &Patient) -> Vec<(&[f32], usize)> {
    let Some(matching) = patient.matching() else { return Vec::new() };
    let beats = patient.found.iter().zip(matching.found);
    beats.filter_map(|(beat, annotated)| Some((beat.inputs.as_slice(), annotated?.output()?))).collect()
}

fn samples<'a>(learners: &[&'a Learner]) -> Vec<Sample<'a>> {
    let mut samples = Vec::new();
    for (number, learner) in learners.iter().enumerate() {
        let [early, fibrillating] = &learner.made;
        let sources =
            [(&learner.patient, Origin::Recorded), (early, Origin::Early), (fibrillating, Origin::Fibrillating)];
        for (patient, origin) in sources {
            for (index, (inputs, class)) in labelled(patient).into_iter().enumerate() {
                let is_wanted = match origin {
                    Origin::Recorded => true,
                    Origin::Early => CLASSES[class] == BeatClass::Supraventricular,
                    Origin::Fibrillating => class != 0 || index % FIBRILLATING_SHARE == 0,
                };
                if is_wanted {
                    let leads = inputs.chunks_exact(INPUTS);
                    samples.extend(leads.map(|inputs| Sample { inputs, class, patient: number, origin }));
                }
            }
        }
    }
    samples
}

/// Classes and probabilities of the beats of a patient that this member has not seen.
fn judge(
    member: &Member,
    patient: &Patient,
    scaling: &Scaling,
    judged: &mut Vec<(usize, [f32; OUTPUTS])>,
) -> Result<(), ModelError> {
    for (inputs, class) in labelled(patient) {
        let leads = inputs.len() / INPUTS;
        let mut x = Vec::with_capacity(inputs.len());
        inputs.chunks_exact(INPUTS).for_each(|lead| scaling.apply(lead, &mut x));
        let rows = member.probabilities(&Tensor::from_vec(x, (leads, INPUTS), &Device::Cpu)?)?;
        let mean = std::array::from_fn(|class| rows.iter().map(|row| row[class]).sum::<f32>() / leads.max(1) as f32);
        judged.push((class, mean));
    }
    Ok(())
}

/// The prior with the best mean F1 of those that find enough of V; where none does, of those that find most of it.
fn prior(judged: &[(usize, [f32; OUTPUTS])]) -> [f32; OUTPUTS] {
    let priors = PRIORS.iter().flat_map(|s| PRIORS.map(|v| [1.0, *s, v, 1.0]));
    let tried: Vec<([f32; OUTPUTS], EcgOutcome)> = priors.map(|prior| (prior, outcome(judged, &prior))).collect();
    let v_sensitivity = |outcome: &EcgOutcome| outcome.classes()[2].sensitivity;
    let most = tried.iter().map(|(_, outcome)| v_sensitivity(outcome)).fold(0.0, f64::max);
    let enough = LEAST_V_SENSITIVITY.min(most - LEAST_V_MARGIN);
    let eligible = tried.iter().filter(|(_, outcome)| v_sensitivity(outcome) >= enough);
    // Of equal ones the last is taken: it is the one nearest to none at all.
    let best = eligible.rev().max_by(|(_, a), (_, b)| a.mean_f1().total_cmp(&b.mean_f1()));
    best.map_or([1.0; OUTPUTS], |(prior, _)| *prior)
}

/// What a prior makes of the probabilities of annotated beats.
fn outcome(judged: &[(usize, [f32; OUTPUTS])], prior: &[f32; OUTPUTS]) -> EcgOutcome {
    let mut outcome = EcgOutcome::default();
    for (class, probabilities) in judged {
        let shares = weighed(probabilities, prior);
        let said = (0..OUTPUTS).max_by(|a, b| shares[*a].total_cmp(&shares[*b])).unwrap_or(0);
        outcome.confusion[*class][said] += 1;
    }
    outcome
}

/// Near enough to a standard normal number: see [`Noise::normal`].
pub(super) fn normal(rng: &mut ChaCha8Rng) -> f32 {
    Noise(rng.random()).normal()
}

/// Numbers for noise, of which training needs very many: SplitMix64 (G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number
/// generators", OOPSLA 2014).
struct Noise(u64);

impl Noise {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to 1.
    fn uniform(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1_u32 << 24) as f32
    }

    /// The sum of four uniform numbers, with mean 0 and deviation 1.
    fn normal(&mut self) -> f32 {
        let bits = self.bits();
        let sum: u64 = (0..4).map(|part| (bits >> (16 * part)) & 0xffff).sum();
        0.75_f32.sqrt() * (sum as f32 / 32_768.0 - 4.0)
    }
}

fn train_member(
    kept: &[Sample<'_>],
    held_back: &[Sample<'_>],
    scaling: &Scaling,
    epochs: usize,
    rng: &mut ChaCha8Rng,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<(Member, Epoch), ModelError> {
    let member = Member::new(rng)?;
    let params = ParamsAdamW { lr: RATE, weight_decay: WEIGHT_DECAY, ..ParamsAdamW::default() };
    let mut optimizer = AdamW::new(member.vars().to_vec(), params)?;
    let mut drawn: Vec<Sample<'_>> =
        kept.iter().filter(|sample| !sample.is_common() || rng.random_range(0..NORMAL_SHARE) == 0).copied().collect();
    let weights = Weights::of(&drawn);
    let own = Weights::of(held_back);
    let batches = drawn.len().div_ceil(BATCH);
    let mut best: Option<(Epoch, Vec<Tensor>)> = None;
    for epoch in 1..=epochs {
        drawn.shuffle(rng);
        let mut sum = 0.0;
        for (number, batch) in drawn.chunks(BATCH).enumerate() {
            optimizer.set_learning_rate(rate((epoch - 1) * batches + number, epochs * batches));
            let (x, targets) = tensors(batch, &weights, scaling, Some(rng))?;
            let keep = dropout(batch.len(), rng)?;
            let loss = member.loss(&x, &targets, Some(&keep))?;
            optimizer.backward_step(&loss)?;
            sum += loss.to_scalar::<f32>()? * batch.len() as f32;
        }
        let held_back_loss = mean_loss(&member, held_back, &own, scaling)?;
        let pass = Epoch { epoch, epochs, loss: sum / drawn.len().max(1) as f32, held_back_loss };
        progress(&pass);
        if best.as_ref().is_none_or(|(least, _)| held_back_loss < least.held_back_loss) {
            let copies = member.vars().iter().map(|var| var.as_tensor().copy()).collect::<Result<Vec<_>, _>>()?;
            best = Some((pass, copies));
        } else if best.as_ref().is_some_and(|(least, _)| epoch >= least.epoch + PATIENCE) {
            break;
        }
    }
    let (pass, copies) = match best {
        Some(best) => best,
        None => (Epoch { epoch: 0, epochs, loss: 0.0, held_back_loss: 0.0 }, Vec::new()),
    };
    for (var, copy) in member.vars().iter().zip(&copies) {
        var.set(copy)?;
    }
    Ok((member, pass))
}

/// The learning rate: a short rise, then half a cosine down to 0.
fn rate(step: usize, steps: usize) -> f64 {
    let done = step as f64 / steps.max(1) as f64;
    RATE * (step as f64 / 100.0).min(1.0) * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
}

/// What a sample of a class, patient and origin weighs; about 1 in the mean of those that were recorded.
struct Weights(BTreeMap<(usize, usize, Origin), f32>);

impl Weights {
    fn of(samples: &[Sample<'_>]) -> Self {
        let mut counts = BTreeMap::<(usize, usize, Origin), f32>::new();
        let mut classes = [0.0_f32; OUTPUTS];
        for sample in samples {
            *counts.entry((sample.class, sample.patient, sample.origin)).or_default() += 1.0;
            classes[sample.class] += 1.0;
        }
        // Within a class patients weigh by a power of how few beats they have, and the class keeps its weight.
        let mut spread = [0.0_f32; OUTPUTS];
        counts.iter().for_each(|((class, ..), count)| spread[*class] += count.powf(1.0 - PATIENT_POWER));
        let weight = |(class, patient, origin): (usize, usize, Origin), count: f32| {
            let weight = (count.powf(-PATIENT_POWER) * classes[class] / spread[class]).min(MOST_WEIGHT);
            ((class, patient, origin), if origin == Origin::Early { MADE_EARLY * weight } else { weight })
        };
        Self(counts.into_iter().map(|(key, count)| weight(key, count)).collect())
    }

    fn get(&self, sample: &Sample<'_>) -> f32 {
        self.0.get(&(sample.class, sample.patient, sample.origin)).copied().unwrap_or(1.0)
    }
}

/// Standardised inputs, with noise where `rng` is given, and one weighted target a row.
fn tensors(
    batch: &[Sample<'_>],
    weights: &Weights,
    scaling: &Scaling,
    rng: Option<&mut ChaCha8Rng>,
) -> Result<(Tensor, Tensor), ModelError> {
    let mut x = Vec::with_capacity(batch.len() * INPUTS);
    batch.iter().for_each(|sample| scaling.apply(sample.inputs, &mut x));
    if let Some(rng) = rng {
        let mut noise = Noise(rng.random());
        x.iter_mut().for_each(|value| *value += NOISE * noise.normal());
    }
    let mut targets = vec![0.0_f32; batch.len() * OUTPUTS];
    for (sample, row) in batch.iter().zip(targets.chunks_exact_mut(OUTPUTS)) {
        row[sample.class] = weights.get(sample);
    }
    let x = Tensor::from_vec(x, (batch.len(), INPUTS), &Device::Cpu)?;
    Ok((x, Tensor::from_vec(targets, (batch.len(), OUTPUTS), &Device::Cpu)?))
}

fn dropout(rows: usize, rng: &mut ChaCha8Rng) -> Result<Tensor, ModelError> {
    let mut noise = Noise(rng.random());
    let kept = 1.0 / (1.0 - DROPOUT);
    let keep = (0..rows * HIDDEN).map(|_| if noise.uniform() < DROPOUT { 0.0 } else { kept }).collect::<Vec<_>>();
    Ok(Tensor::from_vec(keep, (rows, HIDDEN), &Device::Cpu)?)
}

fn mean_loss(member: &Member, samples: &[Sample<'_>], weights: &Weights, scaling: &Scaling) -> Result<f32, ModelError> {
    let mut sum = 0.0;
    for batch in samples.chunks(4_096) {
        let (x, targets) = tensors(batch, weights, scaling, None)?;
        sum += member.loss(&x, &targets, None)?.to_scalar::<f32>()? * batch.len() as f32;
    }
    Ok(sum / samples.len().max(1) as f32)
}

/// Trains the network on a folder of annotated records and writes its folder.
pub fn train_ecg(
    data: &Path,
    out: &Path,
    settings: TrainEcg,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<TrainReport, ModelError> {
    let learners = Learner::read(data, MOST_LEADS, settings.seed, |_| {})?;
    if learners.len() < 2 {
        let why = String::from("at least two records with annotations (.atr) are needed");
        return Err(ModelError::Data { path: data.to_owned(), why });
    }
    let all: Vec<&Learner> = learners.iter().collect();
    let (bytes, report) = train_ecg_network(&all, settings, progress)?;
    let mut card = catalog::card(NAME, None)?;
    card.sha256 = Some(report.sha256.clone());
    card.version = format!("{METHOD}-{}", &report.sha256[..8]);
    card.training = Some(Training {
        command: format!(
            "nearside train ecg --data MITDB --seed {} --epochs {} --out FOLDER",
            settings.seed, settings.epochs
        ),
        seed: settings.seed,
        data: vec![TrainingData {
            name: format!("PhysioNet, MIT-BIH Arrhythmia Database, {} records", learners.len()),
            licence: String::from("ODC-By 1.0"),
        }],
    });
    card.metrics = Vec::new();
    card::write_folder(out, &card, &bytes)?;
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_mean_0_and_deviation_1() {
        let mut noise = Noise(1);
        let drawn: Vec<f32> = (0..20_000).map(|_| noise.normal()).collect();
        let mean = drawn.iter().sum::<f32>() / drawn.len() as f32;
        let square = drawn.iter().map(|value| value * value).sum::<f32>() / drawn.len() as f32;
        assert!(mean.abs() < 0.03 && (square - 1.0).abs() < 0.05, "{mean} {square}");
        assert!((0..1_000).map(|_| noise.uniform()).all(|value| (0.0..1.0).contains(&value)));
    }

    #[test]
    fn the_prior_is_against_a_class_that_is_often_wrong() {
        let normal = [(0, [0.9, 0.05, 0.04, 0.01]), (0, [0.45, 0.5, 0.04, 0.01])].repeat(50);
        let others = [(1, [0.2, 0.75, 0.04, 0.01]), (2, [0.3, 0.1, 0.55, 0.05])].repeat(10);
        let chosen = prior(&[normal, others].concat());
        assert!(chosen[1] < 0.9 && chosen[1] > 0.26, "{chosen:?}");
        assert!(chosen[2] > 0.54, "ventricular beats come first: {chosen:?}");
    }

    #[test]
    fn where_too_few_ventricular_beats_are_found_none_more_are_given_away() {
        // Four in ten are not found with any prior; to call one more in ten normal would have the better F1.
        let normal = [(0, [0.9, 0.0, 0.1, 0.0]), (0, [0.45, 0.0, 0.55, 0.0])].repeat(100);
        let found = [(2, [0.2, 0.0, 0.8, 0.0])].repeat(50);
        let doubtful = [(2, [0.46, 0.0, 0.54, 0.0])].repeat(10);
        let never = [(2, [0.9, 0.0, 0.1, 0.0])].repeat(40);
        let chosen = prior(&[normal, found, doubtful, never].concat());
        assert!(chosen[2] > 0.86, "{chosen:?}");
    }
}
