//! Brings answers to those who wait for them on other threads.
//!
//! To wake a task of another thread costs a system call, and the thread starts at once: of a hundred answers that are ready
//! together, nearly each would be sent to its client alone. So the answers for one thread travel together, and are given out
//! there. A thread takes part if it runs [`NodeHandle::deliveries`](super::NodeHandle::deliveries); whoever waits elsewhere gets its
//! answer directly. No more answers are under way than there are requests that wait.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::{
    node::{ProposeError, ReadIndexError},
    state::Answer,
};

/// The next node of this process.
static NODES: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The node that this thread serves, and its number there.
    static DESK: Cell<Option<(u64, usize)>> = const { Cell::new(None) };
}

/// Who waits, and on which thread.
#[derive(Debug)]
pub(super) struct Waiter<T> {
    answer: oneshot::Sender<T>,
    desk: Option<usize>,
}

impl<T> Waiter<T> {
    /// Gives the answer without going through the waiter's thread.
    pub(super) fn give(self, answer: T) {
        // Whoever has gone away does not want to know.
        let _ = self.answer.send(answer);
    }
}

/// An answer on its way.
pub(super) enum Letter {
    Outcome(Waiter<Result<Answer, ProposeError>>, Result<Answer, ProposeError>),
    Leave(Waiter<Result<(), ReadIndexError>>, Result<(), ReadIndexError>),
}

impl Letter {
    fn desk(&self) -> Option<usize> {
        match self {
            Self::Outcome(waiter, _) => waiter.desk,
            Self::Leave(waiter, _) => waiter.desk,
        }
    }

    fn give(self) {
        match self {
            Self::Outcome(waiter, outcome) => waiter.give(outcome),
            Self::Leave(waiter, leave) => waiter.give(leave),
        }
    }
}

/// The threads that take part.
pub(super) struct Deliveries {
    node: u64,
    desks: Mutex<Vec<mpsc::UnboundedSender<Vec<Letter>>>>,
}

impl Deliveries {
    pub(super) fn new() -> Self {
        Self { node: NODES.fetch_add(1, Ordering::Relaxed), desks: Mutex::default() }
    }

    /// Somebody who waits for an answer here.
    pub(super) fn wait<T>(&self) -> (Waiter<T>, oneshot::Receiver<T>) {
        let (answer, waiting) = oneshot::channel();
        let desk = DESK.get().filter(|(node, _)| *node == self.node).map(|(_, number)| number);
        (Waiter { answer, desk }, waiting)
    }

    /// Gives out on this thread whatever is for those who wait on it. The thread's runtime must have no other thread.
    pub(super) async fn give_out(&self) {
        let mut arrived = {
            let (desk, arrived) = mpsc::unbounded_channel();
            let mut desks = self.desks.lock();
            DESK.set(Some((self.node, desks.len())));
            desks.push(desk);
            arrived
        };
        while let Some(letters) = arrived.recv().await {
            letters.into_iter().for_each(Letter::give);
        }
    }
}

/// What is sent together.
#[derive(Default)]
pub(super) struct Post {
    /// For each thread.
    bags: Vec<Vec<Letter>>,
}

impl Post {
    /// Takes a letter. It leaves with the next [`send`](Self::send).
    pub(super) fn put(&mut self, letter: Letter) {
        let Some(desk) = letter.desk() else { return letter.give() };
        if self.bags.len() <= desk {
            self.bags.resize_with(desk + 1, Vec::new);
        }
        self.bags[desk].push(letter);
    }

    pub(super) fn send(&mut self, deliveries: &Deliveries) {
        for (desk, bag) in self.bags.iter_mut().enumerate() {
            if bag.len() <= 1 {
                bag.drain(..).for_each(Letter::give);
                continue;
            }
            let letters = std::mem::take(bag);
            let sent = match deliveries.desks.lock().get(desk) {
                Some(desk) => desk.send(letters).map_err(|unsent| unsent.0),
                None => Err(letters),
            };
            // A thread that gives nothing out any more has nobody who waits, but answers are not to be lost.
            if let Err(letters) = sent {
                letters.into_iter().for_each(Letter::give);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn leave(deliveries: &Deliveries) -> (Letter, oneshot::Receiver<Result<(), ReadIndexError>>) {
        let (waiter, waiting) = deliveries.wait();
        (Letter::Leave(waiter, Ok(())), waiting)
    }

    /// Runs on a thread of its own, in whose runtime answers are given out.
    fn beside(deliveries: &Arc<Deliveries>, work: impl AsyncFnOnce(&Deliveries) + Send + 'static) {
        let deliveries = Arc::clone(deliveries);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime starts");
        let run = move || {
            runtime.block_on(async {
                let giving = Arc::clone(&deliveries);
                let giver = tokio::spawn(async move { giving.give_out().await });
                tokio::task::yield_now().await;
                work(&deliveries).await;
                giver.abort();
            });
        };
        std::thread::spawn(run).join().expect("the thread ends well");
    }

    #[test]
    fn letters_for_one_thread_arrive_together_and_only_when_they_are_sent() {
        beside(&Arc::new(Deliveries::new()), async |deliveries| {
            let (mut post, mut waiting) = (Post::default(), Vec::new());
            for _ in 0..3 {
                let (letter, answer) = leave(deliveries);
                post.put(letter);
                waiting.push(answer);
            }
            assert!(waiting[0].try_recv().is_err());
            post.send(deliveries);
            assert!(waiting[0].try_recv().is_err(), "it is given out by the thread's own task");
            for answer in waiting {
                answer.await.expect("it arrives").expect("it is a leave");
            }
        });
    }

    #[test]
    fn who_waits_elsewhere_or_alone_gets_the_answer_directly() {
        let deliveries = Arc::new(Deliveries::new());
        let mut post = Post::default();
        let (letter, mut answer) = leave(&deliveries);
        post.put(letter);
        assert!(matches!(answer.try_recv(), Ok(Ok(()))), "no thread gives out here");
        beside(&deliveries, async |deliveries| {
            let mut post = Post::default();
            let (letter, mut answer) = leave(deliveries);
            post.put(letter);
            post.send(deliveries);
            assert!(matches!(answer.try_recv(), Ok(Ok(()))), "one alone need not be sent");
            let (letter, mut answer) = leave(&Deliveries::new());
            post.put(letter);
            assert!(matches!(answer.try_recv(), Ok(Ok(()))), "the thread serves another node");
        });
    }

    #[test]
    fn letters_for_a_thread_that_has_ended_are_not_lost() {
        let deliveries = Arc::new(Deliveries::new());
        let (kept, mut from) = mpsc::unbounded_channel();
        beside(&deliveries, async move |deliveries| {
            for _ in 0..2 {
                kept.send(leave(deliveries)).expect("the test waits for it");
            }
        });
        let (mut post, mut waiting) = (Post::default(), Vec::new());
        while let Ok((letter, answer)) = from.try_recv() {
            post.put(letter);
            waiting.push(answer);
        }
        post.send(&deliveries);
        assert_eq!(waiting.iter_mut().filter_map(|answer| answer.try_recv().ok()).count(), 2);
    }
}
