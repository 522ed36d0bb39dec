//! Dropout: `y = x keep / (1 - p)`, where each `keep` is 0 with probability `p` and 1 otherwise.
//!
//! The mask is a function of a key and the element's index, so nothing is stored: the backward pass is [`forward`] on
//! `d_y` with the same key, and any part of a tensor can be masked on its own.
//!
//! Shapes: element by element, any length.
//! Sources: Srivastava et al. 2014, "Dropout", with the scale applied in training as in PyTorch; counter-based numbers
//! after Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; the mixing functions are `splitmix64`
//! (Steele, Lea and Flood 2014) and the `lowbias32` family (<https://github.com/skeeto/hash-prospector>).

use crate::exec::Exec;
use crate::lanes::TASK_ELEMENTS;
use crate::parallel::for_each_chunk;
use crate::simd::{Kernel, Simd, dispatch};

/// The number below which an element's random 32 bits drop it: `p 2^32`, rounded.
///
/// Panics: unless `0 <= p < 1`.
pub fn threshold(p: f32) -> u32 {
    assert!((0.0..1.0).contains(&p), "dropout with probability {p}, expected 0 <= p < 1");
    (f64::from(p) * 4_294_967_296.0).round() as u32
}

/// Whether element `index` of the mask `key` is kept, which happens with probability `1 - threshold / 2^32`.
#[inline(always)]
pub fn keep(key: u64, index: u64, threshold: u32) -> bool {
    random_bits(words(key, index >> 32), index as u32) >= threshold
}

/// `y = x keep / (1 - p)`; with `p = 0` a copy. The backward pass is the same call on `d_y`.
///
/// Numbers: the mask depends on `key` and the index alone, so bits are the same for any number of threads.
/// Law: `y` has the expectation `x`.
/// Panics: if the lengths differ, or unless `0 <= p < 1`.
/// Source: see the file's head.
pub fn forward(exec: Exec, p: f32, key: u64, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "dropout of {} into {} elements", x.len(), y.len());
    let (threshold, scale) = (threshold(p), 1.0 / (1.0 - p));
    for_each_chunk(exec, y, TASK_ELEMENTS, |index, y| {
        let start = index * TASK_ELEMENTS;
        let x = &x[start..][..y.len()];
        // A task never crosses a multiple of 2^32, since its length divides that.
        let words = words(key, start as u64 >> 32);
        dispatch(exec, Forward { threshold, scale, words, start: start as u32, x, y });
    });
}

/// Two random words from the key and the upper half of an index.
fn words(key: u64, index_high: u64) -> [u32; 2] {
    let mut z = key.wrapping_add(index_high.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    [z as u32, (z >> 32) as u32]
}

/// 32 random bits from the two words and the lower half of an index.
#[inline(always)]
fn random_bits(words: [u32; 2], index_low: u32) -> u32 {
    // Twice, with one word each: a single pass would only permute one mask by the key's bits.
    mix(mix(index_low ^ words[0]).wrapping_add(words[1]))
}

#[inline(always)]
fn mix(mut x: u32) -> u32 {
    x = (x ^ x >> 16).wrapping_mul(0x21F0_AAAD);
    x = (x ^ x >> 15).wrapping_mul(0xD35A_2D97);
    x ^ x >> 15
}

struct Forward<'a> {
    threshold: u32,
    scale: f32,
    words: [u32; 2],
    start: u32,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        for (i, (y, &x)) in self.y.iter_mut().zip(self.x).enumerate() {
            let kept = random_bits(self.words, self.start.wrapping_add(i as u32)) >= self.threshold;
            *y = if kept { x * self.scale } else { 0.0 };
        }
    }
}

