//! The pages of this repository that are made from measurements: reports and benchmarks in `docs`.
//!
//! A report in `docs/results` keeps `results.json`, `tsne.svg` and `queries.svg`; its other files
//! and `docs/results.md` are made from them. Benchmarks keep JSON in `docs/benchmarks`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::attacks::{self, Attacks};
use crate::files::{Files, RESULTS, list, write};
use crate::grids::{self, Grids};
use crate::page::{self, QUERIES, TSNE};
use crate::study::{self, Study};
use crate::{Error, Report, benchmarks, words};

const OVERVIEW: &str = "results.md";
const FOLDER: &str = "results";

/// Copies the report in the folder `from` to `results/NAME` in `docs`, and renders `docs`.
///
/// # Errors
/// [`Error::Io`] and [`Error::Json`] name the file.
pub fn copy(docs: impl AsRef<Path>, name: &str, from: impl AsRef<Path>) -> Result<(), Error> {
    Report::read(from)?.write(docs.as_ref().join(FOLDER).join(name))?;
    render(docs).map(|_| ())
}

/// Renders all pages again without measuring anything, and returns their paths.
///
/// # Errors
/// [`Error::Io`] and [`Error::Json`] name the file.
pub fn render(docs: impl AsRef<Path>) -> Result<Vec<PathBuf>, Error> {
    let mut paths = Vec::new();
    for (folder, files) in rendered(docs.as_ref())? {
        paths.extend(write(&folder, &files)?);
    }
    Ok(paths)
}

/// Returns the paths that are not what [`render`] would write, or that no report has.
///
/// # Errors
/// [`Error::Io`] and [`Error::Json`] name the file.
pub fn stale(docs: impl AsRef<Path>) -> Result<Vec<PathBuf>, Error> {
    let docs = docs.as_ref();
    let mut stale = Vec::new();
    for (folder, files) in rendered(docs)? {
        let paths = files.iter().map(|(file, text)| (folder.join(file), text));
        let differs =
            |(path, text): &(PathBuf, &String)| fs::read_to_string(path).ok().as_ref() != Some(*text);
        stale.extend(paths.filter(differs).map(|(path, _)| path));
        let known = || files.iter().map(|(file, _)| file.as_str()).chain([RESULTS, TSNE, QUERIES]);
        if folder != docs {
            stale.extend(list(&folder)?.into_iter().filter(|path| !known().any(|file| path.ends_with(file))));
        }
    }
    Ok(stale)
}

/// Returns all files that are made from measurements, by folder. The last folder is `docs`.
fn rendered(docs: &Path) -> Result<Vec<(PathBuf, Files)>, Error> {
    let mut folders = list(&docs.join(FOLDER))?;
    let mut of = |name: &str| folders.extract_if(.., |folder| folder.ends_with(name)).next();
    let (grids, attacks) = (of(grids::NAME), of(attacks::NAME));
    let grids = grids.map(|folder| Grids::read(&folder).map(|grids| (folder, grids))).transpose()?;
    let attacks =
        attacks.map(|folder| Attacks::read(&folder).map(|attacks| (folder, attacks))).transpose()?;
    let studies = folders.extract_if(.., |folder| study::NAMES.iter().any(|name| folder.ends_with(name)));
    let studies = studies.collect::<Vec<_>>().into_iter();
    let studies = studies.map(|folder| Study::read(&folder).map(|study| (folder, study)));
    let studies = studies.collect::<Result<Vec<_>, _>>()?;
    let reports = folders.into_iter().map(|folder| Report::read(&folder).map(|report| (folder, report)));
    let reports = reports.collect::<Result<Vec<_>, _>>()?;
    let has = [grids.is_some(), attacks.is_some()];
    let mut files = vec![(OVERVIEW.to_owned(), overview(&reports, &studies, has))];
    files.extend(benchmarks::files(docs)?);
    let rendered = reports.into_iter().map(|(folder, report)| (folder, report.render()));
    let grids = grids.map(|(folder, grids)| (folder, grids.render()));
    let attacks = attacks.map(|(folder, attacks)| (folder, attacks.render()));
    let studies = studies.into_iter().map(|(folder, study)| (folder, study.render()));
    Ok(rendered.chain(studies).chain(grids).chain(attacks).chain([(docs.to_owned(), files)]).collect())
}

