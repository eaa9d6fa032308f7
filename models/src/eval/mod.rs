//! How good the models are: public benchmarks, scored by their own protocols.

pub mod anomaly;
pub mod nab;
pub mod nab_data;
