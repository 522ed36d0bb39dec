//! Lanes in the vectors of x86-64: one of AVX-512, two of AVX2, four of the SSE2 that every machine has.

use super::{LANES, Simd};
use crate::lanes;
use crate::math::EXP;
use std::arch::x86_64::{
    __m128, __m256, __m512, __mmask16, _CMP_GE_OQ, _CMP_LT_OQ, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT,
    _MM_FROUND_TO_NEG_INF, _MM_MANT_NORM_P75_1P5, _MM_MANT_SIGN_NAN, _mm_add_ps, _mm_add_ss, _mm_and_ps, _mm_andnot_ps,
    _mm_cmpge_ps, _mm_cmplt_ps, _mm_cvtss_f32, _mm_loadu_ps, _mm_max_ps, _mm_max_ss, _mm_movehdup_ps, _mm_movehl_ps,
    _mm_mul_ps, _mm_or_ps, _mm_set1_ps, _mm_storeu_ps, _mm_sub_ps, _mm256_add_ps, _mm256_and_ps, _mm256_blendv_ps,
    _mm256_castps256_ps128, _mm256_cmp_ps, _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_max_ps,
    _mm256_mul_ps, _mm256_set1_ps, _mm256_storeu_ps, _mm256_sub_ps, _mm512_add_ps, _mm512_castps512_ps256,
    _mm512_cmp_ps_mask, _mm512_div_ps, _mm512_extractf32x8_ps, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_getexp_ps,
    _mm512_getmant_ps, _mm512_loadu_ps, _mm512_mask_cmp_ps_mask, _mm512_mask_loadu_ps, _mm512_mask_mov_ps,
    _mm512_mask_storeu_ps, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_reduce_ps, _mm512_roundscale_ps,
    _mm512_scalef_ps, _mm512_set1_ps, _mm512_storeu_ps, _mm512_sub_ps,
};
use std::f32::consts::{LN_2, LOG2_E};

/// The type, what its vectors are and their operations; of lanes in several vectors, those of each.
macro_rules! instruction_set {
    ($name:ident, $vectors:expr, $vector:ty, $fma:expr, $set:ident, $load:ident, $store:ident, $add:ident, $sub:ident, $mul:ident, $max:ident,
     |$a:ident, $b:ident, $c:ident| $mul_add:expr, |$index:ident, $from:ident, $to:ident, $x:ident, $other:ident| $between:expr) => {
        impl Simd for $name {
            const FMA: bool = $fma;
            type Lanes = [$vector; $vectors];

            #[inline(always)]
            fn splat(self, x: f32) -> Self::Lanes {
                // SAFETY: the marker's invariant, here and below.
                [unsafe { $set(x) }; $vectors]
            }
            #[inline(always)]
            fn load(self, x: &[f32; LANES]) -> Self::Lanes {
                let mut lanes = self.splat(0.0);
                for i in 0..$vectors {
                    // SAFETY: as above; the vectors are as long as `x`.
                    lanes[i] = unsafe { $load(x.as_ptr().add(i * LANES / $vectors)) };
                }
                lanes
            }
            #[inline(always)]
            fn load_part(self, x: &[f32], rest: Self::Lanes) -> Self::Lanes {
                let mut all = [0.0; LANES];
                self.store(rest, &mut all);
                all[..x.len()].copy_from_slice(x);
                self.load(&all)
            }
            #[inline(always)]
            fn store(self, lanes: Self::Lanes, to: &mut [f32; LANES]) {
                for i in 0..$vectors {
                    // SAFETY: as above; the vectors are as long as `to`.
                    unsafe { $store(to.as_mut_ptr().add(i * LANES / $vectors), lanes[i]) }
                }
            }
            #[inline(always)]
            fn store_part(self, lanes: Self::Lanes, to: &mut [f32]) {
                let mut all = [0.0; LANES];
                self.store(lanes, &mut all);
                to.copy_from_slice(&all[..to.len()]);
            }
            #[inline(always)]
            fn add(self, mut a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
                for i in 0..$vectors {
                    // SAFETY: as above.
                    a[i] = unsafe { $add(a[i], b[i]) };
                }
                a
            }
            #[inline(always)]
            fn sub(self, mut a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
                for i in 0..$vectors {
                    // SAFETY: as above.
                    a[i] = unsafe { $sub(a[i], b[i]) };
                }
                a
            }
            #[inline(always)]
            fn mul(self, mut a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
                for i in 0..$vectors {
                    // SAFETY: as above.
                    a[i] = unsafe { $mul(a[i], b[i]) };
                }
                a
            }
            #[inline(always)]
            fn larger(self, mut a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
                for i in 0..$vectors {
                    // SAFETY: as above. Of a number and a NaN, the second operand.
                    a[i] = unsafe { $max(b[i], a[i]) };
                }
                a
            }
            #[inline(always)]
            fn between(
                self,
                index: Self::Lanes,
                [from, to]: [Self::Lanes; 2],
                x: Self::Lanes,
                mut other: Self::Lanes,
            ) -> Self::Lanes {
                for i in 0..$vectors {
                    let ($index, $from, $to, $x, $other) = (index[i], from[i], to[i], x[i], other[i]);
                    // SAFETY: as above.
                    other[i] = unsafe { $between };
                }
                other
            }
            #[inline(always)]
            fn mul_add_lanes(self, a: Self::Lanes, b: Self::Lanes, mut c: Self::Lanes) -> Self::Lanes {
                for i in 0..$vectors {
                    let ($a, $b, $c) = (a[i], b[i], c[i]);
                    // SAFETY: as above.
                    c[i] = unsafe { $mul_add };
                }
                c
            }
            #[inline(always)]
            fn sum(self, lanes: Self::Lanes) -> f32 {
                let mut all = [0.0; LANES];
                self.store(lanes, &mut all);
                lanes::sum(all)
            }
            #[inline(always)]
            fn largest(self, lanes: Self::Lanes) -> f32 {
                let mut all = [0.0; LANES];
                self.store(lanes, &mut all);
                lanes::largest(all)
            }
        }
    };
}

