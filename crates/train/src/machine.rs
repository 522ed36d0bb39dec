//! What the machine can do, against which a run's throughput is held.

use crate::settings::{Precision, Settings};
use cavy_ops::kernels::matmul::{Onto, View, ViewMut, matmul};
use cavy_ops::{Exec, kernels};
use std::time::{Duration, Instant};

/// How much faster half-precision products have to be, measured, for `auto` to choose them: far from both what machines
/// with fast ones reach (about twice) and those with slow ones (half).
const WORTHWHILE: f64 = 1.2;

/// What a run computes with on this machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Instruction set, threads and precision.
    pub exec: Exec,
    /// Floating-point operations a second of matrix products in that precision.
    pub flops_per_s: f64,
    /// The precision in use, and why.
    pub precision: String,
}

impl Machine {
    /// Measures the machine, and chooses what the settings leave open.
    pub fn of_run<S: Settings>(settings: &S) -> Self {
        let run = settings.run();
        match settings.needs_f32().filter(|_| run.precision == Precision::Auto) {
            None => Self::new(Exec::new(run.worker_threads()), run.precision),
            Some(why) => {
                let plain = Self::new(Exec::new(run.worker_threads()), Precision::F32);
                Self { precision: format!("f32, chosen by auto {why}"), ..plain }
            }
        }
    }

    /// The same on the instruction set and threads of `exec`.
    pub fn new(exec: Exec, precision: Precision) -> Self {
        let plain = exec.with_precision(kernels::Precision::F32);
        let flops = matmul_flops_per_s(plain);
        let f32 = |precision| Self { exec: plain, flops_per_s: flops, precision };
        if precision == Precision::F32 {
            return f32("f32, as set".to_owned());
        }
        let Some(format) = exec.isa().half_products().map(kernels::HalfFormat::name) else {
            return f32(
                "f32, since this CPU has no half-precision products that cavy knows (AVX512-FP16 or AVX-512 BF16)"
                    .to_owned(),
            );
        };
        let half = exec.with_precision(kernels::Precision::Mixed);
        let half_flops = matmul_flops_per_s(half);
        let rates = format!("{:.0} GFLOP/s where f32 has {:.0}", half_flops / 1e9, flops / 1e9);
        if precision == Precision::Auto && half_flops < WORTHWHILE * flops {
            return f32(format!("f32, chosen by auto: products of {format} have {rates}"));
        }
        let how = match precision {
            Precision::Auto => ", chosen by auto",
            _ if half_flops < flops => ", as set, though slower here",
            _ => ", as set",
        };
        let precision = format!("mixed{how}: operands of matrix products are rounded to {format}, {rates}");
        Self { exec: half, flops_per_s: half_flops, precision }
    }

    /// What `machine.json` of a run says.
    pub(crate) fn to_json(&self) -> String {
        let json = serde_json::json!({
            "isa": self.exec.isa().name(), "threads": self.exec.threads(), "precision": self.precision,
            "matmul_gflops": self.flops_per_s / 1e9,
        });
        format!("{json:#}\n")
    }
}

/// Width of the square matrices that are multiplied.
const SIZE: usize = 1024;
/// Most products, and the time after which no other is begun.
const MOST: usize = 12;
const PATIENCE: Duration = Duration::from_millis(300);

/// Floating-point operations a second of the best of a few matrix products of 1024 x 1024, in the precision of `exec`.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PretrainSettings;
    use crate::settings::DpoSettings;
    use cavy_ops::Isa;

    #[test]
    fn auto_fine_tunes_whole_models_in_f32() {
        let mut settings = DpoSettings::default();
        settings.run.precision = Precision::Auto;
        settings.adapter.r = 0;
        let machine = Machine::of_run(&settings);
        assert!(machine.exec.half_products().is_none(), "{}", machine.precision);
        assert!(machine.precision.starts_with("f32, chosen by auto since fine-tuning"), "{}", machine.precision);
        settings.adapter.r = 8;
        assert!(!Machine::of_run(&settings).precision.contains("fine-tuning"));
        settings.adapter.r = 0;
        settings.run.precision = Precision::Mixed;
        assert!(!Machine::of_run(&settings).precision.contains("fine-tuning"), "what is asked for is done");
        let mut settings = PretrainSettings::default();
        settings.run.precision = Precision::Auto;
        assert!(!Machine::of_run(&settings).precision.contains("fine-tuning"));
    }

    #[test]
    fn what_is_in_use_is_said_with_the_reason() {
        let exec = Exec::new(2);
        let f32 = Machine::new(exec.with_precision(kernels::Precision::Mixed), Precision::F32);
        assert_eq!((f32.exec, f32.precision.as_str()), (exec, "f32, as set"));
        let portable = exec.with_isa(Isa::Portable);
        for precision in [Precision::Mixed, Precision::Auto] {
            let machine = Machine::new(portable, precision);
            assert_eq!(machine.exec, portable);
            assert!(machine.precision.starts_with("f32, since this CPU has no"), "{}", machine.precision);
            if exec.isa().half_products().is_none() {
                continue;
            }
            let machine = Machine::new(exec, precision);
            let mixed = machine.exec.half_products().is_some();
            assert!(
                machine.precision.starts_with(if mixed { "mixed" } else { "f32, chosen" }),
                "{}",
                machine.precision
            );
            assert!(mixed || precision == Precision::Auto);
        }
    }
}
