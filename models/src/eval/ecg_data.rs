//! Recorded ECGs as patients: the beats that our own detector finds, and what cardiologists wrote beside them.
//!
//! Source of the recordings: PhysioNet, MIT-BIH Arrhythmia Database (G. Moody, R. Mark, IEEE Engineering in Medicine and Biology 20(3),
//! 2001; ODC-By 1.0), or any folder in the same format.

use std::path::Path;

use super::SetAside;
use super::wfdb::{Annotation, Record, read_annotations, read_signals, record_names};
use crate::ModelError;
use crate::diagnosis::ecg::beats::{Beat, BeatFinder};
use crate::diagnosis::ecg::class::BeatClass;
use crate::diagnosis::ecg::{MOST_LEADS, RATES_HZ};

/// How far a beat that was found may lie from the annotated one, in seconds (ANSI/AAMI EC57: 150 ms).
pub const TOLERANCE: f64 = 0.15;
/// Annotations that begin and end ventricular flutter, in which EC57 looks for no beats.
const FLUTTER: (u8, u8) = (32, 33);
/// What the limb lead II is called.
const LEAD_II: [&str; 2] = ["MLII", "II"];

/// A recording, one patient.
#[derive(Clone, Debug)]
pub struct Patient {
    /// The record's name.
    pub name: String,
    /// Seconds of signal.
    pub seconds: f64,
    /// The beats found in the signal alone.
    pub found: Vec<Beat>,
    /// What is annotated; `None` where the folder holds no annotations.
    pub reference: Option<Reference>,
}

/// The annotated beats.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reference {
    /// Time in seconds and class, in order of time.
    pub beats: Vec<(f64, BeatClass)>,
    /// Spans of ventricular flutter, in seconds.
    pub flutter: Vec<(f64, f64)>,
}

/// Which found beat is which annotated one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matching {
    /// The annotated class of each beat that was found; `None` for one that is none.
    pub found: Vec<Option<BeatClass>>,
    /// For each found beat whether it lies in flutter, where extra ones do not count.
    pub in_flutter: Vec<bool>,
    /// Time and class of those that were not found, outside of flutter.
    pub missed: Vec<(f64, BeatClass)>,
}

/// Reads the records of a folder, one after the other. What cannot be read is set aside, and the others are read; of annotations that
/// cannot be read the record stands without them.
///
/// # Errors
/// Where there is no record, or none that can be read.
pub fn each_record(
    folder: &Path,
    mut progress: impl FnMut(&str),
    mut take: impl FnMut(&Record),
) -> Result<Vec<SetAside>, ModelError> {
    let mut set_aside = Vec::new();
    let names = record_names(folder)?;
    let mut taken = 0;
    for name in &names {
        progress(name);
        let mut record = match read_signals(folder, name) {
            Ok(record) if RATES_HZ.contains(&record.rate_hz) => record,
            Ok(record) => {
                let rates = format!("{} to {}", RATES_HZ.start(), RATES_HZ.end());
                set_aside.push(SetAside::new(name, format!("{} samples a second; {rates} are judged", record.rate_hz)));
                continue;
            }
            Err(error) => {
                set_aside.push(SetAside::new(name, error));
                continue;
            }
        };
        match read_annotations(folder, name) {
            Ok(annotations) => record.annotations = annotations,
            Err(error) => set_aside.push(SetAside::new(format!("{name}.atr"), error)),
        }
        take(&record);
        taken += 1;
    }
    if taken == 0 {
        let first = set_aside.first().map(SetAside::to_string).unwrap_or_default();
        let why = format!("none of its {} records can be judged; the first: {first}", names.len());
        return Err(ModelError::Data { path: folder.to_owned(), why });
    }
    Ok(set_aside)
}

/// Reads all records of a folder and finds their beats; gives besides what was set aside. `leads`: how many to use at most.
pub fn read_patients(
    folder: &Path,
    leads: usize,
    progress: impl FnMut(&str),
) -> Result<(Vec<Patient>, Vec<SetAside>), ModelError> {
    let mut patients = Vec::new();
    let set_aside = each_record(folder, progress, |record| patients.push(Patient::of(record, leads)))?;
    Ok((patients, set_aside))
}

impl Patient {
    /// Finds the beats of a record. Lead II comes first where there is one; where a sample is missing the last one stands in.
    pub fn of(record: &Record, leads: usize) -> Self {
        let mut order: Vec<usize> = (0..record.leads.len()).collect();
        order.sort_by_key(|index| !LEAD_II.contains(&record.leads[*index].name.as_str()));
        order.truncate(leads.clamp(1, MOST_LEADS));
        let mut finder = BeatFinder::new(record.rate_hz, order.len());
        let mut found = Vec::new();
        let mut samples = vec![0.0; order.len()];
        let count = record.leads.first().map_or(0, |lead| lead.samples.len());
        for index in 0..count {
            for (sample, lead) in samples.iter_mut().zip(&order) {
                let value = f64::from(record.leads[*lead].samples[index]);
                *sample = if value.is_finite() { value } else { *sample };
            }
            finder.push(&samples, &mut found);
        }
        finder.flush(&mut found);
        let reference = record.annotations.as_ref().map(|all| Reference::of(all, record.rate_hz));
        Self { name: record.name.clone(), seconds: count as f64 / record.rate_hz, found, reference }
    }

