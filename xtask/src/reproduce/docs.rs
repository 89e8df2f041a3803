//! Reports on disk: in `target/reproduce/<dataset>-<preset>`, and in `docs` as that command copied them.
//!
//! `results.json`, `tsne.svg` and `queries.svg` are what a run leaves; every other file is made of them. So a copy of a report
//! can be checked without a run, and `docs/results.md` can be made again from all the copies.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::document::{html, markdown};
use super::results::Results;
use super::{csv, figures, report};

/// The numbers.
pub(crate) const RESULTS: &str = "results.json";

/// Figures of more than the numbers; a report may lack them.
pub(crate) const TSNE: &str = "tsne.svg";
pub(crate) const QUERIES: &str = "queries.svg";

/// The page of all reports, and the folder that they are in.
const OVERVIEW: &str = "results.md";
const FOLDER: &str = "results";

/// The texts of a report: files by name.
type Files = Vec<(&'static str, String)>;

/// A report made of its numbers and of what `figure` has of the other figures.
fn render(json: &str, figure: impl Fn(&str) -> Option<String>) -> Result<Files> {
    let results = Results::from_json(json)?;
    let mut files: Files = vec![
        (RESULTS, json.to_owned()),
        ("results.csv", csv::csv(&results)),
        ("map.svg", figures::map_by_bits(&results).svg()),
        ("precision-recall.svg", figures::precision_recall(&results).svg()),
        ("precision-at.svg", figures::precision_at(&results).svg()),
        ("distortion.svg", figures::distortion(&results).svg()),
        ("usage.svg", figures::usage(&results).svg()),
    ];
    files.extend([TSNE, QUERIES].into_iter().filter_map(|file| Some((file, figure(file)?))));
    let find = |name: &str| files.iter().find(|(file, _)| *file == name).map(|(_, text)| text.as_str());
    let (title, blocks) = (report::title(&results), report::blocks(&results, |file| find(file).is_some()));
    let pages = [("results.md", markdown(&title, &blocks)), ("report.html", html(&title, &blocks, find))];
    files.extend(pages);
    Ok(files)
}

/// Renders what is in `folder`.
fn render_folder(folder: &Path) -> Result<Files> {
    let path = folder.join(RESULTS);
    let json = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    render(&json, |file| fs::read_to_string(folder.join(file)).ok())
        .with_context(|| path.display().to_string())
}

/// Writes a report and returns the paths of its files.
pub(crate) fn write_report(folder: &Path, json: &str, figures: &[(&str, String)]) -> Result<Vec<PathBuf>> {
    let figure = |name: &str| figures.iter().find(|(file, _)| *file == name).map(|(_, text)| text.clone());
    write_files(folder, render(json, figure)?)
}

fn write_files(folder: &Path, files: Files) -> Result<Vec<PathBuf>> {
    let write = |(file, text): (&str, String)| {
        let (path, partial) = (folder.join(file), folder.join(format!("{file}.partial")));
        fs::write(&partial, text)
            .and_then(|()| fs::rename(&partial, &path))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    };
    files.into_iter().map(write).collect()
}

/// Removes all files of the folder of a report; the folders of stages stay.
pub(crate) fn remove_report(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Copies the report in `from` to `docs/results/<name>`.
pub(crate) fn write_docs(docs: &Path, name: &str, from: &Path) -> Result<()> {
    let to = docs.join(FOLDER).join(name);
    fs::create_dir_all(&to).with_context(|| format!("cannot create {}", to.display()))?;
    remove_report(&to)?;
    for file in [RESULTS, TSNE, QUERIES].into_iter().filter(|file| from.join(file).exists()) {
        let path = to.join(file);
        fs::copy(from.join(file), &path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    render_docs(docs)
}

/// Makes `docs/results.md` and all reports again from what their runs left.
pub(crate) fn render_docs(docs: &Path) -> Result<()> {
    for folder in folders(docs)? {
        write_files(&folder, render_folder(&folder)?)?;
    }
    write_files(docs, vec![(OVERVIEW, overview(docs)?)])?;
    Ok(())
}

/// Says where `docs` has something else than its reports render to.
pub(crate) fn check_docs(docs: &Path) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for folder in folders(docs)? {
        let rendered = render_folder(&folder)?;
        let differs = |(file, text): &&(&str, String)| {
            fs::read_to_string(folder.join(file)).ok().as_ref() != Some(text)
        };
        wrong.extend(rendered.iter().filter(differs).map(|(file, _)| folder.join(file)));
        let paths = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        let is_known = |path: &PathBuf| rendered.iter().any(|(file, _)| path.ends_with(file));
        wrong.extend(paths.into_iter().filter(|path| !is_known(path)));
    }
    let path = docs.join(OVERVIEW);
    if fs::read_to_string(&path).ok() != Some(overview(docs)?) {
        wrong.push(path);
    }
    let complaint = |path: PathBuf| {
        format!("{}: is not what the reports render to; `cargo xtask render-docs` writes it", path.display())
    };
    Ok(wrong.into_iter().map(complaint).collect())
}

/// `docs/results.md`.
fn overview(docs: &Path) -> Result<String> {
    let mut text = "# Results\n\nWritten by `cargo xtask reproduce-paper --write-docs`: every number is read from what `dpq` \
        measured. Each report has more tables, the figures and the machine; its `report.html` is one page that stands \
        alone, its `results.csv` has every accuracy.\n"
        .to_owned();
    for folder in folders(docs)? {
        let path = folder.join(RESULTS);
        let json = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let results = Results::from_json(&json).with_context(|| path.display().to_string())?;
        let place = format!("{FOLDER}/{}", folder.file_name().unwrap_or_default().to_string_lossy());
        text += &format!(
            "\n## {}\n\n{}\n\n[The whole report]({place}/results.md) · [as one page]({place}/report.html) · \
             [numbers]({place}/results.csv)\n",
            report::name(&results),
            report::overview(&results)
        );
    }
    Ok(text)
}

/// Folders of reports, in the order of their names.
fn folders(docs: &Path) -> Result<Vec<PathBuf>> {
    let folder = docs.join(FOLDER);
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::test_data;
    use super::*;

    /// Two reports, copied to `docs`.
    fn docs() -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, figures) in [("a", vec![(TSNE, "<svg>points</svg>".to_owned())]), ("b", vec![])] {
            let from = dir.path().join(name);
            fs::create_dir(&from).unwrap();
            write_report(&from, &test_data::results(1).to_json().unwrap(), &figures).unwrap();
            write_docs(dir.path(), name, &from).unwrap();
        }
        dir
    }

    #[test]
    fn copies_are_what_they_render_to() {
        let dir = docs();
        assert_eq!(check_docs(dir.path()).unwrap(), Vec::<String>::new());
        let page = fs::read_to_string(dir.path().join("results/a/report.html")).unwrap();
        assert!(page.contains("<svg>points</svg>") && page.contains("Precision by recall"));
        let page = fs::read_to_string(dir.path().join("results/b/results.md")).unwrap();
        assert!(!page.contains(TSNE) && page.contains("map.svg"), "{page}");
        let page = fs::read_to_string(dir.path().join("results.md")).unwrap();
        assert_eq!(page.matches("[The whole report](results/").count(), 2);
    }

    #[test]
    fn whatever_differs_is_named() {
        let complaints = |spoil: &dyn Fn(&Path)| {
            let dir = docs();
            spoil(dir.path());
            check_docs(dir.path()).unwrap()
        };
        for file in ["results.md", "results/a/results.csv", "results/b/map.svg", "results/a/report.html"] {
            let found = complaints(&|docs| fs::write(docs.join(file), "other").unwrap());
            assert!(found.len() == 1 && found[0].contains(file), "{found:?}");
        }
        let found = complaints(&|docs| fs::write(docs.join("results/a/stray.svg"), "").unwrap());
        assert!(found.len() == 1 && found[0].contains("stray.svg"), "{found:?}");
        // Numbers that were edited by hand: all that is made of them is wrong.
        let edit = |docs: &Path| {
            let path = docs.join("results/a/results.json");
            let json = fs::read_to_string(&path).unwrap();
            fs::write(path, json.replace("\"8\":[0.8537", "\"8\":[0.9537")).unwrap();
        };
        assert!(complaints(&edit).iter().any(|complaint| complaint.contains("results.csv")));
    }
}
