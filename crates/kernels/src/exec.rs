//! How a kernel runs: which instruction set and how many threads. Both come in as arguments.

/// An instruction set that kernels are compiled for. Ordered from narrow to wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust, whatever the compiler's baseline target offers.
    Portable,
    /// AArch64 with 128-bit vectors.
    Neon,
    /// x86-64 with AVX2, fused multiply-add and the conversions of binary16 (F16C).
    Avx2,
    /// x86-64 with AVX-512 F, VL, BW and DQ.
    Avx512,
}

impl Isa {
    /// The widest instruction set of this machine.
    pub fn detect() -> Self {
        Self::available().last().copied().unwrap_or(Self::Portable)
    }

    /// Every instruction set this machine can run, narrow first. Always holds [`Isa::Portable`].
    pub fn available() -> Vec<Self> {
        let all = [Self::Portable, Self::Neon, Self::Avx2, Self::Avx512];
        all.into_iter().filter(|isa| isa.is_supported()).collect()
    }

    /// Whether this machine can run it.
    pub fn is_supported(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_supported()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
            }
            // The sets of other architectures.
            #[cfg(not(target_arch = "aarch64"))]
            Self::Neon => false,
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => false,
        }
    }

    /// The 16-bit floats that this machine multiplies faster than f32, if there are any. Of two kinds, binary16: Sapphire Rapids
    /// splits products of bf16. It is left out where one product, made on the first call, was wrong (`matmul/half/f16.rs`).
    pub fn half_products(self) -> Option<HalfFormat> {
        let has = |format: HalfFormat| self == Self::Avx512 && format.is_supported();
        #[cfg(target_arch = "x86_64")]
        if has(HalfFormat::F16) && crate::matmul::half::is_sound() {
            return Some(HalfFormat::F16);
        }
        has(HalfFormat::Bf16).then_some(HalfFormat::Bf16)
    }

    /// Faster products that this CPU has and no path here uses yet. What would use them is a path of its own beside those of
    /// `matmul::matmuls`, with an answer of its own in [`Isa::half_products`].
    pub fn unused_products() -> Vec<&'static str> {
        #[cfg(target_arch = "x86_64")]
        {
            // Leaf 7 has the bits of AMX with bfloat16, tiles and 8-bit integers; the macro does not know them yet.
            let features =
                if std::arch::x86_64::__cpuid(0).eax >= 7 { std::arch::x86_64::__cpuid_count(7, 0).edx } else { 0 };
            let amx = [(22, "AMX-BF16"), (25, "AMX-INT8")];
            let found = amx.into_iter().filter(|(bit, _)| features & (1 << 24) != 0 && features & (1 << bit) != 0);
            // Where it was wrong.
            let is_used = Self::detect().half_products() == Some(HalfFormat::F16);
            let half = (is_x86_feature_detected!("avx512fp16") && !is_used).then_some("AVX512-FP16");
            found.map(|(_, name)| name).chain(half).collect()
        }
        #[cfg(not(target_arch = "x86_64"))]
        Vec::new()
    }

    /// The name used by `cavy doctor` and in bench rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

/// A 16-bit float.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HalfFormat {
    /// The upper half of binary32: 8 bits of exponent, 7 of fraction.
    Bf16,
    /// binary16: 5 bits of exponent, 10 of fraction.
    F16,
}

impl HalfFormat {
    /// Those that this machine has products of, the one it chooses last.
    pub fn available() -> Vec<Self> {
        [Self::Bf16, Self::F16].into_iter().filter(|format| format.is_supported()).collect()
    }

    /// Whether this machine has products of it.
    pub fn is_supported(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            // Every CPU with products of binary16 has those of bf16, and operands are packed by code that may use either.
            let has = Isa::Avx512.is_supported() && is_x86_feature_detected!("avx512bf16");
            has && (self == Self::Bf16 || is_x86_feature_detected!("avx512fp16"))
        }
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// The name as GGUF spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "BF16",
            Self::F16 => "F16",
        }
    }
}

/// What the operands of matrix products are rounded to before they are multiplied. Sums are f32 (those of binary16 after each run of a few
/// terms), and so is all that is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Nothing is rounded.
    #[default]
    F32,
    /// To the 16-bit floats of [`Isa::half_products`], where the instruction set has such products. Elsewhere as [`Precision::F32`], bit for bit.
    Mixed,
}

/// Instruction set, thread count and precision of a kernel call.
///
/// Invariant: `isa` is supported by this machine, so dispatch need not check it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exec {
    isa: Isa,
    threads: usize,
    rounds_activations: bool,
    precision: Precision,
    /// In place of the machine's choice.
    half_products: Option<HalfFormat>,
}

impl Exec {
    /// The widest instruction set of this machine on `threads` threads (at least one).
    pub fn new(threads: usize) -> Self {
        let precision = Precision::F32;
        Self { isa: Isa::detect(), threads: threads.max(1), rounds_activations: false, precision, half_products: None }
    }

    /// The same with another instruction set.
    ///
    /// Panics: if this machine cannot run it.
    #[must_use]
    pub fn with_isa(self, isa: Isa) -> Self {
        assert!(isa.is_supported(), "this machine has no {}", isa.name());
        Self { isa, ..self }
    }

    /// The same on another number of threads (at least one).
    #[must_use]
    pub fn with_threads(self, threads: usize) -> Self {
        Self { threads: threads.max(1), ..self }
    }

    /// The same with or without the rounding of activations to 8 bits in every product with quantized weights, prompts and output
    /// heads too, and of their scales to binary16: what llama.cpp computes, where it is otherwise done for a few rows alone.
    #[must_use]
    pub fn with_rounded_activations(self, rounds_activations: bool) -> Self {
        Self { rounds_activations, ..self }
    }

    /// Whether activations are rounded to 8 bits in every product with quantized weights.
    pub fn rounds_activations(self) -> bool {
        self.rounds_activations
    }

    /// The same with matrix products in another precision.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// What the operands of matrix products are rounded to.
    pub fn precision(self) -> Precision {
        self.precision
    }

    /// The same in mixed precision, with products of these 16-bit floats, whatever the machine would choose: for tests and benches.
    ///
    /// Panics: if this machine has none.
    #[must_use]
    pub fn with_half_products(self, format: HalfFormat) -> Self {
        assert!(format.is_supported(), "this machine has no products of {}", format.name());
        Self { precision: Precision::Mixed, half_products: Some(format), ..self }
    }

    /// The 16-bit floats that operands of matrix products are rounded to: none in f32, or without such products.
    pub fn half_products(self) -> Option<HalfFormat> {
        let forced = self.half_products.filter(|_| self.isa == Isa::Avx512);
        if self.precision == Precision::Mixed { forced.or_else(|| self.isa.half_products()) } else { None }
    }

    /// The instruction set.
    pub fn isa(self) -> Isa {
        self.isa
    }

    /// The number of threads, the calling one included.
    pub fn threads(self) -> usize {
        self.threads
    }
}
