//! Products of binary16 in plain integers: what `f16.rs` computes, bit for bit, on any machine.
//!
//! Tests hold its errors against f64 here, and the vector path against it in `tests.rs` where the CPU has the instructions.

use super::super::{Shape, View};
use super::{RUN, TOP, block_of};
use crate::packed::half::{f16_to_f32, f32_to_f16};
use std::cell::OnceCell;

/// A lane of one block: its halves times `2^exponent` are what was rounded.
#[derive(Clone)]
pub(super) struct Lane {
    pub(super) exponent: i32,
    pub(super) halves: Vec<u16>,
}

fn flushed(x: f32) -> f32 {
    if x.is_subnormal() { 0.0_f32.copysign(x) } else { x }
}

impl Lane {
    /// Rounds a row or column.
    pub(super) fn new(x: impl Iterator<Item = f32> + Clone) -> Self {
        // Infinities and NaN have 128, zeros and denormals -127.
        let exponent_of = |x: f32| (x.to_bits() >> 23 & 0xFF).cast_signed() - 127;
        let exponent = (x.clone().map(exponent_of).max().unwrap_or(-127) - TOP).max(-127);
        let factor = f32::from_bits((127 - exponent).cast_unsigned() << 23);
        Self { exponent, halves: x.map(|x| f32_to_f16(flushed(flushed(x) * factor))).collect() }
    }

    /// One lane after the other of some steps.
    fn of(rows: View<'_>, lane: usize, block: usize) -> Vec<Self> {
        let Shape { cols, .. } = rows.shape;
        let starts = (0..cols.div_ceil(block)).map(|index| index * block);
        starts.map(|start| Self::new((start..cols.min(start + block)).map(|p| rows.at(lane, p)))).collect()
    }
}

/// `a * b + c`, rounded once, to the nearest, ties to even.
fn fused(a: u16, b: u16, c: u16) -> u16 {
    let is_finite = |x: u16| x & 0x7C00 != 0x7C00;
    if !(is_finite(a) && is_finite(b) && is_finite(c)) {
        return f32_to_f16(f16_to_f32(a) * f16_to_f32(b) + f16_to_f32(c));
    }
    // In steps of 2^-24, the product in steps of 2^-48.
    let fixed = |x: u16| -> i128 {
        let (exponent, fraction) = (x >> 10 & 0x1F, i128::from(x & 0x03FF));
        let size = if exponent == 0 { fraction } else { (1024 + fraction) << (exponent - 1) };
        if x & 0x8000 == 0 { size } else { -size }
    };
    let sum = fixed(a) * fixed(b) + (fixed(c) << 24);
    let (sign, size) = (if sum < 0 { 0x8000 } else { 0 }, sum.unsigned_abs());
    // The last place: of eleven bits from the first one on, or of denormal halves.
    let place = (size.checked_ilog2().unwrap_or(0).max(34) - 10).max(24);
    let (quotient, rest) = ((size >> place) as u16, size & ((1 << place) - 1));
    let tie = 1_u128 << (place - 1);
    let up = u16::from(rest > tie || rest == tie && quotient & 1 == 1);
    // Bits of a half go on where its exponent changes, to those of infinity.
    let bits = u32::from(quotient + up) + ((place - 24) << 10);
    sign | bits.min(0x7C00) as u16
}

/// The sum over one block, in runs of `run` words.
fn sum(a: &[u16], b: &[u16], run: usize) -> f32 {
    let mut wide = [0.0_f32; 2];
    for (a, b) in a.chunks(2 * run).zip(b.chunks(2 * run)) {
        let mut sums = [0_u16; 2];
        for (step, (a, b)) in a.iter().zip(b).enumerate() {
            sums[step % 2] = fused(*a, *b, sums[step % 2]);
        }
        wide = [0, 1].map(|half| wide[half] + f16_to_f32(sums[half]));
    }
    wide[0] + wide[1]
}

/// `before + scale * A B` of one row and one column, block by block.
fn element(a: &[Lane], b: &[Lane], run: usize, scale: f32, before: f32) -> f32 {
    a.iter().zip(b).fold(before, |before, (a, b)| {
        let exponent = a.exponent + b.exponent;
        let wide = f64::from(sum(&a.halves, &b.halves, run)) * 2.0_f64.powi(exponent);
        flushed(flushed(wide as f32).mul_add(scale, before))
    })
}

