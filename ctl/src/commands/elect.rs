//! `elect`: stands for election and leads until interrupted, or tells who leads.

use cairn_client::recipe::{Election, Observer, RecipeError, Session as Lease};
use cairn_proto::etcdserverpb as pb;

use super::{interrupted, lock};
use crate::cli::Invocation;
use crate::exit::Failure;
use crate::session::{Session, failed};

/// The time to live of a candidate, in seconds.
const TTL: i64 = 60;

pub async fn run(invocation: &Invocation) -> Result<(), Failure> {
    let listen = invocation.flags.bool("listen");
    match (invocation.args.as_slice(), listen) {
        ([name], true) => observe(invocation, name).await,
        ([_], false) => Err(Failure::bad_args("no proposal argument but -l not set")),
        ([_, _], true) => Err(Failure::bad_args("proposal given but -l is set")),
        ([name, proposal], false) => campaign(invocation, name, proposal).await,
        _ => Err(Failure::bad_args("elect takes one election name argument and an optional proposal argument")),
    }
}

async fn observe(invocation: &Invocation, name: &[u8]) -> Result<(), Failure> {
    let session = Session::new(invocation)?;
    session.printer.expect_answer()?;
    let client = session.connect().await?;
    let mut interrupt = interrupted()?;
    let mut observer = Observer::new(&client.with_timeout(None), name);
    loop {
        let told = tokio::select! {
            told = observer.next() => told,
            () = interrupt.wait() => return Ok(()),
        };
        let (header, kv) = told.map_err(|_| Failure::error("elect: observer lost"))?;
        session.printer.get(&pb::RangeResponse { header: Some(header), kvs: vec![kv], ..Default::default() })?;
    }
}

async fn campaign(invocation: &Invocation, name: &[u8], proposal: &[u8]) -> Result<(), Failure> {
    let session = Session::new(invocation)?;
    session.printer.expect_answer()?;
    let client = session.connect().await?;
    let lease = Lease::start(&client, TTL).await.map_err(|error| failed(&error))?;
    let election = Election::new(&lease, name);
    let done = lead(&session, &lease, &election, proposal).await;
    let resigned = election.resign().await;
    // The leadership is given up by now; the lease would go by itself.
    let _ = lease.close().await;
    done?;
    resigned.map_err(|error| lock::failure(&error))
}

async fn lead(session: &Session, lease: &Lease, election: &Election<'_>, proposal: &[u8]) -> Result<(), Failure> {
    let mut interrupt = interrupted()?;
    let held = tokio::select! {
        held = election.campaign(proposal) => held.map_err(|error| match error {
            RecipeError::SessionLost(_) | RecipeError::PlaceLost => Failure::error("elect: session expired"),
            other => lock::failure(&other),
        })?,
        () = interrupt.wait() => return Err(Failure::error("context canceled")),
    };
    lock::show(session, lease, &held).await?;
    tokio::select! {
        () = interrupt.wait() => Ok(()),
        _ = lease.lost() => Err(Failure::error("elect: session expired")),
    }
}
