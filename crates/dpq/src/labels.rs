//! Labels of items in .npy files.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use dpq_formats::Matrix;
use dpq_formats::npy::{self, NpyFile};

/// The labels of items, as a file holds them.
pub(crate) enum LabelFile {
    /// u8 [N, C].
    MultiHot(Matrix<u8>),
    /// N numbers from 0.
    Classes(Vec<usize>),
}

/// The maximum number of classes. Without it one wrong number could ask for all memory.
const MAX_CLASSES: i64 = 1 << 16;

impl LabelFile {
    /// Reads labels: multi-hot, uint8 `[N, C]`, or class numbers from 0, uint8 or int64 `[N]` or
    /// `[N, 1]`.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let file = NpyFile::open(path)?;
        let classes: Vec<i64> = match (file.shape(), file.holds::<u8>()) {
            // A column of a table is class numbers too.
            ([_] | [_, 1], true) => file.read::<u8>()?.into_iter().map(i64::from).collect(),
            ([_] | [_, 1], false) => file.read()?,
            ([_, _], _) => return Ok(Self::MultiHot(npy::read_matrix(path)?)),
            (shape, _) => bail!(
                "{}: array has {} dimension(s), expected multi-hot [N, C] or class numbers [N]",
                path.display(),
                shape.len()
            ),
        };
        if let Some(class) = classes.iter().find(|&class| !(0..MAX_CLASSES).contains(class)) {
            bail!("{}: found class {class}, expected numbers from 0, below {MAX_CLASSES}", path.display());
        }
        Ok(Self::Classes(classes.into_iter().map(|class| class as usize).collect()))
    }

    pub(crate) fn n_classes(&self) -> usize {
        match self {
            Self::MultiHot(labels) => labels.columns,
            Self::Classes(classes) => classes.iter().max().map_or(0, |&class| class + 1),
        }
    }

    /// Returns multi-hot u8 [N, C]. Class numbers below `n_classes` give as many columns.
    pub(crate) fn into_multi_hot(self, n_classes: usize) -> Matrix<u8> {
        match self {
            Self::MultiHot(labels) => labels,
            Self::Classes(classes) => {
                let mut values = vec![0; classes.len() * n_classes];
                classes.iter().enumerate().for_each(|(row, &class)| values[row * n_classes + class] = 1);
                Matrix { rows: classes.len(), columns: n_classes, values }
            }
        }
    }
}

/// Refuses two files with different numbers of items.
pub(crate) fn check_items((a, n_a): (&Path, usize), (b, n_b): (&Path, usize)) -> Result<()> {
    let (a, b) = (a.display(), b.display());
    ensure!(n_a == n_b, "{a} has {n_a} items, {b} has {n_b}: give files of the same items");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_multi_hot_or_class_numbers() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let labels = || {
            let labels = LabelFile::read(file.path())?;
            let n_classes = labels.n_classes();
            let Matrix { rows, columns, values } = labels.into_multi_hot(n_classes);
            anyhow::Ok((rows, columns, values))
        };
        let one_hot = || (2, 3, vec![0, 0, 1, 1, 0, 0]);
        npy::write(file.path(), &[2, 3], &[0u8, 0, 1, 1, 0, 0]).unwrap();
        assert_eq!(labels().unwrap(), one_hot());
        npy::write(file.path(), &[2], &[2u8, 0]).unwrap();
        assert_eq!(labels().unwrap(), one_hot());
        npy::write(file.path(), &[2], &[2i64, 0]).unwrap();
        assert_eq!(labels().unwrap(), one_hot());
        npy::write(file.path(), &[2, 1], &[2u8, 0]).unwrap();
        assert_eq!(labels().unwrap(), one_hot());
        npy::write(file.path(), &[2, 1], &[2i64, 0]).unwrap();
        assert_eq!(labels().unwrap(), one_hot());
        let wider = LabelFile::read(file.path()).unwrap().into_multi_hot(4);
        assert_eq!(wider.values, [0, 0, 1, 0, 1, 0, 0, 0]);
        for class in [-1, 1 << 40] {
            npy::write(file.path(), &[2], &[2i64, class]).unwrap();
            assert!(format!("{:#}", labels().unwrap_err()).contains(&format!("found class {class}")));
        }
        npy::write(file.path(), &[2], &[0.5f32, 1.0]).unwrap();
        assert!(format!("{:#}", labels().unwrap_err()).contains("expected int64"));
    }
}
