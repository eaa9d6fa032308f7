//! Each rule in a few lines, in virtual time. The rules all together are tested against a reference model in `tests/`.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, TimestampMicrosecondType, UInt64Type};
use nearside_schemas::{
    CloseCause, ClosedWindow, FieldKind, FieldName, FieldPolicy, FieldSpec, FieldValue, HumanDuration, Personal,
    Reading, SetAsideReason, StreamId, StreamSpec, Timestamp, WindowDefinition,
};
use serde::Deserialize;
use serde::de::value::MapDeserializer;

use crate::{GuardConfig, LatePolicy, StreamWindows, WindowConfig, WindowError, WindowKind, WindowPlan};

const fn secs(secs: u64) -> HumanDuration {
    HumanDuration::secs(secs)
}

fn field(name: &str, kind: FieldKind) -> FieldSpec {
    FieldSpec { name: FieldName::new(name).unwrap(), kind, unit: None, policy: FieldPolicy::Clear }
}

fn tumbling(size: u64) -> WindowConfig {
    WindowConfig::tumbling(secs(size))
}

fn hopping(size: u64, step: u64) -> WindowConfig {
    WindowConfig { kind: WindowKind::Hopping, step: Some(secs(step)), ..tumbling(size) }
}

fn session(gap: u64) -> WindowConfig {
    WindowConfig { kind: WindowKind::Session, size: None, gap: Some(secs(gap)), ..tumbling(1) }
}

fn count(rows: usize) -> WindowConfig {
    WindowConfig { kind: WindowKind::Count, size: None, rows: Some(rows), ..tumbling(1) }
}

fn revising(config: WindowConfig, keep: u64) -> WindowConfig {
    WindowConfig { late: LatePolicy::Revise, revise_for: secs(keep), ..config }
}

/// A row received at its own time. Each has its own value, so that none is taken for a duplicate.
fn row(time: i64, value: f64) -> Reading {
    let at = Timestamp::from_secs(time);
    Reading { time: at, received: at, sequence: None, values: [FieldValue::Number(value)].into_iter().collect() }
}

fn received(reading: Reading, at: i64) -> Reading {
    Reading { received: Timestamp::from_secs(at), ..reading }
}

/// A stream that keeps what it hands out.
struct Bench {
    windows: StreamWindows,
    out: Vec<ClosedWindow>,
}

impl Bench {
    fn with(configs: &[WindowConfig], guard: GuardConfig) -> Self {
        let plan = WindowPlan::new(&[field("v", FieldKind::Number)], configs, guard).unwrap();
        Self { windows: StreamWindows::new(plan, StreamId::from_bytes([7; 16])), out: Vec::new() }
    }

    fn new(configs: &[WindowConfig]) -> Self {
        Self::with(configs, GuardConfig::default())
    }

    /// Pushes; gives the reasons for which the row was set aside.
    fn push(&mut self, reading: Reading) -> Vec<SetAsideReason> {
        self.windows.push(reading, &mut self.out).set_aside().collect()
    }

    fn push_all(&mut self, rows: &[(i64, f64)]) {
        for (time, value) in rows {
            assert_eq!(self.push(row(*time, *value)), [], "{time}");
        }
    }

    fn tick(&mut self, at: i64) {
        self.windows.tick(Timestamp::from_secs(at), &mut self.out);
    }

    fn drain(&mut self) -> Vec<(i64, u32, CloseCause, Vec<f64>)> {
        self.windows.drain(&mut self.out);
        self.closed()
    }

    /// Start, revision, cause and values of each window that closed since the last call.
    fn closed(&mut self) -> Vec<(i64, u32, CloseCause, Vec<f64>)> {
        let windows = self.out.drain(..);
        windows.map(|w| (w.id.start.as_micros() / 1_000_000, w.revision, w.cause, values(&w))).collect()
    }
}

fn values(window: &ClosedWindow) -> Vec<f64> {
    window.rows.column(3).as_primitive::<Float64Type>().values().to_vec()
}

use CloseCause::{Drain, Full, Idle, Revision, Watermark};
use SetAsideReason::{Duplicate, Future, Late, Overflow, Past};

