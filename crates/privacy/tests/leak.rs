//! I2: a personal value leaves as ciphertext, pseudonym or not at all.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;

use base64::Engine;
use nearside_privacy::{
    Context, Envelope, KeyRing, SealedItem, SummaryFormat, open_event, preview_finding, preview_summary, seal_finding,
    seal_summary,
};
use nearside_schemas::codec::{CodecSpec, Format};
use nearside_schemas::{
    CloseCause, Contribution, FieldKind, FieldName, FieldPolicy, FieldSpec, FieldSummary, Finding, KeyPartSpec,
    KeyValues, ModelName, ModelRef, Nth, Personal, Quantiles, SecretKey, SetAsideCounts, Severity, SiteId, StreamId,
    StreamName, StreamSpec, Summary, Timestamp, TopicTemplate, Verdict, WindowDefinition, WindowId,
};
use proptest::prelude::*;
use serde_json::Value;

fn key() -> KeyValues {
    [Personal::new(Arc::<str>::from("patient 4711"))].into_iter().collect()
}

fn keys() -> KeyRing {
    KeyRing::from_master(SecretKey::new([3; 32]))
}

fn spec(key: FieldPolicy, note: FieldPolicy) -> StreamSpec {
    StreamSpec {
        name: StreamName::new("notes").unwrap(),
        topic: TopicTemplate::parse("ward/{patient}/note").unwrap(),
        codec: CodecSpec {
            format: Format::Json,
            paths: vec!["$.text".to_owned()],
            rows: None,
            rate_hz: None,
            rate_path: None,
            max_payload_bytes: 1 << 16,
            max_readings: 10,
        },
        timestamp: None,
        sequence: None,
        fields: vec![FieldSpec {
            name: FieldName::new("note").unwrap(),
            kind: FieldKind::Text,
            unit: None,
            policy: note,
        }],
        key: vec![KeyPartSpec { name: FieldName::new("patient").unwrap(), path: None, policy: key }],
        group: "notes".to_owned(),
    }
}

fn field(name: &str, kind: FieldKind, policy: FieldPolicy) -> FieldSpec {
    FieldSpec { name: FieldName::new(name).unwrap(), kind, unit: None, policy }
}

fn summary(patient: &str, note: &str) -> Summary {
    let personal = |text: &str| Personal::new(Arc::<str>::from(text));
    Summary {
        site: SiteId::new("ward-7").unwrap(),
        stream: StreamName::new("notes").unwrap(),
        group: "notes".to_owned(),
        key: [personal(patient)].into_iter().collect(),
        window: WindowId {
            stream: StreamId::from_bytes([5; 16]),
            definition: WindowDefinition::new("1m").unwrap(),
            start: Timestamp::from_secs(60),
        },
        revision: 2,
        end: Timestamp::from_secs(120),
        cause: CloseCause::Watermark,
        rows: 1,
        set_aside: SetAsideCounts::default(),
        fields: Vec::new(),
        hidden_fields: Vec::new(),
        texts: vec![(FieldName::new("note").unwrap(), vec![personal(note)])],
        findings: Vec::new(),
        verdict: Verdict::Judged,
        models: Vec::new(),
    }
}

fn sealed(summary: &Summary, spec: &StreamSpec) -> SealedItem {
    seal_summary(summary, spec, &keys(), SummaryFormat::Json).unwrap().into_item()
}

/// The marker in every dress a careless program might send it in.
fn dresses(marker: &str) -> Vec<String> {
    let bytes = marker.as_bytes();
    vec![
        marker.to_owned(),
        bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes)[..bytes.len() / 3 * 4].to_owned(),
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)[..bytes.len() / 3 * 4].to_owned(),
    ]
}

fn hiding() -> impl Strategy<Value = FieldPolicy> {
    prop_oneof![Just(FieldPolicy::Encrypt), Just(FieldPolicy::Pseudonym), Just(FieldPolicy::Drop)]
}

