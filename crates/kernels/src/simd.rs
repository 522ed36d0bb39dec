//! One kernel body, compiled once per instruction set and chosen at run time.
//!
//! A [`Kernel`] is plain Rust over slices and fixed-size lane arrays, always inlined into a function
//! that carries the target features, so that the compiler vectorizes it for each set. Nothing here
//! but the dispatch is `unsafe`.
#![expect(unsafe_code, reason = "calling a function with target features needs unsafe")]

use crate::exec::{Exec, Isa};

/// Lanes of one accumulator row in reductions: the same on every instruction set, so that
/// the order of a sum (and its bits, up to fused multiply-add) does not depend on the machine.
pub const LANES: usize = 16;

/// What differs between instruction sets inside a kernel body.
pub trait Simd: Copy + Send + Sync {
    /// Whether `a * b + c` is one rounding (and one instruction).
    const FMA: bool;

    /// `a * b + c`, fused where the instruction set has it.
    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        if Self::FMA { a.mul_add(b, c) } else { a * b + c }
    }
}

macro_rules! instruction_set {
    ($name:ident, $fma:expr) => {
        #[doc = concat!("Marker of the instruction set `", stringify!($name), "`.")]
        #[derive(Clone, Copy, Debug)]
        pub struct $name;
        impl Simd for $name {
            const FMA: bool = $fma;
        }
    };
}
instruction_set!(Portable, false);
instruction_set!(Neon, true);
instruction_set!(Avx2, true);
instruction_set!(Avx512, true);

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
    kernel.run(Avx2)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f,avx512vl,avx512bw,avx512dq")]
fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512)
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
