//! `cavy doctor`: what this machine offers.

use crate::error::CliError;
use crate::{Ending, text};
use cavy_ops::kernels::{Precision, int8};
use cavy_ops::{Exec, Isa};
use cavy_train::machine;
use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Detects and measures.
#[expect(clippy::unnecessary_wraps, reason = "every verb has the same type")]
pub(crate) fn doctor(args: &DoctorArgs) -> Result<Ending, CliError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let exec = Exec::new(threads);
    let all: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
    let gflops = machine::matmul_flops_per_s(exec) / 1e9;
    let gflops_one = machine::matmul_flops_per_s(exec.with_threads(1)) / 1e9;
    let half = exec.with_precision(Precision::Mixed);
    let half = half.half_products().map(|format| (format.name(), machine::matmul_flops_per_s(half) / 1e9));
    let int8 = int8::Path::of(exec).name();
    let unused = Isa::unused_products();
    if args.json {
        let json = serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"), "isa": exec.isa().name(), "isas": all, "threads": threads,
            "matmul_gflops": gflops, "matmul_gflops_one_thread": gflops_one,
            "half_products": half.map(|(name, _)| name), "half_matmul_gflops": half.map(|(_, gflops)| gflops),
            "int8_products": int8, "unused_products": unused,
        });
        text::data(&json.to_string());
        return Ok(Ending::Done);
    }
    text::data(&format!("version       {}", env!("CARGO_PKG_VERSION")));
    text::data(&format!("target        {} {}", std::env::consts::ARCH, std::env::consts::OS));
    text::data(&format!("instructions  {} (of {})", exec.isa().name(), all.join(", ")));
    text::data(&format!("threads       {threads}"));
    text::data(&format!("matmul        {gflops:.0} GFLOP/s in f32, {gflops_one:.0} on one thread"));
    match half {
        Some((name, gflops)) => {
            text::data(&format!(
                "              {gflops:.0} GFLOP/s of {name} operands (`--precision mixed` or `auto`)"
            ));
        }
        None => text::data("              no half-precision products: `--precision mixed` is f32 here"),
    }
    text::data(&format!("              8-bit products (`--base-dtype int8`) with {int8}"));
    if !unused.is_empty() {
        text::data(&format!("not used yet  {}", unused.join(", ")));
    }
    if exec.isa() == Isa::Portable {
        text::data("note          no vector instructions were found; training will be several times slower");
    }
    Ok(Ending::Done)
}
