//! Slow, many and large requests, and the end of the server.

use std::io::{BufRead, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use dpq_index::Metric;
use dpq_server::{Catalog, Error, Gallery, Limits, Options, Picture};

use crate::client::Client;
use crate::{DIM, Server, index, json};

const IMAGE: [(&str, &str); 1] = [("content-type", "image/png")];

fn file() -> Gallery {
    Gallery::File(Box::new(index(Metric::InnerProduct)))
}

/// A server with one thread, whose images each wait for a message. The number counts those that
/// began.
fn slow(limits: Limits) -> (Server, mpsc::Sender<()>, Arc<AtomicUsize>) {
    let (sender, receiver) = mpsc::channel();
    let (receiver, n_begun) = (Mutex::new(receiver), Arc::new(AtomicUsize::new(0)));
    let count = n_begun.clone();
    let features = move |_: &[u8]| {
        count.fetch_add(1, Ordering::SeqCst);
        let _ = receiver.lock().unwrap().recv_timeout(Duration::from_secs(60));
        Ok(vec![0.5; DIM])
    };
    let options = Options { features: Some(Box::new(features)), limits, ..Options::new(1) };
    (Server::start(file(), options), sender, n_begun)
}

fn until(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < Duration::from_secs(60), "it never happens");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_full_queue_is_answered_at_once() {
    let time = Duration::from_secs(60);
    let (server, go_on, n_begun) = slow(Limits { waiting: 1, time, ..Limits::default() });
    let post = || server.client().send("POST", "/v1/search", &IMAGE, b"x");
    thread::scope(|scope| {
        let first = scope.spawn(post);
        until(|| n_begun.load(Ordering::SeqCst) == 1);
        let second = scope.spawn(post);
        let working = || server.client().get("/metrics").text().contains("\ndpq_requests_working 2\n");
        until(working);
        let refused = server.client().post("/v1/search", r#"{"id": 1}"#);
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
        assert_eq!(json(&refused)["error"], "too many requests are waiting, try again later");
        // Requests that need no thread are answered.
        assert_eq!(server.client().get("/healthz").status, 200);
        go_on.send(()).unwrap();
        go_on.send(()).unwrap();
        assert_eq!((first.join().unwrap().status, second.join().unwrap().status), (200, 200));
    });
    assert_eq!(server.client().post("/v1/search", r#"{"id": 1}"#).status, 200);
}

#[test]
fn late_work_is_given_up() {
    let time = Duration::from_millis(300);
    let (server, go_on, n_begun) = slow(Limits { time, ..Limits::default() });
    for path in ["/v1/search", "/v1/search?progressive=true"] {
        let answer = server.client().send("POST", path, &IMAGE, b"x");
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{}", answer.text());
    }
    // The second was given up before it began.
    assert_eq!(n_begun.load(Ordering::SeqCst), 1);
    go_on.send(()).unwrap();
    until(|| server.client().get("/metrics").text().contains("\ndpq_requests_working 0\n"));
    assert_eq!(n_begun.load(Ordering::SeqCst), 1);
    assert_eq!(server.client().post("/v1/search", r#"{"id": 1}"#).status, 200);
}

#[test]
fn slow_and_silent_clients_are_let_go() {
    let limits = Limits { time: Duration::from_millis(500), connections: 3, ..Limits::default() };
    let server = Server::start(file(), Options { limits, ..Options::new(1) });
    let mut silent = server.client();
    let mut slow_head = server.client();
    slow_head.write(b"POST /v1/search HTT");
    let mut slow_body = server.client();
    slow_body.write(
        b"POST /v1/search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
            content-length: 9\r\n\r\n{",
    );
    // All connections are taken, so this one waits.
    let start = Instant::now();
    assert_eq!(server.client().get("/healthz").status, 200);
    assert!(start.elapsed() > Duration::from_millis(200), "there were more connections");
    assert_eq!(slow_body.answer().unwrap().status, 408);
    assert!(silent.answer().is_none_or(|answer| answer.status == 408));
    assert!(slow_head.answer().is_none_or(|answer| answer.status == 408));
}

/// A client that sends requests and reads no answers.
#[test]
fn a_client_that_does_not_read_is_let_go() {
    let limits = Limits { time: Duration::from_millis(500), connections: 1, ..Limits::default() };
    let server = Server::start(file(), Options { limits, ..Options::new(1) });
    let mut deaf = server.client();
    let request = b"POST /v1/search?k=500 HTTP/1.1\r\nhost: localhost\r\n\
        content-type: application/json\r\ncontent-length: 9\r\n\r\n{\"id\": 1}";
    deaf.0.get_ref().set_write_timeout(Some(Duration::from_secs(60))).unwrap();
    let wrote = (0..100_000).try_for_each(|_| deaf.0.get_mut().write_all(request));
    assert!(wrote.is_err(), "the server took requests without an end");
    assert_eq!(server.client().get("/healthz").status, 200);
}

/// A catalog with one picture that is far larger than what the system takes before it is read.
struct Large;

impl Catalog for Large {
    fn name(&self, _: u64) -> Option<&str> {
        None
    }

    fn labels(&self, _: u64, _: Option<&str>) -> Vec<&str> {
        Vec::new()
    }

    fn has_picture(&self, _: u64, _: Option<&str>) -> bool {
        true
    }

    fn picture(&self, _: u64, _: Option<&str>) -> Result<Option<Picture>, String> {
        Ok(Some(Picture { content_type: "image/png", bytes: vec![7; 64 << 20].into() }))
    }
}

/// An answer takes memory until it is read, so it counts until then.
#[test]
fn an_answer_counts_until_it_is_read() {
    let limits = Limits { time: Duration::from_secs(60), waiting: 0, ..Limits::default() };
    let options = Options { catalog: Some(Box::new(Large)), limits, ..Options::new(1) };
    let server = Server::start(file(), options);
    let mut slow = server.client();
    slow.write(b"GET /v1/items/7/picture HTTP/1.1\r\nhost: localhost\r\n\r\n");
    // The answer has begun.
    slow.0.fill_buf().unwrap();
    assert!(server.client().get("/metrics").text().contains("\ndpq_requests_working 1\n"));
    assert_eq!(server.client().post("/v1/search", r#"{"id": 1}"#).status, 503);
    assert_eq!(slow.answer().unwrap().body.len(), 64 << 20);
    until(|| server.client().post("/v1/search", r#"{"id": 1}"#).status == 200);
}

#[test]
fn a_large_body_is_refused() {
    let limits = Limits { body: 1000, ..Limits::default() };
    let server = Server::start(file(), Options { limits, ..Options::new(1) });
    let text = |n: usize| format!("{{\"id\": 1{}}}", " ".repeat(n - 9));
    assert_eq!(server.client().post("/v1/search", &text(1000)).status, 200);
    let answer = server.client().post("/v1/search", &text(1001));
    assert_eq!(answer.status, 413);
    assert_eq!(json(&answer)["error"], "the body is larger than 1000 bytes, send less");
    // In chunks, without a length.
    let mut client = server.client();
    client.write(
        b"POST /v1/search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
            transfer-encoding: chunked\r\n\r\n",
    );
    client.write(format!("7d0\r\n{}\r\n0\r\n\r\n", " ".repeat(2000)).as_bytes());
    assert_eq!(client.answer().unwrap().status, 413);
}

/// A client that goes away leaves no work behind.
#[test]
fn a_dropped_connection_ends_its_request() {
    let (server, go_on, n_begun) = slow(Limits { time: Duration::from_secs(60), ..Limits::default() });
    let post = || {
        let mut client = server.client();
        client.write(
            b"POST /v1/search HTTP/1.1\r\nhost: localhost\r\n\
            content-type: image/png\r\ncontent-length: 1\r\n\r\nx",
        );
        client
    };
    let working =
        |n| server.client().get("/metrics").text().contains(&format!("\ndpq_requests_working {n}\n"));
    let first = post();
    until(|| n_begun.load(Ordering::SeqCst) == 1);
    let second = post();
    until(|| working(2));
    drop((first, second));
    thread::sleep(Duration::from_millis(200));
    go_on.send(()).unwrap();
    until(|| working(0));
    assert_eq!(n_begun.load(Ordering::SeqCst), 1, "the second request ran for nobody");
}

#[test]
fn a_request_under_way_is_answered_before_the_end() {
    let (mut server, go_on, n_begun) = slow(Limits { time: Duration::from_secs(60), ..Limits::default() });
    let address = server.address;
    let idle = server.client();
    let request = thread::spawn(move || Client::new(address).send("POST", "/v1/search", &IMAGE, b"x").status);
    until(|| n_begun.load(Ordering::SeqCst) == 1);
    server.stop.store(true, Ordering::Relaxed);
    until(|| TcpStream::connect(address).is_err());
    assert!(!request.is_finished());
    go_on.send(()).unwrap();
    assert_eq!(request.join().unwrap(), 200);
    let start = Instant::now();
    server.stop();
    assert!(start.elapsed() < Duration::from_secs(30), "the idle connection held the server");
    drop(idle);
}

/// A model that does not come back does not hold the end.
#[test]
fn the_end_comes_in_time() {
    let time = Duration::from_millis(500);
    let (mut server, go_on, n_begun) = slow(Limits { time, ..Limits::default() });
    let address = server.address;
    let mut client = Client::new(address);
    client.write(
        b"POST /v1/search HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\n\
        content-length: 1\r\n\r\nx",
    );
    until(|| n_begun.load(Ordering::SeqCst) == 1);
    let start = Instant::now();
    server.stop();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    go_on.send(()).unwrap();
}

#[test]
fn limits_that_no_machine_can_keep_are_refused() {
    let refused = |options: Options| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = dpq_server::Server::new(listener, file(), options).err().unwrap();
        assert!(matches!(error, Error::Limit(_)), "{error}");
        error.to_string()
    };
    let default = Limits::default;
    let with = |limits| Options { limits, ..Options::new(1) };
    assert_eq!(refused(Options::new(0)), "number of threads is 0, expected 1 to 4096");
    assert_eq!(
        refused(with(Limits { waiting: usize::MAX, ..default() })),
        format!("maximum number of waiting requests is {}, expected at most 65536", usize::MAX)
    );
    for limits in [
        Limits { body: usize::MAX, ..default() },
        Limits { name: usize::MAX, ..default() },
        Limits { hits: usize::MAX, ..default() },
        Limits { shortlist: usize::MAX, ..default() },
        Limits { connections: usize::MAX, ..default() },
        Limits { connections: 0, ..default() },
        Limits { time: Duration::MAX, ..default() },
        Limits { time: Duration::ZERO, ..default() },
    ] {
        refused(with(limits));
    }
    refused(Options::new(usize::MAX));
}

#[test]
fn other_machines_need_a_token() {
    let stop = AtomicBool::new(true);
    let run = |address: &str, token: Option<&str>| {
        let listener = TcpListener::bind(address).unwrap();
        let options = Options { token: token.map(str::to_owned), ..Options::new(1) };
        dpq_server::Server::new(listener, file(), options)?.run(&stop)
    };
    let error = run("0.0.0.0:0", None).unwrap_err();
    assert!(matches!(error, Error::Exposed { .. }), "{error}");
    assert!(
        error
            .to_string()
            .ends_with(" is open to other machines, give a token that writes need, or listen at 127.0.0.1")
    );
    run("0.0.0.0:0", Some("secret")).unwrap();
    run("127.0.0.1:0", None).unwrap();
    for token in ["", "two words", "line\n", "é"] {
        assert!(matches!(run("127.0.0.1:0", Some(token)), Err(Error::Token)), "{token:?}");
    }
}
