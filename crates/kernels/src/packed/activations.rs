//! Activations rounded to 8-bit integers, for integer products with quantized weights.
//!
//! Each run of 32 numbers of a row has a scale `d = max |x| / 127` and integers `q`, the nearest to `x / d`, so that
//! `x` is about `d q` and no number is off by more than `d / 2`.
//!
//! Source: the blocks Q8_0 and Q8_1 that llama.cpp rounds activations to; scales are f32 here, binary16 there and where an [`Exec`] asks
//! for what llama.cpp computes.
#![expect(unsafe_code, reason = "hands out parts of three vectors to the tasks of one region")]

use super::blocks::RUN;
use super::half::{f16_to_f32, f32_to_f16};
use crate::exec::Exec;
use crate::lanes::TASK_ELEMENTS;
use crate::parallel::{SharedMut, for_each};
use crate::simd::{Kernel, Simd, dispatch};

/// A magnitude below which a run counts as zeros: its scale would come near the denormals, which threads may flush.
const NEGLIGIBLE: f32 = 1e-30;
/// Adding it rounds a small number to the nearest integer, ties to even, found in the low bits of the sum.
const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23

/// Rounded activations, row after row.
#[derive(Debug, Default)]
pub(super) struct Activations {
    /// The integers, in -127..=127.
    pub(super) quants: Vec<i8>,
    /// The integers once more, in 16 bits, if they were asked for: for several rows and signed weights.
    pub(super) wide: Vec<i16>,
    /// The sums of each 16 integers, if they were asked for: for signed weights that are made unsigned.
    pub(super) totals: Vec<i32>,
    /// `d` of each run. NaN where an activation was infinite or NaN.
    pub(super) scales: Vec<f32>,
    /// `d` times the sum of the run's integers.
    pub(super) sums: Vec<f32>,
}

impl Activations {
    /// Rounds `x`, which is a whole number of runs, in place of what was there. `minima` tells whether it is for a format of weights whose
    /// blocks have a minimum: where scales are rounded to binary16, `d` times the sum is then rounded once, as in Q8_1.
    pub(super) fn round(&mut self, exec: Exec, x: &[f32], minima: bool) {
        let runs = x.len() / RUN;
        assert_eq!(x.len(), runs * RUN);
        self.quants.resize(x.len(), 0);
        self.scales.resize(runs, 0.0);
        self.sums.resize(runs, 0.0);
        self.wide.clear();
        self.totals.clear();
        let quants = SharedMut::new(&mut self.quants);
        let (scales, sums) = (SharedMut::new(&mut self.scales), SharedMut::new(&mut self.sums));
        let per_task = TASK_ELEMENTS / RUN;
        for_each(exec, runs.div_ceil(per_task), |task| {
            let start = task * per_task;
            let len = per_task.min(runs - start);
            // SAFETY: runs of different tasks do not overlap.
            let (quants, scales, sums) =
                unsafe { (quants.slice(start * RUN, len * RUN), scales.slice(start, len), sums.slice(start, len)) };
            dispatch(exec, Round { x: &x[start * RUN..][..len * RUN], quants, scales, sums });
            if exec.rounds_activations() {
                let half = |x: f32| f16_to_f32(f32_to_f16(x));
                for (scale, sum) in scales.iter_mut().zip(sums) {
                    let before = *scale;
                    *scale = half(*scale);
                    // `sum / before` is a whole number.
                    *sum = if minima || before == 0.0 { half(*sum) } else { (*sum / before).round() * *scale };
                }
            }
        });
    }

    /// Fills `totals`.
    pub(super) fn add_up(&mut self) {
        self.totals.clear();
        let sixteens = self.quants.as_chunks::<16>().0;
        self.totals.extend(sixteens.iter().map(|q| q.iter().map(|&q| i32::from(q)).sum::<i32>()));
    }

    /// Fills `wide`.
    pub(super) fn widen(&mut self) {
        self.wide.clear();
        self.wide.extend(self.quants.iter().map(|&q| i16::from(q)));
    }
}

