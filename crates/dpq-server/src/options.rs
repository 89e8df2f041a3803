//! The options and the limits of a server.

use std::sync::Arc;
use std::time::Duration;

use dpq_codebook::{Error, Expected};

use crate::catalog::{Catalog, DrawMap};

/// Makes the feature `[D]` of an image from the contents of its file, or says in one sentence why
/// it cannot. Several threads call it at once.
pub type Features = dyn Fn(&[u8]) -> Result<Vec<f32>, String> + Send + Sync;

/// The options of a server.
pub struct Options {
    /// Threads that search, and as many that read requests and write answers.
    pub threads: usize,
    /// The bearer token that requests need to change the gallery. Without one, the server listens
    /// only at loopback addresses.
    pub token: Option<String>,
    /// Makes features of images. Without it, requests with images are refused.
    pub features: Option<Box<Features>>,
    /// Codes that a beam search keeps per level when features or images are added; 1 is greedy.
    pub beam: usize,
    /// Tells names, classes and pictures of items.
    pub catalog: Option<Box<dyn Catalog>>,
    /// Draws the map of the gallery, at the first request for it.
    pub map: Option<Arc<DrawMap>>,
    /// The limits of requests.
    pub limits: Limits,
}

impl Options {
    /// Makes options with threads and limits alone, and for greedy codes.
    pub fn new(threads: usize) -> Self {
        let limits = Limits::default();
        Self { threads, token: None, features: None, beam: 1, catalog: None, map: None, limits }
    }

    /// Refuses what no machine could keep.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let &Limits { body, name, hits, shortlist, waiting, connections, time } = &self.limits;
        let milliseconds = usize::try_from(time.as_millis()).unwrap_or(usize::MAX);
        for (what, found, expected) in [
            ("number of threads", self.threads, 1..=4096),
            ("width of the beam", self.beam, 1..=256),
            ("maximum size of a body", body, 1..=1 << 30),
            ("maximum length of a name", name, 1..=1 << 16),
            ("maximum number of hits", hits, 1..=1_000_000),
            ("maximum size of a shortlist", shortlist, 1..=100_000_000),
            ("maximum number of waiting requests", waiting, 0..=1 << 16),
            ("maximum number of connections", connections, 1..=1_000_000),
            ("maximum time in milliseconds", milliseconds, 1..=86_400_000),
        ] {
            Expected::Range(expected).check(what, found)?;
        }
        Ok(())
    }
}

/// The limits of requests. Beyond them a request is refused, so that no client takes the memory or
/// the time of all others.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a body.
    pub body: usize,
    /// Bytes of the name of an item that is added.
    pub name: usize,
    /// Hits of an answer, at all lengths together.
    pub hits: usize,
    /// Items of a shortlist.
    pub shortlist: usize,
    /// Requests that wait for a thread, also for the one that makes changes. The next one is
    /// answered with the status 503.
    pub waiting: usize,
    /// Open connections. Further ones wait until one of these ends. There are fewer if the process
    /// may not open as many files ([`Server::connections`](crate::Server::connections)).
    pub connections: usize,
    /// The time to receive the head of a request, then its body, then to answer it, and for the
    /// client to read the answer, each. A connection without requests ends after this time too.
    pub time: Duration,
}

impl Default for Limits {
    /// Bodies of 8 MiB, names of 1,024 bytes, 10,000 hits, shortlists of 100,000 items, 256
    /// requests waiting, 1,024 connections, and 10 seconds.
    fn default() -> Self {
        Self {
            body: 8 << 20,
            name: 1024,
            hits: 10_000,
            shortlist: 100_000,
            waiting: 256,
            connections: 1024,
            time: Duration::from_secs(10),
        }
    }
}
