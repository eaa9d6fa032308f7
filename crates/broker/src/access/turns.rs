//! Turns to compute a hash, a few at a time: addresses take turns, and what waits of one is bounded.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Hashes computed at a time.
const AT_ONCE: usize = 2;
/// Most that wait of one address, and of one name of it.
const MOST_WAITING: usize = 256;
const MOST_OF_A_NAME: usize = 2;

struct Waiter {
    name: Box<str>,
    turn: oneshot::Sender<Turn>,
}

#[derive(Default)]
struct Lines {
    running: usize,
    of: HashMap<Option<IpAddr>, VecDeque<Waiter>>,
    /// The addresses that somebody of waits, the next one in front.
    order: VecDeque<Option<IpAddr>>,
}

impl Lines {
    fn next(&mut self) -> Option<Waiter> {
        let address = self.order.pop_front()?;
        let line = self.of.get_mut(&address)?;
        let next = line.pop_front();
        if line.is_empty() {
            self.of.remove(&address);
        } else {
            self.order.push_back(address);
        }
        next
    }
}

/// Who computes and who waits.
#[derive(Default)]
pub(super) struct Turns(Arc<Mutex<Lines>>);

/// Somebody's turn, until it is dropped.
pub(super) struct Turn(Option<Arc<Mutex<Lines>>>);

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(lines) = self.0.take() else { return };
        loop {
            let next = {
                let mut guard = lines.lock();
                let next = guard.next();
                if next.is_none() {
                    guard.running -= 1;
                }
                next
            };
            let Some(next) = next else { return };
            match next.turn.send(Self(Some(lines.clone()))) {
                Ok(()) => return,
                // It is gone; the turn is still ours to pass on.
                Err(mut refused) => drop(refused.0.take()),
            }
        }
    }
}

impl Turns {
    /// Waits for a turn; `None` where too many of the address or of the name wait already.
    pub(super) async fn take(&self, from: Option<IpAddr>, name: &str) -> Option<Turn> {
        let turn = {
            let mut lines = self.0.lock();
            if lines.running < AT_ONCE {
                lines.running += 1;
                return Some(Turn(Some(self.0.clone())));
            }
            let line = lines.of.entry(from).or_default();
            let is_new = line.is_empty();
            line.retain(|waiter| !waiter.turn.is_closed());
            let of_name = line.iter().filter(|waiter| &*waiter.name == name).count();
            if line.len() >= MOST_WAITING || of_name >= MOST_OF_A_NAME {
                return None;
            }
            let (turn, told) = oneshot::channel();
            line.push_back(Waiter { name: name.into(), turn });
            if is_new {
                lines.order.push_back(from);
            }
            told
        };
        turn.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::pin::Pin;
    use std::task::Poll;

    type Waiting<'a> = Pin<Box<dyn Future<Output = Option<Turn>> + 'a>>;

    async fn polled(waiting: &mut Waiting<'_>) -> Option<Option<Turn>> {
        poll_fn(|context| {
            Poll::Ready(match waiting.as_mut().poll(context) {
                Poll::Ready(turn) => Some(turn),
                Poll::Pending => None,
            })
        })
        .await
    }

    #[tokio::test]
    async fn addresses_take_turns_and_a_crowd_of_one_is_refused() {
        let turns = Turns::default();
        let address = |n: u8| Some(IpAddr::from([10, 0, 0, n]));
        let ask = |from: u8, name: String| -> Waiting<'_> {
            let turns = &turns;
            Box::pin(async move { turns.take(address(from), &name).await })
        };
        let mut running = Vec::new();
        for _ in 0..AT_ONCE {
            running.push(turns.take(address(1), "eve").await.unwrap());
        }
        let mut crowd: Vec<_> = (0..300).map(|n| ask(1, n.to_string())).collect();
        let mut refused = 0;
        for one in &mut crowd {
            refused += usize::from(matches!(polled(one).await, Some(None)));
        }
        assert_eq!(refused, 300 - MOST_WAITING);
        let mut same: Vec<_> = (0..3).map(|_| ask(2, "ann".to_owned())).collect();
        let mut answers = Vec::new();
        for one in &mut same {
            answers.push(polled(one).await.map(|turn| turn.is_some()));
        }
        assert_eq!(answers, [None, None, Some(false)]);
        // The first of the crowd is next, and then the other address.
        drop(running.pop());
        assert!(polled(&mut crowd[0]).await.flatten().is_some());
        let turn = polled(&mut same[0]).await.flatten().unwrap();
        // Who has gone is passed over.
        drop(same);
        drop(turn);
        drop(crowd);
        drop(running);
        let lines = turns.0.lock();
        assert_eq!((lines.running, lines.order.len(), lines.of.len()), (0, 0, 0));
    }
}
