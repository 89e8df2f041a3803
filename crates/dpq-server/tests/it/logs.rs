//! Logs of the server go to the subscriber of its caller.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use dpq_server::Options;
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

use crate::serve_live;

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

/// The only test that takes the subscriber of the process, which all servers of these tests log to.
#[test]
fn requests_and_changes_are_logged_without_tokens_and_queries() {
    let lines = Lines::default();
    tracing_subscriber::fmt().json().flatten_event(true).with_writer(lines.clone()).init();
    let (dir, mut server) = serve_live(Options { token: Some("a-secret".to_owned()), ..Options::new(1) });
    let folder = dir.path().join("live");
    let mut client = server.client();
    let kind = ("content-type", "application/json");
    let token = ("authorization", "Bearer a-secret");
    let items = br#"{"items": [{"id": 4321, "code": [1, 2, 3]}]}"#;
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
    assert_eq!(line["error"], crate::json(&answer)["error"]);
    server.stop();
    for message in ["listening", "commit", "stopping", "stopped"] {
        let start = Instant::now();
        while !lines.text().contains(&format!("\"message\":\"{message}\"")) {
            assert!(start.elapsed() < Duration::from_secs(60), "no line {message}");
            sleep(Duration::from_millis(5));
        }
    }
    let text = lines.text();
    assert!(!text.contains("a-secret") && !text.contains("hidden"), "{text}");
}
