//! Products straight from storage forms with AVX2, FMA and F16C.
#![expect(unsafe_code, reason = "intrinsics, and blocks read through pointers that were checked as slices of rows")]

mod layout;
mod one_row;
mod panel;
mod scales;

use super::activations::Activations;
use super::format::Format;
use super::linear::Rows;
use layout::Layout;

/// Products of quantized weights with rounded activations.
///
/// # Safety
/// The machine has AVX2, FMA and F16C.
pub(super) unsafe fn integers(rows: &Rows<'_>, x: &Activations) {
    // SAFETY: the caller's promise; the layout is that of the format.
    unsafe {
        match rows.weight.format() {
            Format::Q4_0 => product::<layout::Q4_0>(rows, x),
            Format::Q4_1 => product::<layout::Q4_1>(rows, x),
            Format::Q5_0 => product::<layout::Q5_0>(rows, x),
            Format::Q5_1 => product::<layout::Q5_1>(rows, x),
            Format::Q8_0 => product::<layout::Q8_0>(rows, x),
            Format::Q4K => product::<layout::Q4K>(rows, x),
            Format::Q5K => product::<layout::Q5K>(rows, x),
            Format::Q6K => product::<layout::Q6K>(rows, x),
            Format::F32 | Format::F16 | Format::Bf16 => unreachable!("floats have no integers"),
        }
    }
}

unsafe fn product<L: Layout>(rows: &Rows<'_>, x: &Activations) {
    // SAFETY: the caller's promise.
    unsafe { if rows.n == 1 { one_row::one_row::<L>(rows, x) } else { panel::many_rows::<L>(rows, x) } }
}
