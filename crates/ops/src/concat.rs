//! Tensors side by side.

use crate::cpu::{CpuOp, Input, apply, dims, filled, filled_if, is_fused, slice};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;

/// The rows of three tensors one after the other, such as a token's queries, keys and values.
///
/// Shapes: `(N, A)`, `(N, B)`, `(N, C)` to `(N, A + B + C)`.
pub fn concat([a, b, c]: [Tensor<2>; 3]) -> Tensor<2> {
    if !is_fused(&a) {
        return Tensor::cat(vec![a, b, c], 1);
    }
    let widths = [&a, &b, &c].map(|x| x.dims()[1]);
    apply(Concat(widths), [Input::of(a), Input::of(b), Input::of(c)])
}

#[derive(Debug)]
struct Concat([usize; 3]);

impl CpuOp<3> for Concat {
    type Saved = ();

    fn forward(&self, parts: [FlexTensor; 3], _: [bool; 3]) -> (FlexTensor, ()) {
        let ([n, _], width) = (dims::<2>(&parts[0]), self.0.iter().sum());
        let y = filled([n, width], |y| {
            let mut column = 0;
            for (part, width_of) in parts.iter().zip(self.0) {
                let rows = slice(part).chunks_exact(width_of);
                rows.zip(y.chunks_exact_mut(width)).for_each(|(x, y)| y[column..column + width_of].copy_from_slice(x));
                column += width_of;
            }
        });
        (y, ())
    }

    fn backward(self, d_y: FlexTensor, (): (), wanted: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let [n, width] = dims::<2>(&d_y);
        let mut column = 0;
        std::array::from_fn(|part| {
            let (first, own) = (column, self.0[part]);
            column += own;
            filled_if(wanted[part], [n, own], |d_x| {
                let rows = slice(&d_y).chunks_exact(width);
                d_x.chunks_exact_mut(own)
                    .zip(rows)
                    .for_each(|(d_x, d_y)| d_x.copy_from_slice(&d_y[first..first + own]));
            })
        })
    }
}
