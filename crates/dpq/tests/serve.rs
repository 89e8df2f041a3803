//! `dpq serve`: the command around the server, which has tests of its own.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use image::GrayImage;
use serde_json::Value;
use tempfile::TempDir;

use common::{error, json};

const TRAIN: &str = "train --data set --preset quick --set epochs=1 --set quantizer.codewords=4";

struct Served {
    child: Child,
    address: String,
}

impl Served {
    fn start(dir: &Path, options: &str) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_dpq")), dir, options).0
    }

    /// Starts the server by a command, and returns what it printed too.
    fn start_by(mut command: Command, dir: &Path, options: &str) -> (Self, Value) {
        let options = format!("serve {options} --listen 127.0.0.1:0 --json");
        command.current_dir(dir).args(options.split_whitespace()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let printed: Value = serde_json::from_str(&line).unwrap();
        (Self { child, address: printed["address"].as_str().unwrap().to_owned() }, printed)
    }

    /// Returns status and body.
    fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> (u16, Value) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
    }

    fn image(&self, path: &str, image: &[u8]) -> (u16, Value) {
        self.send("POST", path, "content-type: image/png\r\n", image)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Images find over the network what `dpq search` finds, and a signal ends the server in order.
#[test]
fn images_are_searched_added_and_deleted() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    common::images(dir);
    json(dir, &format!("{TRAIN} --out run"));
    json(dir, "index add live --images set/images --model run/model.safetensors");
    let mut served = Served::start(dir, "live --model run/model.safetensors --max-pixels 100");

    let (name, image) = ("set/images/top/00.png", fs::read(dir.join("set/images/top/00.png")).unwrap());
    let expected = json(dir, &format!("search live --model run/model.safetensors --image {name} -k 60"));
    let (status, mut found) = served.image("/v1/search?k=60", &image);
    assert_eq!((status, &found["hits"]), (200, &expected["hits"][0]), "{found}");

    let (status, changed) = served.image("/v1/items?name=new", &image);
    assert_eq!((status, &changed["ids"][0], &changed["items"]), (200, &60.into(), &61.into()));
    let busy = error(dir, "index delete live --id 3", 1);
    assert!(busy.contains("another writer has"), "{busy}");
    found = served.image("/v1/search?k=61", &image).1;
    assert!(found["hits"].as_array().unwrap().iter().any(|hit| hit["name"] == "new"), "{found}");
    assert_eq!(served.send("DELETE", "/v1/items/3", "", b"").0, 200);

    // Too many pixels, and no image at all.
    let mut large = std::io::Cursor::new(Vec::new());
    GrayImage::new(11, 10).write_to(&mut large, image::ImageFormat::Png).unwrap();
    for body in [large.into_inner(), b"no image".to_vec()] {
        let (status, answer) = served.image("/v1/search", &body);
        let message = answer["error"].as_str().unwrap();
        assert!(status == 400 && message.starts_with("the image cannot be read as an image"), "{message}");
    }

    if cfg!(unix) {
        let id = served.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        assert!(served.child.wait().unwrap().success());
    }
    drop(served);
    assert_eq!(json(dir, "index info live")["items"], 60);
}

/// A process that may open 100 files takes fewer connections, and says so.
#[cfg(unix)]
#[test]
fn few_files_are_few_connections() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    common::images(dir);
    json(dir, &format!("{TRAIN} --out run"));
    json(dir, "index add live --images set/images --model run/model.safetensors");
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 100; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_dpq")]);
    let (served, printed) = Served::start_by(shell, dir, "live");
    assert_eq!(printed["connections"], 36);
    // Clients that wait do not keep it from working.
    let waiting: Vec<_> = (0..50).map(|_| TcpStream::connect(&served.address).unwrap()).collect();
    drop(waiting);
    assert_eq!(served.send("DELETE", "/v1/items/3", "", b"").0, 200);
}

/// Pictures and classes come from the folder that names lead to, wherever it lies now.
#[test]
fn pictures_are_found_by_names() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    common::images(dir);
    json(dir, &format!("{TRAIN} --out run"));
    json(dir, "encode --images set/images --model run/model.safetensors --out-dir codes");
    json(dir, "index build --codes codes/codes.npy --codebook run/model.safetensors --out gallery.dpq");
    let by_names = "gallery.dpq --names codes/names.txt --images set/images --model run/model.safetensors";
    let served = Served::start(dir, by_names);
    let image = fs::read(dir.join("set/images/top/00.png")).unwrap();
    let (_, found) = served.image("/v1/search?k=60", &image);
    let hits = found["hits"].as_array().unwrap();
    assert_eq!(hits.len(), 60);
    for hit in hits {
        let name = hit["name"].as_str().unwrap();
        assert_eq!(hit["labels"][0], name.split('/').nth(2).unwrap());
        assert_eq!(hit["picture"], true, "{hit}");
    }
    drop(served);
    // The names lead nowhere in another folder, but those inside a folder do.
    fs::create_dir(dir.join("other")).unwrap();
    fs::rename(dir.join("set/images/top"), dir.join("other/top")).unwrap();
    let names = fs::read_to_string(dir.join("codes/names.txt")).unwrap();
    fs::write(dir.join("inside.txt"), names.replace("set/images/", "")).unwrap();
    for (names, n) in [("codes/names.txt", 0), ("inside.txt", 20)] {
        let served = Served::start(dir, &format!("gallery.dpq --names {names} --images other"));
        let (_, found) =
            served.send("POST", "/v1/search?k=60", "content-type: application/json\r\n", br#"{"id": 1}"#);
        let hits = found["hits"].as_array().unwrap();
        assert_eq!(hits.iter().filter(|hit| hit["picture"] == true).count(), n);
    }
    let refused = error(dir, "serve gallery.dpq --images codes", 1);
    assert!(refused.contains("no image in this folder"), "{refused}");
    json(dir, "index add live --images other --model run/model.safetensors");
    let refused = error(dir, "serve live --names inside.txt", 1);
    assert!(refused.contains("a live index has names of its own"), "{refused}");
}

#[test]
fn what_cannot_be_served_is_refused() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    common::images(dir);
    json(dir, &format!("{TRAIN} --out run"));
    json(dir, "index add live --images set/images --model run/model.safetensors");
    let exposed = error(dir, "serve live --listen 0.0.0.0:0", 1);
    assert!(exposed.contains("is open to other machines, give a token"), "{exposed}");
    fs::write(dir.join("token"), "\n").unwrap();
    let empty = error(dir, "serve live --listen 127.0.0.1:0 --token-file token", 1);
    assert!(empty.contains("the token is empty"), "{empty}");
    json(dir, &format!("{TRAIN} --set seed=9 --out other"));
    let other = error(dir, "serve live --model other/model.safetensors", 1);
    assert!(other.contains("give the model that made its codes"), "{other}");
    error(dir, "serve live --max-pixels 3", 2);
    let huge = error(dir, &format!("serve live --listen 127.0.0.1:0 --max-waiting {}", usize::MAX), 1);
    assert!(huge.contains("maximum number of waiting requests is"), "{huge}");
    let huge = error(dir, &format!("serve live --listen 127.0.0.1:0 --max-body {}", usize::MAX), 1);
    assert!(huge.contains("maximum size of a body is"), "{huge}");
    let huge = format!("serve live --model run/model.safetensors --max-pixels {}", u64::MAX);
    error(dir, &huge, 2);
}
