//! What a watcher was told, against everything that happened: the nine guarantees.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use bytes::Bytes;
use cairn_proto::{
    etcdserverpb::{
        WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse, watch_create_request::FilterType,
        watch_request::RequestUnion,
    },
    mvccpb::{Event, KeyValue, event::EventType},
};

use rand::{Rng, rngs::StdRng};

use super::leases;

/// One change that a write asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// The key.
    pub key: Bytes,
    /// Its value; `None`: it is deleted.
    pub value: Option<Bytes>,
    /// The lease it hangs on, 0 for none.
    pub lease: i64,
}

impl Change {
    /// A put, on a lease if the key is one of those that are always put on one.
    pub fn put(key: Bytes, value: Bytes) -> Self {
        let lease = leases::of(&key, &value);
        Self { key, value: Some(value), lease }
    }

    /// A delete.
    pub fn delete(key: Bytes) -> Self {
        Self { key, value: None, lease: 0 }
    }
}

/// An event as it should be.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// Its revision.
    pub revision: i64,
    /// The key, and what it holds after the event; of a delete only key and revision are set.
    pub kv: KeyValue,
    /// Whether the key was deleted.
    pub deleted: bool,
    /// The key before the revision.
    pub previous: Option<KeyValue>,
}

/// Everything that happened up to a revision without a gap, and what is known beyond it.
#[derive(Debug, Default)]
pub struct History {
    events: Vec<Known>,
    /// Everything up to this revision is in `events`.
    bound: i64,
    ahead: BTreeMap<i64, Vec<Change>>,
    living: HashMap<Bytes, KeyValue>,
}

impl History {
    /// A history that begins with a fresh store.
    pub fn new() -> Self {
        Self { bound: 1, ..Self::default() }
    }

    /// Everything up to this revision is known.
    pub fn bound(&self) -> i64 {
        self.bound
    }

    /// Whether a revision's changes are known.
    pub fn knows(&self, revision: i64) -> bool {
        revision <= self.bound || self.ahead.contains_key(&revision)
    }

    /// Notes the changes of a revision, in key order; each of them took effect.
    pub fn learn(&mut self, revision: i64, changes: Vec<Change>) {
        self.ahead.insert(revision, changes);
        while let Some(changes) = self.ahead.remove(&(self.bound + 1)) {
            self.bound += 1;
            for change in changes {
                self.apply(change);
            }
        }
    }

    fn apply(&mut self, change: Change) {
        let Change { key, value, lease } = change;
        let revision = self.bound;
        let previous = self.living.get(&key).cloned();
        let deleted = value.is_none();
        let kv = match value {
            Some(value) => KeyValue {
                key: key.clone(),
                value,
                create_revision: previous.as_ref().map_or(revision, |previous| previous.create_revision),
                mod_revision: revision,
                version: previous.as_ref().map_or(1, |previous| previous.version + 1),
                lease,
            },
            None => KeyValue { key: key.clone(), mod_revision: revision, ..KeyValue::default() },
        };
        if deleted {
            self.living.remove(&key);
        } else {
            self.living.insert(key, kv.clone());
        }
        self.events.push(Known { revision, kv, deleted, previous });
    }

    fn from(&self, revision: i64) -> &[Known] {
        &self.events[self.events.partition_point(|event| event.revision < revision)..]
    }

    /// The events up to and with a revision.
    pub fn up_to(&self, revision: i64) -> &[Known] {
        &self.events[..self.events.partition_point(|event| event.revision <= revision)]
    }

    /// The events of a revision.
    pub fn of(&self, revision: i64) -> &[Known] {
        let from = self.from(revision);
        &from[..from.partition_point(|event| event.revision == revision)]
    }
}

