//! The same in every batch and over a restart; contributions are what they say.

use nearside_schemas::{FieldKind, FieldPolicy, FieldValue};

use super::*;
use crate::catalog;

const NAMES: [&str; 7] = ["heart_rate", "respiration", "spo2", "oxygen", "systolic", "temperature", "consciousness"];

fn fields() -> Vec<FieldSpec> {
    let field = |name: &&str| FieldSpec {
        name: FieldName::new(name).unwrap(),
        kind: FieldKind::Number,
        unit: None,
        policy: FieldPolicy::Clear,
    };
    NAMES.iter().map(field).collect()
}

/// A patient whose pulse and breath rise and whose pressure falls from the fourth hour on; a row a minute.
fn values(minute: i64) -> [FieldValue; 7] {
    let worse = (minute - 240).max(0) as f64 / 60.0;
    let wobble = ((minute * 7_919) as f64 * 0.37).sin();
    let numbers = [
        76.0 + 12.0 * worse + 2.0 * wobble,
        15.0 + 2.5 * worse,
        97.0 - worse,
        0.0,
        126.0 - 9.0 * worse,
        37.0 + 0.4 * worse,
        0.0,
    ];
    // The probe is off now and then.
    let off = minute % 97 < 20;
    std::array::from_fn(|i| if off && i == 2 { FieldValue::Missing } else { FieldValue::Number(numbers[i]) })
}

fn judge(
    model: &dyn RowModel,
    state: &mut dyn RowState,
    minutes: std::ops::Range<i64>,
    batch: usize,
) -> Vec<RowVerdict> {
    let all: Vec<i64> = minutes.collect();
    let mut verdicts = Vec::new();
    for part in all.chunks(batch) {
        let (mut inputs, mut outputs, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        for minute in part {
            let time = Timestamp::from_secs(1_704_067_200 + 60 * minute);
            counts.push(state.take(&Row { time, values: &values(*minute) }, &mut inputs));
        }
        model.forward(&inputs, inputs.len() / INPUTS, &mut outputs).unwrap();
        let mut rest = outputs.as_slice();
        for count in counts {
            let (own, others) = rest.split_at(count);
            rest = others;
            verdicts.push(state.judge(own));
        }
    }
    verdicts
}

#[test]
fn every_score_is_the_same_in_every_batch_and_over_a_restart() {
    let model = catalog::load(NAME, None).unwrap();
    let one = judge(model.as_ref(), model.new_state(&fields()).as_mut(), 0..480, 1);
    for batch in [3, 50, 480] {
        assert!(one == judge(model.as_ref(), model.new_state(&fields()).as_mut(), 0..480, batch), "{batch}");
    }
    for restart in [5, 133, 305] {
        let mut state = model.new_state(&fields());
        let mut parts = judge(model.as_ref(), state.as_mut(), 0..restart, 10);
        let bytes = state.snapshot();
        assert!(bytes.len() < 4_096, "{}", bytes.len());
        let mut state = model.restore(&fields(), &bytes).unwrap();
        parts.extend(judge(model.as_ref(), state.as_mut(), restart..480, 10));
        assert!(parts == one, "{restart}");
        assert!(model.restore(&fields(), &bytes[..bytes.len() - 1]).is_err());
    }
}

#[test]
fn it_is_silent_for_an_hour_and_speaks_once_when_a_patient_gets_worse() {
    let model = catalog::load(NAME, None).unwrap();
    let verdicts = judge(model.as_ref(), model.new_state(&fields()).as_mut(), 0..480, 60);
    assert!(verdicts[..60].iter().all(|verdict| verdict.score == 0.0), "less than an hour of history");
    assert!(verdicts[..240].iter().all(|verdict| !verdict.flagged));
    let said: Vec<&Sighting> = verdicts.iter().flat_map(|verdict| &verdict.sightings).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].text.contains("suggests") && said[0].text.contains("simulated"));
    let shares: f64 = said[0].contributions.iter().map(|part| part.share).sum();
    assert!((shares - 1.0).abs() < 1e-9 && said[0].contributions.len() == 7, "{said:?}");
    assert!(said[0].contributions.iter().any(|part| part.expected.is_some_and(|before| before != part.seen)));
}

#[test]
fn contributions_are_differences_of_the_log_odds() {
    let mut history = VitalHistory::default();
    let mut snapshot = None;
    for minute in 0..71 {
        let time = Timestamp::from_secs(60 * minute);
        let mut observations = [None; ALL];
        observations[Observation::HeartRate as usize] = Some(120.0);
        observations[Observation::Respiration as usize] = Some(22.0);
        snapshot = history.push(time, &observations).or(snapshot);
    }
    let snapshot = snapshot.unwrap();
    // 2 points each; five observations are not known.
    assert_eq!(snapshot.total, 4);
    // Without the pulse two log-odds less, without the breath half a one, the rest nothing.
    let parts = contributions(&snapshot, &[1.0, -1.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0]);
    let told: Vec<(&str, f64, f64)> = parts.iter().map(|part| (part.field.as_str(), part.seen, part.share)).collect();
    assert_eq!(told, [("heart_rate", 120.0, 0.8), ("respiration", 22.0, 0.2)]);
    let [whole, without, ..] = snapshot.variants();
    // Pulse now, 120: two steps from 80; and the total of 4, or 2, in fives.
    assert_eq!((whole[0], without[0]), (2.0, 0.0));
    assert!((whole[34] - 0.8).abs() < 1e-6 && (without[34] - 0.4).abs() < 1e-6);
}

#[test]
fn it_does_not_speak_of_a_patient_of_hours_ago() {
    let pulse = |history: &mut VitalHistory, minute: i64| {
        let mut observations = [None; ALL];
        observations[Observation::HeartRate as usize] = Some(125.0);
        history.push(Timestamp::from_secs(60 * minute), &observations)
    };
    for (pause, speaks) in [(30, true), (60, true), (80, false), (180, false), (10_000, false)] {
        let mut history = VitalHistory::default();
        (0..120).for_each(|minute| drop(pulse(&mut history, minute)));
        assert_eq!(pulse(&mut history, 119 + pause).is_some(), speaks, "after {pause} minutes");
    }
}

#[test]
fn an_alarm_is_given_once_until_it_is_over() {
    let mut rearm = Rearm::default();
    let at = |minutes: i64| Timestamp::from_secs(60 * minutes);
    assert!(!rearm.alarms(at(0), 0.3, 0.4));
    assert!(rearm.alarms(at(10), 0.5, 0.4));
    assert!(!rearm.alarms(at(20), 0.9, 0.4) && !rearm.alarms(at(30), 0.3, 0.4) && !rearm.alarms(at(40), 0.5, 0.4));
    assert!(!rearm.alarms(at(50), 0.1, 0.4) && rearm.alarms(at(60), 0.4, 0.4));
    assert!(!rearm.alarms(at(299), 0.5, 0.4) && rearm.alarms(at(300), 0.5, 0.4), "four hours later");
}

#[test]
fn single_wrong_readings_do_not_show() {
    let push = |wrong: f64| {
        let mut history = VitalHistory::default();
        let mut last = None;
        for minute in 0..90 {
            let mut observations = [None; ALL];
            let pulse = if minute % 10 == 3 { wrong } else { 80.0 };
            observations[Observation::HeartRate as usize] = Some(pulse);
            last = history.push(Timestamp::from_secs(60 * minute), &observations).or(last);
        }
        last.unwrap().variants()[0][..6].to_vec()
    };
    assert_eq!(push(80.0), push(200.0));
}
