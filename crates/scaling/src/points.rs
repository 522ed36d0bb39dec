//! Points to fit: parameters, tokens and the loss a run ended with.

use crate::ScalingError;
use serde::Serialize;
use std::path::Path;

/// One run at its own end.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Parameters, `N`.
    pub n: f64,
    /// Tokens, `D`.
    pub d: f64,
    /// Final loss, in nats a token.
    pub loss: f64,
}

impl Point {
    /// `6 N D`.
    pub fn flops(&self) -> f64 {
        crate::training_flops(self.n, self.d)
    }
}

/// Names of a column, in small letters.
const PARAMETERS: [&str; 5] = ["n", "parameters", "params", "model size", "num_parameters"];
const TOKENS: [&str; 3] = ["d", "tokens", "training tokens"];
const FLOPS: [&str; 5] = ["c", "flops", "flop", "training flop", "compute"];
const LOSS: [&str; 3] = ["loss", "val_loss", "final loss"];

/// Reads points from a CSV file whose first line names its columns: parameters (`N`, `params`, `Model Size`, ...), `loss`,
/// and tokens (`D`, `tokens`) or FLOPs (`C`, `Training FLOP`), from which tokens are `C / (6 N)`. Others are left alone.
///
/// Errors: a missing column; a cell that is no number above 0, with its line; the disk's.
pub fn read_csv(path: &Path) -> Result<Vec<Point>, ScalingError> {
    let text =
        fs_err::read_to_string(path).map_err(|source| ScalingError::Read { path: path.to_path_buf(), source })?;
    parse_csv(&text, path)
}

/// [`read_csv`] of `text`, which errors call `path`.
///
/// Errors: those of [`read_csv`], but the disk's.
pub fn parse_csv(text: &str, path: &Path) -> Result<Vec<Point>, ScalingError> {
    let text = text.trim_start_matches('\u{FEFF}');
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let (_, head) = lines.next().unwrap_or_default();
    let names: Vec<String> = cells(head).map(str::to_lowercase).collect();
    let find = |known: &[&str]| names.iter().position(|name| known.contains(&name.as_str()));
    let missing = |missing| ScalingError::Column {
        path: path.to_path_buf(),
        missing,
        found: cells(head).collect::<Vec<_>>().join("`, `"),
    };
    let n = find(&PARAMETERS).ok_or_else(|| missing("parameters"))?;
    let loss = find(&LOSS).ok_or_else(|| missing("loss"))?;
    let tokens = find(&TOKENS);
    let amount = tokens.or_else(|| find(&FLOPS)).ok_or_else(|| missing("tokens or FLOPs"))?;
    let mut points = Vec::new();
    for (index, line) in lines {
        let row: Vec<&str> = cells(line).collect();
        if row.len() != names.len() {
            let (found, expected) = (row.len(), names.len());
            return Err(ScalingError::Cells { path: path.to_path_buf(), line: index + 1, found, expected });
        }
        let number = |column: usize| {
            let found = row[column].parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
            found.ok_or_else(|| ScalingError::Cell {
                path: path.to_path_buf(),
                line: index + 1,
                column: names[column].clone(),
                found: row[column].to_owned(),
            })
        };
        let (n, amount, loss) = (number(n)?, number(amount)?, number(loss)?);
        points.push(Point { n, d: if tokens.is_some() { amount } else { amount / (6.0 * n) }, loss });
    }
    Ok(points)
}

/// The cells of a line, between commas, or tabs where there are any. Numbers need no quotes, but may have them.
fn cells(line: &str) -> impl Iterator<Item = &str> {
    let apart = if line.contains('\t') { '\t' } else { ',' };
    line.split(apart).map(|cell| cell.trim().trim_matches('"'))
}

/// The points without the `count` highest losses: those below the loss that is number `count` from the top.
///
/// Source: the notebook of Besiroglu et al. 2024, which leaves out five of 245 points.
pub fn without_highest(points: &[Point], count: usize) -> Vec<Point> {
    let mut losses: Vec<f64> = points.iter().map(|point| point.loss).collect();
    losses.sort_by(|x, y| y.total_cmp(x));
    let bound = if count == 0 { f64::INFINITY } else { losses.get(count - 1).copied().unwrap_or(f64::NEG_INFINITY) };
    points.iter().copied().filter(|point| point.loss < bound).collect()
}

/// Smallest and largest values among the points of a fit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Range {
    /// Of parameters.
    pub parameters: (f64, f64),
    /// Of tokens.
    pub tokens: (f64, f64),
    /// Of FLOPs.
    pub flops: (f64, f64),
}

/// Decades beyond its points for which a fit is trusted.
pub const TRUSTED_DECADES: f64 = 2.0;

/// The runs behind the published laws: those that Besiroglu et al. read off Chinchilla's figure.
pub const CHINCHILLA_RUNS: Range =
    Range { parameters: (57.3e6, 16.2e9), tokens: (0.819e9, 318e9), flops: (1.397e18, 1.296e22) };

