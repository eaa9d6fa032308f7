//! How good the models are: public benchmarks, scored by their own protocols.

pub mod anomaly;
pub mod cgm;
pub mod nab;
pub mod nab_data;
pub mod skab;
