//! What every command that talks to members shares: the options behind its global flags, its connection, its deadline.

use std::path::PathBuf;
use std::time::Duration;

use cairn_client::{Client, Error, Unary};

use crate::cli::env::variable;
use crate::cli::tree::GLOBAL;
use crate::cli::{Flags, Invocation};
use crate::connection::{
    Credentials, MAX_RECV_BYTES, MAX_REQUEST_BYTES, Options, SetupError, TlsFiles, error_note, error_text,
};
use crate::exit::{Failure, code};
use crate::output::{Format, Printer};
use crate::password;

impl From<SetupError> for Failure {
    fn from(error: SetupError) -> Self {
        let code = if matches!(error, SetupError::NoEndpoints) { code::BAD_CONNECTION } else { code::BAD_ARGS };
        Self::new(code, error.to_string())
    }
}

/// The global flags of one invocation, checked.
#[derive(Debug)]
pub struct Session {
    endpoints: Vec<String>,
    options: Options,
    /// How to print.
    pub printer: Printer,
}

impl Session {
    /// Checks the global flags; asks for a password if one is missing.
    pub fn new(invocation: &Invocation) -> Result<Self, Failure> {
        let flags = &invocation.flags;
        if flags.bool("debug") {
            print_options(flags);
        }
        if !flags.bytes("discovery-srv").is_empty() {
            let text = "--discovery-srv is not supported: name the members' addresses with --endpoints";
            return Err(Failure::error(text));
        }
        let options = Options {
            dial_timeout: flags.duration("dial-timeout"),
            command_timeout: flags.duration("command-timeout"),
            keepalive_time: flags.duration("keepalive-time"),
            keepalive_timeout: flags.duration("keepalive-timeout"),
            tls: tls_files(flags, "")?,
            insecure_transport: flags.bool("insecure-transport"),
            credentials: credentials(flags, "")?,
            max_request_bytes: limit(flags, "max-request-bytes", MAX_REQUEST_BYTES),
            max_recv_bytes: limit(flags, "max-recv-bytes", MAX_RECV_BYTES),
        };
        let format = Format::named(&flags.text("write-out"))?;
        Ok(Self {
            endpoints: flags.list("endpoints").to_vec(),
            options,
            printer: Printer { format, hex: flags.bool("hex"), value_only: false },
        })
    }

    /// How long the command's requests may take each.
    pub fn command_timeout(&self) -> Duration {
        self.options.command_timeout
    }

    /// A client of the endpoints, as the user the flags name.
    pub async fn connect(&self) -> Result<Client, Failure> {
        let client = self.options.client(&self.endpoints)?;
        self.options.authenticated(client).await.map_err(|error| {
            explain(&error);
            Failure::new(code::BAD_CONNECTION, error_text(&error))
        })
    }

    /// A client of the endpoint to copy to, with the certificates and the user of the flags that begin with `dest-`.
    pub async fn connect_to_destination(&self, flags: &Flags, endpoint: &str) -> Result<Client, Failure> {
        let options = Options {
            tls: tls_files(flags, "dest-")?,
            insecure_transport: flags.bool("dest-insecure-transport"),
            credentials: credentials(flags, "dest-")?,
            ..self.options.clone()
        };
        let client = options.client(&[endpoint.to_owned()])?;
        options.authenticated(client).await.map_err(|error| {
            explain(&error);
            Failure::new(code::BAD_CONNECTION, error_text(&error))
        })
    }

    /// A client of one endpoint, as the user the flags name.
    pub async fn connect_to(&self, endpoint: &str) -> Result<Result<Client, Error>, Failure> {
        let client = self.options.client(&[endpoint.to_owned()])?;
        Ok(self.options.authenticated(client).await)
    }

    /// One request to any of the endpoints.
    pub async fn request<Q: Unary>(&self, request: Q) -> Result<Q::Answer, Failure> {
        self.connect().await?.call(request).await.map_err(|error| failed(&error))
    }