impl Range {
    /// Decades between a budget and the nearest within; 0 inside.
    pub fn decades_away(&self, flops: f64) -> f64 {
        (flops / self.flops.1).log10().max((self.flops.0 / flops).log10()).max(0.0)
    }

    /// The range of `points`.
    pub fn of(points: &[Point]) -> Self {
        let extent = |of: fn(&Point) -> f64| {
            points.iter().map(of).fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
        };
        Self { parameters: extent(|p| p.n), tokens: extent(|p| p.d), flops: extent(Point::flops) }
    }

    /// Refuses parameters, tokens or FLOPs more than [`TRUSTED_DECADES`] above the largest or below the smallest point.
    ///
    /// Errors: which of the three is how far away.
    pub fn check(&self, n: f64, d: f64) -> Result<(), ScalingError> {
        let flops = crate::training_flops(n, d);
        let all = [("parameters", n, self.parameters), ("tokens", d, self.tokens), ("FLOPs", flops, self.flops)];
        for (what, wanted, (low, high)) in all {
            let above = (wanted / high).log10();
            let below = (low / wanted).log10();
            let bound = 10_f64.powf(TRUSTED_DECADES);
            if above.is_nan() || above > TRUSTED_DECADES {
                let (last, most) = (high, high * bound);
                return Err(ScalingError::Extrapolation { what, wanted, last, decades: above, most });
            }
            if below > TRUSTED_DECADES {
                let least = low / bound;
                return Err(ScalingError::ExtrapolationBelow { what, wanted, first: low, decades: below, least });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Point>, ScalingError> {
        parse_csv(text, Path::new("p.csv"))
    }

    #[test]
    fn columns_are_found_under_their_names_and_tokens_follow_from_flops() {
        let expected = [Point { n: 1e6, d: 2e7, loss: 3.5 }];
        assert_eq!(parse("C,N,D,loss\n9,1e6,2e7,3.5\n").unwrap(), expected);
        assert_eq!(parse("x,Model Size,Training FLOP,hex,loss\n\n1,1e6,1.2e14,#fff,3.5").unwrap(), expected);
        assert_eq!(parse("\u{FEFF}\"params\"\t\"tokens\"\tval_loss\n1e6\t2e7\t3.5\n").unwrap(), expected);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let message = |text: &str| parse(text).unwrap_err().to_string();
        assert!(message("").starts_with("p.csv: no column for parameters among ``\nhint:"));
        assert!(message("N,loss\n1,2").starts_with("p.csv: no column for tokens or FLOPs among `N`, `loss`"));
        assert!(message("N,D\n1,2").starts_with("p.csv: no column for loss"));
        assert!(message("N,D,loss\n1,2,3\n\n1,-2,3").starts_with("p.csv:4: `d` is `-2`, expected a number above 0"));
        assert!(message("N,D,loss\n1,2,nan").starts_with("p.csv:2: `loss` is `nan`"));
        assert!(message("N,D,loss\n1,2").starts_with("p.csv:2: 2 cells, expected 3"));
    }

    #[test]
    fn the_highest_losses_can_be_left_out() {
        let points: Vec<Point> = [5.0, 1.0, 4.0, 2.0, 3.0].map(|loss| Point { n: 1.0, d: 1.0, loss }).to_vec();
        let left = |count| without_highest(&points, count).iter().map(|point| point.loss).collect::<Vec<_>>();
        assert_eq!((left(0), left(2)), (vec![5.0, 1.0, 4.0, 2.0, 3.0], vec![1.0, 2.0, 3.0]));
        assert!(left(5).is_empty() && left(9).is_empty());
    }

    #[test]
    fn two_decades_beyond_are_trusted_and_not_more() {
        let points = [Point { n: 1e6, d: 1e8, loss: 3.0 }, Point { n: 1e7, d: 1e9, loss: 2.0 }];
        let range = Range::of(&points);
        assert!(range.check(1e8, 1e10).is_ok() && range.check(9.9e8, 1e9).is_ok() && range.check(1.1e4, 1e8).is_ok());
        let what = |n, d| range.check(n, d).unwrap_err().to_string();
        assert!(what(1.1e9, 1e8).starts_with("parameters of 1.100e9 is 2.0 decades beyond"), "{}", what(1.1e9, 1e8));
        assert!(what(1e6, 2e11).starts_with("tokens of"));
        assert!(what(5e8, 5e10).starts_with("FLOPs of"));
        assert!(what(1e3, 1e9).starts_with("parameters of 1.000e3 is 3.0 decades below"));
        assert!(range.check(f64::NAN, 1e9).is_err());
        assert!((CHINCHILLA_RUNS.decades_away(1.397e15) - 3.0).abs() < 1e-9);
        assert_eq!([1e19, 1.296e24].map(|flops| CHINCHILLA_RUNS.decades_away(flops).round()), [0.0, 2.0]);
    }
}
