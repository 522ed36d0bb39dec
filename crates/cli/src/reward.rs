//! `cavy reward`: a reward model learns to rate answers; `cavy score`: it rates them.

use crate::Ending;
use crate::adapters::AdapterArgs;
use crate::dpo::describe;
use crate::error::CliError;
use crate::open::{ModelArgs, base, open};
use crate::text;
use crate::verb::Verb;
use cavy_text::preference::{self, PairSettings};
use cavy_train::Outcome;
use cavy_train::base::NewHead;
use cavy_train::metrics::Observer;
use cavy_train::objectives::reward::{self, RatedPairs, ScoreBatch, evaluate};
use cavy_train::settings::{PairDataSettings, RewardSettings};
use clap::Args;
use serde::Deserialize;
use serde_json::json;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// Answers that are rated at once.
const AT_ONCE: usize = 16;

impl Verb for RewardSettings {
    fn show(&self) -> Result<(), CliError> {
        let head = NewHead { labels: vec!["score".to_owned()], bias: false };
        describe(self, (&self.model, &self.data, &self.split, &self.adapter), Some(head))
    }

    fn run_with(&self, resume: bool, observer: &mut dyn Observer, stop: &AtomicBool) -> Result<Outcome, CliError> {
        Ok(reward::run(self, base(&self.model)?, &self.run.out, resume, observer, stop)?)
    }
}

#[derive(Debug, Args)]
pub(crate) struct ScoreArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    adapters: AdapterArgs,
    /// What is answered; with `--text`, one rating on stdout
    #[arg(long, default_value = "", requires = "text")]
    prompt: String,
    /// The answer
    #[arg(long, conflicts_with = "data")]
    text: Option<String>,
    /// JSONL file with `prompt` and `completion` (or `text`) in each line
    #[arg(long, required_unless_present = "text", value_name = "FILE")]
    data: Option<PathBuf>,
    /// Print one JSON object for each answer
    #[arg(long)]
    json: bool,
}

/// A line of what is to be rated.
#[derive(Debug, Deserialize)]
struct Rated {
    #[serde(default)]
    prompt: String,
    #[serde(alias = "text")]
    completion: String,
}

/// Rates answers, one line each.
pub(crate) fn score(args: &ScoreArgs) -> Result<Ending, CliError> {
    let items = items(args)?;
    let opened = open(&args.model, &args.adapters)?;
    scores_one_thing(&opened.model)?;
    let encode = |item: &Rated| -> Result<(Vec<u32>, Vec<u32>), CliError> {
        let mut prompt = if item.prompt.is_empty() { Vec::new() } else { opened.encode(&item.prompt)? };
        let mut answer = opened.tokenizer.encode(&item.completion)?;
        answer.extend(opened.special.eos.first());
        if prompt.is_empty() && !answer.is_empty() {
            prompt.push(answer.remove(0));
        }
        if answer.is_empty() {
            return Err(CliError::failed("an answer without a token", "give each line a `completion`"));
        }
        Ok((prompt, answer))
    };
    for chunk in items.chunks(AT_ONCE) {
        let encoded = chunk.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        let batch = ScoreBatch::new(encoded.iter().map(|(prompt, answer)| (&prompt[..], vec![&answer[..]])));
        for (item, score) in chunk.iter().zip(batch.rate(&opened.model)) {
            if args.json {
                let line = json!({ "prompt": item.prompt, "completion": item.completion, "score": score });
                text::data(&line.to_string());
            } else {
                text::data(&format!("{score:.4}"));
            }
        }
    }
    Ok(Ending::Done)
}

fn items(args: &ScoreArgs) -> Result<Vec<Rated>, CliError> {
    if let Some(completion) = &args.text {
        return Ok(vec![Rated { prompt: args.prompt.clone(), completion: completion.clone() }]);
    }
    let path = args.data.clone().unwrap_or_default();
    let content = fs_err::read_to_string(&path).map_err(CliError::read(&path))?;
    let lines = content.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let read = |(index, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| {
            let place = format!("{}:{}: {error}", path.display(), index + 1);
            CliError::failed(place, "each line is an object with `prompt` and `completion`")
        })
    };
    lines.map(read).collect()
}

/// Fails unless the model is a reward model.
pub(crate) fn scores_one_thing(model: &cavy_model::Model) -> Result<(), CliError> {
    if model.labels().len() == 1 {
        return Ok(());
    }
    let message = match model.labels().len() {
        0 => "the model has no score head".to_owned(),
        labels => format!("the model's head has {labels} labels, a reward model has one"),
    };
    Err(CliError::failed(message, "train one with `cavy reward`"))
}

#[derive(Debug, Args)]
pub(crate) struct RewardEvalArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    adapters: AdapterArgs,
    /// Pairs of answers
    #[arg(long, num_args = 1.., required = true)]
    data: Vec<String>,
    /// How instructions become text: `auto`, `alpaca`, `plain`, `chat`, or a text with `{response}`
    #[arg(long, default_value = "auto")]
    prompt_template: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Measures a reward model on pairs: accuracy, margin, calibration, correlation with length.
pub(crate) fn eval(args: &RewardEvalArgs) -> Result<Ending, CliError> {
    let opened = open(&args.model, &args.adapters)?;
    scores_one_thing(&opened.model)?;
    let settings = PairDataSettings {
        data: args.data.clone(),
        prompt_template: args.prompt_template.clone(),
        ..PairDataSettings::default()
    };
    let mut format = settings.format_settings()?;
    format.max_length = opened.model.config().context_length();
    let (sources, how, template) = (settings.sources()?, PairSettings::default(), opened.template.as_ref());
    let loaded = preference::load(&sources, &format, &how, &opened.tokenizer, &opened.special, template)?;
    let mut scores = Vec::new();
    for pairs in loaded.pairs.chunks(AT_ONCE) {
        scores.extend(RatedPairs::new(pairs).rate(&opened.model));
    }
    let lengths: Vec<usize> = loaded.pairs.iter().flat_map(|pair| [pair.chosen.len(), pair.rejected.len()]).collect();
    let found = evaluate(&scores, &lengths);
    if args.json {
        text::data(&serde_json::to_string(&found).unwrap_or_default());
        return Ok(Ending::Done);
    }
    text::data(&format!("pairs                    {}", found.pairs));
    for (name, value) in [
        ("accuracy", found.accuracy),
        ("loss", found.loss),
        ("margin", found.margin),
        ("deviation of margins", found.margin_std),
        ("mean reward", found.mean_reward),
        ("lowest reward", found.min_reward),
        ("highest reward", found.max_reward),
        ("correlation with length", found.length_correlation),
        ("calibration error", found.calibration_error),
    ] {
        text::data(&format!("{name:<24} {value:.4}"));
    }
    Ok(Ending::Done)
}
