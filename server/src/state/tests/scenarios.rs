//! Readable scenarios (testdata/scenarios): commands in, what happened out. `UPDATE_GOLDENFILES=1` writes what happens now.
//!
//! ```text
//! put KEY VALUE [lease=N] [prev] [ignore_value] [ignore_lease]      delete KEY [END] [prev]
//! range KEY [END] [rev=N] [limit=N] [keys] [count]                  compact REVISION, remove (the physical part)
//! txn [if="COMPARE; …"] [then="OP; …"] [else="OP; …"]               define NAME … (a txn that `run NAME` in an OP nests)
//! grant ID [ttl=N], revoke ID [term=N], leases                      alarm raise|lower|list [KIND] [member=N]
//! crash (what was not flushed is replayed), hash [REVISION]
//!
//! COMPARE: version|create|mod|lease|value KEY[..END] =|!=|<|> X     OP: put …, delete …, range …, run NAME
//! ```

use std::{collections::BTreeMap, error::Error, fmt::Write as _};

use goldenscript::{Argument, Context};
use pb::{compare::TargetUnion, request_op};

use super::*;
use crate::golden::golden;

type Told = Result<String, Box<dyn Error>>;

struct Scene {
    store: Arc<MemStore>,
    member: Option<Member>,
    defined: BTreeMap<String, pb::TxnRequest>,
}

impl Scene {
    fn new() -> Self {
        let store = Arc::new(MemStore::with_flushes(1, 3));
        Self { member: Some(Member::on(store.clone())), store, defined: BTreeMap::new() }
    }

    fn member(&mut self) -> &mut Member {
        self.member.as_mut().unwrap()
    }

    fn op(&self, text: &str) -> Result<request_op::Request, Box<dyn Error>> {
        let words: Vec<_> = text.split_whitespace().collect();
        let (name, args) = words.split_first().ok_or("an empty operation")?;
        let args = Args::new(args.iter().map(|word| match word.split_once('=') {
            Some((key, value)) => (Some(key.to_owned()), value.to_owned()),
            None => (None, (*word).to_owned()),
        }));
        Ok(match *name {
            "put" => request_op::Request::RequestPut(args.put()),
            "delete" => request_op::Request::RequestDeleteRange(args.delete()),
            "range" => request_op::Request::RequestRange(args.range()),
            "run" => request_op::Request::RequestTxn(self.defined.get(&args.words[0]).ok_or("no such txn")?.clone()),
            other => return Err(format!("unknown operation {other}").into()),
        })
    }

    fn txn(&self, args: &Args) -> Result<pb::TxnRequest, Box<dyn Error>> {
        let parts = |key: &str| -> Vec<String> {
            let text = args.value(key).unwrap_or_default();
            text.split(';').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
        };
        let ops = |key: &str| -> Result<Vec<_>, Box<dyn Error>> {
            parts(key).iter().map(|part| Ok(pb::RequestOp { request: Some(self.op(part)?) })).collect()
        };
        let compare = parts("if").iter().map(|part| compare(part)).collect::<Result<_, _>>()?;
        Ok(pb::TxnRequest { compare, success: ops("then")?, failure: ops("else")? })
    }

    fn kv(&mut self, request: Request) -> Told {
        let (revision, rows) = self.member().kv(request).map_err(ApiError::text)?;
        let mut out = format!("revision {revision}\n");
        tell(&mut out, 0, &rows)?;
        Ok(out)
    }

    fn lease(&mut self, request: Request) -> Told {
        Ok(match self.member().outcome(request).map_err(ApiError::text)? {
            Reply::Lease { revision, .. } => format!("revision {revision}\n"),
            _ => "ignored\n".into(),
        })
    }

    fn alarm(&mut self, args: &Args) -> Told {
        let action = match args.words[0].as_str() {
            "list" => 0,
            "raise" => 1,
            "lower" => 2,
            _ => return Err("raise, lower or list".into()),
        };
        let alarm = args.words.get(1).map_or(0, |kind| pb::AlarmType::from_str_name(kind).unwrap() as i32);
        let member_id = args.number("member") as u64;
        let Reply::Alarms(alarms) = self
            .member()
            .outcome(Request::Alarm(pb::AlarmRequest { action, member_id, alarm }))
            .map_err(ApiError::text)?
        else {
            return Err("not an answer about alarms".into());
        };
        let told = alarms.iter().map(|alarm| format!("{} of {}", alarm.alarm().as_str_name(), alarm.member_id));
        Ok(lines(told))
    }
}

impl goldenscript::Runner for Scene {
    type Command = goldenscript::Command;

