//! A future that is polled only when it was woken itself.
//!
//! A connection's task is woken for every read, and what may end the connection waits beside the read: a takeover, the stop, silence. To poll
//! all that each time costs more than to take the packet that came, for a connection of many has last been looked at long ago.
//!
//! Promise: whatever wakes the inner future wakes the task, and is heard at its next poll, also while it is polled.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;

struct Flag {
    woken: AtomicBool,
    task: Mutex<Waker>,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        let task = self.task.lock().clone();
        task.wake();
    }
}

/// See the module.
pub(crate) struct Seldom<F> {
    future: Pin<Box<F>>,
    flag: Arc<Flag>,
    waker: Waker,
    /// What the flag wakes.
    task: Waker,
}

impl<F: Future> Seldom<F> {
    pub(crate) fn new(future: F) -> Self {
        let task = Waker::noop().clone();
        let flag = Arc::new(Flag { woken: AtomicBool::new(true), task: Mutex::new(task.clone()) });
        Self { future: Box::pin(future), waker: flag.clone().into(), flag, task }
    }
}

impl<F: Future> Future for Seldom<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        if !this.task.will_wake(context.waker()) {
            this.task.clone_from(context.waker());
            this.flag.task.lock().clone_from(context.waker());
            // It may have been woken while another task waited for it.
            this.flag.woken.store(true, Ordering::Release);
        }
        // First, so that who wakes it from now on is heard.
        if !this.flag.woken.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        this.future.as_mut().poll(&mut Context::from_waker(&this.waker))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::Notify;

    use super::*;

    #[derive(Default)]
    struct Counts(AtomicUsize);

    impl Wake for Counts {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::AcqRel);
        }
    }

    #[test]
    fn it_is_polled_when_it_was_woken_and_not_before() {
        let (told, polls) = (Notify::new(), AtomicUsize::new(0));
        let mut waits = Box::pin(told.notified());
        let mut seldom = Seldom::new(poll_fn(|context| {
            polls.fetch_add(1, Ordering::AcqRel);
            waits.as_mut().poll(context)
        }));
        let counts = Arc::<Counts>::default();
        let waker = Waker::from(counts.clone());
        let mut context = Context::from_waker(&waker);
        for _ in 0..3 {
            assert!(Pin::new(&mut seldom).poll(&mut context).is_pending());
        }
        assert_eq!((polls.load(Ordering::Acquire), counts.0.load(Ordering::Acquire)), (1, 0));
        told.notify_one();
        assert_eq!(counts.0.load(Ordering::Acquire), 1);
        assert!(Pin::new(&mut seldom).poll(&mut context).is_ready());
    }

    #[test]
    fn a_wake_while_it_is_polled_is_heard() {
        let mut polls = 0;
        let mut seldom = Seldom::new(poll_fn(|context| {
            polls += 1;
            context.waker().wake_by_ref();
            if polls < 3 { Poll::Pending } else { Poll::Ready(()) }
        }));
        let mut context = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut seldom).poll(&mut context).is_pending());
        assert!(Pin::new(&mut seldom).poll(&mut context).is_pending());
        assert!(Pin::new(&mut seldom).poll(&mut context).is_ready());
    }

    #[test]
    fn another_task_that_polls_it_is_the_one_that_is_woken() {
        let told = Notify::new();
        let mut seldom = Seldom::new(told.notified());
        let (first, second) = (Arc::<Counts>::default(), Arc::<Counts>::default());
        for counts in [&first, &second] {
            let waker = Waker::from(counts.clone());
            assert!(Pin::new(&mut seldom).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        told.notify_one();
        assert_eq!((first.0.load(Ordering::Acquire), second.0.load(Ordering::Acquire)), (0, 1));
    }
}
