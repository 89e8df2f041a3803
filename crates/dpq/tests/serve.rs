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

/// Makes a live index of images, `live`, with the names that they have in `set/images`.
fn served_images() -> TempDir {
    let temporary = TempDir::new().unwrap();
    let dir = temporary.path();
    common::images(dir);
    json(dir, &format!("{TRAIN} --out run"));
    json(dir, "index add live --images set/images --model run/model.safetensors");
    temporary
}

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
    let dir = served_images();
    let dir = dir.path();
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
    let dir = served_images();
    let dir = dir.path();
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 100; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_dpq")]);
    let (served, printed) = Served::start_by(shell, dir, "live --max-seconds 1");
    assert_eq!(printed["connections"], 36);
    // Clients that send nothing do not keep it from working for long.
    let waiting: Vec<_> = (0..50).map(|_| TcpStream::connect(&served.address).unwrap()).collect();
    assert_eq!(served.send("DELETE", "/v1/items/3", "", b"").0, 200);
    drop(waiting);
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

/// `photos`, `./photos` and `photos/./` are one folder.
#[test]
fn pictures_are_found_by_other_ways_to_write_a_folder() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    common::images(dir);
    json(dir, &format!("{TRAIN} --out run"));
    for (added, served) in [("./set/images", "set/images"), ("set/images", "./set/./images/")] {
        json(dir, &format!("index add live --images {added} --model run/model.safetensors"));
        let served = Served::start(dir, &format!("live --images {served}"));
        let json = "content-type: application/json\r\n";
        let (_, found) = served.send("POST", "/v1/search?k=60", json, br#"{"id": 1}"#);
        let hits = found["hits"].as_array().unwrap();
        assert_eq!(hits.iter().filter(|hit| hit["picture"] == true).count(), 60, "{added}");
        fs::remove_dir_all(dir.join("live")).unwrap();
    }
}

/// Large images, damaged ones and links out of a data set have no picture, which is said.
#[test]
fn some_images_have_no_picture() {
    let dir = served_images();
    let dir = dir.path();
    let picture = |served: &Served, id: u32| {
        let mut stream = TcpStream::connect(&served.address).unwrap();
        let get =
            format!("GET /v1/items/{id}/picture HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(get.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    // They have 9 × 9 pixels.
    let small = Served::start(dir, "live --images set/images --max-pixels 80");
    let answer = picture(&small, 3);
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("Image size exceeds limit"), "{answer}");
    drop(small);
    let served = Served::start(dir, "live --images set/images --max-pixels 81");
    assert!(picture(&served, 3).starts_with("HTTP/1.1 200"));
    drop(served);

    // The rows of a data set are ids.
    json(dir, "encode --images set/images --model run/model.safetensors --out-dir codes");
    json(dir, "index build --codes codes/codes.npy --codebook run/model.safetensors --out gallery.dpq");
    let damaged = dir.join("set/images/end/00.png");
    let whole = fs::read(&damaged).unwrap();
    fs::write(&damaged, "no image").unwrap();
    #[cfg(unix)]
    {
        fs::rename(dir.join("set/images/top/05.png"), dir.join("elsewhere.png")).unwrap();
        std::os::unix::fs::symlink("../../../elsewhere.png", dir.join("set/images/top/05.png")).unwrap();
    }
    let served = Served::start(dir, "gallery.dpq --images set");
    let answer = picture(&served, 0);
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("cannot be read as an image"), "{answer}");
    assert!(picture(&served, 1).starts_with("HTTP/1.1 200"));
    if cfg!(unix) {
        let answer = picture(&served, 45);
        assert!(
            answer.starts_with("HTTP/1.1 404") && answer.contains("a link out of its folder"),
            "{answer}"
        );
    }
    // It is not decoded again.
    fs::write(&damaged, whole).unwrap();
    assert!(picture(&served, 0).contains("cannot be read as an image"));

    // A folder with nothing but a link to another one.
    #[cfg(unix)]
    {
        fs::create_dir(dir.join("photos")).unwrap();
        std::os::unix::fs::symlink("../set/images/end", dir.join("photos/link")).unwrap();
        json(dir, "index add linked --images photos --model run/model.safetensors");
        let served = Served::start(dir, "linked --images photos");
        let answer = picture(&served, 0);
        assert!(
            answer.starts_with("HTTP/1.1 404") && answer.contains("a link out of its folder"),
            "{answer}"
        );
    }
}

