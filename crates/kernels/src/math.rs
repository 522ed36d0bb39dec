//! Elementary functions as branch-free scalar code, which the compiler vectorizes inside a loop.
//!
//! Sources: the range reduction of `exp` and `sin`/`cos` and their polynomials are those of Moshier's Cephes library
//! (`expf.c`, `sinf.c`), after Cody and Waite 1980, "Software Manual for the Elementary Functions"; the polynomials of
//! `erf` are Juffa's (<https://stackoverflow.com/a/35148199>).

use crate::simd::Simd;

/// Adding it rounds a number of magnitude below 2^22 to an integer, found in the low bits of the sum.
const ROUND_F32: f32 = 12_582_912.0; // 1.5 * 2^23
/// The same for f64 and magnitudes below 2^51.
const ROUND_F64: f64 = 6_755_399_441_055_744.0; // 1.5 * 2^52

/// `(e^x - 1 - x) / x^2` for `|x| <= ln 2 / 2`: coefficients from the constant on.
pub(crate) const EXP: [f32; 6] = [0.5, 0.166_666_65, 4.166_579_6e-2, 8.333_452e-3, 1.398_199_9e-3, 1.987_569_1e-4];

/// `e^x`.
///
/// Numbers: within 2 units in the last place of normal results; denormal results are right too, unless the thread
/// flushes them. 0 below -104, infinity above 88.73, NaN for NaN.
#[inline(always)]
pub fn exp<S: Simd>(simd: S, x: f32) -> f32 {
    // Comparisons in this direction keep a NaN; beyond these ends the result is 0 or infinity anyway.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -105.0 { -105.0 } else { x };
    // x = n ln 2 + r with |r| <= ln 2 / 2. The high part of ln 2 has so few bits that its product with n is exact.
    // The bits of `shifted` end in those of n + 254, the two exponents' biases.
    let shifted = simd.mul_add(x, std::f32::consts::LOG2_E, ROUND_F32 + 254.0);
    let n = shifted - (ROUND_F32 + 254.0);
    let r = simd.mul_add(n, -0.693_359_4, x);
    let r = simd.mul_add(n, 2.121_944_4e-4, r);
    let p = simd.mul_add(EXP[5], r, EXP[4]);
    let p = simd.mul_add(p, r, EXP[3]);
    let p = simd.mul_add(p, r, EXP[2]);
    let p = simd.mul_add(p, r, EXP[1]);
    let p = simd.mul_add(p, r, EXP[0]);
    let p = simd.mul_add(p, r * r, r) + 1.0;
    // Two factors, since 2^n alone leaves the exponent's range where the result is denormal or just below infinity.
    let biased = shifted.to_bits();
    let half = biased >> 1;
    p * f32::from_bits(half << 23) * f32::from_bits(biased.wrapping_sub(half) << 23)
}

/// `s = 1 / (1 + e^-z)` and `1 - s`, both to a few units in the last place, so that neither tail cancels.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(simd: S, z: f32) -> (f32, f32) {
    sigmoid_of_negated(simd, -z)
}

/// [`sigmoid`] of `-z`.
#[inline(always)]
pub(crate) fn sigmoid_of_negated<S: Simd>(simd: S, z: f32) -> (f32, f32) {
    let e = exp(simd, z);
    let s = 1.0 / (1.0 + e);
    // Where e overflows, s is 0 and the first form would be NaN; where s is near 1, the second would cancel.
    (s, if z < 0.0 { e * s } else { 1.0 - s })
}

