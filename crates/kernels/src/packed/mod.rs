//! Matrices in other storage forms than f32, and products straight from them: `y = x W^T + b`.
//!
//! A [`PackedMatrix`] holds 16-bit floats or the quantized blocks of GGUF files, usually in a file mapped into memory.
//! [`linear`] multiplies without writing an f32 copy of the whole matrix: quantized weights by integer products with
//! activations that are rounded to 8 bits first, floats by f32 products.
//!
//! AVX2 and AVX-512 (integers with VNNI) have paths of their own. NEON has none yet and runs the portable one, compiled for it;
//! `backward_input` and products with many rows go through the f32 product of `matmul` on every machine.
//!
//! Shapes: `x` is `(n, in)`, `W` `(out, in)`, `b` `(out)`, `y` `(n, out)`, all row-major.

mod activations;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod blocks;
mod dequantize;
mod floats;
mod format;
pub mod half;
mod integers;
pub(crate) mod linear;
mod matrix;
mod panels;
mod quantize;
pub mod reference;
mod rows;
#[cfg(test)]
pub(crate) mod testing;

pub use activations::reference::rounded as rounded_activations;
pub use dequantize::{dequantize, rows};
pub use format::Format;
pub use linear::{Product, linear, linear_exact, linear_many};
pub use matrix::{PackedError, PackedMatrix, Storage};
pub use panels::{backward_input, linear_unrounded};
pub use quantize::quantize;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Exec;
    use crate::golden::Golden;
    use crate::testing::{test_input, wide};

    /// The weights of the golden file: `weights()` in `testdata/make_packed_golden.py`.
    fn weights() -> Vec<f32> {
        let mut weights: Vec<f32> = (0..10).flat_map(|run| test_input(32, run)).collect();
        for (run, weights) in weights.chunks_mut(32).enumerate() {
            weights.iter_mut().for_each(|x| *x *= 4_f32.powi(run as i32 - 5));
        }
        weights[96..128].fill(0.0);
        weights
    }

    #[test]
    fn blocks_have_the_values_that_gguf_finds_in_them() {
        let golden = Golden::read("packed");
        for format in Format::ALL.into_iter().filter(|&format| format != Format::F32) {
            let bytes = golden.bytes(&format!("{format}.bytes"));
            let want = golden.values(&format!("{format}.values"));
            assert_eq!(wide(&reference::dequantize(format, &bytes)), want, "{format}");
            let mut got = vec![f32::NAN; want.len()];
            dequantize(Exec::new(2), format, &bytes, &mut got);
            assert_eq!(wide(&got), want, "{format}");
        }
    }

    #[test]
    fn quantizing_writes_the_bytes_that_gguf_writes() {
        let golden = Golden::read("packed");
        for format in [Format::F16, Format::Bf16, Format::Q8_0, Format::Q4_0, Format::Q4_1] {
            let got = quantize(Exec::new(1), format, &weights()).unwrap();
            assert!(got == golden.bytes(&format!("{format}.bytes")), "{format}");
        }
    }
}
