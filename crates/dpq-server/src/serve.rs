//! The server: accepts connections until it is told to stop.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{delete, get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::runtime::{self, Runtime};
use tokio::sync::Semaphore;
use tokio::time::{interval, sleep, timeout};
use tracing::{info, warn};

use crate::app::{App, only_this_machine};
use crate::error::Error;
use crate::gallery::{Gallery, Latest, Reader};
use crate::options::{Limits, Options};
use crate::pace::Paced;
use crate::refusal::{Failure, Refusal};
use crate::writer::{Writer, WriterThread};
use crate::{browse, code, info, items, openapi, page, search};

/// How often the server looks whether it is to stop.
const TICK: Duration = Duration::from_millis(50);

/// A server that is ready to run.
pub struct Server {
    listener: TcpListener,
    router: Router,
    runtime: Runtime,
    limits: Limits,
    /// The thread that changes a live index.
    writer: Option<WriterThread>,
}

impl Server {
    /// Makes a server of `gallery` that answers at `listener`.
    ///
    /// # Errors
    /// [`Error::Exposed`] without a token if the address is not a loopback address,
    /// [`Error::Token`] for a token that no request can have, [`Error::Limit`], [`Error::Live`] if
    /// the last commit of a live index cannot be searched, and [`Error::Io`] if the system refuses
    /// a thread.
    pub fn new(listener: TcpListener, gallery: Gallery, options: Options) -> Result<Self, Error> {
        let address = listener.local_addr().map_err(Error::io("read the address of the listener"))?;
        match &options.token {
            None if !address.ip().is_loopback() => return Err(Error::Exposed { address }),
            Some(token) if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) => {
                return Err(Error::Token);
            }
            _ => {}
        }
        options.check()?;
        let (threads, mut limits) = (options.threads, options.limits.clone());
        limits.connections = limits.connections.min(max_connections());
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .max_blocking_threads(threads)
            .thread_name("dpq-server")
            .enable_all()
            .build()
            .map_err(Error::io("start the threads of the server"))?;
        let (reader, live) = match gallery {
            Gallery::File(index) => (Reader::File(index), None),
            Gallery::Live(live) => (Reader::Live(live.snapshot()?), Some(*live)),
        };
        // Not in a search, which has a time limit.
        reader.sort_ids();
        let latest = Arc::new(Latest::new(reader));
        let start = |live| Writer::start(live, latest.clone());
        let started = live.map(start).transpose().map_err(Error::io("start the thread that writes"))?;
        let (writer, thread) = started.unzip();
        let router = router(&Arc::new(App::new(latest, writer, options)));
        Ok(Self { listener, router, runtime, limits, writer: thread })
    }

    /// Returns how many connections may be open: those of the limits, or as many as the process may
    /// open files besides its own.
    pub fn connections(&self) -> usize {
        self.limits.connections
    }

    /// Answers requests until `stop` becomes true. Then it accepts no connection, interrupts
    /// merges, gives the requests that are open the time of one to end, and work and a commit as
    /// much, and returns. A change that has not begun by then is not made.
    ///
    /// # Errors
    /// [`Error::Io`] if the system cannot listen.
    pub fn run(self, stop: &AtomicBool) -> Result<(), Error> {
        let Self { listener, router, runtime, limits, writer } = self;
        info!(address = listener.local_addr().ok().map(tracing::field::display), "listening");
        let served = runtime.block_on(async {
            let open = accept(listener, router, &limits, stop).await?;
            info!("stopping");
            writer.iter().for_each(WriterThread::stop_merging);
            let _ = timeout(limits.time, open.shutdown()).await;
            Ok(())
        });
        let deadline = Instant::now() + limits.time;
        runtime.shutdown_timeout(limits.time);
        if let Some(writer) = writer {
            writer.end(deadline + TICK);
        }
        info!("stopped");
        served
    }
}

