//! The codebooks themselves: checked when made, saved, opened, named by a fingerprint.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use dpq_file::{Container, Dtype, Section, crc32c_append};

use crate::error::{check_finite, check_rows};
use crate::{CodeLength, Error};

/// How a level chooses its codeword.
///
/// Source: the paper assigns to the nearest codeword; the authors' code to the one of largest cosine
/// (docs/deviations.md, row 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignment {
    /// The nearest codeword: argmin_k ‖r − c_k‖².
    Euclidean,
    /// The codeword of largest cosine: argmax_k ⟨r, c_k⟩ / ‖c_k‖. The residual may grow.
    Cosine,
}

impl fmt::Display for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Euclidean => "euclidean",
            Self::Cosine => "cosine",
        })
    }
}

impl FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Euclidean, Self::Cosine]
            .into_iter()
            .find(|assignment| assignment.to_string() == text)
            .ok_or_else(|| format!("assignment is `{text}`, expected `euclidean` or `cosine`"))
    }
}

/// L codebooks of K codewords of dimension D: f32 [L, K, D], finite, 1 ≤ K ≤ 256, 1 ≤ L ≤ 255.
#[derive(Clone, Debug, PartialEq)]
pub struct Codebooks {
    values: Vec<f32>,
    n_levels: usize,
    n_codewords: usize,
    dim: usize,
    assignment: Assignment,
}

impl Codebooks {
    /// Makes codebooks of `values`, f32 [n_levels, n_codewords, dim].
    ///
    /// # Errors
    /// [`Error::Range`], [`Error::Length`] or [`Error::NotFinite`] if the values are no codebooks.
    pub fn new(
        values: Vec<f32>,
        n_levels: usize,
        n_codewords: usize,
        dim: usize,
        assignment: Assignment,
    ) -> Result<Self, Error> {
        CodeLength::from_levels(n_levels)?;
        check_n_codewords(n_codewords)?;
        if dim == 0 {
            return Err(Error::Range { what: "dimension", found: 0, expected: "at least 1".to_owned() });
        }
        if n_levels.checked_mul(n_codewords).and_then(|n| n.checked_mul(dim)) != Some(values.len()) {
            return Err(Error::Length {
                what: "codebook",
                found: values.len(),
                expected: format!("{n_levels} levels × {n_codewords} codewords × {dim} dimensions"),
            });
        }
        check_finite("codebook", &values)?;
        Ok(Self { values, n_levels, n_codewords, dim, assignment })
    }

