//! The rules component: findings and summaries in, commands out; told later what became of each command.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cel::{Context, ExecutionError, Value};
use nearside_schemas::{Command, CommandId, Further, RuleName, StreamId, Summary, Timestamp, WindowId};
use serde::{Deserialize, Serialize};

use super::subject::{Origin, finding_context, summary_context};
use super::{CompiledRule, RuleError, compile, explain};
use crate::config::{RuleConfig, RuleSubject};
use crate::stream::Raised;

/// Most command ids that are remembered, and most streams and labels whose cooldown is; the oldest are forgotten first.
const REMEMBERED: usize = 65_536;

/// What became of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The broker took it at this time.
    Sent(Timestamp),
    /// It expired or could not be sent; the cooldown does not count it.
    NotSent,
}

/// A rule that could not be evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFault {
    /// The rule.
    pub rule: RuleName,
    /// Why; holds no text of a device.
    pub why: String,
}

/// Whose cooldown runs: the rule, the stream and, where a finding fired it, the finding's label.
type QuietKey = (RuleName, StreamId, Option<Arc<str>>);

/// A cooldown that runs, as a checkpoint keeps it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Cooldown {
    rule: RuleName,
    stream: StreamId,
    label: Option<Arc<str>>,
    from: Timestamp,
}

/// What a checkpoint may hold of a cooldown. Older ones hold one for all labels together, and it runs out for all of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum SavedCooldown {
    OfLabel(Cooldown),
    OfAll(RuleName, StreamId, Timestamp),
}

/// Whether a cooldown runs. One that began further ahead than it lasts is of a clock that has gone back: it would silence a rule until
/// that has caught up.
fn runs(from: Timestamp, cooldown: Duration, now: Timestamp) -> bool {
    now < from.plus(cooldown) && from <= now.plus(cooldown)
}

/// All rules of a site.
pub struct Rules {
    rules: Vec<CompiledRule>,
    issued: HashSet<CommandId>,
    issued_order: VecDeque<CommandId>,
    /// When a rule last sent, or issued and waits to hear, for a stream and a label.
    quiet_from: HashMap<QuietKey, Timestamp>,
}

/// What a rule fired on.
struct Firing<'a> {
    context: &'a Context<'a, 'a>,
    window: &'a WindowId,
    revision: u32,
    label: Option<&'a str>,
    further: Option<Further>,
    origin: &'a Origin,
    now: Timestamp,
}

impl Rules {
    /// Compiles the rules.
    pub fn new(rules: &[RuleConfig]) -> Result<Self, RuleError> {
        let rules = rules.iter().map(compile).collect::<Result<_, _>>()?;
        Ok(Self { rules, issued: HashSet::new(), issued_order: VecDeque::new(), quiet_from: HashMap::new() })
    }

    /// Goes on with other rules: what was issued and whose cooldown runs is kept.
    pub fn replace_rules(&mut self, other: Self) {
        self.rules = other.rules;
    }

    /// Whether any rule looks at summaries of this kind; if not they need not be shown.
    pub fn looks_at_summaries(&self) -> bool {
        self.rules.iter().any(|rule| rule.config.on == RuleSubject::Summary)
    }

    /// The rules' names.
    pub fn names(&self) -> impl Iterator<Item = &RuleName> {
        self.rules.iter().map(|rule| &rule.config.name)
    }

    /// Evaluates the rules on a finding when it is first seen.
    pub fn on_finding(&mut self, raised: &Raised, origin: &Origin, now: Timestamp) -> Vec<Result<Command, RuleFault>> {
        if self.rules.iter().all(|rule| rule.config.on != RuleSubject::Finding) {
            return Vec::new();
        }
        let finding = &raised.finding;
        let (window, label) = (&finding.window, Some(finding.label.as_str()));
        let further = (!raised.is_first_of_label).then(|| Further {
            model: finding.model.clone(),
            field: finding.field.clone(),
            nth: finding.nth,
        });
        match finding_context(finding, origin) {
            Ok(context) => {
                let firing = Firing { context: &context, window, revision: 0, label, further, origin, now };
                self.evaluate(RuleSubject::Finding, &firing)
            }
            Err(why) => self.all_fail(RuleSubject::Finding, origin, &why),
        }
    }

