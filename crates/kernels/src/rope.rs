//! Rotary position embedding: turns pair `i` of each head by the angle `position * inv_freq[i]`.
//!
//! The layout is Hugging Face's: the pair is `(x[i], x[i + E/2])`, and
//! `y[i] = x[i] cos - x[i + E/2] sin`, `y[i + E/2] = x[i + E/2] cos + x[i] sin`.
//! A rotation's backward pass is the opposite rotation.
//!
//! Shapes: `x` and `y` `(N, heads * E)`, `positions` `(N)`, `inv_freq` `(E / 2)`.
//! Source: Su et al. 2021, <https://arxiv.org/abs/2104.09864>, equation 34.

use crate::exec::Exec;
use crate::lanes::rows_per_task;
use crate::math::sin_cos;
use crate::parallel::for_each_chunk;
use crate::simd::{Kernel, Simd, dispatch};

/// `theta^(-2 i / head_dim)` for each pair `i`.
///
/// Panics: if `head_dim` is odd.
/// Source: Su et al. 2021, section 3.2.2.
pub fn inv_freq(head_dim: usize, theta: f64) -> Vec<f32> {
    assert!(head_dim.is_multiple_of(2), "rotary embedding of heads of odd width {head_dim}");
    (0..head_dim / 2).map(|i| theta.powf(-2.0 * i as f64 / head_dim as f64) as f32).collect()
}

/// Rotates every head of each row to the row's position.
///
/// Numbers: angles and their reduction in f64, so a far position is as exact as a near one; sine, cosine and products
/// in f32. A row's result does not depend on other rows or on the number of threads.
/// Law: the product of a query and a key depends on the difference of their positions alone.
/// Panics: if the lengths disagree.
/// Source: see the file's head.
pub fn rotate(exec: Exec, x: &[f32], heads: usize, positions: &[u32], inv_freq: &[f32], y: &mut [f32]) {
    turn(exec, 1.0, x, heads, positions, inv_freq, y);
}

/// `d_x` from `d_y`, the gradient by [`rotate`]'s result: the opposite rotation.
///
/// Numbers, Panics: as [`rotate`].
/// Source: see the file's head.
pub fn rotate_back(exec: Exec, d_y: &[f32], heads: usize, positions: &[u32], inv_freq: &[f32], d_x: &mut [f32]) {
    turn(exec, -1.0, d_y, heads, positions, inv_freq, d_x);
}

fn turn(exec: Exec, sign: f64, x: &[f32], heads: usize, positions: &[u32], inv_freq: &[f32], y: &mut [f32]) {
    let width = heads * 2 * inv_freq.len();
    assert!(width > 0, "rotary embedding of {heads} heads and {} frequencies", inv_freq.len());
    assert!(x.len() == positions.len() * width && y.len() == x.len(), "{} rows of {width}", positions.len());
    let rows = rows_per_task(width);
    for_each_chunk(exec, y, rows * width, |index, y| {
        let x = &x[index * rows * width..][..y.len()];
        let positions = &positions[index * rows..][..y.len() / width];
        dispatch(exec, Turn { sign, x, positions, inv_freq, width, y });
    });
}

struct Turn<'a> {
    sign: f64,
    x: &'a [f32],
    positions: &'a [u32],
    inv_freq: &'a [f32],
    width: usize,
    y: &'a mut [f32],
}

impl Kernel for Turn<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let half = self.inv_freq.len();
        let mut turns = vec![0.0; 2 * half];
        let (sines, cosines) = turns.split_at_mut(half);
        let rows = self.x.chunks_exact(self.width).zip(self.y.chunks_exact_mut(self.width));
        for ((x, y), &position) in rows.zip(self.positions) {
            let position = self.sign * f64::from(position);
            for ((sin, cos), &inv_freq) in sines.iter_mut().zip(cosines.iter_mut()).zip(self.inv_freq) {
                (*sin, *cos) = sin_cos(simd, position * f64::from(inv_freq));
            }
            for (x, y) in x.chunks_exact(2 * half).zip(y.chunks_exact_mut(2 * half)) {
                let (x1, x2) = x.split_at(half);
                let (y1, y2) = y.split_at_mut(half);
                let turns = sines.iter().zip(cosines.iter());
                for ((((y1, y2), &x1), &x2), (&sin, &cos)) in y1.iter_mut().zip(y2).zip(x1).zip(x2).zip(turns) {
                    *y1 = simd.mul_add(x1, cos, -(x2 * sin));
                    *y2 = simd.mul_add(x2, cos, x1 * sin);
                }
            }
        }
    }
}

