//! Whether settings can run: each group's own rules.

use super::{CheckpointSettings, EvaluationSettings, OptimizationSettings, RunSettings, Warmup};
use crate::SettingsError;

impl RunSettings {
    /// Checks that there is a run directory.
    ///
    /// Errors: the first setting that cannot be.
    pub fn validate(&self) -> Result<(), SettingsError> {
        let hint = "give a run directory";
        demand(!self.out.as_os_str().is_empty(), "out", "nothing", "the path of a directory", hint)
    }
}

impl OptimizationSettings {
    /// Checks rates, their order and counts.
    ///
    /// Errors: the first setting that cannot be, with what was found, what was expected and what to do.
    pub fn validate(&self) -> Result<(), SettingsError> {
        self.validate_rates()?;
        for (key, count) in [
            ("batch_size", self.batch_size),
            ("grad_accum_steps", self.grad_accum_steps),
            ("max_skipped_steps", self.max_skipped_steps),
        ] {
            at_least_one(key, count)?;
        }
        let steps = self.epochs > 0 || self.max_steps > 0;
        demand(steps, "epochs", self.epochs, "a number above 0", "or set `max_steps`")
    }

    fn validate_rates(&self) -> Result<(), SettingsError> {
        for (key, rate) in [("initial_lr", self.initial_lr), ("peak_lr", self.peak_lr), ("min_lr", self.min_lr)] {
            let hint = "6e-4 is a usual peak at 124M parameters, 1e-3 below 10M";
            demand(rate >= 0.0 && rate.is_finite(), key, rate, "a finite number of at least 0", hint)?;
        }
        let peak = self.peak_lr;
        demand(peak > 0.0, "peak_lr", peak, "a number above 0", "6e-4 is a usual peak at 124M parameters")?;
        let expected = format!("at most peak_lr = {peak}");
        let hint = "a tenth of the peak is usual; for a rate that stays, set `lr_schedule = \"constant\"`";
        demand(self.min_lr <= peak, "min_lr", self.min_lr, &expected, hint)?;
        demand(
            self.initial_lr <= peak,
            "initial_lr",
            self.initial_lr,
            &expected,
            "the warmup rises from it to the peak",
        )?;
        let fraction = self.decay_fraction;
        demand(fraction > 0.0 && fraction <= 1.0, "decay_fraction", fraction, "above 0 and at most 1", "0.2 is usual")?;
        if let Warmup::Steps(steps) = self.warmup_steps {
            let fits = self.max_steps == 0 || steps <= self.max_steps;
            let expected = format!("at most max_steps = {}", self.max_steps);
            demand(fits, "warmup_steps", steps, &expected, "a fraction such as 0.05 fits any number of steps")?;
        }
        for (key, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            demand((0.0..1.0).contains(&beta), key, beta, "at least 0 and below 1", "0.9 and 0.999 are AdamW's own")?;
        }
        demand(self.eps > 0.0 && self.eps < 1.0, "eps", self.eps, "above 0 and below 1", "1e-8 is AdamW's own")?;
        for (key, value) in [("weight_decay", self.weight_decay), ("max_norm", self.max_norm)] {
            demand(value >= 0.0 && value.is_finite(), key, value, "a finite number of at least 0", "0 turns it off")?;
        }
        Ok(())
    }
}

impl EvaluationSettings {
    /// Checks the temperature.
    ///
    /// Errors: the first setting that cannot be.
    pub fn validate(&self) -> Result<(), SettingsError> {
        let temperature = self.temperature;
        let fits = temperature >= 0.0 && temperature.is_finite();
        demand(fits, "temperature", temperature, "a finite number of at least 0", "0 takes the likeliest token")
    }
}

impl CheckpointSettings {
    /// Checks counts.
    ///
    /// Errors: the first setting that cannot be.
    pub fn validate(&self) -> Result<(), SettingsError> {
        at_least_one("keep_last", self.keep_last)?;
        at_least_one("log_every", self.log_every)
    }
}

fn at_least_one(key: &str, count: usize) -> Result<(), SettingsError> {
    demand(count > 0, key, count, "a number above 0", "1 is the least")
}

/// An error for `key` unless `holds`.
#[expect(clippy::needless_pass_by_value, reason = "numbers and borrowed text are handed over as they are")]
pub(super) fn demand(
    holds: bool,
    key: &str,
    found: impl ToString,
    expected: &str,
    hint: &str,
) -> Result<(), SettingsError> {
    if holds {
        return Ok(());
    }
    let (key, expected, hint) = (key.to_owned(), expected.to_owned(), hint.to_owned());
    Err(SettingsError::Invalid { key, found: found.to_string(), expected, hint })
}
