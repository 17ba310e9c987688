//! The five output formats, each kind of answer in each format as etcdctl prints it.
//!
//! | `-w` | for | file |
//! |---|---|---|
//! | `simple` | everything; keys and values as they are, or with `--hex` as `\x61` | [`simple`] |
//! | `fields` | everything; one `"Name" : value` a line | [`fields`] |
//! | `json` | everything; bytes as base64, fields that are zero left out | [`json`] |
//! | `protobuf` | answers that travelled as one message: the message | here |
//! | `table` | members and endpoints | [`table`] |
//!
//! Whether a format fits is decided before anything is sent: a put must not be done and then reported as an error.

pub mod fields;
pub mod json;
pub mod simple;
pub mod table;

use std::io::{self, Write as _};

use cairn_proto::etcdserverpb as pb;
use cairn_proto::mvccpb::Event;
use prost::Message;

use crate::exit::{Failure, code};

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people and pipes.
    Simple,
    /// One field a line.
    Fields,
    /// One line of JSON.
    Json,
    /// The answer's bytes.
    Protobuf,
    /// Boxes.
    Table,
}

impl Format {
    /// The format of that name.
    pub fn named(name: &str) -> Result<Self, Failure> {
        match name {
            "simple" => Ok(Self::Simple),
            "fields" => Ok(Self::Fields),
            "json" => Ok(Self::Json),
            "protobuf" => Ok(Self::Protobuf),
            "table" => Ok(Self::Table),
            _ => Err(Failure::bad_feature("unsupported output format")),
        }
    }
}

/// One endpoint's health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointHealth {
    /// The endpoint.
    pub endpoint: String,
    /// How long the check took; empty if it did not come to one.
    pub took: String,
    /// What is wrong; empty if nothing is.
    pub error: String,
}

impl EndpointHealth {
    /// Whether nothing is wrong.
    pub fn healthy(&self) -> bool {
        self.error.is_empty()
    }
}

/// One endpoint's status.
pub type EndpointStatus = (String, pb::StatusResponse);

/// One endpoint's hash.
pub type EndpointHashKv = (String, pb::HashKvResponse);

/// What a watch has to tell, as the printer sees it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Watched {
    /// Who tells.
    pub header: pb::ResponseHeader,
    /// What happened; none at all if the watch could not even begin.
    pub events: Option<Vec<Event>>,
    /// The oldest revision that is left, if the watch ended for want of older ones.
    pub compact_revision: i64,
    /// Whether this is the end of the watch.
    pub canceled: bool,
}

/// Prints answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Printer {
    /// How.
    pub format: Format,
    /// Keys and values, or ids, in hexadecimal.
    pub hex: bool,
    /// Values without their keys.
    pub value_only: bool,
}

impl Printer {
    /// Refuses the format for answers that are neither members nor endpoints.
    pub fn expect_answer(self) -> Result<(), Failure> {
        if self.format == Format::Table { Err(unsupported("table")) } else { Ok(()) }
    }

    /// Refuses the format for answers that are printed in words and fields only.
    pub fn expect_message(self) -> Result<(), Failure> {
        self.expect_answer()?;
        self.expect_endpoints()
    }

    /// Refuses the formats for what is printed neither as a table nor field by field.
    pub fn expect_no_fields(self) -> Result<(), Failure> {
        self.expect_answer()?;
        if self.format == Format::Fields { Err(unsupported("fields")) } else { Ok(()) }
    }

    /// Refuses the format for what was put together from several endpoints' answers.
    pub fn expect_endpoints(self) -> Result<(), Failure> {
        if self.format == Format::Protobuf { Err(unsupported("protobuf")) } else { Ok(()) }
    }

    /// The answer of a put.
    pub fn put(self, answer: &pb::PutResponse) -> Result<(), Failure> {
        self.answer(answer, |out| simple::put(out, answer, self), |out| fields::put(out, answer, self.hex), json::put)
    }