/// The elements of `scale * A B` at these places, each added to what is there before: to -0.0, which changes nothing, where it is alone.
pub(super) fn elements(
    (a, b): (View<'_>, View<'_>),
    scale: f32,
    places: impl Iterator<Item = (usize, usize, f32)>,
) -> Vec<f32> {
    elements_in_runs((a, b), RUN, scale, places)
}

fn elements_in_runs(
    (a, b): (View<'_>, View<'_>),
    run: usize,
    scale: f32,
    places: impl Iterator<Item = (usize, usize, f32)>,
) -> Vec<f32> {
    let block = block_of(a.shape.cols);
    let none = |rows: View<'_>| vec![OnceCell::<Vec<Lane>>::new(); rows.shape.rows];
    let (rows, cols) = (none(a), none(b.t()));
    let found = places.map(|(i, j, before)| {
        let row = rows[i].get_or_init(|| Lane::of(a, i, block));
        let col = cols[j].get_or_init(|| Lane::of(b.t(), j, block));
        element(row, col, run, scale, before)
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::definition;
    use super::*;
    use crate::exec::Exec;
    use crate::packed::half::{bf16_to_f32, f32_to_bf16};
    use crate::random::fill_uniform;
    use crate::testing::test_input;

    fn product(a: View<'_>, b: View<'_>, run: usize) -> Vec<f32> {
        let n = b.shape.cols;
        elements_in_runs((a, b), run, 1.0, (0..a.shape.rows * n).map(|at| (at / n, at % n, -0.0)))
    }

    fn sum_of_squares(x: impl Iterator<Item = f64>) -> f64 {
        x.map(|x| x * x).sum()
    }

    /// All errors relative to all results.
    fn error(found: impl Iterator<Item = f64>, want: &[f64]) -> f64 {
        let errors = found.zip(want).map(|(found, want)| found - want);
        (sum_of_squares(errors) / sum_of_squares(want.iter().copied())).sqrt()
    }

    #[test]
    fn a_fused_sum_is_the_nearest_half() {
        let half = f32_to_f16;
        // 1 + 2^-11 is a tie, which goes to the even 1; with 2^-20 less or more in the product it is none.
        let (tie, last) = (1.0 / 2048.0, 1.0 / 1024.0);
        assert_eq!(fused(half(1.0), half(1.0), half(tie)), half(1.0));
        assert_eq!(fused(half(1.0 + last), half(1.0 - last), half(tie)), half(1.0));
        assert_eq!(fused(half(1.0 + last), half(1.0 + last), half(-tie - 2.0 * last)), half(1.0 - tie));
        assert_eq!(fused(half(tie + tie * last), half(1.0), half(1.0)), half(1.0 + last));
        // Denormals, both as operands and as results: 3 x 2^-24 halved is a tie too.
        assert_eq!(fused(0x0003, half(0.5), 0), 0x0002);
        assert_eq!(fused(0x0003, half(0.5), 0x8003), 0x8002);
        assert_eq!(fused(half(256.0), half(255.9), half(0.0)), half(65504.0));
        assert_eq!(fused(half(256.0), half(256.0), half(0.0)), half(f32::INFINITY));
        for (index, x) in test_input(3 * 20_000, 1).chunks(3).enumerate() {
            let scale = [1.0, 1e-3, 1e-5, 1e2][index % 4];
            let [a, b, c] = [x[0], x[1], scale * x[2]].map(half);
            let exact = |x: u16| f64::from(f16_to_f32(x));
            let (want, found) = (exact(a) * exact(b) + exact(c), fused(a, b, c));
            let gap = |x: u16| (exact(x) - want).abs();
            // The halves beside it are no nearer; towards zero there is always one but from zero.
            assert!(gap(found) <= gap(found + 1), "{a:x} {b:x} {c:x}");
            assert!(matches!(found, 0 | 0x8000) || gap(found) <= gap(found - 1), "{a:x} {b:x} {c:x}");
        }
    }

    /// Errors in runs of 16, 32, 64 and 128 words, then those of bf16: on random numbers, and on their magnitudes.
    const ERRORS: [[f64; 5]; 2] =
        [[6.5e-4, 9.0e-4, 1.23e-3, 1.69e-3, 2.16e-3], [6.7e-5, 1.23e-4, 2.44e-4, 4.93e-4, 8.7e-5]];

    #[test]
    fn errors_grow_with_the_run_as_the_table_of_binary16_says() {
        let (m, k, n) = (40, 1024, 40);
        let (mut a, mut b) = (vec![0.0; m * k], vec![0.0; k * n]);
        fill_uniform(Exec::new(1), 1, 0.5, &mut a);
        fill_uniform(Exec::new(1), 2, 0.5, &mut b);
        for errors in ERRORS {
            let views = |a, b| (View::new(a, m, k), View::new(b, k, n));
            let (x, y) = views(&a, &b);
            let want = definition(x, y, 1.0);
            let in_runs = [16, 32, 64, 128].map(|run| error(product(x, y, run).into_iter().map(f64::from), &want));
            let rounded = |x: &[f32]| x.iter().map(|&x| bf16_to_f32(f32_to_bf16(x))).collect::<Vec<_>>();
            let (x, y) = (rounded(&a), rounded(&b));
            let (x, y) = views(&x, &y);
            let in_bf16 = error(definition(x, y, 1.0).into_iter(), &want);
            for (found, expected) in in_runs.into_iter().chain([in_bf16]).zip(errors) {
                assert!((found / expected - 1.0).abs() < 0.05, "{found:e}, not {expected:e}");
            }
            a.iter_mut().chain(&mut b).for_each(|x| *x = x.abs());
        }
    }

    #[test]
    fn rows_of_any_scale_are_as_precise_as_others() {
        let (m, k, n) = (12, 200, 10);
        let (a, b) = (test_input(m * k, 1), test_input(k * n, 2));
        let plain = product(View::new(&a, m, k), View::new(&b, k, n), RUN);
        let powers = [100, -100, 0, 127, -110, 60];
        let scaled: Vec<f32> =
            (0..m * k).map(|at| (f64::from(a[at]) * 2.0_f64.powi(powers[at / k % 6])) as f32).collect();
        let found = product(View::new(&scaled, m, k), View::new(&b, k, n), RUN);
        for (at, (found, plain)) in found.into_iter().zip(plain).enumerate() {
            // The powers are those of the scales: not a bit changes, but where f32 ends.
            let want = (f64::from(plain) * 2.0_f64.powi(powers[at / n % 6])) as f32;
            assert!(found.to_bits() == want.to_bits(), "{at}: {found:e} {want:e}");
        }
    }

    #[test]
    fn one_large_element_costs_the_others_of_its_row_little() {
        let k = 64;
        let (mut a, b) = (test_input(k, 1), test_input(k, 2));
        // What is left of the others is seen where the large one meets a zero.
        for (large, bound) in [(1e3, 1e-3), (1e5, 1e-3), (1e7, 2e-2)] {
            a[5] = large;
            let mut b = b.clone();
            b[5] = 0.0;
            let (a, b) = (View::new(&a, 1, k), View::new(&b, k, 1));
            let (found, want) = (product(a, b, RUN)[0], definition(a, b, 1.0)[0]);
            let size: f64 = (0..k).map(|p| f64::from((a.at(0, p) * b.at(p, 0)).abs())).sum();
            assert!((f64::from(found) - want).abs() <= bound * size, "{large}: {found} {want}");
        }
    }

    #[test]
    fn zeros_are_zero_and_what_is_not_finite_stays_so() {
        let (zeros, mut x) = (vec![0.0; 150], test_input(150, 1));
        let dot = |a: &[f32], b: &[f32]| product(View::new(a, 1, 150), View::new(b, 150, 1), RUN)[0];
        assert_eq!(dot(&zeros, &x), 0.0);
        assert_eq!(dot(&zeros, &zeros), 0.0);
        let ones = vec![1.0; 150];
        for at in [0, 1, 127, 128, 149] {
            let before = std::mem::replace(&mut x[at], f32::NAN);
            assert!(dot(&x, &ones).is_nan() && dot(&zeros, &x).is_nan());
            for infinity in [f32::INFINITY, f32::NEG_INFINITY] {
                x[at] = infinity;
                assert_eq!(dot(&x, &ones), infinity);
                assert!(dot(&x, &zeros).is_nan());
            }
            // A number it may be that leaves nothing of all others.
            x[at] = 3.4e38;
            assert!((dot(&x, &ones) / 3.4e38 - 1.0).abs() < 1e-3);
            x[at] = before;
        }
        let largest = vec![f32::MAX; 150];
        assert_eq!(dot(&largest, &largest), f32::INFINITY);
        let small = vec![1.0 / 256.0; 150];
        assert!((dot(&largest, &small) / f32::MAX - 150.0 / 256.0).abs() < 1e-3);
    }
}