/// Marker of the instruction set `Portable`.
#[derive(Clone, Copy, Debug)]
pub struct Portable;
instruction_set!(
    Portable,
    4,
    __m128,
    false,
    _mm_set1_ps,
    _mm_loadu_ps,
    _mm_storeu_ps,
    _mm_add_ps,
    _mm_sub_ps,
    _mm_mul_ps,
    _mm_max_ps,
    |a, b, c| _mm_add_ps(_mm_mul_ps(a, b), c),
    |index, from, to, x, other| {
        let is_in = _mm_and_ps(_mm_cmpge_ps(index, from), _mm_cmplt_ps(index, to));
        _mm_or_ps(_mm_and_ps(is_in, x), _mm_andnot_ps(is_in, other))
    }
);

/// Marker of the instruction set `Avx2`. Invariant: made only on machines that have it, so that its operations are safe.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());
instruction_set!(
    Avx2,
    2,
    __m256,
    true,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_add_ps,
    _mm256_sub_ps,
    _mm256_mul_ps,
    _mm256_max_ps,
    |a, b, c| _mm256_fmadd_ps(a, b, c),
    |index, from, to, x, other| {
        let is_in = _mm256_and_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(index, from), _mm256_cmp_ps::<_CMP_LT_OQ>(index, to));
        _mm256_blendv_ps(other, x, is_in)
    }
);

impl Avx2 {
    /// # Safety
    /// The machine has AVX2 and FMA.
    #[inline(always)]
    pub(super) unsafe fn new() -> Self {
        Self(())
    }
}

/// Marker of the instruction set `Avx512`. Invariant: as of [`Avx2`].
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

impl Avx512 {
    /// # Safety
    /// The machine has AVX-512 F, VL, BW and DQ.
    #[inline(always)]
    pub(super) unsafe fn new() -> Self {
        Self(())
    }
}

/// `ln 2` less its nearest f32.
const LN_2_REST: f32 = (std::f64::consts::LN_2 - LN_2 as f64) as f32;
/// The largest f32 below `ln 2`, and what it lacks.
const LN_2_BELOW: f32 = LN_2.next_down();
const LN_2_ABOVE: f32 = (std::f64::consts::LN_2 - LN_2_BELOW as f64) as f32;
/// `(ln(1 + x) - x + x^2 / 2) / x^3` for `-1/4 <= x <= 1/2`, to 5e-9 of the logarithm: coefficients from the constant on.
const LN: [f32; 8] =
    [0.333_334_5, -0.250_000_95, 0.199_908_61, -0.166_473_1, 0.144_783_88, -0.131_612_08, 0.104_631, -0.045_075_56];
/// `(2^x - 1) / x` for `0 <= x <= 1`, to 2e-9 of `2^x`: coefficients from the constant on.
const EXP2: [f32; 6] = [0.693_147_06, 0.240_229_31, 0.055_485_28, 9.675_452e-3, 1.246_783_9e-3, 2.161_294e-4];

/// The first `len` lanes.
#[inline(always)]
fn first(len: usize) -> __mmask16 {
    ((1_u32 << len.min(LANES)) - 1) as __mmask16
}

