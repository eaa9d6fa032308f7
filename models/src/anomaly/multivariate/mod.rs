//! Several fields of one device, judged together: is any of them not where its own past and the other fields put it?
//!
//! 1. [`watch`]: in the first rows (`warm_up_rows` on the card) a stream teaches what is usual for each field, at five time
//!    scales, and how the fields go together; later rows become distances in those units. All of it belongs to the stream.
//! 2. A small network (Candle, [`crate::mlp`]), the same for every stream and trained on simulated plants with simulated faults,
//!    turns a field's distances into the log odds that the field is at fault.
//! 3. The row's score is the probability that at least one field is, `1 − Π(1 − p)`, its log odds averaged over the last
//!    [`SMOOTHED`] rows. An alarm begins at the threshold and ends [`HYSTERESIS`] below it in log odds; between, the score is kept
//!    at the threshold.
//!
//! Labels: `level_shift`, `changed_variance`, `changed_relation`, by what the most suspicious field does when the alarm begins.
//! Contributions are the fields' shares of the suspicion, each with what was expected.
//!
//! Never: flags during the warm-up; judges a field that hardly ever changes (a state, a setting); uses a threshold of the
//! stream's own.

mod field;
mod relation;
pub mod watch;

use std::collections::VecDeque;
use std::sync::Arc;

use candle_core::Device;
use nearside_schemas::{Contribution, FieldKind, FieldName, FieldSpec, FieldValue, ModelRef, Severity};

use self::watch::{INPUTS, Taken, Watch};
use crate::ModelError;
use crate::card::Card;
use crate::mlp::{Layout, Network};
use crate::row_model::{Row, RowModel, RowState, RowVerdict, Sighting, raised_threshold};
use crate::snapshot::{Reader, Writer};

/// The name in the catalogue.
pub const NAME: &str = "multivariate";
/// The network's widths: one output, the log odds that the field is at fault.
pub const LAYOUT: Layout = Layout { model: NAME, inputs: INPUTS, hidden: 32, outputs: 1 };
/// Fewer numeric fields are for other models.
const LEAST_FIELDS: usize = 2;
/// More numeric fields are refused: the work of a row grows with the cube of them, the state with the square.
const MOST_FIELDS: usize = 32;
/// Rows that log odds are averaged over.
pub const SMOOTHED: f64 = 20.0;
/// How far below the threshold an alarm ends, in log odds.
pub const HYSTERESIS: f64 = 1.5;
/// Warm-ups outside of this are refused.
const WARM_UP: std::ops::RangeInclusive<u32> = 100..=100_000;
/// Log odds are cut here.
const MOST_ODDS: f64 = 15.0;
/// Fields with less of the suspicion are not listed.
const LEAST_SHARE: f64 = 0.05;
const VERSION: u8 = 1;

/// The detector as a row model.
pub struct Multivariate {
    reference: ModelRef,
    threshold: f64,
    warm_up: u32,
    network: Network,
}

impl Multivariate {
    /// With the card's version, threshold and warm-up; fails where the weights are not the network's.
    pub fn new(card: &Card, weights: &[u8]) -> Result<Self, ModelError> {
        let damaged = |why: &str| ModelError::Damaged { model: String::from(NAME), why: why.to_owned() };
        let warm_up = card.warm_up_rows.ok_or_else(|| damaged("the card has no warm_up_rows"))?;
        if !WARM_UP.contains(&warm_up) {
            return Err(damaged("warm_up_rows is not between 100 and 100000"));
        }
        let network = Network::load(LAYOUT, weights)?;
        Ok(Self { reference: card.reference(), threshold: card.threshold, warm_up, network })
    }

    fn state(&self, fields: &[FieldSpec]) -> State {
        let numeric = fields.iter().enumerate().filter(|(_, field)| field.kind == FieldKind::Number);
        let (columns, names): (Vec<usize>, Vec<FieldName>) =
            numeric.map(|(column, field)| (column, field.name.clone())).unzip();
        State {
            watch: Watch::new(columns.len(), self.warm_up),
            alarm: Alarm::new(columns.len(), self.threshold),
            columns,
            names,
            taken: VecDeque::new(),
        }
    }
}

impl RowModel for Multivariate {
    fn reference(&self) -> &ModelRef {
        &self.reference
    }

