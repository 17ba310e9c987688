use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::JwtMethod;

const TTL: Duration = Duration::from_mins(5);

/// What makes a private key for each method, by openssl.
fn recipe(method: JwtMethod) -> &'static [&'static str] {
    match method {
        JwtMethod::Es256 => &["ecparam", "-name", "prime256v1", "-genkey", "-noout"],
        JwtMethod::Es384 => &["ecparam", "-name", "secp384r1", "-genkey", "-noout"],
        JwtMethod::Es512 => &["ecparam", "-name", "secp521r1", "-genkey", "-noout"],
        JwtMethod::EdDsa => &["genpkey", "-algorithm", "ed25519"],
        JwtMethod::Hs256 | JwtMethod::Hs384 | JwtMethod::Hs512 => &["rand", "-hex", "40"],
        _ => &["genrsa", "2048"],
    }
}

fn openssl(args: &[&str], out: &Path) -> PathBuf {
    let run = Command::new("openssl").args(args).output().expect("openssl runs");
    assert!(run.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&run.stderr));
    std::fs::write(out, run.stdout).expect("a file");
    out.to_owned()
}

/// A private key of a method, and its public one.
fn pair(folder: &Path, method: JwtMethod, name: &str) -> (PathBuf, PathBuf) {
    let private = openssl(recipe(method), &folder.join(format!("{name}.key")));
    if method.is_symmetric() {
        return (private.clone(), private);
    }
    let path = private.to_str().expect("a path of text");
    let public = openssl(&["pkey", "-in", path, "-pubout"], &folder.join(format!("{name}.pub")));
    (private, public)
}

fn jwt(method: JwtMethod, private: Option<&Path>, public: Option<&Path>) -> Result<Jwt, JwtError> {
    let [private_key, public_key] = [private, public].map(|path| path.map(Path::to_owned));
    Jwt::new(JwtConfig { method, private_key, public_key, ttl: TTL })
}

/// A token of any header and claims, signed by the key of `jwt`.
fn token(jwt: &Jwt, header: &str, claims: &str) -> String {
    let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    let signature = jwt.keys.load().signing.as_ref().expect("a key").sign(message.as_bytes()).expect("a signature");
    format!("{message}.{}", BASE64.encode(signature))
}

#[test]
fn every_method_takes_its_own_tokens_and_no_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut all = Vec::new();
    for method in JwtMethod::ALL {
        let (private, public) = pair(folder.path(), *method, method.name());
        let signs = jwt(*method, Some(&private), None).unwrap_or_else(|error| panic!("{error}"));
        let token = signs.sign("alice", 7).expect("a token");
        let claims = signs.verify(token.as_bytes()).unwrap_or_else(|| panic!("{token} of {method:?} is not taken"));
        assert_eq!((&claims.user[..], claims.revision), (&b"alice"[..], 7));
        if !method.is_symmetric() {
            let verifies = jwt(*method, None, Some(&public)).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(verifies.verify(token.as_bytes()), Some(claims), "{method:?}");
            assert_eq!(verifies.sign("alice", 7), Err(SignError::VerifyOnly));
        }
        all.push((*method, signs, token));
    }
    for (method, signs, _) in &all {
        for (other, _, token) in all.iter().filter(|(other, ..)| other != method) {
            assert_eq!(signs.verify(token.as_bytes()), None, "{method:?} takes a token of {other:?}");
        }
    }
}

