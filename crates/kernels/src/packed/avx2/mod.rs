//! Products straight from storage forms with AVX2, FMA and F16C.
#![expect(unsafe_code, reason = "intrinsics, and blocks read through pointers that were checked as slices of rows")]

mod floats;
mod layout;
mod one_row;
mod panel;
mod scales;

use super::activations::Activations;
use super::format::Format;
use super::rows::Rows;
use layout::Layout;

/// One task of a product: of quantized weights with rounded activations, of floats with `x`.
///
/// # Safety
/// The machine has AVX2, FMA and F16C.
pub(super) unsafe fn product(rows: &Rows<'_>, x: &[f32], rounded: &Activations) {
    // SAFETY: the caller's promise; the layout is that of the format.
    unsafe {
        match rows.weight.format {
            Format::F32 => floats::few_rows::<floats::F32>(rows, x),
            Format::F16 => floats::few_rows::<floats::F16>(rows, x),
            Format::Bf16 => floats::few_rows::<floats::Bf16>(rows, x),
            Format::Q4_0 => integers::<layout::Q4_0>(rows, rounded),
            Format::Q4_1 => integers::<layout::Q4_1>(rows, rounded),
            Format::Q5_0 => integers::<layout::Q5_0>(rows, rounded),
            Format::Q5_1 => integers::<layout::Q5_1>(rows, rounded),
            Format::Q8_0 => integers::<layout::Q8_0>(rows, rounded),
            Format::Q4K => integers::<layout::Q4K>(rows, rounded),
            Format::Q5K => integers::<layout::Q5K>(rows, rounded),
            Format::Q6K => integers::<layout::Q6K>(rows, rounded),
        }
    }
}

unsafe fn integers<L: Layout>(rows: &Rows<'_>, x: &Activations) {
    // SAFETY: the caller's promise.
    unsafe { if rows.n == 1 { one_row::one_row::<L>(rows, x) } else { panel::many_rows::<L>(rows, x) } }
}
