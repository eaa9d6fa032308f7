//! From the rows of a closed window to the figures of its summary.

use std::sync::Arc;

use arrow::array::{Array, Float64Array, StringArray};
use arrow::record_batch::RecordBatch;

use crate::arrow_schema::FIRST_FIELD;
use crate::ids::FieldName;
use crate::personal::Personal;
use crate::stream::{FieldKind, FieldPolicy, FieldSpec};
use crate::summary::{FieldSummary, Quantiles};

/// The figures of each numeric field that has a value in the window. Empty where the window has fewer than `min_rows` rows;
/// a field with fewer than `min_rows` values is left out likewise, for then its mean would be nearly a raw value (promise I2).
pub fn summarise_fields(rows: &RecordBatch, fields: &[FieldSpec], min_rows: u64) -> Vec<FieldSummary> {
    figures(rows, fields, FieldPolicy::Clear, min_rows)
}

/// The figures of each numeric field that may leave as ciphertext alone, under the same bound.
pub fn summarise_hidden_fields(
    rows: &RecordBatch,
    fields: &[FieldSpec],
    min_rows: u64,
) -> Vec<(FieldName, Personal<FieldSummary>)> {
    let hidden = figures(rows, fields, FieldPolicy::Encrypt, min_rows);
    hidden.into_iter().map(|figures| (figures.name.clone(), Personal::new(figures))).collect()
}

/// The figures of the numeric fields with this policy.
fn figures(rows: &RecordBatch, fields: &[FieldSpec], policy: FieldPolicy, min_rows: u64) -> Vec<FieldSummary> {
    let mut summaries = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        if field.kind != FieldKind::Number || field.policy != policy {
            continue;
        }
        let Some(column) = rows.columns().get(FIRST_FIELD + index) else { continue };
        let Some(column) = column.as_any().downcast_ref::<Float64Array>() else { continue };
        let values: Vec<f64> = column.iter().flatten().collect();
        if values.len() as u64 >= min_rows.max(1) {
            summaries.push(summarise(field, values));
        }
    }
    summaries
}

fn summarise(field: &FieldSpec, mut values: Vec<f64>) -> FieldSummary {
    let (mean, std) = mean_and_std(&values);
    values.sort_unstable_by(f64::total_cmp);
    let quantile = |q| quantile_of_sorted(&values, q);
    FieldSummary {
        name: field.name.clone(),
        unit: field.unit.clone(),
        count: values.len() as u64,
        min: quantile(0.0),
        max: quantile(1.0),
        mean,
        std,
        quantiles: Quantiles {
            p05: quantile(0.05),
            p25: quantile(0.25),
            p50: quantile(0.5),
            p75: quantile(0.75),
            p95: quantile(0.95),
        },
    }
}

/// Mean and sample standard deviation (n − 1) in one pass (Welford, 1962).
fn mean_and_std(values: &[f64]) -> (f64, f64) {
    let (mut mean, mut squares) = (0.0, 0.0);
    for (n, value) in values.iter().enumerate() {
        let delta = value - mean;
        mean += delta / (n as f64 + 1.0);
        squares += delta * (value - mean);
    }
    let std = if values.len() > 1 { (squares / (values.len() as f64 - 1.0)).sqrt() } else { 0.0 };
    (mean, std)
}

/// The quantile `q` by linear interpolation between order statistics; 0 where there are none.
fn quantile_of_sorted(sorted: &[f64], q: f64) -> f64 {
    let place = q * (sorted.len().saturating_sub(1)) as f64;
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    match (sorted.get(low), sorted.get(high)) {
        (Some(a), Some(b)) => a + (b - a) * (place - low as f64),
        _ => 0.0,
    }
}

