//! Versions that were learnt online: which counts, what stays at hand, what is deleted, what damage does.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::cipher::tests::Site;
use super::*;
use crate::catalog;
use crate::train::online::Version;

const NAME: &str = "forecaster";

fn library(root: &Path) -> Library {
    let name = nearside_schemas::ModelName::new(NAME).unwrap();
    let config = ModelsConfig {
        online: OnlineConfig { models: vec![name], ..OnlineConfig::default() },
        ..ModelsConfig::default()
    };
    Library::new(&config, root, root.join("kept"), Some(Arc::new(Site(1))))
}

/// The weights that ship, as a version of their own.
fn version(version: &str) -> Version {
    let (mut card, weights) = catalog::parts(NAME, None).unwrap();
    card.version = version.to_owned();
    Version { card, weights: weights.into_owned() }
}

fn put(library: &Library, name: &str) -> String {
    let salt = std::array::from_fn(|i| name.as_bytes().get(i).copied().unwrap_or(0));
    library.put_learnt(NAME, &version(name), salt).unwrap();
    let loaded = library.load(NAME).unwrap();
    assert_eq!((loaded.model.reference().version.as_ref(), loaded.origin), (name, Origin::Learnt));
    loaded.digest
}

fn in_force(library: &Library, digest: &str) {
    library.note_in_force([(NAME, digest)].into_iter()).unwrap();
}

/// The digests of two versions that came in force one after the other.
fn two_in_force(library: &Library) -> (String, String) {
    let digests = ["1-learnt", "2-learnt"].map(|name| {
        let digest = put(library, name);
        in_force(library, &digest);
        digest
    });
    digests.into()
}

fn current(library: &Library) -> String {
    library.load(NAME).unwrap().digest
}

