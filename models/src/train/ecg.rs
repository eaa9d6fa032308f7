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

use std::path::Path;

use candle_core::{Device, Tensor};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::checkpoint::{Checkpoint, Generator, numbered};
use super::ecg_member::{InTraining, Lessons, Origin, Sample, Standing, digest};
use super::ecg_rhythms::{fibrillating, premature};
use super::{Epoch, TrainReport};
use crate::ModelError;
use crate::card::{self, Training, TrainingData};
use crate::catalog;
use crate::diagnosis::ecg::beats::INPUTS;
use crate::diagnosis::ecg::class::{BeatClass, CLASSES};
use crate::diagnosis::ecg::network::{MEMBERS, Member, Network, OUTPUTS, Scaling, can_be_early, shares, to_bytes};
use crate::diagnosis::ecg::{MOST_LEADS, NAME};
use crate::eval::SetAside;
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

/// In fibrillation one normal beat in so many is a sample.
const FIBRILLATING_SHARE: usize = 8;
/// Factors of S and V that are tried.
const PRIORS: [f32; 12] = [1.0, 0.85, 0.7, 0.6, 0.5, 0.42, 0.35, 0.3, 0.25, 0.2, 0.16, 0.12];
/// The sensitivity for V that no choice may fall below, and how far below the most of any it may be where none reaches that.
const LEAST_V_SENSITIVITY: f64 = 0.91;
const LEAST_V_MARGIN: f64 = 0.01;
/// The version of the method; the weights' digest follows it.
const METHOD: &str = "4";

/// A patient to learn from.
#[derive(Clone, Debug)]
pub struct Learner {
    /// What was recorded.
    pub patient: Patient,
    /// The same with early beats, and as if the atria fibrillated.
    made: [Patient; 2],
}

impl Learner {
    /// Reads all annotated records of a folder; gives besides what was set aside. The seed is that of the rhythms that are made.
    pub fn read(
        folder: &Path,
        leads: usize,
        seed: u64,
        progress: impl FnMut(&str),
    ) -> Result<(Vec<Self>, Vec<SetAside>), ModelError> {
        let mut learners = Vec::new();
        let mut stream = 0;
        let set_aside = each_record(folder, progress, |record| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(stream);
            stream += 1;
            if record.annotations.is_some() {
                let made = [premature(record, &mut rng), fibrillating(record, &mut rng)];
                let made = made.map(|made| Patient::of(&made, leads));
                learners.push(Self { patient: Patient::of(record, leads), made });
            }
        })?;
        Ok((learners, set_aside))
    }
}

/// The training of the ensemble between two passes.
struct Course {
    /// The members that are trained, each with its best pass.
    members: Vec<(Member, Epoch)>,
    /// The one at hand.
    at_hand: Option<InTraining>,
    /// The passes of all members.
    passes: Vec<Epoch>,
    rng: ChaCha8Rng,
}

/// What is written of it beside its tensors.
#[derive(Serialize, Deserialize)]
struct State {
    finished: Vec<Epoch>,
    at_hand: Standing,
    passes: Vec<Epoch>,
    generator: Generator,
}

impl Course {
    /// Goes on from what was kept; `None` where nothing was.
    fn restore(checkpoint: &Checkpoint, task: &str) -> Result<Option<Self>, ModelError> {
        let Some((state, kept)) = checkpoint.read::<State>(task)? else { return Ok(None) };
        let damaged = || checkpoint.damaged();
        let mut members = Vec::with_capacity(MEMBERS);
        for (number, best) in state.finished.into_iter().enumerate() {
            let member = Member::new(&mut ChaCha8Rng::seed_from_u64(0))?;
            let tensors = kept.group(&group_of(number), member.vars().len()).ok_or_else(damaged)?;
            for (var, tensor) in member.vars().iter().zip(&tensors) {
                var.set(tensor).map_err(|_| damaged())?;
            }
            members.push((member, best));
        }
        let at_hand = Some(InTraining::restore(&state.at_hand, &kept)?.ok_or_else(damaged)?);
        let rng = state.generator.restored().ok_or_else(damaged)?;
        Ok(Some(Self { members, at_hand, passes: state.passes, rng }))
    }

