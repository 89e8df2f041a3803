//! List files: one image and its classes a line.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use crate::dataset::Pixels;
use crate::labels::Labels;
use crate::manifest::{DataFile, ListFiles, read_file};
use crate::{Dataset, Error, ImageShape, Split};

/// How the words after a path say the classes of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LabelForm {
    /// The name or the number of each class that the image has.
    #[default]
    Classes,
    /// 1 or 0 for every class there is, in their order.
    MultiHot,
}

/// A path as the list has it, and its classes: their names, or their columns.
type Item = (String, Vec<String>);

impl Dataset {
    /// Reads a list of images: lines of a path, relative to the list's folder, and its classes, separated by white space.
    ///
    /// Empty lines and lines that begin with `#` are skipped. Classes are whatever words occur: numbers first, by value,
    /// then names. (`classes` in `dataset.toml` fixes them, and then a class may be a name or an index.)
    ///
    /// # Errors
    /// [`Error::File`] if there is no image, an image occurs twice, or only some have classes.
    pub fn from_list(list: &Path, shape: ImageShape) -> Result<Self, Error> {
        let shape = shape.check(list)?;
        let bytes = read_file(list, "correct the path or make the list")?;
        let items = parse_items(list, bytes, LabelForm::Classes, &mut 0)?;
        let root = list.parent().unwrap_or(Path::new(""));
        Ok(Self::from_items(list, root, shape, items))
    }

    /// Reads the list `file` of the data set in the folder `dir`, whose paths are relative to the folder `root`. `classes`
    /// are its classes in their order, none for those that occur.
    pub(crate) fn read_list(
        dir: &Path,
        file: &DataFile,
        root: &Path,
        shape: ImageShape,
        form: LabelForm,
        classes: Vec<String>,
    ) -> Result<Self, Error> {
        let list = dir.join(&file.file);
        let mut n_columns = classes.len();
        let items = parse_items(&list, file.read(dir)?, form, &mut n_columns)?;
        Self::from_form(&list, root, shape, items, form, (classes, n_columns))
    }

    /// Reads a list for each split: the images, and the rows of queries and training images.
    ///
    /// No query is in another list. With `train_in_gallery` all training images are in the gallery's list too, else none.
    pub(crate) fn read_lists(
        dir: &Path,
        lists: &ListFiles,
        shape: ImageShape,
        train_in_gallery: bool,
        classes: Vec<String>,
    ) -> Result<(Self, [Vec<u32>; 2]), Error> {
        let files =
            [(Split::Query, &lists.query), (Split::Train, &lists.train), (Split::Gallery, &lists.gallery)];
        let mut items: Vec<Item> = Vec::new();
        let mut owners: HashMap<PathBuf, (Split, usize)> = HashMap::new();
        let mut ends = Vec::new();
        let mut n_shared = 0;
        let mut n_columns = classes.len();
        for (split, file) in files {
            let list = dir.join(&file.file);
            for (path, classes) in parse_items(&list, file.read(dir)?, lists.labels, &mut n_columns)? {
                let Some(&(other, row)) = owners.get(&same(&path)) else {
                    owners.insert(same(&path), (split, items.len()));
                    items.push((path, classes));
                    continue;
                };
                if !(train_in_gallery && (other, split) == (Split::Train, Split::Gallery)) {
                    return Err(Error::Split(format!(
                        "`{path}` is in the {other} list and again in the {split} list, expected disjoint lists"
                    )));
                }
                if items[row].1 != classes {
                    return Err(Error::Split(format!(
                        "`{path}` has other classes in the {split} list than in the {other} list"
                    )));
                }
                n_shared += 1;
            }
            ends.push(items.len());
        }
        let (query, train) = (0..ends[0] as u32, ends[0] as u32..ends[1] as u32);
        if train_in_gallery && n_shared != train.len() {
            return Err(Error::Split(format!(
                "the gallery list has {n_shared} of the {} training images, `train_in_gallery` expects all of them",
                train.len()
            )));
        }
        let root = lists.root.as_ref().map_or(dir.to_owned(), |root| dir.join(root));
        let dataset = Self::from_form(dir, &root, shape, items, lists.labels, (classes, n_columns))?;
        Ok((dataset, [query.collect(), train.collect()]))
    }

    fn from_form(
        source: &Path,
        root: &Path,
        shape: ImageShape,
        items: Vec<Item>,
        form: LabelForm,
        (classes, n_columns): (Vec<String>, usize),
    ) -> Result<Self, Error> {
        match form {
            LabelForm::Classes => Self::from_items(source, root, shape, items).with_classes(classes, source),
            LabelForm::MultiHot => {
                // A column is a class by its place: names, of digits too, are not looked up.
                let column = |column: &String| column.parse().expect("columns are written as numbers");
                let labels = Labels::new(items.iter().map(|(_, own)| own.iter().map(column).collect()));
                let names = if classes.is_empty() {
                    (0..n_columns).map(|column| column.to_string()).collect()
                } else {
                    classes
                };
                Ok(Self::new(source, shape, names, paths(root, &items), labels))
            }
        }
    }

