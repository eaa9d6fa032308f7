//! One look says everything that is wrong, each thing at its own key, and what comes of another mistake after that mistake.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::path::Path;

use nearside_config::{load, load_with_files, parse};

const SITE: &str = r#"[site]
id = "s"
"#;

const STREAM: &str = r#"
[[stream]]
name = "a"
topic = "x/{bed}"
format = "json"
fields = { value = "$.value" }
windows = [{ kind = "tumbling", size = "10s" }]
models = ["robust-z"]
"#;

const RULE: &str = r#"
[[rule]]
name = "r"
when = "finding.score > 0.5"
publish = { topic = "x/{bed}/alarm", payload = "x" }
"#;

/// What is said of a site, a line for each problem: its place and its text.
fn said(text: &str) -> Vec<String> {
    match parse(text, Path::new("site.toml")) {
        Ok(_) => Vec::new(),
        Err(error) => {
            error.to_string().lines().filter(|line| line.starts_with("site.toml:")).map(str::to_owned).collect()
        }
    }
}

/// Whether what is said holds these parts, each in a problem of its own, in this order, and nothing else.
fn assert_said(text: &str, expected: &[&str]) {
    let said = said(text);
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.contains(expected), "expected `{expected}` in `{said}`");
    }
}

#[test]
fn what_is_good_is_good() {
    assert_said(&format!("{SITE}{STREAM}{RULE}"), &[]);
}

/// Each wrong value of a section, and of every section, at its own key.
#[test]
fn each_wrong_value_of_a_section_is_said() {
    let sections = r#"
[broker]
max_connections = 0
inflight = 0
max_packet = "10B"
[journal]
segment = "1KiB"
queue = "1KiB"
[outbox]
quota = "1B"
queue = 0
[deadletters]
most = 0
queue = 0
[uplink]
url = "ftp://x"
topic = "a/#"
keep_alive = "1s"
inflight = 0
[streams]
shard_credit = 0
tick = "1ms"
[inference]
threads = 0
max_batch = 0
[models.online]
rows = 1
epochs = 0
[rollup]
every = "0s"
max_windows = 0
[console]
max_requests = 0
"#;
    let keys = [
        "site.toml:5:1: `broker.max_connections`",
        "site.toml:6:1: `broker.inflight`",
        "site.toml:7:1: `broker.max_packet`",
        "site.toml:9:1: `journal.segment`",
        "site.toml:10:1: `journal.queue`",
        "site.toml:12:1: `outbox.quota`",
        "site.toml:13:1: `outbox.queue`",
        "site.toml:15:1: `deadletters.most`",
        "site.toml:16:1: `deadletters.queue`",
        "site.toml:18:1: `uplink.url` holds `ftp://x`",
        "site.toml:19:1: `uplink.topic`",
        "site.toml:20:1: `uplink.keep_alive`",
        "site.toml:21:1: `uplink.inflight`",
        "site.toml:23:1: `streams.shard_credit`",
        "site.toml:24:1: `streams.tick`",
        "site.toml:26:1: `inference.threads`",
        "site.toml:27:1: `inference.max_batch`",
        "site.toml:29:1: `models.online.rows`",
        "`models.online.least_rows`",
        "site.toml:30:1: `models.online.epochs`",
        "site.toml:32:1: `rollup.every`",
        "site.toml:33:1: `rollup.max_windows`",
        "site.toml:35:1: `console.max_requests`",
    ];
    let said = said(&format!("{SITE}{sections}{STREAM}{RULE}"));
    assert_eq!(said.len(), keys.len(), "{said:#?}");
    for key in keys {
        assert!(said.iter().any(|line| line.contains(key)), "`{key}` in {said:#?}");
    }
}

