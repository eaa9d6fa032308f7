//! Labelled texts: reading them, and the seeded split of a file that has no test part of its own.
//!
//! A file is CSV with a header: a column of texts (`text`, `review`, `sentence`), one of labels (`category`, `label`, `intent`), and
//! perhaps `urgency` (`routine`, `soon` or `now`). In a folder `train.csv` is learnt from and `test.csv` is the test part; a folder with
//! one file of another name has that. Without a test part, which rows are held out is decided by a hash of the text alone, so that equal
//! texts are never on both sides and the split is the same in every command.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::ModelError;
use crate::text::classifier::Outputs;

/// Urgencies from the least to the most urgent.
pub const URGENCIES: [&str; 3] = ["routine", "soon", "now"];
const TEXTS: [&str; 4] = ["text", "review", "sentence", "utterance"];
const LABELS: [&str; 4] = ["category", "label", "intent", "class"];
/// One of this many texts is held out.
const HELD_OUT: u64 = 10;
/// Most rows that are read.
const MOST_ROWS: usize = 2_000_000;

/// One text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The text.
    pub text: String,
    /// Its label, by its place in [`Outputs::labels`].
    pub label: usize,
    /// Its urgency, by its place in [`Outputs::urgencies`].
    pub urgency: Option<usize>,
}

/// Texts and what their labels mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// Labels in alphabetical order, and urgencies where the file has them.
    pub outputs: Outputs,
    /// The texts.
    pub examples: Vec<Example>,
}

/// What to learn from and what to test on.
#[derive(Clone, Debug)]
pub struct Split {
    /// Learnt from.
    pub train: Labelled,
    /// Tested on: never seen in training.
    pub test: Vec<Example>,
    /// What the test part is, for people.
    pub test_part: String,
}

/// The file of a folder with texts to learn from; a file is itself.
pub fn train_file(data: &Path) -> Result<PathBuf, ModelError> {
    if data.is_file() {
        return Ok(data.to_owned());
    }
    let train = data.join("train.csv");
    if train.is_file() {
        return Ok(train);
    }
    let unreadable = |source| ModelError::File { path: data.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(data).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "csv") {
            found.push(path);
        }
    }
    found.sort();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        _ => Err(wrong(data, format!("it holds {} .csv files and no train.csv", found.len()))),
    }
}

/// Reads a folder and splits it.
pub fn read_split(data: &Path) -> Result<Split, ModelError> {
    let path = train_file(data)?;
    let train = read_file(&path, None)?;
    let test = data.join("test.csv");
    if test.is_file() && test != path {
        let rows = read_file(&test, Some(&train.outputs))?.examples;
        return Ok(Split { train, test: rows, test_part: String::from("test.csv") });
    }
    let Labelled { outputs, examples } = train;
    let (test, examples): (Vec<_>, Vec<_>) =
        examples.into_iter().partition(|example| is_held_out(&example.text, "test"));
    // The name alone: it stands on a card, which leaves this machine.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let test_part = format!("one of {HELD_OUT} texts of {name}, by hash");
    Ok(Split { train: Labelled { outputs, examples }, test, test_part })
}

/// Texts to test a trained model on: `test.csv`, else the held-out texts of `train.csv`, else all of the one file there is. Gives them and
/// what they are.
pub fn read_test(data: &Path, outputs: &Outputs) -> Result<(Vec<Example>, String), ModelError> {
    let test = data.join("test.csv");
    let path = if test.is_file() { test } else { train_file(data)? };
    let mut examples = read_file(&path, Some(outputs))?.examples;
    let whole = path.file_name().is_none_or(|name| name != "train.csv");
    if !whole {
        examples.retain(|example| is_held_out(&example.text, "test"));
    }
    let part = if whole { String::from("all texts") } else { format!("one of {HELD_OUT} texts, by hash,") };
    // The name alone, as of a split: it stands on cards.
    Ok((examples, format!("{part} of {}", path.file_name().unwrap_or_default().to_string_lossy())))
}

/// Whether a text is held out for `purpose`.
pub fn is_held_out(text: &str, purpose: &str) -> bool {
    let digest = Sha256::new().chain_update(purpose).chain_update([0]).chain_update(text.trim()).finalize();
    let number = digest.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    number.is_multiple_of(HELD_OUT)
}