impl Simd for Avx512 {
    const FMA: bool = true;
    const ROOMY: bool = true;
    const LOGISTIC_UNIT: f64 = std::f64::consts::LOG2_E;
    type Lanes = __m512;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: the marker's invariant, here and below.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }
    #[inline(always)]
    fn load_part(self, x: &[f32], rest: __m512) -> __m512 {
        // SAFETY: as above; no more is read than there is.
        unsafe { _mm512_mask_loadu_ps(rest, first(x.len()), x.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, lanes: __m512, to: &mut [f32; LANES]) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), lanes) }
    }
    #[inline(always)]
    fn store_part(self, lanes: __m512, to: &mut [f32]) {
        // SAFETY: as above; no more is written than there is room for.
        unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), first(to.len()), lanes) }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn larger(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_max_ps(b, a) }
    }
    #[inline(always)]
    fn mul_add_lanes(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn sum(self, lanes: __m512) -> f32 {
        // SAFETY: as above.
        unsafe {
            let lanes = _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps::<1>(lanes));
            let lanes = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
            let lanes = _mm_add_ps(lanes, _mm_movehl_ps(lanes, lanes));
            _mm_cvtss_f32(_mm_add_ss(lanes, _mm_movehdup_ps(lanes)))
        }
    }
    #[inline(always)]
    fn largest(self, lanes: __m512) -> f32 {
        // SAFETY: as above. Of a number and a NaN, the second operand, as in the scalar comparison.
        unsafe {
            let lanes = _mm256_max_ps(_mm512_extractf32x8_ps::<1>(lanes), _mm512_castps512_ps256(lanes));
            let lanes = _mm_max_ps(_mm256_extractf128_ps::<1>(lanes), _mm256_castps256_ps128(lanes));
            let lanes = _mm_max_ps(_mm_movehl_ps(lanes, lanes), lanes);
            _mm_cvtss_f32(_mm_max_ss(_mm_movehdup_ps(lanes), lanes))
        }
    }
    #[inline(always)]
    fn between(self, index: __m512, [from, to]: [__m512; 2], x: __m512, other: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe {
            let mask = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(index, from);
            _mm512_mask_mov_ps(other, _mm512_mask_cmp_ps_mask::<_CMP_LT_OQ>(mask, index, to), x)
        }
    }
    #[inline(always)]
    fn exp_lanes(self, x: __m512) -> __m512 {
        let set = |x: f32| self.splat(x);
        // SAFETY: as above.
        unsafe {
            // As in the scalar function, but that the scaling takes every exponent. Of a number and a NaN, the second operand.
            let x = _mm512_min_ps(set(89.0), _mm512_max_ps(set(-105.0), x));
            let n = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.mul(x, set(LOG2_E)));
            let r = _mm512_fnmadd_ps(n, set(LN_2), x);
            let r = _mm512_fnmadd_ps(n, set(LN_2_REST), r);
            let s = self.mul(r, r);
            let p = self.mul_add_lanes(r, set(EXP[5]), set(EXP[4]));
            let p = self.mul_add_lanes(s, p, self.mul_add_lanes(r, set(EXP[3]), set(EXP[2])));
            let p = self.mul_add_lanes(s, p, self.mul_add_lanes(r, set(EXP[1]), set(EXP[0])));
            let p = self.add(self.mul_add_lanes(s, p, r), set(1.0));
            _mm512_scalef_ps(p, n)
        }
    }
    #[inline(always)]
    fn ln_lanes(self, x: __m512) -> __m512 {
        let set = |x: f32| self.splat(x);
        // SAFETY: as above.
        unsafe {
            // x = 2^n (1 + r) with 3/4 <= 1 + r < 3/2.
            let mantissa = _mm512_getmant_ps::<_MM_MANT_NORM_P75_1P5, _MM_MANT_SIGN_NAN>(x);
            let n = self.sub(_mm512_getexp_ps(x), _mm512_getexp_ps(mantissa));
            let r = self.sub(mantissa, set(1.0));
            let s = self.mul(r, r);
            let pair = |i: usize| self.mul_add_lanes(r, set(LN[i + 1]), set(LN[i]));
            let p =
                self.mul_add_lanes(s, self.mul_add_lanes(s, self.mul_add_lanes(s, pair(6), pair(4)), pair(2)), pair(0));
            let p = self.mul_add_lanes(s, self.mul_add_lanes(r, p, set(-0.5)), self.mul(n, set(LN_2_ABOVE)));
            // Both parts of ln 2 have one sign, so that infinite exponents stay.
            self.mul_add_lanes(n, set(LN_2_BELOW), self.add(r, p))
        }
    }
    #[inline(always)]
    fn logistic_lanes(self, z: __m512) -> (__m512, __m512) {
        let (set, one) = (|x: f32| self.splat(x), self.splat(1.0));
        // SAFETY: as above.
        unsafe {
            // 2^z is 2^(z - floor z), a polynomial, scaled by 2^(floor z).
            let r = _mm512_reduce_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(z);
            let s = self.mul(r, r);
            let p = self.mul_add_lanes(s, set(EXP2[5]), self.mul_add_lanes(r, set(EXP2[4]), set(EXP2[3])));
            let p = self.mul_add_lanes(s, p, self.mul_add_lanes(r, set(EXP2[2]), set(EXP2[1])));
            let p = self.mul_add_lanes(s, p, self.mul_add_lanes(r, set(EXP2[0]), one));
            let e = _mm512_scalef_ps(p, z);
            let sum = self.add(one, e);
            // 1 - s is e s, or 1 where e is infinite and s zero: of a number and a NaN, the second operand.
            let s = _mm512_div_ps(one, sum);
            (s, self.mul(s, _mm512_min_ps(self.mul(e, s), one)))
        }
    }
}
