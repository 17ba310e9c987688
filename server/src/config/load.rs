//! From the command line and the environment to a configuration.
//!
//! The rules are those of Go's `flag` package and of etcd: `--flag value`, `--flag=value`, one dash or two; a boolean takes
//! its value only after `=`; the last of a repeated flag counts; variables fill in what no flag says; with a config file,
//! nothing else counts.

use std::ffi::OsString;
use std::path::PathBuf;

use super::error::{ConfigError, Notice, nearest};
use super::file;
use super::flag::{Class, Draft, Flag, Origin};
use super::settings::Config;
use super::table;

/// What a command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Start a server.
    Start(Box<Loaded>),
    /// Print [`super::help_text`].
    Help,
    /// Print [`super::version_text`].
    Version,
}

/// A valid configuration and what there is to say about it.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What to log once logging is set up.
    pub notices: Vec<Notice>,
    /// The config file it came from, if any.
    pub config_file: Option<PathBuf>,
}

/// Reads a configuration from arguments (without the program's name) and environment variables.
pub fn load(
    args: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Invocation, ConfigError> {
    let flags = match parse_args(args)? {
        Parsed::Flags(flags) => flags,
        Parsed::Help => return Ok(Invocation::Help),
        Parsed::Version => return Ok(Invocation::Version),
    };
    let variables = etcd_variables(environment);

    let config_file = flags
        .iter()
        .rev()
        .find(|(flag, _)| flag.name == "config-file")
        .map(|(_, path)| path)
        .or_else(|| variables.iter().find(|(name, _)| name == "ETCD_CONFIG_FILE").map(|(_, path)| path))
        .filter(|path| !path.is_empty())
        .map(PathBuf::from);

    let mut draft = Draft::default();
    if let Some(path) = &config_file {
        file::read(path, &mut draft)?;
        let ignored: Vec<String> = flags
            .iter()
            .filter(|(flag, _)| flag.name != "config-file")
            .map(|(flag, _)| format!("--{}", flag.name))
            .chain(variables.iter().map(|(name, _)| name.clone()).filter(|name| name != "ETCD_CONFIG_FILE"))
            .collect();
        if !ignored.is_empty() {
            let text =
                format!("with a config file, flags and environment variables are ignored: {}", ignored.join(", "));
            draft.notices.push(Notice::new("--config-file", text));
        }
    } else {
        reject_shadowed(&flags, &variables)?;
        for (flag, value) in &flags {
            draft.apply(flag, value, Origin::Flag)?;
        }
        for (name, value) in &variables {
            match table::flags().find(|flag| flag.variable() == *name && !matches!(flag.class, Class::Action)) {
                Some(flag) => draft.apply(flag, value, Origin::Variable)?,
                None => draft.notices.push(Notice::new(name, "unrecognized environment variable")),
            }
        }
        if draft.is_given("listen-client-urls") && !draft.is_given("advertise-client-urls") {
            return Err(ConfigError::Invalid(
                "--advertise-client-urls is required when --listen-client-urls is set explicitly".to_owned(),
            ));
        }
    }

    let (config, mut notices) = draft.finish()?;
    notices.extend(config.validate()?);
    Ok(Invocation::Start(Box::new(Loaded { config, notices, config_file })))
}

enum Parsed {
    Flags(Vec<(&'static Flag, String)>),
    Help,
    Version,
}

fn parse_args(args: impl IntoIterator<Item = OsString>) -> Result<Parsed, ConfigError> {
    let mut flags = Vec::new();
    let mut version = false;
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let arg = utf8("the command line", arg)?;
        let dashes = arg.bytes().take(2).take_while(|b| *b == b'-').count();
        if arg == "--" {
            if let Some(next) = args.next() {
                return Err(ConfigError::UnexpectedArgument(next.to_string_lossy().into_owned()));
            }
            break;
        }
        if dashes == 0 || arg.len() == dashes {
            return Err(ConfigError::UnexpectedArgument(arg));
        }
        let (name, value) = match arg[dashes..].split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (&arg[dashes..], None),
        };
        if matches!(name, "h" | "help") {
            return Ok(Parsed::Help);
        }
        let Some(flag) = table::find(name) else {
            let nearest = nearest(name, table::flags().map(|flag| flag.name));
            return Err(ConfigError::UnknownFlag { name: name.to_owned(), nearest });
        };
        let value = match value {
            Some(value) => value,
            None if flag.kind.is_optional() => "true".to_owned(),
            None => match args.next() {
                Some(value) => utf8(&format!("--{}", flag.name), value)?,
                None => return Err(ConfigError::MissingValue(flag.name)),
            },
        };
        if flag.name == "version" {
            version = flag.kind.same(&value, "true");
        } else {
            flags.push((flag, value));
        }
    }
    Ok(if version { Parsed::Version } else { Parsed::Flags(flags) })
}

/// The variables that are etcd's and not empty, sorted by name.
fn etcd_variables(environment: impl IntoIterator<Item = (OsString, OsString)>) -> Vec<(String, String)> {
    let mut variables: Vec<(String, String)> = environment
        .into_iter()
        .filter(|(name, value)| name.as_encoded_bytes().starts_with(b"ETCD_") && !value.is_empty())
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect();
    variables.sort();
    variables
}

/// A variable that a flag overrides ends genuine etcd, too: it is almost always a mistake.
fn reject_shadowed(flags: &[(&'static Flag, String)], variables: &[(String, String)]) -> Result<(), ConfigError> {
    for (flag, _) in flags {
        let variable = flag.variable();
        if variables.iter().any(|(name, _)| *name == variable) {
            return Err(ConfigError::ShadowedVariable { variable, flag: flag.name });
        }
    }
    Ok(())
}

fn utf8(setting: &str, text: OsString) -> Result<String, ConfigError> {
    text.into_string().map_err(|text| ConfigError::InvalidValue {
        setting: setting.to_owned(),
        value: text.to_string_lossy().into_owned(),
        reason: "not UTF-8".to_owned(),
    })
}

#[cfg(test)]
mod tests;