/// Reads a file. With `known`, its labels must be among those; else they are what the file has.
pub fn read_file(path: &Path, known: Option<&Outputs>) -> Result<Labelled, ModelError> {
    let unreadable = |error: csv::Error| wrong(path, error.to_string());
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_path(path).map_err(unreadable)?;
    let header = reader.headers().map_err(unreadable)?.clone();
    let column = |names: &[&str]| {
        let found =
            |name: &&str| header.iter().position(|column| column.trim_start_matches('\u{feff}').trim() == *name);
        names.iter().find_map(found)
    };
    let needed = |names: &[&str]| {
        column(names).ok_or_else(|| wrong(path, format!("no column is called {}", names.join(" or "))))
    };
    let (text, label, urgency) = (needed(&TEXTS)?, needed(&LABELS)?, column(&["urgency"]));
    let mut rows: Vec<(String, String, Option<usize>)> = Vec::new();
    for (number, record) in reader.records().enumerate() {
        let record = record.map_err(unreadable)?;
        let (Some(text), Some(label)) = (record.get(text), record.get(label)) else {
            return Err(wrong(path, format!("row {} is too short", number + 1)));
        };
        let urgency = match urgency.and_then(|column| record.get(column)) {
            Some(word) => Some(urgency_of(word).ok_or_else(|| {
                wrong(path, format!("row {}: the urgency is none of {}", number + 1, URGENCIES.join(", ")))
            })?),
            None => None,
        };
        if rows.len() >= MOST_ROWS {
            return Err(wrong(path, format!("more than {MOST_ROWS} rows")));
        }
        rows.push((text.to_owned(), label.trim().to_owned(), urgency));
    }
    labelled(path, rows, known)
}

fn labelled(
    path: &Path,
    rows: Vec<(String, String, Option<usize>)>,
    known: Option<&Outputs>,
) -> Result<Labelled, ModelError> {
    let outputs = known.cloned().unwrap_or_else(|| {
        let labels: std::collections::BTreeSet<&String> = rows.iter().map(|(_, label, _)| label).collect();
        let urgent = rows.iter().any(|(.., urgency)| urgency.is_some());
        let urgencies = if urgent { URGENCIES.iter().map(ToString::to_string).collect() } else { Vec::new() };
        Outputs { labels: labels.into_iter().cloned().collect(), urgencies }
    });
    crate::text::classifier::check(&outputs).map_err(|why| wrong(path, why))?;
    let mut examples = Vec::with_capacity(rows.len());
    for (number, (text, label, urgency)) in rows.into_iter().enumerate() {
        let Some(label) = outputs.labels.iter().position(|known| *known == label) else {
            return Err(wrong(path, format!("row {}: the model does not know its label", number + 1)));
        };
        examples.push(Example { text, label, urgency });
    }
    Ok(Labelled { outputs, examples })
}

fn urgency_of(word: &str) -> Option<usize> {
    URGENCIES.iter().position(|known| *known == word.trim())
}

fn wrong(path: &Path, why: String) -> ModelError {
    ModelError::Data { path: path.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &Path, name: &str, rows: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, rows).unwrap();
        path
    }

    #[test]
    fn columns_are_found_by_name_and_what_is_wrong_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let good = file(folder.path(), "a.csv", "\u{feff}category,urgency,text\nb,now,x y\na,routine,\"p, q\"\n");
        let read = read_file(&good, None).unwrap();
        assert_eq!(read.outputs.labels, ["a", "b"]);
        assert_eq!(read.examples[1], Example { text: "p, q".to_owned(), label: 0, urgency: Some(0) });
        for (name, rows) in [
            ("no-text.csv", "category,words\na,b\n"),
            ("urgency.csv", "text,category,urgency\nx,a,tomorrow\n"),
            ("short.csv", "text,category\nx\n"),
            ("empty.csv", "text,category\n"),
        ] {
            let path = file(folder.path(), name, rows);
            assert!(matches!(read_file(&path, None), Err(ModelError::Data { .. })), "{name}");
        }
        let other = Outputs { labels: vec!["z".to_owned()], urgencies: Vec::new() };
        assert!(read_file(&good, Some(&other)).is_err(), "labels that a model does not know");
    }

    #[test]
    fn what_is_tested_on_was_not_learnt_from() {
        let folder = tempfile::tempdir().unwrap();
        let rows: String = (0..500).map(|n| format!("text number {},c{}\n", n / 2, n % 3)).collect();
        file(folder.path(), "train.csv", &format!("text,category\n{rows}"));
        let split = read_split(folder.path()).unwrap();
        assert_eq!(split.train.examples.len() + split.test.len(), 500);
        assert!((20..100).contains(&split.test.len()), "{}", split.test.len());
        assert!(split.test.iter().all(|test| split.train.examples.iter().all(|train| train.text != test.text)));
        let (again, _) = read_test(folder.path(), &split.train.outputs).unwrap();
        assert_eq!(again, split.test, "the same texts for a model that was trained before");
        file(folder.path(), "test.csv", "text,category\nanother,c1\n");
        let split = read_split(folder.path()).unwrap();
        assert_eq!((split.train.examples.len(), split.test.len()), (500, 1));
    }
}
