//! A continuous glucose sensor.

use nearside_schemas::Timestamp;

use super::patient::Patient;
use crate::incident::IncidentKind;
use crate::random::{Random, SlowNoise};
use crate::rhythm;

/// Breakfast, lunch and dinner of the ward, in hours.
const MEALS: [f64; 3] = [7.5, 12.2, 17.8];

/// A sensor under one patient's skin.
pub(crate) struct GlucoseSensor {
    last: Timestamp,
    own: SlowNoise,
    /// mg/dL before meals.
    fasting: f64,
    /// How high a meal lifts it, mg/dL.
    rise: f64,
    /// How much later than the ward's time this patient eats, in hours.
    late: f64,
}

impl GlucoseSensor {
    pub(crate) fn new(start: Timestamp, random: &mut Random) -> Self {
        Self {
            last: start,
            own: SlowNoise::new(2_400.0, random),
            fasting: random.between(92.0, 118.0),
            rise: random.between(38.0, 70.0),
            late: random.between(-0.3, 0.6),
        }
    }

    /// A CBOR map `{"ts":secs,"mg_dl":…}` (RFC 8949), glucose in whole mg/dL.
    pub(crate) fn read(&mut self, at: Timestamp, patient: &Patient, random: &mut Random) -> Vec<u8> {
        let own = self.own.step(at.since(self.last).as_secs_f64(), random);
        self.last = at;
        let hour = rhythm::hour(at);
        let eaten: f64 = MEALS.iter().map(|meal| after_meal((hour - meal - self.late).rem_euclid(24.0))).sum();
        let low = patient.level(at, |kind| kind == IncidentKind::Hypoglycaemia);
        let truth = self.fasting + self.rise * eaten + 5.0 * own;
        let glucose = (truth + low * (50.0 - truth) + 1.5 * random.normal()).clamp(20.0, 500.0);
        encode(at, glucose.round() as u64)
    }
}

/// What is left of a meal after some hours: up within 50 minutes, gone after four hours; 1 at its top.
fn after_meal(hours: f64) -> f64 {
    let peak = 50.0 / 60.0;
    let x = hours / peak;
    (x * (1.0 - x).exp()).powi(2)
}

fn encode(at: Timestamp, glucose: u64) -> Vec<u8> {
    let mut out = vec![0xA2];
    cbor_text(&mut out, "ts");
    cbor_unsigned(&mut out, 0x00, u64::try_from(at.as_micros().div_euclid(1_000_000)).unwrap_or(0));
    cbor_text(&mut out, "mg_dl");
    cbor_unsigned(&mut out, 0x00, glucose);
    out
}

fn cbor_text(out: &mut Vec<u8>, text: &str) {
    cbor_unsigned(out, 0x60, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// A head with this major type and argument in its shortest form (RFC 8949 section 4.2.1).
fn cbor_unsigned(out: &mut Vec<u8>, major: u8, n: u64) {
    match (u8::try_from(n), u16::try_from(n), u32::try_from(n)) {
        (Ok(n @ 0..=23), _, _) => out.push(major | n),
        (Ok(n), _, _) => out.extend([major | 24, n]),
        (_, Ok(n), _) => {
            out.push(major | 25);
            out.extend(n.to_be_bytes());
        }
        (_, _, Ok(n)) => {
            out.push(major | 26);
            out.extend(n.to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend(n.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_those_of_the_rfc() {
        // RFC 8949 appendix A.
        let encoded = |n| {
            let mut out = Vec::new();
            cbor_unsigned(&mut out, 0, n);
            out
        };
        assert_eq!(encoded(23), [0x17]);
        assert_eq!(encoded(24), [0x18, 0x18]);
        assert_eq!(encoded(1_000), [0x19, 0x03, 0xE8]);
        assert_eq!(encoded(1_000_000), [0x1A, 0x00, 0x0F, 0x42, 0x40]);
        assert_eq!(encoded(1_000_000_000_000), [0x1B, 0x00, 0x00, 0x00, 0xE8, 0xD4, 0xA5, 0x10, 0x00]);
    }

    #[test]
    fn a_meal_comes_and_goes() {
        assert!(after_meal(0.0) < 0.01 && after_meal(4.5) < 0.05);
        assert!((after_meal(50.0 / 60.0) - 1.0).abs() < 1e-9);
    }
}