/// What a client asked for and was told.
#[derive(Debug, Clone, Default)]
pub struct Session {
    /// The first key.
    pub key: Bytes,
    /// The end of the range; empty for a single key.
    pub range_end: Bytes,
    /// The start revision, 0 for none.
    pub start: i64,
    /// Puts are wanted.
    pub puts: bool,
    /// Deletes are wanted.
    pub deletes: bool,
    /// Previous values are wanted.
    pub previous: bool,
    /// Fragments are welcome.
    pub fragment: bool,
    /// Progress is to be told without being asked for.
    pub notify: bool,
    /// The id that the client chose, 0 for none.
    pub id: i64,
    /// The client asked for its end.
    pub canceled: bool,
    /// Every answer, and the highest revision to which a compaction had been asked for when it came.
    pub answers: Vec<(WatchResponse, i64)>,
}

/// Bytes of what is told of a violation: values may be large.
const WHAT_BYTES_MAX: usize = 4_000;

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub guarantee: &'static str,
    /// How.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is broken: {}", self.guarantee, self.what)
    }
}

impl std::error::Error for Violation {}

fn broken<T>(guarantee: &'static str, what: impl Into<String>) -> Result<T, Violation> {
    let mut what: String = what.into();
    what.truncate(what.floor_char_boundary(WHAT_BYTES_MAX));
    Err(Violation { guarantee, what })
}

fn header(answer: &WatchResponse) -> i64 {
    answer.header.as_ref().map_or(0, |header| header.revision)
}

fn revision(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// A request for progress.
pub fn ask_progress() -> WatchRequest {
    WatchRequest { request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})) }
}

impl Session {
    /// A session that has not begun, of kinds of events that are drawn.
    pub fn draw(key: Bytes, range_end: Bytes, start: i64, random: &mut StdRng) -> Self {
        let kinds = random.random_range(0..6);
        let (puts, deletes) = (kinds != 0, kinds != 1);
        let (previous, fragment) = (random.random(), random.random());
        Self { key, range_end, start, puts, deletes, previous, fragment, ..Self::default() }
    }

    /// The request that begins it.
    pub fn request(&self) -> WatchRequest {
        let mut filters = Vec::new();
        filters.extend((!self.puts).then_some(FilterType::Noput as i32));
        filters.extend((!self.deletes).then_some(FilterType::Nodelete as i32));
        let create = WatchCreateRequest {
            key: self.key.clone(),
            range_end: self.range_end.clone(),
            start_revision: self.start,
            prev_kv: self.previous,
            fragment: self.fragment,
            progress_notify: self.notify,
            watch_id: self.id,
            filters,
        };
        WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
    }

    /// The history has to be known up to here to judge the session.
    pub fn needs(&self) -> i64 {
        let told = |answer: &WatchResponse| {
            let progress =
                if answer.events.is_empty() && !answer.created && !answer.canceled { header(answer) } else { 0 };
            answer.events.iter().map(revision).max().unwrap_or(0).max(progress)
        };
        self.answers.iter().map(|(answer, _)| told(answer)).max().unwrap_or(0)
    }

    /// The revision to go on at after this session, if it began.
    pub fn resume(&self) -> Option<i64> {
        let (created, _) = self.answers.first()?;
        let last = self.answers.iter().flat_map(|(answer, _)| &answer.events).map(revision).max();
        Some(last.map_or_else(|| if self.start == 0 { header(created) + 1 } else { self.start }, |last| last + 1))
    }

    fn wants(&self, known: &Known) -> bool {
        let key = &known.kv.key;
        let inside = match &self.range_end[..] {
            [] => *key == self.key,
            [0] => *key >= self.key,
            end => *key >= self.key && key[..] < *end,
        };
        inside && if known.deleted { self.deletes } else { self.puts }
    }

