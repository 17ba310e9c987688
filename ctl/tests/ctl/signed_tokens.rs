//! Signed tokens of a genuine etcd at this server, and the other way round.

use std::path::{Path, PathBuf};
use std::process::Command;

use cairn_proto::etcdserverpb::{AuthenticateRequest, auth_client::AuthClient};

use crate::referee::{Given, On, Server, cairnctl, run};

/// Methods of RFC 7518 that etcd 3.5 has, and what makes their keys by openssl.
const METHODS: [(&str, &[&str]); 6] = [
    ("RS256", &["genrsa", "2048"]),
    ("PS384", &["genrsa", "2048"]),
    ("ES256", &["ecparam", "-name", "prime256v1", "-genkey", "-noout"]),
    ("ES384", &["ecparam", "-name", "secp384r1", "-genkey", "-noout"]),
    ("ES512", &["ecparam", "-name", "secp521r1", "-genkey", "-noout"]),
    ("HS512", &["rand", "-hex", "40"]),
];

fn openssl(arguments: &[&str], out: &Path) -> PathBuf {
    let made = Command::new("openssl").args(arguments).output().expect("openssl runs");
    assert!(made.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&made.stderr));
    std::fs::write(out, made.stdout).expect("a file");
    out.to_owned()
}

/// What `cairnctl` prints for a line at a server.
fn ctl(server: &Server, line: &str) -> String {
    let endpoint = server.endpoint();
    let words = ["--endpoints", &endpoint].into_iter().chain(line.split(' '));
    let words: Vec<_> = words.map(str::to_owned).collect();
    let output = run(&cairnctl(), &words, Given::default());
    output.stdout + &output.stderr
}

#[track_caller]
fn contains(text: &str, part: &str) {
    assert!(text.contains(part), "{part} is not in {text}");
}

async fn token_of(server: &Server, name: &str) -> String {
    let url = format!("http://{}", server.endpoint());
    let mut auth = AuthClient::connect(url).await.expect("the server accepts");
    let asked = AuthenticateRequest { name: name.to_owned(), password: "pw".to_owned() };
    auth.authenticate(asked).await.expect("a token").into_inner().token
}

#[tokio::test]
async fn tokens_are_taken_from_one_another_by_every_method() {
    let folder = tempfile::tempdir().expect("a folder");
    for (method, recipe) in METHODS {
        let key = openssl(recipe, &folder.path().join(format!("{method}.key")));
        let mut options = format!("--auth-token=jwt,sign-method={method},priv-key={}", key.display());
        if !method.starts_with("HS") {
            // etcd wants both.
            let path = key.to_str().expect("a path of text");
            let public = openssl(&["pkey", "-in", path, "-pubout"], &folder.path().join(format!("{method}.pub")));
            options = format!("{options},pub-key={}", public.display());
        }
        let servers =
            [On::Etcd, On::Cairn].map(|on| Server::start_binary(&on.binary(), "http", &[&options, "--bcrypt-cost=4"]));
        for server in &servers {
            for line in [
                "user add root:pw",
                "role add root",
                "user grant-role root root",
                "user add alice:pw",
                "role add team",
                "role grant-permission team readwrite k",
                "user grant-role alice team",
                "auth enable",
            ] {
                ctl(server, line);
            }
        }
        let [etcd, cairn] = &servers;
        for (from, at) in [(etcd, cairn), (cairn, etcd)] {
            let token = token_of(from, "alice").await;
            let with = |line: &str| ctl(at, &format!("--auth-jwt-token {token} {line}"));
            assert_eq!(with("put k v"), "OK\n", "{method}");
            contains(&with("put other v"), "permission denied");
            contains(&ctl(at, "--user root:pw role add another"), "Role another created");
            // etcd 3.5.1 has other words for it.
            contains(&with("get k"), " is old");
            // The other server has to be at the same auth revision again.
            contains(&ctl(from, "--user root:pw role add another"), "Role another created");
            ctl(at, "--user root:pw role delete another");
            ctl(from, "--user root:pw role delete another");
        }
    }
}