#[test]
fn a_tumbling_window_closes_when_a_row_reaches_its_end() {
    let mut bench = Bench::new(&[tumbling(10)]);
    bench.push_all(&[(100, 1.0), (109, 2.0)]);
    assert_eq!(bench.closed(), []);
    bench.push_all(&[(110, 3.0)]);
    assert_eq!(bench.closed(), [(100, 0, Watermark, vec![1.0, 2.0])]);
    assert_eq!(bench.drain(), [(110, 0, Drain, vec![3.0])]);
    assert!(bench.windows.is_empty());
}

#[test]
fn windows_before_1970_begin_at_multiples_too() {
    let mut bench = Bench::new(&[tumbling(10)]);
    bench.push_all(&[(-1, 1.0), (0, 2.0)]);
    assert_eq!(bench.closed(), [(-10, 0, Watermark, vec![1.0])]);
}

#[test]
fn lateness_keeps_a_window_open_and_sorts_what_comes() {
    let mut bench = Bench::new(&[WindowConfig { lateness: secs(5), ..tumbling(10) }]);
    bench.push_all(&[(105, 1.0), (114, 4.0), (103, 0.0), (105, 2.0), (109, 3.0), (115, 5.0)]);
    assert_eq!(bench.closed(), [(100, 0, Watermark, vec![0.0, 1.0, 2.0, 3.0])]);
    assert_eq!(bench.drain(), [(110, 0, Drain, vec![4.0, 5.0])]);
}

#[test]
fn a_late_row_is_set_aside_and_told_with_the_next_window() {
    let mut bench = Bench::new(&[tumbling(10)]);
    bench.push_all(&[(105, 1.0), (112, 2.0)]);
    assert_eq!(bench.push(row(109, 9.0)), [Late]);
    bench.push_all(&[(120, 3.0)]);
    assert_eq!(bench.out[0].set_aside.total(), 0);
    assert_eq!(bench.out[1].set_aside.get(Late), 1);
    bench.drain();
}

#[test]
fn a_late_row_revises_its_window() {
    let mut bench = Bench::new(&[revising(tumbling(10), 30)]);
    bench.push_all(&[(105, 1.0), (125, 2.0), (103, 0.0), (104, 0.5)]);
    let closed = bench.closed();
    assert_eq!(closed[0], (100, 0, Watermark, vec![1.0]));
    assert_eq!(closed[1], (100, 1, Revision, vec![0.0, 1.0]));
    assert_eq!(closed[2], (100, 2, Revision, vec![0.0, 0.5, 1.0]));
    assert_eq!(bench.push(row(104, 0.5)), [Duplicate], "what is kept is compared with");
    bench.push_all(&[(112, 7.0)]);
    assert_eq!(bench.closed(), [(110, 0, Revision, vec![7.0])], "a window that never had a row");
    bench.push_all(&[(139, 3.0)]);
    bench.closed();
    bench.push_all(&[(109, 1.5)]);
    assert_eq!(bench.closed(), [(100, 3, Revision, vec![0.0, 0.5, 1.0, 1.5])], "139 is less than 30 s after 110");
    bench.push_all(&[(140, 4.0)]);
    assert_eq!(bench.push(row(109, 1.6)), [Late]);
}

#[test]
fn a_forgotten_window_never_starts_again_at_revision_0() {
    let mut bench = Bench::new(&[revising(tumbling(10), 3_600)]);
    bench.push_all(&[(105, 1.0)]);
    bench.drain();
    assert_eq!(bench.push(row(106, 2.0)), [Late], "drained");
    bench.push_all(&[(200, 1.0)]);
    bench.tick(200 + 60);
    bench.tick(200 + 60 + 3_599);
    assert!(!bench.windows.is_empty());
    bench.tick(200 + 60 + 3_600);
    assert!(bench.windows.is_empty());
    assert_eq!(bench.push(row(201, 2.0)), [Late], "idle for longer than revisions are kept");
}

#[test]
fn rows_kept_for_revision_are_bounded_and_do_not_count_as_open() {
    let guard = GuardConfig { max_kept: 5, max_open: 1, ..GuardConfig::default() };
    let mut bench = Bench::with(&[revising(tumbling(10), 3_600)], guard);
    for n in 0..100 {
        bench.push_all(&[(n * 10, n as f64)]);
    }
    assert_eq!(bench.windows.held_rows(), 6);
    assert_eq!(bench.push(row(931, 1.0)), [Late], "forgotten for want of room");
    assert_eq!(bench.push(row(981, 1.0)), []);
    assert_eq!(bench.windows.held_rows(), 6, "the oldest made room");
}

