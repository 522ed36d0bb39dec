//! Register tiles for AVX-512 with VNNI.
//!
//! A word holds four steps. Activations are stored without sign, 128 above what they are, since `vpdpbusd` multiplies bytes without
//! sign by bytes with one; the sums begin with what that adds.
#![expect(unsafe_code, reason = "calls of functions with target features")]

mod pack;
mod tile;

use super::blocked::{Out, Tile, Tiles, Weights};
use crate::matmul::avx512::{LANES, MR, NR, lanes_below};
use std::ops::Range;

/// Tiles of AVX-512 F, BW and VNNI.
pub(super) struct Avx512Vnni;

impl Tiles for Avx512Vnni {
    const MR: usize = MR;
    const NR: usize = NR;
    const WORDS: usize = 1;
    const KC: usize = 2048;
    const NEAR_WORDS: usize = 0;

    unsafe fn round<'x>(
        rows: impl Iterator<Item = &'x [f32]>,
        fold: Option<&[f32]>,
        out: *mut u32,
        scales: *mut f32,
        scale_step: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe { pack::activations(rows, fold, out, scales, scale_step) }
    }

    unsafe fn pack(weights: &Weights<'_>, columns: Range<usize>, steps: Range<usize>, out: *mut u32, zeros: *mut i32) {
        // SAFETY: the caller's promise.
        unsafe { pack::weights(weights, columns, steps, out, zeros) }
    }

    unsafe fn multiply(rows: usize, columns: usize, of: Tile, out: Out) {
        let vectors = columns.div_ceil(LANES);
        // SAFETY: the caller's promise.
        unsafe { tile::multiply(rows, vectors, of, out, lanes_below(columns - (vectors - 1) * LANES)) }
    }
}
