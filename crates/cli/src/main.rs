//! `cavy`: trains and runs language models fast on a plain CPU.
//!
//! `main` parses, resolves, runs and reports; each verb is one file.

mod adapters;
mod bench;
mod chat;
mod classify;
mod convert;
mod curve;
mod data;
mod doctor;
mod dpo;
mod error;
mod eval;
mod generate;
mod hub;
mod inspect;
mod merge;
mod open;
mod options;
mod plan;
mod pretrain;
mod report;
mod reward;
mod run;
mod sampling;
mod scaling;
mod schedule;
mod sft;
mod start;
mod stop;
mod text;
mod verb;
mod watch;

use cavy_train::PretrainSettings;
use cavy_train::settings::{ClassifySettings, DpoSettings, RewardSettings, SftSettings};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::process::ExitCode;

/// Memory that a step frees is what the next step needs, so the allocator keeps it; see [`start::keep_memory`].
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Trains and runs language models fast on a plain CPU
#[derive(Debug, Parser)]
#[command(name = "cavy", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Train a model from scratch on text
    Pretrain(verb::TrainArgs),
    /// Teach a model to answer: instructions and chats, all weights or an adapter
    Sft(verb::TrainArgs),
    /// Teach a model to tell labels of texts
    Classify(verb::TrainArgs),
    /// Learn from preferences: DPO and its relatives, on pairs of answers
    Dpo(verb::TrainArgs),
    /// Train a reward model on pairs of answers
    Reward(verb::TrainArgs),
    /// Rate answers with a reward model
    Score(reward::ScoreArgs),
    /// Tell the labels of texts with a model that `classify` made
    Predict(classify::PredictArgs),
    /// Continue a prompt, or a file of prompts
    Generate(generate::GenerateArgs),
    /// Talk to a model
    Chat(chat::ChatArgs),
    /// Curate text for training
    Data(data::DataArgs),
    /// Measure a model on text
    Eval(eval::EvalArgs),
    /// Write a model in another format or with smaller weights
    Convert(convert::ConvertArgs),
    /// Fold adapters into the weights of their base model, and say how much the logits differ
    Merge(merge::MergeArgs),
    /// Show what is in a model file
    Inspect(inspect::InspectArgs),
    /// Draw the learning-rate curve of a run without training
    Schedule(schedule::ScheduleArgs),
    /// Run a recipe: a list of stages, each a run that may build on those before it
    Run(run::RunArgs),
    /// Plan how large a model and how much text, and fit scaling laws to runs
    Scaling(scaling::ScalingArgs),
    /// Write the report of a run, or lay several runs over each other
    Report(report::ReportArgs),
    /// Show what this machine offers and how fast it multiplies matrices
    Doctor(doctor::DoctorArgs),
    /// Measure this machine on the work of training
    Bench(bench::BenchArgs),
}

/// How a verb that did not fail ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Everything is done.
    Done,
    /// Stopped by the user, after saving.
    Stopped,
}

/// The command line with the settings' flags on the verbs that take them.
fn command() -> clap::Command {
    let with_verbs = Cli::command().mut_subcommand("pretrain", options::with_settings::<PretrainSettings>);
    let with_verbs = with_verbs.mut_subcommand("sft", options::with_settings::<SftSettings>);
    let with_verbs = with_verbs.mut_subcommand("dpo", options::with_settings::<DpoSettings>);
    let with_verbs = with_verbs.mut_subcommand("reward", options::with_settings::<RewardSettings>);
    let with_verbs = with_verbs.mut_subcommand("classify", options::with_settings::<ClassifySettings>);
    with_verbs.mut_subcommand("schedule", options::with_settings::<PretrainSettings>)
}

fn main() -> ExitCode {
    start::keep_memory();
    start::subscribe();
    start::explain_errors();
    let matches = command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let given = matches.subcommand().map(|(_, matches)| matches);
    let ending = match cli.verb {
        Verb::Pretrain(args) => verb::train::<PretrainSettings>(&args, given),
        Verb::Sft(args) => verb::train::<SftSettings>(&args, given),
        Verb::Classify(args) => verb::train::<ClassifySettings>(&args, given),
        Verb::Dpo(args) => verb::train::<DpoSettings>(&args, given),
        Verb::Reward(args) => verb::train::<RewardSettings>(&args, given),
        Verb::Score(args) => reward::score(&args),
        Verb::Predict(args) => classify::predict(&args),
        Verb::Generate(args) => generate::generate(&args),
        Verb::Chat(args) => chat::chat(&args),
        Verb::Data(args) => data::data(&args),
        Verb::Eval(args) => eval::eval(&args),
        Verb::Convert(args) => convert::convert(&args),
        Verb::Merge(args) => merge::merge(&args),
        Verb::Inspect(args) => inspect::inspect(&args),
        Verb::Schedule(args) => schedule::schedule(&args, given),
        Verb::Run(args) => run::run(&args),
        Verb::Scaling(args) => scaling::scaling(&args),
        Verb::Report(args) => report::report(&args),
        Verb::Doctor(args) => doctor::doctor(&args),
        Verb::Bench(args) => bench::bench(&args),
    };
    match ending {
        Ok(Ending::Done) => ExitCode::SUCCESS,
        Ok(Ending::Stopped) => ExitCode::from(130),
        Err(error) => {
            let code = if error.is_usage() { 2 } else { 1 };
            text::say(&format!("{:?}", miette::Report::new(error)));
            ExitCode::from(code)
        }
    }
}
