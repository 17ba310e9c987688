//! Whether a member comes from where its certificate says.
//!
//! A certificate with names or addresses is only good for connections from these, as in etcd: one that was stolen is
//! worth nothing elsewhere. Addresses are compared; for names the system is asked who the address is, and which
//! addresses the names have. A certificate with neither passes, and so does a connection through a socket in the file
//! system, which comes from no address. `--peer-skip-client-san-verification` turns the check off, where members
//! connect through something that changes their addresses.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use crate::security::PeerIdentity;

/// How long the system may take to answer about names.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks about names.
#[derive(Clone, Copy)]
struct Resolver {
    name_of: fn(IpAddr) -> io::Result<String>,
    addresses_of: fn(&str) -> io::Result<Vec<IpAddr>>,
}

/// The system's.
const SYSTEM: Resolver = Resolver {
    name_of: |ip| dns_lookup::lookup_addr(&ip).map_err(io::Error::other),
    addresses_of: |name| {
        let addresses = dns_lookup::lookup_host(name).map_err(io::Error::other)?;
        Ok(addresses.collect())
    },
};

/// Compares the names in a certificate with where its connection comes from.
///
/// # Errors
/// The connection comes from elsewhere; says what was compared.
pub(super) async fn check(identity: &PeerIdentity, from: SocketAddr) -> Result<(), String> {
    let from = from.ip().to_canonical();
    if identity.ip_addresses.contains(&from) || (identity.ip_addresses.is_empty() && identity.dns_names.is_empty()) {
        return Ok(());
    }
    if identity.dns_names.is_empty() {
        return Err(format!("it comes from {from}, its certificate is for {:?}", identity.ip_addresses));
    }
    let names = identity.dns_names.clone();
    let look_up = tokio::task::spawn_blocking(move || is_one_of(from, &names, SYSTEM));
    let reason = match tokio::time::timeout(LOOK_UP_TIMEOUT, look_up).await {
        Ok(Ok(Ok(()))) => return Ok(()),
        Ok(Ok(Err(failed))) => failed.map_or_else(String::new, |error| format!(" ({error})")),
        Ok(Err(_)) | Err(_) => " (the names could not be looked up in time)".to_owned(),
    };
    Err(format!(
        "it comes from {from}, which matches none of the names {:?} of its certificate{reason}",
        identity.dns_names
    ))
}

/// Whether `from` has one of the names; if not, what failed last, if anything did.
fn is_one_of(from: IpAddr, names: &[String], resolver: Resolver) -> Result<(), Option<io::Error>> {
    let mut failed = None;
    match (resolver.name_of)(from) {
        Ok(name) if names.iter().any(|pattern| is_like(name.trim_end_matches('.'), pattern)) => return Ok(()),
        Ok(_) => {}
        Err(error) => failed = Some(error),
    }
    for name in names.iter().filter(|name| !name.starts_with("*.")) {
        match (resolver.addresses_of)(name) {
            Ok(addresses) if addresses.iter().any(|address| address.to_canonical() == from) => return Ok(()),
            Ok(_) => {}
            Err(error) => failed = Some(error),
        }
    }
    Err(failed)
}

/// Whether a host's name is that of a certificate, whose `*.` stands for the beginning of any name.
fn is_like(name: &str, pattern: &str) -> bool {
    match pattern.strip_prefix('*').filter(|rest| rest.starts_with('.')) {
        Some(end) => {
            name.len() >= end.len() && name.as_bytes()[name.len() - end.len()..].eq_ignore_ascii_case(end.as_bytes())
        }
        None => name.eq_ignore_ascii_case(pattern),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 10.0.0.1 is `a.members.example`; `b` has that address, too, among others.
    const RESOLVER: Resolver = Resolver {
        name_of: |ip| match ip.to_string().as_str() {
            "10.0.0.1" => Ok("a.members.example.".to_owned()),
            _ => Err(io::Error::other("no such address")),
        },
        addresses_of: |name| match name {
            "b" => Ok(vec!["::1".parse().unwrap(), "::ffff:10.0.0.1".parse().unwrap()]),
            "c" => Ok(vec!["10.0.0.3".parse().unwrap()]),
            _ => Err(io::Error::other("no such name")),
        },
    };

    fn judged(from: &str, names: &[&str]) -> Result<(), Option<String>> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        is_one_of(from.parse().unwrap(), &names, RESOLVER).map_err(|failed| failed.map(|error| error.to_string()))
    }

    #[test]
    fn a_name_fits_either_way_and_a_wildcard_by_the_name_of_the_address() {
        for names in [&["a.members.example"][..], &["A.Members.Example"], &["*.members.example"], &["x", "b"]] {
            assert_eq!(judged("10.0.0.1", names), Ok(()), "{names:?}");
        }
        for names in [&["c"][..], &["members.example"], &["*.example.org"], &["*"]] {
            assert!(judged("10.0.0.1", names).is_err(), "{names:?}");
        }
        assert_eq!(judged("10.0.0.1", &["x"]), Err(Some("no such name".to_owned())));
        assert_eq!(judged("10.0.0.9", &["*.members.example"]), Err(Some("no such address".to_owned())));
        assert_eq!(judged("10.0.0.3", &["c"]), Ok(()));
    }

    #[tokio::test]
    async fn an_address_fits_itself_and_no_name_at_all_fits_every_address() {
        let with = |addresses: &[&str]| PeerIdentity {
            ip_addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            ..PeerIdentity::default()
        };
        let from = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(check(&with(&["10.0.0.1", "10.0.0.2"]), from("10.0.0.2:1")).await, Ok(()));
        assert_eq!(check(&with(&["10.0.0.1"]), from("[::ffff:10.0.0.1]:1")).await, Ok(()));
        assert_eq!(check(&with(&[]), from("10.0.0.1:1")).await, Ok(()));
        let elsewhere = check(&with(&["10.0.0.1"]), from("10.0.0.3:1")).await.unwrap_err();
        assert_eq!(elsewhere, "it comes from 10.0.0.3, its certificate is for [10.0.0.1]");
    }
}
