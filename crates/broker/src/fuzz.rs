//! What fuzzing reaches of this crate's decoders. No part of the crate's interface.

use bytes::BytesMut;

use crate::packet::{self, Packet, Reason, Version};
use crate::store;

/// The largest packet, small so that its bound is met.
const MAX_PACKET: usize = 4 << 10;

/// Reads `bytes` as what a connection brings, CONNECT first, and once more cut in two at `cut`: what the front door makes of a
/// connection does not depend on how the network cuts it.
///
/// # Panics
/// Where it does.
pub fn connection(bytes: &[u8], cut: usize) {
    let (front, back) = bytes.split_at(cut.min(bytes.len()));
    assert!(read(&[bytes]) == read(&[front, back]), "the cut changed what was read");
}

/// What was read, and why reading ended.
fn read(pieces: &[&[u8]]) -> (Vec<Packet>, Option<Reason>) {
    let (mut buffer, mut version, mut packets) = (BytesMut::new(), None, Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let frame = match packet::frame(&mut buffer, MAX_PACKET) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(reason) => return (packets, Some(reason)),
            };
            let read = match version {
                None => packet::connect(frame).map(|connect| version = Some(connect.version)),
                Some(version) => packet::packet(frame, version).map(|packet| packets.push(walked(packet, version))),
            };
            if let Err(reason) = read {
                return (packets, Some(reason));
            }
        }
    }
    (packets, None)
}

/// The packet, after everything in it that is read later was read.
fn walked(packet: Packet, version: Version) -> Packet {
    match &packet {
        Packet::Subscribe(id, subscriptions) => {
            let count = subscriptions.clone().count();
            assert!(count > 0, "a SUBSCRIBE without a filter is malformed");
            packet::suback(&mut Vec::new(), version, *id, &vec![0; count]);
        }
        Packet::Unsubscribe(_, filters) => assert!(filters.clone().count() > 0),
        _ => {}
    }
    packet
}

/// Reads `bytes` as a stored session and as a stored message; what can be read is written back and read again.
///
/// # Panics
/// Where it is something else then.
pub fn stored(bytes: &[u8]) {
    store::fuzz(bytes);
}
