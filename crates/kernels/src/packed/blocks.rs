//! Blocks taken apart into integers and scales: the one place that knows, for all instruction sets without paths of
//! their own, where a format keeps its bits.
//!
//! A row of any quantized format becomes integers `q`, and a scale `d` and an offset `m` for each run of weights, so that
//! every weight is `d q + m`.

use super::format::Format;
use super::half::f16_to_f32;

/// Weights of a run at most: those that share a scale of the activations.
pub(super) const RUN: usize = 32;

impl Format {
    /// Weights that share a scale.
    ///
    /// Panics: if the format is not quantized.
    pub(super) const fn run_len(self) -> usize {
        assert!(self.is_quantized());
        if matches!(self, Self::Q6K) { 16 } else { RUN }
    }

    /// Whether its integers are signed; then its offsets are 0.
    pub(super) const fn is_signed(self) -> bool {
        matches!(self, Self::Q8_0 | Self::Q6K)
    }
}

/// Weights taken apart. `scales` and `offsets` hold one number a run; formats without offsets leave those as they are.
pub(super) struct Unpacked<'a> {
    pub(super) quants: &'a mut [i8],
    pub(super) scales: &'a mut [f32],
    pub(super) offsets: &'a mut [f32],
}

/// Takes whole blocks apart.
///
/// Panics: if the lengths disagree.
#[inline(always)]
pub(super) fn unpack(format: Format, bytes: &[u8], out: Unpacked<'_>) {
    let n_blocks = bytes.len() / format.block_bytes();
    let (len, runs) = (format.block_len(), format.block_len() / format.run_len());
    assert_eq!(bytes.len(), n_blocks * format.block_bytes());
    assert!(out.quants.len() == n_blocks * len && out.scales.len() == n_blocks * runs);
    assert_eq!(out.offsets.len(), out.scales.len());
    match format {
        Format::Q4_0 => small(bytes, out, |block: &[u8; 18], q| {
            nibbles(&block[2..], q);
            offset_by(half(&block[..2]), -8.0)
        }),
        Format::Q4_1 => small(bytes, out, |block: &[u8; 20], q| {
            nibbles(&block[4..], q);
            (half(&block[..2]), half(&block[2..4]))
        }),
        Format::Q5_0 => small(bytes, out, |block: &[u8; 22], q| {
            nibbles(&block[6..], q);
            fifth_bits(&block[2..6], q);
            offset_by(half(&block[..2]), -16.0)
        }),
        Format::Q5_1 => small(bytes, out, |block: &[u8; 24], q| {
            nibbles(&block[8..], q);
            fifth_bits(&block[4..8], q);
            (half(&block[..2]), half(&block[2..4]))
        }),
        Format::Q8_0 => small(bytes, out, |block: &[u8; 34], q| {
            q.iter_mut().zip(&block[2..]).for_each(|(q, &byte)| *q = byte as i8);
            (half(&block[..2]), 0.0)
        }),
        Format::Q4K => large(bytes, out, |block: &[u8; 144], q, scales, offsets| {
            large_nibbles(&block[16..], q);
            large_scales(&block[..16], scales, offsets);
        }),
        Format::Q5K => large(bytes, out, |block: &[u8; 176], q, scales, offsets| {
            large_nibbles(&block[48..], q);
            for (run, q) in q.chunks_exact_mut(RUN).enumerate() {
                q.iter_mut().zip(&block[16..48]).for_each(|(q, &bits)| *q |= ((bits >> run & 1) << 4) as i8);
            }
            large_scales(&block[..16], scales, offsets);
        }),
        Format::Q6K => large(bytes, out, |block: &[u8; 210], q, scales, _| {
            for (part, q) in q.chunks_exact_mut(128).enumerate() {
                six_bits(&block[part * 64..][..64], &block[128 + part * 32..][..32], q);
            }
            let d = half(&block[208..]);
            scales.iter_mut().zip(&block[192..208]).for_each(|(scale, &s)| *scale = d * f32::from(s as i8));
        }),
        Format::F32 | Format::F16 | Format::Bf16 => unreachable!("{format} has no integers"),
    }
}

/// Blocks of one run; `one` fills in the integers and returns scale and offset.
#[inline(always)]
fn small<const BYTES: usize>(
    bytes: &[u8],
    out: Unpacked<'_>,
    one: impl Fn(&[u8; BYTES], &mut [i8; RUN]) -> (f32, f32),
) {
    let (blocks, quants) = (bytes.as_chunks::<BYTES>().0, out.quants.as_chunks_mut::<RUN>().0);
    let scales = out.scales.iter_mut().zip(out.offsets);
    for ((block, quants), (scale, offset)) in blocks.iter().zip(quants).zip(scales) {
        (*scale, *offset) = one(block, quants);
    }
}

