//! The findings of one stream's recent windows: what lasts is one finding of its window, and what comes again once it was over another.
//!
//! Promises: which of its kind a finding is in its window depends on the rows alone, and the first is what it was before there were
//! others. What a model tells again and again is told [`AT_ONCE`] times in a window, then once in [`EVERY`]; the rest counts into the
//! last that was told, and is counted (promise I4); what is more severe is told. The latest of a kind in a window is not forgotten while others can
//! be, so no number is given twice but where one window has more than [`KEPT`] kinds.

use std::collections::VecDeque;
use std::time::Duration;

use super::outputs::Raised;
use nearside_schemas::{Contribution, FieldName, Finding, Timestamp, WindowDefinition, WindowId};

/// Most findings that are kept; past it the oldest is forgotten.
const KEPT: usize = 64;

/// Findings of a kind (model, label and field) in a window that are told whenever they come.
pub(super) const AT_ONCE: u32 = 8;
/// From then on, how long after the last that was told there is another, by event time.
pub(super) const EVERY: Duration = Duration::from_secs(10 * 60);

/// Models that judged each field by itself when findings did not say which.
const JUDGED_FIELDS: [&str; 3] = ["robust-z", "forecaster", "sensor-check"];

/// The field that a sighting is about, where its model judges each by itself.
pub(super) fn field_of(judges_fields: bool, contributions: &[Contribution]) -> Option<FieldName> {
    contributions.first().filter(|_| judges_fields).map(|part| part.field.clone())
}

/// What became of a sighting.
#[derive(Debug, PartialEq)]
pub(super) enum Noted {
    /// It is a finding that was not there.
    Told(Box<Raised>),
    /// It goes on with the last of its kind.
    GoesOn,
    /// It would be another one, and too many were told: it counts into the last.
    Withheld,
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

    /// Takes a sighting in, which `begins` where what was told before was over.
    pub(super) fn note(&mut self, mut finding: Finding, begins: bool) -> Noted {
        // What no row raised has the gateway's time, not that of rows, by which it is told how long findings are kept.
        let is_of_rows = finding.rows > 0;
        if is_of_rows {
            self.latest = self.latest.max(finding.at);
        }
        let of_kind = self.findings.iter_mut().filter(|known| is_of_kind(known, &finding));
        if let Some(known) = of_kind.max_by_key(|known| known.nth) {
            let is_free = known.nth.get() < AT_ONCE
                || finding.since >= known.since.plus(EVERY)
                || finding.severity > known.severity;
            if !begins || !is_free {
                let is_higher = finding.score > known.score;
                known.absorb(finding);
                if is_higher && !known.nth.is_first() {
                    announce(known);
                }
                return if begins { Noted::Withheld } else { Noted::GoesOn };
            }
            finding.nth = known.nth.next();
            announce(&mut finding);
        }
        let shares = |known: &Finding| (&known.window, &known.label) == (&finding.window, &finding.label);
        let is_first_of_label = !self.findings.iter().any(shares);
        if is_of_rows {
            let oldest = self.latest.minus(self.retention);
            self.findings.retain(|known| known.at >= oldest);
        }
        if self.findings.len() >= KEPT {
            self.forget_one(&finding);
        }
        self.findings.push_back(finding.clone());
        Noted::Told(Box::new(Raised { finding, is_first_of_label }))
    }

    /// Forgets the oldest that is not the latest of its kind in its window; where each is that, the oldest of another window.
    fn forget_one(&mut self, finding: &Finding) {
        let is_spare = |index: &usize| {
            let known = &self.findings[*index];
            is_of_kind(known, finding) || self.findings.iter().skip(index + 1).any(|later| is_of_kind(known, later))
        };
        let is_elsewhere = |index: &usize| self.findings[*index].window != finding.window;
        let all = 0..self.findings.len();
        let spare = all.clone().find(is_spare).or_else(|| all.clone().find(is_elsewhere));
        self.findings.remove(spare.unwrap_or(0));
    }

    /// The findings of a closed window, in order of time, then label, field and number: those that began in its span. Count windows may share a
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
        found.sort_by(|a, b| (a.since, &a.label, &a.field, a.nth).cmp(&(b.since, &b.label, &b.field, b.nth)));
        found
    }
}

/// Whether two are of one kind: of the same window, model, label and field.
fn is_of_kind(one: &Finding, other: &Finding) -> bool {
    (&one.window, &one.label, &one.field, &one.model) == (&other.window, &other.label, &other.field, &other.model)
}

/// Says in a finding's text which of its kind it is, and from when on not all are told.
fn announce(finding: &mut Finding) {
    let nth = finding.nth.get();
    let said = match nth {
        ..AT_ONCE => format!(" It was over and has come again, the {} time in this window.", ordinal(nth)),
        _ => format!(
            " It is the {} of its kind in this window: what comes within {} min is counted into it and not told.",
            ordinal(nth),
            EVERY.as_secs() / 60
        ),
    };
    if !finding.text.ends_with('.') {
        finding.text.push('.');
    }
    finding.text.push_str(&said);
}

