//! `-w json`: one line of JSON, byte for byte what Go's encoder makes of etcd's types.
//!
//! Fields come in the order of their numbers in the protocol, under their names there, and are left out when they are zero.
//! 64-bit numbers are plain numbers; bytes are base64. An operation's answer within a transaction is wrapped in
//! `"Response"`, and alarm types are numbers. `--hex` changes the ids of member lists and nothing else.

use std::fmt::{Display, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cairn_proto::etcdserverpb as pb;
use cairn_proto::etcdserverpb::response_op::Response;
use cairn_proto::mvccpb::{Event, KeyValue};

use super::{EndpointHashKv, EndpointHealth, EndpointStatus, Watched};

/// An object being written.
struct Object(String);

impl Object {
    fn new() -> Self {
        Self("{".to_owned())
    }

    /// A field whatever its value is.
    fn field(&mut self, name: &str, value: impl Display) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        let _ = write!(self.0, "\"{name}\":{value}");
    }

    /// A number, left out if zero.
    fn number<N: Display + Default + PartialEq>(&mut self, name: &str, value: N) {
        if value != N::default() {
            self.field(name, value);
        }
    }

    /// A truth, left out if false.
    fn flag(&mut self, name: &str, value: bool) {
        if value {
            self.field(name, true);
        }
    }

    /// Bytes, left out if empty.
    fn bytes(&mut self, name: &str, value: &[u8]) {
        if !value.is_empty() {
            self.field(name, format_args!("\"{}\"", STANDARD.encode(value)));
        }
    }

    /// Text, left out if empty.
    fn text(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.field(name, string(value));
        }
    }

    /// Another object, left out if absent.
    fn object(&mut self, name: &str, value: Option<String>) {
        if let Some(value) = value {
            self.field(name, value);
        }
    }

    /// A list, left out if empty.
    fn list(&mut self, name: &str, values: impl IntoIterator<Item = String>) {
        let list = array(values);
        if list != "[]" {
            self.field(name, list);
        }
    }

    fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

fn array(values: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", values.into_iter().collect::<Vec<_>>().join(","))
}

