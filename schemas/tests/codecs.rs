//! Every codec: what is right comes out as it went in, what is wrong is set aside with a reason and nothing else is lost.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, DictionaryArray, Float64Array, Int32Array, NullArray, RunArray, StringArray,
    StringViewArray, TimestampMillisecondArray,
};
use arrow::datatypes::Int32Type;
use arrow::ipc::writer::StreamWriter;
use arrow::ipc::{
    FieldArgs, FloatingPoint, FloatingPointArgs, KeyValue, KeyValueArgs, Message, MessageArgs, MessageHeader,
    MetadataVersion, Precision, SchemaArgs, Type,
};
use arrow::record_batch::RecordBatch;
use nearside_schemas::codec::{CodecSpec, Decoded, Format, TimestampSpec, TimestampUnit, decoder};
use nearside_schemas::{
    FieldKind, FieldName, FieldPolicy, FieldSpec, FieldValue, KeyPartSpec, SetAsideReason, StreamName, StreamSpec,
    Timestamp, TopicTemplate,
};
use proptest::prelude::*;
use serde_json::json;

const RECEIVED: Timestamp = Timestamp::from_secs(1_700_000_000);

/// A stream of numbers in `fields` (name and path).
fn spec(format: Format, fields: &[(&str, &str)], timestamp: Option<&str>) -> StreamSpec {
    let field = |name: &str| FieldSpec {
        name: FieldName::new(name).unwrap(),
        kind: if name == "text" { FieldKind::Text } else { FieldKind::Number },
        unit: None,
        policy: FieldPolicy::Clear,
    };
    StreamSpec {
        name: StreamName::new("s").unwrap(),
        topic: TopicTemplate::parse("s").unwrap(),
        codec: CodecSpec {
            format,
            paths: fields.iter().map(|(_, path)| (*path).to_owned()).collect(),
            rows: None,
            rate_hz: None,
            rate_path: None,
            max_payload_bytes: 1 << 20,
            max_readings: 1_000,
        },
        timestamp: timestamp.map(|path| TimestampSpec { path: path.to_owned(), unit: TimestampUnit::Auto }),
        sequence: None,
        fields: fields.iter().map(|(name, _)| field(name)).collect(),
        key: Vec::new(),
        group: "s".to_owned(),
    }
}

fn decode(spec: &StreamSpec, payload: &[u8]) -> Decoded {
    let mut out = Decoded::default();
    decoder(spec).unwrap().decode(payload, RECEIVED, &mut out);
    out
}

/// Seconds and values of every row.
fn rows(decoded: &Decoded) -> Vec<(f64, Vec<Option<f64>>)> {
    let row = |row: &nearside_schemas::codec::DecodedRow| {
        (row.reading.time.as_secs_f64(), row.reading.values.iter().map(FieldValue::number).collect())
    };
    decoded.rows.iter().map(row).collect()
}

fn reasons(decoded: &Decoded) -> Vec<SetAsideReason> {
    decoded.errors.iter().map(|error| error.reason).collect()
}

