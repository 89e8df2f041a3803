//! `POST /v1/items` and `DELETE /v1/items/{id}`.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use dpq_codebook::{Codebooks, Expected};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::app::{App, Body, json, parameters};
use crate::refusal::{Failed, Refusal, json_body, to_json};
use crate::writer::{Change, Changed, Item, Writer};

/// The id and the name of an image; for JSON, the body has them.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Parameters {
    /// The id of the image.
    id: Option<u64>,
    /// The name of the image.
    name: Option<String>,
}

/// Items to add or to replace.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewItems {
    items: Vec<NewItem>,
}

/// An item to add, or to replace that with its id, or without an id, that with its name. A new item
/// without an id gets one. It has `features` or a `code`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewItem {
    id: Option<u64>,
    /// A name that no other item has.
    name: Option<String>,
    /// A feature vector, one number per dimension.
    features: Option<Vec<f32>>,
    /// A code, one number per level.
    code: Option<Vec<u8>>,
}

/// Adds or replaces items, in one commit
#[utoipa::path(
    post,
    path = "/v1/items",
    params(Parameters),
    request_body(content((NewItems = "application/json"), ("image/*"))),
    responses(
        (status = 200, body = Changed, description = "The change is durable, and searches see it"),
        (status = "4XX", body = Failed, description = "The request is wrong; nothing changed"),
        (status = 503, body = Failed, description = "Too much to do, see Retry-After"),
    ),
    security(("token" = []))
)]
pub(crate) async fn put(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let writer = app.writer(request.headers())?;
    let parameters: Parameters = parameters(request.uri())?;
    let body = app.body(request).await?;
    let items = app.work(move |app, _| items(app, parameters, body)).await?;
    change(&app, writer, Change::Put(items)).await
}

/// Deletes an item
#[utoipa::path(
    delete,
    path = "/v1/items/{id}",
    params(("id" = u64, Path, description = "The id of the item")),
    responses(
        (status = 200, body = Changed, description = "The change is durable, and searches see it"),
        (status = "4XX", body = Failed, description = "The request is wrong; nothing changed"),
        (status = 503, body = Failed, description = "Too much to do, see Retry-After"),
    ),
    security(("token" = []))
)]
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let writer = app.writer(&headers)?;
    let id = id
        .parse()
        .map_err(|_| Refusal::bad(format!("the id is {id:?}, expected a whole number below 2⁶⁴")))?;
    change(&app, writer, Change::Delete(id)).await
}

async fn change(app: &App, writer: &Writer, change: Change) -> Result<Response, Refusal> {
    let changed = app.wait(writer.send(change)?).await??;
    Ok(json_body(to_json(&changed)).into_response())
}

/// Encodes the items of a request.
fn items(app: &App, parameters: Parameters, body: Body) -> Result<Vec<Item>, Refusal> {
    let Parameters { id, name } = parameters;
    let new = match body {
        Body::Image(image) => {
            vec![NewItem { id, name, features: Some(app.feature(&image)?), code: None }]
        }
        Body::Json(_) if id.is_some() || name.is_some() => {
            return Err(Refusal::bad("id and name of the address are for images, put them into the body"));
        }
        Body::Json(bytes) => json::<NewItems>(&bytes)?.items,
    };
    if new.is_empty() {
        return Err(Refusal::bad("there are no items, give at least one"));
    }
    encoded(app.reader().codebooks(), new)
}

fn encoded(codebooks: &Codebooks, new: Vec<NewItem>) -> Result<Vec<Item>, Refusal> {
    let mut features = Vec::new();
    for item in &new {
        if item.name.as_ref().is_some_and(String::is_empty) {
            return Err(Refusal::bad("a name is empty, leave it out or give another one"));
        }
        match (&item.features, &item.code) {
            (Some(values), None) => {
                Expected::Shape(vec![codebooks.dim()]).check("features", values.len())?;
                features.extend_from_slice(values);
            }
            (None, Some(_)) => {}
            _ => return Err(Refusal::bad("an item is not clear, give each one of features and code")),
        }
    }
    // Even without features, this takes the time to prepare codebooks.
    let codes = if features.is_empty() { Vec::new() } else { codebooks.encode(&features)? };
    let mut codes = codes.chunks_exact(codebooks.n_levels());
    let item = |NewItem { id, name, code, .. }: NewItem| {
        let code = code.or_else(|| codes.next().map(<[u8]>::to_vec));
        Item { id, name, code: code.unwrap_or_default() }
    };
    Ok(new.into_iter().map(item).collect())
}