    /// Evaluates the rules on a judged summary.
    pub fn on_summary(
        &mut self,
        summary: &Summary,
        origin: &Origin,
        now: Timestamp,
    ) -> Vec<Result<Command, RuleFault>> {
        if !self.looks_at_summaries() {
            return Vec::new();
        }
        let (window, revision) = (&summary.window, summary.revision);
        match summary_context(summary, origin) {
            Ok(context) => {
                let firing = Firing { context: &context, window, revision, label: None, further: None, origin, now };
                self.evaluate(RuleSubject::Summary, &firing)
            }
            Err(why) => self.all_fail(RuleSubject::Summary, origin, &why),
        }
    }

    /// Tells what became of a command.
    pub fn settle(&mut self, id: &CommandId, outcome: Outcome) {
        let key = (id.rule.clone(), id.window.stream, id.label.clone());
        match outcome {
            Outcome::Sent(at) => {
                self.quiet_from.insert(key, at);
            }
            Outcome::NotSent => {
                self.quiet_from.remove(&key);
            }
        }
    }

    /// Marks a command as issued in an earlier run, so that it is not issued again.
    pub fn remember(&mut self, id: CommandId) {
        if self.issued.insert(id.clone()) {
            self.issued_order.push_back(id);
        }
        while self.issued_order.len() > REMEMBERED {
            if let Some(oldest) = self.issued_order.pop_front() {
                self.issued.remove(&oldest);
            }
        }
    }

    /// Whose cooldown runs at `now`, and since when: what a checkpoint keeps of rules.
    pub fn cooldowns(&self, now: Timestamp) -> Vec<Cooldown> {
        let cooldown =
            |name: &RuleName| self.rules.iter().find(|rule| rule.config.name == *name).map(|r| r.config.cooldown);
        let is_running =
            |name: &RuleName, from: Timestamp| cooldown(name).is_some_and(|long| runs(from, long.get(), now));
        let running = self.quiet_from.iter().filter(|((name, ..), from)| is_running(name, **from));
        let mut all: Vec<Cooldown> = running
            .map(|((rule, stream, label), from)| Cooldown {
                rule: rule.clone(),
                stream: *stream,
                label: label.clone(),
                from: *from,
            })
            .collect();
        all.sort();
        all
    }

    /// Goes on with the cooldowns that [`Rules::cooldowns`] gave, as JSON.
    pub fn resume_cooldowns(&mut self, saved: &[u8]) -> Result<(), serde_json::Error> {
        let saved: Vec<SavedCooldown> = serde_json::from_slice(saved)?;
        self.quiet_from.extend(saved.into_iter().map(|saved| match saved {
            SavedCooldown::OfLabel(Cooldown { rule, stream, label, from }) => ((rule, stream, label), from),
            SavedCooldown::OfAll(rule, stream, from) => ((rule, stream, None), from),
        }));
        Ok(())
    }

    /// The rules that look at this kind of subject of this stream.
    fn that_look_at(&self, on: RuleSubject, origin: &Origin) -> Vec<usize> {
        let looks = |rule: &CompiledRule| {
            let streams = &rule.config.streams;
            rule.config.on == on && (streams.is_empty() || streams.contains(&origin.spec.name))
        };
        (0..self.rules.len()).filter(|index| looks(&self.rules[*index])).collect()
    }

    fn all_fail(&self, on: RuleSubject, origin: &Origin, why: &str) -> Vec<Result<Command, RuleFault>> {
        let fault = |index: usize| RuleFault { rule: self.rules[index].config.name.clone(), why: why.to_owned() };
        self.that_look_at(on, origin).into_iter().map(|index| Err(fault(index))).collect()
    }

    fn evaluate(&mut self, on: RuleSubject, firing: &Firing<'_>) -> Vec<Result<Command, RuleFault>> {
        let mut answers = Vec::new();
        for index in self.that_look_at(on, firing.origin) {
            match self.fire(index, firing) {
                Ok(Some(command)) => {
                    self.remember(command.id.clone());
                    answers.push(Ok(command));
                }
                Ok(None) => {}
                Err(why) => answers.push(Err(RuleFault { rule: self.rules[index].config.name.clone(), why })),
            }
        }
        answers
    }

