//! How much of a code is used.

use std::fmt;

use crate::Error;
use crate::error::check_range;

/// The length of a code: one byte per level, so 8, 16, 24, … bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CodeLength(u8);

impl CodeLength {
    /// Makes the length of a code of `levels` levels.
    ///
    /// # Errors
    /// [`Error::Range`] unless `levels` is 1 to 255.
    pub fn from_levels(levels: usize) -> Result<Self, Error> {
        check_range("number of levels", levels, 1..=255)?;
        Ok(Self(levels as u8))
    }

    /// Makes the length of a code of `bits` bits.
    ///
    /// # Errors
    /// [`Error::Bits`] unless `bits` is a multiple of 8 from 8 to 2040.
    pub fn from_bits(bits: usize) -> Result<Self, Error> {
        if !bits.is_multiple_of(8) {
            return Err(Error::Bits { found: bits });
        }
        Self::from_levels(bits / 8).map_err(|_| Error::Bits { found: bits })
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

#[cfg(test)]
mod tests {
    use super::CodeLength;

    #[test]
    fn bits_and_levels_agree() {
        assert_eq!(CodeLength::from_bits(24).unwrap(), CodeLength::from_levels(3).unwrap());
        assert_eq!(CodeLength::from_bits(2040).unwrap().levels(), 255);
        for bits in [0, 4, 12, 2048, usize::MAX] {
            let error = CodeLength::from_bits(bits).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("code length in bits is {bits}, expected a multiple of 8 from 8 to 2040")
            );
        }
        assert!(CodeLength::from_levels(0).is_err());
    }
}
