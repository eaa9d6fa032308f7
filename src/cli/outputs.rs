//! Where a command may write: never over what it reads.
//!
//! Promise: a command that would overwrite its own input, or put results where its next run would read them as data, is refused before
//! anything is written.

use std::path::{Path, PathBuf};

use crate::error::StartError;

/// What a command reads.
#[derive(Default)]
pub(super) struct Inputs(Vec<Input>);

struct Input {
    option: &'static str,
    path: PathBuf,
    /// Endings of the files of a folder that are read.
    endings: &'static [&'static str],
}

impl Inputs {
    /// A file, or a folder that is read as a whole; `option` is what names it.
    pub(super) fn with(self, option: &'static str, path: &Path) -> Self {
        self.with_files(option, path, &[])
    }

    /// A folder of which files with these endings are read.
    pub(super) fn with_files(mut self, option: &'static str, path: &Path, endings: &'static [&'static str]) -> Self {
        self.0.push(Input { option, path: resolved(path), endings });
        self
    }

    /// As [`Inputs::with`], where there is such a file or folder.
    pub(super) fn with_some(self, option: &'static str, path: Option<&Path>) -> Self {
        match path {
            Some(path) => self.with(option, path),
            None => self,
        }
    }

    /// Whether a file may be written.
    pub(super) fn spare_file(&self, option: &str, path: &Path) -> Result<(), StartError> {
        let output = resolved(path);
        let ending = output.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        let is_read = |input: &&Input| {
            output == input.path
                || output.starts_with(&input.path)
                    && input.endings.iter().any(|known| known.eq_ignore_ascii_case(ending))
        };
        self.refuse(option, path, self.0.iter().find(is_read))
    }

    /// Whether a folder may be filled.
    pub(super) fn spare_folder(&self, option: &str, path: &Path) -> Result<(), StartError> {
        let output = resolved(path);
        let is_read =
            |input: &&Input| output == input.path || output.starts_with(&input.path) && !input.endings.is_empty();
        self.refuse(option, path, self.0.iter().find(is_read))
    }

    fn refuse(&self, option: &str, path: &Path, input: Option<&Input>) -> Result<(), StartError> {
        let Some(input) = input else { return Ok(()) };
        let (path, read) = (path.display(), input.option);
        Err(StartError::Usage(format!(
            "{option} {path} would write over what {read} reads, or among it; nothing was written: name another place"
        )))
    }
}

/// Whether two outputs are one place.
pub(super) fn apart(outputs: &[(&str, Option<&Path>)]) -> Result<(), StartError> {
    let named: Vec<(&str, PathBuf)> =
        outputs.iter().filter_map(|(option, path)| Some((*option, resolved((*path)?)))).collect();
    for (index, (option, path)) in named.iter().enumerate() {
        if let Some((other, _)) = named[..index].iter().find(|(_, other)| other == path) {
            return Err(StartError::Usage(format!(
                "{other} and {option} name the same place; give each one of its own"
            )));
        }
    }
    Ok(())
}

/// The place that a path leads to, through links; of what is not there yet, through the folders that are.
fn resolved(path: &Path) -> PathBuf {
    if let Ok(place) = path.canonicalize() {
        return place;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if parent.as_os_str().is_empty() => resolved(Path::new(".")).join(name),
        (Some(parent), Some(name)) => resolved(parent).join(name),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_spared() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("data")).unwrap();
        std::fs::write(at("x.csv"), "t").unwrap();
        let inputs = Inputs::default().with("--input", &at("x.csv")).with_files("--data", &at("data"), &["csv"]);
        for file in ["x.csv", "data/../x.csv", "data/new.csv", "data/sub/NEW.CSV"] {
            assert!(inputs.spare_file("--scores", &at(file)).is_err(), "{file}");
        }
        for file in ["y.csv", "data/beats.txt", "data2/new.csv"] {
            assert!(inputs.spare_file("--scores", &at(file)).is_ok(), "{file}");
        }
        for (name, is_spared) in [("data", false), ("data/scores", false), ("scores", true), ("data2", true)] {
            assert_eq!(inputs.spare_folder("--scores", &at(name)).is_ok(), is_spared, "{name}");
        }
        assert!(apart(&[("--a", Some(&at("n"))), ("--b", None), ("--c", Some(&at("data/../n")))]).is_err());
        assert!(apart(&[("--a", Some(&at("n"))), ("--b", None), ("--c", Some(&at("m")))]).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_leads_where_it_leads() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("data")).unwrap();
        std::os::unix::fs::symlink(at("data"), at("link")).unwrap();
        let inputs = Inputs::default().with_files("--data", &at("data"), &["csv"]);
        assert!(inputs.spare_folder("--scores", &at("link")).is_err());
        assert!(inputs.spare_file("--scores", &at("link/none/1.csv")).is_err());
    }
}
