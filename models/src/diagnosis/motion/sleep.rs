//! Sleep or wake, minute by minute, and what became of a rest.
//!
//! ```text
//! x  [n, 14]             movement of the minutes from 4 before to 2 after, turns, stillness, how upright the trunk is
//! z  = mlp(x)   [n, 1]   two hidden layers of 16 with ReLU (see [`crate::mlp`])
//! p  = sigmoid(z)        asleep
//! ```
//! A minute is judged when two more have passed. Beside the network stands the published formula, [`cole_kripke`], which the
//! evaluation holds it against. A **rest** begins with lying and ends with half an hour of not lying; one of `least_rest_hours` is summed
//! up: `rest_summary`, or `poor_sleep` where the score, the share of it that was not slept, is at the threshold.
//! That 74 % asleep and less is poor: M. Ohayon et al., "National Sleep Foundation's sleep quality recommendations", Sleep Health 3(1), 2017.

use std::collections::VecDeque;
use std::sync::Arc;

use candle_core::Device;
use nearside_schemas::{FieldSpec, ModelRef, Severity};

use super::epoch::{EPOCH_MICROS, Epoch, Gatherer};
use super::{Axes, angle};
use crate::ModelError;
use crate::card::Card;
use crate::mlp::{Layout, Network};
use crate::row_model::{Row, RowModel, RowState, RowVerdict, Sighting};
use crate::snapshot::{Reader, Writer};

/// The name in the catalogue.
pub const NAME: &str = "sleep";
/// Numbers that the network sees of a minute.
pub const INPUTS: usize = 14;
/// The network's widths.
pub const LAYOUT: Layout = Layout { model: NAME, inputs: INPUTS, hidden: 16, outputs: 1 };
/// Minutes before and after a minute that judge it.
const BEFORE: usize = 4;
const AFTER: usize = 2;
/// Minutes whose mean movement is an input too.
const LONG: usize = 13;
/// Movement of a minute from which on it counts as one, g·s.
const MOVED: f64 = 0.05;
const EPOCHS_OF_MINUTE: i64 = 60_000_000 / EPOCH_MICROS;
/// The trunk is steeper than this: nobody lies so. The cosine of its angle from upright.
const LIES_BELOW: f64 = 0.75;
/// Minutes of not lying that end a rest.
const UP_MINUTES: u32 = 30;
/// Minutes of sleep in a row that are its onset.
const ONSET: u32 = 10;
/// An awakening is longer than this, minutes.
const AWAKENING: u32 = 5;
const VERSION: u8 = 2;

/// The weights of four minutes before, the minute, and two after: R. J. Cole, D. F. Kripke et al., "Automatic sleep/wake
/// identification from wrist activity", Sleep 15(5), 1992.
const COLE_KRIPKE: [f64; BEFORE + 1 + AFTER] = [106.0, 54.0, 58.0, 76.0, 230.0, 74.0, 67.0];

/// The published index of a minute from the activity counts of seven, oldest first: below 1 is sleep. Counts are in hundreds and at
/// most 300, as actigraphs have them.
pub fn cole_kripke(counts: [f64; BEFORE + 1 + AFTER]) -> f64 {
    0.001 * COLE_KRIPKE.iter().zip(counts).map(|(weight, count)| weight * count.min(300.0)).sum::<f64>()
}

/// A minute of movement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Minute {
    /// Which: minutes since 1970.
    pub number: i64,
    /// Movement, g·s.
    pub movement: f64,
    /// The share of seconds without movement.
    pub still: f64,
    /// Where gravity's reaction points, the mean of its epochs.
    up: [f64; 3],
    /// The largest turn from one epoch to the next, radians.
    turn: f64,
    epochs: u32,
}

impl Minute {
    /// Whether the trunk is as somebody's who lies.
    pub fn is_lying(&self) -> bool {
        self.up[0] < LIES_BELOW
    }
}

/// A minute with those around it.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// The minute.
    pub minute: Minute,
    /// What the network sees.
    pub inputs: [f32; INPUTS],
    /// Movement of the seven minutes around it, oldest first, g·s.
    pub around: [f64; BEFORE + 1 + AFTER],
}

/// Gathers epochs into minutes and gives each with those around it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Minutes {
    now: Option<Minute>,
    last_up: Option<[f64; 3]>,
    past: VecDeque<Minute>,
    /// Minutes without movement up to the one that was scored last.
    quiet: u32,
}

