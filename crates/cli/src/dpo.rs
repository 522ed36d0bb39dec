//! `cavy dpo`: a model learns which of two answers is better.

use crate::error::CliError;
use crate::open::base;
use crate::plan::tuning::TuningPlan;
use crate::sft::shown;
use crate::text;
use crate::verb::Verb;
use cavy_text::Tokenizer;
use cavy_train::base::{Base, NewHead, Tuned};
use cavy_train::metrics::Observer;
use cavy_train::objectives::dpo;
use cavy_train::objectives::pairs::PairData;
use cavy_train::sampler::Items;
use cavy_train::settings::{AdapterSettings, DpoSettings, ModelSettings, PairDataSettings, SplitSettings};
use cavy_train::{Outcome, Settings};
use std::io::IsTerminal;
use std::sync::atomic::AtomicBool;

impl Verb for DpoSettings {
    fn show(&self) -> Result<(), CliError> {
        describe(self, (&self.model, &self.data, &self.split, &self.adapter), None)
    }

    fn run_with(&self, resume: bool, observer: &mut dyn Observer, stop: &AtomicBool) -> Result<Outcome, CliError> {
        Ok(dpo::run(self, base(&self.model)?, &self.run.out, resume, observer, stop)?)
    }
}

/// Settings, data, an example and the cost of a run on pairs.
pub(crate) fn describe<S: Settings>(
    settings: &S,
    (model, pairs, split, adapter): (&ModelSettings, &PairDataSettings, &SplitSettings, &AdapterSettings),
    head: Option<NewHead>,
) -> Result<(), CliError> {
    let base: Base = base(model)?;
    let data = PairData::load(pairs, split, settings.run().seed, &base)?;
    text::data(&format!("{}\n", settings.to_table().to_string().trim_end()));
    text::data(&format!("{}\n", data.report.to_string().trim_end()));
    if let Some(&first) = data.parts.train.first() {
        text::data(&pair(&data, first, &base.tokenizer));
    }
    let (optimization, train) = (settings.optimization(), &data.parts.train);
    let steps_per_epoch = Items::new(optimization, train.len(), split.drop_last, None)?.steps_per_epoch();
    let mut tuned = Tuned::new(base, model.base_dtype, adapter, settings.run().seed)?;
    tuned.head = head;
    let longest = train.iter().map(|&index| data.tokens(&[index])).max().unwrap_or(0);
    let sizes = (data.tokens(train), longest, train.len());
    text::data(&TuningPlan::new(settings, &tuned, steps_per_epoch, sizes)?.describe());
    Ok(())
}

/// A pair as two examples with the tokens that count marked.
fn pair(data: &PairData, index: usize, tokenizer: &Tokenizer) -> String {
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let [chosen, rejected] = data.pairs[index].examples().map(|example| shown(&example, tokenizer, colour));
    format!("chosen: {chosen}\n\nrejected: {rejected}\n")
}