/// `erf(x) = 2 / sqrt(pi) * integral of e^(-t^2) over 0..x`.
///
/// Numbers: within 2 units in the last place.
#[inline(always)]
pub(crate) fn erf<S: Simd>(simd: S, x: f32) -> f32 {
    let t = x.abs();
    let s = x * x;
    // Near zero: an odd polynomial.
    let p = simd.mul_add(-5.967_617e-4, s, 4.991_194_2e-3);
    let p = simd.mul_add(p, s, -2.676_813_5e-2);
    let p = simd.mul_add(p, s, 0.112_819_925);
    let p = simd.mul_add(p, s, -0.376_125_34);
    let p = simd.mul_add(p, s, 0.128_379_17);
    let near = simd.mul_add(p, x, x);
    // In the tails: 1 - e^polynomial.
    let q = simd.mul_add(-1.728_534_7e-5, t, 3.831_971_3e-4);
    let u = simd.mul_add(-3.883_964_4e-3, t, 2.425_462_2e-2);
    let q = simd.mul_add(q, s, u);
    let q = simd.mul_add(q, t, -0.106_777_88);
    let q = simd.mul_add(q, t, -0.634_846_7);
    let q = simd.mul_add(q, t, -0.128_717_51);
    let q = simd.mul_add(q, t, -t);
    let far = (1.0 - exp(simd, q)).copysign(x);
    if t > 0.927_734_4 { far } else { near }
}

/// `(sin, cos)` of an angle in radians.
///
/// Numbers: the angle is reduced in f64, so the error is about 1e-7 for every angle below 1e9.
#[inline(always)]
pub(crate) fn sin_cos<S: Simd>(simd: S, angle: f64) -> (f32, f32) {
    // angle = (quarter + r) pi / 2 with |r| <= 1/2.
    let quarters = angle * std::f64::consts::FRAC_2_PI;
    let shifted = quarters + ROUND_F64;
    let quarter = shifted.to_bits() as u32;
    let r = ((quarters - (shifted - ROUND_F64)) * std::f64::consts::FRAC_PI_2) as f32;
    let s = r * r;
    let p = simd.mul_add(-1.951_529_6e-4, s, 8.332_161e-3);
    let p = simd.mul_add(p, s, -0.166_666_55);
    let sin = simd.mul_add(p * s, r, r);
    let q = simd.mul_add(2.443_315_7e-5, s, -1.388_731_6e-3);
    let q = simd.mul_add(q, s, 4.166_664_6e-2);
    let cos = simd.mul_add(q * s, s, simd.mul_add(-0.5, s, 1.0));
    // A quarter turn swaps the two; sin is negative in quarters 2 and 3, cos in 1 and 2.
    let swap = quarter & 1 == 1;
    let (sin, cos) = (if swap { cos } else { sin }, if swap { sin } else { cos });
    let sin_sign = (quarter & 2) << 30;
    let cos_sign = (quarter.wrapping_add(1) & 2) << 30;
    (f32::from_bits(sin.to_bits() ^ sin_sign), f32::from_bits(cos.to_bits() ^ cos_sign))
}

