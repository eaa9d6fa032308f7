//! Where networks compute: the processor, or a GPU through Candle.
//!
//! Promises: a device that is not there is an error with a hint, never a silent fall back; results on a GPU agree with the processor's
//! within [`TOLERANCE`]. Never: a replay's findings rest on a GPU (promise I5 is about the processor).

use candle_core::Device;
use serde::{Deserialize, Serialize};

use crate::ModelError;

/// How far a network's output on a GPU may be from the processor's, of the larger of 1 and the output's size.
pub const TOLERANCE: f32 = 1e-3;

/// `cpu`, `cuda` (the first GPU) or `cuda:N`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// The processor.
    #[default]
    Cpu,
    /// The NVIDIA GPU with this number.
    Cuda(usize),
}

impl TryFrom<String> for DeviceChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = |number: &str| number.parse().ok().filter(|number| *number < 256).map(Self::Cuda);
        match text.as_str() {
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            other => other.strip_prefix("cuda:").and_then(number),
        }
        .ok_or_else(|| String::from("a device is \"cpu\", \"cuda\" or \"cuda:N\" with the number of the GPU"))
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl DeviceChoice {
    /// Whether this program can use it at all.
    pub fn check(self) -> Result<(), String> {
        if self == Self::Cpu || candle_core::utils::cuda_is_available() {
            return Ok(());
        }
        Err(format!(
            "the device `{self}` needs a program built with `cargo build --release --features cuda`; this one was not. Build it so, or \
             write `device = \"cpu\"`"
        ))
    }

    /// Opens it.
    pub fn open(self) -> Result<Device, ModelError> {
        let failed = |why: String| ModelError::Device { device: self.to_string(), why };
        self.check().map_err(failed)?;
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(number) => Device::new_cuda(number).map_err(|error| {
                failed(format!(
                    "there is no such GPU that works ({error}); `nvidia-smi` lists them. Or write `device = \"cpu\"`"
                ))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::catalog;
    use crate::row_model::RowModel;

    fn parse(text: &str) -> Result<DeviceChoice, String> {
        DeviceChoice::try_from(text.to_owned())
    }

    #[test]
    fn a_device_is_named_as_it_is_written() {
        assert_eq!(parse("cpu"), Ok(DeviceChoice::Cpu));
        assert_eq!(parse("cuda"), Ok(DeviceChoice::Cuda(0)));
        assert_eq!(parse("cuda:3"), Ok(DeviceChoice::Cuda(3)));
        for choice in [DeviceChoice::Cpu, DeviceChoice::Cuda(3)] {
            assert_eq!(parse(&choice.to_string()), Ok(choice));
        }
        for odd in ["", "gpu", "cuda:", "cuda:-1", "cuda:256", "CPU"] {
            assert!(parse(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_device_that_is_not_there_is_an_error_that_says_what_to_do() {
        assert!(DeviceChoice::Cpu.open().is_ok());
        // No machine has as many.
        let error = DeviceChoice::Cuda(255).open().err().unwrap().to_string();
        assert!(error.contains("cuda:255") && error.contains("device = \"cpu\""), "{error}");
    }

    /// The models that ship with a network.
    fn with_networks() -> Vec<(&'static str, Arc<dyn RowModel>)> {
        let models = catalog::names().map(|name| (name, catalog::load(name, None).unwrap()));
        let networks: Vec<_> = models.filter(|(_, model)| model.input_width() > 0).collect();
        assert!(networks.len() >= 7, "only {}", networks.len());
        networks
    }

    /// None stays behind where a device is asked for; the processor is a device too.
    #[test]
    fn every_network_that_ships_can_go_to_a_device() {
        for (name, model) in with_networks() {
            let there = model.on_device(&Device::Cpu).unwrap().unwrap_or_else(|| panic!("{name} stays where it is"));
            assert_eq!(there.reference(), model.reference());
            assert_eq!((there.input_width(), there.output_width()), (model.input_width(), model.output_width()));
            let inputs: Vec<f32> = (0..3 * model.input_width()).map(|at| (at as f32 * 0.37).sin() * 3.0).collect();
            let (mut expected, mut outputs) = (Vec::new(), Vec::new());
            model.forward(&inputs, 3, &mut expected).unwrap();
            there.forward(&inputs, 3, &mut outputs).unwrap();
            assert_eq!(outputs, expected, "{name}");
        }
    }

    /// Every model that ships with a network, on the first GPU: near what the processor says, and the same bits for a row in any batch.
    /// Where there is no GPU, or the program is built without, there is nothing to compare and it says so.
    #[test]
    fn a_gpu_agrees_with_the_processor() {
        let gpu = match DeviceChoice::Cuda(0).open() {
            Ok(gpu) => gpu,
            Err(error) => return eprintln!("nothing was compared on a GPU: {error}"),
        };
        for (name, model) in with_networks() {
            let there = model.on_device(&gpu).unwrap().unwrap();
            let (rows, width) = (130, model.input_width());
            let inputs: Vec<f32> = (0..rows * width).map(|at| ((at * 7_919) as f32 * 0.37).sin() * 3.0).collect();
            let (mut expected, mut outputs, mut alone) = (Vec::new(), Vec::new(), Vec::new());
            model.forward(&inputs, rows, &mut expected).unwrap();
            there.forward(&inputs, rows, &mut outputs).unwrap();
            assert_eq!(outputs.len(), expected.len(), "{name}");
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= TOLERANCE * b.abs().max(1.0);
            assert!(outputs.iter().zip(&expected).all(near), "{name}");
            there.forward(&inputs[..width], 1, &mut alone).unwrap();
            assert!(alone.iter().zip(&outputs).all(|(a, b)| a.to_bits() == b.to_bits()), "{name}");
        }
    }
}
