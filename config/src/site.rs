//! The whole site: read, checked, typed.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nearside_actors::{ConfigFault, InferenceConfig, RollUpConfig, RuleConfig, StreamsConfig};
use nearside_broker::BrokerConfig;
use nearside_console::ConsoleConfig;
use nearside_deadletters::DeadLettersConfig;
use nearside_journal::JournalConfig;
use nearside_models::artefact::ModelsConfig;
use nearside_outbox::OutboxConfig;
use nearside_privacy::PrivacyConfig;
use nearside_schemas::{SiteId, StreamSpec, nearest};
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
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
    parse(&text, path)
}

/// Reads and checks a file, and looks whether the files that it names are there.
///
/// # Errors
/// Where it cannot be read, or with everything that is wrong with it.
pub fn load_with_files(path: &Path) -> Result<SiteConfig, ConfigError> {
    let config = load(path)?;
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
    let mut problems = Problems::new(&text);
    let base = path.parent().unwrap_or(Path::new("."));
    for (section, key, file) in named_files(&config) {
        if let Err(error) = std::fs::File::open(base.join(file)) {
            let from = text.find(section).map_or(0..0, |at| at..at + section.len());
            let hint = if key == "users" { "; `nearside users add` makes it" } else { "" };
            let message = format!("{section} {key}: {} cannot be read: {error}{hint}", base.join(file).display());
            problems.add(problems.key_in(from, key), message);
        }
    }
    let problems = problems.into_vec();
    if problems.is_empty() { Ok(config) } else { Err(ConfigError::Wrong { path: path.to_owned(), problems }) }
}

/// The files that must be there before a start: section, key and path.
fn named_files(config: &SiteConfig) -> Vec<(&'static str, &'static str, &Path)> {
    let tls = config.broker.tls.as_ref();
    let files = [
        ("[broker]", "users", config.broker.users.as_ref()),
        ("[broker.tls]", "certificate", tls.map(|tls| &tls.certificate)),
        ("[broker.tls]", "key", tls.map(|tls| &tls.key)),
        ("[broker.tls]", "client_ca", tls.and_then(|tls| tls.client_ca.as_ref())),
        ("[broker.tls]", "revoked", tls.and_then(|tls| tls.revoked.as_ref())),
        ("[uplink]", "password_file", config.uplink.as_ref().and_then(|uplink| uplink.password_file.as_ref())),
    ];
    files.into_iter().filter_map(|(section, key, file)| Some((section, key, file?.as_path()))).collect()
}

