//! `-w fields`: one `"Name" : value` a line; keys and values quoted, ids in hexadecimal with `--hex`.

use std::fmt::Display;

use cairn_proto::etcdserverpb as pb;
use cairn_proto::etcdserverpb::response_op::Response;
use cairn_proto::mvccpb::KeyValue;

use super::simple::alarm_name;
use super::{EndpointHashKv, EndpointHealth, EndpointStatus, Watched};
use crate::golang::quote;

fn field(out: &mut Vec<u8>, name: &str, value: impl Display) {
    out.extend(format!("\"{name}\" : {value}\n").bytes());
}

fn id(out: &mut Vec<u8>, name: &str, value: u64, hex: bool) {
    if hex { field(out, name, format_args!("{value:x}")) } else { field(out, name, value) }
}

/// A header. A revision of 0 says that the answer has nothing to do with keys, and is left out.
pub fn header(out: &mut Vec<u8>, header: Option<&pb::ResponseHeader>, hex: bool) {
    let header = header.copied().unwrap_or_default();
    id(out, "ClusterID", header.cluster_id, hex);
    id(out, "MemberID", header.member_id, hex);
    if header.revision > 0 {
        field(out, "Revision", header.revision);
    }
    field(out, "RaftTerm", header.raft_term);
}

fn key_value(out: &mut Vec<u8>, prefix: &str, kv: &KeyValue, hex: bool) {
    field(out, &format!("{prefix}Key"), quote(&kv.key));
    field(out, &format!("{prefix}CreateRevision"), kv.create_revision);
    field(out, &format!("{prefix}ModRevision"), kv.mod_revision);
    field(out, &format!("{prefix}Version"), kv.version);
    field(out, &format!("{prefix}Value"), quote(&kv.value));
    let lease = format!("{prefix}Lease");
    if hex { field(out, &lease, format_args!("{:016x}", kv.lease)) } else { field(out, &lease, kv.lease) }
}

/// A put.
pub fn put(out: &mut Vec<u8>, answer: &pb::PutResponse, hex: bool) {
    header(out, answer.header.as_ref(), hex);
    if let Some(kv) = &answer.prev_kv {
        key_value(out, "Prev", kv, hex);
    }
}

/// A range.
pub fn get(out: &mut Vec<u8>, answer: &pb::RangeResponse, hex: bool) {
    header(out, answer.header.as_ref(), hex);
    for kv in &answer.kvs {
        key_value(out, "", kv, hex);
    }
    field(out, "More", answer.more);
    field(out, "Count", answer.count);
}

/// A delete.
pub fn del(out: &mut Vec<u8>, answer: &pb::DeleteRangeResponse, hex: bool) {
    header(out, answer.header.as_ref(), hex);
    field(out, "Deleted", answer.deleted);
    for kv in &answer.prev_kvs {
        key_value(out, "Prev", kv, hex);
    }
}

/// A transaction and its operations' answers.
pub fn txn(out: &mut Vec<u8>, answer: &pb::TxnResponse, hex: bool) {
    header(out, answer.header.as_ref(), hex);
    field(out, "Succeeded", answer.succeeded);
    for response in &answer.responses {
        match &response.response {
            Some(Response::ResponseRange(answer)) => get(out, answer, hex),
            Some(Response::ResponsePut(answer)) => put(out, answer, hex),
            Some(Response::ResponseDeleteRange(answer)) => del(out, answer, hex),
            Some(Response::ResponseTxn(answer)) => txn(out, answer, hex),
            None => {}
        }
    }
}

fn lease_id(out: &mut Vec<u8>, id: i64, hex: bool) {
    if hex { field(out, "ID", format_args!("{id:016x}")) } else { field(out, "ID", id) }
}

/// A lease granted or renewed.
pub fn lease(out: &mut Vec<u8>, head: Option<&pb::ResponseHeader>, id: i64, ttl: i64, hex: bool) {
    header(out, head, hex);
    lease_id(out, id, hex);
    field(out, "TTL", ttl);
}

/// A lease revoked.
pub fn lease_revoke(out: &mut Vec<u8>, answer: &pb::LeaseRevokeResponse, hex: bool) {
    header(out, answer.header.as_ref(), hex);
}

/// A lease's time to live.
pub fn lease_time_to_live(out: &mut Vec<u8>, answer: &pb::LeaseTimeToLiveResponse, hex: bool) {
    lease(out, answer.header.as_ref(), answer.id, answer.ttl, hex);
    field(out, "GrantedTTL", answer.granted_ttl);
    for key in &answer.keys {
        field(out, "Key", quote(key));
    }
}

