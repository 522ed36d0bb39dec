//! The product in plain Rust, compiled for every instruction set.
#![expect(unsafe_code, reason = "tasks write columns of the result, which are no slices")]

use super::product::Product;
use super::{RUN, round, scales};
use crate::Exec;
use crate::parallel::{SharedMut, for_each, for_each_chunk};
use crate::simd::{Kernel, Simd, dispatch};

/// Results that are summed at a time.
const TILE: usize = 32;
/// Columns of a task.
const COLS: usize = 4 * TILE;

/// A row of activations: integers, and the scale of each run.
#[derive(Clone, Default)]
struct Row {
    quants: Vec<i8>,
    scales: Vec<f32>,
}

pub(super) fn run(exec: Exec, product: Product<'_>) {
    let (k, width, n) = (product.steps(), product.width(), product.n);
    let mut rows = vec![Row::default(); n];
    for_each_chunk(exec, &mut rows, 1, |i, row| {
        let x = &product.x[i * k..][..k];
        let folded = product.fold().map(|fold| x.iter().zip(fold).map(|(x, fold)| x * fold).collect::<Vec<_>>());
        for run in folded.as_deref().unwrap_or(x).chunks(RUN) {
            let (scale, inverse) = scales(run);
            row[0].scales.push(scale);
            row[0].quants.extend(run.iter().map(|x| round(*x, inverse)));
        }
    });
    let (of_weight, of_results) = ((product.weight, product.is_backward), (product.scales(), product.bias));
    let y = SharedMut::new(product.y);
    let tasks = width.div_ceil(COLS);
    for_each(exec, n * tasks, |index| {
        let (i, first) = (index / tasks, index % tasks * COLS);
        // SAFETY: parts of different tasks do not overlap, and each runs once.
        let y = unsafe { y.slice(i * width + first, COLS.min(width - first)) };
        let (weight, is_backward) = of_weight;
        let cols = weight.cols;
        dispatch(exec, Columns { row: &rows[i], weight: &weight.quants, cols, is_backward, first, y });
        for (j, y) in y.iter_mut().enumerate() {
            let (scales, bias) = of_results;
            let (scale, bias) =
                (scales.map_or(1.0, |scales| scales[first + j]), bias.map_or(-0.0, |bias| bias[first + j]));
            *y = if exec.isa() == crate::Isa::Portable { *y * scale + bias } else { y.mul_add(scale, bias) };
        }
    });
}

/// Sums of columns `first..` of the results of one row, without their scales.
struct Columns<'a> {
    row: &'a Row,
    weight: &'a [i8],
    cols: usize,
    is_backward: bool,
    first: usize,
    y: &'a mut [f32],
}

impl Kernel for Columns<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { row, weight, cols, is_backward, first, y } = self;
        for (tile, y) in y.chunks_mut(TILE).enumerate() {
            let first = first + tile * TILE;
            y.fill(0.0);
            for (run, (quants, scale)) in row.quants.chunks(RUN).zip(&row.scales).enumerate() {
                let mut sums = [0_i32; TILE];
                if is_backward {
                    for (p, q) in quants.iter().enumerate() {
                        let weights = &weight[(run * RUN + p) * cols + first..][..y.len()];
                        let sums = &mut sums[..y.len()];
                        sums.iter_mut().zip(weights).for_each(|(sum, w)| *sum += i32::from(*q) * i32::from(*w));
                    }
                } else {
                    for (j, sum) in sums.iter_mut().enumerate().take(y.len()) {
                        let weights = &weight[(first + j) * cols + run * RUN..][..quants.len()];
                        *sum = quants.iter().zip(weights).map(|(q, w)| i32::from(i16::from(*q) * i16::from(*w))).sum();
                    }
                }
                y.iter_mut().zip(sums).for_each(|(y, sum)| *y = simd.mul_add(sum as f32, *scale, *y));
            }
        }
    }
}
