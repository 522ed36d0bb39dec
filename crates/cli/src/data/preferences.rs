//! `cavy data preferences`: a model's own answers become pairs, of which a reward model or a rule says which is better.

use crate::adapters::AdapterArgs;
use crate::error::CliError;
use crate::open::{ModelArgs, Opened, open};
use crate::reward::scores_one_thing;
use crate::{Ending, report, text};
use cavy_generate::{GenerateSettings, Sampling, generate};
use cavy_text::instruct::{self, Example};
use cavy_train::objectives::reward::ScoreBatch;
use cavy_train::settings::SftSettings;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::fmt::Write as _;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct PreferencesArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    adapters: AdapterArgs,
    /// Instructions to answer, in any format of `cavy sft`
    #[arg(long, num_args = 1.., required = true, value_name = "PATH")]
    data: Vec<String>,
    /// How instructions become text: `auto`, `alpaca`, `plain`, `chat`, or a text with `{response}`
    #[arg(long, default_value = "auto")]
    prompt_template: String,
    /// What rates an answer: `reward:MODEL`, or a rule: `exact` (it is the reference), `number` (its last number is the
    /// reference's), `shorter`
    #[arg(long, value_parser = Judge::parse)]
    judge: Judge,
    /// Answers to each instruction, of which the best and the worst become a pair
    #[arg(long, default_value_t = 4)]
    n: usize,
    /// Least difference of the two ratings
    #[arg(long, default_value_t = 1e-6)]
    min_margin: f64,
    /// Instructions to answer at most; 0 for all
    #[arg(long, default_value_t = 0)]
    limit: usize,
    /// Most tokens of an answer
    #[arg(long, default_value_t = 128)]
    max_new_tokens: usize,
    /// Temperature of the answers
    #[arg(long, default_value_t = 1.0)]
    temperature: f64,
    /// Answers are drawn from the likeliest tokens that add up to this
    #[arg(long, default_value_t = 1.0)]
    top_p: f64,
    /// Seed of the answers
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// JSONL file to write, with `prompt`, `chosen`, `rejected` and their ratings in each line
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Who says which answer is better.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Judge {
    /// A reward model.
    Reward(PathBuf),
    /// 1 for the reference, word for word, else 0.
    Exact,
    /// 1 if the last number is that of the reference, else 0.
    Number,
    /// Fewer characters are better.
    Shorter,
}

impl Judge {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "exact" => Ok(Self::Exact),
            "number" => Ok(Self::Number),
            "shorter" => Ok(Self::Shorter),
            _ => match text.strip_prefix("reward:").filter(|path| !path.is_empty()) {
                Some(path) => Ok(Self::Reward(path.into())),
                None => Err("a judge is `reward:MODEL`, `exact`, `number` or `shorter`".to_owned()),
            },
        }
    }
}

/// The last number in a text, as it is written: digits with a point and a sign, thousands without their commas.
fn last_number(text: &str) -> Option<f64> {
    let part_of = |c: char| c.is_ascii_digit() || matches!(c, '.' | ',' | '-');
    text.rsplit(|c: char| !part_of(c)).find_map(|part| {
        let digits: String = part.trim_end_matches(['.', ',', '-']).chars().filter(|&c| c != ',').collect();
        digits.parse::<f64>().ok()
    })
}

/// What a rule says of an answer.
fn by_rule(judge: &Judge, answer: &str, reference: &str) -> f64 {
    let holds = match judge {
        Judge::Shorter => return -(answer.chars().count() as f64),
        Judge::Number => last_number(reference).is_some() && last_number(answer) == last_number(reference),
        Judge::Exact | Judge::Reward(_) => answer.trim() == reference.trim(),
    };
    f64::from(u8::from(holds))
}

/// Ratings of the answers to one prompt.
fn ratings(judge: &Judge, model: Option<&Opened>, prompt: &Example, answers: &[String]) -> Result<Vec<f64>, CliError> {
    let Some(model) = model else {
        return Ok(answers.iter().map(|answer| by_rule(judge, answer, &prompt.reference)).collect());
    };
    let asked = model.encode(&prompt.prompt)?;
    let encode = |answer: &String| -> Result<Vec<u32>, CliError> {
        let mut ids = model.tokenizer.encode(answer)?;
        ids.extend(model.special.eos.first());
        Ok(ids)
    };
    let answers = answers.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
    Ok(ScoreBatch::new([(&asked[..], answers.iter().map(Vec::as_slice).collect())]).rate(&model.model))
}

/// The best and the worst of different answers, the first of equals, if they are `least` apart.
fn extremes(answers: &[String], ratings: &[f64], least: f64) -> Option<(usize, usize)> {
    let rated = || (0..answers.len()).filter(|&at| ratings[at].is_finite() && !answers[at].trim().is_empty());
    let best = rated().reduce(|best, at| if ratings[at] > ratings[best] { at } else { best })?;
    let worst = rated().reduce(|worst, at| if ratings[at] < ratings[worst] { at } else { worst })?;
    (ratings[best] - ratings[worst] >= least && answers[best] != answers[worst]).then_some((best, worst))
}

