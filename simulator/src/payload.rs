//! Payload building blocks that more than one kind of device uses.

use nearside_schemas::Timestamp;

/// Milliseconds since 1970, as most devices write the time.
pub(crate) fn millis(at: Timestamp) -> i64 {
    at.as_micros().div_euclid(1_000)
}

/// `{"ts":…,"text":"…"}`.
pub(crate) fn text(at: Timestamp, text: &str) -> Vec<u8> {
    serde_json::json!({ "ts": millis(at), "text": text }).to_string().into_bytes()
}

/// A number of thousandths (microvolts as millivolts, say) with three digits. Strips are most of a ward's bytes, and the standard
/// formatting of floating point numbers most of the time they would take.
pub(crate) fn push_thousandths(out: &mut Vec<u8>, n: i32) {
    if n < 0 {
        out.push(b'-');
    }
    let n = n.unsigned_abs();
    let digit = |n: u32| b'0' + (n % 10) as u8;
    if n >= 10_000 {
        out.extend_from_slice((n / 1_000).to_string().as_bytes());
    } else {
        out.push(digit(n / 1_000));
    }
    out.extend_from_slice(&[b'.', digit(n / 100), digit(n / 10), digit(n)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousandths_are_written_with_three_digits() {
        for (n, text) in [(0, "0.000"), (-5, "-0.005"), (1_150, "1.150"), (-12_345, "-12.345"), (10_000, "10.000")] {
            let mut out = Vec::new();
            push_thousandths(&mut out, n);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }
}
