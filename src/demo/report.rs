//! What a demonstration found: each incident with its finding and delay, and the findings that no incident explains. A finding finds an
//! incident only where its label tells of it, and an incident explains a finding only where its label comes of it.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use nearside_actors::board::{Board, PostedFinding};
use nearside_actors::ingest::Ingest;
use nearside_schemas::{Finding, StreamId, Timestamp, Topic};
use nearside_simulator::Incident;
use serde::Serialize;

use super::{Figures, Published, truth};

/// After an incident's end its traces may still be in a detector's memory.
const AFTERMATH: Duration = Duration::from_secs(600);

/// One incident and what was seen of it.
#[derive(Clone, Debug, Serialize)]
pub struct IncidentOutcome {
    /// What happened where.
    pub name: String,
    /// The kind.
    pub kind: String,
    /// When it began.
    pub from: Timestamp,
    /// The label of the first finding in it that tells of it.
    pub found_as: Option<String>,
    /// From its beginning to that finding, in simulated seconds.
    pub delay_secs: Option<f64>,
}

/// A finding that no incident explains.
#[derive(Clone, Debug, Serialize)]
pub struct Unexplained {
    /// The stream definition.
    pub stream: String,
    /// The label.
    pub label: String,
    /// When.
    pub at: Timestamp,
    /// The model's sentence.
    pub text: String,
}

/// The closing report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Messages that devices sent.
    pub messages: u64,
    /// Of those with QoS 1, how many the gateway acknowledged.
    pub acknowledged: u64,
    /// Readings decoded from them.
    pub readings: u64,
    /// Readings set aside.
    pub set_aside: u64,
    /// Payload bytes that devices sent.
    pub bytes_in: u64,
    /// Events at the cloud, each once.
    pub events_out: u64,
    /// Bytes of those.
    pub bytes_out: u64,
    /// Findings.
    pub findings: u64,
    /// Of those, how many were more than is remembered: they explain no incident here.
    pub forgotten: u64,
    /// Commands sent to devices.
    pub commands: u64,
    /// Every incident that had begun long enough ago to be seen.
    pub incidents: Vec<IncidentOutcome>,
    /// Incidents that the run ended too early for.
    pub too_early: u64,
    /// Findings without incident.
    pub unexplained: Vec<Unexplained>,
}

/// An incident with the streams that show it.
struct Watched<'a> {
    incident: &'a Incident,
    streams: Vec<StreamId>,
}

impl Watched<'_> {
    fn explains(&self, finding: &Finding) -> bool {
        let (kind, label) = (self.incident.kind, finding.label.as_str());
        let span = self.incident.from..self.incident.until.plus(AFTERMATH);
        let is_about_it = truth::tells(kind, label) || truth::comes_of(kind, label);
        span.contains(&finding.at) && self.streams.contains(&finding.window.stream) && is_about_it
    }

    fn is_found_by(&self, finding: &Finding) -> bool {
        self.explains(finding) && finding.at < self.incident.until && truth::tells(self.incident.kind, &finding.label)
    }
}

impl Report {
    /// Compares findings with incidents.
    pub fn new(
        incidents: &[Incident],
        board: &Board,
        ingest: &Ingest,
        now: Timestamp,
        published: Published,
        figures: Figures,
        set_aside: u64,
    ) -> Self {
        let mut findings = board.findings(usize::MAX);
        findings.sort_by_key(|posted| posted.finding.at);
        let stream = |topic: &String| ingest.stream_of(&Topic::new(topic).ok()?);
        let watched: Vec<Watched<'_>> = incidents
            .iter()
            .map(|incident| Watched { incident, streams: incident.topics.iter().filter_map(stream).collect() })
            .collect();
        let (seen, early): (Vec<_>, Vec<_>) = watched.iter().partition(|one| one.incident.detectable_by <= now);
        let Figures { readings, bytes_in, findings: raised, commands, events_out, bytes_out } = figures;
        Self {
            messages: published.messages,
            acknowledged: published.acknowledged,
            readings,
            set_aside,
            bytes_in,
            events_out,
            bytes_out,
            findings: raised,
            forgotten: raised.saturating_sub(findings.len() as u64),
            commands,
            incidents: seen.iter().map(|one| outcome(one, &findings)).collect(),
            too_early: early.len() as u64,
            unexplained: unexplained(&watched, &findings),
        }
    }
}

fn outcome(watched: &Watched<'_>, findings: &[PostedFinding]) -> IncidentOutcome {
    let incident = watched.incident;
    let first = findings.iter().find(|posted| watched.is_found_by(&posted.finding));
    IncidentOutcome {
        name: incident.name.clone(),
        kind: incident.kind.to_string(),
        from: incident.from,
        found_as: first.map(|posted| format!("{} ({})", posted.finding.label, posted.finding.model.name)),
        delay_secs: first.map(|posted| posted.finding.at.since(incident.from).as_secs_f64()),
    }
}

fn unexplained(watched: &[Watched<'_>], findings: &[PostedFinding]) -> Vec<Unexplained> {
    let without = findings.iter().filter(|posted| !watched.iter().any(|one| one.explains(&posted.finding)));
    without
        .map(|posted| Unexplained {
            stream: posted.stream.to_string(),
            label: posted.finding.label.clone(),
            at: posted.finding.at,
            text: posted.finding.text.clone(),
        })
        .collect()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = self.incidents.iter().filter(|incident| incident.found_as.is_some()).count();
        writeln!(
            f,
            "readings in    {:>10}   ({} messages, {} set aside)",
            self.readings, self.messages, self.set_aside
        )?;
        writeln!(f, "events out     {:>10}   (summaries, findings, roll-ups that the cloud has)", self.events_out)?;
        writeln!(f, "bytes in       {:>10}", self.bytes_in)?;
        let share = if self.bytes_in == 0 { 0.0 } else { 100.0 * self.bytes_out as f64 / self.bytes_in as f64 };
        writeln!(f, "bytes out      {:>10}   ({share:.1} % of what came in)", self.bytes_out)?;
        writeln!(f, "findings       {:>10}", self.findings)?;
        if self.forgotten > 0 {
            writeln!(f, "  the {} oldest are not remembered and find no incident below", self.forgotten)?;
        }
        writeln!(f, "commands       {:>10}", self.commands)?;
        writeln!(f, "\nincidents: {found} of {} found", self.incidents.len())?;
        for incident in &self.incidents {
            match (&incident.found_as, incident.delay_secs) {
                (Some(label), Some(delay)) => {
                    writeln!(f, "  found   {}\n          after {delay:.0} s as {label}", incident.name)?
                }
                _ => writeln!(f, "  missed  {}", incident.name)?,
            }
        }
        if self.too_early > 0 {
            writeln!(f, "  {} more began too late in this run to be seen", self.too_early)?;
        }
        writeln!(f, "\nfindings without incident: {}", self.unexplained.len())?;
        let mut by_kind: HashMap<(&str, &str), (u64, &str)> = HashMap::new();
        for one in &self.unexplained {
            by_kind.entry((&one.stream, &one.label)).or_insert((0, &one.text)).0 += 1;
        }
        let mut kinds: Vec<_> = by_kind.into_iter().collect();
        kinds.sort();
        for ((stream, label), (count, text)) in kinds {
            writeln!(f, "  {count:>4}  {stream} {label}\n        {text}")?;
        }
        Ok(())
    }
}
