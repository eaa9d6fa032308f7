//! Which key a data folder is sealed with.
//!
//! Promises: a folder that holds sealed data is only ever used with the key it was sealed with. Without it nothing in the folder could be
//! opened, would count as damaged and would in time be freed: acknowledged readings would be lost (promise I1).
//! Never: a new key is made for a folder that holds sealed data.
//!
//! File `key.id`, version 1: the line `nearside-key-id-v1 `, then the id of the key.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::error::PrivacyError;
use crate::keys::KeyRing;

const MARK: &str = "key.id";
const HEADER: &str = "nearside-key-id-v1 ";

impl KeyRing {
    /// The key ring of the data folder `data`, whose key file is `key_file`; both are made where they are missing and nothing named in
    /// `sealed` is in the folder yet.
    ///
    /// # Errors
    /// As [`KeyRing::load_or_create`]; and where the folder holds sealed data and the key is missing or another one.
    pub fn of_folder(data: &Path, key_file: &Path, sealed: &[&str]) -> Result<Self, PrivacyError> {
        let marked = read_mark(data)?;
        let is_used = marked.is_some() || sealed.iter().any(|name| data.join(name).exists());
        let ring = match Self::load(key_file) {
            Err(PrivacyError::KeyFile { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                if is_used {
                    let (path, data) = (key_file.to_owned(), data.to_owned());
                    return Err(PrivacyError::KeyMissing {
                        path,
                        data,
                        id: marked.unwrap_or_else(|| "unknown".to_owned()),
                    });
                }
                Self::load_or_create(key_file)?
            }
            loaded => loaded?,
        };
        match marked {
            Some(id) if id != ring.id() => {
                let (path, data) = (key_file.to_owned(), data.to_owned());
                Err(PrivacyError::KeyOther { path, data, id, found: ring.id().to_owned() })
            }
            Some(_) => Ok(ring),
            None => write_mark(data, ring.id()).map(|()| ring),
        }
    }
}

fn read_mark(data: &Path) -> Result<Option<String>, PrivacyError> {
    let path = data.join(MARK);
    match fs::read_to_string(&path) {
        Ok(text) => match text.trim_end().strip_prefix(HEADER) {
            Some(id) => Ok(Some(id.to_owned())),
            None => Err(PrivacyError::KeyMark { path }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PrivacyError::KeyFile { path, source }),
    }
}

/// It appears whole or not at all.
fn write_mark(data: &Path, id: &str) -> Result<(), PrivacyError> {
    let path = data.join(MARK);
    let draft = data.join(format!(".{MARK}.tmp"));
    let write = || {
        let mut file = File::create(&draft)?;
        writeln!(file, "{HEADER}{id}")?;
        file.sync_all()?;
        fs::rename(&draft, &path)?;
        File::open(data)?.sync_all()
    };
    write().map_err(|source| PrivacyError::KeyFile { path: path.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEALED: &[&str] = &["journal"];

    #[test]
    fn a_used_folder_takes_no_other_key_and_gets_no_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let (data, key) = (folder.path(), folder.path().join("site.key"));
        let ring = KeyRing::of_folder(data, &key, SEALED).unwrap();
        assert_eq!(KeyRing::of_folder(data, &key, SEALED).unwrap().id(), ring.id());
        let kept = folder.path().join("kept");
        fs::rename(&key, &kept).unwrap();
        let missing = KeyRing::of_folder(data, &key, SEALED).unwrap_err();
        assert!(matches!(&missing, PrivacyError::KeyMissing { id, .. } if id == ring.id()), "{missing}");
        assert!(!key.exists(), "no key was made");
        let other = KeyRing::load_or_create(&folder.path().join("other.key")).unwrap();
        let refused = KeyRing::of_folder(data, &folder.path().join("other.key"), SEALED).unwrap_err();
        assert!(matches!(&refused, PrivacyError::KeyOther { found, .. } if found == other.id()), "{refused}");
        fs::rename(&kept, &key).unwrap();
        assert_eq!(KeyRing::of_folder(data, &key, SEALED).unwrap().id(), ring.id());
    }

    #[test]
    fn a_folder_of_an_earlier_version_is_marked_with_the_key_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let (data, key) = (folder.path(), folder.path().join("site.key"));
        fs::create_dir(data.join("journal")).unwrap();
        assert!(matches!(KeyRing::of_folder(data, &key, SEALED), Err(PrivacyError::KeyMissing { .. })));
        let ring = KeyRing::load_or_create(&key).unwrap();
        assert_eq!(KeyRing::of_folder(data, &key, SEALED).unwrap().id(), ring.id());
        assert_eq!(fs::read_to_string(data.join(MARK)).unwrap(), format!("{HEADER}{}\n", ring.id()));
        fs::write(data.join(MARK), "something else").unwrap();
        assert!(matches!(KeyRing::of_folder(data, &key, SEALED), Err(PrivacyError::KeyMark { .. })));
    }
}
