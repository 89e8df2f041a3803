//! The step `page` of `cargo xtask ci`: the page of the server in a browser, and its description
//! against what it answers.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process::{build_dpq, python, remove, run as run_command};

/// The tests, and the packages that they need.
const TESTS: &str = "crates/dpq-server/tests/page";

/// The scripts of the page, whose types are checked.
const PAGE: &str = "crates/dpq-server/page";

const FOLDER: &str = "target/page";

/// Where the screenshots of the documentation are. `UPDATE_EXPECT=1` takes new ones, of a network
/// that was trained for long.
const SCREENSHOTS: &str = "docs/page";

/// The maximum size of a screenshot in the repository.
const MAX_BYTES: u64 = 150_000;

const DATA: &str = "datasets/fashion-mnist";

/// Needs npm, python3 and Debian's Chromium, which it installs where apt-get is there and it may.
pub(crate) fn run() -> Result<()> {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let browser = browser()?;
    fs::create_dir_all(FOLDER)?;
    for name in ["package.json", "package-lock.json", "test.js"] {
        let from = format!("{TESTS}/{name}");
        fs::copy(&from, format!("{FOLDER}/{name}")).with_context(|| format!("cannot copy {from}"))?;
    }
    let npm = ["ci", "--prefix", FOLDER, "--ignore-scripts", "--no-audit", "--no-fund"];
    run_command(Command::new("npm").args(npm)).context("the tests of the page need Node.js with npm")?;
    run_command(Command::new(format!("{FOLDER}/node_modules/.bin/tsc")).args(["--project", PAGE]))?;

    let dpq = fs::canonicalize(build_dpq("cpu")?)?;
    let dpq = |line: &str| {
        let mut command = Command::new(&dpq);
        command.args(line.split(' '));
        command
    };
    for made in ["run", "image", "open.live", "closed.live", "screenshots"] {
        remove(Path::new(FOLDER).join(made))?;
    }
    let epochs = if update { "" } else { " --set epochs=2" };
    let model = format!("{FOLDER}/run/model.safetensors");
    run_command(&mut dpq(&format!("train --data {DATA} --preset quick --out {FOLDER}/run{epochs}")))?;
    let query = fs::read_to_string(format!("{DATA}/splits/query.txt"))?;
    let id = query.lines().nth(IMAGE).context("there are too few queries")?;
    run_command(&mut dpq(&format!("data images --data {DATA} --ids {id} --out-dir {FOLDER}/image")))?;
    // A few thousand images are enough for a test, and the pictures show all.
    let split = if update { "gallery" } else { "train" };
    let input = format!("--data {DATA} --split {split} --model {model}");
    // By distance, an image is its own best match.
    run_command(&mut dpq(&format!("index add {FOLDER}/open.live {input} --metric l2")))?;
    run_command(&mut dpq(&format!(
        "index add {FOLDER}/closed.live --data {DATA} --split query --model {model}"
    )))?;

    fs::write(format!("{FOLDER}/token"), TOKEN)?;
    let serve = |gallery: &str| {
        dpq(&format!("serve {FOLDER}/{gallery} --model {model} --images {DATA} --listen 127.0.0.1:0 --json"))
    };
    let open = Served::start(&mut serve("open.live"))?;
    let closed = Served::start(serve("closed.live").args(["--token-file", &format!("{FOLDER}/token")]))?;
    let screenshots = format!("{FOLDER}/screenshots");
    fs::create_dir_all(&screenshots)?;
    let mut test = Command::new("node");
    test.arg(format!("{FOLDER}/test.js")).args([&open.address, &closed.address, TOKEN]);
    test.arg(format!("{FOLDER}/image/{id}.png")).arg(&screenshots).arg(browser);
    run_command(&mut test)?;
    described(&closed.address)?;
    if update { keep(Path::new(&screenshots)) } else { Ok(()) }
}

/// The row of the query that the tests drop: a T-shirt, which short codes mistake for a shirt.
const IMAGE: usize = 9;

const TOKEN: &str = "a-token-of-the-tests";

/// Sends requests that the description of the server allows and others, and compares the answers
/// with it: no failures, statuses, kinds and forms as described, wrong requests refused, the token
/// needed.
fn described(address: &str) -> Result<()> {
    let python = python("target/openapi-venv", &format!("{TESTS}/requirements.txt"))?;
    let description = format!("{address}/openapi.json");
    // It leaves files in its folder. The path stays that of the link: Python finds its packages by
    // it.
    let mut test = Command::new(std::path::absolute(python)?);
    // The description cannot say all that is wrong, such as the dimensions of features.
    test.args([
        "-m",
        "schemathesis.cli",
        "run",
        &description,
        "--exclude-checks",
        "positive_data_acceptance",
    ]);
    test.args(["--header", &format!("Authorization: Bearer {TOKEN}"), "--seed", "1", "--max-examples", "30"]);
    run_command(test.current_dir(FOLDER))
}

/// A server that ends when it is dropped.
struct Served {
    child: Child,
    address: String,
}

impl Served {
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start dpq serve")?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("dpq serve has no output")?;
        let mut served = Self { child, address: String::new() };
        BufReader::new(stdout).read_line(&mut line)?;
        let printed: Value = serde_json::from_str(&line).context("dpq serve did not start")?;
        served.address = format!("http://{}", printed["address"].as_str().unwrap_or_default());
        Ok(served)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Finds Chromium or Chrome, or installs Debian's Chromium.
fn browser() -> Result<PathBuf> {
    let known = ["/usr/bin/chromium", "/usr/bin/google-chrome"].map(PathBuf::from);
    let browser = known.iter().find(|path| path.exists()).unwrap_or(&known[0]).clone();
    if !browser.exists() {
        let apt = |args: &[&str]| run_command(Command::new("apt-get").args(args));
        apt(&["update"]).context("the tests of the page need Debian's chromium")?;
        apt(&["install", "--yes", "--no-install-recommends", "chromium", "fonts-liberation"])?;
    }
    Ok(browser)
}

/// Puts screenshots into the documentation.
fn keep(screenshots: &Path) -> Result<()> {
    fs::create_dir_all(SCREENSHOTS)?;
    for path in crate::process::list(screenshots)? {
        let n = fs::metadata(&path)?.len();
        ensure!(n <= MAX_BYTES, "{} has {n} bytes, expected at most {MAX_BYTES}", path.display());
        fs::copy(&path, Path::new(SCREENSHOTS).join(path.file_name().context("a file has a name")?))?;
    }
    Ok(())
}
