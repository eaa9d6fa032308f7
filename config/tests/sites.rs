//! The ready-made sites load, and what is wrong with a file is said where it is wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::path::Path;

use nearside_actors::Priority;
use nearside_config::{load, load_with_files, parse};
use nearside_models::device::DeviceChoice;

#[test]
fn the_ready_made_sites_load() {
    for (site, streams, rules) in [("smart-city.toml", 7, 5), ("medical-ward.toml", 6, 3)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(site);
        let config = load(&path).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((config.streams.len(), config.rules.len()), (streams, rules), "{site}");
    }
}

/// Who goes first follows from the models, unless the file says it.
#[test]
fn streams_of_patients_go_first() {
    let medical = |site: &str| {
        let config = load(&Path::new(env!("CARGO_MANIFEST_DIR")).join(site)).unwrap();
        let first = config.streams.iter().filter(|stream| stream.priority == Priority::Medical);
        first.map(|stream| stream.spec.name.to_string()).collect::<Vec<_>>()
    };
    for name in ["vitals", "ecg", "glucose"] {
        assert!(medical("medical-ward.toml").iter().any(|first| first == name), "{name}");
    }
    assert!(medical("smart-city.toml").is_empty());
    let stated = GOOD.replacen("models =", "priority = \"medical\"\nmodels =", 1);
    let config = parse(&stated, Path::new("site.toml")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.streams[0].priority, Priority::Medical);
}

/// A program built without it says how to have it; one built with it takes the site and looks for the GPU when it starts.
#[test]
fn a_gpu_needs_a_program_built_for_it() {
    let cuda = |device: &str| format!("{GOOD}[models]\ndevice = \"{device}\"\n");
    parse(&cuda("cpu"), Path::new("site.toml")).unwrap_or_else(|error| panic!("{error}"));
    match parse(&cuda("cuda:1"), Path::new("site.toml")) {
        Ok(_) => assert!(DeviceChoice::Cuda(1).check().is_ok()),
        Err(error) => assert!(error.to_string().contains("--features cuda"), "{error}"),
    }
    let error = parse(&cuda("gpu"), Path::new("site.toml")).err().unwrap().to_string();
    assert!(error.contains("\"cuda:N\""), "{error}");
}

const GOOD: &str = r#"
[site]
id = "s"
[[stream]]
name = "a"
topic = "x/{k}"
format = "json"
timestamp = "$.ts"
fields = { value = "$.value" }
windows = [{ kind = "tumbling", size = "10s" }]
models = ["robust-z"]
privacy = { k = "pseudonym" }
[[rule]]
name = "r"
when = "finding.score > 0.5"
publish = { topic = "x/{k}/alarm", payload = "x" }
"#;