    fn accepts(&self, fields: &[FieldSpec]) -> Result<(), ModelError> {
        let count = fields.iter().filter(|field| field.kind == FieldKind::Number).count();
        if (LEAST_FIELDS..=MOST_FIELDS).contains(&count) {
            return Ok(());
        }
        let why = format!("it needs {LEAST_FIELDS} to {MOST_FIELDS} numeric fields and the stream has {count}");
        Err(ModelError::Unfit { model: self.reference.name.to_string(), why })
    }

    fn judges_patients(&self) -> bool {
        false
    }

    fn heeds_feedback(&self, _label: &str) -> bool {
        true
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
        let mut state = self.state(fields);
        let mut reader = Reader::new(NAME, VERSION, snapshot)?;
        if reader.count(u32::MAX as usize)? != state.names.len() {
            return Err(reader.damaged("the stream has other fields now"));
        }
        state.watch.read(&mut reader)?;
        state.alarm.read(&mut reader)?;
        reader.finish()?;
        Ok(Box::new(state))
    }

    fn on_device(&self, device: &Device) -> Result<Option<Arc<dyn RowModel>>, ModelError> {
        let network = self.network.on_device(device)?;
        let reference = self.reference.clone();
        Ok(Some(Arc::new(Self { reference, threshold: self.threshold, warm_up: self.warm_up, network })))
    }

    fn forward(&self, inputs: &[f32], rows: usize, outputs: &mut Vec<f32>) -> Result<(), ModelError> {
        self.network.forward(inputs, rows, outputs)
    }
}

/// One stream.
struct State {
    columns: Vec<usize>,
    names: Vec<FieldName>,
    watch: Watch,
    alarm: Alarm,
    taken: VecDeque<Vec<Taken>>,
}

impl RowState for State {
    fn take(&mut self, row: &Row<'_>, inputs: &mut Vec<f32>) -> usize {
        let values = self.columns.iter().map(|column| row.values.get(*column).and_then(FieldValue::number));
        let taken = self.watch.take(values, inputs);
        let count = taken.len();
        self.taken.push_back(taken);
        count
    }

    fn judge(&mut self, outputs: &[f32]) -> RowVerdict {
        let mut verdict = RowVerdict { threshold: self.alarm.threshold, ..RowVerdict::default() };
        let taken = self.taken.pop_front().unwrap_or_default();
        if taken.is_empty() || outputs.len() != taken.len() {
            return verdict;
        }
        verdict.score = self.alarm.judge(&taken, outputs);
        if let Some(label) = self.alarm.label {
            verdict.flagged = true;
            verdict.sightings.push(self.sighting(label, &taken, verdict.score));
        }
        verdict
    }

    fn raise_threshold(&mut self, field: Option<&FieldName>, steps: f64) {
        if field.is_none() {
            self.alarm.threshold = raised_threshold(self.alarm.of_card, steps);
        }
    }

    fn skip(&mut self) {
        self.taken.pop_front();
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut writer = Writer::new(VERSION);
        writer.u32(self.names.len() as u32);
        self.watch.write(&mut writer);
        self.alarm.write(&mut writer);
        writer.finish()
    }
}

impl State {
    fn sighting(&self, label: Label, taken: &[Taken], score: f64) -> Sighting {
        let share = |taken: &Taken| self.alarm.suspicion[taken.field];
        let sum: f64 = taken.iter().map(share).sum();
        let mut involved: Vec<(f64, &Taken)> =
            taken.iter().map(|taken| (share(taken) / sum.max(f64::MIN_POSITIVE), taken)).collect();
        involved.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let first = &self.names[involved[0].1.field];
        let listed = 1 + involved.iter().skip(1).filter(|(share, _)| *share >= LEAST_SHARE).count();
        let others = match listed - 1 {
            0 => String::from("the other fields are as usual"),
            1 => String::from("one other field is involved"),
            count => format!("{count} other fields are involved"),
        };
        let contributions = involved.into_iter().take(listed).map(|(share, taken)| Contribution {
            field: self.names[taken.field].clone(),
            seen: taken.value,
            expected: Some(taken.expected),
            band: Some((taken.expected - taken.margin, taken.expected + taken.margin)),
            share,
            note: Some(note(taken)),
        });
        Sighting {
            label: label.name(),
            severity: Severity::Warning,
            score,
            contributions: contributions.collect(),
            text: format!("{first} {}; {others}.", label.says()),
        }
    }
}

