//! A run of `dpq` that is skipped if its output exists for the same inputs.
//!
//! A stage is a folder with the files that the command wrote and `stage.json`. The key in
//! `stage.json` is a SHA-256 of everything that decides the output: the `dpq` executable, the files
//! of the data set, the command line and the keys of earlier stages. A running stage has the folder
//! `<stage>.partial`, which is renamed when the command has finished.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::hash::Hash;
use crate::process::{list, output, remove};

/// Runs stages with one executable and data set.
pub(crate) struct Runner {
    dpq: PathBuf,
    /// Hash of the executable and the data set.
    base: String,
    /// The sum over all stages so far, whenever they ran.
    pub(crate) wall_seconds: Cell<f64>,
}

/// A finished stage.
pub(crate) struct Stage<T> {
    /// The hash of everything that decided the output.
    pub(crate) key: String,
    /// The object that the command printed.
    pub(crate) result: T,
    dir: PathBuf,
}

impl<T> Stage<T> {
    /// Returns the path of a file of the stage.
    pub(crate) fn file(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }
}

/// The contents of `stage.json`.
#[derive(Serialize, Deserialize)]
struct Record {
    key: String,
    /// The duration of the command, process start included; for a resumed command, of all its
    /// parts.
    wall_seconds: f64,
    /// Names and sizes. A stage runs again if a file is missing.
    files: Vec<(String, u64)>,
    result: Value,
}

const RECORD: &str = "stage.json";

/// A file in a partial folder, written when a run began: its key, and the seconds of the
/// interrupted runs before it.
const BEGUN: &str = "begun";

impl Runner {
    /// Hashes the executable and every file in the folder of the data set.
    pub(crate) fn new(dpq: PathBuf, dataset: &Path) -> Result<Self> {
        let mut hash = Hash::default();
        hash.add_file(&dpq)?;
        hash.add_folder(dataset)?;
        Ok(Self { dpq, base: hash.finish(), wall_seconds: Cell::new(0.0) })
    }

    /// Runs `dpq ARGS --json` in the folder `dir` unless its output exists.
    ///
    /// `args` are words between single spaces. `OUT` at the start of a word is replaced by the
    /// output folder. A last word `--resume` is passed on only if files of an interrupted run with
    /// the same inputs exist. `upstream` are the keys of the stages whose files the command reads.
    pub(crate) fn run<T: DeserializeOwned>(
        &self,
        dir: &Path,
        upstream: &[&str],
        args: &str,
    ) -> Result<Stage<T>> {
        let resumable = args.ends_with(" --resume");
        let args = args.trim_end_matches(" --resume");
        let key = self.key(upstream, args);
        let (record, note) = match finished(dir, &key) {
            Some(record) => (record, ", unchanged"),
            None => (self.execute(dir, &key, args, resumable)?, ""),
        };
        self.wall_seconds.set(self.wall_seconds.get() + record.wall_seconds);
        eprintln!("    {:<58} {:>7.1} s{note}", dir.display(), record.wall_seconds);
        let result = serde_json::from_value(record.result)
            .with_context(|| format!("{} holds JSON of an unknown form", dir.display()))?;
        Ok(Stage { key, result, dir: dir.to_owned() })
    }

    fn key(&self, upstream: &[&str], args: &str) -> String {
        let mut hash = Hash::default();
        [&self.base, args].iter().chain(upstream).for_each(|text| hash.add(text.as_bytes()));
        hash.finish()
    }

    fn execute(&self, dir: &Path, key: &str, args: &str, resumable: bool) -> Result<Record> {
        let partial = dir.with_extension("partial");
        let interrupted = if resumable { interrupted_seconds(&partial, key)? } else { None };
        if interrupted.is_none() {
            remove(&partial)?;
            fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
        }
        let (begun, before) = (partial.join(BEGUN), interrupted.unwrap_or(0.0));
        fs::write(&begun, format!("{key} {before}"))?;

        let out = partial.to_string_lossy();
        let mut command = Command::new(&self.dpq);
        command.args(args.split(' ').map(|word| match word.strip_prefix("OUT") {
            Some(file) => format!("{out}{file}"),
            None => word.to_owned(),
        }));
        command.arg("--json").args(interrupted.map(|_| "--resume"));
        let start = Instant::now();
        let printed = output(&mut command)?;
        let wall_seconds = before + start.elapsed().as_secs_f64();
        let result =
            serde_json::from_str(&printed).with_context(|| format!("dpq {args} printed no JSON object"))?;

        fs::remove_file(&begun)?;
        let record = Record { key: key.to_owned(), wall_seconds, files: files(&partial)?, result };
        fs::write(partial.join(RECORD), serde_json::to_string(&record)?)?;
        remove(dir)?;
        fs::rename(&partial, dir).with_context(|| format!("cannot rename {}", partial.display()))?;
        Ok(record)
    }
}

