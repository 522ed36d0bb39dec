//! The types of a tensor's elements, and how many bytes they take.

use std::fmt;

/// How the elements of a tensor are stored: one by one, or in GGUF's quantized blocks along the innermost dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each name is the field's own for the type")]
pub enum Dtype {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

impl Dtype {
    /// Elements of a block, and the bytes it takes; an element stored alone is a block of one.
    ///
    /// Source: the structs `block_*` of `ggml/src/ggml-common.h` in ggml-org/llama.cpp.
    pub fn block(self) -> (usize, usize) {
        match self {
            Self::F64 | Self::I64 | Self::U64 => (1, 8),
            Self::F32 | Self::I32 | Self::U32 => (1, 4),
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => (1, 2),
            Self::I8 | Self::U8 | Self::Bool => (1, 1),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q4K => (256, 144),
            Self::Q5K => (256, 176),
            Self::Q6K => (256, 210),
        }
    }

    /// Whether elements come in quantized blocks.
    pub fn is_quantized(self) -> bool {
        self.block().0 > 1
    }

    /// Bytes of a tensor of this shape, outermost dimension first.
    ///
    /// Errors: in words, if its rows are not whole blocks or the number does not fit the address space.
    pub fn size_bytes(self, shape: &[usize]) -> Result<usize, &'static str> {
        let (block, block_bytes) = self.block();
        let row = shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(block) {
            return Err("its rows are not whole blocks of its type");
        }
        // Sizes of zero could hide an overflow of the others, depending on their order.
        let checked = |size: Option<usize>| size.ok_or("its size in bytes does not fit 64 bits");
        let elements = shape.iter().filter(|&&n| n > 0).try_fold(1, |product: usize, &n| product.checked_mul(n));
        let bytes = checked(checked(elements)?.div_ceil(block).checked_mul(block_bytes))?;
        Ok(if shape.contains(&0) { 0 } else { bytes })
    }
}

impl fmt::Display for Dtype {
    /// The name as GGUF spells it, such as `Q4_K`.
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Q4K => to.write_str("Q4_K"),
            Self::Q5K => to.write_str("Q5_K"),
            Self::Q6K => to.write_str("Q6_K"),
            other => write!(to, "{other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_worked_out_by_hand() {
        assert_eq!(Dtype::F32.size_bytes(&[2, 3]), Ok(24));
        assert_eq!(Dtype::BF16.size_bytes(&[]), Ok(2)); // A scalar.
        assert_eq!(Dtype::F16.size_bytes(&[0, 5]), Ok(0));
        assert_eq!(Dtype::Q8_0.size_bytes(&[3, 64]), Ok(3 * 2 * 34));
        assert_eq!(Dtype::Q6K.size_bytes(&[2, 512]), Ok(2 * 2 * 210)); // 6.5625 bits a weight.
    }

    #[test]
    fn half_blocks_and_sizes_beyond_the_address_space_are_refused() {
        assert!(Dtype::Q4_0.size_bytes(&[32, 31]).is_err());
        assert!(Dtype::Q4K.size_bytes(&[]).is_err());
        for shape in [&[usize::MAX][..], &[1 << 32, 1 << 32], &[0, usize::MAX, 2], &[usize::MAX, 2, 0]] {
            assert!(Dtype::F32.size_bytes(shape).is_err(), "{shape:?}");
        }
    }

    #[test]
    fn names_are_as_gguf_spells_them() {
        assert_eq!([Dtype::Q4K, Dtype::Q8_0, Dtype::BF16].map(|dtype| dtype.to_string()), ["Q4_K", "Q8_0", "BF16"]);
    }
}
