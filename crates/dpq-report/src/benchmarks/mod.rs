//! Speed: pages that compare dpq with other libraries, and tables that compare two runs of its
//! benches.
//!
//! - `criterion`: the times of criterion's benches
//! - `measured`: the benches of all crates, and what is worse than a baseline
//! - `results`: what the comparisons measured, as their scripts print it
//! - `search`, `vectors`, `codes`, `live`, `others`: the sections of `docs/benchmarks.md`, and
//!   `docs/codes.md`

mod codes;
mod criterion;
mod live;
mod measured;
mod others;
mod results;
mod search;
mod vectors;
mod words;

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::Error;
use crate::files::{self, Files};
use crate::table::Table;
pub use criterion::criterion;
pub use measured::{Measured, Time};
use results::Run;
use words::{Section, ratio};

/// The folder of the measurements in `docs`.
const FOLDER: &str = "benchmarks";

/// Returns everything that is made from the measurements in `docs/benchmarks`; nothing if there are
/// none.
pub(crate) fn files(docs: &Path) -> Result<Files, Error> {
    let folder = docs.join(FOLDER);
    let codes = read::<results::Codes>(&folder, "codes")?;
    let searches = read::<results::Searches>(&folder, "search")?;
    let vectors = read::<results::RealVectors>(&folder, "vectors")?;
    let sections: Vec<Section> = [
        vectors.as_ref().map(vectors::section),
        searches.as_ref().map(search::section),
        read(&folder, "usearch")?.as_ref().map(others::vectors),
        codes.as_ref().map(codes::rates),
        read(&folder, "training")?.as_ref().map(others::training),
        read(&folder, "residual")?.as_ref().map(others::residual),
        read(&folder, "folder")?.as_ref().map(others::folder),
        read(&folder, "evaluation")?.as_ref().map(others::evaluation),
        read(&folder, "live")?.as_ref().map(live::section),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut files = Files::new();
    if !sections.is_empty() {
        let texts = sections.iter().map(|section| format!("## {}\n\n{}\n", section.title, section.text));
        let overviews = [vectors.as_ref().map(vectors::overview), searches.as_ref().map(search::overview)];
        let parts = [INTRODUCTION.to_owned()]
            .into_iter()
            .chain(overviews.into_iter().flatten())
            .chain(slower(&sections))
            .chain(texts);
        files.push(("benchmarks.md".to_owned(), parts.collect::<Vec<_>>().join("\n")));
    }
    files.extend(vectors.iter().flat_map(vectors::figures));
    if let Some(searches) = searches {
        files.push((search::FIGURE.to_owned(), search::figure(&searches)));
    }
    if let Some(codes) = codes {
        files.push(("codes.md".to_owned(), codes::page(&codes)));
        files.extend(codes::figures(&codes));
    }
    Ok(files)
}

const INTRODUCTION: &str = "\
# dpq beside other libraries

`cargo xtask bench --against faiss,torch,usearch,numpy,turbovec,live` writes this page from the files in [benchmarks](benchmarks). Each
comparison ran both sides alternately, in one run, on one machine. A ratio above 1× means that dpq is faster.
";

/// Returns a section with every ratio that is printed as less than 1, if there is any.
fn slower(sections: &[Section]) -> Option<String> {
    let rows = sections
        .iter()
        .flat_map(|section| section.ratios.iter().map(move |(what, ours)| (section.title, what, *ours)))
        .filter(|&(.., ours)| ours < 0.995)
        .map(|(title, what, ours)| vec![format!("{title}; {what}"), ratio(ours)]);
    let table = Table::new("", ["ratio"], rows);
    (!table.rows.is_empty()).then(|| format!("## Where dpq is slower\n\n{table}\n"))
}

fn read<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<Option<Run<T>>, Error> {
    let path = folder.join(format!("{name}.json"));
    path.exists().then(|| files::read(&path)).transpose()
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    use super::*;

    #[test]
    fn pages() {
        let files = files(Path::new("src/benchmarks/test_data")).unwrap();
        let text = |name: &str| &files.iter().find(|(path, _)| path == name).unwrap().1;
        expect_file!["test_data/benchmarks.txt"].assert_eq(text("benchmarks.md"));
        expect_file!["test_data/codes.txt"].assert_eq(text("codes.md"));
        for page in ["benchmarks.md", "codes.md"] {
            let images = text(page).split("![").skip(1).filter_map(|rest| rest.split(['(', ')']).nth(1));
            let images: Vec<&str> = images.collect();
            assert!(!images.is_empty());
            for image in images {
                assert!(files.iter().any(|(path, _)| path == image), "{image} is missing");
            }
        }
    }

    #[test]
    fn without_measurements_there_are_no_pages() {
        assert!(files(tempfile::tempdir().unwrap().path()).unwrap().is_empty());
    }

    #[test]
    fn a_ratio_that_rounds_to_one_is_not_slower() {
        let section =
            |ratio| Section { title: "Speed", text: String::new(), ratios: vec![("all".to_owned(), ratio)] };
        assert!(slower(&[section(1.5), section(0.996)]).is_none());
        assert!(slower(&[section(1.5), section(0.99)]).is_some_and(|text| text.contains("Speed; all")));
    }
}
