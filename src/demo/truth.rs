//! What a finding must say to be about an incident: that something was said of the right bed at the right time is not enough.

use nearside_simulator::{IncidentKind, ProbeFault, SensorFault};

/// Labels that tell that a figure is not where it should be.
const UP: &[&str] = &["spike", "level_shift", "changed_variance"];
const DOWN: &[&str] = &["drop", "level_shift", "changed_variance"];
const ANY_WAY: &[&str] = &["spike", "drop", "level_shift", "changed_variance"];
/// Labels that tell that a patient is getting worse.
const WORSE: &[&str] = &["news2_rising", "news2_low_medium", "news2_medium", "news2_high", "deterioration_expected"];
const VENTRICULAR: &[&str] = &["ventricular_beats", "ventricular_run", "bigeminy"];
const LOW_GLUCOSE: &[&str] = &["glucose_low", "glucose_very_low", "low-glucose-expected"];

/// Whether a finding with this label tells of such an incident. A text is flagged because it is urgent; its label says what it is about.
pub(super) fn tells(kind: IncidentKind, label: &str) -> bool {
    use IncidentKind as K;
    let labels: &[&str] = match kind {
        K::Crash | K::AirSensorFault(SensorFault::Drift | SensorFault::Scatter) => ANY_WAY,
        K::AirSensorFault(SensorFault::FlatLine) | K::ProbeOff(ProbeFault::Frozen) => &["flat_line"],
        K::AirSensorFault(SensorFault::Spikes) | K::NoiseEvent | K::PowerSurge => UP,
        K::VoltageSag => DOWN,
        K::Deterioration | K::Desaturation => WORSE,
        K::ProbeOff(ProbeFault::Missing) => &["missing"],
        K::LeadsOff => &["signal_lost", "noisy_signal"],
        K::VentricularBeats => VENTRICULAR,
        K::Hypoglycaemia => LOW_GLUCOSE,
        K::UrgentReport | K::AlarmingNote => return true,
        K::Fall => &["fall_suggested"],
        K::BedExit => &["out_of_bed"],
        K::Immobility => &["immobile"],
        // One that is not known here is told by nothing.
        _ => &[],
    };
    labels.contains(&label)
}

/// Whether a finding with this label comes of such an incident though it does not tell of it: who falls at night was out of bed.
pub(super) fn comes_of(kind: IncidentKind, label: &str) -> bool {
    use IncidentKind as K;
    let labels: &[&str] = match kind {
        // On the way there or back a figure moves the other way.
        K::AirSensorFault(_) | K::NoiseEvent | K::PowerSurge | K::VoltageSag => ANY_WAY,
        // A heart in trouble beats fast.
        K::Deterioration | K::Desaturation => &["fast_rhythm"],
        // Every third beat comes early.
        K::VentricularBeats => &["irregular_rhythm"],
        K::Fall => &["out_of_bed", "immobile"],
        _ => &[],
    };
    labels.contains(&label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_must_say_what_happened() {
        assert!(tells(IncidentKind::Fall, "fall_suggested"));
        assert!(!tells(IncidentKind::Fall, "out_of_bed") && comes_of(IncidentKind::Fall, "out_of_bed"));
        assert!(!tells(IncidentKind::Desaturation, "supraventricular_beats"));
        assert!(!comes_of(IncidentKind::Desaturation, "supraventricular_beats"));
        assert!(!tells(IncidentKind::VoltageSag, "spike") && comes_of(IncidentKind::VoltageSag, "spike"));
        assert!(!comes_of(IncidentKind::BedExit, "fall_suggested"), "nobody fell");
    }
}
