//! Logs of the server go to the subscriber of its caller. A process of its own, since the server
//! logs from many threads to one subscriber.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

#[path = "it/client.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod client;

use std::io::{self, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use client::Client;
use dpq_codebook::{Assignment, Codebooks};
use dpq_index::Metric;
use dpq_live::LiveIndex;
use dpq_server::{Gallery, Options, Server};
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// Returns the line about a request, which comes right before its answer is sent.
    fn request(&self, id: &str) -> Value {
        let text = self.text();
        let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.find(|line| line["id"].as_u64() == id.parse().ok()).unwrap()
    }
}

#[test]
fn requests_and_changes_are_logged_without_tokens_and_queries() {
    let lines = Lines::default();
    tracing_subscriber::fmt().json().flatten_event(true).with_writer(lines.clone()).init();
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("live");
    let codebooks = Codebooks::new(vec![1.0, 0.0, 0.0, 1.0], 1, 2, 2, Assignment::Euclidean).unwrap();
    let mut live = LiveIndex::create(&folder, &codebooks, Metric::Euclidean).unwrap();
    // Small segments are merged soon.
    live.set_max_tail(4).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let options = Options { token: Some("a-secret".to_owned()), ..Options::new(1) };
    let server = Server::new(listener, Gallery::Live(Box::new(live)), options).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    let server = thread::spawn(move || server.run(&flag));
    let mut client = Client::new(address);
    let kind = ("content-type", "application/json");
    let token = ("authorization", "Bearer a-secret");
    let items = br#"{"items": [{"id": 4321, "code": [1]}]}"#;
    let long = format!("/v1/items/{}", "7".repeat(500));
    let [begin, end] = [&folder, &dir.path().join("elsewhere")].map(Clone::clone);
    for (method, path, headers, body, status, logged) in [
        ("POST", "/v1/items?id=hidden", &[kind][..], &items[..], 401, "/v1/items"),
        ("POST", "/v1/items", &[kind, token], items, 200, "/v1/items"),
        ("GET", "/nothing?secret=hidden", &[], b"", 404, "/nothing"),
        ("DELETE", &long, &[token], b"", 400, &long[..200]),
    ] {
        let answer = client.send(method, path, headers, body);
        assert_eq!(answer.status, status, "{path}");
        let line = lines.request(answer.header("x-request-id").unwrap());
        let found = [&line["method"], &line["path"], &line["status"], &line["message"], &line["level"]];
        assert_eq!(
            found,
            [&json!(method), &json!(logged), &json!(status), &json!("request"), &json!("INFO")]
        );
        assert!(line["ms"].as_f64().unwrap() > 0.0 && line.get("error").is_none(), "{line}");
    }
    // A failure has its reason.
    std::fs::rename(&begin, &end).unwrap();
    let answer = client.send("DELETE", "/v1/items/4321", &[token], b"");
    std::fs::rename(&end, &begin).unwrap();
    let line = lines.request(answer.header("x-request-id").unwrap());
    assert_eq!((answer.status, &line["level"]), (500, &json!("WARN")));
    let said: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(line["error"], said["error"]);
    let has = |message: &str| lines.text().contains(&format!("\"message\":\"{message}\""));
    let start = Instant::now();
    while !(has("merge begins") && has("merge ends")) {
        assert!(start.elapsed() < Duration::from_secs(60), "no merge");
        let items = br#"{"items": [{"code": [0]}, {"code": [1]}]}"#;
        assert_eq!(client.send("POST", "/v1/items", &[kind, token], items).status, 200);
        sleep(Duration::from_millis(5));
    }
    assert!(has("listening") && has("commit") && !has("stopping") && !has("stopped"));
    stop.store(true, Ordering::Relaxed);
    server.join().unwrap().unwrap();
    assert!(has("stopping") && has("stopped"));
    let text = lines.text();
    assert!(!text.contains("a-secret") && !text.contains("hidden"), "{text}");
}
