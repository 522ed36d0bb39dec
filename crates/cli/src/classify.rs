//! `cavy classify`: a model learns to tell labels; `cavy predict`: it tells them.

use crate::Ending;
use crate::adapters::AdapterArgs;
use crate::error::CliError;
use crate::open::base;
use crate::open::{ModelArgs, open};
use crate::plan::tuning::TuningPlan;
use crate::text;
use crate::verb::Verb;
use cavy_text::{SpecialTokens, Tokenizer};
use cavy_train::base::{Base, Start, Tuned};
use cavy_train::metrics::Observer;
use cavy_train::objectives::classify::{self, ClassifyData};
use cavy_train::objectives::classify::{Texts, predictions};
use cavy_train::settings::ClassifySettings;
use cavy_train::{Outcome, Settings};
use clap::Args;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// The model that the settings begin with: files, or random weights.
fn start(settings: &ClassifySettings) -> Result<Base, CliError> {
    let Some(config) = settings.new_model() else { return base(&settings.model) };
    let tokenizer = match settings.model.tokenizer.as_str() {
        "" => Tokenizer::gpt2(),
        path => Tokenizer::from_file(path)?,
    };
    let special = SpecialTokens { eos: tokenizer.end_of_text().into_iter().collect(), ..SpecialTokens::default() };
    Ok(Base { start: Start::Random(config.into()), tokenizer, special, template: None })
}

impl Verb for ClassifySettings {
    fn show(&self) -> Result<(), CliError> {
        let base = start(self)?;
        let data = ClassifyData::load(self, &base)?;
        text::data(&format!("{}\n", self.to_table().to_string().trim_end()));
        text::data(&format!("{}\n", data.texts));
        let steps_per_epoch = classify::items(self, &data)?.steps_per_epoch();
        let mut tuned = Tuned::new(base, self.model.base_dtype, &self.adapter, self.run.seed)?;
        tuned.head = Some(data.head(self));
        tuned.trainable = self.trainable;
        let lengths = || data.parts.train.iter().map(|&index| data.texts.texts[index].ids.len());
        let sizes = (lengths().sum(), lengths().max().unwrap_or(0), data.parts.train.len());
        text::data(&TuningPlan::new(self, &tuned, steps_per_epoch, sizes)?.describe());
        Ok(())
    }

    fn run_with(&self, resume: bool, observer: &mut dyn Observer, stop: &AtomicBool) -> Result<Outcome, CliError> {
        Ok(classify::run(self, start(self)?, &self.run.out, resume, observer, stop)?)
    }
}

/// Texts that are scored at once.
const AT_ONCE: usize = 16;

#[derive(Debug, Args)]
pub(crate) struct PredictArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    adapters: AdapterArgs,
    /// Texts to label
    #[arg(value_name = "TEXT")]
    texts: Vec<String>,
    /// File with a text on each line
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Print one JSON object for each text
    #[arg(long)]
    json: bool,
}

/// Tells the label of each text, with its probability.
pub(crate) fn predict(args: &PredictArgs) -> Result<Ending, CliError> {
    let opened = open(&args.model, &args.adapters)?;
    let labels = opened.model.labels().to_vec();
    if labels.is_empty() {
        let message = format!("{} has no head of labels", args.model.model.display());
        return Err(CliError::failed(message, "give a model that `cavy classify` made"));
    }
    let mut texts = args.texts.clone();
    if let Some(path) = &args.file {
        let lines = fs_err::read_to_string(path).map_err(CliError::read(path))?;
        texts.extend(lines.lines().filter(|line| !line.trim().is_empty()).map(ToOwned::to_owned));
    }
    if texts.is_empty() {
        return Err(CliError::usage("there is no text", "give texts, or a `--file` with one on each line"));
    }
    let context = opened.model.config().context_length();
    for texts in texts.chunks(AT_ONCE) {
        let mut encoded = Vec::new();
        for text in texts {
            let mut ids = opened.encode(text)?;
            ids.truncate(context);
            encoded.push(ids);
        }
        let scores = Texts::unlabelled(&encoded).scores(&opened.model, None);
        let found = predictions(&scores);
        for ((text, label), probabilities) in texts.iter().zip(found).zip(classify::probabilities(&scores)) {
            let (name, sure) = (&labels[label], probabilities[label]);
            if args.json {
                let all: serde_json::Map<_, _> =
                    labels.iter().cloned().zip(probabilities.iter().map(|&p| p.into())).collect();
                let json = serde_json::json!({ "text": text, "label": name, "probabilities": all });
                text::data(&json.to_string());
            } else {
                text::data(&format!("{name}\t{sure:.3}\t{text}"));
            }
        }
    }
    Ok(Ending::Done)
}
