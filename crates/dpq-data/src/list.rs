//! List files: one image and its classes per line.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use crate::image_file::is_image_name;
use crate::labels::Labels;
use crate::{Error, Split};

/// How the words after a path state the classes of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LabelForm {
    /// The name or the number of each class that the image has.
    #[default]
    Classes,
    /// A 0 or 1 for each class, in the order of the classes.
    MultiHot,
}

/// A line of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListLine<'a> {
    /// The number of the line, counted from 1.
    pub number: usize,
    /// The path of the image.
    pub path: &'a str,
    /// The words after the path.
    pub words: Vec<&'a str>,
}

/// Reads the text of a list: the path of each image and the words for its classes, in the order of
/// the lines.
///
/// A line is a path and any number of classes, separated by white space. A path with spaces stands
/// in double quotes. Empty lines and lines that begin with `#` are skipped.
///
/// # Errors
/// [`Error::Invalid`] if there is no image. [`Error::InLine`] if a path occurs twice, since one
/// image could train and be searched for, or if only some images have classes.
pub fn parse_list(text: &str) -> Result<Vec<ListLine<'_>>, Error> {
    let (mut lines, mut line_of) = (Vec::new(), HashMap::new());
    let mut with_classes = None;
    for (number, text) in (1..).zip(text.lines().map(str::trim)) {
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let (path, words) = quoted_path(text)
            .unwrap_or_else(|| text.split_at(text.find(char::is_whitespace).unwrap_or(text.len())));
        let words: Vec<&str> = words.split_whitespace().collect();
        let problem = if let Some(first) = line_of.insert(normalized(path), number) {
            let found = format!("`{path}` is on line {first} too");
            Some(Error::invalid(found, "expected each image once with all its classes"))
        } else if *with_classes.get_or_insert(!words.is_empty()) != words.is_empty() {
            None
        } else if words.is_empty() {
            Some(Error::invalid(format!("`{path}` has no class, the lines above have"), FOR_ALL))
        } else {
            Some(Error::invalid(format!("`{path}` has a class, the lines above have none"), FOR_ALL))
        };
        // The part of a path behind a space explains every other problem of the line.
        let part = words.iter().find(|word| is_image_name(Path::new(word)));
        let part = part.map(|part| {
            let found = format!("`{part}` stands where a class is expected");
            Error::invalid(found, "put double quotes around a path with spaces")
        });
        if let Some(problem) = part.or(problem) {
            return Err(problem.in_line(number));
        }
        lines.push(ListLine { number, path, words });
    }
    match lines.is_empty() {
        true => Err(Error::invalid("no image in this list", "expected lines of a path and its classes")),
        false => Ok(lines),
    }
}

const FOR_ALL: &str = "expected classes for all or none";

/// Splits a line that begins with a path in double quotes. A quote that does not end before white
/// space belongs to the path.
fn quoted_path(text: &str) -> Option<(&str, &str)> {
    let (path, rest) = text.strip_prefix('"')?.split_once('"')?;
    (!path.is_empty() && (rest.is_empty() || rest.starts_with(char::is_whitespace))).then_some((path, rest))
}

/// Removes `.` from a path: `./a.png` and `a.png` are one image.
fn normalized(path: &str) -> PathBuf {
    Path::new(path).components().filter(|part| *part != Component::CurDir).collect()
}

/// An image of a list: its path and its classes, by name, or by column if the list is multi-hot.
#[derive(Debug)]
pub(crate) struct Item {
    path: String,
    classes: Vec<String>,
}

