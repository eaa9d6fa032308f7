//! From a `[[stream]]` as written to a definition that can be started.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use nearside_actors::Priority;
use nearside_models::ModelError;
use nearside_models::card::Task;
use nearside_schemas::codec::{CodecSpec, Format, TimestampSpec, decoder, path_fault};
use nearside_schemas::{
    FieldKind, FieldName, FieldPolicy, FieldSpec, KeyPartSpec, ModelName, StreamSpec, TopicTemplate, unknown_name,
};
use nearside_window::{GuardConfig, WindowConfig, WindowPlan};
use toml::Spanned;

use crate::error::Problems;
use crate::raw::{RawField, RawStream, RawTimestamp};
use crate::site::explain;

/// A checked stream definition.
#[derive(Clone, PartialEq, Debug)]
pub struct StreamDefinition {
    /// Topic, key, fields, codec.
    pub spec: StreamSpec,
    /// Its windows.
    pub windows: Vec<WindowConfig>,
    /// Its guards.
    pub guard: GuardConfig,
    /// Its models.
    pub models: Vec<ModelName>,
    /// Who goes first where streams wait for the same model.
    pub priority: Priority,
    /// A window with fewer rows carries counts only.
    pub min_rows: u64,
    /// After how long without a reading it is told as silent.
    pub silent_after: Option<Duration>,
}

/// Checks one definition. `None` where something is wrong, which `problems` then says. Where it could not be read as a whole, what is
/// missing may be a window, a field or the format, and nothing is said of what depends on those.
pub(crate) fn check(
    raw: Spanned<RawStream>,
    folders: &[PathBuf],
    is_whole: bool,
    problems: &mut Problems<'_>,
) -> Option<StreamDefinition> {
    let whole = raw.span();
    let raw = raw.into_inner();
    let topic = match TopicTemplate::parse(raw.topic.get_ref()) {
        Ok(topic) => Some(topic),
        Err(error) => {
            problems.add(raw.topic.span(), error.to_string());
            None
        }
    };
    let fields = fields(&raw, &whole, problems);
    let key = topic.as_ref().map(|topic| key(&raw, topic, problems));
    let fields_are_whole = raw.fields.get_ref().len() == fields.len() && !raw.fields.span().is_empty();
    if is_whole && fields_are_whole && key.is_some() {
        check_privacy_names(&raw, &fields, key.as_deref().unwrap_or_default(), problems);
    }
    let paths_are_good = check_paths(&raw, &fields, &whole, problems);
    check_bounds(&raw, problems);
    let guard = guard(&raw);
    let before = problems.count();
    for fault in guard.faults().into_vec() {
        problems.add(problems.key_in(whole.clone(), fault.key), fault.to_string());
    }
    let windows: Vec<WindowConfig> = raw.windows.iter().map(|window| window.get_ref().clone()).collect();
    for window in raw.windows.iter().filter(|_| is_whole) {
        for error in window.get_ref().faults() {
            problems.add(window.span(), error.to_string());
        }
    }
    let specs: Vec<FieldSpec> = fields.iter().map(|(field, _)| field.clone()).collect();
    if is_whole
        && problems.count() == before
        && let Err(error) = WindowPlan::new(&specs, &windows, guard.clone())
    {
        problems.add(raw.name.span(), error.to_string());
    }
    let timestamp = raw.timestamp.as_ref().map(|timestamp| match timestamp {
        RawTimestamp::Path(path) => TimestampSpec { path: path_of(path), unit: Default::default() },
        RawTimestamp::Full(full) => TimestampSpec { path: path_of(&full.path), unit: full.unit },
    });
    let spec = StreamSpec {
        name: raw.name.get_ref().clone(),
        topic: topic?,
        codec: CodecSpec {
            format: *raw.format.get_ref(),
            paths: fields.into_iter().map(|(_, path)| path).collect(),
            rows: raw.rows.clone(),
            rate_hz: raw.rate_hz.as_ref().map(|rate| *rate.get_ref()),
            rate_path: raw.rate.clone(),
            max_payload_bytes: raw.max_payload.get_ref().bytes() as usize,
            max_readings: *raw.max_readings.get_ref(),
        },
        timestamp,
        sequence: raw.sequence.clone(),
        fields: specs,
        key: key?,
        group: raw.group.clone().unwrap_or_else(|| raw.name.get_ref().to_string()),
    };
    if is_whole
        && fields_are_whole
        && paths_are_good
        && let Err(error) = decoder(&spec)
    {
        problems.add(if spec.codec.format == Format::Json { whole } else { raw.format.span() }, error.to_string());
    }
    let (models, is_for_patients) = models(&raw, fields_are_whole.then_some(&spec), folders, problems);
    let usual = if is_for_patients { Priority::Medical } else { Priority::Ordinary };
    let priority = raw.priority.unwrap_or(usual);
    let (min_rows, silent_after) = (raw.min_rows.max(1), raw.silent_after.map(|after| after.get_ref().get()));
    Some(StreamDefinition { spec, windows, guard, models, priority, min_rows, silent_after })
}