    fn from_items(source: &Path, root: &Path, shape: ImageShape, items: Vec<Item>) -> Self {
        let mut names: Vec<&String> = items.iter().flat_map(|(_, classes)| classes).collect();
        names.sort_by_cached_key(|name| (name.parse::<u64>().unwrap_or(u64::MAX), *name));
        names.dedup();
        let number: HashMap<&String, u32> = names.iter().copied().zip(0..).collect();
        let labels = Labels::new(items.iter().map(|(_, own)| own.iter().map(|name| number[name]).collect()));
        let names = names.into_iter().cloned().collect();
        Self::new(source, shape, names, paths(root, &items), labels)
    }
}

fn paths(root: &Path, items: &[Item]) -> Pixels {
    Pixels::Files(items.iter().map(|(path, _)| root.join(path)).collect())
}

/// `n_columns` is the number of classes of multi-hot lists, 0 until the first of them says it.
fn parse_items(
    list: &Path,
    bytes: Vec<u8>,
    form: LabelForm,
    n_columns: &mut usize,
) -> Result<Vec<Item>, Error> {
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::file(list, "not UTF-8 text, expected lines of a path and its classes"))?;
    let items = parse_list(&text).map_err(|reason| Error::file(list, reason))?;
    if *n_columns == 0 {
        *n_columns = items[0].1.len();
    }
    let n_columns = *n_columns;
    let item = |(path, words): (&str, Vec<&str>)| match form {
        LabelForm::Classes => Ok((path.to_owned(), words.into_iter().map(str::to_owned).collect())),
        LabelForm::MultiHot => {
            let is_multi_hot = words.len() == n_columns && words.iter().all(|word| ["0", "1"].contains(word));
            if !is_multi_hot || !words.contains(&"1") {
                let reason = format!(
                    "`{path}` is followed by `{}`, expected a 0 or 1 for each of {n_columns} classes, at least one of them 1",
                    words.join(" ")
                );
                return Err(Error::file(list, reason));
            }
            let classes = words.iter().enumerate().filter(|(_, word)| **word == "1");
            Ok((path.to_owned(), classes.map(|(class, _)| class.to_string()).collect()))
        }
    };
    items.into_iter().map(item).collect()
}

/// `./a.png` and `a.png` are one image.
fn same(path: &str) -> PathBuf {
    Path::new(path).components().filter(|part| *part != Component::CurDir).collect()
}

/// Reads the text of a list: for each image its path and the words for its classes, in the order of the lines.
///
/// A line is a path and any number of classes, separated by white space, so neither contains white space. Empty lines and
/// lines that begin with `#` are skipped.
///
/// # Errors
/// A sentence if there is no image, if a path occurs twice (one image could train and be searched for), or if only some
/// images have classes.
pub fn parse_list(text: &str) -> Result<Vec<(&str, Vec<&str>)>, String> {
    let (mut items, mut line_of) = (Vec::new(), HashMap::new());
    let mut with_classes = None;
    for (line, text) in (1..).zip(text.lines()) {
        let mut words = text.split_whitespace();
        let Some(path) = words.next().filter(|word| !word.starts_with('#')) else { continue };
        if let Some(first) = line_of.insert(same(path), line) {
            return Err(format!(
                "line {line}: `{path}` is on line {first} too, expected each image once with all its classes"
            ));
        }
        let classes: Vec<&str> = words.collect();
        if *with_classes.get_or_insert(!classes.is_empty()) == classes.is_empty() {
            let (this, others) =
                if classes.is_empty() { ("no class", "have") } else { ("a class", "have none") };
            return Err(format!(
                "line {line}: `{path}` has {this}, the lines above {others}, expected classes for all or none"
            ));
        }
        items.push((path, classes));
    }
    if items.is_empty() {
        return Err("no image in this list, expected lines of a path and its classes".to_owned());
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::parse_list;

    #[test]
    fn lines_are_paths_and_classes() {
        let text = "# path class ...\r\na/1.png cat  small\r\n\n \ta/2.png\tdog\n";
        assert_eq!(parse_list(text).unwrap(), [("a/1.png", vec!["cat", "small"]), ("a/2.png", vec!["dog"])]);
        assert_eq!(parse_list("a\nb").unwrap(), [("a", vec![]), ("b", vec![])]);
    }

    #[test]
    fn lists_that_make_no_sense_are_refused_by_line() {
        let error = |text| parse_list(text).unwrap_err();
        assert!(error("# nothing\n").contains("no image in this list"));
        assert!(error("a 1\n\nb 2\na 3").starts_with("line 4: `a` is on line 1 too"));
        assert!(error("a/b 1\n./a//b 2").starts_with("line 2: `./a//b` is on line 1 too"));
        assert!(error("a 1\nb").starts_with("line 2: `b` has no class, the lines above have,"));
        assert!(error("a\nb 1").starts_with("line 2: `b` has a class, the lines above have none,"));
    }
}
