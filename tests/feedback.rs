//! Operators' feedback from the outside: over HTTP and MQTT, by operators alone, and through `kill -9`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Gateway, PATIENCE, add_user, client, publish_all, write_site};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};

const STREAM: &str = "[[stream]]\nname = \"s\"\ntopic = \"s/{room}\"\nformat = \"number\"\nfields = { value = \"$\" }\n\
                      windows = [{ kind = \"count\", rows = 10 }]\nmodels = [\"robust-z\"]\n";
const SPIKES: &str = "nearside_findings_total{stream=\"s\",label=\"spike\",severity=\"warning\"}";
/// Above the threshold of the card and below one that is raised by a step.
const SMALL: f64 = 3.0;
/// Above any.
const LARGE: f64 = 20.0;

/// What an ordinary sensor says, then a value that is this much above it, then enough to see what it closed.
fn rows(above: f64) -> Vec<(String, Vec<u8>)> {
    let ordinary = |row: usize| 20.0 + (row % 10) as f64 / 10.0;
    let values = (0..70).map(ordinary).chain([20.4 + above]).chain((0..9).map(ordinary));
    values.map(|value| ("s/1".to_owned(), format!("{value:.3}").into_bytes())).collect()
}

/// Publishes rows with a spike and waits until all are judged; says how many findings there are now.
async fn spike(gateway: &Gateway, above: f64) -> f64 {
    let windows = "nearside_windows_closed_total{stream=\"s\",cause=\"full\"}";
    let before = gateway.metric(windows);
    publish_all("device", gateway.broker, rows(above)).await;
    gateway.wait_for(windows, before + 8.0);
    gateway.metric(SPIKES)
}

/// The newest finding's id.
fn newest(gateway: &Gateway) -> String {
    gateway.state()["findings"][0]["id"].as_str().unwrap().to_owned()
}

