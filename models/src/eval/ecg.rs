//! How good beats are found and classed: ANSI/AAMI EC57 beat by beat, with what was missed and what was too much counted against us.
//!
//! Sensitivity, precision (positive predictivity) and F1 of each class are of all patients together. An annotated beat that was not found is
//! a miss of its class; a beat found where there is none is a false one of the class it was given. Beats annotated Q are counted
//! for finding and left out of the classes. Judged is what the network says of every beat, uncertain ones and those at a record's edges too,
//! which no finding is made of. With a learning period, EC57's first five minutes, what lies in it is not counted.
//! Promise of [`leave_patients_out`]: no patient is judged by a network that has seen another beat of the same patient.

use serde::Serialize;

use super::ecg_data::Patient;
use crate::ModelError;
use crate::diagnosis::ecg::class::{BeatClass, CLASSES};
use crate::diagnosis::ecg::network::{Network, OUTPUTS};
use crate::diagnosis::ecg::{beats::Beat, decide};
use crate::train::{Epoch, Learner, TrainEcg, train_ecg_network};

/// Rows of the confusion matrix: the classes, Q, and beats that are none. Columns: what was said, and not found.
pub const ROWS: usize = 6;
/// Row of beats that are none; column of beats that were not found.
const NONE: usize = ROWS - 1;

/// What was found in some recordings.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct EcgOutcome {
    /// Annotated beats that were found.
    pub found: u64,
    /// Annotated beats that were not.
    pub missed: u64,
    /// Found beats that are none.
    pub extra: u64,
    /// Annotated N, S, V, F, Q, none (down) against what was said N, S, V, F, Q, not found (across).
    pub confusion: [[u64; ROWS]; ROWS],
}

/// How good one class is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ClassScore {
    /// The class.
    pub class: char,
    /// Annotated beats.
    pub beats: u64,
    /// Share of them that was found and classed so.
    pub sensitivity: f64,
    /// Share of what was classed so that is.
    pub precision: f64,
    /// Their harmonic mean.
    pub f1: f64,
}

impl EcgOutcome {
    /// Counts a patient whose found beats were classed so; beats before `from` seconds are not counted. Nothing where nothing
    /// is annotated.
    pub fn add(&mut self, patient: &Patient, classes: &[BeatClass], from: f64) {
        let Some(matching) = patient.matching() else { return };
        let row = |class: BeatClass| class.output().unwrap_or(CLASSES.len());
        for (index, (beat, class)) in patient.found.iter().zip(classes).enumerate() {
            match matching.found[index] {
                _ if beat.at < from => {}
                Some(annotated) => {
                    self.found += 1;
                    self.confusion[row(annotated)][row(*class)] += 1;
                }
                None if matching.in_flutter[index] => {}
                None => {
                    self.extra += 1;
                    self.confusion[NONE][row(*class)] += 1;
                }
            }
        }
        for (_, class) in matching.missed.iter().filter(|(at, _)| *at >= from) {
            self.missed += 1;
            self.confusion[row(*class)][NONE] += 1;
        }
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Self) {
        self.found += other.found;
        self.missed += other.missed;
        self.extra += other.extra;
        let both = self.confusion.iter_mut().flatten().zip(other.confusion.iter().flatten());
        both.for_each(|(count, more)| *count += more);
    }

    /// Share of annotated beats that were found.
    pub fn qrs_sensitivity(&self) -> f64 {
        share(self.found, self.found + self.missed)
    }

    /// Share of found beats that are one.
    pub fn qrs_precision(&self) -> f64 {
        share(self.found, self.found + self.extra)
    }

    /// Each class of [`CLASSES`].
    pub fn classes(&self) -> Vec<ClassScore> {
        let score = |index: usize| {
            let hit = self.confusion[index][index];
            let beats: u64 = self.confusion[index].iter().sum();
            // Unclassifiable beats are held against no class.
            let said: u64 = (0..ROWS).filter(|row| *row != CLASSES.len()).map(|row| self.confusion[row][index]).sum();
            let (sensitivity, precision) = (share(hit, beats), share(hit, said));
            let sum = sensitivity + precision;
            let f1 = if sum > 0.0 { 2.0 * sensitivity * precision / sum } else { 0.0 };
            ClassScore { class: CLASSES[index].letter(), beats, sensitivity, precision, f1 }
        };
        (0..CLASSES.len()).map(score).collect()
    }

