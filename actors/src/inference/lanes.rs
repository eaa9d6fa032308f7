//! What waits for one worker of a model: two lanes, medical before ordinary.
//!
//! Promises: jobs of a lane leave in the order they came; a batch goes when it is full or its oldest job has waited `max_wait`; medical
//! jobs go first, and an ordinary one that has waited [`PATIENCE`] times `max_wait` goes with the next batch all the same, so nobody
//! waits for ever; a lane holds at most `bound` rows (promise I4): a job beyond it keeps its place and loses its rows, so answers stay
//! in order.
//! Never: a job is lost; the clock is read.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Waits of `max_wait` after which an ordinary job goes before medical ones.
const PATIENCE: u32 = 8;

/// Who goes first where streams wait for the same model.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Patients: before all others.
    Medical,
    /// All others.
    #[default]
    Ordinary,
}

/// What waits.
pub trait Work {
    /// How many rows it has.
    fn rows(&self) -> usize;

    /// Its lane.
    fn priority(&self) -> Priority;

    /// Gives up its rows; it will be answered without outputs.
    fn drop_rows(&mut self);
}

/// The bounds of what waits.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Rows from which on a batch is full.
    pub max_batch: usize,
    /// How long a job waits for others.
    pub max_wait: Duration,
    /// Most rows that wait in a lane.
    pub rows: usize,
}

/// The two lanes.
pub struct Lanes<W> {
    bounds: Bounds,
    medical: Lane<W>,
    ordinary: Lane<W>,
}

struct Lane<W> {
    waiting: VecDeque<(Instant, W)>,
    rows: usize,
}

impl<W> Lane<W> {
    const fn new() -> Self {
        Self { waiting: VecDeque::new(), rows: 0 }
    }
}

impl<W: Work> Lane<W> {
    fn oldest(&self) -> Option<Instant> {
        self.waiting.front().map(|(since, _)| *since)
    }

    fn pop(&mut self) -> Option<W> {
        let (_, work) = self.waiting.pop_front()?;
        self.rows -= work.rows();
        Some(work)
    }
}

impl<W: Work> Lanes<W> {
    /// With nothing in them.
    pub const fn new(bounds: Bounds) -> Self {
        Self { bounds, medical: Lane::new(), ordinary: Lane::new() }
    }

    /// Takes a job that came at `now`. False where its lane was full and its rows are gone.
    pub fn push(&mut self, mut work: W, now: Instant) -> bool {
        let bound = self.bounds.rows;
        let lane = match work.priority() {
            Priority::Medical => &mut self.medical,
            Priority::Ordinary => &mut self.ordinary,
        };
        // A job larger than the bound is taken alone: else it never could be.
        let fits = lane.rows == 0 || lane.rows + work.rows() <= bound;
        if !fits {
            work.drop_rows();
        }
        lane.rows += work.rows();
        lane.waiting.push_back((now, work));
        fits
    }

    /// When the next batch goes: the past where it is full already; `None` where nothing waits.
    pub fn due(&self) -> Option<Instant> {
        let oldest = self.medical.oldest().into_iter().chain(self.ordinary.oldest()).min()?;
        if self.rows() >= self.bounds.max_batch { Some(oldest) } else { Some(oldest + self.bounds.max_wait) }
    }

    /// Moves the jobs of the next batch to `batch`: until it is full or nothing waits. The last may make it larger.
    pub fn take(&mut self, now: Instant, batch: &mut Vec<W>) {
        let patience = self.bounds.max_wait * PATIENCE;
        let is_starved = |since: Instant| now.saturating_duration_since(since) >= patience;
        let mut rows = 0;
        if self.ordinary.oldest().is_some_and(is_starved)
            && let Some(work) = self.ordinary.pop()
        {
            rows += work.rows();
            batch.push(work);
        }
        while rows < self.bounds.max_batch
            && let Some(work) = self.medical.pop().or_else(|| self.ordinary.pop())
        {
            rows += work.rows();
            batch.push(work);
        }
    }

    /// Rows that wait.
    pub const fn rows(&self) -> usize {
        self.medical.rows + self.ordinary.rows
    }

    /// Jobs that wait.
    pub fn len(&self) -> usize {
        self.medical.waiting.len() + self.ordinary.waiting.len()
    }
}