    /// One request to one endpoint.
    pub async fn request_to<Q: Unary>(&self, endpoint: &str, request: Q) -> Result<Result<Q::Answer, Error>, Failure> {
        Ok(match self.connect_to(endpoint).await? {
            Ok(client) => client.call(request).await,
            Err(error) => Err(error),
        })
    }

    /// The endpoints a command about endpoints is about: those of the flag, or with `--cluster` those of all members.
    pub async fn endpoints(&self, cluster: bool) -> Result<Vec<String>, Failure> {
        if !cluster {
            return Ok(self.endpoints.iter().filter(|endpoint| !endpoint.is_empty()).cloned().collect());
        }
        // Listing members needs no user, so nobody is asked for a password here.
        let options = Options { credentials: None, ..self.options.clone() };
        let answer = options.client(&self.endpoints)?.member_list().await.map_err(|error| {
            explain(&error);
            let text = error_text(&error);
            Failure::error(format!("failed to fetch endpoints from etcd cluster member list: {text}"))
        })?;
        Ok(answer.members.into_iter().flat_map(|member| member.client_urls).collect())
    }
}

/// The failure of a command whose request failed.
pub fn failed(error: &Error) -> Failure {
    explain(error);
    Failure::error(error_text(error))
}

/// Says on standard error what the error's own text leaves open.
pub fn explain(error: &Error) {
    if let Some(note) = error_note(error) {
        eprintln!("{note}");
    }
}

fn limit(flags: &Flags, name: &str, default: usize) -> usize {
    match usize::try_from(flags.int(name)) {
        Ok(0) | Err(_) => default,
        Ok(limit) => limit,
    }
}

/// The files of the flags whose names begin with `prefix`.
fn tls_files(flags: &Flags, prefix: &str) -> Result<TlsFiles, Failure> {
    let path = |name: &str| match flags.bytes(name) {
        [] if flags.given(name) => Err(Failure::bad_args(format!("empty string is passed to --{name} option"))),
        [] => Ok(None),
        bytes => Ok(Some(PathBuf::from(crate::os_string(bytes.to_vec())))),
    };
    Ok(TlsFiles {
        cert: path(&format!("{prefix}cert"))?,
        key: path(&format!("{prefix}key"))?,
        cacert: path(&format!("{prefix}cacert"))?,
        skip_verify: flags.bool(&format!("{prefix}insecure-skip-tls-verify")),
    })
}

/// The user of the flags whose names begin with `prefix`.
fn credentials(flags: &Flags, prefix: &str) -> Result<Option<Credentials>, Failure> {
    let text = |name: &str| flags.text(&format!("{prefix}{name}"));
    let (user, password, token) = (text("user"), text("password"), text("auth-jwt-token"));
    if !token.is_empty() {
        if !user.is_empty() || !password.is_empty() {
            return Err(Failure::bad_args("--auth-jwt-token cannot be used together with --user or --password"));
        }
        return Ok(Some(Credentials::Token(token)));
    }
    if user.is_empty() {
        return Ok(None);
    }
    let (name, password) = match (password.is_empty(), user.split_once(':')) {
        (false, _) => (user, password),
        (true, Some((name, password))) => (name.to_owned(), password.to_owned()),
        (true, None) => {
            let failed = |error: &dyn std::fmt::Display| Failure::error(format!("reading the password: {error}"));
            let password = password::ask("Password: ").map_err(|error| failed(&error))?;
            if password.is_empty() {
                return Err(failed(&"nothing was entered"));
            }
            (user, password)
        }
    };
    Ok(Some(Credentials::User { name, password }))
}

/// What `--debug` prints: every global option with the value it has now. Secrets stay secret.
fn print_options(flags: &Flags) {
    for flag in GLOBAL {
        let secret = matches!(flag.name, "password" | "auth-jwt-token" | "user");
        let value = if secret && flags.given(flag.name) { "***".to_owned() } else { flags.display(flag.name) };
        eprintln!("{}={value}", variable(flag.name));
    }
}
