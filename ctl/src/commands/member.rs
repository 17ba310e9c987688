//! `member …` and `move-leader`.

use cairn_proto::etcdserverpb as pb;

use crate::cli::Invocation;
use crate::exit::Failure;
use crate::golang::parse_uint;
use crate::output::{Format, emit};
use crate::session::{Session, failed};

pub async fn list(invocation: &Invocation) -> Result<(), Failure> {
    let session = Session::new(invocation)?;
    let request = pb::MemberListRequest { linearizable: true };
    session.printer.members(&session.request(request).await?)
}

/// Adds a member and prints what it has to be started with.
pub async fn add(invocation: &Invocation) -> Result<(), Failure> {
    let name = match invocation.args.as_slice() {
        [name] => String::from_utf8_lossy(name).into_owned(),
        [] => return Err(Failure::bad_args("member name not provided")),
        _ => return Err(Failure::bad_args("too many arguments")),
    };
    let peer_urls = peer_urls(invocation)?;
    for url in &peer_urls {
        check_url(url).map_err(Failure::error)?;
    }
    let session = Session::new(invocation)?;
    session.printer.expect_change()?;
    let request = pb::MemberAddRequest { peer_urls: peer_urls.clone(), is_learner: invocation.flags.bool("learner") };
    let answer = session.request(request).await?;
    session.printer.member_added(&answer)?;
    if session.printer.format != Format::Simple {
        return Ok(());
    }
    let added = answer.member.unwrap_or_default().id;
    let listed: Vec<_> = answer
        .members
        .iter()
        .flat_map(|member| {
            let name = if member.id == added { &name } else { &member.name };
            member.peer_urls.iter().map(move |url| format!("{name}={url}"))
        })
        .collect();
    emit(
        format!(
            "\nETCD_NAME=\"{name}\"\nETCD_INITIAL_CLUSTER=\"{}\"\nETCD_INITIAL_ADVERTISE_PEER_URLS=\"{}\"\n\
             ETCD_INITIAL_CLUSTER_STATE=\"existing\"\n",
            listed.join(","),
            peer_urls.join(",")
        )
        .as_bytes(),
    )
}

pub async fn remove(invocation: &Invocation) -> Result<(), Failure> {
    let id = member_id(invocation)?;
    let session = Session::new(invocation)?;
    session.printer.expect_change()?;
    let answer = session.request(pb::MemberRemoveRequest { id }).await?;
    let done = changed(id, "removed from", answer.header);
    session.printer.member_changed(&answer, &done, answer.header, &answer.members)
}

pub async fn update(invocation: &Invocation) -> Result<(), Failure> {
    let id = member_id(invocation)?;
    let peer_urls = peer_urls(invocation)?;
    let session = Session::new(invocation)?;
    session.printer.expect_change()?;
    let answer = session.request(pb::MemberUpdateRequest { id, peer_urls }).await?;
    let done = changed(id, "updated in", answer.header);
    session.printer.member_changed(&answer, &done, answer.header, &answer.members)
}

pub async fn promote(invocation: &Invocation) -> Result<(), Failure> {
    let id = member_id(invocation)?;
    let session = Session::new(invocation)?;
    session.printer.expect_change()?;
    let answer = session.request(pb::MemberPromoteRequest { id }).await?;
    let done = changed(id, "promoted in", answer.header);
    session.printer.member_changed(&answer, &done, answer.header, &answer.members)
}

/// Has the leader, which must be among the endpoints, hand leadership over.
pub async fn move_leader(invocation: &Invocation) -> Result<(), Failure> {
    let [target] = invocation.args.as_slice() else {
        return Err(Failure::bad_args("move-leader command needs 1 argument"));
    };
    let target_id =
        parse_uint(&String::from_utf8_lossy(target), 16).map_err(|error| Failure::bad_args(error.to_string()))?;
    let session = Session::new(invocation)?;
    for endpoint in session.endpoints(false).await? {
        let status = match session.request_to(&endpoint, pb::StatusRequest {}).await? {
            Ok(status) => status,
            Err(error) => return Err(failed(&error)),
        };
        if status.header.is_none_or(|header| header.member_id != status.leader) {
            continue;
        }
        let moved = session.request_to(&endpoint, pb::MoveLeaderRequest { target_id }).await?;
        moved.map_err(|error| failed(&error))?;
        return emit(format!("Leadership transferred from {:x} to {target_id:x}\n", status.leader).as_bytes());
    }
    Err(Failure::bad_args(format!("no leader endpoint given at [{}]", session.endpoints(false).await?.join(" "))))
}

fn changed(id: u64, how: &str, header: Option<pb::ResponseHeader>) -> String {
    format!("Member {id:16x} {how} cluster {:16x}\n", header.unwrap_or_default().cluster_id)
}

fn peer_urls(invocation: &Invocation) -> Result<Vec<String>, Failure> {
    let urls: Vec<String> =
        invocation.flags.text("peer-urls").split(',').filter(|url| !url.is_empty()).map(str::to_owned).collect();
    if urls.is_empty() { Err(Failure::bad_args("member peer urls not provided")) } else { Ok(urls) }
}

/// What etcdctl looks at before it asks anybody.
fn check_url(url: &str) -> Result<(), String> {
    match url.trim().split_once("://") {
        Some(("unix" | "unixs", _)) => Ok(()),
        Some(("http" | "https", rest)) => {
            let (address, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            if !address.contains(':') {
                return Err(format!("URL address does not have the form \"host:port\": {url}"));
            }
            if path.is_empty() { Ok(()) } else { Err(format!("URL must not contain a path: {url}")) }
        }
        _ => Err(format!("URL scheme must be http, https, unix, or unixs: {url}")),
    }
}

fn member_id(invocation: &Invocation) -> Result<u64, Failure> {
    let [id] = invocation.args.as_slice() else {
        return Err(Failure::bad_args("member ID is not provided"));
    };
    parse_uint(&String::from_utf8_lossy(id), 16)
        .map_err(|error| Failure::bad_args(format!("bad member ID arg ({error}), expecting ID in Hex")))
}
