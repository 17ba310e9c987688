//! Which membership changes are allowed, and what raft is told of them.
//!
//! Only the leader decides, and only while no other change is under way: what is allowed then still is when the change
//! is applied. The rules are etcd's, texts and order included.

use std::time::Duration;

use cairn_proto::{ApiError, etcdserverpb::Member};
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2};

use crate::{
    node::ProposeError,
    state::{MemberChange, Members},
};

pub mod form;

/// A member counts as healthy after it has been connected for so long.
const HEALTHY_AFTER: Duration = Duration::from_secs(5);

/// What a cluster allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeRules {
    /// Refuse changes after which there might be no quorum (`--strict-reconfig-check`).
    pub strict: bool,
    /// Learners that the cluster may have (`--max-learners`).
    pub learners_max: usize,
}

impl Default for ChangeRules {
    fn default() -> Self {
        Self { strict: true, learners_max: 1 }
    }
}

/// What the leader knows when it judges a change.
pub struct Judge<'a> {
    /// What the cluster allows.
    pub rules: ChangeRules,
    /// The leader.
    pub own: u64,
    /// The members now.
    pub members: &'a Members,
    /// For how long a member has been connected to the leader.
    pub connected_for: &'a dyn Fn(u64) -> Option<Duration>,
    /// Whether a learner has nearly everything that the leader has.
    pub caught_up: &'a dyn Fn(u64) -> bool,
}

impl Judge<'_> {
    /// What raft has to be told so that it makes `change`; or why it is not allowed.
    pub fn judge(&self, change: &MemberChange) -> Result<ConfChangeV2, ProposeError> {
        form::check(change)?;
        let allowed = match change {
            MemberChange::Add(member) => self.add(member),
            MemberChange::Remove(id) => self.remove(*id),
            MemberChange::Update { id, peer_urls } => self.update(*id, peer_urls),
            MemberChange::Promote(id) => self.promote(*id),
        };
        allowed.map_err(ProposeError::Refused)
    }

    fn add(&self, member: &Member) -> Result<ConfChangeV2, ApiError> {
        if self.rules.strict {
            if !member.is_learner && !self.has_quorum_with_new(0) {
                return Err(ApiError::MemberNotEnoughStarted);
            }
            // The new member counts as one that is down. A single voter may always get a second one.
            let voters = self.voters().count();
            if voters > 1 && self.healthy_voters() < quorum(voters + 1) {
                return Err(ApiError::Unhealthy);
            }
        }
        if self.members.members.contains_key(&member.id) {
            return Err(ApiError::MemberExists);
        }
        if self.members.removed.contains(&member.id) {
            return Err(ApiError::MemberNotFound);
        }
        self.check_urls(member.id, &member.peer_urls)?;
        if member.is_learner && self.learners() >= self.rules.learners_max {
            return Err(ApiError::TooManyLearners);
        }
        Ok(single(kind(member.is_learner), member.id))
    }

    fn remove(&self, id: u64) -> Result<ConfChangeV2, ApiError> {
        // That there is no such member is said last, as in etcd.
        let member = self.members.members.get(&id).ok_or(ApiError::MemberNotFound);
        let is_learner = member.is_ok_and(|member| member.is_learner);
        if self.rules.strict && !is_learner {
            let others: Vec<&Member> = self.voters().filter(|voter| voter.id != id).collect();
            let started = others.iter().filter(|voter| is_started(voter)).count();
            if started < quorum(others.len()) {
                return Err(ApiError::MemberNotEnoughStarted);
            }
            // Whoever is down is not part of the quorum that is there.
            let is_connected = (self.connected_for)(id).is_some();
            if is_connected && self.healthy_voters().saturating_sub(1) < quorum(others.len()) {
                return Err(ApiError::Unhealthy);
            }
        }
        if self.voters().all(|voter| voter.id == id) {
            return Err(ApiError::MemberNotEnoughStarted);
        }
        member.map(|_| single(ConfChangeType::RemoveNode, id))
    }

    /// Raft knows no addresses: it is told what it knows already, so that the change has its place in the log.
    fn update(&self, id: u64, peer_urls: &[String]) -> Result<ConfChangeV2, ApiError> {
        let member = self.members.members.get(&id).ok_or(ApiError::MemberNotFound)?;
        self.check_urls(id, peer_urls)?;
        Ok(single(kind(member.is_learner), id))
    }

    fn promote(&self, id: u64) -> Result<ConfChangeV2, ApiError> {
        let member = self.members.members.get(&id).ok_or(ApiError::MemberNotFound)?;
        if !member.is_learner {
            return Err(ApiError::MemberNotLearner);
        }
        if !(self.caught_up)(id) {
            return Err(ApiError::LearnerNotReady);
        }
        if self.rules.strict && !self.has_quorum_with_new(1) {
            return Err(ApiError::MemberNotEnoughStarted);
        }
        Ok(single(ConfChangeType::AddNode, id))
    }

    /// Whether those that were ever started, and `new_started` new ones, are a quorum after one more voter. One that is
    /// alone may always get a second one.
    fn has_quorum_with_new(&self, new_started: usize) -> bool {
        let (voters, started) = (self.voters().count() + 1, self.voters().filter(|voter| is_started(voter)).count());
        (voters == 2 && started == 1) || started + new_started > voters / 2
    }

    fn check_urls(&self, own: u64, urls: &[String]) -> Result<(), ApiError> {
        let others = self.members.members.values().filter(|member| member.id != own);
        let taken = others.flat_map(|member| &member.peer_urls).any(|url| urls.contains(url));
        if taken { Err(ApiError::PeerUrlExists) } else { Ok(()) }
    }

    fn connected_since(&self, member: u64, time: Duration) -> bool {
        member == self.own || (self.connected_for)(member).is_some_and(|connected| connected >= time)
    }

    fn healthy_voters(&self) -> usize {
        self.voters().filter(|voter| self.connected_since(voter.id, HEALTHY_AFTER)).count()
    }

    fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.members.values().filter(|member| !member.is_learner)
    }

    fn learners(&self) -> usize {
        self.members.members.len() - self.voters().count()
    }
}

