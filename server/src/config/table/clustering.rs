//! Flags about the cluster: bootstrap, membership, history, checks between members.

use super::super::flag::{
    Class::{Dropped, Effect, Ignored, Refused},
    Draft, Flag, Group, Kind, put,
};
use super::{rows, set};

pub(super) static CLUSTERING: &[Flag] = rows! { Clustering:
    "initial-advertise-peer-urls" Urls "http://localhost:2380", "List of this member's peer URLs to advertise to the rest of the cluster.", Effect(set!(initial_advertise_peer_urls));
    "initial-cluster" Text "", "Initial cluster configuration for bootstrapping: name=URL,… (empty: this member alone).", Effect(set!(initial_cluster));
    "initial-cluster-state" Text "new", "Initial cluster state: new when bootstrapping a cluster, existing when joining one. Ignored on restarts.", Effect(set!(initial_cluster_state));
    "initial-cluster-token" Text "etcd-cluster", "Initial cluster token for bootstrapping, different for every cluster.", Effect(set!(initial_cluster_token));
    "force-new-cluster" Bool "false", "Drop all other members for good and go on alone with the data of this one, when a majority is lost. To be given once.", Effect(set!(force_new_cluster));
    "advertise-client-urls" Urls "", "List of this member's client URLs to advertise to the public. Required when --listen-client-urls is given (otherwise the same).", Effect(set!(advertise_client_urls));
    "strict-reconfig-check" Bool "true", "Reject reconfiguration requests that would cause quorum loss.", Effect(set!(strict_reconfig_check));
    "max-learners" Uint "1", "Maximum number of learners in the cluster.", Effect(set!(max_learners));
    "pre-vote" Bool "true", "Run an additional election phase, so that a returning member does not disturb the cluster.", Effect(set!(pre_vote));
    "auto-compaction-mode" Text "periodic", "How to read --auto-compaction-retention: periodic or revision.", Effect(|draft, text| put(&mut draft.compaction_mode, text));
    "auto-compaction-retention" Text "0", "History to keep: a duration or a number of hours (periodic), a number of revisions (revision); 0 keeps all.", Effect(|draft, text| put(&mut draft.compaction_retention, text));
    "feature-gates" Gates "", "Gates of etcd to open or close: InitialCorruptCheck=true (compare with the other members before serving), CompactHashCheck=true (have the leader compare the hashes of compactions), or AllAlpha=true for both. What the others guard is either always on here or not there.", Effect(Draft::set_gates);
    "corrupt-check-time" Duration "0s", "Time between two comparisons of all members' keys by the leader (0 to disable). It reads everything.", Effect(set!(corrupt_check_time));
    "compact-hash-check-time" Duration "1m", "Time between two comparisons of the hashes of compactions, if the gate CompactHashCheck is open.", Effect(set!(compact_hash_check_time));
    "downgrade-check-time" Duration "5s", "downgrades are not served yet", Ignored;
    "discovery-endpoints" List "", "discovery is not served, and a member that ignored this would make a cluster of its own: name the members with --initial-cluster", Refused;
    "discovery-token" Text "", "discovery is not served, and a member that ignored this would make a cluster of its own: name the members with --initial-cluster", Refused;
    "discovery-srv" Text "", "discovery is not served, and a member that ignored this would make a cluster of its own: name the members with --initial-cluster", Refused;
    "discovery-srv-name" Text "", "discovery is not served; without --discovery-srv it changes nothing in etcd either", Ignored;
    "discovery" Text "", "discovery is not served: name the members with --initial-cluster", Dropped;
    "discovery-fallback" Text "exit", "discovery is not served", Ignored;
    "discovery-proxy" Text "", "discovery is not served", Ignored;
    "discovery-dial-timeout" Duration "2s", "discovery is not served", Ignored;
    "discovery-request-timeout" Duration "5s", "discovery is not served", Ignored;
    "discovery-keepalive-time" Duration "2s", "discovery is not served", Ignored;
    "discovery-keepalive-timeout" Duration "6s", "discovery is not served", Ignored;
    "discovery-insecure-transport" Bool "true", "discovery is not served", Ignored;
    "discovery-insecure-skip-tls-verify" Bool "false", "discovery is not served", Ignored;
    "discovery-cert" Text "", "discovery is not served", Ignored;
    "discovery-key" Text "", "discovery is not served", Ignored;
    "discovery-cacert" Text "", "discovery is not served", Ignored;
    "discovery-user" Text "", "discovery is not served", Ignored;
    "discovery-password" Text "", "discovery is not served", Ignored;
};
