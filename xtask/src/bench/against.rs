//! `cargo xtask bench --against`: dpq and other libraries, interleaved in one run.
//!
//! Each script leaves its measurements in docs/benchmarks, as JSON. `dpq-report` makes
//! docs/benchmarks.md, docs/codes.md and the figures from these files.

use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::Value;

use super::SOURCES;
use crate::process::{build_bench, build_dpq, commit, output, python};
use crate::reproduce;

/// A library to compare with, from PyPI.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Library {
    /// Searching, encoding, fitting codebooks
    Faiss,
    /// Training, encoding images
    Torch,
    /// Searching vectors instead of codes
    Usearch,
    /// Evaluating by a short script
    Numpy,
    /// Searching real vectors, beside faiss too
    Turbovec,
    /// No library: a live index, beside one index file
    Live,
}

/// The name of the file of measurements, the script, and its arguments.
type Comparison = (&'static str, &'static str, Vec<String>);

const FOLDER: &str = "docs/benchmarks";

/// The module that scripts share, and the requirements of each library.
const PYTHON: &str = "xtask/python";
const ENVIRONMENT: &str = "target/bench-venv";

/// The training whose features and codes are compared: that of `cargo xtask ci --step reproduce`.
const RUN: &str = "target/reproduce/fashion-mnist-quick/seed-1";

/// The folder for live indexes.
const LIVE: &str = "target/bench-live";

/// The number of items for codebooks, 39 per codeword of a level, and of queries.
const CODES: [&str; 2] = ["10000", "1000"];

/// Variables of a shell that would make one side slower or faster. Scripts set what their
/// comparison needs.
const VARIABLES: &str = "ATEN_CPU_CAPABILITY FAISS_OPT_LEVEL GOMP_CPU_AFFINITY MKL_NUM_THREADS NPY_DISABLE_CPU_FEATURES \
    NVPL_BLAS_DEBUG_CPU_TYPE OMP_NUM_THREADS OMP_PROC_BIND ONEDNN_MAX_CPU_ISA OPENBLAS_CORETYPE OPENBLAS_L2_SIZE \
    OPENBLAS_NUM_THREADS RAYON_NUM_THREADS";

/// Compares with each library and writes the pages.
pub(super) fn compare(libraries: &[Library], items: &[u32], queries: u16) -> Result<()> {
    let start = Instant::now();
    let items = items.iter().map(u32::to_string).collect::<Vec<_>>();
    let commit = commit(SOURCES);
    let compiler = output(Command::new("rustc").arg("--version"))?;
    let dpq = build_dpq("cpu")?.display().to_string();
    if libraries.iter().any(|library| ![Library::Turbovec, Library::Live].contains(library)) {
        reproduce::run(&reproduce::Settings::quick())?;
        encode(&dpq)?;
    }
    for library in libraries {
        let python = library.python()?;
        for (name, path, args) in library.comparisons(&dpq, &items, queries)? {
            let mut script = Command::new(&python);
            script.arg(path).args(args);
            script.env("PYTHONPATH", PYTHON).env("PYTHONDONTWRITEBYTECODE", "1");
            VARIABLES.split(' ').for_each(|name| _ = script.env_remove(name));
            let script_start = Instant::now();
            let json = output(&mut script)?;
            let mut run: Value =
                serde_json::from_str(&json).with_context(|| format!("{path} did not print JSON"))?;
            run["commit"] = commit.as_str().into();
            run["compiler"] = compiler.trim().into();
            run["command"] = library.command(&items, queries).into();
            run["seconds"] = script_start.elapsed().as_secs_f64().round().into();
            let path = format!("{FOLDER}/{name}.json");
            fs::create_dir_all(FOLDER)?;
            fs::write(&path, format!("{run:#}\n")).with_context(|| format!("cannot write {path}"))?;
            println!("{path}");
        }
        dpq_report::docs::render("docs")?;
    }
    println!("{:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Writes the features and codes of [`RUN`] that scripts read.
fn encode(dpq: &str) -> Result<()> {
    for split in ["query", "gallery"] {
        let mut encode = Command::new(dpq);
        encode.args(["encode", "--data", "datasets/fashion-mnist", "--split", split, "--json"]);
        encode.args(["--model", &format!("{RUN}/train/model.safetensors")]);
        output(encode.args(["--out-dir", &format!("{RUN}/{split}")]))?;
    }
    let mut build = Command::new(dpq);
    build.args(["index", "build", "--json", "--codes", &format!("{RUN}/gallery/codes.npy")]);
    build.args(["--codebook", &format!("{RUN}/train/model.safetensors")]);
    build.args(["--ids", &format!("{RUN}/gallery/ids.npy")]);
    fs::create_dir_all(format!("{RUN}/index"))?;
    output(build.args(["--out", &format!("{RUN}/index/gallery.dpq")])).map(drop)
}

impl Library {
    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    fn command(self, items: &[String], queries: u16) -> String {
        let options = format!(" --items {} --queries {queries}", items.join(","));
        format!(
            "cargo xtask bench --against {}{}",
            self.name(),
            if self == Self::Faiss { &options } else { "" }
        )
    }

    /// Returns the Python that has the library.
    pub(crate) fn python(self) -> Result<String> {
        python(ENVIRONMENT, &format!("{PYTHON}/{}.txt", self.name()))
    }

    fn comparisons(self, dpq: &str, items: &[String], queries: u16) -> Result<Vec<Comparison>> {
        let bench = |package, name| Ok::<_, anyhow::Error>(build_bench(package, name)?.display().to_string());
        let peer = |package| bench(package, "peer");
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        Ok(match self {
            Self::Faiss => {
                let features = format!("features={RUN}/gallery/features.npy,{RUN}/query/features.npy");
                let codes = words(&[&peer("dpq-codebook")?, CODES[0], CODES[1], &features]);
                let search = [&[peer("dpq-index")?, queries.to_string()], items].concat();
                vec![
                    ("codes", "crates/dpq-codebook/benches/faiss/compare.py", codes),
                    ("search", "crates/dpq-index/benches/faiss/compare.py", search),
                ]
            }
            Self::Torch => {
                let residual = words(&[&bench("dpq-model", "residual")?]);
                vec![
                    ("training", "crates/dpq-model/benches/torch/small_network.py", words(&[dpq, "cpu"])),
                    ("residual", "crates/dpq-model/benches/torch/residual_network.py", residual),
                ]
            }
            Self::Usearch => {
                vec![("usearch", "crates/dpq-index/benches/usearch/compare.py", words(&[dpq, RUN]))]
            }
            Self::Turbovec => {
                let vectors = words(&[&peer("dpq-index")?, dpq]);
                vec![("vectors", "crates/dpq-index/benches/vectors/compare.py", vectors)]
            }
            Self::Live => {
                fs::create_dir_all(LIVE)?;
                let live = words(&[&bench("dpq-live", "gallery")?, LIVE]);
                vec![("live", "crates/dpq-live/benches/gallery.py", live)]
            }
            Self::Numpy => {
                vec![("evaluation", "crates/dpq-eval/benches/numpy/compare.py", words(&[dpq, RUN]))]
            }
        })
    }
}
