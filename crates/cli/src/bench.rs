//! `cavy bench`: this machine on the work of training.

use crate::error::CliError;
use crate::{Ending, doctor};
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Matrix products: the rate that everything else is held against
    Matmul(doctor::DoctorArgs),
}

/// Measures.
pub(crate) fn bench(args: &BenchArgs) -> Result<Ending, CliError> {
    match &args.bench {
        Bench::Matmul(args) => doctor::doctor(args),
    }
}
