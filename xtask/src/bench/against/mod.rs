//! `cargo xtask bench --against`: dpq and other libraries, measured by turns in one run.
//!
//! - `results`: what each script measured
//! - `search`, `codes`, `others`: that in words and tables
//!
//! A script leaves its numbers in docs/benchmarks, as JSON; docs/benchmarks.md, docs/codes.md and the figures are made of
//! those files and of nothing else.

mod codes;
mod others;
mod results;
mod search;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::SOURCES;
use crate::process::{build_bench, build_dpq, commit, output, python};
use crate::reproduce;
use crate::table::{Table, line};
use results::{Machine, Run};

/// What a comparison is with; each from PyPI.
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
}

/// One script.
struct Comparison {
    /// Of the file that keeps what it measured.
    name: &'static str,
    script: &'static str,
    args: Vec<String>,
}

/// The module that the scripts share, and what each library needs.
const PYTHON: &str = "xtask/python";
const ENVIRONMENT: &str = "target/bench-venv";
/// The training whose features and codes are compared: that of `cargo xtask ci --step reproduce`.
const RUN: &str = "target/reproduce/fashion-mnist-quick/seed-1";
/// Items that codebooks are fitted to, 39 for each codeword of a level, and queries.
const CODES: [&str; 2] = ["10000", "1000"];

/// What a shell may have set that makes one side slower or faster; a script sets what its comparison needs.
const VARIABLES: [&str; 13] = [
    "ATEN_CPU_CAPABILITY",
    "FAISS_OPT_LEVEL",
    "GOMP_CPU_AFFINITY",
    "MKL_NUM_THREADS",
    "NPY_DISABLE_CPU_FEATURES",
    "NVPL_BLAS_DEBUG_CPU_TYPE",
    "OMP_NUM_THREADS",
    "OMP_PROC_BIND",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    "OPENBLAS_NUM_THREADS",
    "RAYON_NUM_THREADS",
];

/// The Python that has faiss.
pub(crate) fn faiss_python() -> Result<String> {
    Library::Faiss.python()
}

/// Measures beside each of the libraries and writes the documents.
pub(crate) fn compare(libraries: &[Library], items: &[u32], queries: u16) -> Result<()> {
    let start = Instant::now();
    let items = items.iter().map(u32::to_string).collect::<Vec<_>>();
    let how = [
        ("commit", commit(SOURCES)),
        ("compiler", output(Command::new("rustc").arg("--version"))?.trim().to_owned()),
    ];
    reproduce::run(&reproduce::Settings::quick())?;
    let mut scripts = 0.0;
    for library in libraries {
        let python = library.python()?;
        for comparison in library.comparisons(&items, queries)? {
            let mut script = Command::new(&python);
            script.arg(comparison.script).args(comparison.args);
            script.env("PYTHONPATH", PYTHON).env("PYTHONDONTWRITEBYTECODE", "1");
            VARIABLES.iter().for_each(|name| _ = script.env_remove(name));
            let script_start = Instant::now();
            let json = output(&mut script)?;
            let seconds = script_start.elapsed().as_secs_f64();
            scripts += seconds;
            let mut run: Value = serde_json::from_str(&json)
                .with_context(|| format!("{} printed something else than results", comparison.script))?;
            how.iter().for_each(|(name, value)| run[name] = value.as_str().into());
            run["command"] = library.command(&items, queries).into();
            run["seconds"] = seconds.round().into();
            let path = format!("{FOLDER}/{}.json", comparison.name);
            fs::create_dir_all(FOLDER)?;
            fs::write(&path, format!("{run:#}\n")).with_context(|| format!("cannot write {path}"))?;
            println!("{path}");
        }
        for path in render_docs()? {
            println!("{path}");
        }
    }
    println!("{:.0} s, {scripts:.0} s of them in scripts", start.elapsed().as_secs_f64());
    Ok(())
}

impl Library {
    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    fn command(self, items: &[String], queries: u16) -> String {
        let command = format!("cargo xtask bench --against {}", self.name());
        match self {
            Self::Faiss => format!("{command} --items {} --queries {queries}", items.join(",")),
            _ => command,
        }
    }

    fn python(self) -> Result<String> {
        python(ENVIRONMENT, &format!("{PYTHON}/{}.txt", self.name()))
    }