#[test]
fn a_key_of_another_kind_is_refused_when_it_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let kinds = [JwtMethod::Rs256, JwtMethod::Es256, JwtMethod::Es384, JwtMethod::Es512, JwtMethod::EdDsa];
    let pairs = kinds.map(|kind| (kind, pair(folder.path(), kind, kind.name())));
    for method in kinds {
        for (kind, (private, public)) in &pairs {
            let read = [jwt(method, Some(private), None), jwt(method, None, Some(public))];
            assert_eq!(read.map(|read| read.is_ok()), [method == *kind; 2], "{method:?} with a key of {kind:?}");
        }
    }
    let weak = openssl(&["genrsa", "1024"], &folder.path().join("weak.key"));
    let error = jwt(JwtMethod::Rs256, Some(&weak), None).expect_err("it is weak").to_string();
    assert!(error.contains("2048 bits"), "{error}");
    let nothing = folder.path().join("nothing");
    assert!(matches!(jwt(JwtMethod::Rs256, Some(&nothing), None), Err(JwtError::Read { option: "priv-key", .. })));
    for content in ["", "no key", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
        std::fs::write(&nothing, content).expect("a file");
        for method in kinds {
            assert!(jwt(method, Some(&nothing), None).is_err() && jwt(method, None, Some(&nothing)).is_err());
        }
    }
}

#[test]
fn keys_may_be_written_in_every_usual_way() {
    let folder = tempfile::tempdir().expect("a folder");
    let (rsa, _) = pair(folder.path(), JwtMethod::Rs256, "rsa");
    let (ec, _) = pair(folder.path(), JwtMethod::Es512, "ec");
    let (rsa_path, ec_path) = (rsa.to_str().expect("text"), ec.to_str().expect("text"));
    let token = jwt(JwtMethod::Rs256, Some(&rsa), None).expect("keys").sign("bob", 1).expect("a token");
    let pkcs1 = openssl(&["rsa", "-in", rsa_path, "-traditional"], &folder.path().join("pkcs1.key"));
    let pkcs8 = openssl(&["pkcs8", "-topk8", "-nocrypt", "-in", ec_path], &folder.path().join("pkcs8.key"));
    assert!(jwt(JwtMethod::Rs256, Some(&pkcs1), None).expect("keys").verify(token.as_bytes()).is_some());
    assert!(jwt(JwtMethod::Es512, Some(&pkcs8), None).is_ok());
    let public = openssl(&["rsa", "-in", rsa_path, "-RSAPublicKey_out"], &folder.path().join("rsa.pub"));
    let request = ["req", "-x509", "-new", "-key", rsa_path, "-subj", "/CN=tokens", "-days", "1"];
    let certificate = openssl(&request, &folder.path().join("rsa.crt"));
    for file in [public, certificate] {
        let verifies = jwt(JwtMethod::Rs256, None, Some(&file)).unwrap_or_else(|error| panic!("{error}"));
        assert!(verifies.verify(token.as_bytes()).is_some(), "{}", file.display());
    }
}

#[test]
fn keys_are_rotated_without_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let (old, old_public) = pair(folder.path(), JwtMethod::Es256, "old");
    let (new, new_public) = pair(folder.path(), JwtMethod::Es256, "new");
    let (private, public) = (folder.path().join("private"), folder.path().join("public"));
    let write = |from: &[&Path], to: &Path| {
        let text: String = from.iter().map(|from| std::fs::read_to_string(from).expect("a key")).collect();
        std::fs::write(to, text).expect("a file");
    };
    write(&[&old], &private);
    write(&[&new_public], &public);
    let mismatch = jwt(JwtMethod::Es256, Some(&private), Some(&public)).expect_err("they are no pair");
    assert!(matches!(mismatch, JwtError::Mismatch { .. }));
    write(&[&old_public], &public);
    let jwt = jwt(JwtMethod::Es256, Some(&private), Some(&public)).expect("keys");
    let before = jwt.sign("alice", 1).expect("a token");
    assert!(jwt.verify(before.as_bytes()).is_some());

    write(&[&new], &private);
    jwt.reload();
    assert!(jwt.sign("alice", 1).is_ok(), "keys that are no pair are not taken");
    write(&[&new_public, &old_public], &public);
    jwt.reload();
    let after = jwt.sign("alice", 1).expect("a token");
    assert!(jwt.verify(before.as_bytes()).is_some() && jwt.verify(after.as_bytes()).is_some());
    write(&[&new_public], &public);
    jwt.reload();
    assert!(jwt.verify(before.as_bytes()).is_none() && jwt.verify(after.as_bytes()).is_some());
}

