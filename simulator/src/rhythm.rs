//! The day and the week: how busy a city is, when people sleep. Local time is UTC: the site stands in that zone.

use nearside_schemas::Timestamp;

/// The hour of the day with its fraction, in `[0, 24)`.
pub(crate) fn hour(at: Timestamp) -> f64 {
    (at.as_micros().rem_euclid(86_400_000_000)) as f64 / 3.6e9
}

/// Whether it is Saturday or Sunday; 1970-01-01 was a Thursday.
pub(crate) fn weekend(at: Timestamp) -> bool {
    let weekday = (at.as_micros().div_euclid(86_400_000_000) + 3).rem_euclid(7);
    weekday >= 5
}

/// A bell around `centre` on the 24 hour circle, 1 at its top.
pub(crate) fn bell(hour: f64, centre: f64, width: f64) -> f64 {
    let distance = (hour - centre + 36.0).rem_euclid(24.0) - 12.0;
    (-0.5 * (distance / width).powi(2)).exp()
}

/// A smooth wave over the day, 1 at hour `top` and -1 twelve hours away.
pub(crate) fn daily(hour: f64, top: f64) -> f64 {
    ((hour - top) / 24.0 * std::f64::consts::TAU).cos()
}

/// From 0 (deep night) to about 1 (rush hour): how much of the road is asked for.
pub(crate) fn road_demand(at: Timestamp) -> f64 {
    let hour = hour(at);
    if weekend(at) {
        0.12 + 0.55 * bell(hour, 14.5, 4.0)
    } else {
        0.12 + 0.70 * bell(hour, 8.0, 1.2) + 0.75 * bell(hour, 17.5, 1.7) + 0.42 * bell(hour, 12.8, 3.2)
    }
}

/// From 0 to 1: how many people are at work in offices.
pub(crate) fn office_hours(at: Timestamp) -> f64 {
    let hour = hour(at);
    let rise = 1.0 / (1.0 + (-(hour - 7.8) * 2.2).exp());
    let fall = 1.0 / (1.0 + ((hour - 18.2) * 1.6).exp());
    rise * fall * if weekend(at) { 0.18 } else { 1.0 }
}

/// From 0 to 1: how high the sun stands.
pub(crate) fn sunlight(at: Timestamp) -> f64 {
    daily(hour(at), 12.5).max(0.0)
}

/// From 0 to 1: how deep in the night people sleep.
pub(crate) fn night(at: Timestamp) -> f64 {
    bell(hour(at), 3.0, 2.6)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2024-01-01, a Monday, at this day and hour.
    fn at(day: i64, hour: f64) -> Timestamp {
        Timestamp::from_micros(1_704_067_200_000_000 + day * 86_400_000_000 + (hour * 3.6e9) as i64)
    }

    #[test]
    fn the_calendar_is_right() {
        assert_eq!(hour(at(0, 17.5)), 17.5);
        let weekends: Vec<bool> = (0..7).map(|day| weekend(at(day, 12.0))).collect();
        assert_eq!(weekends, [false, false, false, false, false, true, true]);
        assert!(!weekend(Timestamp::from_secs(0)) && !weekend(Timestamp::from_secs(-1)));
    }

    #[test]
    fn rush_hours_are_busy_and_nights_are_not() {
        assert!(road_demand(at(1, 8.0)) > 2.0 * road_demand(at(1, 5.0)));
        assert!(road_demand(at(1, 8.0)) > road_demand(at(5, 8.0)));
        assert!(road_demand(at(1, 3.0)) < 0.2);
        assert!(office_hours(at(2, 11.0)) > 0.9 && office_hours(at(2, 2.0)) < 0.01);
        assert!((bell(23.5, 0.5, 1.0) - bell(1.5, 0.5, 1.0)).abs() < 1e-12, "the day is a circle");
    }
}
