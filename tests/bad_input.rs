//! Bad input that needs a socket or a file system of its own: each is said or counted, and nothing else is disturbed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use common::{Gateway, PATIENCE, PLAIN_STREAM, nearside, publish_all, write_site};

/// A connection that has sent CONNECT (MQTT 3.1.1 section 3.1) and has had its CONNACK.
fn connected(gateway: &Gateway, id: &str) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.broker).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut connect = b"\x00\x04MQTT\x04\x02\x00\x3C\x00".to_vec();
    connect.push(id.len() as u8);
    connect.extend(id.as_bytes());
    stream.write_all(&[&[0x10, connect.len() as u8], &connect[..]].concat()).unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0]);
    stream
}

/// MQTT 3.1.1 section 1.5.3: a server closes the connection on text that is not UTF-8.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_no_text_costs_its_own_connection() {
    let gateway = Gateway::start(PLAIN_STREAM);
    for (n, topic) in [&b"plain/\xFF\xFE"[..], b"plain/\xC0\x80", b"plain/\xED\xA0\x80"].into_iter().enumerate() {
        let mut stream = connected(&gateway, &format!("broken-{n}"));
        // QoS 1, packet id 1, payload `1`.
        let body = [&[0, topic.len() as u8], topic, &[0, 1], b"1"].concat();
        stream.write_all(&[&[0x32, body.len() as u8], &body[..]].concat()).unwrap();
        let mut rest = Vec::new();
        // Closed with or without a reset: no acknowledgement either way.
        let _ = stream.read_to_end(&mut rest);
        assert_eq!(rest, b"", "{topic:?} is not acknowledged");
    }
    gateway.wait_for("nearside_broker_protocol_errors_total{reason=\"malformed\"}", 3.0);
    publish_all("good", gateway.broker, (0..3).map(|n| ("plain/a".to_owned(), vec![b'0' + n])).collect()).await;
    gateway.wait_for("nearside_readings_total{stream=\"plain\"}", 3.0);
    assert_eq!(gateway.metric("nearside_readings_total{stream=\"plain\"}"), 3.0);
    assert_eq!(gateway.terminate().0, Some(0));
}

/// Runs a site with this data folder to its end.
fn run_with_data_folder(data: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let site = write_site(folder.path(), PLAIN_STREAM);
    let text = std::fs::read_to_string(&site).unwrap();
    std::fs::write(&site, text.replacen("[broker]", &format!("data_dir = \"{data}\"\n[broker]"), 1)).unwrap();
    let output = nearside(&["run", site.to_str().unwrap()]);
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// What is on disk is sealed with the site's key: without it, or with another, a start would take everything for damaged and free it.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_its_key_does_not_start_and_touches_nothing() {
    let gateway = Gateway::start(PLAIN_STREAM);
    publish_all("good", gateway.broker, (0..2).map(|n| ("plain/a".to_owned(), vec![b'0' + n])).collect()).await;
    let folder = gateway.kill();
    let data = folder.path().join("data");
    let (key, kept) = (data.join("site.key"), data.join("kept.key"));
    let segments = || {
        let files = std::fs::read_dir(data.join("journal")).unwrap().map(Result::unwrap);
        let mut sizes: Vec<_> = files.map(|file| (file.file_name(), file.metadata().unwrap().len())).collect();
        sizes.sort();
        sizes
    };
    let before = segments();
    std::fs::rename(&key, &kept).unwrap();
    let output = nearside(&["run", folder.path().join("site.toml").to_str().unwrap()]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && text.contains("restore it from your backup"), "{text}");
    assert!(!key.exists() && segments() == before, "nothing was made and nothing freed");
    std::fs::rename(&kept, &key).unwrap();
    let gateway = Gateway::start_in(folder, &[]).expect("with its key it runs");
    gateway.wait_for("nearside_readings_total{stream=\"plain\"}", 2.0);
    assert_eq!(gateway.terminate().0, Some(0));
}

/// A folder in which nothing can be made. Root may write in any folder of mode 0555, so for root it is /proc, in which the kernel
/// lets nobody make anything.
fn read_only() -> (Option<tempfile::TempDir>, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o555)).unwrap();
    if std::fs::create_dir(folder.path().join("probe")).is_ok() {
        println!("this user may write everywhere: using /proc");
        return (None, PathBuf::from("/proc"));
    }
    let path = folder.path().to_owned();
    (Some(folder), path)
}

#[test]
fn a_data_folder_without_permission_is_said_with_a_hint() {
    let (_kept, folder) = read_only();
    let (code, text) = run_with_data_folder(folder.join("data").to_str().unwrap());
    assert!(code == Some(1) && text.contains("data folder") && text.contains("permissions"), "{code:?}: {text}");
    // One that is there and cannot be written in.
    let (code, text) = run_with_data_folder(folder.to_str().unwrap());
    assert!(code == Some(1) && text.contains("check the folder's permissions"), "{code:?}: {text}");
}

/// The load generator speaks for every profile, as fast as the gateway acknowledges.
#[test]
fn every_profile_can_be_simulated_at_full_speed() {
    let gateway = Gateway::start(PLAIN_STREAM);
    let broker = format!("mqtt://{}", gateway.broker);
    for profile in ["city", "ward", "load"] {
        let fixed = ["simulate", "--profile", profile, "--rate", "max", "--seconds", "1", "--streams", "30"];
        let output = nearside(&[&fixed[..], &["--broker", &broker, "--seed", "3"]].concat());
        assert!(output.status.success(), "{profile}: {output:?}");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(report["sent"].as_u64().unwrap() > 0, "{profile}: {report}");
        assert_eq!(report["sent"], report["acknowledged"], "{profile}: {report}");
    }
    // Devices would try for ever.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody = format!("mqtt://127.0.0.1:{port}");
    let output = nearside(&["simulate", "--profile", "city", "--seconds", "1", "--broker", &nobody]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && text.contains("cannot be reached"), "{text}");
    let output = nearside(&["simulate", "--profile", "city", "--rate", "fast", "--broker", &broker]);
    assert!(output.status.code() == Some(2), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("or `max`"));
}

/// `max_streams` bounds the streams with state, over a restart too.
#[tokio::test(flavor = "multi_thread")]
async fn streams_past_the_bound_are_counted_and_those_that_are_known_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let limits = "[streams]\nmax_streams = 2\n";
    write_site(folder.path(), &format!("{PLAIN_STREAM}{limits}"));
    let gateway = Gateway::start_in(folder, &[]).unwrap();
    let to = |room: &str, count: u8| (0..count).map(|n| (format!("plain/{room}"), vec![b'0' + n])).collect::<Vec<_>>();
    publish_all("a", gateway.broker, [to("a", 3), to("b", 3)].concat()).await;
    let overflow = "nearside_readings_set_aside_total{stream=\"plain\",reason=\"overflow\"}";
    publish_all("a", gateway.broker, to("c", 1)).await;
    gateway.wait_for(overflow, 1.0);
    let (code, folder) = gateway.terminate();
    assert_eq!(code, Some(0));
    let gateway = Gateway::start_in(folder, &[]).unwrap();
    gateway.wait_for("nearside_ready{}", 1.0);
    publish_all("a", gateway.broker, [to("c", 1), to("a", 3)].concat()).await;
    gateway.wait_for("nearside_windows_closed_total{stream=\"plain\",cause=\"full\"}", 1.0);
    // The start may have taken in the first one again, too.
    assert!(gateway.metric(overflow) >= 1.0, "{}", gateway.metric(overflow));
    assert_eq!(gateway.terminate().0, Some(0));
}
