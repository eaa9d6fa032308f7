//! A hospital ward: each patient has a monitor, an ECG, a glucose sensor, an activity tracker, a nurse who writes, and a patch that
//! feels motion.
//!
//! All devices of a patient show the same body, which lives in [`patient`].

mod activity;
mod ecg;
mod glucose;
mod notes;
mod patch;
mod patient;
mod routine;

use std::time::Duration;

use nearside_schemas::Timestamp;

pub use notes::personal_markers;

use crate::incident::{Effect, Incident, IncidentKind, Places, ProbeFault, Slot, detectable_by};
use crate::random::Random;
use crate::site::{Cadence, Outline, Site};
use activity::Tracker;
use ecg::Electrodes;
use glucose::GlucoseSensor;
use patch::Accelerometer;
use patient::{Monitor, Patient};

enum Instrument {
    Monitor(Monitor),
    Electrodes(Electrodes),
    Glucose(GlucoseSensor),
    Tracker(Tracker),
    Nurse,
    Accelerometer(Accelerometer),
}

struct Device {
    instrument: Instrument,
    random: Random,
}

/// The ward as a [`Site`]. Device `i` belongs to patient `i / 6`.
pub(crate) struct Ward {
    patients: Vec<Patient>,
    devices: Vec<Device>,
    outlines: Vec<Outline>,
}

/// The devices of one patient.
const PER_PATIENT: usize = 6;
const VITALS: usize = 0;
const ECG: usize = 1;
const GLUCOSE: usize = 2;
const ACTIVITY: usize = 3;
const NOTES: usize = 4;
const MOTION: usize = 5;

impl Ward {
    pub(crate) fn new(streams: usize, seed: u64, start: Timestamp) -> Self {
        let mut ward = Self {
            patients: Vec::with_capacity(streams.div_ceil(PER_PATIENT)),
            devices: Vec::with_capacity(streams),
            outlines: Vec::with_capacity(streams),
        };
        for device in 0..streams {
            let number = device / PER_PATIENT;
            if device % PER_PATIENT == 0 {
                ward.patients.push(Patient::new(number, seed, start));
            }
            let mut random = Random::new(seed, 2 * device as u64);
            let instrument = match device % PER_PATIENT {
                VITALS => Instrument::Monitor(Monitor::default()),
                ECG => Instrument::Electrodes(Electrodes::new(&mut random)),
                GLUCOSE => Instrument::Glucose(GlucoseSensor::new(start, &mut random)),
                ACTIVITY => Instrument::Tracker(Tracker::new(start)),
                NOTES => Instrument::Nurse,
                _ => Instrument::Accelerometer(Accelerometer::new(&mut random)),
            };
            ward.devices.push(Device { instrument, random });
            ward.outlines.push(outline(device % PER_PATIENT, &record_number(number)));
        }
        ward
    }

    fn devices_of(&self, part: usize) -> Vec<usize> {
        (0..self.devices.len()).filter(|device| device % PER_PATIENT == part).collect()
    }
}

/// The invented medical record number of a patient: six digits that look like any others.
fn record_number(patient: usize) -> String {
    // 7,919 and 900,000 have no common divisor, so no number comes twice before 900,000 patients.
    format!("mrn-{:06}", 100_000 + (patient * 7_919 + 348_121) % 900_000)
}

fn outline(part: usize, key: &str) -> Outline {
    let (stream, topic, cadence) = match part {
        VITALS => ("vitals", "vitals", Cadence::every(30)),
        ECG => {
            // A strip is sent when it is complete.
            let lag = Duration::from_secs(ecg::STRIP_SECONDS);
            ("ecg", "ecg", Cadence::Every { period: Duration::from_secs(60), lag })
        }
        GLUCOSE => ("glucose", "glucose", Cadence::every(300)),
        ACTIVITY => ("activity", "activity", Cadence::every(60)),
        MOTION => {
            let lag = Duration::from_secs(patch::STRIP_SECONDS);
            ("motion", "motion", Cadence::Every { period: lag, lag })
        }
        _ => ("notes", "note", Cadence::NowAndThen { mean: Duration::from_secs(900) }),
    };
    Outline { stream, key: key.to_owned(), topic: format!("ward/{key}/{topic}"), cadence }
}

/// Which of a patient's devices shows an incident best.
fn shown_by(kind: IncidentKind) -> usize {
    match kind {
        IncidentKind::LeadsOff | IncidentKind::VentricularBeats => ECG,
        IncidentKind::Hypoglycaemia => GLUCOSE,
        IncidentKind::AlarmingNote => NOTES,
        IncidentKind::Fall | IncidentKind::BedExit | IncidentKind::Immobility => MOTION,
        _ => VITALS,
    }
}

impl Site for Ward {
    fn devices(&self) -> &[Outline] {
        &self.outlines
    }

    fn advance(&mut self, _at: Timestamp) {
        // Bodies share nothing; each moves when one of its devices is read.
    }

    fn read(&mut self, device: usize, at: Timestamp) -> Vec<u8> {
        let number = device / PER_PATIENT;
        let (Some(patient), Some(device)) = (self.patients.get_mut(number), self.devices.get_mut(device)) else {
            return Vec::new();
        };
        patient.advance(at);
        let Device { instrument, random } = device;
        match instrument {
            Instrument::Monitor(monitor) => monitor.read(at, patient, random),
            Instrument::Electrodes(electrodes) => electrodes.read(at, patient, random),
            Instrument::Glucose(sensor) => sensor.read(at, patient, random),
            Instrument::Tracker(tracker) => tracker.read(at, patient, random),
            Instrument::Accelerometer(accelerometer) => accelerometer.read(at, patient, random),
            Instrument::Nurse => {
                let is_alarming = patient.level(at, |kind| kind == IncidentKind::AlarmingNote) > 0.0;
                notes::note(at, number, is_alarming, random)
            }
        }
    }

    fn places(&self, variant: u64) -> Vec<Places> {
        let probe = if variant.is_multiple_of(2) { ProbeFault::Missing } else { ProbeFault::Frozen };
        [
            IncidentKind::Deterioration,
            IncidentKind::Desaturation,
            IncidentKind::ProbeOff(probe),
            IncidentKind::VentricularBeats,
            IncidentKind::LeadsOff,
            IncidentKind::Hypoglycaemia,
            IncidentKind::AlarmingNote,
            IncidentKind::Fall,
            IncidentKind::BedExit,
            IncidentKind::Immobility,
        ]
        .into_iter()
        .map(|kind| Places { kind, devices: self.devices_of(shown_by(kind)) })
        .collect()
    }

    fn group(&self, device: usize) -> usize {
        device / PER_PATIENT
    }

    fn apply(&mut self, slot: Slot, periods: &dyn Fn(usize) -> Duration) -> Option<Incident> {
        let Slot { kind, device, from, until } = slot;
        let outline = self.outlines.get(device)?.clone();
        let patient = device / PER_PATIENT;
        self.patients.get_mut(patient)?.strike(Effect { kind, from, until, strength: 1.0 });
        let mut topics = vec![outline.topic];
        // A body in trouble shows in its heartbeat too.
        if matches!(kind, IncidentKind::Deterioration | IncidentKind::Desaturation) {
            topics.extend(self.outlines.get(patient * PER_PATIENT + ECG).map(|ecg| ecg.topic.clone()));
        }
        let name = format!("{kind} of patient {}", outline.key);
        let detectable_by = detectable_by(kind, from, until, periods(device));
        Some(Incident { kind, name, stream: outline.stream, key: outline.key, topics, from, until, detectable_by })
    }
}
