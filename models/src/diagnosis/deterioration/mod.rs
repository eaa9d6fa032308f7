//! How likely a patient's NEWS2 reaches 7 within the next four hours, from the last four hours of vital signs.
//!
//! ```text
//! x  [n, 39]            five signs now and as they were, oxygen, consciousness, the total and how it moved ([`history`])
//! z  = mlp(x)  [n, 1]   two hidden layers of 24 with ReLU (see [`crate::mlp`]); calibration is part of the weights
//! p  = sigmoid(z)
//! ```
//! Every ten minutes of event time, from an hour of history on, one pass of eight rows: the patient as is, and with one observation
//! made unremarkable. What that takes away from the log-odds is the observation's contribution.
//!
//! Score: the last forecast's probability. `deterioration_expected` is flagged from the card's threshold on, only while the total is below
//! [`URGENT_TOTAL`] (then `news2` speaks), once, and again when the probability fell below half the threshold or after [`HORIZON_HOURS`].
//! Never: a forecast from less than an hour of history, or of how the patient was more than an hour ago, when a monitor comes back. The network learnt from simulated patients alone, and every text says so.

pub mod history;

use std::collections::VecDeque;
use std::sync::Arc;

use candle_core::Device;
use nearside_schemas::{Contribution, FieldName, FieldSpec, ModelRef, Severity, Timestamp};

use self::history::{INPUTS, OMITTED, Snapshot, VitalHistory};
use super::news2::observations::{ALL, Observation, accepts, columns, read};
use crate::ModelError;
use crate::card::Card;
use crate::mlp::{Layout, Network};
use crate::row_model::{Row, RowModel, RowState, RowVerdict, Sighting};
use crate::snapshot::{Reader, Writer};

/// The name in the catalogue.
pub const NAME: &str = "deterioration";
/// How far ahead it looks.
pub const HORIZON_HOURS: i64 = 4;
/// The total that is forecast: the chart's emergency.
pub const URGENT_TOTAL: u32 = 7;
/// The network's widths.
pub const LAYOUT: Layout = Layout { model: NAME, inputs: INPUTS, hidden: 24, outputs: 1 };
/// Rows of one forecast: the patient, and without each observation.
pub const VARIANTS: usize = 1 + OMITTED.len();
const VERSION: u8 = 1;

/// The probability of a logit.
pub fn probability(logit: f32) -> f64 {
    1.0 / (1.0 + (-f64::from(logit)).exp())
}

/// When an alarm is given again: after the score fell below half the threshold, or four hours later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rearm {
    told: Option<i64>,
}

impl Rearm {
    /// Whether an alarm now would only say again what has held for [`HORIZON_HOURS`].
    fn reminds(&self, score: f64, threshold: f64) -> bool {
        self.told.is_some() && score >= threshold
    }

    /// Whether a score at an instant is an alarm.
    pub fn alarms(&mut self, at: Timestamp, score: f64, threshold: f64) -> bool {
        let at = at.as_micros();
        let is_old = self.told.is_some_and(|told| at.saturating_sub(told) >= HORIZON_HOURS * 3_600_000_000);
        if score < threshold / 2.0 || is_old {
            self.told = None;
        }
        let is_new = score >= threshold && self.told.is_none();
        if is_new {
            self.told = Some(at);
        }
        is_new
    }
}

/// The forecast as a row model.
pub struct Deterioration {
    reference: ModelRef,
    threshold: f64,
    network: Network,
}

impl Deterioration {
    /// With the version and threshold of the card; fails where the weights are not the network's.
    pub fn new(card: &Card, weights: &[u8]) -> Result<Self, ModelError> {
        let network = Network::load(LAYOUT, weights)?;
        Ok(Self { reference: card.reference(), threshold: card.threshold, network })
    }

    fn state(&self, fields: &[FieldSpec]) -> State {
        State {
            columns: columns(fields),
            threshold: self.threshold,
            history: VitalHistory::default(),
            score: 0.0,
            rearm: Rearm::default(),
            taken: VecDeque::new(),
        }
    }
}

impl RowModel for Deterioration {
    fn reference(&self) -> &ModelRef {
        &self.reference
    }

    fn accepts(&self, fields: &[FieldSpec]) -> Result<(), ModelError> {
        accepts(fields, &self.reference)
    }

    fn input_width(&self) -> usize {
        INPUTS
    }

    fn output_width(&self) -> usize {
        1
    }

    fn new_state(&self, fields: &[FieldSpec]) -> Box<dyn RowState> {
        Box::new(self.state(fields))
    }

