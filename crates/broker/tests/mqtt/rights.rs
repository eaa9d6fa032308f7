//! Rights that are taken back: nothing that somebody may not have, or may not say, gets through afterwards, also while it is away.

use nearside_broker::hash_password;

use crate::support::*;

const DROPPED: &str = "nearside_broker_publishes_dropped_total{reason=\"no_longer_allowed\"}";
const WILLS: &str = "nearside_broker_access_denied_total{what=\"will\"}";

/// A user file: each user with what it may publish and subscribe.
fn users(of: &[(&str, &str, &str)]) -> String {
    let user = |(name, publish, subscribe): &(&str, &str, &str)| {
        let hash = hash_password(name.as_bytes(), &[7; 16]).unwrap();
        format!(
            "[users.{name}]\nrole = \"device\"\npassword = \"{hash}\"\npublish = [{publish}]\nsubscribe = [{subscribe}]\n"
        )
    };
    of.iter().map(user).collect()
}

/// A folder with a user file, and what writes it anew.
struct Site(tempfile::TempDir);

impl Site {
    fn new(of: &[(&str, &str, &str)]) -> Self {
        let site = Self(tempfile::tempdir().unwrap());
        site.grant(of);
        site
    }

    fn grant(&self, of: &[(&str, &str, &str)]) {
        std::fs::write(self.0.path().join("users.toml"), users(of)).unwrap();
    }

    fn setup(&self) -> Setup {
        Setup { base: self.0.path().to_owned(), ..Setup::default() }.with(|config| {
            config.users = Some("users.toml".into());
        })
    }

    fn stored(&self) -> Setup {
        Setup::stored_in(self.0.path()).with(|config| config.users = Some("users.toml".into()))
    }
}

fn connect(version: u8, id: &str, user: &str) -> Connect {
    Connect::new(version, id).login(user, user)
}

/// Lets a client in; gives back whether its session was there.
async fn enter(broker: &Broker, connect: &Connect) -> (Client, bool) {
    let mut client = broker.client().await;
    client.send(connect.bytes()).await;
    let answer = client.receive().await;
    assert_eq!(answer.body()[1], 0, "let in");
    let present = answer.body()[0] == 1;
    (client, present)
}

async fn code(broker: &Broker, connect: &Connect) -> u8 {
    let mut client = broker.client().await;
    client.send(connect.bytes()).await;
    client.receive().await.body()[1]
}

