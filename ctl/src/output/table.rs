//! `-w table`, and the same rows as comma-separated lines for `-w simple`.

use std::fmt::Write as _;

use cairn_proto::etcdserverpb as pb;

use super::{EndpointHashKv, EndpointHealth, EndpointStatus};
use crate::golang::humanize_bytes;

/// A table: names of columns, and rows of as many cells.
#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    columns: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

impl Table {
    /// One line a row, cells separated by commas, without the names of the columns.
    pub fn lines(&self) -> String {
        self.rows.iter().fold(String::new(), |text, row| text + &row.join(", ") + "\n")
    }

    /// Boxes: names of columns in the middle, cells to the right.
    pub fn boxes(&self) -> String {
        let width = |text: &str| text.chars().count();
        let widths: Vec<_> = (0..self.columns.len())
            .map(|at| self.rows.iter().map(|row| width(&row[at])).chain([width(self.columns[at])]).max().unwrap_or(0))
            .collect();
        let rule = |left: char, cross: char, right: char| {
            let bars: Vec<_> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
            format!("{left}{}{right}\n", bars.join(&cross.to_string()))
        };
        let mut text = rule('┌', '┬', '┐');
        for (name, width) in self.columns.iter().zip(&widths) {
            let _ = write!(text, "│ {name:^width$} ");
        }
        text.push_str("│\n");
        text.push_str(&rule('├', '┼', '┤'));
        for row in &self.rows {
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(text, "│ {cell:>width$} ");
            }
            text.push_str("│\n");
        }
        text + &rule('└', '┴', '┘')
    }
}

/// Members.
pub fn members(answer: &pb::MemberListResponse) -> Table {
    let row = |member: &pb::Member| {
        let started = if member.name.is_empty() { "unstarted" } else { "started" };
        vec![
            format!("{:x}", member.id),
            started.to_owned(),
            member.name.clone(),
            member.peer_urls.join(","),
            member.client_urls.join(","),
            member.is_learner.to_string(),
        ]
    };
    Table {
        columns: &["ID", "STATUS", "NAME", "PEER ADDRS", "CLIENT ADDRS", "IS LEARNER"],
        rows: answer.members.iter().map(row).collect(),
    }
}

/// The health of endpoints.
pub fn health(list: &[EndpointHealth]) -> Table {
    let row = |health: &EndpointHealth| {
        vec![health.endpoint.clone(), health.healthy().to_string(), health.took.clone(), health.error.clone()]
    };
    Table { columns: &["ENDPOINT", "HEALTH", "TOOK", "ERROR"], rows: list.iter().map(row).collect() }
}

/// The status of endpoints.
pub fn status(list: &[EndpointStatus]) -> Table {
    let row = |(endpoint, status): &EndpointStatus| {
        let member = status.header.unwrap_or_default().member_id;
        let downgrade = status.downgrade_info.clone().unwrap_or_default();
        let size = |bytes: i64| humanize_bytes(u64::try_from(bytes).unwrap_or_default());
        let unused = match status.db_size {
            0 => 0,
            total => 100 - i128::from(status.db_size_in_use) * 100 / i128::from(total),
        };
        vec![
            endpoint.clone(),
            format!("{member:x}"),
            status.version.clone(),
            status.storage_version.clone(),
            size(status.db_size),
            size(status.db_size_in_use),
            format!("{unused}%"),
            size(status.db_size_quota),
            (status.leader == member).to_string(),
            status.is_learner.to_string(),
            status.raft_term.to_string(),
            status.raft_index.to_string(),
            status.raft_applied_index.to_string(),
            status.errors.join(", "),
            downgrade.target_version,
            downgrade.enabled.to_string(),
        ]
    };
    Table {
        columns: &[
            "ENDPOINT",
            "ID",
            "VERSION",
            "STORAGE VERSION",
            "DB SIZE",
            "IN USE",
            "PERCENTAGE NOT IN USE",
            "QUOTA",
            "IS LEADER",
            "IS LEARNER",
            "RAFT TERM",
            "RAFT INDEX",
            "RAFT APPLIED INDEX",
            "ERRORS",
            "DOWNGRADE TARGET VERSION",
            "DOWNGRADE ENABLED",
        ],
        rows: list.iter().map(row).collect(),
    }
}

/// The hashes of endpoints.
pub fn hash_kv(list: &[EndpointHashKv]) -> Table {
    let row = |(endpoint, hash): &EndpointHashKv| {
        vec![endpoint.clone(), hash.hash.to_string(), hash.hash_revision.to_string()]
    };
    Table { columns: &["ENDPOINT", "HASH", "HASH REVISION"], rows: list.iter().map(row).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_have_names_in_the_middle_and_cells_to_the_right() {
        let health =
            EndpointHealth { endpoint: "127.0.0.1:2379".to_owned(), took: "6.06ms".to_owned(), error: String::new() };
        let expected = "\
┌────────────────┬────────┬────────┬───────┐
│    ENDPOINT    │ HEALTH │  TOOK  │ ERROR │
├────────────────┼────────┼────────┼───────┤
│ 127.0.0.1:2379 │   true │ 6.06ms │       │
└────────────────┴────────┴────────┴───────┘
";
        assert_eq!(super::health(&[health]).boxes(), expected);
    }

    #[test]
    fn an_empty_store_has_nothing_unused() {
        let status = status(&[("a:1".to_owned(), pb::StatusResponse::default())]);
        assert_eq!(status.lines(), "a:1, 0, , , 0 B, 0 B, 0%, 0 B, true, false, 0, 0, 0, , , false\n");
    }
}
