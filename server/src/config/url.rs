//! The URLs of flags: a scheme, a host and a port, nothing else.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::value::{Value, comma_list};

/// What is spoken at a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// Plain TCP.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// The scheme as it is written in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A URL to listen on or to be reached at: `scheme://host:port` without a path.
///
/// Ordered and printed as its text, because member ids are hashes over sorted URL texts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Url {
    scheme: Scheme,
    host: String,
    port: u16,
}

impl Url {
    /// Parses one URL. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let fail = |reason: &str| Err(format!("{reason}: {text:?}"));
        let Some((scheme, rest)) = text.split_once("://") else {
            return fail("a URL must begin with http:// or https://");
        };
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" | "unixs" => return fail("unix sockets are not supported, use http:// or https://"),
            _ => return fail("a URL must begin with http:// or https://"),
        };
        if rest.contains(['/', '?', '#']) {
            return fail("a URL must not contain a path");
        }
        if rest.contains(|c: char| c == '@' || c.is_whitespace() || c.is_control()) {
            return fail("a URL must have the form scheme://host:port");
        }
        let Some((host, port)) = rest.rsplit_once(':') else {
            return fail("a URL must name a port");
        };
        let host = match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
            Some(inner) if inner.parse::<std::net::Ipv6Addr>().is_ok() => inner,
            None if !host.contains([':', '[', ']']) => host,
            _ => return fail("an IPv6 address must be valid and stand in brackets"),
        };
        let digits_only = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let Some(port) = port.parse().ok().filter(|_| digits_only) else {
            return fail("a port must be a number from 0 to 65535");
        };
        Ok(Self { scheme, host: host.to_owned(), port })
    }

    /// What is spoken there.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host name or address, without brackets. May be empty.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 lets the system choose one when listening.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The socket address to listen on. Only an IP address or `localhost` (127.0.0.1) can be listened on;
    /// for any other host this is the reason why not.
    pub fn bind_addr(&self) -> Result<SocketAddr, String> {
        let ip = match self.host.as_str() {
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            host => host
                .parse()
                .map_err(|_| format!("expected an IP address or localhost in a URL to listen on: \"{self}\""))?,
        };
        Ok(SocketAddr::new(ip, self.port))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{}://{open}{}{close}:{}", self.scheme.as_str(), self.host, self.port)
    }
}

impl PartialOrd for Url {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Url {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.to_string().cmp(&other.to_string())
    }
}

impl Value for Vec<Url> {
    /// A comma-separated list; sorted and without doubles, as etcd keeps it.
    fn parse(text: &str) -> Result<Self, String> {
        let mut urls = comma_list(text).map(Url::parse).collect::<Result<Vec<_>, _>>()?;
        urls.sort();
        urls.dedup();
        Ok(urls)
    }
}

/// URLs as one flag value.
pub(crate) fn join(urls: &[Url]) -> String {
    urls.iter().map(Url::to_string).collect::<Vec<_>>().join(",")
}

/// One socket to listen on: what is spoken there may be plain, TLS, or both, told apart by a connection's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddr {
    /// Where to bind.
    pub addr: SocketAddr,
    /// An `http` URL names this address.
    pub plain: bool,
    /// An `https` URL names this address.
    pub tls: bool,
}

/// The sockets that `urls` ask for, URLs of one address taken together. Port 0 always means a socket of its own.
pub fn listen_addrs(urls: &[Url]) -> Result<Vec<ListenAddr>, String> {
    let mut addrs: Vec<ListenAddr> = Vec::new();
    for url in urls {
        let addr = url.bind_addr()?;
        let known = addrs.iter().position(|known| known.addr == addr && addr.port() != 0);
        let index = known.unwrap_or_else(|| {
            addrs.push(ListenAddr { addr, plain: false, tls: false });
            addrs.len() - 1
        });
        match url.scheme() {
            Scheme::Http => addrs[index].plain = true,
            Scheme::Https => addrs[index].tls = true,
        }
    }
    Ok(addrs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_prints_as_it_was_given() {
        for text in
            ["http://localhost:2379", "https://127.0.0.1:0", "http://[::1]:2379", "https://node-1.example:12379"]
        {
            assert_eq!(Url::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Url::parse(" HTTP://h:1 ").unwrap().to_string(), "http://h:1");
    }

    #[test]
    fn what_is_not_scheme_host_port_is_refused_with_the_reason() {
        for (text, reason) in [
            ("localhost:2379", "must begin with http"),
            ("ftp://localhost:2379", "must begin with http"),
            ("unix://localhost:2379", "unix sockets are not supported"),
            ("http://localhost", "must name a port"),
            ("http://localhost:2379/", "must not contain a path"),
            ("http://localhost:2379?x", "must not contain a path"),
            ("http://u@localhost:2379", "scheme://host:port"),
            ("http://localhost:", "a port must be"),
            ("http://localhost:+1", "a port must be"),
            ("http://localhost:99999", "a port must be"),
            ("http://::1:2379", "in brackets"),
            ("http://[::zz]:2379", "in brackets"),
        ] {
            let error = Url::parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn only_addresses_and_localhost_can_be_listened_on() {
        assert_eq!(Url::parse("http://localhost:1").unwrap().bind_addr().unwrap(), "127.0.0.1:1".parse().unwrap());
        assert_eq!(Url::parse("http://[::]:1").unwrap().bind_addr().unwrap(), "[::]:1".parse().unwrap());
        assert!(Url::parse("http://node1:1").unwrap().bind_addr().unwrap_err().contains("expected an IP address"));
        assert!(Url::parse("http://:1").unwrap().bind_addr().is_err());
    }

    #[test]
    fn lists_are_sorted_and_without_doubles() {
        let urls = Vec::<Url>::parse("http://b:1,http://a:2,http://b:1").unwrap();
        assert_eq!(join(&urls), "http://a:2,http://b:1");
    }

    #[test]
    fn http_and_https_on_one_address_share_a_socket() {
        let urls =
            Vec::<Url>::parse("http://127.0.0.1:1,https://127.0.0.1:1,https://127.0.0.1:2,http://127.0.0.1:0").unwrap();
        let addrs = listen_addrs(&urls).unwrap();
        assert_eq!(addrs.len(), 3);
        let shared = addrs.iter().find(|a| a.addr.port() == 1).unwrap();
        assert!(shared.plain && shared.tls);
        let tls_only = addrs.iter().find(|a| a.addr.port() == 2).unwrap();
        assert!(!tls_only.plain && tls_only.tls);
    }
}
