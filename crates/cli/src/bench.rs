//! `cavy bench`: this machine on the work of training, with the options and keys of the peers' scripts.

use crate::error::CliError;
use crate::{Ending, doctor};
use cavy_ops::{Exec, set_exec};
use cavy_train::machine::Machine;
use cavy_train::settings::Precision;
use clap::{Args, Subcommand};

mod decode;
mod dpo;
mod filters;
mod pretrain_step;
mod products;
mod sft;

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Matrix products: the rate that everything else is held against
    Matmul(doctor::DoctorArgs),
    /// Steps of DPO on pairs of answers in file order
    Dpo(dpo::DpoArgs),
    /// Tokens a second of a model: prompts read and answers written
    Decode(decode::DecodeArgs),
    /// FineWeb's filters, MinHash signatures and exact copies over documents
    Filters(filters::FiltersArgs),
    /// A GPT-2 pretraining step: forward, backward, clipping at 1.0 and AdamW
    PretrainStep(pretrain_step::PretrainStepArgs),
    /// Matrix products of training's shapes in every precision, beside the `gemm` crate's
    Products(products::ProductsArgs),
    /// Steps of fine-tuning on instructions, all weights or adapters
    Sft(sft::SftArgs),
}

/// Measures.
pub(crate) fn bench(args: &BenchArgs) -> Result<Ending, CliError> {
    match &args.bench {
        Bench::Matmul(args) => doctor::doctor(args),
        Bench::Dpo(args) => dpo::run(args),
        Bench::Decode(args) => decode::run(args),
        Bench::Filters(args) => filters::run(args),
        Bench::PretrainStep(args) => pretrain_step::run(args),
        Bench::Products(args) => products::run(args),
        Bench::Sft(args) => sft::run(args),
    }
}

/// Chooses instruction set, threads (0: one for each core) and precision of what is measured.
fn begin(threads: usize, precision: Precision) -> Machine {
    let exec = if threads == 0 { cavy_ops::exec() } else { Exec::new(threads) };
    let machine = Machine::new(exec, precision);
    set_exec(machine.exec);
    machine
}

/// Most memory this process has held, as the kernel counts it; 0 where that is not known.
fn peak_memory_mb() -> u64 {
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kb = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kb.unwrap_or(0) / 1024
}