impl Minutes {
    /// Takes an epoch and gives the minute that can be scored now: two minutes back.
    pub fn push(&mut self, epoch: &Epoch) -> Option<Scored> {
        let number = epoch.number.div_euclid(EPOCHS_OF_MINUTE);
        let ended = self.now.take_if(|minute| minute.number != number);
        let turn = self.last_up.map_or(0.0, |last| angle(last, epoch.up));
        self.last_up = Some(epoch.up);
        let minute =
            self.now.get_or_insert(Minute { number, movement: 0.0, still: 0.0, up: [0.0; 3], turn: 0.0, epochs: 0 });
        let share = 1.0 / f64::from(minute.epochs + 1);
        minute.movement += epoch.movement;
        minute.still += share * (epoch.still - minute.still);
        minute.up = std::array::from_fn(|i| minute.up[i] + share * (epoch.up[i] - minute.up[i]));
        minute.turn = minute.turn.max(turn);
        minute.epochs += 1;
        self.close(ended?)
    }

    fn close(&mut self, mut ended: Minute) -> Option<Scored> {
        if self.past.back().is_some_and(|last| last.number + 1 != ended.number) {
            self.past.clear();
            self.quiet = 0;
        }
        // A minute of which some is missing moved as much in the rest.
        ended.movement *= EPOCHS_OF_MINUTE as f64 / f64::from(ended.epochs);
        if self.past.len() == LONG {
            self.past.pop_front();
        }
        self.past.push_back(ended);
        self.score()
    }

    fn score(&mut self) -> Option<Scored> {
        let past: Vec<&Minute> = self.past.iter().collect();
        let at = past.len().checked_sub(AFTER + 1)?;
        let first = at.checked_sub(BEFORE)?;
        let around = past.get(first..)?;
        let minute = **past.get(at)?;
        self.quiet = if minute.movement > MOVED { 0 } else { self.quiet.saturating_add(1) };
        let log = |movement: f64| (movement + 1e-3).ln();
        let mean = |values: &mut dyn Iterator<Item = f64>| {
            let (count, sum) = values.fold((0.0, 0.0), |(count, sum), value| (count + 1.0, sum + value));
            sum / f64::max(count, 1.0)
        };
        let movements: [f64; BEFORE + 1 + AFTER] = std::array::from_fn(|i| around[i].movement);
        let long = mean(&mut past.iter().map(|one| log(one.movement)));
        let turn = around.iter().map(|one| one.turn).fold(0.0, f64::max);
        let still = mean(&mut around.iter().map(|one| one.still));
        let least = around.iter().map(|one| one.still).fold(1.0, f64::min);
        let rest = [
            long,
            minute.up[0],
            minute.turn,
            turn,
            minute.still,
            (still + least) / 2.0,
            f64::from(self.quiet.min(60) + 1).ln(),
        ];
        let mut inputs = [0.0; INPUTS];
        let numbers = movements.iter().map(|movement| log(*movement)).chain(rest);
        inputs.iter_mut().zip(numbers).for_each(|(input, number)| *input = number as f32);
        Some(Scored { minute, inputs, around: movements })
    }

    fn write(&self, writer: &mut Writer) {
        writer.u8(u8::from(self.now.is_some()));
        writer.u8(u8::from(self.last_up.is_some()));
        self.last_up.unwrap_or_default().iter().for_each(|value| writer.f64(*value));
        writer.u32(self.past.len() as u32);
        for minute in self.now.iter().chain(&self.past) {
            writer.i64(minute.number);
            [minute.movement, minute.still, minute.turn].iter().chain(&minute.up).for_each(|value| writer.f64(*value));
            writer.u32(minute.epochs);
        }
        writer.u32(self.quiet);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let (is_begun, has_last) = (reader.u8()? != 0, reader.u8()? != 0);
        let last_up = [reader.f64()?, reader.f64()?, reader.f64()?];
        let count = reader.count(LONG)?;
        let mut minute = || -> Result<Minute, ModelError> {
            let number = reader.i64()?;
            let (movement, still, turn) = (reader.f64()?, reader.f64()?, reader.f64()?);
            let up = [reader.f64()?, reader.f64()?, reader.f64()?];
            Ok(Minute { number, movement, still, up, turn, epochs: reader.u32()?.max(1) })
        };
        let now = if is_begun { Some(minute()?) } else { None };
        let past = (0..count).map(|_| minute()).collect::<Result<_, _>>()?;
        Ok(Self { now, last_up: has_last.then_some(last_up), past, quiet: reader.u32()? })
    }
}

/// The probability of sleep.
pub fn probability(outputs: &[f32]) -> f64 {
    outputs.first().map_or(0.0, |z| 1.0 / (1.0 + (-f64::from(*z)).exp()))
}

/// A rest as it goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rest {
    from: i64,
    /// Minutes since its beginning, those at its end included.
    minutes: u32,
    /// Of them, those that no row came for.
    missed: u32,
    asleep: u32,
    onset: Option<u32>,
    asleep_in_a_row: u32,
    awake_in_a_row: u32,
    awakenings: u32,
    /// Not lying, in a row, up to now.
    up: u32,
    awake_after_onset: u32,
}

