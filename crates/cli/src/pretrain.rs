//! `cavy pretrain`: a model from scratch.

use crate::error::CliError;
use crate::plan::Plan;
use crate::verb::Verb;
use crate::{curve, text};
use cavy_train::metrics::Observer;
use cavy_train::{Outcome, PretrainSettings, Settings};
use std::sync::atomic::AtomicBool;

impl Verb for PretrainSettings {
    fn show(&self) -> Result<(), CliError> {
        let plan = Plan::new(self)?;
        text::data(self.to_table().to_string().trim_end());
        text::data("");
        text::data(&plan.describe(self));
        text::data("");
        text::data(&curve::draw(&plan.schedule));
        Ok(())
    }

    fn run_with(&self, resume: bool, observer: &mut dyn Observer, stop: &AtomicBool) -> Result<Outcome, CliError> {
        Ok(cavy_train::pretrain::run(self, &self.run.out, resume, observer, stop)?)
    }
}
