//! Decision support for patients. What is here suggests; it never diagnoses.

pub mod deterioration;
pub mod ecg;
pub mod glucose_forecast;
pub mod glucose_range;
pub mod motion;
pub mod news2;
