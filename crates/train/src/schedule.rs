//! The learning rate at each step.

use crate::settings::{LrSchedule, OptimizationSettings};
use std::f64::consts::PI;

/// Linear warmup from `initial_lr` to `peak_lr`, then one of four courses.
///
/// With `w` warmup steps of `n` in all, and `p = (s - w) / (n - w)` the share of the rest that is done at step `s`:
///
/// - `s < w`: `initial_lr + s * (peak_lr - initial_lr) / w`
/// - constant: `peak_lr`
/// - cosine: `min_lr + (peak_lr - min_lr) * 0.5 * (1 + cos(pi * p))`
/// - linear: `peak_lr + p * (min_lr - peak_lr)`
/// - wsd: `peak_lr`, and linear to `min_lr` over the last `decay_steps`
///
/// Steps count from 0; step `n` would be the first after the run, so the last step stops just above `min_lr`.
///
/// Law: between the smallest and the largest of the three rates; no jump where warmup and decay meet.
/// Source: Raschka, Build a Large Language Model (From Scratch), appendix D; Hu et al. 2024 for wsd,
/// <https://arxiv.org/abs/2404.06395>.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The course after the warmup.
    pub kind: LrSchedule,
    /// Rate at step 0.
    pub initial_lr: f64,
    /// Rate at the end of the warmup.
    pub peak_lr: f64,
    /// Rate at the end of the decay.
    pub min_lr: f64,
    /// Steps of warmup.
    pub warmup_steps: usize,
    /// Steps of the final decay of `wsd`.
    pub decay_steps: usize,
    /// Steps in all.
    pub total_steps: usize,
}

impl Schedule {
    /// The schedule that `settings` describe for a run of `total_steps`.
    pub fn new(settings: &OptimizationSettings, total_steps: usize) -> Self {
        let warmup_steps = settings.warmup_steps.steps(total_steps);
        let decay_steps = (settings.decay_fraction * total_steps as f64).round() as usize;
        Self {
            kind: settings.lr_schedule,
            initial_lr: settings.initial_lr,
            peak_lr: settings.peak_lr,
            min_lr: settings.min_lr,
            warmup_steps,
            decay_steps: decay_steps.min(total_steps - warmup_steps),
            total_steps,
        }
    }

    /// The learning rate of step `step`. Beyond the last step it stays where the course ends.
    pub fn lr_at(&self, step: usize) -> f64 {
        if step < self.warmup_steps {
            return self.initial_lr + step as f64 * (self.peak_lr - self.initial_lr) / self.warmup_steps as f64;
        }
        match self.kind {
            LrSchedule::Constant => self.peak_lr,
            LrSchedule::Cosine => {
                let progress = progress(step, self.warmup_steps, self.total_steps);
                self.min_lr + (self.peak_lr - self.min_lr) * 0.5 * (1.0 + (PI * progress).cos())
            }
            LrSchedule::Linear => self.line(progress(step, self.warmup_steps, self.total_steps)),
            LrSchedule::Wsd => self.line(progress(step, self.total_steps - self.decay_steps, self.total_steps)),
        }
    }

    /// The rate of every step of the run.
    pub fn curve(&self) -> Vec<f64> {
        (0..self.total_steps).map(|step| self.lr_at(step)).collect()
    }

    /// On the straight line from the peak (0) to the minimum (1).
    fn line(&self, progress: f64) -> f64 {
        self.peak_lr * (1.0 - progress) + self.min_lr * progress
    }
}