/// A model of features takes no images, and the server says which features it takes.
#[test]
fn a_model_of_features_is_served() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    common::images(dir);
    json(dir, "data export --data set --split gallery --out-dir x");
    let train = "train --features x/features.npy --labels x/labels.npy --out run --preset quick --set epochs=1 \
        --set quantizer.codewords=4 --set quantizer.beam=3";
    json(dir, train);
    json(dir, "encode --model run/model.safetensors --features x/features.npy --out-dir codes");
    json(dir, "index add live --codes codes/codes.npy --codebook run/model.safetensors");
    let mut command = Command::new(env!("CARGO_BIN_EXE_dpq"));
    command.stderr(fs::File::create(dir.join("notes")).unwrap());
    let (served, _) = Served::start_by(command, dir, "live --model run/model.safetensors");
    let notes = fs::read_to_string(dir.join("notes")).unwrap();
    assert!(notes.contains("requests send features as `dpq features --model` writes them"), "{notes}");
    let headers = "content-type: application/json\r\n";
    assert_eq!(served.send("POST", "/v1/search", headers, br#"{"id": 3}"#).0, 200);
    let (status, refused) = served.image("/v1/search", b"image");
    assert_eq!(status, 415, "{refused}");
}

/// stderr has a line per request, in the form that was chosen.
#[test]
fn requests_are_logged() {
    let dir = served_images();
    let dir = dir.path();
    for form in ["json", "text"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dpq"));
        command.stderr(fs::File::create(dir.join("log")).unwrap());
        let (served, _) = Served::start_by(command, dir, &format!("live --log {form}"));
        assert_eq!(served.send("DELETE", "/v1/items/7000", "", b"").0, 404);
        drop(served);
        let log = fs::read_to_string(dir.join("log")).unwrap();
        let line = log.lines().find(|line| line.contains("/v1/items/7000")).unwrap();
        if form == "json" {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!((&line["method"], &line["status"]), (&"DELETE".into(), &404.into()), "{line}");
        } else {
            assert!(line.contains("method=DELETE") && line.contains("status=404"), "{line}");
        }
    }
}

#[test]
fn what_cannot_be_served_is_refused() {
    let dir = served_images();
    let dir = dir.path();
    let exposed = error(dir, "serve live --listen 0.0.0.0:0", 1);
    assert!(exposed.contains("is open to other machines, give a token"), "{exposed}");
    fs::write(dir.join("token"), "\n").unwrap();
    let empty = error(dir, "serve live --listen 127.0.0.1:0 --token-file token", 1);
    assert!(empty.contains("the token is empty"), "{empty}");
    json(dir, &format!("{TRAIN} --set seed=9 --out other"));
    let other = error(dir, "serve live --model other/model.safetensors", 1);
    assert!(other.contains("give the model that made its codes"), "{other}");
    error(dir, "serve live --max-pixels 0", 2);
    let huge = error(dir, &format!("serve live --listen 127.0.0.1:0 --max-waiting {}", usize::MAX), 1);
    assert!(huge.contains("maximum number of waiting requests is"), "{huge}");
    let huge = error(dir, &format!("serve live --listen 127.0.0.1:0 --max-body {}", usize::MAX), 1);
    assert!(huge.contains("maximum size of a body is"), "{huge}");
    error(dir, "serve live --log xml", 2);
    let huge = format!("serve live --model run/model.safetensors --max-pixels {}", u64::MAX);
    error(dir, &huge, 2);
}
