//! Linearizable reads: who waits for a read index, and who for its being applied.
//!
//! ```text
//!   waiting --begin--> round (one at a time) --confirmed at index--> confirmed --applied >= index--> answered
//!      ^                 |
//!      +---- standing changed: the round's readers wait again; a lost request is sent again under another context
//! ```
//! One round serves everybody who came before it began, however many. A context is used once: a confirmation counts
//! only if it is for a context of the present round, and all of those were sent after the round's readers had come.
//!
//! A leader lets other members' requests take part in its own rounds, instead of asking everybody for each of them. They are
//! answered with the round's index at once: the one who asked waits for its being applied.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
};

/// A reader and the tick at which it has waited too long.
type Waiting<R> = (R, u64);
/// Members that asked, each with the context of its newest request: it takes that for an answer to any before it.
pub(super) type Asked = BTreeMap<u64, Vec<u8>>;

/// Bytes of a context: member, nonce, counter.
const CONTEXT_BYTES: usize = 24;

#[derive(Debug)]
struct Round<R> {
    /// The contexts sent for this round, first and last.
    contexts: (u64, u64),
    readers: VecDeque<Waiting<R>>,
    asked: Asked,
    retry_at: u64,
}

/// Who waits to read.
#[derive(Debug)]
pub(super) struct Reads<R> {
    member: u64,
    nonce: u64,
    contexts: u64,
    waiting: VecDeque<Waiting<R>>,
    /// Members that wait for the next round.
    asked: Asked,
    round: Option<Round<R>>,
    confirmed: VecDeque<(u64, VecDeque<Waiting<R>>)>,
    count: usize,
    retries: u64,
}

impl<R> Reads<R> {
    pub(super) fn new(member: u64, nonce: u64) -> Self {
        Self {
            member,
            nonce,
            contexts: 0,
            waiting: VecDeque::new(),
            asked: Asked::new(),
            round: None,
            confirmed: VecDeque::new(),
            count: 0,
            retries: 0,
        }
    }

    /// Readers that are not answered.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Requests that got no confirmation in time and were sent again.
    pub(super) fn retries(&self) -> u64 {
        self.retries
    }

    pub(super) fn push(&mut self, reader: R, deadline: u64) {
        self.count += 1;
        self.waiting.push_back((reader, deadline));
    }

    /// Notes that another member asks this one, which leads.
    pub(super) fn asked(&mut self, member: u64, context: Vec<u8>) {
        self.asked.insert(member, context);
    }

    /// Whether somebody waits for a round to begin or to be asked for again.
    pub(super) fn wants_context(&self, now: u64) -> bool {
        match &self.round {
            Some(round) => round.retry_at <= now,
            None => !self.waiting.is_empty() || !self.asked.is_empty(),
        }
    }

    /// Begins a round, or asks for the present one once more: gives the context to send.
    pub(super) fn context(&mut self, now: u64, retry_ticks: u64) -> Vec<u8> {
        self.contexts += 1;
        let counter = self.contexts;
        let retry_at = now + retry_ticks;
        if let Some(round) = &mut self.round {
            self.retries += 1;
            round.contexts.1 = counter;
            round.retry_at = retry_at;
        } else {
            let (readers, asked) = (mem::take(&mut self.waiting), mem::take(&mut self.asked));
            self.round = Some(Round { contexts: (counter, counter), readers, asked, retry_at });
        }
        let mut context = Vec::with_capacity(CONTEXT_BYTES);
        for word in [self.member, self.nonce, counter] {
            context.extend_from_slice(&word.to_be_bytes());
        }
        context
    }

    /// Notes a confirmation. It may be for a round that is over. Gives the other members whose requests it answers, too.
    pub(super) fn confirmed(&mut self, context: &[u8], index: u64) -> Asked {
        let words: Vec<u64> =
            context.chunks_exact(8).filter_map(|word| Some(u64::from_be_bytes(word.try_into().ok()?))).collect();
        let [member, nonce, counter] = words[..] else { return Asked::new() };
        if (member, nonce) != (self.member, self.nonce) {
            return Asked::new();
        }
        let present = self.round.take_if(|round| (round.contexts.0..=round.contexts.1).contains(&counter));
        let Some(Round { readers, asked, .. }) = present else { return Asked::new() };
        if !readers.is_empty() {
            self.confirmed.push_back((index, readers));
        }
        asked
    }

    /// Notes that the term, the leader or the role changed: raft has forgotten what it was asked, so the round's
    /// readers wait for another one. Other members ask again.
    pub(super) fn standing_changed(&mut self) {
        self.asked.clear();
        if let Some(mut round) = self.round.take() {
            round.readers.append(&mut self.waiting);
            self.waiting = round.readers;
        }
    }

    /// Takes those who may read now.
    pub(super) fn ready(&mut self, applied: u64, mut give: impl FnMut(R)) {
        // Indexes rise from round to round, except after a change of leader, when waiting a little longer does no harm.
        while let Some((_, readers)) = self.confirmed.pop_front_if(|(index, _)| *index <= applied) {
            self.count -= readers.len();
            for (reader, _) in readers {
                give(reader);
            }
        }
    }

