//! Where a member is reached: `host:port`, with or without a scheme.

use std::{fmt, str::FromStr};

use http::uri::Authority;

/// The port of an endpoint that names none.
pub const DEFAULT_PORT: u16 = 2379;

/// The address of one member, as the user wrote it.
///
/// `http://` always speaks in plain text and `https://` always over TLS. Without a scheme TLS is used if the client has
/// [`TlsOptions`](crate::TlsOptions).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    text: String,
    host: String,
    port: u16,
    security: Security,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Security {
    Plain,
    Tls,
    AsConfigured,
}

/// A text that is not the address of a member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("endpoint {text:?}: {reason}; expected host:port, http://host:port or https://host:port")]
pub struct InvalidEndpoint {
    text: String,
    reason: &'static str,
}

impl Endpoint {
    /// Name or address of the host; an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The endpoint as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the scheme asks for TLS, whatever the client has.
    pub(crate) fn demands_tls(&self) -> bool {
        self.security == Security::Tls
    }

    /// Whether to use TLS, given whether the client has options for it.
    pub(crate) fn uses_tls(&self, configured: bool) -> bool {
        match self.security {
            Security::Plain => false,
            Security::Tls => true,
            Security::AsConfigured => configured,
        }
    }

    /// Host and port as they go into a URI.
    pub(crate) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Stands for a service of this process, which has no address.
    pub(crate) fn in_process() -> Self {
        Self { text: "in-process".into(), host: "localhost".into(), port: 0, security: Security::Plain }
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let invalid = |reason| InvalidEndpoint { text: text.to_owned(), reason };
        let (security, rest) = match text.split_once("://") {
            None => (Security::AsConfigured, text),
            Some(("http", rest)) => (Security::Plain, rest),
            Some(("https", rest)) => (Security::Tls, rest),
            Some(_) => return Err(invalid("unknown scheme")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let authority: Authority = rest.parse().map_err(|_| invalid("no valid host and port"))?;
        if authority.as_str().contains('@') {
            return Err(invalid("a user name has no place in it"));
        }
        let host = authority.host();
        if host.is_empty() {
            return Err(invalid("no host"));
        }
        let after_host = &authority.as_str()[host.len()..];
        let port = match after_host.strip_prefix(':') {
            None => DEFAULT_PORT,
            Some(port) => port.parse().map_err(|_| invalid("the port is not a number up to 65535"))?,
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { text: text.to_owned(), host, port, security })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<&Endpoint> for Endpoint {
    type Error = InvalidEndpoint;

    fn try_from(endpoint: &Endpoint) -> Result<Self, InvalidEndpoint> {
        Ok(endpoint.clone())
    }
}

impl TryFrom<&str> for Endpoint {
    type Error = InvalidEndpoint;

    fn try_from(text: &str) -> Result<Self, InvalidEndpoint> {
        text.parse()
    }
}

impl TryFrom<String> for Endpoint {
    type Error = InvalidEndpoint;

    fn try_from(text: String) -> Result<Self, InvalidEndpoint> {
        text.parse()
    }
}

impl TryFrom<&String> for Endpoint {
    type Error = InvalidEndpoint;

    fn try_from(text: &String) -> Result<Self, InvalidEndpoint> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        text.parse().unwrap()
    }

    #[test]
    fn host_and_port_are_read_with_and_without_scheme() {
        for (text, host, port) in [
            ("127.0.0.1:2379", "127.0.0.1", 2379),
            ("etcd-0.etcd.svc:1234", "etcd-0.etcd.svc", 1234),
            ("http://localhost:80/", "localhost", 80),
            ("https://[::1]:2379", "::1", 2379),
            ("[fe80::1]", "fe80::1", DEFAULT_PORT),
            ("localhost", "localhost", DEFAULT_PORT),
        ] {
            let parsed = endpoint(text);
            assert_eq!((parsed.host(), parsed.port()), (host, port), "{text}");
            assert_eq!(parsed.to_string(), text);
        }
        assert_eq!(endpoint("https://[::1]:2379").authority(), "[::1]:2379");
    }

    #[test]
    fn the_scheme_decides_over_tls_and_its_absence_leaves_it_to_the_client() {
        for configured in [false, true] {
            assert!(!endpoint("http://h:1").uses_tls(configured));
            assert!(endpoint("https://h:1").uses_tls(configured));
            assert_eq!(endpoint("h:1").uses_tls(configured), configured);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "http://", "ftp://h:1", "h:70000", "h:x", "u@h:1", "h:1/path", ":2379", "a b:1", "::1"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?}");
        }
    }
}
