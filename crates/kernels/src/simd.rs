//! One kernel body, compiled once per instruction set and chosen at run time.
//!
//! A [`Kernel`] is plain Rust over slices and fixed-size lane arrays, always inlined into a function
//! that carries the target features, so that the compiler vectorizes it for each set. Nothing here
//! but the dispatch is `unsafe`.
#![expect(unsafe_code, reason = "calling a function with target features needs unsafe")]

use crate::exec::{Exec, Isa};
use crate::math::{exp, sigmoid_of_negated};

/// Lanes of one accumulator row in reductions: the same on every instruction set, so that
/// the order of a sum (and its bits, up to fused multiply-add) does not depend on the machine.
pub const LANES: usize = 16;

/// What differs between instruction sets inside a kernel body.
///
/// Most bodies leave it to the compiler to see vectors in loops over lanes. Where it does not, they say so with [`Simd::Lanes`],
/// whose operations are those of the scalars, lane by lane, and so have their bits.
pub trait Simd: Copy + Send + Sync {
    /// Whether `a * b + c` is one rounding (and one instruction).
    const FMA: bool;
    /// Whether the registers hold dozens of [`Simd::Lanes`], so that a kernel may keep several rows in them.
    const ROOMY: bool = false;
    /// Factor of the arguments of [`Simd::logistic_lanes`]: it is fastest with powers of 2 in some sets and of e in others.
    const LOGISTIC_UNIT: f64 = 1.0;
    /// [`LANES`] numbers.
    type Lanes: Copy;

