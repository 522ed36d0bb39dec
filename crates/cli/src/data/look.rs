//! `cavy data look`: what every rule measures on a document.

use super::{explained, recipe};
use crate::error::CliError;
use crate::{Ending, text};
use cavy_curate::pipeline::{Ready, prepare};
use cavy_curate::read::read_documents;
use cavy_curate::{Bound, Document, RuleValue, Scratch};
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct LookArgs {
    /// File of documents
    #[arg(long)]
    data: PathBuf,
    /// Recipe in TOML whose steps are asked; without one FineWeb's
    #[arg(long)]
    recipe: Option<PathBuf>,
    /// Only the document of this id
    #[arg(long)]
    id: Option<String>,
    /// Only the document of this number, from 0
    #[arg(long)]
    number: Option<usize>,
    /// Print a JSON object a document
    #[arg(long)]
    json: bool,
}

/// The account of one step.
struct Account {
    step: &'static str,
    rules: Vec<RuleValue>,
}

/// Looks.
pub(crate) fn look(args: &LookArgs) -> Result<Ending, CliError> {
    let (recipe, base) = recipe(args.recipe.as_deref())?;
    let mut steps: Vec<(&'static str, Ready)> = Vec::new();
    for step in &recipe.steps {
        if let Some(ready) = prepare(step, &base).map_err(explained)? {
            steps.push((step.name(), ready));
        }
    }
    let mut number = 0;
    let mut shown = 0;
    let mut scratch = Scratch::default();
    let mut each = |mut document: Document| {
        let here = number;
        number += 1;
        let wanted =
            args.id.as_ref().is_none_or(|id| *id == document.id) && args.number.is_none_or(|wanted| wanted == here);
        if wanted {
            shown += 1;
            scratch.forget();
            let accounts: Vec<Account> = steps
                .iter()
                .map(|(step, ready)| Account { step, rules: ready.explain(&mut document, &mut scratch) })
                .collect();
            if args.json { json(&document, &accounts) } else { lines(&document, &accounts) }
        }
        Ok(())
    };
    let mut damages = Vec::new();
    read_documents(&args.data, &mut each, &mut |damage| damages.push(damage)).map_err(explained)?;
    for damage in damages {
        text::say(&format!(
            "{}: {} {}: {}",
            damage.path.display(),
            if damage.is_line { "line" } else { "byte" },
            damage.at,
            damage.found
        ));
    }
    if shown == 0 {
        return Err(CliError::usage(
            "no such document",
            format!("the file has {number}; ids are those of its lines, numbers count from 0"),
        ));
    }
    Ok(Ending::Done)
}

/// The step and reason that drop the document first.
fn verdict(accounts: &[Account]) -> Option<(&'static str, &RuleValue)> {
    accounts.iter().find_map(|account| account.rules.iter().find(|rule| rule.dropped).map(|rule| (account.step, rule)))
}

fn json(document: &Document, accounts: &[Account]) {
    let steps: Vec<_> =
        accounts.iter().map(|account| serde_json::json!({ "step": account.step, "rules": account.rules })).collect();
    let verdict = verdict(accounts).map_or("kept", |(_, rule)| &*rule.rule);
    text::data(&serde_json::json!({ "id": document.id, "verdict": verdict, "steps": steps }).to_string());
}

fn lines(document: &Document, accounts: &[Account]) {
    let beginning: String = document.text.chars().take(70).map(|c| if c.is_control() { ' ' } else { c }).collect();
    text::data(&format!("{}: {beginning}", document.id));
    for account in accounts {
        for rule in &account.rules {
            let (sign, threshold) = match rule.bound {
                Bound::Above(threshold) => ("at most", threshold),
                Bound::Below(threshold) => ("at least", threshold),
            };
            let mark = if rule.dropped { "DROP" } else { "ok" };
            text::data(&format!(
                "  {mark:<4} {:<18} {:<28} {:>10.4}  {sign} {threshold}",
                account.step, rule.rule, rule.value
            ));
        }
    }
    match verdict(accounts) {
        Some((step, rule)) => text::data(&format!("dropped by {step}: {}", rule.rule)),
        None => text::data("kept"),
    }
}
