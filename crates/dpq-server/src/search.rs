//! `POST /v1/search`.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use axum::body::Body as Answer;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use dpq_codebook::{CodeLength, Expected};
use dpq_index::SearchOptions;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant as Deadline, timeout_at};
use tracing::warn;
use utoipa::{IntoParams, ToSchema};

use crate::app::{App, Body, Known, json, parameters};
use crate::gallery::{Filter, Reader};
use crate::permit::held;
use crate::refusal::{Refusal, Refused, json_body, to_json};

/// How to search.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Parameters {
    /// Hits to return.
    #[serde(default = "default_k")]
    #[param(default = 10, minimum = 1)]
    k: usize,
    /// Code length to search at, a multiple of 8. The default is the longest.
    #[param(minimum = 8, multiple_of = 8)]
    bits: Option<usize>,
    /// Score only the best N items at a shorter length of B bits: `N@B`, such as `1000@16`.
    shortlist: Option<String>,
    /// Continue after the shortlist until no other item can be among the best.
    #[serde(default)]
    exact: bool,
    /// Leave out items with a lower score.
    min_score: Option<f32>,
    /// Answer at every length up to `bits`, the shortest first, as server-sent events `hits`, each
    /// with one answer. The last event is `end`, or `error`.
    #[serde(default)]
    progressive: bool,
}

fn default_k() -> usize {
    10
}

/// The query, one of `features`, `id` and `name`, and the items to search among.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Query {
    /// A feature vector, one number per dimension.
    features: Option<Vec<f32>>,
    /// The id of an item of the gallery, whose code is the query.
    id: Option<u64>,
    /// The name of an item of the gallery, whose code is the query.
    name: Option<String>,
    /// The items to search among, ids or names. The default is all. Unknown ones are ignored.
    allow: Option<Vec<Key>>,
    /// Items to leave out, ids or names. Unknown ones are ignored.
    #[serde(default)]
    deny: Vec<Key>,
}

/// An item, by its id or its name.
#[derive(Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected ids (whole numbers) or names")]
pub(crate) enum Key {
    Id(u64),
    Name(String),
}

/// The best items at one length.
#[derive(Serialize, ToSchema)]
pub(crate) struct Found {
    /// The code length that was searched.
    bits: usize,
    /// The commit that was searched, of a live index.
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<u64>,
    /// The time of the search itself.
    microseconds: u64,
    hits: Vec<Hit>,
}

/// An item found: best first, and equal scores by ascending id.
#[derive(Serialize, ToSchema)]
pub(crate) struct Hit {
    id: u64,
    /// The inner product, or ‖q‖² minus the squared distance.
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The names of its classes, where they are known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    labels: Vec<String>,
    /// Whether it has a picture.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    picture: bool,
}

/// Finds the items nearest to a feature, an image or an item
#[utoipa::path(
    post,
    path = "/v1/search",
    params(Parameters),
    request_body(content((Query = "application/json"), ("image/*"))),
    responses(
        (
            status = 200,
            description = "The best items; events if progressive",
            content((Found = "application/json"), (String = "text/event-stream"))
        ),
        Refused,
    )
)]
pub(crate) async fn search(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let parameters: Parameters = parameters(request.uri())?;
    let body = app.body(request).await?;
    if parameters.progressive {
        return events(&app, parameters, body).await;
    }
    let found = app.work(move |app, interrupt| {
        let search = Search::new(app, &parameters, body)?;
        Ok(to_json(&search.at(app, search.length, interrupt)?))
    });
    let (found, permit) = found.await?;
    Ok(json_body(held(found, permit)).into_response())
}

/// Answers at one length after the other. The status says whether the first search succeeded, and
/// the last event whether all did.
async fn events(app: &Arc<App>, parameters: Parameters, body: Body) -> Result<Response, Refusal> {
    let deadline = Deadline::now() + app.options.limits.time;
    // All hits together are as many as those of one answer may be, so that they all fit in memory
    // and a slow client does not hold a thread. `None` is the end.
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let (interrupt, permit) = app.start(move |app, interrupt| {
        let send = || {
            let search = Search::new(app, &parameters, body)?;
            for length in search.lengths() {
                if sender.send(Ok(Some(to_json(&search.at(app, length, interrupt)?)))).is_err() {
                    break;
                }
            }
            Ok(None)
        };
        let _ = sender.send(send());
    })?;
    let first = timeout_at(deadline, receiver.recv()).await.map_err(|_| Refusal::late())?;
    let state = Some((Some(first.ok_or_else(Refusal::broken)??), receiver, (interrupt, permit)));
    let events = futures_util::stream::unfold(state, move |state| async move {
        let (first, mut receiver, kept) = state?;
        let next = match first {
            Some(first) => Ok(first),
            None => match timeout_at(deadline, receiver.recv()).await {
                Ok(next) => next.unwrap_or_else(|| Err(Refusal::broken())),
                Err(_) => Err(Refusal::late()),
            },
        };
        let (event, state) = match next {
            Ok(Some(json)) => (format!("event: hits\ndata: {json}\n\n"), Some((None, receiver, kept))),
            Ok(None) => ("event: end\ndata: {}\n\n".to_owned(), None),
            Err(refusal) => {
                // The request is logged already.
                warn!(error = refusal.sentence(), "search fails");
                (format!("event: error\ndata: {}\n\n", refusal.into_json()), None)
            }
        };
        Some((Ok::<_, Infallible>(event), state))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Answer::from_stream(events)).into_response())
}

