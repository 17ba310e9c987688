//! The versions of members: a member takes part if it serves the cluster's version, or a newer one, and if it applies the commands
//! of the cluster's level.

use cairn_proto::peer::Hello;
use semver::Version;

use crate::{node::ReplicaView, state::command::COMMAND_LEVEL_FIRST, types::understands};

/// Whether the member that introduces itself may be talked with in the cluster of `node`.
pub(super) fn check(hello: &Hello, node: &ReplicaView) -> Result<(), String> {
    check_version(&hello.version, node.cluster_version().as_deref())?;
    check_command_level(command_level(hello), node.command_level())
}

/// The command level of the member that introduces itself.
pub(super) fn command_level(hello: &Hello) -> u32 {
    hello.command_level.max(COMMAND_LEVEL_FIRST)
}

fn check_command_level(applied: u32, cluster: u32) -> Result<(), String> {
    if applied >= cluster {
        return Ok(());
    }
    Err(format!(
        "it applies commands up to level {applied}, the cluster is at level {cluster}: start a newer program there"
    ))
}

fn check_version(version: &str, cluster: Option<&Version>) -> Result<(), String> {
    let served =
        Version::parse(version).map_err(|error| format!("its version, {version:?}, makes no sense: {error}"))?;
    match cluster {
        Some(cluster) if !understands(&served, cluster) => Err(format!(
            "it serves version {served}, the cluster is at {cluster}, which it may not understand: start a newer program there"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_serves_less_than_the_clusters_version_is_not_talked_with() {
        let cluster = Version::new(3, 7, 0);
        for (version, cluster, fits) in [
            ("3.7.1", Some(&cluster), true),
            ("3.7.0", Some(&Version::new(3, 7, 4)), true),
            ("3.10.0", Some(&cluster), true),
            ("4.0.0", Some(&cluster), true),
            ("3.6.9", Some(&cluster), false),
            ("2.9.0", Some(&cluster), false),
            ("3.6.9", None, true),
            ("3.7", None, false),
            ("", None, false),
        ] {
            assert_eq!(check_version(version, cluster).is_ok(), fits, "{version} with {cluster:?}");
        }
        let told = check_version("3.6.9", Some(&cluster));
        assert!(told.as_ref().is_err_and(|text| text.contains("3.6.9") && text.contains("3.7.0")), "{told:?}");
    }
    #[test]
    fn a_member_below_the_clusters_command_level_is_not_talked_with() {
        for (stated, cluster, fits) in [(0, 1, true), (0, 2, false), (1, 2, false), (2, 2, true), (3, 2, true)] {
            let hello = Hello { command_level: stated, ..Hello::default() };
            assert_eq!(check_command_level(command_level(&hello), cluster).is_ok(), fits, "{stated} with {cluster}");
        }
    }
}