    fn fire(&mut self, index: usize, firing: &Firing<'_>) -> Result<Option<Command>, String> {
        let rule = &self.rules[index];
        if !holds(rule, firing.context)? {
            return Ok(None);
        }
        let id = CommandId {
            rule: rule.config.name.clone(),
            window: firing.window.clone(),
            revision: firing.revision,
            label: firing.label.map(Arc::from),
            further: firing.further.clone(),
        };
        let cooldown = rule.config.cooldown.get();
        // A cooldown without a label is of a summary, or of all labels together and from an older checkpoint.
        let quiet_key: QuietKey = (id.rule.clone(), id.window.stream, id.label.clone());
        let all_labels: QuietKey = (id.rule.clone(), id.window.stream, None);
        let is_quiet = |key| self.quiet_from.get(key).is_some_and(|from| runs(*from, cooldown, firing.now));
        if is_quiet(&quiet_key) || is_quiet(&all_labels) || self.issued.contains(&id) {
            return Ok(None);
        }
        let topic = rule.topic.fill(&firing.origin.parts()).map_err(|error| error.to_string())?;
        if topic.as_str().starts_with('$') {
            // A key part that stands in the payload may be anything.
            return Err("its topic would begin with `$`, which is the gateway's own".to_owned());
        }
        let payload: Arc<[u8]> = rule.payload.render(firing.context)?.into();
        let command = Command {
            id,
            topic,
            payload,
            qos: rule.config.publish.qos,
            retain: rule.config.publish.retain,
            created: firing.now,
            expires: firing.now.plus(rule.config.time_to_live.get()),
        };
        self.forget_old_cooldowns(firing.now);
        self.quiet_from.insert(quiet_key, firing.now);
        Ok(Some(command))
    }

    /// Keeps the cooldown table bounded: past the bound, drops what no cooldown can still need.
    fn forget_old_cooldowns(&mut self, now: Timestamp) {
        if self.quiet_from.len() < REMEMBERED {
            return;
        }
        let longest = self.rules.iter().map(|rule| rule.config.cooldown.get()).max().unwrap_or_default();
        self.quiet_from.retain(|_, from| now < from.plus(longest));
        if self.quiet_from.len() >= REMEMBERED {
            let mut times: Vec<Timestamp> = self.quiet_from.values().copied().collect();
            let middle = times.len() / 2;
            let (_, median, _) = times.select_nth_unstable(middle);
            let median = *median;
            self.quiet_from.retain(|_, from| *from > median);
        }
    }
}