    /// Judges everything that was told. `history` must be known up to [`Session::needs`].
    pub fn check(&self, history: &History) -> Result<usize, Violation> {
        let Some(((created, _), answers)) = self.answers.split_first() else { return Ok(0) };
        if !created.created || created.canceled || !created.events.is_empty() {
            return broken("created before events", format!("the first answer is {created:?}"));
        }
        let start = if self.start == 0 { header(created) + 1 } else { self.start };
        let mut expected = history.from(start).iter().filter(|known| self.wants(known)).peekable();
        let (mut last, mut told, mut in_parts) = (start - 1, 0, false);
        for (number, (answer, compacted)) in answers.iter().enumerate() {
            if in_parts && answer.events.is_empty() && !answer.canceled {
                return broken("atomic", format!("the last part of revision {last} is missing before {answer:?}"));
            }
            if answer.canceled && answer.compact_revision == 0 && self.canceled && number + 1 == answers.len() {
                return Ok(told);
            }
            if answer.canceled {
                let lowest = answer.compact_revision;
                if lowest <= last + 1 || lowest > *compacted || number + 1 != answers.len() {
                    return broken("resumable", format!("after revision {last} it ended with {answer:?}"));
                }
                return Ok(told);
            }
            if answer.events.is_empty() {
                self.check_progress(answer, expected.peek().copied(), start)?;
                continue;
            }
            for event in &answer.events {
                self.check_event(event, expected.next(), last, start, *compacted)?;
                last = revision(event);
                told += 1;
            }
            in_parts = answer.fragment;
            if in_parts && !self.fragment {
                return broken("atomic", format!("revision {last} is told in parts, which nobody asked for"));
            }
            let split = expected.peek().is_some_and(|next| next.revision == last);
            if split && !in_parts {
                return broken("atomic", format!("revision {last} is split"));
            }
        }
        Ok(told)
    }

    fn check_progress(&self, answer: &WatchResponse, next: Option<&Known>, start: i64) -> Result<(), Violation> {
        let bookmark = header(answer);
        if answer.watch_id >= 0 && !self.notify {
            return broken("bookmarkable", format!("progress at {bookmark} that nobody asked for"));
        }
        if let Some(next) = next.filter(|next| next.revision <= bookmark) {
            return broken("bookmarkable", format!("progress at {bookmark}, but {next:?} has not come"));
        }
        if self.start != 0 && bookmark < start {
            return broken("bookmarkable", format!("progress at {bookmark} of a watch from {start} on"));
        }
        Ok(())
    }