fn feedback(finding: &str, verdict: &str) -> String {
    format!(r#"{{"finding":"{finding}","verdict":"{verdict}","note":"the door stood open","ref":"r7"}}"#)
}

fn restart(folder: tempfile::TempDir) -> Gateway {
    let gateway = Gateway::start_in(folder, &[]).map_err(drop).expect("it starts");
    gateway.wait_for("nearside_ready{}", 1.0);
    gateway
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_over_http_holds_through_a_crash_and_a_stop() {
    let gateway = Gateway::start(STREAM);
    assert_eq!(spike(&gateway, SMALL).await, 1.0);
    let id = newest(&gateway);
    // Whose it is, as the key's policy lets it be shown: a pseudonym where nothing is said.
    let shown = gateway.state()["findings"][0]["key"]["room"].as_str().unwrap().to_owned();
    assert!(shown.starts_with("p_") && gateway.get("/").contains(&format!("room {}", &shown[..24])), "{shown}");
    let give = |gateway: &Gateway, body: &str| gateway.post("/api/v1/feedback", body, None);
    let (status, said) = give(&gateway, &feedback(&id, "false_alarm"));
    assert!(status == 200 && said.contains("\"applied\""), "{status} {said}");
    assert_eq!(
        gateway.metric("nearside_feedback_total{stream=\"s\",verdict=\"false_alarm\",outcome=\"applied\"}"),
        1.0
    );
    assert_eq!(gateway.state()["findings"][0]["feedback"], "false_alarm");
    assert!(gateway.get("/").contains("an operator says: false alarm"));
    assert_eq!(spike(&gateway, SMALL).await, 1.0, "it is no finding any more");

    // What cannot be heeded is said so.
    for (body, expected) in [
        (feedback(&id.replace("-robust-z", "-other"), "false_alarm"), 404),
        (feedback(&format!("{}{}", "0".repeat(32), &id[32..]), "false_alarm"), 404),
        (feedback("spike", "false_alarm"), 400),
        (feedback(&id, "nonsense"), 400),
        ("{}".to_owned(), 400),
        ("x".repeat(10_000), 413),
    ] {
        let (status, said) = give(&gateway, &body);
        assert_eq!(status, expected, "{body}: {said}");
    }
    assert!(gateway.get("/api/v1/feedback").starts_with("HTTP/1.1 405"));

    // It is in the journal alone, then in a checkpoint.
    let gateway = restart(gateway.kill());
    let said_of = |gateway: &Gateway| {
        let findings = gateway.state()["findings"].as_array().unwrap().clone();
        findings.into_iter().find(|finding| finding["id"] == id).map(|finding| finding["feedback"].clone())
    };
    assert_eq!(said_of(&gateway), Some("false_alarm".into()), "shown as it was");
    let before = gateway.metric(SPIKES);
    assert_eq!(spike(&gateway, SMALL).await, before, "raised by what the journal remembers");
    assert_eq!(spike(&gateway, LARGE).await, before + 1.0, "not silent");
    let text = gateway.state()["findings"][0]["text"].as_str().unwrap().to_owned();
    assert!(text.contains("feedback"), "{text}");
    let (code, folder) = gateway.terminate();
    assert_eq!(code, Some(0));
    let gateway = restart(folder);
    let shown = gateway.state()["findings"].clone();
    assert!(shown.as_array().unwrap().iter().any(|finding| finding["id"] == id), "still shown: {shown}");
    assert_eq!(said_of(&gateway), Some("false_alarm".into()));
    assert_eq!(spike(&gateway, SMALL).await, 0.0, "raised by what the checkpoint holds");
    assert_eq!(spike(&gateway, LARGE).await, 1.0);
    // What was given out before the stop can still be named.
    let (status, said) = give(&gateway, &feedback(&id, "confirmed"));
    assert!(status == 200 && said.contains("applied"), "{status} {said}");
    assert_eq!(gateway.terminate().0, Some(0));
}

/// Publishes feedback by MQTT and gives back the answer.
async fn give(client: &AsyncClient, events: &mut EventLoop, body: &str) -> serde_json::Value {
    client.publish("$nearside/feedback", QoS::AtLeastOnce, false, body).await.unwrap();
    let (mut answer, mut acknowledged) = (None, false);
    let both = async {
        while answer.is_none() || !acknowledged {
            match events.poll().await.expect("the connection holds") {
                Event::Incoming(Packet::Publish(publish)) => answer = serde_json::from_slice(&publish.payload).ok(),
                Event::Incoming(Packet::PubAck(_)) => acknowledged = true,
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, both).await.expect("it is acknowledged and answered");
    answer.unwrap()
}

async fn listen(client: &AsyncClient, events: &mut EventLoop) {
    client.subscribe("$nearside/feedback/answer", QoS::AtLeastOnce).await.unwrap();
    let subscribed =
        async { while !matches!(events.poll().await.expect("it connects"), Event::Incoming(Packet::SubAck(_))) {} };
    tokio::time::timeout(PATIENCE, subscribed).await.expect("it subscribes");
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_over_mqtt_is_answered_and_holds_through_a_crash() {
    let gateway = Gateway::start(STREAM);
    assert_eq!(spike(&gateway, SMALL).await, 1.0);
    let id = newest(&gateway);
    let (operator, mut events) = client("operator", gateway.broker);
    listen(&operator, &mut events).await;
    let answer = give(&operator, &mut events, &feedback(&id, "false_alarm")).await;
    assert_eq!((&answer["ref"], &answer["outcome"]), (&"r7".into(), &"applied".into()), "{answer}");
    assert_eq!(answer["finding"], id);
    let unknown = feedback(&id.replace("-robust-z", "-other"), "false_alarm");
    assert_eq!(give(&operator, &mut events, &unknown).await["outcome"], "unknown");
    assert_eq!(give(&operator, &mut events, "what?").await["outcome"], "malformed");
    let answer = give(&operator, &mut events, &feedback(&id, "perhaps")).await;
    assert_eq!((&answer["ref"], &answer["outcome"]), (&"r7".into(), &"malformed".into()), "{answer}");
    assert!(answer["text"].as_str().unwrap().contains("false_alarm"), "it says what to write: {answer}");
    assert_eq!(spike(&gateway, SMALL).await, 1.0);
    let gateway = restart(gateway.kill());
    let before = gateway.metric(SPIKES);
    assert_eq!(spike(&gateway, SMALL).await, before);
    assert_eq!(spike(&gateway, LARGE).await, before + 1.0);
    assert_eq!(gateway.terminate().0, Some(0));
}

fn connect(name: &str, gateway: &Gateway) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(name, gateway.broker.ip().to_string(), gateway.broker.port());
    options.set_credentials(name, "word");
    AsyncClient::new(options, 10)
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_are_users_feedback_is_an_operators() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users.toml");
    for (name, role) in [("dora", "device"), ("otto", "operator"), ("vera", "viewer")] {
        add_user(&users, name, role);
    }
    let site = write_site(folder.path(), STREAM);
    let text = std::fs::read_to_string(&site).unwrap().replace("[broker]\n", "[broker]\nusers = \"users.toml\"\n");
    std::fs::write(&site, text).unwrap();
    let gateway = Gateway::start_in(folder, &[]).map_err(drop).expect("it starts");
    let body = feedback(&format!("{}-{}-robust-z", "0".repeat(32), "0".repeat(16)), "false_alarm");
    let status = |user: Option<&str>| gateway.post("/api/v1/feedback", &body, user).0;
    assert_eq!(status(None), 401);
    assert_eq!(status(Some("otto:wrong")), 401);
    assert_eq!(status(Some("dora:word")), 403);
    assert_eq!(status(Some("vera:word")), 403);
    assert_eq!(status(Some("otto:word")), 404, "heard; there is no such finding");

    let (operator, mut events) = connect("otto", &gateway);
    listen(&operator, &mut events).await;
    assert_eq!(give(&operator, &mut events, &body).await["outcome"], "unknown");
    for name in ["dora", "vera"] {
        let (client, mut events) = connect(name, &gateway);
        client.publish("$nearside/feedback", QoS::AtLeastOnce, false, body.clone()).await.unwrap();
        // MQTT 3.1.1 has no way to refuse but to close.
        let ended = async {
            loop {
                match events.poll().await {
                    Err(_) => return,
                    Ok(Event::Incoming(Packet::PubAck(_))) => panic!("{name} was heard"),
                    Ok(_) => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.expect("it is refused");
    }
    // Answers are the gateway's alone.
    operator.publish("$nearside/feedback/answer", QoS::AtLeastOnce, false, "forged").await.unwrap();
    let ended = async { while events.poll().await.is_ok() {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("it is refused");
    assert_eq!(
        gateway.metric("nearside_feedback_total{stream=\"none\",verdict=\"false_alarm\",outcome=\"unknown\"}"),
        1.0
    );
    assert_eq!(gateway.terminate().0, Some(0));
}
