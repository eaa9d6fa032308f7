//! Clients that others wrote against a gateway's front door: mosquitto's, paho-mqtt, `mqtt` of npm, rumqttc; MQTT 3.1.1 and 5, over TCP,
//! TLS and WebSocket where the client can. A client that the machine lacks is skipped with a word.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Gateway, PATIENCE, PLAIN_STREAM, nearside, write_site};
use rumqttc::{TlsConfiguration, Transport};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// TLS beside the plain port. No stream takes what is published here: what is tested is the front door.
const TLS: &str = r#"
[broker.tls]
listen = "127.0.0.1:0"
certificate = "certs/server.pem"
key = "certs/server.key"
"#;

struct Served {
    gateway: Gateway,
    port: String,
    tls_port: String,
    authority: PathBuf,
}

fn serve() -> Served {
    let folder = tempfile::tempdir().unwrap();
    write_site(folder.path(), &format!("{TLS}{PLAIN_STREAM}"));
    let certs = folder.path().join("certs");
    let made = nearside(&["certs", "init", "--out", certs.to_str().unwrap()]);
    assert!(made.status.success(), "{made:?}");
    let gateway = Gateway::start_in(folder, &[]).expect("the gateway runs");
    let port = gateway.broker.port().to_string();
    let tls_port = gateway.broker_tls.expect("TLS is served").port().to_string();
    let authority = gateway.folder.path().join("certs/ca.pem");
    Served { gateway, port, tls_port, authority }
}

/// Says what is skipped where a client is not there.
fn has(client: &str, found: bool) -> bool {
    if !found {
        println!("skipped: there is no {client} here");
    }
    found
}

/// Runs a client to its end, which must be a good one, and gives what it printed.
fn run(command: &mut Command) -> String {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let end = Instant::now() + 3 * PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    assert!(status.success(), "{status}: {}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(name)
}

#[test]
fn mosquitto_clients() {
    // Its help ends with 1.
    if !has("mosquitto_pub", Command::new("mosquitto_pub").arg("--help").output().is_ok()) {
        return;
    }
    let served = serve();
    for version in ["mqttv311", "mqttv5"] {
        for tls in [false, true] {
            mosquitto(&served, version, tls);
        }
    }
    assert_eq!(served.gateway.terminate().0, Some(0));
}

fn mosquitto(served: &Served, version: &str, tls: bool) {
    let base = format!("mosquitto/{version}/{tls}");
    let client = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(["-V", version, "-p", if tls { &served.tls_port } else { &served.port }]);
        if tls {
            command.args(["-h", "localhost", "--cafile"]).arg(&served.authority);
        } else {
            command.args(["-h", "127.0.0.1"]);
        }
        run(command.args(arguments))
    };
    // A retained message comes with its flag.
    let kept = format!("{base}/kept");
    client("mosquitto_pub", &["-t", &kept, "-m", "kept", "-q", "1", "-r"]);
    assert_eq!(
        client("mosquitto_sub", &["-t", &kept, "-C", "1", "-W", "20", "-F", "%r %q %p", "-q", "1"]),
        "1 1 kept\n"
    );
    // A session takes what comes while its client is away: QoS 1 and 2 in their order.
    let (live, shared) = (format!("{base}/live"), format!("$share/g/{base}/live"));
    for (name, filter) in [("s", &live), ("shared", &shared)] {
        let id = format!("{base}/{name}");
        let mut session = vec!["-c", "-i", &id, "-q", "2", "-t", filter];
        if version == "mqttv5" {
            session.extend(["-x", "60"]);
        }
        client("mosquitto_sub", &[&session[..], &["-E"]].concat());
        for qos in ["1", "2"] {
            let mut publish = vec!["-t", &live, "-m", "值", "-q", qos];
            if version == "mqttv5" {
                publish.extend([
                    "-D",
                    "publish",
                    "user-property",
                    "k",
                    "v",
                    "-D",
                    "publish",
                    "content-type",
                    "text/plain",
                ]);
            }
            client("mosquitto_pub", &publish);
        }
        let format = if version == "mqttv5" { "%q %p %P %C" } else { "%q %p" };
        let got = client("mosquitto_sub", &[&session[..], &["-C", "2", "-W", "20", "-F", format]].concat());
        let behind = if version == "mqttv5" { " k:v text/plain" } else { "" };
        assert_eq!(got, format!("1 值{behind}\n2 值{behind}\n"), "{base} {name}");
    }
    println!("mosquitto {version} {}", if tls { "tls" } else { "tcp" });
}

#[test]
fn paho() {
    let imports = ["-c", "import paho.mqtt.client as m; m.CallbackAPIVersion"];
    if !has("paho-mqtt", Command::new("python3").args(imports).output().is_ok_and(|output| output.status.success())) {
        return;
    }
    let served = serve();
    let mut command = Command::new("python3");
    let said = run(command.arg(script("paho_client.py")).args([&served.port, &served.tls_port]).arg(&served.authority));
    print!("{said}");
    assert_eq!(said.lines().count(), 8, "two versions, four transports");
    assert_eq!(served.gateway.terminate().0, Some(0));
}