#[test]
fn a_token_says_who_until_when_or_it_is_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let (secret, _) = pair(folder.path(), JwtMethod::Hs256, "secret");
    let jwt = jwt(JwtMethod::Hs256, Some(&secret), None).expect("keys");
    let good = r#"{"alg":"HS256","typ":"JWT"}"#;
    let (past, soon) = (now() - 10, now() + 100);
    let claims = |exp: &str| format!(r#"{{"username":"alice","revision":3,"exp":{exp}}}"#);
    for (header, claims, taken) in [
        (good, claims(&soon.to_string()), true),
        (good, claims("4e9"), true),
        (good, claims(&u64::MAX.to_string()), true),
        (r#"{"alg":"HS256"}"#, claims(&soon.to_string()), true),
        (good, claims(&past.to_string()), false),
        (good, claims("-1"), false),
        (good, claims("1e300"), false),
        (good, claims("\"2099-01-01\""), false),
        (good, r#"{"username":"alice","revision":3}"#.to_owned(), false),
        (good, format!(r#"{{"username":"alice","exp":{soon}}}"#), false),
        (good, format!(r#"{{"revision":3,"exp":{soon}}}"#), false),
        (good, format!(r#"{{"username":["alice"],"revision":3,"exp":{soon}}}"#), false),
        (good, format!(r#"{{"username":"alice","revision":3,"exp":{soon},"nbf":{soon}}}"#), false),
        (good, format!(r#"{{"username":"alice","revision":3,"exp":{soon},"nbf":{past}}}"#), true),
        (good, "[]".to_owned(), false),
        (good, String::new(), false),
        (r#"{"alg":"none"}"#, claims(&soon.to_string()), false),
        (r#"{"alg":"HS512"}"#, claims(&soon.to_string()), false),
        (r#"{"alg":"HS256","crit":["exp"]}"#, claims(&soon.to_string()), false),
        ("{}", claims(&soon.to_string()), false),
    ] {
        let token = token(&jwt, header, &claims);
        assert_eq!(jwt.verify(token.as_bytes()).is_some(), taken, "{header} {claims}");
        // A second time, when its signature may be remembered.
        assert_eq!(jwt.verify(token.as_bytes()).is_some(), taken, "{header} {claims}");
    }
    let token = token(&jwt, good, &claims(&soon.to_string()));
    let (message, _) = token.rsplit_once('.').expect("three parts");
    for forged in [message.to_owned(), format!("{message}."), format!("{token}="), format!("{token}.x")] {
        assert_eq!(jwt.verify(forged.as_bytes()), None, "{forged}");
    }
    assert_eq!(jwt.verify("a.".repeat(TOKEN_BYTES_MAX).as_bytes()), None);
}

#[test]
fn what_is_remembered_of_tokens_is_bounded() {
    let folder = tempfile::tempdir().expect("a folder");
    let (secret, _) = pair(folder.path(), JwtMethod::Hs256, "secret");
    let jwt = jwt(JwtMethod::Hs256, Some(&secret), None).expect("keys");
    for revision in 0..VERIFIED_MAX as u64 + 100 {
        let token = jwt.sign("alice", revision).expect("a token");
        assert!(jwt.verify(token.as_bytes()).is_some());
    }
    assert!(jwt.keys.load().verified.read().len() <= VERIFIED_MAX);
}

proptest! {
    #[test]
    fn bytes_from_outside_are_no_token(bytes in any::<Vec<u8>>(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let folder = tempfile::tempdir().expect("a folder");
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "secret").expect("a file");
        let jwt = jwt(JwtMethod::Hs256, Some(&secret), None).expect("keys");
        prop_assert_eq!(jwt.verify(&bytes), None);
        let mut token = jwt.sign("alice", 1).expect("a token").into_bytes();
        let at = at.index(token.len());
        prop_assume!(token[at] != to);
        token[at] = to;
        prop_assert_eq!(jwt.verify(&token), None);
    }
}
