//! How good a model is, by its task's own measure: on a benchmark's folder where one is given, else by its loss on samples held back.

use std::path::Path;

use serde::Serialize;

use crate::ModelError;
use crate::anomaly::{forecaster, multivariate};
use crate::card::Card;
use crate::catalog;
use crate::diagnosis::{ecg, glucose_forecast};
use crate::eval::ecg::{EcgOutcome, classify};
use crate::eval::{anomaly, cgm, ecg_data, nab_data, skab, table};
use crate::mlp::Network;
use crate::train::Lesson;

/// Seconds at the start of a record that are not scored: the learning period of ANSI/AAMI EC57.
const ECG_LEARNING_S: f64 = 300.0;

/// A measured figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Accuracy {
    /// What is measured.
    pub metric: &'static str,
    /// The figure.
    pub value: f64,
    /// Whether more is better.
    pub more_is_better: bool,
    /// On what.
    pub on: String,
}

/// Measures a model of card and weights (safetensors of 32-bit floats).
pub fn accuracy(card: &Card, weights: &[u8], data: Option<&Path>, seed: u64) -> Result<Accuracy, ModelError> {
    let done = |metric, value, more_is_better, on: String| Ok(Accuracy { metric, value, more_is_better, on });
    match (card.method(), data) {
        (forecaster::NAME, Some(data)) => {
            let corpus = nab_data::read_folder(data)?.series;
            let model = catalog::build(Card { sha256: None, ..card.clone() }, weights)?;
            let score = anomaly::at_threshold(model.as_ref(), &corpus, card.threshold)?;
            done("NAB score", score, true, format!("{} files, the card's threshold", corpus.len()))
        }
        (multivariate::NAME, Some(data)) => {
            let model = catalog::build(Card { sha256: None, ..card.clone() }, weights)?;
            let (mut total, mut files) = (skab::Counts::default(), 0);
            for path in &table::csv_files(data)?.files {
                let Some(run) = skab::read_run(data, path).ok().and_then(|run| run.for_model(model.as_ref())) else {
                    continue;
                };
                let said = skab::judge(model.as_ref(), &run)?;
                total = run.labels.as_ref().map_or(total, |labels| total.plus(skab::Counts::of(&said, labels)));
                files += 1;
            }
            done("F1 in points", 100.0 * total.f1(), true, format!("{files} files, rows after the first 400"))
        }
        (glucose_forecast::NAME, Some(data)) => {
            let network = Network::load(glucose_forecast::LAYOUT, weights)?;
            let subjects = cgm::read_folder(data, cgm::Unit::MgDl)?.subjects;
            let mut errors = cgm::Errors::default();
            for subject in &subjects {
                let made = glucose_forecast::forecasts(&network, &subject.readings)?;
                errors = errors.plus(cgm::Errors::of(subject, &made));
            }
            let on = format!("{} subjects, 30 minutes ahead", subjects.len());
            let accuracy = errors.accuracy().ok_or_else(|| cgm::too_short(data))?;
            done("RMSE, mg/dL", accuracy.rmse, false, on)
        }
        (ecg::NAME, Some(data)) => {
            let network = ecg::network::Network::load(weights)?;
            let (patients, _) = ecg_data::read_patients(data, 2, |_| ())?;
            let mut outcome = EcgOutcome::default();
            for patient in &patients {
                outcome.add(patient, &classify(&network, &patient.found)?, ECG_LEARNING_S);
            }
            let on = format!(
                "{} records without their first {:.0} minutes, which it may have been trained on",
                patients.len(),
                ECG_LEARNING_S / 60.0
            );
            done("mean F1 of N, S and V in points", 100.0 * outcome.mean_f1().0, true, on)
        }
        (method, data) => {
            let lesson = Lesson::of(method, data, seed)?;
            let on = format!("{} samples held back, seed {seed}", lesson.held_back_len());
            done("loss", f64::from(lesson.held_back_loss(weights)?), false, on)
        }
    }
}