#[test]
fn mqtt_of_npm() {
    // Where the module is: `NEARSIDE_NODE_MODULES`, as `.ci/run` sets it, or wherever node looks by itself.
    let modules = std::env::var("NEARSIDE_NODE_MODULES").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    let found =
        Command::new("node").args(["-e", "require.resolve('mqtt', { paths: [process.argv[1]] })", &modules]).output();
    if !has("mqtt of npm", found.is_ok_and(|output| output.status.success())) {
        return;
    }
    let served = serve();
    let mut command = Command::new("node");
    command.arg(script("mqtt_client.cjs")).args([&modules, &served.port, &served.tls_port]).arg(&served.authority);
    let said = run(&mut command);
    print!("{said}");
    assert_eq!(said.lines().count(), 8, "two versions, four transports");
    assert_eq!(served.gateway.terminate().0, Some(0));
}

/// rumqttc's v3.1.1 and v5 clients have one shape and different types.
macro_rules! rumqttc_client {
    ($name:ident, $options:path, $client:path, $event:path, $incoming:path, $qos:path) => {
        async fn $name(host: &str, port: u16, transport: Transport, base: &str) {
            use $event as Event;
            use $incoming as Incoming;
            use $qos as QoS;
            let connect = |id: &str| {
                let mut options = <$options>::new(format!("{base}/{id}"), host, port);
                options.set_keep_alive(Duration::from_secs(20)).set_transport(transport.clone());
                <$client>::new(options, 100)
            };
            let (subscriber, mut events) = connect("a");
            subscriber.subscribe(format!("{base}/#"), QoS::AtLeastOnce).await.unwrap();
            let (publisher, mut sent) = connect("b");
            let sending = tokio::spawn(async move { while sent.poll().await.is_ok() {} });
            let (mut got, mut subscribed) = (Vec::new(), false);
            while got.len() < 4 {
                match events.poll().await.expect("the connection holds") {
                    Event::Incoming(Incoming::SubAck(_)) if !subscribed => {
                        subscribed = true;
                        for (n, qos) in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce].into_iter().enumerate() {
                            publisher.publish(format!("{base}/城"), qos, false, n.to_string()).await.unwrap();
                        }
                        publisher.publish(format!("{base}/kept"), QoS::AtLeastOnce, true, "3").await.unwrap();
                    }
                    Event::Incoming(Incoming::Publish(publish)) => {
                        got.push((publish.payload[0] - b'0', publish.qos as u8));
                    }
                    _ => {}
                }
            }
            got.sort_unstable();
            assert_eq!(got, [(0, 0), (1, 1), (2, 1), (3, 1)], "each once, with the lower quality of service");
            sending.abort();
            println!("rumqttc {base}");
        }
    };
}

rumqttc_client!(
    rumqttc_v311,
    rumqttc::MqttOptions,
    rumqttc::AsyncClient,
    rumqttc::Event,
    rumqttc::Incoming,
    rumqttc::QoS
);
rumqttc_client!(
    rumqttc_v5,
    rumqttc::v5::MqttOptions,
    rumqttc::v5::AsyncClient,
    rumqttc::v5::Event,
    rumqttc::v5::Incoming,
    rumqttc::v5::mqttbytes::QoS
);

#[tokio::test(flavor = "multi_thread")]
async fn rumqttc() {
    let served = serve();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&served.authority).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = TlsConfiguration::Rustls(Arc::new(tls.with_root_certificates(roots).with_no_client_auth()));
    let (wss, tls) = (Transport::Wss(tls.clone()), Transport::Tls(tls));
    let (ws_url, wss_url) =
        (format!("ws://127.0.0.1:{}/mqtt", served.port), format!("wss://localhost:{}/mqtt", served.tls_port));
    let (port, tls_port) = (served.port.parse().unwrap(), served.tls_port.parse().unwrap());
    let all = async {
        rumqttc_v311("127.0.0.1", port, Transport::Tcp, "rumqttc/3/tcp").await;
        rumqttc_v5("127.0.0.1", port, Transport::Tcp, "rumqttc/5/tcp").await;
        rumqttc_v311("localhost", tls_port, tls.clone(), "rumqttc/3/tls").await;
        rumqttc_v5("localhost", tls_port, tls, "rumqttc/5/tls").await;
        rumqttc_v311(&ws_url, port, Transport::Ws, "rumqttc/3/ws").await;
        rumqttc_v5(&ws_url, port, Transport::Ws, "rumqttc/5/ws").await;
        rumqttc_v311(&wss_url, tls_port, wss.clone(), "rumqttc/3/wss").await;
        rumqttc_v5(&wss_url, tls_port, wss, "rumqttc/5/wss").await;
    };
    tokio::time::timeout(PATIENCE, all).await.expect("all is said in time");
    assert_eq!(served.gateway.terminate().0, Some(0));
}