    /// The answer of a range.
    pub fn get(self, answer: &pb::RangeResponse) -> Result<(), Failure> {
        self.answer(answer, |out| simple::get(out, answer, self), |out| fields::get(out, answer, self.hex), json::get)
    }

    /// The answer of a delete.
    pub fn del(self, answer: &pb::DeleteRangeResponse) -> Result<(), Failure> {
        self.answer(answer, |out| simple::del(out, answer, self), |out| fields::del(out, answer, self.hex), json::del)
    }

    /// The answer of a transaction.
    pub fn txn(self, answer: &pb::TxnResponse) -> Result<(), Failure> {
        self.answer(answer, |out| simple::txn(out, answer, self), |out| fields::txn(out, answer, self.hex), json::txn)
    }

    /// A lease granted.
    pub fn lease_grant(self, answer: &pb::LeaseGrantResponse) -> Result<(), Failure> {
        let (head, id, ttl) = (answer.header.as_ref(), answer.id, answer.ttl);
        self.headed(
            head,
            |out| out.extend(format!("lease {id:016x} granted with TTL({ttl}s)\n").bytes()),
            |out| fields::lease(out, head, id, ttl, self.hex),
            || json::lease_grant(answer),
        )
    }

    /// A lease revoked.
    pub fn lease_revoke(self, id: i64, answer: &pb::LeaseRevokeResponse) -> Result<(), Failure> {
        self.answer(
            answer,
            |out| out.extend(format!("lease {id:016x} revoked\n").bytes()),
            |out| fields::lease_revoke(out, answer, self.hex),
            json::lease_revoke,
        )
    }

    /// A lease renewed.
    pub fn lease_keep_alive(self, answer: &pb::LeaseKeepAliveResponse) -> Result<(), Failure> {
        let (head, id, ttl) = (answer.header.as_ref(), answer.id, answer.ttl);
        self.headed(
            head,
            |out| out.extend(format!("lease {id:016x} keepalived with TTL({ttl})\n").bytes()),
            |out| fields::lease(out, head, id, ttl, self.hex),
            || json::lease_keep_alive(answer),
        )
    }

    /// A lease's time to live; its keys only if they were asked for.
    pub fn lease_time_to_live(self, answer: &pb::LeaseTimeToLiveResponse, keys: bool) -> Result<(), Failure> {
        self.headed(
            answer.header.as_ref(),
            |out| simple::lease_time_to_live(out, answer, keys),
            |out| fields::lease_time_to_live(out, answer, self.hex),
            || json::lease_time_to_live(answer),
        )
    }

    /// Leases.
    pub fn leases(self, answer: &pb::LeaseLeasesResponse) -> Result<(), Failure> {
        self.headed(
            answer.header.as_ref(),
            |out| simple::leases(out, answer),
            |out| fields::leases(out, answer, self.hex),
            || json::leases(answer),
        )
    }

    /// An answer on a watch.
    pub fn watch(self, answer: &Watched) -> Result<(), Failure> {
        let message = pb::WatchResponse {
            header: Some(answer.header),
            canceled: answer.canceled,
            compact_revision: answer.compact_revision,
            events: if self.format == Format::Protobuf {
                answer.events.clone().unwrap_or_default()
            } else {
                Vec::new()
            },
            ..Default::default()
        };
        self.answer(
            &message,
            |out| simple::watch(out, answer, self),
            |out| fields::watch(out, answer, self.hex),
            |_| json::watch(answer),
        )
    }

    /// Alarms.
    pub fn alarms(self, answer: &pb::AlarmResponse) -> Result<(), Failure> {
        self.answer(
            answer,
            |out| simple::alarms(out, answer),
            |out| fields::alarms(out, answer, self.hex),
            json::alarms,
        )
    }

