//! The forecaster: one small quantile network, shared by all streams, says what a value should be; each stream's own sketches
//! say how unusual it is that it is not.
//!
//! 1. [`history`] turns a field's past, up to 24 rows ago, into scale-free inputs.
//! 2. [`network`] (Candle) gives five quantiles of the value; the middle one is the forecast, the others the band that is shown.
//! 3. [`likelihood`] judges the errors by the stream's own; [`hold`] raises one alarm an incident.
//! 4. [`naming`] says what an alarm turns out to be once it has lasted.
//!
//! Score: `1 − 2^(−evidence/2)` of the discounted evidence, 0 to 1; where an alarm has been raised and goes on, it stays just below the threshold. Nothing is flagged in
//! the first [`likelihood::WARM_UP`] rows. Labels: `spike`, `drop` (the row itself stands out), `level_shift` (the
//! last 16 are off to one side: at once, or after a row that stood out), `changed_variance` (the last 8 scatter, or [`scatter`] has changed), `flat_line` (a sensor that used to change repeats one value), `drift`,
//! `changed_season` and `missing` ([`slow`]).

pub mod history;
pub mod hold;
pub mod likelihood;
pub mod naming;
pub mod network;
pub mod scatter;
pub mod slow;
pub mod trend;

use std::collections::VecDeque;
use std::sync::Arc;

use candle_core::Device;
use nearside_schemas::{Contribution, FieldKind, FieldName, FieldSpec, FieldValue, ModelRef, Severity, Timestamp};

use self::history::{History, INPUTS, Norm};
use self::hold::{Hold, Raised, Unusual};
use self::likelihood::{Errors, Evidence, Pace};
use self::naming::{LASTS, Naming, Seen, Standing};
use self::network::{Network, OUTPUTS};
use self::scatter::Scatter;
use self::slow::{Gaps, Kind, Slow};
use super::repeats::{FLAT_AFTER, Repeats};
use crate::ModelError;
use crate::card::Card;
use crate::row_model::{Row, RowModel, RowState, RowVerdict, Sighting, raised_threshold};
use crate::snapshot::{Reader, Writer};

/// The name in the catalogue.
pub const NAME: &str = "forecaster";
/// A row stands out alone where the error before was less than this share of its own.
const ALONE: f64 = 0.5;
/// What the score is held at, times the threshold, while an alarm goes on.
const HELD: f64 = 0.98;
/// Of a snapshot; version 1 knew nothing of odd errors, version 2 counted no alarms and weighed all errors alike, version 3 knew nothing of
/// scatter, of trends and of what an alarm turns out to be.
const VERSION: u8 = 4;

/// The forecaster as a row model.
pub struct Forecaster {
    reference: ModelRef,
    threshold: f64,
    network: Network,
}

impl Forecaster {
    /// With the version and threshold of the card; fails where the weights are not the network's.
    pub fn new(card: &Card, weights: &[u8]) -> Result<Self, ModelError> {
        Ok(Self { reference: card.reference(), threshold: card.threshold, network: Network::load(weights)? })
    }

    fn state(&self, fields: &[FieldSpec]) -> ForecasterState {
        let numeric = fields.iter().enumerate().filter(|(_, field)| field.kind == FieldKind::Number);
        ForecasterState {
            fields: numeric.map(|(column, field)| Field::new(column, field.name.clone(), self.threshold)).collect(),
            threshold: self.threshold,
            taken: VecDeque::new(),
        }
    }
}

impl RowModel for Forecaster {
    fn reference(&self) -> &ModelRef {
        &self.reference
    }

    fn judges_fields(&self) -> bool {
        true
    }

    fn judges_patients(&self) -> bool {
        false
    }

    fn heeds_feedback(&self, label: &str) -> bool {
        ![FLAT_LINE, DRIFT, CHANGED_SEASON, MISSING].contains(&label)
    }

