//! The numbers that Prometheus collects.

use axum::http::StatusCode;
use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

use crate::gallery::Reader;

pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    working: IntGauge,
    items: IntGauge,
    commit: IntGauge,
}

/// Upper ends of classes of durations, in seconds.
const BUCKETS: [f64; 14] =
    [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

impl Metrics {
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let requests = Opts::new("dpq_requests_total", "Requests answered, by route and status.");
        let seconds =
            HistogramOpts::new("dpq_request_seconds", "Seconds until a request was answered, by route.");
        Self {
            requests: add(&registry, IntCounterVec::new(requests, &["route", "status"])),
            seconds: add(&registry, HistogramVec::new(seconds.buckets(BUCKETS.to_vec()), &["route"])),
            working: add(
                &registry,
                IntGauge::new("dpq_requests_working", "Requests in a thread or waiting for one."),
            ),
            items: add(&registry, IntGauge::new("dpq_items", "Items of the gallery.")),
            commit: add(&registry, IntGauge::new("dpq_commit", "Number of the commit that is searched.")),
            registry,
        }
    }

    pub(crate) fn count(&self, route: &str, status: StatusCode, seconds: f64) {
        self.requests.with_label_values(&[route, status.as_str()]).inc();
        self.seconds.with_label_values(&[route]).observe(seconds);
    }

    /// Returns all numbers in the text format of Prometheus.
    pub(crate) fn text(&self, reader: &Reader, n_working: usize) -> String {
        self.working.set(n_working as i64);
        self.items.set(reader.len() as i64);
        self.commit.set(reader.commit().unwrap_or(0) as i64);
        TextEncoder::new().encode_to_string(&self.registry.gather()).expect("the names are fixed")
    }
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let made = made.expect("the names are fixed");
    registry.register(Box::new(made.clone())).expect("the names differ");
    made
}
