//! The text of list files: one image and its classes a line.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

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
        // `./a.png` and `a.png` are one image.
        let same: PathBuf = Path::new(path).components().filter(|part| *part != Component::CurDir).collect();
        if let Some(first) = line_of.insert(same, line) {
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
