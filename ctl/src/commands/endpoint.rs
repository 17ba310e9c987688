//! `endpoint health`, `endpoint status` and `endpoint hashkv`.
//!
//! Each asks every endpoint by itself: one that does not answer must not hide the others.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use cairn_client::{Client, Error};
use cairn_proto::ApiError;
use cairn_proto::etcdserverpb as pb;
use cairn_proto::etcdserverpb::AlarmType;
use tokio::task::JoinSet;

use crate::cli::Invocation;
use crate::connection::error_text;
use crate::exit::{Failure, code};
use crate::golang::format_duration;
use crate::output::EndpointHealth;
use crate::session::{Session, explain};

/// Asks every endpoint for a key, all at a time. Whoever can answer a linearizable read can commit.
pub async fn health(invocation: &Invocation) -> Result<(), Failure> {
    let session = Arc::new(Session::new(invocation)?);
    session.printer.expect_endpoints()?;
    let mut checks = JoinSet::new();
    for endpoint in session.endpoints(invocation.flags.bool("cluster")).await? {
        let session = Arc::clone(&session);
        checks.spawn(async move { check(&session, endpoint).await });
    }
    let mut list = Vec::new();
    while let Some(check) = checks.join_next().await {
        list.push(check.map_err(|error| Failure::error(format!("a health check ended early: {error}")))??);
    }
    session.printer.health(&list)?;
    if list.iter().all(EndpointHealth::healthy) {
        return Ok(());
    }
    Err(Failure::new(code::ERROR, "unhealthy cluster"))
}

async fn check(session: &Session, endpoint: String) -> Result<EndpointHealth, Failure> {
    let client = session.connect_to(&endpoint).await?;
    let mut health = EndpointHealth { endpoint, took: String::new(), error: String::new() };
    let client = match client {
        Ok(client) => client,
        Err(error) => {
            explain(&error);
            health.error = error_text(&error);
            return Ok(health);
        }
    };
    let start = Instant::now();
    let request = pb::RangeRequest { key: Bytes::from_static(b"health"), ..Default::default() };
    let answer = client.call(request).await;
    health.took = format_duration(start.elapsed());
    match answer {
        // Whoever is refused the key was refused it by a member that could commit.
        Err(error) if error.api_error() != Some(ApiError::PermissionDenied) => {
            explain(&error);
            health.error = error_text(&error);
        }
        _ => health.error = alarms(&client).await,
    }
    Ok(health)
}

/// The alarms that make a member unhealthy, as text; empty if there are none.
async fn alarms(client: &Client) -> String {
    match client.alarms().await {
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
    let (mut list, mut all_answered) = (Vec::new(), true);
    for endpoint in session.endpoints(invocation.flags.bool("cluster")).await? {
        match session.request_to(&endpoint, pb::StatusRequest {}).await? {
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
    let request = pb::HashKvRequest { revision: invocation.flags.int("rev") };
    let (mut list, mut failure) = (Vec::new(), None);
    for endpoint in session.endpoints(invocation.flags.bool("cluster")).await? {
        match session.request_to(&endpoint, request).await? {
            Ok(answer) => list.push((endpoint, answer)),
            Err(error) => {
                report("hash", &endpoint, &error);
                failure = Some(Failure::error(error_text(&error)));
            }
        }
    }
    session.printer.hash_kv(&list)?;
    failure.map_or(Ok(()), Err)
}

fn report(what: &str, endpoint: &str, error: &Error) {
    explain(error);
    eprintln!("Failed to get the {what} of endpoint {endpoint} ({})", error_text(error));
}
