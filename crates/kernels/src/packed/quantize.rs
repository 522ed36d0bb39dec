//! Floats into the storage forms.
//!
//! Source: the reference quantizers (`quantize_row_*_ref`) of `ggml-quants.c`, <https://github.com/ggml-org/llama.cpp>.

use super::dequantize::dequantize;
use super::format::Format;
use super::half::{f16_to_f32, f32_to_bf16, f32_to_f16};
use super::matrix::{PackedError, PackedMatrix};
use crate::exec::Exec;
use crate::int8::Int8Matrix;
use crate::lanes::TASK_ELEMENTS;
use crate::parallel::for_each_chunk;

/// The bytes of `weights`, which are whole rows, in a format that can be written: F32, F16, BF16, Q8_0, Q4_0 or Q4_1.
/// None for the others, which can only be read.
///
/// Numbers: F16 and BF16 round to nearest, ties to even. In a block of 32 with largest magnitude `a`, minimum `l` and
/// maximum `h`, an error is at most half a step `d` and what rounding `d` and `m` to binary16 adds. The step is `a / 127`
/// for Q8_0 and `(h - l) / 15` for Q4_1; for Q4_0 it is `a / 8`, and a whole step at the end opposite to `a`.
/// Bit for bit what llama.cpp writes, but for blocks whose step is denormal.
/// Law: the same bits for any number of threads.
/// Panics: if `weights` is no whole number of blocks.
/// Source: see the file's head.
pub fn quantize(exec: Exec, format: Format, weights: &[f32]) -> Option<Vec<u8>> {
    let write: fn(&[f32], &mut [u8]) = match format {
        Format::F32 => |x, block| block.copy_from_slice(&x[0].to_le_bytes()),
        Format::F16 => |x, block| block.copy_from_slice(&f32_to_f16(x[0]).to_le_bytes()),
        Format::Bf16 => |x, block| block.copy_from_slice(&f32_to_bf16(x[0]).to_le_bytes()),
        Format::Q8_0 => q8_0,
        Format::Q4_0 => q4_0,
        Format::Q4_1 => q4_1,
        Format::Q5_0 | Format::Q5_1 | Format::Q4K | Format::Q5K | Format::Q6K => return None,
    };
    let (len, block_bytes) = (format.block_len(), format.block_bytes());
    assert!(weights.len().is_multiple_of(len), "{} weights in blocks of {len}", weights.len());
    let blocks = TASK_ELEMENTS / len;
    let mut bytes = vec![0; weights.len() / len * block_bytes];
    for_each_chunk(exec, &mut bytes, blocks * block_bytes, |task, bytes| {
        let weights = weights[task * blocks * len..].chunks_exact(len);
        weights.zip(bytes.chunks_exact_mut(block_bytes)).for_each(|(x, block)| write(x, block));
    });
    Some(bytes)
}

impl PackedMatrix {
    /// A matrix of `weights`, `(rows, cols)`, by [`quantize`]. None for a format that can only be read.
    ///
    /// Errors: if a row is empty or no whole number of blocks.
    /// Panics: if `weights` is not `rows * cols` long.
    pub fn quantize(
        exec: Exec,
        format: Format,
        rows: usize,
        cols: usize,
        weights: &[f32],
    ) -> Option<Result<Self, PackedError>> {
        if cols == 0 || format.bytes_of(rows, cols).is_none() {
            return Some(Err(PackedError::Shape { format, rows, cols }));
        }
        assert_eq!(weights.len(), rows * cols, "a {rows} x {cols} matrix");
        quantize(exec, format, weights).map(|bytes| Self::from_bytes(format, rows, cols, bytes))
    }
}