#[test]
fn json_objects_batches_paths_and_samples() {
    let flat = spec(Format::Json, &[("a", "$.a"), ("b", "$.b")], Some("$.ts"));
    let decoded = decode(&flat, br#"{"ts":1397088240,"a":1.5,"x":[{}],"b":null,"a":9}"#);
    assert_eq!(rows(&decoded), [(1_397_088_240.0, vec![Some(1.5), None])]);
    let batch = decode(&flat, br#"[{"ts":1,"a":true},{"ts":2,"a":"x"},{"ts":3,"b":2e0}]"#);
    assert_eq!(rows(&batch), [(1.0, vec![Some(1.0), None]), (3.0, vec![None, Some(2.0)])]);
    assert_eq!(reasons(&batch), [SetAsideReason::Malformed], "one bad row alone");

    let nested = spec(Format::Json, &[("a", "$.m.v[1]")], Some("$.m.t"));
    assert_eq!(
        rows(&decode(&nested, br#"{"m":{"t":"2014-04-10 00:04:00","v":[1,2]}}"#)),
        [(1_397_088_240.0, vec![Some(2.0)])]
    );

    let mut ecg = spec(Format::Json, &[("mv", "$.mv")], Some("$.ts"));
    ecg.codec.rate_path = Some("$.hz".to_owned());
    let decoded = decode(&ecg, br#"{"ts":10,"hz":4,"mv":[0.5,1,"x",2]}"#);
    assert_eq!(rows(&decoded), [(10.0, vec![Some(0.5)]), (10.25, vec![Some(1.0)]), (10.75, vec![Some(2.0)])]);
    assert_eq!(reasons(&decode(&ecg, br#"{"ts":10,"mv":[1]}"#)), [SetAsideReason::Malformed], "samples need a rate");
}

#[test]
fn keys_come_from_the_payload() {
    let mut keyed = spec(Format::Json, &[("a", "$.a")], None);
    let part = KeyPartSpec {
        name: FieldName::new("device").unwrap(),
        path: Some("$.id".to_owned()),
        policy: FieldPolicy::Pseudonym,
    };
    keyed.key.push(part);
    let decoded =
        decode(&keyed, r#"[{"id":"床-7","a":1},{"id":7,"a":2},{"a":3},{"id":"","a":4},{"id":1.5,"a":5}]"#.as_bytes());
    let keys: Vec<&str> = decoded.rows.iter().map(|row| row.key[0].expose().as_ref()).collect();
    assert_eq!(keys, ["床-7", "7"]);
    assert_eq!(reasons(&decoded), [SetAsideReason::BadKey; 3]);
    let single = decode(&keyed, br#"{"id":12,"a":2}"#);
    assert_eq!(single.rows[0].key[0].expose().as_ref(), "12", "the short way agrees");
}

#[test]
fn numbers_csv_and_text() {
    let number = spec(Format::Number, &[("a", "$")], None);
    assert_eq!(rows(&decode(&number, b" 21.5\n")), [(1.7e9, vec![Some(21.5)])]);
    assert_eq!(reasons(&decode(&number, b"inf")), [SetAsideReason::NotFinite]);
    assert_eq!(reasons(&decode(&number, b"21,5")), [SetAsideReason::Malformed]);

    let named = spec(Format::Csv, &[("a", "a"), ("text", "t")], Some("ts"));
    let decoded = decode(&named, b"t,ts,a\r\n\"x, \"\"y\"\"\nz\",1,2.5\r\n,2,bad\n,3,\n");
    assert_eq!(decoded.rows.len(), 1);
    let FieldValue::Text(text) = &decoded.rows[0].reading.values[1] else { panic!("no text") };
    assert_eq!(text.expose().as_ref(), "x, \"y\"\nz");
    assert_eq!(reasons(&decoded), [SetAsideReason::Malformed; 2]);
    let headless = decode(&named, b"x,1,2.5\n");
    assert!(headless.errors[0].detail.contains("number the columns"), "{headless:?}");
    // What a JSON path would be here: a name that no payload without a header has.
    assert!(nearside_schemas::codec::decoder(&spec(Format::Csv, &[("a", "$.a")], None)).is_err());
    let numbered = spec(Format::Csv, &[("a", "1")], Some("0"));
    assert_eq!(rows(&decode(&numbered, b"1397088240000,7\n1397088241000,8")).len(), 2);
}

#[test]
fn senml_resolves_base_fields() {
    let energy = spec(Format::Senml, &[("power", "power"), ("voltage", "voltage")], None);
    let pack = json!([
        {"bn": "hall:", "bt": 1_700_000_000, "n": "power", "u": "W", "v": 8_100},
        {"n": "voltage", "u": "V", "v": 230.5},
        {"n": "power", "t": 30, "v": 8_200},
        {"n": "other", "v": 1},
        {"n": "voltage", "t": 30, "vs": "text"}
    ]);
    let decoded = decode(&energy, pack.to_string().as_bytes());
    assert_eq!(rows(&decoded), [(1.7e9, vec![Some(8_100.0), Some(230.5)]), (1.7e9 + 30.0, vec![Some(8_200.0), None])]);
    assert_eq!(reasons(&decoded), [SetAsideReason::Malformed]);
    // Relative times count from the receipt; CBOR has numbers for labels.
    let mut cbor = Vec::new();
    let record = |n: &str, t: f64, v: f64| {
        ciborium::Value::Map(vec![
            (0.into(), n.into()),
            (6.into(), ciborium::Value::Float(t)),
            (2.into(), ciborium::Value::Float(v)),
        ])
    };
    ciborium::into_writer(&ciborium::Value::Array(vec![record("power", -10.0, 5.0)]), &mut cbor).unwrap();
    assert_eq!(rows(&decode(&energy, &cbor)), [(1.7e9 - 10.0, vec![Some(5.0), None])]);
    assert_eq!(reasons(&decode(&energy, br#"[{"n":"power","v":1,"must_":2}]"#)), [SetAsideReason::Malformed]);
}

/// Records of one time that are not one reading are set aside, none overwrites another.
#[test]
fn senml_sensors_without_a_key_are_not_mixed() {
    let mut climate = spec(Format::Senml, &[("a", "a"), ("b", "b")], None);
    let pack = json!([{"bn": "x:", "n": "a", "v": 1}, {"n": "b", "v": 2}, {"bn": "y:", "n": "a", "v": 3}]).to_string();
    let decoded = decode(&climate, pack.as_bytes());
    assert_eq!(rows(&decoded), [(1.7e9, vec![Some(1.0), Some(2.0)])], "the first stays");
    assert_eq!(reasons(&decoded), [SetAsideReason::Duplicate]);
    climate.key.push(KeyPartSpec {
        name: FieldName::new("device").unwrap(),
        path: Some("bn".to_owned()),
        policy: FieldPolicy::Pseudonym,
    });
    let keyed = decode(&climate, pack.as_bytes());
    assert_eq!((keyed.rows.len(), keyed.errors.len()), (2, 0));
    assert_eq!(keyed.rows[1].key[0].expose().as_ref(), "y");
}

#[test]
fn senml_sums_versions_and_values_are_as_the_rfc_says() {
    let meter = spec(Format::Senml, &[("power", "power"), ("energy", "power#s")], None);
    let pack = json!([
        {"bn": "m:", "bver": 10, "bs": 1_000, "bv": 5, "n": "power", "v": 2, "s": 30},
        {"n": "power", "t": -1, "s": 40},
        {"n": "power", "t": -2, "v": 1, "vb": true}
    ]);
    let decoded = decode(&meter, pack.to_string().as_bytes());
    let expected = [(1.7e9, vec![Some(7.0), Some(1_030.0)]), (1.7e9 - 1.0, vec![Some(5.0), Some(1_040.0)])];
    assert_eq!(rows(&decoded), expected);
    assert_eq!(reasons(&decoded), [SetAsideReason::Malformed], "two values in a record");
    let sum_alone = decode(&meter, br#"[{"n":"power","s":7}]"#);
    assert_eq!((rows(&sum_alone), sum_alone.errors.len()), (vec![(1.7e9, vec![None, Some(7.0)])], 0));
    assert_eq!(reasons(&decode(&meter, br#"[{"n":"power","vd":"aGk"}]"#)), [SetAsideReason::Malformed]);
    for refused in [
        r#"[{"n":"power","v":1},{"bver":11,"n":"power","v":1,"t":-1}]"#,
        r#"[{"n":"power","v":1},{"bver":9,"n":"power","v":1,"t":-1}]"#,
        r#"[{"bver":1.5,"n":"power","v":1},{"n":"power","v":1,"t":-1}]"#,
        r#"[{"n":"power","v":1},{"n":"power","v":1,"t":-1,"must_":2}]"#,
    ] {
        let decoded = decode(&meter, refused.as_bytes());
        assert_eq!((decoded.rows.len(), reasons(&decoded)), (0, vec![SetAsideReason::Malformed]), "{refused}");
        assert_eq!(decoded.errors[0].readings, 2, "the pack as a whole");
    }
}

#[test]
fn senml_packs_of_many_records_keep_their_order() {
    let records: Vec<_> = (0..20_000).map(|n| json!({"n": "a", "t": -20_000 + n, "v": n})).collect();
    let mut many = spec(Format::Senml, &[("a", "a")], None);
    many.codec.max_payload_bytes = 4 << 20;
    many.codec.max_readings = 15_000;
    let decoded = decode(&many, serde_json::Value::from(records).to_string().as_bytes());
    assert_eq!(decoded.rows.len(), 15_000);
    assert!(decoded.rows.windows(2).all(|pair| pair[0].reading.time < pair[1].reading.time));
    assert_eq!((decoded.errors.len(), decoded.errors[0].readings), (1, 5_000));
}

/// What has no room is counted, whatever the format.
#[test]
fn every_reading_beyond_the_bound_is_counted() {
    let lost = |mut spec: StreamSpec, payload: &[u8]| {
        spec.codec.max_readings = 3;
        let decoded = decode(&spec, payload);
        assert_eq!(decoded.rows.len(), 3, "{:?}", spec.codec.format);
        assert_eq!(reasons(&decoded), [SetAsideReason::TooLarge], "{:?}", spec.codec.format);
        decoded.errors[0].readings
    };
    let mut ecg = spec(Format::Json, &[("mv", "$.mv")], Some("$.ts"));
    ecg.codec.rate_hz = Some(360.0);
    assert_eq!(lost(ecg.clone(), br#"{"ts":10,"mv":[1,2,3,4,5,6,7]}"#), 4);
    assert_eq!(lost(ecg, br#"[{"ts":10,"mv":[1,2]},{"ts":20,"mv":[3,4]},{"ts":30,"mv":[5,6,7]}]"#), 4);
    let json = spec(Format::Json, &[("a", "$.a")], None);
    assert_eq!(lost(json.clone(), br#"[{"a":1},{"a":2},{"a":3},{"a":4},{"a":"bad"}]"#), 2);
    let mut cbor = Vec::new();
    ciborium::into_writer(&json!([{"a": 1}, {"a": 2}, {"a": 3}, {"a": 4}]), &mut cbor).unwrap();
    assert_eq!(lost(spec(Format::Cbor, &[("a", "$.a")], None), &cbor), 1);
    assert_eq!(lost(spec(Format::Csv, &[("a", "1")], Some("0")), b"1,1\n2,2\n3,3\n4,4\n5,5\n"), 2);
    let arrow = spec(Format::ArrowIpc, &[("a", "a")], Some("ts"));
    assert_eq!(lost(arrow, &arrow_payload(vec![1; 40], vec![Some(1.0); 40])), 37);

    // Bad rows take room as well: a message of nothing else does not fill the memory with errors.
    let mut small = json;
    small.codec.max_readings = 2;
    let decoded = decode(&small, br#"[1,2,3,4,5]"#);
    assert_eq!(reasons(&decoded), [SetAsideReason::Malformed, SetAsideReason::Malformed, SetAsideReason::TooLarge]);
    assert_eq!(decoded.errors[2].readings, 3);
}

fn arrow_stream(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

/// Columns whose rows have no bytes of their own can claim any number of rows: they are refused before anything is made of them.
#[test]
fn arrow_columns_that_only_claim_rows_are_refused() {
    const CLAIMED: i32 = 2_000_000_000;
    let null = || -> ArrayRef { Arc::new(NullArray::new(CLAIMED as usize)) };
    let runs = || -> ArrayRef {
        Arc::new(
            RunArray::<Int32Type>::try_new(&Int32Array::from(vec![CLAIMED]), &Float64Array::from(vec![1.0])).unwrap(),
        )
    };
    let words: DictionaryArray<Int32Type> = vec!["x"; 3].into_iter().collect();
    let views = StringViewArray::from(vec!["a text that is too long for the view itself"; 3]);
    let arrow = spec(Format::ArrowIpc, &[("a", "a"), ("text", "text")], Some("ts"));
    let times = || -> ArrayRef { Arc::new(TimestampMillisecondArray::from(vec![1, 2, 3])) };
    for columns in [
        vec![("ts", null()), ("a", null())],
        vec![("ts", runs()), ("a", runs())],
        vec![("ts", times()), ("text", Arc::new(words) as ArrayRef)],
        vec![("ts", times()), ("text", Arc::new(views) as ArrayRef)],
    ] {
        let payload = arrow_stream(columns);
        assert!(payload.len() < 2_000, "{}", payload.len());
        let decoded = decode(&arrow, &payload);
        assert_eq!((decoded.rows.len(), reasons(&decoded)), (0, vec![SetAsideReason::Malformed]));
    }
    // One bit a row is the least that is read: what is beyond the bound is only counted.
    let flags = arrow_stream(vec![("a", Arc::new(BooleanArray::from(vec![true; 1_000_000])) as ArrayRef)]);
    let decoded = decode(&spec(Format::ArrowIpc, &[("a", "a")], None), &flags);
    assert_eq!((decoded.rows.len(), decoded.errors[0].readings), (1_000, 999_000));
    // A column that no field names may be of any kind.
    let values: ArrayRef = Arc::new(Float64Array::from(vec![1.5, 2.5, 3.5]));
    let beside: ArrayRef = Arc::new(NullArray::new(3));
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("2014-04-10 00:04:00"), None, Some("soon")]));
    let decoded = decode(&arrow, &arrow_stream(vec![("x", beside), ("a", values), ("ts", texts)]));
    assert_eq!(rows(&decoded), [(1_397_088_240.0, vec![Some(1.5), None])]);
    assert_eq!(reasons(&decoded), [SetAsideReason::BadTimestamp; 2]);
}

/// A schema of many columns, or with one long text as metadata that is named a thousand times: flatbuffers share what is equal.
fn schema_message(columns: usize, metadata: usize) -> Vec<u8> {
    let mut builder = flatbuffers::FlatBufferBuilder::new();
    let (key, value) = (builder.create_string("k"), builder.create_string(&"v".repeat(10_000)));
    let pair = KeyValue::create(&mut builder, &KeyValueArgs { key: Some(key), value: Some(value) });
    let pairs = builder.create_vector(&vec![pair; metadata]);
    let name = builder.create_string("a");
    let double = FloatingPoint::create(&mut builder, &FloatingPointArgs { precision: Precision::DOUBLE });
    let field = FieldArgs { name: Some(name), nullable: true, type_type: Type::FloatingPoint, ..FieldArgs::default() };
    let field = FieldArgs { type_: Some(double.as_union_value()), ..field };
    let field = arrow::ipc::Field::create(&mut builder, &field);
    let fields = builder.create_vector(&vec![field; columns]);
    let schema = SchemaArgs { fields: Some(fields), custom_metadata: Some(pairs), ..SchemaArgs::default() };
    let schema = arrow::ipc::Schema::create(&mut builder, &schema).as_union_value();
    let message =
        MessageArgs { version: MetadataVersion::V5, header_type: MessageHeader::Schema, ..Default::default() };
    let message = Message::create(&mut builder, &MessageArgs { header: Some(schema), ..message });
    builder.finish(message, None);
    let data = builder.finished_data();
    [&[0xFF; 4], &(data.len() as u32).to_le_bytes()[..], data].concat()
}

#[test]
fn arrow_schemas_that_unfold_are_refused() {
    let arrow = spec(Format::ArrowIpc, &[("a", "a")], None);
    let plain = decode(&arrow, &schema_message(1, 1));
    assert_eq!((plain.rows.len(), plain.errors.len()), (0, 0), "a stream without a batch");
    for (columns, metadata, expected) in [(2_000, 1, "more than 1024 columns"), (1, 1_000, "unfolds into more")] {
        let payload = schema_message(columns, metadata);
        assert!(payload.len() < 30_000, "{}", payload.len());
        let decoded = decode(&arrow, &payload);
        assert_eq!(reasons(&decoded), [SetAsideReason::Malformed]);
        assert!(decoded.errors[0].detail.contains(expected), "{}", decoded.errors[0].detail);
    }
}

fn arrow_payload(times: Vec<i64>, values: Vec<Option<f64>>) -> Vec<u8> {
    let columns: [(&str, ArrayRef); 2] =
        [("ts", Arc::new(TimestampMillisecondArray::from(times))), ("a", Arc::new(Float64Array::from(values)))];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn hostile_payloads_are_set_aside() {
    let json = spec(Format::Json, &[("a", "$.a")], Some("$.ts"));
    let cbor = spec(Format::Cbor, &[("a", "$.a")], None);
    let mut small = spec(Format::Json, &[("a", "$.a")], None);
    small.codec.max_readings = 3;
    let many = format!("[{}]", [r#"{"a":1}"#; 10].join(","));
    let over = decode(&small, many.as_bytes());
    assert_eq!((over.rows.len(), reasons(&over)), (3, vec![SetAsideReason::TooLarge]));
    let deep = "[".repeat(100_000);
    let nan = {
        let mut out = Vec::new();
        ciborium::into_writer(&ciborium::Value::Map(vec![("a".into(), f64::NAN.into())]), &mut out).unwrap();
        out
    };
    for (spec, payload, reason) in [
        (&json, b"".to_vec(), SetAsideReason::Malformed),
        (&json, br#"{"a":1"#.to_vec(), SetAsideReason::Malformed),
        (&json, br#"{"a":1}"#.to_vec(), SetAsideReason::BadTimestamp),
        (&json, br#"{"ts":1}"#.to_vec(), SetAsideReason::Malformed),
        (&json, br#"{"ts":"soon","a":1}"#.to_vec(), SetAsideReason::BadTimestamp),
        (&json, deep.clone().into_bytes(), SetAsideReason::Malformed),
        (&json, vec![b' '; (1 << 20) + 1], SetAsideReason::TooLarge),
        (&json, b"{\"a\":\"\xff\"}".to_vec(), SetAsideReason::Malformed),
        (&cbor, vec![0x9F; 100_000], SetAsideReason::Malformed),
        (&cbor, vec![0x9B, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], SetAsideReason::Malformed),
        (&cbor, nan, SetAsideReason::NotFinite),
    ] {
        let decoded = decode(spec, &payload);
        assert!(decoded.rows.is_empty());
        assert_eq!(reasons(&decoded), [reason], "{:?}", &payload[..payload.len().min(20)]);
    }
}

#[test]
fn errors_name_the_place_and_never_the_value() {
    let json = spec(Format::Json, &[("a", "$.a")], Some("$.ts"));
    for payload in [r#"{"ts":1,"a":"SECRET"}"#, r#"{"ts":"SECRET","a":1}"#, r#"{"ts":1,"a":SECRET}"#, r#""SECRET""#] {
        let decoded = decode(&json, payload.as_bytes());
        assert_eq!(decoded.errors.len(), 1);
        assert!(!format!("{decoded:?} {}", decoded.errors[0]).contains("SECRET"), "{decoded:?}");
    }
    assert_eq!(decode(&json, br#"{"ts":1,"a":"x"}"#).errors[0].to_string(), "$.a: expected a number, found text");
}

fn all_formats() -> Vec<StreamSpec> {
    let formats = [Format::Json, Format::Cbor, Format::Senml, Format::ArrowIpc];
    let mut specs: Vec<StreamSpec> = formats.map(|format| spec(format, &[("a", "$.a")], Some("$.ts"))).into();
    specs.push(spec(Format::Number, &[("a", "$")], None));
    specs.push(spec(Format::Csv, &[("a", "1")], Some("0")));
    specs
}

proptest! {
    /// A number written by Rust comes back bit for bit, by every way a JSON payload can take.
    #[test]
    fn numbers_survive_json(value in prop::num::f64::NORMAL, ts in 0i64..4_000_000_000) {
        let payload = json!({ "ts": ts, "a": value, "z": {"deep": value} }).to_string();
        for path in ["$.a", "$.z.deep"] {
            let decoded = decode(&spec(Format::Json, &[("a", path)], Some("$.ts")), payload.as_bytes());
            prop_assert_eq!(rows(&decoded), [(ts as f64, vec![Some(value)])]);
        }
    }

    #[test]
    fn rows_survive_every_batch_format(
        values in prop::collection::vec((1i64..2_000_000_000, prop::option::weighted(0.8, -1e9f64..1e9)), 1..20)
    ) {
        let expected: Vec<(f64, Vec<Option<f64>>)> =
            values.iter().filter(|(_, v)| v.is_some()).map(|(t, v)| (*t as f64, vec![*v])).collect();
        let json = serde_json::Value::from_iter(values.iter().map(|(t, v)| json!({ "ts": t, "a": v })));
        let mut cbor = Vec::new();
        ciborium::into_writer(&json, &mut cbor).unwrap();
        let csv: String = values.iter().map(|(t, v)| format!("{t},{}\n", v.map(|v| v.to_string()).unwrap_or_default())).collect();
        let arrow = arrow_payload(values.iter().map(|(t, _)| t * 1_000).collect(), values.iter().map(|(_, v)| *v).collect());
        for (spec, payload) in [
            (spec(Format::Json, &[("a", "$.a")], Some("$.ts")), json.to_string().into_bytes()),
            (spec(Format::Cbor, &[("a", "$.a")], Some("$.ts")), cbor),
            (spec(Format::Csv, &[("a", "1")], Some("0")), csv.into_bytes()),
            (spec(Format::ArrowIpc, &[("a", "$.a")], Some("$.ts")), arrow),
        ] {
            let decoded = decode(&spec, &payload);
            prop_assert_eq!(&rows(&decoded), &expected, "{:?}", spec.codec.format);
            prop_assert_eq!(decoded.errors.len(), values.len() - expected.len());
        }
    }

    /// Bytes of any kind end in rows or errors, never in a panic or in more rows than allowed.
    #[test]
    fn any_bytes_are_borne(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for spec in all_formats() {
            let decoded = decode(&spec, &bytes);
            prop_assert!(decoded.rows.len() <= spec.codec.max_readings);
        }
    }

    /// A good payload with some bytes changed.
    #[test]
    fn changed_payloads_are_borne(places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut cbor = Vec::new();
        ciborium::into_writer(&json!([{"ts": 1, "a": 2.5}, {"ts": 2, "a": [1, 2]}]), &mut cbor).unwrap();
        let payloads: [Vec<u8>; 4] = [
            br#"[{"ts":1,"a":2.5},{"bn":"x","n":"a","t":3,"v":2}]"#.to_vec(),
            cbor,
            arrow_payload(vec![1, 2, 3], vec![Some(1.0), None, Some(3.0)]),
            b"1,2.5\n2,\"x\"\n".to_vec(),
        ];
        for mut payload in payloads {
            for (place, byte) in &places {
                let at = place.index(payload.len());
                payload[at] = *byte;
            }
            for spec in all_formats() {
                decode(&spec, &payload);
            }
        }
    }
}
