//! `/debug/vars`: variables of the process in the shape of Go's expvar, those that have a meaning here.

use std::{env, fs};

use http::{Response, StatusCode};
use serde_json::json;

use super::{Http, process, respond};
use crate::api::grpc::body::Body;

impl Http {
    /// The command line, the limit of open files, and where consensus stands.
    pub(super) fn debug_vars(&self) -> Response<Body> {
        let status = self.services.node.status();
        let state = match status.leader {
            leader if leader == status.member_id => "StateLeader",
            _ if status.is_learner => "StateLearner",
            0 => "StateCandidate",
            _ => "StateFollower",
        };
        let command_line: Vec<_> = env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let variables = json!({
            "cmdline": command_line,
            "file_descriptor_limit": process::limit_of(&limits, "Max open files"),
            "raft.status": {
                "id": format!("{:x}", status.member_id),
                "term": status.term,
                "commit": status.raft_index,
                "lead": format!("{:x}", status.leader),
                "raftState": state,
                "applied": status.applied_index,
            },
        });
        respond(StatusCode::OK, "application/json; charset=utf-8", format!("{variables:#}\n"))
    }
}
