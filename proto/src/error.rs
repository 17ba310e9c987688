//! The error catalogue: every error of the API as code and exact text.
//!
//! Clients compare both, so a condition has one name here and its text is written nowhere else. The server answers with
//! `Status::from(ApiError)`; a client asks [`ApiError::from_status`] what it met.
//!
//! What is not here: deadlines and cancellations, which are gRPC's own, and errors of Cairn that no other server has.

use std::fmt;

use tonic::{Code, Status};

/// Declares the enum, the list of all its variants and their codes and texts in one table.
macro_rules! catalogue {
    ($($(#[$doc:meta])+ $name:ident = $code:ident $text:literal;)+) => {
        /// An error of the v3 API.
        ///
        /// Every variant is a gRPC code with a text; the pair is unique, and part of the wire contract. Two variants have
        /// the same text where different services answer the same condition with different codes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ApiError {
            $($(#[$doc])+ $name,)+
        }

        impl ApiError {
            /// Every error of the catalogue.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The gRPC code.
            pub const fn code(self) -> Code {
                match self { $(Self::$name => Code::$code,)+ }
            }

            /// The exact text, as it stands in `grpc-message`.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

catalogue! {
    // Requests that are wrong in themselves.

    /// The request names no key.
    EmptyKey = InvalidArgument "etcdserver: key is not provided";
    /// The request needs the key to exist, or a transaction holds an operation that is not set.
    KeyNotFound = InvalidArgument "etcdserver: key not found";
    /// `ignore_value` with a value.
    ValueProvided = InvalidArgument "etcdserver: value is provided";
    /// `ignore_lease` with a lease.
    LeaseProvided = InvalidArgument "etcdserver: lease is provided";
    /// A transaction has more compares or operations than allowed.
    TooManyOps = InvalidArgument "etcdserver: too many operations in txn request";
    /// A transaction would write a key twice.
    DuplicateKey = InvalidArgument "etcdserver: duplicate key given in txn request";
    /// The client announces an API version the server does not know.
    InvalidClientApiVersion = InvalidArgument "etcdserver: invalid client api version";
    /// A sort order or target that does not exist.
    InvalidSortOption = InvalidArgument "etcdserver: invalid sort option";
    /// A request is larger than `--max-request-bytes`.
    RequestTooLarge = InvalidArgument "etcdserver: request is too large";

    // History.

    /// The revision is below the compacted one, or a compaction does not go above the last one.
    Compacted = OutOfRange "etcdserver: mvcc: required revision has been compacted";
    /// The revision does not exist yet.
    FutureRevision = OutOfRange "etcdserver: mvcc: required revision is a future revision";

    // Limits.

    /// The quota is used up.
    NoSpace = ResourceExhausted "etcdserver: mvcc: database space exceeded";
    /// The server has too many requests waiting.
    TooManyRequests = Unknown "etcdserver: too many requests";

    // Leases.

    /// No such lease.
    LeaseNotFound = NotFound "etcdserver: requested lease not found";
    /// The wanted lease number is taken.
    LeaseExists = FailedPrecondition "etcdserver: lease already exists";
    /// The wanted time to live is above the maximum.
    LeaseTtlTooLarge = OutOfRange "etcdserver: too large lease TTL";

    // Members.

    /// No such member.
    MemberNotFound = NotFound "etcdserver: member not found";
    /// A member with the same number exists.
    MemberExists = FailedPrecondition "etcdserver: member ID already exist";
    /// Another member has one of the peer addresses.
    PeerUrlExists = FailedPrecondition "etcdserver: Peer URLs already exists";
    /// The peer addresses are not addresses.
    MemberBadUrls = InvalidArgument "etcdserver: given member URLs are invalid";
    /// The change could leave the cluster without a majority of started members.
    MemberNotEnoughStarted = Unknown "etcdserver: re-configuration failed due to not enough started members";
    /// Only a learner can be promoted.
    MemberNotLearner = FailedPrecondition "etcdserver: can only promote a learner member";
    /// The learner has not caught up with the leader.
    LearnerNotReady = FailedPrecondition "etcdserver: can only promote a learner member which is in sync with leader";
    /// The cluster has as many learners as it may have.
    TooManyLearners = FailedPrecondition "etcdserver: too many learner members in cluster";
    /// A learner does not serve this request.
    NotSupportedForLearner = FailedPrecondition "etcdserver: rpc not supported for learner";
    /// The wanted new leader cannot lead.
    BadLeaderTransferee = FailedPrecondition "etcdserver: bad leader transferee";
    /// Only the leader serves this request.
    NotLeader = FailedPrecondition "etcdserver: not leader";
    /// The cluster's version does not have this request.
    NotCapable = FailedPrecondition "etcdserver: not capable";

    // Downgrade.

    /// The downgrade's target is not written as a version.
    WrongDowngradeVersionFormat = InvalidArgument "etcdserver: wrong downgrade target version format";
    /// The cluster cannot go down to this version.
    InvalidDowngradeTargetVersion = InvalidArgument "etcdserver: invalid downgrade target version";
    /// The cluster's version is not known yet.
    ClusterVersionUnavailable = FailedPrecondition "etcdserver: cluster version not found during downgrade";
    /// Another downgrade is in progress.
    DowngradeInProgress = FailedPrecondition "etcdserver: cluster has a downgrade job in progress";

    // Availability.

    /// The member knows no leader.
    NoLeader = Unavailable "etcdserver: no leader";
    /// The leader changed while the request waited; a write may or may not have happened.
    LeaderChanged = Unavailable "etcdserver: leader changed";
    /// The member is stopping.
    Stopped = Unavailable "etcdserver: server stopped";
    /// No answer in time; a write may or may not have happened.
    Timeout = Unavailable "etcdserver: request timed out";
    /// No answer in time, probably because the leader was lost; a write may or may not have happened.
    TimeoutLeaderFailure = Unavailable "etcdserver: request timed out, possibly due to previous leader failure";
    /// No answer in time, probably because the connection to other members was lost; a write may or may not have happened.
    TimeoutConnectionLost = Unavailable "etcdserver: request timed out, possibly due to connection lost";
    /// The member did not apply in time what the read must see.
    TimeoutWaitAppliedIndex = Unavailable "etcdserver: request timed out, waiting for the applied index took too long";
    /// Too few members are connected for a change of membership.
    Unhealthy = Unavailable "etcdserver: unhealthy cluster";
    /// The members' data differ.
    Corrupt = DataLoss "etcdserver: corrupt cluster";
    /// The server ended the watch.
    WatchCanceled = Cancelled "etcdserver: watch canceled";
    /// The server gave the request up.
    RequestCanceled = Cancelled "etcdserver: request canceled";

    // Auth.

    /// Authentication cannot be turned on without the user root.
    RootUserNotExist = FailedPrecondition "etcdserver: root user does not exist";
    /// Authentication cannot be turned on without root having the role root.
    RootRoleNotGranted = FailedPrecondition "etcdserver: root user does not have root role";
    /// A user of this name exists.
    UserExists = FailedPrecondition "etcdserver: user name already exists";
    /// No user name is given, or a request came without a token.
    UserEmpty = InvalidArgument "etcdserver: user name is empty";
    /// No user of this name.
    UserNotFound = FailedPrecondition "etcdserver: user name not found";
    /// A role of this name exists.
    RoleExists = FailedPrecondition "etcdserver: role name already exists";
    /// No role of this name.
    RoleNotFound = FailedPrecondition "etcdserver: role name not found";
    /// No role name is given.
    RoleEmpty = InvalidArgument "etcdserver: role name is empty";
    /// Wrong user name or password.
    AuthFailed = InvalidArgument "etcdserver: authentication failed, invalid user ID or password";
    /// A grant without a permission.
    PermissionNotGiven = InvalidArgument "etcdserver: permission not given";
    /// The user may not do this.
    PermissionDenied = PermissionDenied "etcdserver: permission denied";
    /// The user does not have the role.
    RoleNotGranted = FailedPrecondition "etcdserver: role is not granted to the user";
    /// The role does not have the permission.
    PermissionNotGranted = FailedPrecondition "etcdserver: permission is not granted to the role";
    /// Authentication is off.
    AuthNotEnabled = FailedPrecondition "etcdserver: authentication is not enabled";
    /// The token is unknown, expired or forged.
    InvalidAuthToken = Unauthenticated "etcdserver: invalid auth token";
    /// The change would take root from itself while authentication is on.
    InvalidAuthManagement = InvalidArgument "etcdserver: invalid auth management";
    /// Users or permissions changed since the request was authorised.
    AuthOldRevision = InvalidArgument "etcdserver: revision of auth store is old";
    /// A password was given for a user that has none.
    NoPasswordUser = Unknown "auth: authentication failed, password was given for no password user";

    // RangeStream.

    /// A streamed range cannot be sorted.
    RangeStreamSortOrder = Unimplemented "RangeStream does not support custom sort orders";
    /// A streamed range cannot be filtered by revision.
    RangeStreamRevisionFilter = Unimplemented "RangeStream does not support revision filters";

    // Lock and Election pass their errors on without a code.

    /// The election has no leader.
    ElectionNoLeader = Unknown "election: no leader";
    /// The caller does not lead the election.
    ElectionNotLeader = Unknown "election: not leader";
    /// The request carries no proof of leadership.
    ElectionMissingLeaderKey = Unknown "\"leader\" field must be provided";
    /// The lease of a place in a lock's queue ended before its turn came.
    LockSessionExpired = Unknown "mutex: session is expired";
    /// No such lease, as Lock and Election say it.
    LockLeaseNotFound = Unknown "etcdserver: requested lease not found";
}

impl ApiError {
    /// Recognises the error behind a status.
    ///
    /// Code and text together decide; a text that comes with an unexpected code, as from servers of another version,
    /// still gives the first error of that text. `None` for everything outside the catalogue.
    pub fn from_status(status: &Status) -> Option<Self> {
        let texts_match = |error: &&Self| error.text() == status.message();
        let mut candidates = Self::ALL.iter().filter(texts_match);
        let first = candidates.next().copied()?;
        if first.code() == status.code() {
            return Some(first);
        }
        let exact = candidates.find(|error| error.code() == status.code());
        Some(exact.copied().unwrap_or(first))
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for ApiError {}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        Status::new(error.code(), error.text())
    }
}

/// Texts of `WatchResponse.cancel_reason`.
///
/// A watch whose start revision was compacted is cancelled without a reason, but with `compact_revision` set.
pub mod cancel_reason {
    /// The start revision is negative.
    pub const NEGATIVE_START: &str = super::ApiError::Compacted.text();
    /// The user may not read the range: the status as text.
    pub const PERMISSION_DENIED: &str = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
    /// The stream has no user, and authentication is on.
    pub const USER_EMPTY: &str = "rpc error: code = InvalidArgument desc = etcdserver: user name is empty";
    /// The token of the stream stands for no user.
    pub const INVALID_AUTH_TOKEN: &str = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";
    /// The signed token of the stream was made at another auth revision.
    pub const AUTH_OLD_REVISION: &str =
        "rpc error: code = InvalidArgument desc = etcdserver: revision of auth store is old";
    /// The wanted watch number is taken.
    pub const DUPLICATE_WATCH_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";
    /// The range holds no key.
    pub const EMPTY_RANGE: &str = "mvcc: watcher range is empty";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The wire contract: a code, and the texts that come with it, without the prefix all of them share.
    const PREFIXED: &[(Code, &[&str])] = &[
        (
            Code::InvalidArgument,
            &[
                "key is not provided",
                "key not found",
                "value is provided",
                "lease is provided",
                "too many operations in txn request",
                "duplicate key given in txn request",
                "invalid client api version",
                "invalid sort option",
                "given member URLs are invalid",
                "request is too large",
                "user name is empty",
                "role name is empty",
                "authentication failed, invalid user ID or password",
                "permission not given",
                "invalid auth management",
                "revision of auth store is old",
                "wrong downgrade target version format",
                "invalid downgrade target version",
            ],
        ),
        (
            Code::OutOfRange,
            &[
                "mvcc: required revision has been compacted",
                "mvcc: required revision is a future revision",
                "too large lease TTL",
            ],
        ),
        (Code::ResourceExhausted, &["mvcc: database space exceeded"]),
        (
            Code::Unknown,
            &[
                "too many requests",
                "re-configuration failed due to not enough started members",
                "requested lease not found",
            ],
        ),
        (Code::NotFound, &["requested lease not found", "member not found"]),
        (
            Code::FailedPrecondition,
            &[
                "lease already exists",
                "member ID already exist",
                "Peer URLs already exists",
                "can only promote a learner member",
                "can only promote a learner member which is in sync with leader",
                "too many learner members in cluster",
                "root user does not exist",
                "root user does not have root role",
                "user name already exists",
                "user name not found",
                "role name already exists",
                "role name not found",
                "role is not granted to the user",
                "permission is not granted to the role",
                "authentication is not enabled",
                "not leader",
                "not capable",
                "rpc not supported for learner",
                "bad leader transferee",
                "cluster version not found during downgrade",
                "cluster has a downgrade job in progress",
            ],
        ),
        (
            Code::Unavailable,
            &[
                "no leader",
                "leader changed",
                "server stopped",
                "request timed out",
                "request timed out, possibly due to previous leader failure",
                "request timed out, possibly due to connection lost",
                "request timed out, waiting for the applied index took too long",
                "unhealthy cluster",
            ],
        ),
        (Code::PermissionDenied, &["permission denied"]),
        (Code::Unauthenticated, &["invalid auth token"]),
        (Code::Cancelled, &["watch canceled", "request canceled"]),
        (Code::DataLoss, &["corrupt cluster"]),
    ];

    /// The errors without the prefix.
    const BARE: &[(Code, &str)] = &[
        (Code::Unimplemented, "RangeStream does not support custom sort orders"),
        (Code::Unimplemented, "RangeStream does not support revision filters"),
        (Code::Unknown, "election: no leader"),
        (Code::Unknown, "election: not leader"),
        (Code::Unknown, "\"leader\" field must be provided"),
        (Code::Unknown, "mutex: session is expired"),
        (Code::Unknown, "auth: authentication failed, password was given for no password user"),
    ];

    #[test]
    fn catalogue_is_exactly_the_contract() {
        let contract: HashSet<(Code, String)> = PREFIXED
            .iter()
            .flat_map(|(code, texts)| texts.iter().map(|t| (*code, format!("etcdserver: {t}"))))
            .chain(BARE.iter().map(|(code, text)| (*code, (*text).to_owned())))
            .collect();
        let catalogue: HashSet<(Code, String)> =
            ApiError::ALL.iter().map(|e| (e.code(), e.text().to_owned())).collect();
        let missing: Vec<_> = contract.difference(&catalogue).collect();
        let surplus: Vec<_> = catalogue.difference(&contract).collect();
        assert!(missing.is_empty() && surplus.is_empty(), "missing {missing:?}, surplus {surplus:?}");
        assert_eq!(catalogue.len(), ApiError::ALL.len(), "a pair of code and text appears twice");
    }

    #[test]
    fn every_error_is_recognised_in_its_own_status() {
        for error in ApiError::ALL {
            let status = Status::from(*error);
            assert_eq!((status.code(), status.message()), (error.code(), error.text()));
            assert_eq!(ApiError::from_status(&status), Some(*error));
        }
    }

    #[test]
    fn a_known_text_is_recognised_under_an_unexpected_code() {
        let status = Status::new(Code::FailedPrecondition, "etcdserver: too many requests");
        assert_eq!(ApiError::from_status(&status), Some(ApiError::TooManyRequests));
        let status = Status::new(Code::Internal, "etcdserver: requested lease not found");
        assert_eq!(ApiError::from_status(&status), Some(ApiError::LeaseNotFound));
    }

    #[test]
    fn an_unknown_text_is_not_recognised() {
        assert_eq!(ApiError::from_status(&Status::unavailable("tcp connect error")), None);
        assert_eq!(ApiError::from_status(&Status::new(Code::InvalidArgument, "etcdserver:")), None);
    }
}
