//! Circles of modules inside a crate: neighbours in a folder must use each other in one direction.

use std::collections::{BTreeMap, BTreeSet};

/// Returns a complaint per use that is part of a circle of neighbouring modules.
pub(super) fn check(sources: &[(&str, String)]) -> Vec<String> {
    let modules: BTreeMap<Vec<&str>, String> =
        sources.iter().filter_map(|(name, text)| Some((module(name)?, code(text)))).collect();
    let mut uses = BTreeSet::new();
    for (from, text) in &modules {
        for to in paths(text, from) {
            // Both paths up to the first difference: neighbours in one folder.
            let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            if common < from.len().min(to.len()) && modules.contains_key(&to[..=common]) {
                uses.insert((from[..=common].join("/"), to[..=common].join("/")));
            }
        }
    }
    // Removes ends of chains until circles are left, and chains between them.
    let mut n_before = usize::MAX;
    while uses.len() < n_before {
        n_before = uses.len();
        let (users, used): (BTreeSet<_>, BTreeSet<_>) = uses.iter().cloned().unzip();
        uses.retain(|(from, to)| used.contains(from) && users.contains(to));
    }
    uses.into_iter().map(|(from, to)| format!("{from} uses {to} in a circle")).collect()
}

/// Returns the path of a source file as a module: the folder of its crate, then names. Files of
/// tests may use everything.
fn module(name: &str) -> Option<Vec<&str>> {
    let (root, path) =
        name.strip_suffix(".rs").filter(|name| !name.ends_with("tests"))?.split_once("/src/")?;
    let names = path.split('/').filter(|name| !["lib", "main", "mod"].contains(name));
    Some([root].into_iter().chain(names).collect())
}

/// Returns the lines of a file without comments and tests.
fn code(text: &str) -> String {
    let lines = text.lines().take_while(|&line| line != "mod tests {");
    lines.filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| [line, "\n"]).collect()
}

/// Returns the paths that code uses, from the root of the crate.
fn paths<'a>(code: &'a str, from: &[&'a str]) -> Vec<Vec<&'a str>> {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let mut paths = Vec::new();
    for (start, base) in [("crate::", &from[..1]), ("super::", &from[..from.len() - 1])] {
        for rest in code.split(start).skip(1) {
            // A group of paths in braces, or one path.
            let end = if rest.starts_with('{') { rest.find(';') } else { rest.find(|c| !is_path(c)) };
            let used = rest[..end.unwrap_or(rest.len())].split(|c| !is_path(c));
            paths.extend(used.map(|path| base.iter().copied().chain(path.split("::")).collect()));
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&'static str, &str)]) -> Vec<String> {
        check(&files.iter().map(|&(name, text)| (name, text.to_owned())).collect::<Vec<_>>())
    }

    #[test]
    fn circles_are_found_through_groups_and_further_modules() {
        let text = "//! See [`crate::c`].\nuse crate::{\n    Error, b::{self, B as D}, e,\n};\nfn f() {}\n";
        let (a, b) = (("x/src/a.rs", text), ("x/src/b/mod.rs", "use super::c::C;"));
        let circle = [a, b, ("x/src/c.rs", "fn f() -> crate::a::A {}")];
        assert_eq!((found(&circle).len(), &*found(&circle)[0]), (3, "x/a uses x/b in a circle"));
        assert_eq!(
            found(&[a, b, ("x/src/c.rs", "//!\n#[cfg(test)]\nmod tests {\nuse crate::a::A;")]),
            [""; 0]
        );
        let (e, outside) = (("x/src/e.rs", "use crate::a::A;"), ("x/src/f.rs", "use crate::a::A;"));
        assert_eq!(found(&[a, e, outside]).len(), 2);
    }

    #[test]
    fn a_module_may_use_its_parent() {
        let (parent, child) = (("x/src/a.rs", "use crate::a::b::B;"), ("x/src/a/b.rs", "use super::A;"));
        assert_eq!(found(&[parent, child]), [""; 0]);
        let (b, c) = (("x/src/a/b.rs", "use super::c::C;"), ("x/src/a/c.rs", "use crate::a::b::B;"));
        assert_eq!(found(&[b, c]).len(), 2);
    }
}