/// A search that was checked as far as that takes no time.
struct Search {
    reader: Arc<Reader>,
    features: Vec<f32>,
    filter: Option<Filter>,
    k: usize,
    length: CodeLength,
    shortlist: Option<(usize, CodeLength)>,
    exact: bool,
    min_score: Option<f32>,
}

impl Search {
    fn new(app: &App, parameters: &Parameters, body: Body) -> Result<Self, Refusal> {
        let (reader, limits) = (app.reader(), &app.options.limits);
        let codebooks = reader.codebooks();
        let &Parameters { k, bits, exact, min_score, progressive, .. } = parameters;
        Expected::Range(1..=limits.hits).check("k", k)?;
        let length = bits.map_or(Ok(codebooks.max_length()), CodeLength::from_bits)?;
        codebooks.check_length(length)?;
        let shortlist = parameters.shortlist.as_deref().map(shortlist).transpose()?;
        match shortlist {
            Some((n, _)) => Expected::Range(k..=limits.shortlist).check("size of the shortlist", n)?,
            None if exact => return Err(Refusal::bad("exact is about a shortlist, give shortlist too")),
            None => {}
        }
        let n_lengths = codebooks.lengths().filter(|&other| progressive && other <= length).count();
        Expected::Range(0..=limits.hits).check("number of hits at all lengths", k * n_lengths)?;
        if progressive && shortlist.is_some() {
            return Err(Refusal::bad("a progressive search has no shortlist, leave one of them out"));
        }
        let (features, filter) = match body {
            Body::Image(image) => (app.feature(&image)?, None),
            Body::Json(bytes) => {
                let query: Query = json(&bytes)?;
                let filter = query.filter(&reader)?;
                let Query { features, id, name, .. } = query;
                (Subject { features, id, name, code: None }.features(&reader)?.0, filter)
            }
        };
        Expected::Shape(vec![codebooks.dim()]).check("features", features.len())?;
        Ok(Self { features, filter, k, length, shortlist, exact, min_score, reader: reader.clone() })
    }

    /// Yields the lengths up to that of the search.
    fn lengths(&self) -> impl Iterator<Item = CodeLength> + use<> {
        let max = self.length;
        self.reader.codebooks().lengths().filter(move |&length| length <= max)
    }

    fn at(&self, app: &App, length: CodeLength, interrupt: &AtomicBool) -> Result<Found, Refusal> {
        let mut options = SearchOptions::new(self.k).length(length).interrupt(interrupt);
        if let Some((n, length)) = self.shortlist {
            options = options.shortlist(n, length);
        }
        if self.exact {
            options = options.exact();
        }
        if let Some(min_score) = self.min_score {
            options = options.min_score(min_score);
        }
        let start = Instant::now();
        let hits = self.reader.search(&self.features, &options, self.filter.as_ref())?;
        let microseconds = start.elapsed().as_micros() as u64;
        let hit = |hit: dpq_index::Hit| {
            let Known { name, labels, picture } = app.known(&self.reader, hit.id);
            Hit { id: hit.id, score: hit.score, name, labels, picture }
        };
        let hits = hits.into_iter().map(hit).collect();
        Ok(Found { bits: length.bits(), commit: self.reader.commit(), microseconds, hits })
    }
}

/// Features, an item or a code, of which a request gives one.
pub(crate) struct Subject {
    pub(crate) features: Option<Vec<f32>>,
    pub(crate) id: Option<u64>,
    pub(crate) name: Option<String>,
    pub(crate) code: Option<Vec<u8>>,
}

impl Subject {
    /// Returns the query `[D]`: the features, or what a code stands for, and that code.
    pub(crate) fn features(self, reader: &Reader) -> Result<(Vec<f32>, Option<Vec<u8>>), Refusal> {
        let unknown = |item: String| {
            let sentence = format!("no item has the {item}, give one of the gallery");
            Refusal::new(StatusCode::NOT_FOUND, sentence)
        };
        let of_id = |id| reader.code_of(id).ok_or_else(|| unknown(format!("id {id}")));
        let code = match (self.features, self.id, self.name, self.code) {
            (Some(features), None, None, None) => return Ok((features, None)),
            (None, Some(id), None, None) => of_id(id)?,
            (None, None, Some(name), None) => {
                of_id(reader.id_of(&name).ok_or_else(|| unknown(format!("name {name:?}")))?)?
            }
            (None, None, None, Some(code)) => code,
            _ => return Err(Refusal::bad("the query is not clear, give one of features, id and name")),
        };
        let codebooks = reader.codebooks();
        Expected::Shape(vec![codebooks.n_levels()]).check("a code", code.len())?;
        let features = codebooks.decode(&code, codebooks.max_length())?;
        Ok((features, Some(code)))
    }
}

impl Query {
    fn filter(&self, reader: &Reader) -> Result<Option<Filter>, Refusal> {
        let ids = |keys: &[Key]| -> Vec<u64> {
            let id = |key: &Key| match key {
                Key::Id(id) => Some(*id),
                Key::Name(name) => reader.id_of(name),
            };
            keys.iter().filter_map(id).collect()
        };
        let allow = self.allow.as_deref().map(ids);
        reader.filter(allow.as_deref(), &ids(&self.deny))
    }
}

/// Reads `N@B`.
fn shortlist(text: &str) -> Result<(usize, CodeLength), Refusal> {
    let numbers = text.split_once('@').and_then(|(n, bits)| Some((n.parse().ok()?, bits.parse().ok()?)));
    let Some((n, bits)) = numbers else {
        return Err(Refusal::bad(format!(
            "the shortlist is {text:?}, expected items and bits, such as 1000@16"
        )));
    };
    Ok((n, CodeLength::from_bits(bits)?))
}
