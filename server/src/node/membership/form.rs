//! What a membership change has to look like, whoever asks for it: a client, or another member that hands it on to the
//! leader.

use std::collections::BTreeSet;

use crate::{node::ProposeError, state::MemberChange, types::Url};

/// Peer URLs that a member may have.
pub const PEER_URLS_MAX: usize = 16;
/// Bytes of one of them.
pub const PEER_URL_BYTES_MAX: usize = 1024;
/// Bytes of a change that another member hands on: its URLs, and what is around them.
pub const CHANGE_BYTES_MAX: usize = 2 * PEER_URLS_MAX * PEER_URL_BYTES_MAX;
/// Characters of a change that are logged.
const BRIEF_CHARS_MAX: usize = 500;

/// The peer URLs of a request, sorted and without doubles: some, all of them valid, not too many.
pub fn peer_urls(texts: &[String]) -> Option<Vec<Url>> {
    let parse = |text: &String| Url::parse(text).ok().filter(|_| text.len() <= PEER_URL_BYTES_MAX);
    let urls: BTreeSet<Url> = texts.iter().take(PEER_URLS_MAX + 1).map(parse).collect::<Option<_>>()?;
    (1..=PEER_URLS_MAX).contains(&urls.len()).then(|| urls.into_iter().collect())
}

/// Whether a change makes sense by itself.
///
/// # Errors
/// [`ProposeError::Malformed`] if it does not.
pub(super) fn check(change: &MemberChange) -> Result<(), ProposeError> {
    let urls = match change {
        // There is no such member; that is said with all others that there are not.
        MemberChange::Remove(_) | MemberChange::Promote(_) => return Ok(()),
        MemberChange::Update { peer_urls, .. } => peer_urls,
        MemberChange::Add(member) => {
            if member.id == 0 {
                return Err(ProposeError::Malformed("a member with the id 0"));
            }
            if !member.name.is_empty() || !member.client_urls.is_empty() {
                return Err(ProposeError::Malformed("a new member publishes its name and client URLs itself"));
            }
            &member.peer_urls
        }
    };
    peer_urls(urls).map(drop).ok_or(ProposeError::Malformed("peer URLs that are none, or too many"))
}

/// A change as it is logged.
pub fn brief(change: &MemberChange) -> String {
    let mut text = format!("{change:?}");
    if let Some((end, _)) = text.char_indices().nth(BRIEF_CHARS_MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use cairn_proto::etcdserverpb::Member;

    use super::*;

    fn new(id: u64, urls: &[&str]) -> Member {
        Member { id, peer_urls: urls.iter().map(|&url| url.to_owned()).collect(), ..Member::default() }
    }

    #[track_caller]
    fn refused(change: &MemberChange, words: &str) {
        let told = check(change).unwrap_err().to_string();
        assert!(told.contains(words), "{told}");
    }

    #[test]
    fn a_new_member_has_an_id_and_addresses_and_nothing_else() {
        let good = new(4, &["http://127.0.0.1:9"]);
        assert_eq!(check(&MemberChange::Add(good.clone())), Ok(()));
        refused(&MemberChange::Add(Member { id: 0, ..good.clone() }), "the id 0");
        refused(&MemberChange::Add(Member { name: "x".repeat(2_000_000), ..good.clone() }), "publishes its name");
        refused(&MemberChange::Add(Member { client_urls: vec!["zzz".to_owned()], ..good }), "publishes its name");
        refused(&MemberChange::Add(new(4, &[])), "peer URLs");
        refused(&MemberChange::Add(new(4, &["zzz"])), "peer URLs");
    }

    #[test]
    fn addresses_are_some_and_valid_and_not_too_many() {
        let update = |peer_urls: Vec<String>| MemberChange::Update { id: 4, peer_urls };
        let urls = |count: usize| (0..count).map(|at| format!("http://h:{at}")).collect::<Vec<_>>();
        assert_eq!(check(&update(urls(PEER_URLS_MAX))), Ok(()));
        let long = format!("http://{}:1", "h".repeat(PEER_URL_BYTES_MAX));
        for bad in [vec![], vec!["foo bar".to_owned()], urls(PEER_URLS_MAX + 1), vec![long]] {
            refused(&update(bad), "peer URLs");
        }
        assert_eq!(check(&MemberChange::Remove(0)), Ok(()), "that there is none is said later");
    }

    #[test]
    fn what_is_logged_is_cut_short() {
        let long = MemberChange::Add(Member { name: "ä".repeat(2_000_000), ..Member::default() });
        assert_eq!(brief(&long).chars().count(), BRIEF_CHARS_MAX + 1);
        assert_eq!(brief(&MemberChange::Remove(5)), "Remove(5)");
    }
}
