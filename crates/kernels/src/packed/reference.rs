//! The block formats one weight at a time, straight from their definitions.
//!
//! The fields of a block, in the order of its bytes (`d`, `m` and `e` are binary16, numbers little-endian):
//!
//! | format | fields |
//! |---|---|
//! | `Q4_0` | `d`, 16 bytes of nibbles |
//! | `Q4_1` | `d`, `m`, 16 bytes of nibbles |
//! | `Q5_0` | `d`, 32 fifth bits, 16 bytes of nibbles |
//! | `Q5_1` | `d`, `m`, 32 fifth bits, 16 bytes of nibbles |
//! | `Q8_0` | `d`, 32 signed bytes |
//! | `Q4_K` | `d`, `e`, 12 bytes of scales, 128 bytes of nibbles |
//! | `Q5_K` | `d`, `e`, 12 bytes of scales, 32 bytes of fifth bits, 128 bytes of nibbles |
//! | `Q6_K` | 128 bytes of nibbles, 64 bytes of upper bit pairs, 16 signed bytes of scales, `d` |
//!
//! Source: `ggml-common.h` and `ggml-quants.c` of <https://github.com/ggml-org/llama.cpp>.

use super::format::Format;
use super::half::{bf16_to_f32, f16_to_f32};

/// All weights in `bytes`, which hold whole blocks.
///
/// Panics: if they do not.
pub fn dequantize(format: Format, bytes: &[u8]) -> Vec<f32> {
    assert!(bytes.len().is_multiple_of(format.block_bytes()), "{} bytes of {format}", bytes.len());
    let blocks = bytes.chunks_exact(format.block_bytes());
    blocks.flat_map(|block| (0..format.block_len()).map(move |i| weight(format, block, i))).collect()
}

