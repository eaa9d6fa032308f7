//! What waits for the cloud and what could not be handled, seen and mended from outside.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use common::{Gateway, nearside, publish_all};
use nearside_deadletters::{DeadLetter, DeadLetters, DeadLettersConfig};
use nearside_privacy::KeyRing;
use nearside_schemas::{QoS, Timestamp};
use nearside_telemetry::Telemetry;

const SITE: &str = r#"
[[stream]]
name = "plain"
topic = "城市/{room}/温度"
format = "number"
fields = { value = "$" }
windows = [{ kind = "count", rows = 3 }]
[uplink]
url = "mqtt://127.0.0.1:1"
backoff_min = "50ms"
"#;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run(arguments: &[&str], site: &Path) -> Output {
    nearside(&[arguments, &[site.to_str().unwrap()]].concat())
}

fn lines(output: &Output) -> Vec<serde_json::Value> {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_listed_checked_and_saved_from_a_damaged_file() {
    let gateway = Gateway::start(SITE);
    let readings = (0..9).map(|n| ("城市/厨房/温度".to_owned(), vec![b'0' + n])).collect();
    publish_all("sensor", gateway.broker, readings).await;
    gateway.wait_for("nearside_outbox_items{class=\"summary\"}", 3.0);
    let site = gateway.site();
    let refused = run(&["outbox", "list"], &site);
    assert!(!refused.status.success() && text(&refused.stderr).contains("stop it first"), "{refused:?}");
    let (code, folder) = gateway.terminate();
    assert_eq!(code, Some(0));

    let before = lines(&run(&["outbox", "list", "--json"], &site));
    let summaries: Vec<_> = before.iter().filter(|item| item["class"] == "summary").collect();
    assert_eq!(summaries.len(), 3);
    assert!(summaries.iter().all(|item| item["state"] == "waiting" && item["whole"] == true), "{summaries:?}");
    let table = run(&["outbox", "list"], &site);
    assert!(text(&table.stdout).contains(summaries[0]["id"].as_str().unwrap()));
    assert!(!text(&table.stdout).contains("厨房"), "a list holds no key");
    assert!(run(&["outbox", "check"], &site).status.success());

    // The head of the file is gone: the gateway says what to do, and what it says helps.
    let file = folder.path().join("data/outbox.redb");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[..512].fill(0);
    std::fs::write(&file, bytes).unwrap();
    let refused = run(&["run"], &site);
    assert!(text(&refused.stderr).contains("nearside outbox repair"), "{refused:?}");
    let repaired = run(&["outbox", "repair"], &site);
    assert!(repaired.status.success(), "{repaired:?}");
    let ids = |items: &[serde_json::Value]| {
        let mut ids: Vec<String> = items.iter().map(|item| item["id"].to_string()).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&lines(&run(&["outbox", "list", "--json"], &site))), ids(&before));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_set_aside_are_listed_shown_and_sent_again() {
    let gateway = Gateway::start(SITE);
    let site = gateway.site();
    let data = gateway.folder.path().join("data");
    let keys = Arc::new(KeyRing::load(&data.join("site.key")).unwrap());
    let folder = data.join("deadletters");
    let area = DeadLetters::open(&folder, &DeadLettersConfig::default(), keys, &Telemetry::new()).unwrap();
    for payload in ["20.5", "21.5"] {
        area.put(letter(payload));
    }
    area.flush().await;

    let letters = lines(&run(&["deadletters", "list", "--json"], &site));
    assert_eq!(letters.len(), 2);
    assert_eq!((&letters[0]["topic"], &letters[0]["stream"]), (&"城市/厨房/温度".into(), &"plain".into()));
    let shown = nearside(&["deadletters", "show", site.to_str().unwrap(), "1"]);
    assert_eq!(lines(&shown)[0]["payload"], "21.5");
    let broker = gateway.broker.to_string();
    let replayed = run(&["deadletters", "replay", "--broker", &broker], &site);
    assert!(replayed.status.success(), "{replayed:?}");
    gateway.wait_for("nearside_readings_total{stream=\"plain\"}", 2.0);
    assert!(lines(&run(&["deadletters", "list", "--json"], &site)).is_empty(), "what was sent is gone");
    // Where nobody listens, nothing is thrown away.
    area.put(letter("22.5"));
    area.flush().await;
    let unreachable = run(&["deadletters", "replay", "--broker", "127.0.0.1:1"], &site);
    assert!(!unreachable.status.success() && text(&unreachable.stderr).contains("the others stay"), "{unreachable:?}");
    assert_eq!(lines(&run(&["deadletters", "list", "--json"], &site)).len(), 1);
    // Of what no stream claims the gateway keeps no second letter: the one there is stays.
    area.put(DeadLetter { topic: "nowhere".to_owned(), ..letter("23.5") });
    area.flush().await;
    let replayed = run(&["deadletters", "replay", "--broker", &broker], &site);
    assert!(text(&replayed.stdout).contains("1 letter left: no stream claims the topic"), "{replayed:?}");
    let left = lines(&run(&["deadletters", "list", "--json"], &site));
    assert_eq!((left.len(), &left[0]["topic"]), (1, &"nowhere".into()));
}

/// Three messages with the same reason and three faults: whoever looks is told which, in words that quote nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_letter_says_what_was_wrong() {
    let gateway = Gateway::start(
        "[[stream]]\nname = \"cars\"\ntopic = \"cars/{road}\"\nformat = \"json\"\nfields = { vehicles = \"$.vehicles\" }\n\
         windows = [{ kind = \"count\", rows = 3 }]\n",
    );
    let site = gateway.site();
    let payloads = [r#"{"vehicles":"SECRET"}"#, r#"{"Vehicles":5}"#, "not json"];
    let messages = payloads.iter().map(|payload| ("cars/a".to_owned(), payload.as_bytes().to_vec())).collect();
    publish_all("device", gateway.broker, messages).await;
    gateway.wait_for("nearside_deadletters_total{stream=\"cars\",reason=\"malformed\"}", 3.0);
    let (code, _folder) = gateway.terminate();
    assert_eq!(code, Some(0));
    let letters = lines(&run(&["deadletters", "list", "--json"], &site));
    let details: Vec<&str> = letters.iter().filter_map(|letter| letter["detail"].as_str()).collect();
    assert_eq!(
        details,
        [
            "$.vehicles: expected a number, found text",
            "$.vehicles: no field of the stream has a value",
            "the JSON is broken at line 1, column 2",
        ]
    );
    let table = text(&run(&["deadletters", "list"], &site).stdout);
    assert!(table.contains("cars/a: $.vehicles: expected a number") && !table.contains("SECRET"), "{table}");
}

fn letter(payload: &str) -> DeadLetter {
    DeadLetter {
        reason: "panicked".to_owned(),
        detail: String::new(),
        stage: "decode".to_owned(),
        stream: Some("plain".to_owned()),
        received: Timestamp::from_secs(7),
        topic: "城市/厨房/温度".to_owned(),
        qos: QoS::AtLeastOnce,
        retain: false,
        payload: payload.as_bytes().to_vec().into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_is_repaired_while_no_gateway_runs() {
    let gateway = Gateway::start(SITE);
    for n in 0..4u8 {
        publish_all("sensor", gateway.broker, vec![("城市/厨房/温度".to_owned(), vec![b'0' + n])]).await;
    }
    let site = gateway.site();
    let refused = run(&["journal", "repair"], &site);
    assert!(!refused.status.success() && text(&refused.stderr).contains("stop it first"), "{refused:?}");
    let (code, folder) = gateway.terminate();
    assert_eq!(code, Some(0));
    let journal = folder.path().join("data/journal");
    let segment = std::fs::read_dir(&journal).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment.filter(|path| path.extension().is_some_and(|end| end == "nsj")).max().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    // In the sealed part of the first frame.
    bytes[32 + 24 + 4] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();

    assert_eq!(run(&["journal", "check"], &site).status.code(), Some(1));
    let said = run(&["journal", "repair", "--dry-run"], &site);
    assert!(said.status.success() && text(&said.stdout).contains("will mark numbers"), "{said:?}");
    assert_eq!(std::fs::read(&segment).unwrap(), bytes, "only said");
    let done = run(&["journal", "repair"], &site);
    assert!(done.status.success() && text(&done.stdout).contains("done; the damaged file is"), "{done:?}");
    assert_eq!(std::fs::read(journal.join("damaged").join(segment.file_name().unwrap())).unwrap(), bytes);
    let whole = run(&["journal", "check"], &site);
    assert!(whole.status.success(), "{whole:?}");
    let again = run(&["journal", "repair"], &site);
    assert!(text(&again.stdout).contains("nothing to do"), "{again:?}");
    let gateway = Gateway::start_in(folder, &[]).unwrap();
    gateway.wait_for("nearside_ready{}", 1.0);
    assert_eq!(gateway.terminate().0, Some(0));
}
