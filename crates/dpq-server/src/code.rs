//! `POST /v1/code`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use dpq_codebook::{Beam, Codebooks, Expected};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::{App, Body, json};
use crate::permit::held;
use crate::refusal::{Refusal, Refused, json_body, to_json};
use crate::search::Subject;

/// The query, one of `features`, `id`, `name` and `code`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CodeQuery {
    /// A feature vector, one number per dimension.
    features: Option<Vec<f32>>,
    /// The id of an item of the gallery.
    id: Option<u64>,
    /// The name of an item of the gallery.
    name: Option<String>,
    /// A code, one number per level.
    code: Option<Vec<u8>>,
}

/// The code of a query, and what each of its lengths stands for.
#[derive(Serialize, ToSchema)]
pub(crate) struct Coded {
    /// The feature vector; of an item or a code, what the code stands for.
    features: Vec<f32>,
    /// The code, one number per level.
    code: Vec<u8>,
    lengths: Vec<CodedLength>,
}

/// A code up to one length.
#[derive(Serialize, ToSchema)]
pub(crate) struct CodedLength {
    bits: usize,
    /// The squared distance of the feature vector from what the code stands for, over the squared
    /// length of the vector.
    distortion: f64,
    /// Items of the gallery whose codes are equal up to this length.
    equal: usize,
}

/// Returns the code that an item of a feature or an image would have, or that of an item
#[utoipa::path(
    post,
    path = "/v1/code",
    request_body(content((CodeQuery = "application/json"), ("image/*"))),
    responses(
        (status = 200, body = Coded, description = "The code"),
        Refused,
    )
)]
pub(crate) async fn code(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let body = app.body(request).await?;
    let coded = app.work(move |app, _| Ok(to_json(&coded(app, body)?)));
    let (coded, permit) = coded.await?;
    Ok(json_body(held(coded, permit)).into_response())
}

/// Encodes features `[n, D]` as those of items.
pub(crate) fn encode(codebooks: &Codebooks, features: &[f32], beam: usize) -> Result<Vec<u8>, Refusal> {
    let weights = vec![1.0; codebooks.n_levels()];
    Ok(match beam {
        1 => codebooks.encode(features)?,
        width => codebooks.encode_beam(features, Beam { width, weights: &weights })?,
    })
}

fn coded(app: &App, body: Body) -> Result<Coded, Refusal> {
    let reader = app.reader();
    let codebooks = reader.codebooks();
    let (features, stored) = match body {
        Body::Image(image) => (app.feature(&image)?, None),
        Body::Json(bytes) => {
            let CodeQuery { features, id, name, code } = json(&bytes)?;
            Subject { features, id, name, code }.features(&reader)?
        }
    };
    Expected::Shape(vec![codebooks.dim()]).check("features", features.len())?;
    let code = stored.map_or_else(|| encode(codebooks, &features, app.options.beam), Ok)?;
    let distortion = codebooks.relative_distortion(&features, &code)?;
    let equal = reader.prefix_counts(&code)?;
    let length = |(length, distortion): (dpq_codebook::CodeLength, f64)| CodedLength {
        bits: length.bits(),
        distortion,
        equal: equal[length.levels() - 1],
    };
    let lengths = codebooks.lengths().zip(distortion).map(length).collect();
    Ok(Coded { features, code, lengths })
}