struct Round<'a> {
    x: &'a [f32],
    quants: &'a mut [i8],
    scales: &'a mut [f32],
    sums: &'a mut [f32],
}

impl Kernel for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let runs = self.x.as_chunks::<RUN>().0.iter().zip(self.quants.as_chunks_mut::<RUN>().0);
        for ((x, quants), (scale, sum)) in runs.zip(self.scales.iter_mut().zip(self.sums)) {
            // The bits of magnitudes are ordered as the magnitudes are, with NaN above infinity.
            let bits = x.iter().fold(0_u32, |largest, x| largest.max(x.to_bits() & 0x7FFF_FFFF));
            let largest = f32::from_bits(bits);
            let inverse = if largest < NEGLIGIBLE { 0.0 } else { 127.0 / largest };
            let mut total = 0_i32;
            for i in 0..RUN {
                let q = ((x[i] * inverse + ROUND).to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32) as i8;
                quants[i] = q;
                total += i32::from(q);
            }
            let d = if largest < NEGLIGIBLE { 0.0 } else { largest / 127.0 };
            *scale = if largest.is_finite() { d } else { f32::NAN };
            *sum = *scale * total as f32;
        }
    }
}

/// The activations that a product with quantized weights sees, in f64.
pub(super) mod reference {
    /// `x` with each run of 32 rounded to multiples of its largest magnitude over 127.
    pub fn rounded(x: &[f32]) -> Vec<f64> {
        let run = |x: &[f32]| {
            let largest = x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
            let inverse = if largest == 0.0 { 0.0 } else { 127.0 / largest };
            let d = f64::from(largest / 127.0);
            x.iter().map(|x| d * f64::from((x * inverse).round_ties_even())).collect::<Vec<_>>()
        };
        x.chunks(super::RUN).flat_map(run).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::Isa;
    use crate::testing::test_input;

    fn rounded(exec: Exec, x: &[f32]) -> Activations {
        let mut activations = Activations::default();
        activations.round(exec, x, false);
        activations
    }

    #[test]
    fn the_reference_has_the_worked_out_values() {
        // Largest 12.7, so a step of 0.1: 0.26 is nearest to 3 steps.
        let mut x = [0.0; 32];
        (x[3], x[7]) = (-12.7, 0.26);
        let y = reference::rounded(&x);
        assert!((y[3] + 12.7).abs() < 1e-6 && (y[7] - 0.3).abs() < 1e-6 && y[0] == 0.0);
    }

    #[test]
    fn every_instruction_set_and_thread_count_rounds_as_the_reference() {
        let mut x = test_input(32 * 1500, 1);
        x[32..64].fill(0.0);
        x[64..96].iter_mut().for_each(|x| *x *= 1e-31);
        let want = reference::rounded(&x);
        for isa in Isa::available() {
            for threads in [1, 2] {
                let got = rounded(Exec::new(threads).with_isa(isa), &x);
                for (run, q) in got.quants.chunks(RUN).enumerate() {
                    let total: f64 = q.iter().map(|&q| f64::from(q)).sum();
                    let d = f64::from(got.scales[run]);
                    assert!((f64::from(got.sums[run]) - d * total).abs() <= 1e-6 * (d * total).abs());
                    for (i, &q) in q.iter().enumerate() {
                        let want = if run == 2 { 0.0 } else { want[run * RUN + i] };
                        assert!((d * f64::from(q) - want).abs() <= 1e-7, "{}, run {run}, {i}", isa.name());
                    }
                }
            }
        }
    }

    #[test]
    fn a_run_with_a_nan_or_an_infinity_has_a_scale_of_nan() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = test_input(96, 1);
            x[40] = bad;
            for isa in Isa::available() {
                let got = rounded(Exec::new(1).with_isa(isa), &x);
                assert!(got.scales[1].is_nan() && got.sums[1].is_nan() && !got.scales[0].is_nan());
            }
        }
    }
}
