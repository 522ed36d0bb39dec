//! What a rule measured, against its threshold: a verdict, or an account of every rule.

use serde::Serialize;
use std::borrow::Cow;
use std::ops::ControlFlow;

/// On which side of its threshold a value drops a document.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase", tag = "drops", content = "threshold")]
pub enum Bound {
    /// Dropped if the value is above.
    Above(f64),
    /// Dropped if the value is below.
    Below(f64),
}

impl Bound {
    /// Whether `value` drops the document.
    pub fn drops(self, value: f64) -> bool {
        match self {
            Self::Above(threshold) => value > threshold,
            Self::Below(threshold) => value < threshold,
        }
    }
}

/// Why a document was dropped: datatrove's `filter_reason`.
pub type Reason = Cow<'static, str>;

/// One rule on one document.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleValue {
    /// The reason that the rule gives.
    pub rule: Reason,
    /// What it measured.
    pub value: f64,
    /// Against what.
    #[serde(flatten)]
    pub bound: Bound,
    /// Whether it drops the document.
    pub dropped: bool,
}

/// Takes down what rules measure. A filter passes every rule through one and stops where it says so.
pub trait Ledger {
    /// One rule; `Break` where the filter has to stop.
    fn rule(&mut self, rule: impl Into<Reason>, value: f64, bound: Bound) -> ControlFlow<Reason>;
}

/// Stops at the first rule that drops.
#[derive(Clone, Copy, Debug, Default)]
pub struct FirstDrop;

impl Ledger for FirstDrop {
    #[inline]
    fn rule(&mut self, rule: impl Into<Reason>, value: f64, bound: Bound) -> ControlFlow<Reason> {
        if bound.drops(value) { ControlFlow::Break(rule.into()) } else { ControlFlow::Continue(()) }
    }
}

/// Takes down every rule, also after one that drops.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// The rules in the order in which they were asked.
    pub rules: Vec<RuleValue>,
}

impl Account {
    /// The reason of the first rule that drops.
    pub fn verdict(&self) -> Option<&Reason> {
        self.rules.iter().find(|rule| rule.dropped).map(|rule| &rule.rule)
    }
}

impl Ledger for Account {
    fn rule(&mut self, rule: impl Into<Reason>, value: f64, bound: Bound) -> ControlFlow<Reason> {
        self.rules.push(RuleValue { rule: rule.into(), value, bound, dropped: bound.drops(value) });
        ControlFlow::Continue(())
    }
}