/// Each wrong key of a stream's bounds, of a window and of a rule, at its own line.
#[test]
fn each_wrong_key_of_a_stream_and_of_a_rule_is_said() {
    let stream = STREAM.replace("size = \"10s\"", "gap = \"1s\", rows = 3");
    let rule = RULE
        .replace("finding.score", "finding.scoer")
        .replace("{bed}", "{bedd}")
        .replace("\"x\" }", "\"${finding.txt}\", qos = 2 }\ntime_to_live = \"0s\"\nstreams = [\"b\"]");
    assert_said(
        &format!("{SITE}{stream}max_rows = 0\nidle = \"0s\"\n"),
        &[
            "site.toml:9:12: a tumbling window needs a `size`",
            "site.toml:9:12: a tumbling window has no `gap`",
            "site.toml:9:12: a tumbling window has no `rows`",
            "site.toml:11:1: `max_rows` must be above zero",
            "site.toml:12:1: `idle` must be above zero",
        ],
    );
    assert_said(
        &format!("{SITE}{STREAM}{rule}"),
        &[
            "site.toml:15:67: `publish.qos`",
            "site.toml:16:1: `time_to_live`",
            "site.toml:17:1: `streams`: there is no stream `b`",
            "site.toml:14:1: `when`: `finding` has no `scoer`; did you mean `score`?",
            "site.toml:15:13: `publish.topic`: `{bedd}` is not a key part of any stream; did you mean `{bed}`?",
            "site.toml:15:39: `publish.payload`: `finding` has no `txt`; did you mean `text`?",
        ],
    );
    assert_said(
        &format!("{SITE}{STREAM}{}", rule.replace("[\"b\"]", "[]")),
        &[
            "site.toml:14:1: `when`: `finding` has no `scoer`; did you mean `score`?",
            "site.toml:15:13: `publish.topic`: `{bedd}` is not a key part of the streams of this rule; did you mean `{bed}`?",
            "site.toml:15:39: `publish.payload`: `finding` has no `txt`; did you mean `text`?",
            "site.toml:15:67: `publish.qos`",
            "site.toml:16:1: `time_to_live`",
        ],
    );
}

/// A rule whose condition or streams cannot be read is checked as far as it goes, and a condition says all its wrong names.
#[test]
fn a_wrong_condition_or_name_of_a_stream_hides_nothing_of_a_rule() {
    let wrong_topic = "site.toml:15:13: `publish.topic`: `{bedd}` is not a key part";
    let rule = RULE.replace("{bed}", "{bedd}");
    assert_said(
        &format!("{SITE}{STREAM}{}", rule.replace("\"finding.score > 0.5\"", "5")),
        &["site.toml:14:8: invalid type: integer `5`", wrong_topic],
    );
    assert_said(
        &format!("{SITE}{STREAM}{rule}stream = \"a\"\n"),
        &["site.toml:16:1: unknown field `stream`, expected", wrong_topic],
    );
    let names = "finding.scoer > 0.5 && finding.seen.valeu > 1.0 || finding.label in ['spikes', 'dorp']";
    assert_said(
        &format!("{SITE}{STREAM}{}", RULE.replace("finding.score > 0.5", names)),
        &["did you mean `score`?", "did you mean `value`?", "did you mean `spike`?", "did you mean `drop`?"],
    );
    // Another stream has what this one may have meant: that is no mistake yet.
    let other = STREAM.replace("\"a\"", "\"b\"").replace("x/{bed}", "y/{ward}").replace("value =", "pulse =");
    let rule = RULE.replace("finding.score > 0.5", "finding.seen.pulse > 1.0").replace("{bed}", "{ward}");
    assert_said(
        &format!("{SITE}{STREAM}{other}{rule}streams = [\"c\"]\n"),
        &["site.toml:24:1: `streams`: there is no stream `c`"],
    );
}

/// A command to a topic of the gateway's own could say anything in its name.
#[test]
fn a_rule_publishes_nothing_in_the_gateways_name() {
    for topic in ["$SYS/broker/version", "$nearside/feedback"] {
        assert_said(
            &format!("{SITE}{STREAM}{}", RULE.replace("x/{bed}/alarm", topic)),
            &["site.toml:15:13: `publish.topic`: a command goes to devices"],
        );
    }
}

/// A section that there is not is said once, however often it stands there.
#[test]
fn a_misspelt_section_is_said_once() {
    let text = format!("{SITE}{STREAM}{}", RULE.replace("[[rule]]", "[[rules]]"));
    assert_said(&text, &["site.toml:12:3: unknown field `rules`, expected"]);
    assert_said(
        &format!("{text}{}", RULE.replace("[[rule]]", "[[rules]]")),
        &["site.toml:12:3: unknown field `rules`"],
    );
}

