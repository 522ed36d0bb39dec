//! Lanes in the vectors of x86-64: one of AVX-512, two of AVX2, four of the SSE2 that every machine has.

use super::{LANES, Simd};
use crate::lanes;
use std::arch::x86_64::{
    __m128, __m256, __m512, __mmask16, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_loadu_ps, _mm_max_ps, _mm_max_ss,
    _mm_movehdup_ps, _mm_movehl_ps, _mm_mul_ps, _mm_set1_ps, _mm_storeu_ps, _mm_sub_ps, _mm256_add_ps,
    _mm256_castps256_ps128, _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_max_ps, _mm256_mul_ps,
    _mm256_set1_ps, _mm256_storeu_ps, _mm256_sub_ps, _mm512_add_ps, _mm512_castps512_ps256, _mm512_extractf32x8_ps,
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_loadu_ps, _mm512_mask_storeu_ps, _mm512_mul_ps, _mm512_set1_ps,
    _mm512_storeu_ps, _mm512_sub_ps,
};

/// The type, what its vectors are and their operations; of lanes in several vectors, those of each.
macro_rules! instruction_set {
    ($name:ident, $vectors:expr, $vector:ty, $fma:expr, $set:ident, $load:ident, $store:ident, $add:ident, $sub:ident, $mul:ident,
     |$a:ident, $b:ident, $c:ident| $mul_add:expr) => {
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
    |a, b, c| _mm_add_ps(_mm_mul_ps(a, b), c)
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
    |a, b, c| _mm256_fmadd_ps(a, b, c)
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

/// The first `len` lanes.
#[inline(always)]
fn first(len: usize) -> __mmask16 {
    ((1_u32 << len.min(LANES)) - 1) as __mmask16
}

impl Simd for Avx512 {
    const FMA: bool = true;
    const ROOMY: bool = true;
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
}
