//! The few packets of MQTT 3.1.1 that a load generator needs, by hand.

use crate::error::SimulatorError;

/// CONNECT with a clean session and without keep-alive: a load generator is never silent for long.
pub(super) fn connect(client_id: &str, login: Option<&(String, String)>) -> Vec<u8> {
    const USER: u8 = 0x80;
    const PASSWORD: u8 = 0x40;
    const CLEAN: u8 = 0x02;
    let mut body = Vec::new();
    push_text(&mut body, "MQTT");
    body.push(4);
    body.push(CLEAN | if login.is_some() { USER | PASSWORD } else { 0 });
    body.extend([0, 0]);
    push_text(&mut body, client_id);
    if let Some((user, password)) = login {
        push_text(&mut body, user);
        push_text(&mut body, password);
    }
    let mut packet = vec![0x10];
    push_length(&mut packet, body.len());
    packet.extend(body);
    packet
}

/// DISCONNECT.
pub(super) const DISCONNECT: [u8; 2] = [0xE0, 0x00];

/// A CONNACK that accepts us, or why not.
pub(super) fn read_connack(packet: [u8; 4]) -> Result<(), SimulatorError> {
    match packet {
        [0x20, 0x02, 0 | 1, 0] => Ok(()),
        [0x20, 0x02, 0, code] => Err(SimulatorError::refused(code)),
        _ => Err(SimulatorError::Protocol { what: "CONNECT was not answered with a CONNACK" }),
    }
}

/// Appends a PUBLISH with QoS 1 and packet id 0, which stands directly before the payload.
pub(super) fn push_publish(out: &mut Vec<u8>, topic: &str, payload: &[u8]) {
    out.push(0x32);
    push_length(out, 2 + topic.len() + 2 + payload.len());
    push_text(out, topic);
    out.extend([0, 0]);
    out.extend_from_slice(payload);
}

/// Takes whole PUBACKs off the front of `bytes` and hands their packet ids on; returns how many bytes they took.
/// Anything but a PUBACK is an error: we have asked for nothing else.
pub(super) fn read_pubacks(
    bytes: &[u8],
    mut each: impl FnMut(u16) -> Result<(), SimulatorError>,
) -> Result<usize, SimulatorError> {
    let (packets, rest) = bytes.as_chunks::<4>();
    for packet in packets {
        let [0x40, 0x02, high, low] = *packet else {
            return Err(SimulatorError::Protocol { what: "a packet came that is no PUBACK" });
        };
        each(u16::from_be_bytes([high, low]))?;
    }
    Ok(bytes.len() - rest.len())
}

/// The remaining length of a packet (MQTT 3.1.1 section 2.2.3).
fn push_length(out: &mut Vec<u8>, mut length: usize) {
    loop {
        let digit = (length & 0x7F) as u8;
        length >>= 7;
        if length == 0 {
            out.push(digit);
            return;
        }
        out.push(digit | 0x80);
    }
}

/// Text with its length; what is longer than 65,535 bytes is cut, which [`super::LoadConfig`] keeps from happening.
fn push_text(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend(length.to_be_bytes());
    out.extend(text.bytes().take(usize::from(length)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_those_of_the_standard() {
        assert_eq!(connect("a", None), [0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 1, b'a']);
        let login = ("u".to_owned(), "p".to_owned());
        assert_eq!(
            connect("a", Some(&login)),
            [0x10, 19, 0, 4, b'M', b'Q', b'T', b'T', 4, 0xC2, 0, 0, 0, 1, b'a', 0, 1, b'u', 0, 1, b'p']
        );
        let mut publish = Vec::new();
        push_publish(&mut publish, "t/1", b"x");
        assert_eq!(publish, [0x32, 8, 0, 3, b't', b'/', b'1', 0, 0, b'x']);
        let mut length = Vec::new();
        push_length(&mut length, 321);
        assert_eq!(length, [0xC1, 0x02], "the example of section 2.2.3");
    }

    #[test]
    fn acknowledgements_are_read_whole_and_nothing_else_is() {
        let mut ids = Vec::new();
        let bytes = [0x40, 2, 0, 1, 0x40, 2, 1, 0, 0x40, 2];
        let taken = read_pubacks(&bytes, |id| {
            ids.push(id);
            Ok(())
        });
        assert_eq!((taken.unwrap(), ids), (8, vec![1, 256]));
        assert!(read_pubacks(&[0xD0, 0, 0x40, 2], |_| Ok(())).is_err());
        assert!(read_connack([0x20, 2, 0, 0]).is_ok());
        assert!(matches!(read_connack([0x20, 2, 0, 5]), Err(SimulatorError::Refused { code: 5, .. })));
        assert!(read_connack([0x30, 2, 0, 0]).is_err());
    }
}
