//! Records and their bytes. A record is its type, the length of its body, its body: a reader skips types it does not know.

use bytes::Bytes;
use nearside_schemas::{ClientId, PacketId, Publish, QoS, StreamName, Timestamp, Topic};

/// The number of a record: rises by one, never reused within a data folder.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Lsn(pub u64);

/// What an epoch record marks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EpochKind {
    /// The gateway started.
    Start,
    /// A configuration took effect.
    Configuration,
    /// A set of models took effect.
    Models,
}

/// What the journal holds: everything that can change an outcome (promise I5).
#[derive(Clone, PartialEq, Debug)]
pub enum Record {
    /// A message of a client.
    Publish(Publish),
    /// Time passed.
    Tick(Timestamp),
    /// From here on something else is in force.
    Epoch {
        /// What.
        kind: EpochKind,
        /// Its digest.
        digest: [u8; 32],
        /// When.
        at: Timestamp,
    },
    /// A command was issued; recorded before it is sent (promise I8).
    Command {
        /// Its id as text.
        id: String,
        /// When.
        at: Timestamp,
    },
    /// The windows of these definitions close here, whatever their rows: their definition changes or the gateway stops.
    Close {
        /// The definitions.
        streams: Vec<StreamName>,
        /// Whether they are over for good; otherwise later rows may revise them, where the definition says so.
        for_good: bool,
        /// When.
        at: Timestamp,
    },
}

const PUBLISH: u8 = 1;
const TICK: u8 = 2;
const EPOCH: u8 = 3;
const COMMAND: u8 = 4;
const CLOSE: u8 = 5;

impl Record {
    /// About how many bytes it takes, for the bound of the queue.
    pub fn size(&self) -> usize {
        32 + match self {
            Self::Publish(publish) => {
                publish.payload.len() + publish.topic.as_str().len() + publish.client.as_str().len()
            }
            Self::Command { id, .. } => id.len(),
            Self::Close { streams, .. } => streams.iter().map(|name| 2 + name.as_str().len()).sum(),
            Self::Tick(_) | Self::Epoch { .. } => 32,
        }
    }

    /// Appends the record's bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let kind = match self {
            Self::Publish(_) => PUBLISH,
            Self::Tick(_) => TICK,
            Self::Epoch { .. } => EPOCH,
            Self::Command { .. } => COMMAND,
            Self::Close { .. } => CLOSE,
        };
        out.push(kind);
        let length_at = out.len();
        out.extend([0; 4]);
        match self {
            Self::Publish(publish) => encode_publish(publish, out),
            Self::Tick(at) => out.extend(at.as_micros().to_le_bytes()),
            Self::Epoch { kind, digest, at } => {
                out.push(*kind as u8);
                out.extend(digest);
                out.extend(at.as_micros().to_le_bytes());
            }
            Self::Command { id, at } => {
                out.extend(at.as_micros().to_le_bytes());
                out.extend(id.as_bytes());
            }
            Self::Close { streams, for_good, at } => {
                out.extend(at.as_micros().to_le_bytes());
                out.push(u8::from(*for_good));
                for name in streams {
                    // Names have at most 64 bytes.
                    out.extend((name.as_str().len() as u16).to_le_bytes());
                    out.extend(name.as_str().as_bytes());
                }
            }
        }
        let length = (out.len() - length_at - 4) as u32;
        out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// Reads the record at the front of `bytes` and moves past it. `Ok(None)`: a type this version does not know.
    pub(crate) fn decode(bytes: &mut Bytes) -> Result<Option<Self>, Malformed> {
        let mut fields = Fields(bytes.clone());
        let kind = fields.byte()?;
        let length = u32::from_le_bytes(fields.array()?) as usize;
        let body = fields.take(length)?;
        *bytes = fields.0;
        let mut body = Fields(body);
        Ok(Some(match kind {
            PUBLISH => Self::Publish(decode_publish(&mut body)?),
            TICK => Self::Tick(body.time()?),
            EPOCH => {
                let kind = match body.byte()? {
                    0 => EpochKind::Start,
                    1 => EpochKind::Configuration,
                    2 => EpochKind::Models,
                    _ => return Ok(None),
                };
                Self::Epoch { kind, digest: body.array()?, at: body.time()? }
            }
            COMMAND => {
                let at = body.time()?;
                Self::Command { id: body.text(body.0.len())?, at }
            }
            CLOSE => {
                let at = body.time()?;
                let for_good = body.byte()? != 0;
                let mut streams = Vec::new();
                while !body.0.is_empty() {
                    let length = u16::from_le_bytes(body.array()?) as usize;
                    streams.push(StreamName::new(&body.text(length)?).map_err(|_| Malformed)?);
                }
                Self::Close { streams, for_good, at }
            }
            _ => return Ok(None),
        }))
    }
}

/// Receipt, flags (QoS in bits 0 and 1, retain in bit 2), packet id, lengths of client and topic, client, topic, payload.
fn encode_publish(publish: &Publish, out: &mut Vec<u8>) {
    let (client, topic) = (publish.client.as_str().as_bytes(), publish.topic.as_str().as_bytes());
    out.extend(publish.received.as_micros().to_le_bytes());
    out.push(publish.qos as u8 | (u8::from(publish.retain) << 2));
    out.extend(publish.packet_id.map_or(0, PacketId::get).to_le_bytes());
    // Both come in MQTT strings, which have at most 65,535 bytes.
    out.extend((client.len() as u16).to_le_bytes());
    out.extend((topic.len() as u16).to_le_bytes());
    out.extend(client);
    out.extend(topic);
    out.extend(&publish.payload[..]);
}

fn decode_publish(body: &mut Fields) -> Result<Publish, Malformed> {
    let received = body.time()?;
    let flags = body.byte()?;
    let packet_id = PacketId::new(u16::from_le_bytes(body.array()?));
    let client = u16::from_le_bytes(body.array()?) as usize;
    let topic = u16::from_le_bytes(body.array()?) as usize;
    let client = ClientId::new(&body.text(client)?);
    let topic = Topic::new(&body.text(topic)?).map_err(|_| Malformed)?;
    let qos = QoS::try_from(flags & 3).map_err(|_| Malformed)?;
    Ok(Publish { client, topic, payload: body.0.clone(), qos, packet_id, retain: flags & 4 != 0, received })
}

/// The bytes are not what a record looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

struct Fields(Bytes);

impl Fields {
    fn take(&mut self, length: usize) -> Result<Bytes, Malformed> {
        if length > self.0.len() { Err(Malformed) } else { Ok(self.0.split_to(length)) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.as_ref().try_into().map_err(|_| Malformed)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    fn time(&mut self) -> Result<Timestamp, Malformed> {
        Ok(Timestamp::from_micros(i64::from_le_bytes(self.array()?)))
    }

    fn text(&mut self, length: usize) -> Result<String, Malformed> {
        String::from_utf8(self.take(length)?.to_vec()).map_err(|_| Malformed)
    }
}
