//! `cavy scaling fit`: a law through runs, how sure it is, and what it predicts.

use super::{page, quantity, runs};
use crate::error::CliError;
use crate::{Ending, report, text};
use cavy_scaling::bootstrap::{Bootstrap, bootstrap};
use cavy_scaling::envelope::{Approach1, approach1};
use cavy_scaling::fit::{DELTA, Fit, Grid, fit as fit_law};
use cavy_scaling::isoflop::{Approach2, approach2};
use cavy_scaling::{Law, Optimum, Point, ScalingError, points};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Share of the bootstrap's laws that an interval holds.
const SHARE: f64 = 0.95;

#[derive(Debug, Args)]
pub(crate) struct FitArgs {
    /// CSV files with N, D (or C) and loss; run directories; folders of run directories
    #[arg(required = true, value_name = "PATH")]
    runs: Vec<PathBuf>,
    /// Leave out the points with so many of the highest losses
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    drop_highest: usize,
    /// Huber's bound for residuals in ln L
    #[arg(long, default_value_t = DELTA)]
    delta: f64,
    /// Starts of the search: 72, or the 4500 of Hoffmann et al.
    #[arg(long, value_enum, default_value_t = GridArg::Small)]
    grid: GridArg,
    /// Fits to resampled points, for the intervals (0: none)
    #[arg(long, default_value_t = 1000, value_name = "REPLICATES")]
    bootstrap: usize,
    /// Seed of the resampling
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Budgets whose best model and loss are to be predicted
    #[arg(long, num_args = 1.., value_parser = quantity::parse, value_name = "C")]
    flops: Vec<f64>,
    /// Parameters of a model whose loss is to be predicted; with `--tokens`
    #[arg(long, requires = "tokens", value_parser = quantity::parse, value_name = "N")]
    params: Option<f64>,
    /// Tokens of that model
    #[arg(long, requires = "params", value_parser = quantity::parse, value_name = "D")]
    tokens: Option<f64>,
    /// Write the report with the plots to this HTML file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Threads (0: one for each core)
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum GridArg {
    /// 72 starts
    Small,
    /// 4500 starts
    Hoffmann,
}

/// What was found.
pub(super) struct Findings {
    /// The points that were fitted.
    pub(super) points: Vec<Point>,
    /// Approach 3.
    pub(super) fit: Fit,
    /// Its resampled laws.
    pub(super) bootstrap: Bootstrap,
    /// Approach 1, where runs with their courses were given and suffice.
    pub(super) envelope: Result<Approach1, ScalingError>,
    /// Approach 2, where there are budgets enough.
    pub(super) isoflop: Result<Approach2, ScalingError>,
    /// What was asked to be predicted.
    pub(super) predictions: Vec<Prediction>,
}

/// A model with its expected loss; intervals where there was a bootstrap.
pub(super) struct Prediction {
    /// What is expected.
    pub(super) optimum: Optimum,
    /// Whether size and tokens were chosen as best for the budget, or given.
    pub(super) is_best: bool,
    /// Interval of the loss.
    pub(super) loss: Option<(f64, f64)>,
    /// Interval of the parameters, where they were chosen.
    pub(super) parameters: Option<(f64, f64)>,
}

/// Fits, predicts, prints and writes the report.
pub(crate) fn fit(args: &FitArgs) -> Result<Ending, CliError> {
    if !(args.delta > 0.0 && args.delta.is_finite()) {
        return Err(CliError::usage(
            format!("`--delta` is {}", args.delta),
            "give a number above 0; the papers have 1e-3",
        ));
    }
    let findings = find(args)?;
    if let Some(out) = &args.out {
        let page = report::save(out, &page::render(&findings)?)?;
        text::say(&format!("report: {}", page.display()));
    }
    if args.json {
        text::data(&as_json(&findings).to_string());
    } else {
        describe(&findings).iter().for_each(|line| text::data(line));
    }
    Ok(Ending::Done)
}

fn find(args: &FitArgs) -> Result<Findings, CliError> {
    let threads =
        if args.threads > 0 { args.threads } else { std::thread::available_parallelism().map_or(1, usize::from) };
    let runs = runs::read(&args.runs)?;
    let points = points::without_highest(&runs.points, args.drop_highest);
    let grid = match args.grid {
        GridArg::Small => Grid::small(),
        GridArg::Hoffmann => Grid::hoffmann(),
    };
    let fit = fit_law(&points, args.delta, &grid, threads)?;
    let given = args.params.zip(args.tokens);
    let best = args.flops.iter().map(|flops| (fit.law.optimum(*flops), true));
    let asked: Vec<(Optimum, bool)> = best
        .chain(given.map(|(parameters, tokens)| {
            let flops = cavy_scaling::training_flops(parameters, tokens);
            (Optimum { parameters, tokens, flops, loss: fit.law.loss(parameters, tokens) }, false)
        }))
        .collect();
    for (optimum, _) in &asked {
        fit.range.check(optimum.parameters, optimum.tokens)?;
    }
    let bootstrap = bootstrap(&points, &fit, args.bootstrap, args.seed, threads);
    let predict = |(optimum, is_best): (Optimum, bool)| Prediction {
        loss: bootstrap.interval(SHARE, |law| {
            if is_best { law.optimum(optimum.flops).loss } else { law.loss(optimum.parameters, optimum.tokens) }
        }),
        parameters: bootstrap.interval(SHARE, |law| law.optimum(optimum.flops).parameters).filter(|_| is_best),
        optimum,
        is_best,
    };
    Ok(Findings {
        predictions: asked.into_iter().map(predict).collect(),
        envelope: approach1(&runs.curves),
        isoflop: approach2(&points),
        points,
        fit,
        bootstrap,
    })
}

/// A constant by name, and how it follows from a law.
type Constant = (&'static str, fn(&Law) -> f64);

/// The constants of a law.
pub(super) const CONSTANTS: [Constant; 6] = [
    ("E", |law| law.e),
    ("A", |law| law.a),
    ("B", |law| law.b),
    ("alpha", |law| law.alpha),
    ("beta", |law| law.beta),
    ("a = beta / (alpha + beta)", Law::exponent),
];

fn as_json(findings: &Findings) -> Value {
    let Findings { fit, bootstrap, .. } = findings;
    let intervals: serde_json::Map<String, Value> = CONSTANTS
        .iter()
        .filter_map(|(name, of)| Some(((*name).to_owned(), json!(bootstrap.interval(SHARE, of)?))))
        .collect();
    let predictions: Vec<Value> = findings
        .predictions
        .iter()
        .map(|prediction| {
            let optimum = &prediction.optimum;
            json!({"flops": optimum.flops, "parameters": optimum.parameters, "tokens": optimum.tokens,
                   "loss": optimum.loss, "loss_95": prediction.loss, "parameters_95": prediction.parameters,
                   "is_compute_optimal": prediction.is_best})
        })
        .collect();
    json!({
        "law": fit.law, "exponent": fit.law.exponent(), "objective": fit.objective, "delta": fit.delta,
        "residual": fit.residual, "points": fit.points, "starts": fit.starts, "agreeing": fit.agreeing,
        "range": fit.range,
        "bootstrap": {"replicates": bootstrap.replicates, "used": bootstrap.laws.len(), "intervals_95": intervals},
        "approach1": findings.envelope.as_ref().ok().map(|found| json!({"parameters": found.parameters, "tokens": found.tokens})),
        "approach2": findings.isoflop.as_ref().ok(),
        "predictions": predictions,
    })
}

fn describe(findings: &Findings) -> Vec<String> {
    let Findings { fit, bootstrap, .. } = findings;
    let range = fit.range;
    let mut lines = vec![
        format!(
            "points       {}: N {} to {}, D {} to {}",
            fit.points,
            quantity::shown(range.parameters.0),
            quantity::shown(range.parameters.1),
            quantity::shown(range.tokens.0),
            quantity::shown(range.tokens.1)
        ),
        "law          L = E + A / N^alpha + B / D^beta".to_owned(),
        String::new(),
    ];
    for (name, of) in CONSTANTS {
        let interval = bootstrap.interval(SHARE, of);
        let interval = interval.map_or(String::new(), |(low, high)| format!("   95 %: {low:.4} to {high:.4}"));
        lines.push(format!("  {name:<26}{:>12.6}{interval}", of(&fit.law)));
    }
    lines.extend([
        String::new(),
        format!(
            "objective    {:.6e}; residual {:.2} % of the loss; {} of {} starts ended there",
            fit.objective,
            100.0 * fit.residual,
            fit.agreeing,
            fit.starts
        ),
    ]);
    lines.extend(doubts(findings).into_iter().map(|doubt| format!("note         {doubt}")));
    match &findings.isoflop {
        Ok(found) => lines.push(format!(
            "approach 2   N = {:.4} C^{:.4} through the minima of {} budgets",
            found.parameters.coefficient,
            found.parameters.exponent,
            found.budgets.iter().filter(|budget| budget.is_bracketed).count()
        )),
        Err(error) => lines.push(format!("approach 2   {}", first_line(error))),
    }
    match &findings.envelope {
        Ok(found) => lines.push(format!(
            "approach 1   N = {:.4} C^{:.4} along the envelope of training curves",
            found.parameters.coefficient, found.parameters.exponent
        )),
        Err(_) => {
            lines.push("approach 1   needs run directories of several sizes, with evaluations on the way".to_owned());
        }
    }
    for prediction in &findings.predictions {
        lines.push(String::new());
        lines.extend(describe_prediction(prediction));
    }
    lines
}

fn describe_prediction(prediction: &Prediction) -> [String; 2] {
    let optimum = &prediction.optimum;
    let interval = |interval: Option<(f64, f64)>, shown: fn(f64) -> String| {
        interval.map_or(String::new(), |(low, high)| format!(" (95 %: {} to {})", shown(low), shown(high)))
    };
    let how = if prediction.is_best { "best for" } else { "at" };
    [
        format!(
            "{how} {} FLOP: N {}{}, D {}",
            quantity::shown(optimum.flops),
            quantity::shown(optimum.parameters),
            interval(prediction.parameters, quantity::shown),
            quantity::shown(optimum.tokens)
        ),
        format!("  expected loss {:.4}{}", optimum.loss, interval(prediction.loss, |loss| format!("{loss:.4}"))),
    ]
}

/// What a reader should know before believing the fit.
pub(super) fn doubts(findings: &Findings) -> Vec<String> {
    let Findings { fit, bootstrap, .. } = findings;
    let mut doubts = Vec::new();
    let narrow = |(low, high): (f64, f64)| high / low < 10.0;
    if narrow(fit.range.parameters) || narrow(fit.range.tokens) {
        doubts.push("the points span less than a decade of N or D: the exponents are hardly told apart".to_owned());
    }
    if let Some((low, high)) = bootstrap.interval(SHARE, Law::exponent).filter(|(low, high)| high - low > 0.2) {
        doubts
            .push(format!("the exponent of N_opt may be anything from {low:.2} to {high:.2}: add runs at other sizes"));
    }
    let failed = bootstrap.replicates - bootstrap.laws.len();
    if failed > 0 {
        doubts.push(format!("{failed} of {} resampled fits had no sensible law", bootstrap.replicates));
    }
    doubts
}

/// What an error says, without its way out.
pub(super) fn first_line(error: &ScalingError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::fmt::Write as _;

    #[derive(Debug, Parser)]
    struct Whole {
        #[command(flatten)]
        fit: FitArgs,
    }

    /// A CSV of runs on a law at four budgets, seven sizes each.
    fn csv(folder: &std::path::Path) -> String {
        let law = cavy_scaling::law::EPOCH;
        let mut text = "N,D,loss\n".to_owned();
        for log_c in 18..22 {
            let flops = 10_f64.powi(log_c);
            for step in -3..=3 {
                let n = law.optimum(flops).parameters * 1.6_f64.powi(step);
                let d = flops / (6.0 * n);
                let _ = writeln!(text, "{n},{d},{}", law.loss(n, d));
            }
        }
        let path = folder.join("points.csv");
        fs_err::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn found(words: &[&str]) -> Result<Findings, CliError> {
        find(&Whole::parse_from(["fit"].iter().chain(words)).fit)
    }

    #[test]
    fn a_csv_is_fitted_and_the_fit_predicts() {
        let folder = tempfile::tempdir().unwrap();
        let path = csv(folder.path());
        let findings =
            found(&[&path, "--bootstrap", "20", "--flops", "1e22", "--params", "1B", "--tokens", "20B"]).unwrap();
        let json = as_json(&findings);
        assert!((json["law"]["alpha"].as_f64().unwrap() / 0.3478 - 1.0).abs() < 1e-3, "{json}");
        let [best, given] = [0, 1].map(|index| &json["predictions"][index]);
        assert!((best["parameters"].as_f64().unwrap() / 9.05e9 - 1.0).abs() < 0.01, "{best}");
        assert!((given["loss"].as_f64().unwrap() - cavy_scaling::law::EPOCH.loss(1e9, 2e10)).abs() < 1e-4, "{given}");
        assert!(json["approach2"]["parameters"]["exponent"].as_f64().unwrap() > 0.45);
        assert!(json["approach1"].is_null());
        assert!(describe(&findings).iter().any(|line| line.contains("7 budgets") || line.contains("4 budgets")));
        let page = page::render(&findings).unwrap();
        assert!(page.contains("<svg role=\"img\"") && !page.contains("NaN"));
    }

    #[test]
    fn what_is_too_far_away_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = csv(folder.path());
        let refused = |words: &[&str]| found(&[&[path.as_str(), "--bootstrap", "0"], words].concat()).err().unwrap();
        assert!(refused(&["--flops", "2e23"]).to_string().contains("decades beyond the points"));
        assert!(found(&[&path, "--bootstrap", "0", "--flops", "0.9e23"]).is_ok());
        assert!(refused(&["--params", "10T", "--tokens", "1B"]).to_string().contains("parameters of 1.000e13"));
    }
}
