//! The arithmetic of a roll-up: one lazy Polars query over the parts of its windows.

use nearside_schemas::{FieldName, RollUp, RollUpId, SiteId, Timestamp};
use polars::prelude::*;

use super::component::Part;

/// Polars refused the query, or panicked on it: a fault of ours, not of the data.
#[derive(Debug, thiserror::Error)]
pub enum AggregateError {
    /// It refused it.
    #[error("a roll-up could not be computed: {0}")]
    Refused(#[from] PolarsError),
    /// It panicked.
    #[error("a roll-up could not be computed: a panic")]
    Panicked,
}

/// Groups the parts by group and field. The result is in the order of group, then field, with revision 0.
pub(super) fn aggregate(
    site: &SiteId,
    start: Timestamp,
    end: Timestamp,
    parts: &[&Part],
) -> Result<Vec<RollUp>, AggregateError> {
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    #[cfg(test)]
    assert!(parts.iter().all(|part| part.group != "poison"), "the poison");
    let numbers = |name: &str, value: fn(&Part) -> f64| {
        Column::new(name.into(), parts.iter().map(|part| value(part)).collect::<Vec<f64>>())
    };
    let counts = |name: &str, value: fn(&Part) -> u64| {
        Column::new(name.into(), parts.iter().map(|part| value(part)).collect::<Vec<u64>>())
    };
    let frame = DataFrame::new(
        parts.len(),
        vec![
            Column::new("group".into(), parts.iter().map(|part| part.group.as_str()).collect::<Vec<_>>()),
            Column::new("field".into(), parts.iter().map(|part| part.field.as_str()).collect::<Vec<_>>()),
            counts("stream", |part| part.stream),
            counts("rows", |part| part.rows),
            numbers("min", |part| part.min),
            numbers("max", |part| part.max),
            numbers("sum", |part| part.mean * part.rows as f64),
            counts("findings", |part| part.findings),
        ],
    )?;
    let rolled = frame
        .lazy()
        .group_by_stable([col("group"), col("field")])
        .agg([
            col("stream").n_unique().cast(DataType::UInt64).alias("streams"),
            len().cast(DataType::UInt64).alias("windows"),
            col("rows").sum(),
            col("min").min(),
            col("max").max(),
            col("sum").sum(),
            col("findings").sum(),
        ])
        .sort(["group", "field"], SortMultipleOptions::default())
        .collect()?;
    read(site, start, end, &rolled)
}

fn read(site: &SiteId, start: Timestamp, end: Timestamp, rolled: &DataFrame) -> Result<Vec<RollUp>, AggregateError> {
    let text = |name: &str, row: usize| -> PolarsResult<String> {
        Ok(rolled.column(name)?.str()?.get(row).unwrap_or_default().to_owned())
    };
    let count =
        |name: &str, row: usize| -> PolarsResult<u64> { Ok(rolled.column(name)?.u64()?.get(row).unwrap_or_default()) };
    let number =
        |name: &str, row: usize| -> PolarsResult<f64> { Ok(rolled.column(name)?.f64()?.get(row).unwrap_or_default()) };
    (0..rolled.height())
        .map(|row| {
            let field = text("field", row)?;
            let field = FieldName::new(&field).map_err(|error| PolarsError::ComputeError(error.to_string().into()))?;
            let rows = count("rows", row)?;
            Ok(RollUp {
                site: site.clone(),
                id: RollUpId { group: text("group", row)?, field, start },
                revision: 0,
                end,
                streams: count("streams", row)?,
                windows: count("windows", row)?,
                rows,
                min: number("min", row)?,
                max: number("max", row)?,
                mean: if rows == 0 { 0.0 } else { number("sum", row)? / rows as f64 },
                findings: count("findings", row)?,
            })
        })
        .collect()
}
