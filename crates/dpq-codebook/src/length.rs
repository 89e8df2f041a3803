//! How much of a code is used.

use std::fmt;

use crate::{Error, Expected};

/// The length of a code: one byte per level, so 8, 16, 24, … bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CodeLength(u8);

impl CodeLength {
    /// Makes the length of a code of `levels` levels.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `levels` is 1 to 255.
    pub fn from_levels(levels: usize) -> Result<Self, Error> {
        Expected::Range(1..=255).check("number of levels", levels)?;
        Ok(Self(levels as u8))
    }

    /// Makes the length of a code of `bits` bits.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `bits` is a multiple of 8 from 8 to 2040.
    pub fn from_bits(bits: usize) -> Result<Self, Error> {
        Expected::Bits.check("code length in bits", bits)?;
        Self::from_levels(bits / 8)
    }

    /// Returns the number of levels, which is the number of bytes.
    pub fn levels(self) -> usize {
        self.0.into()
    }

    /// Returns the number of bits.
    pub fn bits(self) -> usize {
        8 * self.levels()
    }
}

impl fmt::Display for CodeLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bits", self.bits())
    }
}
