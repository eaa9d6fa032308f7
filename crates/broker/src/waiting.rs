//! Connections that nobody has been let in on yet. Where there is no room for a further one, the one of them that has waited longest
//! makes way: who says nothing keeps nobody out. Who was let in is never ended for somebody else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::packet::Reason;

/// In the order in which they came.
#[derive(Default)]
struct Line {
    next: u64,
    all: BTreeMap<u64, (IpAddr, Arc<Notify>)>,
    of: HashMap<IpAddr, BTreeSet<u64>>,
}

impl Line {
    fn take_out(&mut self, number: u64) -> Option<Arc<Notify>> {
        let (address, ends) = self.all.remove(&number)?;
        if let Some(numbers) = self.of.get_mut(&address) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.of.remove(&address);
            }
        }
        Some(ends)
    }
}

/// All that wait.
#[derive(Default)]
pub(crate) struct Waiting(Mutex<Line>);

impl Waiting {
    /// A new connection, which may take until `handshake_timeout` from now.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr, handshake_timeout: Duration) -> Patience {
        let ends = Arc::new(Notify::new());
        let mut line = self.0.lock();
        let number = line.next;
        line.next += 1;
        line.all.insert(number, (address, ends.clone()));
        line.of.entry(address).or_default().insert(number);
        drop(line);
        Patience { deadline: Instant::now() + handshake_timeout, ends, number, waiting: self.clone() }
    }

    /// Ends the one that has waited longest, of all or of one address. False where none waits.
    pub(crate) fn make_way(&self, of: Option<IpAddr>) -> bool {
        let mut line = self.0.lock();
        let oldest = match of {
            Some(address) => line.of.get(&address).and_then(|numbers| numbers.first().copied()),
            None => line.all.keys().next().copied(),
        };
        let Some(ends) = oldest.and_then(|number| line.take_out(number)) else { return false };
        ends.notify_one();
        true
    }
}

/// How long a new connection is waited for, and that it may have to make way.
pub(crate) struct Patience {
    deadline: Instant,
    ends: Arc<Notify>,
    number: u64,
    waiting: Arc<Waiting>,
}

impl Patience {
    /// Waits for a part of the handshake.
    ///
    /// # Errors
    /// Where the time for all of it is over, or another connection has taken the place of this one.
    pub(crate) async fn wait_for<F: Future>(&self, part: F) -> Result<F::Output, Reason> {
        timeout_at(self.deadline, self.unless_needed(part)).await.unwrap_or(Err(Reason::ConnectTime))
    }

    /// Waits for what has a time of its own.
    ///
    /// # Errors
    /// Where another connection has taken the place of this one.
    pub(crate) async fn unless_needed<F: Future>(&self, part: F) -> Result<F::Output, Reason> {
        tokio::select! {
            biased;
            output = part => Ok(output),
            () = self.ends.notified() => {
                // Whatever is waited for next ends too.
                self.ends.notify_one();
                Err(Reason::MadeWay)
            }
        }
    }

    /// Its client is to be let in: from here on it makes no way. False where it has: its place is another's already.
    #[must_use]
    pub(crate) fn let_in(&self) -> bool {
        self.waiting.0.lock().take_out(self.number).is_some()
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        self.waiting.0.lock().take_out(self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::net::Ipv4Addr;

    use super::*;

    const A: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
    const LONG: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn the_oldest_makes_way_of_all_or_of_an_address() {
        let waiting = Arc::new(Waiting::default());
        let [first, second, third] = [A, B, A].map(|address| waiting.enter(address, LONG));
        assert!(waiting.make_way(Some(B)));
        assert_eq!(second.wait_for(pending::<()>()).await, Err(Reason::MadeWay));
        assert!(!waiting.make_way(Some(B)), "of it nobody else waits");
        assert!(waiting.make_way(None));
        assert_eq!(first.wait_for(ready(7)).await, Ok(7), "what is there at that moment is taken");
        assert!(!first.let_in(), "and then it has no place");
        for _ in 0..2 {
            assert_eq!(first.unless_needed(pending::<()>()).await, Err(Reason::MadeWay), "whatever it waits for");
        }
        assert_eq!(third.wait_for(ready(7)).await, Ok(7));
        assert!(third.let_in());
        assert!(!waiting.make_way(None), "who was let in makes no way");
        let line = waiting.0.lock();
        assert!(line.all.is_empty() && line.of.is_empty());
    }

    #[tokio::test]
    async fn the_time_is_for_all_parts_together() {
        let waiting = Arc::new(Waiting::default());
        let patience = waiting.enter(A, Duration::from_millis(50));
        tokio::time::sleep_until(patience.deadline).await;
        assert_eq!(patience.wait_for(ready(7)).await, Ok(7), "what is there counts");
        assert_eq!(patience.wait_for(pending::<()>()).await, Err(Reason::ConnectTime));
        assert_eq!(patience.unless_needed(tokio::time::sleep(Duration::from_millis(1))).await, Ok(()));
    }
}
