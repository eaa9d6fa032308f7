//! Letters come back as they were, tell nobody else anything, and never grow past their bounds.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use nearside_deadletters::{DeadLetter, DeadLetterError, DeadLetters, DeadLettersConfig, ids, read, remove};
use nearside_schemas::{ByteSize, KeyPurpose, KeySource, QoS, SecretKey, Timestamp};
use nearside_telemetry::{Metric, Telemetry};
use proptest::prelude::*;

/// Keys of a master that is one byte.
struct Keys(u8);

impl KeySource for Keys {
    fn derive(&self, purpose: KeyPurpose, context: &[u8]) -> SecretKey {
        let material = [format!("{purpose:?}").as_bytes(), &[self.0], context].concat();
        SecretKey::new(blake3::derive_key("nearside test keys", &material))
    }
}

fn letter(topic: &str, payload: &[u8]) -> DeadLetter {
    DeadLetter {
        reason: "panicked".to_owned(),
        detail: String::new(),
        stage: "decode".to_owned(),
        stream: Some("temperature".to_owned()),
        received: Timestamp::from_secs(7),
        topic: topic.to_owned(),
        qos: QoS::AtLeastOnce,
        retain: false,
        payload: Bytes::copy_from_slice(payload),
    }
}

fn put_all(folder: &Path, config: &DeadLettersConfig, telemetry: &Telemetry, letters: Vec<DeadLetter>) {
    let area = DeadLetters::open(folder, config, Arc::new(Keys(1)), telemetry).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for letter in letters {
        assert!(area.put(letter));
        runtime.block_on(area.flush());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_letter_comes_back_and_nothing_of_it_stands_in_the_folder(
        name in "[A-Z]{8}",
        payload in prop::collection::vec(any::<u8>(), 12..200),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let written = letter(&format!("城市/{name}\"\n"), &payload).because("$.value: expected a number");
        put_all(folder.path(), &DeadLettersConfig::default(), &Telemetry::new(), vec![written.clone()]);
        let all = ids(folder.path()).unwrap();
        prop_assert_eq!(all.len(), 1);
        prop_assert_eq!(&read(folder.path(), all[0], &Keys(1)).unwrap(), &written);
        let other = read(folder.path(), all[0], &Keys(2));
        let refused = matches!(other, Err(DeadLetterError::Sealed { .. }));
        prop_assert!(refused);
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            let bytes = std::fs::read(entry.path()).unwrap();
            for secret in [name.as_bytes(), &payload, b"temperature", b"panicked", b"expected a number"] {
                prop_assert!(!bytes.windows(secret.len()).any(|window| window == secret));
            }
            prop_assert!(!entry.file_name().to_string_lossy().contains(&name));
        }
        let shown = format!("{written:?}");
        prop_assert!(!shown.contains(&name));
        remove(folder.path(), all[0]).unwrap();
        remove(folder.path(), all[0]).unwrap();
        prop_assert!(ids(folder.path()).unwrap().is_empty());
    }
}

#[test]
fn a_message_that_is_set_aside_again_after_a_crash_is_kept_once() {
    let (folder, telemetry) = (tempfile::tempdir().unwrap(), Telemetry::new());
    let config = DeadLettersConfig::default();
    put_all(folder.path(), &config, &telemetry, vec![letter("a", b"1"), letter("a", b"2")]);
    put_all(folder.path(), &config, &telemetry, vec![letter("a", b"2"), letter("a", b"3")]);
    let payloads: Vec<Bytes> =
        ids(folder.path()).unwrap().into_iter().map(|id| read(folder.path(), id, &Keys(1)).unwrap().payload).collect();
    assert_eq!(payloads, ["1", "2", "3"]);
    // Two letters never have the same key, so the same plaintext never the same ciphertext (I7).
    let other = tempfile::tempdir().unwrap();
    put_all(other.path(), &config, &telemetry, vec![letter("a", b"1")]);
    let bytes = |folder: &Path| {
        let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        std::fs::read(&files[0]).unwrap()
    };
    assert_ne!(bytes(folder.path()), bytes(other.path()));
}

#[test]
fn past_either_bound_the_oldest_goes_and_is_counted() {
    let numbered = |n: u32| letter("a", &n.to_be_bytes());
    for config in [
        DeadLettersConfig { most: 5, ..DeadLettersConfig::default() },
        DeadLettersConfig { quota: ByteSize(1_000), ..DeadLettersConfig::default() },
    ] {
        let (folder, telemetry) = (tempfile::tempdir().unwrap(), Telemetry::new());
        put_all(folder.path(), &config, &telemetry, (0..20).map(numbered).collect());
        let kept = ids(folder.path()).unwrap();
        assert!(!kept.is_empty() && kept.len() <= 5, "{kept:?}");
        assert_eq!(kept.len() as u64 + telemetry.total(Metric::DeadLettersShed), 20);
        let newest = read(folder.path(), *kept.last().unwrap(), &Keys(1)).unwrap();
        assert_eq!(newest, numbered(19), "the newest stays");
        let bytes: u64 = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes <= config.quota.bytes());
    }
}

#[test]
fn a_damaged_letter_a_newer_one_and_a_stranger_are_told_apart() {
    let (folder, telemetry) = (tempfile::tempdir().unwrap(), Telemetry::new());
    let config = DeadLettersConfig::default();
    put_all(folder.path(), &config, &telemetry, vec![letter("a", b"1"), letter("a", b"2")]);
    let mut files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut bytes = std::fs::read(&files[0]).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&files[0], &bytes).unwrap();
    bytes[4] = 2;
    std::fs::write(&files[1], &bytes).unwrap();
    std::fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    let all = ids(folder.path()).unwrap();
    assert_eq!(all.len(), 2);
    assert!(matches!(read(folder.path(), all[0], &Keys(1)), Err(DeadLetterError::Sealed { .. })));
    assert!(matches!(read(folder.path(), all[1], &Keys(1)), Err(DeadLetterError::Version { found: Some(2), .. })));
    put_all(folder.path(), &config, &telemetry, vec![letter("a", b"3")]);
    assert_eq!(ids(folder.path()).unwrap().len(), 3, "they disturb nobody");
}

/// What the present version wrote is read for ever. Made by `NEARSIDE_WRITE_FIXTURES=1 cargo test -p nearside-deadletters`.
#[test]
fn the_letter_of_format_1_is_read() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    if std::env::var_os("NEARSIDE_WRITE_FIXTURES").is_some() {
        let folder = tempfile::tempdir().unwrap();
        let config = DeadLettersConfig::default();
        put_all(folder.path(), &config, &Telemetry::new(), vec![letter("城市/厨房/温度", b"{\"value\":1}")]);
        let made = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap();
        std::fs::copy(made.path(), fixture.join(made.file_name())).unwrap();
    }
    let all = ids(&fixture).unwrap();
    assert_eq!(read(&fixture, all[0], &Keys(1)).unwrap(), letter("城市/厨房/温度", b"{\"value\":1}"));
}
