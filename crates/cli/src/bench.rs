//! `cavy bench`: this machine on the work of training, with the options and keys of the peers' scripts.

use crate::error::CliError;
use crate::{Ending, doctor};
use clap::{Args, Subcommand};

mod decode;
mod pretrain_step;

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Matrix products: the rate that everything else is held against
    Matmul(doctor::DoctorArgs),
    /// Tokens a second of a model: prompts read and answers written
    Decode(decode::DecodeArgs),
    /// A GPT-2 pretraining step: forward, backward, clipping at 1.0 and AdamW
    PretrainStep(pretrain_step::PretrainStepArgs),
}

/// Measures.
pub(crate) fn bench(args: &BenchArgs) -> Result<Ending, CliError> {
    match &args.bench {
        Bench::Matmul(args) => doctor::doctor(args),
        Bench::Decode(args) => decode::run(args),
        Bench::PretrainStep(args) => pretrain_step::run(args),
    }
}