/// Reads the contents of a list. `n_columns` is the number of classes of multi-hot lists, 0 until
/// the first list sets it.
pub(crate) fn read_items(bytes: Vec<u8>, form: LabelForm, n_columns: &mut usize) -> Result<Vec<Item>, Error> {
    let text = Error::text(bytes)?;
    let lines = parse_list(&text)?;
    if *n_columns == 0 {
        *n_columns = lines[0].words.len();
    }
    let is_column = |word: &&str| matches!(*word, "0" | "1");
    if form == LabelForm::Classes
        && lines.iter().all(|line| line.words.len() > 1 && line.words.iter().all(is_column))
    {
        let remedy = "set labels = \"multi-hot\" in dataset.toml for a 0 or 1 for each class";
        return Err(Error::invalid("columns of 0 and 1 only", remedy));
    }
    let classes = |words: &[&str]| match form {
        LabelForm::Classes => words.iter().map(|&word| word.to_owned()).collect(),
        LabelForm::MultiHot => {
            (0..words.len()).filter(|&column| words[column] == "1").map(|column| column.to_string()).collect()
        }
    };
    let item = |ListLine { number, path, words }: ListLine<'_>| {
        let problem = match form {
            LabelForm::Classes => (1..words.len())
                .find(|&i| words[..i].contains(&words[i]))
                .map(|i| Error::invalid(format!("class `{}` stands twice", words[i]), MULTI_HOT)),
            LabelForm::MultiHot => (words.len() != *n_columns || !words.iter().all(is_column)).then(|| {
                let found = format!("`{path}` is followed by `{}`", words.join(" "));
                Error::invalid(found, format!("expected a 0 or 1 for each of {n_columns} classes"))
            }),
        };
        match problem {
            Some(problem) => Err(problem.in_line(number)),
            None => Ok(Item { path: path.to_owned(), classes: classes(&words) }),
        }
    };
    lines.into_iter().map(item).collect()
}

const MULTI_HOT: &str = "set labels = \"multi-hot\" in dataset.toml if columns are 0 or 1 for each class";

/// The classes of a data set: the word that lists or folders have for each, and its name.
#[derive(Clone, Debug)]
pub(crate) struct Classes {
    pub(crate) words: Vec<String>,
    pub(crate) names: Vec<String>,
}

/// Reads a list of classes, one per line: its name, or its word, a tab and its name. Further names
/// stand behind commas and are left out.
pub(crate) fn parse_classes(bytes: Vec<u8>) -> Result<Classes, Error> {
    let text = Error::text(bytes)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let class = |line: &str| match line.split_once('\t') {
        Some((word, names)) => {
            let name = names.split(',').next().unwrap_or_default();
            (word.trim().to_owned(), name.trim().to_owned())
        }
        None => (line.to_owned(), line.to_owned()),
    };
    let (words, names): (Vec<String>, Vec<String>) = lines.map(class).unzip();
    let mut seen = HashSet::new();
    match words.iter().find(|word| !seen.insert(*word)) {
        Some(word) => Err(Error::invalid(format!("class `{word}` stands twice"), "expected each class once")),
        None if words.is_empty() => Err(Error::invalid("no class in this list", "expected one per line")),
        None => Ok(Classes { words, names }),
    }
}

/// Merges a list per split, in the order of `lists`, and returns the rows of the first two: queries
/// and training images.
///
/// No query is in another list. With `train_in_gallery` all training images are in the gallery's
/// list too, otherwise none.
pub(crate) fn merge(
    lists: [(Split, Vec<Item>); 3],
    train_in_gallery: bool,
) -> Result<(Vec<Item>, [Vec<u32>; 2]), Error> {
    let mut items: Vec<Item> = Vec::new();
    let mut owners: HashMap<PathBuf, (Split, usize)> = HashMap::new();
    let mut ends = Vec::new();
    let mut n_shared = 0;
    for (split, list) in lists {
        for item in list {
            let Some(&(other, row)) = owners.get(&normalized(&item.path)) else {
                owners.insert(normalized(&item.path), (split, items.len()));
                items.push(item);
                continue;
            };
            if !(train_in_gallery && (other, split) == (Split::Train, Split::Gallery)) {
                let found = format!("`{}` is in the {other} list and again in the {split} list", item.path);
                return Err(Error::invalid(found, "expected disjoint lists"));
            }
            if items[row].classes != item.classes {
                let found = format!("`{}` has other classes in the {split} list", item.path);
                return Err(Error::invalid(found, format!("expected those of the {other} list")));
            }
            n_shared += 1;
        }
        ends.push(items.len());
    }
    let (query, train) = (0..ends[0] as u32, ends[0] as u32..ends[1] as u32);
    if train_in_gallery && n_shared != train.len() {
        let found = format!("the gallery list has {n_shared} of the {} training images", train.len());
        return Err(Error::invalid(found, "`train_in_gallery` expects all of them"));
    }
    Ok((items, [query.collect(), train.collect()]))
}

