//! The whole site: read, checked, typed.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nearside_actors::rules::{RuleStream, RuleSurroundings, check_rule};
use nearside_actors::stream::SILENT;
use nearside_actors::{InferenceConfig, RollUpConfig, RuleConfig, RuleSubject, StreamsConfig};
use nearside_broker::BrokerConfig;
use nearside_console::ConsoleConfig;
use nearside_deadletters::DeadLettersConfig;
use nearside_journal::JournalConfig;
use nearside_models::artefact::{ModelsConfig, own_card};
use nearside_models::card::Card;
use nearside_models::catalog;
use nearside_models::text::triage;
use nearside_outbox::OutboxConfig;
use nearside_privacy::PrivacyConfig;
use nearside_schemas::{Faults, SiteId, nearest, utf8};
use nearside_uplink::UplinkConfig;
use toml::Spanned;

use crate::definition::{StreamDefinition, check, name_span, topic_span};
use crate::error::{ConfigError, Problems};
use crate::raw::RawSite;
use crate::salvage::{Salvaged, read};

/// `[site]`.
#[derive(Clone, PartialEq, Debug)]
pub struct SiteSection {
    /// The site's name.
    pub id: SiteId,
    /// The folder for journal, outbox and keys, relative to the configuration file.
    pub data_dir: PathBuf,
}

/// A site's configuration, checked.
#[derive(Clone, PartialEq, Debug)]
pub struct SiteConfig {
    /// `[site]`.
    pub site: SiteSection,
    /// `[broker]`.
    pub broker: BrokerConfig,
    /// `[journal]`.
    pub journal: JournalConfig,
    /// `[streams]`.
    pub limits: StreamsConfig,
    /// `[inference]`.
    pub inference: InferenceConfig,
    /// `[models]`.
    pub models: ModelsConfig,
    /// `[[stream]]`.
    pub streams: Vec<StreamDefinition>,
    /// `[[rule]]`.
    pub rules: Vec<RuleConfig>,
    /// `[rollup]`.
    pub rollup: RollUpConfig,
    /// `[privacy]`.
    pub privacy: PrivacyConfig,
    /// `[deadletters]`.
    pub deadletters: DeadLettersConfig,
    /// `[outbox]`.
    pub outbox: OutboxConfig,
    /// `[uplink]`; without it summaries wait in the outbox.
    pub uplink: Option<UplinkConfig>,
    /// `[console]`.
    pub console: ConsoleConfig,
    /// The text that it was read from; empty where it was put together in another way.
    pub source: Arc<str>,
}

/// Reads and checks a file.
///
/// # Errors
/// Where it cannot be read, or with everything that is wrong with it.
pub fn load(path: &Path) -> Result<SiteConfig, ConfigError> {
    read_file(path, |text, problems| checked(text, path, problems))
}

/// Reads and checks a file, and looks whether the files that it names are there.
///
/// # Errors
/// Where it cannot be read, or with everything that is wrong with it.
pub fn load_with_files(path: &Path) -> Result<SiteConfig, ConfigError> {
    read_file(path, |text, problems| {
        let site = checked(text, path, problems)?;
        check_files(&site, path.parent().unwrap_or(Path::new(".")), problems);
        Some(site)
    })
}

/// Checks a configuration's text; `path` is for error texts.
///
/// # Errors
/// With everything that is wrong with it.
pub fn parse(text: &str, path: &Path) -> Result<SiteConfig, ConfigError> {
    read_text(text, path, |text, problems| checked(text, path, problems))
}