    fn accepts(&self, fields: &[FieldSpec]) -> Result<(), ModelError> {
        if fields.iter().any(|field| field.kind == FieldKind::Number) {
            return Ok(());
        }
        let why = String::from("it judges numbers and the stream has no numeric field");
        Err(ModelError::Unfit { model: self.reference.name.to_string(), why })
    }

    fn input_width(&self) -> usize {
        INPUTS
    }

    fn output_width(&self) -> usize {
        OUTPUTS
    }

    fn new_state(&self, fields: &[FieldSpec]) -> Box<dyn RowState> {
        Box::new(self.state(fields))
    }

    fn restore(&self, fields: &[FieldSpec], snapshot: &[u8]) -> Result<Box<dyn RowState>, ModelError> {
        let mut state = self.state(fields);
        let (mut reader, version) = Reader::of_versions(NAME, 1..=VERSION, snapshot)?;
        if reader.count(u32::MAX as usize)? != state.fields.len() {
            return Err(reader.damaged("the stream has other fields now"));
        }
        for field in &mut state.fields {
            field.history = History::read(&mut reader)?;
            field.errors = Errors::read(&mut reader, version)?;
            field.hold = Hold::read(&mut reader, version)?;
            field.repeats = Repeats::read(&mut reader)?;
            field.pace = Pace::read(&mut reader)?;
            if version >= 2 {
                (field.slow, field.gaps) = (Slow::read(&mut reader, version)?, Gaps::read(&mut reader)?);
            }
            if version >= 4 {
                (field.scatter, field.naming) = (Scatter::read(&mut reader)?, Naming::read(&mut reader)?);
            }
        }
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

/// A numeric field: what is known of its past and of the forecasts' errors.
struct Field {
    column: usize,
    name: FieldName,
    history: History,
    errors: Errors,
    hold: Hold,
    repeats: Repeats,
    pace: Pace,
    slow: Slow,
    gaps: Gaps,
    scatter: Scatter,
    naming: Naming,
    /// The card's, or raised by feedback.
    threshold: f64,
}

/// A value that waits for its forecast.
struct Taken {
    value: f64,
    /// As a difference to the field's first value.
    relative: f64,
    micros: i64,
    /// Blocks of [`Slow`] up to then.
    blocks: u32,
    norm: Norm,
    is_flat: bool,
    /// Whether its forecast goes by the hours of earlier weeks.
    knows_week: bool,
    /// What evidence loses because rows come fast, or gains because they come slowly.
    discount: f64,
    notice: Option<Notice>,
}

/// What is noticed apart from how far off its forecast a row is.
#[derive(Clone, Copy)]
enum Notice {
    Slow(Kind),
    /// What the alarm before it, or the field without one, turns out to be.
    Stands(Standing),
    /// Seconds without a row, and those that are usual.
    Missing(f64, f64),
}

impl Notice {
    fn text(self, name: &FieldName) -> String {
        match self {
            Self::Slow(Kind::Drift) => format!("{name} has been moving away in one direction for hours."),
            Self::Slow(Kind::Level) => format!("{name} has been at another level for hours."),
            Self::Slow(Kind::Season) => format!("{name} does not go with the time of the day as it used to."),
            Self::Stands(Standing::Level) => {
                format!("{name} has been away from where it was for {LASTS} rows and stays there.")
            }
            Self::Stands(Standing::Scatter(times)) => {
                format!("{name} scatters {} times as much as before, and goes on so.", times_text(times))
            }
            Self::Missing(secs, usual) => {
                format!("There was no {name} for {}; one every {} is usual here.", duration(secs), duration(usual))
            }
        }
    }

    /// What is said of a row that is told for its value.
    fn aside(self) -> String {
        match self {
            Self::Missing(secs, _) => format!(" There was none for {} before it.", duration(secs)),
            Self::Slow(_) | Self::Stands(_) => String::new(),
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Slow(Kind::Drift) => DRIFT,
            Self::Slow(Kind::Season) => CHANGED_SEASON,
            Self::Slow(Kind::Level) | Self::Stands(Standing::Level) => LEVEL_SHIFT,
            Self::Stands(Standing::Scatter(_)) => CHANGED_VARIANCE,
            Self::Missing(..) => MISSING,
        }
    }
}

/// For people.
fn times_text(times: f64) -> String {
    if times < 1.0 { format!("{times:.2}") } else { format!("{times:.1}") }
}

/// For people.
fn duration(secs: f64) -> String {
    match secs {
        short if short < 1.0 => format!("{:.0} ms", short * 1e3),
        few if few < 120.0 => format!("{few:.0} s"),
        some if some < 7_200.0 => format!("{:.0} min", some / 60.0),
        many => format!("{:.0} h", many / 3_600.0),
    }
}

struct ForecasterState {
    fields: Vec<Field>,
    threshold: f64,
    /// The fields of rows that were taken and not judged, in the order of `fields`; `None` where a row had no value.
    taken: VecDeque<Option<Taken>>,
}

impl RowState for ForecasterState {
    fn take(&mut self, row: &Row<'_>, inputs: &mut Vec<f32>) -> usize {
        let mut count = 0;
        for field in &mut self.fields {
            let value = row.values.get(field.column).and_then(FieldValue::number);
            self.taken.push_back(value.map(|value| {
                let norm = field.history.norm();
                field.history.write_inputs(row.time, norm, inputs);
                count += 1;
                let relative = field.history.relative(value);
                let is_flat = field.repeats.count(value, FLAT_AFTER);
                field.history.learn(row.time, value);
                let (notice, knows_week) = field.notice(row.time, relative);
                let discount = field.pace.discount(row.time.as_micros());
                Taken {
                    value,
                    relative,
                    micros: row.time.as_micros(),
                    blocks: field.slow.blocks(),
                    norm,
                    is_flat,
                    knows_week,
                    discount,
                    notice,
                }
            }));
        }
        count
    }

    fn judge(&mut self, outputs: &[f32]) -> RowVerdict {
        let mut verdict = RowVerdict { threshold: self.threshold, ..RowVerdict::default() };
        let mut outputs = outputs.chunks_exact(OUTPUTS);
        let mut seen = Vec::new();
        for (index, field) in self.fields.iter_mut().enumerate() {
            let Some(Some(taken)) = self.taken.pop_front() else { continue };
            let Some(quantiles) = outputs.next() else { continue };
            let judged = field.judge(&taken, quantiles, evidence_at(field.threshold));
            let held = HELD * self.threshold;
            let score = match (judged.label, score(judged.strength)) {
                // What is told of hours or of a gap is no fault of this row.
                (Some(_), score) if judged.notice.is_some() && judged.raised.is_none() => score.min(held),
                (Some(_), score) => score.max(field.threshold),
                (None, score) if score >= self.threshold => held,
                (None, score) => score,
            };
            verdict.score = verdict.score.max(score);
            if judged.label.is_some() {
                seen.push((index, judged));
            }
        }
        if !seen.is_empty() {
            verdict.flagged = true;
            verdict.sightings.push(self.sighting(seen, verdict.score));
            // The sighting is about its first field, whose threshold may be raised; so it was for its score at least.
            let first = verdict.sightings[0].contributions.first().map(|part| &part.field);
            let of_first = self.fields.iter().find(|field| Some(&field.name) == first);
            verdict.threshold = of_first.map_or(self.threshold, |field| field.threshold);
        }
        verdict
    }

    fn raise_threshold(&mut self, field: Option<&FieldName>, steps: f64) {
        let known = self.fields.iter_mut().find(|known| Some(&known.name) == field);
        known.into_iter().for_each(|known| known.threshold = raised_threshold(self.threshold, steps));
    }

    fn skip(&mut self) {
        self.taken.drain(..self.fields.len().min(self.taken.len()));
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut writer = Writer::new(VERSION);
        writer.u32(self.fields.len() as u32);
        for field in &self.fields {
            field.history.write(&mut writer);
            field.errors.write(&mut writer);
            field.hold.write(&mut writer);
            field.repeats.write(&mut writer);
            field.pace.write(&mut writer);
            field.slow.write(&mut writer);
            field.gaps.write(&mut writer);
            field.scatter.write(&mut writer);
            field.naming.write(&mut writer);
        }
        writer.finish()
    }
}

const SPIKE: &str = "spike";
const DROP: &str = "drop";
const LEVEL_SHIFT: &str = "level_shift";
const CHANGED_VARIANCE: &str = "changed_variance";
const FLAT_LINE: &str = "flat_line";
const DRIFT: &str = "drift";
const CHANGED_SEASON: &str = "changed_season";
const MISSING: &str = "missing";

/// 0 to 1, monotone in the evidence.
fn score(evidence: f64) -> f64 {
    1.0 - (-evidence / 2.0).exp2()
}

/// The evidence at which the score is `threshold`.
fn evidence_at(threshold: f64) -> f64 {
    -2.0 * (1.0 - threshold).max(f64::MIN_POSITIVE).log2()
}

/// One value, what it was held against and what is unusual.
struct Judged {
    value: f64,
    expected: f64,
    band: (f64, f64),
    evidence: Evidence,
    /// The mean evidence less the discount.
    strength: f64,
    label: Option<&'static str>,
    notice: Option<Notice>,
    /// The alarm that the row itself raises.
    raised: Option<Raised>,
}

impl Judged {
    /// Whether what it is told as is another one: a gap, a flat line and what is told of hours are told once each.
    fn begins(&self) -> bool {
        let is_of_row = self.notice.is_none_or(|notice| self.label != Some(notice.label()));
        !is_of_row || self.raised != Some(Raised::Again)
    }
}

impl Field {
    fn new(column: usize, name: FieldName, threshold: f64) -> Self {
        let (history, errors) = (History::default(), Errors::default());
        Self {
            column,
            name,
            history,
            errors,
            hold: Hold::default(),
            repeats: Repeats::default(),
            pace: Pace::default(),
            slow: Slow::default(),
            gaps: Gaps::default(),
            scatter: Scatter::default(),
            naming: Naming::default(),
            threshold,
        }
    }

    /// What the row's time and value say without a forecast, and whether the hours of a week are known.
    fn notice(&mut self, time: Timestamp, relative: f64) -> (Option<Notice>, bool) {
        let (micros, usual) = (time.as_micros(), self.pace.interval());
        let gap = self.gaps.take(micros, usual).map(|secs| Notice::Missing(secs, usual));
        let week = self.history.of_week(time);
        let slow = week.and_then(|expected| self.slow.take(micros, relative, expected)).map(Notice::Slow);
        (gap.or(slow), week.is_some())
    }

    fn judge(&mut self, taken: &Taken, quantiles: &[f32], least: f64) -> Judged {
        let relative = |quantile: f32| taken.norm.level + f64::from(quantile) * taken.norm.scale;
        let [low, _, middle, _, high] = [0, 1, 2, 3, 4].map(|index| relative(quantiles[index]));
        let error = taken.relative - middle;
        if taken.knows_week {
            self.errors.week_is_known();
        }
        let evidence = self.errors.judge(error);
        let strength = Pace::discounted(evidence.mean, taken.discount);
        let raised = self.hold.raises(Unusual::new(&evidence, strength, error), least);
        let of_row = raised.is_some().then(|| self.label(&evidence, error));
        // A level that was told as soon as it had lasted is not told again by its averages.
        let is_told = matches!(taken.notice, Some(Notice::Slow(Kind::Level))) && self.naming.knows_level(taken.blocks);
        let noticed = taken.notice.filter(|_| !is_told);
        let seen = Seen {
            raised: of_row,
            scatter: self.scatter.take(taken.micros, taken.relative, self.hold.goes_on()),
            may_tell: noticed.is_none() && !taken.is_flat,
            blocks: taken.blocks,
        };
        let stands = self.naming.take(&self.hold, &self.errors, seen);
        let notice = noticed.or(stands.map(Notice::Stands));
        // What is slow says more of what happens than a single row does, and a value that is far off more than the gap before it.
        let label = match (notice, of_row) {
            (Some(Notice::Missing(..)), Some(label)) => Some(label),
            (Some(notice), _) => Some(notice.label()),
            (None, Some(label)) => Some(label),
            (None, None) => taken.is_flat.then_some(FLAT_LINE),
        };
        let origin = self.history.origin();
        Judged {
            value: taken.value,
            expected: origin + middle,
            band: (origin + low, origin + high),
            evidence,
            strength,
            label,
            notice,
            raised,
        }
    }

    fn label(&self, evidence: &Evidence, error: f64) -> &'static str {
        let most = evidence.now.max(evidence.short).max(evidence.long).max(evidence.unsteady);
        let is_of_mean = evidence.long == most || evidence.short == most;
        // A mean of several rows may be rarer than the row that moved it alone. What stays is named once it has stayed.
        let [.., before, _] = *self.errors.last();
        let is_alone = f64::from(before) * error.signum() < ALONE * error.abs();
        if evidence.now == most || is_of_mean && is_alone {
            if error < 0.0 { DROP } else { SPIKE }
        } else if is_of_mean {
            LEVEL_SHIFT
        } else {
            CHANGED_VARIANCE
        }
    }
}

impl ForecasterState {
    fn sighting(&self, mut seen: Vec<(usize, Judged)>, score: f64) -> Sighting {
        // What begins is told before what goes on.
        seen.sort_by(|(_, a), (_, b)| b.begins().cmp(&a.begins()).then(b.evidence.mean.total_cmp(&a.evidence.mean)));
        let sum: f64 = seen.iter().map(|(_, judged)| judged.evidence.mean).sum();
        let count = seen.len() as f64;
        let contributions = seen.iter().map(|(index, judged)| Contribution {
            field: self.fields[*index].name.clone(),
            seen: judged.value,
            expected: Some(judged.expected),
            band: Some(judged.band),
            share: if sum > 0.0 { judged.evidence.mean / sum } else { 1.0 / count },
            note: judged.label.map(|label| note(label, &judged.evidence)),
        });
        let contributions = contributions.collect();
        let (index, first) = &seen[0];
        let name = &self.fields[*index].name;
        let rarity = rarity(first.evidence.mean);
        let of_row = match first.label {
            Some(FLAT_LINE) => format!("{name} repeats one value for {FLAT_AFTER} rows or more and used to change."),
            Some(LEVEL_SHIFT) => format!("{name} stays away from its forecast; as rare as one in {rarity} here."),
            Some(CHANGED_VARIANCE) => format!("{name} scatters around its forecast; as rare as one in {rarity} here."),
            _ => format!("{name} is far from its forecast; as rare as one in {rarity} here."),
        };
        let text = match first.notice {
            Some(notice) if first.label == Some(notice.label()) => notice.text(name),
            Some(notice) => of_row + &notice.aside(),
            None => of_row,
        };
        // What is told of more than its row is told for that, and not by the row's score.
        let score = score.max(self.fields[*index].threshold);
        let (label, begins) = (first.label.unwrap_or(SPIKE), first.begins());
        Sighting { label, begins, severity: Severity::Warning, score, contributions, text }
    }
}

fn note(label: &str, evidence: &Evidence) -> String {
    let Evidence { now, short, long, unsteady, .. } = evidence;
    format!(
        "{label}; likelihood 10^-{now:.1} now, 10^-{short:.1} over 4, 10^-{long:.1} over 16, scatter 10^-{unsteady:.1}"
    )
}

fn rarity(evidence: f64) -> u64 {
    10_f64.powf(evidence).round() as u64
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

#[cfg(test)]
#[path = "kinds_tests.rs"]
mod kinds_tests;
