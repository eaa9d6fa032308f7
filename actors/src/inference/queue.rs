//! The queue between streams and one worker: the lanes behind a lock, and whom to wake.
//!
//! Promises: the worker is woken only for the first job and for a full batch, so a burst costs one waking; when all senders are gone the
//! worker gets what waits and then the end; when the worker is gone a job comes back to who gave it.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::lanes::{Bounds, Lanes, Work};

struct State<W> {
    lanes: Lanes<W>,
    senders: usize,
    has_worker: bool,
}

struct Shared<W> {
    state: Mutex<State<W>>,
    changed: Condvar,
    max_batch: usize,
}

/// The streams' end.
pub struct Sender<W>(Arc<Shared<W>>);

/// The worker's end.
pub struct Receiver<W>(Arc<Shared<W>>);

/// What became of a job.
pub enum Sent<W> {
    /// It waits.
    Waits,
    /// It waits without its rows: its lane was full.
    Shed,
    /// There is no worker.
    Back(W),
}

/// A queue.
pub fn queue<W: Work>(bounds: Bounds) -> (Sender<W>, Receiver<W>) {
    let state = State { lanes: Lanes::new(bounds), senders: 1, has_worker: true };
    let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), max_batch: bounds.max_batch });
    (Sender(shared.clone()), Receiver(shared))
}

impl<W: Work> Sender<W> {
    /// Puts a job into its lane.
    pub fn send(&self, work: W, now: Instant) -> Sent<W> {
        let mut state = self.0.state.lock();
        if !state.has_worker {
            return Sent::Back(work);
        }
        let before = state.lanes.rows();
        let was_empty = state.lanes.len() == 0;
        let kept = state.lanes.push(work, now);
        let is_full = before < self.0.max_batch && state.lanes.rows() >= self.0.max_batch;
        drop(state);
        if was_empty || is_full {
            self.0.changed.notify_one();
        }
        if kept { Sent::Waits } else { Sent::Shed }
    }

    /// Whether there is a worker.
    pub fn has_worker(&self) -> bool {
        self.0.state.lock().has_worker
    }

    /// Jobs that wait.
    pub fn len(&self) -> usize {
        self.0.state.lock().lanes.len()
    }
}

impl<W> Clone for Sender<W> {
    fn clone(&self) -> Self {
        self.0.state.lock().senders += 1;
        Self(self.0.clone())
    }
}

impl<W> Drop for Sender<W> {
    fn drop(&mut self) {
        self.0.state.lock().senders -= 1;
        self.0.changed.notify_one();
    }
}

impl<W: Work> Receiver<W> {
    /// Waits for the next batch; false at the end.
    pub fn take(&self, batch: &mut Vec<W>) -> bool {
        let mut state = self.0.state.lock();
        loop {
            let now = Instant::now();
            match state.lanes.due() {
                Some(due) if due <= now || state.senders == 0 => {
                    state.lanes.take(now, batch);
                    return true;
                }
                Some(due) => drop(self.0.changed.wait_until(&mut state, due)),
                None if state.senders == 0 => return false,
                None => self.0.changed.wait(&mut state),
            }
        }
    }
}

impl<W> Drop for Receiver<W> {
    fn drop(&mut self) {
        // What waits holds credit: it is given back outside the lock.
        let mut state = self.0.state.lock();
        state.has_worker = false;
        let left = state.lanes.drain();
        drop(state);
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::lanes::Priority;
    use super::*;

    struct Row(u32);

    impl Work for Row {
        fn rows(&self) -> usize {
            1
        }

        fn priority(&self) -> Priority {
            Priority::Ordinary
        }

        fn drop_rows(&mut self) {}
    }

    fn bounds(max_wait: Duration) -> Bounds {
        Bounds { max_batch: 8, max_wait, rows: 1_000 }
    }

    #[test]
    fn everything_sent_from_many_threads_arrives_in_order_and_then_the_end() {
        let (sender, receiver) = queue(bounds(Duration::from_micros(50)));
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    for n in 0..200 {
                        assert!(matches!(sender.send(Row(thread * 1_000 + n), Instant::now()), Sent::Waits));
                    }
                })
            })
            .collect();
        drop(sender);
        let (mut all, mut batch) = (Vec::new(), Vec::new());
        while receiver.take(&mut batch) {
            assert!(batch.len() <= 8);
            all.extend(batch.drain(..).map(|row| row.0));
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        for thread in 0..4 {
            let of_thread: Vec<u32> = all.iter().copied().filter(|id| id / 1_000 == thread).collect();
            assert!(of_thread.iter().copied().eq((0..200).map(|n| thread * 1_000 + n)), "thread {thread}");
        }
    }

    /// With a wait longer than any test: only a full batch wakes the worker.
    #[test]
    fn a_full_batch_goes_at_once() {
        let (sender, receiver) = queue(bounds(Duration::from_secs(3_600)));
        let worker = std::thread::spawn(move || {
            let mut batch = Vec::new();
            receiver.take(&mut batch);
            batch.len()
        });
        (0..8).for_each(|n| assert!(matches!(sender.send(Row(n), Instant::now()), Sent::Waits)));
        assert_eq!(worker.join().unwrap(), 8);
        assert!(!sender.has_worker());
        assert!(matches!(sender.send(Row(9), Instant::now()), Sent::Back(Row(9))), "nobody would answer it");
    }

    #[test]
    fn what_waits_is_dropped_with_its_worker() {
        let (sender, receiver) = queue(bounds(Duration::from_secs(3_600)));
        sender.send(Row(0), Instant::now());
        assert_eq!(sender.len(), 1);
        drop(receiver);
        assert_eq!(sender.len(), 0);
    }
}
