//! The versions that a member states.

use semver::Version;

/// The release of etcd whose API is served, as `Status`, `/version` and `--version` say it.
pub const API_VERSION: &str = "3.7.1";
/// [`API_VERSION`] as numbers.
pub const API: Version = Version::new(3, 7, 1);
/// The level of the API's storage that the state holds a superset of.
pub const STORAGE_VERSION: &str = "3.7.0";

/// Whether a member that serves the API version `served` understands all that a cluster of version `cluster` says.
/// Patch levels change nothing that members tell each other.
pub fn understands(served: &Version, cluster: &Version) -> bool {
    (served.major, served.minor) >= (cluster.major, cluster.minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_as_text_and_as_numbers_is_one() {
        assert_eq!(API.to_string(), API_VERSION);
    }
}
