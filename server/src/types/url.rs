//! The URLs of flags: a scheme, a host and a port, nothing else; or the path of a socket in the file system.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

/// The longest path of a socket, in bytes: the system's limit.
const MAX_SOCKET_PATH: usize = 107;

/// What is spoken at a URL, and over what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// Plain TCP.
    Http,
    /// TLS.
    Https,
    /// Plain, over a socket in the file system.
    Unix,
    /// TLS, over a socket in the file system.
    Unixs,
}

impl Scheme {
    const ALL: [Self; 4] = [Self::Http, Self::Https, Self::Unix, Self::Unixs];

    /// The scheme as it is written in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Unix => "unix",
            Self::Unixs => "unixs",
        }
    }

    /// Whether TLS is spoken there.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Unixs)
    }
}

/// A URL to listen on or to be reached at: `scheme://host:port` without a path, or `unix://path`.
///
/// Ordered and printed as its text, because member ids are hashes over sorted URL texts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Url {
    scheme: Scheme,
    target: Target,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Target {
    /// The zone belongs to an IPv6 address of a link: it names the interface.
    Host { host: String, zone: Option<String>, port: u16 },
    /// As it was written: `name:0` is a file of that name in the working directory.
    Socket { path: String },
}

/// Where a socket listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// At an address.
    Tcp(SocketAddr),
    /// In the file system.
    Unix(PathBuf),
}

impl Place {
    /// Whether each socket that asks for it is at another place: the system chooses the port.
    pub fn is_any_port(&self) -> bool {
        matches!(self, Self::Tcp(addr) if addr.port() == 0)
    }

    /// The URL of what is served here.
    pub fn url(&self, tls: bool) -> String {
        let scheme = match (self, tls) {
            (Self::Tcp(_), false) => Scheme::Http,
            (Self::Tcp(_), true) => Scheme::Https,
            (Self::Unix(_), false) => Scheme::Unix,
            (Self::Unix(_), true) => Scheme::Unixs,
        };
        format!("{}://{self}", scheme.as_str())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

impl Url {
    /// Parses one URL. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        const SCHEMES: &str = "a URL must begin with http://, https://, unix:// or unixs://";
        let text = text.trim();
        let fail = |reason: &str| Err(format!("{reason}: {text:?}"));
        let Some((scheme, rest)) = text.split_once("://") else {
            return fail(SCHEMES);
        };
        let Some(scheme) = Scheme::ALL.into_iter().find(|known| scheme.eq_ignore_ascii_case(known.as_str())) else {
            return fail(SCHEMES);
        };
        let target = match scheme {
            Scheme::Http | Scheme::Https => parse_host(rest),
            Scheme::Unix | Scheme::Unixs => parse_socket(rest),
        };
        target.map(|target| Self { scheme, target }).or_else(fail)
    }

    /// What is spoken there.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Whether TLS is spoken there.
    pub fn is_tls(&self) -> bool {
        self.scheme.is_tls()
    }

    /// The name that a certificate has to be for. Host name or address, without brackets and zone; of a socket in the
    /// file system the name of the file, up to a colon. May be empty.
    pub fn host(&self) -> &str {
        match &self.target {
            Target::Host { host, .. } => host,
            Target::Socket { path } => {
                let file = path.rsplit('/').next().unwrap_or_default();
                file.split(':').next().unwrap_or_default()
            }
        }
    }

    /// The port, unless it is a socket in the file system; 0 lets the system choose one when listening.
    pub fn port(&self) -> Option<u16> {
        match &self.target {
            Target::Host { port, .. } => Some(*port),
            Target::Socket { .. } => None,
        }
    }

    /// The zone, which names the interface that an IPv6 address of a link belongs to.
    pub fn zone(&self) -> Option<&str> {
        match &self.target {
            Target::Host { zone, .. } => zone.as_deref(),
            Target::Socket { .. } => None,
        }
    }

    /// The path, if it is a socket in the file system.
    pub fn socket(&self) -> Option<&Path> {
        match &self.target {
            Target::Host { .. } => None,
            Target::Socket { path } => Some(Path::new(path)),
        }
    }

    /// The address, where the host is one. Looks for the interface that a zone names.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn ip_addr(&self) -> Result<Option<SocketAddr>, String> {
        let Target::Host { host, zone, port } = &self.target else { return Ok(None) };
        Ok(match (host.parse(), zone) {
            (Ok(IpAddr::V6(ip)), Some(zone)) => {
                let index =
                    interface_index(zone).map_err(|error| format!("no interface {zone:?}: {error}: \"{self}\""))?;
                Some(SocketAddrV6::new(ip, *port, 0, index).into())
            }
            (Ok(ip), _) => Some(SocketAddr::new(ip, *port)),
            (Err(_), _) => None,
        })
    }

