//! Whether the settings of a configuration go together.

use super::error::{ConfigError, Notice};
use super::settings::Config;
use super::tls::{TlsConfig, TlsVersion};
use crate::types::{Place, Url, check_name, listen_addrs};

pub(super) fn invalid<T>(text: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Invalid(text.into()))
}

impl Config {
    /// Checks everything that can be checked without looking at files or sockets. Returns what an operator should know
    /// although it is valid. Starting a server does this by itself.
    ///
    /// # Errors
    /// The first contradiction found, naming the flags.
    pub fn validate(&self) -> Result<Vec<Notice>, ConfigError> {
        let mut notices = Vec::new();
        self.validate_member(&mut notices)?;
        self.log.validate()?;
        self.audit.validate()?;
        self.validate_urls()?;
        self.validate_timers(&mut notices)?;
        self.validate_limits(&mut notices)?;
        self.validate_tls(&mut notices)?;
        Ok(notices)
    }

    fn validate_member(&self, notices: &mut Vec<Notice>) -> Result<(), ConfigError> {
        if let Err(reason) = check_name(&self.name) {
            return invalid(format!("--name {reason} (set to {:?})", self.name));
        }
        if self.name == "default" && self.initial_cluster.len() > 1 {
            notices.push(Notice::new("--name", "it isn't recommended to use the default name in a cluster"));
        }
        Ok(())
    }

    fn validate_urls(&self) -> Result<(), ConfigError> {
        let listening = [
            ("listen-client-urls", &self.listen_client_urls, true),
            ("listen-peer-urls", &self.listen_peer_urls, true),
            ("listen-client-http-urls", &self.listen_client_http_urls, false),
            ("listen-metrics-urls", &self.listen_metrics_urls, false),
        ];
        let mut taken: Vec<(&str, Place)> = Vec::new();
        for (flag, urls, required) in listening {
            if urls.is_empty() && required {
                return invalid(format!("--{flag} needs at least one URL"));
            }
            let addrs = listen_addrs(urls).or_else(|reason| invalid(format!("--{flag}: {reason}")))?;
            for place in addrs.into_iter().map(|listen| listen.place).filter(|place| !place.is_any_port()) {
                if let Some((other, _)) = taken.iter().find(|(_, known)| *known == place) {
                    return invalid(format!("--{flag} and --{other} both listen on {place}"));
                }
                taken.push((flag, place));
            }
        }
        if self.initial_advertise_peer_urls.is_empty() {
            return invalid("--initial-advertise-peer-urls needs at least one URL");
        }
        let advertised = [
            ("advertise-client-urls", &self.advertise_client_urls),
            ("initial-advertise-peer-urls", &self.initial_advertise_peer_urls),
        ];
        for (flag, urls) in advertised {
            if let Some(url) = urls.iter().find(|url| url.host().is_empty() && url.socket().is_none()) {
                return invalid(format!("--{flag} must be \"host:port\" (unexpected empty host {url})"));
            }
        }
        Ok(())
    }

    fn validate_tls(&self, notices: &mut Vec<Notice>) -> Result<(), ConfigError> {
        let tls = &self.client_tls;
        if tls.self_signed_cert_validity_years == 0 && (tls.auto_tls || self.peer_tls.auto_tls) {
            return invalid("--self-signed-cert-validity must be >0 years for --auto-tls and --peer-auto-tls");
        }
        if tls.min_version > tls.max_version {
            return invalid(format!(
                "min version ({}) is greater than max version ({}): see --tls-min-version and --tls-max-version",
                tls.min_version, tls.max_version
            ));
        }
        if !tls.cipher_suites.is_empty() {
            if tls.min_version == TlsVersion::Tls13 {
                return invalid("cipher suites cannot be configured when only TLS1.3 is enabled");
            }
            if tls.max_version == TlsVersion::Tls12 && tls.cipher_suites.iter().all(|suite| suite.is_tls13()) {
                return invalid("--cipher-suites names only suites of TLS1.3, which --tls-max-version=TLS1.2 excludes");
            }
        }
        validate_files(tls, self.serves_tls(), notices)?;
        self.validate_schemes(notices)?;
        let peers_use_files = self.serves_peer_tls() || self.peer_tls.has_files();
        validate_files(&self.peer_tls, peers_use_files, notices)?;
        self.validate_peer_tls(notices)
    }

