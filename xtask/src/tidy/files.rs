//! Checks of one file: first line, length, forbidden words, broken links.

use std::path::Path;

/// Maximum lines of a source file. The aim is 400.
const MOST_LINES: usize = 450;

/// Words that no source file may contain, in two parts because this is a source file.
const BANNED: [(&str, &str); 4] = [
    (concat!("#[ign", "ore"), "a test that does not run proves nothing"),
    (concat!("should_", "panic"), "test the error itself"),
    (concat!("todo", "!("), "unfinished"),
    (concat!("dbg", "!("), "left over from debugging"),
];

/// Prefixes of paths that exist on one machine only.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/"), concat!("/tm", "p/")];

pub(super) fn check(name: &str, text: &str, root: &str) -> Vec<String> {
    let mut complaints = machine_paths(text, root);
    if name.ends_with(".rs") {
        complaints.extend(source(text));
    }
    if name.ends_with(".md") {
        let broken = links(text).filter(|link| !leads_somewhere(name, link));
        complaints.extend(broken.map(|link| format!("the link to {link} leads nowhere")));
    }
    complaints
}

fn source(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if !text.starts_with("//!") && !text.starts_with("#![doc = include_str!") {
        complaints.push("does not begin with `//!`; say what the file is for".to_owned());
    }
    let n_lines = text.lines().count();
    if n_lines > MOST_LINES {
        complaints.push(format!("has {n_lines} lines, more than {MOST_LINES}; split it by meaning"));
    }
    for (banned, why) in BANNED {
        let lines = (1..).zip(text.lines()).filter(|(_, line)| line.contains(banned));
        complaints.extend(lines.map(|(n, _)| format!("line {n}: `{banned}`: {why}")));
    }
    complaints
}

fn machine_paths(text: &str, root: &str) -> Vec<String> {
    let at_start = |before: &str| !before.ends_with(|c: char| c.is_alphanumeric() || "._-/*".contains(c));
    let mut complaints = Vec::new();
    for path in MACHINE_PATHS.iter().chain([&root]) {
        for (n, line) in text.lines().enumerate() {
            if line.match_indices(path).any(|(at, _)| at_start(&line[..at])) {
                complaints.push(format!("line {}: a path of one machine, {path}", n + 1));
            }
        }
    }
    complaints
}

/// Returns the targets of Markdown and HTML links and images outside code blocks.
pub(crate) fn links(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    let prose = text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !in_code && !fence
    });
    prose.flat_map(|line| {
        [("](", ')'), ("src=\"", '"'), ("href=\"", '"')].into_iter().flat_map(move |(start, end)| {
            line.split(start).skip(1).filter_map(move |rest| rest.split(end).next())
        })
    })
}

/// Returns true if a link in the file `from` leaves the repository or names an existing file.
fn leads_somewhere(from: &str, link: &str) -> bool {
    let elsewhere = ["https://", "http://", "mailto:", "#"].iter().any(|start| link.starts_with(start));
    let path = link.split(['#', ' ']).next().unwrap_or_default();
    elsewhere || Path::new(from).parent().is_some_and(|dir| dir.join(path).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_have_heads_and_a_length() {
        assert!(source("//! What it is.\n").is_empty());
        assert!(source("#![doc = include_str!(\"../README.md\")]\n").is_empty());
        assert_eq!(source("fn main() {}\n").len(), 1);
        assert_eq!(source(&"//!\n".repeat(MOST_LINES + 1)).len(), 1);
    }

    #[test]
    fn banned_words_are_found_by_line() {
        for (banned, _) in BANNED {
            let found = source(&format!("//! A file.\n{banned}"));
            assert!(found.len() == 1 && found[0].starts_with("line 2: "), "{found:?}");
        }
    }

    #[test]
    fn paths_of_a_machine_are_found() {
        for path in MACHINE_PATHS {
            assert_eq!(machine_paths(&format!("see `{path}me/x`"), "nowhere").len(), 1);
            assert!(machine_paths(&format!("https://example.org{path}x"), "nowhere").is_empty());
        }
        assert_eq!(machine_paths("//! In /srv/checkout/dpq.", "/srv/checkout").len(), 1);
    }

    #[test]
    fn links_are_read_from_prose() {
        let text =
            "[a](b.md) and ![c](d.svg#x \"title\")\n```\n[no](link)\n```\n<img src=\"e.svg\"> [f](https://g)";
        assert_eq!(links(text).collect::<Vec<_>>(), ["b.md", "d.svg#x \"title\"", "https://g", "e.svg"]);
    }

    #[test]
    fn links_are_relative_to_their_file() {
        // Tests of a package run in its folder.
        assert!(leads_somewhere("src/tidy/README.md", "files.rs#head"));
        assert!(leads_somewhere("src/tidy/README.md", "../main.rs \"title\""));
        assert!(leads_somewhere("README.md", "https://example.org/missing"));
        assert!(!leads_somewhere("README.md", "missing.md"));
    }
}
