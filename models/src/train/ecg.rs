//! Trains the ensemble that classes beats: AdamW on weighted cross-entropy, each member with other patients held back.
//!
//! Beats are those that our own detector finds, each lead of a beat a sample of its own, so that one lead is enough later. Normal beats are
//! by far the most, so one in [`NORMAL_SHARE`] is drawn anew for each member; a class weighs by a power of its rarity and a patient by a power of
//! its share in the class, so that no patient speaks for all. Inputs are blurred with noise and hidden units dropped: there are few
//! patients. Of each member's passes the one is kept that is best on the patients held back.
//!
//! Atrial fibrillation is in two patients of the database's first half alone, and its early beats look like premature ones. So some normal beats of
//! patients in sinus rhythm are shown a second time with an invented rhythm: intervals drawn independently, as the atria in fibrillation
//! give them.

use std::collections::VecDeque;
use std::path::Path;

use candle_core::{Device, Tensor};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Epoch, TrainReport};
use crate::ModelError;
use crate::card::{self, Training, TrainingData};
use crate::catalog;
use crate::diagnosis::ecg::beats::{INPUTS, LONG, RHYTHM, rhythm};
use crate::diagnosis::ecg::network::{HIDDEN, MEMBERS, Member, Network, OUTPUTS, Scaling, to_bytes};
use crate::diagnosis::ecg::{MOST_LEADS, NAME};
use crate::eval::ecg_data::{Patient, read_patients};

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
/// One normal beat in so many is a sample of a member.
const NORMAL_SHARE: usize = 10;
/// Share of the normal beats that are shown again as in atrial fibrillation.
const FIBRILLATING: f32 = 0.08;
/// Where the inputs say which share of intervals differs from the one before, and how clear the signal is.
const FAR_STEPS: usize = 14;
const QUALITY: usize = 19;
/// A rhythm with more such intervals may be fibrillation already.
const IRREGULAR: f32 = 0.5;
/// The power of its rarity that a class weighs by, and of its share in the class that a patient does.
const CLASS_POWER: f32 = 0.3;
const PATIENT_POWER: f32 = 1.0;
/// A sample weighs at most so many times the mean.
const MOST_WEIGHT: f32 = 20.0;
/// Passes without improvement after which a member is done.
const PATIENCE: usize = 4;
/// The version of the method; the weights' digest follows it.
const METHOD: &str = "2";

/// A beat in one lead.
#[derive(Clone, Copy)]
struct Sample<'a> {
    inputs: &'a [f32],
    class: usize,
    patient: usize,
    /// Whether every member gets it: all but real normal beats.
    is_rare: bool,
}

/// Trains the ensemble on patients with annotations; gives the weights file's bytes and the passes of all members.
pub fn train_ecg_network(
    patients: &[&Patient],
    settings: TrainEcg,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<(Vec<u8>, TrainReport), ModelError> {
    let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
    let mut samples = samples(patients);
    let invented = fibrillating(&samples, &mut rng);
    samples.extend(invented.iter().map(|(inputs, patient)| Sample {
        inputs,
        class: 0,
        patient: *patient,
        is_rare: true,
    }));
    let scaling = Scaling::of(&samples.iter().map(|sample| sample.inputs).collect::<Vec<_>>());
    let mut order: Vec<usize> = (0..patients.len()).collect();
    order.shuffle(&mut rng);
    let mut members = Vec::with_capacity(MEMBERS);
    let mut report = TrainReport { samples: samples.len(), ..TrainReport::default() };
    for number in 0..MEMBERS {
        let is_held_back =
            |patient: usize| order.iter().position(|one| *one == patient).is_some_and(|at| at % MEMBERS == number);
        let (held_back, kept): (Vec<Sample<'_>>, Vec<Sample<'_>>) =
            samples.iter().partition(|sample| is_held_back(sample.patient));
        let mut on_pass = |epoch: &Epoch| {
            let shown =
                Epoch { epoch: number * settings.epochs + epoch.epoch, epochs: MEMBERS * settings.epochs, ..*epoch };
            progress(&shown);
            report.epochs.push(shown);
        };
        let (member, best) = train_member(&kept, &held_back, &scaling, settings.epochs, &mut rng, &mut on_pass)?;
        members.push(member);
        report.held_back += held_back.len();
        report.best_epoch = report.best_epoch.max(best.epoch);
        report.held_back_loss += best.held_back_loss / MEMBERS as f32;
    }
    let bytes = to_bytes(&scaling, &members)?;
    Network::load(&bytes)?;
    report.sha256 = card::digest(&bytes);
    Ok((bytes, report))
}

/// The found beats whose class is annotated and told apart.
fn samples<'a>(patients: &[&'a Patient]) -> Vec<Sample<'a>> {
    let mut samples = Vec::new();
    for (number, patient) in patients.iter().enumerate() {
        let Some(matching) = patient.matching() else { continue };
        for (beat, annotated) in patient.found.iter().zip(matching.found) {
            let Some(class) = annotated.and_then(|annotated| annotated.output()) else { continue };
            samples.extend(beat.inputs.chunks_exact(INPUTS).map(|inputs| Sample {
                inputs,
                class,
                patient: number,
                is_rare: class != 0,
            }));
        }
    }
    samples
}

