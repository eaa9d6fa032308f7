//! One connection's turn on its thread.
//!
//! A message to a subscriber, or an acknowledgement, wakes the task that writes it. Where that task is one of the thread that is just
//! handing the message over, it would run next in any case: so what is rung for in a turn is written at the end of the turn by whoever has the turn, and
//! no task is woken. What the socket does not take at once stays its own writer's.
//!
//! Never: anything is awaited in a turn, or another thread's connection written to.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::ThreadId;

use tokio::sync::Notify;

thread_local! {
    /// The bells that were rung in the turn, while there is one.
    static RUNG: RefCell<Option<(ThreadId, Vec<Arc<Bell>>)>> = const { RefCell::new(None) };
}

/// A turn; ends when dropped, also by a panic.
pub(crate) struct Turn {
    /// False within another.
    is_outer: bool,
}

impl Turn {
    /// Begins one on this thread.
    pub(crate) fn begin() -> Self {
        let is_outer = RUNG.with_borrow_mut(|rung| {
            let is_outer = rung.is_none();
            rung.get_or_insert_with(|| (std::thread::current().id(), Vec::new()));
            is_outer
        });
        Self { is_outer }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let rung = if self.is_outer { RUNG.take() } else { None };
        let mut bells = Rung(rung.map(|(_, bells)| bells).unwrap_or_default());
        // Taken from the end, the first that was rung comes first.
        bells.0.reverse();
        bells.0.iter().for_each(|bell| bell.waits.store(false, Ordering::Release));
        while let Some(bell) = bells.0.last() {
            let writer = bell.writer.get().and_then(Weak::upgrade);
            if std::thread::panicking() || !writer.is_some_and(|writer| writer.write_at_once()) {
                bell.told.notify_one();
            }
            bells.0.pop();
        }
    }
}

/// Bells whose writers have not written. A panic of one leaves none of the others untold.
struct Rung(Vec<Arc<Bell>>);

impl Drop for Rung {
    fn drop(&mut self) {
        self.0.iter().for_each(|bell| bell.told.notify_one());
    }
}

/// Whoever writes to a connection.
pub(crate) trait WriteAtOnce: Send + Sync {
    /// Writes what there is, without waiting. False where something is left to do.
    fn write_at_once(&self) -> bool;
}

/// Rung when a connection has something to write. Belongs to the thread that makes it.
pub(crate) struct Bell {
    told: Notify,
    thread: ThreadId,
    writer: OnceLock<Weak<dyn WriteAtOnce>>,
    /// It stands in its thread's turn.
    waits: AtomicBool,
}

impl Default for Bell {
    fn default() -> Self {
        Self {
            told: Notify::new(),
            thread: std::thread::current().id(),
            writer: OnceLock::new(),
            waits: AtomicBool::new(false),
        }
    }
}

impl Bell {
    /// Whom it rings for.
    pub(crate) fn belongs_to(&self, writer: &Arc<impl WriteAtOnce + 'static>) {
        let writer = Arc::downgrade(writer);
        self.writer.get_or_init(|| writer);
    }

    /// There is something to write.
    pub(crate) fn ring(self: &Arc<Self>) {
        let in_turn = RUNG.with_borrow_mut(|rung| match rung {
            Some((thread, bells)) if *thread == self.thread => {
                if !self.waits.swap(true, Ordering::AcqRel) {
                    bells.push(self.clone());
                }
                true
            }
            _ => false,
        });
        if !in_turn {
            self.told.notify_one();
        }
    }

    /// Waits until it was rung.
    pub(crate) async fn rung(&self) {
        self.told.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Counts {
        writes: AtomicUsize,
        takes_none: AtomicBool,
    }

    impl WriteAtOnce for Counts {
        fn write_at_once(&self) -> bool {
            assert!(RUNG.with_borrow(Option::is_none), "the turn is over");
            self.writes.fetch_add(1, Ordering::AcqRel);
            !self.takes_none.load(Ordering::Acquire)
        }
    }

    fn bell() -> (Arc<Bell>, Arc<Counts>) {
        let (bell, counts) = (Arc::<Bell>::default(), Arc::<Counts>::default());
        bell.belongs_to(&counts);
        (bell, counts)
    }

    /// Whether its task was told; then it is not any more.
    async fn is_told(bell: &Bell) -> bool {
        tokio::select! {
            biased;
            () = bell.rung() => true,
            () = std::future::ready(()) => false,
        }
    }

    #[tokio::test]
    async fn a_turn_writes_at_its_end_and_once() {
        let (bell, counts) = bell();
        let turn = Turn::begin();
        drop(Turn::begin());
        bell.ring();
        bell.ring();
        assert_eq!(counts.writes.load(Ordering::Acquire), 0);
        drop(turn);
        assert_eq!(counts.writes.load(Ordering::Acquire), 1);
        assert!(!is_told(&bell).await, "nothing is left to do");
        counts.takes_none.store(true, Ordering::Release);
        let turn = Turn::begin();
        bell.ring();
        drop(turn);
        assert_eq!((counts.writes.load(Ordering::Acquire), is_told(&bell).await), (2, true));
        bell.ring();
        assert_eq!((counts.writes.load(Ordering::Acquire), is_told(&bell).await), (2, true), "no turn, its task");
    }

    #[tokio::test]
    async fn another_threads_connection_is_not_written_to() {
        let (bell, counts) = std::thread::spawn(bell).join().unwrap();
        let turn = Turn::begin();
        bell.ring();
        drop(turn);
        assert_eq!((counts.writes.load(Ordering::Acquire), is_told(&bell).await), (0, true));
    }

    #[tokio::test]
    async fn a_turn_that_panics_forgets_nobody() {
        let (bell, counts) = bell();
        let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _turn = Turn::begin();
            bell.ring();
            panic!("in the turn");
        }));
        assert!(panics.is_err());
        assert_eq!((counts.writes.load(Ordering::Acquire), is_told(&bell).await), (0, true));
        drop(Turn::begin());
        bell.ring();
        assert!(is_told(&bell).await, "the turn is over");
    }
}
