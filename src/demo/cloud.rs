//! The stand-in for the cloud: takes each event once, by id, as a cloud does.

use std::collections::HashSet;
use std::sync::Mutex;

use nearside_schemas::Publish;
use serde::Deserialize;

/// What arrived.
#[derive(Default)]
pub struct Cloud(Mutex<Received>);

#[derive(Default)]
struct Received {
    ids: HashSet<String>,
    bytes: u64,
}

#[derive(Deserialize)]
struct Head {
    id: String,
}

impl Cloud {
    /// Takes what the gateway sent. An event that came before is passed over: delivery is at least once.
    pub fn take(&self, batch: &[Publish]) {
        let Ok(mut received) = self.0.lock() else { return };
        for publish in batch {
            let Ok(head) = serde_json::from_slice::<Head>(&publish.payload) else { continue };
            if received.ids.insert(head.id) {
                received.bytes += publish.payload.len() as u64;
            }
        }
    }

    /// Events and their bytes.
    pub fn received(&self) -> (u64, u64) {
        self.0.lock().map_or((0, 0), |received| (received.ids.len() as u64, received.bytes))
    }
}
