//! `-w simple`: keys and values as they are, one a line.

use cairn_proto::authpb::{Permission, permission::Type};
use cairn_proto::etcdserverpb as pb;
use cairn_proto::etcdserverpb::response_op::Response;
use cairn_proto::mvccpb::KeyValue;

use super::{EndpointHealth, Printer, Watched};
use crate::commands::keys;

fn line(out: &mut Vec<u8>, bytes: &[u8], hex: bool) {
    if hex {
        for byte in bytes {
            out.extend(format!("\\x{byte:02x}").bytes());
        }
    } else {
        out.extend_from_slice(bytes);
    }
    out.push(b'\n');
}

fn key_value(out: &mut Vec<u8>, kv: &KeyValue, printer: Printer) {
    if !printer.value_only {
        line(out, &kv.key, printer.hex);
    }
    line(out, &kv.value, printer.hex);
}

/// A put: `OK`, and the previous key if it was asked for.
pub fn put(out: &mut Vec<u8>, answer: &pb::PutResponse, printer: Printer) {
    line(out, b"OK", false);
    if let Some(kv) = &answer.prev_kv {
        key_value(out, kv, printer);
    }
}

/// A range: its keys and values.
pub fn get(out: &mut Vec<u8>, answer: &pb::RangeResponse, printer: Printer) {
    for kv in &answer.kvs {
        key_value(out, kv, printer);
    }
}

/// A delete: how many keys, and the previous ones if they were asked for.
pub fn del(out: &mut Vec<u8>, answer: &pb::DeleteRangeResponse, printer: Printer) {
    line(out, answer.deleted.to_string().as_bytes(), false);
    for kv in &answer.prev_kvs {
        key_value(out, kv, printer);
    }
}

/// A transaction: which way it went, and each operation's answer behind an empty line.
pub fn txn(out: &mut Vec<u8>, answer: &pb::TxnResponse, printer: Printer) {
    line(out, if answer.succeeded { b"SUCCESS" } else { b"FAILURE" }, false);
    for response in &answer.responses {
        out.push(b'\n');
        match &response.response {
            Some(Response::ResponseRange(answer)) => get(out, answer, printer),
            Some(Response::ResponsePut(answer)) => put(out, answer, printer),
            Some(Response::ResponseDeleteRange(answer)) => del(out, answer, printer),
            Some(Response::ResponseTxn(answer)) => txn(out, answer, printer),
            None => {}
        }
    }
}

/// A lease's time to live, and its keys if they were asked for.
pub fn lease_time_to_live(out: &mut Vec<u8>, answer: &pb::LeaseTimeToLiveResponse, keys: bool) {
    let (id, ttl, granted) = (answer.id, answer.ttl, answer.granted_ttl);
    if granted == 0 && ttl == -1 {
        return line(out, format!("lease {id:016x} already expired").as_bytes(), false);
    }
    out.extend(format!("lease {id:016x} granted with TTL({granted}s), remaining({ttl}s)").bytes());
    if keys {
        out.extend_from_slice(b", attached keys([");
        out.extend_from_slice(&answer.keys.join(&b' '));
        out.extend_from_slice(b"])");
    }
    out.push(b'\n');
}

/// Leases: how many, and the id of each.
pub fn leases(out: &mut Vec<u8>, answer: &pb::LeaseLeasesResponse) {
    line(out, format!("found {} leases", answer.leases.len()).as_bytes(), false);
    for lease in &answer.leases {
        line(out, format!("{:016x}", lease.id).as_bytes(), false);
    }
}

/// An answer on a watch: each event's type, previous key if there is one, and key.
pub fn watch(out: &mut Vec<u8>, answer: &Watched, printer: Printer) {
    for event in answer.events.iter().flatten() {
        line(out, event.r#type().as_str_name().as_bytes(), false);
        for kv in event.prev_kv.iter().chain(&event.kv) {
            key_value(out, kv, printer);
        }
    }
}

/// Alarms, in protobuf's text form.
pub fn alarms(out: &mut Vec<u8>, answer: &pb::AlarmResponse) {
    for member in &answer.alarms {
        let id = (member.member_id != 0).then(|| format!("memberID:{}", member.member_id));
        let alarm = (member.alarm != 0).then(|| format!("alarm:{}", alarm_name(member.alarm)));
        let fields: Vec<_> = id.into_iter().chain(alarm).collect();
        line(out, fields.join(" ").as_bytes(), false);
    }
}

/// An alarm's name; its number if it has none here.
pub fn alarm_name(alarm: i32) -> String {
    pb::AlarmType::try_from(alarm).map_or_else(|_| alarm.to_string(), |alarm| alarm.as_str_name().to_owned())
}

/// What is said on standard output about a healthy endpoint; nothing about another.
pub fn healthy(health: &EndpointHealth) -> String {
    if !health.healthy() {
        return String::new();
    }
    format!("{} is healthy: successfully committed proposal: took = {}\n", health.endpoint, health.took)
}

/// What is said on standard error about an endpoint that is not healthy.
pub fn unhealthy(health: &EndpointHealth) -> Option<String> {
    let text = || format!("{} is unhealthy: failed to commit proposal: {}", health.endpoint, health.error);
    (!health.healthy()).then(text)
}

/// Users or roles.
pub fn names(out: &mut Vec<u8>, names: &[String]) {
    for name in names {
        line(out, name.as_bytes(), false);
    }
}

/// A role: what it may read and what it may write.
pub fn role(out: &mut Vec<u8>, name: &str, answer: &pb::AuthRoleGetResponse) {
    line(out, format!("Role {name}").as_bytes(), false);
    for (title, kind) in [(&b"KV Read:"[..], Type::Read), (b"KV Write:", Type::Write)] {
        line(out, title, false);
        for permission in
            answer.perm.iter().filter(|permission| [kind, Type::Readwrite].contains(&permission.perm_type()))
        {
            range(out, permission);
        }
    }
}

fn range(out: &mut Vec<u8>, Permission { key, range_end, .. }: &Permission) {
    let parts: &[&[u8]] = match &range_end[..] {
        b"" => &[b"\t", key],
        b"\0" => &[b"\t[", key, b", <open ended>"],
        end => &[b"\t[", key, b", ", end, b")"],
    };
    out.extend(parts.concat());
    if !range_end.is_empty() && !key.is_empty() && keys::prefix(key).1 == range_end {
        out.extend([b" (prefix ", &key[..], b")"].concat());
    }
    out.push(b'\n');
}
