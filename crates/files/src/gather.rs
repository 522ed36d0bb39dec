//! Tensors whose elements do not lie in the order that is asked for.

use crate::tensors::TensorInfo;
use std::sync::Arc;

/// How to pick the elements of a tensor, in row-major order, from the bytes they lie in.
#[derive(Clone, Debug)]
pub(crate) enum Gather {
    /// Which stored row stands at each place.
    Rows(Arc<[usize]>),
}

impl Gather {
    /// The elements in row-major order.
    ///
    /// Panics: if an element lies outside `stored`; whoever makes a `Gather` has checked that.
    pub(crate) fn apply(&self, stored: &[u8], _: &TensorInfo) -> Vec<u8> {
        match self {
            Self::Rows(rows) => permute_rows(stored, rows),
        }
    }
}

/// `rows.len()` rows of equal size in another order: row `i` of the result is row `rows[i]` of `stored`.
///
/// Rows of quantized blocks may be moved as well, since a block never crosses a row.
///
/// Panics: if the bytes are not that many rows, or a row is not among them.
pub fn permute_rows(stored: &[u8], rows: &[usize]) -> Vec<u8> {
    let count = rows.len().max(1);
    assert!(stored.len().is_multiple_of(count), "{} bytes in {count} rows", stored.len());
    let width = stored.len() / count;
    rows.iter().flat_map(|&row| &stored[row * width..(row + 1) * width]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_move_as_a_whole() {
        assert_eq!(permute_rows(&[0, 1, 10, 11, 20, 21], &[2, 0, 1]), [20, 21, 0, 1, 10, 11]);
        assert!(permute_rows(&[], &[]).is_empty());
    }
}