/// `erf` in f64 for references: the series `2 / sqrt(pi) * e^(-x^2) * sum of 2^n x^(2n+1) / (2n+1)!!`, whose terms all
/// have one sign. Source: Abramowitz and Stegun, 7.1.6.
pub(crate) fn erf_f64(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let mut term = x;
    let mut sum = x;
    let mut n = 0.0;
    while term.abs() > 1e-17 * sum.abs() {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::{Exec, Isa};
    use crate::simd::{Kernel, dispatch};
    use crate::testing::ulps;

    /// Evaluates one function over a slice, in a loop that the compiler vectorizes, as kernels use it.
    struct Map<'a, F> {
        x: &'a [f32],
        function: F,
    }
    #[derive(Clone, Copy)]
    struct Exp;
    #[derive(Clone, Copy)]
    struct Erf;
    #[derive(Clone, Copy)]
    struct Sigmoid;
    trait Function {
        fn call<S: Simd>(&self, simd: S, x: f32) -> f32;
    }
    impl Function for Exp {
        #[inline(always)]
        fn call<S: Simd>(&self, simd: S, x: f32) -> f32 {
            exp(simd, x)
        }
    }
    impl Function for Erf {
        #[inline(always)]
        fn call<S: Simd>(&self, simd: S, x: f32) -> f32 {
            erf(simd, x)
        }
    }
    impl Function for Sigmoid {
        #[inline(always)]
        fn call<S: Simd>(&self, simd: S, x: f32) -> f32 {
            sigmoid(simd, x).1
        }
    }
    impl<F: Function> Kernel for Map<'_, F> {
        type Output = Vec<f32>;
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> Vec<f32> {
            self.x.iter().map(|&x| self.function.call(simd, x)).collect()
        }
    }

    /// Values of `function` on `x`, for each instruction set.
    fn on_each_isa<F: Function + Copy>(function: F, x: &[f32]) -> Vec<(Isa, Vec<f32>)> {
        let run = |isa| (isa, dispatch(Exec::new(1).with_isa(isa), Map { x, function }));
        Isa::available().into_iter().map(run).collect()
    }

    fn check(function: impl Function + Copy, truth: impl Fn(f64) -> f64, range: (f32, f32), bound: f64) {
        let count = 400_003;
        let at = |i: usize| range.0 + (range.1 - range.0) * (i as f32 / (count - 1) as f32);
        let x: Vec<f32> = (0..count).map(at).collect();
        for (isa, y) in on_each_isa(function, &x) {
            for (&x, y) in x.iter().zip(y) {
                let gap = ulps(y, truth(f64::from(x)));
                assert!(gap <= bound, "{}: x = {x:e}, got {y:e}, {gap} ulp", isa.name());
            }
        }
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        check(Exp, f64::exp, (-104.0, 88.72), 2.0);
        check(Exp, f64::exp, (-1.0, 1.0), 2.0);
    }

    #[test]
    fn exp_flushes_and_overflows_at_its_ends_and_keeps_nan() {
        let x = [-104.1, -1e9, f32::NEG_INFINITY, 88.73, 1e9, f32::INFINITY, f32::NAN, 0.0, -0.0];
        for (_, y) in on_each_isa(Exp, &x) {
            assert_eq!(y[..3], [0.0; 3]);
            assert_eq!(y[3..6], [f32::INFINITY; 3]);
            assert!(y[6].is_nan());
            assert_eq!(y[7..], [1.0; 2]);
        }
    }

    #[test]
    fn erf_is_within_two_units_in_the_last_place() {
        check(Erf, erf_f64, (-5.0, 5.0), 2.0);
        for (_, y) in on_each_isa(Erf, &[1e30, f32::NEG_INFINITY, f32::NAN]) {
            assert!(y[0] == 1.0 && y[1] == -1.0 && y[2].is_nan());
        }
    }

    #[test]
    fn the_f64_erf_has_its_tabulated_values() {
        // Abramowitz and Stegun, table 7.1.
        for (x, want) in [(0.5, 0.520_499_877_8), (1.0, 0.842_700_792_9), (2.0, 0.995_322_265_0)] {
            assert!((erf_f64(x) - want).abs() < 1e-10 && (erf_f64(-x) + want).abs() < 1e-10);
        }
    }

    #[test]
    fn neither_tail_of_the_sigmoid_cancels() {
        check(Sigmoid, |z| 1.0 / (1.0 + z.exp()), (-80.0, 80.0), 6.0);
        for (_, y) in on_each_isa(Sigmoid, &[-1e30, 1e30, f32::NEG_INFINITY, f32::INFINITY]) {
            assert_eq!(y, [1.0, 0.0, 1.0, 0.0]);
        }
    }

    #[test]
    fn sin_and_cos_hold_at_large_angles() {
        for i in 0..200_000 {
            let angle = f64::from(i).powi(2) * 0.017 - 1e5;
            let (sin, cos) = sin_cos(crate::simd::Portable, angle);
            assert!((f64::from(sin) - angle.sin()).abs() < 1.5e-7, "sin {angle}");
            assert!((f64::from(cos) - angle.cos()).abs() < 1.5e-7, "cos {angle}");
        }
    }
}
