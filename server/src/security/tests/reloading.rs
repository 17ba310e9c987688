//! Files that change under a running server.

use super::*;

#[tokio::test]
async fn a_new_certificate_is_served_and_open_connections_go_on() {
    let ca = Ca::new("ca");
    let (first, second) = (ca.server(1), ca.server(2));
    let mut files = Files::new(&first);
    let (server, reloader) = Server::of(&files).await;
    let client = Client::trusting(&ca);

    let mut before = client.connect(&server).await.unwrap();
    assert_eq!(before.server_cert(), first.chain()[0]);
    before.echo("one").await;

    files.put_server(&second);
    let mut after = client.connect(&server).await.unwrap();
    assert_eq!(after.server_cert(), second.chain()[0]);
    assert_eq!(reloader.reloads(), 1);
    after.echo("two").await;
    before.echo("three").await;
}

#[tokio::test]
async fn certificate_without_its_key_is_not_taken_until_the_key_follows() {
    let ca = Ca::new("ca");
    let (first, second) = (ca.server(1), ca.server(2));
    let files = Files::new(&first);
    let (server, reloader) = Server::of(&files).await;
    let client = Client::trusting(&ca);

    files.put("cert.pem", &second.cert);
    for _ in 0..3 {
        assert_eq!(client.connect(&server).await.unwrap().server_cert(), first.chain()[0]);
    }
    assert_eq!((reloader.reloads(), reloader.failures()), (0, 1), "one change fails once, however many connect");

    files.put("key.pem", &second.key);
    assert_eq!(client.connect(&server).await.unwrap().server_cert(), second.chain()[0]);
    assert_eq!((reloader.reloads(), reloader.failures()), (1, 1));
}

#[tokio::test]
async fn missing_and_broken_files_change_nothing() {
    let ca = Ca::new("ca");
    let first = ca.server(1);
    let files = Files::new(&first).trusting(&ca.pem());
    let (server, reloader) = Server::of(&files).await;
    let client = Client::showing(&ca, &ca.client("c", &[], 10));

    files.remove("key.pem");
    client.connect(&server).await.unwrap().echo("without a key").await;
    files.put("key.pem", "garbage");
    client.connect(&server).await.unwrap().echo("with garbage").await;
    files.put("ca.pem", "");
    client.connect(&server).await.unwrap().echo("without authorities").await;
    assert_eq!((reloader.reloads(), reloader.failures()), (0, 3));

    files.put("key.pem", &first.key);
    files.put("ca.pem", ca.pem());
    client.connect(&server).await.unwrap().echo("repaired").await;
    assert_eq!(reloader.reloads(), 1);
}

#[tokio::test]
async fn new_authorities_let_new_clients_in_and_old_ones_out() {
    let (server_ca, old_ca, new_ca) = (Ca::new("server"), Ca::new("old"), Ca::new("new"));
    let files = Files::new(&server_ca.server(1)).trusting(&old_ca.pem());
    let (server, _) = Server::of(&files).await;
    let old = Client::showing(&server_ca, &old_ca.client("old", &[], 10));
    let new = Client::showing(&server_ca, &new_ca.client("new", &[], 11));

    let mut open = old.connect(&server).await.unwrap();
    assert!(new.connect(&server).await.is_err());

    files.put("ca.pem", new_ca.pem());
    assert_eq!(new.connect(&server).await.unwrap().greeting, "tls=true cn=new alpn=");
    // The old client holds session tickets of its first connection; they must not bring it past the new authorities.
    assert!(old.connect(&server).await.is_err());
    open.echo("still here").await;
}

#[tokio::test]
async fn a_revocation_takes_effect_without_a_restart() {
    let ca = Ca::new("ca");
    let mut files = Files::new(&ca.server(1)).trusting(&ca.pem());
    files.tls.client_crl_file = Some(files.put("crl", ca.revoke(&[]).pem().unwrap()));
    let (server, _) = Server::of(&files).await;
    let client = Client::showing(&ca, &ca.client("c", &[], 10));
    client.connect(&server).await.unwrap();

    files.put("crl", ca.revoke(&[10]).pem().unwrap());
    assert!(client.connect(&server).await.is_err());
}

#[tokio::test]
async fn unchanged_files_are_not_read_again() {
    let ca = Ca::new("ca");
    let files = Files::new(&ca.server(1));
    let (server, reloader) = Server::of(&files).await;
    for _ in 0..3 {
        Client::trusting(&ca).connect(&server).await.unwrap();
    }
    assert_eq!((reloader.reloads(), reloader.failures()), (0, 0));
}
