//! `GET /v1/items`, `/v1/items/{id}/picture` and `/v1/map`: the gallery for people who look around.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use dpq_codebook::Expected;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::app::{App, Known, parameters};
use crate::gallery::Reader;
use crate::items::item_id;
use crate::permit::held;
use crate::refusal::{Refusal, Refused, json_body, to_json};
use crate::sample::MAX_ITEMS;

/// Which items to list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Parameters {
    /// Items to return.
    #[serde(default = "default_k")]
    #[param(default = 24, minimum = 1, maximum = 2000)]
    k: usize,
    /// Where to begin; another number gives other items.
    #[serde(default)]
    offset: usize,
}

fn default_k() -> usize {
    24
}

/// Some items of the gallery.
#[derive(Serialize, ToSchema)]
pub(crate) struct Listed {
    items: Vec<ListedItem>,
}

/// An item of the gallery.
#[derive(Serialize, ToSchema)]
pub(crate) struct ListedItem {
    id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The names of its classes, where they are known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    labels: Vec<String>,
    /// Whether it has a picture.
    picture: bool,
}

impl ListedItem {
    fn new(app: &App, reader: &Reader, id: u64) -> Self {
        let Known { name, labels, picture } = app.known(reader, id);
        Self { id, name, labels, picture }
    }
}

/// Lists items at equal distances in the gallery
#[utoipa::path(
    get,
    path = "/v1/items",
    params(Parameters),
    responses(
        (status = 200, body = Listed, description = "At most 2,000 items"),
        Refused,
    )
)]
pub(crate) async fn list(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let Parameters { k, offset } = parameters(request.uri())?;
    Expected::Range(1..=MAX_ITEMS).check("k", k)?;
    let listed = app.work(move |app, _| {
        let reader = app.reader();
        let sample = app.sample.ids(&reader);
        let (n, k) = (sample.len(), k.min(sample.len()));
        let ids = (0..k).map(|i| sample[(offset % n + i * n / k) % n]);
        Ok(to_json(&Listed { items: ids.map(|id| ListedItem::new(app, &reader, id)).collect() }))
    });
    let (listed, permit) = listed.await?;
    Ok(json_body(held(listed, permit)).into_response())
}

/// Returns a small picture of an item
#[utoipa::path(
    get,
    path = "/v1/items/{id}/picture",
    params(("id" = u64, Path, description = "The id of the item")),
    responses(
        (status = 200, description = "The picture", content((Vec<u8> = "image/png"), (Vec<u8> = "image/jpeg"))),
        Refused,
    )
)]
pub(crate) async fn picture(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let id = item_id(id)?;
    let picture = app.work(move |app, _| {
        let reader = app.reader();
        let known = reader.code_of(id).and(app.options.catalog.as_ref());
        let picture = known.map(|catalog| catalog.picture(id, app.name(&reader, id))).transpose();
        let missing = |sentence: String| Refusal::new(StatusCode::NOT_FOUND, sentence);
        picture.map_err(missing)?.flatten().ok_or_else(|| missing(format!("there is no picture of id {id}")))
    });
    let (picture, permit) = picture.await?;
    let headers = [
        (header::CONTENT_TYPE, picture.content_type),
        // An id may get another picture.
        (header::CACHE_CONTROL, "private, max-age=300"),
    ];
    Ok((headers, held(picture.bytes, permit)).into_response())
}

/// Items of the gallery on a plane.
#[derive(Serialize, ToSchema)]
pub(crate) struct Map {
    /// How they were drawn: `t-SNE` or `principal components` of what their codes stand for.
    method: String,
    /// Items at equal distances in the gallery when it was drawn, without those deleted since.
    items: Vec<MapItem>,
}

/// An item on a map.
#[derive(Serialize, ToSchema)]
pub(crate) struct MapItem {
    x: f32,
    y: f32,
    #[serde(flatten)]
    item: ListedItem,
}

/// Draws at most 2,000 items of the gallery on a plane, again once it has doubled or halved
#[utoipa::path(
    get,
    path = "/v1/map",
    responses(
        (status = 200, body = Map, description = "The map"),
        (status = 202, description = "The map is being drawn, ask again"),
        Refused,
    )
)]
pub(crate) async fn map(State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    let Some(draw) = app.options.map.clone() else {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "this server draws no map, start it with pictures"));
    };
    let map = app.work(move |app, _| {
        let reader = app.reader();
        let Some(map) = app.sample.map(&reader, &draw)? else { return Ok(None) };
        let failed = |sentence| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, sentence);
        let drawn = map.drawn.as_ref().map_err(failed)?;
        let items = map.ids.iter().zip(&drawn.points);
        let items = items.filter(|&(&id, _)| reader.code_of(id).is_some());
        let items = items.map(|(&id, &[x, y])| MapItem { x, y, item: ListedItem::new(app, &reader, id) });
        Ok(Some(to_json(&Map { method: drawn.method.to_owned(), items: items.collect() })))
    });
    let (map, permit) = map.await?;
    Ok(match map {
        Some(map) => json_body(held(map, permit)).into_response(),
        None => (StatusCode::ACCEPTED, json_body("{}")).into_response(),
    })
}