    /// Members.
    pub fn members(self, answer: &pb::MemberListResponse) -> Result<(), Failure> {
        if self.format == Format::Table {
            return emit(table::members(answer).boxes().as_bytes());
        }
        self.answer(
            answer,
            |out| out.extend(table::members(answer).lines().bytes()),
            |out| fields::members(out, answer, self.hex),
            |answer| json::members(answer, self.hex),
        )
    }

    /// Refuses the formats that a change of the membership cannot be printed in.
    pub fn expect_change(self) -> Result<(), Failure> {
        match self.format {
            Format::Table => Err(unsupported("table")),
            Format::Fields => Err(unsupported("fields")),
            Format::Simple | Format::Json | Format::Protobuf => Ok(()),
        }
    }

    /// The answer of an added member.
    pub fn member_added(self, answer: &pb::MemberAddResponse) -> Result<(), Failure> {
        let (id, cluster) =
            (answer.member.as_ref().map_or(0, |member| member.id), answer.header.unwrap_or_default().cluster_id);
        let done = format!("Member {id:16x} added to cluster {cluster:16x}\n");
        self.expect_change()?;
        let print = |answer: &pb::MemberAddResponse| {
            json::changed_members(answer.header.as_ref(), answer.member.as_ref(), &answer.members)
        };
        self.answer(answer, |out| out.extend(done.bytes()), |_| (), print)
    }

    /// Any other change of the membership; `done` says what was done.
    pub fn member_changed<A: Message>(
        self,
        answer: &A,
        done: &str,
        header: Option<pb::ResponseHeader>,
        members: &[pb::Member],
    ) -> Result<(), Failure> {
        self.expect_change()?;
        let print = |_: &A| json::changed_members(header.as_ref(), None, members);
        self.answer(answer, |out| out.extend(done.bytes()), |_| (), print)
    }

    /// An answer that has nothing but a header; `done` says what was done.
    pub fn done<A: Message>(self, answer: &A, head: Option<&pb::ResponseHeader>, done: &str) -> Result<(), Failure> {
        self.answer(
            answer,
            |out| out.extend(done.bytes()),
            |out| fields::header(out, head, self.hex),
            |_| json::header_only(head),
        )
    }

    /// Whether authentication is on.
    pub fn auth_status(self, answer: &pb::AuthStatusResponse) -> Result<(), Failure> {
        self.expect_no_fields()?;
        let (enabled, revision) = (answer.enabled, answer.auth_revision);
        let text = format!("Authentication Status: {enabled}\nAuthRevision: {revision}\n");
        self.answer(answer, |out| out.extend(text.bytes()), |_| (), json::auth_status)
    }

    /// A user.
    pub fn user(self, name: &str, answer: &pb::AuthUserGetResponse) -> Result<(), Failure> {
        self.expect_no_fields()?;
        let roles: Vec<_> = std::iter::once("Roles:").chain(answer.roles.iter().map(String::as_str)).collect();
        let text = format!("User: {name}\n{}\n", roles.join(" "));
        let print = |answer: &pb::AuthUserGetResponse| json::names(answer.header.as_ref(), "roles", &answer.roles);
        self.answer(answer, |out| out.extend(text.bytes()), |_| (), print)
    }

    /// Users.
    pub fn users(self, answer: &pb::AuthUserListResponse) -> Result<(), Failure> {
        self.expect_no_fields()?;
        let print = |answer: &pb::AuthUserListResponse| json::names(answer.header.as_ref(), "users", &answer.users);
        self.answer(answer, |out| simple::names(out, &answer.users), |_| (), print)
    }

    /// A role.
    pub fn role(self, name: &str, answer: &pb::AuthRoleGetResponse) -> Result<(), Failure> {
        self.answer(
            answer,
            |out| simple::role(out, name, answer),
            |out| fields::role(out, answer, self.hex),
            json::role,
        )
    }