/// Returns `docs/results.md`.
fn overview(
    reports: &[(PathBuf, Report)],
    studies: &[(PathBuf, Study)],
    [has_grids, has_attacks]: [bool; 2],
) -> String {
    let mut text = "# Results\n\n`dpq` measured every number on this page. `cargo xtask reproduce-paper --write-docs` \
        writes it. Each report adds tables, figures and the machine. Its `report.html` is one self-contained page; its \
        `results.csv` has every accuracy.\n"
        .to_owned();
    let place =
        |folder: &Path| format!("{FOLDER}/{}", folder.file_name().unwrap_or_default().to_string_lossy());
    for (folder, report) in reports {
        let place = place(folder);
        text += &format!(
            "\n## {}\n\n{}\n\n[The whole report]({place}/results.md) · [as one page]({place}/report.html) · \
             [numbers]({place}/results.csv)\n",
            words::name(&report.results),
            page::overview(&report.results)
        );
    }
    for (folder, study) in studies {
        text += &format!(
            "\n## {}\n\n{}\n\n[The whole report]({}/results.md)\n",
            study.title,
            study.text,
            place(folder)
        );
    }
    if has_grids {
        text += &format!(
            "\n## Grids of stochastic differential equations\n\nErrors of option prices by scheme, steps and points, \
             which `dpq-rmq` measured.\n\n[The whole report]({FOLDER}/{}/results.md)\n",
            grids::NAME
        );
    }
    if has_attacks {
        text += &format!(
            "\n## Adversarial queries\n\nQueries that were changed by a little, to find something else.\n\n\
             [The whole report]({FOLDER}/{}/results.md)\n",
            attacks::NAME
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::test_data;

    /// Returns a folder with two reports.
    fn docs() -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, tsne) in [("a", Some("<svg>points</svg>".to_owned())), ("b", None)] {
            let from = dir.path().join(name);
            Report { results: test_data::results(1), tsne, queries: None }.write(&from).unwrap();
            copy(dir.path(), name, &from).unwrap();
        }
        dir
    }

    #[test]
    fn copies_are_what_they_render_to() {
        let dir = docs();
        assert_eq!(stale(dir.path()).unwrap(), Vec::<PathBuf>::new());
        let page = fs::read_to_string(dir.path().join("results/a/report.html")).unwrap();
        assert!(page.contains("<svg>points</svg>") && page.contains("Precision by recall"));
        let page = fs::read_to_string(dir.path().join("results/b/results.md")).unwrap();
        assert!(!page.contains(TSNE) && page.contains("map.svg"), "{page}");
        let page = fs::read_to_string(dir.path().join("results.md")).unwrap();
        assert_eq!(page.matches("[The whole report](results/").count(), 2);
    }

    #[test]
    fn stale_files_are_named() {
        let found = |spoil: &dyn Fn(&Path)| {
            let dir = docs();
            spoil(dir.path());
            stale(dir.path()).unwrap()
        };
        for file in ["results.md", "results/a/results.csv", "results/b/map.svg", "results/a/report.html"] {
            let found = found(&|docs| fs::write(docs.join(file), "other").unwrap());
            assert!(found.len() == 1 && found[0].ends_with(file), "{found:?}");
        }
        let unknown = found(&|docs| fs::write(docs.join("results/a/stray.svg"), "").unwrap());
        assert!(unknown.len() == 1 && unknown[0].ends_with("stray.svg"), "{unknown:?}");
        // Numbers edited by hand make everything stale that is made from them.
        let edited = found(&|docs| {
            let path = docs.join("results/a/results.json");
            let json = fs::read_to_string(&path).unwrap();
            fs::write(path, json.replace("\"8\":[0.8537", "\"8\":[0.9537")).unwrap();
        });
        assert!(edited.iter().any(|path| path.ends_with("results.csv")), "{edited:?}");
    }
}
