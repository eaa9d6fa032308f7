//! Windows against a reference model that keeps every row and looks through all of them at each step.
//!
//! Random rows (out of order, repeated, late, far ahead, far behind) and ticks go to both; what comes out must be the same, to
//! the last row and count. Snapshots at any point must change nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod model;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, TimestampMicrosecondType, UInt64Type};
use nearside_schemas::{
    CloseCause, ClosedWindow, FieldKind, FieldName, FieldPolicy, FieldSpec, FieldValue, HumanDuration, Reading,
    SetAsideReason, StreamId, Timestamp,
};
use nearside_window::{GuardConfig, LatePolicy, StreamWindows, WindowConfig, WindowKind, WindowPlan};
use proptest::prelude::*;

use model::{Model, Output, Row};

/// What happens to a stream. Times are in seconds; each step moves the clock of receipt by its first number.
#[derive(Debug, Clone)]
enum Step {
    /// A row `offset` seconds from the clock.
    Push {
        pass: i64,
        offset: i64,
        sequence: Option<u64>,
        value: u8,
    },
    Tick {
        pass: i64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pass = prop_oneof![20 => 0..4i64, 2 => 4..40i64, 1 => 40..150i64];
    let offset = prop_oneof![20 => -6..2i64, 8 => -40..21i64, 1 => -101..-98i64, 1 => 19..1_000i64];
    let sequence = prop_oneof![3 => Just(None), 1 => (0..3u64).prop_map(Some)];
    let push = (pass.clone(), offset, sequence, 0..3u8).prop_map(|(pass, offset, sequence, value)| Step::Push {
        pass,
        offset,
        sequence,
        value,
    });
    let tick = pass.prop_map(|pass| Step::Tick { pass });
    prop::collection::vec(prop_oneof![9 => push, 1 => tick], 1..120)
}

fn definition() -> impl Strategy<Value = WindowConfig> {
    let secs = |secs: i64| HumanDuration::secs(secs.unsigned_abs());
    let timed =
        (1..12i64, 1..12i64, 0..15i64, prop::option::of(1..60i64)).prop_map(move |(size, step, lateness, keep)| {
            let hops = step < size;
            WindowConfig {
                kind: if hops { WindowKind::Hopping } else { WindowKind::Tumbling },
                step: hops.then(|| secs(step)),
                lateness: secs(lateness),
                late: if keep.is_some() { LatePolicy::Revise } else { LatePolicy::SetAside },
                revise_for: secs(keep.unwrap_or(0)),
                ..WindowConfig::tumbling(secs(size))
            }
        });
    let session = (1..8i64, 0..15i64).prop_map(move |(gap, lateness)| WindowConfig {
        kind: WindowKind::Session,
        size: None,
        gap: Some(secs(gap)),
        lateness: secs(lateness),
        ..WindowConfig::tumbling(secs(1))
    });
    let count = (1..6usize).prop_map(move |rows| WindowConfig {
        kind: WindowKind::Count,
        size: None,
        rows: Some(rows),
        ..WindowConfig::tumbling(secs(1))
    });
    prop_oneof![4 => timed, 2 => session, 1 => count]
}

/// Definitions with names of their own, so that two of one kind may stand together.
fn definitions() -> impl Strategy<Value = Vec<WindowConfig>> {
    prop::collection::vec(definition(), 1..4).prop_map(|mut all| {
        for (index, one) in all.iter_mut().enumerate() {
            one.name = nearside_schemas::WindowDefinition::new(&format!("w{index}")).ok();
        }
        all
    })
}

/// Bounds small enough to be met, where the model knows what they do: not for sessions.
fn guard(configs: &[WindowConfig]) -> GuardConfig {
    let has_sessions = configs.iter().any(|config| config.kind == WindowKind::Session);
    GuardConfig {
        past: HumanDuration::secs(100),
        future: HumanDuration::secs(20),
        idle: HumanDuration::secs(30),
        max_rows: if has_sessions { 1_000 } else { 6 },
        max_open: 26,
        max_kept: 12,
    }
}

fn plan(configs: &[WindowConfig], guard: GuardConfig) -> Arc<WindowPlan> {
    let field = FieldSpec {
        name: FieldName::new("v").unwrap(),
        kind: FieldKind::Number,
        unit: None,
        policy: FieldPolicy::Clear,
    };
    WindowPlan::new(&[field], configs, guard).unwrap()
}

fn stream() -> StreamId {
    StreamId::from_bytes([3; 16])
}

fn reading(row: &Row) -> Reading {
    Reading {
        time: Timestamp::from_secs(row.time),
        received: Timestamp::from_secs(row.received),
        sequence: row.sequence,
        values: [FieldValue::Number(f64::from(row.value))].into_iter().collect(),
    }
}

fn output(window: &ClosedWindow) -> Output {
    const SECOND: i64 = 1_000_000;
    let time = window.rows.column(0).as_primitive::<TimestampMicrosecondType>();
    let received = window.rows.column(1).as_primitive::<TimestampMicrosecondType>();
    let sequence = window.rows.column(2).as_primitive::<UInt64Type>();
    let value = window.rows.column(3).as_primitive::<Float64Type>();
    let rows = (0..window.rows.num_rows()).map(|at| Row {
        time: time.value(at) / SECOND,
        received: received.value(at) / SECOND,
        sequence: sequence.is_valid(at).then(|| sequence.value(at)),
        value: value.value(at) as u8,
    });
    Output {
        definition: window.id.definition.to_string(),
        start: window.id.start.as_micros(),
        end: window.end.as_micros(),
        revision: window.revision,
        cause: window.cause,
        rows: rows.collect(),
        set_aside: window.set_aside.iter().collect(),
    }
}

/// Whether a row was placed, and the reasons where it was not.
type Fate = (bool, Vec<SetAsideReason>);

/// Runs the steps; takes a snapshot and goes on from it before each step whose number `interrupt` picks.
fn run(
    plan: &Arc<WindowPlan>,
    steps: &[Step],
    interrupt: impl Fn(usize) -> bool,
) -> (Vec<Row>, Vec<Fate>, Vec<Output>) {
    let mut windows = StreamWindows::new(plan.clone(), stream());
    let (mut rows, mut fates, mut out, mut clock) = (Vec::new(), Vec::new(), Vec::new(), 10_000);
    for (number, step) in steps.iter().enumerate() {
        if interrupt(number) {
            let bytes = windows.snapshot();
            windows = StreamWindows::restore(plan.clone(), stream(), &bytes).unwrap();
            assert_eq!(windows.snapshot(), bytes);
        }
        match *step {
            Step::Push { pass, offset, sequence, value } => {
                clock += pass;
                let row = Row { time: clock + offset, received: clock, sequence, value };
                let placement = windows.push(reading(&row), &mut out);
                fates.push((placement.is_placed(), placement.set_aside().collect()));
                rows.push(row);
            }
            Step::Tick { pass } => {
                clock += pass;
                windows.tick(Timestamp::from_secs(clock), &mut out);
                let next = windows.next_deadline();
                assert!(next.is_none_or(|next| next > Timestamp::from_secs(clock)), "a tick does all that is due");
            }
        }
    }
    windows.drain(&mut out);
    assert!(windows.is_empty() && windows.held_rows() == 0 && windows.next_deadline().is_none());
    (rows, fates, out.iter().map(output).collect())
}

fn run_model(configs: &[WindowConfig], guard: &GuardConfig, steps: &[Step]) -> (Vec<Fate>, Vec<Output>) {
    let mut model = Model::new(configs, guard);
    let (mut fates, mut out, mut clock) = (Vec::new(), Vec::new(), 10_000);
    for step in steps {
        match *step {
            Step::Push { pass, offset, sequence, value } => {
                clock += pass;
                fates.push(model.push(Row { time: clock + offset, received: clock, sequence, value }, &mut out));
            }
            Step::Tick { pass } => {
                clock += pass;
                model.tick(clock, &mut out);
            }
        }
    }
    model.drain(&mut out);
    (fates, out)
}

/// The last revision of each window; fails where revisions do not rise one by one from 0 (promise I1).
fn last_revisions(out: &[Output]) -> BTreeMap<(String, i64), &Output> {
    let mut last: BTreeMap<(String, i64), &Output> = BTreeMap::new();
    for window in out {
        let before = last.insert((window.definition.clone(), window.start), window);
        assert_eq!(window.revision, before.map_or(0, |before| before.revision + 1), "{window:?}");
    }
    last
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn windows_do_what_the_model_does(configs in definitions(), steps in steps()) {
        let plan = plan(&configs, guard(&configs));
        let (_, fates, out) = run(&plan, &steps, |_| false);
        let (expected_fates, expected) = run_model(&configs, &guard(&configs), &steps);
        prop_assert_eq!(fates, expected_fates);
        prop_assert_eq!(&out, &expected);
        last_revisions(&out);
    }

    #[test]
    fn replay_and_snapshots_change_nothing(configs in definitions(), steps in steps(), every in 1..7usize) {
        let plan = plan(&configs, guard(&configs));
        let first = run(&plan, &steps, |_| false);
        prop_assert_eq!(&first, &run(&plan, &steps, |_| false), "same input, same output (I5)");
        prop_assert_eq!(&first, &run(&plan, &steps, |number| number % every == 0), "a restart changes nothing");
    }

    /// Without the model: every row is in as many windows as it belongs to, or was set aside (promise I1).
    #[test]
    fn every_row_is_accounted_for(config in definition(), span in 8..30u64, steps in steps()) {
        let max_span = (config.kind == WindowKind::Session).then(|| HumanDuration::secs(span));
        let config = WindowConfig { max_span, ..config };
        let small = GuardConfig { max_rows: 6, max_open: 26, ..guard(&[]) };
        let (rows, fates, out) = run(&plan(std::slice::from_ref(&config), small), &steps, |_| false);
        let last = last_revisions(&out);
        let mut placed = 0;
        for (row, (is_placed, reasons)) in rows.iter().zip(&fates) {
            prop_assert!(*is_placed || reasons.len() == 1);
            let times = |window: &Output| window.rows.iter().filter(|other| *other == row).count();
            let found: usize = last.values().map(|window| times(window)).sum();
            let same = rows.iter().filter(|other| *other == row).count();
            if *is_placed && reasons.is_empty() && same == 1 {
                prop_assert_eq!(found, covering(&config, row.time), "{:?}", row);
            }
            placed += usize::from(*is_placed);
        }
        let held: usize = last.values().map(|window| window.rows.len()).sum();
        if config.kind != WindowKind::Hopping {
            prop_assert_eq!(held, placed);
        }
        let ordered: Vec<&Output> = last.values().copied().collect();
        for pair in ordered.windows(2).filter(|_| config.kind == WindowKind::Session) {
            let apart = pair[0].cause == CloseCause::Idle || pair[0].end <= pair[1].start;
            prop_assert!(apart, "sessions do not overlap: {:?}", pair);
        }
        for window in last.values() {
            prop_assert!(window.rows.is_sorted_by_key(|row| row.time));
            if config.kind != WindowKind::Count {
                let span = window.start..window.end;
                prop_assert!(window.rows.iter().all(|row| span.contains(&(row.time * 1_000_000))), "{:?}", window);
            }
            if config.kind == WindowKind::Session {
                let first = window.rows[0].time;
                let fits = window.rows.iter().all(|row| row.time < first + span as i64);
                prop_assert!(fits, "no session spans more than it may: {:?}", window);
            }
        }
    }
}

/// In how many windows a row of `time` belongs.
fn covering(config: &WindowConfig, time: i64) -> usize {
    let whole = |duration: Option<HumanDuration>| duration.map_or(0, |d| d.get().as_secs() as i64);
    match config.kind {
        WindowKind::Hopping => {
            let (size, step) = (whole(config.size), whole(config.step));
            (time - size + 1..=time).filter(|start| start.rem_euclid(step) == 0).count()
        }
        _ => 1,
    }
}
