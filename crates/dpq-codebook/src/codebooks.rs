//! The codebooks themselves: checked when made, written, opened, named by a fingerprint.

use std::fmt;
use std::ops::Range;
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

/// Which dimensions a level covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// All: a level encodes what the levels before it leave, and every prefix of a code is a code.
    #[default]
    Progressive,
    /// Level l those from lD/L to (l+1)D/L. Only the whole code is a code.
    Product,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Progressive => "progressive",
            Self::Product => "product",
        })
    }
}

impl FromStr for Form {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        [Self::Progressive, Self::Product]
            .into_iter()
            .find(|form| form.to_string() == text)
            .ok_or_else(|| Error::Form(text.to_owned()))
    }
}

impl Form {
    /// Returns the version of a codebook file.
    fn version(self) -> &'static str {
        match self {
            Self::Progressive => VERSION,
            Self::Product => PRODUCT_VERSION,
        }
    }

    /// Returns the number of values of a codeword, for features of `dim` values.
    pub(crate) fn width(self, n_levels: usize, dim: usize) -> Result<usize, Error> {
        match self {
            Self::Progressive => Ok(dim),
            Self::Product => {
                Expected::Parts(n_levels).check("dimension", dim)?;
                Ok(dim / n_levels)
            }
        }
    }
}

/// L codebooks of K codewords: f32 [L, K, W], finite, 1 ≤ K ≤ 256, 1 ≤ L ≤ 255. The width W of a
/// codeword is the dimension D of a feature, or D/L in product form.
#[derive(Clone, Debug, PartialEq)]
pub struct Codebooks {
    values: Vec<f32>,
    form: Form,
    n_levels: usize,
    n_codewords: usize,
    dim: usize,
    assignment: Assignment,
    /// The CRC32C of L, K, D as u64 and of all values, after the name of the form if that is
    /// product.
    pub(crate) fingerprint: u32,
}

