//! Files that are looked at now and then: there is no other way that is the same on every system.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Models in a folder, and files of one, that are looked at; more are not.
const MOST: usize = 1_000;

type Look = Vec<(PathBuf, u64, SystemTime)>;

/// A file, or a folder's sub-folders and their files, by size and time of change.
pub(super) struct Watched {
    path: PathBuf,
    seen: Option<Look>,
    last: Option<Look>,
}

impl Watched {
    /// As it is now.
    pub(super) fn new(path: &Path) -> Self {
        let mut watched = Self { path: path.to_owned(), seen: None, last: None };
        watched.seen = watched.look();
        watched.last = watched.seen.clone();
        watched
    }

    /// Whether it has changed and has then stayed the same from the last look to this one: who writes it is done.
    pub(super) fn has_changed(&mut self) -> bool {
        let now = self.look();
        let changed = now.is_some() && now != self.seen && now == self.last;
        if changed {
            self.seen.clone_from(&now);
        }
        self.last = now;
        changed
    }

    /// What was seen could not be acted on: it counts as changed once more.
    pub(super) fn look_again(&mut self) {
        self.seen = None;
    }

    fn look(&self) -> Option<Look> {
        if std::fs::metadata(&self.path).ok()?.is_file() {
            return Some(stamp(&self.path).into_iter().collect());
        }
        let mut found: Look = entries(&self.path)
            .flat_map(|folder| entries(&folder).collect::<Vec<_>>())
            .filter_map(|file| stamp(&file))
            .collect();
        found.sort();
        Some(found)
    }
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).take(MOST)
}

fn stamp(path: &Path) -> Option<(PathBuf, u64, SystemTime)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((path.to_owned(), metadata.len(), metadata.modified().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_once_it_has_settled() {
        let folder = tempfile::tempdir().unwrap();
        let mut watched = Watched::new(folder.path());
        assert!(!watched.has_changed());
        std::fs::create_dir(folder.path().join("m")).unwrap();
        std::fs::write(folder.path().join("m/card.toml"), "1").unwrap();
        assert!(!watched.has_changed(), "it may still be written");
        std::fs::write(folder.path().join("m/card.toml"), "12").unwrap();
        assert!(!watched.has_changed(), "it was");
        assert!(watched.has_changed());
        assert!(!watched.has_changed());
        watched.look_again();
        assert!(watched.has_changed());
        std::fs::remove_dir_all(folder.path().join("m")).unwrap();
        assert!(!watched.has_changed());
        assert!(watched.has_changed(), "what went is a change");
        let gone = folder.path().to_owned();
        drop(folder);
        assert!(
            !watched.has_changed() && !watched.has_changed(),
            "a folder that went says nothing: {}",
            gone.display()
        );
    }
}
