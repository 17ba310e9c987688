//! Clients with gRPC core, by its package for Python.

use std::{
    process::{Command, Stdio},
    sync::Arc,
};

use super::super::support::TestServer;

const CLIENT: &str = include_str!("../testdata/grpc_core.py");

#[tokio::test]
async fn clients_with_grpc_core_are_served() {
    let server = TestServer::start().await;
    let addr = Arc::new(server.addr().to_string());
    let ran = tokio::task::spawn_blocking(move || {
        Command::new("python3").args(["-c", CLIENT, &addr]).stdin(Stdio::null()).output().expect("python3 runs")
    });
    let output = ran.await.expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
}
