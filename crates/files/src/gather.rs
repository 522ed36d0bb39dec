//! Tensors whose elements do not lie in the order that is asked for.

use crate::tensors::TensorInfo;
use std::sync::Arc;

/// How to pick the elements of a tensor, in row-major order, from the bytes they lie in.
#[derive(Clone, Debug)]
pub(crate) enum Gather {
    /// Elements from one to the next along each dimension, as PyTorch counts strides.
    Strides(Arc<[usize]>),
    /// Which stored row stands at each place.
    Rows(Arc<[usize]>),
}

impl Gather {
    /// The elements in row-major order.
    ///
    /// Panics: if an element lies outside `stored`; whoever makes a `Gather` has checked that.
    pub(crate) fn apply(&self, stored: &[u8], info: &TensorInfo) -> Vec<u8> {
        match self {
            Self::Strides(strides) => strided(stored, info, strides),
            Self::Rows(rows) => permute_rows(stored, rows),
        }
    }
}

fn strided(stored: &[u8], info: &TensorInfo, strides: &[usize]) -> Vec<u8> {
    let (_, width) = info.dtype.block();
    let elements = info.elements();
    let mut gathered = Vec::with_capacity(elements * width);
    let mut index = vec![0; info.shape.len()];
    let mut at = 0;
    for _ in 0..elements {
        gathered.extend_from_slice(&stored[at * width..(at + 1) * width]);
        // Counts up as an odometer does: the innermost dimension first.
        for axis in (0..index.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < info.shape[axis] {
                break;
            }
            at -= index[axis] * strides[axis];
            index[axis] = 0;
        }
    }
    gathered
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
    use crate::dtype::Dtype;

    #[test]
    fn a_transposed_view_is_gathered_in_row_major_order() {
        // [[0, 1, 2], [3, 4, 5]] seen as its transpose, (3, 2) with strides (1, 3).
        let info = TensorInfo { name: "t".into(), dtype: Dtype::U8, shape: vec![3, 2], range: 0..6 };
        let gather = Gather::Strides([1, 3].into());
        assert_eq!(gather.apply(&[0, 1, 2, 3, 4, 5], &info), [0, 3, 1, 4, 2, 5]);
    }

    #[test]
    fn rows_move_as_a_whole() {
        assert_eq!(permute_rows(&[0, 1, 10, 11, 20, 21], &[2, 0, 1]), [20, 21, 0, 1, 10, 11]);
        assert!(permute_rows(&[], &[]).is_empty());
    }
}