    fn run(&mut self, command: &Self::Command, _: &Context) -> Told {
        let args = Args::new(command.args.iter().map(|arg| match arg {
            Argument::KeyValue(key, value) => (Some(key.clone()), value.clone()),
            Argument::Positional(word) => (None, word.clone()),
            other => panic!("an argument of an unknown kind: {other}"),
        }));
        match command.name.as_str() {
            "put" => self.kv(Request::Put(args.put())),
            "delete" => self.kv(Request::DeleteRange(args.delete())),
            "txn" => {
                let txn = self.txn(&args)?;
                self.kv(Request::Txn(txn))
            }
            "define" => {
                self.defined.insert(args.words[0].clone(), self.txn(&args)?);
                Ok(String::new())
            }
            "range" => {
                let (revision, rows) = self.member().range(&args.range()).map_err(ApiError::text)?;
                let mut out = format!("revision {revision}\n");
                tell_rows(&mut out, 0, &rows)?;
                Ok(out)
            }
            "compact" => {
                let revision = args.words[0].parse()?;
                self.member().compact(revision).map_err(ApiError::text)?;
                Ok(String::new())
            }
            "remove" => {
                self.member().compact_physically();
                let left = contents(self.store.as_ref()).into_iter().filter(|(table, ..)| *table == Table::Rev);
                let revisions = left.map(|(_, key, _)| super::super::mvcc::revision::Revision::decode(&key).unwrap());
                let shown = revisions
                    .map(|(at, tombstone)| format!("{}/{}{}", at.main, at.sub, if tombstone { "t" } else { "" }));
                Ok(format!("left: {}\n", shown.collect::<Vec<_>>().join(" ")))
            }
            "grant" => {
                let ttl = args.number("ttl").max(60);
                self.lease(Request::LeaseGrant(pb::LeaseGrantRequest { id: args.words[0].parse()?, ttl }))
            }
            "revoke" => {
                let expired_in_term = args.value("term").map(|term| term.parse().unwrap());
                self.lease(Request::LeaseRevoke { id: args.words[0].parse()?, expired_in_term })
            }
            "leases" => {
                let leases = self.member().state.views().leases;
                let told = leases.all().into_iter().map(|lease| {
                    let keys = leases.keys(lease.id);
                    let keys: Vec<_> = keys.iter().map(|key| text(key)).collect();
                    format!("{} ttl {}: {}", lease.id, lease.ttl, keys.join(" ")).trim_end().to_owned()
                });
                Ok(lines(told))
            }
            "alarm" => self.alarm(&args),
            "hash" => {
                let revision = args.words.first().map_or(Ok(0), |word| word.parse())?;
                let hash = self.member().reader().hash_kv(revision)?;
                Ok(format!("{:08x} at {} compacted {}\n", hash.hash, hash.hash_revision, hash.compact_revision))
            }
            "crash" => {
                self.store.crash();
                let member = self.member.take().unwrap();
                self.member = Some(member.restart(self.store.clone()));
                Ok(String::new())
            }
            other => Err(format!("unknown command {other}").into()),
        }
    }
}

/// Words, and values by name.
struct Args {
    words: Vec<String>,
    named: BTreeMap<String, String>,
}

impl Args {
    fn new(all: impl Iterator<Item = (Option<String>, String)>) -> Self {
        let mut args = Self { words: Vec::new(), named: BTreeMap::new() };
        for (key, value) in all {
            match key {
                Some(key) => {
                    args.named.insert(key, value);
                }
                None => args.words.push(value),
            }
        }
        args
    }

    fn value(&self, key: &str) -> Option<&str> {
        self.named.get(key).map(String::as_str)
    }

    fn number(&self, key: &str) -> i64 {
        self.value(key).map_or(0, |value| value.parse().unwrap())
    }

    fn flag(&self, flag: &str) -> bool {
        self.words.iter().any(|word| word == flag)
    }

    fn bytes(&self, at: usize) -> Bytes {
        const FLAGS: &[&str] = &["prev", "ignore_value", "ignore_lease", "keys", "count"];
        let mut words = self.words.iter().filter(|word| !FLAGS.contains(&word.as_str()));
        words.nth(at).map(|word| word.replace("\\0", "\0").into_bytes().into()).unwrap_or_default()
    }

    fn put(&self) -> pb::PutRequest {
        pb::PutRequest {
            key: self.bytes(0),
            value: self.bytes(1),
            lease: self.number("lease"),
            prev_kv: self.flag("prev"),
            ignore_value: self.flag("ignore_value"),
            ignore_lease: self.flag("ignore_lease"),
        }
    }

    fn delete(&self) -> pb::DeleteRangeRequest {
        pb::DeleteRangeRequest { key: self.bytes(0), range_end: self.bytes(1), prev_kv: self.flag("prev") }
    }