/// Each path at its own line, all of them at once.
#[test]
fn a_wrong_path_is_said_where_it_stands() {
    let stream =
        STREAM.replace("$.value", "$.a[") + "timestamp = \"$..ts\"\nsequence = \"$[x]\"\nkey = { k = \"$.\" }\n";
    assert_said(
        &format!("{SITE}{stream}"),
        &[
            "site.toml:8:12: `fields.value`: `$.a[` is not a path",
            "site.toml:11:1: `timestamp`: `$..ts` is not a path",
            "site.toml:12:1: `sequence`: `$[x]` is not a path",
            "site.toml:13:9: `key.k`: `$.` is not a path",
        ],
    );
    let full = STREAM.to_owned() + "timestamp = { unit = \"millis\", path = \"$[x]\" }\n";
    assert_said(&format!("{SITE}{full}"), &["site.toml:11:32: `timestamp.path`: `$[x]` is not a path"]);
}

/// Promise I2: what is said of a file may be in a log, and holds no password of it, whatever is wrong.
#[test]
fn no_password_is_said() {
    for uplink in [
        "url = \"mqtt://user:hunter2@host:1883\"",
        "url = \"user:hunter2@host\"",
        "url = \"mqtt://a\"\nfallback = [\"mqtt://b\", \"mqtt://user:hunter2@c\"]",
        "url = \"mqtt://a\"\npassword = \"hunter2\"",
        "url = \"mqtt://user:hunter2@host",
        "url = mqtt://user:hunter2@host",
        "url = [\"mqtt://user:hunter2@host\"]",
    ] {
        let text = format!("{SITE}{STREAM}[uplink]\n{uplink}\n");
        let error = parse(&text, Path::new("site.toml")).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
    let text = format!("uplink = \"mqtt://user:hunter2@host\"\n{SITE}{STREAM}");
    let said = parse(&text, Path::new("site.toml")).unwrap_err().to_string();
    assert!(said.contains("mqtt://…@host") && !said.contains("hunter2"), "{said}");
    let text = format!("{SITE}{STREAM}[uplink]\nurl = \"mqtt://user:hunter2@host:1883\"\n");
    let said = parse(&text, Path::new("site.toml")).unwrap_err().to_string();
    assert!(said.contains("`password_file`"), "{said}");
    let mark = format!("  12 | url = \"mqtt://…@host:1883\"\n{}{}", " ".repeat(7), "^".repeat(26));
    assert!(said.ends_with(&mark), "{said}");
}

/// A label that another model gives is no mistake that keeps the gateway from starting, but such a rule never fires.
#[test]
fn a_label_that_the_models_of_a_rule_do_not_give_is_odd() {
    let path = Path::new("site.toml");
    let odd = |rule: &str| parse(&format!("{SITE}{STREAM}{rule}"), path).unwrap().oddities(path);
    assert!(odd(RULE).is_empty());
    let rule = RULE.replace("finding.score > 0.5", "finding.label in ['spike', 'missing'] || finding.label == 'gas'");
    let said = odd(&rule);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("rule `r`") && said[0].contains("`gas`"), "{said:?}");
    assert!(said[1].contains("`missing`") && said[1].ends_with("they give drop, flat_line, level_shift, spike"));
    for site in ["smart-city.toml", "medical-ward.toml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(site);
        assert_eq!(load(&path).unwrap().oddities(&path), Vec::<String>::new(), "{site}");
    }
}