/// Returns the seconds of the interrupted runs with this key in the folder `partial`, if there are
/// any. The last one, which may have been killed together with xtask, counts until it last wrote a
/// file.
fn interrupted_seconds(partial: &Path, key: &str) -> Result<Option<f64>> {
    let path = partial.join(BEGUN);
    let text = fs::read_to_string(&path).unwrap_or_default();
    let Some(before) = text.strip_prefix(key) else { return Ok(None) };
    let begun = fs::metadata(&path)?.modified()?;
    let mut last = begun;
    for path in list(partial)? {
        last = last.max(fs::symlink_metadata(path)?.modified()?);
    }
    let last_run = last.duration_since(begun).unwrap_or_default();
    Ok(Some(before.trim().parse().unwrap_or(0.0) + last_run.as_secs_f64()))
}

/// Returns the record of a stage that has this key and all its files.
fn finished(dir: &Path, key: &str) -> Option<Record> {
    let text = fs::read_to_string(dir.join(RECORD)).ok()?;
    let record: Record = serde_json::from_str(&text).ok()?;
    let exists =
        |(name, len): &(String, u64)| fs::metadata(dir.join(name)).is_ok_and(|file| file.len() == *len);
    (record.key == key && record.files.iter().all(exists)).then_some(record)
}

/// Returns the names and sizes of the files in a folder.
fn files(dir: &Path) -> Result<Vec<(String, u64)>> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let paths = list(dir)?.into_iter().filter(|path| path.is_file());
    paths.map(|path| Ok((name(&path), fs::metadata(&path)?.len()))).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;

    /// Imitates `dpq WORD OUT`: logs the call, writes files, and fails while a file `broken`
    /// exists.
    const FAKE: &str = r#"