    fn range(&self) -> pb::RangeRequest {
        pb::RangeRequest {
            key: self.bytes(0),
            range_end: self.bytes(1),
            revision: self.number("rev"),
            limit: self.number("limit"),
            keys_only: self.flag("keys"),
            count_only: self.flag("count"),
            ..Default::default()
        }
    }
}

fn compare(text: &str) -> Result<pb::Compare, Box<dyn Error>> {
    let words: Vec<_> = text.split_whitespace().collect();
    let [target, keys, result, operand] = words[..] else {
        return Err(format!("a compare has four words: {text}").into());
    };
    let (key, range_end) = keys.split_once("..").unwrap_or((keys, ""));
    let result = match result {
        "=" => 0,
        ">" => 1,
        "<" => 2,
        "!=" => 3,
        other => return Err(format!("unknown comparison {other}").into()),
    };
    let (target, union) = match target {
        "version" => (0, TargetUnion::Version(operand.parse()?)),
        "create" => (1, TargetUnion::CreateRevision(operand.parse()?)),
        "mod" => (2, TargetUnion::ModRevision(operand.parse()?)),
        "value" => (3, TargetUnion::Value(operand.to_owned().into())),
        "lease" => (4, TargetUnion::Lease(operand.parse()?)),
        other => return Err(format!("unknown target {other}").into()),
    };
    let (key, range_end) = (key.to_owned().into(), range_end.replace("\\0", "\0").into());
    Ok(pb::Compare { result, target, key, range_end, target_union: Some(union) })
}

fn lines(all: impl Iterator<Item = String>) -> String {
    all.flat_map(|line| [line, "\n".to_owned()]).collect()
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn tell_kv(out: &mut String, kv: &KeyValue) {
    let KeyValue { create_revision, mod_revision, version, lease, .. } = kv;
    write!(
        out,
        "{}={} created {create_revision} modified {mod_revision} version {version}",
        text(&kv.key),
        text(&kv.value)
    )
    .unwrap();
    if *lease != 0 {
        write!(out, " lease {lease}").unwrap();
    }
    out.push('\n');
}

fn tell_rows(out: &mut String, depth: usize, rows: &Rows) -> Result<(), Box<dyn Error>> {
    let pad = "  ".repeat(depth);
    for kv in key_values(&rows.kvs) {
        out.push_str(&pad);
        tell_kv(out, &kv);
    }
    writeln!(out, "{pad}count {}{}", rows.count, if rows.more { ", more" } else { "" })?;
    Ok(())
}

fn tell(out: &mut String, depth: usize, rows: &OpRows) -> Result<(), Box<dyn Error>> {
    let pad = "  ".repeat(depth);
    // At the top the header's revision is told already.
    let header = |revision: i64| if depth == 0 { String::new() } else { format!(" (revision {revision})") };
    match rows {
        OpRows::Put { revision, previous } => {
            if depth > 0 || previous.is_some() {
                writeln!(out, "{pad}put{}", header(*revision))?;
            }
            for kv in key_values(previous.as_slice()) {
                write!(out, "{pad}  was ")?;
                tell_kv(out, &kv);
            }
        }
        OpRows::DeleteRange { revision, deleted, previous } => {
            writeln!(out, "{pad}deleted {deleted}{}", header(*revision))?;
            for kv in key_values(previous) {
                write!(out, "{pad}  was ")?;
                tell_kv(out, &kv);
            }
        }
        OpRows::Range { revision, rows } => {
            writeln!(out, "{pad}range{}", header(*revision))?;
            tell_rows(out, depth + 1, rows)?;
        }
        OpRows::Txn { succeeded, ops } => {
            writeln!(out, "{pad}{}", if *succeeded { "then" } else { "else" })?;
            for op in ops {
                tell(out, depth + 1, op)?;
            }
        }
    }
    Ok(())
}

golden! {
    "src/state/testdata/scenarios", Scene::new(),
    a_lease_ends_with_its_keys_in_key_order_and_one_revision
    a_life_of_a_key_begins_at_version_one
    a_range_compare_must_hold_for_every_key
    a_refused_txn_applies_nothing
    a_revoke_for_expiry_counts_only_in_its_own_term
    compaction_to_zero_succeeds_once
    compares_see_the_state_before_the_txn
    deleted_and_put_again_in_one_revision_survives_compaction
    deleting_nothing_does_not_raise_the_revision
    ignoring_puts_need_a_key_that_the_txn_has_not_deleted
    missing_keys_compare_as_zero_and_never_by_value
    no_space_refuses_only_what_takes_space
    only_the_path_taken_is_checked
    ranges_in_a_txn_see_its_earlier_writes
    sub_answers_carry_the_old_revision_until_the_first_change
    tombstones_at_the_compacted_revision_stay
}
