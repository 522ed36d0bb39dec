//! `cavy scaling plan`: a budget in, a model and a number of tokens out.

use super::{chinchilla, quantity};
use crate::error::CliError;
use crate::plan::TYPICAL_MFU;
use crate::{Ending, text};
use cavy_model::{Gpt2Config, LlamaConfig, ModelConfig, RopeScaling};
use cavy_ops::Exec;
use cavy_scaling::inference::{Serving, cheapest};
use cavy_scaling::points::{CHINCHILLA_RUNS, TRUSTED_DECADES};
use cavy_scaling::shape::Shape;
use cavy_scaling::{Law, Optimum, approach, hyperparameters, law, repeat, shape};
use cavy_train::machine;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("budget").required(true).multiple(false)))]
pub(crate) struct PlanArgs {
    /// Budget in floating-point operations, such as 5.76e23
    #[arg(long, group = "budget", value_parser = quantity::parse, value_name = "C")]
    flops: Option<f64>,
    /// Budget in hours on this machine, at its measured rate
    #[arg(long, group = "budget", value_parser = quantity::parse)]
    hours: Option<f64>,
    /// Budget in tokens, such as 20M: the model and the work that suit them
    #[arg(long, group = "budget", value_parser = quantity::parse, value_name = "D")]
    tokens: Option<f64>,
    /// Parameters, such as 124M: the tokens and the work that suit them
    #[arg(long, group = "budget", value_parser = quantity::parse, value_name = "N")]
    params: Option<f64>,
    /// A worked example instead of a budget: Gopher and Chinchilla
    #[arg(long, group = "budget", value_enum)]
    example: Option<Example>,
    /// Constants to plan by
    #[arg(long, default_value = "epoch", value_parser = clap::builder::PossibleValuesParser::new(law::PUBLISHED.map(|(name, _)| name)))]
    law: String,
    /// Tokens that differ; more are seen again, which is worth less (Muennighoff et al.)
    #[arg(long, value_parser = quantity::parse, value_name = "U")]
    unique_tokens: Option<f64>,
    /// Tokens the model will read and write in use: smaller models pay then (Sardana and Frankle)
    #[arg(long, value_parser = quantity::parse, value_name = "T")]
    inference_tokens: Option<f64>,
    /// Kind of model to shape
    #[arg(long, value_enum, default_value_t = Family::Gpt2)]
    arch: Family,
    /// Tokens of the vocabulary
    #[arg(long, default_value_t = 50257, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    vocab_size: u32,
    /// Tokens of a sequence
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    context_length: u32,
    /// Share of the machine's matrix-product rate that training reaches
    #[arg(long, default_value_t = TYPICAL_MFU)]
    mfu: f64,
    /// Threads (0: one for each core)
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Example {
    /// One budget, two models: 280B on 300B tokens, or 70B on 1.4T
    Chinchilla,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Family {
    /// GPT-2: learned positions, tied head
    Gpt2,
    /// Llama: rotary positions, gated feed-forward layer, head of its own
    Llama,
}

/// The sizes that a shape has as a model of this family.
pub(super) fn config(family: Family, shape: Shape, vocab_size: usize, context_length: usize) -> ModelConfig {
    let Shape { hidden_size, num_hidden_layers, num_attention_heads } = shape;
    match family {
        Family::Gpt2 => Gpt2Config {
            vocab_size,
            context_length,
            hidden_size,
            num_hidden_layers,
            num_attention_heads,
            intermediate_size: 0,
            drop_rate: 0.0,
            qkv_bias: true,
            tie_word_embeddings: true,
            layer_norm_eps: 1e-5,
        }
        .into(),
        Family::Llama => LlamaConfig {
            model_type: "llama".to_owned(),
            vocab_size,
            hidden_size,
            // Two thirds of four times the width, as in Llama, in whole cache lines.
            intermediate_size: (8 * hidden_size / 3).next_multiple_of(if hidden_size < 512 { 16 } else { 64 }),
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads: num_attention_heads,
            head_dim: hidden_size / num_attention_heads,
            max_position_embeddings: context_length,
            rms_norm_eps: 1e-5,
            rope_theta: 1e4,
            rope_scaling: RopeScaling::Default,
            tie_word_embeddings: false,
            qkv_bias: false,
            o_bias: false,
            mlp_bias: false,
            qk_norm: false,
            sliding_window: None,
        }
        .into(),
    }
}

/// What was decided for one budget.
struct Plan {
    /// The law's name and constants.
    law: (String, Law),
    /// The plain optimum.
    best: Optimum,
    /// With few unique tokens: their number and the optimum then.
    repeated: Option<(f64, Optimum)>,
    /// With demand: what the plain optimum would cost in all, and the cheapest model as good.
    served: Option<(Serving, Serving)>,
    shape: Shape,
    model: ModelConfig,
    /// Parameters that are not embeddings, which Step Law counts.
    inner: f64,
    /// Operations a second that training reaches here.
    flops_per_s: f64,
    /// Hours for the model as shaped.
    hours: f64,
}

/// Plans and prints.
pub(crate) fn plan(args: &PlanArgs) -> Result<Ending, CliError> {
    if let Some(Example::Chinchilla) = args.example {
        chinchilla::example(args.json);
        return Ok(Ending::Done);
    }
    if !(args.mfu > 0.0 && args.mfu <= 1.0) {
        return Err(CliError::usage(format!("`--mfu` is {}", args.mfu), "give a share above 0 and at most 1"));
    }
    let plan = decide(args)?;
    if args.json {
        text::data(&as_json(&plan).to_string());
    } else {
        describe(&plan, args).iter().for_each(|line| text::data(line));
    }
    Ok(Ending::Done)
}

fn decide(args: &PlanArgs) -> Result<Plan, CliError> {
    let law = Law::published(&args.law).expect("clap takes known names only");
    let threads =
        if args.threads > 0 { args.threads } else { std::thread::available_parallelism().map_or(1, usize::from) };
    let flops_per_s = args.mfu * machine::matmul_flops_per_s(Exec::new(threads));
    let best = match (args.flops, args.hours, args.tokens, args.params) {
        (Some(flops), ..) => law.optimum(flops),
        (_, Some(hours), ..) => law.optimum(3600.0 * hours * flops_per_s),
        (_, _, Some(tokens), _) => law.optimum_for_tokens(tokens),
        (_, _, _, Some(params)) => law.optimum_for_parameters(params),
        _ => unreachable!("clap asks for a budget"),
    };
    let repeated = args.unique_tokens.map(|unique| (unique, repeat::optimum(&law, best.flops, unique)));
    let served = match args.inference_tokens {
        Some(demand) => Some((Serving::new(best, demand), cheapest(&law, best.loss, demand)?)),
        None => None,
    };
    let chosen = chosen(best, repeated, served);
    let (vocab, context) = (args.vocab_size as usize, args.context_length as usize);
    let of = |shape| config(args.arch, shape, vocab, context);
    let shape = shape::choose(chosen.parameters, |shape| of(shape).num_parameters() as f64);
    let model = of(shape);
    let tables = match args.arch {
        Family::Gpt2 => vocab + context,
        Family::Llama => 2 * vocab,
    };
    let one_token = model.training_flops(context, context) / context as f64;
    Ok(Plan {
        law: (args.law.clone(), law),
        best,
        repeated,
        served,
        shape,
        inner: (model.num_parameters() - tables * shape.hidden_size) as f64,
        hours: one_token * chosen.tokens / flops_per_s / 3600.0,
        model,
        flops_per_s,
    })
}

/// What is shaped: the model for the demand if one is stated, else for the text there is, else the optimum.
fn chosen(best: Optimum, repeated: Option<(f64, Optimum)>, served: Option<(Serving, Serving)>) -> Optimum {
    served.map_or(repeated.map_or(best, |(_, optimum)| optimum), |(_, served)| served.training)
}

impl Plan {
    fn chosen(&self) -> Optimum {
        chosen(self.best, self.repeated, self.served)
    }

    /// Parameters and tokens by each approach and set of constants for the same budget, with the loss that this plan's law
    /// expects of them.
    fn rows(&self) -> Vec<(String, Optimum)> {
        let flops = self.best.flops;
        let at = |name: &str, parameters: f64| {
            let tokens = flops / (6.0 * parameters);
            (name.to_owned(), Optimum { parameters, tokens, flops, loss: self.law.1.loss(parameters, tokens) })
        };
        let mut rows: Vec<_> = (1..=3)
            .map(|number| at(&format!("chinchilla approach {number}"), approach::chinchilla(number).at(flops)))
            .collect();
        rows.extend(law::PUBLISHED.iter().map(|(name, law)| at(name, law.optimum(flops).parameters)));
        rows.push(at("kaplan 2020", approach::kaplan().at(flops)));
        rows
    }
}

fn optimum_json(optimum: &Optimum) -> Value {
    json!({"parameters": optimum.parameters, "tokens": optimum.tokens, "flops": optimum.flops,
           "tokens_per_parameter": optimum.tokens_per_parameter(), "loss": optimum.loss})
}

fn as_json(plan: &Plan) -> Value {
    let chosen = plan.chosen();
    let served = plan.served.map(|(plain, served)| {
        json!({"inference_tokens": served.inference_tokens, "optimum": optimum_json(&served.training),
               "total_flops": served.total_flops, "total_flops_of_the_plain_optimum": plain.total_flops})
    });
    let repeated = plan.repeated.map(|(unique, optimum)| {
        json!({"unique_tokens": unique, "epochs": optimum.tokens / unique, "optimum": optimum_json(&optimum)})
    });
    let rows: serde_json::Map<String, Value> =
        plan.rows().into_iter().map(|(name, row)| (name, optimum_json(&row))).collect();
    json!({
        "law": {"name": plan.law.0, "constants": plan.law.1},
        "optimum": optimum_json(&plan.best),
        "decades_from_the_laws_runs": CHINCHILLA_RUNS.decades_away(plan.best.flops),
        "approaches": rows,
        "unique": repeated,
        "inference": served,
        "shape": {"hidden_size": plan.shape.hidden_size, "num_hidden_layers": plan.shape.num_hidden_layers,
                  "num_attention_heads": plan.shape.num_attention_heads,
                  "parameters": plan.model.num_parameters(), "non_embedding_parameters": plan.inner},
        "step_law": hyperparameters::step_law(plan.inner, chosen.tokens),
        "deepseek": hyperparameters::deepseek(chosen.flops),
        "critical_batch_tokens": hyperparameters::critical_batch(chosen.loss),
        "flops_per_s": plan.flops_per_s,
        "hours": plan.hours,
    })
}

/// A line of the table.
fn row(name: &str, optimum: &Optimum) -> String {
    format!(
        "  {name:<24}{:>9}{:>9}{:>9.1}{:>9.4}",
        quantity::shown(optimum.parameters),
        quantity::shown(optimum.tokens),
        optimum.tokens_per_parameter(),
        optimum.loss
    )
}

fn describe(plan: &Plan, args: &PlanArgs) -> Vec<String> {
    let chosen = plan.chosen();
    let (name, law) = &plan.law;
    let mut lines = vec![
        format!("budget       {} FLOP, C = 6 N D", quantity::shown(plan.best.flops)),
        format!(
            "law          {name}: L = {:.4} + {:.2} / N^{:.4} + {:.2} / D^{:.4}",
            law.e, law.a, law.alpha, law.b, law.beta
        ),
        String::new(),
        format!("  {:<24}{:>9}{:>9}{:>9}{:>9}", "best by", "N", "D", "D/N", "loss *"),
    ];
    lines.extend(plan.rows().iter().map(|(name, optimum)| row(name, optimum)));
    lines.push(format!("  * expected by {name}, in nats a token of its authors' text and vocabulary"));
    let away = CHINCHILLA_RUNS.decades_away(plan.best.flops);
    if away > TRUSTED_DECADES {
        lines.push(format!(
            "note         the laws rest on runs of {} to {} FLOP, {away:.0} decades from here: take N and D as a rule of thumb, \
             and fit your own law (`cavy scaling ladder`) for a loss",
            quantity::shown(CHINCHILLA_RUNS.flops.0),
            quantity::shown(CHINCHILLA_RUNS.flops.1)
        ));
    }
    if let Some((unique, optimum)) = &plan.repeated {
        lines.push(String::new());
        lines.push(row(&format!("with {} unique tokens", quantity::shown(*unique)), optimum));
        lines.push(format!(
            "  {:.1} epochs, worth {} fresh tokens; with text enough the loss would be {:.4}",
            (optimum.tokens / unique).max(1.0),
            quantity::shown(repeat::effective_tokens(optimum.tokens, *unique)),
            plan.best.loss
        ));
    }
    if let Some((plain, served)) = &plan.served {
        lines.push(String::new());
        lines.push(row(&format!("to serve {} tokens", quantity::shown(served.inference_tokens)), &served.training));
        lines.push(format!(
            "  {} FLOP with use, {} for the plain optimum: {:.1} % less at the same loss",
            quantity::shown(served.total_flops),
            quantity::shown(plain.total_flops),
            100.0 * (1.0 - served.total_flops / plain.total_flops)
        ));
    }
    lines.push(String::new());
    lines.extend(describe_model(plan, args, chosen));
    lines
}

/// Shape, batch, learning rate, hours, and the command that would do it.
fn describe_model(plan: &Plan, args: &PlanArgs, chosen: Optimum) -> Vec<String> {
    let shape = plan.shape;
    let exact = plan.model.num_parameters();
    let step_law = hyperparameters::step_law(plan.inner, chosen.tokens);
    let deepseek = hyperparameters::deepseek(chosen.flops);
    let context = args.context_length as usize;
    let batch = ((step_law.batch_tokens / context as f64).round() as usize).max(1);
    let steps = (chosen.tokens / (batch * context) as f64).ceil();
    let mut lines = vec![format!(
        "model        {} layers, {} wide, {} heads: {} parameters, {} of them not embeddings",
        shape.num_hidden_layers,
        shape.hidden_size,
        shape.num_attention_heads,
        text::thousands(exact as u64),
        text::count(plan.inner)
    )];
    let gap = exact as f64 / chosen.parameters;
    if !(0.9..1.1).contains(&gap) {
        lines.push(format!(
            "             the vocabulary of {} leaves no shape nearer to {} parameters; a smaller one would",
            args.vocab_size,
            quantity::shown(chosen.parameters)
        ));
    }
    lines.extend([
        format!(
            "batch        {} tokens (Step Law), {} (DeepSeek); beyond {} little is gained (Kaplan)",
            text::count(step_law.batch_tokens),
            text::count(deepseek.batch_tokens),
            text::count(hyperparameters::critical_batch(chosen.loss))
        ),
        format!("peak rate    {:.2e} (Step Law), {:.2e} (DeepSeek)", step_law.peak_lr, deepseek.peak_lr),
        format!(
            "time         {} here, at {:.0} GFLOP/s ({:.0} % of the machine's matrix products)",
            quantity::hours(plan.hours),
            plan.flops_per_s / 1e9,
            100.0 * args.mfu
        ),
    ]);
    if args.arch == Family::Gpt2 {
        lines.push(format!(
            "command      cavy pretrain --arch custom --hidden-size {} --num-hidden-layers {} --num-attention-heads {} \
             --context-length {context} --batch-size {batch} --max-steps {steps} --peak-lr {:.2e} --data ...",
            shape.hidden_size, shape.num_hidden_layers, shape.num_attention_heads, step_law.peak_lr
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Whole {
        #[command(flatten)]
        plan: PlanArgs,
    }

    fn planned(words: &[&str]) -> Value {
        let args = Whole::parse_from(["plan"].iter().chain(words));
        as_json(&decide(&args.plan).unwrap())
    }

    #[test]
    fn a_budget_of_each_kind_is_planned() {
        let flops = planned(&["--flops", "5.76e23"]);
        assert!((flops["optimum"]["parameters"].as_f64().unwrap() / 72.3e9 - 1.0).abs() < 1e-3);
        assert!(
            (flops["approaches"]["chinchilla approach 1"]["parameters"].as_f64().unwrap() / 67e9 - 1.0).abs() < 0.02
        );
        let tokens = planned(&["--tokens", "1.33T"]);
        assert!((tokens["optimum"]["flops"].as_f64().unwrap() / 5.76e23 - 1.0).abs() < 0.01);
        let params = planned(&["--params", "72.3B"]);
        assert!((params["optimum"]["tokens"].as_f64().unwrap() / 1.33e12 - 1.0).abs() < 0.01);
        let hours = planned(&["--hours", "2", "--mfu", "0.5"]);
        let expected = 7200.0 * hours["flops_per_s"].as_f64().unwrap();
        assert!((hours["optimum"]["flops"].as_f64().unwrap() / expected - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_shape_counts_as_cavy_counts_and_the_time_is_that_of_its_tokens() {
        for arch in ["gpt2", "llama"] {
            let plan = planned(&["--params", "124M", "--arch", arch, "--context-length", "512"]);
            let shape = &plan["shape"];
            let size = |key: &str| shape[key].as_u64().unwrap() as usize;
            let family = if arch == "gpt2" { Family::Gpt2 } else { Family::Llama };
            let heads = size("num_attention_heads");
            let shape = Shape {
                hidden_size: size("hidden_size"),
                num_hidden_layers: size("num_hidden_layers"),
                num_attention_heads: heads,
            };
            let model = config(family, shape, 50257, 512);
            model.validate().unwrap();
            assert_eq!(model.num_parameters(), size("parameters"));
            assert!((size("parameters") as f64 / 124e6 - 1.0).abs() < 0.1, "{plan}");
            let flops = model.training_flops(512, 512) / 512.0 * plan["optimum"]["tokens"].as_f64().unwrap();
            let seconds = flops / plan["flops_per_s"].as_f64().unwrap();
            assert!((plan["hours"].as_f64().unwrap() * 3600.0 / seconds - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn few_unique_tokens_and_demand_change_the_plan_as_the_papers_say() {
        let plan = planned(&["--flops", "5.76e20", "--law", "muennighoff", "--unique-tokens", "5B"]);
        let unique = &plan["unique"];
        assert!(
            unique["epochs"].as_f64().unwrap() > 1.0
                && unique["optimum"]["loss"].as_f64() > plan["optimum"]["loss"].as_f64()
        );
        // 13B's quality and 2T tokens: 7.12B parameters instead (section 3.6 of the reference).
        let plan = planned(&["--params", "13B", "--law", "hoffmann", "--inference-tokens", "2T"]);
        let served = &plan["inference"]["optimum"];
        assert!((served["parameters"].as_f64().unwrap() / 7.12e9 - 1.0).abs() < 1e-3, "{served}");
        assert!((plan["shape"]["parameters"].as_f64().unwrap() / 7.12e9 - 1.0).abs() < 0.1);
    }
}
