//! AdamW with its moments in 8 bits: half of the memory of full fine-tuning is f32 moments, and this is a quarter of them.
//!
//! The update itself is [`crate::adamw`]'s, in f32 on moments as they were read. Then each block of [`BLOCK`] numbers is
//! written as small floats of 8 bits beside one f32, the block's largest absolute value: the first moment as a sign, 4 bits of exponent and 3 of
//! mantissa, the root of the second moment as 4 bits of exponent and 4 of mantissa. So a number keeps its relative precision over 16
//! binades below the largest of its block, and what is smaller still is zero or the smallest one.
//!
//! Rounding is stochastic: a number goes to one of its two neighbours such that the mean is the number itself. To the nearest, a
//! second moment that changes by a thousandth a step would never leave its place.
//!
//! Source: Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization", <https://arxiv.org/abs/2110.02861>, for blocks; the floats are
//! those of Xi et al. 2024, "COAT", <https://arxiv.org/abs/2410.19313>, and of torchao's `AdamWFp8`, with a root and rounding of our own.

use crate::adamw::{AdamW, Factors};
use crate::exec::Exec;
use crate::lanes::TASK_ELEMENTS;
use crate::parallel::for_each_chunk;
use crate::random::mix;
use crate::simd::{Kernel, Simd, dispatch};

/// Numbers that share a scale.
pub const BLOCK: usize = 256;

/// Bits of f32's mantissa that are dropped: of the first moment, and of the second's root.
const DROP: [u32; 2] = [20, 19];
/// The exponent field of f32 for the smallest floats of ours, of 16 binades: those below 2.
const BASE: u32 = 112;
/// The largest of ours: 1.875 and 1.9375.
const LARGEST: [f32; 2] = [1.875, 1.9375];

/// Both moments of a parameter. They begin as zeros.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments8 {
    /// The first moment, a byte each: sign, exponent, mantissa.
    pub first: Vec<u8>,
    /// The root of the second moment, a byte each: exponent, mantissa.
    pub second: Vec<u8>,
    /// What the floats of a block are multiplied by: of the first moment and of the root, for each block.
    pub scales: Vec<f32>,
}

impl Moments8 {
    /// Zeros for `count` parameters.
    pub fn zeros(count: usize) -> Self {
        Self { first: vec![0; count], second: vec![0; count], scales: vec![0.0; 2 * count.div_ceil(BLOCK)] }
    }

    /// Whether these are moments of `count` parameters.
    pub fn fits(&self, count: usize) -> bool {
        [self.first.len(), self.second.len()] == [count; 2] && self.scales.len() == 2 * count.div_ceil(BLOCK)
    }

    /// The moments as numbers: `m` and `v`.
    pub fn decoded(&self) -> [Vec<f32>; 2] {
        let scale = |which: usize, i: usize| self.scales[i / BLOCK * 2 + which];
        let first = self.first.iter().enumerate().map(|(i, &code)| first_of(code) * scale(0, i));
        let root = self.second.iter().enumerate().map(|(i, &code)| root_of(code) * scale(1, i));
        [first.collect(), root.map(|root| root * root).collect()]
    }
}