    /// Where to listen. Only an IP address, `localhost` (127.0.0.1) or a socket in the file system can be listened on;
    /// for any other host this is the reason why not.
    pub fn bind_place(&self) -> Result<Place, String> {
        match &self.target {
            Target::Socket { path } => Ok(Place::Unix(path.into())),
            Target::Host { host, port, .. } if host == "localhost" => {
                Ok(Place::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), *port)))
            }
            Target::Host { .. } => self
                .ip_addr()?
                .map(Place::Tcp)
                .ok_or_else(|| format!("expected an IP address or localhost in a URL to listen on: \"{self}\"")),
        }
    }
}

fn parse_host(text: &str) -> Result<Target, &'static str> {
    if text.contains(['/', '?', '#']) {
        return Err("a URL must not contain a path");
    }
    if text.contains(|c: char| c == '@' || c.is_whitespace() || c.is_control()) {
        return Err("a URL must have the form scheme://host:port");
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err("a URL must name a port");
    };
    let (host, zone) = match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) => {
            let (ip, zone) = inner.split_once('%').map_or((inner, None), |(ip, zone)| (ip, Some(zone)));
            if ip.parse::<Ipv6Addr>().is_err() {
                return Err(BAD_IPV6);
            }
            (ip, zone.map(parse_zone).transpose()?)
        }
        None if !host.contains([':', '[', ']', '%']) => (host, None),
        None => return Err(BAD_IPV6),
    };
    let digits_only = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let Some(port) = port.parse().ok().filter(|_| digits_only) else {
        return Err("a port must be a number from 0 to 65535");
    };
    Ok(Target::Host { host: host.to_owned(), zone, port })
}

const BAD_IPV6: &str = "an IPv6 address must be valid and stand in brackets";

/// A zone after its percent sign, which a URL escapes as `%25` (RFC 6874).
fn parse_zone(escaped: &str) -> Result<String, &'static str> {
    match escaped.strip_prefix("25") {
        Some(zone) if !zone.is_empty() && !zone.contains('%') => Ok(zone.to_owned()),
        _ => Err("the zone of an IPv6 address must follow %25, as in [fe80::1%25eth0]"),
    }
}

fn parse_socket(path: &str) -> Result<Target, &'static str> {
    if path.is_empty() || path.ends_with('/') {
        return Err("a unix:// URL must name a file");
    }
    if path.contains(|c: char| matches!(c, '?' | '#' | '%') || c.is_control()) {
        return Err("the path of a unix:// URL must have none of ?, #, % and control characters");
    }
    if path.len() > MAX_SOCKET_PATH {
        return Err(
            "the path of a unix:// URL must not have more than 107 bytes: give a shorter one, or a relative one",
        );
    }
    Ok(Target::Socket { path: path.to_owned() })
}

/// The number of a network interface, by its name or by that number.
fn interface_index(zone: &str) -> std::io::Result<u32> {
    if let Ok(index) = zone.parse() {
        return Ok(index);
    }
    // The question has to be put to a socket, of any kind.
    Ok(rustix::net::netdevice::name_to_index(UnixDatagram::unbound()?, zone)?)
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme.as_str())?;
        match &self.target {
            Target::Host { host, zone: Some(zone), port } => write!(f, "[{host}%25{zone}]:{port}"),
            Target::Host { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Target::Host { host, port, .. } => write!(f, "{host}:{port}"),
            Target::Socket { path } => f.write_str(path),
        }
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

/// URLs as one flag value.
pub(crate) fn join(urls: &[Url]) -> String {
    urls.iter().map(Url::to_string).collect::<Vec<_>>().join(",")
}

/// One socket to listen on: what is spoken there may be plain, TLS, or both, told apart by a connection's first byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddr {
    /// Where to bind.
    pub place: Place,
    /// A URL without TLS names this place.
    pub plain: bool,
    /// A URL with TLS names this place.
    pub tls: bool,
}

