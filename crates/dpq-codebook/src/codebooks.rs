//! The codebooks themselves: checked when made, written, opened, named by a fingerprint.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use dpq_file::{Container, Dtype, Section, crc32c, crc32c_append};

use crate::error::{Unreadable, check_finite};
use crate::{CodeLength, Error, Expected, norm};

/// How a level chooses its codeword.
///
/// Source: the paper assigns to the nearest codeword, the authors' code to the codeword of largest
/// cosine (docs/deviations.md, row 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
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
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        [Self::Euclidean, Self::Cosine]
            .into_iter()
            .find(|assignment| assignment.to_string() == text)
            .ok_or_else(|| Error::Assignment(text.to_owned()))
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
    /// The CRC32C of L, K, D as u64 and of all values.
    pub(crate) fingerprint: u32,
}

impl Codebooks {
    /// Makes codebooks of `values`, f32 [n_levels, n_codewords, dim].
    ///
    /// # Errors
    /// [`Error::Argument`] if a size is out of range or `values` does not have these sizes.
    /// [`Error::NotFinite`] if a value is NaN or infinite.
    pub fn new(
        values: Vec<f32>,
        n_levels: usize,
        n_codewords: usize,
        dim: usize,
        assignment: Assignment,
    ) -> Result<Self, Error> {
        check_sizes(n_levels, n_codewords)?;
        Expected::Range(1..=usize::MAX).check("dimension", dim)?;
        Expected::Shape(vec![n_levels, n_codewords, dim]).check("codebook", values.len())?;
        check_finite("codebook", &values)?;
        let sizes = [n_levels, n_codewords, dim].map(|n| (n as u64).to_le_bytes());
        let mut fingerprint = crc32c(sizes.as_flattened());
        for chunk in values.chunks(1024) {
            let bytes: Vec<u8> = chunk.iter().flat_map(|value| value.to_le_bytes()).collect();
            fingerprint = crc32c_append(fingerprint, &bytes);
        }
        Ok(Self { values, n_levels, n_codewords, dim, assignment, fingerprint })
    }

