//! The residual sum: `y += x`.
//!
//! Shapes: element by element, any length. Its backward pass hands the gradient on to both.

use crate::exec::Exec;
use crate::lanes::TASK_ELEMENTS;
use crate::parallel::for_each_chunk;
use crate::simd::{Kernel, Simd, dispatch};

/// `y += x`.
///
/// Numbers: one rounding each. Same bits for any number of threads.
/// Panics: if the lengths differ.
pub fn add_to(exec: Exec, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "a sum of {} and {} elements", x.len(), y.len());
    for_each_chunk(exec, y, TASK_ELEMENTS, |index, y| {
        let x = &x[index * TASK_ELEMENTS..][..y.len()];
        dispatch(exec, Add { x, y });
    });
}

struct Add<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Add<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        self.y.iter_mut().zip(self.x).for_each(|(y, x)| *y += x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_fast, test_input, wide};

    #[test]
    fn the_fast_path_is_the_sum_at_any_length() {
        for n in [0, 1, 17, TASK_ELEMENTS - 1, TASK_ELEMENTS, TASK_ELEMENTS + 1] {
            let (x, y) = (test_input(n, 1), test_input(n, 2));
            let run = |exec| {
                let mut sum = y.clone();
                add_to(exec, &x, &mut sum);
                vec![sum]
            };
            check_fast("add", run, &[wide(&x).iter().zip(wide(&y)).map(|(x, y)| x + y).collect()], 1e-7);
        }
    }
}