    /// What is only to be said of TLS between members.
    fn validate_peer_tls(&self, notices: &mut Vec<Notice>) -> Result<(), ConfigError> {
        let tls = &self.peer_tls;
        if tls.dialing_cert_file.is_some() != tls.dialing_key_file.is_some() {
            return invalid("--peer-client-cert-file and --peer-client-key-file must both be present, or neither");
        }
        if tls.dialing_cert_file.is_some() && !tls.is_configured() {
            return invalid(
                "--peer-client-cert-file needs --peer-cert-file and --peer-key-file, for members that connect to this one",
            );
        }
        let reaches_tls = self.initial_cluster().iter().any(|(_, url)| url.is_tls());
        if (self.serves_peer_tls() || reaches_tls) && !tls.is_configured() {
            return invalid(
                "TLS key/cert (--peer-cert-file, --peer-key-file) must be provided for peer URLs with HTTPS scheme, or \
                 --peer-auto-tls",
            );
        }
        if tls.has_files() && tls.trusted_ca_file.is_none() {
            let text = "no authority of members is given: members that connect are asked for no certificate, and those that this one \
                        connects to need one of an authority that the system trusts";
            notices.push(Notice::new("--peer-trusted-ca-file", text));
        }
        if tls.has_files()
            && let Some(url) = self.listen_peer_urls.iter().find(|url| !url.is_tls())
        {
            let text = "scheme is http while peer key and cert files are present; ignoring key and cert files";
            notices.push(Notice::new(url.to_string(), text));
        }
        if tls.auto_tls && tls.has_files() {
            notices.push(Notice::new("--peer-auto-tls", "ignoring peer auto TLS since certs given"));
        }
        Ok(())
    }

    /// URLs against certificates: https without one is an error, http with one is served plain and said so.
    fn validate_schemes(&self, notices: &mut Vec<Notice>) -> Result<(), ConfigError> {
        let tls = &self.client_tls;
        let urls = |tls| self.client_urls().filter(move |url: &&Url| url.is_tls() == tls);
        if let Some(url) = self.listen_metrics_urls.iter().find(|url| url.is_tls())
            && !tls.is_configured()
        {
            return invalid(format!(
                "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url {url}, or --auto-tls"
            ));
        }
        if let Some(url) = urls(true).next()
            && !tls.is_configured()
        {
            return invalid(format!(
                "TLS key/cert (--cert-file, --key-file) must be provided for client url {url} with HTTPS scheme, \
                 or --auto-tls"
            ));
        }
        for url in urls(false) {
            if tls.is_configured() {
                let text = "scheme is http while key and cert files are present; ignoring key and cert files";
                notices.push(Notice::new(url.to_string(), text));
            }
            if tls.requires_client_cert() {
                let text = "scheme is http while client cert auth is enabled; ignoring client cert auth for this URL";
                notices.push(Notice::new(url.to_string(), text));
            }
        }
        if tls.auto_tls && tls.has_files() {
            notices.push(Notice::new("--auto-tls", "ignoring client auto TLS since certs given"));
        }
        Ok(())
    }
}

/// Whether the files of one port go together. Those of a port without TLS are not used, so that they cannot be wrong.
fn validate_files(tls: &TlsConfig, used: bool, notices: &mut Vec<Notice>) -> Result<(), ConfigError> {
    let Err(error) = check_files(tls) else { return Ok(()) };
    if used {
        return Err(error);
    }
    notices.push(Notice::new("TLS", format!("no URL to listen on has https, but if one had: {error}")));
    Ok(())
}