impl<W> Lanes<W> {
    /// Gives up what waits.
    pub fn drain(&mut self) -> impl Sized + use<W> {
        [&mut self.medical, &mut self.ordinary].map(|lane| std::mem::replace(lane, Lane::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Job {
        id: usize,
        rows: usize,
        priority: Priority,
    }

    impl Work for Job {
        fn rows(&self) -> usize {
            self.rows
        }

        fn priority(&self) -> Priority {
            self.priority
        }

        fn drop_rows(&mut self) {
            self.rows = 0;
        }
    }

    fn medical(id: usize) -> Job {
        Job { id, rows: 1, priority: Priority::Medical }
    }

    fn ordinary(id: usize) -> Job {
        Job { id, rows: 1, priority: Priority::Ordinary }
    }

    const WAIT: Duration = Duration::from_millis(5);

    fn lanes() -> (Lanes<Job>, Instant) {
        (Lanes::new(Bounds { max_batch: 4, max_wait: WAIT, rows: 6 }), Instant::now())
    }

    fn batch(lanes: &mut Lanes<Job>, now: Instant) -> Vec<usize> {
        let mut batch = Vec::new();
        lanes.take(now, &mut batch);
        batch.iter().map(|job| job.id).collect()
    }

    #[test]
    fn a_batch_goes_when_it_is_full_or_its_oldest_job_has_waited() {
        let (mut lanes, start) = lanes();
        assert_eq!(lanes.due(), None);
        lanes.push(ordinary(0), start);
        lanes.push(medical(1), start + WAIT / 2);
        assert_eq!(lanes.due(), Some(start + WAIT), "the oldest counts, whatever its lane");
        lanes.push(ordinary(2), start + WAIT / 2);
        lanes.push(ordinary(3), start + WAIT / 2);
        assert_eq!(lanes.due(), Some(start), "it is full");
        lanes.push(ordinary(4), start + WAIT / 2);
        assert_eq!(batch(&mut lanes, start + WAIT / 2), [1, 0, 2, 3], "at most max_batch rows");
        assert_eq!(lanes.due(), Some(start + WAIT / 2 + WAIT));
        assert_eq!(batch(&mut lanes, start + WAIT * 2), [4]);
        assert_eq!((lanes.rows(), lanes.len(), lanes.due()), (0, 0, None));
    }

    #[test]
    fn medical_jobs_go_first_and_each_lane_keeps_its_order() {
        let (mut lanes, start) = lanes();
        (0..5).for_each(|id| assert!(lanes.push(ordinary(id), start)));
        (10..15).for_each(|id| assert!(lanes.push(medical(id), start)));
        assert_eq!(batch(&mut lanes, start), [10, 11, 12, 13]);
        assert_eq!(batch(&mut lanes, start), [14, 0, 1, 2]);
        assert_eq!(batch(&mut lanes, start), [3, 4]);
    }

    #[test]
    fn under_endless_medical_load_an_ordinary_job_goes_after_a_while() {
        let (mut lanes, start) = lanes();
        lanes.push(ordinary(0), start);
        lanes.push(ordinary(1), start);
        let mut went = Vec::new();
        for step in 1..=10 {
            let now = start + WAIT * step;
            (0..4).for_each(|id| assert!(lanes.push(medical(100 + id), now)));
            if batch(&mut lanes, now).iter().any(|id| *id < 100) {
                went.push(step);
            }
        }
        assert_eq!(went, [PATIENCE, PATIENCE + 1]);
    }

    #[test]
    fn a_full_lane_takes_the_job_without_its_rows_and_the_other_lane_has_room() {
        let (mut lanes, start) = lanes();
        (0..6).for_each(|id| assert!(lanes.push(ordinary(id), start)));
        assert!(!lanes.push(ordinary(6), start));
        assert!(lanes.push(medical(7), start));
        assert_eq!((lanes.rows(), lanes.len()), (7, 8));
        assert_eq!(batch(&mut lanes, start), [7, 0, 1, 2]);
        let mut rest = Vec::new();
        lanes.take(start, &mut rest);
        assert_eq!(rest.iter().map(|job| (job.id, job.rows)).collect::<Vec<_>>(), [(3, 1), (4, 1), (5, 1), (6, 0)]);
        assert!(lanes.push(Job { rows: 50, ..ordinary(8) }, start), "one larger than the bound, alone");
    }
}
