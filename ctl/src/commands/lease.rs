//! `lease grant`, `revoke`, `timetolive`, `list` and `keep-alive`.

use cairn_client::LeaseLost;
use cairn_proto::ApiError;

use crate::cli::Invocation;
use crate::connection::error_text;
use crate::exit::{Failure, code};
use crate::golang::parse_int;
use crate::output::{Format, aside, emit};
use crate::session::{Session, explain};

pub async fn grant(invocation: &Invocation) -> Result<(), Failure> {
    let [ttl] = invocation.args.as_slice() else {
        return Err(Failure::bad_args("lease grant command needs TTL argument"));
    };
    let ttl = parse_int(&String::from_utf8_lossy(ttl), 10)
        .map_err(|error| Failure::bad_args(format!("bad TTL ({error})")))?;
    let session = Session::new(invocation)?;
    session.printer.expect_answer()?;
    let answer = session.connect().await?.lease_grant(ttl, 0).await.map_err(|error| {
        explain(&error);
        Failure::error(format!("failed to grant lease ({})", error_text(&error)))
    })?;
    session.printer.lease_grant(&answer)
}

pub async fn revoke(invocation: &Invocation) -> Result<(), Failure> {
    let [id] = invocation.args.as_slice() else {
        return Err(Failure::bad_args("lease revoke command needs 1 argument"));
    };
    let id = lease_id(id)?;
    let session = Session::new(invocation)?;
    session.printer.expect_message()?;
    let answer = session.connect().await?.lease_revoke(id).await.map_err(|error| {
        explain(&error);
        Failure::error(format!("failed to revoke lease ({})", error_text(&error)))
    })?;
    session.printer.lease_revoke(id, &answer)
}

pub async fn time_to_live(invocation: &Invocation) -> Result<(), Failure> {
    let [id] = invocation.args.as_slice() else {
        return Err(Failure::bad_args("lease timetolive command needs lease ID as argument"));
    };
    let id = lease_id(id)?;
    let keys = invocation.flags.bool("keys");
    let session = Session::new(invocation)?;
    session.printer.expect_answer()?;
    let answer = session.connect().await?.lease_time_to_live(id, keys).await.map_err(|error| {
        explain(&error);
        Failure::new(code::BAD_CONNECTION, error_text(&error))
    })?;
    session.printer.lease_time_to_live(&answer, keys)
}

pub async fn list(invocation: &Invocation) -> Result<(), Failure> {
    let session = Session::new(invocation)?;
    session.printer.expect_answer()?;
    let answer = session.connect().await?.leases().await.map_err(|error| {
        explain(&error);
        Failure::new(code::BAD_CONNECTION, error_text(&error))
    })?;
    session.printer.leases(&answer)
}

pub async fn keep_alive(invocation: &Invocation) -> Result<(), Failure> {
    let [id] = invocation.args.as_slice() else {
        return Err(Failure::bad_args("lease keep-alive command needs lease ID as argument"));
    };
    let id = lease_id(id)?;
    let session = Session::new(invocation)?;
    session.printer.expect_answer()?;
    let client = session.connect().await?;
    if invocation.flags.bool("once") {
        let answer = client.lease_keep_alive_once(id).await.map_err(|error| {
            explain(&error);
            Failure::new(code::BAD_CONNECTION, error_text(&error))
        })?;
        if answer.ttl <= 0 {
            return Err(Failure::new(code::BAD_CONNECTION, ApiError::LeaseNotFound.text()));
        }
        return session.printer.lease_keep_alive(&answer);
    }
    let mut lease = client.keep_alive(id);
    let lost = loop {
        match lease.renewed().await {
            Ok(answer) => {
                let printer = session.printer;
                aside(move || printer.lease_keep_alive(&answer)).await?;
            }
            Err(lost) => break lost,
        }
    };
    // That it is gone is the one thing to say; why nobody could be asked is worth saying, too.
    if !matches!(lost, LeaseLost::Gone { .. }) {
        eprintln!("{lost}");
    }
    match session.printer.format {
        Format::Simple => emit(format!("lease {id:016x} expired or revoked.\n").as_bytes()),
        _ => Ok(()),
    }
}

/// A lease's id as it is written on the command line.
fn lease_id(text: &[u8]) -> Result<i64, Failure> {
    parse_int(&String::from_utf8_lossy(text), 16)
        .map_err(|error| Failure::bad_args(format!("bad lease ID arg ({error}), expecting ID in Hex")))
}