    /// `a * b + c`, fused where the instruction set has it.
    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        if Self::FMA { a.mul_add(b, c) } else { a * b + c }
    }

    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::Lanes;
    /// The numbers at `x`.
    fn load(self, x: &[f32; LANES]) -> Self::Lanes;
    /// Those at `x`, at most [`LANES`], and the lanes of `rest` behind them.
    fn load_part(self, x: &[f32], rest: Self::Lanes) -> Self::Lanes;
    /// Writes all lanes.
    fn store(self, lanes: Self::Lanes, to: &mut [f32; LANES]);
    /// Writes as many lanes as `to` has room for, at most [`LANES`].
    fn store_part(self, lanes: Self::Lanes, to: &mut [f32]);
    /// `a + b`.
    fn add(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// `a - b`.
    fn sub(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// `a * b`.
    fn mul(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// The larger of each pair; `a` where either is NaN.
    fn larger(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// The lanes of `x` where `from <= index < to`, those of `other` elsewhere.
    fn between(self, index: Self::Lanes, ends: [Self::Lanes; 2], x: Self::Lanes, other: Self::Lanes) -> Self::Lanes;
    /// [`Simd::mul_add`] of each lane.
    fn mul_add_lanes(self, a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes;
    /// The sum of all lanes, in pairs at half the width, a quarter, ...
    fn sum(self, lanes: Self::Lanes) -> f32;
    /// The largest lane.
    fn largest(self, lanes: Self::Lanes) -> f32;

    /// [`exp`] of each lane, to the same accuracy.
    #[inline(always)]
    fn exp_lanes(self, x: Self::Lanes) -> Self::Lanes {
        let mut all = [0.0; LANES];
        self.store(x, &mut all);
        for lane in 0..LANES {
            all[lane] = exp(self, all[lane]);
        }
        self.load(&all)
    }

    /// The natural logarithm of each lane, within 2 units in the last place.
    #[inline(always)]
    fn ln_lanes(self, x: Self::Lanes) -> Self::Lanes {
        let mut all = [0.0; LANES];
        self.store(x, &mut all);
        self.load(&all.map(f32::ln))
    }

    /// `s = 1 / (1 + e^z)` of each lane and `s (1 - s)`, from `z` times [`Simd::LOGISTIC_UNIT`]. No tail cancels.
    #[inline(always)]
    fn logistic_lanes(self, z: Self::Lanes) -> (Self::Lanes, Self::Lanes) {
        let [mut values, mut slopes] = [[0.0; LANES]; 2];
        self.store(z, &mut values);
        for lane in 0..LANES {
            let (s, rest) = sigmoid_of_negated(self, values[lane]);
            (values[lane], slopes[lane]) = (s, s * rest);
        }
        (self.load(&values), self.load(&slopes))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86;

/// Lanes as an array, for the compiler to put into vectors.
#[cfg(not(target_arch = "x86_64"))]
macro_rules! lanes_in_an_array {
    () => {
        type Lanes = [f32; LANES];

        #[inline(always)]
        fn splat(self, x: f32) -> Self::Lanes {
            [x; LANES]
        }
        #[inline(always)]
        fn load(self, x: &[f32; LANES]) -> Self::Lanes {
            *x
        }
        #[inline(always)]
        fn load_part(self, x: &[f32], mut rest: Self::Lanes) -> Self::Lanes {
            rest.iter_mut().zip(x).for_each(|(lane, x)| *lane = *x);
            rest
        }
        #[inline(always)]
        fn store(self, lanes: Self::Lanes, to: &mut [f32; LANES]) {
            *to = lanes;
        }
        #[inline(always)]
        fn store_part(self, lanes: Self::Lanes, to: &mut [f32]) {
            to.iter_mut().zip(lanes).for_each(|(to, lane)| *to = lane);
        }
        #[inline(always)]
        fn add(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
            std::array::from_fn(|i| a[i] + b[i])
        }
        #[inline(always)]
        fn sub(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
            std::array::from_fn(|i| a[i] - b[i])
        }
        #[inline(always)]
        fn mul(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
            std::array::from_fn(|i| a[i] * b[i])
        }
        #[inline(always)]
        fn larger(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
            std::array::from_fn(|i| if b[i] > a[i] { b[i] } else { a[i] })
        }
        #[inline(always)]
        fn between(
            self,
            index: Self::Lanes,
            [from, to]: [Self::Lanes; 2],
            x: Self::Lanes,
            other: Self::Lanes,
        ) -> Self::Lanes {
            // By the bits, since of a choice the compiler may make a branch.
            let is_in = |i: usize| u32::from(index[i] >= from[i]) & u32::from(index[i] < to[i]);
            let bits = |i: usize, mask: u32| x[i].to_bits() & mask | other[i].to_bits() & !mask;
            std::array::from_fn(|i| f32::from_bits(bits(i, is_in(i).wrapping_neg())))
        }
        #[inline(always)]
        fn mul_add_lanes(self, a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes {
            std::array::from_fn(|i| self.mul_add(a[i], b[i], c[i]))
        }
        #[inline(always)]
        fn sum(self, lanes: Self::Lanes) -> f32 {
            crate::lanes::sum(lanes)
        }
        #[inline(always)]
        fn largest(self, lanes: Self::Lanes) -> f32 {
            crate::lanes::largest(lanes)
        }
    };
}

#[cfg(not(target_arch = "x86_64"))]
macro_rules! instruction_set {
    ($name:ident, $fma:expr) => {
        #[doc = concat!("Marker of the instruction set `", stringify!($name), "`.")]
        #[derive(Clone, Copy, Debug)]
        pub struct $name;
        impl Simd for $name {
            const FMA: bool = $fma;
            lanes_in_an_array!();
        }
    };
}
#[cfg(not(target_arch = "x86_64"))]
instruction_set!(Portable, false);
#[cfg(not(target_arch = "x86_64"))]
instruction_set!(Neon, true);
#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512, Portable};

/// A computation whose body is compiled for every instruction set. Mark `run` `#[inline(always)]`.
pub trait Kernel {
    /// What it returns.
    type Output;
    /// The body.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: as below.
    kernel.run(unsafe { Avx2::new() })
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f,avx512vl,avx512bw,avx512dq")]
fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the caller, which must be sure of these features.
    kernel.run(unsafe { Avx512::new() })
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn run_neon<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Neon)
}

/// Runs `kernel` compiled for the instruction set of `exec`, on the calling thread.
#[inline]
pub fn dispatch<K: Kernel>(exec: Exec, kernel: K) -> K::Output {
    match exec.isa() {
        // SAFETY: `Exec` holds only instruction sets that this machine supports.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { run_avx512(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { run_avx2(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => unsafe { run_neon(kernel) },
        _ => kernel.run(Portable),
    }
}

#[cfg(test)]
mod tests;
