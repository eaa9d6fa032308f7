//! Tests of NEWS2, boundary by boundary.

use std::sync::Arc;

use nearside_schemas::{FieldKind, FieldPolicy, FieldValue, Personal};

use super::*;

fn fields(names: &[&str]) -> Vec<FieldSpec> {
    names
        .iter()
        .map(|name| FieldSpec {
            name: FieldName::new(name).unwrap(),
            kind: if *name == "consciousness" { FieldKind::Text } else { FieldKind::Number },
            unit: None,
            policy: FieldPolicy::Clear,
        })
        .collect()
}

const NAMES: [&str; 8] =
    ["heart_rate", "respiration", "spo2", "oxygen", "systolic", "temperature", "consciousness", "spo2_scale"];

fn model() -> News2 {
    News2::new(&crate::catalog::card("news2", None).unwrap()).unwrap()
}

fn text(text: &str) -> FieldValue {
    FieldValue::Text(Personal::new(Arc::from(text)))
}

/// A patient with nothing to remark.
fn well() -> Vec<FieldValue> {
    let number = FieldValue::Number;
    vec![
        number(70.0),
        number(16.0),
        number(98.0),
        number(0.0),
        number(120.0),
        number(37.0),
        text("A"),
        FieldValue::Missing,
    ]
}

fn with(changes: &[(&str, FieldValue)]) -> Vec<FieldValue> {
    let mut values = well();
    for (name, value) in changes {
        values[NAMES.iter().position(|other| other == name).unwrap()] = value.clone();
    }
    values
}

fn judge(state: &mut dyn RowState, secs: i64, values: &[FieldValue]) -> RowVerdict {
    let mut inputs = Vec::new();
    assert_eq!(state.take(&Row { time: Timestamp::from_secs(secs), values }, &mut inputs), 0);
    state.judge(&[])
}

fn once(values: &[FieldValue]) -> RowVerdict {
    judge(model().new_state(&fields(&NAMES)).as_mut(), 0, values)
}

fn total(verdict: &RowVerdict) -> u32 {
    (verdict.score * 20.0).round() as u32
}

/// Every boundary of the chart: field, value, points.
#[test]
fn every_boundary_of_the_chart() {
    let table: &[(&str, f64, u32)] = &[
        ("respiration", 0.0, 3),
        ("respiration", 8.0, 3),
        ("respiration", 9.0, 1),
        ("respiration", 11.0, 1),
        ("respiration", 12.0, 0),
        ("respiration", 20.0, 0),
        ("respiration", 21.0, 2),
        ("respiration", 24.0, 2),
        ("respiration", 25.0, 3),
        ("respiration", 60.0, 3),
        ("spo2", 70.0, 3),
        ("spo2", 91.0, 3),
        ("spo2", 92.0, 2),
        ("spo2", 93.0, 2),
        ("spo2", 94.0, 1),
        ("spo2", 95.0, 1),
        ("spo2", 96.0, 0),
        ("spo2", 100.0, 0),
        ("oxygen", 0.0, 0),
        ("oxygen", 1.0, 2),
        ("systolic", 50.0, 3),
        ("systolic", 90.0, 3),
        ("systolic", 91.0, 2),
        ("systolic", 100.0, 2),
        ("systolic", 101.0, 1),
        ("systolic", 110.0, 1),
        ("systolic", 111.0, 0),
        ("systolic", 219.0, 0),
        ("systolic", 220.0, 3),
        ("systolic", 300.0, 3),
        ("heart_rate", 0.0, 3),
        ("heart_rate", 40.0, 3),
        ("heart_rate", 41.0, 1),
        ("heart_rate", 50.0, 1),
        ("heart_rate", 51.0, 0),
        ("heart_rate", 90.0, 0),
        ("heart_rate", 91.0, 1),
        ("heart_rate", 110.0, 1),
        ("heart_rate", 111.0, 2),
        ("heart_rate", 130.0, 2),
        ("heart_rate", 131.0, 3),
        ("heart_rate", 220.0, 3),
        ("temperature", 30.0, 3),
        ("temperature", 35.0, 3),
        ("temperature", 35.1, 1),
        ("temperature", 36.0, 1),
        ("temperature", 36.1, 0),
        ("temperature", 38.0, 0),
        ("temperature", 38.1, 1),
        ("temperature", 39.0, 1),
        ("temperature", 39.1, 2),
        ("temperature", 42.0, 2),
    ];
    for (field, value, points) in table {
        let verdict = once(&with(&[(field, FieldValue::Number(*value))]));
        assert_eq!(total(&verdict), *points, "{field} {value}");
        assert_eq!(verdict.flagged, *points == 3, "{field} {value}");
    }
}

