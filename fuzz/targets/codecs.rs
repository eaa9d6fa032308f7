//! Payloads of devices.

use std::sync::{Arc, OnceLock};

use nearside_schemas::codec::{CodecSpec, Decode, Decoded, Format, TimestampSpec, TimestampUnit, decoder};
use nearside_schemas::{
    FieldKind, FieldName, FieldPolicy, FieldSpec, FieldValue, KeyPartSpec, StreamName, StreamSpec, Timestamp,
    TopicTemplate,
};

/// Few, so that the bound is met.
const MAX_READINGS: usize = 100;

/// The first byte chooses the stream definition; the rest is the payload.
pub(super) fn codecs(bytes: &[u8]) {
    static DECODERS: OnceLock<Vec<(StreamSpec, Arc<dyn Decode>)>> = OnceLock::new();
    let decoders = DECODERS.get_or_init(|| {
        let built = definitions().into_iter().map(|spec| decoder(&spec).map(|decoder| (spec, decoder)));
        built.collect::<Result<_, _>>().unwrap_or_else(|error| panic!("a definition is wrong: {error}"))
    });
    let (choice, payload) = super::choice(bytes);
    let (spec, decoder) = &decoders[choice % decoders.len()];
    let mut decoded = Decoded::default();
    decoder.decode(payload, Timestamp::from_secs(1_700_000_000), &mut decoded);
    check(spec, &decoded);
}

fn check(spec: &StreamSpec, decoded: &Decoded) {
    assert!(decoded.rows.len() <= MAX_READINGS, "{} readings", decoded.rows.len());
    assert!(decoded.errors.len() <= MAX_READINGS + 1, "{} errors", decoded.errors.len());
    let in_payload = spec.key.iter().filter(|part| part.path.is_some()).count();
    for row in &decoded.rows {
        assert_eq!((row.key.len(), row.reading.values.len()), (in_payload, spec.fields.len()));
        for (value, field) in row.reading.values.iter().zip(&spec.fields) {
            match value {
                FieldValue::Missing => {}
                FieldValue::Number(number) => assert!(number.is_finite() && field.kind == FieldKind::Number),
                FieldValue::Text(_) => assert_eq!(field.kind, FieldKind::Text),
            }
        }
    }
}

/// Each format as a device with few fields and as one with all that its format can have.
fn definitions() -> Vec<StreamSpec> {
    let json = ["$.value", "$.text", "$.a.b[0]"];
    let named = ["value", "text", "other"];
    vec![
        definition(Format::Json, &json, Some("$.ts"), Some("$.seq"), Some("$.id"), None),
        definition(Format::Json, &json, Some("$.ts"), None, None, Some("$.samples")),
        definition(Format::Json, &["$.mv"], Some("$.ts"), None, None, None),
        definition(Format::Number, &["$"], None, None, None, None),
        definition(Format::Csv, &["1", "2", "3"], Some("0"), None, None, None),
        definition(Format::Csv, &named, Some("ts"), Some("seq"), Some("id"), None),
        definition(Format::Cbor, &json, Some("$.ts"), Some("$.seq"), Some("$.id"), None),
        definition(Format::Cbor, &["$.mv"], Some("$.ts"), None, None, Some("$.samples")),
        definition(Format::Senml, &["power", "text", "power#s"], None, None, None, None),
        definition(Format::ArrowIpc, &named, Some("ts"), Some("seq"), Some("id"), None),
    ]
}

fn definition(
    format: Format,
    paths: &[&str],
    time: Option<&str>,
    sequence: Option<&str>,
    key: Option<&str>,
    rows: Option<&str>,
) -> StreamSpec {
    let field = |n: usize| FieldSpec {
        name: name(&format!("f{n}")),
        kind: if n == 1 { FieldKind::Text } else { FieldKind::Number },
        unit: None,
        policy: FieldPolicy::Clear,
    };
    let in_tree = matches!(format, Format::Json | Format::Cbor);
    StreamSpec {
        name: StreamName::new("fuzzed").unwrap_or_else(|error| panic!("{error}")),
        topic: TopicTemplate::parse("fuzz/x").unwrap_or_else(|error| panic!("{error}")),
        codec: CodecSpec {
            format,
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            rows: rows.map(str::to_owned),
            rate_hz: in_tree.then_some(250.0),
            rate_path: in_tree.then(|| "$.hz".to_owned()),
            max_payload_bytes: 64 << 10,
            max_readings: MAX_READINGS,
        },
        timestamp: time.map(|path| TimestampSpec { path: path.to_owned(), unit: TimestampUnit::Auto }),
        sequence: sequence.map(str::to_owned),
        fields: (0..paths.len()).map(field).collect(),
        key: key
            .map(|path| KeyPartSpec { name: name("id"), path: Some(path.to_owned()), policy: FieldPolicy::Pseudonym })
            .into_iter()
            .collect(),
        group: "fuzzed".to_owned(),
    }
}

fn name(name: &str) -> FieldName {
    FieldName::new(name).unwrap_or_else(|error| panic!("{error}"))
}