    /// Roles.
    pub fn roles(self, answer: &pb::AuthRoleListResponse) -> Result<(), Failure> {
        self.answer(
            answer,
            |out| simple::names(out, &answer.roles),
            |out| fields::roles(out, answer, self.hex),
            |answer| json::names(answer.header.as_ref(), "roles", &answer.roles),
        )
    }

    /// The health of endpoints.
    pub fn health(self, list: &[EndpointHealth]) -> Result<(), Failure> {
        let mut out = Vec::new();
        match self.format {
            Format::Simple => {
                for health in list {
                    emit(simple::healthy(health).as_bytes())?;
                    if let Some(line) = simple::unhealthy(health) {
                        eprintln!("{line}");
                    }
                }
            }
            Format::Fields => fields::health(&mut out, list),
            Format::Json => out = line(&json::health(list)),
            Format::Table => out.extend(table::health(list).boxes().bytes()),
            Format::Protobuf => return Err(unsupported("protobuf")),
        }
        emit(&out)
    }

    /// The status of endpoints.
    pub fn status(self, list: &[EndpointStatus]) -> Result<(), Failure> {
        let mut out = Vec::new();
        match self.format {
            Format::Simple => out.extend(table::status(list).lines().bytes()),
            Format::Fields => fields::status(&mut out, list, self.hex),
            Format::Json => out = line(&json::status(list)),
            Format::Table => out.extend(table::status(list).boxes().bytes()),
            Format::Protobuf => return Err(unsupported("protobuf")),
        }
        emit(&out)
    }

    /// The hashes of endpoints.
    pub fn hash_kv(self, list: &[EndpointHashKv]) -> Result<(), Failure> {
        let mut out = Vec::new();
        match self.format {
            Format::Simple => out.extend(table::hash_kv(list).lines().bytes()),
            Format::Fields => fields::hash_kv(&mut out, list, self.hex),
            Format::Json => out = line(&json::hash_kv(list)),
            Format::Table => out.extend(table::hash_kv(list).boxes().bytes()),
            Format::Protobuf => return Err(unsupported("protobuf")),
        }
        emit(&out)
    }

    /// An answer of which etcdctl's protobuf format shows the header and nothing else.
    fn headed(
        self,
        header: Option<&pb::ResponseHeader>,
        simple: impl FnOnce(&mut Vec<u8>),
        fields: impl FnOnce(&mut Vec<u8>),
        json: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        self.answer(&header.copied().unwrap_or_default(), simple, fields, |_| json())
    }

    fn answer<A: Message>(
        self,
        answer: &A,
        simple: impl FnOnce(&mut Vec<u8>),
        fields: impl FnOnce(&mut Vec<u8>),
        json: impl FnOnce(&A) -> String,
    ) -> Result<(), Failure> {
        let mut out = Vec::new();
        match self.format {
            Format::Simple => simple(&mut out),
            Format::Fields => fields(&mut out),
            Format::Json => out = line(&json(answer)),
            Format::Protobuf => out = answer.encode_to_vec(),
            Format::Table => return Err(unsupported("table")),
        }
        emit(&out)
    }
}

fn unsupported(format: &str) -> Failure {
    Failure::bad_feature(format!("{format} not supported as output format"))
}

fn line(text: &str) -> Vec<u8> {
    format!("{text}\n").into_bytes()
}

/// Writes to standard output.
pub fn emit(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        // Whoever was reading has seen enough.
        io::ErrorKind::BrokenPipe => Failure::silent(code::ERROR),
        _ => Failure::error(format!("writing to standard output: {error}")),
    })
}

/// Prints on another thread. A reader of the output that takes its time holds up the printing and nothing else: leases are
/// renewed and answers fetched meanwhile.
pub async fn aside(print: impl FnOnce() -> Result<(), Failure> + Send + 'static) -> Result<(), Failure> {
    let printed = tokio::task::spawn_blocking(print).await;
    printed.unwrap_or_else(|error| Err(Failure::error(format!("printing: {error}"))))
}