impl PackedMatrix {
    /// A matrix of `weights`, `(rows, cols)`, in Q8_0, where all blocks of a row have one scale: products with many rows are
    /// then those of [`crate::int8`], which round activations and gradients to 8 bits, everything else sees the blocks.
    ///
    /// Numbers: an entry is off by at most half a step of its row, `max |row| / 127`, and what rounding that to binary16 adds.
    /// Memory: 2.06 bytes a weight, in both forms.
    /// Errors: if a row is empty or no whole number of blocks.
    /// Panics: if `weights` is not `rows * cols` long.
    pub fn quantize_rows(exec: Exec, rows: usize, cols: usize, weights: &[f32]) -> Result<Self, PackedError> {
        let format = Format::Q8_0;
        if cols == 0 || format.bytes_of(rows, cols).is_none() {
            return Err(PackedError::Shape { format, rows, cols });
        }
        assert_eq!(weights.len(), rows * cols, "a {rows} x {cols} matrix");
        let row_bytes = cols / format.block_len() * format.block_bytes();
        let mut bytes = vec![0; rows * row_bytes];
        for_each_chunk(exec, &mut bytes, row_bytes, |row, bytes| {
            let weights = &weights[row * cols..][..cols];
            // A NaN stays one, in the scale.
            let largest = weights
                .iter()
                .fold(0.0_f32, |largest, x| if x.abs() <= largest || largest.is_nan() { largest } else { x.abs() });
            let step = f32_to_f16(largest / 127.0);
            let inverse = inverse(f16_to_f32(step));
            for (block, x) in bytes.chunks_exact_mut(format.block_bytes()).zip(weights.chunks_exact(format.block_len()))
            {
                block[..2].copy_from_slice(&step.to_le_bytes());
                block[2..]
                    .iter_mut()
                    .zip(x)
                    .for_each(|(byte, x)| *byte = (x * inverse).round().clamp(-127.0, 127.0) as i8 as u8);
            }
        });
        let mut values = vec![0.0; weights.len()];
        dequantize(exec, format, &bytes, &mut values);
        let in_rows = Int8Matrix::quantize(exec, &values, rows, cols);
        Ok(Self::from_bytes(format, rows, cols, bytes)?.with_rows(in_rows))
    }
}

/// `1 / step`, and 0 where the step is 0 or so small that threads which flush denormals would disagree with others.
fn inverse(step: f32) -> f32 {
    if step.abs() < f32::MIN_POSITIVE { 0.0 } else { 1.0 / step }
}

fn q8_0(x: &[f32], block: &mut [u8]) {
    let largest = x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    let d = largest / 127.0;
    let inverse = inverse(d);
    block[..2].copy_from_slice(&f32_to_f16(d).to_le_bytes());
    for (byte, x) in block[2..].iter_mut().zip(x) {
        *byte = (x * inverse).round() as i8 as u8;
    }
}

fn q4_0(x: &[f32], block: &mut [u8]) {
    // The first of the largest in magnitude, with its sign: it becomes -8 steps.
    let extreme = x.iter().fold(0.0_f32, |extreme, &x| if x.abs() > extreme.abs() { x } else { extreme });
    let d = extreme / -8.0;
    let inverse = inverse(d);
    block[..2].copy_from_slice(&f32_to_f16(d).to_le_bytes());
    nibbles(x, &mut block[2..], |x| x * inverse + 8.5);
}

fn q4_1(x: &[f32], block: &mut [u8]) {
    let low = x.iter().fold(f32::INFINITY, |low, &x| low.min(x));
    let high = x.iter().fold(f32::NEG_INFINITY, |high, &x| high.max(x));
    let d = (high - low) / 15.0;
    let inverse = inverse(d);
    block[..2].copy_from_slice(&f32_to_f16(d).to_le_bytes());
    block[2..4].copy_from_slice(&f32_to_f16(low).to_le_bytes());
    nibbles(x, &mut block[4..], |x| (x - low) * inverse + 0.5);
}