fn read_file(
    path: &Path,
    check: impl FnOnce(&str, &mut Problems<'_>) -> Option<SiteConfig>,
) -> Result<SiteConfig, ConfigError> {
    let bytes = std::fs::read(path).map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
    let text = utf8(&bytes).map_err(|error| ConfigError::not_utf8(path, &bytes, &error))?;
    read_text(text, path, check)
}

fn read_text(
    text: &str,
    path: &Path,
    check: impl FnOnce(&str, &mut Problems<'_>) -> Option<SiteConfig>,
) -> Result<SiteConfig, ConfigError> {
    let mut problems = Problems::new(text);
    match check(text, &mut problems) {
        Some(site) if problems.count() == 0 => Ok(site),
        _ => Err(ConfigError::Wrong { path: path.to_owned(), problems: problems.into_vec() }),
    }
}

/// The site with all that could be read of it; whatever is wrong goes to `problems`.
fn checked(text: &str, path: &Path, problems: &mut Problems<'_>) -> Option<SiteConfig> {
    let site = read(text, problems)?;
    let folders = model_folders(&site.raw, path);
    let streams = check_streams(&site, &folders, problems);
    check_rules(&site, &streams, &folders, problems);
    let raw = site.raw;
    check_addresses(&raw, problems);
    check_section(&raw.broker, BrokerConfig::faults, problems);
    check_section(&raw.models, ModelsConfig::faults, problems);
    check_section(&raw.journal, JournalConfig::faults, problems);
    check_section(&raw.deadletters, DeadLettersConfig::faults, problems);
    check_section(&raw.outbox, OutboxConfig::faults, problems);
    check_section(&raw.uplink, UplinkConfig::faults, problems);
    check_section(&raw.streams, StreamsConfig::faults, problems);
    check_section(&raw.inference, InferenceConfig::faults, problems);
    check_section(&raw.rollup, RollUpConfig::faults, problems);
    check_section(&raw.console, ConsoleConfig::faults, problems);
    for rule in &raw.rules {
        say_faults(rule, RuleConfig::faults, problems);
    }
    Some(SiteConfig {
        site: SiteSection { id: raw.site.id, data_dir: raw.site.data_dir },
        broker: inner(raw.broker),
        journal: inner(raw.journal),
        limits: inner(raw.streams),
        inference: inner(raw.inference),
        models: inner(raw.models),
        streams: streams.definitions,
        rules: raw.rules.into_iter().map(Spanned::into_inner).collect(),
        rollup: inner(raw.rollup),
        privacy: raw.privacy,
        deadletters: inner(raw.deadletters),
        outbox: inner(raw.outbox),
        uplink: raw.uplink.map(Spanned::into_inner),
        console: inner(raw.console),
        source: text.into(),
    })
}

/// The files that must be there before a start.
fn check_files(config: &SiteConfig, base: &Path, problems: &mut Problems<'_>) {
    let tls = config.broker.tls.as_ref();
    let files = [
        ("broker.users", config.broker.users.as_ref()),
        ("broker.tls.certificate", tls.map(|tls| &tls.certificate)),
        ("broker.tls.key", tls.map(|tls| &tls.key)),
        ("broker.tls.client_ca", tls.and_then(|tls| tls.client_ca.as_ref())),
        ("broker.tls.revoked", tls.and_then(|tls| tls.revoked.as_ref())),
        ("uplink.password_file", config.uplink.as_ref().and_then(|uplink| uplink.password_file.as_ref())),
    ];
    for (key, file) in files.into_iter().filter_map(|(key, file)| Some((key, base.join(file?)))) {
        if let Err(error) = std::fs::File::open(&file) {
            let hint = if key == "broker.users" { "; `nearside users add` makes it" } else { "" };
            problems.add(problems.key(key), format!("`{key}`: {} cannot be read: {error}{hint}", file.display()));
        }
    }
}
fn inner<T: Default>(section: Option<Spanned<T>>) -> T {
    section.map(Spanned::into_inner).unwrap_or_default()
}

/// Adds the nearest known key to serde's text for an unknown one.
pub(crate) fn explain(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    if message.starts_with("unknown ")
        && let Some(name) = quoted.next()
        && let Some(near) = short_for(name, quoted.clone()).or_else(|| nearest(name, quoted))
    {
        return format!("{message}; did you mean `{near}`?");
    }
    message.to_owned()
}

/// What is usually meant by an abbreviation, where it is known here.
fn short_for<'k>(name: &str, mut known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    const ABBREVIATIONS: [(&str, &str); 5] =
        [("s", "seconds"), ("ms", "millis"), ("us", "micros"), ("µs", "micros"), ("ns", "nanos")];
    let (_, long) = ABBREVIATIONS.iter().find(|(short, _)| *short == name)?;
    known.find(|known| known == long)
}

fn check_section<T>(section: &Option<Spanned<T>>, faults: fn(&T) -> Faults, problems: &mut Problems<'_>) {
    if let Some(section) = section {
        say_faults(section, faults, problems);
    }
}

/// Says each fault at the key that it is wrong with.
fn say_faults<T>(section: &Spanned<T>, faults: fn(&T) -> Faults, problems: &mut Problems<'_>) {
    for fault in faults(section.get_ref()).into_vec() {
        problems.add(problems.key_in(section.span(), fault.key), fault.to_string());
    }
}

/// Where the cards of models stand that do not ship: the site's folder, and the copies of what was in force.
fn model_folders(raw: &RawSite, site: &Path) -> Vec<PathBuf> {
    raw.models.as_ref().map(|models| own_folders(models.get_ref(), &raw.site.data_dir, site)).unwrap_or_default()
}

fn own_folders(models: &ModelsConfig, data: &Path, site: &Path) -> Vec<PathBuf> {
    let base = site.parent().unwrap_or(Path::new(""));
    let folder = models.folder.as_ref();
    folder.map(|folder| vec![base.join(folder), kept_models(&base.join(data))]).unwrap_or_default()
}

/// The folder in the data folder that keeps what was in force of the models that a site brings itself.
pub fn kept_models(data: &Path) -> PathBuf {
    data.join("models")
}

/// Two that listen at one place: the second would not start. A port of 0 is any free one.
fn check_addresses(raw: &RawSite, problems: &mut Problems<'_>) {
    let section = |span: Option<Range<usize>>| span.unwrap_or(0..0);
    let broker = section(raw.broker.as_ref().map(Spanned::span));
    let console = section(raw.console.as_ref().map(Spanned::span));
    let settings = raw.broker.as_ref().map(|broker| broker.get_ref().clone()).unwrap_or_default();
    let tls = settings.tls.as_ref().and_then(|tls| tls.listen);
    let page = raw.console.as_ref().map(|console| console.get_ref().listen);
    let page = page.unwrap_or_else(|| ConsoleConfig::default().listen);
    let places = [
        ("[broker] listen", "listen", Some(settings.listen), broker.clone()),
        ("[broker.tls] listen", "tls.listen", tls, broker),
        ("[console] listen", "listen", Some(page), console),
    ];
    for (n, (name, key, address, span)) in places.iter().enumerate() {
        for (other, other_key, taken, other_span) in &places[..n] {
            let (Some(address), Some(taken)) = (address, taken) else { continue };
            // `[::]` takes the port of both families, `0.0.0.0` that of its own.
            let takes =
                |all: &SocketAddr, other: &SocketAddr| all.ip().is_unspecified() && (all.is_ipv6() || other.is_ipv4());
            let clashes = takes(address, taken) || takes(taken, address) || address.ip() == taken.ip();
            if address.port() == taken.port() && address.port() != 0 && clashes {
                // What is not written in the file is shown at the other.
                let (at, key) = if span.is_empty() { (other_span, other_key) } else { (span, key) };
                let message = format!("{name} and {other} are both {taken}: each needs a port of its own");
                problems.add(problems.key_in(at.clone(), key), message);
            }
        }
    }
}

/// The definitions that could be made, and whether others or rules may be misled by what could not.
struct CheckedStreams {
    definitions: Vec<StreamDefinition>,
    /// Every definition of the file is here, and nothing is missing of any.
    are_whole: bool,
    /// Something is wrong with them, alone or beside each other.
    are_wrong: bool,
}

fn check_streams(site: &Salvaged, folders: &[PathBuf], problems: &mut Problems<'_>) -> CheckedStreams {
    let before = problems.count();
    let raw = &site.raw;
    let mut checked: Vec<(StreamDefinition, bool)> = Vec::new();
    if raw.definitions.is_empty() && site.are_whole("stream") {
        problems.add(0..0, "there is no [[stream]]: a site needs at least one");
    }
    for definition in &raw.definitions {
        let (name, topic) = (name_span(definition), topic_span(definition));
        let is_whole = site.is_whole(&definition.span());
        let Some(stream) = check(definition.clone(), folders, is_whole, problems) else { continue };
        // A topic that stands nowhere stands for one that is missing.
        let has_topic = !topic.is_empty();
        for (other, other_has_topic) in &checked {
            if other.spec.name == stream.spec.name {
                problems.add(name.clone(), format!("two streams are called `{}`", stream.spec.name));
            }
            if has_topic && *other_has_topic && other.spec.topic.overlaps(&stream.spec.topic) {
                let message = format!(
                    "topic `{}` overlaps `{}` of stream `{}`: one message could belong to both; make a level differ",
                    stream.spec.topic.as_str(),
                    other.spec.topic.as_str(),
                    other.spec.name,
                );
                problems.add(topic.clone(), message);
            }
        }
        checked.push((stream, has_topic));
    }
    let definitions: Vec<StreamDefinition> = checked.into_iter().map(|(stream, _)| stream).collect();
    let are_whole = site.are_whole("stream") && definitions.len() == raw.definitions.len();
    CheckedStreams { definitions, are_whole, are_wrong: problems.count() > before }
}

/// Keys of a rule without which it is still known which streams it looks at.
const BESIDE_STREAMS: [&str; 9] =
    ["name", "when", "publish", "topic", "payload", "qos", "retain", "cooldown", "time_to_live"];

/// Rules are checked against the streams; where those are not whole, what is said of rules could be wrong, and a rule is checked by itself.
/// What is said of a rule beside wrong streams, or beside a wrong name of a stream, may come from them, and stands behind it.
fn check_rules(site: &Salvaged, streams: &CheckedStreams, folders: &[PathBuf], problems: &mut Problems<'_>) {
    let seen: Vec<RuleStream> = streams.definitions.iter().map(|stream| rule_stream(stream, folders)).collect();
    let rules = &site.raw.rules;
    for (n, rule) in rules.iter().enumerate() {
        let span = rule.span();
        if rules[..n].iter().any(|other| other.get_ref().name == rule.get_ref().name) {
            let at = problems.key_in(span.clone(), "name");
            problems.add(at, format!("two rules are called `{}`", rule.get_ref().name));
        }
        // A rule whose `on` is not known may look at what is not there, and one that lost another key may name its streams there.
        let knows_its_subject = site.lost_keys(&span).all(|key| key != "on");
        let knows_its_streams = site.lost_keys(&span).all(|key| BESIDE_STREAMS.contains(&key));
        let surroundings =
            (streams.are_whole && knows_its_subject).then_some(RuleSurroundings { streams: &seen, knows_its_streams });
        for error in check_rule(rule.get_ref(), surroundings) {
            let (at, message) = (problems.key_in(span.clone(), error.key), format!("`{}`: {}", error.key, error.why));
            if streams.are_wrong || error.is_consequence {
                problems.add_consequence(at, message);
            } else {
                problems.add(at, message);
            }
        }
    }
}

impl SiteConfig {
    /// What is odd about a configuration and keeps nothing from starting, each in a sentence. `path` is the file that it was read from.
    pub fn oddities(&self, path: &Path) -> Vec<String> {
        let folders = own_folders(&self.models, &self.site.data_dir, path);
        let seen: Vec<RuleStream> = self.streams.iter().map(|stream| rule_stream(stream, &folders)).collect();
        let unheard = |rule: &RuleConfig| {
            let labels = nearside_actors::rules::unheard_labels(rule, &seen);
            let looked_at = |stream: &&RuleStream| rule.streams.is_empty() || rule.streams.contains(&stream.spec.name);
            let given: BTreeSet<&str> =
                seen.iter().filter(looked_at).flat_map(|stream| &stream.labels).map(String::as_str).collect();
            let given = given.into_iter().collect::<Vec<_>>().join(", ");
            let given = if given.is_empty() { "they have no models".to_owned() } else { format!("they give {given}") };
            let say = |label| {
                format!(
                    "rule `{}`: no model of its streams gives the label `{label}`, so a comparison with it tells nothing; {given}",
                    rule.name
                )
            };
            labels.into_iter().map(say).collect::<Vec<String>>()
        };
        self.rules.iter().filter(|rule| rule.on == RuleSubject::Finding).flat_map(unheard).collect()
    }
}

/// A stream as rules see it. The labels of a method are those of the program, whatever a card says; those of a text model are what it
/// learnt.
fn rule_stream(stream: &StreamDefinition, folders: &[PathBuf]) -> RuleStream {
    let (mut labels, mut gives_other_labels) = (BTreeSet::new(), false);
    labels.extend(stream.silent_after.map(|_| SILENT.to_owned()));
    for name in &stream.models {
        let own = own_card(name.as_str(), folders);
        match own {
            Some(card) if card.method() == triage::NAME => {
                gives_other_labels = true;
                labels.extend(card.labels());
            }
            own => labels.extend(catalog::labels(own.as_ref().map_or(name.as_str(), Card::method))),
        }
    }
    RuleStream { spec: stream.spec.clone(), models: stream.models.clone(), labels, gives_other_labels }
}
