//! The points of the NEWS2 chart, for values in the chart's steps.

/// Breaths a minute.
pub fn respiration(rate: f64) -> u32 {
    match rate {
        r if r <= 8.0 => 3,
        r if r <= 11.0 => 1,
        r if r <= 20.0 => 0,
        r if r <= 24.0 => 2,
        _ => 3,
    }
}

/// Oxygen saturation in %, scale 1.
pub fn spo2_scale_1(percent: f64) -> u32 {
    match percent {
        p if p <= 91.0 => 3,
        p if p <= 93.0 => 2,
        p if p <= 95.0 => 1,
        _ => 0,
    }
}

/// Oxygen saturation in %, scale 2 (target 88 to 92 %): above the target it counts only on oxygen.
pub fn spo2_scale_2(percent: f64, on_oxygen: bool) -> u32 {
    match percent {
        p if p <= 83.0 => 3,
        p if p <= 85.0 => 2,
        p if p <= 87.0 => 1,
        p if p <= 92.0 || !on_oxygen => 0,
        p if p <= 94.0 => 1,
        p if p <= 96.0 => 2,
        _ => 3,
    }
}

/// Supplemental oxygen.
pub fn oxygen(on_oxygen: bool) -> u32 {
    if on_oxygen { 2 } else { 0 }
}

/// Systolic blood pressure in mmHg.
pub fn systolic(pressure: f64) -> u32 {
    match pressure {
        p if p <= 90.0 => 3,
        p if p <= 100.0 => 2,
        p if p <= 110.0 => 1,
        p if p <= 219.0 => 0,
        _ => 3,
    }
}

/// Beats a minute.
pub fn heart_rate(rate: f64) -> u32 {
    match rate {
        r if r <= 40.0 => 3,
        r if r <= 50.0 => 1,
        r if r <= 90.0 => 0,
        r if r <= 110.0 => 1,
        r if r <= 130.0 => 2,
        _ => 3,
    }
}

/// Alert, or one of new confusion, voice, pain, unresponsive.
pub fn consciousness(alert: bool) -> u32 {
    if alert { 0 } else { 3 }
}

/// Degrees Celsius.
pub fn temperature(degrees: f64) -> u32 {
    match degrees {
        t if t <= 35.0 => 3,
        t if t <= 36.0 => 1,
        t if t <= 38.0 => 0,
        t if t <= 39.0 => 1,
        _ => 2,
    }
}
