#![expect(missing_docs, reason = "the message is the doc")]

use std::path::PathBuf;

/// What can be wrong with data or questions.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScalingError {
    #[error("cannot read {path}", path = path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error(
        "{path}: no column for {missing} among `{found}`\nhint: the first line names the columns: `N` (parameters), \
         `loss`, and `D` (tokens) or `C` (FLOPs)",
        path = path.display()
    )]
    Column { path: PathBuf, missing: &'static str, found: String },
    #[error(
        "{path}:{line}: `{column}` is `{found}`, expected a number above 0\nhint: correct or delete that line",
        path = path.display()
    )]
    Cell { path: PathBuf, line: usize, column: String, found: String },
    #[error(
        "{path}:{line}: {found} cells, expected {expected}\nhint: every line has a cell for each column of the first",
        path = path.display()
    )]
    Cells { path: PathBuf, line: usize, found: usize, expected: usize },
    #[error("{found} points, expected at least {expected} to fit {what}\nhint: {hint}")]
    TooFew { what: &'static str, found: usize, expected: usize, hint: &'static str },
    #[error(
        "all points have the same number of {what}, so its exponent cannot be told\nhint: add runs that differ in it"
    )]
    NoSpread { what: &'static str },
    #[error(
        "{what} of {wanted:.3e} is {decades:.1} decades beyond the points, which end at {last:.3e}; a fit is trusted for \
         two\nhint: ask for at most {most:.3e}, or add larger runs"
    )]
    Extrapolation { what: &'static str, wanted: f64, last: f64, decades: f64, most: f64 },
    #[error(
        "{what} of {wanted:.3e} is {decades:.1} decades below the points, which begin at {first:.3e}; a fit is trusted for \
         two\nhint: ask for at least {least:.3e}, or add smaller runs"
    )]
    ExtrapolationBelow { what: &'static str, wanted: f64, first: f64, decades: f64, least: f64 },
    #[error("the fit did not come to an end from any of {starts} starts\nhint: look at the points for outliers")]
    NoOptimum { starts: usize },
    #[error("a loss of {loss} cannot be reached under this law, whose floor is {floor}\nhint: ask for a higher one")]
    BelowFloor { loss: f64, floor: f64 },
}