#[test]
fn scale_2_counts_high_saturation_only_on_oxygen() {
    let table: &[(f64, u32, u32)] = &[
        (83.0, 3, 3),
        (84.0, 2, 2),
        (85.0, 2, 2),
        (86.0, 1, 1),
        (87.0, 1, 1),
        (88.0, 0, 0),
        (92.0, 0, 0),
        (93.0, 0, 1),
        (94.0, 0, 1),
        (95.0, 0, 2),
        (96.0, 0, 2),
        (97.0, 0, 3),
        (100.0, 0, 3),
    ];
    for (percent, on_air, on_oxygen) in table {
        let scale = ("spo2_scale", FieldValue::Number(2.0));
        let spo2 = ("spo2", FieldValue::Number(*percent));
        assert_eq!(total(&once(&with(&[scale.clone(), spo2.clone()]))), *on_air, "{percent} on air");
        let oxygen = ("oxygen", FieldValue::Number(1.0));
        assert_eq!(total(&once(&with(&[scale, spo2, oxygen]))), on_oxygen + 2, "{percent} on oxygen");
    }
}

#[test]
fn the_chosen_scale_holds_until_another_comes() {
    let model = model();
    let mut state = model.new_state(&fields(&NAMES));
    let spo2 = || ("spo2", FieldValue::Number(90.0));
    assert_eq!(total(&judge(state.as_mut(), 0, &with(&[spo2()]))), 3);
    assert_eq!(total(&judge(state.as_mut(), 1, &with(&[spo2(), ("spo2_scale", FieldValue::Number(2.0))]))), 0);
    assert_eq!(total(&judge(state.as_mut(), 90_000, &with(&[spo2()]))), 0);
    assert_eq!(total(&judge(state.as_mut(), 90_001, &with(&[spo2(), ("spo2_scale", FieldValue::Number(7.0))]))), 0);
    assert_eq!(total(&judge(state.as_mut(), 90_002, &with(&[spo2(), ("spo2_scale", FieldValue::Number(1.0))]))), 3);
}

#[test]
fn consciousness_as_letters_or_numbers() {
    for (value, points) in [
        (text("A"), 0),
        (text("C"), 3),
        (text("V"), 3),
        (text("P"), 3),
        (text("U"), 3),
        (text(" a "), 0),
        (text("u"), 3),
        (FieldValue::Number(0.0), 0),
        (FieldValue::Number(1.0), 3),
        // Not one of the five letters: not known, rather than guessed.
        (text("fine"), 0),
        (text(""), 0),
    ] {
        assert_eq!(total(&once(&with(&[("consciousness", value.clone())]))), points, "{value:?}");
    }
}

