//! Writing to the connections of one thread.
//!
//! A message to a subscriber, or an acknowledgement, waits for the task that writes it. To wake that task costs more than to write, and the
//! first of several messages would go out alone. So what there is for a connection is written by one task of its thread, the flusher, once those that
//! were ready before have run: all of it with one call. What the socket does not take at once stays the connection's own writer's; so does
//! what other threads have for it.
//!
//! Promises: whoever was rung for is written to or its own task is told, whatever becomes of others: a panic of one writer costs no other.
//! Never: another thread's connection is written to; the thread is kept for more than a few writes at a time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Waker};
use std::thread::ThreadId;

use tokio::sync::Notify;

/// Connections written to before others of the thread have their turn; below what the runtime grants a task at a time.
const AT_ONCE: usize = 100;

thread_local! {
    /// What the flusher of this thread is to do; none where there is no flusher.
    static RUNG: RefCell<Option<Rung>> = const { RefCell::new(None) };
}

struct Rung {
    thread: ThreadId,
    bells: VecDeque<Arc<Bell>>,
    flusher: Waker,
}

/// The flusher of the thread that polls this. It never ends.
pub(crate) async fn flush() {
    poll_fn(flush_some).await
}

fn flush_some(context: &mut Context<'_>) -> Poll<()> {
    let waiting = RUNG.with_borrow_mut(|rung| {
        let rung = rung.get_or_insert_with(|| Rung {
            thread: std::thread::current().id(),
            bells: VecDeque::new(),
            flusher: context.waker().clone(),
        });
        rung.bells.len()
    });
    // Not those that are rung while these are written to.
    for _ in 0..waiting.min(AT_ONCE) {
        let next = RUNG.with_borrow_mut(|rung| rung.as_mut()?.bells.pop_front());
        let Some(bell) = next else { break };
        // First, so that who rings from now on is heard.
        bell.waits.store(false, Ordering::Release);
        let writer = bell.writer.get().and_then(Weak::upgrade);
        let is_done = catch_unwind(AssertUnwindSafe(|| writer.is_some_and(|writer| writer.write_at_once())));
        if !is_done.unwrap_or(false) {
            bell.told.notify_one();
        }
    }
    if RUNG.with_borrow(|rung| rung.as_ref().is_some_and(|rung| !rung.bells.is_empty())) {
        context.waker().wake_by_ref();
    }
    Poll::Pending
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
    /// Its thread's flusher will come to it.
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
        let is_left_to_flusher = RUNG.with_borrow_mut(|rung| match rung {
            Some(rung) if rung.thread == self.thread => {
                if !self.waits.swap(true, Ordering::AcqRel) {
                    rung.bells.push_back(self.clone());
                    if rung.bells.len() == 1 {
                        rung.flusher.wake_by_ref();
                    }
                }
                true
            }
            _ => false,
        });
        if !is_left_to_flusher {
            self.told.notify_one();
        }
    }

    /// Waits until the connection's own task is to write.
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
        panics: AtomicBool,
    }

    impl Counts {
        fn writes(&self) -> usize {
            self.writes.load(Ordering::Acquire)
        }
    }

    impl WriteAtOnce for Counts {
        fn write_at_once(&self) -> bool {
            assert!(!self.panics.load(Ordering::Acquire), "in a writer");
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

    /// On a thread with a flusher.
    fn with_flusher(work: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.spawn(flush());
        runtime.block_on(async {
            tokio::task::yield_now().await;
            work.await;
        });
        RUNG.take();
    }

    #[test]
    fn the_flusher_writes_once_for_all_that_was_rung_for() {
        with_flusher(async {
            let (bell, counts) = bell();
            bell.ring();
            bell.ring();
            assert_eq!(counts.writes(), 0);
            tokio::task::yield_now().await;
            assert_eq!((counts.writes(), is_told(&bell).await), (1, false), "nothing is left to do");
            counts.takes_none.store(true, Ordering::Release);
            bell.ring();
            tokio::task::yield_now().await;
            assert_eq!((counts.writes(), is_told(&bell).await), (2, true));
        });
    }

    #[test]
    fn many_are_written_to_in_several_turns_and_none_is_forgotten() {
        let mut context = Context::from_waker(Waker::noop());
        assert!(flush_some(&mut context).is_pending());
        let all: Vec<_> = (0..3 * AT_ONCE).map(|_| bell()).collect();
        all.iter().for_each(|(bell, _)| bell.ring());
        for turn in 1..=3 {
            assert!(flush_some(&mut context).is_pending());
            assert_eq!(all.iter().filter(|(_, counts)| counts.writes() == 1).count(), turn * AT_ONCE);
        }
        RUNG.take();
    }

    #[test]
    fn other_threads_connections_are_their_own() {
        with_flusher(async {
            let (bell, counts) = std::thread::spawn(bell).join().unwrap();
            bell.ring();
            tokio::task::yield_now().await;
            assert_eq!((counts.writes(), is_told(&bell).await), (0, true));
        });
        with_flusher(async {
            let (bell, counts) = bell();
            std::thread::scope(|scope| scope.spawn(|| bell.ring()).join().unwrap());
            tokio::task::yield_now().await;
            assert_eq!((counts.writes(), is_told(&bell).await), (0, true));
        });
    }

    #[test]
    fn a_writer_that_panics_costs_no_other() {
        with_flusher(async {
            let ((ill, counts), (well, others)) = (bell(), bell());
            counts.panics.store(true, Ordering::Release);
            ill.ring();
            well.ring();
            tokio::task::yield_now().await;
            assert!(is_told(&ill).await);
            assert_eq!((others.writes(), is_told(&well).await), (1, false));
            counts.panics.store(false, Ordering::Release);
            ill.ring();
            tokio::task::yield_now().await;
            assert_eq!(counts.writes(), 1);
        });
    }

    #[tokio::test]
    async fn without_a_flusher_its_own_task_is_told() {
        let (bell, counts) = bell();
        bell.ring();
        assert_eq!((counts.writes(), is_told(&bell).await), (0, true));
    }
}