/// What became of a rest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RestSummary {
    /// Minutes in bed of which something is known.
    pub in_bed: u32,
    /// Minutes from its beginning to sleep; `None` without ten minutes of sleep in a row.
    pub onset: Option<u32>,
    /// Minutes asleep.
    pub asleep: u32,
    /// Awakenings of more than five minutes.
    pub awakenings: u32,
    /// Minutes awake between the first sleep and the last.
    pub awake_between: u32,
}

impl RestSummary {
    /// The share of that time that was slept.
    pub fn efficiency(&self) -> f64 {
        f64::from(self.asleep) / f64::from(self.in_bed.max(1))
    }
}

impl Rest {
    /// Takes a minute in; gives the rest that ended with it.
    pub fn push(rest: &mut Option<Self>, number: i64, is_lying: bool, is_asleep: bool) -> Option<RestSummary> {
        let Some(now) = rest else {
            if is_lying {
                let mut begun = Self { from: number, ..Self::default() };
                begun.minute(true, is_asleep);
                *rest = Some(begun);
            }
            return None;
        };
        let missed = u32::try_from(number - now.from).unwrap_or(0).saturating_sub(now.minutes);
        if missed >= UP_MINUTES {
            let ended = now.summary();
            *rest = None;
            Self::push(rest, number, is_lying, is_asleep);
            return Some(ended);
        }
        now.miss(missed);
        now.minute(is_lying, is_asleep && is_lying);
        let is_over = now.up >= UP_MINUTES;
        let ended = now.summary();
        is_over.then(|| {
            *rest = None;
            ended
        })
    }

    /// Minutes that nothing is known of: neither sleep nor an awakening.
    fn miss(&mut self, minutes: u32) {
        if minutes > 0 {
            self.minutes += minutes;
            self.missed += minutes;
            self.asleep_in_a_row = 0;
            self.end_awakening();
        }
    }

    /// Being awake ends, asleep or where nothing is known.
    fn end_awakening(&mut self) {
        if self.onset.is_some() {
            self.awakenings += u32::from(self.awake_in_a_row > AWAKENING);
            self.awake_after_onset += self.awake_in_a_row;
        }
        self.awake_in_a_row = 0;
    }

    fn minute(&mut self, is_lying: bool, is_asleep: bool) {
        self.minutes += 1;
        self.up = if is_lying { 0 } else { self.up + 1 };
        if !is_asleep {
            self.asleep_in_a_row = 0;
            self.awake_in_a_row += 1;
            return;
        }
        self.end_awakening();
        self.asleep += 1;
        self.asleep_in_a_row += 1;
        if self.onset.is_none() && self.asleep_in_a_row == ONSET {
            self.onset = Some(self.minutes - ONSET);
        }
    }

    fn summary(&self) -> RestSummary {
        RestSummary {
            in_bed: self.minutes - self.up - self.missed,
            onset: self.onset,
            asleep: self.asleep,
            awakenings: self.awakenings,
            awake_between: self.awake_after_onset,
        }
    }

    fn write(&self, writer: &mut Writer) {
        writer.i64(self.from);
        let numbers = [self.minutes, self.asleep, self.asleep_in_a_row, self.awake_in_a_row, self.awakenings, self.up];
        numbers.into_iter().for_each(|number| writer.u32(number));
        writer.u32(self.awake_after_onset);
        writer.u32(self.missed);
        writer.u32(self.onset.map_or(u32::MAX, |onset| onset));
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ModelError> {
        let from = reader.i64()?;
        let mut next = || reader.u32();
        let (minutes, asleep, asleep_in_a_row, awake_in_a_row) = (next()?, next()?, next()?, next()?);
        let (awakenings, up, awake_after_onset, missed, onset) = (next()?, next()?, next()?, next()?, next()?);
        let onset = (onset != u32::MAX).then_some(onset);
        let rest = Self {
            from,
            minutes,
            missed,
            asleep,
            onset,
            asleep_in_a_row,
            awake_in_a_row,
            awakenings,
            up,
            awake_after_onset,
        };
        let is_whole = up.checked_add(missed).is_some_and(|other| other <= minutes)
            && asleep <= minutes
            && minutes < 1 << 30
            && awakenings <= minutes;
        if is_whole { Ok(rest) } else { Err(reader.damaged("a rest is out of range")) }
    }
}

/// The network and the rests as a row model.
pub struct SleepModel {
    reference: ModelRef,
    threshold: f64,
    least_rest: u32,
    network: Network,
}

impl SleepModel {
    /// With the version, threshold and options of the card; fails where the weights are not the network's.
    pub fn new(card: &Card, weights: &[u8]) -> Result<Self, ModelError> {
        let hours = card.option("least_rest_hours", 4.0, 0.5..=24.0)?;
        let network = Network::load(LAYOUT, weights)?;
        Ok(Self { reference: card.reference(), threshold: card.threshold, least_rest: (hours * 60.0) as u32, network })
    }

