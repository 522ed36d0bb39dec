//! Products of operands rounded to 16-bit floats, where a CPU has such products: AVX-512 with BF16 or FP16.
//!
//! `product.rs` cuts a product into tasks, `pack.rs` rounds and lays out their operands, `bf16.rs` and `f16.rs` are the register
//! tiles. What is here decides, with the shapes, on every bit of a result, and is shared with the model of `f16.rs` that tests use.

/// The instance of a tile for its rows and vectors, called.
#[cfg(target_arch = "x86_64")]
macro_rules! tile_of {
    ($rows:expr, $vectors:expr, $tile:ident($($argument:expr),*)) => {
        tile_of!(@ $rows, $vectors, $tile($($argument),*): 1 2 3 4 5 6 7 8 9 10 11 12 13 14)
    };
    (@ $rows:expr, $vectors:expr, $tile:ident $arguments:tt: $($count:literal)*) => {
        match ($rows, $vectors) {
            $(($count, 2) => $tile::<$count, 2> $arguments,)*
            $(($count, _) => $tile::<$count, 1> $arguments,)*
            (rows, _) => unreachable!("a tile of {rows} rows"),
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod bf16;
#[cfg(target_arch = "x86_64")]
mod f16;
#[cfg(test)]
mod model;
#[cfg(target_arch = "x86_64")]
mod pack;
#[cfg(target_arch = "x86_64")]
mod product;
#[cfg(test)]
mod tests;

#[cfg(target_arch = "x86_64")]
pub(crate) use f16::is_sound;
#[cfg(target_arch = "x86_64")]
pub(super) use product::matmuls;

/// Most of the shared dimension at a time: a strip of `A` (28 KB) stays in the first-level cache.
const KC: usize = 1024;
/// Words of a run: the terms of a sum in binary16, for which `f16.rs` has the reasons.
const RUN: usize = 64;
/// The largest magnitude of a scaled lane is from `2^TOP` on and below twice that: as large as the sums of a run allow, so that the least
/// is lost of what is small beside it. Halves are normal from `2^-14` on: elements down to `2^-17` of the largest are rounded by
/// `2^-11` of themselves, those below by `2^-28` of the largest.
const TOP: i32 = 3;
// Terms are at most 2^(TOP + 1) squared, and 65504 is the largest half.
const _: () = assert!(RUN << (2 * (TOP + 1)) < 65504);

/// `total` in equal parts, rounded up to whole units.
fn equal(total: usize, parts: usize, unit: usize) -> usize {
    total.div_ceil(parts).next_multiple_of(unit).max(unit)
}

/// How much of a shared dimension of `k` steps is multiplied at a time.
fn block_of(k: usize) -> usize {
    equal(k, k.div_ceil(KC).max(1), 32)
}
