//! `ETCDCTL_*` variables: one for every global flag, used where the flag is not given.
//!
//! etcdctl's rules, with two exceptions that docs/etcdctl-differences.md lists: a flag wins over its variable instead of
//! ending the program, and a variable that cannot be read is an error instead of being passed over.

use super::flags::{FlagError, Flags};
use super::tree::GLOBAL;
use crate::exit::{Failure, code};

const PREFIX: &str = "ETCDCTL_";

/// Variables that belong to no global flag and are known all the same.
const KNOWN: [&str; 3] = ["ETCDCTL_API", "ETCDCTL_WATCH_KEY", "ETCDCTL_WATCH_RANGE_END"];

/// The environment as pairs of bytes.
pub type Environment = Vec<(Vec<u8>, Vec<u8>)>;

/// The variable of a global flag.
pub fn variable(flag: &str) -> String {
    format!("{PREFIX}{}", flag.replace('-', "_").to_uppercase())
}

/// Refuses an API version that is not this one.
pub fn check_api_version(environment: &Environment) -> Result<(), Failure> {
    match lookup(environment, "ETCDCTL_API").unwrap_or_default() {
        b"" | b"3" => Ok(()),
        b"2" => {
            Err(Failure::new(code::ERROR, "ETCDCTL_API=2: there is no v2 API here; unset ETCDCTL_API or set it to 3"))
        }
        other => {
            let text = format!("unsupported API version: {}", String::from_utf8_lossy(other));
            Err(Failure::new(code::ERROR, text))
        }
    }
}

/// Gives every global flag that was not given the value of its variable. Returns what to warn about.
pub fn apply(flags: &mut Flags, environment: &Environment) -> Result<Vec<String>, Failure> {
    for flag in GLOBAL {
        let variable = variable(flag.name);
        let Some(value) = lookup(environment, &variable) else { continue };
        if value.is_empty() || flags.given(flag.name) {
            continue;
        }
        flags.set(flag, value).map_err(|error| {
            let reason = match error {
                FlagError::BadValue { error, .. } => error.to_string(),
                other => other.to_string(),
            };
            Failure::bad_args(format!("invalid value of the environment variable {variable}: {reason}"))
        })?;
    }
    let unknown = environment.iter().map(|(name, _)| String::from_utf8_lossy(name)).filter(|name| {
        name.starts_with(PREFIX)
            && !KNOWN.contains(&name.as_ref())
            && !GLOBAL.iter().any(|flag| variable(flag.name) == name.as_ref())
    });
    Ok(unknown.map(|name| format!("unrecognized environment variable {name}")).collect())
}

/// The value of a variable.
pub fn lookup<'e>(environment: &'e Environment, name: &str) -> Option<&'e [u8]> {
    let found = environment.iter().find(|(known, _)| known == name.as_bytes())?;
    Some(&found.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(words: &[&str]) -> Flags {
        let known: Vec<_> = GLOBAL.iter().collect();
        let words: Vec<_> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        Flags::read(&known, &words).expect("flags").0
    }

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn every_global_flag_has_a_variable_and_the_flag_wins() {
        let mut flags = flags(&["--write-out", "json"]);
        let environment = environment(&[
            ("ETCDCTL_ENDPOINTS", "a:1,b:2"),
            ("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", "true"),
            ("ETCDCTL_COMMAND_TIMEOUT", "9s"),
            ("ETCDCTL_WRITE_OUT", "table"),
            ("ETCDCTL_CACERT", ""),
            ("ETCDCTL_API", "3"),
        ]);
        assert!(apply(&mut flags, &environment).expect("readable").is_empty());
        assert_eq!(flags.list("endpoints"), ["a:1", "b:2"]);
        assert!(flags.bool("insecure-skip-tls-verify"));
        assert_eq!(flags.duration("command-timeout").as_secs(), 9);
        assert_eq!(flags.text("write-out"), "json");
        assert!(!flags.given("cacert"));
    }

    #[test]
    fn an_unknown_variable_is_a_warning_and_an_unreadable_one_an_error() {
        let mut given = flags(&[]);
        let warnings = apply(&mut given, &environment(&[("ETCDCTL_PREFIX", "true"), ("HOME", "/")])).expect("readable");
        assert_eq!(warnings, ["unrecognized environment variable ETCDCTL_PREFIX"]);
        let failure = apply(&mut given, &environment(&[("ETCDCTL_HEX", "perhaps")])).expect_err("unreadable");
        assert_eq!(failure.code, code::BAD_ARGS);
        assert_eq!(
            failure.text.unwrap(),
            "invalid value of the environment variable ETCDCTL_HEX: strconv.ParseBool: parsing \"perhaps\": invalid syntax"
        );
    }

    #[test]
    fn only_api_version_3_is_served() {
        for version in ["", "3"] {
            assert!(check_api_version(&environment(&[("ETCDCTL_API", version)])).is_ok());
        }
        for version in ["2", "x"] {
            let failure = check_api_version(&environment(&[("ETCDCTL_API", version)])).expect_err("refused");
            assert_eq!(failure.code, code::ERROR);
        }
    }
}
