//! Reads the fields of a packet's body. Nothing here trusts a length.

use std::ops::Range;

use bytes::{Buf, Bytes};
use nearside_schemas::PacketId;

use super::Reason;

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Fields(pub(super) Bytes);

impl Fields {
    pub(super) fn u8(&mut self) -> Result<u8, Reason> {
        if self.0.is_empty() { Err(Reason::Malformed) } else { Ok(self.0.get_u8()) }
    }

    pub(super) fn u16(&mut self) -> Result<u16, Reason> {
        if self.0.len() < 2 { Err(Reason::Malformed) } else { Ok(self.0.get_u16()) }
    }

    pub(super) fn u32(&mut self) -> Result<u32, Reason> {
        if self.0.len() < 4 { Err(Reason::Malformed) } else { Ok(self.0.get_u32()) }
    }

    pub(super) fn packet_id(&mut self) -> Result<PacketId, Reason> {
        PacketId::new(self.u16()?).ok_or(Reason::Malformed)
    }

    pub(super) fn take(&mut self, length: usize) -> Result<Bytes, Reason> {
        if length > self.0.len() { Err(Reason::Malformed) } else { Ok(self.0.split_to(length)) }
    }

    /// Binary data with a length of two bytes (section 1.5.6 of MQTT 5).
    pub(super) fn binary(&mut self) -> Result<Bytes, Reason> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// A UTF-8 string (section 1.5.4): no NUL; surrogates cannot be, for Rust's check refuses them.
    pub(super) fn text(&mut self) -> Result<String, Reason> {
        let bytes = self.binary()?;
        let text = std::str::from_utf8(&bytes).map_err(|_| Reason::Malformed)?;
        if text.contains('\0') { Err(Reason::Malformed) } else { Ok(text.to_owned()) }
    }

    /// A variable byte integer (section 1.5.5): at most four bytes, in the shortest form.
    pub(super) fn variable(&mut self) -> Result<u32, Reason> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                let padded = byte == 0 && shift > 0;
                return if padded { Err(Reason::Malformed) } else { Ok(value) };
            }
        }
        Err(Reason::Malformed)
    }

    /// The properties of a v5 packet. `allowed` are the identifiers this packet may have; each may come once, but for user
    /// properties (0x26).
    pub(super) fn properties(&mut self, allowed: &[u8]) -> Result<Properties, Reason> {
        let length = self.variable()? as usize;
        let block = self.take(length)?;
        let mut properties = Properties::default();
        let mut fields = Self(block.clone());
        let mut seen: u64 = 0;
        // Where in the block stands what is not passed on.
        let mut kept_back: Vec<Range<usize>> = Vec::new();
        while !fields.0.is_empty() {
            let start = block.len() - fields.0.len();
            let id = fields.variable()?;
            let id = u8::try_from(id).map_err(|_| Reason::Malformed)?;
            if !allowed.contains(&id) {
                // Section 2.2.2.2. Only a server may say which subscriptions a message is for [MQTT-3.3.4-6].
                return Err(if id == 0x0B { Reason::Protocol } else { Reason::Malformed });
            }
            let bit = 1u64.checked_shl(u32::from(id)).unwrap_or(0);
            if seen & bit != 0 && id != 0x26 {
                return Err(Reason::Protocol);
            }
            seen |= bit;
            properties.read(id, &mut fields)?;
            if !PASSED_ON.contains(&id) {
                kept_back.push(start..block.len() - fields.0.len());
            }
        }
        properties.passed_on = without(block, &kept_back);
        Ok(properties)
    }

    pub(super) fn end(&self) -> Result<(), Reason> {
        if self.0.is_empty() { Ok(()) } else { Err(Reason::Malformed) }
    }
}

/// The properties of a message that go to its subscribers as they came (section 3.3.2.3): payload format, content type,
/// response topic, correlation data and user properties.
const PASSED_ON: [u8; 5] = [0x01, 0x03, 0x08, 0x09, 0x26];

fn without(block: Bytes, kept_back: &[Range<usize>]) -> Bytes {
    if kept_back.is_empty() {
        return block;
    }
    let mut rest = Vec::with_capacity(block.len());
    let mut from = 0;
    for range in kept_back {
        rest.extend_from_slice(&block[from..range.start]);
        from = range.end;
    }
    rest.extend_from_slice(&block[from..]);
    rest.into()
}

/// The properties that this server acts on or passes on; the others are read and checked for form.
#[derive(Default, Clone, PartialEq, Eq, Debug)]
pub(super) struct Properties {
    pub(super) receive_maximum: Option<u16>,
    pub(super) max_packet: Option<u32>,
    pub(super) topic_alias: Option<u16>,
    pub(super) topic_alias_maximum: Option<u16>,
    pub(super) session_expiry_secs: Option<u32>,
    pub(super) message_expiry_secs: Option<u32>,
    pub(super) will_delay_secs: Option<u32>,
    pub(super) identifier: Option<u32>,
    pub(super) authentication: bool,
    pub(super) authentication_data: bool,
    /// Encoded as they came.
    pub(super) passed_on: Bytes,
}

impl Properties {
    /// Table 2-4 of MQTT 5.
    fn read(&mut self, id: u8, fields: &mut Fields) -> Result<(), Reason> {
        match id {
            // One byte, 0 or 1: payload format, request problem and response information.
            0x01 | 0x17 | 0x19 => {
                if fields.u8()? > 1 {
                    return Err(Reason::Protocol);
                }
            }
            0x02 => self.message_expiry_secs = Some(fields.u32()?),
            0x11 => self.session_expiry_secs = Some(fields.u32()?),
            0x18 => self.will_delay_secs = Some(fields.u32()?),
            0x03 | 0x1F => {
                fields.text()?;
            }
            // The response topic is one to publish to (sections 3.3.2.3.5 and 4.7.3).
            0x08 => {
                let topic = fields.text()?;
                if topic.is_empty() || topic.contains(['+', '#']) {
                    return Err(Reason::Protocol);
                }
            }
            0x15 => {
                self.authentication = true;
                fields.text()?;
            }
            0x16 => {
                self.authentication_data = true;
                fields.binary()?;
            }
            0x09 => {
                fields.binary()?;
            }
            0x0B => self.identifier = Some(above_zero(fields.variable()?)?),
            0x21 => self.receive_maximum = Some(above_zero(fields.u16()?)?),
            0x22 => self.topic_alias_maximum = Some(fields.u16()?),
            0x23 => self.topic_alias = Some(fields.u16()?),
            0x26 => {
                fields.text()?;
                fields.text()?;
            }
            0x27 => self.max_packet = Some(above_zero(fields.u32()?)?),
            _ => return Err(Reason::Malformed),
        }
        Ok(())
    }
}

fn above_zero<N: PartialEq + Default>(number: N) -> Result<N, Reason> {
    if number == N::default() { Err(Reason::Protocol) } else { Ok(number) }
}
