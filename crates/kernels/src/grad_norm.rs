//! What gradient clipping needs to know of a gradient: the sum of its squares and its largest absolute value.
//!
//! The global norm is the root of the sum of `sum_squares` over all parameters, and clipping multiplies every gradient
//! by `min(1, max_norm / (norm + 1e-6))`.
//!
//! Shapes: any length.
//! Source: Pascanu, Mikolov and Bengio 2013, <https://arxiv.org/abs/1211.5063>, algorithm 1; the 1e-6 is that of
//! `torch.nn.utils.clip_grad_norm_`.

use crate::exec::Exec;
use crate::lanes::TASK_ELEMENTS;
use crate::parallel::for_each_chunk;
use crate::simd::{Kernel, LANES, Simd, dispatch};

/// Sum of squares and largest absolute value of a gradient. Both are 0 where it has no elements.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    /// `sum of g^2`.
    pub sum_squares: f64,
    /// `max |g|`.
    pub max_abs: f32,
}

impl Stats {
    /// The stats of two gradients together. A NaN of either stays.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        // Without their sign, floats are ordered as their bits are, with NaN above infinity.
        let max_bits = self.max_abs.to_bits().max(other.max_abs.to_bits());
        Self { sum_squares: self.sum_squares + other.sum_squares, max_abs: f32::from_bits(max_bits) }
    }
}

/// The [`Stats`] of `g`.
///
/// Numbers: squares and sums in f64, by blocks of a fixed length, then over the blocks in order: the same bits for any
/// number of threads. An infinity or NaN in `g` shows in both fields.
/// Source: see the file's head.
pub fn stats(exec: Exec, g: &[f32]) -> Stats {
    let mut blocks = vec![Stats::default(); g.len().div_ceil(TASK_ELEMENTS)];
    for_each_chunk(exec, &mut blocks, 1, |index, block| {
        let start = index * TASK_ELEMENTS;
        block[0] = dispatch(exec, Block { g: &g[start..g.len().min(start + TASK_ELEMENTS)] });
    });
    blocks.into_iter().fold(Stats::default(), Stats::and)
}

struct Block<'a> {
    g: &'a [f32],
}

impl Kernel for Block<'_> {
    type Output = Stats;
    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) -> Stats {
        let (body, tail) = self.g.as_chunks::<LANES>();
        let mut squares = [0.0_f64; LANES];
        let mut max_bits = [0_u32; LANES];
        for chunk in body {
            for i in 0..LANES {
                let wide = f64::from(chunk[i]);
                squares[i] += wide * wide;
                max_bits[i] = max_bits[i].max(chunk[i].abs().to_bits());
            }
        }
        for (i, &g) in tail.iter().enumerate() {
            squares[i] += f64::from(g) * f64::from(g);
            max_bits[i] = max_bits[i].max(g.abs().to_bits());
        }
        let max_abs = f32::from_bits(max_bits.into_iter().fold(0, u32::max));
        Stats { sum_squares: squares.into_iter().sum(), max_abs }
    }
}

/// The formulas, one element at a time.
pub mod reference {
    use super::Stats;

    /// `sum of g^2` and `max |g|`, for finite values.
    pub fn stats(g: &[f32]) -> Stats {
        let sum_squares = g.iter().map(|&g| f64::from(g).powi(2)).sum();
        Stats { sum_squares, max_abs: g.iter().fold(0.0, |max, g| g.abs().max(max)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_fast, test_input};

    const LENGTHS: [usize; 9] =
        [0, 1, 15, 16, 17, TASK_ELEMENTS - 1, TASK_ELEMENTS, TASK_ELEMENTS + 1, 5 * TASK_ELEMENTS + 3];

    #[test]
    fn three_and_minus_four_have_the_norm_five() {
        assert_eq!(reference::stats(&[3.0, -4.0]), Stats { sum_squares: 25.0, max_abs: 4.0 });
        assert_eq!(stats(Exec::new(1), &[3.0, -4.0]), Stats { sum_squares: 25.0, max_abs: 4.0 });
    }

    #[test]
    fn the_fast_path_equals_the_reference_at_any_length() {
        for n in LENGTHS {
            let g = test_input(n, 3);
            let want = reference::stats(&g);
            let run = |exec| {
                let got = stats(exec, &g);
                let gap = (got.sum_squares - want.sum_squares).abs();
                assert!(gap <= 1e-12 * want.sum_squares, "{n}: {got:?}, expected {want:?}");
                // All 64 bits, for the comparison between numbers of threads.
                let bits = got.sum_squares.to_bits();
                vec![
                    vec![got.max_abs],
                    vec![(bits >> 40) as f32, (bits >> 20 & 0xF_FFFF) as f32, (bits & 0xF_FFFF) as f32],
                ]
            };
            let bits = run(Exec::new(1))[1].iter().map(|&x| f64::from(x)).collect();
            check_fast(&format!("{n}"), run, &[vec![f64::from(want.max_abs)], bits], 0.0);
        }
    }

    #[test]
    fn each_single_element_counts_wherever_it_stands() {
        for n in [1, 15, 17, 40] {
            for place in 0..n {
                let mut g = vec![0.0; n];
                g[place] = -3.0;
                assert_eq!(stats(Exec::new(1), &g), Stats { sum_squares: 9.0, max_abs: 3.0 });
            }
        }
    }

    #[test]
    fn an_infinity_or_nan_anywhere_shows_in_both_fields() {
        for n in LENGTHS.into_iter().filter(|&n| n > 0) {
            for place in [0, n / 2, n - 1] {
                for exec in [Exec::new(1), Exec::new(2).with_isa(crate::Isa::Portable)] {
                    let mut g = test_input(n, 3);
                    g[place] = f32::NEG_INFINITY;
                    let infinite = stats(exec, &g);
                    assert!(infinite.sum_squares == f64::INFINITY && infinite.max_abs == f32::INFINITY);
                    g[place] = -f32::NAN;
                    let nan = stats(exec, &g);
                    assert!(nan.sum_squares.is_nan() && nan.max_abs.is_nan());
                }
            }
        }
    }

    #[test]
    fn squares_beyond_f32_do_not_overflow() {
        let got = stats(Exec::new(1), &[1e30, 1e-30]);
        assert!((got.sum_squares / 1e60 - 1.0).abs() < 1e-6 && got.max_abs == 1e30);
    }
}