    fn comparisons(self, items: &[String], queries: u16) -> Result<Vec<Comparison>> {
        let peer = |package| Ok::<_, anyhow::Error>(build_bench(package, "peer")?.display().to_string());
        let dpq = || Ok::<_, anyhow::Error>(build_dpq("cpu")?.display().to_string());
        Ok(match self {
            Self::Faiss => {
                let features = format!("features={RUN}/gallery/features.npy,{RUN}/query/features.npy");
                let sizes = CODES.map(str::to_owned);
                vec![
                    Comparison {
                        name: "codes",
                        script: "crates/dpq-codebook/benches/faiss/compare.py",
                        args: [&[peer("dpq-codebook")?][..], &sizes, &[features]].concat(),
                    },
                    Comparison {
                        name: "search",
                        script: "crates/dpq-index/benches/faiss/compare.py",
                        args: [&[peer("dpq-index")?, queries.to_string()], items].concat(),
                    },
                ]
            }
            Self::Torch => vec![Comparison {
                name: "training",
                script: "crates/dpq-model/benches/torch/small_network.py",
                args: vec![dpq()?, "cpu".to_owned()],
            }],
            Self::Usearch => vec![Comparison {
                name: "usearch",
                script: "crates/dpq-index/benches/usearch/compare.py",
                args: vec![dpq()?, RUN.to_owned()],
            }],
            Self::Numpy => vec![Comparison {
                name: "evaluation",
                script: "crates/dpq-eval/benches/numpy/compare.py",
                args: vec![dpq()?, RUN.to_owned()],
            }],
        })
    }
}

const FOLDER: &str = "docs/benchmarks";

/// Writes all that is made of what was measured, and returns the paths.
pub(crate) fn render_docs() -> Result<Vec<String>> {
    let files = render(Path::new(FOLDER))?;
    for (path, text) in &files {
        fs::write(path, text).with_context(|| format!("cannot write {path}"))?;
    }
    Ok(files.into_iter().map(|(path, _)| path).collect())
}

/// Says which documents are not what they are made of.
pub(crate) fn check_docs() -> Result<Vec<String>> {
    let differs = |(path, text): &(String, String)| fs::read_to_string(path).ok().as_ref() != Some(text);
    let wrong = render(Path::new(FOLDER))?.into_iter().filter(differs);
    Ok(wrong.map(|(path, _)| format!("{path} is stale, run `cargo xtask render-docs`")).collect())
}