fn check_files(tls: &TlsConfig) -> Result<(), ConfigError> {
    let flags = tls.flags();
    if tls.cert_file.is_some() != tls.key_file.is_some() {
        let (given, missing) = if tls.cert_file.is_some() { (flags.cert, flags.key) } else { (flags.key, flags.cert) };
        return invalid(format!("{given} needs {missing}: both must be present, or neither"));
    }
    if tls.client_cert_auth && tls.trusted_ca_file.is_none() {
        return invalid(format!(
            "{} needs {}: without it a certificate of any public authority would do",
            flags.client_cert_auth, flags.ca
        ));
    }
    let (names, hosts) = (!tls.allowed_common_names.is_empty(), !tls.client_cert_allowed_hostnames.is_empty());
    if names && hosts {
        return invalid(format!("{} and {} are mutually exclusive", flags.common_name, flags.hostname));
    }
    for (flag, given) in
        [(flags.crl, tls.client_crl_file.is_some()), (flags.hostname, hosts), (flags.common_name, names)]
    {
        if given && tls.trusted_ca_file.is_none() {
            return invalid(format!("{flag} needs {}: without it no client certificate is checked", flags.ca));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tls::CipherSuite;

    fn urls(text: &str) -> Vec<Url> {
        crate::config::value::Value::parse(text).unwrap()
    }

    fn error(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    }

    fn notices(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = Config::default();
        change(&mut config);
        config.validate().unwrap().into_iter().map(|notice| format!("{}: {}", notice.setting, notice.text)).collect()
    }

    fn with_cert(config: &mut Config) {
        config.client_tls.cert_file = Some("cert.pem".into());
        config.client_tls.key_file = Some("key.pem".into());
        config.listen_client_urls = urls("https://localhost:2379");
    }

    #[test]
    fn the_default_is_valid_and_nothing_to_say_about() {
        assert_eq!(Config::default().validate().unwrap(), []);
    }

    #[test]
    fn listening_takes_addresses_and_each_only_once() {
        assert!(
            error(|c| c.listen_client_urls = urls("http://node1:2379"))
                .contains("--listen-client-urls: expected an IP")
        );
        assert!(error(|c| c.listen_client_urls.clear()).contains("needs at least one URL"));
        assert_eq!(
            error(|c| c.listen_metrics_urls = urls("http://127.0.0.1:2379")),
            "--listen-metrics-urls and --listen-client-urls both listen on 127.0.0.1:2379"
        );
    }

    #[test]
    fn tls_between_members_needs_certificates_and_an_authority_or_is_automatic() {
        let https = |c: &mut Config| c.listen_peer_urls = urls("https://127.0.0.1:2380");
        assert!(error(https).contains("must be provided for peer URLs"));
        let files = |c: &mut Config| {
            https(c);
            c.peer_tls.cert_file = Some("c".into());
            c.peer_tls.key_file = Some("k".into());
        };
        let without_authority = notices(files);
        assert!(
            matches!(&without_authority[..], [only] if only.contains("asked for no certificate")),
            "{without_authority:?}"
        );
        let dialing = |c: &mut Config| {
            files(c);
            c.peer_tls.dialing_cert_file = Some("c".into());
        };
        assert!(error(dialing).contains("must both be present"));
        assert!(
            error(|c| c.peer_tls.cert_file = Some("c".into())).starts_with("--peer-cert-file needs --peer-key-file")
        );
        let both = |c: &mut Config| {
            files(c);
            c.peer_tls.trusted_ca_file = Some("ca".into());
            c.peer_tls.allowed_common_names = vec!["n".to_owned()];
            c.peer_tls.client_cert_allowed_hostnames = vec!["h".to_owned()];
        };
        assert!(error(both).contains("mutually exclusive"));
        let automatic = |c: &mut Config| {
            https(c);
            c.peer_tls.auto_tls = true;
        };
        assert!(notices(automatic).is_empty());
    }

    #[test]
    fn advertised_urls_need_a_host() {
        assert!(error(|c| c.advertise_client_urls = urls("http://:2379")).contains("unexpected empty host"));
        assert!(error(|c| c.initial_advertise_peer_urls = urls("http://:2380")).contains("unexpected empty host"));
    }

    #[test]
    fn names_that_initial_cluster_could_not_hold_are_refused() {
        assert!(error(|c| c.name = "a=b".to_owned()).contains("--name must not"));
        assert!(error(|c| c.name.clear()).contains("--name must not"));
        assert!(error(|c| c.name = "a\nb".to_owned()).contains("control characters"));
    }

    #[test]
    fn https_needs_a_certificate_or_auto_tls() {
        let listen = |c: &mut Config| c.listen_client_urls = urls("http://127.0.0.1:1,https://127.0.0.1:2");
        let text = error(listen);
        assert!(text.contains("must be provided for client url https://127.0.0.1:2"), "{text}");
        for url in ["https://127.0.0.1:3", "unixs://metrics"] {
            let text = error(|c| c.listen_metrics_urls = urls(url));
            let expected = "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url";
            assert!(text.starts_with(expected) && text.contains(url), "{text}");
        }
        let notices = notices(|c| {
            listen(c);
            c.client_tls.auto_tls = true;
        });
        assert_eq!(notices.len(), 1, "{notices:?}");
        assert!(notices[0].starts_with("http://127.0.0.1:1: scheme is http while key and cert files"), "{notices:?}");
    }

    #[test]
    fn certificate_and_key_come_together() {
        let https = |c: &mut Config| c.listen_client_urls = urls("https://localhost:2379");
        let without_key = |c: &mut Config| c.client_tls.cert_file = Some("c".into());
        let without_cert = |c: &mut Config| c.client_tls.key_file = Some("k".into());
        let both = |first: fn(&mut Config), second: fn(&mut Config)| error(|c| (first(c), second(c)).1);
        assert!(both(https, without_key).starts_with("--cert-file needs --key-file"));
        assert!(both(https, without_cert).starts_with("--key-file needs --cert-file"));
        // As in etcd, files that no port uses cannot be wrong.
        for half in [without_key, without_cert] {
            assert!(notices(half)[0].starts_with("TLS: no URL to listen on has https, but if one had: --"));
        }
        assert!(
            error(|c| c.peer_tls.key_file = Some("k".into())).starts_with("--peer-key-file needs --peer-cert-file")
        );
    }

    #[test]
    fn client_certificates_need_an_authority() {
        assert!(
            error(|c| {
                with_cert(c);
                c.client_tls.client_cert_auth = true;
            })
            .starts_with("--client-cert-auth needs --trusted-ca-file")
        );
        let with = |change: fn(&mut TlsConfig)| {
            error(|c| {
                with_cert(c);
                change(&mut c.client_tls);
            })
        };
        assert!(with(|tls| tls.client_crl_file = Some("x".into())).starts_with("--client-crl-file needs"));
        assert!(
            with(|tls| tls.client_cert_allowed_hostnames = vec!["x".to_owned()])
                .starts_with("--client-cert-allowed-hostname needs")
        );
    }

    #[test]
    fn http_with_certificates_is_served_plain_with_a_warning() {
        let notices = notices(|c| {
            with_cert(c);
            c.client_tls.trusted_ca_file = Some("ca.pem".into());
            c.listen_client_urls = urls("http://127.0.0.1:2379");
        });
        assert_eq!(notices.len(), 2, "{notices:?}");
        assert!(notices[1].contains("ignoring client cert auth for this URL"));
    }

    #[test]
    fn tls_versions_and_suites_must_leave_something_to_negotiate() {
        let tls = |tls: TlsConfig| error(|c| c.client_tls = tls);
        assert!(
            tls(TlsConfig { min_version: TlsVersion::Tls13, max_version: TlsVersion::Tls12, ..TlsConfig::default() })
                .starts_with("min version (TLS1.3) is greater than max version (TLS1.2)")
        );
        assert_eq!(
            tls(TlsConfig {
                min_version: TlsVersion::Tls13,
                cipher_suites: vec![CipherSuite::EcdheRsaAes128GcmSha256],
                ..TlsConfig::default()
            }),
            "cipher suites cannot be configured when only TLS1.3 is enabled"
        );
        assert!(
            tls(TlsConfig {
                max_version: TlsVersion::Tls12,
                cipher_suites: vec![CipherSuite::Aes128GcmSha256],
                ..TlsConfig::default()
            })
            .starts_with("--cipher-suites names only suites of TLS1.3")
        );
    }
}
