//! The storage forms of a matrix: how many weights share a block, and how many bytes a block has.

use std::fmt;

/// How the weights of a matrix are stored. Rows are stored one after the other, each a whole number of blocks.
///
/// Source: the `ggml_type` of GGUF files, <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>; the fields of the
/// quantized blocks are listed in `reference.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of binary32.
    Bf16,
    /// 32 weights `d (q - 8)` with 4-bit `q`.
    Q4_0,
    /// 32 weights `d q + m` with 4-bit `q`.
    Q4_1,
    /// 32 weights `d (q - 16)` with 5-bit `q`.
    Q5_0,
    /// 32 weights `d q + m` with 5-bit `q`.
    Q5_1,
    /// 32 weights `d q` with 8-bit `q`.
    Q8_0,
    /// 8 runs of 32 weights `d s q - e m` with 4-bit `q` and 6-bit `s` and `m` for each run.
    Q4K,
    /// The same with 5-bit `q`.
    Q5K,
    /// 16 runs of 16 weights `d s (q - 32)` with 6-bit `q` and an 8-bit `s` for each run.
    Q6K,
}

/// What is fixed about a format.
struct Facts {
    name: &'static str,
    gguf_type: u32,
    block_len: usize,
    block_bytes: usize,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 11] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    const fn facts(self) -> Facts {
        let (name, gguf_type, block_len, block_bytes) = match self {
            Self::F32 => ("F32", 0, 1, 4),
            Self::F16 => ("F16", 1, 1, 2),
            Self::Bf16 => ("BF16", 30, 1, 2),
            Self::Q4_0 => ("Q4_0", 2, 32, 2 + 16),
            Self::Q4_1 => ("Q4_1", 3, 32, 4 + 16),
            Self::Q5_0 => ("Q5_0", 6, 32, 2 + 4 + 16),
            Self::Q5_1 => ("Q5_1", 7, 32, 4 + 4 + 16),
            Self::Q8_0 => ("Q8_0", 8, 32, 2 + 32),
            Self::Q4K => ("Q4_K", 12, 256, 4 + 12 + 128),
            Self::Q5K => ("Q5_K", 13, 256, 4 + 12 + 32 + 128),
            Self::Q6K => ("Q6_K", 14, 256, 128 + 64 + 16 + 2),
        };
        Facts { name, gguf_type, block_len, block_bytes }
    }

    /// The name as GGUF spells it.
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// The number of this format in GGUF files.
    pub const fn gguf_type(self) -> u32 {
        self.facts().gguf_type
    }

    /// The format with this number in GGUF files, if it is one of ours.
    pub fn from_gguf_type(gguf_type: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.gguf_type() == gguf_type)
    }

    /// The format with this name, in either case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(name))
    }

    /// Weights of a block.
    pub const fn block_len(self) -> usize {
        self.facts().block_len
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        self.facts().block_bytes
    }

    /// Bits of a weight, its share of the block's scales included.
    pub fn bits_per_weight(self) -> f64 {
        (8 * self.block_bytes()) as f64 / self.block_len() as f64
    }

    /// Whether blocks hold integers and scales. Products with such a matrix round the activations to 8 bits.
    pub const fn is_quantized(self) -> bool {
        self.block_len() > 1
    }

    /// Bytes of a `rows x cols` matrix. None if a row is no whole number of blocks or the size overflows.
    pub fn bytes_of(self, rows: usize, cols: usize) -> Option<usize> {
        let whole = cols.is_multiple_of(self.block_len());
        let row_bytes = whole.then(|| (cols / self.block_len()).checked_mul(self.block_bytes()))??;
        row_bytes.checked_mul(rows)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_blocks() {
        // 3 rows of 2 blocks of 2 + 16 bytes.
        assert_eq!(Format::Q4_0.bytes_of(3, 64), Some(108));
        assert_eq!(Format::Q6K.bytes_of(2, 256), Some(420));
        assert_eq!(Format::Bf16.bytes_of(5, 7), Some(70));
        assert_eq!(Format::Q4_1.bits_per_weight(), 5.0);
    }

    #[test]
    fn a_row_of_broken_blocks_or_a_size_beyond_the_address_space_is_refused() {
        assert_eq!(Format::Q4_0.bytes_of(3, 48), None);
        assert_eq!(Format::Q4K.bytes_of(1, 576), None);
        assert_eq!(Format::F32.bytes_of(usize::MAX / 4, 2), None);
        assert_eq!(Format::F32.bytes_of(1, usize::MAX / 2), None);
    }

    #[test]
    fn names_and_numbers_lead_back_to_their_format() {
        for format in Format::ALL {
            assert_eq!(Format::from_gguf_type(format.gguf_type()), Some(format));
            assert_eq!(Format::from_name(&format.to_string().to_lowercase()), Some(format));
        }
        assert_eq!(Format::from_gguf_type(4), None);
        assert_eq!(Format::Q4K.to_string(), "Q4_K");
    }
}
