//! Names of members.

/// Bytes of a member's name.
const NAME_BYTES_MAX: usize = 1024;

/// Whether a member may have this name: `--initial-cluster` has to be able to hold it, and a line of a log.
///
/// # Errors
/// What it must not be, to be put behind what is named.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.contains(['=', ',']) {
        return Err("must not be empty or contain '=' or ','");
    }
    if name.len() > NAME_BYTES_MAX || name.contains(char::is_control) {
        return Err("must not have more than 1024 bytes, nor control characters");
    }
    Ok(())
}