/// A bare name is a path of one name.
fn path_of(path: &str) -> String {
    path.to_owned()
}

fn fields(raw: &RawStream, whole: &Range<usize>, problems: &mut Problems<'_>) -> Vec<(FieldSpec, String)> {
    let span = raw.fields.span();
    let mut fields = Vec::new();
    if raw.fields.get_ref().is_empty() && !span.is_empty() {
        problems.add(span, "a stream needs at least one field, such as `fields = { value = \"$.value\" }`");
    }
    for (name, value) in raw.fields.get_ref() {
        let field = match value {
            toml::Value::String(path) => Ok(RawField { path: path.clone(), unit: None, kind: None }),
            other => other.clone().try_into::<RawField>().map_err(|error| explain(error.message())),
        };
        let at = problems.key_in(whole.clone(), &format!("fields.{name}"));
        let name = FieldName::new(name).map_err(|error| error.to_string());
        match (name, field) {
            (Ok(name), Ok(field)) => {
                let kind = field.kind.unwrap_or(FieldKind::Number);
                let default = if kind == FieldKind::Text { FieldPolicy::Drop } else { FieldPolicy::Clear };
                let policy = raw.privacy.get(name.as_str()).map_or(default, |policy| *policy.get_ref());
                fields.push((FieldSpec { name, kind, unit: field.unit, policy }, field.path));
            }
            (Err(why), _) => problems.add(at, why),
            (Ok(name), Err(why)) => problems.add(
                at,
                format!("field `{name}`: {why} (a field is a path such as \"$.{name}\", or {{ path = \"$.{name}\", unit = \"…\", kind = \"number\" }})"),
            ),
        }
    }
    fields
}

fn key(raw: &RawStream, topic: &TopicTemplate, problems: &mut Problems<'_>) -> Vec<KeyPartSpec> {
    let policy =
        |name: &FieldName| raw.privacy.get(name.as_str()).map_or(FieldPolicy::Pseudonym, |policy| *policy.get_ref());
    let mut key: Vec<KeyPartSpec> =
        topic.parts().map(|name| KeyPartSpec { name: name.clone(), path: None, policy: policy(name) }).collect();
    for (name, path) in &raw.key {
        match FieldName::new(name) {
            Ok(name) if key.iter().any(|part| part.name == name) => {
                problems.add(path.span(), format!("key part `{name}` stands in the topic already"));
            }
            Ok(name) => {
                let policy = policy(&name);
                key.push(KeyPartSpec { name, path: Some(path_of(path.get_ref())), policy });
            }
            Err(error) => problems.add(path.span(), error.to_string()),
        }
    }
    key
}

/// Says each path that cannot be read at its own key; whether all can.
fn check_paths(
    raw: &RawStream,
    fields: &[(FieldSpec, String)],
    whole: &Range<usize>,
    problems: &mut Problems<'_>,
) -> bool {
    let named = |key: &str, path: &Option<String>| path.as_ref().map(|path| (key.to_owned(), path.clone()));
    let timestamp = raw.timestamp.as_ref().map(|timestamp| match timestamp {
        RawTimestamp::Path(path) => ("timestamp".to_owned(), path.clone()),
        RawTimestamp::Full(full) => ("timestamp.path".to_owned(), full.path.clone()),
    });
    let of_fields = fields.iter().map(|(field, path)| match raw.fields.get_ref().get(field.name.as_str()) {
        Some(toml::Value::Table(_)) => (format!("fields.{}.path", field.name), path.clone()),
        _ => (format!("fields.{}", field.name), path.clone()),
    });
    let of_key = raw.key.iter().map(|(name, path)| (format!("key.{name}"), path.get_ref().clone()));
    let others = [named("sequence", &raw.sequence), named("rows", &raw.rows), named("rate", &raw.rate)];
    // SenML has a time of its own; there the path may be empty.
    let timestamp = timestamp.filter(|(_, path)| !path.is_empty());
    let paths: Vec<(String, String)> =
        timestamp.into_iter().chain(of_fields).chain(of_key).chain(others.into_iter().flatten()).collect();
    let before = problems.count();
    for (key, path) in paths {
        if let Some(error) = path_fault(&path) {
            problems.add(problems.key_in(whole.clone(), &key), format!("`{key}`: {error}"));
        }
    }
    problems.count() == before
}

