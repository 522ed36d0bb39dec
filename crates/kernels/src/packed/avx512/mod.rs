//! Products straight from storage forms with AVX-512 F, BW, VL and DQ, those of integers with VNNI.
//!
//! Sixteen rows of the weight lie side by side, a row in each lane: they are read 16 bytes at a time and transposed in
//! their storage form, before anything is taken apart, which costs least then.
#![expect(unsafe_code, reason = "intrinsics, and blocks read through pointers that were checked as slices of rows")]

mod columns;
mod floats;
mod integers;
mod layout;

use super::activations::Activations;
use super::format::Format;
use super::rows::Rows;

/// One task of a product: of quantized weights with rounded activations, of floats with `x`.
///
/// # Safety
/// The machine has AVX-512 F, BW, VL and DQ, and VNNI if the weight is quantized.
pub(super) unsafe fn product(rows: &Rows<'_>, x: &[f32], rounded: &Activations) {
    // SAFETY: the caller's promise; the layout is that of the format.
    unsafe {
        match rows.weight.format {
            Format::F32 => floats::few_rows::<floats::F32>(rows, x),
            Format::F16 => floats::few_rows::<floats::F16>(rows, x),
            Format::Bf16 => floats::few_rows::<floats::Bf16>(rows, x),
            Format::Q4_0 => integers::product::<layout::Q4_0>(rows, rounded),
            Format::Q4_1 => integers::product::<layout::Q4_1>(rows, rounded),
            Format::Q5_0 => integers::product::<layout::Q5_0>(rows, rounded),
            Format::Q5_1 => integers::product::<layout::Q5_1>(rows, rounded),
            Format::Q8_0 => integers::product::<layout::Q8_0>(rows, rounded),
            Format::Q4K => integers::product::<layout::Q4K>(rows, rounded),
            Format::Q5K => integers::product::<layout::Q5K>(rows, rounded),
            Format::Q6K => integers::product::<layout::Q6K>(rows, rounded),
        }
    }
}
