//! `endpoint health`, `endpoint status` and `endpoint hashkv`.
//!
//! Each asks every endpoint by itself: one that does not answer must not hide the others.

use bytes::Bytes;
use cairn_proto::ApiError;
use cairn_proto::etcdserverpb as pb;
use cairn_proto::etcdserverpb::AlarmType;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cli::Invocation;
use crate::connection::{CallError, Connection, method};
use crate::exit::{Failure, code};
use crate::golang::format_duration;
use crate::output::EndpointHealth;
use crate::session::{Session, explain};

/// Asks every endpoint for a key, all at a time. Whoever can answer a linearizable read can commit.
pub async fn health(invocation: &Invocation) -> Result<(), Failure> {
    let session = Session::new(invocation)?;
    session.printer.expect_endpoints()?;
    let mut checks = JoinSet::new();
    for endpoint in session.endpoints(invocation.flags.bool("cluster")).await? {
        let connection = session.connection_to(&endpoint)?;
        let deadline = session.deadline();
        checks.spawn(check(endpoint, connection, deadline));
    }
    let mut list = Vec::new();
    while let Some(check) = checks.join_next().await {
        list.push(check.map_err(|error| Failure::error(format!("a health check ended early: {error}")))?);
    }
    session.printer.health(&list)?;
    if list.iter().all(EndpointHealth::healthy) {
        return Ok(());
    }
    Err(Failure::new(code::CLUSTER_NOT_HEALTHY, "unhealthy cluster"))
}

async fn check(endpoint: String, mut connection: Connection, deadline: Option<Instant>) -> EndpointHealth {
    let mut health = EndpointHealth { endpoint, took: String::new(), error: String::new() };
    if let Err(error) = connection.authenticate().await {
        explain(&error);
        health.error = error.to_string();
        return health;
    }
    let start = Instant::now();
    let request = pb::RangeRequest { key: Bytes::from_static(b"health"), ..Default::default() };
    let answer: Result<pb::RangeResponse, _> = connection.unary(method::RANGE, &request, deadline).await;
    health.took = format_duration(start.elapsed());
    match answer {
        // Whoever is refused the key was refused it by a member that could commit.
        Err(error) if error.api() != Some(ApiError::PermissionDenied) => {
            explain(&error);
            health.error = error.to_string();
        }
        _ => health.error = alarms(&mut connection, deadline).await,
    }
    health
}

/// The alarms that make a member unhealthy, as text; empty if there are none.
async fn alarms(connection: &mut Connection, deadline: Option<Instant>) -> String {
    let request = pb::AlarmRequest::default();
    let answer: Result<pb::AlarmResponse, _> = connection.unary(method::ALARM_LIST, &request, deadline).await;
    match answer {
        Err(_) => "Unable to fetch the alarm list".to_owned(),
        Ok(answer) if answer.alarms.is_empty() => String::new(),
        Ok(answer) => answer.alarms.iter().fold("Active Alarm(s): ".to_owned(), |text, member| {
            text + match AlarmType::try_from(member.alarm) {
                Ok(AlarmType::Nospace) => "NOSPACE ",
                Ok(AlarmType::Corrupt) => "CORRUPT ",
                _ => "UNKNOWN ",
            }
        }),
    }
}

/// Asks every endpoint for its status.
pub async fn status(invocation: &Invocation) -> Result<(), Failure> {
    let session = Session::new(invocation)?;
    session.printer.expect_endpoints()?;
    let connection = session.connect().await?;
    let (mut list, mut all_answered) = (Vec::new(), true);
    for endpoint in session.endpoints(invocation.flags.bool("cluster")).await? {
        let mut member = connection.at(&endpoint)?;
        match member.unary(method::STATUS, &pb::StatusRequest {}, session.deadline()).await {
            Ok(answer) => list.push((endpoint, answer)),
            Err(error) => {
                report("status", &endpoint, &error);
                all_answered = false;
            }
        }
    }
    session.printer.status(&list)?;
    if all_answered { Ok(()) } else { Err(Failure::silent(code::ERROR)) }
}

/// Asks every endpoint for the hash of its keys.
pub async fn hash_kv(invocation: &Invocation) -> Result<(), Failure> {
    let session = Session::new(invocation)?;
    session.printer.expect_endpoints()?;
    let connection = session.connect().await?;
    let request = pb::HashKvRequest { revision: invocation.flags.int("rev") };
    let (mut list, mut failure) = (Vec::new(), None);
    for endpoint in session.endpoints(invocation.flags.bool("cluster")).await? {
        let mut member = connection.at(&endpoint)?;
        match member.unary(method::HASH_KV, &request, session.deadline()).await {
            Ok(answer) => list.push((endpoint, answer)),
            Err(error) => {
                report("hash", &endpoint, &error);
                failure = Some(Failure::error(error));
            }
        }
    }
    session.printer.hash_kv(&list)?;
    failure.map_or(Ok(()), Err)
}

fn report(what: &str, endpoint: &str, error: &CallError) {
    explain(error);
    eprintln!("Failed to get the {what} of endpoint {endpoint} ({error})");
}
