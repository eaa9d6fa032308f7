//! Messages that wait for a subscriber, and the memory that they may take: of one session, and of all together (promise I4).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::message::Message;

/// Memory of all sessions' messages.
pub(crate) struct SharedBudget {
    used: AtomicUsize,
    most: usize,
}

impl SharedBudget {
    pub(crate) const fn new(most: usize) -> Self {
        Self { used: AtomicUsize::new(0), most }
    }

    /// Bytes that are held.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// Memory of one session's messages, which is part of that of all.
pub(crate) struct Budget {
    used: AtomicUsize,
    most: usize,
    all: Arc<SharedBudget>,
}

impl Budget {
    pub(crate) const fn new(most: usize, all: Arc<SharedBudget>) -> Self {
        Self { used: AtomicUsize::new(0), most, all }
    }

    /// Whether more is held than may be, here or in all.
    pub(crate) fn is_exceeded(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.most || self.all.used() > self.all.most
    }

    /// Holds a message, in the queue or on its way, until it is dropped.
    pub(crate) fn hold(self: &Arc<Self>, message: Message) -> Held {
        let size = message.size();
        self.used.fetch_add(size, Ordering::Relaxed);
        self.all.used.fetch_add(size, Ordering::Relaxed);
        Held { message, size, budget: self.clone() }
    }
}

/// A message that counts against a budget.
pub(crate) struct Held {
    pub(crate) message: Message,
    size: usize,
    budget: Arc<Budget>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.size, Ordering::Relaxed);
        self.budget.all.used.fetch_sub(self.size, Ordering::Relaxed);
    }
}

/// A message that waits.
pub(crate) struct Queued {
    /// 0 for QoS 0.
    pub(crate) position: u64,
    pub(crate) held: Held,
    /// It was sent before, or may have been.
    pub(crate) duplicate: bool,
}
