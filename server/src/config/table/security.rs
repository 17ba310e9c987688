//! Flags about TLS, origins, passwords and tokens.

use std::{ops::RangeInclusive, time::Duration};

use super::super::auth_token::AuthToken;
use super::super::error::Notice;
use super::super::flag::{
    Class::{Effect, Ignored},
    Draft, Flag, Group, Kind, put,
};
use super::super::tls::{NamedSuites, TlsVersion};
use super::{rows, set};

/// Costs of hashing that bcrypt has.
const BCRYPT_COSTS: RangeInclusive<u32> = 4..=31;
const BCRYPT_COST: u32 = 10;

pub(super) static SECURITY: &[Flag] = rows! { Security:
    "cert-file" Text "", "Path to the client server TLS cert file. Read again when it changes, like all TLS files.", Effect(set!(client_tls.cert_file));
    "key-file" Text "", "Path to the client server TLS key file.", Effect(set!(client_tls.key_file));
    "trusted-ca-file" Text "", "Path to the client server TLS trusted CA cert file. Makes client certificates required.", Effect(set!(client_tls.trusted_ca_file));
    "client-cert-auth" Bool "false", "Require client certificates signed by --trusted-ca-file.", Effect(set!(client_tls.client_cert_auth));
    "client-crl-file" Text "", "Path to the client certificate revocation list file (PEM or DER, version 2), signed by the authority it is about.", Effect(set!(client_tls.client_crl_file));
    "client-cert-allowed-hostname" List "", "Comma-separated list of host names and addresses, one of which a client certificate must be for.", Effect(set!(client_tls.client_cert_allowed_hostnames));
    "client-cert-allowed-cn" List "", "Comma-separated list of common names, one of which a client certificate must have.", Effect(set!(client_tls.allowed_common_names));
    "client-cert-file" Text "", "this member opens no client connections to itself", Ignored;
    "client-key-file" Text "", "this member opens no client connections to itself", Ignored;
    "auto-tls" Bool "false", "Client TLS using a generated certificate, kept in fixtures/client of the data directory.", Effect(set!(client_tls.auto_tls));
    "self-signed-cert-validity" Uint "1", "Validity of generated certificates, in years.", Effect(set!(client_tls.self_signed_cert_validity_years));
    "cipher-suites" List "", "Comma-separated list of TLS 1.2 cipher suites, by Go's names (empty: all supported). Those that are not supported are left out with a warning. TLS 1.3's are always on.", Effect(put_suites);
    "tls-min-version" Text "TLS1.2", "Minimum TLS version: TLS1.2 or TLS1.3.", Effect(|draft, text| put_version(&mut draft.config.client_tls.min_version, TlsVersion::Tls12, text));
    "tls-max-version" Text "", "Maximum TLS version: TLS1.2 or TLS1.3 (empty: TLS1.3).", Effect(|draft, text| put_version(&mut draft.config.client_tls.max_version, TlsVersion::Tls13, text));
    "host-whitelist" List "*", "Acceptable hostnames from HTTP client requests, if server is not secure (empty or * means allow all).", Effect(set!(host_whitelist));
    "cors" List "*", "Comma-separated list of origins whose web pages may use the HTTP endpoints (empty or * means allow all).", Effect(set!(cors));
    "peer-cert-file" Text "", "Path to the peer server TLS cert file, which this member also shows to the others. Read again when it changes.", Effect(set!(peer_tls.cert_file));
    "peer-key-file" Text "", "Path to the peer server TLS key file.", Effect(set!(peer_tls.key_file));
    "peer-client-cert-auth" Bool "false", "Require certificates of other members signed by --peer-trusted-ca-file.", Effect(set!(peer_tls.client_cert_auth));
    "peer-trusted-ca-file" Text "", "Path to the peer server TLS trusted CA cert file. Makes certificates of other members required.", Effect(set!(peer_tls.trusted_ca_file));
    "peer-cert-allowed-cn" List "", "Comma-separated list of common names, one of which the certificate of a connecting member must have.", Effect(set!(peer_tls.allowed_common_names));
    "peer-cert-allowed-hostname" List "", "Comma-separated list of host names and addresses, one of which the certificate of a connecting member must be for.", Effect(set!(peer_tls.client_cert_allowed_hostnames));
    "peer-auto-tls" Bool "false", "Peer TLS using a generated certificate, kept in fixtures/peer of the data directory. It encrypts, but proves nothing.", Effect(set!(peer_tls.auto_tls));
    "peer-client-cert-file" Text "", "Path to the TLS cert file that this member shows to the others where it connects to them (empty: --peer-cert-file).", Effect(set!(peer_tls.dialing_cert_file));
    "peer-client-key-file" Text "", "Path to the TLS key file of --peer-client-cert-file.", Effect(set!(peer_tls.dialing_key_file));
    "peer-crl-file" Text "", "Path to the revocation list file for certificates of other members.", Effect(set!(peer_tls.client_crl_file));
    "peer-skip-client-san-verification" Bool "false", "Take a certificate of another member from wherever it comes. Otherwise one with names or addresses must be for the address it comes from.", Effect(set!(peer_tls.skip_client_san_verification));
};

