//! `dpq data get`: downloads, interruptions, and URLs and paths that are refused.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use common::{dpq, error, images, json};
use dpq_data::sha256;
use tempfile::TempDir;

/// Serves one file and records where the requested ranges begin.
struct Server {
    url: String,
    begins: Arc<Mutex<Vec<Option<usize>>>>,
}

impl Server {
    /// Starts a server whose first answer stops after `cut` bytes. It supports ranges if `ranges`
    /// is true.
    fn start(file: Vec<u8>, cut: usize, ranges: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/a.bin", listener.local_addr().unwrap());
        let begins = Arc::new(Mutex::new(vec![]));
        let noted = begins.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let connection = connection.unwrap();
                let asked = range(&connection);
                let first = noted.lock().unwrap().is_empty();
                noted.lock().unwrap().push(asked);
                let begin = asked.filter(|_| ranges).unwrap_or(0);
                answer(connection, &file, begin, if first { cut } else { file.len() });
            }
        });
        Self { url, begins }
    }

    fn begins(&self) -> Vec<Option<usize>> {
        self.begins.lock().unwrap().clone()
    }
}

/// Reads the head of a request and returns the first byte of the requested range.
fn range(connection: &TcpStream) -> Option<usize> {
    let lines = BufReader::new(connection).lines().map(Result::unwrap).take_while(|line| !line.is_empty());
    let head: Vec<String> = lines.map(|line| line.to_lowercase()).collect();
    let range = head.iter().find_map(|line| line.strip_prefix("range: bytes="))?;
    Some(range.strip_suffix('-').unwrap().parse().unwrap())
}

fn answer(mut connection: TcpStream, file: &[u8], begin: usize, end: usize) {
    let (rest, n) = (file.len() - begin, file.len());
    let head = match begin {
        0 => format!("HTTP/1.1 200 OK\r\nContent-Length: {n}\r\n"),
        _ => format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Length: {rest}\r\nContent-Range: bytes {begin}-{}/{n}\r\n",
            n - 1
        ),
    };
    connection.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).unwrap();
    connection.write_all(&file[begin..end]).unwrap();
}

/// Writes a data set of one file `sub/a.bin`, which holds no images: only `data get` reads it.
fn remote(dir: &Path, url: &str, sum: &str) {
    let text = format!(
        "name = \"remote\"\nsource = \"a server\"\nlicence = \"CC0\"\nclasses = [\"a\"]\n\
        shape = {{ channels = 3, height = 32, width = 32 }}\n\
        [images]\nformat = \"cifar\"\nmembers = []\nlabel_bytes = 1\n\
        archive = {{ file = \"sub/a.bin\", url = \"{url}\"{sum} }}\n"
    );
    fs::create_dir_all(dir.join("set")).unwrap();
    fs::write(dir.join("set/dataset.toml"), text).unwrap();
}

fn file() -> Vec<u8> {
    (0..100_000u32).map(|i| (i * i / 7) as u8).collect()
}

#[test]
fn an_interrupted_download_resumes() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let server = Server::start(file(), 40_000, true);
    remote(dir, &server.url, &format!(", sha256 = \"{}\"", sha256(&file())));

    let output = dpq(dir, "data get set");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{stderr}");
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines[..2], ["remote, source: a server", "licence: CC0"]);
    assert!(lines[2].starts_with(&format!("downloading {} (sha256 ", server.url)), "{stderr}");
    assert!(lines[3].starts_with("error: cannot download") && lines.len() == 4, "{stderr}");
    assert!(lines[3].ends_with("run this command again to resume"), "{stderr}");
    assert!(!dir.join("set/sub/a.bin").exists(), "no partial file under the final name");
    assert_eq!(fs::read(dir.join("set/sub/a.bin.partial")).unwrap(), file()[..40_000]);

    let got = json(dir, "data get set");
    assert_eq!(server.begins(), [None, Some(40_000)]);
    assert_eq!(got["files"][0]["downloaded"], true);
    assert_eq!(fs::read(dir.join("set/sub/a.bin")).unwrap(), file());
    assert!(!dir.join("set/sub/a.bin.partial").exists());

    let again = json(dir, "data get set");
    assert_eq!((&again["files"][0]["downloaded"], server.begins().len()), (&false.into(), 2));
    fs::write(dir.join("set/sub/a.bin"), "damaged").unwrap();
    assert!(error(dir, "data get set", 1).contains("move it away first: set/sub/a.bin: its sha256 is"));
    assert_eq!(fs::read(dir.join("set/sub/a.bin")).unwrap(), b"damaged", "existing files belong to the user");
}