/// The formulas in f64, pair by pair.
pub mod reference {
    /// Each head of each row of `x`, turned by `sign * position * inv_freq`.
    pub fn rotate(sign: f64, x: &[f64], heads: usize, positions: &[u32], inv_freq: &[f32]) -> Vec<f64> {
        let half = inv_freq.len();
        let mut y = vec![0.0; x.len()];
        for (row, &position) in positions.iter().enumerate() {
            for head in 0..heads {
                for i in 0..half {
                    let (sin, cos) = (sign * f64::from(position) * f64::from(inv_freq[i])).sin_cos();
                    let first = (row * heads + head) * 2 * half + i;
                    let second = first + half;
                    y[first] = x[first] * cos - x[second] * sin;
                    y[second] = x[second] * cos + x[first] * sin;
                }
            }
        }
        y
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::Golden;
    use crate::lanes::TASK_ELEMENTS;
    use crate::testing::{check_fast, grad_gap, test_input, test_input_f64, weighted_sum, wide};

    #[test]
    fn the_reference_has_the_worked_out_values() {
        // Head of width 4, the first pair (1, 3) turned by 1 rad, the second (2, 4) by 0.5 rad;
        // cos 1 = 0.54030231, sin 1 = 0.84147098, cos 0.5 = 0.87758256, sin 0.5 = 0.47942554.
        let y = reference::rotate(1.0, &[1.0, 2.0, 3.0, 4.0], 1, &[1], &[1.0, 0.5]);
        for (got, want) in y.iter().zip([-1.984_110_6, -0.162_537_0, 2.462_377_9, 4.469_181_3]) {
            assert!((got - want).abs() < 1e-7, "{got} {want}");
        }
    }

    #[test]
    fn the_frequencies_fall_from_one_by_powers_of_theta() {
        assert_eq!(inv_freq(4, 10_000.0), [1.0, 0.01]);
    }

    #[test]
    fn backward_is_the_derivative_of_forward() {
        let (x, d_y, positions) = (test_input_f64(36, 1), test_input_f64(36, 2), [0, 5, 1000]);
        let freq = inv_freq(6, 100.0);
        let d_x = reference::rotate(-1.0, &d_y, 2, &positions, &freq);
        let loss = |x: &[f64]| weighted_sum(&d_y, &reference::rotate(1.0, x, 2, &positions, &freq));
        assert!(grad_gap(loss, &x, &d_x) < 1e-6);
    }

    #[test]
    fn the_fast_path_equals_the_reference_at_any_size_and_position() {
        for (n, heads, head_dim) in
            [(0, 1, 2), (1, 1, 2), (3, 5, 6), (9, 2, 34), (70, 12, 64), (2, 1, TASK_ELEMENTS + 2)]
        {
            let freq = inv_freq(head_dim, 10_000.0);
            let width = heads * head_dim;
            // Up to 100,000, in no order.
            let positions: Vec<u32> = (0..n as u32).map(|i| (i * 41_983 + 99_999) % 100_001).collect();
            let (x, d_y) = (test_input(n * width, 1), test_input(n * width, 2));
            let run = |exec| {
                let [mut y, mut d_x] = [(); 2].map(|()| vec![f32::NAN; n * width]);
                rotate(exec, &x, heads, &positions, &freq, &mut y);
                rotate_back(exec, &d_y, heads, &positions, &freq, &mut d_x);
                vec![y, d_x]
            };
            let y = reference::rotate(1.0, &wide(&x), heads, &positions, &freq);
            let d_x = reference::rotate(-1.0, &wide(&d_y), heads, &positions, &freq);
            check_fast(&format!("{n} x {heads} x {head_dim}"), run, &[y, d_x], 2.5e-7);
        }
    }

    #[test]
    fn the_product_of_query_and_key_depends_on_their_distance_alone() {
        let (query, key, freq) = (test_input(64, 1), test_input(64, 2), inv_freq(64, 10_000.0));
        let product = |at_query: u32, at_key: u32| -> f32 {
            let [mut q, mut k] = [[0.0; 64]; 2];
            rotate(Exec::new(1), &query, 1, &[at_query], &freq, &mut q);
            rotate(Exec::new(1), &key, 1, &[at_key], &freq, &mut k);
            q.iter().zip(&k).map(|(q, k)| q * k).sum()
        };
        let near = product(7, 4);
        assert!((near - product(90_007, 90_004)).abs() < 2e-6);
        assert!((near - product(8, 4)).abs() > 1e-2);
    }

    #[test]
    fn outputs_and_gradients_equal_pytorchs() {
        let golden = Golden::read("rope");
        let (positions, freq) = ([0, 1, 2, 5, 100, 100_000], inv_freq(8, 10_000.0));
        let [mut y, mut d_x] = [[0.0; 6 * 24]; 2];
        rotate(Exec::new(2), &test_input(6 * 24, 1), 3, &positions, &freq, &mut y);
        rotate_back(Exec::new(2), &test_input(6 * 24, 2), 3, &positions, &freq, &mut d_x);
        golden.check("y", &y, 2.5e-7);
        golden.check("d_x", &d_x, 2.5e-7);
    }
}
