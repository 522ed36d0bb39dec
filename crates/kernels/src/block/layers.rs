//! The linear layers of a block as its tasks that go forward use them: where that is faster, with copies of the weights in the order
//! the products read them, made once for all tasks.

use super::Layer;
use crate::exec::Exec;
#[cfg(target_arch = "x86_64")]
use crate::exec::Isa;
#[cfg(target_arch = "x86_64")]
use crate::matmul::avx512::{Columns, is_in_one_go, multiply_copy};
use crate::matmul::{Onto, Product, View, ViewMut, matmuls};

/// Layers of a block.
pub(super) const LAYERS: usize = 4;

/// What [`with`] makes.
pub(super) struct Layers<'a> {
    /// `(in, out)`.
    weights: [View<'a>; LAYERS],
    biases: [Option<&'a [f32]>; LAYERS],
    #[cfg(target_arch = "x86_64")]
    copies: Option<&'a [Columns; LAYERS]>,
}

/// Runs `body` with layers of these numbers of inputs.
pub(super) fn with<R>(
    exec: Exec,
    layers: [Layer<'_>; LAYERS],
    inputs: [usize; LAYERS],
    body: impl FnOnce(&Layers<'_>) -> R,
) -> R {
    let weights: [View<'_>; LAYERS] = std::array::from_fn(|layer| {
        let weight = layers[layer].weight;
        View::new(weight, weight.len() / inputs[layer], inputs[layer]).t()
    });
    #[cfg(target_arch = "x86_64")]
    if exec.isa() == Isa::Avx512
        && exec.half_products().is_none()
        && weights.iter().all(|weight| is_in_one_go(weight.rows(), weight.cols()))
    {
        thread_local! {
            static COPIES: std::cell::Cell<[Columns; LAYERS]> = std::cell::Cell::default();
        }
        let mut copies = COPIES.take();
        Columns::copy_all(exec, &mut copies, weights);
        let result = body(&Layers { weights, biases: layers.map(|layer| layer.bias), copies: Some(&copies) });
        COPIES.set(copies);
        return result;
    }
    let _ = exec;
    body(&Layers {
        weights,
        biases: layers.map(|layer| layer.bias),
        #[cfg(target_arch = "x86_64")]
        copies: None,
    })
}

impl Layers<'_> {
    /// `y = x W^T + b` of layer `number` for `n` rows, on the calling thread.
    ///
    /// Numbers: the same bits with copies and without.
    pub(super) fn apply(&self, serial: Exec, number: usize, x: &[f32], n: usize, y: &mut [f32]) {
        let (b, row) = (self.weights[number], self.biases[number]);
        let (a, c) = (View::new(x, n, b.rows()), ViewMut::new(y, n, b.cols()));
        #[cfg(target_arch = "x86_64")]
        if let Some(copies) = self.copies {
            return multiply_copy(serial, 1.0, a, &copies[number], row, c);
        }
        matmuls(serial, [Product { onto: Onto::Overwrite, row, scale: 1.0, a, b, c, after: None }]);
    }
}
