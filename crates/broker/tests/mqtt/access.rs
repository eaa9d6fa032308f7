//! Users, what they may do, and who is let in without a name.

use nearside_broker::{Anonymous, Users, hash_password};

use crate::support::*;

fn setup(folder: &tempfile::TempDir, users: &str) -> Setup {
    std::fs::write(folder.path().join("users.toml"), users).unwrap();
    Setup { base: folder.path().to_owned(), ..Setup::default() }.with(|config| config.users = Some("users.toml".into()))
}

fn user(name: &str, role: &str, more: &str) -> String {
    let hash = hash_password(format!("{name}'s word").as_bytes(), &[7; 16]).unwrap();
    format!("[users.{name}]\nrole = \"{role}\"\npassword = \"{hash}\"\n{more}\n")
}

fn login(version: u8, name: &str) -> Connect {
    Connect::new(version, name).login(name, &format!("{name}'s word"))
}

async fn enter(broker: &Broker, connect: &Connect) -> Client {
    let mut client = broker.client().await;
    client.send(connect.bytes()).await;
    assert_eq!(client.receive().await.body()[1], 0, "let in");
    client
}

async fn refusal(broker: &Broker, connect: &Connect) -> u8 {
    let mut client = broker.client().await;
    client.send(connect.bytes()).await;
    let code = client.receive().await.body()[1];
    client.expect_end().await;
    code
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_needs_its_password() {
    let folder = tempfile::tempdir().unwrap();
    let users = format!("{}{}[users.carded]\nrole = \"device\"\n", Users::TEMPLATE, user("ann", "device", ""));
    let broker = setup(&folder, &users).with(|config| config.anonymous = Anonymous::Never).start().await;
    for (version, credentials, nobody) in [(4, 4, 5), (5, 0x86, 0x87)] {
        for _ in 0..2 {
            enter(&broker, &login(version, "ann")).await;
        }
        let wrong = Connect::new(version, "ann").login("ann", "another word");
        assert_eq!(refusal(&broker, &wrong).await, credentials);
        assert_eq!(refusal(&broker, &login(version, "bob")).await, credentials);
        assert_eq!(refusal(&broker, &Connect { password: None, ..login(version, "ann") }).await, credentials);
        // A user without a password needs a certificate.
        assert_eq!(refusal(&broker, &Connect::new(version, "x").login("carded", "")).await, credentials);
        assert_eq!(refusal(&broker, &Connect::new(version, "x")).await, nobody);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_granted_is_refused_and_the_connection_stays() {
    let folder = tempfile::tempdir().unwrap();
    let users = [
        "[roles.device]\npublish = [\"ward/{user}/#\"]\nsubscribe = [\"ward/{user}/+\", \"by/{client}\"]\n".to_owned(),
        "[roles.viewer]\nsubscribe = [\"#\"]\n".to_owned(),
        user("ann", "device", "publish = [\"extra\"]"),
        user("eve", "device", ""),
        user("vic", "viewer", ""),
    ];
    let broker = setup(&folder, &users.concat()).start().await;
    let mut viewer = enter(&broker, &login(5, "vic")).await;
    assert_eq!(viewer.subscribe(5, &[("#", 0), ("$SYS/#", 0)]).await, [0, 0x87]);
    for (version, denied) in [(4, 0x80), (5, 0x87)] {
        let mut ann = enter(&broker, &login(version, "ann")).await;
        let filters = [
            "ward/ann/ecg",
            "ward/eve/ecg",
            "ward/+/ecg",
            "ward/ann/#",
            "#",
            "by/ann",
            "by/eve",
            "$share/g/ward/eve/ecg",
        ];
        let codes = ann.subscribe(version, &filters.map(|filter| (filter, 0))).await;
        assert_eq!(codes, [0, denied, denied, denied, denied, 0, denied, denied]);
        for topic in ["ward/ann/ecg", "extra"] {
            ann.publish(version, &Publish::new(topic, "x", 1, 1)).await;
            assert_eq!(viewer.message(5).await.topic, topic);
        }
        assert_eq!(ann.message(version).await.topic, "ward/ann/ecg");
    }
    // Refused while the connection stays, in order with what is granted around it.
    let mut ann = enter(&broker, &login(5, "ann")).await;
    let mixed = [
        Publish::new("extra", "1", 1, 1),
        Publish::new("ward/eve/ecg", "2", 1, 2),
        Publish::new("ward/eve/ecg", "3", 0, 0),
        Publish::new("ward/eve/ecg", "4", 2, 3),
        Publish::new("extra", "5", 1, 4),
    ];
    ann.send(mixed.iter().flat_map(|publish| publish.bytes(5)).collect::<Vec<_>>()).await;
    ann.expect(ack(PUBACK, 1)).await;
    ann.expect(packet(PUBACK, &[0, 2, 0x87])).await;
    ann.expect(packet(PUBREC, &[0, 3, 0x87])).await;
    ann.expect(ack(PUBACK, 4)).await;
    for payload in ["1", "5"] {
        assert_eq!(viewer.message(5).await.payload, payload.as_bytes());
    }
    // v3.1.1 has no word for it, and an acknowledgement would be a lie.
    let mut ann = enter(&broker, &login(4, "ann")).await;
    ann.send(Publish::new("ward/eve/ecg", "2", 1, 2).bytes(4)).await;
    ann.expect_end().await;
    // Nobody in particular may do nothing.
    let mut nobody = enter(&broker, &Connect::new(5, "nobody")).await;
    assert_eq!(nobody.subscribe(5, &[("a", 0)]).await, [0x87]);
    // Nor leave a will where he may not publish.
    let will = login(5, "eve").will("ward/ann/ecg", "x", 0, false, &[]);
    assert_eq!(refusal(&broker, &will).await, 0x87);
    assert_eq!(broker.metric("nearside_broker_access_denied_total{what=\"publish\"}"), 4.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_belongs_to_its_user() {
    let folder = tempfile::tempdir().unwrap();
    let users = format!(
        "[roles.operator]\nsubscribe = [\"#\"]\n{}{}",
        user("ann", "operator", ""),
        user("eve", "operator", "")
    );
    let broker = setup(&folder, &users).start().await;
    let mut ann = enter(&broker, &login(5, "ann").persistent(60)).await;
    let eve = Connect { id: "ann".into(), ..login(5, "eve") };
    assert_eq!(refusal(&broker, &eve).await, 0x87);
    ann.expect_nothing().await;
    ann.leave().await;
    assert_eq!(refusal(&broker, &eve.persistent(60)).await, 0x87);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_user_file_takes_effect() {
    let folder = tempfile::tempdir().unwrap();
    let users = format!("{}{}{}", Users::TEMPLATE, user("ann", "operator", ""), user("eve", "operator", ""));
    let broker = setup(&folder, &users).start().await;
    let mut ann = enter(&broker, &login(5, "ann").persistent(60)).await;
    assert_eq!(ann.subscribe(5, &[("secret", 1)]).await, [1]);
    let mut eve = enter(&broker, &login(5, "eve")).await;
    let file = folder.path().join("users.toml");
    // What makes no sense changes nothing.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    std::fs::write(&file, "[users.ann]\nrole = \"king\"").unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    eve.expect_nothing().await;
    std::fs::write(&file, format!("{}{}", Users::TEMPLATE, user("ann", "device", ""))).unwrap();
    // Who may do something else now, or is gone, is told so.
    ann.expect(packet(0xE0, &[0x87])).await;
    eve.expect(packet(0xE0, &[0x87])).await;
    assert_eq!(refusal(&broker, &login(5, "eve")).await, 0x86);
    // What may not be subscribed to any more is not.
    let mut ann = enter(&broker, &login(5, "ann").persistent(60)).await;
    broker
        .door
        .publisher()
        .publish(
            &nearside_schemas::Topic::new("secret").unwrap(),
            "x".into(),
            nearside_schemas::QoS::AtLeastOnce,
            false,
        )
        .unwrap();
    ann.expect_nothing().await;
}

/// Neither somebody elsewhere who tries passwords by the hundred, nor one beside it who tries one name's, keeps others out.
#[tokio::test(flavor = "multi_thread")]
async fn guesses_keep_nobody_out() {
    let folder = tempfile::tempdir().unwrap();
    let users = format!("{}{}{}", Users::TEMPLATE, user("ann", "device", ""), user("eve", "device", ""));
    let broker = setup(&folder, &users).with(|config| config.anonymous = Anonymous::Never).start().await;
    let mut guesses = Vec::new();
    for n in 0..400 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
        let mut stream = socket.connect(broker.door.local_addr()).await.unwrap();
        let connect = Connect::new(5, &format!("g{n}")).login(&format!("name-{n}"), &format!("guess {n}"));
        tokio::io::AsyncWriteExt::write_all(&mut stream, &connect.bytes()).await.unwrap();
        guesses.push(stream);
    }
    enter(&broker, &login(5, "ann")).await;
    drop(guesses);
    let mut guesses = Vec::new();
    for n in 0..100 {
        let mut client = broker.client().await;
        client.send(Connect::new(5, &format!("h{n}")).login("nobody", &format!("guess {n}")).bytes()).await;
        guesses.push(client);
    }
    enter(&broker, &login(4, "eve")).await;
    let mut codes = Vec::new();
    for mut guess in guesses {
        codes.push(guess.receive().await.connack().1);
    }
    assert!(codes.contains(&0x86) && codes.contains(&0x89), "{codes:?}");
}