    /// Keeps it after a pass of the member at hand.
    fn save(&self, at_hand: &InTraining, checkpoint: &Checkpoint, task: &str) -> Result<(), ModelError> {
        let (standing, mut tensors) = at_hand.parts()?;
        for (number, (member, _)) in self.members.iter().enumerate() {
            let weights = member.vars().iter().map(|var| var.as_tensor().clone()).collect();
            tensors.extend(numbered(&group_of(number), weights));
        }
        let finished = self.members.iter().map(|(_, best)| *best).collect();
        let generator = Generator::of(&self.rng);
        checkpoint.write(task, State { finished, at_hand: standing, passes: self.passes.clone(), generator }, tensors)
    }
}

fn group_of(member: usize) -> String {
    format!("member{member}")
}

/// Who is held back from which member.
struct Folds(Vec<usize>);

impl Folds {
    fn is_out(&self, patient: usize, member: usize) -> bool {
        self.0.iter().position(|one| *one == patient).is_some_and(|at| at % MEMBERS == member)
    }

    /// What a member learns from, and what is held back from it.
    fn part<'a>(&self, samples: &[Sample<'a>], member: usize) -> (Vec<Sample<'a>>, Vec<Sample<'a>>) {
        let (mut held_back, kept): (Vec<Sample<'_>>, Vec<Sample<'_>>) =
            samples.iter().partition(|sample| self.is_out(sample.patient, member));
        held_back.retain(|sample| sample.origin == Origin::Recorded);
        (kept, held_back)
    }
}

