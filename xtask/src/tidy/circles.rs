//! Circles of modules inside a crate: files in one folder must use one another in one direction.

use std::collections::{BTreeMap, BTreeSet};

/// The modules that a module uses, both as paths from the folder of sources, such as
/// `crates/x/src/reproduce/csv`.
type Uses = BTreeMap<String, BTreeSet<String>>;

/// Returns a complaint per pair of neighbouring modules that use each other, directly or through
/// further neighbours.
pub(super) fn check<'a>(sources: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let sources: Vec<(Vec<&str>, &str)> =
        sources.filter_map(|(name, text)| Some((module(name)?, text))).collect();
    let files: BTreeSet<&[&str]> = sources.iter().map(|(module, _)| module.as_slice()).collect();
    let mut uses = Uses::new();
    for (from, text) in &sources {
        for to in paths(text, from) {
            // Both paths up to the first difference: neighbours in one folder.
            let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            if common < from.len().min(to.len()) && files.contains(&to[..=common]) {
                uses.entry(from[..=common].join("/")).or_default().insert(to[..=common].join("/"));
            }
        }
    }
    let circle = |(from, to): (&String, &String)| {
        reaches(&uses, to, from).then(|| format!("{from} and {to} use each other"))
    };
    let pairs = uses.iter().flat_map(|(from, used)| used.iter().map(move |to| (from, to)));
    pairs.filter(|(from, to)| from < to).filter_map(circle).collect()
}

/// Returns the path of a source file as a module: the folder of its crate, then names.
fn module(name: &str) -> Option<Vec<&str>> {
    let (root, path) = name.strip_suffix(".rs")?.split_once("/src/")?;
    let names = path.strip_suffix("/mod").unwrap_or(path).split('/');
    Some([root].into_iter().chain(names.filter(|name| !["lib", "main"].contains(name))).collect())
}

/// Returns the paths that code outside tests uses, from the root of the crate.
fn paths<'a>(text: &'a str, from: &[&'a str]) -> Vec<Vec<&'a str>> {
    let code = text.split("\nmod tests {").next().unwrap_or_default();
    let mut paths = Vec::new();
    for (start, base) in [("crate::", &from[..1]), ("super::", &from[..from.len() - 1])] {
        for (at, _) in code.match_indices(start) {
            let (before, rest) = (&code[..at], &code[at + start.len()..]);
            if before.rsplit('\n').next().is_some_and(|line| line.trim_start().starts_with("//")) {
                continue;
            }
            // A group of paths in braces, or one path.
            let end = if rest.starts_with('{') { rest.find(';') } else { rest.find(|c| !is_path(c)) };
            let used = rest[..end.unwrap_or(rest.len())].split(|c| !is_path(c));
            paths.extend(used.map(|path| base.iter().copied().chain(path.split("::")).collect()));
        }
    }
    paths
}

fn is_path(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == ':'
}

/// Returns true if a chain of uses leads from one module to another.
fn reaches(uses: &Uses, from: &str, to: &str) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(module) = open.pop() {
        if seen.insert(module) {
            open.extend(uses.get(module).into_iter().flatten().map(String::as_str));
        }
    }
    seen.contains(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        check(files.iter().copied())
    }

    #[test]
    fn circles_are_found_through_groups_and_further_modules() {
        let text = "//! See [`crate::c`].\nuse crate::{\n    Error, b::{self, B as D}, e,\n};\nfn f() {}\n";
        let a = ("x/src/a.rs", text);
        let (b, c) = (("x/src/b/mod.rs", "use super::c::C;"), ("x/src/c.rs", "fn f() -> crate::a::A {}"));
        assert_eq!(found(&[a, b, c]), ["x/a and x/b use each other", "x/b and x/c use each other"]);
        assert_eq!(
            found(&[a, b, ("x/src/c.rs", "//!\n#[cfg(test)]\nmod tests {\nuse crate::a::A;")]),
            [""; 0]
        );
        assert_eq!(found(&[a, ("x/src/e.rs", "use crate::a::A;")]), ["x/a and x/e use each other"]);
    }

    #[test]
    fn a_module_may_use_its_parent() {
        let (parent, child) = (("x/src/a.rs", "use crate::a::b::B;"), ("x/src/a/b.rs", "use super::A;"));
        assert_eq!(found(&[parent, child]), [""; 0]);
        let neighbour = ("x/src/a/c.rs", "use crate::a::b::B;");
        assert_eq!(
            found(&[("x/src/a/b.rs", "use super::c::C;"), neighbour]),
            ["x/a/b and x/a/c use each other"]
        );
    }
}