proptest! {
    #[test]
    fn no_personal_value_leaves(name in "[A-Z]{6}[a-z]{3}", note in "[a-z]{4}zq[a-z]{4}", k in hiding(), n in hiding()) {
        let spec = spec(k, n);
        let summary = summary(&name, &note);
        let item = sealed(&summary, &spec);
        let preview = preview_summary(&summary, &spec, &keys()).unwrap().to_string();
        let seen = [
            String::from_utf8(item.bytes().to_vec()).unwrap(),
            String::from_utf8_lossy(&item.store(&keys()).unwrap()).into_owned(),
            format!("{item:?} {summary:?}"),
            item.id(),
            preview,
        ];
        for marker in [&name, &note] {
            for dress in dresses(marker) {
                for text in &seen {
                    prop_assert!(!text.contains(&dress), "{dress} in {text}");
                }
            }
        }
    }

    #[test]
    fn the_holder_of_the_key_reads_it_again(name in "\\PC{1,20}", note in "\\PC{1,50}") {
        let spec = spec(FieldPolicy::Encrypt, FieldPolicy::Encrypt);
        let item = sealed(&summary(&name, &note), &spec);
        let event: Value = serde_json::from_slice(item.bytes()).unwrap();
        let opened = open_event(event.clone(), &keys()).unwrap();
        prop_assert_eq!(&opened["data"]["key"]["patient"], &Value::from(name));
        prop_assert_eq!(&opened["data"]["texts"]["note"][0], &Value::from(note));
        let other = KeyRing::from_master(SecretKey::new([4; 32]));
        prop_assert!(open_event(event.clone(), &other).is_err());
        // Moved to another window, it does not open.
        let mut moved = event;
        moved["id"] = Value::from("somewhere else");
        prop_assert!(open_event(moved, &keys()).is_err());
    }

    #[test]
    fn stored_items_are_proved(flip in any::<prop::sample::Index>(), bit in 0u8..8) {
        let item = sealed(&summary("a", "b"), &spec(FieldPolicy::Drop, FieldPolicy::Drop));
        let mut stored = item.store(&keys()).unwrap();
        prop_assert_eq!(&SealedItem::load(&stored, &keys()).unwrap(), &item);
        let at = flip.index(stored.len());
        stored[at] ^= 1 << bit;
        prop_assert!(SealedItem::load(&stored, &keys()).is_err());
    }
}

/// A number that is to leave encrypted does leave: its figures, as ciphertext, in either format, for the holder of the key.
#[test]
fn the_figures_of_an_encrypted_number_leave_as_ciphertext() {
    let mut spec = spec(FieldPolicy::Drop, FieldPolicy::Drop);
    spec.fields.push(field("mood", FieldKind::Number, FieldPolicy::Encrypt));
    let quantiles = Quantiles { p05: 1.0, p25: 1.0, p50: 2.0, p75: 3.0, p95: 3.0 };
    let name = FieldName::new("mood").unwrap();
    let (min, max, mean, std) = (1.0, 3.0, 2.640_173, 0.5);
    let figures = FieldSummary { name: name.clone(), unit: None, count: 4, min, max, mean, std, quantiles };
    let mut summary = summary("a", "b");
    summary.hidden_fields = vec![(name, Personal::new(figures))];
    for format in [SummaryFormat::Json, SummaryFormat::Arrow] {
        let item = seal_summary(&summary, &spec, &keys(), format).unwrap().into_item();
        let text = String::from_utf8(item.bytes().to_vec()).unwrap();
        assert!(!text.contains("2.640173") && !format!("{summary:?}").contains("2.640173"), "{text}");
        let event: Value = serde_json::from_str(&text).unwrap();
        assert!(event["data"]["sealed_fields"]["mood"]["ct"].is_string(), "{event}");
        let opened = open_event(event, &keys()).unwrap();
        assert_eq!(opened["data"]["sealed_fields"]["mood"]["mean"], 2.640_173);
        assert_eq!(opened["data"]["sealed_fields"]["mood"]["count"], 4);
    }
    let preview = preview_summary(&summary, &spec, &keys()).unwrap();
    assert_eq!(preview["sealed_fields"]["mood"], "encrypted");
    // A policy that says otherwise goes before what the summary holds.
    spec.fields[1].policy = FieldPolicy::Drop;
    assert!(preview_summary(&summary, &spec, &keys()).unwrap().get("sealed_fields").is_none());
}

