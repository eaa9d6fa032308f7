//! The forecasting network: five quantiles of a row's value from its inputs. See [`crate::mlp`] for its layers.

use candle_core::Device;

use super::history::INPUTS;
use crate::ModelError;
use crate::mlp::{self, Layout};

/// The quantiles that the network gives.
pub const QUANTILES: [f32; OUTPUTS] = [0.02, 0.1, 0.5, 0.9, 0.98];
/// Width of the network's output.
pub const OUTPUTS: usize = 5;
/// The network's widths.
pub const LAYOUT: Layout = Layout { model: super::NAME, inputs: INPUTS, hidden: 64, outputs: OUTPUTS };

/// The weights as they are used.
pub struct Network(mlp::Network);

impl Network {
    /// Reads a safetensors file.
    pub fn load(bytes: &[u8]) -> Result<Self, ModelError> {
        mlp::Network::load(LAYOUT, bytes).map(Self)
    }

    /// The same network on another device.
    pub fn on_device(&self, device: &Device) -> Result<Self, ModelError> {
        self.0.on_device(device).map(Self)
    }

    /// Rows of [`INPUTS`] to rows of [`OUTPUTS`], each row's quantiles in ascending order.
    pub fn forward(&self, inputs: &[f32], rows: usize, outputs: &mut Vec<f32>) -> Result<(), ModelError> {
        self.0.forward(inputs, rows, outputs)?;
        // Five quantiles are five outputs: nothing keeps them from crossing, so they are put in order.
        outputs.chunks_exact_mut(OUTPUTS).for_each(|row| row.sort_by(f32::total_cmp));
        Ok(())
    }
}