    /// Opens a codebook file, or a model file, which carries its codebooks.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Content`] say what is wrong with the file; a fingerprint that it carries must fit.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = Container::open(path)?;
        let content = |reason: String| Error::Content { path: path.to_owned(), reason };
        let format = file.metadata("format")?;
        if !["dpq-codebook", "dpq-model"].contains(&format) {
            return Err(content(format!("the file holds a `{format}`, expected codebooks or a model")));
        }
        let version = file.metadata("version")?;
        if version != VERSION {
            return Err(content(format!(
                "the file has version {version}, this program reads version {VERSION}, use a newer program"
            )));
        }
        let codebooks = Self::from_container(&file)?;
        match file.metadata("fingerprint") {
            Ok(claimed) if claimed != codebooks.fingerprint() => Err(content(format!(
                "the codebooks have the fingerprint {}, the file says {claimed}, make it again or restore it from a copy",
                codebooks.fingerprint()
            ))),
            _ => Ok(codebooks),
        }
    }

    /// Reads the section `codebook` and the metadata `assignment` of an open file.
    ///
    /// # Errors
    /// [`Error::File`] if they are missing, [`Error::Content`] if they are no codebooks.
    pub fn from_container(file: &Container) -> Result<Self, Error> {
        let content = |reason: String| Error::Content { path: file.path().to_owned(), reason };
        let assignment = file.metadata("assignment")?.parse().map_err(content)?;
        let section = file.section("codebook")?;
        let values = file.floats("codebook", section.shape)?;
        let &[n_levels, n_codewords, dim] = section.shape else {
            return Err(content(format!(
                "section `codebook` has shape {:?}, expected [levels, codewords, dimensions]",
                section.shape
            )));
        };
        Self::new(values, n_levels, n_codewords, dim, assignment).map_err(|error| content(error.to_string()))
    }

    /// Writes a codebook file.
    ///
    /// # Errors
    /// [`Error::File`] if the system refuses.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let metadata = [
            ("format", "dpq-codebook"),
            ("version", VERSION),
            ("assignment", &self.assignment.to_string()),
            ("fingerprint", &self.fingerprint()),
        ];
        let metadata: BTreeMap<_, _> =
            metadata.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let bytes: Vec<u8> = self.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let section = Section { dtype: Dtype::F32, shape: &self.shape(), bytes: &bytes };
        Ok(dpq_file::write(path, &metadata, &[("codebook", section)])?)
    }

    /// Levels, L.
    pub fn n_levels(&self) -> usize {
        self.n_levels
    }

    /// Codewords a level, K.
    pub fn n_codewords(&self) -> usize {
        self.n_codewords
    }

    /// Dimensions of a feature, D.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// How a level chooses its codeword.
    pub fn assignment(&self) -> Assignment {
        self.assignment
    }

    /// All codewords, f32 [L, K, D].
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The codewords of a level, f32 [K, D].
    ///
    /// # Panics
    /// If there is no such level.
    pub fn level(&self, level: usize) -> &[f32] {
        let size = self.n_codewords * self.dim;
        &self.values[level * size..][..size]
    }

    /// One codeword, f32 `[D]`.
    ///
    /// # Panics
    /// If there is no such level or codeword.
    pub fn codeword(&self, level: usize, codeword: usize) -> &[f32] {
        &self.level(level)[codeword * self.dim..][..self.dim]
    }

    /// The length of the longest code.
    pub fn max_length(&self) -> CodeLength {
        CodeLength::from_levels(self.n_levels).expect("codebooks have 1 to 255 levels")
    }

    /// Refuses a length above that of the codes.
    pub(crate) fn check_length(&self, length: CodeLength) -> Result<(), Error> {
        if length <= self.max_length() {
            return Ok(());
        }
        Err(Error::Range {
            what: "code length in bits",
            found: length.bits(),
            expected: format!("at most {}", self.max_length().bits()),
        })
    }

    /// The name of exactly these codebooks: the CRC32C of L, K, D as u64 and of all values, as eight hex digits.
    pub fn fingerprint(&self) -> String {
        let mut crc = self.shape().iter().fold(0, |crc, &n| crc32c_append(crc, &(n as u64).to_le_bytes()));
        for chunk in self.values.chunks(1024) {
            let bytes: Vec<u8> = chunk.iter().flat_map(|value| value.to_le_bytes()).collect();
            crc = crc32c_append(crc, &bytes);
        }
        format!("{crc:08x}")
    }

    fn shape(&self) -> [usize; 3] {
        [self.n_levels, self.n_codewords, self.dim]
    }

    /// Checks features [N, D] and returns N.
    pub(crate) fn check_features(&self, features: &[f32]) -> Result<usize, Error> {
        let n = check_rows("features", features.len(), self.dim)?;
        check_finite("features", features)?;
        Ok(n)
    }

    /// Checks codes [N, L] and returns N.
    pub(crate) fn check_codes(&self, codes: &[u8]) -> Result<usize, Error> {
        let n = check_rows("codes", codes.len(), self.n_levels)?;
        check_codes(codes, self.n_codewords)?;
        Ok(n)
    }
}

/// The version of the file format.
const VERSION: &str = "1";

/// Refuses a number of codewords that a byte cannot name.
pub(crate) fn check_n_codewords(n_codewords: usize) -> Result<(), Error> {
    if (1..=256).contains(&n_codewords) {
        return Ok(());
    }
    let expected = "1 to 256".to_owned();
    Err(Error::Range { what: "number of codewords", found: n_codewords, expected })
}

/// Refuses codes that name no codeword.
pub(crate) fn check_codes(codes: &[u8], n_codewords: usize) -> Result<(), Error> {
    match codes.iter().find(|&&code| usize::from(code) >= n_codewords) {
        None => Ok(()),
        Some(&code) => Err(Error::Range {
            what: "code",
            found: code.into(),
            expected: format!("less than the number of codewords, {n_codewords}"),
        }),
    }
}
