//! Dependencies: the arrows of `docs/architecture.md`, the number of crates that a library needs,
//! and features that would make cargo compile a dependency twice.

use std::collections::BTreeSet;

use anyhow::Result;
use serde_json::Value;

use crate::process::{cargo, output, packages};

/// Each package of the workspace and the packages of ours that it may depend on, also in tests.
const ARROWS: [(&str, &str); 14] = [
    ("dpq-file", ""),
    ("dpq-codebook", "dpq-file"),
    ("dpq-index", "dpq-codebook dpq-file"),
    ("dpq-live", "dpq-codebook dpq-file dpq-index"),
    ("dpq-formats", "dpq-codebook dpq-file"),
    ("dpq-eval", ""),
    ("dpq-data", ""),
    ("dpq-model", "dpq-codebook dpq-file"),
    ("dpq-report", ""),
    ("dpq-rmq", ""),
    ("dpq-server", "dpq-codebook dpq-index dpq-live"),
    (
        "dpq",
        "dpq-codebook dpq-data dpq-eval dpq-file dpq-formats dpq-index dpq-live dpq-model dpq-report dpq-server",
    ),
    ("dpq-python", "dpq dpq-codebook dpq-eval dpq-formats dpq-index dpq-live dpq-model"),
    ("xtask", "dpq-report"),
];

/// Dependencies that only some packages may have. A name also covers names that extend it by `-…`.
const OWNERS: [(&str, &[&str]); 9] = [
    ("candle", &["dpq-model"]),
    ("clap", &["dpq", "xtask"]),
    ("anyhow", &["dpq", "xtask"]),
    ("serde_json", &["dpq", "dpq-file", "dpq-model", "dpq-report", "dpq-server", "xtask"]),
    ("axum", &["dpq-server"]),
    ("hyper", &["dpq-server"]),
    ("tokio", &["dpq-server"]),
    ("pyo3", &["dpq-python"]),
    ("numpy", &["dpq-python"]),
];

/// Maximum number of crates in the normal dependency tree of a library, itself included.
const TREE_SIZES: [(&str, usize); 3] = [("dpq-index", 40), ("dpq-eval", 8), ("dpq-rmq", 16)];

/// Selections that tasks build without tests: [`crate::process::build_dpq`] and maturin.
const BUILDS: [&[&str]; 2] = [&["--workspace"], &["--package=dpq-python"]];

/// Enables the features that the dependencies of `BUILDS` have in the workspace's tests.
const FEATURES: &str = "crates/dpq-python/Cargo.toml";

pub(super) fn check() -> Result<Vec<String>> {
    let mut complaints = arrows(&packages(&["--no-deps"])?);
    for (package, max) in TREE_SIZES {
        let args = ["tree", "--locked", "--edges=normal", "--prefix=none", "--no-dedupe", "-p", package];
        let tree = output(&mut cargo(&args))?;
        let crates: BTreeSet<&str> = tree.lines().filter(|line| !line.is_empty()).collect();
        println!("{package}: {} crates, at most {max}", crates.len());
        if crates.len() > max {
            complaints.push(format!("{package} needs {} crates, at most {max} are allowed", crates.len()));
        }
    }
    let features = |edges: &str, packages: &[&str]| {
        let args = ["tree", "--locked", "--prefix=none", "--no-dedupe", "--format={p} {f}", "--edges", edges];
        output(cargo(&args).args(packages))
    };
    let tested = features("normal,build,dev", &["--workspace"])?;
    for packages in BUILDS {
        let built = features("normal,build", packages)?;
        complaints.extend(compiled_again(&built, &tested).into_iter().map(|package| {
            format!("cargo compiles {package} again for {}; see {FEATURES}", packages.join(" "))
        }));
    }
    Ok(complaints)
}

/// Lines of `built` that `tested` lacks. A line names a package, its version and its features.
fn compiled_again<'a>(built: &'a str, tested: &str) -> BTreeSet<&'a str> {
    let tested: BTreeSet<&str> = tested.lines().collect();
    built.lines().filter(|line| !tested.contains(line)).collect()
}

fn arrows(packages: &[Value]) -> Vec<String> {
    let ours = |name: &str| ARROWS.iter().find(|(package, _)| *package == name);
    let mut complaints = Vec::new();
    let name_of = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    for package in packages {
        let name = name_of(package);
        let name = name.as_str();
        let Some((_, allowed)) = ours(name) else {
            complaints
                .push(format!("{name} is in the workspace but not in the table of xtask/src/tidy/crates.rs"));
            continue;
        };
        if package["readme"].is_null() && name != "xtask" {
            complaints.push(format!("{name} has no README.md"));
        }
        for dependency in package["dependencies"].as_array().into_iter().flatten().map(name_of) {
            let upwards = ours(&dependency).is_some() && !allowed.split(' ').any(|name| name == dependency);
            let owner = OWNERS.iter().find(|(owned, _)| {
                dependency.strip_prefix(owned).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
            });
            if upwards || owner.is_some_and(|(_, owners)| !owners.contains(&name)) {
                complaints.push(format!("{name} must not depend on {dependency} (docs/architecture.md)"));
            }
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(name: &str, dependencies: &[&str]) -> Vec<String> {
        let dependencies: Vec<Value> = dependencies.iter().map(|name| json!({ "name": name })).collect();
        let readme = (name != "dpq-file").then_some("README.md");
        arrows(&[json!({ "name": name, "readme": readme, "dependencies": dependencies })])
    }

    #[test]
    fn arrows_go_down() {
        assert!(check("dpq-index", &["dpq-codebook", "dpq-file", "rayon"]).is_empty());
        assert!(check("dpq", &["dpq-model", "dpq-index", "clap", "anyhow"]).is_empty());
        assert_eq!(check("dpq-codebook", &["dpq-index"]).len(), 1);
        assert_eq!(check("dpq-index", &["dpq-eval", "dpq-data"]).len(), 2);
        assert_eq!(check("xtask", &["dpq-file"]).len(), 1);
        assert_eq!(check("dpq", &["dpq-python"]).len(), 1);
    }

    #[test]
    fn some_dependencies_have_owners() {
        assert!(check("dpq-model", &["candle-core", "candle-nn", "serde_json"]).is_empty());
        assert_eq!(check("dpq", &["candle-core", "clap", "clap-verbosity"]).len(), 1);
        assert_eq!(check("dpq-eval", &["anyhow", "clap", "serde_json", "candlelight"]).len(), 3);
        assert!(check("dpq-python", &["dpq-model", "numpy", "pyo3"]).is_empty());
        assert_eq!(check("dpq-index", &["numpy", "pyo3-ffi"]).len(), 2);
    }

    #[test]
    fn other_features_compile_a_dependency_again() {
        let tested = "rand v1.0.0 alloc,std\nrand v0.9.0 \nzip v9.8.1 \n";
        assert!(compiled_again("zip v9.8.1 \nrand v0.9.0 \n", tested).is_empty());
        let again = compiled_again("rand v1.0.0 alloc\nzip v9.8.1 \nrand v1.0.0 alloc\n", tested);
        assert_eq!(again.into_iter().collect::<Vec<_>>(), ["rand v1.0.0 alloc"]);
    }

    #[test]
    fn a_package_needs_a_readme() {
        assert_eq!(check("dpq-file", &[]), ["dpq-file has no README.md"]);
    }

    #[test]
    fn a_new_package_needs_a_row() {
        assert_eq!(check("dpq-other", &[]).len(), 1);
    }
}