    /// Which beats were found; `None` where nothing is annotated.
    pub fn matching(&self) -> Option<Matching> {
        let times: Vec<f64> = self.found.iter().map(|beat| beat.at).collect();
        self.reference.as_ref().map(|reference| reference.matched(&times))
    }
}

impl Reference {
    fn of(annotations: &[Annotation], rate_hz: f64) -> Self {
        let mut reference = Self::default();
        let mut flutter_from = None;
        for one in annotations {
            let at = one.sample as f64 / rate_hz;
            if one.code == FLUTTER.0 {
                flutter_from = Some(at);
            } else if one.code == FLUTTER.1 {
                reference.flutter.extend(flutter_from.take().map(|from| (from, at)));
            }
            reference.beats.extend(BeatClass::of_annotation(one.code).map(|class| (at, class)));
        }
        reference
    }

    fn is_flutter(&self, at: f64) -> bool {
        self.flutter.iter().any(|(from, to)| (from - TOLERANCE..=to + TOLERANCE).contains(&at))
    }

    /// Gives each annotated beat, in order of time, the nearest found one within [`TOLERANCE`] that no earlier one has. `times` ascend.
    pub fn matched(&self, times: &[f64]) -> Matching {
        let mut matching = Matching {
            found: vec![None; times.len()],
            in_flutter: times.iter().map(|at| self.is_flutter(*at)).collect(),
            missed: Vec::new(),
        };
        for (at, class) in &self.beats {
            let from = times.partition_point(|time| *time < at - TOLERANCE);
            let to = times.partition_point(|time| *time <= at + TOLERANCE);
            let free = (from..to).filter(|index| matching.found[*index].is_none());
            let nearest = free.min_by(|a, b| (times[*a] - at).abs().total_cmp(&(times[*b] - at).abs()));
            match nearest {
                Some(index) => matching.found[index] = Some(*class),
                None if self.is_flutter(*at) => {}
                None => matching.missed.push((*at, *class)),
            }
        }
        matching
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::ecg::class::BeatClass::{Normal, Ventricular};

    #[test]
    fn a_found_beat_is_one_annotated_beat() {
        let reference = Reference {
            beats: vec![(1.0, Normal), (2.0, Ventricular), (2.2, Normal), (5.0, Normal), (9.5, Normal)],
            flutter: vec![(9.0, 10.0)],
        };
        let matching = reference.matched(&[1.14, 2.05, 3.0, 5.16, 9.2]);
        assert_eq!(matching.found, [Some(Normal), Some(Ventricular), None, None, None]);
        assert_eq!(matching.missed, [(2.2, Normal), (5.0, Normal)], "5.16 is too far, 9.5 lies in flutter");
        assert_eq!(matching.in_flutter, [false, false, false, false, true]);
    }

    #[test]
    fn a_bad_record_is_set_aside_and_the_others_are_judged() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        let header = |name: &str, rate: u32, samples: u32| format!("{name} 1 {rate} {samples}\n{name}.dat 212 200\n");
        for (name, rate, samples) in [("good", 360, 400), ("slow", 60, 400), ("short", 360, 9_999), ("odd", 360, 400)] {
            write(&format!("{name}.hea"), header(name, rate, samples).as_bytes());
            write(&format!("{name}.dat"), &[0; 600]);
        }
        write("gone.hea", header("gone", 360, 400).as_bytes());
        write("noise.hea", &[0xff, 0x00, 0x20]);
        write("segments.hea", b"segments/2 2 360 1000\n");
        write("odd.atr", &[0, 59 << 2, 0, 0]);
        let (patients, set_aside) = read_patients(folder.path(), 2, |_| ()).unwrap();
        let names = |all: Vec<&str>| all.join(" ");
        assert_eq!(names(patients.iter().map(|patient| patient.name.as_str()).collect()), "good odd");
        let aside = names(set_aside.iter().map(|one| one.name.as_str()).collect());
        assert_eq!(aside, "gone noise odd.atr segments short slow");
        std::fs::remove_file(folder.path().join("good.hea")).unwrap();
        std::fs::remove_file(folder.path().join("odd.hea")).unwrap();
        assert!(matches!(read_patients(folder.path(), 2, |_| ()), Err(ModelError::Data { .. })), "none is left");
    }

    #[test]
    fn annotations_become_classes() {
        let codes = [(1, 'N'), (2, 'N'), (8, 'S'), (5, 'V'), (6, 'F'), (12, 'Q')];
        for (code, letter) in codes {
            assert_eq!(BeatClass::of_annotation(code).unwrap().letter(), letter);
        }
        let all: Vec<Annotation> = [(0, 28), (360, 1), (720, 32), (1_080, 33), (1_440, 5)]
            .map(|(sample, code)| Annotation { sample, code })
            .into();
        let reference = Reference::of(&all, 360.0);
        assert_eq!(reference.beats, [(1.0, Normal), (4.0, Ventricular)]);
        assert_eq!(reference.flutter, [(2.0, 3.0)]);
    }
}
