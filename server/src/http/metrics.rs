//! `/metrics`: what the member reports of itself, under etcd's names.

use std::fmt::Write as _;

use http::{HeaderValue, Response, header::CONTENT_TYPE};
use prometheus_client::encoding::text;

use super::{Http, exposition, process};
use crate::{api::grpc::body::Body, config::API_VERSION};

/// Metrics text under construction: one family after the other, each declared once.
#[derive(Debug, Default)]
pub(super) struct Page(String);

impl Page {
    /// Adds a value that may go up and down.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.sample(name, "gauge", help, "", value);
    }

    /// Adds a value that only rises.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.sample(name, "counter", help, "", value);
    }

    /// Adds a gauge of 1 whose label says something.
    pub(super) fn info(&mut self, name: &str, help: &str, label: &str, value: &str) {
        self.sample(name, "gauge", help, &format!("{{{label}=\"{value}\"}}"), 1.0);
    }

    fn sample(&mut self, name: &str, kind: &str, help: &str, labels: &str, value: f64) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{labels} {value}");
    }
}

impl Http {
    pub(super) fn expose(&self) -> Response<Body> {
        let mut page = Page::default();
        self.expose_member(&mut page);
        process::expose(&mut page);
        let mut registered = String::new();
        if text::encode_registry(&mut registered, &self.registry).is_ok() {
            page.0.push_str(&exposition::from_openmetrics(&registered));
        }
        let mut response = Response::new(Body::Plain(page.0.into()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(exposition::CONTENT_TYPE));
        response
    }
}