    /// Opens a codebook file, or another container that carries codebooks: a model or an index.
    ///
    /// # Errors
    /// As [`from_container`](Self::from_container), and for a codebook file of another version.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let file = Container::open(path)?;
        if file.metadata("format").is_ok_and(|format| format == FORMAT) {
            let version = file.metadata("version")?;
            if version != VERSION {
                let found = Unreadable::Version(version.to_owned());
                return Err(Error::Content { path: file.path().to_owned(), found });
            }
        }
        Self::from_container(&file)
    }

    /// Reads the section `codebook` and the metadata `assignment` of an open container. If it has
    /// the metadata `fingerprint`, that is compared.
    ///
    /// # Errors
    /// [`Error::Content`] if they are missing, are not codebooks, or have another fingerprint.
    /// [`Error::File`] if the section is not f32.
    pub fn from_container(file: &Container) -> Result<Self, Error> {
        let content = |found| Error::Content { path: file.path().to_owned(), found };
        let (Ok(section), Ok(assignment)) = (file.section("codebook"), file.metadata("assignment")) else {
            let format = file.metadata("format").unwrap_or("safetensors");
            return Err(content(Unreadable::NoCodebooks(format.to_owned())));
        };
        let &[n_levels, n_codewords, dim] = section.shape else {
            return Err(content(Unreadable::Shape(section.shape.to_vec())));
        };
        let values = file.floats("codebook", section.shape)?;
        let codebooks = assignment
            .parse()
            .and_then(|assignment| Self::new(values, n_levels, n_codewords, dim, assignment))
            .map_err(|error| content(Unreadable::Values(Box::new(error))))?;
        let found = codebooks.fingerprint();
        match file.metadata("fingerprint") {
            Ok(claimed) if claimed != found => {
                Err(content(Unreadable::Fingerprint(found, claimed.to_owned())))
            }
            _ => Ok(codebooks),
        }
    }

    /// Writes a codebook file.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let metadata = [
            ("format", FORMAT.to_owned()),
            ("version", VERSION.to_owned()),
            ("assignment", self.assignment.to_string()),
            ("fingerprint", self.fingerprint()),
        ];
        let metadata = metadata.map(|(key, value)| (key.to_owned(), value)).into();
        let bytes: Vec<u8> = self.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let shape = &[self.n_levels, self.n_codewords, self.dim];
        let section = Section { dtype: Dtype::F32, shape, bytes: &bytes };
        Ok(dpq_file::write(path, &metadata, &[("codebook", section)])?)
    }

    /// Returns the number of levels, L.
    pub fn n_levels(&self) -> usize {
        self.n_levels
    }

    /// Returns the number of codewords per level, K.
    pub fn n_codewords(&self) -> usize {
        self.n_codewords
    }

    /// Returns the dimension of a feature, D.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Returns how a level chooses its codeword.
    pub fn assignment(&self) -> Assignment {
        self.assignment
    }

    /// Returns all codewords, f32 [L, K, D].
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Returns the codewords of a level, f32 [K, D].
    ///
    /// # Panics
    /// If `level` is not less than L.
    pub fn level(&self, level: usize) -> &[f32] {
        let size = self.n_codewords * self.dim;
        &self.values[level * size..][..size]
    }

    /// Returns one codeword, f32 `[D]`.
    ///
    /// # Panics
    /// If `level` is not less than L or `codeword` not less than K.
    pub fn codeword(&self, level: usize, codeword: usize) -> &[f32] {
        &self.level(level)[codeword * self.dim..][..self.dim]
    }

    /// Subtracts the codeword that a code has at `level` from a residual `[D]`.
    pub(crate) fn subtract(&self, residual: &mut [f32], level: usize, code: u8) {
        norm::subtract(residual, self.codeword(level, code.into()));
    }

    /// Returns the length of the longest code.
    pub fn max_length(&self) -> CodeLength {
        CodeLength::from_levels(self.n_levels).expect("codebooks have 1 to 255 levels")
    }

    /// Refuses a length above that of the codes.
    pub(crate) fn check_length(&self, length: CodeLength) -> Result<(), Error> {
        Expected::Range(0..=self.max_length().bits()).check("code length in bits", length.bits())
    }

    /// Returns the name of exactly these codebooks: the CRC32C of L, K, D as u64 and of all values,
    /// as eight hex digits.
    pub fn fingerprint(&self) -> String {
        format!("{:08x}", self.fingerprint)
    }

    /// Checks features [N, D] and returns N.
    pub(crate) fn check_features(&self, features: &[f32]) -> Result<usize, Error> {
        Expected::Rows(self.dim).check("features", features.len())?;
        check_finite("features", features)?;
        Ok(features.len() / self.dim)
    }

    /// Checks codes [N, L] and returns N.
    pub(crate) fn check_codes(&self, codes: &[u8]) -> Result<usize, Error> {
        check_codes(codes, self.n_levels, self.n_codewords)?;
        Ok(codes.len() / self.n_levels)
    }
}

/// The name and version of the file format.
const FORMAT: &str = "dpq-codebook";
const VERSION: &str = "1";

/// Refuses levels that are too many, and codewords that a byte cannot name.
pub(crate) fn check_sizes(n_levels: usize, n_codewords: usize) -> Result<(), Error> {
    CodeLength::from_levels(n_levels)?;
    Expected::Range(1..=256).check("number of codewords", n_codewords)
}

/// Refuses codes that are not whole rows, or name no codeword.
pub(crate) fn check_codes(codes: &[u8], n_levels: usize, n_codewords: usize) -> Result<(), Error> {
    Expected::Rows(n_levels).check("codes", codes.len())?;
    let max = codes.iter().copied().max().map_or(0, usize::from);
    Expected::Range(0..=n_codewords - 1).check("code", max)
}