#[test]
fn a_row_is_in_every_hop_that_covers_it() {
    let mut bench = Bench::new(&[hopping(10, 5)]);
    bench.push_all(&[(103, 1.0), (107, 2.0)]);
    assert_eq!(bench.windows.primary_window(Timestamp::from_secs(107)).start, Timestamp::from_secs(105));
    bench.push_all(&[(112, 3.0)]);
    assert_eq!(bench.closed(), [(95, 0, Watermark, vec![1.0]), (100, 0, Watermark, vec![1.0, 2.0])]);
    let placement = bench.windows.push(row(108, 2.5), &mut bench.out);
    assert!(placement.is_placed(), "late for 100, in time for 105");
    assert_eq!(placement.set_aside().collect::<Vec<_>>(), [Late]);
    assert_eq!(bench.push(row(108, 2.5)), [Duplicate], "rather than late");
    assert_eq!(bench.drain(), [(105, 0, Drain, vec![2.0, 2.5, 3.0]), (110, 0, Drain, vec![3.0])]);
}

#[test]
fn a_duplicate_is_called_one_even_where_another_window_is_full() {
    let guard = GuardConfig { max_rows: 2, ..GuardConfig::default() };
    let mut bench = Bench::with(&[WindowConfig { lateness: secs(10), ..hopping(10, 5) }], guard);
    bench.push_all(&[(111, 1.0), (112, 2.0)]);
    assert_eq!(bench.push(row(107, 3.0)), [Overflow], "105 is full, 100 took it");
    assert_eq!(bench.push(row(107, 3.0)), [Duplicate]);
}

#[test]
fn definitions_are_independent_of_each_other() {
    let mut bench = Bench::new(&[tumbling(10), tumbling(60)]);
    bench.push_all(&[(120, 1.0), (135, 2.0)]);
    let placement = bench.windows.push(row(121, 3.0), &mut bench.out);
    assert!(placement.is_placed());
    assert_eq!(placement.set_aside().collect::<Vec<_>>(), [Late], "late for one of two");
    bench.closed();
    assert_eq!(bench.drain(), [(130, 0, Drain, vec![2.0]), (120, 0, Drain, vec![1.0, 3.0, 2.0])]);
}

#[test]
fn sequence_numbers_tell_duplicates_and_values_where_there_are_none() {
    let mut bench = Bench::new(&[tumbling(10)]);
    let numbered = |sequence, value| Reading { sequence: Some(sequence), ..row(101, value) };
    assert_eq!(bench.push(numbered(1, 1.0)), []);
    assert_eq!(bench.push(numbered(2, 1.0)), [], "another number, the same value");
    assert_eq!(bench.push(numbered(1, 2.0)), [Duplicate]);
    assert_eq!(bench.push(row(101, 1.0)), [], "none is not the same as one");
    assert_eq!(bench.push(row(101, 1.0)), [Duplicate]);
    assert_eq!(bench.push(row(101, 2.0)), [], "two true readings may share a time");
    assert_eq!(bench.push(row(102, 1.0)), []);
    bench.windows.drain(&mut bench.out);
    let sequences = bench.out[0].rows.column(2).as_primitive::<UInt64Type>();
    assert_eq!(sequences.iter().collect::<Vec<_>>(), [Some(1), Some(2), None, None, None]);
}

#[test]
fn a_clock_30_years_ahead_moves_nothing_and_keeps_nothing_open() {
    let mut bench = Bench::new(&[tumbling(10)]);
    bench.push_all(&[(100, 1.0)]);
    for n in 0..100 {
        assert_eq!(bench.push(received(row(1_000_000_000 + n, 1.0), 101 + n)), [Future]);
    }
    assert_eq!(bench.closed(), []);
    bench.push_all(&[(101, 2.0)]);
    assert_eq!(bench.windows.next_deadline(), Some(Timestamp::from_secs(161)));
    assert_eq!(bench.push(received(row(1_000_000_000, 1.0), 160)), [Future]);
    bench.tick(161);
    assert_eq!(bench.out[0].set_aside.get(Future), 101);
    assert_eq!(bench.closed(), [(100, 0, Idle, vec![1.0, 2.0])]);
}

