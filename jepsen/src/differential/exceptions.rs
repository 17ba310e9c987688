//! Where a genuine 3.5 answers otherwise than the 3.7 that Cairn serves, and why that is right.
//!
//! Besides what is listed below, some requests end a genuine server: a put that ignores the value or the lease of a key which an earlier operation of the
//! same transaction deleted, and a range over a key that was deleted and created again within one revision, after a compaction. Cairn answers them; the
//! sequence ends there and the next begins on fresh servers.

use cairn_proto::{
    ApiError,
    etcdserverpb::range_request::{SortOrder, SortTarget},
};

use super::{Step, play::Answer};

/// Whether a difference is one of those listed here.
pub fn explained(request: &Step, genuine: &Answer, ours: &Answer) -> bool {
    sort_option_unchecked(request, ours) || other_code(genuine, ours)
}

/// 3.5 takes a sort order or target that does not exist for none; 3.7 refuses it, as the recordings of a genuine one show.
fn sort_option_unchecked(request: &Step, ours: &Answer) -> bool {
    let Step::Range(range) = request else { return false };
    let unknown = SortOrder::try_from(range.sort_order).is_err() || SortTarget::try_from(range.sort_target).is_err();
    unknown
        && *ours == Answer::Refused(ApiError::InvalidSortOption.code(), ApiError::InvalidSortOption.text().to_owned())
}

/// Whether the text is the same and its code one of those that changed.
fn other_code(genuine: &Answer, ours: &Answer) -> bool {
    let (Answer::Refused(genuine_code, genuine_text), Answer::Refused(code, text)) = (genuine, ours) else {
        return false;
    };
    CODES.iter().any(|exception| {
        exception.text == genuine_text
            && genuine_text == text
            && *genuine_code == exception.genuine
            && *code == exception.ours
    })
}

/// The same text with another code.
struct Code {
    text: &'static str,
    genuine: tonic::Code,
    ours: tonic::Code,
}

/// Codes that changed between 3.5 and 3.7.
const CODES: [Code; 0] = [];
