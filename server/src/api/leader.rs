//! The one way to ask the leader what only it can answer or do: here if this member leads, at another member if that
//! one does.
//!
//! A question that the present leader does not answer is asked again when another leader is seen, for as long as its
//! call may take. A leader may answer no more, or not yet, without any news of that here: so it is asked again after a
//! while, too.

use std::time::Duration;

use cairn_proto::ApiError;
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

use super::{Context, refusal::Refusal};

/// How long is waited for news at most.
const NEWS_MAX: Duration = Duration::from_millis(100);

/// Where the leader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leader {
    /// This member knows none. It may lead all the same, and learn of it soon.
    Unknown,
    /// It is this member.
    Here,
    /// It is the member with this id.
    At(u64),
}

impl Context {
    /// Asks the leader until one answers: `None` is no answer. `news` is [of
    /// leases](crate::node::ReplicaView::lease_news), which tell of leaders, too.
    ///
    /// # Errors
    /// What the leader refuses, and [`ApiError::Timeout`] at the deadline.
    pub async fn ask_leader<T, F>(
        &self,
        news: &mut watch::Receiver<()>,
        deadline: Instant,
        question: impl Fn(Leader) -> F,
    ) -> Result<T, Refusal>
    where
        F: Future<Output = Result<Option<T>, Refusal>>,
    {
        let leader = || match self.node.status() {
            status if status.leader == 0 => Leader::Unknown,
            status if status.leader == status.member_id => Leader::Here,
            status => Leader::At(status.leader),
        };
        ask(leader, news, NEWS_MAX, deadline, question).await
    }
}

async fn ask<T, F>(
    leader: impl Fn() -> Leader,
    news: &mut watch::Receiver<()>,
    longest: Duration,
    deadline: Instant,
    question: impl Fn(Leader) -> F,
) -> Result<T, Refusal>
where
    F: Future<Output = Result<Option<T>, Refusal>>,
{
    let asking = async {
        loop {
            // What is told of from here on is news to this question.
            news.mark_unchanged();
            if let Some(answer) = question(leader()).await? {
                return Ok(answer);
            }
            heard_within(longest, news).await?;
        }
    };
    timeout_at(deadline, asking).await.unwrap_or(Err(ApiError::Timeout.into()))
}

/// Waits for news, or for a while.
pub(super) async fn heard(news: &mut watch::Receiver<()>) -> Result<(), Refusal> {
    heard_within(NEWS_MAX, news).await
}

async fn heard_within(longest: Duration, news: &mut watch::Receiver<()>) -> Result<(), Refusal> {
    timeout(longest, news.changed()).await.unwrap_or(Ok(())).map_err(|_| ApiError::Stopped.into())
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// Longer than any test.
    const LONG: Duration = Duration::from_hours(1);

    #[tokio::test]
    async fn the_next_leader_is_asked_as_soon_as_it_is_seen() {
        let (tell, mut news) = watch::channel(());
        let (leader, asked) = (Cell::new(Leader::At(1)), RefCell::new(Vec::new()));
        // Each deposed one is followed by the next while the question is under way: that must not be missed.
        let question = |at| {
            asked.borrow_mut().push(at);
            leader.set(if at == Leader::At(1) { Leader::Unknown } else { Leader::Here });
            tell.send_replace(());
            async move { Ok((at == Leader::Here).then_some("answer")) }
        };
        let asking = ask(|| leader.get(), &mut news, LONG, Instant::now() + LONG, question);
        let answer = timeout(Duration::from_secs(30), asking).await.expect("the news are heard");
        assert_eq!(answer, Ok("answer"));
        assert_eq!(*asked.borrow(), [Leader::At(1), Leader::Unknown, Leader::Here]);
    }

    #[tokio::test]
    async fn who_hears_nothing_asks_again() {
        let (_tell, mut news) = watch::channel(());
        let asked = Cell::new(0);
        let question = |_| {
            asked.set(asked.get() + 1);
            let answer = (asked.get() == 3).then_some(());
            async move { Ok(answer) }
        };
        let answer = ask(|| Leader::At(1), &mut news, Duration::from_millis(1), Instant::now() + LONG, question).await;
        assert_eq!((answer, asked.get()), (Ok(()), 3));
    }

    #[tokio::test]
    async fn the_deadline_ends_a_question_and_the_waiting_and_a_refusal_is_final() {
        let (_tell, mut news) = watch::channel(());
        let soon = || Instant::now() + Duration::from_millis(1);
        let hangs = |_| std::future::pending::<Result<Option<()>, Refusal>>();
        let answer = ask(|| Leader::Here, &mut news, LONG, soon(), hangs).await;
        assert_eq!(answer, Err(ApiError::Timeout.into()));
        let silent = |_| async { Ok(None::<()>) };
        let answer = ask(|| Leader::Here, &mut news, LONG, soon(), silent).await;
        assert_eq!(answer, Err(ApiError::Timeout.into()));
        let refuses = |_| async { Err::<Option<()>, Refusal>(ApiError::TooManyRequests.into()) };
        let answer = ask(|| Leader::Here, &mut news, LONG, Instant::now() + LONG, refuses).await;
        assert_eq!(answer, Err(ApiError::TooManyRequests.into()));
    }
}
