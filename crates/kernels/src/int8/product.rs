//! A product of rounded activations and integer weights, in whichever orientation, and the paths that compute it.
#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "calls of functions for instruction sets, which `Path` has asked for")
)]

use super::{Int8Matrix, plain};
#[cfg(target_arch = "x86_64")]
use super::{
    avx2::{Bytes, Pairs},
    blocked,
    vnni::Avx512Vnni,
};
use crate::{Exec, Isa};

/// What computes the products. Slow first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// Plain Rust, compiled for every instruction set.
    Plain,
    /// AVX2, on integers of 16 bits.
    Avx2,
    /// AVX-VNNI: 256 bits of bytes.
    AvxVnni,
    /// AVX-512 VNNI: 512 bits of bytes.
    Avx512Vnni,
}

impl Path {
    /// The fastest path of an instruction set on this machine.
    pub fn of(exec: Exec) -> Self {
        Self::available(exec.isa()).last().copied().unwrap_or(Self::Plain)
    }

    /// Every path that this machine can take within an instruction set it supports, slow first.
    pub fn available(isa: Isa) -> Vec<Self> {
        let all = [Self::Plain, Self::Avx2, Self::AvxVnni, Self::Avx512Vnni];
        all.into_iter().filter(|path| path.is_in(isa)).collect()
    }

    #[cfg(target_arch = "x86_64")]
    fn is_in(self, isa: Isa) -> bool {
        let has_avx2 = matches!(isa, Isa::Avx2 | Isa::Avx512);
        match self {
            Self::Plain => true,
            Self::Avx2 => has_avx2,
            Self::AvxVnni => has_avx2 && is_x86_feature_detected!("avxvnni"),
            Self::Avx512Vnni => isa == Isa::Avx512 && is_x86_feature_detected!("avx512vnni"),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn is_in(self, _: Isa) -> bool {
        self == Self::Plain
    }

    /// The name used by `cavy doctor`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain Rust",
            Self::Avx2 => "AVX2",
            Self::AvxVnni => "AVX-VNNI",
            Self::Avx512Vnni => "AVX-512 VNNI",
        }
    }
}

/// `y_ij = s_j * sum over runs of d * (sum over p of q_ip w_pj) + b_j`, with `q` and `d` of `x` times `fold`.
pub(super) struct Product<'a> {
    /// `(n, k)`.
    pub(super) x: &'a [f32],
    pub(super) n: usize,
    pub(super) weight: &'a Int8Matrix,
    /// Whether the shared dimension is that of the weight's rows.
    pub(super) is_backward: bool,
    /// `b`, if there is one.
    pub(super) bias: Option<&'a [f32]>,
    /// `(n, width)`.
    pub(super) y: &'a mut [f32],
}

impl<'a> Product<'a> {
    /// `y = x W^T`. There are rows, and the lengths fit.
    pub(super) fn new(x: &'a [f32], n: usize, weight: &'a Int8Matrix, y: &'a mut [f32]) -> Self {
        Self { x, n, weight, is_backward: false, bias: None, y }
    }

    pub(super) fn with_bias(self, bias: Option<&'a [f32]>) -> Self {
        Self { bias, ..self }
    }

    /// `y = x W` instead.
    pub(super) fn backward(self) -> Self {
        Self { is_backward: true, ..self }
    }

    /// The shared dimension.
    pub(super) fn steps(&self) -> usize {
        if self.is_backward { self.weight.rows() } else { self.weight.cols }
    }

    /// Results of a row.
    pub(super) fn width(&self) -> usize {
        if self.is_backward { self.weight.cols } else { self.weight.rows() }
    }

    /// What each number of a row of `x` is multiplied with before it is rounded.
    pub(super) fn fold(&self) -> Option<&'a [f32]> {
        if self.is_backward { Some(&self.weight.scales) } else { None }
    }

    /// What each result of a row is multiplied with.
    pub(super) fn scales(&self) -> Option<&'a [f32]> {
        if self.is_backward { None } else { Some(&self.weight.scales) }
    }

    pub(super) fn run(self, exec: Exec) {
        self.run_on(Path::of(exec), exec);
    }

    /// Runs it on a path of the machine, which is one of [`Path::available`].
    pub(super) fn run_on(self, path: Path, exec: Exec) {
        match path {
            Path::Plain => plain::run(exec, self),
            // SAFETY: the machine has the path, that is, its instructions.
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => unsafe { blocked::run::<Pairs>(exec, self) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Path::AvxVnni => unsafe { blocked::run::<Bytes>(exec, self) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Path::Avx512Vnni => unsafe { blocked::run::<Avx512Vnni>(exec, self) },
            #[cfg(not(target_arch = "x86_64"))]
            Path::Avx2 | Path::AvxVnni | Path::Avx512Vnni => unreachable!("{} on another CPU", path.name()),
        }
    }
}