#[test]
fn a_server_without_ranges_is_asked_from_the_start() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let server = Server::start(file(), 40_000, false);
    remote(dir, &server.url, ", md5 = \"900150983cd24fb0d6963f7d28e17f72\"");
    assert_eq!(dpq(dir, "data get set").status.code(), Some(1));
    let output = dpq(dir, "data get set");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(server.begins(), [None, Some(40_000), None], "{stderr}");
    assert!(stderr.contains("starting again") && stderr.contains("its md5 is"), "{stderr}");
    assert!(stderr.contains("does not match dataset.toml and was removed"), "{stderr}");
    assert!(!dir.join("set/sub/a.bin.partial").exists() && !dir.join("set/sub/a.bin").exists());
}

#[test]
fn failed_downloads_are_reported_in_one_sentence() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let server = Server::start(file(), file().len(), true);
    let last = |command: &mut Command| {
        let output = command.current_dir(dir).env("no_proxy", "127.0.0.1").output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap().lines().last().unwrap().to_owned()
    };
    let get = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dpq"));
        command.args(["data", "get", "set"]);
        command
    };
    remote(dir, &server.url, "");
    let missing = last(get().env("PATH", ""));
    assert!(missing.ends_with("curl is not installed, install it"), "{missing}");
    let got = json(dir, "data get set");
    assert_eq!(
        (&got["files"][0]["checked"], &got["files"][0]["sha256"]),
        (&false.into(), &sha256(&file()).into())
    );

    fs::remove_file(dir.join("set/sub/a.bin")).unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    remote(dir, &format!("http://{nobody}/a.bin"), "");
    assert!(last(&mut get()).contains("/a.bin: curl: (7)"), "{}", last(&mut get()));
    let manifest = fs::read_to_string(dir.join("set/dataset.toml")).unwrap();
    fs::write(dir.join("set/dataset.toml"), manifest.replace(", url", ", sha256")).unwrap();
    assert!(last(&mut get()).contains("a.bin is missing and dataset.toml has no url"));
    let instructions = format!("instructions = \"ask\"\n{}", manifest.replace(", url", ", sha256"));
    fs::write(dir.join("set/dataset.toml"), instructions).unwrap();
    assert_eq!(last(&mut get()), "error: remote cannot be downloaded: ask");
}

#[test]
fn only_plain_http_urls_are_accepted() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    fs::write(dir.join("secret"), "secret").unwrap();
    for url in [
        &format!("file://{}/secret", dir.display()),
        "FILE:///etc/hostname",
        "ftp://127.0.0.1/a.bin",
        "gopher://127.0.0.1/a.bin",
        "127.0.0.1/a.bin",
        "-o/etc/hostname",
        "--config",
        "http://",
        "http:///a.bin",
        "http://user:password@127.0.0.1/a.bin",
        "http://127.0.0.1\\\\@example.org/a.bin",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/\\u001b[2J",
    ] {
        remote(dir, url, "");
        let stderr = String::from_utf8(dpq(dir, "data get set").stderr).unwrap();
        let last = stderr.lines().last().unwrap();
        assert!(
            last.contains("of dataset.toml is not accepted, expected http:// or https://"),
            "{url}: {stderr}"
        );
        assert!(!stderr.contains('\u{1b}') && !dir.join("set/sub").exists(), "{url}: {stderr}");
    }
}