/// One step, in place. `key` decides the rounding: another one for each parameter and step.
///
/// Shapes: `param` and `grad` of the length that the moments were made for.
/// Numbers: the update in f32 with factors in f64, as [`crate::adamw::step`]. Same bits for any number of threads.
/// Law: the mean of a written moment over keys is the moment; a written one is off by at most an eighth (first moment) or a
/// sixteenth (root) of itself, or by 2^-15 of the largest of its block.
///
/// Panics: if the lengths differ or `step` is 0.
/// Source: see the file's head.
pub fn step(
    exec: Exec,
    settings: &AdamW,
    step: u64,
    grad_scale: f32,
    key: u64,
    param: &mut [f32],
    grad: &[f32],
    moments: &mut Moments8,
) {
    let count = param.len();
    assert!(grad.len() == count && moments.fits(count), "{count} parameters, {} gradients", grad.len());
    let factors = settings.factors(step);
    let key = mix(key) as u32;
    let (first, second) = (moments.first.chunks_mut(TASK_ELEMENTS), moments.second.chunks_mut(TASK_ELEMENTS));
    let scales = moments.scales.chunks_mut(2 * TASK_ELEMENTS / BLOCK);
    let inputs = param.chunks_mut(TASK_ELEMENTS).zip(grad.chunks(TASK_ELEMENTS));
    let parts = inputs.zip(first.zip(second)).zip(scales).enumerate();
    let mut parts: Vec<Part<'_>> = parts
        .map(|(index, (((param, grad), (first, second)), scales))| {
            let start = (index * TASK_ELEMENTS) as u32;
            Part { factors, grad_scale, key, start, param, grad, first, second, scales }
        })
        .collect();
    for_each_chunk(exec, &mut parts, 1, |_, parts| {
        for part in parts {
            dispatch(exec, Blocks { part });
        }
    });
}

/// What a task works on.
struct Part<'a> {
    factors: Factors,
    grad_scale: f32,
    key: u32,
    /// Number of its first parameter.
    start: u32,
    param: &'a mut [f32],
    grad: &'a [f32],
    first: &'a mut [u8],
    second: &'a mut [u8],
    scales: &'a mut [f32],
}

struct Blocks<'a, 'b> {
    part: &'a mut Part<'b>,
}

impl Kernel for Blocks<'_, '_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let part = self.part;
        let narrow = part.factors.narrow();
        for (block, scales) in part.scales.chunks_exact_mut(2).enumerate() {
            let at = block * BLOCK;
            let len = BLOCK.min(part.param.len() - at);
            let (param, grad) = (&mut part.param[at..at + len], &part.grad[at..at + len]);
            let (first, second) = (&mut part.first[at..at + len], &mut part.second[at..at + len]);
            // Moments, and zeros behind the last of a short block.
            let (mut m, mut root) = ([0.0_f32; BLOCK], [0.0_f32; BLOCK]);
            for i in 0..len {
                let (old_m, old_root) = (first_of(first[i]) * scales[0], root_of(second[i]) * scales[1]);
                (m[i], root[i]) = (old_m, old_root * old_root);
                root[i] = narrow.update(simd, grad[i] * part.grad_scale, &mut param[i], &mut m[i], &mut root[i]);
            }
            let inverse = [largest(&m), largest(&root)].map(|largest| if largest > 0.0 { 1.0 / largest } else { 0.0 });
            scales[0] = largest(&m) / LARGEST[0];
            scales[1] = largest(&root) / LARGEST[1];
            let start = part.start + at as u32;
            for i in 0..len {
                let noise = noise(part.key, start + i as u32);
                let sign = (m[i].to_bits() >> 24) as u8 & 0x80;
                first[i] = sign | code::<0>(m[i].abs() * inverse[0] * LARGEST[0], noise);
                second[i] = code::<1>(root[i] * inverse[1] * LARGEST[1], noise.rotate_left(16));
            }
        }
    }
}

/// The largest absolute value, or NaN if there is one.
#[inline(always)]
fn largest(x: &[f32; BLOCK]) -> f32 {
    let mut lanes = [0.0_f32; 16];
    for chunk in x.as_chunks::<16>().0 {
        for lane in 0..16 {
            let x = chunk[lane].abs();
            lanes[lane] = if x > lanes[lane] || x.is_nan() { x } else { lanes[lane] };
        }
    }
    lanes.iter().fold(0.0, |max, &x| if x > max || x.is_nan() { x } else { max })
}

/// 32 random bits, number `index` of `key`. Source: the finalizer of MurmurHash3 (Appleby 2011).
#[inline(always)]
fn noise(key: u32, index: u32) -> u32 {
    let z = index.wrapping_mul(0x9E37_79B9) ^ key;
    let z = (z ^ (z >> 16)).wrapping_mul(0x85EB_CA6B);
    let z = (z ^ (z >> 13)).wrapping_mul(0xC2B2_AE35);
    z ^ (z >> 16)
}

