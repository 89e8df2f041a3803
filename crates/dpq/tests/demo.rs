//! `dpq demo`: from a folder of images to answers, once made and then served again.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use common::{error, json};

struct Demo {
    child: Child,
    address: String,
    /// The lines on stdout before the address.
    lines: Vec<Value>,
}

impl Demo {
    fn start(dir: &Path, options: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_dpq"))
            .current_dir(dir)
            .args(format!("demo {options} --listen 127.0.0.1:0 --json").split_whitespace())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
            if let Some(address) = line["address"].as_str() {
                return Self { child, address: address.to_owned(), lines };
            }
            lines.push(line);
        }
        panic!("the demo ended: {}", child.wait().unwrap());
    }

    /// Returns the head and the body of an answer.
    fn send(&self, method: &str, path: &str, body: &[u8]) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let n = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: image/png\r\ncontent-length: {n}\r\n\r\n"
        );
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        (String::from_utf8(answer[..end].to_vec()).unwrap(), answer[end + 4..].to_vec())
    }

    fn hits(&self, image: &[u8]) -> Vec<Value> {
        let (head, body) = self.send("POST", "/v1/search?k=5", image);
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let found: Value = serde_json::from_slice(&body).unwrap();
        found["hits"].as_array().unwrap().clone()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn folders(dir: &Path) -> usize {
    fs::read_dir(dir.join("dpq-demo")).unwrap().count()
}

#[test]
fn images_in_class_folders_train_a_network_once() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    common::images(dir);
    let image = fs::read(dir.join("set/images/end/03.png")).unwrap();
    let first = Demo::start(dir, "--images set/images");
    assert_eq!(first.lines.len(), 2, "a training and the items: {:?}", first.lines);
    let hits = first.hits(&image);
    assert!(hits.iter().filter(|hit| hit["labels"][0] == "end").count() >= 4, "{hits:?}");
    let id = hits[0]["id"].as_u64().unwrap();
    let (head, picture) = first.send("GET", &format!("/v1/items/{id}/picture"), b"");
    assert!(head.contains("content-type: image/jpeg") && picture.starts_with(&[0xff, 0xd8]), "{head}");
    drop(first);

    // Nothing is made again.
    let second = Demo::start(dir, "--images set/images");
    assert_eq!((second.lines.len(), second.hits(&image)), (0, hits));
    drop(second);
    let folder = fs::read_dir(dir.join("dpq-demo")).unwrap().next().unwrap().unwrap().path();
    let gallery = folder.join("gallery.live");
    assert_eq!(json(dir, &format!("index info {}", gallery.display()))["items"], 60);

    // Other images have another gallery. A gallery that was left half made is made again.
    fs::remove_file(dir.join("set/images/end/00.png")).unwrap();
    drop(Demo::start(dir, "--images set/images"));
    assert_eq!(folders(dir), 2);
    for folder in fs::read_dir(dir.join("dpq-demo")).unwrap() {
        let folder = folder.unwrap().path();
        fs::rename(folder.join("gallery.live"), folder.join("gallery.partial")).unwrap();
    }
    let again = Demo::start(dir, "--images set/images");
    assert_eq!((again.lines.len(), again.lines[0]["items"].as_u64()), (1, Some(59)));
}

#[test]
fn images_without_classes_are_compared_by_their_pixels() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    common::images(dir);
    fs::create_dir(dir.join("flat")).unwrap();
    for class in ["top", "middle", "end"] {
        for i in 0..20 {
            let from = dir.join(format!("set/images/{class}/{i:02}.png"));
            fs::copy(from, dir.join(format!("flat/{class}-{i:02}.png"))).unwrap();
        }
    }
    // A link out of the folder is an image of the gallery, but no picture of the page.
    let is_linked = cfg!(unix) && {
        fs::create_dir(dir.join("elsewhere")).unwrap();
        fs::rename(dir.join("flat/top-00.png"), dir.join("elsewhere/0.png")).unwrap();
        Command::new("ln")
            .args(["-s", "../elsewhere/0.png", "flat/top-00.png"])
            .current_dir(dir)
            .status()
            .unwrap()
            .success()
    };
    // A link to nowhere is left out.
    #[cfg(unix)]
    std::os::unix::fs::symlink("nowhere.png", dir.join("flat/zz.png")).unwrap();
    let image = fs::read(dir.join("set/images/middle/07.png")).unwrap();
    let demo = Demo::start(dir, "--images flat");
    let hits = demo.hits(&image);
    assert_eq!(hits[0]["name"], "flat/middle-07.png");
    assert!(hits.iter().all(|hit| hit["name"].as_str().unwrap().contains("middle")), "{hits:?}");
    if is_linked {
        let image = fs::read(dir.join("elsewhere/0.png")).unwrap();
        let hit = &demo.hits(&image)[0];
        assert_eq!(hit["name"], "flat/top-00.png");
        let (head, body) = demo.send("GET", &format!("/v1/items/{}/picture", hit["id"]), b"");
        let body = String::from_utf8(body).unwrap();
        assert!(
            head.starts_with("HTTP/1.1 404") && body.contains("a link out of its folder"),
            "{head} {body}"
        );
    }
}

#[test]
fn a_demo_without_images_is_refused_outside_a_clone() {
    let dir = TempDir::new().unwrap();
    let refused = error(dir.path(), "demo", 1);
    assert!(refused.contains("start the demo in a clone of dpq, or give --images"), "{refused}");
    error(dir.path(), "demo --weights w.safetensors", 2);
    // Before anything is made.
    common::images(dir.path());
    let open = error(dir.path(), "demo --images set/images --listen 0.0.0.0:0", 1);
    assert!(open.contains("listens at this machine only"), "{open}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let refused = error(dir.path(), &format!("demo --images set/images --listen {address}"), 1);
    assert!(refused.contains("cannot listen at"), "{refused}");
    assert!(!dir.path().join("dpq-demo").exists());
}
