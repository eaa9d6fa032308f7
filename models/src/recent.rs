//! The most recent rows of a model's streams, for learning online.
//!
//! Promises: it holds no more than it was made for: further series are not kept, older rows of a series are forgotten (promise I4).
//! Never: a row is written to disk or leaves the process (I2).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use nearside_schemas::{Faults, FieldName, FieldSpec, FieldValue, HumanDuration, ModelName, StreamId, Timestamp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::train::online::Series;

/// `[models.online]`: models that go on learning from the site's own rows. A candidate is trained beside the version in force, compared with it on
/// rows that neither has seen, put in force only where it is better, and taken back where it turns out worse. Rows are kept in memory
/// alone. A model that learns may not judge a stream that a model for patients judges.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OnlineConfig {
    /// The models that learn, by the names that streams use: `forecaster`, or models of a site's own with that method. None: nothing learns.
    pub models: Vec<ModelName>,
    /// Between two steps: a candidate is trained, compared, put in force or watched.
    pub every: HumanDuration,
    /// Most recent rows that are kept of each field of a stream.
    pub rows: usize,
    /// Most fields of streams that rows are kept of, those that come first; the others are not learnt from.
    pub series: usize,
    /// Rows without which nothing is compared.
    pub least_rows: usize,
    /// By what share the loss of a candidate must be lower, or that of the version before for it to be taken back.
    pub margin: f64,
    /// Most passes over the rows. A training takes a quarter of one core at most.
    pub epochs: usize,
}

impl Default for OnlineConfig {
    fn default() -> Self {
        Self {
            models: Vec::new(),
            every: HumanDuration::secs(3_600),
            rows: 4_000,
            series: 64,
            least_rows: 500,
            margin: 0.02,
            epochs: 4,
        }
    }
}

impl OnlineConfig {
    /// Adds what is wrong here to the faults of `[models]`.
    pub(crate) fn faults(&self, faults: Faults) -> Faults {
        let bad_least = self.least_rows < 50 || self.least_rows > self.rows;
        let bad_margin = !(0.0..1.0).contains(&self.margin);
        faults
            .check("online.every", self.every.get() < LEAST_PAUSE, "must be at least 1s")
            .check("online.rows", !(64..=MOST_ROWS).contains(&self.rows), "must be between 64 and 100000")
            .check("online.series", !(1..=MOST_SERIES).contains(&self.series), "must be between 1 and 4096")
            .check("online.least_rows", bad_least, "must be 50 at least and at most `rows`")
            .check("online.margin", bad_margin, "must be 0 at least and below 1, such as 0.02")
            .check("online.epochs", !(1..=100).contains(&self.epochs), "must be between 1 and 100")
    }
}

const LEAST_PAUSE: Duration = Duration::from_secs(1);
const MOST_ROWS: usize = 100_000;
const MOST_SERIES: usize = 4_096;

/// The most recent rows of some series.
pub struct RecentRows {
    rows: usize,
    series: usize,
    kept: Mutex<BTreeMap<(StreamId, FieldName), Kept>>,
}

#[derive(Default)]
struct Kept {
    /// Rows that were forgotten.
    first: u64,
    rows: VecDeque<(Timestamp, f64)>,
}

impl RecentRows {
    /// For so many rows of each series, and so many series: those that come first.
    pub fn new(rows: usize, series: usize) -> Self {
        Self { rows: rows.max(1), series: series.max(1), kept: Mutex::default() }
    }

    /// Takes a row of a stream with these fields in.
    pub fn push(&self, stream: StreamId, fields: &[FieldSpec], time: Timestamp, values: &[FieldValue]) {
        let mut kept = self.kept.lock();
        for (field, value) in fields.iter().zip(values) {
            let Some(value) = value.number() else { continue };
            let key = (stream, field.name.clone());
            if kept.len() >= self.series && !kept.contains_key(&key) {
                continue;
            }
            let known = kept.entry(key).or_default();
            if known.rows.len() == self.rows {
                known.rows.pop_front();
                known.first += 1;
            }
            known.rows.push_back((time, value));
        }
    }

    /// A copy of all series.
    pub fn series(&self) -> Vec<Series> {
        let kept = self.kept.lock();
        let series = kept.iter().map(|((stream, field), kept)| Series {
            stream: *stream,
            field: field.clone(),
            first: kept.first,
            rows: kept.rows.iter().copied().collect(),
        });
        series.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nearside_schemas::{FieldKind, FieldPolicy};

    #[test]
    fn it_keeps_the_newest_rows_of_the_first_series() {
        let field = FieldName::new("v").unwrap();
        let fields = [FieldSpec { name: field, kind: FieldKind::Number, unit: None, policy: FieldPolicy::Clear }];
        let recent = RecentRows::new(3, 2);
        for row in 0..5 {
            for stream in 0..3 {
                let (id, time) = (StreamId::from_bytes([stream; 16]), Timestamp::from_secs(row));
                recent.push(id, &fields, time, &[FieldValue::Number(row as f64)]);
            }
        }
        recent.push(StreamId::from_bytes([0; 16]), &fields, Timestamp::from_secs(9), &[FieldValue::Missing]);
        let series = recent.series();
        assert_eq!(series.len(), 2);
        assert_eq!((series[0].first, series[0].rows.len(), series[0].rows[2].1), (2, 3, 4.0));
    }
}