    fn check_event(
        &self,
        event: &Event,
        expected: Option<&Known>,
        last: i64,
        start: i64,
        compacted: i64,
    ) -> Result<(), Violation> {
        let kv = event.kv.clone().unwrap_or_default();
        let deleted = event.r#type() == EventType::Delete;
        let at = kv.mod_revision;
        let itself = Known { revision: at, kv: kv.clone(), deleted, previous: None };
        if !self.wants(&itself) {
            return broken("filter", format!("{event:?} was not asked for"));
        }
        if at < start {
            return broken("resumable", format!("{event:?} is from before the start at {start}"));
        }
        if at < last {
            return broken("ordered", format!("revision {at} came after {last}"));
        }
        let Some(expected) = expected.filter(|expected| (expected.revision, &expected.kv.key) == (at, &kv.key)) else {
            return match expected {
                Some(expected) if expected.revision < at => {
                    broken("reliable", format!("{expected:?} is missing before {event:?}"))
                }
                _ if at == last => broken("unique", format!("{event:?} came twice, or out of order")),
                _ => broken("reliable", format!("{event:?} is nothing that was written; expected {expected:?}")),
            };
        };
        if deleted != expected.deleted || (kv.create_revision == at) != (expected.kv.create_revision == at) {
            return broken("is create", format!("{event:?} should be {expected:?}"));
        }
        if kv != expected.kv {
            return broken("reliable", format!("{event:?} should be {expected:?}"));
        }
        let creates = !deleted && kv.create_revision == at;
        let previous = expected.previous.as_ref().filter(|_| self.previous && !creates);
        match (event.prev_kv.as_ref(), previous) {
            (told, previous) if told == previous => Ok(()),
            // Whoever catches up goes without what is compacted.
            (None, Some(_)) if at - 1 < compacted => Ok(()),
            (told, previous) => {
                broken("previous values", format!("of revision {at}: {told:?} instead of {previous:?}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cairn_proto::etcdserverpb::ResponseHeader;

    use super::*;

    /// Puts, an overwrite, a txn over two keys, deletes.
    fn history() -> History {
        let mut history = History::new();
        let put = |key: &'static str, value: &'static str| Change::put(key.into(), value.into());
        let delete = |key: &'static str| Change::delete(key.into());
        let revisions = [
            vec![put("a", "1")],
            vec![put("b", "1")],
            vec![put("a", "2"), put("b", "2")],
            vec![delete("a")],
            vec![put("a", "3")],
            vec![put("x", "1")],
        ];
        for (number, changes) in revisions.into_iter().enumerate() {
            history.learn(2 + number as i64, changes);
        }
        history
    }

    fn event(known: &Known) -> Event {
        let kind = if known.deleted { EventType::Delete } else { EventType::Put };
        let creates = !known.deleted && known.kv.create_revision == known.revision;
        let prev_kv = known.previous.clone().filter(|_| !creates);
        Event { r#type: kind.into(), kv: Some(known.kv.clone()), prev_kv }
    }

    fn answer(revision: i64) -> WatchResponse {
        let header = ResponseHeader { revision, ..Default::default() };
        WatchResponse { header: Some(header), ..Default::default() }
    }

    /// A watch of `a` to `c` that got everything as it should, with a progress answer in between.
    fn right() -> Session {
        let history = history();
        let mut session = Session {
            key: "a".into(),
            range_end: "c".into(),
            start: 2,
            puts: true,
            deletes: true,
            previous: true,
            notify: true,
            ..Session::default()
        };
        session.answers.push((WatchResponse { created: true, ..answer(7) }, 0));
        for revision in 2..=6 {
            let events = history.events.iter().filter(|known| known.revision == revision).map(event).collect();
            session.answers.push((WatchResponse { events, ..answer(7) }, 0));
        }
        session.answers.push((WatchResponse { watch_id: -1, ..answer(7) }, 0));
        session
    }

    fn guarantee(change: impl FnOnce(&mut Vec<(WatchResponse, i64)>)) -> Option<&'static str> {
        let mut session = right();
        change(&mut session.answers);
        session.check(&history()).err().map(|violation| violation.guarantee)
    }

    #[test]
    fn what_is_right_passes() {
        assert_eq!(right().check(&history()), Ok(6));
        assert_eq!((right().needs(), right().resume()), (7, Some(7)));
    }

    #[test]
    fn a_dropped_event_is_caught() {
        assert_eq!(guarantee(|answers| drop(answers.remove(2))), Some("reliable"));
        assert_eq!(guarantee(|answers| drop(answers[3].0.events.remove(0))), Some("reliable"));
        // The last ones: only the progress answer tells.
        assert_eq!(guarantee(|answers| drop(answers.remove(5))), Some("bookmarkable"));
        assert_eq!(guarantee(|answers| drop(answers[3].0.events.remove(1))), Some("atomic"));
    }

    #[test]
    fn a_repeated_event_is_caught() {
        let repeat = |answers: &mut Vec<(WatchResponse, i64)>| answers.insert(3, answers[2].clone());
        assert_eq!(guarantee(repeat), Some("unique"));
    }

    #[test]
    fn swapped_events_are_caught() {
        assert_eq!(guarantee(|answers| answers.swap(1, 2)), Some("reliable"));
        assert_eq!(guarantee(|answers| answers[3].0.events.swap(0, 1)), Some("reliable"));
        assert_eq!(guarantee(|answers| answers.push(answers[1].clone())), Some("ordered"));
    }

    #[test]
    fn a_split_revision_is_caught() {
        let split = |answers: &mut Vec<(WatchResponse, i64)>| {
            let second = answers[3].0.events.split_off(1);
            answers.insert(4, (WatchResponse { events: second, ..answer(7) }, 0));
        };
        assert_eq!(guarantee(split), Some("atomic"));
    }

    #[test]
    fn an_early_bookmark_is_caught() {
        let early = |answers: &mut Vec<(WatchResponse, i64)>| answers.insert(3, (answer(4), 0));
        assert_eq!(guarantee(early), Some("bookmarkable"));
    }

    #[test]
    fn progress_is_told_unasked_only_to_who_wants_it() {
        let mut session = right();
        session.answers.push((answer(7), 0));
        assert_eq!(session.check(&history()), Ok(6));
        session.notify = false;
        let violation = session.check(&history()).unwrap_err();
        assert_eq!(violation.guarantee, "bookmarkable");
    }

    #[test]
    fn parts_are_told_to_who_wants_them_and_all_of_them() {
        let mut session = right();
        let second = session.answers[3].0.events.split_off(1);
        session.answers[3].0.fragment = true;
        session.answers.insert(4, (WatchResponse { events: second, ..answer(7) }, 0));
        let violated = |session: &Session| session.check(&history()).err().map(|violation| violation.guarantee);
        assert_eq!(violated(&session), Some("atomic"), "nobody asked for parts");
        session.fragment = true;
        assert_eq!(session.check(&history()), Ok(6));
        session.answers[4].0.fragment = true;
        assert_eq!(session.check(&history()), Ok(6), "what follows may be of the next revision");
        session.answers.insert(4, (answer(3), 0));
        assert_eq!(violated(&session), Some("atomic"), "something comes between the parts");
    }

    #[test]
    fn only_who_asked_for_it_is_ended_without_a_compaction() {
        let mut session = right();
        session.answers.push((WatchResponse { canceled: true, ..answer(7) }, 0));
        let violation = session.check(&history()).unwrap_err();
        assert_eq!(violation.guarantee, "resumable");
        session.canceled = true;
        assert_eq!(session.check(&history()), Ok(6));
        session.answers.push((answer(7), 0));
        assert!(session.check(&history()).is_err(), "told something after its end");
    }

    #[test]
    fn an_event_nobody_asked_for_is_caught() {
        let foreign = |answers: &mut Vec<(WatchResponse, i64)>| {
            let events = vec![event(&history().events[7 - 1])];
            answers.push((WatchResponse { events, ..answer(7) }, 0));
        };
        assert_eq!(guarantee(foreign), Some("filter"));
    }

    #[test]
    fn a_wrong_previous_value_is_caught() {
        assert_eq!(guarantee(|answers| answers[3].0.events[0].prev_kv = None), Some("previous values"));
        let other = |answers: &mut Vec<(WatchResponse, i64)>| {
            answers[4].0.events[0].prev_kv = answers[1].0.events[0].kv.clone();
        };
        assert_eq!(guarantee(other), Some("previous values"));
        let compacted = |answers: &mut Vec<(WatchResponse, i64)>| {
            answers[3].0.events[0].prev_kv = None;
            answers[3].1 = 4;
        };
        assert_eq!(guarantee(compacted), None);
    }

    #[test]
    fn a_wrong_create_revision_is_caught() {
        let wrong = |answers: &mut Vec<(WatchResponse, i64)>| {
            if let Some(kv) = &mut answers[5].0.events[0].kv {
                kv.create_revision = 2;
            }
        };
        assert_eq!(guarantee(wrong), Some("is create"));
    }

    #[test]
    fn events_before_the_created_answer_are_caught() {
        assert_eq!(guarantee(|answers| answers.swap(0, 1)), Some("created before events"));
    }

    #[test]
    fn an_end_without_a_compaction_is_caught() {
        let end = |compact_revision, asked| {
            move |answers: &mut Vec<(WatchResponse, i64)>| {
                answers.truncate(3);
                answers.push((WatchResponse { canceled: true, compact_revision, ..answer(0) }, asked));
            }
        };
        assert_eq!(guarantee(end(6, 4)), Some("resumable"), "nobody compacted that far");
        assert_eq!(guarantee(end(4, 6)), Some("resumable"), "it needs nothing that is compacted");
        assert_eq!(guarantee(end(6, 6)), None);
    }
}
