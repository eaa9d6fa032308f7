//! Reading on past what has the wrong type, so that one look says everything that is wrong.
//!
//! Promises: each value that cannot be read is said once, where it stands; what cannot be said while it is missing is not said.
//! Never: a file with such a value counts as good.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer};

use crate::error::Problems;
use crate::raw::RawSite;
use crate::site::explain;

/// More wrong values than these are not looked for.
const MOST: usize = 100;
/// What there may be several of.
const LISTS: [&str; 2] = ["stream", "rule"];

/// A site as it is written, without what could not be read.
pub(crate) struct Salvaged {
    pub(crate) raw: RawSite,
    /// What is missing, or stands for what is missing.
    damaged: Vec<Damage>,
}

/// A key that is missing, or that something stands for.
struct Damage {
    /// The section that it was in,
    section: String,
    /// and where that stands.
    place: Range<usize>,
    /// The innermost key.
    key: String,
}

impl Salvaged {
    /// Whether nothing is missing of the section or definition at this place: else a check that looks at several values could be misled.
    pub(crate) fn is_whole(&self, place: &Range<usize>) -> bool {
        !self.damaged.iter().any(|damage| damage.place == *place)
    }

    /// Whether nothing is missing of any section or definition of this name.
    pub(crate) fn are_whole(&self, section: &str) -> bool {
        !self.damaged.iter().any(|damage| damage.section == section)
    }

    /// The keys that are missing of the section or definition at this place, and those of its tables.
    pub(crate) fn lost_keys(&self, place: &Range<usize>) -> impl Iterator<Item = &str> {
        self.damaged.iter().filter(move |damage| damage.place == *place).map(|damage| damage.key.as_str())
    }
}

/// Reads a site; what cannot be read goes to `problems`. `None` where too little is left to say more.
pub(crate) fn read(text: &str, problems: &mut Problems<'_>) -> Option<Salvaged> {
    let (mut root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        add_syntax_errors(&errors, text, problems);
        return None;
    }
    put_in_lists(root.get_mut(), problems);
    let mut taken: Vec<(String, Range<usize>)> = Vec::new();
    let mut damaged: Vec<Damage> = Vec::new();
    for _ in 0..MOST {
        let error = match RawSite::deserialize(Deserializer::from(root.clone())) {
            Ok(raw) => return Some(Salvaged { raw, damaged }),
            Err(error) => error,
        };
        // Of the file as a whole there is no place.
        let span = error.span().unwrap_or(0..0);
        let (section, place) = section_of(root.get_ref(), &span).unwrap_or_default();
        let missing = error.message().strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
        if !missing.is_some_and(|name| taken.iter().any(|(known, from)| known == name && *from == place)) {
            problems.add(span.clone(), explain(error.message()));
        }
        if let Some(name) = missing
            && let Some(stand_in) = stand_in(name, damaged.len())
            && put_in(root.get_mut(), &span, name, &stand_in)
        {
            damaged.push(Damage { section, place, key: name.to_owned() });
        } else {
            let key = take_out(root.get_mut(), &span)?;
            taken.push((key.clone(), place.clone()));
            damaged.push(Damage { section, place, key });
        }
    }
    None
}

/// Says where one table stands for a list of them, and takes it for the first of the list, so that what is in it is checked too.
fn put_in_lists(root: &mut DeTable<'_>, problems: &mut Problems<'_>) {
    for (key, value) in root.iter_mut() {
        let (name, span) = (key.get_ref(), value.span());
        if LISTS.contains(&name.as_ref()) && matches!(value.get_ref(), DeValue::Table(_)) {
            problems
                .add(key.span(), format!("`{name}` is a list, one entry each: write `[[{name}]]`, with two brackets"));
            let one = std::mem::replace(value.get_mut(), DeValue::Array(DeArray::new()));
            if let DeValue::Array(items) = value.get_mut() {
                items.push(Spanned::new(span, one));
            }
        }
    }
}

/// What comes after a mistake on its line is mostly said because of it.
fn add_syntax_errors(errors: &[toml::de::Error], text: &str, problems: &mut Problems<'_>) {
    let mut last_line = None;
    for error in errors.iter().take(MOST) {
        let span = error.span().unwrap_or(0..0);
        let line = text.get(..span.start).map(|before| before.matches('\n').count());
        if line.is_none() || line != last_line {
            problems.add(span, explain(error.message()));
        }
        last_line = line;
    }
}

