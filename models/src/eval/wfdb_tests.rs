//! Hand-made records, and files that were damaged or made to harm.

use proptest::prelude::*;

use super::*;

/// Packs samples two by two into three bytes.
fn pack_212(samples: &[i32]) -> Vec<u8> {
    let pack = |pair: &[i32]| {
        let (a, b) = (pair[0] & 0xfff, pair.get(1).copied().unwrap_or(0) & 0xfff);
        [(a & 0xff) as u8, (a >> 8 | (b >> 8) << 4) as u8, (b & 0xff) as u8]
    };
    samples.chunks(2).flat_map(pack).collect()
}

fn folder(header: &str, dat: &[u8], atr: Option<&[u8]>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("r.hea"), header).unwrap();
    std::fs::write(folder.path().join("r.dat"), dat).unwrap();
    if let Some(atr) = atr {
        std::fs::write(folder.path().join("r.atr"), atr).unwrap();
    }
    folder
}

const TWO_LEADS: &str = "r 2 360 3 0:0:0\nr.dat 212 200 11 1024 995 -22131 0 MLII\n# a note\nr.dat 212 100(1000)/mV 11 1024 1011 20052 0 V1 upper\n";

#[test]
fn samples_become_millivolts() {
    let dat = pack_212(&[1_024, 1_000, 1_224, 900, -2_048, -47]);
    assert_eq!(dat[..3], [0x00, 0x34, 0xe8], "1024 and 1000 as the guide packs them");
    let folder = folder(TWO_LEADS, &dat, None);
    let record = read_record(folder.path(), "r").unwrap();
    assert_eq!((record.rate_hz, record.leads.len(), &record.annotations), (360.0, 2, &None));
    assert_eq!((record.leads[0].name.as_str(), record.leads[1].name.as_str()), ("MLII", "V1 upper"));
    assert_eq!(record.leads[0].samples[..2], [0.0, 1.0]);
    assert!(record.leads[0].samples[2].is_nan(), "the value that stands for none");
    assert_eq!(record.leads[1].samples, [0.0, -1.0, -10.47]);
    assert_eq!(record_names(folder.path()).unwrap(), ["r"]);
}

#[test]
fn annotations_are_read_past_texts_and_long_intervals() {
    let word = |code: u16, interval: u16| (code << 10 | interval).to_le_bytes();
    let mut atr = Vec::new();
    atr.extend(word(28, 18));
    atr.extend(word(63, 3));
    atr.extend(*b"(N\0\0");
    atr.extend(word(1, 59));
    atr.extend(word(59, 0));
    atr.extend([1, 0, 0, 0]); // 65,536: the upper half comes first
    atr.extend(word(5, 0));
    atr.extend(word(61, 2));
    atr.extend(word(8, 100));
    atr.extend([0, 0]);
    atr.extend(word(1, 1));
    let folder = folder(TWO_LEADS, &pack_212(&[0; 6]), Some(&atr));
    let found = read_record(folder.path(), "r").unwrap().annotations.unwrap();
    let found: Vec<(u64, u8)> = found.iter().map(|one| (one.sample, one.code)).collect();
    assert_eq!(found, [(18, 28), (77, 1), (65_613, 5), (65_713, 8)]);
}

#[test]
fn what_is_damaged_is_refused_with_the_file() {
    let dat = pack_212(&[0; 6]);
    for (header, why) in [
        ("", "empty"),
        ("r/2 2 360 3", "segments"),
        ("r 0 360 3", "0 signals"),
        ("r 4000000000 360 3", "signals"),
        ("r 2 0 3", "rate"),
        ("r 2 nan 3", "number"),
        ("r 2 360 3\nr.dat 212 200", "described"),
        ("r 1 360 3\n../r.dat 212 200", "plain name"),
        ("r 1 360 3\n/etc/passwd 212 200", "plain name"),
        ("r 1 360 3\nr.dat 80 200", "format"),
        ("r 2 360 1\nr.dat 16 200\nr.dat 212 200", "several formats"),
        ("r 1 360 3\nr.dat 212 inf", "number"),
        ("r 1 360 7\nr.dat 212 200", "end after"),
    ] {
        let folder = folder(header, &dat, None);
        let error = read_record(folder.path(), "r").unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("r.hea"), "{header:?}: {error}");
    }
    for atr in [&[0, 59 << 2, 0, 0][..], &[9, 63 << 2, 0], &[0, 59 << 2, 0xff, 0xff, 0, 0, 1, 1 << 2]] {
        let folder = folder(TWO_LEADS, &dat, Some(atr));
        assert!(matches!(read_record(folder.path(), "r"), Err(ModelError::Data { .. })), "{atr:?}");
    }
}

#[test]
fn samples_of_16_bits_are_read() {
    let dat: Vec<u8> = [1_024_i16, -200, -32_768, 100].iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let header = "r 2 360 2\nr.dat 16 200 16 1024 0 0 0 MLII\nr.dat 16 100 16 0 0 0 0 V1\n";
    let folder = folder(header, &dat, None);
    let record = read_record(folder.path(), "r").unwrap();
    assert_eq!((record.leads[0].samples[0], record.leads[1].samples.as_slice()), (0.0, &[-2.0, 1.0][..]));
    assert!(record.leads[0].samples[1].is_nan(), "the value that stands for none");
    let dat = [&[7; 24][..], &dat].concat();
    let folder = self::folder(&header.replace(" 16 200", " 16+24 200").replace(" 16 100", " 16+24 100"), &dat, None);
    assert_eq!(read_record(folder.path(), "r").unwrap().leads[1].samples, [-2.0, 1.0], "after a head of its own");
}

#[test]
fn a_record_without_a_sample_is_refused() {
    let folder = folder("r 1 360\nr.dat 212 200\n", &[], None);
    assert!(read_record(folder.path(), "r").unwrap_err().to_string().contains("no sample"));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(header in "[ -~\n]{0,200}", dat in proptest::collection::vec(any::<u8>(), 0..64),
        atr in proptest::collection::vec(any::<u8>(), 0..64)) {
        let folder = folder(&header, &dat, Some(&atr));
        let _ = read_record(folder.path(), "r");
        let _ = parse_annotations(&atr);
    }

    #[test]
    fn what_was_packed_is_read(samples in proptest::collection::vec(-2_048..2_048_i32, 1..50)) {
        let bytes = pack_212(&samples);
        let read: Vec<i32> = (0..samples.len()).map_while(|at| sample_212(&bytes, at)).collect();
        prop_assert_eq!(read, samples);
    }
}
