//! A depth, a width and a number of heads for a number of parameters.

use serde::Serialize;

/// Sizes of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Shape {
    /// Width of the residual stream, `D`.
    pub hidden_size: usize,
    /// Blocks, `L`.
    pub num_hidden_layers: usize,
    /// Attention heads, `H`.
    pub num_attention_heads: usize,
}

/// Width over depth that published models have at `n` parameters: about 20 at 50k, 64 at 124M (GPT-2), 128 from 7B on
/// (Llama). The loss hardly depends on it (Kaplan et al. 2020, figure 5).
pub fn aspect_ratio(n: f64) -> f64 {
    (32.0 * (n / 1e6).powf(0.15)).clamp(16.0, 128.0)
}

/// Size of a head at a width: 128 for large models, 64 from GPT-2's width on, less below so that there are several.
fn head_dim(width: usize) -> usize {
    match width {
        2048.. => 128,
        256.. => 64,
        128.. => 32,
        _ => 16,
    }
}

/// Widths that models of about a width have: multiples of this, which is one of [`head_dim`].
fn width_step(width: usize) -> usize {
    match width {
        4096.. => 512,
        1024.. => 128,
        _ => head_dim(width),
    }
}

/// The shape whose parameters, as `parameters` counts them, come closest to `target`, among shapes of about the usual
/// [`aspect_ratio`]. A width is a multiple of its head's size.
///
/// Law: the result is within a tenth of `target` where the vocabulary leaves room for it.
pub fn choose(target: f64, parameters: impl Fn(Shape) -> f64) -> Shape {
    let wanted = aspect_ratio(target).ln();
    let mut best = None;
    for layers in 1..=160 {
        let mut width = 16;
        while width <= 32_768 {
            let shape =
                Shape { hidden_size: width, num_hidden_layers: layers, num_attention_heads: width / head_dim(width) };
            let size = (parameters(shape) / target).ln();
            let aspect = (width as f64 / layers as f64).ln() - wanted;
            // A tenth off in size weighs as much as twice or half the aspect ratio.
            let cost = (size / 0.1).powi(2) + (aspect / 2_f64.ln()).powi(2);
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, shape));
            }
            if size > 1.0 {
                break;
            }
            let step = width_step(width + 1);
            width = (width / step + 1) * step;
        }
    }
    best.expect("there is at least one shape").1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GPT-2's count for a vocabulary of 50257 and 1024 positions.
    fn gpt2(shape: Shape) -> f64 {
        let (d, l) = (shape.hidden_size as f64, shape.num_hidden_layers as f64);
        (50_257.0 + 1024.0) * d + l * (12.0 * d * d + 13.0 * d) + 2.0 * d
    }

    #[test]
    fn gpt2_gets_about_its_own_shape() {
        let found = choose(124e6, gpt2);
        assert!((10..=14).contains(&found.num_hidden_layers) && (704..=832).contains(&found.hidden_size), "{found:?}");
        assert_eq!(found.hidden_size / found.num_attention_heads, 64);
    }

    #[test]
    fn sizes_are_met_within_a_tenth_and_heads_divide_the_width() {
        for target in [60e6, 124e6, 1e9, 7e9, 70e9, 500e9] {
            let found = choose(target, gpt2);
            let gap = (gpt2(found) / target - 1.0).abs();
            assert!(gap < 0.1, "{target:e}: {found:?}, {gap}");
            assert!(found.hidden_size.is_multiple_of(found.num_attention_heads), "{found:?}");
            let aspect = found.hidden_size as f64 / found.num_hidden_layers as f64;
            assert!((aspect / aspect_ratio(target)).ln().abs() < 2_f64.ln(), "{target:e}: {found:?}");
        }
        // A vocabulary of 64 leaves room for tiny ones.
        let tiny = |shape: Shape| 64.0 * shape.hidden_size as f64 + gpt2(shape) - 51_281.0 * shape.hidden_size as f64;
        for target in [20e3, 50e3, 200e3, 1e6] {
            let found = choose(target, tiny);
            assert!((tiny(found) / target - 1.0).abs() < 0.1, "{target:e}: {found:?}");
        }
    }
}