    /// Takes those who have waited too long, first for a confirmation, then for its being applied.
    pub(super) fn expired(&mut self, now: u64) -> (Vec<R>, Vec<R>) {
        let take = |readers: &mut VecDeque<Waiting<R>>, out: &mut Vec<R>| {
            // Readers stand in order of arrival, and all have the same time.
            while let Some((reader, _)) = readers.pop_front_if(|(_, deadline)| *deadline <= now) {
                out.push(reader);
            }
        };
        let (mut unconfirmed, mut not_applied) = (Vec::new(), Vec::new());
        if let Some(round) = &mut self.round {
            take(&mut round.readers, &mut unconfirmed);
        }
        take(&mut self.waiting, &mut unconfirmed);
        for (_, readers) in &mut self.confirmed {
            take(readers, &mut not_applied);
        }
        self.round.take_if(|round| round.readers.is_empty() && round.asked.is_empty());
        self.confirmed.retain(|(_, readers)| !readers.is_empty());
        self.count -= unconfirmed.len() + not_applied.len();
        (unconfirmed, not_applied)
    }

    /// Takes everybody.
    pub(super) fn drain(&mut self) -> Vec<R> {
        self.standing_changed();
        self.count = 0;
        let confirmed = mem::take(&mut self.confirmed).into_iter().flat_map(|(_, readers)| readers);
        confirmed.chain(mem::take(&mut self.waiting)).map(|(reader, _)| reader).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads() -> Reads<u64> {
        let mut reads = Reads::new(1, 2);
        reads.push(10, 100);
        reads.push(11, 100);
        reads
    }

    fn ready(reads: &mut Reads<u64>, applied: u64) -> Vec<u64> {
        let mut out = Vec::new();
        reads.ready(applied, |reader| out.push(reader));
        out
    }

    #[test]
    fn one_round_serves_all_who_came_before_it_and_nobody_else() {
        let mut reads = reads();
        let context = reads.context(0, 5);
        reads.push(12, 100);
        reads.confirmed(&context, 7);
        assert!(ready(&mut reads, 6).is_empty(), "not before it is applied");
        assert_eq!(ready(&mut reads, 7), [10, 11]);
        assert!(reads.wants_context(0) && reads.len() == 1);
    }

    #[test]
    fn a_lost_request_is_sent_again_under_another_context_and_either_answer_counts() {
        let mut reads = reads();
        let first = reads.context(0, 5);
        assert!(!reads.wants_context(4) && reads.wants_context(5));
        let second = reads.context(5, 5);
        assert_ne!(first, second);
        reads.confirmed(&first, 3);
        assert_eq!(ready(&mut reads, 3), [10, 11]);
        reads.confirmed(&second, 3);
        assert_eq!(reads.retries(), 1);
    }

    #[test]
    fn a_confirmation_from_before_a_change_of_standing_serves_nobody() {
        let mut reads = reads();
        let context = reads.context(0, 5);
        reads.standing_changed();
        reads.confirmed(&context, 3);
        assert!(ready(&mut reads, 9).is_empty());
        let again = reads.context(1, 5);
        reads.confirmed(&again, 4);
        assert_eq!(ready(&mut reads, 9), [10, 11]);
    }

    #[test]
    fn whoever_waits_too_long_is_told_what_for() {
        let mut reads = reads();
        let context = reads.context(0, 5);
        reads.confirmed(&context, 50);
        reads.push(12, 101);
        assert_eq!(reads.expired(99), (vec![], vec![]));
        assert_eq!(reads.expired(200), (vec![12], vec![10, 11]));
        assert_eq!(reads.len(), 0);
    }

    #[test]
    fn a_round_answers_the_members_that_asked_before_it() {
        let mut reads = Reads::<u64>::new(1, 2);
        reads.asked(2, vec![2]);
        assert!(reads.wants_context(0));
        let first = reads.context(0, 5);
        reads.asked(2, vec![22]);
        reads.asked(3, vec![3]);
        assert_eq!(reads.confirmed(&first, 7), Asked::from([(2, vec![2])]));
        assert!(reads.confirmed(&first, 7).is_empty(), "once");
        let second = reads.context(0, 5);
        assert_eq!(reads.confirmed(&second, 8), Asked::from([(2, vec![22]), (3, vec![3])]));
        assert!(!reads.wants_context(9), "nobody is left");
    }

    #[test]
    fn a_change_of_standing_forgets_the_members_that_asked() {
        let mut reads = Reads::<u64>::new(1, 2);
        reads.asked(2, vec![2]);
        let context = reads.context(0, 5);
        reads.asked(3, vec![3]);
        reads.standing_changed();
        assert!(reads.confirmed(&context, 7).is_empty() && !reads.wants_context(9));
    }

    #[test]
    fn foreign_contexts_are_ignored() {
        let mut reads = reads();
        reads.context(0, 5);
        reads.confirmed(b"", 1);
        reads.confirmed(&[0; 24], 1);
        assert!(ready(&mut reads, 9).is_empty());
    }
}
