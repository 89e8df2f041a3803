//! The state that all requests share, the threads that work, and the checks of a request.

use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use serde::de::DeserializeOwned;
use subtle::ConstantTimeEq;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use crate::gallery::{Latest, Reader};
use crate::metrics::Metrics;
use crate::options::Options;
use crate::permit::Permit;
use crate::refusal::Refusal;
use crate::sample::Sample;
use crate::writer::Writer;

pub(crate) struct App {
    pub(crate) latest: Arc<Latest>,
    /// None for an index file.
    pub(crate) writer: Option<Writer>,
    pub(crate) options: Options,
    pub(crate) metrics: Metrics,
    pub(crate) sample: Sample,
    /// One permit per request that works or waits for a thread, also for the one that writes.
    permits: Arc<Semaphore>,
    n_permits: usize,
}

/// Ends the work of a request when it is dropped: the client has its answer, or is gone, or has
/// waited too long.
#[derive(Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The body of a request.
pub(crate) enum Body {
    Json(Bytes),
    Image(Bytes),
}

/// Facts on an item beside its code.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) name: Option<String>,
    pub(crate) labels: Vec<String>,
    pub(crate) picture: bool,
}

impl App {
    pub(crate) fn new(latest: Arc<Latest>, writer: Option<Writer>, options: Options) -> Self {
        let n_permits = options.threads + options.limits.waiting;
        let permits = Arc::new(Semaphore::new(n_permits));
        Self {
            latest,
            writer,
            options,
            metrics: Metrics::new(),
            sample: Sample::default(),
            permits,
            n_permits,
        }
    }

    pub(crate) fn reader(&self) -> Arc<Reader> {
        self.latest.get()
    }

    /// Returns the number of requests that work or wait for a thread.
    pub(crate) fn n_working(&self) -> usize {
        self.n_permits - self.permits.available_permits()
    }

    /// Lets a request take memory until it drops the permit.
    pub(crate) fn permit(&self) -> Result<Permit, Refusal> {
        self.permits.clone().try_acquire_owned().map(Arc::new).map_err(|_| Refusal::busy())
    }

    /// Runs `work` in one of the threads for that, unless the interrupt is dropped before. The
    /// permit is free when neither the work nor the caller has it.
    pub(crate) fn start(
        self: &Arc<Self>,
        work: impl FnOnce(&Self, &AtomicBool) + Send + 'static,
    ) -> Result<(Interrupt, Permit), Refusal> {
        let permit = self.permit()?;
        let (app, interrupt, working) = (self.clone(), Interrupt::default(), permit.clone());
        let flag = interrupt.0.clone();
        tokio::task::spawn_blocking(move || {
            if !flag.load(Ordering::Relaxed) {
                work(&app, &flag);
            }
            drop(working);
        });
        Ok((interrupt, permit))
    }