#[test]
fn every_part_of_the_context_is_bound() {
    let here = Context { site: "s", item: "i", place: "/f" };
    let envelope = Envelope::seal(&keys(), here, &"value").unwrap();
    assert_eq!(envelope.open(&keys(), here).unwrap(), "value");
    for elsewhere in [
        Context { site: "x", ..here },
        Context { item: "x", ..here },
        Context { place: "/x", ..here },
        Context { site: "si", item: "", ..here },
    ] {
        assert!(envelope.open(&keys(), elsewhere).is_err());
    }
    assert_ne!(envelope, Envelope::seal(&keys(), here, &"value").unwrap(), "a salt of its own each time (I7)");
}

#[test]
fn equal_values_have_equal_pseudonyms_on_one_site() {
    let spec = spec(FieldPolicy::Pseudonym, FieldPolicy::Drop);
    let patient = |name: &str| preview_summary(&summary(name, ""), &spec, &keys()).unwrap()["key"]["patient"].clone();
    assert_eq!(patient("张三"), patient("张三"));
    assert_ne!(patient("张三"), patient("李四"));
}

/// A ward's definition and a finding of it as NEWS2 makes them: the score is the total over 20, a share is points, the most first.
fn ward(consciousness: FieldPolicy, points: &[(&str, f64)]) -> (StreamSpec, Finding) {
    let mut spec = spec(FieldPolicy::Pseudonym, FieldPolicy::Drop);
    spec.fields = vec![
        field("heart_rate", FieldKind::Number, FieldPolicy::Clear),
        field("consciousness", FieldKind::Text, consciousness),
        field("systolic", FieldKind::Number, FieldPolicy::Clear),
    ];
    let contribution = |(name, share): &(&str, f64)| Contribution {
        field: FieldName::new(name).unwrap(),
        seen: if *name == "consciousness" { *share / 3.0 } else { 130.0 },
        expected: None,
        band: None,
        share: *share,
        note: Some("scale 2".to_owned()),
    };
    let total: f64 = points.iter().map(|(_, share)| share).sum();
    let mut contributions: Vec<Contribution> = points.iter().map(contribution).collect();
    contributions.sort_by(|a, b| b.share.total_cmp(&a.share));
    let finding = Finding {
        window: summary("", "").window,
        model: ModelRef { name: ModelName::new("news2").unwrap(), version: "1".into() },
        label: "news2_medium".to_owned(),
        field: None,
        nth: Nth::FIRST,
        severity: Severity::Warning,
        since: Timestamp::from_secs(61),
        at: Timestamp::from_secs(62),
        rows: 1,
        score: total / 20.0,
        threshold: 0.25,
        contributions,
        text: format!("NEWS2 total {total} of 20"),
    };
    (spec, finding)
}

/// What leaves is the same whatever the hidden value is: it cannot be had by subtraction, from an order or from the words.
#[test]
fn a_hidden_contribution_cannot_be_worked_out_from_the_rest() {
    for policy in [FieldPolicy::Drop, FieldPolicy::Pseudonym, FieldPolicy::Encrypt] {
        let view = |points: f64| {
            let shares = [("systolic", 2.0), ("heart_rate", 1.0), ("consciousness", points)];
            let (spec, finding) = ward(policy, &shares);
            let mut whole = summary("", "");
            whole.findings = vec![finding.clone()];
            let alone = preview_finding(&finding, &spec).unwrap();
            (alone, preview_summary(&whole, &spec, &keys()).unwrap()["findings"].clone())
        };
        assert_eq!(view(0.0), view(3.0), "{policy:?}");
        let (alone, _) = view(3.0);
        assert_eq!((&alone["label"], &alone["severity"]), (&Value::from("news2_medium"), &Value::from("warning")));
        let fields: Vec<&Value> =
            alone["contributions"].as_array().unwrap().iter().map(|part| &part["field"]).collect();
        assert_eq!(fields, ["heart_rate", "consciousness", "systolic"], "in the order of the stream's fields");
        assert!(!alone.to_string().contains("share"), "{alone}");
    }
    // Where nothing is hidden all is said (I6).
    let (spec, finding) = ward(FieldPolicy::Clear, &[("systolic", 2.0), ("consciousness", 3.0)]);
    let view = preview_finding(&finding, &spec).unwrap();
    assert_eq!((&view["score"], &view["contributions"][0]["share"]), (&Value::from(0.25), &Value::from(3.0)));
}

