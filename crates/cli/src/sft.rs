//! `cavy sft`: a model learns to answer.

use crate::error::CliError;
use crate::open::base;
use crate::plan::tuning::TuningPlan;
use crate::text;
use crate::verb::Verb;
use cavy_text::Tokenizer;
use cavy_text::instruct::{Example, spans};
use cavy_train::base::Tuned;
use cavy_train::metrics::Observer;
use cavy_train::objectives::sft::{self, SftData};
use cavy_train::settings::SftSettings;
use cavy_train::{Outcome, Settings};
use std::io::IsTerminal;
use std::sync::atomic::AtomicBool;

impl Verb for SftSettings {
    fn show(&self) -> Result<(), CliError> {
        let base = base(&self.model)?;
        let data = SftData::load(self, &base)?;
        text::data(&format!("{}\n", self.to_table().to_string().trim_end()));
        text::data(&format!("{}\n", data.report.to_string().trim_end()));
        if let Some(&first) = data.parts.train.first() {
            let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            text::data(&format!("{}\n", shown(&data.examples[first], &base.tokenizer, colour)));
        }
        let steps_per_epoch = sft::items(self, &data)?.steps_per_epoch();
        let tuned = Tuned::new(base, self.model.base_dtype, &self.adapter, self.run.seed)?;
        let tokens = data.order.iter().map(|&index| data.examples[index].ids.len()).sum();
        let sizes = (tokens, data.report.lengths.max, data.order.len());
        text::data(&TuningPlan::new(self, &tuned, steps_per_epoch, sizes)?.describe());
        Ok(())
    }

    fn run_with(&self, resume: bool, observer: &mut dyn Observer, stop: &AtomicBool) -> Result<Outcome, CliError> {
        Ok(sft::run(self, base(&self.model)?, &self.run.out, resume, observer, stop)?)
    }
}

/// An example with the tokens that carry loss in green, or between marks where there are no colours.
pub(crate) fn shown(example: &Example, tokenizer: &Tokenizer, colour: bool) -> String {
    let (begin, end, key) =
        if colour { ("\u{1b}[32m", "\u{1b}[0m", "in green") } else { ("⟦", "⟧", "between ⟦ and ⟧") };
    let span = |span: cavy_text::instruct::Span| {
        if span.trained { format!("{begin}{}{end}", span.text) } else { span.text }
    };
    let words: String = spans(example, tokenizer).into_iter().map(span).collect();
    format!("first example ({}), what is learned {key}:\n{words}", example.place)
}
