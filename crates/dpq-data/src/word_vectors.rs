//! Word vectors as text, as word2vec and GloVe write them.

use std::collections::HashMap;
use std::io::{BufRead, Read};

use crate::Error;

/// The maximum number of bytes of a line, a hundred times a line of 300 numbers, so that a file
/// without line ends is not read whole.
const MAX_BYTES: u64 = 1 << 19;

/// Reads a vector for each class, `[C, E]`: the vector of its name, or else the mean of the vectors
/// of the words of its name.
///
/// A line is a word and its vector, separated by white space. A first line of two whole numbers,
/// which word2vec writes, is skipped. White space, `_` and `/` separate the words of a name. A word
/// is looked up as it is spelt, then in lower case. If several lines have the word, the first
/// counts.
///
/// # Errors
/// [`Error::NoVector`] names all words without a vector. [`Error::InLine`] names the line that is
/// too long, is not a vector or cannot be read.
pub fn parse_word_vectors(mut text: impl BufRead, class_names: &[String]) -> Result<Vec<Vec<f32>>, Error> {
    let mut vectors: HashMap<String, Option<Vec<f32>>> = class_names
        .iter()
        .flat_map(|name| words(name).chain([name.as_str()]))
        .flat_map(|word| [(word.to_owned(), None), (word.to_lowercase(), None)])
        .collect();

    let (mut dim, mut line) = (None, Vec::new());
    for at in 1.. {
        line.clear();
        let n = text.by_ref().take(MAX_BYTES).read_until(b'\n', &mut line);
        if n.map_err(|error| Error::Damaged(error).in_line(at))? == 0 {
            break;
        }
        if line.len() as u64 == MAX_BYTES {
            return Err(Error::invalid(
                format!("longer than {MAX_BYTES} bytes"),
                "expected a word and its vector",
            )
            .in_line(at));
        }
        let mut columns =
            line.split(u8::is_ascii_whitespace).map(String::from_utf8_lossy).filter(|c| !c.is_empty());
        let Some(word) = columns.next() else { continue };
        // A file has millions of lines, so only those of wanted words are split.
        let vector = vectors.get_mut(&*word);
        if dim.is_some() && vector.as_ref().is_none_or(|vector| vector.is_some()) {
            continue;
        }
        let columns: Vec<_> = columns.collect();
        if at == 1 && columns.len() == 1 && [&word, &columns[0]].iter().all(|n| n.parse::<u64>().is_ok()) {
            continue;
        }
        let dim = *dim.get_or_insert(columns.len());
        // Some words contain spaces. Their first part is not the wanted word.
        let Some(vector) = vector.filter(|_| columns.len() <= dim) else { continue };
        let values = columns.iter().map(|value| value.parse().ok().filter(|value: &f32| value.is_finite()));
        match values.collect::<Option<Vec<_>>>() {
            Some(values) if dim > 0 && values.len() == dim => *vector = Some(values),
            _ => return Err(Error::VectorLine(word.into_owned(), dim.max(1)).in_line(at)),
        }
    }

    let find = |word: &str| [word, &word.to_lowercase()].iter().find_map(|&form| vectors[form].as_ref());
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for name in class_names {
        if let Some(vector) = find(name) {
            found.push(vector.clone());
            continue;
        }
        let mut mean = vec![0.0; dim.unwrap_or(0)];
        let n = words(name).count() as f32;
        for word in words(name) {
            match find(word) {
                Some(vector) => mean.iter_mut().zip(vector).for_each(|(mean, value)| *mean += value / n),
                None if missing.iter().any(|other| other == word) => {}
                None => missing.push(word.to_owned()),
            }
        }
        found.push(mean);
    }
    if missing.is_empty() { Ok(found) } else { Err(Error::NoVector(missing)) }
}

fn words(name: &str) -> impl Iterator<Item = &str> {
    name.split(|c: char| c.is_whitespace() || c == '_' || c == '/').filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::parse_word_vectors;

    fn parse(text: &str, names: &[&str]) -> Result<Vec<Vec<f32>>, String> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        parse_word_vectors(text.as_bytes(), &names).map_err(|error| error.to_string())
    }

    const GLOVE: &str =
        "the 0 0\npine 1 2\nTree 0 1\ntree 3 4\npine 9 9\nt-shirt 5 -6e-1\npine_cone 7 8\n. . . 1 2\n";

    #[test]
    fn a_class_has_the_vector_of_its_name_or_the_mean_of_its_words() {
        let expected = vec![vec![1.0, 2.0], vec![2.0, 3.0], vec![7.0, 8.0], vec![0.0, 1.0], vec![3.0, 4.0]];
        let names = ["Pine", "pine_tree", "pine_cone", "Tree", "tree"];
        assert_eq!(parse(GLOVE, &names).unwrap(), expected);
        let word2vec = format!("7 2\r\n{}", GLOVE.replace('\n', " \r\n"));
        assert_eq!(parse(&word2vec, &names).unwrap(), expected, "with a header and other line ends");
        assert_eq!(parse(GLOVE, &["T-shirt/tree"]).unwrap(), [[4.0, 1.7]]);
    }

    #[test]
    fn all_words_without_a_vector_are_named_at_once() {
        let error = parse(GLOVE, &["pine", "oak_tree", "Bag", "ankle boot"]).unwrap_err();
        assert!(error.starts_with("no vector for `oak`, `Bag`, `ankle`, `boot`, rename"), "{error}");
        assert!(parse("", &["pine"]).unwrap_err().starts_with("no vector for `pine`"));
    }

    #[test]
    fn lines_that_are_not_vectors_are_refused_by_number() {
        let error = |text: &str| parse(text, &["pine", "."]).unwrap_err();
        assert_eq!(error("the 1 2\npine 1\n"), "line 2: `pine` is not followed by 2 finite numbers");
        assert_eq!(error("the 1 2\npine 1 x\n"), "line 2: `pine` is not followed by 2 finite numbers");
        assert_eq!(error("the 1 2\npine 1 NaN\n"), "line 2: `pine` is not followed by 2 finite numbers");
        assert_eq!(error("pine\n"), "line 1: `pine` is not followed by 1 finite numbers");
        // The word `. .` is not the word `.`.
        assert_eq!(
            error("pine 1 2\n. . 1 2\n"),
            "no vector for `.`, rename these classes or take other word vectors"
        );
        let long = "pine ".to_owned() + &"1 ".repeat(1 << 20);
        assert!(error(&long).starts_with("line 1: longer than 524288 bytes"));
        let bytes = parse_word_vectors(&b"\xff\xfe 1 2\npine 3 4"[..], &["pine".to_owned()]).unwrap();
        assert_eq!(bytes, [[3.0, 4.0]], "words of other encodings are skipped");
    }
}