/// How far `step` is on the way from `start` to `end`, 0 before and 1 after.
fn progress(step: usize, start: usize, end: usize) -> f64 {
    if step >= end && end > start {
        return 1.0;
    }
    (step.saturating_sub(start) as f64 / end.saturating_sub(start).max(1) as f64).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Warmup;
    use proptest::prelude::*;

    fn chapter_settings() -> OptimizationSettings {
        OptimizationSettings {
            initial_lr: 1e-5,
            peak_lr: 1e-3,
            min_lr: 1e-5,
            warmup_steps: Warmup::Fraction(0.2),
            epochs: 15,
            ..OptimizationSettings::default()
        }
    }

    #[test]
    fn nine_batches_and_fifteen_epochs_make_135_steps_with_27_of_warmup() {
        let settings = chapter_settings();
        let total_steps = settings.total_steps(9);
        let schedule = Schedule::new(&settings, total_steps);
        assert_eq!((total_steps, schedule.warmup_steps), (135, 27));
        for step in 0..135 {
            let s = step as f64;
            let expected = if step < 27 {
                1e-5 + s * (1e-3 - 1e-5) / 27.0
            } else {
                1e-5 + (1e-3 - 1e-5) * 0.5 * (1.0 + (PI * (s - 27.0) / (135.0 - 27.0)).cos())
            };
            let gap = (schedule.lr_at(step) - expected).abs();
            assert!(gap < 1e-15, "step {step}: {} instead of {expected}", schedule.lr_at(step));
        }
    }

    #[test]
    fn three_rates_worked_out_by_hand() {
        let schedule = Schedule::new(&chapter_settings(), 135);
        // Step 0 is the initial rate; step 27 the peak; step 81 is half way down, (1e-3 + 1e-5) / 2.
        assert_eq!(schedule.lr_at(0), 1e-5);
        assert_eq!(schedule.lr_at(27), 1e-3);
        assert!((schedule.lr_at(81) - 5.05e-4).abs() < 1e-15);
    }

    #[test]
    fn wsd_stays_at_the_peak_until_the_last_fifth() {
        let settings = OptimizationSettings { lr_schedule: LrSchedule::Wsd, decay_fraction: 0.2, ..chapter_settings() };
        let schedule = Schedule::new(&settings, 100);
        // 20 steps of warmup, 60 at the peak, 20 of decay: step 90 is half way between 1e-3 and 1e-5.
        assert_eq!((schedule.lr_at(20), schedule.lr_at(80)), (1e-3, 1e-3));
        assert!(schedule.lr_at(81) < 1e-3);
        assert!((schedule.lr_at(90) - 5.05e-4).abs() < 1e-15);
    }

    #[test]
    fn a_linear_schedule_is_half_way_down_in_the_middle() {
        let schedule =
            Schedule::new(&OptimizationSettings { lr_schedule: LrSchedule::Linear, ..chapter_settings() }, 135);
        assert!((schedule.lr_at(81) - 5.05e-4).abs() < 1e-15);
        assert_eq!(schedule.lr_at(135), 1e-5);
    }

    #[test]
    fn a_count_of_warmup_steps_is_taken_as_it_is_and_never_exceeds_the_run() {
        let with = |warmup_steps| Schedule::new(&OptimizationSettings { warmup_steps, ..chapter_settings() }, 50);
        assert_eq!(with(Warmup::Steps(7)).warmup_steps, 7);
        assert_eq!(with(Warmup::Steps(80)).warmup_steps, 50);
        assert_eq!(with(Warmup::Steps(0)).lr_at(0), 1e-3);
    }

    prop_compose! {
        fn any_schedule()(
            kind in prop_oneof![
                Just(LrSchedule::Constant), Just(LrSchedule::Cosine), Just(LrSchedule::Linear), Just(LrSchedule::Wsd)
            ],
            peak_lr in 1e-6..1e-1f64,
            low in 0.0..1.0f64,
            start in 0.0..1.0f64,
            warmup in 0.0..1.0f64,
            decay_fraction in 0.01..1.0f64,
            total_steps in 0usize..300,
        ) -> Schedule {
            let warmup_steps = if warmup > 0.0 { Warmup::Fraction(warmup) } else { Warmup::Steps(0) };
            let settings = OptimizationSettings {
                lr_schedule: kind, peak_lr, min_lr: low * peak_lr, initial_lr: start * peak_lr, warmup_steps,
                decay_fraction, ..OptimizationSettings::default()
            };
            Schedule::new(&settings, total_steps)
        }
    }

    proptest! {
        #[test]
        fn every_rate_lies_between_the_lowest_and_the_peak(schedule in any_schedule(), step in 0usize..400) {
            let lr = schedule.lr_at(step);
            let lowest = schedule.initial_lr.min(schedule.min_lr);
            prop_assert!(lr >= lowest * (1.0 - 1e-12) && lr <= schedule.peak_lr * (1.0 + 1e-12), "{lr}");
        }

        #[test]
        fn the_rate_rises_to_the_peak_and_falls_after_it(schedule in any_schedule()) {
            let curve = schedule.curve();
            let slack = 1e-12 * schedule.peak_lr;
            for (step, pair) in curve.windows(2).enumerate() {
                let rising = step < schedule.warmup_steps;
                let change = pair[1] - pair[0];
                let holds = if rising { change >= -slack } else { change <= slack };
                prop_assert!(holds, "step {step}: {pair:?} with {} of warmup", schedule.warmup_steps);
            }
        }

        #[test]
        fn warmup_and_decay_meet_at_the_peak(schedule in any_schedule()) {
            let joint = schedule.warmup_steps;
            if joint < schedule.total_steps {
                prop_assert!((schedule.lr_at(joint) - schedule.peak_lr).abs() <= 1e-12 * schedule.peak_lr);
            }
            if joint > 0 {
                let rise = (schedule.peak_lr - schedule.initial_lr) / joint as f64;
                prop_assert!((schedule.peak_lr - schedule.lr_at(joint - 1) - rise).abs() <= 1e-12 * schedule.peak_lr);
            }
        }
    }
}