/// The sockets that `urls` ask for, URLs of one place taken together. Port 0 always means a socket of its own.
pub fn listen_addrs(urls: &[Url]) -> Result<Vec<ListenAddr>, String> {
    let mut addrs: Vec<ListenAddr> = Vec::new();
    for url in urls {
        let place = url.bind_place()?;
        let known = addrs.iter().position(|known| known.place == place && !place.is_any_port());
        let index = known.unwrap_or_else(|| {
            addrs.push(ListenAddr { place, plain: false, tls: false });
            addrs.len() - 1
        });
        if url.is_tls() {
            addrs[index].tls = true;
        } else {
            addrs[index].plain = true;
        }
    }
    Ok(addrs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(urls: &str) -> Vec<Url> {
        urls.split(',').map(|url| Url::parse(url).unwrap()).collect()
    }

    #[test]
    fn a_url_prints_as_it_was_given() {
        for (text, host) in [
            ("http://localhost:2379", "localhost"),
            ("https://127.0.0.1:0", "127.0.0.1"),
            ("http://[::1]:2379", "::1"),
            ("https://node-1.example:12379", "node-1.example"),
            ("http://[fe80::1%25eth0]:2380", "fe80::1"),
            ("https://[::1%251]:2380", "::1"),
            ("unix:///run/cairn/client.sock", "client.sock"),
            ("unixs://relative/path", "path"),
            ("unix://name:0", "name"),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!((url.to_string().as_str(), url.host()), (text, host));
        }
        assert_eq!(Url::parse(" HTTP://h:1 ").unwrap().to_string(), "http://h:1");
    }

    #[test]
    fn what_is_not_scheme_host_port_is_refused_with_the_reason() {
        for (text, reason) in [
            ("localhost:2379", "must begin with http"),
            ("ftp://localhost:2379", "must begin with http"),
            ("unix://", "must name a file"),
            ("unix:///run/", "must name a file"),
            ("unix:///a%20b", "must have none of"),
            ("http://[fe80::1%eth0]:2379", "must follow %25"),
            ("http://[fe80::1%25]:2379", "must follow %25"),
            ("http://[fe80%25eth0]:2379", "in brackets"),
            ("http://127.0.0.1%25lo:2379", "in brackets"),
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
    fn only_addresses_localhost_and_files_can_be_listened_on() {
        let place = |text: &str| Url::parse(text).unwrap().bind_place();
        let at = |addr: &str| Ok(Place::Tcp(addr.parse().unwrap()));
        assert_eq!(place("http://localhost:1"), at("127.0.0.1:1"));
        assert_eq!(place("http://[::]:1"), at("[::]:1"));
        assert_eq!(place("unix://name:0"), Ok(Place::Unix("name:0".into())));
        assert_eq!(place("unixs:///run/a"), Ok(Place::Unix("/run/a".into())));
        assert!(place("http://node1:1").unwrap_err().contains("expected an IP address"));
        assert!(place("http://:1").is_err());
    }

    #[test]
    fn a_zone_names_an_interface_by_name_or_number() {
        let place = |text: &str| Url::parse(text).unwrap().bind_place();
        let loopback = interface_index("lo").unwrap();
        let expected = Place::Tcp(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 1, 0, loopback).into());
        assert_eq!(place("http://[::1%25lo]:1"), Ok(expected.clone()));
        assert_eq!(place(&format!("http://[::1%25{loopback}]:1")), Ok(expected));
        assert!(place("http://[fe80::1%25no-such-link]:1").unwrap_err().contains("no interface \"no-such-link\""));
    }

    #[test]
    fn the_path_of_a_socket_has_the_systems_limit() {
        let of_length = |bytes: usize| Url::parse(&format!("unix:///{}", "a".repeat(bytes - 1)));
        assert!(of_length(MAX_SOCKET_PATH).is_ok());
        assert!(of_length(MAX_SOCKET_PATH + 1).unwrap_err().contains("107 bytes"));
    }

    #[test]
    fn http_and_https_on_one_address_share_a_socket() {
        let urls = all("http://127.0.0.1:1,https://127.0.0.1:1,https://127.0.0.1:2,http://127.0.0.1:0");
        let addrs = listen_addrs(&urls).unwrap();
        assert_eq!(addrs.len(), 3);
        let at = |addr: &str| addrs.iter().find(|a| a.place == Place::Tcp(addr.parse().unwrap())).unwrap();
        assert!(at("127.0.0.1:1").plain && at("127.0.0.1:1").tls);
        assert!(!at("127.0.0.1:2").plain && at("127.0.0.1:2").tls);
        let files = listen_addrs(&all("unix://a,unixs://a,unix://b")).unwrap();
        assert_eq!(files.iter().filter(|a| a.plain && a.tls).count(), 1);
        assert_eq!(files.len(), 2);
    }
}
