//! Decision support for patients. What is here suggests; it never diagnoses.

pub mod news2;
