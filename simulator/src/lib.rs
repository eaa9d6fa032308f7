//! A seeded fleet: a city and a ward in simulated time, and a load generator, speaking MQTT like any device.
//!
//! Promises: a [`Fleet`] is pure: the same configuration gives the same messages, byte for byte, and the same list of
//! [`Incident`]s, against which findings can be checked. What carries messages to a broker is apart: [`publish_fleet`]
//! paces a fleet in real time and waits until all is acknowledged; [`load`] measures how fast a broker acknowledges.
//! Never: no real person's data, no other member of the workspace but the schemas.

mod address;
mod city;
mod course;
mod error;
mod fleet;
mod incident;
mod load;
mod motion;
mod payload;
mod publish;
mod random;
mod rhythm;
mod site;
mod ward;

pub use address::BrokerUrl;
pub use course::{Cohort, Fate, VitalCourse, Vitals};
pub use error::SimulatorError;
pub use fleet::{Fleet, FleetConfig, Message, Profile};
pub use incident::{Incident, IncidentKind, ProbeFault, SensorFault};
pub use load::{LoadConfig, LoadLimit, LoadReport, load};
pub use motion::{Crowd, MotionRecording, MotionTruth, Posture};
pub use publish::{Pace, Progress, PublishOptions, PublishReport, Timeline, publish_fleet};
pub use ward::personal_markers;
