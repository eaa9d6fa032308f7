//! TLS, certificates of clients, WebSocket.

use std::path::Path;
use std::sync::Arc;

use nearside_broker::{Anonymous, Identity, TlsConfig, TlsVersion, Users};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::*;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Certificate and key, as PEM.
    fn issue(&self, common: &str, alternative: &str, serial: u64) -> (String, String) {
        let mut params = CertificateParams::new(vec![alternative.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, common);
        params.serial_number = Some(serial.into());
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn revoked(&self, serials: &[u64]) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2025, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2025, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// Certificates on disk, and a broker's set-up with them.
fn setup(folder: &Path, authority: &Authority) -> Setup {
    let (certificate, key) = authority.issue("broker", "localhost", 1);
    std::fs::write(folder.join("server.pem"), certificate).unwrap();
    std::fs::write(folder.join("server.key"), key).unwrap();
    std::fs::write(folder.join("ca.pem"), &authority.pem).unwrap();
    std::fs::write(folder.join("revoked.pem"), authority.revoked(&[])).unwrap();
    let tls = TlsConfig {
        listen: None,
        certificate: "server.pem".into(),
        key: "server.key".into(),
        client_ca: None,
        client_certificates: Default::default(),
        identity: Identity::Cn,
        revoked: None,
        min_version: TlsVersion::V1_2,
    };
    Setup { base: folder.to_owned(), ..Setup::default() }.with(|config| config.tls = Some(tls))
}

type Shown<'a> = Option<&'a (String, String)>;

async fn shake_hands(
    broker: &Broker,
    authority: &Authority,
    shown: Shown<'_>,
    version: &'static rustls::SupportedProtocolVersion,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let config = match shown {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            config.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    };
    let stream = TcpStream::connect(broker.door.tls_addr().unwrap()).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// The answer to a CONNECT; `None` where the connection ends without one.
async fn answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), connect: &Connect) -> Option<u8> {
    let mut answer = [0; 4];
    let talk = async {
        stream.write_all(&connect.bytes()).await?;
        stream.read_exact(&mut answer).await
    };
    timeout(PATIENCE, talk).await.expect("an answer in time").ok()?;
    Some(answer[3])
}

async fn enter(broker: &Broker, authority: &Authority, shown: Shown<'_>, connect: &Connect) -> Option<u8> {
    let mut stream = shake_hands(broker, authority, shown, &rustls::version::TLS13).await.ok()?;
    answer(&mut stream, connect).await
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_of_tls_are_spoken() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("authority");
    let both = setup(folder.path(), &authority).start().await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut stream = shake_hands(&both, &authority, None, version).await.unwrap();
        assert_eq!(answer(&mut stream, &Connect::new(4, "c")).await, Some(0));
    }
    // A client that speaks no TLS is cut off, and one that says nothing holds nobody up.
    let _silent = both.client().await;
    let mut plain = both.client().await;
    plain.send(Connect::new(4, "c").bytes()).await;
    while plain.next().await.is_some() {}
    let only_13 = setup(folder.path(), &authority);
    let only_13 = only_13.with(|config| config.tls.as_mut().unwrap().min_version = TlsVersion::V1_3).start().await;
    assert!(shake_hands(&only_13, &authority, None, &rustls::version::TLS12).await.is_err());
    assert!(shake_hands(&only_13, &authority, None, &rustls::version::TLS13).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_says_who_somebody_is() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, other) = (Authority::new("authority"), Authority::new("other"));
    let users =
        format!("{}\n[users.ann]\nrole = \"device\"\n[users.\"ann.example\"]\nrole = \"device\"\n", Users::TEMPLATE);
    std::fs::write(folder.path().join("users.toml"), users).unwrap();
    let (ann, bob) = (authority.issue("ann", "ann.example", 2), authority.issue("bob", "bob.example", 3));
    let forged = other.issue("ann", "ann.example", 2);
    for identity in [Identity::Cn, Identity::San] {
        let setup = setup(folder.path(), &authority).with(|config| {
            config.users = Some("users.toml".into());
            config.anonymous = Anonymous::Never;
            let tls = config.tls.as_mut().unwrap();
            tls.client_ca = Some("ca.pem".into());
            tls.identity = identity;
        });
        let broker = setup.start().await;
        let connect = Connect::new(4, "c");
        assert_eq!(enter(&broker, &authority, Some(&ann), &connect).await, Some(0));
        // Not in the user file, of another authority, or without a certificate.
        assert_eq!(enter(&broker, &authority, Some(&bob), &connect).await, Some(5));
        assert_eq!(enter(&broker, &authority, Some(&forged), &connect).await, None);
        assert_eq!(enter(&broker, &authority, None, &connect).await, None);
        // It may do what its name may.
        let name = if identity == Identity::Cn { "ann" } else { "ann.example" };
        let will = |topic: &str| Connect::new(4, "c").will(topic, "x", 0, false, &[]);
        assert_eq!(enter(&broker, &authority, Some(&ann), &will(&format!("ward/{name}/x"))).await, Some(0));
        assert_eq!(enter(&broker, &authority, Some(&ann), &will("ward/bob/x")).await, Some(5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_taken_over_and_revoked_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, next) = (Authority::new("authority"), Authority::new("next"));
    let setup = setup(folder.path(), &authority).with(|config| {
        let tls = config.tls.as_mut().unwrap();
        tls.client_ca = Some("ca.pem".into());
        tls.revoked = Some("revoked.pem".into());
    });
    let broker = setup.start().await;
    let (ann, bob) = (authority.issue("ann", "a", 2), authority.issue("bob", "b", 3));
    let connect = Connect::new(4, "c");
    let mut connected = shake_hands(&broker, &authority, Some(&ann), &rustls::version::TLS13).await.unwrap();
    let will = |id: &str| Connect::new(4, id).will("gone", "x", 0, false, &[]);
    assert_eq!(answer(&mut connected, &will("ann")).await, Some(0));
    let mut other = shake_hands(&broker, &authority, Some(&bob), &rustls::version::TLS13).await.unwrap();
    assert_eq!(answer(&mut other, &will("bob")).await, Some(0));
    std::fs::write(folder.path().join("revoked.pem"), authority.revoked(&[2])).unwrap();
    // Her connection ends, and she does not come back; others do.
    assert_eq!(timeout(PATIENCE, connected.read(&mut [0])).await.expect("it ends in time").unwrap_or(0), 0);
    assert_eq!(enter(&broker, &authority, Some(&ann), &connect).await, None);
    assert_eq!(enter(&broker, &authority, Some(&bob), &connect).await, Some(0));
    // Her will is not published. Who has another certificate stays.
    broker.wait_for("nearside_broker_access_denied_total{what=\"will\"}", 1.0).await;
    assert!(timeout(std::time::Duration::from_millis(500), other.read(&mut [0])).await.is_err());
    // Another certificate of ours, of another authority.
    let (certificate, key) = next.issue("broker", "localhost", 9);
    std::fs::write(folder.path().join("server.key"), key).unwrap();
    std::fs::write(folder.path().join("server.pem"), certificate).unwrap();
    let taken_over = async {
        while enter(&broker, &next, Some(&bob), &connect).await != Some(0) {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, taken_over).await.expect("it is taken over in time");
    // What cannot be read leaves it in force.
    std::fs::write(folder.path().join("server.pem"), "nothing").unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    assert_eq!(enter(&broker, &next, Some(&bob), &connect).await, Some(0));
}

/// A WebSocket request with these lines, and the status of its answer.
async fn upgrade(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), path: &str, lines: &str) -> u16 {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: broker\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let status = head[9..12].parse().unwrap();
    if status == 101 {
        // RFC 6455 section 1.3, [MQTT-6.0.0-4].
        let head = head.to_ascii_lowercase();
        assert!(head.contains("s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
        assert!(head.contains("sec-websocket-protocol: mqtt\r\n"), "{head}");
    }
    status
}

/// A client's frame, masked.
fn frame(first: u8, bytes: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let length = match bytes.len() {
        short @ 0..126 => vec![0x80 | short as u8],
        long => [&[0xFF][..], &(long as u64).to_be_bytes()].concat(),
    };
    let body = bytes.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    [&[first][..], &length, &mask, &body.collect::<Vec<u8>>()].concat()
}

/// The payload of the next frame, which must begin so.
async fn payload(client: &mut Client, first: u8) -> Vec<u8> {
    let read = async {
        let [got, length] = [client.stream.read_u8().await.unwrap(), client.stream.read_u8().await.unwrap()];
        assert_eq!(got, first);
        let mut payload = vec![0; usize::from(length)];
        client.stream.read_exact(&mut payload).await.unwrap();
        payload
    };
    timeout(PATIENCE, read).await.expect("a frame in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn websocket_shares_the_port() {
    let broker = Broker::start().await;
    let mqtt = "Sec-WebSocket-Protocol: other, mqtt\r\n";
    for (path, lines, status) in [
        ("/mqtt", mqtt.to_owned(), 101),
        ("/other", mqtt.to_owned(), 404),
        ("/mqtt", String::new(), 400),
        ("/mqtt", format!("{mqtt}Origin: https://evil.example\r\n"), 403),
        ("/mqtt", format!("{mqtt}Origin: http://broker\r\n"), 101),
    ] {
        let mut client = broker.client().await;
        assert_eq!(upgrade(&mut client.stream, path, &lines).await, status, "{path} {lines}");
    }
    let mut client = broker.client().await;
    upgrade(&mut client.stream, "/mqtt", mqtt).await;
    // [MQTT-6.0.0-2]: packets need not keep to frames.
    let bytes = [Connect::new(4, "ws").bytes(), subscribe(4, 1, &[], &[("a", 0)]), PINGREQ.to_vec()].concat();
    let (front, back) = bytes.split_at(7);
    client.send([frame(0x82, front), frame(0x82, back)].concat()).await;
    let mut got = Vec::new();
    let expected = [&[0x20, 2, 0, 0][..], &[0x90, 3, 0, 1, 0], &PINGRESP].concat();
    while got.len() < expected.len() {
        let [first, length] = [client.stream.read_u8().await.unwrap(), client.stream.read_u8().await.unwrap()];
        assert_eq!(first, 0x82);
        let mut payload = vec![0; usize::from(length)];
        client.stream.read_exact(&mut payload).await.unwrap();
        got.extend(payload);
    }
    assert_eq!(got, expected);
    // [MQTT-6.0.0-1]: text ends it.
    client.send(frame(0x81, b"hello")).await;
    let mut rest = Vec::new();
    timeout(PATIENCE, client.stream.read_to_end(&mut rest)).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn websocket_works_over_tls_and_beside_a_plain_port() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("authority");
    let beside = setup(folder.path(), &authority)
        .with(|config| config.tls.as_mut().unwrap().listen = Some(([127, 0, 0, 1], 0).into()));
    let broker = beside.start().await;
    broker.connect(5, "plain").await.expect_nothing().await;
    let mut stream = shake_hands(&broker, &authority, None, &rustls::version::TLS13).await.unwrap();
    assert_eq!(upgrade(&mut stream, "/mqtt", "Sec-WebSocket-Protocol: mqtt\r\n").await, 101);
    stream.write_all(&frame(0x82, &Connect::new(4, "c").bytes())).await.unwrap();
    let mut answer = [0; 6];
    timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, [0x82, 4, 0x20, 2, 0, 0]);
}

/// [MQTT-6.0.0-2]: a message may hold any number of packets, however long it is with them, in any number of frames.
#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_message_may_be_longer_than_a_packet() {
    let broker = Broker::start().await;
    let mut client = broker.client().await;
    upgrade(&mut client.stream, "/mqtt", "Sec-WebSocket-Protocol: mqtt\r\n").await;
    client.send(frame(0x82, &Connect::new(4, "ws").bytes())).await;
    assert_eq!(payload(&mut client, 0x82).await, [0x20, 2, 0, 0]);
    let large = "x".repeat(400_000);
    let packets: Vec<u8> = (1..=3).flat_map(|id| Publish::new("a", &large, 1, id).bytes(4)).collect();
    let acks = [ack(PUBACK, 1), ack(PUBACK, 2), ack(PUBACK, 3)].concat();
    let answered = async |client: &mut Client| {
        let mut got = Vec::new();
        while got.len() < acks.len() {
            got.extend(payload(client, 0x82).await);
        }
        assert_eq!(got, acks);
    };
    client.send(frame(0x82, &packets)).await;
    answered(&mut client).await;
    let pieces: Vec<&[u8]> = packets.chunks(100_000).collect();
    for (n, piece) in pieces.iter().enumerate() {
        let first = if n == 0 { 0x02 } else { 0x00 };
        let last = if n + 1 == pieces.len() { 0x80 } else { 0x00 };
        client.send(frame(first | last, piece)).await;
    }
    answered(&mut client).await;
    // A ping is answered, and so is a close.
    client.send(frame(0x89, b"there?")).await;
    assert_eq!(payload(&mut client, 0x8A).await, b"there?");
    client.send(frame(0x88, &[0x03, 0xE8])).await;
    assert_eq!(payload(&mut client, 0x88).await, [0x03, 0xE8]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_opens_no_websocket_is_told_so() {
    let broker = Broker::start().await;
    let good = "GET /mqtt HTTP/1.1\r\nHost: broker\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
    for (change, with, status) in [
        ("", "", "101"),
        ("Version: 13", "Version: 8", "426"),
        ("Upgrade: websocket\r\n", "", "400"),
        ("GET ", "GETX ", "400"),
        ("HTTP/1.1", "HTTP/1.0", "400"),
        ("Host: broker", "no header at all", "400"),
    ] {
        let mut client = broker.client().await;
        client.send(if change.is_empty() { good.to_owned() } else { good.replacen(change, with, 1) }).await;
        let mut head = Vec::new();
        let read = async {
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.stream.read_u8().await.unwrap());
            }
        };
        timeout(PATIENCE, read).await.expect("an answer in time");
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{change} {with}: {head}");
        assert_eq!(head.contains("sec-websocket-version: 13"), status == "426", "{head}");
    }
}
