//! The kind of tokens (`--auth-token`), in etcd's syntax: `simple`, or `jwt` with its options behind commas.

use std::{path::PathBuf, time::Duration};

use super::value::{Value, parse_duration};

/// How long a signed token is good if no `ttl` is given.
const JWT_TTL: Duration = Duration::from_mins(5);

/// The kind of tokens that members give and take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AuthToken {
    /// Random words that every member hears of.
    #[default]
    Simple,
    /// Signed statements that need no memory.
    Jwt(JwtConfig),
}

/// What tokens of the kind `jwt` are signed and verified with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtConfig {
    /// `sign-method`.
    pub method: JwtMethod,
    /// `priv-key`: a PEM file with the key that signs; of the methods HS256 to HS512 a file whose bytes are the secret.
    /// Without one, tokens of others are taken and none are given.
    pub private_key: Option<PathBuf>,
    /// `pub-key`: a PEM file with the keys whose tokens are taken, which are public keys or certificates. Without one,
    /// it is the key that belongs to `priv-key`. Of the methods HS256 to HS512 a file with one more secret.
    pub public_key: Option<PathBuf>,
    /// `ttl`: how long a token is good after it was made.
    pub ttl: Duration,
}

macro_rules! methods {
    ($($method:ident $name:literal),+ $(,)?) => {
        /// How tokens are signed, by the names of RFC 7518 and RFC 8037.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(missing_docs, reason = "as in the RFCs")]
        pub enum JwtMethod {
            $($method),+
        }

        impl JwtMethod {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$method),+];

            /// The name, as it stands in a token's header.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$method => $name),+
                }
            }
        }
    };
}

methods! {
    Hs256 "HS256", Hs384 "HS384", Hs512 "HS512",
    Rs256 "RS256", Rs384 "RS384", Rs512 "RS512",
    Ps256 "PS256", Ps384 "PS384", Ps512 "PS512",
    Es256 "ES256", Es384 "ES384", Es512 "ES512",
    EdDsa "EdDSA",
}

impl JwtMethod {
    /// Whether one secret signs and verifies.
    pub const fn is_symmetric(self) -> bool {
        matches!(self, Self::Hs256 | Self::Hs384 | Self::Hs512)
    }
}

impl AuthToken {
    /// Reads the value of the flag. Options that are not known are given beside it.
    pub(super) fn parse(text: &str) -> Result<(Self, Vec<String>), String> {
        let (kind, options) = text.split_once(',').unwrap_or((text, ""));
        match kind {
            "" | "simple" => Ok((Self::Simple, Vec::new())),
            "jwt" => JwtConfig::parse(options).map(|(jwt, unknown)| (Self::Jwt(jwt), unknown)),
            _ => Err("expected simple, or jwt with its options".to_owned()),
        }
    }
}

impl JwtConfig {
    fn parse(options: &str) -> Result<(Self, Vec<String>), String> {
        let (mut method, mut private_key, mut public_key, mut ttl) = (None, None, None, None);
        let mut unknown = Vec::new();
        for option in options.split(',').filter(|option| !option.is_empty()) {
            let (name, value) =
                option.split_once('=').ok_or_else(|| format!("{option:?} is no option: expected NAME=VALUE"))?;
            let twice = match name {
                "sign-method" => method.replace(parse_method(value)?).is_some(),
                "priv-key" => private_key.replace(Option::<PathBuf>::parse(value)?).is_some(),
                "pub-key" => public_key.replace(Option::<PathBuf>::parse(value)?).is_some(),
                "ttl" => ttl.replace(parse_ttl(value)?).is_some(),
                name if unknown.iter().any(|known| known == name) => true,
                name => {
                    unknown.push(name.to_owned());
                    false
                }
            };
            if twice {
                return Err(format!("{name} is given twice"));
            }
        }
        let method = method.ok_or("jwt needs sign-method")?;
        let (private_key, public_key) = (private_key.flatten(), public_key.flatten());
        if private_key.is_none() && (public_key.is_none() || method.is_symmetric()) {
            return Err(format!("jwt of {} needs priv-key{}", method.name(), if_public(method)));
        }
        Ok((Self { method, private_key, public_key, ttl: ttl.unwrap_or(JWT_TTL) }, unknown))
    }
}

const fn if_public(method: JwtMethod) -> &'static str {
    if method.is_symmetric() { "" } else { ", or pub-key to take tokens without giving any" }
}

fn parse_method(text: &str) -> Result<JwtMethod, String> {
    let found = JwtMethod::ALL.iter().copied().find(|method| method.name() == text);
    found.ok_or_else(|| {
        let names: Vec<_> = JwtMethod::ALL.iter().map(|method| method.name()).collect();
        format!("sign-method {text:?} is not one of {}", names.join(", "))
    })
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(ttl) if ttl >= Duration::from_secs(1) => Ok(ttl),
        Ok(_) => Err("ttl has to be a second at least".to_owned()),
        Err(reason) => Err(format!("ttl: {reason}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_in_any_order() {
        let text = "jwt,ttl=10m,priv-key=/a,sign-method=RS256,pub-key=/b,kind=x";
        let jwt = JwtConfig {
            method: JwtMethod::Rs256,
            private_key: Some("/a".into()),
            public_key: Some("/b".into()),
            ttl: Duration::from_mins(10),
        };
        assert_eq!(AuthToken::parse(text), Ok((AuthToken::Jwt(jwt), vec!["kind".to_owned()])));
        for simple in ["", "simple", "simple,whatever"] {
            assert_eq!(AuthToken::parse(simple), Ok((AuthToken::Simple, Vec::new())), "{simple:?}");
        }
        for method in JwtMethod::ALL {
            let text = format!("jwt,priv-key=k,sign-method={}", method.name());
            let Ok((AuthToken::Jwt(jwt), _)) = AuthToken::parse(&text) else { panic!("{text} is refused") };
            assert_eq!((jwt.method, jwt.ttl), (*method, JWT_TTL));
        }
    }

    #[test]
    fn what_would_sign_nothing_or_something_else_is_refused() {
        for (text, reason) in [
            ("paper", "expected simple"),
            ("JWT,sign-method=RS256,priv-key=k", "expected simple"),
            ("jwt", "needs sign-method"),
            ("jwt,sign-method=RS256", "needs priv-key, or pub-key"),
            ("jwt,sign-method=HS256,pub-key=k", "HS256 needs priv-key"),
            ("jwt,sign-method=none,priv-key=k", "\"none\" is not one of"),
            ("jwt,sign-method=rs256,priv-key=k", "\"rs256\" is not one of"),
            ("jwt,sign-method,priv-key=k", "expected NAME=VALUE"),
            ("jwt,sign-method=RS256,priv-key=k,priv-key=l", "priv-key is given twice"),
            ("jwt,sign-method=RS256,priv-key=k,x=1,x=2", "x is given twice"),
            ("jwt,sign-method=RS256,priv-key=k,ttl=0s", "a second at least"),
            ("jwt,sign-method=RS256,priv-key=k,ttl=-5m", "ttl"),
            ("jwt,sign-method=RS256,priv-key=k,ttl=soon", "ttl"),
        ] {
            let error = AuthToken::parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
