//! Plain floating-point elements as `f32`.

use crate::dtype::Dtype;
use half::{bf16, f16};

/// The elements of little-endian `bytes` as `f32`, exact except for `F64`, which is rounded; `None` for other types.
///
/// Quantized blocks are left to the kernels that multiply from them.
pub fn f32_values(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let values = match dtype {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        Dtype::F16 => bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
        Dtype::BF16 => bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
        Dtype::F64 => bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b) as f32).collect(),
        _ => return None,
    };
    Some(values)
}

/// `values` as little-endian bytes of a plain floating-point type, rounded to nearest even; `None` for other types.
pub fn f32_bytes(dtype: Dtype, values: &[f32]) -> Option<Vec<u8>> {
    let bytes = match dtype {
        Dtype::F32 => flat(values, f32::to_le_bytes),
        Dtype::F16 => flat(values, |x| f16::from_f32(x).to_le_bytes()),
        Dtype::BF16 => flat(values, |x| bf16::from_f32(x).to_le_bytes()),
        Dtype::F64 => flat(values, |x| f64::from(x).to_le_bytes()),
        _ => return None,
    };
    Some(bytes)
}

fn flat<const N: usize>(values: &[f32], to_bytes: impl Fn(f32) -> [u8; N]) -> Vec<u8> {
    values.iter().map(|&x| to_bytes(x)).collect::<Vec<_>>().into_flattened()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_and_a_half_in_every_type() {
        // 1.5 = 2^0 * 1.1b: exponent bits of 0, then the first bit of the fraction.
        let cases = [
            (Dtype::F32, vec![0x00, 0x00, 0xC0, 0x3F]),
            (Dtype::F16, vec![0x00, 0x3E]),
            (Dtype::BF16, vec![0xC0, 0x3F]),
            (Dtype::F64, vec![0, 0, 0, 0, 0, 0, 0xF8, 0x3F]),
        ];
        for (dtype, bytes) in cases {
            assert_eq!(f32_values(dtype, &bytes), Some(vec![1.5]), "{dtype}");
            assert_eq!(f32_bytes(dtype, &[1.5]), Some(bytes), "{dtype}");
        }
        assert_eq!(f32_values(Dtype::Q8_0, &[0; 34]), None);
        assert_eq!(f32_bytes(Dtype::I32, &[1.0]), None);
    }

    proptest! {
        #[test]
        fn sixteen_bits_survive_the_way_through_f32(bits in any::<u16>()) {
            for dtype in [Dtype::F16, Dtype::BF16] {
                let values = f32_values(dtype, &bits.to_le_bytes()).unwrap();
                if !values[0].is_nan() {
                    prop_assert_eq!(f32_bytes(dtype, &values).unwrap(), bits.to_le_bytes());
                }
            }
        }
    }
}
