//! What is wrong with a configuration, shown where it is wrong.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// The line's text.
    pub text: String,
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
        /// What is wrong, in the order of the file.
        problems: Vec<Problem>,
    },
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
                    let Problem { line, column, text, width, message } = problem;
                    writeln!(f, "{}:{line}:{column}: {message}", path.display())?;
                    writeln!(f, "  {line} | {text}")?;
                    let indent = line.to_string().len() + column + 4;
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
    found: Vec<Problem>,
}

impl<'t> Problems<'t> {
    pub(crate) const fn new(text: &'t str) -> Self {
        Self { text, found: Vec::new() }
    }

    pub(crate) fn add(&mut self, span: Range<usize>, message: impl Into<String>) {
        let start = self.text.floor_char_boundary(span.start.min(self.text.len()));
        let before = &self.text[..start];
        let line = before.matches('\n').count() + 1;
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |at| start + at);
        let end = self.text.floor_char_boundary(span.end.clamp(start, line_end));
        self.found.push(Problem {
            line,
            column: self.text[line_start..start].chars().count() + 1,
            text: self.text[line_start..line_end].to_owned(),
            width: self.text[start..end].chars().count(),
            message: message.into(),
        });
    }

    /// Where `key` is set in the section that begins at `section`; the section itself where it is not found.
    pub(crate) fn key_in(&self, section: Range<usize>, key: &str) -> Range<usize> {
        let start = self.text.floor_char_boundary(section.start.min(self.text.len()));
        let mut at = start;
        for (n, line) in self.text[start..].split_inclusive('\n').enumerate() {
            let begin = at + line.len() - line.trim_start().len();
            at += line.len();
            let line = line.trim();
            if n > 0 && line.starts_with('[') {
                break;
            }
            if line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('=')) {
                return begin..begin + line.len();
            }
        }
        section
    }

    pub(crate) fn into_vec(mut self) -> Vec<Problem> {
        self.found.sort_by_key(|problem| (problem.line, problem.column));
        self.found
    }
}
