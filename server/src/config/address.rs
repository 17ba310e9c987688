//! Whether URLs name one address, however each of them spells it.
//!
//! `--initial-cluster`, `--initial-advertise-peer-urls` and the members of a running cluster may spell one address in
//! several ways: `[::1]` and `[0:0:0:0:0:0:0:1]`, or a host name and an IP address. Ids of members are hashes over the
//! texts of URLs, so the texts stay as they are; this module only compares.
//!
//! As in etcd `localhost` stands for itself alone and is not resolved, an IPv4 address is the same when it is mapped
//! into IPv6, and a name that cannot be resolved is asked for again, as a name service may start later than its
//! users. Unlike etcd, all addresses of a name count and not only the first, and URLs of one text are the same
//! without any question.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, ToSocketAddrs},
    time::{Duration, Instant},
};

use crate::types::Url;

/// How long names are asked for that cannot be resolved.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// The time between two questions for a name.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Finds the addresses of a host name.
type Lookup = dyn Fn(&str) -> io::Result<Vec<IpAddr>>;

/// Compares URLs, and resolves host names for that. It blocks; all questions together have [`WAIT_MAX`].
pub(crate) struct Comparison {
    addresses_of: Box<Lookup>,
    retry_interval: Duration,
    wait_max: Duration,
    deadline: Option<Instant>,
    known: BTreeMap<String, Vec<IpAddr>>,
}

/// Whether two texts are one URL, or have one IP address in two spellings. Names are not resolved.
pub(crate) fn is_same_literally(a: &str, b: &str) -> bool {
    let unresolved = |_: &str| Err(io::ErrorKind::Unsupported.into());
    let same = |a, b| Comparison::asking(unresolved, Duration::ZERO, Duration::ZERO).is_same(&a, &b) == Ok(true);
    a == b || Url::parse(a).is_ok_and(|a| Url::parse(b).is_ok_and(|b| same(a, b)))
}

impl Comparison {
    /// Asks the system for the addresses of names.
    pub(crate) fn new() -> Self {
        let of_system = |host: &str| Ok((host, 0).to_socket_addrs()?.map(|addr| addr.ip()).collect());
        Self::asking(of_system, RETRY_INTERVAL, WAIT_MAX)
    }

    /// Asks `addresses_of`.
    pub(crate) fn asking(
        addresses_of: impl Fn(&str) -> io::Result<Vec<IpAddr>> + 'static,
        retry_interval: Duration,
        wait_max: Duration,
    ) -> Self {
        Self { addresses_of: Box::new(addresses_of), retry_interval, wait_max, deadline: None, known: BTreeMap::new() }
    }

    /// Whether each URL of `a` has a partner of its own in `b`, in any order, and none is left over.
    ///
    /// # Errors
    /// A host name cannot be resolved; says which, and why.
    pub(crate) fn same(&mut self, a: &[Url], b: &[Url]) -> Result<bool, String> {
        if a.len() != b.len() {
            return Ok(false);
        }
        let mut open: Vec<&Url> = b.iter().filter(|url| !a.contains(url)).collect();
        for url in a.iter().filter(|url| !b.contains(url)) {
            let mut partner = None;
            for (index, other) in open.iter().enumerate() {
                if self.is_same(url, other)? {
                    partner = Some(index);
                    break;
                }
            }
            let Some(index) = partner else { return Ok(false) };
            open.swap_remove(index);
        }
        Ok(open.is_empty())
    }

    fn is_same(&mut self, a: &Url, b: &Url) -> Result<bool, String> {
        let at_host = |url: &Url| url.port().map(|port| (url.scheme(), port, url.zone().map(str::to_owned)));
        let is_local = |url: &Url| url.host() == "localhost";
        if at_host(a).is_none() || at_host(a) != at_host(b) || is_local(a) || is_local(b) {
            return Ok(a == b);
        }
        let (first, second) = (self.addresses(a.host())?, self.addresses(b.host())?);
        Ok(first.iter().any(|address| second.contains(address)))
    }

