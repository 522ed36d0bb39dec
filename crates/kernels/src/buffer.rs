//! Memory for results.
#![expect(unsafe_code, reason = "skips the zeroing of memory that a kernel overwrites whole")]

/// A vector of `len` floats whose values are arbitrary: for a kernel that writes each of them before any is read.
///
/// Zeroing results first would be one more pass over all activations and gradients, some five percent of a
/// training step.
#[expect(clippy::uninit_vec, reason = "see the safety comment")]
pub fn unfilled(len: usize) -> Vec<f32> {
    let mut data: Vec<f32> = Vec::with_capacity(len);
    // SAFETY: the capacity is there, and a float has no invalid bit pattern; every kernel's docstring says that
    // it overwrites its outputs, and the kernels' tests fill outputs with NaN first to hold it.
    unsafe { data.set_len(len) };
    data
}
