//! Signatures, encryption, damage, and which of two folders counts.

use super::cipher::tests::Site;
use super::*;
use crate::catalog;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32]).unwrap()
}

fn required(key: &SigningKey) -> Trust {
    Trust { keys: vec![key.public()], is_required: true, site: None }
}

/// A folder with the forecaster that ships, under a name and version.
fn forecaster(root: &Path, name: &str, version: &str) -> PathBuf {
    let (mut card, weights) = catalog::parts("forecaster", None).unwrap();
    if name != "forecaster" {
        card.method = Some(String::from("forecaster"));
    }
    card.name = nearside_schemas::ModelName::new(name).unwrap();
    card.version = version.to_owned();
    write(&root.join(name), &card, &weights).unwrap();
    root.join(name)
}

fn library(root: &Path, trust: &Trust) -> Library {
    let config = ModelsConfig {
        folder: Some(PathBuf::from("models")),
        trusted_keys: trust.keys.clone(),
        require_signature: trust.is_required,
        ..ModelsConfig::default()
    };
    Library::new(&config, root, root.join("kept"), trust.site.clone())
}

#[test]
fn a_signature_is_checked_where_it_stands_and_where_it_is_required() {
    let root = tempfile::tempdir().unwrap();
    let folder = forecaster(root.path(), "forecaster", "2");
    assert_eq!(read(&folder, &Trust::default()).unwrap().signer, Signer::Nobody);
    let error = read(&folder, &required(&key(1))).unwrap_err().to_string();
    assert!(error.contains("not signed") && error.contains("nearside models sign"), "{error}");

    sign(&folder, &key(2)).unwrap();
    assert_eq!(read(&folder, &Trust::default()).unwrap().signer, Signer::Unknown(key(2).public()));
    let error = read(&folder, &required(&key(1))).unwrap_err().to_string();
    assert!(error.contains("trusted_keys"), "{error}");
    assert_eq!(read(&folder, &required(&key(2))).unwrap().signer, Signer::Trusted(key(2).public()));

    // A card that was changed after it was signed is refused, required or not.
    let card = std::fs::read_to_string(folder.join(CARD_FILE)).unwrap();
    std::fs::write(folder.join(CARD_FILE), card.replace("version = \"2\"", "version = \"3\"")).unwrap();
    assert!(matches!(read(&folder, &Trust::default()), Err(ModelError::Untrusted { .. })));
}

#[test]
fn encrypted_weights_keep_their_signature_and_open_for_their_site_alone() {
    let root = tempfile::tempdir().unwrap();
    let folder = forecaster(root.path(), "forecaster", "2");
    let plain = read(&folder, &Trust::default()).unwrap().weights;
    sign(&folder, &key(1)).unwrap();
    encrypt(&folder, &Site(7), [1; SALT]).unwrap();
    assert!(!folder.join("model.safetensors").exists());
    let trust = |site: u8| Trust { site: Some(Arc::new(Site(site))), ..required(&key(1)) };
    let opened = read(&folder, &trust(7)).unwrap();
    assert!(opened.is_encrypted && opened.weights == plain);
    assert!(matches!(read(&folder, &trust(8)), Err(ModelError::Untrusted { .. })));
    assert!(read(&folder, &required(&key(1))).unwrap_err().to_string().contains("no site's key"));
    // Written again, nothing of the old stays beside it.
    forecaster(root.path(), "forecaster", "3");
    assert!(matches!(read(&folder, &trust(7)), Err(ModelError::Untrusted { .. })), "the signature went");
    assert!(!read(&folder, &Trust::default()).unwrap().is_encrypted);
}

#[test]
fn weights_must_be_the_ones_on_the_card() {
    let root = tempfile::tempdir().unwrap();
    let folder = forecaster(root.path(), "forecaster", "2");
    let path = folder.join("model.safetensors");
    let mut weights = std::fs::read(&path).unwrap();
    *weights.last_mut().unwrap() ^= 1;
    std::fs::write(&path, weights).unwrap();
    assert!(matches!(read(&folder, &Trust::default()), Err(ModelError::Damaged { .. })));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(read(&folder, &Trust::default()), Err(ModelError::File { .. })));
}

#[test]
fn the_folder_comes_before_what_ships() {
    let root = tempfile::tempdir().unwrap();
    let models = root.path().join("models");
    std::fs::create_dir(&models).unwrap();
    let library = library(root.path(), &Trust::default());
    assert_eq!(library.load("forecaster").unwrap().origin, Origin::Shipped);
    forecaster(&models, "forecaster", "2");
    forecaster(&models, "pump-hall", "1");
    assert_eq!(library.names(), ["forecaster", "pump-hall"]);
    let loaded = library.load("forecaster").unwrap();
    assert_eq!((loaded.origin, loaded.model.reference().to_string()), (Origin::Folder, "forecaster@2".to_owned()));
    assert_eq!(library.load("pump-hall").unwrap().model.reference().to_string(), "pump-hall@1");
    assert_eq!(method_of("pump-hall", std::slice::from_ref(&models)).unwrap(), "forecaster");
    for unknown in ["pump-hull", "..", "a/b", ""] {
        assert!(method_of(unknown, std::slice::from_ref(&models)).is_err(), "{unknown}");
    }
    // What was in force is there when the folder is not.
    library.keep("pump-hall", &library.load("pump-hall").unwrap()).unwrap();
    std::fs::remove_dir_all(&models).unwrap();
    assert!(library.load("pump-hall").is_err());
    assert_eq!(library.load_kept("pump-hall").unwrap().unwrap().origin, Origin::Kept);
    assert!(library.load_kept("forecaster").is_none());
}

