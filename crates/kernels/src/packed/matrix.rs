//! A matrix in its storage form.

use super::format::Format;
use crate::int8::Int8Matrix;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Why bytes are no matrix.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackedError {
    /// Rows would be empty or begin inside a block, or the size overflows.
    #[error("a {rows} x {cols} matrix in {format}: rows are stored in blocks of {}", .format.block_len())]
    Shape {
        /// The format asked for.
        format: Format,
        /// Rows asked for.
        rows: usize,
        /// Columns asked for.
        cols: usize,
    },
    /// The range has another length than the matrix, or ends after the data.
    #[error(
        "a {rows} x {cols} matrix in {format} has {expected} bytes, bytes {start}..{end} of {available} were given"
    )]
    Bytes {
        /// The format asked for.
        format: Format,
        /// Rows asked for.
        rows: usize,
        /// Columns asked for.
        cols: usize,
        /// What such a matrix needs.
        expected: usize,
        /// Where the given range begins.
        start: usize,
        /// Where the given range ends.
        end: usize,
        /// The length of the data.
        available: usize,
    },
}

/// What owns the bytes of a matrix: a vector, or a file mapped into memory.
pub type Storage = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A `rows x cols` matrix in one of the storage forms, row-major: rows are outputs of a layer, columns its inputs.
///
/// It borrows from memory that several matrices may share, so a clone is cheap.
/// Invariant: there is a column, and the range lies inside the storage and has the length of the matrix.
#[derive(Clone)]
pub struct PackedMatrix {
    format: Format,
    rows: usize,
    cols: usize,
    storage: Storage,
    range: Range<usize>,
    /// The same numbers with one scale a row, for products of integers with many rows.
    in_rows: Option<Arc<Int8Matrix>>,
}

impl PackedMatrix {
    /// The matrix in bytes `range` of `storage`. They need no alignment.
    ///
    /// Errors: if a row is empty or no whole number of blocks, or the range does not fit the matrix or the storage.
    pub fn new(
        format: Format,
        rows: usize,
        cols: usize,
        storage: Storage,
        range: Range<usize>,
    ) -> Result<Self, PackedError> {
        let expected = format.bytes_of(rows, cols).filter(|_| cols > 0);
        let expected = expected.ok_or(PackedError::Shape { format, rows, cols })?;
        let available = (*storage).as_ref().len();
        let (start, end) = (range.start, range.end);
        if end.checked_sub(start) != Some(expected) || end > available {
            return Err(PackedError::Bytes { format, rows, cols, expected, start, end, available });
        }
        Ok(Self { format, rows, cols, storage, range, in_rows: None })
    }

    /// The matrix that fills `bytes`.
    ///
    /// Errors: as [`PackedMatrix::new`].
    pub fn from_bytes(format: Format, rows: usize, cols: usize, bytes: Vec<u8>) -> Result<Self, PackedError> {
        let range = 0..bytes.len();
        Self::new(format, rows, cols, Arc::new(bytes), range)
    }

    /// The same matrix, whose numbers are also there with one scale a row.
    pub(super) fn with_rows(self, in_rows: Int8Matrix) -> Self {
        Self { in_rows: Some(Arc::new(in_rows)), ..self }
    }

    /// Its numbers with one scale a row, where [`PackedMatrix::quantize_rows`] made it.
    pub fn in_rows(&self) -> Option<&Int8Matrix> {
        self.in_rows.as_deref()
    }

    /// The storage form.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Rows: the outputs of a layer.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns: the inputs of a layer.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.cols / self.format.block_len() * self.format.block_bytes()
    }

    /// All bytes of the matrix.
    ///
    /// Panics: if the storage shrank since the matrix was made.
    pub fn bytes(&self) -> &[u8] {
        &(*self.storage).as_ref()[self.range.clone()]
    }
}

impl fmt::Debug for PackedMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackedMatrix({} x {} {})", self.rows, self.cols, self.format)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rows: usize, cols: usize, range: Range<usize>, expected: &str) {
        let storage: Storage = Arc::new(vec![0_u8; 100]);
        let found = match PackedMatrix::new(Format::Q4_0, rows, cols, storage, range) {
            Ok(matrix) => format!("{matrix:?}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        check(2, 64, 20..92, "PackedMatrix(2 x 64 Q4_0)");
        check(0, 64, 20..20, "PackedMatrix(0 x 64 Q4_0)");
        check(2, 0, 20..20, "a 2 x 0 matrix in Q4_0: rows are stored in blocks of 32");
        check(2, 48, 20..92, "a 2 x 48 matrix in Q4_0: rows are stored in blocks of 32");
        check(usize::MAX, 64, 0..72, &format!("a {} x 64 matrix in Q4_0: rows are stored in blocks of 32", usize::MAX));
        let refused = |range| format!("a 2 x 64 matrix in Q4_0 has 72 bytes, bytes {range} of 100 were given");
        check(2, 64, 20..91, &refused("20..91"));
        check(2, 64, 29..101, &refused("29..101"));
        #[expect(clippy::reversed_empty_ranges, reason = "what is refused here")]
        check(2, 64, 92..20, &refused("92..20"));
    }

    #[test]
    fn bytes_are_those_of_the_range() {
        let storage: Storage = Arc::new((0..100).collect::<Vec<u8>>());
        let matrix = PackedMatrix::new(Format::Bf16, 2, 3, storage, 5..17).unwrap();
        assert_eq!(matrix.clone().bytes(), (5..17).collect::<Vec<u8>>());
        assert_eq!(matrix.row_bytes(), 6);
    }
}
