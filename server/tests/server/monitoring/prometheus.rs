//! A real Prometheus, Debian's, as a process, and its HTTP interface.

use std::{
    fmt::Write as _,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::{
    cluster::free_port,
    support::{eventually, http},
};

/// One of the programs of Debian's package.
pub fn command(name: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(name).is_file());
    assert!(found, "no {name}: install Debian's package prometheus (`scripts/install-deps test` does)");
    Command::new(name)
}

/// A running Prometheus. Dropping it kills it; the directory belongs to the caller.
pub struct Prometheus {
    child: Child,
    log: PathBuf,
    port: u16,
}

impl Prometheus {
    /// Starts one with its data in `dir`, and waits until it answers.
    pub async fn start(dir: &Path, config: &str) -> Self {
        let (file, log, port) = (dir.join("prometheus.yml"), dir.join("prometheus.log"), free_port());
        fs::write(&file, config).expect("the configuration is written");
        let stderr = File::create(&log).expect("a log file");
        let child = command("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("series").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("prometheus runs");
        let mut prometheus = Self { child, log, port };
        eventually("Prometheus is ready", async || {
            let ended = prometheus.child.try_wait().expect("the process's state");
            assert!(ended.is_none(), "it ends:\n{}", fs::read_to_string(&prometheus.log).expect("the log file"));
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
            prometheus.get("/-/ready").await.starts_with("Prometheus").then_some(())
        })
        .await;
        prometheus
    }

    /// What stands at a path. HTTP/1.0 keeps the answer in one piece.
    async fn get(&self, path: &str) -> String {
        http(([127, 0, 0, 1], self.port).into(), &format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")).await.body
    }

    /// The data of an answer of the interface.
    async fn data(&self, path: &str) -> Result<Value, String> {
        let body = self.get(&format!("/api/v1/{path}")).await;
        let mut answer: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body:?}"));
        if answer["status"] == "success" { Ok(answer["data"].take()) } else { Err(answer["error"].to_string()) }
    }

    /// The values of all series that an expression yields now, or over a range if it ends with one. A mistake in the
    /// expression panics.
    pub async fn values(&self, expression: &str) -> Vec<f64> {
        let path = format!("query?query={}", escaped(expression));
        let data = self.data(&path).await.unwrap_or_else(|error| panic!("{expression}: {error}"));
        let series = data["result"].as_array().expect("a vector or a matrix");
        let samples = series.iter().flat_map(|one| match one["values"].as_array() {
            Some(samples) => samples.clone(),
            None => vec![one["value"].clone()],
        });
        samples.map(|sample| sample[1].as_str().and_then(|text| text.parse().ok()).expect("a number")).collect()
    }

    /// The values of a label among the series of a selector.
    pub async fn label_values(&self, label: &str, selector: &str) -> Vec<String> {
        let path = format!("label/{label}/values?match[]={}", escaped(selector));
        let data = self.data(&path).await.unwrap_or_else(|error| panic!("{selector}: {error}"));
        serde_json::from_value(data).expect("a list of names")
    }

    /// All rules as they were last evaluated: name, health and error.
    pub async fn rules(&self) -> Vec<(String, String, Value)> {
        let data = self.data("rules").await.expect("the rules");
        let groups = data["groups"].as_array().expect("groups");
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().expect("rules"));
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        rules.map(|rule| (text(&rule["name"]), text(&rule["health"]), rule["lastError"].clone())).collect()
    }

    /// The texts of the alerts that are pending or firing.
    pub async fn annotations_of_active_alerts(&self) -> Vec<String> {
        let data = self.data("alerts").await.expect("the alerts");
        let alerts = data["alerts"].as_array().expect("a list").iter();
        alerts.map(|alert| alert["annotations"].to_string()).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Text as a part of a query.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(3 * text.len());
    for byte in text.bytes() {
        write!(escaped, "%{byte:02X}").expect("a String takes everything");
    }
    escaped
}