/// Paths and texts of all that is made of the files in `folder`; nothing, where nothing was measured.
fn render(folder: &Path) -> Result<Vec<(String, String)>> {
    let codes = read::<results::Codes>(folder, "codes")?;
    let searches = read::<results::Searches>(folder, "search")?;
    let sections: Vec<Section> = [
        codes.as_ref().map(codes::rates),
        read(folder, "training")?.as_ref().map(others::training),
        read(folder, "evaluation")?.as_ref().map(others::evaluation),
        read(folder, "usearch")?.as_ref().map(others::vectors),
        searches.as_ref().map(search::section),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut files = Vec::new();
    if !sections.is_empty() {
        let texts = sections.iter().map(|section| format!("## {}\n\n{}\n", section.title, section.text));
        let parts = [INTRODUCTION.to_owned()].into_iter().chain(slower(&sections)).chain(texts);
        files.push(("docs/benchmarks.md".to_owned(), parts.collect::<Vec<_>>().join("\n")));
    }
    if let Some(searches) = searches {
        files.push((format!("{FOLDER}/{}", search::FIGURE), search::figure(&searches)));
    }
    if let Some(codes) = codes {
        files.push(("docs/codes.md".to_owned(), codes::page(&codes)));
        let figures = codes::figures(&codes).into_iter();
        files.extend(figures.map(|(name, svg)| (format!("{FOLDER}/{name}"), svg)));
    }
    Ok(files)
}

const INTRODUCTION: &str = "\
# dpq beside other libraries

Written by `cargo xtask bench --against faiss,torch,usearch,numpy` from the files in [benchmarks](benchmarks), and every
number is what a run measured. In each comparison the two sides took turns, in one run, on one machine. A ratio above 1× says
that dpq is faster.
";

/// Of docs/benchmarks.md.
struct Section {
    title: &'static str,
    text: String,
    /// Every ratio of the text, and of what.
    ratios: Vec<(String, f64)>,
}

/// The section of every ratio that the others print as less than 1; none, where there is no such.
fn slower(sections: &[Section]) -> Option<String> {
    let rows: Vec<_> = sections
        .iter()
        .flat_map(|section| section.ratios.iter().map(move |(what, ours)| (section.title, what, *ours)))
        .filter(|&(.., ours)| ours < 0.995)
        .map(|(title, what, ours)| vec![format!("{title}; {what}"), ratio(ours)])
        .collect();
    let table = Table { header: line("", ["ratio".to_owned()]), rows };
    (!table.rows.is_empty()).then(|| format!("## Where dpq is slower\n\n{table}\n"))
}

fn read<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<Option<Run<T>>> {
    let path = folder.join(format!("{name}.json"));
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let run = serde_json::from_slice(&text);
    Ok(Some(run.with_context(|| format!("{} is not what its comparison writes now", path.display()))?))
}

impl<T> Run<T> {
    /// A list of when and on what it ran, and of what else `notes` say.
    fn how(&self, notes: &[String]) -> String {
        let Machine { cpu, cores, memory_bytes, instructions, kernel } = &self.machine;
        let versions = self.versions.iter().map(|(name, version)| format!("; {name} {version}"));
        let lines = [
            format!(
                "`{}`; {}; commit `{}`; took {} s",
                self.command,
                self.date,
                self.commit,
                count(self.seconds.round() as u64)
            ),
            format!(
                "{cpu}, {cores} cores, {:.0} GiB, {kernel}; of the instruction sets that matter: {}",
                *memory_bytes as f64 / 1073741824.0,
                instructions.join(", ")
            ),
            self.compiler.clone() + &versions.collect::<String>(),
        ];
        lines.iter().chain(notes).map(|line| format!("- {line}")).collect::<Vec<_>>().join("\n")
    }
}

/// How many times faster we are.
fn ratio(ours: f64) -> String {
    match ours {
        ..1.995 => format!("{ours:.2}×"),
        ..9.95 => format!("{ours:.1}×"),
        _ => format!("{ours:.0}×"),
    }
}

fn microseconds(ns: u64) -> String {
    let us = ns as f64 / 1e3;
    if us < 99.5 { format!("{us:.1}") } else { count(us.round() as u64) }
}

/// A whole number, its thousands marked.
fn count(n: u64) -> String {
    let digits = n.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    groups.map(|group| String::from_utf8_lossy(group)).collect::<Vec<_>>().join(",")
}

/// What comes first of equal values, in order.
fn unique<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    values.fold(Vec::new(), |mut unique, value| {
        if !unique.contains(&value) {
            unique.push(value);
        }
        unique
    })
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    use super::*;

    #[test]
    fn documents() {
        let files = render(Path::new("src/bench/against/test_data")).unwrap();
        let text = |name: &str| &files.iter().find(|(path, _)| path.ends_with(name)).unwrap().1;
        expect_file!["test_data/benchmarks.txt"].assert_eq(text("benchmarks.md"));
        expect_file!["test_data/codes.txt"].assert_eq(text("codes.md"));
        for page in ["benchmarks.md", "codes.md"] {
            let images = text(page).split("![").skip(1).filter_map(|rest| rest.split(['(', ')']).nth(1));
            let images: Vec<&str> = images.collect();
            assert!(!images.is_empty());
            for image in images {
                assert!(files.iter().any(|(path, _)| path.ends_with(image)), "{image} is missing");
            }
        }
    }

    #[test]
    fn nothing_measured_is_nothing_written() {
        assert!(render(tempfile::tempdir().unwrap().path()).unwrap().is_empty());
    }

    #[test]
    fn what_reads_as_equal_is_not_slower() {
        let section =
            |ratio| Section { title: "Speed", text: String::new(), ratios: vec![("all".to_owned(), ratio)] };
        assert!(slower(&[section(1.5), section(0.996)]).is_none());
        assert!(slower(&[section(1.5), section(0.99)]).is_some_and(|text| text.contains("Speed; all")));
    }

    #[test]
    fn numbers_are_rounded_to_what_they_are_worth() {
        assert_eq!([999, 1000, 1_234_567].map(count), ["999", "1,000", "1,234,567"]);
        assert_eq!([1_240, 99_480, 99_500, 33_123_456].map(microseconds), ["1.2", "99.5", "100", "33,123"]);
        assert_eq!([9.96, 9.94, 1.5, 0.555].map(ratio), ["10×", "9.9×", "1.50×", "0.56×"]);
    }
}
