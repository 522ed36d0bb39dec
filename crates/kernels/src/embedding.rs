//! Embedding: `y[i] = weight[ids[i]]`, and `d_weight[ids[i]] += d_y[i]`.
//!
//! Shapes: `weight` and `d_weight` `(V, D)`, `ids` `(N)`, `y` and `d_y` `(N, D)`.
//! Source: Bengio et al. 2003, "A Neural Probabilistic Language Model", section 2 (the matrix `C`).
#![expect(unsafe_code, reason = "each task owns some columns of a matrix, which are no slice")]

use crate::exec::Exec;
use crate::lanes::rows_per_task;
use crate::parallel::{SharedMut, for_each, for_each_chunk};
use crate::simd::{Kernel, Simd, dispatch};

/// Columns that one task of the backward pass adds up.
const TASK_COLUMNS: usize = 128;

/// Copies the rows named by `ids`.
///
/// Panics: if an id is out of range or the lengths disagree.
/// Source: see the file's head.
pub fn forward(exec: Exec, weight: &[f32], dim: usize, ids: &[u32], y: &mut [f32]) {
    assert_ids(weight.len(), dim, ids, y.len());
    let rows = rows_per_task(dim);
    for_each_chunk(exec, y, rows * dim, |index, y| {
        for (y, &id) in y.chunks_exact_mut(dim).zip(&ids[index * rows..]) {
            y.copy_from_slice(&weight[id as usize * dim..][..dim]);
        }
    });
}

/// Adds each row of `d_y` to the row of `d_weight` that its id names. Other rows are neither read nor written.
///
/// Numbers: f32, in the order of the tokens, whatever the number of threads.
/// Panics: if an id is out of range or the lengths disagree.
/// Source: see the file's head.
pub fn backward_add(exec: Exec, d_y: &[f32], dim: usize, ids: &[u32], d_weight: &mut [f32]) {
    assert_ids(d_weight.len(), dim, ids, d_y.len());
    let shared = SharedMut::new(d_weight);
    for_each(exec, dim.div_ceil(TASK_COLUMNS), |index| {
        let start = index * TASK_COLUMNS;
        dispatch(exec, AddColumns { d_y, dim, ids, d_weight: &shared, start, len: TASK_COLUMNS.min(dim - start) });
    });
}

fn assert_ids(weights: usize, dim: usize, ids: &[u32], elements: usize) {
    assert!(dim > 0 && weights.is_multiple_of(dim), "{weights} weights are no rows of {dim}");
    assert_eq!(ids.len() * dim, elements, "{} rows of {dim}", ids.len());
    let vocab = weights / dim;
    if let Some(place) = ids.iter().position(|&id| id as usize >= vocab) {
        panic!("token {place} has the id {}, the vocabulary has {vocab} entries", ids[place]);
    }
}

/// The columns `start..start + len` of the sum.
struct AddColumns<'a> {
    d_y: &'a [f32],
    dim: usize,
    ids: &'a [u32],
    d_weight: &'a SharedMut<'a, f32>,
    start: usize,
    len: usize,
}

impl Kernel for AddColumns<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        for (&id, d_y) in self.ids.iter().zip(self.d_y.chunks_exact(self.dim)) {
            // SAFETY: columns of different tasks do not overlap, and a task holds one row at a time.
            let row = unsafe { self.d_weight.slice(id as usize * self.dim + self.start, self.len) };
            row.iter_mut().zip(&d_y[self.start..][..self.len]).for_each(|(total, d)| *total += d);
        }
    }
}

/// The formulas in f64, row by row.
pub mod reference {
    /// The rows of `weight` that `ids` name.
    pub fn forward(weight: &[f64], dim: usize, ids: &[u32]) -> Vec<f64> {
        ids.iter().flat_map(|&id| weight[id as usize * dim..][..dim].iter().copied()).collect()
    }