pub(super) static AUTH: &[Flag] = rows! { Auth:
    "auth-token" Text "simple", "Kind of tokens: simple, or jwt,sign-method=METHOD,priv-key=FILE,pub-key=FILE,ttl=DURATION (RS, PS, ES or HS with 256, 384 or 512, or EdDSA).", Effect(put_auth_token);
    "auth-token-ttl" Uint "300", "Seconds after which a simple token that was not used is forgotten.", Effect(|draft, text| put_seconds(&mut draft.config.auth_token_ttl, text));
    "bcrypt-cost" Uint "10", "Cost of hashing a password, as a power of two: 4 to 31.", Effect(put_bcrypt_cost);
    "audit-log" Text "", "Where calls are put on record, a line of JSON each: a path, or stderr (empty: nowhere). Opened anew on SIGHUP.", Effect(set!(audit.output));
    "audit-policy" Text "", "Path to a YAML file that says which calls are put on record (empty: all but reads, health and keep-alives). Read at the start.", Effect(set!(audit.policy_file));
    "audit-rotation" Text "", "How the file of --audit-log is kept small, in the JSON of --log-rotation-config-json (empty: not).", Effect(set!(audit.rotation));
    "audit-blocking" Bool "false", "Let calls wait while lines of the record cannot be written. Otherwise such lines are lost and counted.", Effect(set!(audit.blocking));
};

/// Takes the suites that are supported, and says which are not.
fn put_suites(draft: &mut Draft, text: &str) -> Result<(), String> {
    let NamedSuites { supported, unsupported } = NamedSuites::parse(text)?;
    draft.config.client_tls.cipher_suites = supported;
    if !unsupported.is_empty() {
        let text = format!("not supported, and left out: {}", unsupported.join(", "));
        draft.notices.push(Notice::new("--cipher-suites", text));
    }
    Ok(())
}

/// An empty version means `default`.
fn put_version(field: &mut TlsVersion, default: TlsVersion, text: &str) -> Result<(), String> {
    if text.is_empty() {
        *field = default;
        return Ok(());
    }
    put(field, text)
}

fn put_auth_token(draft: &mut Draft, text: &str) -> Result<(), String> {
    let (kind, unknown) = AuthToken::parse(text)?;
    draft.config.auth_token = kind;
    if !unknown.is_empty() {
        let text = format!("options that are not known, and left out: {}", unknown.join(", "));
        draft.notices.push(Notice::new("--auth-token", text));
    }
    Ok(())
}

fn put_seconds(field: &mut Duration, text: &str) -> Result<(), String> {
    let mut seconds = 0;
    put::<u64>(&mut seconds, text)?;
    *field = Duration::from_secs(seconds);
    Ok(())
}

/// A cost that bcrypt does not have is said and becomes the default.
fn put_bcrypt_cost(draft: &mut Draft, text: &str) -> Result<(), String> {
    put(&mut draft.config.bcrypt_cost, text)?;
    if !BCRYPT_COSTS.contains(&draft.config.bcrypt_cost) {
        draft.config.bcrypt_cost = BCRYPT_COST;
        draft.notices.push(Notice::new("--bcrypt-cost", format!("{text} is out of range; {BCRYPT_COST} is used")));
    }
    Ok(())
}