/// Trains the ensemble; gives the weights file's bytes and the passes of all members. With a checkpoint it can be stopped and gone on
/// with.
pub fn train_ecg_network(
    learners: &[&Learner],
    settings: TrainEcg,
    checkpoint: Option<&Checkpoint>,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<(Vec<u8>, TrainReport), ModelError> {
    let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
    let samples = samples(learners);
    let recorded = samples.iter().filter(|sample| sample.origin == Origin::Recorded);
    let scaling = Scaling::of(&recorded.map(|sample| sample.inputs).collect::<Vec<_>>());
    let mut order: Vec<usize> = (0..learners.len()).collect();
    order.shuffle(&mut rng);
    let folds = Folds(order);
    let task = format!("ecg {METHOD} {settings:?} {}", digest(&samples));
    let restored = checkpoint.map_or(Ok(None), |checkpoint| Course::restore(checkpoint, &task))?;
    let mut course = restored.unwrap_or(Course { members: Vec::new(), at_hand: None, passes: Vec::new(), rng });
    course.passes.iter().for_each(&mut *progress);
    while course.members.len() < MEMBERS {
        let number = course.members.len();
        let (kept, held_back) = folds.part(&samples, number);
        let lessons = Lessons::new(kept, held_back, &scaling, settings.epochs);
        let mut member = match course.at_hand.take() {
            Some(member) => member,
            None => InTraining::new(&lessons, &mut course.rng)?,
        };
        while !member.is_over(&lessons) {
            let pass = member.pass(&lessons, &mut course.rng)?;
            let (before, epochs) = (number * settings.epochs, MEMBERS * settings.epochs);
            let shown = Epoch { epoch: before + pass.epoch, epochs, ..pass };
            progress(&shown);
            course.passes.push(shown);
            if let Some(checkpoint) = checkpoint {
                course.save(&member, checkpoint, &task)?;
            }
        }
        course.members.push(member.finish(settings.epochs)?);
    }
    ensemble(course, learners, &samples, &scaling, &folds)
}

/// The trained members as a weights file, with the prior that suits patients whom a member has not seen.
fn ensemble(
    course: Course,
    learners: &[&Learner],
    samples: &[Sample<'_>],
    scaling: &Scaling,
    folds: &Folds,
) -> Result<(Vec<u8>, TrainReport), ModelError> {
    let mut report = TrainReport { samples: samples.len(), epochs: course.passes, ..TrainReport::default() };
    let mut judged = Vec::new();
    let mut members = Vec::with_capacity(MEMBERS);
    for (number, (member, best)) in course.members.into_iter().enumerate() {
        for (_, learner) in learners.iter().enumerate().filter(|(patient, _)| folds.is_out(*patient, number)) {
            judge(&member, &learner.patient, scaling, &mut judged)?;
        }
        members.push(member);
        report.held_back += folds.part(samples, number).1.len();
        report.best_epoch = report.best_epoch.max(best.epoch);
        report.held_back_loss += best.held_back_loss / MEMBERS as f32;
    }
    let bytes = to_bytes(scaling, &members, &prior(&judged))?;
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

/// An annotated beat as a member judges it that has not seen the patient.
#[derive(Clone, Copy)]
struct Judged {
    class: usize,
    probabilities: [f32; OUTPUTS],
    can_be_early: bool,
}

/// Classes and probabilities of the beats of a patient that this member has not seen.
fn judge(member: &Member, patient: &Patient, scaling: &Scaling, judged: &mut Vec<Judged>) -> Result<(), ModelError> {
    for (inputs, class) in labelled(patient) {
        let leads = inputs.len() / INPUTS;
        let mut x = Vec::with_capacity(inputs.len());
        inputs.chunks_exact(INPUTS).for_each(|lead| scaling.apply(lead, &mut x));
        let rows = member.probabilities(&Tensor::from_vec(x, (leads, INPUTS), &Device::Cpu)?)?;
        let mean = std::array::from_fn(|class| rows.iter().map(|row| row[class]).sum::<f32>() / leads.max(1) as f32);
        judged.push(Judged { class, probabilities: mean, can_be_early: can_be_early(inputs) });
    }
    Ok(())
}

/// The prior with the best mean F1 of those that find enough of V; where none does, of those that find most of it.
fn prior(judged: &[Judged]) -> [f32; OUTPUTS] {
    let priors = PRIORS.iter().flat_map(|s| PRIORS.map(|v| [1.0, *s, v, 1.0]));
    let tried: Vec<([f32; OUTPUTS], EcgOutcome)> = priors.map(|prior| (prior, outcome(judged, &prior))).collect();
    let v_sensitivity = |outcome: &EcgOutcome| outcome.classes()[2].sensitivity;
    let most = tried.iter().map(|(_, outcome)| v_sensitivity(outcome)).fold(0.0, f64::max);
    let enough = LEAST_V_SENSITIVITY.min(most - LEAST_V_MARGIN);
    let eligible = tried.iter().filter(|(_, outcome)| v_sensitivity(outcome) >= enough);
    // Of equal ones the last is taken: it is the one nearest to none at all.
    let best = eligible.rev().max_by(|(_, a), (_, b)| a.mean_f1().0.total_cmp(&b.mean_f1().0));
    best.map_or([1.0; OUTPUTS], |(prior, _)| *prior)
}

/// What a prior makes of the probabilities of annotated beats.
fn outcome(judged: &[Judged], prior: &[f32; OUTPUTS]) -> EcgOutcome {
    let mut outcome = EcgOutcome::default();
    for Judged { class, probabilities, can_be_early } in judged {
        let shares = shares(probabilities, prior, *can_be_early);
        let said = (0..OUTPUTS).max_by(|a, b| shares[*a].total_cmp(&shares[*b])).unwrap_or(0);
        outcome.confusion[*class][said] += 1;
    }
    outcome
}

/// Trains the network on a folder of annotated records and writes its folder. With `resume` it goes on from what an earlier training left
/// there.
pub fn train_ecg(
    data: &Path,
    out: &Path,
    settings: TrainEcg,
    resume: bool,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<TrainReport, ModelError> {
    let (learners, set_aside) = Learner::read(data, MOST_LEADS, settings.seed, |_| {})?;
    if learners.len() < 2 {
        let first = set_aside.first().map(|one| format!("; {one}")).unwrap_or_default();
        let why = format!("at least two records with annotations (.atr) are needed{first}");
        return Err(ModelError::Data { path: data.to_owned(), why });
    }
    let all: Vec<&Learner> = learners.iter().collect();
    let checkpoint = Checkpoint::new(out, resume);
    let (bytes, mut report) = train_ecg_network(&all, settings, Some(&checkpoint), progress)?;
    report.set_aside = set_aside;
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
    checkpoint.remove()?;
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    use crate::diagnosis::ecg::beats::Beat;
    use crate::eval::ecg_data::Reference;

    /// Somebody with normal and ventricular beats, which their first input tells apart.
    fn learner(number: u64) -> Learner {
        let mut rng = ChaCha8Rng::seed_from_u64(number);
        let mut patient = |name: &str| {
            let class = |beat: usize| if beat.is_multiple_of(5) { BeatClass::Ventricular } else { BeatClass::Normal };
            let mut inputs = |beat: usize| {
                let noise = (0..INPUTS).map(|_| rng.random_range(-1.0_f32..1.0)).collect::<Vec<_>>();
                noise
                    .into_iter()
                    .enumerate()
                    .map(|(at, x)| if at == 0 && beat.is_multiple_of(5) { x + 3.0 } else { x })
                    .collect()
            };
            let beat = |(beat, inputs): (usize, Vec<f32>)| Beat {
                at: beat as f64,
                interval: None,
                usual_interval: 1.0,
                quality: 1.0,
                is_whole: true,
                amplitude: 1.0,
                inputs,
            };
            let found = (0..60).map(|at| beat((at, inputs(at)))).collect();
            let reference =
                Reference { beats: (0..60).map(|at| (at as f64, class(at))).collect(), flutter: Vec::new() };
            Patient { name: name.to_owned(), seconds: 60.0, found, reference: Some(reference) }
        };
        Learner { patient: patient("recorded"), made: [patient("early"), patient("fibrillating")] }
    }

    /// Trains, stopped by a panic after `stop` passes as by a power cut.
    fn train(out: &Path, resume: bool, seed: u64, stop: Option<usize>) -> Option<(Vec<u8>, TrainReport)> {
        let learners: Vec<Learner> = (0..6).map(learner).collect();
        let learners: Vec<&Learner> = learners.iter().collect();
        let mut passes = 0;
        let mut progress = |_: &Epoch| {
            passes += 1;
            if stop == Some(passes) {
                std::panic::resume_unwind(Box::new("stopped"));
            }
        };
        let checkpoint = Checkpoint::new(out, resume);
        let run = || train_ecg_network(&learners, TrainEcg { seed, epochs: 2 }, Some(&checkpoint), &mut progress);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).ok()?.ok()
    }

    /// In the middle of the third member, and again in the fifth.
    #[test]
    fn a_training_that_was_stopped_ends_as_if_it_had_not_been() {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let whole = train(folders[0].path(), false, 1, None).unwrap();
        assert_eq!(train(folders[1].path(), false, 1, Some(6)), None);
        assert_eq!(train(folders[1].path(), true, 1, Some(10)), None);
        let resumed = train(folders[1].path(), true, 1, None).unwrap();
        assert_eq!(resumed, whole);
        assert_eq!(whole.1.epochs.len(), 2 * MEMBERS);
        assert_eq!(train(folders[1].path(), true, 2, None), None, "what is kept is of another training");
    }

    /// Beats that could all be early ones.
    fn early(beats: Vec<(usize, [f32; OUTPUTS])>) -> Vec<Judged> {
        let judged = |(class, probabilities)| Judged { class, probabilities, can_be_early: true };
        beats.into_iter().map(judged).collect()
    }

    #[test]
    fn the_prior_is_against_a_class_that_is_often_wrong() {
        let normal = [(0, [0.9, 0.05, 0.04, 0.01]), (0, [0.45, 0.5, 0.04, 0.01])].repeat(50);
        let others = [(1, [0.2, 0.75, 0.04, 0.01]), (2, [0.3, 0.1, 0.55, 0.05])].repeat(10);
        let chosen = prior(&early([normal, others].concat()));
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
        let chosen = prior(&early([normal, found, doubtful, never].concat()));
        assert!(chosen[2] > 0.86, "{chosen:?}");
    }
}
