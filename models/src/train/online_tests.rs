//! A changed regime is learnt and put in force; what is no better or worse is refused or taken back.

use super::*;

const LEARNING: Learning = Learning { margin: 0.02, least_rows: 100, epochs: 15, seed: 11 };

fn shipped() -> Version {
    let (card, weights) = catalog::parts(forecaster::NAME, None).unwrap();
    Version { card, weights: weights.into_owned() }
}

/// Rows from `from` of a value a minute.
fn series(rows: std::ops::Range<usize>, value: impl Fn(usize) -> f64) -> Vec<Series> {
    let first = rows.start as u64;
    let rows = rows.map(|row| (Timestamp::from_secs(1_700_000_000 + 60 * row as i64), value(row))).collect();
    vec![Series { stream: StreamId::from_bytes([1; 16]), field: FieldName::new("v").unwrap(), first, rows }]
}

/// A saw-tooth that no series of the training has.
fn saw(row: usize) -> f64 {
    (row % 37) as f64 + (row % 5) as f64 * 0.3
}

/// Noise, the same in every run (a multiplicative hash), that nobody can forecast better than by its spread.
fn noise(row: usize) -> f64 {
    let hashed = (row as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let uniform = |shift: u32| f64::from((hashed >> shift) as u16) / f64::from(u16::MAX);
    uniform(48) + uniform(32) + uniform(16) - 1.5
}

/// A slow wave: what came 24 rows ago is near what comes, where the saw-tooth has gone on by two thirds of its length.
fn wave(row: usize) -> f64 {
    18.0 + 60.0 * (row as f64 / 150.0).sin() + noise(row)
}

fn step(learner: &mut OnlineLearner, in_force: &Version, series: &[Series], spoken: &[Spoken]) -> Step {
    learner.step(in_force, series, spoken, &mut || {}).unwrap()
}

/// A learner whose candidate, made from 3,000 rows of the saw-tooth, is in shadow.
fn in_shadow() -> OnlineLearner {
    let mut learner = OnlineLearner::new(LEARNING);
    let tried = step(&mut learner, &shipped(), &series(0..3_000, saw), &[]);
    assert!(matches!(tried, Step::Shadowing(losses) if losses.other < losses.in_force), "{tried:?}");
    learner
}

#[test]
fn a_changed_regime_is_learnt_shadowed_promoted_and_stays() {
    let mut learner = OnlineLearner::new(LEARNING);
    let before = shipped();
    assert_eq!(step(&mut learner, &before, &series(0..300, saw), &[]), Step::Waits);
    assert!(matches!(step(&mut learner, &before, &series(0..3_000, saw), &[]), Step::Shadowing(_)));
    assert_eq!(step(&mut learner, &before, &series(0..3_050, saw), &[]), Step::Waits, "too few rows behind it");
    let Step::Promote(candidate, losses) = step(&mut learner, &before, &series(0..3_400, saw), &[]) else {
        panic!("it is better")
    };
    assert!(losses.rows == 400 && f64::from(losses.other) < 0.98 * f64::from(losses.in_force), "{losses:?}");
    assert_eq!(candidate.card.from, Some(before.card.reference().to_string()));
    assert_ne!(candidate.card.version, before.card.version);
    assert!(catalog::build(candidate.card.clone(), &candidate.weights).is_ok());
    assert_eq!(step(&mut learner, &candidate, &series(0..3_450, saw), &[]), Step::Waits);
    assert!(matches!(step(&mut learner, &candidate, &series(600..3_900, saw), &[]), Step::Settled(_)));
}

#[test]
fn it_rests_after_each_pass_over_rows() {
    let mut learner = OnlineLearner::new(Learning { epochs: 3, ..LEARNING });
    let mut version = shipped();
    let mut step = |version: &Version, rows: usize| {
        let mut rests = 0;
        let step = learner.step(version, &series(0..rows, saw), &[], &mut || rests += 1).unwrap();
        (step, rests)
    };
    assert_eq!(step(&version, 300), (Step::Waits, 0), "there was no pass");
    let (tried, rests) = step(&version, 3_000);
    assert!(matches!(tried, Step::Shadowing(_)) && rests == 4, "three to learn, one to compare: {rests}, {tried:?}");
    assert_eq!(step(&version, 3_050), (Step::Waits, 0));
    let (promoted, rests) = step(&version, 3_400);
    let Step::Promote(candidate, _) = promoted else { panic!("{promoted:?}") };
    assert_eq!(rests, 4, "the losses of both, and how both meet what operators said");
    version = *candidate;
    let (watched, rests) = step(&version, 3_900);
    assert!(matches!(watched, Step::Settled(_) | Step::RollBack(..)) && rests == 2, "{rests}, {watched:?}");
}

#[test]
fn the_same_rows_and_seed_give_the_same_candidate() {
    let promoted = || match step(&mut in_shadow(), &shipped(), &series(0..3_400, saw), &[]) {
        Step::Promote(candidate, losses) => (candidate, losses),
        other => panic!("{other:?}"),
    };
    assert_eq!(promoted(), promoted());
}

#[test]
fn what_is_not_better_by_the_margin_is_refused() {
    let mut learner = OnlineLearner::new(Learning { margin: 0.5, ..LEARNING });
    assert!(matches!(step(&mut learner, &shipped(), &series(0..3_000, noise), &[]), Step::Refused(_)));
    // Better on what it was made beside, and not on what came after: the regime has gone again.
    let mut learner = in_shadow();
    let back = |row: usize| if row < 3_000 { saw(row) } else { wave(row) };
    let refused = step(&mut learner, &shipped(), &series(0..3_400, back), &[]);
    assert!(matches!(refused, Step::Refused(losses) if losses.rows == 400), "{refused:?}");
}

#[test]
fn a_promoted_version_that_is_worse_is_taken_back() {
    let before = shipped();
    let mut learner = in_shadow();
    let Step::Promote(promoted, _) = step(&mut learner, &before, &series(0..3_400, saw), &[]) else {
        panic!("it is better")
    };
    let back = |row: usize| if row < 3_400 { saw(row) } else { wave(row) };
    let taken_back = step(&mut learner, &promoted, &series(0..4_400, back), &[]);
    let Step::RollBack(version, losses) = taken_back else { panic!("{taken_back:?}") };
    assert_eq!((version.card.version.as_str(), losses.rows), (before.card.version.as_str(), 1_000));
}

#[test]
fn a_version_that_came_in_force_by_another_way_ends_a_trial() {
    let mut learner = in_shadow();
    let mut other = shipped();
    other.card.sha256 = Some(String::from("another"));
    assert_eq!(step(&mut learner, &other, &series(0..3_400, saw), &[]), Step::Superseded);
    assert!(matches!(step(&mut learner, &shipped(), &series(0..3_400, saw), &[]), Step::Shadowing(_)), "anew");
}

#[test]
fn a_candidate_must_meet_what_operators_said_no_worse() {
    // A jump that the version in force finds and an operator confirmed; a candidate that has lost every sense of scale does not.
    let jump = |row: usize| if row == 2_800 { 90.0 } else { 20.0 + noise(row) };
    let series = series(0..3_000, jump);
    let at = series[0].rows[2_800].0;
    let of = |opinion: Opinion| vec![Spoken { stream: series[0].stream, field: series[0].field.clone(), at, opinion }];
    let version = shipped();
    assert_eq!(met(&version, &series, &of(Opinion::Confirmed)).unwrap(), 1);
    assert_eq!(met(&version, &series, &of(Opinion::FalseAlarm)).unwrap(), -1);
    assert_eq!(met(&version, &series, &[]).unwrap(), 0);
    let mut deaf = version.clone();
    deaf.card.threshold = 1.0;
    assert_eq!(met(&deaf, &series, &of(Opinion::Confirmed)).unwrap(), 0);
    // So it is not promoted, however good its forecasts are.
    let mut learner = in_shadow();
    let Stage::Shadow { candidate, .. } = &mut learner.stage else { panic!("it is in shadow") };
    candidate.card.threshold = 1.0;
    let later = |row: usize| if row == 3_200 { 200.0 } else { saw(row) };
    let series = super::tests::series(0..3_400, later);
    let at = series[0].rows[3_200].0;
    let spoken = [Spoken { stream: series[0].stream, field: series[0].field.clone(), at, opinion: Opinion::Confirmed }];
    assert!(matches!(step(&mut learner, &shipped(), &series, &spoken), Step::Refused(_)));
}
