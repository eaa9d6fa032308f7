//! What lies on the site's disk and is read at the start: the journal, windows of a checkpoint, dead letters.

use std::io;
use std::sync::{Arc, OnceLock};

use nearside_journal::fuzz::{Frame, segment};
use nearside_journal::{Item, SegmentFile, Storage, check, read};
use nearside_privacy::KeyRing;
use nearside_schemas::{FieldKind, FieldName, FieldPolicy, FieldSpec, HumanDuration, SecretKey, StreamId, Timestamp};
use nearside_window::{GuardConfig, LatePolicy, StreamWindows, WindowConfig, WindowKind, WindowPlan};

/// A folder with one segment in it.
struct One(String, Vec<u8>);

impl Storage for One {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(vec![self.0.clone()])
    }

    fn create(&self, _: &str) -> io::Result<Box<dyn SegmentFile>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn read(&self, _: &str) -> io::Result<Vec<u8>> {
        Ok(self.1.clone())
    }

    fn size(&self, _: &str) -> io::Result<u64> {
        Ok(self.1.len() as u64)
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

/// The first byte says what the rest is. 0: a segment's bytes as they lie on disk. Otherwise: frames with the right seals, each of a
/// number of its first record (8 bytes), a count (1) and a length (2), and the bytes of its records; then the byte of the segment
/// that the first byte names, counted from the end, is turned over where the byte is even.
pub(super) fn journal(bytes: &[u8]) {
    static KEYS: OnceLock<Arc<KeyRing>> = OnceLock::new();
    let (choice, rest) = super::choice(bytes);
    let keys = KEYS.get_or_init(|| Arc::new(KeyRing::from_master(SecretKey::new([7; 32]))));
    let (name, bytes) = if choice == 0 {
        (format!("{:020}.nsj", 1), rest.to_vec())
    } else {
        let frames = frames(rest);
        let first = frames.first().map_or(1, |frame| frame.first);
        let (name, mut bytes) = segment(&**keys, first, &frames);
        let place = bytes.len().checked_sub(choice * 4);
        if let Some(byte) = place.and_then(|place| bytes.get_mut(place)).filter(|_| choice.is_multiple_of(2)) {
            *byte ^= 0xFF;
        }
        (name, bytes)
    };
    let most = bytes.len();
    let storage = Arc::new(One(name, bytes));
    let Ok(reader) = read(storage.clone(), keys.clone()) else { return };
    // A record takes five bytes, and a damaged place at least one.
    let (mut records, mut places) = (0, 0);
    for item in reader {
        match item {
            Item::Record(..) => records += 1,
            Item::Damage(_) => places += 1,
        }
        assert!(records + places <= most + 2, "{records} records and {places} damaged places in {most} bytes");
    }
    let report = check(storage, keys.clone()).unwrap_or_default();
    assert_eq!((report.records, report.damage.len()), (records as u64, places));
}

fn frames(mut rest: &[u8]) -> Vec<Frame<'_>> {
    let mut frames = Vec::new();
    while let Some((head, body)) = rest.split_first_chunk::<11>() {
        let [a, b, c, d, e, f, g, h, count, low, high] = *head;
        let length = usize::from(u16::from_le_bytes([low, high])).min(body.len());
        let (records, behind) = body.split_at(length);
        let first = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        frames.push(Frame { first, count: u32::from(count), records });
        rest = behind;
    }
    frames
}

/// The records of a frame, once it is opened.
pub(super) fn records(bytes: &[u8]) {
    nearside_journal::fuzz::records(bytes);
}

/// The windows in a stream's state, and what becomes of them when time passes.
pub(super) fn windows(bytes: &[u8]) {
    static PLAN: OnceLock<Arc<WindowPlan>> = OnceLock::new();
    let plan = PLAN.get_or_init(plan);
    let stream = StreamId::from_bytes([3; 16]);
    // Marks of windows that are over may be read from another shape.
    let _ = StreamWindows::resume_after(plan.clone(), stream, bytes);
    let Ok(mut windows) = StreamWindows::restore(plan.clone(), stream, bytes) else { return };
    let again = windows.snapshot();
    let restored = StreamWindows::restore(plan.clone(), stream, &again);
    assert!(restored.is_ok_and(|restored| restored.snapshot() == again), "what is read comes back");
    let mut closed = Vec::new();
    windows.tick(Timestamp::from_secs(1_700_000_000), &mut closed);
    windows.drain(&mut closed);
    assert!(windows.is_empty());
}

fn plan() -> Arc<WindowPlan> {
    let field = |name: &str, kind| FieldSpec {
        name: FieldName::new(name).unwrap_or_else(|error| panic!("{error}")),
        kind,
        unit: None,
        policy: FieldPolicy::Clear,
    };
    let secs = HumanDuration::secs;
    let tumbling = WindowConfig { late: LatePolicy::Revise, revise_for: secs(60), ..WindowConfig::tumbling(secs(10)) };
    let none = WindowConfig { size: None, ..WindowConfig::tumbling(secs(1)) };
    let windows = [
        tumbling,
        WindowConfig { kind: WindowKind::Session, gap: Some(secs(5)), ..none.clone() },
        WindowConfig { kind: WindowKind::Count, rows: Some(4), ..none },
    ];
    WindowPlan::new(&[field("v", FieldKind::Number), field("t", FieldKind::Text)], &windows, GuardConfig::default())
        .unwrap_or_else(|error| panic!("the plan is wrong: {error}"))
}

/// A dead letter's file.
pub(super) fn deadletters(bytes: &[u8]) {
    nearside_deadletters::fuzz::letter(bytes, super::keys());
}