#[test]
fn the_guards_bounds_themselves_are_allowed() {
    let mut bench = Bench::new(&[tumbling(10)]);
    let week = 7 * 86_400;
    assert_eq!(bench.push(received(row(0, 1.0), week)), []);
    assert_eq!(bench.push(received(row(-1, 1.0), week)), [Past]);
    assert_eq!(bench.push(received(row(300, 1.0), 0)), []);
    assert_eq!(bench.push(received(row(301, 1.0), 0)), [Future]);
}

#[test]
fn a_sensor_slower_than_idle_keeps_its_window_open() {
    let mut bench = Bench::new(&[tumbling(3_600)]);
    for time in (0..3_600).step_by(300) {
        assert_eq!(bench.push(row(36_000 + time, time as f64)), [], "no row of the hour is late");
        bench.tick(36_000 + time + 299);
    }
    assert_eq!(bench.closed(), []);
    bench.tick(36_000 + 3_300 + 3_600);
    assert_eq!(bench.closed().len(), 1);
}

#[test]
fn an_idle_stream_closes_its_windows_and_a_later_row_revises_them() {
    let mut bench = Bench::new(&[revising(tumbling(10), 30), tumbling(20)]);
    bench.push_all(&[(101, 1.0)]);
    assert_eq!(bench.windows.next_deadline(), Some(Timestamp::from_secs(161)));
    bench.tick(160);
    assert_eq!(bench.closed(), []);
    bench.tick(161);
    assert_eq!(bench.closed(), [(100, 0, Idle, vec![1.0]), (100, 0, Idle, vec![1.0])]);
    assert_eq!(bench.windows.next_deadline(), Some(Timestamp::from_secs(191)));
    assert_eq!(bench.push(received(row(102, 2.0), 162)), [Late], "by the second definition");
    assert_eq!(bench.closed(), [(100, 1, Revision, vec![1.0, 2.0])]);
}

#[test]
fn a_clock_that_goes_back_keeps_no_window_open_until_it_has_caught_up() {
    let mut bench = Bench::new(&[revising(tumbling(10), 10_000), tumbling(20)]);
    bench.push_all(&[(10_001, 1.0)]);
    bench.tick(10_000);
    assert_eq!(bench.windows.next_deadline(), Some(Timestamp::from_secs(10_061)), "a moment is none");
    // Minutes back; then a row by the new clock, whose own time is the device's.
    bench.tick(9_801);
    assert_eq!(bench.windows.next_deadline(), Some(Timestamp::from_secs(9_861)));
    assert_eq!(bench.push(received(row(10_002, 2.0), 9_831)), []);
    bench.tick(9_890);
    assert_eq!(bench.closed(), []);
    bench.tick(9_891);
    assert_eq!(bench.closed(), [(10_000, 0, Idle, vec![1.0, 2.0]), (10_000, 0, Idle, vec![1.0, 2.0])]);
    // What is kept for revision is forgotten in its time too.
    bench.tick(3_000);
    assert_eq!(bench.windows.next_deadline(), Some(Timestamp::from_secs(13_060)));
    bench.tick(13_060);
    assert!(bench.windows.is_empty() && bench.windows.anchor().is_none());
}

#[test]
fn a_full_window_sets_rows_aside_and_the_next_one_takes_them_again() {
    let mut bench = Bench::with(&[tumbling(10)], GuardConfig { max_rows: 2, ..GuardConfig::default() });
    bench.push_all(&[(100, 1.0), (101, 2.0)]);
    assert_eq!(bench.push(row(102, 3.0)), [Overflow]);
    assert_eq!(bench.push(row(101, 2.0)), [Duplicate], "rather than too many");
    bench.push_all(&[(110, 4.0)]);
    assert_eq!(bench.out[0].set_aside.get(Overflow), 1);
}

#[test]
fn sessions_end_after_a_gap_and_merge_over_a_row_between_them() {
    let mut bench = Bench::new(&[WindowConfig { lateness: secs(20), ..session(5) }]);
    bench.push_all(&[(100, 1.0), (104, 2.0), (109, 4.0), (112, 5.0)]);
    assert_eq!(bench.windows.primary_window(Timestamp::from_secs(110)).start, Timestamp::from_secs(109));
    bench.push_all(&[(106, 3.0), (98, 0.0)]);
    assert_eq!(bench.windows.primary_window(Timestamp::from_secs(110)).start, Timestamp::from_secs(98));
    assert_eq!(bench.push(row(109, 4.0)), [Duplicate]);
    bench.push_all(&[(137, 6.0)]);
    assert_eq!(bench.out[0].end, Timestamp::from_secs(117));
    assert_eq!(bench.closed(), [(98, 0, Watermark, vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0])]);
    assert_eq!(bench.push(row(116, 7.0)), [Late], "within the gap of a closed session");
    bench.push_all(&[(117, 8.0)]);
    assert_eq!(bench.drain(), [(117, 0, Drain, vec![8.0]), (137, 0, Drain, vec![6.0])]);
}

