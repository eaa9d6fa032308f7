//! A broker of a few lines that answers each publish as it is told: MQTT 5, QoS 1, as much as the uplink uses.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What it does with the nth publish of an id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Does {
    /// PUBACK with this reason code.
    Answer(u8),
    /// PUBACK for a packet id that nobody used.
    AnswerAnother,
}

type Decide = Arc<dyn Fn(&str, usize) -> Does + Send + Sync>;

/// Id and answer of each publish, in order.
pub type Log = Arc<Mutex<Vec<(String, Does)>>>;

/// Starts one; `decide` is given an id and how often it came before.
pub async fn start(decide: impl Fn(&str, usize) -> Does + Send + Sync + 'static) -> (SocketAddr, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (log, decide): (Log, Decide) = (Log::default(), Arc::new(decide));
    let kept = log.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, decide.clone(), kept.clone()));
        }
    });
    (address, log)
}

async fn serve(mut stream: TcpStream, decide: Decide, log: Log) -> Option<()> {
    loop {
        let (kind, body) = packet(&mut stream).await?;
        match kind >> 4 {
            // CONNECT: accepted, without properties.
            1 => stream.write_all(&[0x20, 3, 0, 0, 0]).await.ok()?,
            3 => {
                let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let id = [body[2 + topic], body[3 + topic]];
                let properties = usize::from(body[4 + topic]);
                let event: serde_json::Value = serde_json::from_slice(&body[5 + topic + properties..]).ok()?;
                let name = event["id"].as_str()?.to_owned();
                let does = {
                    let mut log = log.lock().unwrap();
                    let mut counts = HashMap::new();
                    log.iter().for_each(|(name, _): &(String, Does)| *counts.entry(name.clone()).or_insert(0) += 1);
                    let does = decide(&name, counts.get(&name).copied().unwrap_or(0));
                    log.push((name, does));
                    does
                };
                let answer = match does {
                    Does::Answer(0) => vec![0x40, 2, id[0], id[1]],
                    Does::Answer(reason) => vec![0x40, 3, id[0], id[1], reason],
                    Does::AnswerAnother => vec![0x40, 2, 0, 200],
                };
                stream.write_all(&answer).await.ok()?;
            }
            12 => stream.write_all(&[0xD0, 0]).await.ok()?,
            _ => return None,
        }
    }
}

/// First byte and body of the next packet.
async fn packet(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let kind = stream.read_u8().await.ok()?;
    let (mut length, mut shift) = (0usize, 0);
    loop {
        let byte = stream.read_u8().await.ok()?;
        length |= usize::from(byte & 0x7F) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((kind, body))
}