/// The two bytes of `block` at `at`.
fn pair(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

/// Weight `i` of a block.
pub fn weight(format: Format, block: &[u8], i: usize) -> f32 {
    let half = |at: usize| f16_to_f32(pair(block, at));
    // Nibbles of 32 weights: the first 16 in the lower halves of the bytes from `at` on, the others in the upper.
    let nibble = |at: usize| f32::from(block[at + i % 16] >> (i / 16 * 4) & 15);
    let fifth_bit = |at: usize| f32::from(block[at + i / 8] >> (i % 8) & 1);
    match format {
        Format::F32 => f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
        Format::F16 => half(0),
        Format::Bf16 => bf16_to_f32(pair(block, 0)),
        Format::Q4_0 => half(0) * (nibble(2) - 8.0),
        Format::Q4_1 => half(0) * nibble(4) + half(2),
        Format::Q5_0 => half(0) * (nibble(6) + 16.0 * fifth_bit(2) - 16.0),
        Format::Q5_1 => half(0) * (nibble(8) + 16.0 * fifth_bit(4)) + half(2),
        Format::Q8_0 => half(0) * f32::from(block[2 + i] as i8),
        Format::Q4K | Format::Q5K => {
            // Run `i / 32` has its nibbles in 32 bytes that it shares with its neighbour.
            let run = i / 32;
            let (scale, min) = scale_and_min(&block[4..16], run);
            let nibbles = if format == Format::Q4K { 16 } else { 48 };
            let low = f32::from(block[nibbles + run / 2 * 32 + i % 32] >> (run % 2 * 4) & 15);
            let fifth = if format == Format::Q4K { 0.0 } else { f32::from(block[16 + i % 32] >> run & 1) };
            half(0) * scale * (low + 16.0 * fifth) - half(2) * min
        }
        Format::Q6K => {
            // Each half of the block: 64 bytes of nibbles and 32 of bit pairs for four runs of 32 weights.
            let (part, run, place) = (i / 128, i / 32 % 4, i % 32);
            let low = block[part * 64 + run % 2 * 32 + place] >> (run / 2 * 4) & 15;
            let high = block[128 + part * 32 + place] >> (run * 2) & 3;
            let scale = f32::from(block[192 + i / 16] as i8);
            half(208) * scale * (f32::from(low | high << 4) - 32.0)
        }
    }
}

/// The 6-bit scale and minimum of run `run`: whole in the first 8 bytes for runs 0 to 3; for runs 4 to 7 four bits are in
/// the last 4 bytes and two in the upper ends of the first 8.
fn scale_and_min(packed: &[u8], run: usize) -> (f32, f32) {
    let (scale, min) = if run < 4 {
        (packed[run] & 63, packed[run + 4] & 63)
    } else {
        let low = packed[run + 4];
        (low & 15 | packed[run - 4] >> 6 << 4, low >> 4 | packed[run] >> 6 << 4)
    };
    (f32::from(scale), f32::from(min))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of 1.0, 0.5 and -2.0 as binary16.
    const ONE: [u8; 2] = [0x00, 0x3C];
    const HALF: [u8; 2] = [0x00, 0x38];
    const MINUS_TWO: [u8; 2] = [0x00, 0xC0];

    fn check(format: Format, parts: &[&[u8]], expected: &[(usize, f32)]) {
        let block = parts.concat();
        assert_eq!(block.len(), format.block_bytes(), "{format}");
        for &(i, expected) in expected {
            assert_eq!(weight(format, &block, i), expected, "{format}, weight {i}");
        }
    }

    #[test]
    fn weights_of_the_small_blocks_are_those_worked_out() {
        let mut nibbles = [0x00; 16];
        nibbles[1] = 0x3B;
        // Nibbles of weights 1 and 17: 11 and 3. d = 0.5: 0.5 (11 - 8) and 0.5 (3 - 8).
        check(Format::Q4_0, &[&HALF, &nibbles], &[(0, -4.0), (1, 1.5), (17, -2.5)]);
        // 0.5 * 11 - 2 and 0.5 * 3 - 2.
        check(Format::Q4_1, &[&HALF, &MINUS_TWO, &nibbles], &[(0, -2.0), (1, 3.5), (17, -0.5)]);
        // The fifth bits of weights 1 and 16 are set: 0.5 (27 - 16) and 0.5 (16 - 16).
        let fifth = [0b10, 0, 1, 0];
        check(Format::Q5_0, &[&HALF, &fifth, &nibbles], &[(0, -8.0), (1, 5.5), (16, 0.0), (17, -6.5)]);
        // 0.5 * 27 - 2 and 0.5 * 16 - 2.
        check(Format::Q5_1, &[&HALF, &MINUS_TWO, &fifth, &nibbles], &[(0, -2.0), (1, 11.5), (16, 6.0)]);
        let mut bytes = [0; 32];
        bytes[5] = 0xFD;
        // 0.5 * -3.
        check(Format::Q8_0, &[&HALF, &bytes], &[(4, 0.0), (5, -1.5)]);
        check(Format::Bf16, &[&[0xC0, 0x3F]], &[(0, 1.5)]);
    }

    #[test]
    fn weights_of_the_large_blocks_are_those_worked_out() {
        // Run 1: scale 3, min 2. Run 6: scale 0b10_0101 = 37, min 0b01_1001 = 25, in bytes 2, 6 and 10.
        let mut scales = [0; 12];
        (scales[1], scales[5]) = (3, 2);
        (scales[2], scales[6], scales[10]) = (0b1000_0000, 0b0100_0000, 0b1001_0101);
        let mut nibbles = [0; 128];
        nibbles[4] = 0x70; // weight 4 of run 1
        nibbles[3 * 32 + 9] = 0x05; // weight 9 of run 6
        let expected = [(0, 0.0), (32, -1.0), (36, 20.0), (192, -12.5), (201, 172.5)];
        // d = 1, e = 0.5: 3 * 7 - 0.5 * 2 = 20; 37 * 5 - 0.5 * 25 = 172.5.
        check(Format::Q4K, &[&ONE, &HALF, &scales, &nibbles], &expected);
        let mut fifth = [0; 32];
        fifth[9] = 1 << 6;
        // 37 * 21 - 12.5.
        let expected = [(0, 0.0), (36, 20.0), (192, -12.5), (201, 764.5)];
        check(Format::Q5K, &[&ONE, &HALF, &scales, &fifth, &nibbles], &expected);
        // Weight 128 + 2 * 32 + 7: upper nibble of byte 64 + 7, third bit pair of byte 32 + 7, scale 12 = -3.
        let (mut low, mut high, mut scales) = ([0; 128], [0; 64], [1; 16]);
        (low[71], high[39], scales[12]) = (0xA0, 0b11_0000, 0xFD);
        // -3 * (10 + 48 - 32) = -78, halved.
        check(Format::Q6K, &[&low, &high, &scales, &HALF], &[(0, -16.0), (199, -39.0), (192, 48.0)]);
    }
}