/// Weights 0 to 15 in the lower halves of the bytes, 16 to 31 in the upper: `level` cut to an integer of 0 to 15.
fn nibbles(x: &[f32], bytes: &mut [u8], level: impl Fn(f32) -> f32) {
    let level = |x: f32| (level(x) as u8).min(15);
    let (low, high) = x.split_at(16);
    for ((byte, &low), &high) in bytes.iter_mut().zip(low).zip(high) {
        *byte = level(low) | level(high) << 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packed::reference::dequantize;
    use crate::testing::test_input;

    const WRITTEN: [Format; 6] = [Format::F32, Format::F16, Format::Bf16, Format::Q8_0, Format::Q4_0, Format::Q4_1];

    #[test]
    fn levels_of_a_block_are_those_worked_out() {
        // Largest magnitude -4: d = 0.5, levels x / 0.5 + 8, the value 4 would be level 16 and becomes 15.
        let mut x = [0.0; 32];
        (x[0], x[1], x[16]) = (-4.0, 1.0, 4.0);
        let bytes = quantize(Exec::new(1), Format::Q4_0, &x).unwrap();
        assert_eq!(bytes[..5], [0x00, 0x38, 0xF0, 0x8A, 0x88]);
        // From -1 to 6.5 in 15 steps of 0.5: levels 2 (x + 1).
        (x[0], x[1], x[16]) = (-1.0, 6.5, 1.2);
        let bytes = quantize(Exec::new(1), Format::Q4_1, &x).unwrap();
        assert_eq!(bytes[..7], [0x00, 0x38, 0x00, 0xBC, 0x40, 0x2F, 0x22]);
        // d = 127 / 127; a half is rounded away from zero.
        (x[0], x[1], x[16]) = (127.0, -2.5, 1.5);
        let bytes = quantize(Exec::new(1), Format::Q8_0, &x).unwrap();
        assert_eq!((bytes[..4].to_vec(), bytes[18]), (vec![0x00, 0x3C, 127, 0xFD], 2));
    }

    #[test]
    fn what_was_quantized_stays_within_the_formats_bound() {
        for salt in 0..20 {
            let scale = 10_f32.powi(salt as i32 % 5 - 2);
            let x: Vec<f32> = test_input(32 * 7, salt).iter().map(|x| x * scale).collect();
            for format in WRITTEN {
                let back = dequantize(format, &quantize(Exec::new(1), format, &x).unwrap());
                for (block, back) in x.chunks(32).zip(back.chunks(32)) {
                    check_bound(format, block, back);
                }
            }
        }
    }

    fn check_bound(format: Format, block: &[f32], back: &[f32]) {
        let low = block.iter().copied().fold(f32::INFINITY, f32::min);
        let high = block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let largest = high.max(-low);
        for (x, back) in block.iter().zip(back) {
            // Half a step, and half a place of binary16 for each scale and offset.
            let bound = match format {
                Format::F32 => 0.0,
                Format::F16 => x.abs() / 2048.0 + 2_f32.powi(-25),
                Format::Bf16 => x.abs() / 256.0,
                Format::Q8_0 => largest * (0.5 / 127.0 + 1.01 / 2048.0),
                Format::Q4_0 => {
                    let opposite = if high > -low { *x < -largest * 7.5 / 8.0 } else { *x > largest * 7.5 / 8.0 };
                    largest * (if opposite { 1.0 } else { 0.5 } / 8.0 + 1.01 / 2048.0)
                }
                _ => (high - low) * (0.5 / 15.0 + 1.01 / 2048.0) + low.abs() * 1.01 / 2048.0,
            };
            assert!((x - back).abs() <= bound * 1.000_01, "{format}: {x} came back as {back}, bound {bound}");
        }
    }

    #[test]
    fn what_is_in_a_format_already_keeps_its_values() {
        for format in [Format::F16, Format::Bf16, Format::Q8_0] {
            let once = quantize(Exec::new(1), format, &test_input(320, 3)).unwrap();
            let twice = quantize(Exec::new(1), format, &dequantize(format, &once)).unwrap();
            assert_eq!(dequantize(format, &once), dequantize(format, &twice), "{format}");
        }
    }

    #[test]
    fn blocks_of_zeros_stay_zeros_and_threads_do_not_matter() {
        let mut x = test_input(32 * 2000, 5);
        x[64..96].fill(0.0);
        for format in WRITTEN {
            let bytes = quantize(Exec::new(1), format, &x).unwrap();
            assert_eq!(dequantize(format, &bytes)[64..96], [0.0; 32]);
            assert_eq!(quantize(Exec::new(3), format, &x).unwrap(), bytes, "{format}");
        }
    }

    #[test]
    fn formats_that_are_only_read_are_refused() {
        for format in Format::ALL.into_iter().filter(|format| !WRITTEN.contains(format)) {
            assert!(quantize(Exec::new(1), format, &[0.0; 256]).is_none());
        }
        assert!(PackedMatrix::quantize(Exec::new(1), Format::Q4_0, 1, 33, &[0.0; 33]).unwrap().is_err());
    }

    #[test]
    fn rows_have_one_scale_and_both_forms_the_same_numbers() {
        let (rows, cols, exec) = (5, 96, Exec::new(2));
        let mut weights: Vec<f32> = test_input(rows * cols, 3);
        weights[cols..2 * cols].iter_mut().for_each(|x| *x *= 1e3);
        weights[2 * cols..3 * cols].fill(0.0);
        let matrix = PackedMatrix::quantize_rows(exec, rows, cols, &weights).unwrap();
        let mut values = vec![f32::NAN; rows * cols];
        crate::packed::dequantize(exec, Format::Q8_0, matrix.bytes(), &mut values);
        let mut in_rows = vec![f32::NAN; rows * cols];
        matrix.in_rows().unwrap().dequantize(exec, &mut in_rows);
        for (row, weights) in weights.chunks(cols).enumerate() {
            let bytes = &matrix.bytes()[row * 3 * 34..][..3 * 34];
            assert!(bytes.chunks(34).all(|block| block[..2] == bytes[..2]), "row {row}");
            let largest = weights.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
            for (col, &weight) in weights.iter().enumerate() {
                let (value, other) = (values[row * cols + col], in_rows[row * cols + col]);
                // Half a step, and the largest magnitudes lose what rounding the step to binary16 takes.
                assert!(
                    (value - weight).abs() <= largest * (0.5 / 127.0 + 1.0 / 2048.0),
                    "{row} {col}: {value} {weight}"
                );
                assert!((value - other).abs() <= 1e-6 * largest, "{row} {col}: {value} {other}");
            }
        }
        // A NaN or an infinity spoils its row in both forms.
        for bad in [f32::NAN, f32::INFINITY] {
            let spoilt: Vec<f32> = weights.iter().enumerate().map(|(i, &x)| if i == 7 { bad } else { x }).collect();
            let matrix = PackedMatrix::quantize_rows(exec, rows, cols, &spoilt).unwrap();
            crate::packed::dequantize(exec, Format::Q8_0, matrix.bytes(), &mut values);
            matrix.in_rows().unwrap().dequantize(exec, &mut in_rows);
            for values in [&values, &in_rows] {
                assert!(values[..cols].iter().all(|x| x.is_nan()) && values[cols..].iter().all(|x| x.is_finite()));
            }
        }
        let error = PackedMatrix::quantize_rows(exec, 2, 40, &[0.0; 80]).unwrap_err();
        assert!(error.to_string().contains("blocks of 32"), "{error}");
    }

    #[test]
    fn many_rows_meet_the_integers_and_few_the_blocks() {
        let (rows, cols, exec) = (24, 64, Exec::new(2));
        let weights = test_input(rows * cols, 3);
        let matrix = PackedMatrix::quantize_rows(exec, rows, cols, &weights).unwrap();
        let blocks = PackedMatrix::from_bytes(Format::Q8_0, rows, cols, matrix.bytes().to_vec()).unwrap();
        for n in [3, 40] {
            let (x, bias) = (test_input(n * cols, 5), test_input(rows, 6));
            let [mut y, mut of_blocks, mut of_integers] = [(); 3].map(|()| vec![f32::NAN; n * rows]);
            crate::packed::linear(exec, &x, &matrix, Some(&bias), &mut y);
            crate::packed::linear(exec, &x, &blocks, Some(&bias), &mut of_blocks);
            crate::int8::forward(exec, &x, matrix.in_rows().unwrap(), Some(&bias), &mut of_integers);
            assert_eq!(y, if n == 3 { of_blocks } else { of_integers.clone() });
            // With a backward pass, always.
            crate::packed::linear_unrounded(exec, &x, &matrix, Some(&bias), &mut y);
            assert_eq!(y, of_integers);
            let (mut d_x, mut expected) = (vec![f32::NAN; n * cols], vec![f32::NAN; n * cols]);
            crate::packed::backward_input(exec, &y, &matrix, &mut d_x);
            crate::int8::backward_input(exec, &y, matrix.in_rows().unwrap(), &mut expected);
            assert_eq!(d_x, expected);
        }
    }
}
