//! Pieces that kernels share: tasks of a fixed size and sums in a fixed order, so that neither the number of threads nor
//! the width of the machine's vectors changes a result.
#![expect(unsafe_code, reason = "hands out parts of several slices to the tasks of one region")]

use crate::exec::Exec;
use crate::parallel::{SharedMut, for_each};
use crate::simd::LANES;

/// Elements of one task: large beside the cost of taking a task, small enough to stay in a core's own cache.
pub(crate) const TASK_ELEMENTS: usize = 1 << 14;

/// Rows of width `dim` of one task, at least one.
pub(crate) fn rows_per_task(dim: usize) -> usize {
    (TASK_ELEMENTS / dim.max(1)).max(1)
}

/// Rows of one block of a sum over `rows` rows: at most 16 blocks, of at least 16 rows.
pub(crate) fn rows_per_block(rows: usize) -> usize {
    rows.div_ceil(16).max(16)
}

/// `total = sum over blocks of sums[offset..offset + total.len()]`, in the order of the blocks, which are `stride` long.
pub(crate) fn add_in_order(sums: &[f32], stride: usize, offset: usize, total: &mut [f32]) {
    total.fill(0.0);
    for block in sums.chunks_exact(stride) {
        let block = &block[offset..][..total.len()];
        total.iter_mut().zip(block).for_each(|(total, x)| *total += x);
    }
}

/// Splits every slice into parts of its own length and runs `task(index, parts)` on those with the same index.
///
/// Panics: if a part length is 0 or the slices split into different numbers of parts; passes on a panic of a task.
pub(crate) fn for_each_part<const K: usize>(
    exec: Exec,
    slices: [&mut [f32]; K],
    part_lens: [usize; K],
    task: impl Fn(usize, [&mut [f32]; K]) + Sync,
) {
    let lens = slices.each_ref().map(|slice| slice.len());
    let count = lens[0].div_ceil(part_lens[0]);
    for k in 1..K {
        assert_eq!(lens[k].div_ceil(part_lens[k]), count, "slices {lens:?} in parts of {part_lens:?}");
    }
    let shared = slices.map(SharedMut::new);
    for_each(exec, count, |index| {
        let part = |k: usize| {
            let start = index * part_lens[k];
            // SAFETY: parts of different indices do not overlap, and each index runs once.
            unsafe { shared[k].slice(start, part_lens[k].min(lens[k] - start)) }
        };
        task(index, std::array::from_fn(part));
    });
}

/// The sum of all lanes, in pairs at half the width, a quarter, ...
#[inline(always)]
pub(crate) fn sum(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// The largest lane, in pairs.
#[inline(always)]
pub(crate) fn largest(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            let x = lanes[i + width];
            lanes[i] = if x > lanes[i] { x } else { lanes[i] };
        }
        width /= 2;
    }
    lanes[0]
}

/// Fold of `term(total, x)` over a slice: element `i` goes to the total of lane `i % LANES`, then [`sum`].
#[inline(always)]
pub(crate) fn sum_of(x: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let (body, tail) = x.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for chunk in body {
        for i in 0..LANES {
            lanes[i] = term(lanes[i], chunk[i]);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(tail) {
        *lane = term(*lane, x);
    }
    sum(lanes)
}

/// `R` rows of width `dim`, each as whole vectors and what is left.
#[inline(always)]
pub(crate) fn split<const R: usize>(rows: &[f32], dim: usize) -> [(&[[f32; LANES]], &[f32]); R] {
    std::array::from_fn(|r| rows[r * dim..][..dim].as_chunks())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_one_index_meet_in_one_task() {
        let (mut a, mut b) = (vec![0.0; 7], vec![0.0; 4]);
        for_each_part(Exec::new(2), [&mut a, &mut b], [2, 1], |index, [a, b]| {
            a.fill(index as f32);
            b.fill(index as f32);
        });
        assert_eq!(a, [0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0]);
        assert_eq!(b, [0.0, 1.0, 2.0, 3.0]);
    }

    #[test]
    #[should_panic(expected = "in parts of")]
    fn slices_of_different_numbers_of_parts_are_refused() {
        for_each_part(Exec::new(1), [&mut [0.0; 4], &mut [0.0; 4]], [2, 1], |_, _| ());
    }

    #[test]
    fn a_sum_counts_every_element_once() {
        for n in [0, 1, 15, 16, 17, 100] {
            let x: Vec<f32> = (1..=n).map(|i| i as f32).collect();
            assert_eq!(sum_of(&x, |total, x| total + x), (n * (n + 1) / 2) as f32);
        }
    }
}