/// Of so many voters, those that decide.
const fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// A member has a name from its first start on.
fn is_started(member: &Member) -> bool {
    !member.name.is_empty()
}

fn kind(is_learner: bool) -> ConfChangeType {
    if is_learner { ConfChangeType::AddLearnerNode } else { ConfChangeType::AddNode }
}

/// A change of one member, as raft has it.
pub(super) fn single(kind: ConfChangeType, id: u64) -> ConfChangeV2 {
    let mut change = ConfChangeSingle { node_id: id, ..ConfChangeSingle::default() };
    change.set_change_type(kind);
    ConfChangeV2 { changes: vec![change], ..ConfChangeV2::default() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn member(id: u64, name: &str, is_learner: bool) -> Member {
        Member {
            id,
            name: name.to_owned(),
            peer_urls: vec![format!("http://h{id}:1")],
            is_learner,
            ..Member::default()
        }
    }

    /// A cluster of `members`, led by 1, of which those in `connected` have long been connected.
    fn judge(members: &[Member], connected: &[u64], change: &MemberChange) -> Result<ConfChangeV2, ApiError> {
        let members = Members {
            members: members.iter().map(|member| (member.id, member.clone())).collect(),
            removed: [99].into(),
            ..Members::default()
        };
        let connected_for = |id| connected.contains(&id).then_some(HEALTHY_AFTER);
        let judge = Judge {
            rules: ChangeRules::default(),
            own: 1,
            members: &members,
            connected_for: &connected_for,
            caught_up: &|id| connected.contains(&id),
        };
        judge.judge(change).map_err(|error| match error {
            ProposeError::Refused(error) => error,
            error => panic!("its form is wrong: {error}"),
        })
    }

    fn three() -> [Member; 3] {
        [member(1, "a", false), member(2, "b", false), member(3, "c", false)]
    }

    #[test]
    fn a_voter_is_added_only_to_a_cluster_that_is_well() {
        let add = |id| MemberChange::Add(member(id, "", false));
        assert_eq!(judge(&three(), &[2, 3], &add(4)), Ok(single(ConfChangeType::AddNode, 4)));
        assert_eq!(judge(&three(), &[2], &add(4)), Err(ApiError::Unhealthy));
        assert_eq!(judge(&three(), &[2, 3], &add(3)), Err(ApiError::MemberExists));
        assert_eq!(judge(&three(), &[2, 3], &add(99)), Err(ApiError::MemberNotFound), "ids never come back");
        assert_eq!(judge(&[member(1, "a", false)], &[], &add(2)), Ok(single(ConfChangeType::AddNode, 2)));
        let second_not_started = [member(1, "a", false), member(2, "", false)];
        assert_eq!(judge(&second_not_started, &[], &add(3)), Err(ApiError::MemberNotEnoughStarted));
    }

    #[test]
    fn a_member_is_added_while_those_that_are_connected_are_a_quorum_of_the_new_size() {
        // Members, of them connected besides the leader, whether one more is allowed.
        let table = [
            (2, 0, false),
            (2, 1, true),
            (3, 1, false),
            (3, 2, true),
            (4, 1, false),
            (4, 2, true),
            (5, 2, false),
            (5, 3, true),
            (6, 2, false),
            (6, 3, true),
            (7, 3, false),
            (7, 4, true),
        ];
        for (count, connected, allowed) in table {
            let members: Vec<_> = (1..=count).map(|id| member(id, "m", false)).collect();
            let connected: Vec<_> = (2..2 + connected).collect();
            for is_learner in [false, true] {
                let judged = judge(&members, &connected, &MemberChange::Add(member(50, "", is_learner)));
                let expected = if allowed { Ok(single(kind(is_learner), 50)) } else { Err(ApiError::Unhealthy) };
                assert_eq!(judged, expected, "one more than {count}, connected to {connected:?}");
            }
        }
    }

    #[test]
    fn a_change_that_makes_no_sense_is_refused_whatever_the_members_are() {
        let members: BTreeMap<_, _> = three().into_iter().map(|member| (member.id, member)).collect();
        let members = Members { members, ..Members::default() };
        let rules = ChangeRules { strict: false, learners_max: 1 };
        let judge = Judge { rules, own: 1, members: &members, connected_for: &|_| None, caught_up: &|_| false };
        let nameless = MemberChange::Update { id: 2, peer_urls: Vec::new() };
        for change in [MemberChange::Add(member(0, "", true)), MemberChange::Add(member(4, "d", true)), nameless] {
            let judged = judge.judge(&change);
            assert!(matches!(judged, Err(ProposeError::Malformed(_))), "{judged:?}");
        }
    }

    #[test]
    fn no_two_members_have_a_url_in_common() {
        let mut new = member(4, "", true);
        new.peer_urls.push("http://h2:1".to_owned());
        assert_eq!(judge(&three(), &[2, 3], &MemberChange::Add(new)), Err(ApiError::PeerUrlExists));
        let move_to = |url: &str| MemberChange::Update { id: 2, peer_urls: vec![url.to_owned()] };
        assert_eq!(judge(&three(), &[2, 3], &move_to("http://h3:1")), Err(ApiError::PeerUrlExists));
        assert_eq!(judge(&three(), &[2, 3], &move_to("http://h2:1")), Ok(single(ConfChangeType::AddNode, 2)));
    }

    #[test]
    fn a_learner_is_promoted_once_it_has_caught_up_and_an_update_promotes_nobody() {
        let members = [member(1, "a", false), member(2, "b", true)];
        assert_eq!(judge(&members, &[], &MemberChange::Promote(2)), Err(ApiError::LearnerNotReady));
        assert_eq!(judge(&members, &[2], &MemberChange::Promote(2)), Ok(single(ConfChangeType::AddNode, 2)));
        assert_eq!(judge(&members, &[2], &MemberChange::Promote(1)), Err(ApiError::MemberNotLearner));
        assert_eq!(judge(&members, &[2], &MemberChange::Promote(3)), Err(ApiError::MemberNotFound));
        let update = MemberChange::Update { id: 2, peer_urls: vec!["http://new:1".to_owned()] };
        assert_eq!(judge(&members, &[2], &update), Ok(single(ConfChangeType::AddLearnerNode, 2)));
        let another = MemberChange::Add(member(3, "", true));
        assert_eq!(judge(&members, &[2], &another), Err(ApiError::TooManyLearners));
    }

    /// A voter that was never started beside one that was.
    fn not_alone() -> [Member; 2] {
        [member(1, "a", false), member(2, "", false)]
    }

    #[test]
    fn nobody_leaves_whom_the_quorum_needs() {
        let remove = |id| MemberChange::Remove(id);
        assert_eq!(judge(&three(), &[2, 3], &remove(3)), Ok(single(ConfChangeType::RemoveNode, 3)));
        assert_eq!(judge(&three(), &[2], &remove(2)), Err(ApiError::Unhealthy));
        assert_eq!(judge(&three(), &[2], &remove(3)), Ok(single(ConfChangeType::RemoveNode, 3)), "it is down anyway");
        assert_eq!(judge(&three(), &[2, 3], &remove(9)), Err(ApiError::MemberNotFound));
        assert_eq!(judge(&not_alone(), &[2], &remove(9)), Err(ApiError::MemberNotEnoughStarted), "quorum comes first");
        assert_eq!(judge(&[member(1, "a", false)], &[], &remove(1)), Err(ApiError::MemberNotEnoughStarted));
        let not_started = [member(1, "a", false), member(2, "", false), member(3, "c", false)];
        assert_eq!(judge(&not_started, &[2, 3], &remove(3)), Err(ApiError::MemberNotEnoughStarted));
    }
}