#[test]
fn redirects_to_other_protocols_are_refused() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let [http, ftp] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let (url, target) = (http.local_addr().unwrap(), ftp.local_addr().unwrap());
    std::thread::spawn(move || {
        for connection in http.incoming() {
            let mut connection = connection.unwrap();
            range(&connection);
            let head =
                format!("HTTP/1.1 302 Found\r\nLocation: ftp://{target}/a.bin\r\nContent-Length: 0\r\n");
            connection.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).unwrap();
        }
    });
    // An FTP server that greets and then ends: curl would report the broken dialogue, not the
    // protocol.
    std::thread::spawn(move || {
        ftp.incoming().for_each(|connection| drop(connection.unwrap().write(b"220 hi\r\n")))
    });
    remote(dir, &format!("http://{url}/a.bin"), "");
    let stderr = String::from_utf8(dpq(dir, "data get set").stderr).unwrap();
    assert!(stderr.contains("curl: (1) Protocol \"ftp\""), "{stderr}");
}

#[cfg(unix)]
#[test]
fn files_are_only_written_into_the_folder_of_the_data_set() {
    use std::os::unix::fs::symlink;

    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let server = Server::start(file(), file().len(), true);
    remote(dir, &server.url, "");
    let manifest = fs::read_to_string(dir.join("set/dataset.toml")).unwrap();
    let get = || {
        let output = dpq(dir, "data get set");
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let absolute = dir.join("a.bin").display().to_string();
    for path in ["../a.bin", "sub/../../a.bin", &absolute] {
        fs::write(dir.join("set/dataset.toml"), manifest.replace("sub/a.bin", path)).unwrap();
        assert!(get().1.contains("is outside of the data set's folder"), "{path}: {}", get().1);
    }
    fs::write(dir.join("set/dataset.toml"), &manifest).unwrap();
    fs::create_dir(dir.join("elsewhere")).unwrap();
    symlink("../elsewhere", dir.join("set/sub")).unwrap();
    assert!(get().1.contains("is outside of the data set's folder"), "{}", get().1);
    assert!(!dir.join("a.bin").exists() && fs::read_dir(dir.join("elsewhere")).unwrap().next().is_none());

    fs::remove_file(dir.join("set/sub")).unwrap();
    fs::create_dir(dir.join("set/sub")).unwrap();
    fs::write(dir.join("victim"), "").unwrap();
    symlink("../../victim", dir.join("set/sub/a.bin.partial")).unwrap();
    assert!(get().1.contains("a.bin.partial is not a regular file, remove it"), "{}", get().1);
    assert_eq!(fs::read(dir.join("victim")).unwrap(), b"");

    // The folder itself may be a link.
    fs::remove_file(dir.join("set/sub/a.bin.partial")).unwrap();
    fs::rename(dir.join("set"), dir.join("real")).unwrap();
    symlink("real", dir.join("set")).unwrap();
    assert!(get().0, "{}", get().1);
    assert_eq!(fs::read(dir.join("real/sub/a.bin")).unwrap(), file());
}

#[test]
fn a_download_without_a_checksum_starts_again() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let server = Server::start(file(), 40_000, true);
    remote(dir, &server.url, "");
    assert_eq!(dpq(dir, "data get set").status.code(), Some(1));
    assert!(dir.join("set/sub/a.bin.partial").exists());
    json(dir, "data get set");
    assert_eq!(server.begins(), [None, None]);
    assert_eq!(fs::read(dir.join("set/sub/a.bin")).unwrap(), file());
}

#[test]
fn missing_image_folders_are_reported_with_instructions() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    images(dir);
    let manifest = fs::read_to_string(dir.join("set/dataset.toml")).unwrap();
    fs::write(dir.join("set/dataset.toml"), format!("instructions = \"ask\"\n{manifest}")).unwrap();
    let text = String::from_utf8(dpq(dir, "data get set").stdout).unwrap();
    assert_eq!(text, "bands names no file to download: ask\n");
    fs::remove_dir_all(dir.join("set/images")).unwrap();
    let missing = "error: set/images has no images and they cannot be downloaded: ask\n";
    assert_eq!(error(dir, "data get set", 1), missing);
    fs::create_dir(dir.join("set/images")).unwrap();
    assert_eq!(error(dir, "data get set", 1), missing);
    fs::write(dir.join("set/dataset.toml"), manifest).unwrap();
    assert!(error(dir, "data get set", 1).ends_with("cannot be downloaded: get them from the source\n"));
}