/// The section or definition that holds the place: its name and where it stands.
fn section_of(root: &DeTable<'_>, place: &Range<usize>) -> Option<(String, Range<usize>)> {
    if place.is_empty() {
        return None;
    }
    root.iter().find_map(|(key, value)| {
        let found = match value.get_ref() {
            DeValue::Array(items) => items.iter().find(|item| reaches(item, place)).map(Spanned::span),
            _ => (holds(key, place) || reaches(value, place)).then(|| value.span()),
        };
        found.map(|span| (key.get_ref().to_string(), span))
    })
}

/// Whether it or what is in it holds the place.
fn reaches(value: &Spanned<DeValue<'_>>, place: &Range<usize>) -> bool {
    holds(value, place)
        || match value.get_ref() {
            DeValue::Table(table) => table.iter().any(|(key, value)| holds(key, place) || reaches(value, place)),
            DeValue::Array(items) => items.iter().any(|item| reaches(item, place)),
            _ => false,
        }
}

/// What stands for a value that must be there and is not, so that more can be said of what is there. Checks that depend on it are left
/// out. `number` makes names differ.
fn stand_in(name: &str, number: usize) -> Option<DeValue<'static>> {
    let text = |text: String| DeValue::String(Cow::Owned(text));
    Some(match name {
        "name" | "id" => text(format!("unnamed-{number}")),
        "topic" => text(format!("unnamed/{number}")),
        "format" => text("json".to_owned()),
        "fields" => DeValue::Table(DeTable::new()),
        "site" => table(&["id"], number),
        "publish" => table(&["topic", "payload"], number),
        "windows" => DeValue::Array(DeArray::new()),
        "kind" => text("tumbling".to_owned()),
        "when" => text("true".to_owned()),
        "payload" => text("x".to_owned()),
        "url" => text("mqtt://localhost".to_owned()),
        _ => return None,
    })
}

/// What stands for a table, with what must be in it.
fn table(names: &[&str], number: usize) -> DeValue<'static> {
    let mut table = DeTable::new();
    for name in names {
        if let Some(value) = stand_in(name, number) {
            put_in(&mut table, &(0..0), name, &value);
        }
    }
    DeValue::Table(table)
}

/// Puts an entry into the table that stands at this place; without a place that is the file as a whole. Entries that are put in stand
/// nowhere, so nothing that is found in the file is taken for them.
fn put_in(table: &mut DeTable<'_>, at: &Range<usize>, name: &str, value: &DeValue<'static>) -> bool {
    if at.is_empty() {
        table.insert(Spanned::new(0..0, Cow::Owned(name.to_owned())), Spanned::new(0..0, value.clone()));
        return true;
    }
    table.iter_mut().any(|(_, inner)| put_into(inner, at, name, value))
}

fn put_into(inner: &mut Spanned<DeValue<'_>>, at: &Range<usize>, name: &str, value: &DeValue<'static>) -> bool {
    let is_here = inner.span() == *at;
    match inner.get_mut() {
        DeValue::Table(table) if is_here => put_in(table, &(0..0), name, value),
        DeValue::Table(table) => put_in(table, at, name, value),
        DeValue::Array(items) => items.iter_mut().any(|item| put_into(item, at, name, value)),
        _ => false,
    }
}

/// Takes the innermost entry that holds the place out of the table; gives its key, or that of the list it was in.
fn take_out(table: &mut DeTable<'_>, place: &Range<usize>) -> Option<String> {
    if place.is_empty() {
        return None;
    }
    // A key that is not known goes with all that has it: of `[[rules]]` the first would hold the place, and each would be said again.
    let unknown = table.iter().find(|(key, _)| key.span() == *place).map(|(key, _)| key.get_ref().to_string());
    if let Some(name) = unknown {
        table.remove(name.as_str());
        return Some(name);
    }
    for (key, value) in table.iter_mut() {
        match value.get_mut() {
            DeValue::Table(inner) => {
                if let Some(name) = take_out(inner, place) {
                    return Some(name);
                }
            }
            DeValue::Array(items) => {
                for item in items.iter_mut() {
                    if let DeValue::Table(inner) = item.get_mut()
                        && let Some(name) = take_out(inner, place)
                    {
                        return Some(name);
                    }
                }
                if items.iter().any(|item| holds(item, place)) {
                    *items = items.iter().filter(|item| !holds(item, place)).cloned().collect();
                    return Some(key.get_ref().to_string());
                }
            }
            _ => {}
        }
    }
    let (key, _) = table.iter().find(|(key, value)| holds(key, place) || holds(value, place))?;
    let name = key.get_ref().to_string();
    table.remove(name.as_str());
    Some(name)
}

fn holds<T>(value: &Spanned<T>, place: &Range<usize>) -> bool {
    let span = value.span();
    span.start <= place.start && place.end <= span.end && !span.is_empty()
}
