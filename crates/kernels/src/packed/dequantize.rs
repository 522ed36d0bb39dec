//! Storage forms back to f32.
//!
//! Source: the formats as in `reference.rs`.

use super::blocks::{Unpacked, unpack};
use super::format::Format;
use super::half::{bf16_to_f32, f16_to_f32};
use super::matrix::PackedMatrix;
use crate::exec::Exec;
use crate::lanes::{TASK_ELEMENTS, rows_per_task};
use crate::parallel::for_each_chunk;
use crate::simd::{Kernel, Simd, dispatch};

/// Weights taken apart at a time: the block of every quantized format divides it.
const PIECE: usize = 256;

/// The weights in `bytes`, which are whole blocks.
///
/// Numbers: exactly those of llama.cpp.
/// Law: the same bits on every instruction set and for any number of threads.
/// Panics: if `out` does not have one element for each weight.
/// Source: see the file's head.
pub fn dequantize(exec: Exec, format: Format, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(format.bytes_of(1, out.len()), Some(bytes.len()), "{} weights in {format}", out.len());
    let task_bytes = TASK_ELEMENTS / format.block_len() * format.block_bytes();
    for_each_chunk(exec, out, TASK_ELEMENTS, |task, out| {
        let bytes = &bytes[task * task_bytes..];
        let len = out.len() / format.block_len() * format.block_bytes();
        dispatch(exec, Dequantize { format, bytes: &bytes[..len], out });
    });
}

/// The rows of `weight` named by `ids`, as an embedding wants them.
///
/// Shapes: `out` is `(ids, cols)`.
/// Law: as [`dequantize`].
/// Panics: if an id is no row or `out` has another length.
/// Source: see the file's head.
pub fn rows(exec: Exec, weight: &PackedMatrix, ids: &[u32], out: &mut [f32]) {
    let (cols, row_bytes, bytes) = (weight.cols(), weight.row_bytes(), weight.bytes());
    assert_eq!(out.len(), ids.len() * cols, "{} rows of {cols}", ids.len());
    if let Some(place) = ids.iter().position(|&id| id as usize >= weight.rows()) {
        panic!("token {place} has the id {}, the vocabulary has {} entries", ids[place], weight.rows());
    }
    let per_task = rows_per_task(cols);
    for_each_chunk(exec, out, per_task * cols, |task, out| {
        for (out, &id) in out.chunks_exact_mut(cols).zip(&ids[task * per_task..]) {
            let bytes = &bytes[id as usize * row_bytes..][..row_bytes];
            dispatch(exec, Dequantize { format: weight.format(), bytes, out });
        }
    });
}

/// The weights of `bytes`, on the calling thread.
pub(super) struct Dequantize<'a> {
    pub(super) format: Format,
    pub(super) bytes: &'a [u8],
    pub(super) out: &'a mut [f32],
}

impl Kernel for Dequantize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { format, bytes, out } = self;
        match format {
            Format::F32 => words(bytes, out, |bytes| f32::from_le_bytes(*bytes)),
            Format::F16 => words(bytes, out, |bytes| f16_to_f32(u16::from_le_bytes(*bytes))),
            Format::Bf16 => words(bytes, out, |bytes| bf16_to_f32(u16::from_le_bytes(*bytes))),
            _ => quantized(format, bytes, out),
        }
    }
}

#[inline(always)]
fn words<const BYTES: usize>(bytes: &[u8], out: &mut [f32], one: impl Fn(&[u8; BYTES]) -> f32) {
    for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
        *out = one(bytes);
    }
}

#[inline(always)]
fn quantized(format: Format, bytes: &[u8], out: &mut [f32]) {
    let (mut quants, mut scales, mut offsets) = ([0; PIECE], [0.0; PIECE / 16], [0.0; PIECE / 16]);
    let run_len = format.run_len();
    let piece_bytes = PIECE / format.block_len() * format.block_bytes();
    for (out, bytes) in out.chunks_mut(PIECE).zip(bytes.chunks(piece_bytes)) {
        let n_runs = out.len() / run_len;
        let (quants, scales) = (&mut quants[..out.len()], &mut scales[..n_runs]);
        let offsets = &mut offsets[..n_runs];
        unpack(format, bytes, Unpacked { quants, scales, offsets });
        for (run, out) in out.chunks_exact_mut(run_len).enumerate() {
            let (scale, offset) = (scales[run], offsets[run]);
            for (out, &q) in out.iter_mut().zip(&quants[run * run_len..]) {
                // Never fused, so that every machine has the same bits; the product is exact where offsets are not 0.
                *out = scale * f32::from(q) + offset;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::Isa;
    use crate::packed::reference;
    use crate::packed::testing::{random_bytes, random_matrix};

    #[test]
    fn every_path_has_the_bits_of_the_reference() {
        for format in Format::ALL {
            for n_blocks in [0, 1, 2, 7, 8, 9, 300] {
                let bytes = random_bytes(format, n_blocks, n_blocks);
                let want = reference::dequantize(format, &bytes);
                for isa in Isa::available() {
                    for threads in [1, 3] {
                        let mut got = vec![f32::NAN; want.len()];
                        dequantize(Exec::new(threads).with_isa(isa), format, &bytes, &mut got);
                        assert!(got == want, "{format}, {n_blocks} blocks, {}, {threads} threads", isa.name());
                    }
                }
            }
        }
    }

    #[test]
    fn rows_are_those_named() {
        for format in Format::ALL {
            // More rows than a task copies.
            let (cols, ids) = (512, (0..100).map(|i| i * 7 % 5).collect::<Vec<u32>>());
            let weight = random_matrix(format, 5, cols, 1);
            let all = reference::dequantize(format, weight.bytes());
            let mut out = vec![f32::NAN; ids.len() * cols];
            rows(Exec::new(2), &weight, &ids, &mut out);
            for (&id, row) in ids.iter().zip(out.chunks(cols)) {
                assert!(row == &all[id as usize * cols..][..cols], "{format}, row {id}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "token 1 has the id 2, the vocabulary has 2 entries")]
    fn a_row_beyond_the_end_is_refused() {
        let weight = PackedMatrix::from_bytes(Format::F32, 2, 1, vec![0; 8]).unwrap();
        rows(Exec::new(1), &weight, &[1, 2], &mut [0.0; 2]);
    }
}