/// A text model of the site's own gives labels that no model that ships has, and its name is one that findings carry.
#[test]
fn labels_of_a_text_model_of_the_sites_own_are_no_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("site.toml");
    let mut card = nearside_models::catalog::card("text-triage", None).unwrap();
    card.method = Some(card.name.to_string());
    card.name = nearside_schemas::ModelName::new("bank").unwrap();
    card.outputs = vec!["labels: lost card, fee".to_owned()];
    nearside_models::artefact::write(&folder.path().join("models/bank"), &card, b"not looked at").unwrap();
    let stream = STREAM.replace("\"$.value\"", "{ path = \"$.value\", kind = \"text\" }").replace("robust-z", "bank");
    let site = |when: &str| {
        let rule = RULE.replace("finding.score > 0.5", when);
        parse(&format!("{SITE}[models]\nfolder = \"models\"\n{stream}{rule}"), &path)
    };
    let good =
        site("finding.label == 'lost_card' && finding.model == 'bank'").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(good.oddities(&path), Vec::<String>::new());
    let odd = site("finding.label == 'lost_crad'").unwrap_or_else(|error| panic!("{error}")).oddities(&path);
    assert!(odd.len() == 1 && odd[0].ends_with("they give fee, lost_card"), "{odd:?}");
    assert!(site("finding.model == 'bnak'").is_err());
}

/// What is missing hides nothing of what is there.
#[test]
fn each_missing_key_is_said() {
    let stream = "[[stream]]\nfields = { value = \"$.value\" }\nmax_readings = 0\nmodels = [\"robust-x\"]\n";
    assert_said(
        &format!("{SITE}{stream}[[rule]]\ncooldown = 5\n{}", STREAM.replace("10s", "0s")),
        &[
            "site.toml:3:1: missing field `name`",
            "site.toml:3:1: missing field `topic`",
            "site.toml:3:1: missing field `format`",
            "site.toml:3:1: missing field `windows`",
            "site.toml:5:16: `max_readings` must be above zero",
            "site.toml:6:11: there is no model `robust-x`",
            "site.toml:7:1: missing field `name`",
            "site.toml:7:1: missing field `when`",
            "site.toml:7:1: missing field `publish`",
            "site.toml:8:12: a duration has a unit and stands in quotes: write \"5s\"",
            "site.toml:15:12: a tumbling window needs a `size` above zero",
        ],
    );
}

/// A wrong value in one place keeps nothing of another from being checked.
#[test]
fn what_is_wrong_in_one_place_hides_nothing_of_another() {
    assert_said(
        &format!("{SITE}[journal]\nquota = 5\n{STREAM}{}", RULE.replace("finding.score", "finding.scoer")),
        &["write \"5B\"", "did you mean `score`?"],
    );
    assert_said(&format!("{SITE}[journal\nquota = \"1B\n[[stream]]\nname =\n"), &["site.toml:3:", "site.toml:6:"]);
}

/// A file that is named and not there is said beside all else.
#[test]
fn files_that_are_not_there_are_said_beside_wrong_values() {
    let folder = tempfile::tempdir().unwrap();
    let site = folder.path().join("site.toml");
    std::fs::write(&site, format!("{SITE}[broker]\ninflight = 0\nusers = \"users.toml\"\n{STREAM}")).unwrap();
    let said = load_with_files(&site).unwrap_err().to_string();
    assert!(said.contains("site.toml:4:1: `broker.inflight`"), "{said}");
    assert!(said.contains("site.toml:5:1: `broker.users`") && said.contains("`nearside users add` makes it"), "{said}");
}

/// Two streams of one topic make a rule's placeholder unknown in one of them: the cause is said first, wherever it stands.
#[test]
fn a_cause_is_said_before_what_comes_of_it() {
    let other = STREAM.replace("\"a\"", "\"b\"").replace("{bed}", "{patient}");
    assert_said(
        &format!("{SITE}{STREAM}{RULE}{other}"),
        &[
            "site.toml:19:9: topic `x/{patient}` overlaps `x/{bed}` of stream `a`",
            "site.toml:15:13: `publish.topic`: `{bed}`",
        ],
    );
}

#[test]
fn a_file_that_is_not_utf8_names_line_and_byte() {
    let folder = tempfile::tempdir().unwrap();
    let site = folder.path().join("site.toml");
    let mut bytes = SITE.as_bytes().to_vec();
    bytes.extend(b"# R\xE9animation\n");
    std::fs::write(&site, bytes).unwrap();
    let said = load_with_files(&site).unwrap_err().to_string();
    assert!(said.contains("site.toml:3:4: byte 0xE9 (line 3, byte 19 of the file) is not UTF-8"), "{said}");
    assert!(said.contains("3 | # R\u{FFFD}animation"), "{said}");
}