/// The small float beside `x`, which is between 0 and the largest: one of its two neighbours, by `noise`.
#[inline(always)]
fn code<const W: usize>(x: f32, noise: u32) -> u8 {
    let (drop, smallest) = (DROP[W], value_of::<W>(1));
    // Within a binade floats lie evenly, so noise below the dropped bits rounds up with the right chance.
    let rounded = (x.to_bits() + (noise >> (32 - drop))) >> drop;
    let code = rounded.wrapping_sub(BASE << (23 - drop)).min(255 >> (1 - W));
    let below = u32::from((noise >> 8) as f32 * (smallest / 16_777_216.0) < x);
    (if x < smallest { below } else { code }) as u8
}

/// The value of code `code` of moment `W`, without its sign.
#[inline(always)]
fn value_of<const W: usize>(code: u8) -> f32 {
    let value = f32::from_bits((u32::from(code) << DROP[W]) + (BASE << 23));
    if code == 0 { 0.0 } else { value }
}

/// A first moment, before its block's scale.
#[inline(always)]
fn first_of(code: u8) -> f32 {
    let magnitude = value_of::<0>(code & 0x7F);
    f32::from_bits(magnitude.to_bits() | (u32::from(code & 0x80) << 24))
}

/// A root of a second moment, before its block's scale.
#[inline(always)]
fn root_of(code: u8) -> f32 {
    value_of::<1>(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_fast, test_input, wide};

    fn bound(which: usize) -> f64 {
        [1.0 / 8.0, 1.0 / 16.0][which]
    }

    /// Moments after one step, and the parameters.
    fn one_step(exec: Exec, key: u64, grad: &[f32], moments: &mut Moments8) -> Vec<f32> {
        let mut param = test_input(grad.len(), 1);
        step(exec, &AdamW::default(), 1, 1.0, key, &mut param, grad, moments);
        param
    }

    #[test]
    fn every_code_comes_back_from_its_value() {
        for noise in [0, 1 << 31, u32::MAX] {
            for value in 0..=127 {
                assert_eq!(code::<0>(value_of::<0>(value), noise), value);
            }
            for value in 0..=255 {
                assert_eq!(code::<1>(value_of::<1>(value), noise), value);
            }
        }
        assert_eq!((value_of::<0>(127), value_of::<1>(255)), (LARGEST[0], LARGEST[1]));
        assert_eq!((first_of(0xFF), first_of(0x80), root_of(0)), (-LARGEST[0], 0.0, 0.0));
    }

    #[test]
    fn rounding_goes_to_a_neighbour_and_is_right_in_the_mean() {
        let n = 40_000_u32;
        for x in [1e-7, 3e-5, 1e-3, 0.04, 0.3, 0.9999, 1.01, 1.87] {
            let mean = |value: &dyn Fn(u32) -> f32| {
                let (mut sum, mut least, mut most) = (0.0, f64::INFINITY, 0.0_f64);
                for index in 0..n {
                    let value = f64::from(value(noise(7, index)));
                    sum += value;
                    (least, most) = (least.min(value), most.max(value));
                }
                (sum / f64::from(n), least, most)
            };
            for which in [0, 1] {
                let (mean, least, most) = match which {
                    0 => mean(&|noise| value_of::<0>(code::<0>(x, noise))),
                    _ => mean(&|noise| value_of::<1>(code::<1>(x, noise))),
                };
                let x = f64::from(x);
                assert!(least <= x && x <= most, "{x}: {least} to {most}");
                let step = most - least;
                let smallest = f64::from(if which == 0 { value_of::<0>(1) } else { value_of::<1>(1) });
                assert!(step <= (x * bound(which)).max(smallest) * 1.000_001, "{x}: {least} to {most}");
                // Five standard errors of a coin with the two faces.
                assert!((mean - x).abs() <= 5.0 * 0.5 * step / f64::from(n).sqrt(), "{x}: mean {mean}, step {step}");
            }
        }
    }

    #[test]
    fn the_first_step_is_adamws_and_its_moments_are_written_within_a_code() {
        for n in [1, 255, 256, 257, TASK_ELEMENTS + 300] {
            let grad = test_input(n, 11);
            let (mut param, mut m, mut v) = (test_input(n, 1), vec![0.0; n], vec![0.0; n]);
            crate::adamw::step(Exec::new(1), AdamW::default().factors(1), 1.0, &mut param, &grad, &mut m, &mut v);
            let run = |exec| vec![one_step(exec, 3, &grad, &mut Moments8::zeros(n))];
            check_fast(&format!("{n}"), run, &[wide(&param)], 1e-6);
            let run = |exec| {
                let mut moments = Moments8::zeros(n);
                one_step(exec, 3, &grad, &mut moments);
                moments
            };
            for isa in crate::exec::Isa::available() {
                let moments = run(Exec::new(1).with_isa(isa));
                assert_eq!(moments, run(Exec::new(2).with_isa(isa)));
                let [found_m, found_v] = moments.decoded();
                for i in 0..n {
                    let top = m[i / BLOCK * BLOCK..].iter().take(BLOCK).fold(0.0_f32, |top, m| top.max(m.abs()));
                    let gap = (found_m[i] - m[i]).abs();
                    assert!(gap <= (m[i].abs() * 0.126).max(top / 30_000.0), "{i}: {} {}", found_m[i], m[i]);
                    let (root, found) = (v[i].sqrt(), found_v[i].sqrt());
                    assert!((found - root).abs() <= (root * 0.063).max(1e-6), "{i}: {found} {root}");
                }
            }
        }
    }

    #[test]
    fn many_steps_stay_near_adamws_where_the_second_moment_moves_by_less_than_a_code() {
        // Gradients of an even size for 300 steps, then a tenth of it: v falls by a thousandth a step.
        let n = 2048;
        let settings = AdamW { lr: 1e-2, weight_decay: 0.0, ..AdamW::default() };
        let mut exact = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
        let (mut param, mut moments) = (vec![0.0; n], Moments8::zeros(n));
        for t in 1..=600 {
            let size = if t <= 300 { 1.0 } else { 0.1 };
            let grad: Vec<f32> = test_input(n, 5 + t as usize).iter().map(|x| (x + 0.2) * size).collect();
            crate::adamw::step(Exec::new(1), settings.factors(t), 1.0, &mut exact.0, &grad, &mut exact.1, &mut exact.2);
            step(Exec::new(1), &settings, t, 1.0, t, &mut param, &grad, &mut moments);
        }
        let [_, v] = moments.decoded();
        let mean = |x: &[f32]| x.iter().map(|&x| f64::from(x)).sum::<f64>() / n as f64;
        // Rounded to the nearest, v was 6.6 % too large.
        assert!((mean(&v) / mean(&exact.2) - 1.0).abs() < 0.02, "{} {}", mean(&v), mean(&exact.2));
        assert!((mean(&param) / mean(&exact.0) - 1.0).abs() < 0.02, "{} {}", mean(&param), mean(&exact.0));
        let gaps: Vec<f32> = param.iter().zip(&exact.0).map(|(a, b)| (a - b).abs()).collect();
        assert!(mean(&gaps) < 0.08 * mean(&exact.0).abs(), "{} of {}", mean(&gaps), mean(&exact.0));
    }

    #[test]
    fn a_block_without_gradients_stays_zero_and_a_nan_is_not_lost() {
        let mut moments = Moments8::zeros(300);
        let mut grad = vec![0.0; 300];
        grad[256] = f32::NAN;
        let param = one_step(Exec::new(1), 1, &grad, &mut moments);
        let [m, v] = moments.decoded();
        assert!(m[..256].iter().chain(&v[..256]).all(|&x| x == 0.0));
        assert!(param[256].is_nan() && moments.scales[2].is_nan());
    }

    #[test]
    #[should_panic(expected = "3 parameters, 3 gradients")]
    fn moments_of_another_parameter_are_refused() {
        let mut moments = Moments8::zeros(4);
        one_step(Exec::new(1), 1, &[1.0; 3], &mut moments);
    }
}
