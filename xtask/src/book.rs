//! `cargo xtask book`, also a step of `cargo xtask ci`: builds the pages of `docs` as a book.
//!
//! Pages link to files and folders of the repository, which are not in the book. The copies that
//! mdBook builds from link to them on the web.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::{output, python, remove, run as run_command};
use crate::tidy::links;

const DOCS: &str = "docs";
const BOOK: &str = "target/book";
const HTML: &str = "target/book/html";
const ENVIRONMENT: &str = "target/book-venv";
const REPOSITORY: &str = "https://github.com/dpq-rs/dpq/blob/main";

/// Leaves the book in `target/book/html`, and refuses links that lead nowhere in it.
pub(crate) fn run() -> Result<()> {
    let python = python(ENVIRONMENT, &format!("{DOCS}/requirements.txt"))?;
    remove(BOOK)?;
    let names =
        output(Command::new("git").args(["ls-files", "--cached", "--others", "--exclude-standard", DOCS]))?;
    for name in names.lines().filter(|name| Path::new(name).is_file()) {
        let page = Path::new(name).strip_prefix(DOCS)?;
        let copy = match page.to_str() {
            Some("book.toml") => Path::new(BOOK).join(page),
            _ => Path::new(BOOK).join("src").join(page),
        };
        fs::create_dir_all(copy.parent().context("a file is in a folder")?)?;
        match page.extension().is_some_and(|extension| extension == "md") {
            true => fs::write(&copy, for_book(page, &fs::read_to_string(name)?))?,
            false => _ = fs::copy(name, &copy)?,
        }
    }
    let mut build = Command::new(Path::new(&python).with_file_name("mdbook"));
    run_command(build.args(["build", "--dest-dir", HTML, BOOK]))?;
    let html = Path::new(HTML);
    let mut broken = Vec::new();
    for name in names.lines().filter(|name| name.ends_with(".md") && !name.ends_with("SUMMARY.md")) {
        let page = html.join(Path::new(name).strip_prefix(DOCS)?).with_extension("html");
        let text = fs::read_to_string(&page).with_context(|| format!("{name} is not in the book"))?;
        broken.extend(lost(&page, &text).into_iter().map(|link| format!("{name}: {link}")));
    }
    ensure!(broken.is_empty(), "links of the book that lead nowhere:\n  {}", broken.join("\n  "));
    println!("{}", html.join("index.html").display());
    Ok(())
}

/// Returns a page whose links out of `docs` lead to the repository on the web.
fn for_book(page: &Path, text: &str) -> String {
    let folder = Path::new(DOCS).join(page.parent().unwrap_or(Path::new("")));
    let mut text = text.to_owned();
    let mut seen = Vec::new();
    for link in links(&text.clone()).filter(|link| !link.contains("://") && !link.starts_with('#')) {
        let target = normal(&folder.join(link));
        // A folder is no page.
        let is_outside = !target.starts_with(DOCS) || target.is_dir();
        if is_outside && !seen.contains(&link.to_owned()) {
            text = text.replace(&format!("]({link})"), &format!("]({REPOSITORY}/{})", target.display()));
            seen.push(link.to_owned());
        }
    }
    text
}

/// Resolves `..` without looking at the disk.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => _ = normal.pop(),
            part => normal.push(part),
        }
    }
    normal
}

/// Returns the links of an HTML page to files that do not exist, and to places that no page has.
fn lost(page: &Path, text: &str) -> Vec<String> {
    let exists = |link: &str| {
        let (path, place) = link.split_once('#').unwrap_or((link, ""));
        let target = match path {
            "" => page.to_owned(),
            path => normal(&page.parent().unwrap_or(Path::new("")).join(path)),
        };
        let is_page = target.extension().is_some_and(|extension| extension == "html");
        let has_place =
            || fs::read_to_string(&target).is_ok_and(|text| text.contains(&format!("id=\"{place}\"")));
        target.is_file() && (place.is_empty() || !is_page || has_place())
    };
    let attributes = ["href=\"", "src=\""].into_iter().flat_map(|start| text.split(start).skip(1));
    let links = attributes.filter_map(|rest| rest.split('"').next());
    let elsewhere =
        |link: &&str| link.is_empty() || ["://", "mailto:", "data:"].iter().any(|part| link.contains(part));
    links.filter(|link| !elsewhere(link) && !exists(link)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_out_of_the_book_lead_to_the_web() {
        let text = "[a](../../datasets/README.md#x) [b](../live.md) [c](https://x.org) [d](#e)";
        let expected = text.replace("../../datasets", "https://github.com/dpq-rs/dpq/blob/main/datasets");
        assert_eq!(for_book(Path::new("tutorials/images.md"), text), expected);
    }

    #[test]
    fn lost_links_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let page = folder.path().join("a.html");
        fs::write(&page, "<h2 id=\"here\">").unwrap();
        fs::write(folder.path().join("b.svg"), "").unwrap();
        let text = "<a href=\"#here\"> <a href=\"a.html#gone\"> <img src=\"b.svg\"> <img src=\"c.svg\"> <a href=\"https://x\">";
        assert_eq!(lost(&page, text), ["a.html#gone", "c.svg"]);
    }
}