/// The values of the text fields whose policy lets them leave in some form, in row order.
pub fn collect_texts(rows: &RecordBatch, fields: &[FieldSpec]) -> Vec<(FieldName, Vec<Personal<Arc<str>>>)> {
    let mut texts = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        if field.kind != FieldKind::Text || field.policy == FieldPolicy::Drop {
            continue;
        }
        let Some(column) = rows.columns().get(FIRST_FIELD + index) else { continue };
        let Some(column) = column.as_any().downcast_ref::<StringArray>() else { continue };
        let values: Vec<_> = column.iter().flatten().map(|text| Personal::new(Arc::from(text))).collect();
        if !values.is_empty() {
            texts.push((field.name.clone(), values));
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrow_schema::window_schema;
    use arrow::array::{ArrayRef, TimestampMicrosecondArray, UInt64Array};
    use proptest::prelude::*;

    fn field(kind: FieldKind, policy: FieldPolicy) -> FieldSpec {
        FieldSpec { name: FieldName::new("f").unwrap(), kind, unit: None, policy }
    }

    fn batch(field: &FieldSpec, column: ArrayRef) -> RecordBatch {
        let times = TimestampMicrosecondArray::from(vec![0; column.len()]).with_timezone("UTC");
        let columns: Vec<ArrayRef> = vec![
            Arc::new(times.clone()),
            Arc::new(times),
            Arc::new(UInt64Array::from(vec![None; column.len()])),
            column,
        ];
        RecordBatch::try_new(window_schema(std::slice::from_ref(field)), columns).unwrap()
    }

    proptest! {
        #[test]
        fn agrees_with_the_plain_formulas(values in prop::collection::vec(prop::option::weighted(0.9, -1e6f64..1e6), 1..60)) {
            let field = field(FieldKind::Number, FieldPolicy::Clear);
            let rows = batch(&field, Arc::new(Float64Array::from(values.clone())));
            let known: Vec<f64> = values.into_iter().flatten().collect();
            let found = summarise_fields(&rows, std::slice::from_ref(&field), 3);
            prop_assert_eq!(found.len(), usize::from(known.len() >= 3));
            if let Some(found) = found.first() {
                let n = known.len() as f64;
                let mean = known.iter().sum::<f64>() / n;
                let variance = known.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
                prop_assert!((found.mean - mean).abs() < 1e-6);
                prop_assert!((found.std - variance.sqrt()).abs() < 1e-6 * (1.0 + variance.sqrt()));
                let q = found.quantiles;
                let order = [found.min, q.p05, q.p25, q.p50, q.p75, q.p95, found.max];
                prop_assert!(order.windows(2).all(|pair| pair[0] <= pair[1]));
                prop_assert_eq!(found.max, known.iter().copied().fold(f64::MIN, f64::max));
            }
        }
    }

    #[test]
    fn the_median_of_four_lies_between_the_middle_two() {
        let field = field(FieldKind::Number, FieldPolicy::Clear);
        let rows = batch(&field, Arc::new(Float64Array::from(vec![4.0, 1.0, 2.0, 10.0])));
        assert_eq!(summarise_fields(&rows, &[field], 1)[0].quantiles.p50, 3.0);
    }

    #[test]
    fn what_may_not_leave_is_not_collected() {
        for (policy, leaves) in [(FieldPolicy::Drop, false), (FieldPolicy::Encrypt, true)] {
            let text = field(FieldKind::Text, policy);
            let rows = batch(&text, Arc::new(StringArray::from(vec![Some("a"), None])));
            assert_eq!(collect_texts(&rows, &[text]).len(), usize::from(leaves));
            let number = field(FieldKind::Number, policy);
            let rows = batch(&number, Arc::new(Float64Array::from(vec![1.0, 2.0, 3.0])));
            assert!(
                summarise_fields(&rows, std::slice::from_ref(&number), 1).is_empty(),
                "a hidden number has no mean"
            );
            let hidden = summarise_hidden_fields(&rows, std::slice::from_ref(&number), 3);
            assert_eq!(hidden.len(), usize::from(leaves), "{policy:?}");
            assert!(summarise_hidden_fields(&rows, &[number], 4).is_empty(), "too few rows");
        }
    }
}
