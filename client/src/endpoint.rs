//! Where a member is reached: `host:port`, with or without a scheme, or the path of a socket in the file system.

use std::{
    fmt, io,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::unix::net::UnixDatagram,
    path::Path,
    str::FromStr,
};

use http::uri::Authority;

/// The port of an endpoint that names none.
pub const DEFAULT_PORT: u16 = 2379;

/// The address of one member, as the user wrote it.
///
/// `http://` always speaks in plain text and `https://` always over TLS. Without a scheme TLS is used if the client has
/// [`TlsOptions`](crate::TlsOptions). `unix://` and `unixs://` (or `unix:` and `unixs:`) name the socket that a member
/// listens on in the file system, by a path that may be relative: in plain text and over TLS.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    text: Box<str>,
    host: Box<str>,
    /// The interface of an IPv6 address.
    zone: Option<Box<str>>,
    port: u16,
    /// The path, if it is a socket in the file system.
    socket: Option<Box<str>>,
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
#[error("endpoint {text:?}: {reason}; expected host:port, http://host:port, https://host:port or unix://path")]
pub struct InvalidEndpoint {
    text: String,
    reason: &'static str,
}

impl Endpoint {
    /// Name or address of the host; an IPv6 address without brackets and zone. Of a socket in the file system the name
    /// of its file, up to a colon, which is what a certificate of the member has to be for.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 for a socket in the file system.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path, if it is a socket in the file system.
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref().map(Path::new)
    }

    /// The address, if it has a zone. Looks for the interface.
    pub(crate) fn zoned_addr(&self) -> io::Result<Option<SocketAddr>> {
        let (Some(zone), Ok(IpAddr::V6(ip))) = (&self.zone, self.host.parse()) else { return Ok(None) };
        let index = match zone.parse() {
            Ok(index) => index,
            // The question has to be put to a socket, of any kind.
            Err(_) => rustix::net::netdevice::name_to_index(UnixDatagram::unbound()?, zone)
                .map_err(|error| io::Error::other(format!("no interface {zone:?}: {error}")))?,
        };
        Ok(Some(SocketAddrV6::new(ip, self.port, 0, index).into()))
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
        if self.socket.is_some() {
            // What gRPC says of a socket in the file system: its path has no place here.
            "localhost".to_owned()
        } else if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Stands for a service of this process, which has no address.
    pub(crate) fn in_process() -> Self {
        let (zone, socket) = (None, None);
        Self { text: "in-process".into(), host: "localhost".into(), zone, port: 0, socket, security: Security::Plain }
    }

    fn of_socket(text: &str, path: &str, security: Security) -> Result<Self, &'static str> {
        let file = path.rsplit('/').next().unwrap_or_default();
        if file.is_empty() || path.contains(char::is_control) {
            return Err("no path of a socket");
        }
        let host = file.split(':').next().unwrap_or_default().into();
        Ok(Self { text: text.into(), host, zone: None, port: 0, socket: Some(path.into()), security })
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let invalid = |reason| InvalidEndpoint { text: text.to_owned(), reason };
        for (scheme, security) in [("unix:", Security::Plain), ("unixs:", Security::Tls)] {
            if let Some(rest) = text.strip_prefix(scheme) {
                return Self::of_socket(text, rest.strip_prefix("//").unwrap_or(rest), security).map_err(invalid);
            }
        }
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
        let host = host.trim_start_matches('[').trim_end_matches(']');
        // A URL escapes the percent sign before a zone (RFC 6874); without a scheme it may stand for itself.
        let (host, zone) = match host.split_once('%') {
            Some((ip, zone)) => (ip, Some(zone.strip_prefix("25").unwrap_or(zone))),
            None => (host, None),
        };
        if zone.is_some_and(|zone| zone.is_empty() || host.parse::<Ipv6Addr>().is_err()) {
            return Err(invalid("no valid IPv6 address with a zone"));
        }
        let (host, zone) = (host.into(), zone.map(Into::into));
        Ok(Self { text: text.into(), host, zone, port, socket: None, security })
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
    fn sockets_are_read_in_every_spelling() {
        for (text, path, host) in [
            ("unix:///run/cairn/client.sock", "/run/cairn/client.sock", "client.sock"),
            ("unixs://relative/path", "relative/path", "path"),
            ("unix://name:0", "name:0", "name"),
            ("unix:/run/a", "/run/a", "a"),
            ("unixs:name:0", "name:0", "name"),
        ] {
            let parsed = endpoint(text);
            assert_eq!((parsed.socket(), parsed.host()), (Some(Path::new(path)), host), "{text}");
            assert_eq!(parsed.uses_tls(true), text.starts_with("unixs"), "{text}");
            assert_eq!((parsed.to_string().as_str(), parsed.authority().as_str()), (text, "localhost"));
        }
        assert_eq!(endpoint("http://a:1").socket(), None);
    }

    #[test]
    fn the_zone_of_an_address_is_for_dialing_alone() {
        for text in ["http://[::1%25lo]:2379", "[::1%25lo]:2379"] {
            let parsed = endpoint(text);
            assert_eq!((parsed.host(), parsed.authority().as_str()), ("::1", "[::1]:2379"), "{text}");
            let addr = parsed.zoned_addr().unwrap().unwrap();
            assert!(matches!(addr, SocketAddr::V6(addr) if addr.scope_id() > 0 && addr.port() == 2379), "{addr}");
        }
        assert_eq!(endpoint("[::1]:2379").zoned_addr().unwrap(), None);
        let elsewhere = endpoint("http://[fe80::1%25no-such-link]:1").zoned_addr().unwrap_err();
        assert!(elsewhere.to_string().contains("no interface \"no-such-link\""), "{elsewhere}");
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
        for text in [
            "",
            "http://",
            "ftp://h:1",
            "h:70000",
            "h:x",
            "u@h:1",
            "h:1/path",
            ":2379",
            "a b:1",
            "::1",
            "unix:",
            "unix:///",
            "[::1%25]:1",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?}");
        }
    }
}
