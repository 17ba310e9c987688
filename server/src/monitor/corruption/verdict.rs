//! Who differs: what members said of one hash, and what follows from it.

use std::collections::BTreeMap;

/// Members of which more than half of all members are.
pub(super) fn majority(members: usize) -> usize {
    members / 2 + 1
}

/// What follows from the hashes of members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All that answered say the same.
    Agreed {
        /// All have answered.
        complete: bool,
    },
    /// These say something else than a majority of all members, in ascending order.
    Differ(Vec<u64>),
    /// They do not say the same, and no majority of all members does.
    Torn,
}

/// Judges what some of so many `members` said.
pub(super) fn judge(members: usize, hashes: &[(u64, u32)]) -> Verdict {
    let mut groups: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for &(member, hash) in hashes {
        groups.entry(hash).or_default().push(member);
    }
    if groups.len() <= 1 {
        return Verdict::Agreed { complete: hashes.len() >= members };
    }
    let Some(right) = groups.iter().find(|(_, said)| said.len() >= majority(members)).map(|(hash, _)| *hash) else {
        return Verdict::Torn;
    };
    groups.remove(&right);
    let mut others: Vec<u64> = groups.into_values().flatten().collect();
    others.sort_unstable();
    Verdict::Differ(others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_hashes_agree_and_are_complete_when_all_have_answered() {
        assert_eq!(judge(3, &[(1, 7), (2, 7), (3, 7)]), Verdict::Agreed { complete: true });
        assert_eq!(judge(3, &[(1, 7), (3, 7)]), Verdict::Agreed { complete: false });
        assert_eq!(judge(1, &[(1, 7)]), Verdict::Agreed { complete: true });
        assert_eq!(judge(3, &[]), Verdict::Agreed { complete: false });
    }

    #[test]
    fn who_says_something_else_than_a_majority_of_all_members_differs() {
        assert_eq!(judge(3, &[(1, 7), (2, 8), (3, 7)]), Verdict::Differ(vec![2]));
        assert_eq!(judge(3, &[(9, 8), (2, 7), (3, 7)]), Verdict::Differ(vec![9]));
        assert_eq!(judge(5, &[(5, 1), (2, 7), (3, 7), (4, 7), (1, 2)]), Verdict::Differ(vec![1, 5]));
        assert_eq!(judge(5, &[(2, 7), (3, 7), (4, 7), (1, 2)]), Verdict::Differ(vec![1]), "one has not answered");
    }

    #[test]
    fn without_a_majority_of_all_members_nobody_can_be_named() {
        assert_eq!(judge(2, &[(1, 7), (2, 8)]), Verdict::Torn);
        assert_eq!(judge(3, &[(1, 7), (2, 8)]), Verdict::Torn, "the third might say either");
        assert_eq!(judge(4, &[(1, 7), (2, 7), (3, 8), (4, 8)]), Verdict::Torn);
        assert_eq!(judge(3, &[(1, 1), (2, 2), (3, 3)]), Verdict::Torn);
    }
}
