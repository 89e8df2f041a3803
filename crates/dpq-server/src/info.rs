//! `GET /v1/index`, `/healthz` and `/metrics`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::refusal::{Refused, json_body, to_json};

/// The gallery, and what the server does with it.
#[derive(Serialize, ToSchema)]
pub(crate) struct Info {
    items: usize,
    /// Dimensions of features.
    dim: usize,
    /// Code lengths to search at, in bits.
    bits: Vec<usize>,
    /// Codewords per level.
    codewords: usize,
    /// `ip` (inner product) or `l2` (Euclidean distance).
    metric: String,
    /// Size of indexes and names in memory.
    bytes: usize,
    /// The codebooks that made the codes.
    fingerprint: String,
    /// The commit that is searched, of a live index.
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<u64>,
    /// Whether requests can change the gallery.
    live: bool,
    /// Whether changes need a token.
    token: bool,
    /// Whether images can be searched for and added.
    images: bool,
    /// Whether there are pictures, and classes where they are known.
    pictures: bool,
    /// Whether there is a map.
    map: bool,
    /// The maximum k of a search.
    max_k: usize,
    /// The maximum size of the body of a request, in bytes.
    max_body: usize,
}

/// Describes the gallery
#[utoipa::path(get, path = "/v1/index", responses((status = 200, body = Info, description = "The gallery"), Refused))]
pub(crate) async fn index(State(app): State<Arc<App>>) -> impl IntoResponse {
    let reader = app.reader();
    let codebooks = reader.codebooks();
    json_body(to_json(&Info {
        items: reader.len(),
        dim: codebooks.dim(),
        bits: codebooks.lengths().map(|length| length.bits()).collect(),
        codewords: codebooks.n_codewords(),
        metric: reader.metric().to_string(),
        bytes: reader.n_bytes(),
        fingerprint: codebooks.fingerprint(),
        commit: reader.commit(),
        live: app.writer.is_some(),
        token: app.options.token.is_some(),
        images: app.options.features.is_some(),
        pictures: app.options.catalog.is_some(),
        map: app.options.map.is_some(),
        max_k: app.options.limits.hits,
        max_body: app.options.limits.body,
    }))
}

/// Says that the server runs
#[utoipa::path(get, path = "/healthz", responses((status = 200, body = String, description = "ok"), Refused))]
pub(crate) async fn health() -> &'static str {
    "ok\n"
}

/// Returns numbers for Prometheus
#[utoipa::path(get, path = "/metrics", responses((status = 200, body = String, description = "The numbers"), Refused))]
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let text = app.metrics.text(&app.reader(), app.n_working());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}