#[test]
fn findings_on_two_fields_have_two_ids_that_tell_no_more_than_they_may() {
    let site = SiteId::new("ward-7").unwrap();
    let ids = |policy: FieldPolicy| {
        let (spec, mut finding) = ward(policy, &[("systolic", 2.0), ("consciousness", 3.0)]);
        let mut id = |field: &str| {
            finding.field = Some(FieldName::new(field).unwrap());
            let item = seal_finding(&finding, &key(), &spec, &site, &keys()).unwrap().into_item();
            let event: Value = serde_json::from_slice(item.bytes()).unwrap();
            assert_eq!(event["data"].get("field").is_some(), policy == FieldPolicy::Clear, "{policy:?}");
            item.subject().to_owned()
        };
        [id("systolic"), id("consciousness"), id("systolic")]
    };
    for policy in [FieldPolicy::Clear, FieldPolicy::Drop, FieldPolicy::Pseudonym, FieldPolicy::Encrypt] {
        let [systolic, consciousness, again] = ids(policy);
        assert_ne!(systolic, consciousness);
        assert_eq!(systolic, again);
        // Beside a hidden field nothing says which one it was seen on: that would tell which contributed most.
        assert_eq!(consciousness.ends_with(":consciousness"), policy == FieldPolicy::Clear, "{consciousness}");
        assert_eq!(systolic.ends_with(":systolic"), policy == FieldPolicy::Clear, "{systolic}");
    }
}

#[test]
fn the_holder_of_the_key_reads_the_score_of_an_encrypted_field() {
    let (spec, finding) = ward(FieldPolicy::Encrypt, &[("systolic", 2.0), ("consciousness", 3.0)]);
    let item = seal_finding(&finding, &key(), &spec, &SiteId::new("ward-7").unwrap(), &keys()).unwrap().into_item();
    let opened = open_event(serde_json::from_slice(item.bytes()).unwrap(), &keys()).unwrap();
    assert_eq!(opened["data"]["score"], Value::from(0.25));
    assert_eq!(opened["data"]["contributions"][0]["sealed"]["share"], Value::from(3.0));
    assert_eq!(opened["data"]["text"], Value::from(finding.text));
}

/// An alert says whose it is as the summary does: by the key's policy.
#[test]
fn the_key_of_an_alert_leaves_by_its_policy() {
    let (mut spec, finding) = ward(FieldPolicy::Clear, &[("systolic", 2.0), ("consciousness", 3.0)]);
    let mut whose = |policy: FieldPolicy| {
        spec.key = vec![KeyPartSpec { name: FieldName::new("patient").unwrap(), path: None, policy }];
        let site = SiteId::new("ward-7").unwrap();
        let item = seal_finding(&finding, &key(), &spec, &site, &keys()).unwrap().into_item();
        let event: Value = serde_json::from_slice(item.bytes()).unwrap();
        let opened = open_event(event.clone(), &keys()).unwrap();
        (event["data"]["key"].clone(), opened["data"]["key"].clone())
    };
    assert_eq!(whose(FieldPolicy::Clear).0["patient"], "patient 4711");
    assert_eq!(whose(FieldPolicy::Drop).0, serde_json::json!({}));
    let (sealed, opened) = whose(FieldPolicy::Encrypt);
    assert!(!sealed.to_string().contains("4711"), "{sealed}");
    assert_eq!(opened["patient"], "patient 4711");
    let (pseudonym, _) = whose(FieldPolicy::Pseudonym);
    assert!(pseudonym["patient"].is_string() && !pseudonym.to_string().contains("4711"), "{pseudonym}");
}