fn error(from: &str, to: &str) -> String {
    let text = GOOD.replacen(from, to, 1);
    assert!(from.is_empty() || text != GOOD, "`{from}` is not in the text");
    match parse(&text, Path::new("site.toml")) {
        Ok(_) => panic!("`{to}` was accepted"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_good_site_is_good() {
    parse(GOOD, Path::new("site.toml")).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn mistakes_are_said_with_place_and_hint() {
    for (from, to, expected) in [
        (
            "topic = \"x/{k}\"",
            "topc = \"x/{k}\"",
            &["site.toml:6:1", "unknown field `topc`", "did you mean `topic`"][..],
        ),
        ("10s", "10 parsecs", &["site.toml:10:", "`10 parsecs` is not a duration", "250ms"]),
        ("size = \"10s\"", "rows = 3", &["tumbling window needs a `size`"]),
        ("robust-z", "robust-x", &["site.toml:11:11", "there is no model `robust-x`", "did you mean `robust-z`"]),
        ("[\"robust-z\"]", "[\"news2\"]", &["news2"]),
        (
            "\"$.value\" }\nwindows = [{ kind = \"tumbling\", size = \"10s\" }]\nmodels = [\"robust-z\"]",
            "{ path = \"$.value\", unit = \"Cel\" } }\nwindows = [{ kind = \"tumbling\", size = \"10s\" }]\nmodels = [\"ecg-rhythm\"]",
            &["site.toml:11:11", "a lead is a voltage"],
        ),
        ("{ k = ", "{ j = ", &["privacy names `j`", "did you mean `k`"]),
        ("{ k = ", "{ value = \"pseudonym\", k = ", &["site.toml:12:", "`value` is a number", "`encrypt` or `drop`"]),
        ("\"json\"", "\"csv\"", &["site.toml:7:", "`$.value` is no CSV column", "number the columns from 0"]),
        ("x/{k}\"\nformat", "x/{k\"\nformat", &["site.toml:6:9", "topic level"]),
        ("\"json\"", "\"jason\"", &["jason", "did you mean `json`"]),
        ("finding.score >", "finding.score >>", &["site.toml:15:1: `when`: ", "is not CEL"]),
        ("finding.score", "fnding.score", &["`fnding` is not known here"]),
        (
            "x/{k}/alarm",
            "x/{z}/alarm",
            &["site.toml:16:13: `publish.topic`: `{z}` is not a key part", "did you mean `{k}`?"],
        ),
        (
            "finding.score",
            "finding.scoer",
            &["site.toml:15:1: `when`: `finding` has no `scoer`; did you mean `score`?"],
        ),
        ("finding.score >", "has(finding.seen.vlaue) && 1.0 >", &["no field `vlaue`; did you mean `value`?"]),
        ("finding.score > 0.5", "finding.score", &["a condition is true or false, and this is a number"]),
        ("finding.score > 0.5", "finding.label", &["a condition is true or false, and this is a text"]),
        ("finding.score > 0.5", "finding.score + 1", &["a condition is true or false, and this is a calculation"]),
        ("finding.score > 0.5", "finding.score + 1 > 0.5", &["write `1.0` where it is `1`"]),
        ("finding.score > 0.5", "finding.label > 0.5", &["site.toml:15:1: `when`: "]),
        (
            "finding.score > 0.5",
            "finding.label == 'spikes'",
            &["no model gives the label `spikes`; did you mean `spike`?"],
        ),
        ("finding.score > 0.5", "finding.label in ['drop', 'dorp']", &["`dorp`; did you mean `drop`?"]),
        ("finding.score > 0.5", "finding.severity != 'warn'", &["there is no severity `warn`"]),
        ("finding.score > 0.5", "key.patient == 'x'", &["no key part `patient`; known: k"]),
        ("payload = \"x\"", "payload = '{\"t\": ${finding.txt}}'", &["`finding` has no `txt`; did you mean `text`?"]),
        ("payload = \"x\"", "payload = '${finding.label + 1}'", &["site.toml:16:36: `publish.payload`: "]),
        (
            "when = \"finding.score",
            "on = \"summary\"\nwhen = \"summary.fields.value.maen",
            &["`summary.fields.value` has no `maen`; did you mean `mean`?"],
        ),
        (
            "timestamp = \"$.ts\"",
            "timestamp = { path = \"$.ts\", unit = \"ms\" }",
            &["site.toml:8:", "did you mean `millis`?"],
        ),
        ("timestamp = \"$.ts\"", "timestamp = 5", &["site.toml:8:13", "a path such as \"$.ts\""]),
        ("\"10s\"", "60", &["site.toml:10:", "write \"60s\""]),
        ("[[rule]]", "[journal]\nquota = 5\n[[rule]]", &["site.toml:14:9", "write \"5B\""]),
        ("[[rule]]", "[broker]\nlisten = \"1883\"\n[[rule]]", &["site.toml:14:", "write 127.0.0.1:1883"]),
        ("[[rule]]", "[console]\nlisten = 8081\n[[rule]]", &["site.toml:14:", "write 127.0.0.1:8081"]),
        ("[[rule]]", "[broker]\nlisten = \"localhost:8080\"\n[[rule]]", &["site.toml:14:1", "are both 127.0.0.1:8080"]),
        ("\"$.value\"", "\"$.a[\"", &["`$.a[` is not a path"]),
        ("\"$.value\"", "3", &["field `value`"]),
        ("id = \"s\"", "id = \"a b\"", &["site.toml:3:", "is not a valid site id"]),
        ("[[rule]]", "[uplink]\nurl = \"ftp://x\"\n[[rule]]", &["mqtt://host:1883"]),
        ("[[rule]]", "[broker]\nmax_packet = \"10B\"\n[[rule]]", &["broker.max_packet"]),
        ("[[rule]]", "[uplink]\nurl = \"mqtt://x\"\nkeep_alive = \"500ms\"\n[[rule]]", &["uplink.keep_alive", "5s"]),
        ("[[rule]]", "[console]\nmax_requests = 0\n[[rule]]", &["`console.max_requests` must be above zero"]),
        ("windows = ", "idle = \"0s\"\nwindows = ", &["`idle` must be above zero"]),
        ("windows = ", "max_readings = 0\nwindows = ", &["site.toml:10:16", "`max_readings` must be above zero"]),
        ("windows = ", "max_payload = \"0B\"\nwindows = ", &["site.toml:10:15", "`max_payload` must be above zero"]),
        ("windows = ", "rate_hz = 0.0\nwindows = ", &["site.toml:10:11", "`rate_hz` must be above zero"]),
        (
            "[[rule]]",
            "[[stream]]\nname = \"b\"\ntopic = \"{y}/z\"\nformat = \"number\"\nfields = { v = \"$\" }\nwindows = [{ kind = \"tumbling\", size = \"1s\" }]\n[[rule]]",
            &["overlaps `x/{k}` of stream `a`"],
        ),
    ] {
        let text = error(from, to);
        for part in expected {
            assert!(text.contains(part), "`{to}`: expected `{part}` in:\n{text}");
        }
    }
}

#[test]
fn one_bracket_for_two_is_said_and_what_is_in_the_table_is_checked() {
    for name in ["stream", "rule"] {
        let said = error(&format!("[[{name}]]"), &format!("[{name}]"));
        assert!(said.contains(&format!("write `[[{name}]]`")) && !said.contains("sequence"), "{said}");
        assert_eq!(said.matches("site.toml:").count(), 1, "and nothing else:\n{said}");
    }
    let text = GOOD.replace("[[stream]]", "[stream]").replace("robust-z", "robust-x");
    let said = parse(&text, Path::new("site.toml")).unwrap_err().to_string();
    assert!(said.contains("write `[[stream]]`") && said.contains("did you mean `robust-z`?"), "{said}");
}

/// One look says all of it: what has the wrong type does not hide what is wrong besides.
#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let mut text = GOOD.to_owned();
    for (from, to) in [
        ("\"json\"", "\"jason\""),
        ("\"10s\"", "60"),
        ("robust-z", "robust-x"),
        ("\"pseudonym\"", "\"pseudonim\""),
        ("\"$.value\"", "{ path = \"$.value\", unti = \"K\" }"),
        ("topic = \"x", "topc = 1\ntopic = \"x"),
        ("[[rule]]", "[journal]\nquota = 5\n[[rule]]"),
    ] {
        assert!(text.contains(from));
        text = text.replacen(from, to, 1);
    }
    let said = parse(&text, Path::new("site.toml")).unwrap_err().to_string();
    for part in [
        "did you mean `json`?",
        "write \"60s\"",
        "did you mean `robust-z`?",
        "did you mean `pseudonym`?",
        "unknown field `unti`",
        "unknown field `topc`",
        "write \"5B\"",
    ] {
        assert_eq!(said.matches(part).count(), 1, "`{part}` in:\n{said}");
    }
    assert_eq!(said.matches("site.toml:").count(), 7, "and nothing else:\n{said}");
}

#[test]
fn files_that_are_named_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let site = folder.path().join("site.toml");
    let named = "[broker]\nusers = \"users.toml\"\n[broker.tls]\ncertificate = \"a.pem\"\nkey = \"a.key\"\n\
                 [uplink]\nurl = \"mqtt://x\"\nusername = \"u\"\npassword_file = \"secret\"\n[[rule]]";
    std::fs::write(&site, GOOD.replacen("[[rule]]", named, 1)).unwrap();
    let said = load_with_files(&site).unwrap_err().to_string();
    for (line, file) in [(14, "users.toml"), (16, "a.pem"), (17, "a.key"), (21, "secret")] {
        assert!(said.contains(&format!("site.toml:{line}:1:")) && said.contains(file), "{file} in:\n{said}");
        std::fs::write(folder.path().join(file), "x").unwrap();
    }
    load_with_files(&site).unwrap_or_else(|error| panic!("{error}"));
}

/// Values of the right type with which the gateway would start and then do nothing.
#[test]
fn bounds_that_cannot_work_are_said_at_their_key() {
    for (section, key) in [
        ("streams", "shards = 5_000"),
        ("streams", "shard_credit = 0"),
        ("streams", "stream_credit = 0"),
        ("streams", "max_streams = 0"),
        ("streams", "retire_after = \"0s\""),
        ("streams", "tick = \"1ms\""),
        ("inference", "threads = 0"),
        ("inference", "max_batch = 0"),
        ("inference", "max_wait = \"3s\""),
        ("inference", "deadline = \"0s\""),
        ("rollup", "every = \"0s\""),
        ("rollup", "max_windows = 0"),
    ] {
        let text = error("[[rule]]", &format!("[{section}]\n# A comment.\n{key}\n[[rule]]"));
        // Where the two have to fit, the fault is the one that is not set as the other wants it.
        let (name, place) = match key.split(' ').next().unwrap() {
            "deadline" => ("max_wait", "site.toml:13:"),
            name => (name, "site.toml:15:1: "),
        };
        assert!(text.contains(place) && text.contains(&format!("`{section}.{name}`")), "`{key}`:\n{text}");
    }
    let rule = error("when = ", "time_to_live = \"0s\"\nwhen = ");
    assert!(rule.contains("site.toml:15:1: `time_to_live` must be above zero"), "{rule}");
}
