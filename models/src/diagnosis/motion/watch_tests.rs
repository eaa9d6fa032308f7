//! Tests of the watch, epoch by epoch, with what the network would say given.

use super::*;
use crate::diagnosis::motion::epoch::FEATURES;
use crate::diagnosis::motion::tests::axes;

const BACK: [f64; 3] = [0.0, 0.0, 1.0];
const SIDE: [f64; 3] = [0.0, 1.0, 0.0];
const UPRIGHT: [f64; 3] = [1.0, 0.0, 0.0];
/// Epochs of an hour.
const HOURLY: i64 = 360;

fn settings() -> Settings {
    Settings { fall: 0.5, immobile_hours: 4.0, night: (22.0, 6.0), utc_offset_hours: 0.0 }
}

fn epoch(number: i64, up: [f64; 3]) -> Epoch {
    Epoch { number, up, features: [0.0; FEATURES], movement: 0.0, still: 1.0, peak: 1.0, quietest: 0.003 }
}

/// Shows epochs; gives the labels with the number of the epoch that raised them.
fn show(
    watch: &mut Watch,
    epochs: impl IntoIterator<Item = (i64, [f64; 3], Activity, f64)>,
) -> Vec<(i64, &'static str)> {
    let axes = Axes::of(&axes()).unwrap();
    let mut all = Vec::new();
    for (number, up, activity, fall) in epochs {
        let mut sightings = Vec::new();
        watch.see(&Judged { epoch: &epoch(number, up), activity, fall }, &axes, &mut sightings);
        for sighting in sightings {
            assert!(sighting.text.contains("suggests") || sighting.text.contains("Suggests"));
            assert!((sighting.contributions.iter().map(|part| part.share).sum::<f64>() - 1.0).abs() < 1e-6);
            all.push((number, sighting.label));
        }
    }
    all
}

#[test]
fn a_fall_needs_an_impact_and_somebody_who_lies() {
    let fall = (1, UPRIGHT, Activity::Falling, 0.9);
    let after = |what: [Activity; 2]| [(2, BACK, what[0], 0.0), (3, BACK, what[1], 0.0)];
    let said = |what| {
        let mut watch = Watch::new(settings());
        show(&mut watch, [(0, UPRIGHT, Activity::Walking, 0.0), fall].into_iter().chain(after(what)))
    };
    assert_eq!(said([Activity::Lying, Activity::Lying]), [(3, "fall_suggested")]);
    assert_eq!(said([Activity::Falling, Activity::Lying]), [(3, "fall_suggested")]);
    assert!(said([Activity::Lying, Activity::Walking]).is_empty(), "up again at once");
    assert!(said([Activity::Sitting, Activity::Sitting]).is_empty(), "a hard seat");
    let mut watch = Watch::new(settings());
    let weak = [(1, UPRIGHT, Activity::Lying, 0.49), (2, BACK, Activity::Lying, 0.0), (3, BACK, Activity::Lying, 0.0)];
    assert!(show(&mut watch, weak).is_empty(), "below the threshold");
}

#[test]
fn four_hours_without_a_turn_are_said_and_again_after_two() {
    let mut watch = Watch::new(settings());
    let lying = |epochs: std::ops::Range<i64>, up| epochs.map(move |number| (number, up, Activity::Lying, 0.0));
    let said = show(&mut watch, lying(0..7 * HOURLY, BACK));
    // The epoch that ends four hours after the first began is number 1,439.
    assert_eq!(said, [(4 * HOURLY - 1, "immobile"), (6 * HOURLY - 1, "immobile")]);
    let mut watch = Watch::new(settings());
    let turned = lying(0..3 * HOURLY, BACK).chain(lying(3 * HOURLY..6 * HOURLY, SIDE));
    assert!(show(&mut watch, turned).is_empty(), "turned after three hours");
    // A single odd epoch is no turn; two of sitting are.
    let with = |sitting: i64| {
        let odd = (100..100 + sitting).map(|number| (number, UPRIGHT, Activity::Sitting, 0.0));
        lying(0..100, BACK).chain(odd).chain(lying(100 + sitting..4 * HOURLY + 50, BACK))
    };
    assert_eq!(show(&mut Watch::new(settings()), with(1)).len(), 1);
    assert!(show(&mut Watch::new(settings()), with(2)).is_empty());
}

#[test]
fn a_patch_that_nobody_breathes_under_is_off() {
    let axes = Axes::of(&axes()).unwrap();
    let mut watch = Watch::new(settings());
    let mut sightings = Vec::new();
    for number in 0..6 * HOURLY {
        let epoch = Epoch { quietest: 0.000_5, ..epoch(number, BACK) };
        watch.see(&Judged { epoch: &epoch, activity: Activity::Lying, fall: 0.0 }, &axes, &mut sightings);
    }
    assert!(sightings.is_empty());
}

#[test]
fn leaving_the_bed_is_said_at_night_and_once() {
    // 1970-01-01 00:00 UTC is night; 12:00 is not.
    let rise = |from: i64, lying: i64| {
        let bed = (from..from + lying).map(|number| (number, BACK, Activity::Lying, 0.0));
        let edge = (0..2).map(move |i| (from + lying + i, UPRIGHT, Activity::Sitting, 0.0));
        let walk = (2..30).map(move |i| (from + lying + i, UPRIGHT, Activity::Walking, 0.0));
        bed.chain(edge).chain(walk)
    };
    assert_eq!(show(&mut Watch::new(settings()), rise(0, 60)), [(63, "out_of_bed")]);
    assert!(show(&mut Watch::new(settings()), rise(0, 59)).is_empty(), "not in bed for ten minutes");
    assert!(show(&mut Watch::new(settings()), rise(12 * HOURLY, 60)).is_empty(), "at noon");
    let there = Settings { utc_offset_hours: 12.0, ..settings() };
    assert_eq!(show(&mut Watch::new(there), rise(12 * HOURLY, 60)).len(), 1, "midnight there");
}

#[test]
fn it_survives_a_restart() {
    let mut watch = Watch::new(settings());
    show(&mut watch, (0..3 * HOURLY).map(|number| (number, BACK, Activity::Lying, 0.0)));
    show(&mut watch, [(3 * HOURLY, BACK, Activity::Falling, 0.9)]);
    let mut writer = Writer::new(1);
    watch.write(&mut writer);
    let bytes = writer.finish();
    let mut reader = Reader::new("activity", 1, &bytes).unwrap();
    let mut again = Watch::read(settings(), &mut reader).unwrap();
    assert_eq!(again, watch);
    let rest = || (3 * HOURLY + 1..5 * HOURLY).map(|number| (number, BACK, Activity::Lying, 0.0));
    let said = show(&mut watch, rest());
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(show(&mut again, rest()), said);
}

#[test]
fn options_out_of_range_are_refused() {
    let mut card = crate::catalog::card(super::super::activity::NAME, None).unwrap();
    assert!(Settings::of(&card).is_ok());
    card.options.insert(String::from("night_from_hour"), 25.0);
    assert!(Settings::of(&card).unwrap_err().to_string().contains("night_from_hour"));
}
