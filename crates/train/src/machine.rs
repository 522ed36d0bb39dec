//! What the machine can do, against which a run's throughput is held.

use cavy_ops::Exec;
use cavy_ops::kernels::matmul::{Onto, View, ViewMut, matmul};
use std::time::{Duration, Instant};

/// Width of the square matrices that are multiplied.
const SIZE: usize = 1024;
/// Most products, and the time after which no other is begun.
const MOST: usize = 12;
const PATIENCE: Duration = Duration::from_millis(300);

/// Floating-point operations a second of the best of a few matrix products of 1024 x 1024, in f32.
pub fn matmul_flops_per_s(exec: Exec) -> f64 {
    let (a, b) = (vec![0.5_f32; SIZE * SIZE], vec![0.25_f32; SIZE * SIZE]);
    let mut c = vec![0.0; SIZE * SIZE];
    let began = Instant::now();
    let mut best = Duration::MAX;
    for product in 0..MOST {
        if product > 1 && began.elapsed() > PATIENCE {
            break;
        }
        let start = Instant::now();
        let (a, b) = (View::new(&a, SIZE, SIZE), View::new(&b, SIZE, SIZE));
        matmul(exec, Onto::Overwrite, 1.0, a, b, ViewMut::new(&mut c, SIZE, SIZE));
        best = best.min(start.elapsed());
    }
    2.0 * (SIZE * SIZE * SIZE) as f64 / best.as_secs_f64()
}