#[test]
fn a_row_that_would_be_a_session_long_over_is_late() {
    let mut bench = Bench::new(&[session(5)]);
    bench.push_all(&[(100, 1.0), (200, 2.0)]);
    assert_eq!(bench.push(row(150, 3.0)), [Late]);
    assert_eq!(bench.push(row(196, 3.0)), [], "it joins the open one");
    assert_eq!(bench.push(row(192, 4.0)), [], "and so does this");
}

#[test]
fn a_session_without_a_pause_is_cut_at_its_longest_span() {
    let config = WindowConfig { max_span: Some(secs(10)), lateness: secs(3), ..session(5) };
    let mut bench = Bench::new(&[config]);
    bench.push_all(&[(100, 0.0), (104, 1.0), (108, 2.0), (112, 4.0), (109, 3.0), (113, 5.0)]);
    assert_eq!(bench.out[0].end, Timestamp::from_secs(110), "where rows begin another");
    assert_eq!(bench.closed(), [(100, 0, Watermark, vec![0.0, 1.0, 2.0, 3.0])]);
    assert_eq!(bench.push(row(109, 9.0)), [Late]);
    bench.push_all(&[(111, 3.5)]);
    assert_eq!(bench.drain(), [(111, 0, Drain, vec![3.5, 4.0, 5.0])]);
}

#[test]
fn a_merge_never_breaks_the_bound_on_rows() {
    let guard = GuardConfig { max_rows: 3, ..GuardConfig::default() };
    let mut bench = Bench::with(&[WindowConfig { lateness: secs(60), ..session(5) }], guard);
    bench.push_all(&[(100, 1.0), (101, 2.0), (106, 4.0), (107, 5.0)]);
    bench.push_all(&[(103, 3.0)]);
    assert_eq!(bench.drain(), [(100, 0, Drain, vec![1.0, 2.0, 3.0]), (106, 0, Drain, vec![4.0, 5.0])]);
}

#[test]
fn a_session_closed_as_idle_leaves_later_rows_to_the_next() {
    let mut bench = Bench::new(&[session(300)]);
    bench.push_all(&[(100, 1.0)]);
    bench.tick(160);
    assert_eq!(bench.closed(), [], "a session with a longer gap than `idle` waits for its gap");
    bench.tick(400);
    bench.push_all(&[(460, 2.0)]);
    assert_eq!(bench.push(received(row(100, 3.0), 461)), [Late]);
    assert_eq!(bench.drain(), [(100, 0, Idle, vec![1.0]), (460, 0, Drain, vec![2.0])]);
}

#[test]
fn open_sessions_are_bounded() {
    let guard = GuardConfig { max_open: 2, ..GuardConfig::default() };
    let mut bench = Bench::with(&[WindowConfig { lateness: secs(1_000), ..session(5) }], guard);
    bench.push_all(&[(100, 1.0), (200, 2.0)]);
    assert_eq!(bench.push(row(300, 3.0)), [Overflow]);
    bench.push_all(&[(203, 3.0)]);
}

#[test]
fn count_windows_fill_by_arrival_and_never_share_an_id() {
    let mut bench = Bench::new(&[count(2)]);
    bench.push_all(&[(105, 2.0), (101, 1.0), (101, 3.0), (101, 4.0), (90, 5.0), (200, 6.0), (300, 7.0)]);
    let starts: Vec<i64> = bench.out.iter().map(|window| window.id.start.as_micros()).collect();
    assert_eq!(starts, [101_000_000, 101_000_001, 101_000_002]);
    assert_eq!(bench.windows.primary_window(Timestamp::from_secs(250)).start.as_micros(), 101_000_002);
    let closed = bench.closed();
    assert_eq!(closed[0], (101, 0, Full, vec![1.0, 2.0]));
    assert_eq!(closed[2], (101, 0, Full, vec![5.0, 6.0]));
    bench.tick(360);
    assert_eq!(bench.closed(), [(300, 0, Idle, vec![7.0])]);
}