/// Returns the paths of images below the folder `root`.
pub(crate) fn paths(root: &Path, items: &[Item]) -> Vec<PathBuf> {
    items.iter().map(|item| root.join(&item.path)).collect()
}

/// Returns the classes that occur, numbers by value before names, and the classes of each image.
pub(crate) fn named_classes(items: &[Item]) -> (Vec<String>, Labels) {
    let mut names: Vec<&String> = items.iter().flat_map(|item| &item.classes).collect();
    names.sort_by_cached_key(|name| (name.parse::<u64>().unwrap_or(u64::MAX), *name));
    names.dedup();
    let number: HashMap<&String, u32> = names.iter().copied().zip(0..).collect();
    let labels = Labels::new(items.iter().map(|item| item.classes.iter().map(|name| number[name]).collect()));
    (names.into_iter().cloned().collect(), labels)
}

/// Returns the classes of each image of a multi-hot list. A column is a class by its place,
/// whatever the names of classes.
pub(crate) fn column_classes(items: &[Item]) -> Labels {
    let column = |column: &String| column.parse().expect("columns are written as numbers");
    Labels::new(items.iter().map(|item| item.classes.iter().map(column).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_paths_and_classes() {
        let text = "# path class ...\r\na/1.png cat  small\r\n\n \ta/2.png\tdog\n";
        let line = |number, path, words: &[&'static str]| ListLine { number, path, words: words.to_vec() };
        let expected = [line(2, "a/1.png", &["cat", "small"]), line(4, "a/2.png", &["dog"])];
        assert_eq!(parse_list(text).unwrap(), expected);
        assert_eq!(parse_list("a\nb").unwrap(), [line(1, "a", &[]), line(2, "b", &[])]);
        let quoted = "\"my cats/a0.png\" 0\n\"# 1.png\"\t1\n\"a\"b.png 1\n";
        let expected =
            [line(1, "my cats/a0.png", &["0"]), line(2, "# 1.png", &["1"]), line(3, "\"a\"b.png", &["1"])];
        assert_eq!(parse_list(quoted).unwrap(), expected);
    }

    #[test]
    fn invalid_lists_are_refused_by_line() {
        let error = |text| parse_list(text).unwrap_err().to_string();
        assert!(error("# nothing\n").contains("no image in this list"));
        assert!(error("a 1\n\nb 2\na 3").starts_with("line 4: `a` is on line 1 too"));
        assert!(error("a/b 1\n./a//b 2").starts_with("line 2: `./a//b` is on line 1 too"));
        assert!(error("a 1\nb").starts_with("line 2: `b` has no class, the lines above have,"));
        assert!(error("a\nb 1").starts_with("line 2: `b` has a class, the lines above have none,"));
        let spaces = "line 1: `cats/a0.png` stands where a class is expected, put double quotes around a path with spaces";
        assert_eq!(error("my cats/a0.png 0\nmy cats/a1.png 1\n"), spaces);
    }

    #[test]
    fn columns_of_0_and_1_are_refused_unless_the_list_is_multi_hot() {
        let read =
            |text: &str, form| read_items(text.into(), form, &mut 0).map_err(|error| error.to_string());
        let error = |text| read(text, LabelForm::Classes).unwrap_err();
        assert!(error("a 1 0\nb 0 1 0\n").starts_with("columns of 0 and 1 only, set labels = \"multi-hot\""));
        assert!(error("a 0 1\nb 1 0\n").starts_with("columns of 0 and 1 only"));
        assert!(
            error("a 2\nb 9 7 9\n").starts_with("line 2: class `9` stands twice, set labels = \"multi-hot\"")
        );
        assert!(read("a 0 1\nb 0\nc 1\n", LabelForm::Classes).is_ok(), "two classes, and an image of both");

        let classes = |text| column_classes(&read(text, LabelForm::MultiHot).unwrap());
        let labels = classes("a 1 0\nb 0 0\nc 1 1\n");
        assert_eq!(
            [0, 1, 2].map(|row| labels.of(row).to_vec()),
            [vec![0], vec![], vec![0, 1]],
            "b has no class"
        );
        let row = read("a 1 0\n\nb 0 2\n", LabelForm::MultiHot).unwrap_err();
        assert_eq!(row, "line 3: `b` is followed by `0 2`, expected a 0 or 1 for each of 2 classes");
    }
}