    /// Returns the result of `work`, which runs in one of the threads for that, and the permit that
    /// its memory takes.
    pub(crate) async fn work<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self, &AtomicBool) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<(T, Permit), Refusal> {
        let (sender, receiver) = oneshot::channel();
        let (_interrupt, permit) = self.start(move |app, flag| {
            let _ = sender.send(work(app, flag));
        })?;
        Ok((self.wait(receiver, Refusal::late).await??, permit))
    }

    /// Waits for a result for as long as a request may take.
    pub(crate) async fn wait<T>(
        &self,
        result: oneshot::Receiver<T>,
        late: impl FnOnce() -> Refusal,
    ) -> Result<T, Refusal> {
        let result = timeout(self.options.limits.time, result).await.map_err(|_| late())?;
        result.map_err(|_| Refusal::broken())
    }

    /// Receives the body of a request.
    pub(crate) async fn body(&self, request: Request) -> Result<Body, Refusal> {
        let kind =
            request.headers().get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or("?").to_owned());
        let kind = kind.as_deref().and_then(|kind| kind.split(';').next()).unwrap_or("none").trim();
        let is_image = kind.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("image/"));
        if !is_image && !kind.eq_ignore_ascii_case("application/json") {
            let sentence = format!("the content type is {kind:?}, expected application/json or image/…");
            return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence));
        }
        let limits = &self.options.limits;
        let bytes = match timeout(limits.time, Bytes::from_request(request, &())).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) => return Err(self.unreadable(&error)),
            Err(_) => {
                let sentence = "the body did not arrive in time, send it faster";
                return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, sentence));
            }
        };
        Ok(if is_image { Body::Image(bytes) } else { Body::Json(bytes) })
    }

    fn unreadable(&self, error: &BytesRejection) -> Refusal {
        let sentence = match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                format!("the body is larger than {} bytes, send less", self.options.limits.body)
            }
            _ => "the body ended early, send all of it".to_owned(),
        };
        Refusal::new(error.status(), sentence)
    }

    /// Returns the feature of the contents of an image file.
    pub(crate) fn feature(&self, image: &[u8]) -> Result<Vec<f32>, Refusal> {
        let Some(features) = &self.options.features else {
            let sentence = "this server has no model for images, send features or an id as JSON";
            return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence));
        };
        features(image).map_err(Refusal::bad)
    }

    /// Returns what is known of the item of `reader` with this id.
    pub(crate) fn known(&self, reader: &Reader, id: u64) -> Known {
        let name = self.name(reader, id);
        let Some(catalog) = &self.options.catalog else {
            return Known { name: name.map(str::to_owned), ..Known::default() };
        };
        Known {
            labels: catalog.labels(id, name).into_iter().map(str::to_owned).collect(),
            picture: catalog.has_picture(id, name),
            name: name.map(str::to_owned),
        }
    }

    pub(crate) fn name<'a>(&'a self, reader: &'a Reader, id: u64) -> Option<&'a str> {
        reader.name_of(id).or_else(|| self.options.catalog.as_ref()?.name(id))
    }

    /// Returns the thread that changes the gallery, if this request may.
    pub(crate) fn writer(&self, headers: &HeaderMap) -> Result<&Writer, Refusal> {
        let Some(writer) = &self.writer else {
            let sentence =
                "the gallery is an index file, which does not change, serve the folder of a live index";
            return Err(Refusal::new(StatusCode::FORBIDDEN, sentence));
        };
        let Some(token) = &self.options.token else { return Ok(writer) };
        let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = header.and_then(|value| {
            let (scheme, given) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(given.trim())
        });
        let is_right = given.is_some_and(|given| given.as_bytes().ct_eq(token.as_bytes()).into());
        let sentence = "changes need the server's token, send it as `Authorization: Bearer TOKEN`";
        is_right.then_some(writer).ok_or_else(|| Refusal::new(StatusCode::UNAUTHORIZED, sentence))
    }
}

/// Headers of proxies, which pass on the requests of other machines.
const FORWARDED: [&str; 5] = ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"];

/// Without a token, refuses requests that may not come from this machine: those of a proxy, and
/// those of a page of another site, whose name can resolve to this machine. A link to the page is
/// no such request.
pub(crate) async fn only_this_machine(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    if app.options.token.is_none() {
        let headers = request.headers();
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let forwarded = FORWARDED.into_iter().find(|&name| headers.contains_key(name));
        let of_other_site = headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site")
            && headers.get("sec-fetch-mode").is_none_or(|mode| mode != "navigate");
        if !is_this_machine(host) || forwarded.is_some() || of_other_site {
            let found = match forwarded {
                Some(name) => format!("the header {name}"),
                None if of_other_site => "a page of another site".to_owned(),
                None => format!("the host {host:?}"),
            };
            let sentence =
                format!("without a token, the server answers requests to localhost only, found {found}");
            return Err(Refusal::new(StatusCode::FORBIDDEN, sentence));
        }
    }
    Ok(next.run(request).await)
}

/// Returns true for names that no other site can have.
fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Reads the query string.
pub(crate) fn parameters<T: DeserializeOwned>(uri: &Uri) -> Result<T, Refusal> {
    // The reader below takes any bytes, and puts a sign in the place of what is no text.
    if !is_percent_encoded(uri.query().unwrap_or_default()) {
        return Err(Refusal::bad(
            "the query string has a wrong % or is not UTF-8, percent-encode its values",
        ));
    }
    match Query::try_from_uri(uri) {
        Ok(Query(parameters)) => Ok(parameters),
        Err(error) => Err(undescribed("query string", error.source().unwrap_or(&error))),
    }
}

/// Returns true if two digits follow each %, and the decoded bytes are UTF-8.
fn is_percent_encoded(text: &str) -> bool {
    let mut parts = text.split('%');
    let first = parts.next().unwrap_or_default();
    let bytes = parts.try_fold(first.as_bytes().to_vec(), |mut bytes, part| {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
        Some(bytes)
    });
    bytes.is_some_and(|bytes| std::str::from_utf8(&bytes).is_ok())
}

/// Reads a body of JSON.
pub(crate) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes).map_err(|error| undescribed("body", &error))
}

fn undescribed(what: &str, error: &dyn Error) -> Refusal {
    Refusal::bad(format!("the {what} is not as described in /openapi.json: {error}"))
}
