//! Running the command, and a data set to run it on.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use image::{GrayImage, Luma};
use serde_json::Value;

/// Runs `dpq` in `dir` with words separated by spaces.
pub(crate) fn dpq(dir: &Path, command: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dpq"))
        .current_dir(dir)
        .args(command.split_whitespace())
        // Downloads of tests are from this machine.
        .env("no_proxy", "127.0.0.1")
        .output()
        .unwrap()
}

/// Runs `dpq` with `--json` and reads what it prints.
#[track_caller]
pub(crate) fn json(dir: &Path, command: &str) -> Value {
    let output = dpq(dir, &format!("{command} --json"));
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs `dpq`, which fails with `code` and one line on stderr.
#[track_caller]
pub(crate) fn error(dir: &Path, command: &str, code: i32) -> String {
    let output = dpq(dir, command);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{command}: {stderr}");
    assert!(output.stdout.is_empty());
    if code == 1 {
        assert!(stderr.starts_with("error: ") && stderr.lines().count() == 1, "{stderr}");
    }
    stderr
}

/// A data set of 60 PNGs in three classes that pixels tell apart: a bright band at the top, in the
/// middle, at the end.
pub(crate) fn images(dir: &Path) {
    for class in 0..3u32 {
        let folder = dir.join("set/images").join(["top", "middle", "end"][class as usize]);
        fs::create_dir_all(&folder).unwrap();
        for i in 0..20u32 {
            let image = GrayImage::from_fn(9, 9, |x, y| {
                let noise = (x * 31 + y * 17 + i * 101 + class * 7) % 41;
                Luma([if y / 3 == class { 200 + noise as u8 } else { noise as u8 }])
            });
            image.save(folder.join(format!("{i:02}.png"))).unwrap();
        }
    }
    let manifest = "name = \"bands\"\nshape = { channels = 1, height = 9, width = 9 }\n\
        images = { format = \"folder\", path = \"images\" }\n\
        protocol = { queries_per_class = 2, train_per_class = 8, seed = 1 }\n";
    fs::write(dir.join("set/dataset.toml"), manifest).unwrap();
}
