//! Serves an index file until Enter is pressed:
//!
//! `cargo run --release -p dpq-server --example serve -- gallery.dpq`

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};

use dpq_index::{Assignment, Codebooks, Index};
use dpq_server::{Gallery, Options, Server};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let index = match std::env::args_os().nth(1) {
        Some(path) => Index::open(path)?,
        None => {
            let codebooks = Codebooks::new(vec![1.0, 0.0, 0.0, 1.0], 1, 2, 2, Assignment::Euclidean)?;
            Index::builder(&codebooks, &[0, 1, 1]).build()?
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("http://{}/healthz", listener.local_addr()?);
    let server = Server::new(listener, Gallery::File(Box::new(index)), Options::new(2))?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let read = std::io::stdin().read_line(&mut String::new());
            stop.store(true, Ordering::Relaxed);
            read
        });
        server.run(&stop)
    })?;
    Ok(())
}