/// Leases.
pub fn leases(out: &mut Vec<u8>, answer: &pb::LeaseLeasesResponse, hex: bool) {
    header(out, answer.header.as_ref(), hex);
    for lease in &answer.leases {
        lease_id(out, lease.id, hex);
    }
}

/// An answer on a watch.
pub fn watch(out: &mut Vec<u8>, answer: &Watched, hex: bool) {
    header(out, Some(&answer.header), hex);
    for event in answer.events.iter().flatten() {
        field(out, "Type", event.r#type().as_str_name());
        if let Some(kv) = &event.prev_kv {
            key_value(out, "Prev", kv, hex);
        }
        if let Some(kv) = &event.kv {
            key_value(out, "", kv, hex);
        }
    }
}

/// Alarms.
pub fn alarms(out: &mut Vec<u8>, answer: &pb::AlarmResponse, hex: bool) {
    header(out, answer.header.as_ref(), hex);
    for member in &answer.alarms {
        id(out, "MemberID", member.member_id, hex);
        field(out, "AlarmType", alarm_name(member.alarm));
        out.push(b'\n');
    }
}

/// Members.
pub fn members(out: &mut Vec<u8>, answer: &pb::MemberListResponse, hex: bool) {
    header(out, answer.header.as_ref(), hex);
    for member in &answer.members {
        id(out, "ID", member.id, hex);
        field(out, "Name", quote(member.name.as_bytes()));
        for url in &member.peer_urls {
            field(out, "PeerURL", quote(url.as_bytes()));
        }
        for url in &member.client_urls {
            field(out, "ClientURL", quote(url.as_bytes()));
        }
        field(out, "IsLearner", member.is_learner);
        out.push(b'\n');
    }
}

/// The health of endpoints.
pub fn health(out: &mut Vec<u8>, list: &[EndpointHealth]) {
    for health in list {
        field(out, "Endpoint", quote(health.endpoint.as_bytes()));
        field(out, "Health", health.healthy());
        field(out, "Took", &health.took);
        field(out, "Error", &health.error);
        out.push(b'\n');
    }
}

/// The status of endpoints.
pub fn status(out: &mut Vec<u8>, list: &[EndpointStatus], hex: bool) {
    for (endpoint, status) in list {
        let downgrade = status.downgrade_info.clone().unwrap_or_default();
        header(out, status.header.as_ref(), hex);
        field(out, "Version", quote(status.version.as_bytes()));
        field(out, "StorageVersion", quote(status.storage_version.as_bytes()));
        field(out, "DBSize", status.db_size);
        field(out, "DBSizeInUse", status.db_size_in_use);
        field(out, "DBSizeQuota", status.db_size_quota);
        field(out, "Leader", status.leader);
        field(out, "IsLearner", status.is_learner);
        field(out, "RaftIndex", status.raft_index);
        field(out, "RaftTerm", status.raft_term);
        field(out, "RaftAppliedIndex", status.raft_applied_index);
        field(out, "Errors", format_args!("[{}]", status.errors.join(" ")));
        field(out, "Endpoint", quote(endpoint.as_bytes()));
        field(out, "DowngradeTargetVersion", quote(downgrade.target_version.as_bytes()));
        field(out, "DowngradeEnabled", downgrade.enabled);
        out.push(b'\n');
    }
}

/// The hashes of endpoints.
pub fn hash_kv(out: &mut Vec<u8>, list: &[EndpointHashKv], hex: bool) {
    for (endpoint, hash) in list {
        header(out, hash.header.as_ref(), hex);
        field(out, "Endpoint", quote(endpoint.as_bytes()));
        field(out, "Hash", hash.hash);
        field(out, "HashRevision", hash.hash_revision);
        out.push(b'\n');
    }
}

/// A role. The first field has a space more than others have, as etcdctl's.
pub fn role(out: &mut Vec<u8>, answer: &pb::AuthRoleGetResponse, hex: bool) {
    header(out, answer.header.as_ref(), hex);
    for permission in &answer.perm {
        field(out, "PermType", format_args!(" {}", permission.perm_type().as_str_name()));
        field(out, "Key", quote(&permission.key));
        field(out, "RangeEnd", quote(&permission.range_end));
    }
}

/// Roles.
pub fn roles(out: &mut Vec<u8>, answer: &pb::AuthRoleListResponse, hex: bool) {
    header(out, answer.header.as_ref(), hex);
    let roles: Vec<_> = answer.roles.iter().map(|role| quote(role.as_bytes())).collect();
    out.extend(format!("\"Roles\" :{}{}\n", if roles.is_empty() { "" } else { " " }, roles.join(" ")).bytes());
}
