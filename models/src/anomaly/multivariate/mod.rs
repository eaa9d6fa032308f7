//! Several fields of one device, judged together: is any of them not where its own past and the other fields put it?
//!
//! 1. [`watch`]: in the first rows (`warm_up_rows` on the card) a stream teaches what is usual for each field, at five time
//!    scales, and how the fields go together; later rows become distances in those units. All of it belongs to the stream.
//! 2. A small network (Candle, [`crate::mlp`]), the same for every stream and trained on simulated plants with simulated faults,
//!    turns a field's distances into the log odds that the field is at fault.
//! 3. The row's score is the probability that at least one field is, `1 − Π(1 − p)`, its log odds averaged over the last
//!    [`SMOOTHED`] rows. An alarm begins at the threshold and ends [`HYSTERESIS`] below it in log odds; between, the score is kept
//!    at the threshold.
//!    A value that leaps goes into the network's averages cut to what is no leap.
//! 4. Beside the network, [`evidence`] of what a person sees at once, from the rows alone: a value that leaps, a relation that breaks, a
//!    field that slowly leaves the others.
//!
//! Labels: `level_shift`, `changed_variance`, `changed_relation`, by what the most suspicious field does when the network's alarm begins;
//! `spike` and `drop` on the one row that leaps; `changed_relation` and `drift` while a relation is not whole, in place of what the network
//! says. Contributions are the fields' shares of the suspicion, each with what was expected.
//!
//! Never: flags during the warm-up; judges a field that hardly ever changes (a state, a setting); uses a threshold of the
//! stream's own.

mod alarm;
mod evidence;
mod field;
mod relation;
mod residual;
mod trace;
pub mod watch;

use std::collections::VecDeque;
use std::sync::Arc;

use candle_core::Device;
use nearside_schemas::{Contribution, FieldKind, FieldName, FieldSpec, FieldValue, ModelRef, Severity};

use self::alarm::{Alarm, Label};
pub use self::alarm::{HYSTERESIS, SMOOTHED};
use self::evidence::{Evidence, Part, Seen};
use self::trace::Leap;
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
/// Warm-ups outside of this are refused.
const WARM_UP: std::ops::RangeInclusive<u32> = 100..=100_000;
/// Fields with less of the suspicion are not listed.
const LEAST_SHARE: f64 = 0.05;
/// Of a snapshot; version 1 knew nothing of evidence beside the network's, which is then learnt anew, version 2 kept the last
/// values as differences, and version 3 did not know what was over.
const VERSION: u8 = 4;

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
            evidence: Evidence::new(columns.len(), self.warm_up),
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
        let (mut reader, version) = Reader::of_versions(NAME, 1..=VERSION, snapshot)?;
        if reader.count(u32::MAX as usize)? != state.names.len() {
            return Err(reader.damaged("the stream has other fields now"));
        }
        state.watch.read(&mut reader)?;
        state.alarm.read(&mut reader, version)?;
        if version >= 2 {
            state.evidence.read(&mut reader, version)?;
        }
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
    evidence: Evidence,
    alarm: Alarm,
    /// Rows that wait for their verdict.
    taken: VecDeque<(Vec<Taken>, Seen)>,
}

impl RowState for State {
    fn take(&mut self, row: &Row<'_>, inputs: &mut Vec<f32>) -> usize {
        let values = self.columns.iter().map(|column| row.values.get(*column).and_then(FieldValue::number));
        let values: Vec<Option<f64>> = values.collect();
        let seen = self.evidence.observe(&values);
        // A leap is told of its row; in the averages behind the network it would be told again for as long as they hold it.
        let mut taken = self.watch.take(seen.without_leap(values).into_iter(), inputs);
        if let Some((field, value, _)) = seen.leap {
            taken.iter_mut().filter(|taken| taken.field == field).for_each(|taken| taken.value = value);
        }
        let count = taken.len();
        self.taken.push_back((taken, seen));
        count
    }

