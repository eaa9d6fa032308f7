//! Heartbeats from raw ECG: where they are, of which class, and what their rhythm suggests.
//!
//! 1. [`clock`] takes the rate from the rows' times; after a gap the signal begins anew and what is known of the patient stays.
//! 2. [`qrs`] finds complexes, [`shape`] holds each against this patient's usual ones, [`beats`] adds how it stands in the rhythm, whose
//!    pace may be another after a gap ([`strip`]).
//! 3. [`network`] (Candle) weighs the classes N, S, V and F for each beat; with two leads, the mean of what it says of each. None is S in
//!    fibrillation, or where no step says that it is early.
//! 4. [`clarity`] lets only beats count that a heart could have made: it looks at those before and after each, so findings wait for four
//!    more beats, or 3 s.
//! 5. [`range`] knows a signal that is lost and [`pieces`] one that gaps or its rate keep from being judged; [`rhythm`] makes findings of
//!    classed beats.
//!
//! A beat is judged 0.45 s after the next one, or 2.5 s after itself; one that the signal's beginning or end cuts is not. After a gap of
//! 5 s or more the first seven are judged together, or those of the first 7 s. Score: see [`rhythm`]. Samples may come in strips. Never:
//! a claim about what the patient has; it suggests.

pub mod beats;
mod clarity;
pub mod class;
mod clock;
mod filter;
pub mod network;
#[cfg(test)]
mod noise_tests;
mod pace;
mod pieces;
pub mod qrs;
mod range;
pub mod rhythm;
mod shape;
mod strip;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use candle_core::Device;
use nearside_schemas::{FieldKind, FieldName, FieldSpec, FieldValue, ModelRef};

use self::beats::{Beat, BeatFinder, INPUTS};
use self::clarity::{Clarity, Clearness};
use self::class::{BeatClass, CLASSES};
use self::clock::{Follows, SampleClock};
use self::network::{Network, OUTPUTS};
use self::pieces::{Pieces, Unusable};
use self::range::Range;
use self::rhythm::{Classed, Rhythm};
use crate::ModelError;
use crate::card::Card;
use crate::row_model::{Row, RowModel, RowState, RowVerdict};
use crate::snapshot::{Reader, Writer};

/// The name in the catalogue.
pub const NAME: &str = "ecg-rhythm";
/// Samples a second that can be judged.
pub const RATES_HZ: std::ops::RangeInclusive<f64> = 100.0..=1_000.0;
/// Samples a second that everything works on.
pub const RATE_HZ: f64 = 180.0;
/// Leads that are used at most.
pub const MOST_LEADS: usize = 2;

/// Units of a lead, where one is stated.
const VOLTS: [&str; 5] = ["mV", "uV", "µV", "μV", "V"];
/// A beat has at least this share of the usual range: where the signal is gone, noise has the shape of beats.
const LEAST_AMPLITUDE: f64 = 0.2;
/// Beats that wait until it is known whether they are clear, at most.
const MOST_WAITING: usize = 32;
const VERSION: u8 = 9;
/// A state of before the pieces of a signal were counted ends without them, one of before the pace of a strip was asked for without that,
/// one of before beats were held against those around them without that, and one of before it was asked how a run began without that.
const WITHOUT_PIECES: u8 = 4;
const WITHOUT_STRIPS: u8 = 5;
const WITHOUT_CLARITY: u8 = 6;
const WITHOUT_ONSETS: u8 = 7;
const WITHOUT_SLOW: u8 = 8;

/// The class of a beat by the network's outputs for each of its leads, and its probability. Unknown where there are none.
pub fn decide(outputs: &[f32]) -> (BeatClass, f32) {
    if outputs.len() < OUTPUTS {
        return (BeatClass::Unknown, 0.0);
    }
    let leads = (outputs.len() / OUTPUTS).max(1) as f32;
    let mut mean = [0.0; OUTPUTS];
    for lead in outputs.chunks_exact(OUTPUTS) {
        mean.iter_mut().zip(lead).for_each(|(mean, probability)| *mean += probability / leads);
    }
    let best = CLASSES.iter().zip(mean).max_by(|a, b| a.1.total_cmp(&b.1));
    best.map_or((BeatClass::Unknown, 0.0), |(class, probability)| (*class, probability))
}