#[test]
fn columns_follow_the_schema_and_miss_what_is_missing() {
    let fields = [field("n", FieldKind::Number), field("t", FieldKind::Text), field("m", FieldKind::Number)];
    let plan = WindowPlan::new(&fields, &[tumbling(10)], GuardConfig::default()).unwrap();
    let mut windows = StreamWindows::new(plan, StreamId::from_bytes([0; 16]));
    let text = |text: &str| FieldValue::Text(Personal::new(Arc::from(text)));
    let mut out = Vec::new();
    for (time, values) in [
        (3, vec![FieldValue::Number(1.0), text("late"), FieldValue::Missing]),
        (1, vec![FieldValue::Missing, FieldValue::Missing, FieldValue::Number(2.0)]),
        (2, vec![text("no number"), text("b")]),
    ] {
        windows.push(Reading { values: values.into_iter().collect(), ..received(row(time, 0.0), 5) }, &mut out);
    }
    windows.drain(&mut out);
    let rows = &out[0].rows;
    assert_eq!(rows.schema(), nearside_schemas::arrow_schema::window_schema(&fields));
    assert_eq!(rows.column(0).as_primitive::<TimestampMicrosecondType>().values(), &[1_000_000, 2_000_000, 3_000_000]);
    assert_eq!(rows.column(1).as_primitive::<TimestampMicrosecondType>().values(), &[5_000_000; 3]);
    assert_eq!(rows.column(2).null_count(), 3);
    assert_eq!(rows.column(3).as_primitive::<Float64Type>().iter().collect::<Vec<_>>(), [None, None, Some(1.0)]);
    assert_eq!(rows.column(4).as_string::<i32>().iter().collect::<Vec<_>>(), [None, Some("b"), Some("late")]);
    assert_eq!(rows.column(5).as_primitive::<Float64Type>().iter().collect::<Vec<_>>(), [Some(2.0), None, None]);
}

#[test]
fn configurations_are_checked_with_a_hint() {
    let check = |config: WindowConfig| WindowPlan::new(&[], &[config], GuardConfig::default()).map(|_| ());
    assert_eq!(check(hopping(10, 5)), Ok(()));
    for (bad, word) in [
        (tumbling(0), "size"),
        (hopping(5, 10), "step"),
        (WindowConfig { step: Some(secs(1)), ..tumbling(10) }, "step"),
        (session(0), "gap"),
        (WindowConfig { max_span: Some(secs(0)), ..session(5) }, "max_span"),
        (count(0), "rows"),
        (count(100_001), "max_rows"),
        (revising(session(5), 10), "revised"),
        (revising(tumbling(5), 0), "revise_for"),
        (WindowConfig { revise_for: secs(5), ..tumbling(5) }, "revise_for"),
        (WindowConfig { lateness: secs(631), ..tumbling(10) }, "max_open"),
    ] {
        let error = check(bad.clone()).unwrap_err();
        assert!(error.to_string().contains(word), "{bad:?}: {error}");
        assert!(!error.is_transient());
    }
    assert_eq!(check(WindowConfig { lateness: secs(630), ..tumbling(10) }), Ok(()));
    let same = WindowPlan::new(&[], &[tumbling(10), tumbling(10)], GuardConfig::default());
    assert!(matches!(same, Err(WindowError::SameName(name)) if name == "10s"));
    let none = GuardConfig { max_kept: 0, ..GuardConfig::default() };
    assert_eq!(WindowPlan::new(&[], &[tumbling(10)], none).err().unwrap().to_string(), "`max_kept` must be above zero");
}

#[test]
fn an_unknown_key_is_named_with_those_that_exist() {
    let keys = [("kind", "tumbling"), ("sise", "10s")].into_iter();
    let read = WindowConfig::deserialize(MapDeserializer::<_, serde::de::value::Error>::new(keys));
    let error = read.unwrap_err().to_string();
    assert!(error.contains("`sise`") && error.contains("`size`"), "{error}");
}

#[test]
fn names_come_from_kind_and_sizes() {
    let named = WindowConfig { name: Some(WindowDefinition::new("mine").unwrap()), ..tumbling(7) };
    let configs = [tumbling(10), hopping(10, 5), session(30), count(100), named];
    let plan = WindowPlan::new(&[], &configs, GuardConfig::default()).unwrap();
    let names: Vec<&str> = plan.windows.iter().map(|window| window.name.as_str()).collect();
    assert_eq!(names, ["10s", "hopping-10s-5s", "session-30s", "count-100", "mine"]);
}