    fn addresses(&mut self, host: &str) -> Result<Vec<IpAddr>, String> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![address.to_canonical()]);
        }
        if let Some(known) = self.known.get(host) {
            return Ok(known.clone());
        }
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + self.wait_max);
        loop {
            let error = match (self.addresses_of)(host) {
                Ok(addresses) => {
                    let addresses: Vec<_> = addresses.iter().map(IpAddr::to_canonical).collect();
                    tracing::info!(host, ?addresses, "resolved the host of a URL");
                    self.known.insert(host.to_owned(), addresses.clone());
                    return Ok(addresses);
                }
                Err(error) => error,
            };
            if Instant::now() + self.retry_interval > deadline {
                return Err(format!("failed to resolve {host:?} within {:?}: {error}", self.wait_max));
            }
            tracing::warn!(host, %error, retry_interval = ?self.retry_interval, "failed to resolve the host of a URL");
            std::thread::sleep(self.retry_interval);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::config::value::Value;

    fn urls(text: &str) -> Vec<Url> {
        text.split_whitespace().map(|url| Url::parse(url).unwrap()).collect()
    }

    fn names(host: &str) -> io::Result<Vec<IpAddr>> {
        let addresses = match host {
            "one" => "10.0.0.1",
            "both" => "10.0.0.1 fd00::1",
            "other" => "10.0.0.2",
            "localhost" => "127.0.0.1",
            _ => return Err(io::Error::other("no such host")),
        };
        Ok(addresses.split(' ').map(|address| address.parse().unwrap()).collect())
    }

    fn comparison() -> Comparison {
        Comparison::asking(names, Duration::ZERO, Duration::ZERO)
    }

    #[test]
    fn addresses_are_compared_and_not_their_spelling() {
        for (a, b, same) in [
            ("http://[::1]:1", "http://[0:0:0:0:0:0:0:1]:1", true),
            ("https://[fd00:0:0:f7:0e5f::1]:1", "https://[FD00::f7:e5f:0:0:1]:1", true),
            ("http://[::ffff:10.0.0.1]:1", "http://10.0.0.1:1", true),
            ("http://[::1]:1", "http://127.0.0.1:1", false),
            ("http://10.0.0.1:1", "http://10.0.0.1:2", false),
            ("http://10.0.0.1:1", "https://10.0.0.1:1", false),
            ("http://[fe80::1%25eth0]:1", "http://[fe80:0::1%25eth0]:1", true),
            ("http://[fe80::1%25eth0]:1", "http://[fe80::1%25eth1]:1", false),
            ("http://[fe80::1%25eth0]:1", "http://[fe80::1]:1", false),
            ("unix://a:0", "unix://a:0", true),
            ("unix://a:0", "unix:///a:0", false),
            ("unix://one:1", "http://one:1", false),
        ] {
            for (a, b) in [(a, b), (b, a)] {
                assert_eq!(comparison().same(&urls(a), &urls(b)), Ok(same), "{a} {b}");
            }
        }
    }

    #[test]
    fn texts_are_compared_without_resolving_names() {
        assert!(is_same_literally("http://[::1]:1", "http://[0::1]:1"));
        assert!(is_same_literally("http://one:1", "http://one:1") && is_same_literally("no URL", "no URL"));
        assert!(!is_same_literally("http://one:1", "http://10.0.0.1:1"));
        assert!(!is_same_literally("http://[::1]:1", "http://[::2]:1"));
    }

    #[test]
    fn names_are_resolved_except_localhost() {
        for (a, b, same) in [
            ("http://one:1", "http://10.0.0.1:1", true),
            ("http://both:1", "http://[fd00:0::1]:1", true),
            ("http://both:1", "http://one:1", true),
            ("http://one:1", "http://other:1", false),
            ("http://one:1", "http://other:2", false),
            ("http://localhost:1", "http://127.0.0.1:1", false),
            ("http://localhost:1", "http://localhost:1", true),
            ("http://unknown:1", "http://unknown:1", true),
        ] {
            assert_eq!(comparison().same(&urls(a), &urls(b)), Ok(same), "{a} {b}");
        }
    }

    #[test]
    fn lists_are_the_same_in_any_order_if_all_have_a_partner() {
        for (a, b, same) in [
            ("http://one:1 http://other:1", "http://10.0.0.2:1 http://10.0.0.1:1", true),
            ("http://one:1 http://[::1]:1", "http://[::1]:1 http://10.0.0.1:1", true),
            ("http://one:1 http://both:1", "http://one:1 http://10.0.0.1:1", true),
            ("http://one:1", "http://one:1 http://10.0.0.1:1", false),
            ("http://one:1 http://10.0.0.1:1", "http://one:1 http://other:1", false),
        ] {
            assert_eq!(comparison().same(&urls(a), &urls(b)), Ok(same), "{a} {b}");
        }
        assert_eq!(comparison().same(&[], &Vec::parse("").unwrap()), Ok(true));
    }

    #[test]
    fn a_name_is_asked_for_until_it_is_known_but_not_for_ever() {
        let asked = Cell::new(0);
        let late = move |host: &str| {
            asked.set(asked.get() + 1);
            if asked.get() < 5 { names("unknown") } else { names(host) }
        };
        let mut comparison = Comparison::asking(late, Duration::ZERO, Duration::from_hours(1));
        assert_eq!(comparison.same(&urls("http://one:1"), &urls("http://10.0.0.1:1")), Ok(true));
        let unknown = self::comparison().same(&urls("http://unknown:1"), &urls("http://10.0.0.1:1"));
        assert_eq!(unknown, Err("failed to resolve \"unknown\" within 0ns: no such host".to_owned()));
    }
}
