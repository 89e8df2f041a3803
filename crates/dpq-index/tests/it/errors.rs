//! The errors that a user reads: one test per kind.

use dpq_codebook::{Error as CodebookError, Expected, Unreadable};
use dpq_index::{Assignment, CodeLength, Codebooks, Error, Index, Metric, SearchOptions};

use crate::gallery::{Gallery, Random, Recipe};

fn gallery() -> Gallery {
    let metric = Metric::InnerProduct;
    Recipe { seed: 7, metric, n_levels: 2, n_codewords: 3, n_items: 30, n_distinct: 9, id_limit: None }
        .gallery()
}

fn open_error(bytes: &[u8]) -> Error {
    Index::from_bytes(bytes.to_vec()).expect_err("it is not an index")
}

/// Replaces text of the same length in the header.
fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()
}

#[test]
fn file() {
    let missing = Index::open("no/such/file.dpq").err().unwrap();
    assert!(matches!(missing, Error::File(_)), "{missing}");
    assert!(missing.to_string().contains("no/such/file.dpq"), "{missing}");
    for (bytes, words) in [
        (&b""[..], "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "Git LFS pointer"),
        (&gallery().bytes()[..5000], "truncated"),
        (&gallery().bytes()[..50], "truncated"),
    ] {
        let error = open_error(bytes);
        assert!(matches!(error, Error::File(_)), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn format() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cb.safetensors");
    gallery().codebooks.save(&path).unwrap();
    let codebook = Index::open(&path).err().unwrap();
    assert!(matches!(codebook, Error::Format { .. }), "{codebook}");
    assert!(codebook.to_string().contains("a dpq-codebook file, expected a dpq-index file"), "{codebook}");

    let bytes = gallery().bytes();
    let distinct = format!(r#""distinct":"{}""#, gallery().index().n_distinct());
    for (from, to, words) in [
        (r#""version":"1""#, r#""version":"2""#, "has version 2 and ranks by inner product"),
        (
            r#""version":"1""#,
            r#""version":"3""#,
            "inner product of progressive codebooks, expected version 1",
        ),
        (
            r#""version":"1""#,
            r#""version":"x""#,
            "version \"x\", this program reads versions \"1\", \"2\" and \"3\"",
        ),
        (r#""items":"30""#, r#""items":"3x""#, "\"3x\" as its number of items"),
        (r#""items":"30""#, r#""items":"03""#, "\"03\" as its number of items"),
        (r#""items":"30""#, r#""items":"04""#, "\"04\" as its number of items"),
        (r#""items":"30""#, r#""items":" 0""#, "\" 0\" as its number of items"),
        (&distinct, r#""distinct":"0""#, "0 distinct codes among 30 items"),
    ] {
        let error = open_error(&replaced(&bytes, from, to));
        assert!(matches!(error, Error::Format { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    let error = open_error(&replaced(&bytes, &gallery().codebooks.fingerprint(), "00000000"));
    assert!(
        matches!(error, Error::Codebook(CodebookError::Content { found: Unreadable::Fingerprint(..), .. })),
        "{error}"
    );
}

#[test]
fn section() {
    let bytes = gallery().bytes();
    for (from, to, words) in [
        (r#""items":"30""#, r#""items":"31""#, "section `ids` has U32 of shape [30]"),
        (r#""plane.1":{"#, r#""plane.9":{"#, "no section `plane.1`"),
        (r#""metric":"ip""#, r#""metric":"l2""#, "no section `gram`"),
        (r#""dtype":"U32","shape":[65537]"#, r#""dtype":"I32","shape":[65537]"#, "section `cells` has I32"),
    ] {
        let error = open_error(&replaced(&bytes, from, to));
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn codebook() {
    let index = gallery().index();
    for query in [&[1.0, 2.0][..], &[1.0, f32::NAN, 2.0]] {
        assert!(matches!(index.lookup_table(query), Err(Error::Codebook(_))));
    }
}

#[test]
fn build_errors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("never.dpq");
    let Gallery { codebooks, .. } = gallery();
    let error = |codebooks: &Codebooks, metric, codes: &[u8], ids: Option<&[u64]>| {
        let index = Index::builder(codebooks, codes).metric(metric);
        let error = ids.map_or(index, |ids| index.ids(ids)).write(&path).unwrap_err();
        assert!(!path.exists(), "nothing is written");
        error
    };
    let ip = Metric::InnerProduct;
    let rows = error(&codebooks, ip, &[0, 1, 2], None);
    assert!(
        matches!(
            rows,
            Error::Codebook(CodebookError::Argument { what: "codes", found: 3, expected: Expected::Rows(2) })
        ),
        "{rows}"
    );
    let code = error(&codebooks, ip, &[0, 1, 2, 3], None);
    assert!(matches!(code, Error::Code { row: 1, level: 1, found: 3, n_codewords: 3 }), "{code}");
    assert!(
        code.to_string().contains("row 1 of the codes has 3 at level 1, but there are 3 codewords"),
        "{code}"
    );
    let ids = error(&codebooks, ip, &[0, 1, 2, 2], Some(&[5]));
    assert!(matches!(ids, Error::Codebook(CodebookError::Argument { what: "ids", found: 1, .. })), "{ids}");
    let duplicate = error(&codebooks, ip, &[0, 1, 2, 2], Some(&[5, 5]));
    assert!(matches!(duplicate, Error::DuplicateId { id: 5 }), "{duplicate}");

    let large = Codebooks::new(vec![1e30; 4], 2, 2, 1, codebooks.assignment()).unwrap();
    let overflow = error(&large, Metric::Euclidean, &[0, 1], None);
    assert!(overflow.to_string().contains("overflow"), "{overflow}");
    let nowhere = Index::builder(&codebooks, &[0, 1]).write("no/such/folder/x.dpq").unwrap_err();
    assert!(matches!(nowhere, Error::File(_)), "{nowhere}");
}

#[test]
fn search() {
    let (gallery, mut random) = (gallery(), Random(8));
    let index = gallery.index();
    let table = gallery.table(|| random.fine());
    let length = |levels| CodeLength::from_levels(levels).unwrap();
    let error = |options: SearchOptions| {
        let (single, batch) = (index.search_with(&table, &options), index.search_batch(&[0.0; 6], &options));
        let error = single.unwrap_err();
        assert_eq!(batch.unwrap_err().to_string(), error.to_string());
        error
    };
    let zero = error(SearchOptions::new(0));
    assert_eq!(zero.to_string(), "k is 0, expected at least 1");
    let long = error(SearchOptions::new(1).length(length(3)));
    assert_eq!(long.to_string(), "code length in bits is 24, expected at most 16");
    let nan = error(SearchOptions::new(1).min_score(f32::NAN));
    assert!(matches!(nan, Error::NanMinScore) && nan.to_string().contains("NaN"), "{nan}");
    let part = index.search_batch(&[0.0; 4], &SearchOptions::new(1)).unwrap_err();
    assert_eq!(part.to_string(), "queries has 4 values, expected a multiple of 3");
    assert!(matches!(index.search(&[0.0; 4], 1), Err(Error::Codebook(_))));
    assert!(index.search_batch(&[], &SearchOptions::new(1)).unwrap().is_empty());
    let other = Recipe {
        seed: 9,
        metric: Metric::Euclidean,
        n_levels: 3,
        n_codewords: 3,
        n_items: 1,
        n_distinct: 1,
        id_limit: None,
    };
    let large = other.gallery().table(|| 0.0);
    let error = index.search_with(&large, &SearchOptions::new(1).length(length(1))).unwrap_err();
    assert!(matches!(error, Error::Table { found: [3, 3], max: [2, 3], .. }), "{error}");
    assert!(error.to_string().contains("3 levels"), "{error}");
    let short = index.lookup_table_at(&[0.0; 3], length(1)).unwrap();
    let error = index.search_with(&short, &SearchOptions::new(1).length(length(2))).unwrap_err();
    assert!(matches!(error, Error::Table { found: [1, 3], .. }), "{error}");

    let error = index.distinct_codes(length(3)).err().unwrap().to_string();
    assert_eq!(error, "code length in bits is 24, expected at most 16");
    let codes = index.distinct_codes(length(1)).unwrap();
    let error = codes.score(&large, &mut vec![0.0; codes.len()]).unwrap_err();
    assert!(error.to_string().contains("3 levels"), "{error}");
    let error = codes.score(&table, &mut []).unwrap_err().to_string();
    assert_eq!(error, format!("scores has 0 values, expected {}", codes.len()));
}

#[test]
fn metric() {
    let error = "cosine".parse::<Metric>().unwrap_err();
    assert!(matches!(error, Error::Metric(_)), "{error}");
    for metric in [Metric::InnerProduct, Metric::Euclidean] {
        assert_eq!(metric.to_string().parse::<Metric>().unwrap(), metric);
    }
}

#[test]
fn norms_that_overflow_are_refused_before_a_file_is_written() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("x.dpq");
    let build = |scale: f32| {
        // Each codeword has a norm, but the sum of two has none.
        let codebooks =
            Codebooks::new([1.2e19; 4].map(|x| x * scale).to_vec(), 4, 1, 1, Assignment::Euclidean).unwrap();
        Index::builder(&codebooks, &[0; 4]).metric(Metric::Euclidean).write(&path)
    };
    let error = build(1.0).unwrap_err().to_string();
    assert!(error.contains("overflow"), "{error}");
    assert!(!path.exists());
    build(0.25).unwrap();
    Index::open(&path).unwrap().verify().unwrap();
}

#[test]
fn norms_of_a_length_beyond_the_codes_are_refused() {
    let gallery = gallery();
    let length = CodeLength::from_levels(gallery.n_levels() + 1).unwrap();
    let error = gallery.builder().norm_lengths(&[length]).build().unwrap_err().to_string();
    assert!(error.contains("code length in bits"), "{error}");
}

#[test]
fn lengths_of_norms_are_checked() {
    let recipe = Recipe {
        seed: 8,
        metric: Metric::Euclidean,
        n_levels: 4,
        n_codewords: 3,
        n_items: 30,
        n_distinct: 30,
        id_limit: None,
    };
    let bytes = recipe.gallery().bytes();
    for norms in ["4 3", "3 3", "2 4", "3 5", "3  ", "x 4"] {
        let error = open_error(&replaced(&bytes, r#""norms":"3 4""#, &format!(r#""norms":"{norms}""#)));
        assert!(error.to_string().contains("expected ascending numbers of levels from 3 to 4"), "{error}");
    }
}