#[test]
fn a_card_for_another_network_task_or_schema_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let models = root.path().join("models");
    let folder = forecaster(&models, "forecaster", "2");
    let library = library(root.path(), &Trust::default());
    let card = std::fs::read_to_string(folder.join(CARD_FILE)).unwrap();
    for (from, to, expected) in [
        ("task = \"anomaly\"", "task = \"diagnosis\"", "task"),
        ("version = \"2\"", "version = \"2\"\nschema = 2", "newer"),
        ("version = \"2\"", "version = \"2\"\nmethod = \"multivariate\"", "method"),
        ("name = \"forecaster\"", "name = \"other\"\nmethod = \"multivariate\"", "other"),
    ] {
        let changed = card.replacen(from, to, 1);
        assert_ne!(changed, card, "{from}");
        std::fs::write(folder.join(CARD_FILE), changed).unwrap();
        let error = library.load("forecaster").err().expect(to).to_string();
        assert!(error.contains(expected), "{to}: {error}");
    }
    // Weights of one network under the card of another.
    let (mut card, _) = catalog::parts("forecaster", None).unwrap();
    let (_, weights) = catalog::parts("multivariate", None).unwrap();
    card.sha256 = Some(crate::card::digest(&weights));
    write(&folder, &card, &weights).unwrap();
    assert!(matches!(library.load("forecaster"), Err(ModelError::Damaged { .. })));
}

#[test]
fn a_card_without_the_digest_of_weights_that_are_there_is_damaged() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("forecaster");
    let (card, weights) = catalog::parts("forecaster", None).unwrap();
    write(&folder, &Card { sha256: None, ..card.clone() }, &weights).unwrap();
    let error = read(&folder, &Trust::default()).unwrap_err().to_string();
    assert!(error.contains("no sha256") && error.contains("model.safetensors"), "{error}");
    write(&folder, &Card { sha256: None, ..card }, &[]).unwrap();
    assert!(read(&folder, &Trust::default()).is_ok(), "a model without weights");
}

#[test]
fn being_cut_off_while_a_copy_is_replaced_leaves_one() {
    let root = tempfile::tempdir().unwrap();
    let (models, kept) = (root.path().join("models"), root.path().join("kept"));
    let library = library(root.path(), &Trust::default());
    let version = || library.load_kept("forecaster").map(|kept| kept.unwrap().model.reference().version.to_string());
    let keep = || library.keep("forecaster", &library.load("forecaster").unwrap()).unwrap();
    forecaster(&models, "forecaster", "1");
    keep();
    // The draft is whole or half there, and the old copy in its place.
    forecaster(&kept, ".draft", "2");
    assert_eq!(version().unwrap(), "1");
    // The old copy is out of the way, and the draft not yet in its place.
    std::fs::rename(kept.join("forecaster"), kept.join(".forecaster.old")).unwrap();
    assert_eq!(version().unwrap(), "1");
    // The new copy is in its place, and the old one not yet gone.
    forecaster(&models, "forecaster", "2");
    keep();
    assert_eq!(version().unwrap(), "2");
    forecaster(&kept, "forecaster", "1");
    std::fs::rename(kept.join("forecaster"), kept.join(".forecaster.old")).unwrap();
    forecaster(&kept, "forecaster", "2");
    assert_eq!(version().unwrap(), "2");
    // The new copy is damaged, by a disk that lied: the old one is still good.
    std::fs::write(kept.join("forecaster/model.safetensors"), b"").unwrap();
    assert_eq!(version().unwrap(), "1");
    // What a cut left does not stand in the way of the next copy, and does not outlive it.
    keep();
    assert_eq!(version().unwrap(), "2");
    assert!(!kept.join(".forecaster.old").exists());
}

#[test]
fn what_was_in_force_is_remembered_and_found_again() {
    let root = tempfile::tempdir().unwrap();
    let models = root.path().join("models");
    forecaster(&models, "forecaster", "2");
    let library = library(root.path(), &Trust::default());
    assert!(library.in_force().is_empty());
    let two = library.load("forecaster").unwrap();
    library.keep("forecaster", &two).unwrap();
    let shipped = catalog::digest("forecaster").unwrap();
    library.note_in_force([("forecaster", two.digest.as_str()), ("other", "x")].into_iter()).unwrap();
    assert_eq!(library.in_force()["forecaster"], two.digest);
    assert_eq!(library.in_force().len(), 2);
    assert_eq!(library.load_again("forecaster", &two.digest).unwrap().origin, Origin::Kept);
    assert_eq!(library.load_again("forecaster", &shipped).unwrap().origin, Origin::Shipped);
    assert!(library.load_again("forecaster", "something else").is_none());
}