    fn state(&self, fields: &[FieldSpec]) -> State {
        State {
            axes: Axes::of(fields).ok(),
            threshold: self.threshold,
            least_rest: self.least_rest,
            gatherer: Gatherer::default(),
            minutes: Minutes::default(),
            rest: None,
            taken: VecDeque::new(),
        }
    }
}

impl RowModel for SleepModel {
    fn reference(&self) -> &ModelRef {
        &self.reference
    }

    fn accepts(&self, fields: &[FieldSpec]) -> Result<(), ModelError> {
        Axes::accepts(fields, &self.reference)
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
        state.gatherer = Gatherer::read(&mut reader)?;
        state.minutes = Minutes::read(&mut reader)?;
        if reader.u8()? != 0 {
            state.rest = Some(Rest::read(&mut reader)?);
        }
        reader.finish()?;
        Ok(Box::new(state))
    }

    fn on_device(&self, device: &Device) -> Result<Option<Arc<dyn RowModel>>, ModelError> {
        let network = self.network.on_device(device)?;
        let reference = self.reference.clone();
        Ok(Some(Arc::new(Self { reference, threshold: self.threshold, least_rest: self.least_rest, network })))
    }

    fn forward(&self, inputs: &[f32], rows: usize, outputs: &mut Vec<f32>) -> Result<(), ModelError> {
        self.network.forward(inputs, rows, outputs)
    }
}

struct State {
    axes: Option<Axes>,
    threshold: f64,
    /// Minutes.
    least_rest: u32,
    gatherer: Gatherer,
    minutes: Minutes,
    rest: Option<Rest>,
    taken: VecDeque<Option<Box<Minute>>>,
}

impl State {
    fn sighting(&self, rest: &RestSummary, minute: &Minute) -> Option<Sighting> {
        let axes = self.axes.as_ref()?;
        let score = 1.0 - rest.efficiency();
        let is_poor = score >= self.threshold;
        let onset = rest
            .onset
            .map_or(String::from("never asleep for ten minutes"), |onset| format!("asleep after {onset} min"));
        let text = format!(
            "A rest of {:.1} h: {onset}, {:.1} h of sleep, {} awakenings of more than 5 min{}",
            f64::from(rest.in_bed) / 60.0,
            f64::from(rest.asleep) / 60.0,
            rest.awakenings,
            if is_poor { "; suggests poor sleep." } else { "." }
        );
        let note = format!(
            "{:.0} % of the time in bed asleep, {} min awake between",
            100.0 * rest.efficiency(),
            rest.awake_between
        );
        let up = minute.up;
        Some(Sighting {
            label: if is_poor { "poor_sleep" } else { "rest_summary" },
            begins: true,
            severity: Severity::Notice,
            score,
            contributions: axes.contributions(up, None, up.map(|value| value * value), note),
            text,
        })
    }
}

impl RowState for State {
    fn take(&mut self, row: &Row<'_>, inputs: &mut Vec<f32>) -> usize {
        let sample = self.axes.as_ref().and_then(|axes| axes.sample(row));
        let epoch = sample.and_then(|sample| self.gatherer.push(row.time.as_micros(), sample));
        let scored = epoch.and_then(|epoch| self.minutes.push(&epoch));
        if let Some(scored) = &scored {
            inputs.extend_from_slice(&scored.inputs);
        }
        let count = usize::from(scored.is_some());
        self.taken.push_back(scored.map(|scored| Box::new(scored.minute)));
        count
    }

    fn judge(&mut self, outputs: &[f32]) -> RowVerdict {
        let mut verdict = RowVerdict { threshold: self.threshold, ..RowVerdict::default() };
        let Some(Some(minute)) = self.taken.pop_front() else { return verdict };
        let is_asleep = probability(outputs) >= 0.5;
        let ended = Rest::push(&mut self.rest, minute.number, minute.is_lying(), is_asleep);
        if let Some(rest) = ended.filter(|rest| rest.in_bed >= self.least_rest) {
            verdict.sightings.extend(self.sighting(&rest, &minute));
            verdict.score = 1.0 - rest.efficiency();
            verdict.flagged = !verdict.sightings.is_empty();
        }
        verdict
    }

    fn skip(&mut self) {
        self.taken.pop_front();
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut writer = Writer::new(VERSION);
        self.gatherer.write(&mut writer);
        self.minutes.write(&mut writer);
        writer.u8(u8::from(self.rest.is_some()));
        if let Some(rest) = &self.rest {
            rest.write(&mut writer);
        }
        writer.finish()
    }
}

#[cfg(test)]
#[path = "sleep_tests.rs"]
mod tests;
