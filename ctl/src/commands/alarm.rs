//! `alarm list` and `alarm disarm`.

use cairn_proto::etcdserverpb as pb;
use cairn_proto::etcdserverpb::alarm_request::AlarmAction;

use crate::cli::Invocation;
use crate::exit::Failure;
use crate::session::{Session, failed};

fn request(action: AlarmAction) -> pb::AlarmRequest {
    pb::AlarmRequest { action: action.into(), ..Default::default() }
}

pub async fn list(invocation: &Invocation) -> Result<(), Failure> {
    if !invocation.args.is_empty() {
        return Err(Failure::bad_args("alarm list command accepts no arguments"));
    }
    let session = Session::new(invocation)?;
    session.printer.expect_answer()?;
    session.printer.alarms(&session.request(request(AlarmAction::Get)).await?)
}

/// Clears every alarm there is, and prints those it cleared.
pub async fn disarm(invocation: &Invocation) -> Result<(), Failure> {
    if !invocation.args.is_empty() {
        return Err(Failure::bad_args("alarm disarm command accepts no arguments"));
    }
    let session = Session::new(invocation)?;
    session.printer.expect_answer()?;
    let client = session.connect().await?;
    let raised = client.alarms().await.map_err(|error| failed(&error))?;
    let mut cleared = pb::AlarmResponse::default();
    for alarm in raised.alarms {
        let clear =
            pb::AlarmRequest { member_id: alarm.member_id, alarm: alarm.alarm, ..request(AlarmAction::Deactivate) };
        let answer = client.call(clear).await.map_err(|error| failed(&error))?;
        cleared.alarms.extend(answer.alarms);
    }
    session.printer.alarms(&cleared)
}