/// Detector, network and rules as a row model.
pub struct EcgRhythm {
    reference: ModelRef,
    threshold: f64,
    network: Network,
}

impl EcgRhythm {
    /// With the version and threshold of the card; fails where the weights are not the network's.
    pub fn new(card: &Card, weights: &[u8]) -> Result<Self, ModelError> {
        Ok(Self { reference: card.reference(), threshold: card.threshold, network: Network::load(weights)? })
    }

    fn state(&self, fields: &[FieldSpec]) -> EcgState {
        let numeric = fields.iter().enumerate().filter(|(_, field)| field.kind == FieldKind::Number);
        let leads: Vec<(usize, FieldName)> =
            numeric.take(MOST_LEADS).map(|(column, field)| (column, field.name.clone())).collect();
        EcgState {
            samples: vec![0.0; leads.len()],
            leads,
            threshold: self.threshold,
            clock: SampleClock::default(),
            finder: None,
            origin: 0,
            rhythm: Rhythm::default(),
            range: Range::default(),
            pieces: Pieces::default(),
            clarity: None,
            waiting: VecDeque::new(),
            pending: VecDeque::new(),
        }
    }
}

impl RowModel for EcgRhythm {
    fn reference(&self) -> &ModelRef {
        &self.reference
    }

    fn accepts(&self, fields: &[FieldSpec]) -> Result<(), ModelError> {
        let unfit = |why: String| Err(ModelError::Unfit { model: self.reference.name.to_string(), why });
        let leads = || fields.iter().filter(|field| field.kind == FieldKind::Number).take(MOST_LEADS);
        let is_other = |field: &&FieldSpec| field.unit.as_deref().is_some_and(|unit| !VOLTS.contains(&unit));
        match leads().find(is_other) {
            Some(field) => unfit(format!(
                "it takes the field `{}` for a lead, and a lead is a voltage: its unit is `mV`, or none is stated",
                field.name
            )),
            None if leads().next().is_none() => {
                unfit(String::from("it needs a numeric field with the samples of a lead"))
            }
            None => Ok(()),
        }
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
        let (mut reader, version) = Reader::of_versions(NAME, WITHOUT_PIECES..=VERSION, snapshot)?;
        if reader.count(MOST_LEADS)? != state.leads.len() {
            return Err(reader.damaged("the stream has other leads now"));
        }
        for sample in &mut state.samples {
            *sample = reader.f64()?;
        }
        state.clock = SampleClock::read(&mut reader)?;
        state.origin = reader.i64()?;
        if reader.u8()? == 1 {
            state.finder = Some(BeatFinder::read(&mut reader, state.leads.len().max(1))?);
        }
        state.rhythm = Rhythm::read(&mut reader)?;
        state.range = Range::read(&mut reader)?;
        if version > WITHOUT_PIECES {
            state.pieces = Pieces::read(&mut reader)?;
        }
        if version > WITHOUT_STRIPS {
            let is_new = reader.u8()? == 1;
            state.finder.iter_mut().for_each(|finder| finder.set_new(is_new));
        }
        if version > WITHOUT_CLARITY {
            state.read_clarity(&mut reader)?;
        } else if let Some(finder) = &state.finder {
            state.clarity = Some(Clarity::new(finder.rate_hz(), state.leads.len(), finder.samples()));
        }
        if let Some(finder) = &mut state.finder {
            match version {
                ..=WITHOUT_ONSETS => finder.guess_onset(),
                _ => finder.read_onset(&mut reader)?,
            }
        }
        if let Some(clarity) = state.clarity.as_mut().filter(|_| version > WITHOUT_SLOW) {
            clarity.read_slow(&mut reader)?;
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

/// What was seen in a row.
#[derive(Clone, Debug, Default)]
struct Taken {
    /// Beats that became known, with how many inputs each has.
    beats: Vec<(Classed, usize)>,
    /// What is now known of beats of this row or of earlier ones.
    clear: Vec<Clearness>,
    /// Whether there has been no clear beat for a while.
    is_noisy: bool,
    /// The sample at which the signal was lost.
    lost: Option<f64>,
    /// What has kept the signal from being judged for a while.
    unusable: Option<Unusable>,
}

struct EcgState {
    leads: Vec<(usize, FieldName)>,
    threshold: f64,
    /// The last sample of each lead.
    samples: Vec<f64>,
    clock: SampleClock,
    finder: Option<BeatFinder>,
    /// Event time in microseconds of the first sample of the unbroken signal.
    origin: i64,
    rhythm: Rhythm,
    range: Range,
    pieces: Pieces,
    clarity: Option<Clarity>,
    /// Classed beats of which it is not known whether they are clear.
    waiting: VecDeque<Classed>,
    pending: VecDeque<Taken>,
}

impl EcgState {
    fn see(&mut self, row: &Row<'_>, inputs: &mut Vec<f32>) -> Taken {
        let mut taken = Taken::default();
        let value = |column: &usize| row.values.get(*column).and_then(FieldValue::number);
        // Without a sample of the first lead there is none; a second lead may come and go.
        let Some(first) = self.leads.first().and_then(|(column, _)| value(column)) else { return taken };
        for (sample, (column, _)) in self.samples.iter_mut().zip(&self.leads) {
            *sample = value(column).unwrap_or(*sample);
        }
        let mut found = Vec::new();
        let follows = self.clock.next(row.time);
        taken.unusable = self.pieces.next(row.time, follows);
        match follows {
            Follows::Breaks => {
                if let Some(finder) = &mut self.finder {
                    finder.flush(&mut found);
                }
            }
            Follows::Begins(rate_hz) => self.begin(rate_hz, row.time.as_micros()),
            Follows::Unknown | Follows::GoesOn => {}
        }
        let is_signal = matches!(follows, Follows::Begins(_) | Follows::GoesOn);
        if let Some(finder) = self.finder.as_mut().filter(|_| is_signal) {
            if self.range.push(first, finder.rate_hz()) {
                taken.lost = Some(first);
            }
            finder.hold(self.range.is_lost());
            finder.push(&self.samples, &mut found);
            if let Some(clarity) = &mut self.clarity {
                taken.is_noisy = clarity.push(&self.samples, self.range.is_lost());
            }
        }
        for beat in found {
            // A beat that the signal's beginning or end cuts is not judged, only counted.
            let leads = if beat.is_whole { beat.leads() } else { 0 };
            inputs.extend_from_slice(&beat.inputs[..leads * INPUTS]);
            let classed = self.classed(&beat);
            if let Some(clarity) = &mut self.clarity {
                clarity.add(&beat, classed.at);
            }
            taken.beats.push((classed, leads));
        }
        match &mut self.clarity {
            Some(clarity) if follows == Follows::Breaks => clarity.flush(&mut taken.clear),
            Some(clarity) => clarity.ready(&mut taken.clear),
            None => {}
        }
        taken
    }

    /// A signal begins at this rate and time, in microseconds.
    fn begin(&mut self, rate_hz: f64, at: i64) {
        let mut told = Vec::new();
        let since = at.saturating_sub(std::mem::replace(&mut self.origin, at)) as f64 / 1e6;
        match &mut self.finder {
            _ if !RATES_HZ.contains(&rate_hz) => self.finder = None,
            Some(finder) => finder.restart(rate_hz, since - finder.seconds(), &mut told),
            None => self.finder = Some(BeatFinder::new(rate_hz, self.leads.len())),
        }
        match &mut self.clarity {
            Some(clarity) if self.finder.is_some() => clarity.restart(rate_hz),
            clarity => *clarity = self.finder.as_ref().map(|_| Clarity::new(rate_hz, self.leads.len(), 0)),
        }
        debug_assert!(told.is_empty(), "the gap has told what was held");
        self.range.restart();
    }

    /// What is known of how clear beats are, and those that wait for it.
    fn read_clarity(&mut self, reader: &mut Reader<'_>) -> Result<(), ModelError> {
        if reader.u8()? == 1 {
            self.clarity = Some(Clarity::read(reader, self.leads.len().max(1))?);
        }
        let count = reader.count(MOST_WAITING)?;
        self.waiting = (0..count).map(|_| Classed::read(reader)).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// A beat that waits for its class.
    fn classed(&self, beat: &Beat) -> Classed {
        Classed {
            at: self.origin.saturating_add((beat.at * 1e6) as i64),
            interval: beat.interval,
            usual_interval: beat.usual_interval,
            class: BeatClass::Unknown,
            probability: 0.0,
            quality: if beat.amplitude < LEAST_AMPLITUDE * self.range.usual() { 0.0 } else { beat.quality },
        }
    }
}

/// The beat that this is known of, with it, out of those that wait; older ones are forgotten.
fn known(waiting: &mut VecDeque<Classed>, clear: Clearness) -> Option<Classed> {
    while waiting.pop_front_if(|beat| beat.at < clear.at).is_some() {}
    let mut beat = waiting.pop_front_if(|beat| beat.at == clear.at)?;
    if !clear.is_clear {
        beat.quality = 0.0;
    }
    if !clear.is_quiet_before {
        beat.interval = None;
    }
    Some(beat)
}

impl RowState for EcgState {
    fn take(&mut self, row: &Row<'_>, inputs: &mut Vec<f32>) -> usize {
        let taken = self.see(row, inputs);
        let count = taken.beats.iter().map(|(_, leads)| leads).sum();
        self.pending.push_back(taken);
        count
    }

    fn judge(&mut self, outputs: &[f32]) -> RowVerdict {
        let taken = self.pending.pop_front().unwrap_or_default();
        let Some((_, field)) = self.leads.first() else { return RowVerdict::default() };
        let mut sightings = Vec::new();
        sightings.extend(taken.lost.map(|sample| rhythm::signal_lost(field, sample)));
        sightings.extend(taken.unusable.map(|why| rhythm::unusable_signal(field, why)));
        let mut rest = outputs;
        for (mut beat, leads) in taken.beats {
            let Some((own, others)) = rest.split_at_checked(leads * OUTPUTS) else { break };
            rest = others;
            (beat.class, beat.probability) = decide(own);
            if self.waiting.len() == MOST_WAITING {
                self.waiting.pop_front();
            }
            self.waiting.push_back(beat);
        }
        for clear in taken.clear {
            if let Some(beat) = known(&mut self.waiting, clear) {
                self.rhythm.push(beat, field, self.threshold, &mut sightings);
            }
        }
        if taken.is_noisy {
            self.rhythm.unclear(field, self.threshold, &mut sightings);
        }
        let quiet = self.rhythm.score(self.threshold);
        let score = sightings.iter().fold(quiet, |most, sighting| most.max(sighting.score));
        RowVerdict { score, threshold: self.threshold, flagged: !sightings.is_empty(), sightings }
    }

    fn skip(&mut self) {
        self.pending.pop_front();
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut writer = Writer::new(VERSION);
        writer.u32(self.leads.len() as u32);
        self.samples.iter().for_each(|sample| writer.f64(*sample));
        self.clock.write(&mut writer);
        writer.i64(self.origin);
        writer.u8(u8::from(self.finder.is_some()));
        if let Some(finder) = &self.finder {
            finder.write(&mut writer);
        }
        self.rhythm.write(&mut writer);
        self.range.write(&mut writer);
        self.pieces.write(&mut writer);
        writer.u8(u8::from(self.finder.as_ref().is_some_and(BeatFinder::is_new)));
        writer.u8(u8::from(self.clarity.is_some()));
        if let Some(clarity) = &self.clarity {
            clarity.write(&mut writer);
        }
        writer.u32(self.waiting.len() as u32);
        self.waiting.iter().for_each(|beat| beat.write(&mut writer));
        self.finder.iter().for_each(|finder| finder.write_onset(&mut writer));
        self.clarity.iter().for_each(|clarity| clarity.write_slow(&mut writer));
        writer.finish()
    }
}