/// The formula in f64, one element at a time.
pub mod reference {
    /// `x keep / (1 - p)`.
    pub fn forward(p: f32, key: u64, x: &[f64]) -> Vec<f64> {
        let scale = 1.0 / (1.0 - f64::from(p));
        let kept = |i: usize| super::keep(key, i as u64, super::threshold(p));
        x.iter().enumerate().map(|(i, x)| if kept(i) { x * scale } else { 0.0 }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_fast, grad_gap, test_input, test_input_f64, weighted_sum, wide};

    const N: u64 = 1_000_000;

    /// Fails unless `count` of `n` lies within five standard deviations of a binomial with probability `p`.
    fn assert_binomial(what: &str, count: usize, n: u64, p: f64) {
        let (mean, deviation) = (n as f64 * p, (n as f64 * p * (1.0 - p)).sqrt());
        assert!(
            (count as f64 - mean).abs() <= 5.0 * deviation,
            "{what}: {count} of {n}, expected {mean} +- {deviation}"
        );
    }

    fn count(n: u64, holds: impl Fn(u64) -> bool) -> usize {
        (0..n).filter(|&i| holds(i)).count()
    }

    #[test]
    fn the_dropped_share_is_within_binomial_bounds() {
        for p in [0.001, 0.1, 0.5, 0.9] {
            for key in [0, 1, 42, u64::MAX, 1 << 40] {
                let dropped = count(N, |i| !keep(key, i, threshold(p)));
                assert_binomial(&format!("p {p}, key {key}"), dropped, N, f64::from(p));
            }
        }
    }

    #[test]
    fn neighbours_rows_and_upper_halves_of_the_index_are_independent() {
        let (limit, both) = (threshold(0.3), 0.09);
        for distance in [1, 2, 16, 64, 768, 1024, 1 << 32, 3 << 33] {
            let pairs = count(N, |i| !keep(7, i, limit) && !keep(7, i + distance, limit));
            assert_binomial(&format!("distance {distance}"), pairs, N, both);
        }
    }

    #[test]
    fn masks_of_different_keys_are_independent_even_after_a_shift() {
        let (limit, both) = (threshold(0.3), 0.09);
        for (a, b) in [(0, 1), (1, 2), (5, 5 << 32), (9, 9 | 1 << 63), (100, 101)] {
            for shift in 0..4 {
                let pairs = count(N, |i| !keep(a, i, limit) && !keep(b, i ^ shift, limit));
                assert_binomial(&format!("keys {a} and {b}, shift {shift}"), pairs, N, both);
            }
        }
    }

    #[test]
    fn the_mask_of_one_key_is_not_that_of_another_in_a_different_order() {
        // The order in which a single mixing pass would give the same mask.
        let (limit, shift) = (threshold(0.3), u64::from(words(1, 0)[0] ^ words(2, 0)[0]));
        let pairs = count(N, |i| !keep(1, i, limit) && !keep(2, i ^ shift, limit));
        assert_binomial("reordered", pairs, N, 0.09);
    }

    #[test]
    fn backward_is_the_derivative_of_forward_through_the_same_mask() {
        let (x, d_y) = (test_input_f64(50, 1), test_input_f64(50, 2));
        let mut d_x = vec![0.0; 50];
        forward(Exec::new(1), 0.4, 3, &test_input(50, 2), &mut d_x);
        // The fast path serves as backward here, so the gap is that of f32.
        assert!(grad_gap(|x| weighted_sum(&d_y, &reference::forward(0.4, 3, x)), &x, &wide(&d_x)) < 1e-6);
    }

    #[test]
    fn the_fast_path_equals_the_reference_at_any_length() {
        for n in [0, 1, 7, 16, 33, TASK_ELEMENTS - 1, TASK_ELEMENTS, 3 * TASK_ELEMENTS + 1] {
            let x = test_input(n, 1);
            for p in [0.0, 0.1, 0.75] {
                let run = |exec| {
                    let mut y = vec![f32::NAN; n];
                    forward(exec, p, 11, &x, &mut y);
                    vec![y]
                };
                check_fast(&format!("{n}, p {p}"), run, &[reference::forward(p, 11, &wide(&x))], 1e-7);
            }
        }
    }

    #[test]
    fn with_probability_zero_it_copies() {
        let x = test_input(100, 1);
        let mut y = vec![0.0; 100];
        forward(Exec::new(1), 0.0, 5, &x, &mut y);
        assert_eq!(x, y);
    }

    #[test]
    #[should_panic(expected = "dropout with probability 1, expected 0 <= p < 1")]
    fn a_probability_of_one_is_refused() {
        threshold(1.0);
    }
}
