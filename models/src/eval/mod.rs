//! How good the models are: public benchmarks, scored by their own protocols.

pub mod anomaly;
pub mod cgm;
pub mod deterioration;
pub mod ecg;
pub mod ecg_data;
pub mod motion;
pub mod nab;
pub mod nab_data;
pub mod skab;
pub mod text;
pub mod text_data;
pub mod wfdb;