/// Checks a configuration's text; `path` is for error texts.
///
/// # Errors
/// With everything that is wrong with it.
pub fn parse(text: &str, path: &Path) -> Result<SiteConfig, ConfigError> {
    let mut problems = Problems::new(text);
    let wrong = |problems: Problems<'_>| ConfigError::Wrong { path: path.to_owned(), problems: problems.into_vec() };
    let Some(Salvaged { raw, is_whole }) = read(text, &mut problems) else { return Err(wrong(problems)) };
    let streams = check_streams(&raw, &model_folders(&raw, path), is_whole, &mut problems);
    let specs: Vec<StreamSpec> = streams.iter().map(|stream| stream.spec.clone()).collect();
    check_rules(&raw.rules, &specs, is_whole && streams.len() == raw.definitions.len(), &mut problems);
    check_addresses(&raw, &mut problems);
    section(&raw.broker, BrokerConfig::validate, &mut problems);
    section(&raw.models, ModelsConfig::validate, &mut problems);
    section(&raw.journal, JournalConfig::validate, &mut problems);
    section(&raw.deadletters, DeadLettersConfig::validate, &mut problems);
    section(&raw.outbox, OutboxConfig::validate, &mut problems);
    section(&raw.uplink, UplinkConfig::validate, &mut problems);
    keyed_section(&raw.streams, StreamsConfig::validate, &mut problems);
    keyed_section(&raw.inference, InferenceConfig::validate, &mut problems);
    keyed_section(&raw.rollup, RollUpConfig::validate, &mut problems);
    for rule in &raw.rules {
        keyed(rule, RuleConfig::validate, &mut problems);
    }
    section(&raw.console, ConsoleConfig::validate, &mut problems);
    let found = problems.into_vec();
    if !found.is_empty() {
        return Err(ConfigError::Wrong { path: path.to_owned(), problems: found });
    }
    Ok(SiteConfig {
        site: SiteSection { id: raw.site.id, data_dir: raw.site.data_dir },
        broker: inner(raw.broker),
        journal: inner(raw.journal),
        limits: inner(raw.streams),
        inference: inner(raw.inference),
        models: inner(raw.models),
        streams,
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

fn section<T, E: std::fmt::Display>(
    section: &Option<Spanned<T>>,
    validate: fn(&T) -> Result<(), E>,
    problems: &mut Problems<'_>,
) {
    if let Some(section) = section
        && let Err(error) = validate(section.get_ref())
    {
        problems.add(section.span(), error.to_string());
    }
}

fn keyed_section<T>(
    section: &Option<Spanned<T>>,
    validate: fn(&T) -> Result<(), ConfigFault>,
    problems: &mut Problems<'_>,
) {
    if let Some(section) = section {
        keyed(section, validate, problems);
    }
}

/// Says what is wrong at the key that it is wrong with.
fn keyed<T>(section: &Spanned<T>, validate: fn(&T) -> Result<(), ConfigFault>, problems: &mut Problems<'_>) {
    if let Err(fault) = validate(section.get_ref()) {
        problems.add(problems.key_in(section.span(), fault.key), fault.to_string());
    }
}

/// Where the cards of models stand that do not ship: the site's folder, and the copies of what was in force.
fn model_folders(raw: &RawSite, site: &Path) -> Vec<PathBuf> {
    let base = site.parent().unwrap_or(Path::new(""));
    let folder = raw.models.as_ref().and_then(|models| models.get_ref().folder.as_ref());
    folder.map(|folder| vec![base.join(folder), kept_models(&base.join(&raw.site.data_dir))]).unwrap_or_default()
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
        ("[broker] listen", Some(settings.listen), broker.clone()),
        ("[broker.tls] listen", tls, broker),
        ("[console] listen", Some(page), console),
    ];
    for (n, (name, address, span)) in places.iter().enumerate() {
        for (other, taken, other_span) in &places[..n] {
            let (Some(address), Some(taken)) = (address, taken) else { continue };
            // `[::]` takes the port of both families, `0.0.0.0` that of its own.
            let takes =
                |all: &SocketAddr, other: &SocketAddr| all.ip().is_unspecified() && (all.is_ipv6() || other.is_ipv4());
            let clashes = takes(address, taken) || takes(taken, address) || address.ip() == taken.ip();
            if address.port() == taken.port() && address.port() != 0 && clashes {
                // What is not written in the file is shown at the other.
                let at = if span.is_empty() { other_span } else { span };
                let message = format!("{name} and {other} are both {taken}: each needs a port of its own");
                problems.add(problems.key_in(at.clone(), "listen"), message);
            }
        }
    }
}

fn check_streams(
    raw: &RawSite,
    folders: &[PathBuf],
    is_whole: bool,
    problems: &mut Problems<'_>,
) -> Vec<StreamDefinition> {
    let mut checked: Vec<(StreamDefinition, Range<usize>)> = Vec::new();
    if raw.definitions.is_empty() && is_whole {
        problems.add(0..0, "there is no [[stream]]: a site needs at least one");
    }
    for definition in &raw.definitions {
        let (name, topic) = (name_span(definition), topic_span(definition));
        let Some(stream) = check(definition.clone(), folders, is_whole, problems) else { continue };
        for (other, _) in &checked {
            if other.spec.name == stream.spec.name {
                problems.add(name.clone(), format!("two streams are called `{}`", stream.spec.name));
            }
            if other.spec.topic.overlaps(&stream.spec.topic) {
                let message = format!(
                    "topic `{}` overlaps `{}` of stream `{}`: one message could belong to both; make a level differ",
                    stream.spec.topic.as_str(),
                    other.spec.topic.as_str(),
                    other.spec.name,
                );
                problems.add(topic.clone(), message);
            }
        }
        checked.push((stream, topic));
    }
    checked.into_iter().map(|(stream, _)| stream).collect()
}

/// Rules are checked against the streams; where streams are broken, what is said of rules could be wrong.
fn check_rules(
    rules: &[Spanned<RuleConfig>],
    streams: &[StreamSpec],
    streams_are_whole: bool,
    problems: &mut Problems<'_>,
) {
    for (n, rule) in rules.iter().enumerate() {
        if rules[..n].iter().any(|other| other.get_ref().name == rule.get_ref().name) {
            problems.add(rule.span(), format!("two rules are called `{}`", rule.get_ref().name));
        }
        if streams_are_whole && let Err(error) = nearside_actors::rules::check_rule(rule.get_ref(), streams) {
            problems.add(rule.span(), format!("{error} (key `{}`)", error.key));
        }
    }
}
