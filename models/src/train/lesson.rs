//! What a method is trained on and how: the same for training, for a smaller network that learns from a larger, and for
//! measuring either.

use std::path::Path;

use candle_core::Tensor;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::fit::{Epoch, Fit};
use super::samples::Samples;
use super::{anomaly, glucose, multivariate};
use crate::ModelError;
use crate::anomaly::{forecaster, multivariate as multivariate_model};
use crate::diagnosis::glucose_forecast;
use crate::eval::{cgm, nab_data};
use crate::mlp::{Layout, Network, Trainable};

/// Samples of a method, and how a network is fitted to them.
pub struct Lesson {
    fit: Fit,
    samples: Samples,
    held_back: Samples,
    rng: ChaCha8Rng,
}

impl Lesson {
    /// Of a method. `data` is the folder that it is trained on: needed for the glucose forecast; the forecaster has simulated
    /// series besides, the multivariate detector nothing else.
    pub fn of(method: &str, data: Option<&Path>, seed: u64) -> Result<Self, ModelError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let ((samples, held_back), fit) = match (method, data) {
            (forecaster::NAME, data) => {
                let corpus = data.map_or_else(|| Ok(nab_data::Corpus::default()), nab_data::read_folder)?;
                let all: Vec<&nab_data::Series> = corpus.learnt_from().iter().collect();
                (anomaly::samples(&all, seed, &mut rng), anomaly::fit(0))
            }
            (multivariate_model::NAME, _) => (multivariate::both(&mut rng), multivariate::fit(0)),
            (glucose_forecast::NAME, Some(data)) => {
                let subjects = cgm::read_folder(data, cgm::Unit::MgDl)?.subjects;
                let all: Vec<&cgm::Subject> = subjects.iter().collect();
                (glucose::samples(&all, &mut rng), glucose::fit(0))
            }
            (method, None) => {
                let why = "it needs the data that it is trained on; name the folder with --data";
                return Err(ModelError::Unfit { model: method.to_owned(), why: why.to_owned() });
            }
            (method, Some(_)) => {
                let why = "its network cannot be trained here; it can be quantised";
                return Err(ModelError::Unfit { model: method.to_owned(), why: why.to_owned() });
            }
        };
        Ok(Self { fit, samples, held_back, rng })
    }

    /// How many samples are held back.
    pub fn held_back_len(&self) -> usize {
        self.held_back.len()
    }

    /// The method's loss of a weights file on the samples held back.
    pub fn held_back_loss(&self, weights: &[u8]) -> Result<f32, ModelError> {
        self.fit.mean_loss(&Trainable::load(self.fit.layout, weights)?, &self.held_back)
    }

    /// Distillation (G. Hinton et al., "Distilling the Knowledge in a Neural Network", 2015) for numbers: a network of `hidden`
    /// units a layer, or the given `start`, learns by least squares what `teacher` says of the samples. Gives its weights file.
    pub fn learn_from(
        &mut self,
        layout: Layout,
        teacher: &[u8],
        hidden: usize,
        start: Option<Trainable>,
        epochs: usize,
        progress: &mut dyn FnMut(&Epoch),
    ) -> Result<Vec<u8>, ModelError> {
        let teacher = Network::load(layout, teacher)?;
        let taught = |samples: &Samples| -> Result<Samples, ModelError> {
            let mut targets = Vec::new();
            teacher.forward(&samples.inputs, samples.len(), &mut targets)?;
            Ok(samples.with_targets(layout.outputs, targets))
        };
        let (samples, held_back) = (taught(&self.samples)?, taught(&self.held_back)?);
        let fit = Fit { loss: squared_error, epochs, patience: epochs, ..self.fit };
        let start = match start {
            Some(start) => start,
            None => Trainable::new(Layout { hidden, ..layout }, &mut self.rng)?,
        };
        fit.go_on(start, &[], &samples, &held_back, &mut self.rng, None, progress).map(|(bytes, _)| bytes)
    }
}

fn squared_error(prediction: &Tensor, target: &Tensor) -> Result<Tensor, ModelError> {
    Ok(prediction.sub(target)?.sqr()?.mean_all()?)
}
