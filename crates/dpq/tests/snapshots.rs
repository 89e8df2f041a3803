//! The texts that a user reads: the help of every command and the message of every kind of error.
//!
//! `UPDATE_EXPECT=1 cargo test -p dpq` rewrites them after a deliberate change.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::fs;
use std::process::Command;

use expect_test::{Expect, expect, expect_file};
use tempfile::TempDir;

/// Runs `dpq` in an empty folder, apart from a text file called `text`.
fn dpq(command: &str) -> (i32, String, String) {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("text"), "no array").unwrap();
    fs::write(dir.path().join("empty"), "").unwrap();
    fs::write(dir.path().join("pointer"), "version https://git-lfs.github.com/spec/v1\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_dpq"))
        .current_dir(dir.path())
        .args(command.split_whitespace())
        // The width that help is wrapped to.
        .env("COLUMNS", "100")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace("dpq.exe", "dpq");
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn help() {
    let commands = [
        "",
        "demo",
        "train",
        "features",
        "encode",
        "decode",
        "codebook",
        "codebook train",
        "index",
        "index build",
        "index add",
        "index delete",
        "index compact",
        "index info",
        "index verify",
        "index upgrade",
        "index import",
        "index export",
        "search",
        "serve",
        "tune",
        "eval",
        "report",
        "attack",
        "data",
        "data get",
        "data verify",
        "data split",
        "data export",
        "data images",
        "weights",
        "weights import",
        "completions",
        "man",
    ];
    for command in commands {
        let (code, stdout, stderr) = dpq(&format!("{command} --help"));
        assert_eq!((code, stderr.as_str()), (0, ""));
        let leaf = !["", "codebook", "index", "data", "weights"].contains(&command);
        assert_eq!(stdout.contains("Example"), leaf, "{command}: a command has an example");
        let name = if command.is_empty() { "dpq".to_owned() } else { command.replace(' ', "-") };
        expect_file![format!("help/{name}.txt")].assert_eq(&stdout);
    }
}

#[test]
fn completions_name_commands_and_options() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let (code, script, _) = dpq(&format!("completions {shell}"));
        assert_eq!(code, 0);
        for word in ["search", "upgrade", "shortlist"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn each_command_has_a_manual_page() {
    let dir = TempDir::new().unwrap();
    let (code, stdout, _) = dpq(&format!("man --out-dir {} --json", dir.path().join("man1").display()));
    let pages: Vec<_> = fs::read_dir(dir.path().join("man1")).unwrap().collect();
    assert_eq!((code, stdout), (0, format!("{{\"pages\":{}}}\n", pages.len())));
    let page = fs::read_to_string(dir.path().join("man1/dpq-index-build.1")).unwrap();
    assert!(page.contains("dpq\\-index\\-build") && page.contains("codebook"), "{page}");
}

#[track_caller]
fn fails(command: &str, expected: Expect) {
    let (code, stdout, stderr) = dpq(command);
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    expected.assert_eq(&stderr);
}

#[test]
fn errors() {
    fails(
        "index info nothing.dpq",
        expect![[r#"
        error: cannot open nothing.dpq: No such file or directory (os error 2)
    "#]],
    );
    fails(
        "index info empty",
        expect![[r#"
            error: empty: the file is empty, make it again or restore it from a copy
        "#]],
    );
    fails(
        "index info pointer",
        expect![[r#"
        error: pointer: this is a Git LFS pointer, not the file it points to, run `git lfs pull`
    "#]],
    );
    fails(
        "index info text",
        expect![[r#"
        error: text: the file is truncated: it ends after 8 bytes, inside its header
    "#]],
    );
    fails(
        "search text --queries text",
        expect![[r#"
        error: text: the file is truncated: it ends after 8 bytes, inside its header
    "#]],
    );
    fails(
        "encode --codebook pointer --features text --out-dir out",
        expect![[r#"
        error: pointer: this is a Git LFS pointer, not the file it points to, run `git lfs pull`
    "#]],
    );
    fails(
        "encode --model empty --images . --out-dir out",
        expect![[r#"
            error: empty: the file is empty, make it again or restore it from a copy
        "#]],
    );
    fails(
        "decode --codes text --codebook pointer --out x.npy",
        expect![[r#"
        error: pointer: this is a Git LFS pointer, not the file it points to, run `git lfs pull`
    "#]],
    );
    fails(
        "codebook train --features text --out cb.safetensors",
        expect![[r#"
        error: text: not a NumPy .npy file, write it with numpy.save
    "#]],
    );
    fails(
        "train --data . --out run",
        expect![[r#"
        error: ./dataset.toml: no such file, expected a folder with a file dataset.toml that describes the data set
    "#]],
    );
    fails(
        "train --data . --out run --config text",
        expect![[r#"
            error: text, line 1: key with no value, expected `=`
        "#]],
    );
    fails(
        "data get .",
        expect![[r#"
        error: ./dataset.toml: no such file, expected a folder with a file dataset.toml that describes the data set
    "#]],
    );
    fails(
        "data export --data . --split train --out-dir out",
        expect![[r#"
        error: ./dataset.toml: no such file, expected a folder with a file dataset.toml that describes the data set
    "#]],
    );
}

#[test]
fn wrong_use() {
    for command in [
        "",
        "train",
        "encode --out-dir out",
        "search x --queries q -k",
        "train --preset bset --data . --out run",
    ] {
        let (code, stdout, stderr) = dpq(command);
        assert_eq!((code, stdout.as_str()), (2, ""), "{command}: {stderr}");
        assert!(
            stderr.contains("Usage: dpq") || stderr.contains("For more information, try '--help'"),
            "{stderr}"
        );
    }
}
