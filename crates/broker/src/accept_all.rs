//! An intake that calls everything durable at once: for a stand-in cloud and for tests, never for a gateway.

use nearside_schemas::{Answer, BoxFuture, Durability, Intake, Publish};

type Seen = Box<dyn Fn(&[Publish]) + Send + Sync>;

/// Answers at once, and shows each batch to a callback.
pub struct AcceptAll {
    seen: Option<Seen>,
}

impl AcceptAll {
    /// Shows nothing to anybody.
    pub const fn new() -> Self {
        Self { seen: None }
    }

    /// Shows each batch to `seen`.
    pub fn watching(seen: impl Fn(&[Publish]) + Send + Sync + 'static) -> Self {
        Self { seen: Some(Box::new(seen)) }
    }
}

impl Default for AcceptAll {
    fn default() -> Self {
        Self::new()
    }
}

impl Intake for AcceptAll {
    fn submit(&self, batch: Vec<Publish>, answer: Answer) -> BoxFuture<'_, ()> {
        if let Some(seen) = &self.seen {
            seen(&batch);
        }
        answer(Durability::Durable { below: 0 });
        Box::pin(std::future::ready(()))
    }
}
