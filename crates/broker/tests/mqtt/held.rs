//! An intake that answers when the test says so.

use std::sync::Mutex;

use nearside_schemas::{Answer, BoxFuture, Intake};

use crate::support::PATIENCE;

/// Keeps what comes until the test says what became of it; what comes on `free` alone passes.
#[derive(Default)]
pub struct Held(Mutex<Vec<(Vec<nearside_schemas::Publish>, Answer)>>);

impl Intake for Held {
    fn pass(&self, batch: &[nearside_schemas::Publish]) -> bool {
        batch.iter().all(|publish| publish.topic.as_str() == "free")
    }

    fn submit(&self, batch: Vec<nearside_schemas::Publish>, answer: Answer) -> BoxFuture<'_, ()> {
        self.0.lock().unwrap().push((batch, answer));
        Box::pin(std::future::ready(()))
    }
}

impl Held {
    /// The next batch, once it is there.
    pub async fn next(&self) -> (Vec<nearside_schemas::Publish>, Answer) {
        let next = async {
            loop {
                let first = {
                    let mut held = self.0.lock().unwrap();
                    if held.is_empty() { None } else { Some(held.remove(0)) }
                };
                if let Some(first) = first {
                    return first;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, next).await.expect("a batch in time")
    }

    pub fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }
}
