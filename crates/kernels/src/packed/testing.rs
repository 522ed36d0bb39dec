//! Matrices for the tests of this folder.

use super::format::Format;
use super::half::f32_to_f16;
use super::matrix::PackedMatrix;

/// The bytes of a block at which its binary16 numbers begin.
pub(super) fn scale_places(format: Format) -> &'static [usize] {
    match format {
        Format::F32 | Format::Bf16 => &[],
        Format::F16 | Format::Q4_0 | Format::Q5_0 | Format::Q8_0 => &[0],
        Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K => &[0, 2],
        Format::Q6K => &[208],
    }
}

/// `n_blocks` blocks of arbitrary bits whose scales are finite and of ordinary size.
pub(super) fn random_bytes(format: Format, n_blocks: usize, salt: usize) -> Vec<u8> {
    let mut state = salt as u32 * 2_654_435_769 + 12_345;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    let halves = scale_places(format);
    let mut bytes = Vec::new();
    for _ in 0..n_blocks {
        let value = next() as f32 / (1 << 23) as f32 - 1.0;
        let mut block: Vec<u8> = match format {
            Format::F32 => value.to_le_bytes().to_vec(),
            Format::Bf16 => value.to_le_bytes()[2..].to_vec(),
            _ => (0..format.block_bytes()).map(|_| (next() >> 3) as u8).collect(),
        };
        for &at in halves {
            let scale = next() as f32 / (1 << 23) as f32 - 1.0;
            // One in sixteen is denormal as binary16.
            let scale = if next().is_multiple_of(16) { scale * 3e-5 } else { scale };
            block[at..at + 2].copy_from_slice(&f32_to_f16(scale).to_le_bytes());
        }
        bytes.extend(block);
    }
    bytes
}

/// A matrix of [`random_bytes`].
pub(crate) fn random_matrix(format: Format, rows: usize, cols: usize, salt: usize) -> PackedMatrix {
    let bytes = random_bytes(format, rows * cols / format.block_len(), salt);
    PackedMatrix::from_bytes(format, rows, cols, bytes).unwrap()
}
