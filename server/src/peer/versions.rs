//! The versions of members: a member takes part if it serves the cluster's version, or a newer one.

use semver::Version;

use crate::config::understands;

/// Whether a member that says that it serves `version` may be talked with in a cluster of version `cluster`, if it has one yet.
pub(super) fn check(version: &str, cluster: Option<&Version>) -> Result<(), String> {
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
            assert_eq!(check(version, cluster).is_ok(), fits, "{version} with {cluster:?}");
        }
        let told = check("3.6.9", Some(&cluster));
        assert!(told.as_ref().is_err_and(|text| text.contains("3.6.9") && text.contains("3.7.0")), "{told:?}");
    }
}
