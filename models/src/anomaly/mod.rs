//! Detectors of what is out of the ordinary in a stream of numbers. Each is causal and bounded in memory.

pub mod forecaster;
pub mod multivariate;
mod repeats;
pub mod robust_z;
pub mod sensor_check;