    /// `d_weight` of `vocab` rows, summed over tokens.
    pub fn backward(d_y: &[f64], dim: usize, ids: &[u32], vocab: usize) -> Vec<f64> {
        let mut d_weight = vec![0.0; vocab * dim];
        for (i, &id) in ids.iter().enumerate() {
            for j in 0..dim {
                d_weight[id as usize * dim + j] += d_y[i * dim + j];
            }
        }
        d_weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Golden;
    use crate::lanes::TASK_ELEMENTS;
    use crate::testing::{check_fast, grad_gap, test_input, test_input_f64, weighted_sum, wide};

    /// `n` ids below `vocab`, some of them again and again.
    fn some_ids(n: usize, vocab: usize) -> Vec<u32> {
        (0..n).map(|i| ((i * i + 3 * i) % vocab) as u32).collect()
    }

    #[test]
    fn the_reference_has_the_worked_out_values() {
        assert_eq!(reference::forward(&[1.0, 2.0, 3.0, 4.0], 2, &[1, 0, 1]), [3.0, 4.0, 1.0, 2.0, 3.0, 4.0]);
        // Row 1 is named twice: 1 + 5 and 2 + 6.
        let d_y = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        assert_eq!(reference::backward(&d_y, 2, &[1, 0, 1], 2), [3.0, 4.0, 6.0, 8.0]);
    }

    #[test]
    fn backward_is_the_derivative_of_forward() {
        let (weight, ids) = (test_input_f64(15, 1), some_ids(9, 5));
        let d_y = test_input_f64(27, 2);
        let d_weight = reference::backward(&d_y, 3, &ids, 5);
        assert!(grad_gap(|w| weighted_sum(&d_y, &reference::forward(w, 3, &ids)), &weight, &d_weight) < 1e-6);
    }

    #[test]
    fn the_fast_path_equals_the_reference_at_any_size() {
        let dims = [1, 7, TASK_COLUMNS - 1, TASK_COLUMNS, TASK_COLUMNS + 1, 3 * TASK_COLUMNS + 5, TASK_ELEMENTS + 1];
        for dim in dims {
            for (n, vocab) in [(0, 2), (1, 1), (40, 7), (133, 50)] {
                let (weight, d_y, ids) = (test_input(vocab * dim, 1), test_input(n * dim, 2), some_ids(n, vocab));
                let run = |exec| {
                    let (mut y, mut d_weight) = (vec![f32::NAN; n * dim], weight.clone());
                    forward(exec, &weight, dim, &ids, &mut y);
                    backward_add(exec, &d_y, dim, &ids, &mut d_weight);
                    vec![y, d_weight]
                };
                let (weight, d_y) = (wide(&weight), wide(&d_y));
                let sums = reference::backward(&d_y, dim, &ids, vocab);
                let d_weight = weight.iter().zip(sums).map(|(weight, sum)| weight + sum).collect();
                check_fast(
                    &format!("{n} of {vocab} x {dim}"),
                    run,
                    &[reference::forward(&weight, dim, &ids), d_weight],
                    2e-6,
                );
            }
        }
    }

    #[test]
    #[should_panic(expected = "token 1 has the id 2, the vocabulary has 2 entries")]
    fn an_id_beyond_the_vocabulary_is_named() {
        forward(Exec::new(1), &[0.0; 4], 2, &[1, 2], &mut [0.0; 4]);
    }

    #[test]
    #[should_panic(expected = "token 0 has the id 9, the vocabulary has 2 entries")]
    fn an_id_beyond_the_vocabulary_is_named_in_the_backward_pass() {
        backward_add(Exec::new(1), &[0.0; 4], 2, &[9, 1], &mut [0.0; 4]);
    }

    #[test]
    fn outputs_and_gradients_equal_pytorchs() {
        let golden = Golden::read("embedding");
        let ids = [3, 0, 3, 10, 7, 3];
        let (mut y, mut d_weight) = ([0.0; 6 * 5], [0.0; 11 * 5]);
        forward(Exec::new(2), &test_input(11 * 5, 1), 5, &ids, &mut y);
        backward_add(Exec::new(2), &test_input(6 * 5, 2), 5, &ids, &mut d_weight);
        golden.check("y", &y, 0.0);
        golden.check("d_weight", &d_weight, 2e-7);
    }
}