#[test]
fn a_snapshot_of_another_shape_or_damaged_is_refused() {
    let mut bench = Bench::new(&[revising(tumbling(10), 60), session(5)]);
    bench.push_all(&[(100, 1.0), (101, 2.0), (112, 3.0)]);
    bench.push(row(90, 1.0));
    let bytes = bench.windows.snapshot();
    let id = StreamId::from_bytes([7; 16]);
    let plan = bench.windows.plan.clone();
    let again = StreamWindows::restore(plan.clone(), id, &bytes).unwrap();
    assert_eq!(again.snapshot(), bytes);
    for end in 0..bytes.len() {
        assert!(StreamWindows::restore(plan.clone(), id, &bytes[..end]).is_err(), "cut at {end}");
    }
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0xff;
        // Whatever it holds, it must not panic, neither now nor when it is used.
        if let Ok(mut windows) = StreamWindows::restore(plan.clone(), id, &damaged) {
            let mut out = Vec::new();
            windows.push(row(113, 1.0), &mut out);
            windows.drain(&mut out);
        }
    }
    let named = |size| WindowConfig { name: Some(WindowDefinition::new("w").unwrap()), ..tumbling(size) };
    let plan = |size, name| WindowPlan::new(&[field(name, FieldKind::Number)], &[named(size)], GuardConfig::default());
    let bytes = StreamWindows::new(plan(10, "a").unwrap(), id).snapshot();
    assert!(StreamWindows::restore(plan(10, "a").unwrap(), id, &bytes).is_ok());
    assert!(StreamWindows::restore(plan(20, "a").unwrap(), id, &bytes).is_err(), "another size under the same name");
    assert!(StreamWindows::restore(plan(10, "b").unwrap(), id, &bytes).is_err(), "another field");
}

#[test]
fn a_backlog_sent_backwards_and_a_flood_of_one_instant_come_out_whole() {
    let mut bench = Bench::new(&[tumbling(100_000)]);
    for n in (0..3_000).rev() {
        assert_eq!(bench.push(received(row(n, n as f64), 3_000)), []);
    }
    for n in 0..3_000 {
        assert_eq!(bench.push(row(3_000, f64::from(n))), []);
    }
    let values = bench.drain().remove(0).3;
    assert!(values[..3_000].is_sorted() && values[3_000..].is_sorted());
    assert_eq!(values.len(), 6_000);
}

#[test]
fn an_empty_stream_is_small() {
    assert!(size_of::<StreamWindows>() <= 72, "{}", size_of::<StreamWindows>());
    let held = size_of::<crate::definition::Held>() + size_of::<crate::definition::Definition>();
    assert!(held <= 400, "{held}");
}

#[test]
fn rows_that_arrive_together_without_a_time_of_their_own_are_no_duplicates() {
    let mut spec = StreamSpec {
        name: nearside_schemas::StreamName::new("noise").unwrap(),
        topic: nearside_schemas::TopicTemplate::parse("noise").unwrap(),
        codec: nearside_schemas::codec::CodecSpec {
            format: nearside_schemas::codec::Format::Number,
            paths: vec!["$".to_owned()],
            rows: None,
            rate_hz: None,
            rate_path: None,
            max_payload_bytes: 100,
            max_readings: 1,
        },
        timestamp: None,
        sequence: None,
        fields: vec![field("v", FieldKind::Number)],
        key: Vec::new(),
        group: "noise".to_owned(),
    };
    let set_aside = |spec: &StreamSpec| {
        let plan = WindowPlan::of_stream(spec, &[tumbling(10)], GuardConfig::default()).unwrap();
        let windows = StreamWindows::new(plan, StreamId::from_bytes([7; 16]));
        let mut bench = Bench { windows, out: Vec::new() };
        [bench.push(row(101, 50.0)), bench.push(row(101, 50.0))].concat()
    };
    assert_eq!(set_aside(&spec), [], "two devices' readings, or two of one, received in one read");
    spec.timestamp = Some(nearside_schemas::codec::TimestampSpec {
        path: "$.ts".to_owned(),
        unit: nearside_schemas::codec::TimestampUnit::Auto,
    });
    assert_eq!(set_aside(&spec), [Duplicate]);
}
