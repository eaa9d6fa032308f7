//! What is wrong with a configuration, shown where it is wrong.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use nearside_schemas::NotUtf8;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::secret::Shown;

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// The line's text, without what may be secret.
    pub text: String,
    /// How many characters of the text stand in front of what is meant.
    pub indent: usize,
    /// How many characters are meant.
    pub width: usize,
    /// What is wrong and what to write.
    pub message: String,
}

/// A configuration that cannot be used. The fault of the file; reading it again does not help.
#[derive(Debug)]
pub enum ConfigError {
    /// The file cannot be read.
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Everything that is wrong with it.
    Wrong {
        /// Which file.
        path: PathBuf,
        /// What is wrong, in the order of the file; what may come from something else last.
        problems: Vec<Problem>,
    },
}

impl ConfigError {
    /// For a file that is no text.
    pub(crate) fn not_utf8(path: &Path, bytes: &[u8], error: &NotUtf8) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let NotUtf8 { line, column, .. } = *error;
        let line_text = text.lines().nth(line - 1).unwrap_or_default();
        let shown = Shown::of(line_text);
        let place = line_text.char_indices().nth(column - 1).map_or(line_text.len(), |(at, _)| at);
        let indent = shown.chars_before(line_text, place);
        let problem = Problem { line, column, text: shown.text, indent, width: 1, message: error.to_string() };
        Self::Wrong { path: path.to_owned(), problems: vec![problem] }
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Wrong { path, problems } => {
                for (n, problem) in problems.iter().enumerate() {
                    if n > 0 {
                        writeln!(f)?;
                    }
                    let Problem { line, column, text, indent, width, message } = problem;
                    writeln!(f, "{}:{line}:{column}: {message}", path.display())?;
                    writeln!(f, "  {line} | {text}")?;
                    let indent = line.to_string().len() + indent + 5;
                    write!(f, "{:indent$}{}", "", "^".repeat((*width).max(1)))?;
                }
                Ok(())
            }
        }
    }
}

/// Collects problems while a configuration is checked.
pub(crate) struct Problems<'t> {
    text: &'t str,
    tree: DeTable<'t>,
    found: Vec<Problem>,
    consequences: Vec<Problem>,
}

impl<'t> Problems<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        let (tree, _) = DeTable::parse_recoverable(text);
        Self { text, tree: tree.into_inner(), found: Vec::new(), consequences: Vec::new() }
    }

    pub(crate) fn add(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.found.push(self.problem(span, message.into()));
    }

    /// Adds what may come from another problem: it is shown after all others.
    pub(crate) fn add_consequence(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.consequences.push(self.problem(span, message.into()));
    }

    /// How many there are.
    pub(crate) const fn count(&self) -> usize {
        self.found.len() + self.consequences.len()
    }

    fn problem(&self, span: Range<usize>, message: String) -> Problem {
        let start = self.text.floor_char_boundary(span.start.min(self.text.len()));
        let before = &self.text[..start];
        let line = before.matches('\n').count() + 1;
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |at| start + at);
        let end = self.text.floor_char_boundary(span.end.clamp(start, line_end));
        let line_text = &self.text[line_start..line_end];
        let shown = Shown::of(line_text);
        let indent = shown.chars_before(line_text, start - line_start);
        Problem {
            line,
            column: self.text[line_start..start].chars().count() + 1,
            width: shown.chars_before(line_text, end - line_start).saturating_sub(indent),
            text: shown.text,
            indent,
            // It may quote a value.
            message: message.lines().map(|line| Shown::of(line).text).collect::<Vec<String>>().join("\n"),
        }
    }

    /// Where `key`, such as `publish.topic`, is set in the section or entry of a list that stands at `section`; as much of the way as is
    /// written there, and the section itself where nothing is.
    pub(crate) fn key_in(&self, section: Range<usize>, key: &str) -> Range<usize> {
        let table = table_at(&self.tree, &section);
        table.and_then(|table| place(table, key)).unwrap_or(section)
    }

    /// Where `key`, such as `broker.tls.key`, is set in the file; its beginning where it is not.
    pub(crate) fn key(&self, key: &str) -> Range<usize> {
        place(&self.tree, key).unwrap_or(0..0)
    }

    pub(crate) fn into_vec(mut self) -> Vec<Problem> {
        for problems in [&mut self.found, &mut self.consequences] {
            problems.sort_by_key(|problem| (problem.line, problem.column));
        }
        self.found.append(&mut self.consequences);
        self.found
    }
}

/// The table that stands at this place.
fn table_at<'a, 't>(table: &'a DeTable<'t>, at: &Range<usize>) -> Option<&'a DeTable<'t>> {
    let within = |value: &'a Spanned<DeValue<'t>>| {
        let DeValue::Table(inner) = value.get_ref() else { return None };
        if value.span() == *at { Some(inner) } else { table_at(inner, at) }
    };
    table.iter().find_map(|(_, value)| match value.get_ref() {
        DeValue::Array(items) => items.iter().find_map(within),
        _ => within(value),
    })
}

/// Where the keys of a dotted path stand, as many of them as there are.
fn place(table: &DeTable<'_>, path: &str) -> Option<Range<usize>> {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let (key, value) = table.iter().find(|(key, _)| key.get_ref() == name)?;
    let inner = match (value.get_ref(), rest) {
        (DeValue::Table(inner), Some(rest)) => place(inner, rest),
        _ => None,
    };
    Some(inner.unwrap_or_else(|| key.span().start..value.span().end.max(key.span().end)))
}