/// Subscribes and goes.
async fn subscribe_and_leave(broker: &Broker, connect: &Connect, filters: &[&str]) {
    let (mut client, _) = enter(broker, connect).await;
    let filters: Vec<(&str, u8)> = filters.iter().map(|filter| (*filter, 1)).collect();
    assert_eq!(client.subscribe(connect.version, &filters).await, vec![1; filters.len()]);
    client.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_had_any_more_does_not_wait_for_anybody() {
    let (publisher, bob) = (("pub", "\"#\"", ""), ("bob", "", "\"secret/#\""));
    let site = Site::new(&[
        publisher,
        bob,
        ("ann", "", "\"secret/#\", \"open/#\""),
        ("dave", "", "\"open/#\""),
        ("eve", "", "\"secret/#\""),
    ]);
    let broker = site.setup().start().await;
    let [ann, member, dave] =
        [("ann-1", "ann"), ("ann-2", "ann"), ("dave", "dave")].map(|(id, user)| connect(5, id, user).persistent(600));
    subscribe_and_leave(&broker, &ann, &["secret/#", "open/#"]).await;
    subscribe_and_leave(&broker, &member, &["$share/g/secret/#"]).await;
    subscribe_and_leave(&broker, &dave, &["open/#"]).await;
    // One of hers is sent and not answered.
    let (mut publisher_, _) = enter(&broker, &connect(5, "pub", "pub")).await;
    let (mut client, _) = enter(&broker, &ann).await;
    publisher_.publish(5, &Publish::new("secret/0", "sent", 2, 1)).await;
    assert_eq!(client.receive().await.publish(5).payload, b"sent");
    drop(client);
    for topic in ["secret/1", "open/1"] {
        publisher_.publish(5, &Publish::new(topic, "before", 1, 1)).await;
    }
    // Somebody else of the group, who may have what waits for the member.
    let other = connect(5, "bob", "bob").persistent(600);
    subscribe_and_leave(&broker, &other, &["$share/g/secret/#"]).await;
    let (mut eve, _) = enter(&broker, &connect(5, "eve", "eve").persistent(600)).await;
    eve.subscribe(5, &[("secret/#", 1)]).await;
    site.grant(&[publisher, bob, ("ann", "", "\"open/#\""), ("eve", "", "\"open/#\"")]);
    eve.expect(packet(0xE0, &[0x87])).await;
    eve.expect_end().await;
    broker.wait_for(DROPPED, 4.0).await;
    for topic in ["secret/2", "open/2"] {
        publisher_.publish(5, &Publish::new(topic, "after", 1, 1)).await;
    }
    let (mut client, present) = enter(&broker, &ann).await;
    assert!(present);
    for topic in ["open/1", "open/2"] {
        assert_eq!(client.message(5).await.topic, topic);
    }
    client.expect_nothing().await;
    for connect in [&member, &connect(5, "eve", "eve").persistent(600)] {
        enter(&broker, connect).await.0.expect_nothing().await;
    }
    let (mut client, _) = enter(&broker, &other).await;
    for topic in ["secret/0", "secret/1", "secret/2"] {
        assert_eq!(client.message(5).await.topic, topic);
    }
    client.expect_nothing().await;
    // Who is gone and comes again begins anew.
    site.grant(&[publisher, ("dave", "", "\"open/#\"")]);
    let back = async {
        while code(&broker, &connect(5, "somebody", "dave")).await != 0 {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, back).await.expect("let in");
    let (mut client, present) = enter(&broker, &dave).await;
    assert!(!present);
    client.expect_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_taken_back_while_the_gateway_is_down_is_gone() {
    let given = [("pub", "\"#\"", ""), ("ann", "", "\"secret\"")];
    let site = Site::new(&given);
    let ann = connect(4, "ann", "ann").persistent(0);
    let broker = site.stored().start().await;
    subscribe_and_leave(&broker, &ann, &["secret"]).await;
    let mut publisher = enter(&broker, &connect(4, "pub", "pub")).await.0;
    publisher.publish(4, &Publish::new("secret", "before", 1, 1)).await;
    broker.stop().await;
    site.grant(&[given[0], ("ann", "", "")]);
    let broker = site.stored().start().await;
    assert_eq!(broker.metric(DROPPED), 1.0);
    let mut publisher = enter(&broker, &connect(4, "pub", "pub")).await.0;
    publisher.publish(4, &Publish::new("secret", "after", 1, 1)).await;
    broker.stop().await;
    // It is gone from the disk too.
    site.grant(&given);
    let broker = site.stored().start().await;
    let (mut client, present) = enter(&broker, &ann).await;
    assert!(present);
    client.expect_nothing().await;
    let mut publisher = enter(&broker, &connect(4, "pub", "pub")).await.0;
    publisher.publish(4, &Publish::new("secret", "after", 1, 1)).await;
    client.expect_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_will_does_not_outlive_its_clients_rights() {
    let watching = ("vic", "", "\"#\"");
    let site = Site::new(&[watching, ("ann", "\"cmd/#\"", ""), ("bob", "\"cmd/#\"", ""), ("eve", "\"cmd/#\"", "")]);
    let broker = site.setup().start().await;
    let (mut watcher, _) = enter(&broker, &connect(5, "vic", "vic")).await;
    watcher.subscribe(5, &[("#", 1)]).await;
    let will = |id: &str, user: &str, delay: u8| {
        connect(5, id, user).will("cmd/pump", "open", 1, true, &[0x18, 0, 0, 0, delay])
    };
    // It is there; it is away and its will waits; its user will be gone; it may publish there still.
    let (mut here, _) = enter(&broker, &will("here", "ann", 0)).await;
    drop(enter(&broker, &will("away", "ann", 10).persistent(600)).await);
    let (mut gone, _) = enter(&broker, &will("gone", "bob", 0)).await;
    let (stays, _) = enter(&broker, &will("stays", "eve", 0)).await;
    site.grant(&[watching, ("ann", "\"other/#\"", ""), ("eve", "\"cmd/#\"", "")]);
    here.expect(packet(0xE0, &[0x87])).await;
    gone.expect(packet(0xE0, &[0x87])).await;
    broker.wait_for(WILLS, 3.0).await;
    watcher.expect_nothing().await;
    drop(stays);
    assert_eq!(watcher.message(5).await.payload, b"open");
}

/// Sessions and retained messages: half of them, where nothing else is said.
#[tokio::test(flavor = "multi_thread")]
async fn no_user_takes_all_there_is() {
    let site = Site::new(&[("ann", "\"#\"", "\"#\", \"$SYS/#\""), ("eve", "\"#\"", "\"#\"")]);
    let setup = site.setup().with(|config| {
        config.max_sessions = 4;
        config.max_retained = 4;
    });
    let broker = setup.start().await;
    let persistent = |version, id: &str, user: &str| connect(version, id, user).persistent(600);
    for id in ["a", "b"] {
        enter(&broker, &persistent(5, id, "ann")).await.0.leave().await;
    }
    assert_eq!(code(&broker, &persistent(5, "c", "ann")).await, 0x97);
    assert_eq!(code(&broker, &persistent(4, "c", "ann")).await, 3);
    // One that ends with its connection is let in, and one anew in the place of an old one.
    enter(&broker, &connect(5, "c", "ann")).await.0.leave().await;
    enter(&broker, &Connect { clean: true, ..persistent(5, "b", "ann") }).await.0.leave().await;
    enter(&broker, &persistent(4, "e", "eve")).await.0.leave().await;
    // Where one has ended there is room.
    enter(&broker, &connect(5, "a", "ann")).await.0.leave().await;
    let (mut ann, _) = enter(&broker, &persistent(5, "c", "ann")).await;
    let (mut eve, _) = enter(&broker, &connect(5, "e2", "eve")).await;
    for n in 0..3 {
        ann.publish(5, &Publish::new(&format!("ann/{n}"), "x", 1, 1).retained()).await;
    }
    for n in 0..2 {
        eve.publish(5, &Publish::new(&format!("eve/{n}"), "x", 1, 1).retained()).await;
    }
    assert_eq!(broker.metric("nearside_broker_publishes_dropped_total{reason=\"retained_full\"}"), 1.0);
    eve.subscribe(5, &[("#", 0)]).await;
    let mut topics = Vec::new();
    for _ in 0..4 {
        topics.push(eve.message(5).await.topic);
    }
    topics.sort();
    assert_eq!(topics, ["ann/0", "ann/1", "eve/0", "eve/1"]);
    // What the broker says of itself is not for them to take.
    ann.subscribe(5, &[("$SYS/broker/version", 0)]).await;
    assert!(ann.message(5).await.retain);
}
