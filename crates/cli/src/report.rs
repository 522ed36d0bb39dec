//! `cavy report`: what a run did, on one page that works offline.

pub(crate) mod chart;
pub(crate) mod load;
mod overlay;
pub(crate) mod page;
pub(crate) mod plots;
mod preference;
mod tuning;
mod verdict;

use crate::error::CliError;
use crate::{Ending, text};
use clap::Args;
use load::RunData;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Run directories; several are laid over each other
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Where to write the page [default: report.html in the run, or in this folder for several runs]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Writes the page, and for one run the plots.
pub(crate) fn report(args: &ReportArgs) -> Result<Ending, CliError> {
    let page = match args.runs.as_slice() {
        [run] => {
            let data = RunData::load(run)?;
            plots::write_all(&run.join("plots"), &data)?;
            save(&args.out.clone().unwrap_or_else(|| run.join("report.html")), &page::render(&data))?
        }
        runs => overlaid(runs, &args.out.clone().unwrap_or_else(|| PathBuf::from("report.html")))?,
    };
    text::data(&page.display().to_string());
    Ok(Ending::Done)
}

/// Writes the page on which several runs are laid over each other to `path`, which it returns.
///
/// Errors: as [`write()`].
pub(crate) fn overlaid(runs: &[PathBuf], path: &Path) -> Result<PathBuf, CliError> {
    let all = runs.iter().map(|run| RunData::load(run)).collect::<Result<Vec<_>, _>>()?;
    save(path, &overlay::render(&all))
}

/// Writes `report.html` and the plots of the run in `directory`, and returns the page's path.
///
/// Errors: a record that cannot be read; the disk's.
pub(crate) fn write(directory: &Path) -> Result<PathBuf, CliError> {
    let data = RunData::load(directory)?;
    plots::write_all(&directory.join("plots"), &data)?;
    save(&directory.join("report.html"), &page::render(&data))
}

/// Writes `html` under a temporary name first, so that a reader never sees half a page.
pub(crate) fn save(path: &Path, html: &str) -> Result<PathBuf, CliError> {
    let partial = path.with_extension("html.tmp");
    fs_err::write(&partial, html).map_err(CliError::write(path))?;
    fs_err::rename(&partial, path).map_err(CliError::write(path))?;
    Ok(path.to_path_buf())
}