/// Normal beats of patients in a regular rhythm, with the rhythm of atrial fibrillation; and whose they are.
fn fibrillating(samples: &[Sample<'_>], rng: &mut ChaCha8Rng) -> Vec<(Vec<f32>, usize)> {
    let mut invented = Vec::new();
    for sample in samples.iter().filter(|sample| sample.class == 0) {
        if sample.inputs[FAR_STEPS] > IRREGULAR || rng.random::<f32>() >= FIBRILLATING {
            continue;
        }
        let (usual, deviation) = (rng.random_range(0.45..1.0_f32), rng.random_range(0.1..0.3_f32));
        let mut interval = || (usual * (deviation * normal(rng)).exp()).clamp(0.3, 2.5);
        let intervals: VecDeque<f32> = (0..LONG).map(|_| interval()).collect();
        let (before, after) = (interval(), interval());
        let mut inputs = rhythm(&intervals, before, after, sample.inputs[QUALITY]).to_vec();
        inputs.extend_from_slice(&sample.inputs[RHYTHM..]);
        invented.push((inputs, sample.patient));
    }
    invented
}

/// Near enough to a standard normal number: the sum of four uniform ones.
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    0.75_f32.sqrt() * (0..4).map(|_| rng.random_range(-1.0..1.0_f32)).sum::<f32>()
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
        kept.iter().filter(|sample| sample.is_rare || rng.random_range(0..NORMAL_SHARE) == 0).copied().collect();
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

/// What a sample of a class and patient weighs; about 1 in the mean.
struct Weights(std::collections::BTreeMap<(usize, usize), f32>);

impl Weights {
    fn of(samples: &[Sample<'_>]) -> Self {
        let mut counts = std::collections::BTreeMap::<(usize, usize), f32>::new();
        let mut classes = [0.0_f32; OUTPUTS];
        for sample in samples {
            *counts.entry((sample.class, sample.patient)).or_default() += 1.0;
            classes[sample.class] += 1.0;
        }
        let all = samples.len().max(1) as f32;
        // Within a class patients weigh by a power of how few beats they have, and the class keeps its weight.
        let mut spread = [0.0_f32; OUTPUTS];
        counts.iter().for_each(|((class, _), count)| spread[*class] += count.powf(1.0 - PATIENT_POWER));
        let mut weights: std::collections::BTreeMap<(usize, usize), f32> = counts
            .iter()
            .map(|((class, patient), count)| {
                let rarity = (all / classes[*class]).powf(CLASS_POWER);
                let weight = rarity * count.powf(-PATIENT_POWER) * classes[*class] / spread[*class];
                ((*class, *patient), weight)
            })
            .collect();
        let mean = counts.iter().map(|(key, count)| count * weights[key]).sum::<f32>() / all;
        weights.values_mut().for_each(|weight| *weight = (*weight / mean.max(1e-6)).min(MOST_WEIGHT));
        Self(weights)
    }

    fn get(&self, sample: &Sample<'_>) -> f32 {
        self.0.get(&(sample.class, sample.patient)).copied().unwrap_or(1.0)
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
        x.iter_mut().for_each(|value| *value += NOISE * normal(rng));
    }
    let mut targets = vec![0.0_f32; batch.len() * OUTPUTS];
    for (sample, row) in batch.iter().zip(targets.chunks_exact_mut(OUTPUTS)) {
        row[sample.class] = weights.get(sample);
    }
    let x = Tensor::from_vec(x, (batch.len(), INPUTS), &Device::Cpu)?;
    Ok((x, Tensor::from_vec(targets, (batch.len(), OUTPUTS), &Device::Cpu)?))
}

fn dropout(rows: usize, rng: &mut ChaCha8Rng) -> Result<Tensor, ModelError> {
    let kept = 1.0 / (1.0 - DROPOUT);
    let keep = (0..rows * HIDDEN).map(|_| if rng.random::<f32>() < DROPOUT { 0.0 } else { kept }).collect::<Vec<_>>();
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
    let patients = read_patients(data, MOST_LEADS, |_| {})?;
    let annotated: Vec<&Patient> = patients.iter().filter(|patient| patient.reference.is_some()).collect();
    if annotated.len() < 2 {
        let why = String::from("at least two records with annotations (.atr) are needed");
        return Err(ModelError::Data { path: data.to_owned(), why });
    }
    let (bytes, report) = train_ecg_network(&annotated, settings, progress)?;
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
            name: format!("PhysioNet, MIT-BIH Arrhythmia Database, {} records", annotated.len()),
            licence: String::from("ODC-By 1.0"),
        }],
    });
    card.metrics = Vec::new();
    card::write_folder(out, &card, &bytes)?;
    Ok(report)
}
