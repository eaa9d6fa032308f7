//! What a row costs: in-order rows to one tumbling window of 60 rows, with the Arrow batch built at each close, over 1 and over
//! 10,000 streams. Prints nanoseconds a row, best and median of several passes.
//!
//! `cargo run --release -p nearside-window --example push_cost`

use std::hint::black_box;
use std::time::Instant;

use nearside_schemas::{
    FieldKind, FieldName, FieldPolicy, FieldSpec, FieldValue, HumanDuration, Reading, StreamId, Timestamp,
};
use nearside_window::{GuardConfig, StreamWindows, WindowConfig, WindowPlan};

const PASSES: usize = 9;
const ROWS: i64 = 1_200_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for (fields, streams) in [(1, 1), (1, 10_000), (6, 1), (6, 10_000)] {
        let specs: Vec<FieldSpec> = (0..fields).map(field).collect::<Result<_, _>>()?;
        let plan = WindowPlan::new(&specs, &[WindowConfig::tumbling(HumanDuration::secs(60))], GuardConfig::default())?;
        let mut times: Vec<f64> = (0..PASSES).map(|_| pass(&plan, fields, streams)).collect();
        times.sort_by(f64::total_cmp);
        println!(
            "{fields} fields, {streams} streams: best {:.0} ns, median {:.0} ns a row",
            times[0],
            times[PASSES / 2]
        );
    }
    Ok(())
}

fn field(number: usize) -> Result<FieldSpec, Box<dyn std::error::Error>> {
    let name = FieldName::new(&format!("f{number}"))?;
    Ok(FieldSpec { name, kind: FieldKind::Number, unit: None, policy: FieldPolicy::Clear })
}

fn pass(plan: &std::sync::Arc<WindowPlan>, fields: usize, streams: u16) -> f64 {
    let id = |n: u16| StreamId::from_bytes([n.to_le_bytes()[0]; 16]);
    let mut windows: Vec<StreamWindows> = (0..streams).map(|n| StreamWindows::new(plan.clone(), id(n))).collect();
    let mut out = Vec::new();
    let values: nearside_schemas::Values = (0..fields).map(|n| FieldValue::Number(n as f64)).collect();
    let per_stream = ROWS / i64::from(streams);
    // Made beforehand, so that only the windows are timed.
    let make = |second: i64| {
        let time = Timestamp::from_secs(second);
        Reading { time, received: time, sequence: Some(second.unsigned_abs()), values: values.clone() }
    };
    let mut spent = 0.0;
    for second in 0..per_stream {
        let mut readings: Vec<Reading> = (0..streams).map(|_| make(second)).collect();
        let began = Instant::now();
        for (stream, reading) in windows.iter_mut().zip(readings.drain(..)) {
            black_box(stream.push(reading, &mut out));
        }
        black_box(out.len());
        out.clear();
        spent += began.elapsed().as_secs_f64();
    }
    spent * 1e9 / (per_stream * i64::from(streams)) as f64
}