fn note(taken: &Taken) -> String {
    let Taken { distance, unexplained, roughness, .. } = taken;
    format!(
        "12-row mean {distance:+.1} usual deviations from its level, {unexplained:+.1} from what the other fields say; {roughness:.1} times as rough as usual"
    )
}

/// What the most suspicious field does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label {
    LevelShift,
    ChangedVariance,
    ChangedRelation,
}

impl Label {
    const ALL: [Self; 3] = [Self::LevelShift, Self::ChangedVariance, Self::ChangedRelation];

    fn of(taken: &Taken) -> Self {
        let Taken { distance, unexplained, roughness, .. } = taken;
        // Twice as rough or half as rough, and no farther than the scatter explains.
        let explained = 2.0 * roughness.max(1.0);
        if roughness.ln().abs() > 0.7 && distance.abs() < explained && unexplained.abs() < explained {
            Self::ChangedVariance
        } else if unexplained.abs() > 1.5 * distance.abs() {
            Self::ChangedRelation
        } else {
            Self::LevelShift
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::LevelShift => "level_shift",
            Self::ChangedVariance => "changed_variance",
            Self::ChangedRelation => "changed_relation",
        }
    }

    const fn says(self) -> &'static str {
        match self {
            Self::LevelShift => "leaves its usual level",
            Self::ChangedVariance => "scatters differently than usual",
            Self::ChangedRelation => "no longer goes with the other fields as it used to",
        }
    }
}

/// From the fields' log odds to one alarm an incident.
#[derive(Clone, Debug, PartialEq)]
struct Alarm {
    of_card: f64,
    /// The card's, or raised by feedback.
    threshold: f64,
    /// Log odds of a row, averaged; `None` before the first.
    odds: Option<f64>,
    /// `−ln(1 − p)` of each field, averaged.
    suspicion: Vec<f64>,
    /// What the alarm that goes on was raised for.
    label: Option<Label>,
}

impl Alarm {
    fn new(fields: usize, threshold: f64) -> Self {
        Self { of_card: threshold, threshold, odds: None, suspicion: vec![0.0; fields], label: None }
    }

    /// The row's score; afterwards `label` says whether it is flagged and as what.
    fn judge(&mut self, taken: &[Taken], outputs: &[f32]) -> f64 {
        let mut sum = 0.0;
        for (taken, output) in taken.iter().zip(outputs) {
            let suspicion = f64::from(*output).clamp(-MOST_ODDS, MOST_ODDS).exp().ln_1p();
            self.suspicion[taken.field] += (suspicion - self.suspicion[taken.field]) / SMOOTHED;
            sum += suspicion;
        }
        // 1 − Π(1 − p) as log odds.
        let row = sum.exp_m1().ln().clamp(-MOST_ODDS, MOST_ODDS);
        let odds = self.odds.map_or(row, |odds| odds + (row - odds) / SMOOTHED);
        self.odds = Some(odds);
        let begins_at = (self.threshold / (1.0 - self.threshold)).ln();
        let score = 1.0 / (1.0 + (-odds).exp());
        match self.label {
            None if odds >= begins_at => {
                let first = taken.iter().max_by(|a, b| self.suspicion[a.field].total_cmp(&self.suspicion[b.field]));
                self.label = first.map(Label::of);
                score.max(self.threshold)
            }
            None => score.min(self.of_card.next_down()),
            Some(_) if odds < begins_at - HYSTERESIS => {
                self.label = None;
                score
            }
            Some(_) => score.max(self.threshold),
        }
    }

    fn write(&self, writer: &mut Writer) {
        writer.u8(u8::from(self.odds.is_some()));
        writer.f64(self.odds.unwrap_or(0.0));
        writer.u8(self.label.map_or(0, |label| 1 + label as u8));
        self.suspicion.iter().for_each(|suspicion| writer.f64(*suspicion));
    }

    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), ModelError> {
        let is_known = reader.u8()? == 1;
        self.odds = Some(reader.f64()?).filter(|_| is_known);
        let label = usize::from(reader.u8()?);
        self.label = label.checked_sub(1).and_then(|label| Label::ALL.get(label).copied());
        if label > Label::ALL.len() {
            return Err(reader.damaged("a label is out of range"));
        }
        for suspicion in &mut self.suspicion {
            *suspicion = reader.f64()?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
