//! `cavy bench products`: matrix products of training's shapes in every precision, beside the `gemm` crate's in f32.

use crate::error::CliError;
use crate::{Ending, text};
use cavy_ops::Exec;
use cavy_ops::kernels::int8::{self, Int8Matrix};
use cavy_ops::kernels::matmul::{Onto, View, ViewMut, matmul, matmul_by_gemm};
use cavy_ops::kernels::{HalfFormat, parallel};
use clap::Args;
use serde_json::json;
use std::time::Instant;

#[derive(Debug, Args)]
pub(crate) struct ProductsArgs {
    /// Threads; 0 for all cores
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Layers as tokens x inputs x outputs, several with commas between them
    #[arg(
        long,
        value_name = "NxIxO",
        value_delimiter = ',',
        default_value = "1024x768x3072,1024x3072x768,512x768x50257,1024x576x1536"
    )]
    shapes: Vec<Layer>,
    /// Rounds, in which every way has its turn; the middle one counts
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A linear layer and the tokens that go through it.
#[derive(Clone, Copy, Debug)]
struct Layer {
    tokens: usize,
    inputs: usize,
    outputs: usize,
}

impl std::str::FromStr for Layer {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let sizes: Result<Vec<usize>, _> = text.split('x').map(str::parse).collect();
        match sizes.as_deref() {
            Ok(&[tokens, inputs, outputs]) if tokens > 0 && inputs > 0 && outputs > 0 => {
                let largest = [tokens * inputs, inputs.saturating_mul(outputs), tokens.saturating_mul(outputs)];
                if largest.iter().any(|&elements| elements > 1 << 30) {
                    return Err("a matrix of more than 4 GB".to_owned());
                }
                Ok(Self { tokens, inputs, outputs })
            }
            _ => Err("three sizes above 0, such as 1024x768x3072".to_owned()),
        }
    }
}

/// One of the three products of a layer in training.
#[derive(Clone, Copy, Debug)]
enum Pass {
    /// `Y = X W^T`
    Forward,
    /// `d_X = d_Y W`
    InputGradient,
    /// `d_W = d_Y^T X`
    WeightGradient,
}

impl Pass {
    const ALL: [Self; 3] = [Self::Forward, Self::InputGradient, Self::WeightGradient];

    fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::InputGradient => "input gradient",
            Self::WeightGradient => "weight gradient",
        }
    }
}

/// Numbers between -0.5 and 0.5.
fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i * 7919 % 2003) as f32 / 2003.0 - 0.5).collect()
}

/// The rates of one product in every way, in GFLOP/s: the middle of rounds in which each has its turn.
fn rates(args: &ProductsArgs, exec: Exec, layer: Layer, pass: Pass) -> Vec<(&'static str, f64, f64)> {
    let Layer { tokens, inputs, outputs } = layer;
    let (x, w, y) = (numbers(tokens * inputs), numbers(outputs * inputs), numbers(tokens * outputs));
    let (xs, ws, ys) = (View::new(&x, tokens, inputs), View::new(&w, outputs, inputs), View::new(&y, tokens, outputs));
    let (a, b, rows, cols) = match pass {
        Pass::Forward => (xs, ws.t(), tokens, outputs),
        Pass::InputGradient => (ys, ws, tokens, inputs),
        Pass::WeightGradient => (ys.t(), xs, outputs, inputs),
    };
    let mut c = vec![0.0; rows * cols];
    // Rounding the weight is not part of the product, rounding what meets it is.
    let weight = Int8Matrix::quantize(exec, &w, outputs, inputs);
    let mut ways: Vec<Way<'_>> = vec![
        ("gemm f32", Box::new(|c| matmul_by_gemm(exec, Onto::Overwrite, 1.0, a, b, ViewMut::new(c, rows, cols)))),
        ("f32", Box::new(|c| matmul(exec, Onto::Overwrite, 1.0, a, b, ViewMut::new(c, rows, cols)))),
    ];
    // Every kind that the machine has, not its choice alone.
    for format in HalfFormat::available() {
        let name = match format {
            HalfFormat::Bf16 => "bf16",
            HalfFormat::F16 => "f16",
        };
        let half = exec.with_half_products(format);
        ways.push((name, Box::new(move |c| matmul(half, Onto::Overwrite, 1.0, a, b, ViewMut::new(c, rows, cols)))));
    }
    // A frozen weight has no gradient.
    match pass {
        Pass::Forward => ways.push(("int8", Box::new(|c| int8::forward(exec, &x, &weight, None, c)))),
        Pass::InputGradient => ways.push(("int8", Box::new(|c| int8::backward_input(exec, &y, &weight, c)))),
        Pass::WeightGradient => (),
    }
    let mut seconds = vec![Vec::new(); ways.len()];
    // The first round only warms up.
    for round in 0..=args.rounds {
        for ((_, way), seconds) in ways.iter().zip(&mut seconds) {
            let start = Instant::now();
            way(&mut c);
            if round > 0 {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
    }
    let work = 2.0 * (tokens * inputs * outputs) as f64 / 1e9;
    let first = seconds[0].clone();
    let middle = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let rates = ways.iter().zip(seconds).map(|((name, _), seconds)| {
        let ratios = first.iter().zip(&seconds).map(|(first, own)| first / own).collect();
        (*name, work / middle(seconds), middle(ratios))
    });
    rates.collect()
}

/// A name and what is measured.
type Way<'a> = (&'static str, Box<dyn Fn(&mut [f32]) + 'a>);

/// Measures.
pub(crate) fn run(args: &ProductsArgs) -> Result<Ending, CliError> {
    if args.rounds == 0 {
        return Err(CliError::usage("`--rounds` is at least 1", "leave it out for 9"));
    }
    parallel::flush_denormals();
    let exec = if args.threads == 0 { cavy_ops::exec() } else { Exec::new(args.threads) };
    let mut products = Vec::new();
    for &layer in &args.shapes {
        for pass in Pass::ALL {
            let rates = rates(args, exec, layer, pass);
            let Layer { tokens, inputs, outputs } = layer;
            if !args.json {
                let each = rates.iter().map(|(name, rate, ratio)| format!("{name} {rate:4.0} ({ratio:.2})"));
                let each = each.collect::<Vec<_>>().join("  ");
                text::data(&format!("{tokens}x{inputs}x{outputs:<6} {:16} {each}", pass.name()));
            }
            let keyed = |of: fn(&(&str, f64, f64)) -> f64| -> serde_json::Map<String, serde_json::Value> {
                rates.iter().map(|rate| (rate.0.to_owned(), json!(of(rate)))).collect()
            };
            products.push(json!({
                "tokens": tokens, "inputs": inputs, "outputs": outputs, "product": pass.name(),
                "gflops": keyed(|rate| rate.1), "ratio_to_gemm": keyed(|rate| rate.2),
            }));
        }
    }
    if args.json {
        let json = json!({ "isa": exec.isa().name(), "threads": exec.threads(), "products": products });
        text::data(&json.to_string());
    }
    Ok(Ending::Done)
}
