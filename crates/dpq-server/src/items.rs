//! `POST` and `PUT /v1/items`, and `DELETE /v1/items/{id}`.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use dpq_codebook::{Codebooks, Expected};
use serde::Deserialize;
use utoipa::{IntoParams, IntoResponses, ToSchema};

use crate::app::{App, Body, json, parameters};
use crate::code::encode;
use crate::options::Options;
use crate::permit::Permit;
use crate::refusal::{Failed, Refusal, Refused, json_body, to_json};
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

/// Items to add, or to put in the place of others.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewItems {
    items: Vec<NewItem>,
}

/// An item, which has `features` or a `code`. A new one without an id gets one.
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

/// The answers to a change.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only the description has it")]
enum Made {
    /// The change is durable, and searches see it
    #[response(status = 200)]
    Changed(Changed),
    /// The change took too long, and may still be made
    #[response(status = 504)]
    Late(Failed),
}

/// Adds items, all in one commit, and replaces none: 409 if an id or a name is taken
#[utoipa::path(
    post,
    path = "/v1/items",
    params(Parameters),
    request_body(content((NewItems = "application/json"), ("image/*"))),
    responses(Made, Refused),
    security(("token" = []))
)]
pub(crate) async fn add(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    write(&app, request, false).await
}

/// Adds items, all in one commit, and replaces those of the same id or, without an id, name
#[utoipa::path(
    put,
    path = "/v1/items",
    params(Parameters),
    request_body(content((NewItems = "application/json"), ("image/*"))),
    responses(Made, Refused),
    security(("token" = []))
)]
pub(crate) async fn put(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    write(&app, request, true).await
}

async fn write(app: &Arc<App>, request: Request, replace: bool) -> Result<Response, Refusal> {
    let writer = app.writer(request.headers())?;
    let parameters: Parameters = parameters(request.uri())?;
    let body = app.body(request).await?;
    let (items, permit) = app.work(move |app, _| items(app, parameters, body)).await?;
    change(app, writer, Change::Put { items, replace }, permit).await
}

/// Deletes an item
#[utoipa::path(
    delete,
    path = "/v1/items/{id}",
    params(("id" = u64, Path, description = "The id of the item")),
    responses(Made, Refused),
    security(("token" = []))
)]
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let writer = app.writer(&headers)?;
    change(&app, writer, Change::Delete(item_id(id)?), app.permit()?).await
}

/// Reads the id of an address.
pub(crate) fn item_id(id: Result<Path<String>, PathRejection>) -> Result<u64, Refusal> {
    let id = id.map_or_else(|_| "not UTF-8".to_owned(), |Path(id)| id);
    let refused = |_| Refusal::bad(format!("the id is {id:?}, expected a whole number below 2⁶⁴"));
    id.parse().map_err(refused)
}

/// A client that goes away before its turn changes nothing.
async fn change(app: &App, writer: &Writer, change: Change, permit: Permit) -> Result<Response, Refusal> {
    let changed = app.wait(writer.send(change, permit)?, Refusal::late_change).await??;
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
    encoded(app.reader().codebooks(), new, &app.options)
}

fn encoded(codebooks: &Codebooks, new: Vec<NewItem>, options: &Options) -> Result<Vec<Item>, Refusal> {
    let mut features = Vec::new();
    for item in &new {
        if item.name.as_ref().is_some_and(String::is_empty) {
            return Err(Refusal::bad("a name is empty, leave it out or give another one"));
        }
        let name = item.name.as_ref().map_or(0, String::len);
        Expected::Range(0..=options.limits.name).check("number of bytes of a name", name)?;
        match (&item.features, &item.code) {
            (Some(values), None) => {
                Expected::Shape(vec![codebooks.dim()]).check("features", values.len())?;
                features.extend_from_slice(values);
            }
            (None, Some(code)) => {
                Expected::Shape(vec![codebooks.n_levels()]).check("a code", code.len())?;
                for &codeword in code {
                    let codewords = Expected::Range(0..=codebooks.n_codewords() - 1);
                    codewords.check("a number of a code", codeword.into())?;
                }
            }
            _ => return Err(Refusal::bad("an item is not clear, give each one of features and code")),
        }
    }
    // Even without features, this takes the time to prepare codebooks.
    let codes = match features.is_empty() {
        true => Vec::new(),
        false => encode(codebooks, &features, options.beam)?,
    };
    let mut codes = codes.chunks_exact(codebooks.n_levels());
    let item = |NewItem { id, name, code, .. }: NewItem| {
        let code = code.or_else(|| codes.next().map(<[u8]>::to_vec));
        Item { id, name, code: code.unwrap_or_default() }
    };
    Ok(new.into_iter().map(item).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::StatusCode;
    use dpq_index::{Assignment, Index};

    use super::*;
    use crate::gallery::{Latest, Reader};
    use crate::options::Limits;

    /// The change waits for a thread that does nothing.
    #[test]
    fn a_late_change_may_still_be_made() {
        let codebooks = Codebooks::new(vec![1.0, 0.0, 0.0, 1.0], 1, 2, 2, Assignment::Euclidean).unwrap();
        let index = Index::builder(&codebooks, &[0, 1]).build().unwrap();
        let latest = Arc::new(Latest::new(Reader::File(Box::new(index))));
        let limits = Limits { time: Duration::from_millis(10), ..Limits::default() };
        let app = App::new(latest, None, Options { limits, ..Options::new(1) });
        let (writer, _requests) = Writer::idle();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let changed = change(&app, &writer, Change::Delete(0), app.permit().unwrap());
        let refusal = runtime.block_on(changed).unwrap_err();
        let answer = refusal.into_response();
        assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
        assert!(!answer.headers().contains_key("retry-after"));
        assert_eq!(app.n_working(), 1, "the change counts as long as it waits");
    }
}