    /// The mean of the F1 of N, S and V, of those that are annotated; with their letters.
    pub fn mean_f1(&self) -> (f64, String) {
        let classes = self.classes();
        let annotated: Vec<&ClassScore> = classes.iter().take(3).filter(|class| class.beats > 0).collect();
        let mean = annotated.iter().map(|class| class.f1).sum::<f64>() / annotated.len().max(1) as f64;
        (mean, annotated.iter().map(|class| class.class).collect())
    }
}

fn share(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}

/// Classes the beats of a patient.
pub fn classify(network: &Network, beats: &[Beat]) -> Result<Vec<BeatClass>, ModelError> {
    let mut outputs = Vec::new();
    let mut classes = Vec::with_capacity(beats.len());
    for beat in beats {
        network.forward(&beat.inputs, beat.leads(), &mut outputs)?;
        debug_assert_eq!(outputs.len(), beat.leads() * OUTPUTS);
        classes.push(decide(&outputs).0);
    }
    Ok(classes)
}

/// Classes each patient with a network trained on the others: `folds` times a share of the patients is left out. Gives the classes in the
/// order of the patients.
pub fn leave_patients_out(
    learners: &[Learner],
    folds: usize,
    settings: TrainEcg,
    progress: &mut dyn FnMut(usize, &Epoch),
) -> Result<Vec<Vec<BeatClass>>, ModelError> {
    let folds = folds.clamp(2, learners.len().max(2));
    let mut classes = vec![Vec::new(); learners.len()];
    for fold in 0..folds {
        let is_left_out = |index: usize| index % folds == fold;
        let others = learners.iter().enumerate().filter(|(index, _)| !is_left_out(*index));
        let others: Vec<&Learner> = others.map(|(_, learner)| learner).collect();
        let (bytes, _) = train_ecg_network(&others, settings, None, &mut |epoch| progress(fold, epoch))?;
        let network = Network::load(&bytes)?;
        for (index, learner) in learners.iter().enumerate().filter(|(index, _)| is_left_out(*index)) {
            classes[index] = classify(&network, &learner.patient.found)?;
        }
    }
    Ok(classes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::ecg::class::BeatClass::{Normal, Supraventricular, Ventricular};
    use crate::eval::ecg_data::Reference;

    #[test]
    fn what_is_missed_and_what_is_too_much_counts_against_us() {
        let beat = |at: f64| Beat {
            at,
            interval: None,
            usual_interval: 1.0,
            quality: 1.0,
            is_whole: true,
            amplitude: 1.0,
            inputs: Vec::new(),
        };
        let reference = vec![(1.0, Normal), (2.0, Ventricular), (3.0, Ventricular), (4.0, BeatClass::Unknown)];
        let patient = Patient {
            name: String::from("p"),
            seconds: 5.0,
            found: [1.0, 2.0, 2.5, 4.0].map(beat).into(),
            reference: Some(Reference { beats: reference, flutter: Vec::new() }),
        };
        let mut outcome = EcgOutcome::default();
        outcome.add(&patient, &[Normal, Ventricular, Ventricular, Supraventricular], 0.0);
        assert_eq!((outcome.found, outcome.missed, outcome.extra), (3, 1, 1));
        let classes = outcome.classes();
        assert_eq!((classes[2].sensitivity, classes[2].precision, classes[2].f1), (0.5, 0.5, 0.5));
        assert_eq!(classes[1].precision, 0.0, "nothing is held against S for a beat that cannot be classed");
        assert_eq!(outcome.mean_f1(), (0.75, String::from("NV")), "no S is annotated");
        let mut later = EcgOutcome::default();
        later.add(&patient, &[Normal, Ventricular, Ventricular, Supraventricular], 2.2);
        assert_eq!((later.found, later.missed, later.extra), (1, 1, 1));
    }
}