impl Codebooks {
    /// Makes progressive codebooks of `values`, f32 [n_levels, n_codewords, dim].
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
        Self::with_form(Form::Progressive, values, n_levels, n_codewords, dim, assignment)
    }

    /// Makes codebooks of `values`, f32 [n_levels, n_codewords, W], for features of `dim` values: W
    /// is `dim`, or `dim` / `n_levels` in product form.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`Error::Argument`] if the parts of a product are not equal.
    pub fn with_form(
        form: Form,
        values: Vec<f32>,
        n_levels: usize,
        n_codewords: usize,
        dim: usize,
        assignment: Assignment,
    ) -> Result<Self, Error> {
        check_sizes(n_levels, n_codewords)?;
        Expected::Range(1..=usize::MAX).check("dimension", dim)?;
        let width = form.width(n_levels, dim)?;
        Expected::Shape(vec![n_levels, n_codewords, width]).check("codebook", values.len())?;
        check_finite("codebook", &values)?;
        let sizes = [n_levels, n_codewords, dim].map(|n| (n as u64).to_le_bytes());
        let name = if form == Form::Product { "product" } else { "" };
        let mut fingerprint = crc32c_append(crc32c(name.as_bytes()), sizes.as_flattened());
        for chunk in values.chunks(1024) {
            let bytes: Vec<u8> = chunk.iter().flat_map(|value| value.to_le_bytes()).collect();
            fingerprint = crc32c_append(fingerprint, &bytes);
        }
        Ok(Self { values, form, n_levels, n_codewords, dim, assignment, fingerprint })
    }

    /// Opens a codebook file, or another container that carries codebooks: a model or an index.
    ///
    /// # Errors
    /// As [`from_container`](Self::from_container), and for a codebook file of another version.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let file = Container::open(path)?;
        if file.metadata("format").is_ok_and(|format| format == FORMAT) {
            let version = file.metadata("version")?;
            if ![VERSION, PRODUCT_VERSION].contains(&version) {
                let found = Unreadable::Version(version.to_owned());
                return Err(Error::Content { path: file.path().to_owned(), found });
            }
            let codebooks = Self::from_container(&file)?;
            if version != codebooks.form.version() {
                let found = Unreadable::VersionOfForm(version.to_owned(), codebooks.form);
                return Err(Error::Content { path: file.path().to_owned(), found });
            }
            return Ok(codebooks);
        }
        Self::from_container(&file)
    }

    /// Reads the section `codebook` and the metadata `assignment` and `form` of an open container.
    /// If it has the metadata `fingerprint`, that is compared.
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
        let &[n_levels, n_codewords, width] = section.shape else {
            return Err(content(Unreadable::Shape(section.shape.to_vec())));
        };
        let values = file.floats("codebook", section.shape)?;
        let make = || {
            let form = file.metadata("form").map_or(Ok(Form::Progressive), str::parse)?;
            // Sizes that overflow are those of no section.
            let dim = if form == Form::Product { width.saturating_mul(n_levels) } else { width };
            Self::with_form(form, values, n_levels, n_codewords, dim, assignment.parse()?)
        };
        let codebooks = make().map_err(|error| content(Unreadable::Values(Box::new(error))))?;
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
        let metadata = [("format", FORMAT.to_owned()), ("version", self.form.version().to_owned())];
        let metadata = metadata.into_iter().chain(self.metadata());
        let metadata = metadata.map(|(key, value)| (key.to_owned(), value)).collect();
        let bytes: Vec<u8> = self.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let section = Section { dtype: Dtype::F32, shape: &self.shape(), bytes: &bytes };
        Ok(dpq_file::write(path, &metadata, &[("codebook", section)])?)
    }

    /// Returns the metadata by which [`from_container`](Self::from_container) reads the section
    /// `codebook`: `assignment`, `fingerprint`, and `form` if that is product.
    pub fn metadata(&self) -> impl Iterator<Item = (&'static str, String)> + use<> {
        let form = (self.form == Form::Product).then(|| ("form", self.form.to_string()));
        let metadata = [("assignment", self.assignment.to_string()), ("fingerprint", self.fingerprint())];
        metadata.into_iter().chain(form)
    }

    /// Returns which dimensions a level covers.
    pub fn form(&self) -> Form {
        self.form
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

    /// Returns the shape of all codewords, [L, K, W].
    pub fn shape(&self) -> [usize; 3] {
        [self.n_levels, self.n_codewords, self.width()]
    }

    /// Returns the number of values of a codeword, W: D, or D/L in product form.
    pub fn width(&self) -> usize {
        self.values.len() / (self.n_levels * self.n_codewords)
    }

    /// Returns the dimensions that a level covers.
    pub fn dims(&self, level: usize) -> Range<usize> {
        let width = self.width();
        let start = if self.form == Form::Product { level * width } else { 0 };
        start..start + width
    }

    /// Returns all codewords, f32 [L, K, W].
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Returns the codewords of a level, f32 [K, W].
    ///
    /// # Panics
    /// If `level` is not less than L.
    pub fn level(&self, level: usize) -> &[f32] {
        let size = self.n_codewords * self.width();
        &self.values[level * size..][..size]
    }

    /// Returns one codeword, f32 `[W]`.
    ///
    /// # Panics
    /// If `level` is not less than L or `codeword` not less than K.
    pub fn codeword(&self, level: usize, codeword: usize) -> &[f32] {
        let width = self.width();
        &self.level(level)[codeword * width..][..width]
    }

    /// Subtracts the codeword that a code has at `level` from a residual `[D]`.
    pub(crate) fn subtract(&self, residual: &mut [f32], level: usize, code: u8) {
        norm::subtract(&mut residual[self.dims(level)], self.codeword(level, code.into()));
    }

    /// Returns the length of the longest code.
    pub fn max_length(&self) -> CodeLength {
        CodeLength::from_levels(self.n_levels).expect("codebooks have 1 to 255 levels")
    }

    /// Returns the lengths at which codes can be used, ascending: all, or the longest alone in
    /// product form.
    pub fn lengths(&self) -> impl DoubleEndedIterator<Item = CodeLength> + use<> {
        let max = self.max_length();
        let min = if self.form == Form::Product { max.levels() } else { 1 };
        (min..=max.levels()).filter_map(|levels| CodeLength::from_levels(levels).ok())
    }

    /// Refuses a length at which codes cannot be used.
    ///
    /// # Errors
    /// [`Error::Argument`] for a length above that of the codes, [`Error::Length`] for another one
    /// in product form.
    pub fn check_length(&self, length: CodeLength) -> Result<(), Error> {
        let max = self.max_length();
        if self.form == Form::Product && length < max {
            return Err(Error::Length { found: length, expected: max });
        }
        Expected::Range(0..=max.bits()).check("code length in bits", length.bits())
    }

    /// Refuses product form.
    pub(crate) fn check_progressive(&self) -> Result<(), Error> {
        if self.form == Form::Product { Err(Error::Product) } else { Ok(()) }
    }

    /// Returns the name of exactly these codebooks: the CRC32C of L, K, D as u64 and of all values,
    /// after the word `product` in that form, as eight hex digits.
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

/// The name of the file format, and its versions: of progressive and of product codebooks.
const FORMAT: &str = "dpq-codebook";
const VERSION: &str = "1";
const PRODUCT_VERSION: &str = "2";

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