fn router(app: &Arc<App>) -> Router {
    let unknown = || async {
        Refusal::new(StatusCode::NOT_FOUND, "nothing is at this path, /openapi.json lists what there is")
    };
    let method = || async {
        let sentence = "this path does not take this method, /openapi.json lists what there is";
        Refusal::new(StatusCode::METHOD_NOT_ALLOWED, sentence)
    };
    Router::new()
        .route("/v1/search", post(search::search))
        .route("/v1/code", post(code::code))
        .route("/v1/items", post(items::add).put(items::put).get(browse::list))
        .route("/v1/items/{id}", delete(items::delete))
        .route("/v1/items/{id}/picture", get(browse::picture))
        .route("/v1/map", get(browse::map))
        .route("/v1/index", get(info::index))
        .route("/healthz", get(info::health))
        .route("/metrics", get(info::metrics))
        .route("/openapi.json", get(openapi::get))
        .route("/", get(page::index))
        .route("/page/{file}", get(page::file))
        .fallback(unknown)
        .method_not_allowed_fallback(method)
        .layer(DefaultBodyLimit::max(app.options.limits.body))
        .layer(from_fn_with_state(app.clone(), only_this_machine))
        .layer(from_fn_with_state(app.clone(), measure))
        .with_state(app.clone())
}

/// Headers of all answers: pages of other sites embed none, and no browser guesses its kind.
const ANSWER_HEADERS: [(HeaderName, &str); 2] =
    [(CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Counts a request and its time, and logs it.
async fn measure(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let id = N_REQUESTS.fetch_add(1, Ordering::Relaxed);
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let path = request.extensions().get::<MatchedPath>().cloned();
    let start = Instant::now();
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in ANSWER_HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(REQUEST_ID, id.into());
    let (status, seconds) = (response.status(), start.elapsed().as_secs_f64());
    let route = path.as_ref().map_or("other", MatchedPath::as_str);
    app.metrics.count(route, status, seconds);
    // Without its query, which can have anything.
    let path = uri.path();
    let path = &path[..path.floor_char_boundary(MAX_PATH)];
    let (status, ms) = (status.as_u16(), 1e3 * seconds);
    match response.extensions().get::<Failure>() {
        Some(Failure(error)) => warn!(id, %method, path, status, ms, error, "request"),
        None => info!(id, %method, path, status, ms, "request"),
    }
    response
}

/// Requests of all servers of the process.
static N_REQUESTS: AtomicU64 = AtomicU64::new(1);

/// The number of a request, which logs have too.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The maximum length of a path in logs, in bytes.
const MAX_PATH: usize = 200;

async fn accept(
    listener: TcpListener,
    router: Router,
    limits: &Limits,
    stop: &AtomicBool,
) -> Result<GracefulShutdown, Error> {
    let listener = listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener));
    let listener = listener.map_err(Error::io("listen"))?;
    let slots = Arc::new(Semaphore::new(limits.connections));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.time);
    let open = GracefulShutdown::new();
    let mut tick = interval(TICK);
    while !stop.load(Ordering::Relaxed) {
        let next = async {
            let slot = slots.clone().acquire_owned().await;
            (listener.accept().await, slot)
        };
        let (accepted, slot) = tokio::select! {
            next = next => next,
            _ = tick.tick() => continue,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            // The client is gone, or there are too many open files.
            Err(error) => {
                warn!(%error, "no connection");
                sleep(TICK).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let stream = TokioIo::new(Paced::new(stream, limits.time));
        let service = TowerToHyperService::new(router.clone());
        let connection = open.watch(http.serve_connection(stream, service));
        tokio::spawn(async move {
            // An error is that of a client: it went away, or sent something that is not HTTP.
            let _ = connection.await;
            drop(slot);
        });
    }
    Ok(open)
}

/// Files of the process besides connections: those of threads, indexes and commits.
#[cfg(unix)]
const OWN_FILES: u64 = 64;

/// Returns how many connections the process may open.
#[cfg(unix)]
fn max_connections() -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    files.map_or(usize::MAX, |files| files.saturating_sub(OWN_FILES).max(1) as usize)
}

#[cfg(not(unix))]
fn max_connections() -> usize {
    usize::MAX
}
