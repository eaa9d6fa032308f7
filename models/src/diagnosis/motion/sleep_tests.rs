//! Tests of sleep: the published formula, minutes, rests.

use super::*;

#[test]
fn the_published_formula_by_hand() {
    // 0.001 · (106·0 + 54·0 + 58·0 + 76·1 + 230·3 + 74·2 + 67·0) = 0.914: sleep.
    assert!((cole_kripke([0.0, 0.0, 0.0, 1.0, 3.0, 2.0, 0.0]) - 0.914).abs() < 1e-12);
    // One more hundred counts in the minute itself: 1.144, wake.
    assert!((cole_kripke([0.0, 0.0, 0.0, 1.0, 4.0, 2.0, 0.0]) - 1.144).abs() < 1e-12);
    assert_eq!(cole_kripke([0.0; 7]), 0.0);
    assert!((cole_kripke([1e9; 7]) - 0.001 * 300.0 * 665.0).abs() < 1e-9, "counts are capped");
}

fn epoch(number: i64, movement: f64) -> Epoch {
    let features = [0.0; crate::diagnosis::motion::epoch::FEATURES];
    Epoch { number, up: [0.2, 0.0, 0.98], features, movement, still: 1.0, peak: 1.0, quietest: 0.003 }
}

#[test]
fn a_minute_is_scored_when_two_more_have_passed() {
    let mut minutes = Minutes::default();
    let mut scored = Vec::new();
    for number in 0..60 {
        // Minute m moves m in all.
        scored.extend(minutes.push(&epoch(number, number.div_euclid(6) as f64 / 6.0)));
    }
    // Minute 4 is the first with four before it; minute 9 has not ended.
    let numbers: Vec<i64> = scored.iter().map(|one| one.minute.number).collect();
    assert_eq!(numbers, [4, 5, 6]);
    let around: Vec<f64> = scored[0].around.iter().map(|value| value.round()).collect();
    assert_eq!(around, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert!(minutes.push(&epoch(600, 0.0)).is_some_and(|one| one.minute.number == 7), "minute 9 ended");
    for number in 601..636 {
        assert_eq!(minutes.push(&epoch(number, 0.0)), None, "after a pause it begins anew");
    }
}

/// Minutes of `(how many, lying, asleep)`; gives the rests that ended.
fn rests(parts: &[(u32, bool, bool)]) -> Vec<RestSummary> {
    let (mut rest, mut number, mut ended) = (None, 0, Vec::new());
    for (count, is_lying, is_asleep) in parts {
        for _ in 0..*count {
            ended.extend(Rest::push(&mut rest, number, *is_lying, *is_asleep));
            number += 1;
        }
    }
    ended
}

#[test]
fn a_rest_is_summed_up_half_an_hour_after_it() {
    let night = [
        (10, false, false),
        (20, true, false),
        (5, true, true),
        (1, true, false),
        (100, true, true),
        (6, true, false),
        (60, true, true),
        (5, true, false),
        (50, true, true),
        (15, true, false),
    ];
    let mut parts = night.to_vec();
    parts.push((29, false, false));
    assert!(rests(&parts).is_empty());
    parts.push((1, false, false));
    let ended = rests(&parts);
    // In bed 20+5+1+100+6+60+5+50+15 = 262. The onset is after 26: five minutes in a row are no onset. The pause of 6 is an awakening,
    // that of 5 is none; awake between: 6 + 5.
    let expected = RestSummary { in_bed: 262, onset: Some(26), asleep: 215, awakenings: 1, awake_between: 11 };
    assert_eq!(ended, [expected]);
    assert!((expected.efficiency() - 215.0 / 262.0).abs() < 1e-12);
}

#[test]
fn a_short_walk_does_not_end_a_rest_and_a_long_hole_does() {
    let ended = rests(&[(120, true, true), (8, false, true), (120, true, true), (30, false, false)]);
    assert_eq!((ended[0].in_bed, ended[0].asleep, ended[0].awakenings), (248, 240, 1));
    let mut rest = None;
    for number in 0..100 {
        assert_eq!(Rest::push(&mut rest, number, true, true), None);
    }
    assert_eq!(Rest::push(&mut rest, 110, true, true), None);
    let ended = Rest::push(&mut rest, 200, true, true).unwrap();
    assert_eq!(
        (ended.in_bed, ended.asleep, ended.awakenings, ended.awake_between),
        (101, 101, 0, 0),
        "ten minutes are not known"
    );
    assert_eq!(rest.map(|rest| rest.minutes), Some(1), "another has begun");
}

#[test]
fn rests_and_minutes_survive_a_restart() {
    let mut minutes = Minutes::default();
    for number in 0..70 {
        minutes.push(&epoch(number, 0.3));
    }
    let mut rest = None;
    for number in 0..50 {
        assert_eq!(Rest::push(&mut rest, number, true, number > 20), None);
    }
    let mut writer = Writer::new(1);
    minutes.write(&mut writer);
    rest.unwrap().write(&mut writer);
    let bytes = writer.finish();
    let mut reader = Reader::new(NAME, 1, &bytes).unwrap();
    assert_eq!(Minutes::read(&mut reader).unwrap(), minutes);
    assert_eq!(Rest::read(&mut reader).unwrap(), rest.unwrap());
    reader.finish().unwrap();
}
