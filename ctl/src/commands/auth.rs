//! `auth …`.

use cairn_client::Client;
use cairn_proto::ApiError;
use cairn_proto::etcdserverpb as pb;

use crate::cli::Invocation;
use crate::exit::Failure;
use crate::output::emit;
use crate::session::{Session, failed};

/// The user and the role that may do everything.
const ROOT: &str = "root";

fn expect_no_arguments(invocation: &Invocation, command: &str) -> Result<(), Failure> {
    if invocation.args.is_empty() {
        return Ok(());
    }
    Err(Failure::bad_args(format!("auth {command} command does not accept any arguments")))
}

/// Turns authentication on. The user root is given the role root first where it lacks it.
pub async fn enable(invocation: &Invocation) -> Result<(), Failure> {
    expect_no_arguments(invocation, "enable")?;
    let client = Session::new(invocation)?.connect().await?;
    let enabled = match client.call(pb::AuthEnableRequest {}).await {
        Err(error) if error.api_error() == Some(ApiError::RootRoleNotGranted) => {
            make_root(&client).await?;
            client.call(pb::AuthEnableRequest {}).await
        }
        other => other,
    };
    enabled.map_err(|error| failed(&error))?;
    emit(b"Authentication Enabled\n")
}

async fn make_root(client: &Client) -> Result<(), Failure> {
    match client.call(pb::AuthRoleAddRequest { name: ROOT.to_owned() }).await {
        Err(error) if error.api_error() != Some(ApiError::RoleExists) => return Err(failed(&error)),
        _ => {}
    }
    let grant = pb::AuthUserGrantRoleRequest { user: ROOT.to_owned(), role: ROOT.to_owned() };
    client.call(grant).await.map(|_| ()).map_err(|error| failed(&error))
}

pub async fn disable(invocation: &Invocation) -> Result<(), Failure> {
    expect_no_arguments(invocation, "disable")?;
    Session::new(invocation)?.request(pb::AuthDisableRequest {}).await?;
    emit(b"Authentication Disabled\n")
}

pub async fn status(invocation: &Invocation) -> Result<(), Failure> {
    expect_no_arguments(invocation, "status")?;
    let session = Session::new(invocation)?;
    session.printer.expect_no_fields()?;
    session.printer.auth_status(&session.request(pb::AuthStatusRequest {}).await?)
}