/// Answers instructions several times and writes the best and the worst answer of each as a pair.
pub(crate) fn run(args: &PreferencesArgs) -> Result<Ending, CliError> {
    if args.n < 2 || args.max_new_tokens == 0 {
        return Err(CliError::usage("a pair needs two answers with tokens", "raise `--n` or `--max-new-tokens`"));
    }
    let policy = open(&args.model, &args.adapters)?;
    let judge = match &args.judge {
        Judge::Reward(path) => {
            let judge = open(&ModelArgs { model: path.clone(), ..args.model.clone() }, &AdapterArgs::default())?;
            scores_one_thing(&judge.model)?;
            Some(judge)
        }
        _ => None,
    };
    let settings = SftSettings {
        data: args.data.clone(),
        prompt_template: args.prompt_template.clone(),
        ..SftSettings::default()
    };
    let mut format = settings.format_settings()?;
    format.max_length = policy.model.config().context_length();
    let (sources, template) = (settings.sources()?, policy.template.as_ref());
    let loaded = instruct::load(&sources, &format, &policy.tokenizer, &policy.special, template)?;
    let asked = if args.limit == 0 { loaded.examples.len() } else { args.limit.min(loaded.examples.len()) };
    let bar = ProgressBar::new(asked as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} instructions, {eta} left") {
        bar.set_style(style);
    }
    let (mut lines, mut pairs) = (String::new(), 0);
    for (index, example) in loaded.examples[..asked].iter().enumerate() {
        let how = GenerateSettings {
            max_tokens: args.max_new_tokens,
            sampling: Sampling { temperature: args.temperature, top_p: args.top_p, ..Sampling::default() },
            seed: cavy_text::rng::hash3(args.seed, index as u64, 0),
            stop_tokens: policy.special.eos.clone(),
            n: args.n,
            batch_size: args.n,
            ..GenerateSettings::default()
        };
        let prompt = example.ids[..example.prompt_len].to_vec();
        let completions = generate(&policy.model, &[prompt], &how, &mut |_, _, _| false);
        let answers: Vec<String> =
            completions[0].iter().map(|completion| policy.tokenizer.decode(&completion.tokens)).collect();
        let ratings = ratings(&args.judge, judge.as_ref(), example, &answers)?;
        if let Some((best, worst)) = extremes(&answers, &ratings, args.min_margin) {
            let line = json!({
                "prompt": example.prompt, "chosen": answers[best], "rejected": answers[worst],
                "score_chosen": ratings[best], "score_rejected": ratings[worst],
            });
            let _ = writeln!(lines, "{line}");
            pairs += 1;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if pairs == 0 {
        let hint = "raise `--n` or `--temperature`, or take another judge; nothing was written";
        return Err(CliError::failed(format!("none of {asked} instructions had two answers of different worth"), hint));
    }
    report::save(&args.out, &lines)?;
    text::say(&format!("{pairs} pairs of {asked} instructions; the others had no two answers of different worth"));
    text::data(&args.out.display().to_string());
    Ok(Ending::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_rate_answers() {
        assert_eq!(last_number("So 1,234 + 1 = 1,235."), Some(1235.0));
        assert_eq!((last_number("-4.5 degrees, not 3-"), last_number("none")), (Some(3.0), None));
        assert_eq!(by_rule(&Judge::Number, "It is 7.", "3 + 4 = 7"), 1.0);
        assert_eq!(by_rule(&Judge::Number, "It is 8.", "3 + 4 = 7"), 0.0);
        assert_eq!(by_rule(&Judge::Number, "none", "none"), 0.0);
        assert_eq!(by_rule(&Judge::Exact, " Paris\n", "Paris"), 1.0);
        assert!(by_rule(&Judge::Shorter, "No.", "") > by_rule(&Judge::Shorter, "Certainly not.", ""));
        assert_eq!(Judge::parse("reward:runs/r"), Ok(Judge::Reward("runs/r".into())));
        assert!(Judge::parse("reward:").is_err() && Judge::parse("best").unwrap_err().contains("`exact`"));
    }

    #[test]
    fn best_and_worst_are_a_pair_if_they_differ() {
        let answers = ["a", "b", " ", "c"].map(str::to_owned);
        assert_eq!(extremes(&answers, &[0.5, 2.0, -9.0, 0.1], 1.0), Some((1, 3)));
        assert_eq!(extremes(&answers, &[0.5, 2.0, -9.0, 0.1], 2.0), None);
        assert_eq!(extremes(&answers, &[f64::NAN, 2.0, 0.0, 0.5], 1.0), Some((1, 3)));
        assert_eq!(extremes(&["a", "a"].map(str::to_owned), &[1.0, 1.0], 0.0), None);
    }
}