/// Whether the condition holds. A field that the subject does not have makes it not hold.
fn holds(rule: &CompiledRule, context: &Context<'_, '_>) -> Result<bool, String> {
    match rule.when.execute(context) {
        Ok(Value::Bool(answer)) => Ok(answer),
        Ok(_) => Err("the condition is no truth value".to_owned()),
        Err(ExecutionError::NoSuchKey(_)) => Ok(false),
        Err(error) => Err(explain(&error)),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::PublishConfig;
    use nearside_schemas::codec::{CodecSpec, Format};
    use nearside_schemas::{
        Contribution, FieldName, FieldPolicy, Finding, HumanDuration, KeyPartSpec, ModelName, ModelRef, Nth, Personal,
        QoS, Severity, StreamName, StreamSpec, TopicTemplate, WindowDefinition,
    };

    fn rule(when: &str) -> RuleConfig {
        RuleConfig {
            name: RuleName::new("alarm").unwrap(),
            on: RuleSubject::Finding,
            streams: Vec::new(),
            when: when.to_owned(),
            publish: PublishConfig {
                topic: "ward/{patient}/alarm".to_owned(),
                payload: r#"{"who":"${key.patient}","spo2":${finding.seen.spo2}}"#.to_owned(),
                qos: QoS::AtLeastOnce,
                retain: false,
            },
            cooldown: HumanDuration::secs(60),
            time_to_live: HumanDuration::secs(30),
        }
    }

    fn origin() -> Origin {
        let spec = StreamSpec {
            name: StreamName::new("vitals").unwrap(),
            topic: TopicTemplate::parse("ward/{patient}/vitals").unwrap(),
            codec: CodecSpec {
                format: Format::Json,
                paths: Vec::new(),
                rows: None,
                rate_hz: None,
                rate_path: None,
                max_payload_bytes: 1,
                max_readings: 1,
            },
            timestamp: None,
            sequence: None,
            fields: Vec::new(),
            key: vec![KeyPartSpec {
                name: FieldName::new("patient").unwrap(),
                path: None,
                policy: FieldPolicy::Encrypt,
            }],
            group: "g".to_owned(),
        };
        Origin { spec: Arc::new(spec), key: [Personal::new(Arc::from("床7"))].into_iter().collect() }
    }

    /// Of a window that begins at this second, with this oxygen saturation.
    pub(crate) fn finding(window: i64, spo2: f64) -> Finding {
        Finding {
            window: WindowId {
                stream: StreamId::from_bytes([1; 16]),
                definition: WindowDefinition::new("1m").unwrap(),
                start: Timestamp::from_secs(window),
            },
            model: ModelRef { name: ModelName::new("news2").unwrap(), version: "1".into() },
            label: "news2_high".to_owned(),
            field: None,
            nth: Nth::FIRST,
            severity: Severity::Critical,
            since: Timestamp::from_secs(window),
            at: Timestamp::from_secs(window),
            rows: 1,
            score: 0.5,
            threshold: 0.25,
            contributions: vec![Contribution {
                field: FieldName::new("spo2").unwrap(),
                seen: spo2,
                expected: None,
                band: None,
                share: 3.0,
                note: None,
            }],
            text: "suggests an emergency response".to_owned(),
        }
    }

    fn first(finding: &Finding) -> Raised {
        Raised { finding: finding.clone(), is_first_of_label: true }
    }

    fn fired(rules: &mut Rules, finding: &Finding, now: i64) -> Vec<Command> {
        let answers = rules.on_finding(&first(finding), &origin(), Timestamp::from_secs(now));
        answers.into_iter().map(|answer| answer.unwrap()).collect()
    }

    #[test]
    fn a_command_goes_to_the_streams_own_device() {
        let mut rules = Rules::new(&[rule("finding.seen.spo2 < 90 && finding.severity == 'critical'")]).unwrap();
        assert!(fired(&mut rules, &finding(0, 95.0), 0).is_empty());
        let commands = fired(&mut rules, &finding(0, 85.5), 0);
        assert_eq!(commands[0].topic.as_str(), "ward/床7/alarm");
        assert_eq!(&commands[0].payload[..], r#"{"who":"床7","spo2":85.5}"#.as_bytes());
        assert_eq!(commands[0].expires, Timestamp::from_secs(30));
    }

    /// I8: one id is issued once; the cooldown counts from what was sent and not from what expired.
    #[test]
    fn an_id_is_issued_once_and_cooldown_counts_what_was_sent() {
        let mut rules = Rules::new(&[rule("true")]).unwrap();
        let first = fired(&mut rules, &finding(0, 1.0), 0);
        assert_eq!(first.len(), 1);
        rules.settle(&first[0].id, Outcome::Sent(Timestamp::from_secs(10)));
        assert!(fired(&mut rules, &finding(60, 1.0), 69).is_empty(), "quiet for 60 s after 10");
        let second = fired(&mut rules, &finding(60, 1.0), 70);
        assert_eq!(second.len(), 1);
        rules.settle(&second[0].id, Outcome::NotSent);
        assert!(fired(&mut rules, &finding(60, 1.0), 71).is_empty(), "the same id never again");
        assert_eq!(fired(&mut rules, &finding(120, 1.0), 71).len(), 1, "what was not sent makes nobody quiet");
    }

    /// What was sent while the clock was a day ahead keeps nobody quiet once it has gone back.
    #[test]
    fn a_cooldown_of_a_clock_that_went_back_is_over() {
        let mut rules = Rules::new(&[rule("true")]).unwrap();
        let ahead = fired(&mut rules, &finding(86_400, 1.0), 86_400);
        rules.settle(&ahead[0].id, Outcome::Sent(Timestamp::from_secs(86_400)));
        let back = fired(&mut rules, &finding(60, 1.0), 60);
        assert_eq!(back.len(), 1);
        rules.settle(&back[0].id, Outcome::Sent(Timestamp::from_secs(63)));
        assert!(
            fired(&mut rules, &finding(120, 1.0), 62).is_empty(),
            "one that was sent a moment later than this was heard"
        );
        assert_eq!(rules.cooldowns(Timestamp::from_secs(64)).len(), 1);
    }

    /// Another label is another matter: neither the window's command nor the cooldown of the first keeps the second from people.
    #[test]
    fn each_label_has_its_own_command_and_its_own_cooldown() {
        let mut rules = Rules::new(&[rule("true")]).unwrap();
        let other = |window| Finding { label: "deteriorating".to_owned(), ..finding(window, 1.0) };
        let first = fired(&mut rules, &finding(0, 1.0), 0);
        let second = fired(&mut rules, &other(0), 1);
        assert_eq!((first.len(), second.len()), (1, 1));
        assert!(first[0].id.to_string().ends_with(":r0:news2_high"), "{}", first[0].id);
        assert!(second[0].id.to_string().ends_with(":r0:deteriorating"), "{}", second[0].id);
        rules.settle(&first[0].id, Outcome::Sent(Timestamp::from_secs(2)));
        rules.settle(&second[0].id, Outcome::NotSent);
        assert!(fired(&mut rules, &finding(60, 1.0), 61).is_empty(), "quiet for 60 s after 2");
        assert_eq!(fired(&mut rules, &other(60), 61).len(), 1, "what was not sent makes nobody quiet");
        assert!(fired(&mut rules, &other(0), 200).is_empty(), "the same id never again");
    }

    /// What comes again in its window, and what comes on another field, is looked at, each once; the cooldown is of stream and label.
    #[test]
    fn each_further_finding_of_a_label_has_its_own_command_and_the_labels_cooldown() {
        let mut rules = Rules::new(&[rule("true")]).unwrap();
        let again = |nth: Nth, field: Option<&str>| {
            let field = field.map(|field| FieldName::new(field).unwrap());
            Raised { finding: Finding { nth, field, ..finding(0, 1.0) }, is_first_of_label: false }
        };
        let second = Nth::FIRST.next();
        let mut fires = |raised: &Raised, now| {
            let answers = rules.on_finding(raised, &origin(), Timestamp::from_secs(now));
            answers.into_iter().map(|answer| answer.unwrap().id.to_string()).collect::<Vec<_>>()
        };
        let id = |more: &str| vec![format!("alarm:{}:1m:0:r0:news2_high{more}", StreamId::from_bytes([1; 16]))];
        assert_eq!(fires(&first(&finding(0, 1.0)), 0), id(""), "as it was before there were others");
        assert!(fires(&again(second, None), 59).is_empty(), "quiet for 60 s");
        assert_eq!(fires(&again(second, None), 60), id(":news2@1#2"));
        assert_eq!(fires(&again(Nth::FIRST, Some("spo2")), 120), id(":news2@1:spo2"));
        assert_eq!(fires(&again(second, Some("spo2")), 180), id(":news2@1:spo2#2"));
        assert!(fires(&again(second, None), 240).is_empty(), "the same id never again");
    }

    #[test]
    fn cooldowns_go_on_from_a_checkpoint_also_of_the_version_before() {
        let mut rules = Rules::new(&[rule("true")]).unwrap();
        let other = Finding { label: "deteriorating".to_owned(), ..finding(60, 1.0) };
        assert_eq!(fired(&mut rules, &finding(0, 1.0), 0).len(), 1);
        let saved = serde_json::to_vec(&rules.cooldowns(Timestamp::from_secs(1))).unwrap();
        let mut resumed = Rules::new(&[rule("true")]).unwrap();
        resumed.resume_cooldowns(&saved).unwrap();
        assert!(fired(&mut resumed, &finding(60, 1.0), 59).is_empty());
        assert_eq!(fired(&mut resumed, &other, 59).len(), 1);
        let before = serde_json::to_vec(&[("alarm", StreamId::from_bytes([1; 16]), Timestamp::from_secs(0))]).unwrap();
        let mut resumed = Rules::new(&[rule("true")]).unwrap();
        resumed.resume_cooldowns(&before).unwrap();
        assert!(fired(&mut resumed, &other, 59).is_empty(), "one cooldown for all labels runs out for all");
        assert_eq!(fired(&mut resumed, &other, 60).len(), 1);
    }

    /// A key part that stands in the payload is whatever a device writes there.
    #[test]
    fn a_device_cannot_have_a_command_sent_to_a_topic_of_the_gateways_own() {
        let mut to_bed = rule("true");
        to_bed.publish.topic = "{patient}/broker/version".to_owned();
        let mut rules = Rules::new(&[to_bed]).unwrap();
        let origin = Origin { key: [Personal::new(Arc::from("$SYS"))].into_iter().collect(), ..origin() };
        let answers = rules.on_finding(&first(&finding(0, 1.0)), &origin, Timestamp::from_secs(0));
        assert!(matches!(answers.as_slice(), [Err(fault)] if fault.why.contains("begin with `$`")));
    }

    #[test]
    fn what_the_subject_does_not_have_does_not_hold_and_faults_are_told() {
        let mut rules = Rules::new(&[rule("finding.seen.nothing > 1.0"), rule("finding.label > 1")]).unwrap();
        let answers = rules.on_finding(&first(&finding(0, 1.0)), &origin(), Timestamp::from_secs(0));
        assert_eq!(answers.len(), 1);
        assert!(answers[0].is_err());
    }
}
