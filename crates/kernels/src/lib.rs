//! The CPU maths of cavy: slices in, slices out.
//!
//! Each file holds one kernel: its formula, a plain reference in f64, the backward pass, the fast
//! path and the tests that hold them together. This crate knows no tensor library, no files and no clock; threads and
//! instruction set come in as an [`Exec`].

pub mod adamw;
pub mod adamw8;
pub mod add;
pub mod attention;
pub mod block;
pub mod buffer;
pub mod cached_attention;
pub mod dropout;
pub mod embedding;
pub mod exec;
pub mod gelu;
#[cfg(test)]
mod golden;
pub mod grad_norm;
pub mod head;
pub mod int8;
pub mod kv_cache;
mod lanes;
pub mod layer_norm;
pub mod linear;
pub mod low_rank;
pub mod math;
pub mod matmul;
pub mod mlp;
pub mod packed;
pub mod parallel;
pub mod random;
pub mod rms_norm;
pub mod rope;
pub mod segments;
pub mod simd;
pub mod swiglu;
#[cfg(test)]
mod testing;

pub use exec::{Exec, HalfFormat, Isa, Precision};
