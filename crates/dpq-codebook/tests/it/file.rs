//! Codebooks survive their file, and errors name files of other kinds.

use std::collections::BTreeMap;

use dpq_codebook::{Assignment, Codebooks};
use dpq_file::{Dtype, Section};
use tempfile::TempDir;

use crate::codebooks;

#[test]
fn codebooks_survive_their_file() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("cb.safetensors");
    for assignment in [Assignment::Euclidean, Assignment::Cosine] {
        let made = codebooks(3, 7, 5, assignment);
        made.save(&path).unwrap();
        let opened = Codebooks::open(&path).unwrap();
        assert_eq!(opened, made);
        assert_eq!(opened.fingerprint(), made.fingerprint());
    }
}

#[test]
fn the_fingerprint_is_the_crc_of_shape_and_values() {
    let values = [1.0f32, 2.0, 3.0, 4.0];
    let fingerprint = |levels, codewords, dim| {
        Codebooks::new(values.to_vec(), levels, codewords, dim, Assignment::Euclidean).unwrap().fingerprint()
    };
    let mut bytes: Vec<u8> = [1u64, 2, 2].iter().flat_map(|n| n.to_le_bytes()).collect();
    bytes.extend(values.iter().flat_map(|x| x.to_le_bytes()));
    assert_eq!(fingerprint(1, 2, 2), format!("{:08x}", dpq_file::crc32c(&bytes)));
    assert_ne!(fingerprint(1, 2, 2), fingerprint(2, 1, 2));
}

#[test]
fn codebooks_of_another_fingerprint_are_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.safetensors");
    let open = |fingerprint: Option<&str>| {
        let metadata: BTreeMap<_, _> =
            [("format", "dpq-codebook"), ("version", "1"), ("assignment", "cosine")]
                .into_iter()
                .chain(fingerprint.map(|fingerprint| ("fingerprint", fingerprint)))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect();
        let section = Section { dtype: Dtype::F32, shape: &[1, 1, 1], bytes: &1.5f32.to_le_bytes() };
        dpq_file::write(&path, &metadata, &[("codebook", section)]).unwrap();
        Codebooks::open(&path).map_err(|error| error.to_string())
    };
    let right = open(None).unwrap().fingerprint();
    assert!(open(Some(&right)).is_ok());
    let error = open(Some("00000000")).unwrap_err();
    assert!(error.contains(&format!("fingerprint {right}, the file says 00000000")), "{error}");
}

#[test]
fn files_of_other_kinds_are_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.safetensors");
    let error = |format: &str, version: &str, assignment: &str, shape: &[usize]| {
        let metadata: BTreeMap<_, _> = [("format", format), ("version", version), ("assignment", assignment)]
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let bytes = vec![0; 4 * shape.iter().product::<usize>()];
        let section = Section { dtype: Dtype::F32, shape, bytes: &bytes };
        dpq_file::write(&path, &metadata, &[("codebook", section)]).unwrap();
        Codebooks::open(&path).map_err(|error| error.to_string())
    };
    assert!(error("dpq-model", "1", "cosine", &[1, 2, 3]).is_ok());
    let says = |result: Result<Codebooks, String>, text: &str| {
        let error = result.unwrap_err();
        assert!(error.contains(text), "{error}");
    };
    assert!(error("another format", "7", "cosine", &[1, 2, 3]).is_ok(), "any container may carry codebooks");
    dpq_file::write(&path, &[("format".to_owned(), "dpq-weights".to_owned())].into(), &[]).unwrap();
    says(
        Codebooks::open(&path).map_err(|error| error.to_string()),
        "holds a `dpq-weights` without codebooks, expected codebooks or a model",
    );
    says(
        error("dpq-codebook", "3", "cosine", &[1, 2, 3]),
        "has version 3, this program reads versions 1 and 2",
    );
    says(
        error("dpq-codebook", "2", "cosine", &[1, 2, 3]),
        "has version 2 with progressive codebooks, expected version 2 for product ones alone",
    );
    says(error("dpq-codebook", "1", "hamming", &[1, 2, 3]), "expected `euclidean` or `cosine`");
    says(
        error("dpq-codebook", "1", "cosine", &[6]),
        "has shape [6], expected [levels, codewords, dimensions]",
    );
    says(error("dpq-codebook", "1", "cosine", &[1, 257, 1]), "number of codewords is 257, expected 1 to 256");
}

#[test]
fn codebooks_of_another_type_are_refused_with_the_name_of_the_file() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("half.safetensors");
    let metadata = [("format", "dpq-codebook"), ("version", "1"), ("assignment", "euclidean")];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let section = Section { dtype: Dtype::F16, shape: &[1, 2, 3], bytes: &[0; 12] };
    dpq_file::write(&path, &metadata, &[("codebook", section)]).unwrap();
    let error = Codebooks::open(&path).unwrap_err().to_string();
    assert!(
        error.ends_with("half.safetensors: section `codebook` has F16 [1, 2, 3], expected F32 [1, 2, 3]"),
        "{error}"
    );
}