/// The digests of the versions on disk.
fn on_disk(root: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(root.join("kept/.online").join(NAME)).unwrap().flatten();
    let folders = entries.filter(|entry| entry.path().is_dir());
    folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn after_a_second_version_failed_the_first_is_at_hand() {
    let root = tempfile::tempdir().unwrap();
    let library = library(root.path());
    let (one, two) = two_in_force(&library);
    // Its passes fail: the gateway takes it back, and ends.
    library.note_failure(&two).unwrap();
    in_force(&library, &one);
    let library = self::library(root.path());
    assert_eq!(library.load_again(NAME, &one).unwrap().digest, one, "a start takes the journal in with it");
    assert_eq!(current(&library), one, "and goes on with it");
    assert!(library.fault_of_learnt(NAME).is_none());
}

#[test]
fn cut_off_before_the_second_is_in_force_the_journal_is_judged_by_the_first() {
    let root = tempfile::tempdir().unwrap();
    let library = library(root.path());
    let one = put(&library, "1-learnt");
    in_force(&library, &one);
    let two = put(&library, "2-learnt");
    let library = self::library(root.path());
    assert_eq!(library.in_force()[NAME], one);
    assert_eq!(library.load_again(NAME, &one).unwrap().digest, one);
    let waits = library.load(NAME).unwrap();
    assert_eq!(waits.digest, two);
    assert_eq!(library.before_learnt(&waits).unwrap().digest, one, "on trial against the first");
    let first = library.load_again(NAME, &one).unwrap();
    let base = catalog::digest(NAME).unwrap();
    assert_eq!(library.before_learnt(&first).unwrap().digest, base, "as that was against what ships");
    assert_eq!(library.version(NAME, &one).unwrap().card.version, "1-learnt");
}

#[test]
fn cut_off_before_what_was_taken_back_is_out_of_force_the_journal_is_judged_by_it_once_more() {
    let root = tempfile::tempdir().unwrap();
    let library = library(root.path());
    let (one, base) = (put(&library, "1-learnt"), catalog::digest(NAME).unwrap());
    in_force(&library, &one);
    library.go_back_to(NAME, &base).unwrap();
    let library = self::library(root.path());
    assert_eq!(library.in_force()[NAME], one);
    let judges = library.load_again(NAME, &one).unwrap();
    assert_eq!((judges.digest.as_str(), current(&library)), (one.as_str(), base.clone()), "then what ships");
    assert!(library.before_learnt(&judges).is_none(), "it is on trial against nothing");
    in_force(&library, &base);
    assert!(on_disk(root.path()).is_empty());
}

#[test]
fn what_is_damaged_or_gone_gives_way_and_that_is_said() {
    let root = tempfile::tempdir().unwrap();
    let library = library(root.path());
    let (one, two) = (put(&library, "1-learnt"), put(&library, "2-learnt"));
    let folder = |digest: &str| root.path().join("kept/.online").join(NAME).join(digest);
    std::fs::write(folder(&two).join("model.safetensors.enc"), b"damaged").unwrap();
    assert!(library.load_again(NAME, &two).is_none());
    assert!(library.fault_of_learnt(NAME).is_some());
    assert_eq!(current(&library), one);
    std::fs::remove_dir_all(folder(&one)).unwrap();
    std::fs::remove_dir_all(folder(&two)).unwrap();
    assert!(library.fault_of_learnt(NAME).unwrap().to_string().contains("gone"));
    let base = library.load(NAME).unwrap();
    assert_eq!((base.digest, base.origin), (catalog::digest(NAME).unwrap(), Origin::Shipped));
}

/// One version without a folder of its own, as builds wrote it before there were several.
#[test]
fn what_stands_there_as_it_was_kept_before_is_said_and_can_be_moved() {
    let root = tempfile::tempdir().unwrap();
    let library = library(root.path());
    let one = put(&library, "1-learnt");
    let online = root.path().join("kept/.online").join(NAME);
    let files = |from: &Path, to: &Path| {
        for entry in std::fs::read_dir(from).unwrap().flatten().filter(|entry| entry.path().is_file()) {
            std::fs::rename(entry.path(), to.join(entry.file_name())).unwrap();
        }
    };
    std::fs::remove_file(online.join("order")).unwrap();
    files(&online.join(&one), &online);
    std::fs::remove_dir(online.join(&one)).unwrap();
    let base = catalog::digest(NAME).unwrap();
    assert_eq!(current(&library), base);
    let said = library.fault_of_learnt(NAME).unwrap().to_string();
    assert!(said.contains(online.to_str().unwrap()) && said.contains("SHA-256"), "{said}");
    // As it is told.
    let digest = crate::card::digest(&std::fs::read(online.join("card.toml")).unwrap());
    std::fs::create_dir(online.join(&digest)).unwrap();
    files(&online, &online.join(&digest));
    let of = std::fs::read_to_string(online.join(&digest).join("learnt_from")).unwrap();
    std::fs::write(online.join("order"), format!("{of}\n{digest}\n")).unwrap();
    assert_eq!(current(&library), one);
    assert!(library.fault_of_learnt(NAME).is_none());
}

#[test]
fn only_what_is_needed_stays_on_disk() {
    let root = tempfile::tempdir().unwrap();
    let library = library(root.path());
    let (one, two) = two_in_force(&library);
    assert_eq!(
        on_disk(root.path()),
        BTreeSet::from([one.clone(), two.clone()]),
        "the first until the second has proved itself"
    );
    let loaded = library.load(NAME).unwrap();
    library.keep(NAME, &loaded).unwrap();
    assert!(library.before_learnt(&loaded).is_none());
    in_force(&library, &two);
    assert_eq!(on_disk(root.path()), BTreeSet::from([two.clone()]));
    // It turns out worse than one that is not at hand any more, so that is put anew; what is taken back goes.
    assert!(!library.go_back_to_version(NAME, "1-learnt").unwrap());
    let three = put(&library, "3-learnt");
    assert!(library.go_back_to_version(NAME, "2-learnt").unwrap());
    assert_eq!(current(&library), two);
    in_force(&library, &two);
    assert_eq!(on_disk(root.path()), BTreeSet::from([two]));
    assert!(library.load_again(NAME, &three).is_none());
    // Nothing learnt counts any more.
    let base = catalog::digest(NAME).unwrap();
    library.go_back_to(NAME, &base).unwrap();
    in_force(&library, &base);
    assert_eq!((current(&library), on_disk(root.path())), (base, BTreeSet::new()));
}

#[test]
fn it_is_encrypted_and_another_sites_is_not_taken() {
    let root = tempfile::tempdir().unwrap();
    let library = library(root.path());
    let one = put(&library, "1-learnt");
    let folder = root.path().join("kept/.online").join(NAME).join(&one);
    assert!(folder.join("model.safetensors.enc").exists() && !folder.join("model.safetensors").exists());
    // Somebody's own weights under its name.
    let foreign = root.path().join("foreign");
    let Version { card, weights } = version("foreign");
    write(&foreign, &card, &weights).unwrap();
    let digest = read(&foreign, &Trust::default()).unwrap().digest;
    std::fs::rename(&foreign, root.path().join("kept/.online").join(NAME).join(&digest)).unwrap();
    std::fs::write(root.path().join("kept/.online").join(NAME).join("order"), format!("{one}\n{digest}\n../x\n"))
        .unwrap();
    assert!(matches!(library.fault_of_learnt(NAME), Some(ModelError::Untrusted { .. })));
    assert_eq!(current(&library), one);
}