/// Blocks of several runs.
#[inline(always)]
fn large<const BYTES: usize>(
    bytes: &[u8],
    out: Unpacked<'_>,
    one: impl Fn(&[u8; BYTES], &mut [i8; 256], &mut [f32], &mut [f32]),
) {
    let (blocks, quants) = (bytes.as_chunks::<BYTES>().0, out.quants.as_chunks_mut::<256>().0);
    let runs = out.scales.len() / quants.len().max(1);
    let scales = out.scales.chunks_mut(runs.max(1)).zip(out.offsets.chunks_mut(runs.max(1)));
    for ((block, quants), (scales, offsets)) in blocks.iter().zip(quants).zip(scales) {
        one(block, quants, scales, offsets);
    }
}

#[inline(always)]
fn half(bytes: &[u8]) -> f32 {
    f16_to_f32(u16::from_le_bytes([bytes[0], bytes[1]]))
}

/// Scale and offset of `d (q + zero)`. The products are exact: a binary16 has 11 bits.
#[inline(always)]
fn offset_by(d: f32, zero: f32) -> (f32, f32) {
    (d, d * zero)
}

#[inline(always)]
fn nibbles(bytes: &[u8], q: &mut [i8; RUN]) {
    for i in 0..16 {
        q[i] = (bytes[i] & 15) as i8;
        q[i + 16] = (bytes[i] >> 4) as i8;
    }
}

#[inline(always)]
fn fifth_bits(bytes: &[u8], q: &mut [i8; RUN]) {
    let bits = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    q.iter_mut().enumerate().for_each(|(i, q)| *q |= ((bits >> i & 1) << 4) as i8);
}

/// Two runs from each 32 bytes.
#[inline(always)]
fn large_nibbles(bytes: &[u8], q: &mut [i8; 256]) {
    for (bytes, q) in bytes.as_chunks::<RUN>().0.iter().zip(q.as_chunks_mut::<64>().0) {
        for i in 0..RUN {
            q[i] = (bytes[i] & 15) as i8;
            q[i + RUN] = (bytes[i] >> 4) as i8;
        }
    }
}

/// The scales and negated minima of eight runs, from the first 16 bytes of a block.
#[inline(always)]
fn large_scales(head: &[u8], scales: &mut [f32], offsets: &mut [f32]) {
    let (d, e) = (half(&head[..2]), half(&head[2..4]));
    let (s, m) = six_bit_scales(&head[4..16]);
    for run in 0..8 {
        scales[run] = d * f32::from(s[run]);
        offsets[run] = -(e * f32::from(m[run]));
    }
}

/// The 6-bit scales and minima of eight runs, taken apart four bytes at a time.
#[inline(always)]
fn six_bit_scales(packed: &[u8]) -> ([u8; 8], [u8; 8]) {
    let word = |at: usize| u32::from_le_bytes([packed[at], packed[at + 1], packed[at + 2], packed[at + 3]]);
    let (s, m, rest) = (word(0), word(4), word(8));
    let join = |low: u32, high: u32| (u64::from(high) << 32 | u64::from(low)).to_le_bytes();
    let scales = join(s & 0x3F3F_3F3F, rest & 0x0F0F_0F0F | s >> 2 & 0x3030_3030);
    let minima = join(m & 0x3F3F_3F3F, rest >> 4 & 0x0F0F_0F0F | m >> 2 & 0x3030_3030);
    (scales, minima)
}

/// Four runs of 32 signed weights from 64 bytes of nibbles and 32 of bit pairs.
#[inline(always)]
fn six_bits(low: &[u8], high: &[u8], q: &mut [i8]) {
    for i in 0..RUN {
        let (a, b, pairs) = (low[i], low[i + RUN], high[i]);
        q[i] = (a & 15 | (pairs & 3) << 4) as i8 - 32;
        q[i + RUN] = (b & 15 | (pairs >> 2 & 3) << 4) as i8 - 32;
        q[i + 2 * RUN] = (a >> 4 | (pairs >> 4 & 3) << 4) as i8 - 32;
        q[i + 3 * RUN] = (b >> 4 | (pairs >> 6) << 4) as i8 - 32;
    }
}