fn check_privacy_names(
    raw: &RawStream,
    fields: &[(FieldSpec, String)],
    key: &[KeyPartSpec],
    problems: &mut Problems<'_>,
) {
    let names = || fields.iter().map(|(field, _)| field.name.as_str()).chain(key.iter().map(|part| part.name.as_str()));
    for (name, policy) in &raw.privacy {
        let is_number =
            |(field, _): &(FieldSpec, String)| field.name.as_str() == name && field.kind == FieldKind::Number;
        if *policy.get_ref() == FieldPolicy::Pseudonym && fields.iter().any(is_number) {
            let why = "is a number, and a number has no pseudonym: few values are possible, and who knows one pair knows \
                       them all; write `encrypt` or `drop`";
            problems.add(policy.span(), format!("`{name}` {why}"));
        }
        if !names().any(|known| known == name) {
            problems.add(policy.span(), unknown_name("privacy names", name, names()));
        }
    }
}

/// Values with which no message would ever be decoded.
fn check_bounds(raw: &RawStream, problems: &mut Problems<'_>) {
    if let Some(rate) = &raw.rate_hz
        && !(rate.get_ref().is_finite() && *rate.get_ref() > 0.0)
    {
        problems.add(rate.span(), "`rate_hz` must be above zero: samples a second");
    }
    if let Some(after) = raw.silent_after.as_ref().filter(|after| after.get_ref().get().is_zero()) {
        problems.add(after.span(), "`silent_after` must be above zero, such as \"5m\"");
    }
    if raw.max_payload.get_ref().bytes() == 0 {
        problems.add(raw.max_payload.span(), "`max_payload` must be above zero, such as \"256KiB\"");
    }
    if *raw.max_readings.get_ref() == 0 {
        problems.add(raw.max_readings.span(), "`max_readings` must be above zero");
    }
}

fn guard(raw: &RawStream) -> GuardConfig {
    let default = GuardConfig::default();
    GuardConfig {
        past: raw.past.unwrap_or(default.past),
        future: raw.future.unwrap_or(default.future),
        idle: raw.idle.unwrap_or(default.idle),
        max_rows: raw.max_rows.unwrap_or(default.max_rows),
        max_open: raw.max_open.unwrap_or(default.max_open),
        ..default
    }
}

/// The models, and whether one is for patients. Without the stream's fields it is not said whether they suit a model.
fn models(
    raw: &RawStream,
    spec: Option<&StreamSpec>,
    folders: &[PathBuf],
    problems: &mut Problems<'_>,
) -> (Vec<ModelName>, bool) {
    let (mut names, mut is_for_patients) = (Vec::new(), false);
    for model in &raw.models {
        match check_model(model.get_ref(), spec, folders) {
            Ok((name, task)) => {
                names.push(name);
                is_for_patients |= task == Task::Diagnosis;
            }
            Err(why) => problems.add(model.span(), why),
        }
    }
    (names, is_for_patients)
}

/// What a site's own model needs of the stream is what the shipped one needs whose weights it has.
fn check_model(name: &str, spec: Option<&StreamSpec>, folders: &[PathBuf]) -> Result<(ModelName, Task), String> {
    let method = nearside_models::artefact::method_of(name, folders).map_err(|error| match error {
        ModelError::Unknown { name, .. } => {
            unknown_name("there is no model", &name, nearside_models::catalog::names().collect::<Vec<_>>())
        }
        error => error.to_string(),
    })?;
    let model = nearside_models::catalog::load(method, None).map_err(|error| error.to_string())?;
    spec.map_or(Ok(()), |spec| model.accepts(&spec.fields)).map_err(|error| error.to_string())?;
    let task = nearside_models::catalog::card(method, None).map_err(|error| error.to_string())?.task;
    Ok((ModelName::new(name).map_err(|error| error.to_string())?, task))
}

/// The span of a definition's topic, for problems between definitions.
pub(crate) fn topic_span(raw: &Spanned<RawStream>) -> Range<usize> {
    raw.get_ref().topic.span()
}

/// The span of a definition's name.
pub(crate) fn name_span(raw: &Spanned<RawStream>) -> Range<usize> {
    raw.get_ref().name.span()
}
