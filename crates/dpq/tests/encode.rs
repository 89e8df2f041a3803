//! `dpq encode` of a large folder: killed, resumed, and with images that cannot be read.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]
#![cfg(unix)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use common::{error, json};

const TRAIN: &str = "train --data set --preset quick --set epochs=1 --set quantizer.codewords=4";
const ENCODE: &str = "encode --model run/model.safetensors --images many";

/// Makes a folder of 12,000 images, of which a few cannot be read.
fn many(dir: &Path) {
    for i in 0..12_000 {
        let (class, of) = (["end", "middle", "top"][i / 4000], i % 20);
        let folder = dir.join("many").join(class);
        fs::create_dir_all(&folder).unwrap();
        let to = folder.join(format!("{:04}.png", i % 4000));
        match i {
            3 | 700 | 11_999 => fs::write(to, "no image").unwrap(),
            _ => fs::hard_link(dir.join(format!("set/images/{class}/{of:02}.png")), to).unwrap(),
        }
    }
}

/// Sends a signal to a run as soon as it has written a batch more. Returns false if the run was
/// faster.
fn interrupt(dir: &Path, command: &str, out: &str, signal: &str) -> bool {
    let rows = dir.join(out).join("rows.part");
    let n_done = || fs::metadata(&rows).map_or(0, |metadata| metadata.len());
    let before = n_done();
    let mut run = Command::new(env!("CARGO_BIN_EXE_dpq"))
        .current_dir(dir)
        .args(command.split_whitespace())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while n_done() <= before && run.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(120), "no batch is written");
        std::thread::sleep(Duration::from_micros(200));
    }
    let id = run.id().to_string();
    let _ = Command::new("kill").args([signal, &id]).status().unwrap();
    !run.wait().unwrap().success()
}

#[test]
fn an_interrupted_encoding_resumes_and_ends_with_the_same_bytes() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    common::images(dir);
    many(dir);
    json(dir, &format!("{TRAIN} --out run"));
    let whole = json(dir, &format!("{ENCODE} --out-dir whole --posteriors --skip-bad whole.csv"));
    assert_eq!(
        (&whole["items"], &whole["left_out"], &whole["resumed"]),
        (&11_997.into(), &3.into(), &0.into())
    );

    let resumed = format!("{ENCODE} --out-dir parts --posteriors --skip-bad parts.csv");
    // A shell that runs this in the background ignores SIGINT, and so would the command.
    let signals = ["-KILL", "-TERM", "-KILL"];
    // A run that was faster than its signal leaves a whole folder.
    let interrupted = |_| {
        let _ = fs::remove_dir_all(dir.join("parts"));
        signals.iter().all(|signal| interrupt(dir, &resumed, "parts", signal))
    };
    assert!((0..20).any(interrupted), "runs are faster than their signals");
    assert!(!dir.join("parts/features.npy").exists() && !dir.join("parts/codes.npy").exists());
    let parts = json(dir, &resumed);
    assert!(parts["resumed"].as_u64().unwrap() > 0, "{parts}");
    assert_eq!(parts["relative_distortion"], whole["relative_distortion"]);
    let list = |folder: &str| {
        let mut names: Vec<_> =
            fs::read_dir(dir.join(folder)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(list("parts"), list("whole"));
    for name in list("whole") {
        let [a, b] = ["whole", "parts"].map(|folder| fs::read(dir.join(folder).join(&name)).unwrap());
        assert!(a == b, "{name:?}");
    }
    // The images before the last batch too, which only an earlier run met.
    let [a, b] = ["whole.csv", "parts.csv"].map(|name| fs::read_to_string(dir.join(name)).unwrap());
    assert_eq!(a, b);
    let lines: Vec<&str> = a.lines().collect();
    assert_eq!((lines[0], lines.len()), ("image,reason", 4));
    for (line, name) in lines[1..].iter().zip(["end/0003", "end/0700", "top/3999"]) {
        assert!(line.starts_with(&format!("\"many/{name}.png\",\"")) && line.ends_with('"'), "{line}");
        assert!(line.contains("cannot be read as an image"), "{line}");
    }
}

#[test]
fn a_report_of_bad_images_is_for_images_that_may_be_skipped() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    common::images(dir);
    json(dir, &format!("{TRAIN} --out run"));
    let encode = "encode --model run/model.safetensors --images set/images --out-dir x --skip-bad bad.csv";
    error(dir, &format!("{encode} --strict"), 2);
    json(dir, encode);
    assert_eq!(fs::read_to_string(dir.join("bad.csv")).unwrap(), "image,reason\n");
}
