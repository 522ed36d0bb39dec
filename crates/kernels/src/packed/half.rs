//! Conversions of 16-bit floats, as integer arithmetic that the compiler vectorizes.
//!
//! No step has a denormal f32 as operand or result, so that threads which flush those agree with threads which do not:
//! the scales of quantized blocks are often denormal as binary16.
//!
//! Source: IEEE 754-2008, sections 3.4 and 4.3.1.

/// The value of a binary16.
#[inline(always)]
pub fn f16_to_f32(half: u16) -> f32 {
    /// Difference of the two formats' exponent biases.
    const REBIAS: u32 = (127 - 15) << 23;
    /// The smallest normal binary16, 2^-14.
    const SMALLEST_NORMAL: u32 = 113 << 23;
    let magnitude = u32::from(half & 0x7FFF);
    let sign = u32::from(half & 0x8000) << 16;
    let normal = (magnitude << 13) + REBIAS;
    // 2^-14 (1 + m / 1024) - 2^-14.
    let denormal = f32::from_bits(SMALLEST_NORMAL | magnitude << 13) - f32::from_bits(SMALLEST_NORMAL);
    let special = normal + REBIAS;
    let finite = if magnitude < 0x0400 { denormal.to_bits() } else { normal };
    f32::from_bits(sign | if magnitude >= 0x7C00 { special } else { finite })
}

/// The nearest binary16, ties to even; infinity from 65520 on.
#[inline(always)]
pub fn f32_to_f16(x: f32) -> u16 {
    let bits = x.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let magnitude = bits & 0x7FFF_FFFF;
    // The last place of 0.5 is 2^-24, the step of denormal halves.
    let denormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5_f32.to_bits());
    let normal = round_off_bits(magnitude, 13).wrapping_sub((127 - 15) << 10);
    let half = if magnitude < 113 << 23 { denormal } else { normal };
    let half = if magnitude >= 0x477F_F000 { 0x7C00 } else { half };
    let nan = 0x7E00 | (magnitude >> 13 & 0x03FF);
    sign | if magnitude > 0x7F80_0000 { nan } else { half } as u16
}

/// The value of a bfloat16.
#[inline(always)]
pub fn bf16_to_f32(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

/// The nearest bfloat16, ties to even. A NaN stays a NaN and becomes quiet.
#[inline(always)]
pub fn f32_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let nan = bits >> 16 | 0x0040;
    if bits & 0x7FFF_FFFF > 0x7F80_0000 { nan as u16 } else { round_off_bits(bits, 16) as u16 }
}

/// `bits / 2^count`, rounded to nearest, ties to even.
#[inline(always)]
fn round_off_bits(bits: u32, count: u32) -> u32 {
    bits.wrapping_add((1 << (count - 1)) - 1 + (bits >> count & 1)) >> count
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of a binary16 by its definition.
    fn defined(half: u16) -> f64 {
        let (exponent, fraction) = (i32::from(half >> 10 & 31), f64::from(half & 1023));
        let magnitude = match exponent {
            0 => fraction * 2_f64.powi(-24),
            31 if fraction == 0.0 => f64::INFINITY,
            31 => f64::NAN,
            _ => (1.0 + fraction / 1024.0) * 2_f64.powi(exponent - 15),
        };
        if half & 0x8000 == 0 { magnitude } else { -magnitude }
    }

    #[test]
    fn every_binary16_has_its_defined_value_and_comes_back() {
        for half in 0..=u16::MAX {
            let (got, want) = (f16_to_f32(half), defined(half));
            assert!(f64::from(got) == want || got.is_nan() && want.is_nan(), "{half:#x}: {got} {want}");
            if want.is_nan() {
                assert!(defined(f32_to_f16(got)).is_nan());
            } else {
                assert_eq!(f32_to_f16(got), half);
            }
        }
    }

    #[test]
    fn halfway_values_round_to_the_even_binary16() {
        for half in (0..0x7C00_u16).step_by(2) {
            // Even, odd, even: both midpoints go to the outer, even ones; a little off them, to the odd one.
            let at = |step: u16| f16_to_f32(half + step);
            let next = if half + 2 == 0x7C00 { 65536.0 } else { at(2) };
            let (low, high) = (f32::midpoint(at(0), at(1)), f32::midpoint(at(1), next));
            assert_eq!((f32_to_f16(low), f32_to_f16(-high)), (half, 0x8000 | (half + 2)));
            assert_eq!((f32_to_f16(low.next_up()), f32_to_f16(high.next_down())), (half + 1, half + 1));
        }
    }

    #[test]
    fn bfloat16_rounds_to_nearest_even_and_keeps_specials() {
        // 1 + 2^-7 is the next after 1.
        for (x, want) in [(1.0, 0x3F80), (1.003_906_3, 0x3F80), (1.003_906_4, 0x3F81), (1.011_718_8, 0x3F82)] {
            assert_eq!(f32_to_bf16(x), want, "{x}");
        }
        assert_eq!(f32_to_bf16(f32::NEG_INFINITY), 0xFF80);
        assert_eq!(f32_to_bf16(f32::MAX), 0x7F80);
        assert!(bf16_to_f32(f32_to_bf16(f32::from_bits(0x7F80_0001))).is_nan());
        for half in 0..0x7F80_u16 {
            assert_eq!(f32_to_bf16(bf16_to_f32(half)), half);
        }
    }
}