    fn restore(&self, fields: &[FieldSpec], snapshot: &[u8]) -> Result<Box<dyn RowState>, ModelError> {
        let mut reader = Reader::new(NAME, VERSION, snapshot)?;
        let mut state = self.state(fields);
        state.history = VitalHistory::read(&mut reader)?;
        state.score = reader.f64()?;
        let is_told = reader.u8()? != 0;
        let told = reader.i64()?;
        state.rearm.told = is_told.then_some(told);
        reader.finish()?;
        Ok(Box::new(state))
    }

    fn on_device(&self, device: &Device) -> Result<Option<Arc<dyn RowModel>>, ModelError> {
        let network = self.network.on_device(device)?;
        let reference = self.reference.clone();
        Ok(Some(Arc::new(Self { reference, threshold: self.threshold, network })))
    }

    fn forward(&self, inputs: &[f32], rows: usize, outputs: &mut Vec<f32>) -> Result<(), ModelError> {
        self.network.forward(inputs, rows, outputs)
    }
}

struct State {
    columns: [Option<usize>; ALL],
    threshold: f64,
    history: VitalHistory,
    score: f64,
    rearm: Rearm,
    taken: VecDeque<Option<Box<Snapshot>>>,
}

impl State {
    fn sighting(&self, snapshot: &Snapshot, outputs: &[f32]) -> Sighting {
        let text = format!(
            "The course of the vital signs suggests that NEWS2 may reach {URGENT_TOTAL} within {HORIZON_HOURS} h; it is {} now. \
             By a network that learnt from simulated patients alone: suggests observations more often, and a clinician's judgement.",
            snapshot.total
        );
        Sighting {
            label: "deterioration_expected",
            begins: true,
            severity: Severity::Warning,
            score: self.score,
            contributions: contributions(snapshot, outputs),
            text,
        }
    }
}

/// What each observation adds to the log-odds, most first.
fn contributions(snapshot: &Snapshot, outputs: &[f32]) -> Vec<Contribution> {
    let Some((whole, without)) = outputs.split_first() else { return Vec::new() };
    let added: Vec<f64> = without.iter().map(|without| f64::from(whole - without)).collect();
    let sum: f64 = added.iter().filter(|added| **added > 0.0).sum();
    let part = |(observation, added): (&Observation, &f64)| {
        let (seen, before) = snapshot.seen(*observation)?;
        Some(Contribution {
            field: FieldName::new(observation.field()).ok()?,
            seen,
            expected: before,
            band: None,
            share: if sum > 0.0 { added.max(0.0) / sum } else { 0.0 },
            note: Some(format!("{added:+.2} to the log-odds; expected is what it was hours before")),
        })
    };
    let mut parts: Vec<Contribution> = OMITTED.iter().zip(&added).filter_map(part).collect();
    parts.sort_by(|a, b| b.share.total_cmp(&a.share));
    parts
}

impl RowState for State {
    fn take(&mut self, row: &Row<'_>, inputs: &mut Vec<f32>) -> usize {
        let snapshot = self.history.push(row.time, &read(&self.columns, row.values));
        if let Some(snapshot) = &snapshot {
            inputs.extend(snapshot.variants().iter().flatten());
        }
        let count = if snapshot.is_some() { VARIANTS } else { 0 };
        self.taken.push_back(snapshot.map(Box::new));
        count
    }

    fn judge(&mut self, outputs: &[f32]) -> RowVerdict {
        let mut verdict = RowVerdict { score: self.score, threshold: self.threshold, ..RowVerdict::default() };
        let Some(Some(snapshot)) = self.taken.pop_front() else { return verdict };
        let Some(logit) = outputs.first() else { return verdict };
        self.score = probability(*logit);
        verdict.score = self.score;
        let begins = !self.rearm.reminds(self.score, self.threshold);
        if snapshot.total < URGENT_TOTAL && self.rearm.alarms(snapshot.at, self.score, self.threshold) {
            verdict.sightings.push(Sighting { begins, ..self.sighting(&snapshot, outputs) });
            verdict.flagged = true;
        }
        verdict
    }

    fn skip(&mut self) {
        self.taken.pop_front();
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut writer = Writer::new(VERSION);
        self.history.write(&mut writer);
        writer.f64(self.score);
        writer.u8(u8::from(self.rearm.told.is_some()));
        writer.i64(self.rearm.told.unwrap_or(0));
        writer.finish()
    }
}

#[cfg(test)]
mod tests;
