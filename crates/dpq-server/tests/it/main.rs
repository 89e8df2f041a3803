//! Tests of the server over connections, as its clients see it.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod bad;
mod changes;
mod client;
mod limits;
mod page;
mod search;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use client::{Answer, Client};
use dpq_index::{Assignment, Codebooks, Index, Metric};
use dpq_live::LiveIndex;
use dpq_server::{Error, Gallery, Options};
use serde_json::Value;
use tempfile::TempDir;

const DIM: usize = 4;
const LEVELS: usize = 3;
const ITEMS: u64 = 500;

/// A server that stops when it is dropped.
struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl Server {
    fn start(gallery: Gallery, options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let flag = stop.clone();
        let server = dpq_server::Server::new(listener, gallery, options).unwrap();
        let thread = Some(thread::spawn(move || server.run(&flag)));
        Self { address, stop, thread }
    }

    fn client(&self) -> Client {
        Client::new(self.address)
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Pseudo-random numbers in −1..1.
fn numbers(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn codebooks() -> Codebooks {
    Codebooks::new(numbers(1, LEVELS * 16 * DIM), LEVELS, 16, DIM, Assignment::Euclidean).unwrap()
}

/// The codes of items 0 to 499.
fn codes() -> Vec<u8> {
    codebooks().encode(&numbers(2, ITEMS as usize * DIM)).unwrap()
}

fn index(metric: Metric) -> Index {
    Index::builder(&codebooks(), &codes()).metric(metric).build().unwrap()
}

/// Makes a live index of the same items, of which every tenth has the name `item ID`.
fn live(folder: &Path, max_tail: usize) -> LiveIndex {
    let mut live = LiveIndex::create(folder, &codebooks(), Metric::Euclidean).unwrap();
    live.set_max_tail(max_tail).unwrap();
    for (id, code) in (0..).zip(codes().chunks_exact(LEVELS)) {
        match id % 10 {
            0 => live.upsert_named(id, code, &format!("item {id}")).unwrap(),
            _ => live.upsert(id, code).unwrap(),
        }
    }
    live.commit().unwrap();
    live
}

/// Serves a live index in a folder that goes with the first result.
fn serve_live(options: Options) -> (TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let live = live(&dir.path().join("live"), 100);
    let server = Server::start(Gallery::Live(Box::new(live)), options);
    (dir, server)
}

/// Takes the bytes of a file "image" as its feature.
fn with_images(threads: usize) -> Options {
    let features = |bytes: &[u8]| match bytes {
        [b'i', b'm', b'g', feature @ ..] => Ok(feature.iter().map(|&byte| f32::from(byte) / 64.0).collect()),
        _ => Err("the file is not an image, send another".to_owned()),
    };
    Options { features: Some(Box::new(features)), ..Options::new(threads) }
}

fn json(answer: &Answer) -> Value {
    assert_eq!(answer.header("content-type"), Some("application/json"));
    serde_json::from_slice(&answer.body).unwrap()
}

/// Returns the ids and the bits of the scores of hits.
fn hits(found: &Value) -> Vec<(u64, u32)> {
    let hit = |hit: &Value| (hit["id"].as_u64().unwrap(), (hit["score"].as_f64().unwrap() as f32).to_bits());
    found["hits"].as_array().unwrap().iter().map(hit).collect()
}

#[test]
fn the_description_is_current() {
    expect_test::expect_file!["../../openapi.json"].assert_eq(&dpq_server::openapi());
    let description: Value = serde_json::from_str(&dpq_server::openapi()).unwrap();
    let text = dpq_server::openapi();
    let references: Vec<_> =
        text.split("\"$ref\": \"#").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(references.len() > 20, "{references:?}");
    for reference in references {
        assert!(description.pointer(reference).is_some(), "{reference} leads nowhere");
    }
    let server = Server::start(Gallery::File(Box::new(index(Metric::InnerProduct))), Options::new(1));
    let answer = server.client().get("/openapi.json");
    assert_eq!((answer.status, answer.text()), (200, &*dpq_server::openapi()));
}
