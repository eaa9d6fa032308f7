//! Reading on past what has the wrong type, so that one look says everything that is wrong.
//!
//! Promises: each value that cannot be read is said once, where it stands; what cannot be said while it is missing is not said.
//! Never: a file with such a value counts as good.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use crate::error::Problems;
use crate::raw::RawSite;
use crate::site::explain;

/// More wrong values than these are not looked for.
const MOST: usize = 100;

/// A site as it is written, without what could not be read.
pub(crate) struct Salvaged {
    pub(crate) raw: RawSite,
    /// Whether nothing is missing: else a check that looks at several values could be misled.
    pub(crate) is_whole: bool,
}

/// Reads a site; what cannot be read goes to `problems`. `None` where too little is left to say more.
pub(crate) fn read<'t>(text: &'t str, problems: &mut Problems<'t>) -> Option<Salvaged> {
    let mut root = match DeTable::parse(text) {
        Ok(root) => root,
        Err(error) => {
            problems.add(error.span().unwrap_or(0..0), explain(error.message()));
            return None;
        }
    };
    let mut taken: Vec<String> = Vec::new();
    while taken.len() < MOST {
        let error = match RawSite::deserialize(Deserializer::from(root.clone())) {
            Ok(raw) => return Some(Salvaged { raw, is_whole: taken.is_empty() }),
            Err(error) => error,
        };
        let span = error.span().unwrap_or(0..0);
        let missing = error.message().strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
        if !missing.is_some_and(|name| taken.iter().any(|known| known == name)) {
            problems.add(span.clone(), explain(error.message()));
        }
        taken.push(take_out(root.get_mut(), &span)?);
    }
    None
}

/// Takes the innermost entry that holds the place out of the table; gives its key, or that of the list it was in.
fn take_out(table: &mut DeTable<'_>, place: &Range<usize>) -> Option<String> {
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
    let (key, value) = table.iter_mut().find(|(key, value)| holds(key, place) || holds(value, place))?;
    let name = key.get_ref().to_string();
    if name == "format" {
        // Without a format there would be no stream to say more of. Checks that depend on it are left out.
        *value.get_mut() = DeValue::String(Cow::Borrowed("json"));
    } else {
        table.remove(name.as_str());
    }
    Some(name)
}

fn holds<T>(value: &Spanned<T>, place: &Range<usize>) -> bool {
    let span = value.span();
    span.start <= place.start && place.end <= span.end && !span.is_empty()
}
