//! `cavy scaling`: how large a model and how much text a budget is best spent on, and what loss to expect.

mod chinchilla;
mod fit;
mod ladder;
mod page;
mod plan;
mod plot;
mod quantity;
mod runs;

use crate::Ending;
use crate::error::CliError;
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct ScalingArgs {
    #[command(subcommand)]
    verb: ScalingVerb,
}

#[derive(Debug, Subcommand)]
enum ScalingVerb {
    /// Plan a budget: parameters, tokens, shape, batch, learning rate, loss and hours
    Plan(plan::PlanArgs),
    /// Fit a law to runs, from a CSV file or run directories
    Fit(fit::FitArgs),
    /// Train small models, foretell a larger one, train it and see
    Ladder(ladder::LadderArgs),
}

/// Plans or fits.
pub(crate) fn scaling(args: &ScalingArgs) -> Result<Ending, CliError> {
    match &args.verb {
        ScalingVerb::Plan(args) => plan::plan(args),
        ScalingVerb::Fit(args) => fit::fit(args),
        ScalingVerb::Ladder(args) => ladder::ladder(args),
    }
}
