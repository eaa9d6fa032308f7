//! What a person does, ten seconds at a time, and what of it should be looked at.
//!
//! ```text
//! x  [n, 22]                 an epoch's numbers (see [`super::epoch`])
//! z  = mlp(x)      [n, 5]    two hidden layers of 32 with ReLU (see [`crate::mlp`])
//! p  = softmax(z)            lying, sitting, standing, walking, falling
//! ```
//! Score of a row: the probability of a fall in the last epoch. Findings are the watch's ([`super::watch`]): `fall_suggested`,
//! `immobile`, `out_of_bed`.

use std::collections::VecDeque;
use std::sync::Arc;

use candle_core::Device;
use nearside_schemas::{FieldSpec, ModelRef};

use super::Axes;
use super::epoch::{Epoch, FEATURES, Gatherer};
use super::watch::{Judged, Settings, Watch};
use crate::ModelError;
use crate::card::Card;
use crate::mlp::{Layout, Network};
use crate::row_model::{Row, RowModel, RowState, RowVerdict};
use crate::snapshot::{Reader, Writer};

/// The name in the catalogue.
pub const NAME: &str = "activity";
/// What an epoch can be.
pub const CLASSES: usize = 5;
/// The network's widths.
pub const LAYOUT: Layout = Layout { model: NAME, inputs: FEATURES, hidden: 32, outputs: CLASSES };
const VERSION: u8 = 1;

/// What a person does in an epoch; the order is that of the network's outputs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// In bed, or on the floor.
    Lying,
    /// The trunk upright or a little back, at rest.
    Sitting,
    /// On their feet.
    Standing,
    /// Going somewhere.
    Walking,
    /// A fall, or something much like one.
    Falling,
}

/// All, in the order of the network's outputs.
pub const ACTIVITIES: [Activity; CLASSES] =
    [Activity::Lying, Activity::Sitting, Activity::Standing, Activity::Walking, Activity::Falling];

impl Activity {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lying => "lying",
            Self::Sitting => "sitting",
            Self::Standing => "standing",
            Self::Walking => "walking",
            Self::Falling => "falling",
        }
    }
}

/// Probabilities of the network's outputs.
pub fn probabilities(outputs: &[f32]) -> [f64; CLASSES] {
    let most = outputs.iter().copied().fold(f32::MIN, f32::max);
    let mut parts = [0.0; CLASSES];
    parts.iter_mut().zip(outputs).for_each(|(part, z)| *part = f64::from(z - most).exp());
    let whole: f64 = parts.iter().sum();
    parts.map(|part| part / whole)
}

/// The likeliest, and the probability of a fall.
pub fn decide(outputs: &[f32]) -> (Activity, f64) {
    let probabilities = probabilities(outputs);
    let best = ACTIVITIES.iter().zip(probabilities).max_by(|a, b| a.1.total_cmp(&b.1));
    (best.map_or(Activity::Lying, |(activity, _)| *activity), probabilities[Activity::Falling as usize])
}

/// The network and the watch as a row model.
pub struct ActivityModel {
    reference: ModelRef,
    settings: Settings,
    network: Network,
}

impl ActivityModel {
    /// With the version, threshold and options of the card; fails where the weights are not the network's.
    pub fn new(card: &Card, weights: &[u8]) -> Result<Self, ModelError> {
        let network = Network::load(LAYOUT, weights)?;
        Ok(Self { reference: card.reference(), settings: Settings::of(card)?, network })
    }

    fn state(&self, fields: &[FieldSpec]) -> State {
        State {
            axes: Axes::of(fields).ok(),
            gatherer: Gatherer::default(),
            watch: Watch::new(self.settings),
            taken: VecDeque::new(),
        }
    }
}

impl RowModel for ActivityModel {
    fn reference(&self) -> &ModelRef {
        &self.reference
    }

    fn accepts(&self, fields: &[FieldSpec]) -> Result<(), ModelError> {
        Axes::accepts(fields, &self.reference)
    }

    fn input_width(&self) -> usize {
        FEATURES
    }

    fn output_width(&self) -> usize {
        CLASSES
    }

    fn new_state(&self, fields: &[FieldSpec]) -> Box<dyn RowState> {
        Box::new(self.state(fields))
    }

    fn restore(&self, fields: &[FieldSpec], snapshot: &[u8]) -> Result<Box<dyn RowState>, ModelError> {
        let mut reader = Reader::new(NAME, VERSION, snapshot)?;
        let mut state = self.state(fields);
        state.gatherer = Gatherer::read(&mut reader)?;
        state.watch = Watch::read(self.settings, &mut reader)?;
        reader.finish()?;
        Ok(Box::new(state))
    }

    fn on_device(&self, device: &Device) -> Result<Option<Arc<dyn RowModel>>, ModelError> {
        let network = self.network.on_device(device)?;
        let reference = self.reference.clone();
        Ok(Some(Arc::new(Self { reference, settings: self.settings, network })))
    }

    fn forward(&self, inputs: &[f32], rows: usize, outputs: &mut Vec<f32>) -> Result<(), ModelError> {
        self.network.forward(inputs, rows, outputs)
    }
}

struct State {
    axes: Option<Axes>,
    gatherer: Gatherer,
    watch: Watch,
    taken: VecDeque<Option<Box<Epoch>>>,
}

impl RowState for State {
    fn take(&mut self, row: &Row<'_>, inputs: &mut Vec<f32>) -> usize {
        let sample = self.axes.as_ref().and_then(|axes| axes.sample(row));
        let epoch = sample.and_then(|sample| self.gatherer.push(row.time.as_micros(), sample));
        if let Some(epoch) = &epoch {
            inputs.extend_from_slice(&epoch.features);
        }
        let count = usize::from(epoch.is_some());
        self.taken.push_back(epoch.map(Box::new));
        count
    }

    fn judge(&mut self, outputs: &[f32]) -> RowVerdict {
        let mut sightings = Vec::new();
        if let (Some(Some(epoch)), Some(axes)) = (self.taken.pop_front(), &self.axes) {
            let (activity, fall) = decide(outputs);
            self.watch.see(&Judged { epoch: &epoch, activity, fall }, axes, &mut sightings);
        }
        let threshold = self.watch.threshold();
        let score = sightings.iter().fold(self.watch.score(), |most, sighting| most.max(sighting.score));
        RowVerdict { score, threshold, flagged: !sightings.is_empty(), sightings }
    }

    fn skip(&mut self) {
        self.taken.pop_front();
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut writer = Writer::new(VERSION);
        self.gatherer.write(&mut writer);
        self.watch.write(&mut writer);
        writer.finish()
    }
}
