//! From the first byte of a connection to the answer to its CONNECT.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use nearside_schemas::{ClientId, FEEDBACK_TOPIC};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::access::{Origin, Principal};
use crate::arrivals;
use crate::connection::READ;
use crate::filter::is_ours;
use crate::front_door::Shared;
use crate::packet::{self, Connect, Reason, Version};
use crate::sessions::{Opened, Sessions};
use crate::waiting::Patience;

/// The longest CONNECT that is taken: with a will of 64 KiB and whatever else there can be. Nobody is known yet, so nobody gets more room.
const CONNECT_BYTES: usize = 128 << 10;
/// The longest protocol's name whose end is waited for, to tell in which version to answer.
const NAME_BYTES: usize = 64;
/// The longest client id that is taken.
const CLIENT_ID_BYTES: usize = 1_024;
/// How long a connection that is turned away may take to say which version it speaks, and one that was told why it ends to close.
const FAREWELL: Duration = Duration::from_secs(2);

/// A client that was let in.
pub(crate) struct Hello {
    pub(crate) connect: Connect,
    pub(crate) principal: Arc<Principal>,
    pub(crate) opened: Opened,
    /// Whether its id is ours.
    pub(crate) assigned: bool,
}

/// Why somebody is not let in, and in which version that is said.
pub(crate) type Refusal = (Reason, Version);

/// Reads the CONNECT and checks who it is, for as long as there is `patience`; then opens the session.
pub(crate) async fn greet(
    reader: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    origin: &Origin,
    patience: &Patience,
    shared: &Arc<Shared>,
) -> Result<Hello, Refusal> {
    let connect = read_connect(reader, buffer, CONNECT_BYTES.min(shared.config.max_packet.bytes() as usize));
    let connect = patience.wait_for(connect).await.map_err(|reason| (reason, Version::V311))??;
    let refused = |reason| (reason, connect.version);
    let assigned = connect.client.is_empty();
    if connect.client.len() > CLIENT_ID_BYTES {
        return Err(refused(Reason::ClientId));
    }
    let client = if assigned { shared.sessions.new_client_id() } else { ClientId::new(&connect.client) };
    let admitted = patience.wait_for(shared.access.admit(&connect, client.as_str(), origin)).await;
    let admitted = admitted.map_err(|_| refused(Reason::ServerBusy))?;
    let principal = Arc::new(admitted.map_err(|reason| {
        let (name, why) = shared.access.explain(&connect, origin, reason);
        shared.refusals.say(origin.address, name.as_deref(), why);
        refused(reason)
    })?);
    if let Some(will) = &connect.will {
        let topic = will.topic.as_str();
        if is_ours(topic) || topic == FEEDBACK_TOPIC || !principal.may_publish(topic) {
            let why = "a client was not let in: its user may not publish to the topic of its will";
            shared.refusals.say(origin.address, principal.user.as_deref(), why);
            return Err(refused(Reason::NotAuthorized));
        }
        if !shared.config.is_topic_in_bounds(topic) {
            return Err(refused(Reason::TopicName));
        }
    }
    // Not cut short: whoever opens a session must close it.
    if !patience.let_in() {
        return Err(refused(Reason::ServerBusy));
    }
    let opened = Sessions::open(shared, &client, &connect, &principal).await.map_err(refused)?;
    Ok(Hello { connect, principal, opened, assigned })
}

/// Says why a client is not let in, where the standard has a way to. Gives back whether it was said.
pub(crate) async fn refuse(writer: &mut (impl AsyncWrite + Unpin), (reason, version): Refusal) -> bool {
    use Reason::{ClientId, Credentials, NotAuthorized, QuotaExceeded, ServerBusy, UnsupportedVersion};
    // v3.1.1 has no code for a CONNECT that breaks the rules: its connection is just closed (section 3.1.4).
    let sayable = [UnsupportedVersion, ClientId, Credentials, NotAuthorized, ServerBusy, QuotaExceeded];
    if version == Version::V311 && !sayable.contains(&reason) {
        return false;
    }
    let mut out = Vec::new();
    packet::connack(&mut out, version, Err(reason));
    let answer = async {
        writer.write_all(&out).await?;
        writer.shutdown().await
    };
    // The client may be gone, or not listen.
    matches!(timeout(FAREWELL, answer).await, Ok(Ok(())))
}

/// Reads, and leaves aside, what a client still sends after it was told why its connection ends, until it closes; not for long, and not
/// longer than the server runs. A socket that is closed with something unread is reset, and a reset may overtake the reason.
pub(crate) async fn hear_out(reader: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut, shared: &Shared) {
    let mut stopping = shared.stopping.clone();
    let until_it_closes = async {
        loop {
            tokio::task::consume_budget().await;
            buffer.clear();
            if !matches!(arrivals::read(reader, buffer, *READ.start()).await, Ok(n) if n > 0) {
                return;
            }
        }
    };
    tokio::select! {
        () = until_it_closes => {}
        () = sleep(FAREWELL) => {}
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
}

/// Tells a connection above a limit so, if it soon says which version it speaks.
pub(crate) async fn turn_away(stream: impl AsyncRead + AsyncWrite + Unpin, reason: Reason) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut buffer = BytesMut::new();
    // A CONNECT without a will is short.
    let hello = timeout(FAREWELL, read_connect(&mut reader, &mut buffer, 16 << 10));
    if let Ok(Ok(connect)) = hello.await {
        refuse(&mut writer, (reason, connect.version)).await;
    }
}

async fn read_connect(
    reader: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    max_packet: usize,
) -> Result<Connect, Refusal> {
    loop {
        // Whoever does not begin with a CONNECT is not waited for.
        if buffer.first().is_some_and(|first| *first != 0x10) {
            return Err((Reason::Protocol, Version::V311));
        }
        // Cutting the frame out takes its bytes away.
        let version = packet::connect_version(buffer);
        let refused = |reason| (reason, version.unwrap_or(Version::V311));
        match packet::frame(buffer, max_packet) {
            Ok(Some(frame)) => return packet::connect(frame).map_err(refused),
            // What has too long a name for the version to be told is no CONNECT.
            Err(reason) if version.is_some() || buffer.len() > NAME_BYTES => return Err(refused(reason)),
            Err(Reason::PacketTooLarge) | Ok(None) => {}
            Err(reason) => return Err(refused(reason)),
        }
        match arrivals::read(reader, buffer, *READ.start()).await {
            Ok(n) if n > 0 => {}
            _ => return Err((Reason::Protocol, Version::V311)),
        }
    }
}