/// A string as Go's encoder writes it: safe to stand in a web page, control characters escaped.
fn string(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\0'..' ' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(quoted, "\\u{:04x}", character as u32);
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

fn header(header: Option<&pb::ResponseHeader>) -> Option<String> {
    let header = header?;
    let mut object = Object::new();
    object.number("cluster_id", header.cluster_id);
    object.number("member_id", header.member_id);
    object.number("revision", header.revision);
    object.number("raft_term", header.raft_term);
    Some(object.end())
}

fn key_value(kv: &KeyValue) -> String {
    let mut object = Object::new();
    object.bytes("key", &kv.key);
    object.number("create_revision", kv.create_revision);
    object.number("mod_revision", kv.mod_revision);
    object.number("version", kv.version);
    object.bytes("value", &kv.value);
    object.number("lease", kv.lease);
    object.end()
}

/// A put.
pub fn put(answer: &pb::PutResponse) -> String {
    let mut object = Object::new();
    object.object("header", header(answer.header.as_ref()));
    object.object("prev_kv", answer.prev_kv.as_ref().map(key_value));
    object.end()
}

/// A range.
pub fn get(answer: &pb::RangeResponse) -> String {
    let mut object = Object::new();
    object.object("header", header(answer.header.as_ref()));
    object.list("kvs", answer.kvs.iter().map(key_value));
    object.flag("more", answer.more);
    object.number("count", answer.count);
    object.end()
}

/// A delete.
pub fn del(answer: &pb::DeleteRangeResponse) -> String {
    let mut object = Object::new();
    object.object("header", header(answer.header.as_ref()));
    object.number("deleted", answer.deleted);
    object.list("prev_kvs", answer.prev_kvs.iter().map(key_value));
    object.end()
}

/// A transaction and its operations' answers.
pub fn txn(answer: &pb::TxnResponse) -> String {
    let mut object = Object::new();
    object.object("header", header(answer.header.as_ref()));
    object.flag("succeeded", answer.succeeded);
    object.list("responses", answer.responses.iter().map(response));
    object.end()
}

fn response(response: &pb::ResponseOp) -> String {
    let (name, answer) = match &response.response {
        Some(Response::ResponseRange(answer)) => ("response_range", get(answer)),
        Some(Response::ResponsePut(answer)) => ("response_put", put(answer)),
        Some(Response::ResponseDeleteRange(answer)) => ("response_delete_range", del(answer)),
        Some(Response::ResponseTxn(answer)) => ("response_txn", txn(answer)),
        None => return "{\"Response\":null}".to_owned(),
    };
    format!("{{\"Response\":{{\"{name}\":{answer}}}}}")
}

/// Alarms.
pub fn alarms(answer: &pb::AlarmResponse) -> String {
    let alarm = |member: &pb::AlarmMember| {
        let mut object = Object::new();
        object.number("memberID", member.member_id);
        object.number("alarm", member.alarm);
        object.end()
    };
    let mut object = Object::new();
    object.object("header", header(answer.header.as_ref()));
    object.list("alarms", answer.alarms.iter().map(alarm));
    object.end()
}

/// Members; with `hex` every id is a hexadecimal string.
pub fn members(answer: &pb::MemberListResponse, hex: bool) -> String {
    let mut object = Object::new();
    if hex {
        let known = answer.header.unwrap_or_default();
        let mut header = Object::new();
        header.field("cluster_id", format_args!("\"{:x}\"", known.cluster_id));
        header.field("member_id", format_args!("\"{:x}\"", known.member_id));
        header.number("revision", known.revision);
        header.number("raft_term", known.raft_term);
        object.field("header", header.end());
        object.field("members", array(answer.members.iter().map(|member| self::member(member, true))));
    } else {
        object.object("header", header(answer.header.as_ref()));
        object.list("members", answer.members.iter().map(|member| self::member(member, false)));
    }
    object.end()
}

/// A changed membership, and the member that is new.
pub fn changed_members(
    head: Option<&pb::ResponseHeader>,
    added: Option<&pb::Member>,
    members: &[pb::Member],
) -> String {
    let mut object = Object::new();
    object.object("header", header(head));
    if let Some(added) = added {
        object.field("member", member(added, false));
    }
    object.list("members", members.iter().map(|one| member(one, false)));
    object.end()
}

fn member(member: &pb::Member, hex: bool) -> String {
    let mut object = Object::new();
    if hex {
        object.field("ID", format_args!("\"{:x}\"", member.id));
    } else {
        object.number("ID", member.id);
    }
    object.text("name", &member.name);
    object.list("peerURLs", member.peer_urls.iter().map(|url| string(url)));
    object.list("clientURLs", member.client_urls.iter().map(|url| string(url)));
    object.flag("isLearner", member.is_learner);
    object.end()
}

/// An object that begins with the fields of a header.
fn under_header(header: Option<&pb::ResponseHeader>) -> Object {
    let header = header.copied().unwrap_or_default();
    let mut object = Object::new();
    object.number("cluster_id", header.cluster_id);
    object.number("member_id", header.member_id);
    object.number("revision", header.revision);
    object.number("raft_term", header.raft_term);
    object
}

/// A lease granted.
pub fn lease_grant(answer: &pb::LeaseGrantResponse) -> String {
    let mut object = under_header(answer.header.as_ref());
    object.field("ID", answer.id);
    object.field("TTL", answer.ttl);
    object.field("Error", string(&answer.error));
    object.end()
}

/// A lease revoked.
pub fn lease_revoke(answer: &pb::LeaseRevokeResponse) -> String {
    let mut object = Object::new();
    object.object("header", header(answer.header.as_ref()));
    object.end()
}

/// A lease renewed.
pub fn lease_keep_alive(answer: &pb::LeaseKeepAliveResponse) -> String {
    let mut object = under_header(answer.header.as_ref());
    object.field("ID", answer.id);
    object.field("TTL", answer.ttl);
    object.end()
}

/// A lease's time to live.
pub fn lease_time_to_live(answer: &pb::LeaseTimeToLiveResponse) -> String {
    let mut object = under_header(answer.header.as_ref());
    object.field("id", answer.id);
    object.field("ttl", answer.ttl);
    object.field("granted-ttl", answer.granted_ttl);
    let keys = || array(answer.keys.iter().map(|key| format!("\"{}\"", STANDARD.encode(key))));
    object.field("keys", if answer.keys.is_empty() { "null".to_owned() } else { keys() });
    object.end()
}

/// Leases.
pub fn leases(answer: &pb::LeaseLeasesResponse) -> String {
    let mut object = under_header(answer.header.as_ref());
    object.field("leases", array(answer.leases.iter().map(|lease| format!("{{\"id\":{}}}", lease.id))));
    object.end()
}

/// An answer on a watch.
pub fn watch(answer: &Watched) -> String {
    let mut object = Object::new();
    object.field("Header", header(Some(&answer.header)).unwrap_or_default());
    let events = answer.events.as_ref().map(|events| array(events.iter().map(event)));
    object.field("Events", events.unwrap_or_else(|| "null".to_owned()));
    object.field("CompactRevision", answer.compact_revision);
    object.field("Canceled", answer.canceled);
    object.field("Created", false);
    object.end()
}

fn event(event: &Event) -> String {
    let mut object = Object::new();
    object.number("type", event.r#type);
    object.object("kv", event.kv.as_ref().map(key_value));
    object.object("prev_kv", event.prev_kv.as_ref().map(key_value));
    object.end()
}

/// The health of endpoints.
pub fn health(list: &[EndpointHealth]) -> String {
    array(list.iter().map(|health| {
        let mut object = Object::new();
        object.field("endpoint", string(&health.endpoint));
        object.field("health", health.healthy());
        object.field("took", string(&health.took));
        object.text("error", &health.error);
        object.end()
    }))
}

/// The status of endpoints.
pub fn status(list: &[EndpointStatus]) -> String {
    array(list.iter().map(|(endpoint, status)| {
        let downgrade = |info: &pb::DowngradeInfo| {
            let mut object = Object::new();
            object.flag("enabled", info.enabled);
            object.text("targetVersion", &info.target_version);
            object.end()
        };
        let mut answer = Object::new();
        answer.object("header", header(status.header.as_ref()));
        answer.text("version", &status.version);
        answer.number("dbSize", status.db_size);
        answer.number("leader", status.leader);
        answer.number("raftIndex", status.raft_index);
        answer.number("raftTerm", status.raft_term);
        answer.number("raftAppliedIndex", status.raft_applied_index);
        answer.list("errors", status.errors.iter().map(|error| string(error)));
        answer.number("dbSizeInUse", status.db_size_in_use);
        answer.flag("isLearner", status.is_learner);
        answer.text("storageVersion", &status.storage_version);
        answer.number("dbSizeQuota", status.db_size_quota);
        answer.object("downgradeInfo", status.downgrade_info.as_ref().map(downgrade));
        endpoint_object(endpoint, "Status", answer)
    }))
}

/// The hashes of endpoints.
pub fn hash_kv(list: &[EndpointHashKv]) -> String {
    array(list.iter().map(|(endpoint, hash)| {
        let mut answer = Object::new();
        answer.object("header", header(hash.header.as_ref()));
        answer.number("hash", hash.hash);
        answer.number("compact_revision", hash.compact_revision);
        answer.number("hash_revision", hash.hash_revision);
        endpoint_object(endpoint, "HashKV", answer)
    }))
}

fn endpoint_object(endpoint: &str, name: &str, answer: Object) -> String {
    let mut object = Object::new();
    object.field("Endpoint", string(endpoint));
    object.field(name, answer.end());
    object.end()
}

/// An answer that has nothing but a header.
pub fn header_only(head: Option<&pb::ResponseHeader>) -> String {
    names(head, "", &[])
}

/// Names under one name.
pub fn names(head: Option<&pb::ResponseHeader>, name: &str, names: &[String]) -> String {
    let mut object = Object::new();
    object.object("header", header(head));
    object.list(name, names.iter().map(|name| string(name)));
    object.end()
}

/// Whether authentication is on.
pub fn auth_status(answer: &pb::AuthStatusResponse) -> String {
    let mut object = Object::new();
    object.object("header", header(answer.header.as_ref()));
    object.flag("enabled", answer.enabled);
    object.number("authRevision", answer.auth_revision);
    object.end()
}

/// A role.
pub fn role(answer: &pb::AuthRoleGetResponse) -> String {
    let mut object = Object::new();
    object.object("header", header(answer.header.as_ref()));
    object.list(
        "perm",
        answer.perm.iter().map(|permission| {
            let mut object = Object::new();
            object.number("permType", permission.perm_type);
            object.bytes("key", &permission.key);
            object.bytes("range_end", &permission.range_end);
            object.end()
        }),
    );
    object.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_safe_for_web_pages() {
        assert_eq!(string("a<b>&\"c\\\u{1}\n"), r#""a\u003cb\u003e\u0026\"c\\\u0001\n""#);
    }

    #[test]
    fn zero_fields_are_left_out_and_nested_answers_wrapped() {
        let put =
            pb::PutResponse { header: Some(pb::ResponseHeader { revision: 7, ..Default::default() }), prev_kv: None };
        let nested = pb::TxnResponse {
            header: Some(pb::ResponseHeader::default()),
            succeeded: false,
            responses: vec![pb::ResponseOp { response: Some(Response::ResponsePut(put)) }],
        };
        assert_eq!(
            txn(&nested),
            r#"{"header":{},"responses":[{"Response":{"response_put":{"header":{"revision":7}}}}]}"#
        );
        assert_eq!(alarms(&pb::AlarmResponse::default()), "{}");
    }

    #[test]
    fn a_status_of_this_api_level_has_its_new_fields_at_the_end() {
        let status = pb::StatusResponse {
            version: "3.7.1".to_owned(),
            db_size_in_use: 5,
            is_learner: true,
            storage_version: "3.7.0".to_owned(),
            db_size_quota: 9,
            downgrade_info: Some(pb::DowngradeInfo::default()),
            ..Default::default()
        };
        assert_eq!(
            super::status(&[("a:1".to_owned(), status)]),
            r#"[{"Endpoint":"a:1","Status":{"version":"3.7.1","dbSizeInUse":5,"isLearner":true,"storageVersion":"3.7.0","dbSizeQuota":9,"downgradeInfo":{}}}]"#
        );
    }
}
