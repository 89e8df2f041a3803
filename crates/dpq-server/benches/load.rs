//! Requests per second and latencies over a million codes, while items are added.
//!
//! `cargo bench -p dpq-server --bench load` prints one line per load. Server and clients share the
//! machine. One request in eight is `/healthz`, so that both kinds meet the same load.

#![allow(clippy::unwrap_used, reason = "a benchmark that fails may panic")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dpq_index::{Assignment, Codebooks, Metric};
use dpq_live::LiveIndex;
use dpq_server::{Gallery, Options, Server};

const DIM: usize = 128;
const LEVELS: usize = 4;
const ITEMS: u64 = 1_000_000;
const SECONDS: u64 = 5;
/// Time from one request with ten new items to the next.
const WRITE_EVERY: Duration = Duration::from_millis(100);

/// A splitmix generator.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// About normal, with a deviation of 1.
    fn normal(&mut self) -> f32 {
        let sum: f32 = (0..12).map(|_| (self.next() >> 40) as f32 / (1 << 24) as f32).sum();
        sum - 6.0
    }

    fn code(&mut self) -> Vec<u8> {
        (0..LEVELS).map(|_| self.next() as u8).collect()
    }
}

/// A connection that stays open.
struct Client(BufReader<TcpStream>);

impl Client {
    fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    /// Sends a request, and returns the status of the answer.
    fn send(&mut self, request: &[u8]) -> u16 {
        self.0.get_mut().write_all(request).unwrap();
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        let mut n_bytes = 0;
        while line != "\r\n" {
            line.clear();
            self.0.read_line(&mut line).unwrap();
            if let Some(n) = line.strip_prefix("content-length: ") {
                n_bytes = n.trim().parse().unwrap();
            }
        }
        self.0.read_exact(&mut vec![0; n_bytes]).unwrap();
        status
    }
}

fn post(path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The load of a run.
struct Load {
    connections: usize,
    /// Requests per second of all connections; as many as the server answers, if there is none.
    rate: Option<f64>,
    is_changed: bool,
}

/// Returns the times of searches and of `/healthz` in one connection, and how many were refused.
fn requests(
    address: SocketAddr,
    searches: &[Vec<u8>],
    load: &Load,
    start: usize,
    end: Instant,
) -> ([Vec<Duration>; 2], usize) {
    let mut client = Client::new(address);
    let (mut times, mut n_refused) = ([Vec::new(), Vec::new()], 0);
    let begin = Instant::now();
    for n in 0.. {
        // The time of a request counts from when it is due, whether or not the one before is late.
        let due = match load.rate {
            None => Instant::now(),
            Some(rate) => {
                begin
                    + Duration::from_secs_f64(
                        (n as f64 + start as f64 / 37.0 % 1.0) * load.connections as f64 / rate,
                    )
            }
        };
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if due >= end {
            break;
        }
        let is_health = (n + start).is_multiple_of(8);
        let request = if is_health {
            &b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"[..]
        } else {
            &searches[(n + start) % searches.len()]
        };
        match client.send(request) {
            200 => times[usize::from(is_health)].push(due.elapsed()),
            503 => n_refused += 1,
            status => panic!("status {status}"),
        }
    }
    (times, n_refused)
}

/// Adds ten items per request, and returns the times.
fn changes(address: SocketAddr, end: Instant) -> Vec<Duration> {
    let (mut client, mut random, mut times) = (Client::new(address), Random(3), Vec::new());
    while Instant::now() < end {
        let items: Vec<String> = (0..10).map(|_| format!("{{\"code\": {:?}}}", random.code())).collect();
        let request = post("/v1/items", &format!("{{\"items\": [{}]}}", items.join(",")));
        let begin = Instant::now();
        assert_eq!(client.send(&request), 200);
        times.push(begin.elapsed());
        thread::sleep(WRITE_EVERY);
    }
    times
}

fn run(address: SocketAddr, searches: &[Vec<u8>], load: &Load) {
    let end = Instant::now() + Duration::from_secs(SECONDS);
    let (mut times, n_refused) = thread::scope(|scope| {
        let writer = load.is_changed.then(|| scope.spawn(move || changes(address, end)));
        let clients: Vec<_> = (0..load.connections)
            .map(|n| scope.spawn(move || requests(address, searches, load, 37 * n + n, end)))
            .collect();
        let (mut all, mut n_refused) = ([Vec::new(), Vec::new(), Vec::new()], 0);
        for client in clients {
            let (times, n) = client.join().unwrap();
            all.iter_mut().zip(times).for_each(|(all, times)| all.extend(times));
            n_refused += n;
        }
        all[2] = writer.map(|writer| writer.join().unwrap()).unwrap_or_default();
        (all, n_refused)
    });
    times.iter_mut().for_each(|times| times.sort_unstable());
    let at = |kind: usize, q: usize| {
        let last = times[kind].len().checked_sub(1);
        last.map_or(0.0, |last| times[kind][last * q / 100].as_secs_f64() * 1e3)
    };
    let of = |kind: usize| {
        let n = times[kind].len() as f64 / SECONDS as f64;
        format!("{n:>7.0}/s p50 {:>6.2} p99 {:>6.2} ms", at(kind, 50), at(kind, 99))
    };
    let rate = load.rate.map_or("any rate".to_owned(), |rate| format!("{rate}/s"));
    println!(
        "{:>4} connections, {rate:>8}: searches {}, healthz {}, ratio of p99 {:.2}, {n_refused} refused; changes {}",
        load.connections,
        of(0),
        of(1),
        at(0, 99) / at(1, 99),
        of(2),
    );
}

fn main() {
    let mut random = Random(1);
    let values = (0..LEVELS).flat_map(|level| vec![0.5f32.powi(level as i32); 256 * DIM]);
    let values = values.map(|scale| scale * random.normal()).collect();
    let codebooks = Codebooks::new(values, LEVELS, 256, DIM, Assignment::Euclidean).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("live");
    let mut live = LiveIndex::create(&folder, &codebooks, Metric::InnerProduct).unwrap();
    (0..ITEMS).for_each(|id| live.upsert(id, &random.code()).unwrap());
    live.compact().unwrap();
    let search = |random: &mut Random| {
        let query = codebooks.decode(&random.code(), codebooks.max_length()).unwrap();
        let query: Vec<f32> = query.iter().map(|x| x + 0.1 * random.normal()).collect();
        post("/v1/search?k=10&bits=32", &format!("{{\"features\": {query:?}}}"))
    };
    let searches: Vec<Vec<u8>> = (0..1000).map(|_| search(&mut random)).collect();

    let threads = thread::available_parallelism().unwrap().get();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), AtomicBool::new(false));
    println!(
        "{ITEMS} codes of {LEVELS} bytes, {DIM} dimensions, k = 10, {threads} threads, {SECONDS} s each"
    );
    let server = Server::new(listener, Gallery::Live(Box::new(live)), Options::new(threads)).unwrap();
    thread::scope(|scope| {
        let server = scope.spawn(|| server.run(&stop));
        for (connections, rate, is_changed) in [
            (1, None, true),
            (16, None, true),
            (256, None, true),
            (16, None, false),
            (16, Some(2500.0), true),
            (16, Some(5000.0), true),
        ] {
            run(address, &searches, &Load { connections, rate, is_changed });
        }
        stop.store(true, Ordering::Relaxed);
        server.join().unwrap().unwrap();
    });
}