cd "$(dirname "$0")"
echo "$*" >> calls
echo "half" > "$2/half"
[ -e broken ] && exit 1
echo "$1" > "$2/out.txt"
echo '{"word": "'$1'"}'
"#;

    #[derive(Debug, Deserialize)]
    struct Printed {
        word: String,
    }

    struct Bench {
        dir: TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let bench = Self { dir: tempfile::tempdir().unwrap() };
            fs::create_dir(bench.path("data")).unwrap();
            fs::write(bench.path("data/dataset.toml"), "name = \"a\"").unwrap();
            bench.install("version 1", FAKE);
            bench
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn install(&self, executable: &str, script: &str) {
            fs::write(self.path("dpq"), executable).unwrap();
            fs::write(self.path("script"), script).unwrap();
        }

        fn run(&self, resumable: bool, upstream: &[&str], word: &str) -> Result<Stage<Printed>> {
            Ok(self.timed_run(resumable, upstream, word)?.0)
        }

        fn timed_run(&self, resumable: bool, upstream: &[&str], word: &str) -> Result<(Stage<Printed>, f64)> {
            // The shell runs the script, because a file that was just written cannot always be
            // executed.
            let runner = Runner { dpq: "sh".into(), ..Runner::new(self.path("dpq"), &self.path("data"))? };
            let script = self.path("script").to_string_lossy().into_owned();
            let resume = if resumable { " --resume" } else { "" };
            let stage = runner.run(&self.path("stage"), upstream, &format!("{script} {word} OUT{resume}"))?;
            Ok((stage, runner.wall_seconds.get()))
        }

        /// Returns the arguments of the calls so far, with the folder replaced.
        fn calls(&self) -> Vec<String> {
            let partial = self.path("stage.partial");
            let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
            calls.lines().map(|line| line.replace(&*partial.to_string_lossy(), "OUT")).collect()
        }
    }

    #[test]
    fn a_stage_runs_once_for_the_same_inputs() {
        let bench = Bench::new();
        let first = bench.run(false, &["a"], "x").unwrap();
        assert_eq!(first.result.word, "x");
        assert_eq!(fs::read_to_string(first.file("out.txt")).unwrap(), "x\n");
        let second = bench.run(false, &["a"], "x").unwrap();
        assert_eq!((second.result.word, second.key), ("x".to_owned(), first.key.clone()));
        assert_eq!(bench.calls(), ["x OUT --json"]);
    }

    #[test]
    fn a_stage_runs_again_when_an_input_changes() {
        let bench = Bench::new();
        let mut keys = Vec::new();
        let mut run = |upstream: &[&str], word: &str| {
            let n_calls = bench.calls().len();
            let key = bench.run(false, upstream, word).unwrap().key;
            assert_eq!(bench.calls().len(), n_calls + 1);
            assert!(!keys.contains(&key));
            keys.push(key);
        };
        run(&["a"], "x");
        run(&["b"], "x");
        run(&[], "x");
        run(&["a"], "y");
        fs::write(bench.path("data/dataset.toml"), "name = \"b\"").unwrap();
        run(&["a"], "x");
        fs::write(bench.path("data/train.txt"), "").unwrap();
        run(&["a"], "x");
        bench.install("version 2", FAKE);
        run(&["a"], "x");
        // The inputs are the same, but an output file is missing.
        fs::remove_file(bench.path("stage/out.txt")).unwrap();
        let n_calls = bench.calls().len();
        bench.run(false, &["a"], "x").unwrap();
        assert_eq!(bench.calls().len(), n_calls + 1);
    }

    #[test]
    fn a_failed_stage_names_its_command_and_leaves_no_output() {
        let bench = Bench::new();
        fs::write(bench.path("broken"), "").unwrap();
        let error = bench.run(false, &[], "x").map(|stage| stage.result).unwrap_err().to_string();
        assert!(error.contains("script x ") && error.contains("failed"), "{error}");
        assert!(!bench.path("stage").exists());
        fs::remove_file(bench.path("broken")).unwrap();
        bench.run(false, &[], "x").unwrap();
        assert_eq!(bench.calls(), ["x OUT --json", "x OUT --json"]);
    }

    #[test]
    fn only_a_resumable_stage_with_the_same_inputs_resumes() {
        let bench = Bench::new();
        let broken = bench.path("broken");
        let interrupt = |word| {
            fs::write(&broken, "").unwrap();
            bench.run(true, &[], word).map(|stage| stage.result).unwrap_err();
            fs::remove_file(&broken).unwrap();
        };
        interrupt("x");
        assert!(bench.path("stage.partial/half").exists());
        bench.run(true, &[], "x").unwrap();
        interrupt("y");
        bench.run(true, &[], "z").unwrap();
        interrupt("y");
        bench.run(false, &[], "y").unwrap();
        let expected = ["x", "x resumed", "y", "z", "y", "y"].map(|call| {
            format!("{} OUT --json{}", &call[..1], if call.len() > 1 { " --resume" } else { "" })
        });
        assert_eq!(bench.calls(), expected);
        assert!(!bench.path("stage.partial").exists());
        assert!(!bench.path("stage/begun").exists());
    }

    #[test]
    fn seconds_of_interrupted_runs_add_up() {
        let bench = Bench::new();
        let broken = bench.path("broken");
        let [begun_file, half] = ["begun", "half"].map(|name| bench.path("stage.partial").join(name));
        let interrupt = || {
            fs::write(&broken, "").unwrap();
            bench.run(true, &[], "x").map(|stage| stage.result).unwrap_err();
            fs::remove_file(&broken).unwrap();
        };
        // Pretends that each run took this long until it was interrupted.
        let lasted = |n| {
            let begun = fs::metadata(&half).unwrap().modified().unwrap() - Duration::from_secs(n);
            fs::File::options().write(true).open(&begun_file).unwrap().set_modified(begun).unwrap();
        };
        interrupt();
        lasted(100);
        interrupt();
        lasted(20);
        let (_, seconds) = bench.timed_run(true, &[], "x").unwrap();
        assert!((120.0..180.0).contains(&seconds), "{seconds}");
        assert!(!bench.path("stage/begun").exists());
        assert_eq!(bench.timed_run(true, &[], "x").unwrap().1, seconds);

        // Runs with other inputs do not count.
        fs::create_dir(bench.path("stage.partial")).unwrap();
        fs::write(bench.path("stage.partial/begun"), "other 1000").unwrap();
        assert!(bench.timed_run(true, &[], "y").unwrap().1 < 60.0);
    }

    #[test]
    fn output_of_another_form_is_an_error() {
        let bench = Bench::new();
        bench.install("", "echo nothing");
        let error = bench.run(false, &[], "x").map(|stage| stage.result).unwrap_err().to_string();
        assert!(error.ends_with("x OUT printed no JSON object"), "{error}");
        bench.install("", "echo '{\"other\": 1}'");
        let error = bench.run(false, &[], "x").map(|stage| stage.result).unwrap_err().to_string();
        assert!(error.ends_with("holds JSON of an unknown form"), "{error}");
    }
}