/// `2nd`, `3rd`, `11th`.
fn ordinal(number: u32) -> String {
    let end = match (number % 100, number % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    format!("{number}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use nearside_schemas::{ModelName, ModelRef, Nth, Severity, StreamId};

    impl FindingLog {
        /// Whether a sighting that goes on with what was told is the first of its kind.
        fn is_first(&mut self, finding: Finding) -> bool {
            matches!(self.note(finding, false), Noted::Told(_))
        }
    }

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
            nth: Nth::FIRST,
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
        assert!(log.is_first(finding(0, 1, "spike", 0.7)));
        assert!(!log.is_first(finding(0, 2, "spike", 0.9)));
        assert!(log.is_first(finding(0, 2, "drop", 0.6)));
        assert!(log.is_first(finding(10, 11, "spike", 0.7)));
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
        assert!(log.is_first(on("a", 1)));
        assert!(log.is_first(on("b", 1)));
        assert!(!log.is_first(on("a", 2)));
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
        assert!(!log.is_first(now), "it is the same finding");
    }

    #[test]
    fn it_is_bounded() {
        let mut log = FindingLog::new(Duration::from_secs(1_000_000));
        for n in 0..1_000 {
            log.note(finding(n, n, "spike", 0.7), false);
        }
        assert_eq!(log.findings.len(), KEPT);
    }

    /// The numbers of the findings that are told, of sightings that begin at these seconds.
    fn told(log: &mut FindingLog, seconds: impl IntoIterator<Item = i64>) -> Vec<(i64, u32)> {
        let told = |at| match log.note(finding(0, at, "spike", 0.7), true) {
            Noted::Told(raised) => Some((at, raised.finding.nth.get())),
            Noted::GoesOn | Noted::Withheld => None,
        };
        seconds.into_iter().filter_map(told).collect()
    }

    #[test]
    fn what_comes_again_is_a_finding_of_its_own_and_what_goes_on_counts_into_the_last() {
        let mut log = FindingLog::new(Duration::from_secs(10_000));
        assert_eq!(told(&mut log, [1]), [(1, 1)]);
        assert_eq!(log.note(finding(0, 2, "spike", 0.9), false), Noted::GoesOn);
        assert_eq!(told(&mut log, [5]), [(5, 2)]);
        assert_eq!(log.note(finding(0, 6, "spike", 0.9), false), Noted::GoesOn);
        let found = log.within(&finding(0, 0, "", 0.0).window, Timestamp::from_secs(10), None);
        let figures: Vec<_> = found.iter().map(|f| (f.nth.get(), f.rows, f.since.as_micros())).collect();
        assert_eq!(figures, [(1, 2, 1_000_000), (2, 2, 5_000_000)]);
        assert_ne!((found[0].id(), found[0].tag()), (found[1].id(), found[1].tag()));
        let next = Raised { finding: finding(10, 11, "spike", 0.9), is_first_of_label: true };
        assert_eq!(log.note(next.finding.clone(), true), Noted::Told(Box::new(next)));
    }

    #[test]
    fn what_flaps_is_told_a_few_times_at_once_and_then_now_and_then() {
        let mut log = FindingLog::new(Duration::from_secs(1_000_000));
        let all = told(&mut log, 0..3_600);
        let at_once = i64::from(AT_ONCE);
        assert_eq!(all[..8], (0..at_once).map(|n| (n, n as u32 + 1)).collect::<Vec<_>>());
        let later: Vec<i64> = all[8..].iter().map(|(at, _)| *at).collect();
        assert_eq!(later, [607, 1_207, 1_807, 2_407, 3_007]);
        let rows: u64 = log.findings.iter().map(|finding| finding.rows).sum();
        assert_eq!(rows, 3_600, "the rest counts into them");
        assert!(log.findings[7].text.contains("the 8th of its kind") && log.findings[1].text.contains("the 2nd time"));
        // A row that is late by more does not count as long after.
        assert_eq!(log.note(finding(0, -5_000, "spike", 0.7), true), Noted::Withheld);
    }

    #[test]
    fn no_number_is_given_twice_however_many_findings_a_window_has() {
        let mut log = FindingLog::new(Duration::from_secs(1_000_000_000));
        let mut ids = std::collections::HashSet::new();
        for n in 0..2_000_i64 {
            for label in ["spike", "drop", "level_shift"] {
                if let Noted::Told(raised) = log.note(finding(0, n * 601, label, 0.7), true) {
                    assert!(ids.insert(raised.finding.id()), "{label} {n}");
                }
            }
        }
        assert_eq!((ids.len(), log.findings.len()), (6_000, KEPT));
    }

    #[test]
    fn what_is_more_severe_is_told_however_many_were() {
        let mut log = FindingLog::new(Duration::from_secs(10_000));
        told(&mut log, 0..20);
        let worse = Finding { severity: Severity::Critical, ..finding(0, 21, "spike", 0.7) };
        assert!(matches!(log.note(worse.clone(), true), Noted::Told(_)));
        assert_eq!(log.note(Finding { at: Timestamp::from_secs(22), ..worse }, true), Noted::Withheld);
    }

    /// A device may bring what it measured yesterday.
    #[test]
    fn what_no_row_raised_makes_the_log_forget_nothing() {
        let mut log = FindingLog::new(Duration::from_secs(10));
        assert_eq!(told(&mut log, [1]), [(1, 1)]);
        let silent = Finding { rows: 0, ..finding(86_400, 86_400, "silent", 1.0) };
        assert!(matches!(log.note(silent, true), Noted::Told(_)));
        assert_eq!(told(&mut log, [3]), [(3, 2)]);
    }

    #[test]
    fn late_rows_of_two_windows_do_not_make_it_forget_numbers() {
        let mut log = FindingLog::new(Duration::from_secs(1_000_000));
        let mut ids = std::collections::HashSet::new();
        for n in 0..500 {
            for window in [0, 100] {
                if let Noted::Told(raised) = log.note(finding(window, window + n * 601, "spike", 0.7), true) {
                    assert!(ids.insert(raised.finding.id()), "{window} {n}");
                }
            }
        }
        assert_eq!(ids.len(), 1_000);
    }
}