    fn judge(&mut self, outputs: &[f32]) -> RowVerdict {
        let mut verdict = RowVerdict { threshold: self.alarm.threshold, ..RowVerdict::default() };
        let (taken, seen) = self.taken.pop_front().unwrap_or_default();
        let is_judged = !taken.is_empty() && outputs.len() == taken.len();
        if is_judged {
            verdict.score = self.alarm.judge(&taken, outputs);
        }
        let score = self.alarm.part(seen.parting.as_ref());
        let leap = seen.leap.and_then(|(field, value, leap)| {
            let score = self.alarm.score_of(leap.ratio.abs())?;
            Some((field, value, leap, score))
        });
        let [is_new_alarm, is_new_parting, is_new_leap] =
            self.alarm.count(leap.map(|(_, _, leap, _)| Label::of_leap(&leap)));
        if let (Some(score), Some(label), Some(parting)) = (score, self.alarm.parted, &seen.parting) {
            // It says the same as the network and more.
            verdict.sightings.push(Sighting { begins: is_new_parting, ..self.parting(label, &parting.parts, score) });
        } else if let Some(label) = self.alarm.label.filter(|_| is_judged) {
            let sighting = self.sighting(label, &taken, verdict.score);
            verdict.sightings.push(Sighting { begins: is_new_alarm, ..sighting });
        }
        if let Some((field, value, leap, score)) = leap {
            let sighting = self.leap(field, value, leap, score);
            verdict.sightings.insert(0, Sighting { begins: is_new_leap, ..sighting });
        }
        verdict.score = verdict.sightings.iter().fold(verdict.score, |most, sighting| most.max(sighting.score));
        verdict.flagged = !verdict.sightings.is_empty();
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
        self.evidence.write(&mut writer);
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
            begins: false,
            severity: Severity::Warning,
            score,
            contributions: contributions.collect(),
            text: format!("{first} {}; {}.", label.says(), others(listed - 1)),
        }
    }

    /// A relation that is not whole.
    fn parting(&self, label: Label, parts: &[Part], score: f64) -> Sighting {
        let listed = parts.iter().enumerate().filter(|(index, part)| *index == 0 || part.share >= LEAST_SHARE);
        let contributions: Vec<Contribution> = listed.map(|(_, part)| self.contribution(part)).collect();
        let first = parts.first().map_or("a field", |part| self.names[part.field].as_str());
        Sighting {
            label: label.name(),
            begins: false,
            severity: Severity::Warning,
            score,
            text: format!("{first} {}; {}.", label.says(), others(contributions.len().saturating_sub(1))),
            contributions,
        }
    }

    fn contribution(&self, part: &Part) -> Contribution {
        Contribution {
            field: self.names[part.field].clone(),
            seen: part.value,
            expected: Some(part.expected),
            band: Some((part.expected - part.margin, part.expected + part.margin)),
            share: part.share,
            note: Some(format!("{:+.1} usual residuals from what the other fields say", part.residuals)),
        }
    }

    /// A value that leaps.
    fn leap(&self, field: usize, value: f64, leap: Leap, score: f64) -> Sighting {
        let label = Label::of_leap(&leap);
        let name = &self.names[field];
        let contribution = Contribution {
            field: name.clone(),
            seen: value,
            expected: Some(leap.expected),
            band: Some((leap.expected - leap.margin, leap.expected + leap.margin)),
            share: 1.0,
            note: None,
        };
        Sighting {
            label: label.name(),
            begins: false,
            severity: Severity::Warning,
            score,
            contributions: vec![contribution],
            text: format!("{name} {}.", label.says()),
        }
    }
}

fn others(count: usize) -> String {
    match count {
        0 => String::from("the other fields are as usual"),
        1 => String::from("one other field is involved"),
        count => format!("{count} other fields are involved"),
    }
}

fn note(taken: &Taken) -> String {
    let Taken { distance, unexplained, roughness, .. } = taken;
    format!(
        "12-row mean {distance:+.1} usual deviations from its level, {unexplained:+.1} from what the other fields say; {roughness:.1} times as rough as usual"
    )
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
