//! The findings of one stream's recent windows: the same thing seen again in a window, on the same field, is one finding.

use std::collections::VecDeque;
use std::time::Duration;

use nearside_schemas::{Contribution, FieldName, Finding, Timestamp, WindowDefinition, WindowId};

/// Most findings that are kept; past it the oldest is forgotten.
const KEPT: usize = 64;

/// Models that judged each field by itself when findings did not say which.
const JUDGED_FIELDS: [&str; 3] = ["robust-z", "forecaster", "sensor-check"];

/// The field that a sighting is about, where its model judges each by itself.
pub(super) fn field_of(judges_fields: bool, contributions: &[Contribution]) -> Option<FieldName> {
    contributions.first().filter(|_| judges_fields).map(|part| part.field.clone())
}

/// The findings that windows may still want.
pub(super) struct FindingLog {
    retention: Duration,
    latest: Timestamp,
    findings: VecDeque<Finding>,
}

impl FindingLog {
    pub(super) const fn new(retention: Duration) -> Self {
        Self { retention, latest: Timestamp::MIN, findings: VecDeque::new() }
    }

    /// What it holds, for a snapshot: the latest time and the findings.
    pub(super) const fn parts(&self) -> (Timestamp, &VecDeque<Finding>) {
        (self.latest, &self.findings)
    }

    /// Holds again what [`FindingLog::parts`] gave.
    pub(super) fn restore(&mut self, latest: Timestamp, mut findings: VecDeque<Finding>) {
        findings.truncate(KEPT);
        for finding in &mut findings {
            // Those of versions that did not tell fields apart.
            let by_field = JUDGED_FIELDS.contains(&finding.model.name.as_str());
            finding.field = finding.field.take().or_else(|| field_of(by_field, &finding.contributions));
        }
        (self.latest, self.findings) = (latest, findings);
    }

    /// Takes a sighting in. Gives it back where it is the first of its kind in its window.
    pub(super) fn note(&mut self, finding: Finding) -> Option<Finding> {
        self.latest = self.latest.max(finding.at);
        let known = self.findings.iter_mut().find(|known| {
            (&known.window, &known.label, &known.field, &known.model)
                == (&finding.window, &finding.label, &finding.field, &finding.model)
        });
        if let Some(known) = known {
            known.absorb(finding);
            return None;
        }
        let oldest = self.latest.minus(self.retention);
        self.findings.retain(|known| known.at >= oldest);
        if self.findings.len() == KEPT {
            self.findings.pop_front();
        }
        self.findings.push_back(finding.clone());
        Some(finding)
    }

    /// The findings of a closed window, in order of time, then label, then field: those that began in its span. Count windows may share a
    /// time: where the first definition is one (`primary_count`), those of its windows are told by their window.
    pub(super) fn within(
        &self,
        window: &WindowId,
        end: Timestamp,
        primary_count: Option<&WindowDefinition>,
    ) -> Vec<Finding> {
        let by_window = primary_count.is_some_and(|definition| *definition == window.definition);
        let belongs = |finding: &&Finding| {
            if by_window { finding.window == *window } else { (window.start..end).contains(&finding.since) }
        };
        let mut found: Vec<Finding> = self.findings.iter().filter(belongs).cloned().collect();
        found.sort_by(|a, b| (a.since, &a.label, &a.field).cmp(&(b.since, &b.label, &b.field)));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nearside_schemas::{ModelName, ModelRef, Severity, StreamId};

    fn finding(start: i64, at: i64, label: &str, score: f64) -> Finding {
        Finding {
            window: WindowId {
                stream: StreamId::from_bytes([0; 16]),
                definition: WindowDefinition::new("10s").unwrap(),
                start: Timestamp::from_secs(start),
            },
            model: ModelRef { name: ModelName::new("m").unwrap(), version: "1".into() },
            label: label.to_owned(),
            field: None,
            severity: Severity::Warning,
            since: Timestamp::from_secs(at),
            at: Timestamp::from_secs(at),
            rows: 1,
            score,
            threshold: 0.5,
            contributions: Vec::new(),
            text: String::new(),
        }
    }

    #[test]
    fn a_thing_seen_twice_in_a_window_is_one_finding() {
        let mut log = FindingLog::new(Duration::from_secs(100));
        assert!(log.note(finding(0, 1, "spike", 0.7)).is_some());
        assert!(log.note(finding(0, 2, "spike", 0.9)).is_none());
        assert!(log.note(finding(0, 2, "drop", 0.6)).is_some());
        assert!(log.note(finding(10, 11, "spike", 0.7)).is_some());
        let window = finding(0, 0, "", 0.0).window;
        let found = log.within(&window, Timestamp::from_secs(10), None);
        assert_eq!(found.iter().map(|f| (f.label.as_str(), f.rows)).collect::<Vec<_>>(), [("spike", 2), ("drop", 1)]);
        assert_eq!((found[0].score, found[0].since), (0.9, Timestamp::from_secs(1)));
    }

    #[test]
    fn a_thing_seen_on_two_fields_is_two_findings() {
        let on = |field: &str, at: i64| Finding {
            field: Some(FieldName::new(field).unwrap()),
            ..finding(0, at, "spike", 0.7)
        };
        let mut log = FindingLog::new(Duration::from_secs(100));
        assert!(log.note(on("a", 1)).is_some());
        assert!(log.note(on("b", 1)).is_some());
        assert!(log.note(on("a", 2)).is_none());
        let found = log.within(&finding(0, 0, "", 0.0).window, Timestamp::from_secs(10), None);
        let fields: Vec<_> = found.iter().map(|f| (f.field.as_ref().unwrap().as_str(), f.rows)).collect();
        assert_eq!(fields, [("a", 2), ("b", 1)]);
        assert_ne!(found[0].id(), found[1].id());
    }

    /// What versions wrote that did not tell fields apart.
    #[test]
    fn findings_of_the_first_format_are_read_and_known_again() {
        let first = r#"{"window":"WINDOW","model":{"name":"robust-z","version":"1"},"label":"spike","severity":"warning",
            "since":"1970-01-01T00:00:01Z","at":"1970-01-01T00:00:01Z","rows":1,"score":0.7,"threshold":0.5,
            "contributions":[{"field":"a","seen":1.0,"share":1.0}],"text":""}"#;
        let now = Finding {
            field: Some(FieldName::new("a").unwrap()),
            model: ModelRef { name: ModelName::new("robust-z").unwrap(), version: "1".into() },
            ..finding(0, 2, "spike", 0.6)
        };
        let written = serde_json::to_value(&now).unwrap();
        let first = first.replace("\"WINDOW\"", &written["window"].to_string());
        let mut first: serde_json::Value = serde_json::from_str(&first).unwrap();
        (first["since"], first["at"]) = (written["since"].clone(), written["at"].clone());
        let mut log = FindingLog::new(Duration::from_secs(100));
        log.restore(Timestamp::from_secs(1), VecDeque::from([serde_json::from_value(first).unwrap()]));
        assert!(log.note(now).is_none(), "it is the same finding");
    }

    #[test]
    fn it_is_bounded() {
        let mut log = FindingLog::new(Duration::from_secs(1_000_000));
        for n in 0..1_000 {
            log.note(finding(n, n, "spike", 0.7));
        }
        assert_eq!(log.findings.len(), KEPT);
    }
}
