//! The classes of each row.

/// The classes of rows, ascending, each once.
#[derive(Debug)]
pub(crate) struct Labels {
    /// The classes of row i are `classes[starts[i]..starts[i + 1]]`.
    classes: Vec<u32>,
    starts: Vec<usize>,
}

impl Labels {
    /// Makes labels of rows of several classes or of none.
    pub(crate) fn new(rows: impl IntoIterator<Item = Vec<u32>>) -> Self {
        let (mut classes, mut starts) = (vec![], vec![0]);
        for mut row in rows {
            row.sort_unstable();
            row.dedup();
            classes.extend(row);
            starts.push(classes.len());
        }
        Self { classes, starts }
    }

    /// Makes labels of rows of one class.
    pub(crate) fn single(classes: Vec<u32>) -> Self {
        Self { starts: (0..=classes.len()).collect(), classes }
    }

    pub(crate) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Returns the classes of an existing row.
    pub(crate) fn of(&self, row: usize) -> &[u32] {
        &self.classes[self.starts[row]..self.starts[row + 1]]
    }

    /// Gives each class another number. Two classes may become one.
    pub(crate) fn renumber(&self, number: &[u32]) -> Self {
        let renumbered = |row| self.of(row).iter().map(|&class| number[class as usize]).collect();
        Self::new((0..self.len()).map(renumbered))
    }
}
