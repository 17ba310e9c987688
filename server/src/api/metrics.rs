//! What the API counts about itself.

use std::time::Duration;

use cairn_proto::rpc::{Kind, Method};
use http::HeaderMap;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use tonic::Code;

use super::requesters::Requesters;

/// All gRPC codes, by number, as metrics call them.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
#[expect(clippy::struct_field_names, reason = "the names are those of the labels")]
struct MethodLabels {
    grpc_method: &'static str,
    grpc_service: &'static str,
    grpc_type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
#[expect(clippy::struct_field_names, reason = "the names are those of the labels")]
struct HandledLabels {
    grpc_code: &'static str,
    grpc_method: &'static str,
    grpc_service: &'static str,
    grpc_type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ScrapeLabels {
    code: &'static str,
}

/// Counters of one RPC, looked up once.
struct MethodMetrics {
    started: Counter,
    handled: [Counter; CODES.len()],
    received: Counter,
    sent: Counter,
    seconds: Option<Histogram>,
}

/// Counters of the API. Every RPC is there from the start, so that rates can be taken from the first scrape on.
pub struct ApiMetrics {
    methods: Vec<MethodMetrics>,
    requesters: Requesters,
    /// Bytes of requests' messages.
    pub received_bytes: Counter,
    /// Bytes of answers' messages.
    pub sent_bytes: Counter,
    /// Health checks that found the member healthy.
    pub health_success: Counter,
    /// Health checks that did not.
    pub health_failures: Counter,
    /// Answers with all metrics.
    pub scrapes: Counter,
    /// Answers with all metrics that are being made.
    pub scrapes_in_flight: Gauge,
}

impl ApiMetrics {
    /// Creates the counters in `registry`; `extensive` adds a latency histogram for every RPC.
    pub fn new(registry: &mut Registry, extensive: bool) -> Self {
        let started = Family::<MethodLabels, Counter>::default();
        let handled = Family::<HandledLabels, Counter>::default();
        let received = Family::<MethodLabels, Counter>::default();
        let sent = Family::<MethodLabels, Counter>::default();
        let seconds = Family::<MethodLabels, Histogram>::new_with_constructor(|| {
            Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
        });
        let methods = Method::ALL.iter().map(|method| {
            let (grpc_method, grpc_service, grpc_type) = (method.name(), method.service(), method.kind().label());
            let labels = MethodLabels { grpc_method, grpc_service, grpc_type };
            MethodMetrics {
                started: started.get_or_create_owned(&labels),
                handled: CODES.map(|grpc_code| {
                    handled.get_or_create_owned(&HandledLabels { grpc_code, grpc_method, grpc_service, grpc_type })
                }),
                received: received.get_or_create_owned(&labels),
                sent: sent.get_or_create_owned(&labels),
                seconds: extensive.then(|| seconds.get_or_create_owned(&labels)),
            }
        });
        let scrapes = Family::<ScrapeLabels, Counter>::default();
        // There is no other answer, but rates of failures want to be zero, not missing.
        for code in ["500", "503"] {
            drop(scrapes.get_or_create_owned(&ScrapeLabels { code }));
        }
        let metrics = Self {
            methods: methods.collect(),
            requesters: Requesters::new(),
            received_bytes: Counter::default(),
            sent_bytes: Counter::default(),
            health_success: Counter::default(),
            health_failures: Counter::default(),
            scrapes: scrapes.get_or_create_owned(&ScrapeLabels { code: "200" }),
            scrapes_in_flight: Gauge::default(),
        };
        registry.register(
            "etcd_server_client_requests",
            "The total number of client requests per client version",
            metrics.requesters.family(),
        );
        registry.register("grpc_server_started", "Total number of RPCs started on the server", started);
        registry.register(
            "grpc_server_handled",
            "Total number of RPCs completed on the server, regardless of success or failure",
            handled,
        );
        registry.register(
            "grpc_server_msg_received",
            "Total number of RPC stream messages received on the server",
            received,
        );
        registry.register("grpc_server_msg_sent", "Total number of gRPC stream messages sent by the server", sent);
        if extensive {
            let help =
                "Histogram of response latency (seconds) of gRPC that had been application-level handled by the server";
            registry.register("grpc_server_handling_seconds", help, seconds);
        }
        registry.register("promhttp_metric_handler_requests", "Total number of scrapes by HTTP status code", scrapes);
        registry.register(
            "promhttp_metric_handler_requests_in_flight",
            "Current number of scrapes being served",
            metrics.scrapes_in_flight.clone(),
        );
        let mut counter = |name, help, counter: &Counter| registry.register(name, help, counter.clone());
        counter(
            "etcd_network_client_grpc_received_bytes",
            "The total number of bytes received from grpc clients",
            &metrics.received_bytes,
        );
        counter(
            "etcd_network_client_grpc_sent_bytes",
            "The total number of bytes sent to grpc clients",
            &metrics.sent_bytes,
        );
        counter("etcd_server_health_success", "The total number of successful health checks", &metrics.health_success);
        counter("etcd_server_health_failures", "The total number of failed health checks", &metrics.health_failures);
        metrics
    }

    fn of(&self, method: Method) -> &MethodMetrics {
        &self.methods[method as usize]
    }

    /// A client asks for a call with these headers.
    pub fn requested(&self, kind: Kind, headers: &HeaderMap) {
        self.requesters.count(kind, headers);
    }

    /// A call began.
    pub fn started(&self, method: Method) {
        self.of(method).started.inc();
    }

    /// A message of a call came.
    pub fn received(&self, method: Method, bytes: usize) {
        self.of(method).received.inc();
        self.received_bytes.inc_by(bytes as u64);
    }

    /// A message of a call is sent.
    pub fn sent(&self, method: Method, bytes: usize) {
        self.of(method).sent.inc();
        self.sent_bytes.inc_by(bytes as u64);
    }

    /// A call ended.
    pub fn handled(&self, method: Method, code: Code, took: Duration) {
        let metrics = self.of(method);
        metrics.handled[code as usize].inc();
        if let Some(seconds) = &metrics.seconds {
            seconds.observe(took.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_stand_at_their_numbers() {
        for (number, name) in CODES.iter().enumerate() {
            let code = Code::from(number as i32);
            let said =
                if code == Code::Ok { "OK".to_owned() } else { format!("{code:?}").replace("Cancelled", "Canceled") };
            assert_eq!(said, *name);
        }
    }

    #[test]
    fn methods_stand_at_their_numbers() {
        for (number, method) in Method::ALL.iter().enumerate() {
            assert_eq!(*method as usize, number);
        }
    }
}