#[test]
fn totals_have_the_words_of_the_chart() {
    let number = FieldValue::Number;
    type Case<'a> = (&'a [(&'a str, FieldValue)], u32, &'a str, Severity);
    let cases: &[Case<'_>] = &[
        (&[("respiration", number(8.0))], 3, "news2_low_medium", Severity::Warning),
        (&[("respiration", number(8.0)), ("heart_rate", number(95.0))], 4, "news2_low_medium", Severity::Warning),
        (
            &[("respiration", number(22.0)), ("heart_rate", number(120.0)), ("spo2", number(95.0))],
            5,
            "news2_medium",
            Severity::Warning,
        ),
        (&[("consciousness", text("V")), ("spo2", number(91.0))], 6, "news2_medium", Severity::Warning),
        (
            &[("consciousness", text("V")), ("spo2", number(91.0)), ("systolic", number(110.0))],
            7,
            "news2_high",
            Severity::Critical,
        ),
        (
            &[
                ("consciousness", text("U")),
                ("spo2", number(80.0)),
                ("systolic", number(70.0)),
                ("oxygen", number(1.0)),
                ("heart_rate", number(140.0)),
                ("temperature", number(34.0)),
                ("respiration", number(30.0)),
            ],
            20,
            "news2_high",
            Severity::Critical,
        ),
    ];
    for (changes, points, label, severity) in cases {
        let verdict = once(&with(changes));
        let sighting = &verdict.sightings[0];
        assert_eq!((total(&verdict), sighting.label, sighting.severity), (*points, *label, *severity));
        assert!(verdict.flagged && verdict.score >= verdict.threshold, "{label}");
        assert!(sighting.text.contains("suggests") && !sighting.text.contains("diagnos"), "{}", sighting.text);
        let shares: f64 = sighting.contributions.iter().map(|part| part.share).sum();
        assert_eq!(shares, f64::from(*points), "the parts add up to the total");
        assert!(sighting.contributions.is_sorted_by(|a, b| a.share >= b.share));
    }
    let four = once(&with(&[("respiration", number(22.0)), ("heart_rate", number(120.0))]));
    assert!(!four.flagged && four.sightings.is_empty() && total(&four) == 4);
}

#[test]
fn partial_messages_are_carried_forward_and_expire() {
    let model = model();
    let mut state = model.new_state(&fields(&NAMES));
    let only = |name: &str, value: f64| {
        let mut values = vec![FieldValue::Missing; NAMES.len()];
        values[NAMES.iter().position(|other| *other == name).unwrap()] = FieldValue::Number(value);
        values
    };
    assert_eq!(total(&judge(state.as_mut(), 0, &only("respiration", 26.0))), 3);
    assert_eq!(total(&judge(state.as_mut(), 60, &only("oxygen", 1.0))), 5);
    let seven = judge(state.as_mut(), 3_600, &only("heart_rate", 120.0));
    let sighting = &seven.sightings[0];
    assert_eq!(sighting.label, "news2_high");
    assert!(
        sighting.text.contains("at least 7")
            && sighting.text.contains("Not known: spo2, systolic, consciousness, temperature.")
    );
    assert_eq!(sighting.contributions[0].note.as_deref(), Some("observed 3600 s earlier"));
    // Respiration is older than an hour now; oxygen, entered by a person, still counts.
    assert_eq!(total(&judge(state.as_mut(), 3_601, &only("heart_rate", 120.0))), 4);
    assert_eq!(total(&judge(state.as_mut(), 60 + 12 * 3_600 + 1, &only("heart_rate", 120.0))), 2);
}

#[test]
fn a_late_row_does_not_replace_a_newer_observation() {
    let model = model();
    let mut state = model.new_state(&fields(&NAMES));
    judge(state.as_mut(), 100, &well());
    let late = judge(state.as_mut(), 50, &with(&[("heart_rate", FieldValue::Number(180.0))]));
    assert_eq!(total(&late), 0);
    let same = judge(state.as_mut(), 100, &with(&[("heart_rate", FieldValue::Number(180.0))]));
    assert_eq!(total(&same), 3, "of equal times the later arrival counts");
}

#[test]
fn a_broken_sensor_is_missing_not_scored() {
    for (field, value) in [
        ("temperature", 98.6),
        ("spo2", 0.97),
        ("spo2", 127.0),
        ("systolic", 0.0),
        ("heart_rate", -5.0),
        ("oxygen", 15.0),
    ] {
        let verdict = once(&with(&[(field, FieldValue::Number(value)), ("consciousness", text("V"))]));
        assert_eq!(total(&verdict), 3, "{field} {value}");
        assert!(verdict.sightings[0].text.ends_with(&format!("Not known: {field}.")), "{}", verdict.sightings[0].text);
    }
}

#[test]
fn the_text_repeats_no_observation() {
    let verdict = once(&with(&[("systolic", FieldValue::Number(83.0)), ("temperature", FieldValue::Number(34.6))]));
    let text = &verdict.sightings[0].text;
    assert!(!text.contains("83") && !text.contains("34.6"), "{text}");
}

#[test]
fn what_it_accepts() {
    let model = model();
    assert!(model.accepts(&fields(&NAMES)).is_ok());
    assert!(model.accepts(&fields(&["spo2", "respiration", "heart_rate"])).is_ok());
    assert!(model.accepts(&fields(&["spo2", "heart_rate"])).is_err());
    let mut wrong = fields(&NAMES);
    wrong[0].kind = FieldKind::Text;
    assert!(model.accepts(&wrong).is_err());
}

#[test]
fn a_field_in_another_unit_than_the_charts_is_refused() {
    let accepts = |name: &str, unit: &str| {
        let mut fields = fields(&NAMES);
        let field = fields.iter_mut().find(|field| field.name.as_str() == name).unwrap();
        field.unit = Some(unit.to_owned());
        model().accepts(&fields).map_err(|error| error.to_string())
    };
    for (name, unit) in
        [("heart_rate", "bpm"), ("spo2", "%"), ("systolic", "mmHg"), ("temperature", "Cel"), ("oxygen", "1")]
    {
        assert_eq!(accepts(name, unit), Ok(()));
    }
    for (name, unit) in [("heart_rate", "Hz"), ("spo2", "1"), ("systolic", "kPa"), ("temperature", "[degF]")] {
        let why = accepts(name, unit).unwrap_err();
        assert!(why.contains(name) && why.contains(unit), "{why}");
    }
}

#[test]
fn a_restored_state_goes_on_as_if_nothing_had_happened() {
    let model = model();
    let spec = fields(&NAMES);
    let mut one = model.new_state(&spec);
    judge(one.as_mut(), 0, &with(&[("systolic", FieldValue::Number(85.0)), ("spo2_scale", FieldValue::Number(2.0))]));
    let bytes = one.snapshot();
    let mut two = model.restore(&spec, &bytes).unwrap();
    for secs in [10, 5, 4_000, 90_000] {
        let values = with(&[("systolic", FieldValue::Missing), ("spo2", FieldValue::Number(89.0))]);
        assert_eq!(judge(one.as_mut(), secs, &values), judge(two.as_mut(), secs, &values));
    }
    for cut in 0..bytes.len() {
        assert!(model.restore(&spec, &bytes[..cut]).is_err());
    }
}

#[test]
fn a_rise_below_the_charts_thresholds_is_said_with_its_past() {
    let number = FieldValue::Number;
    let model = model();
    let mut state = model.new_state(&fields(&NAMES));
    // Checks by a nurse: 0 at first, 1 for the pulse an hour later, then 1 + 2 + 1 for pulse, breath and pressure.
    assert!(!judge(state.as_mut(), 0, &well()).flagged);
    assert!(!judge(state.as_mut(), 3_600, &with(&[("heart_rate", number(95.0))])).flagged);
    let worse = [("heart_rate", number(95.0)), ("respiration", number(22.0)), ("systolic", number(105.0))];
    let verdict = judge(state.as_mut(), 7_200, &with(&worse));
    assert_eq!(total(&verdict), 4);
    let [rise] = verdict.sightings.as_slice() else { panic!("{verdict:?}") };
    assert_eq!((rise.label, rise.severity), ("news2_rising", Severity::Warning));
    assert_eq!(verdict.threshold, 3.0 / 20.0, "three points above the lowest, which was 0");
    assert!(
        rise.text.contains("suggests") && rise.text.contains("0 (2.0 h before), 1 (60 min before)"),
        "{}",
        rise.text
    );
    assert_eq!(rise.contributions[0].field.as_str(), "respiration");
    assert_eq!(rise.contributions[0].note.as_deref(), Some("0 points 2.0 h before"));
    // A point more is the chart's own word: one finding, not two; and it carries the past.
    let verdict =
        judge(state.as_mut(), 9_000, &with(&[worse[0].clone(), worse[1].clone(), ("systolic", number(95.0))]));
    assert_eq!(verdict.sightings.iter().map(|s| s.label).collect::<Vec<_>>(), ["news2_medium"]);
    assert!(verdict.sightings[0].text.contains("Earlier totals") && verdict.sightings[0].text.contains("rising by"));
    // Back to 3: falling is no alarm.
    let better = judge(state.as_mut(), 10_800, &with(&worse[..2]));
    assert_eq!((total(&better), better.flagged), (3, false));
}

#[test]
fn the_trend_survives_a_restart_and_states_without_one_are_read() {
    let number = FieldValue::Number;
    let model = model();
    let mut state = model.new_state(&fields(&NAMES));
    judge(state.as_mut(), 0, &well());
    let bytes = state.snapshot();
    let worse = with(&[("heart_rate", number(115.0)), ("respiration", number(22.0))]);
    let mut again = model.restore(&fields(&NAMES), &bytes).unwrap();
    let verdict = judge(again.as_mut(), 3_600, &worse);
    assert_eq!(verdict, judge(state.as_mut(), 3_600, &worse));
    assert_eq!(verdict.sightings.len(), 1);
    // Version 1 ended with the observations: version byte, time, and eight of them with 17 bytes each or 1.
    let known = 7;
    let mut first = bytes[..1 + 8 + 17 * known + (8 - known)].to_vec();
    first[0] = 1;
    let mut old = model.restore(&fields(&NAMES), &first).unwrap();
    let verdict = judge(old.as_mut(), 3_600, &worse);
    assert_eq!((total(&verdict), verdict.flagged), (4, false), "it knows no past");
    assert!(model.restore(&fields(&NAMES), &bytes[..bytes.len() - 1]).is_err());
}

#[test]
fn options_that_are_unknown_or_out_of_range_are_refused() {
    let refused = |name: &str, value: f64| {
        let mut card = crate::catalog::card("news2", None).unwrap();
        card.options.insert(name.to_owned(), value);
        crate::catalog::build(card, &[]).err().map(|error| error.to_string())
    };
    assert!(refused("trend_hours", 100.0).unwrap().contains("0.5 to 24"));
    assert!(refused("trend_days", 1.0).unwrap().contains("trend_hours"));
    assert_eq!(refused("trend_hours", 12.0), None);
}

/// The minutes at which a label begins, of saturations a minute apart.
fn begins(state: &mut dyn RowState, from: i64, saturations: impl IntoIterator<Item = f64>) -> Vec<(i64, &'static str)> {
    let mut begun = Vec::new();
    for (minute, spo2) in (from..).zip(saturations) {
        let verdict = judge(state, 60 * minute, &with(&[("spo2", FieldValue::Number(spo2))]));
        begun.extend(verdict.sightings.iter().filter(|one| one.begins).map(|one| (minute, one.label)));
    }
    begun
}

#[test]
fn a_second_fall_of_oxygen_is_another_one_and_a_total_that_flaps_is_not() {
    use std::iter::repeat_n;
    let model = model();
    let mut state = model.new_state(&fields(&NAMES));
    let falls = repeat_n(98.0, 30).chain(repeat_n(88.0, 10)).chain(repeat_n(98.0, 20)).chain(repeat_n(88.0, 5));
    assert_eq!(begins(state.as_mut(), 0, falls), [(30, "news2_low_medium"), (60, "news2_low_medium")]);
    // Better for less than the ten minutes, again and again.
    let flaps = (0..60).map(|minute| if minute % 9 < 8 { 98.0 } else { 88.0 });
    assert_eq!(begins(state.as_mut(), 65, flaps), []);
    // A state goes on where it was, and one of before knows of no end.
    let calm = begins(state.as_mut(), 125, repeat_n(98.0, 12));
    assert_eq!(calm, []);
    let snapshot = state.snapshot();
    let mut restored = model.restore(&fields(&NAMES), &snapshot).unwrap();
    assert_eq!(begins(restored.as_mut(), 137, [88.0]), [(137, "news2_low_medium")]);
    let spells = 17 * Class::ALL.len();
    let mut before = snapshot[..snapshot.len() - spells].to_vec();
    before[0] = 2;
    let mut restored = model.restore(&fields(&NAMES), &before).unwrap();
    assert_eq!(begins(restored.as_mut(), 137, [88.0]), []);
}

#[test]
fn on_the_way_back_from_high_nothing_begins() {
    let mut state = model().new_state(&fields(&NAMES));
    let mut begun = Vec::new();
    for minute in 0..100_i64 {
        let (spo2, rate) = match minute {
            // Reached at once, then falling step by step.
            30..=34 | 70..=74 => (88.0, 135.0),
            35..=50 | 75..=90 => (88.0, 100.0),
            _ => (98.0, 70.0),
        };
        let values = with(
            &[("spo2", spo2), ("heart_rate", rate), ("respiration", if rate > 130.0 { 22.0 } else { 16.0 })]
                .map(|(name, value)| (name, FieldValue::Number(value))),
        );
        let verdict = judge(state.as_mut(), 60 * minute, &values);
        begun.extend(verdict.sightings.iter().filter(|one| one.begins).map(|one| (minute, one.label)));
    }
    assert_eq!(begun, [(30, "news2_high"), (70, "news2_high")]);
}
