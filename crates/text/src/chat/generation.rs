//! `{% generation %}` blocks: transformers' own tag around what the assistant says.

use regex::Regex;
use std::ops::Range;
use std::sync::LazyLock;

static TAG: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}").expect("the pattern is well-formed"));

/// The template with its `generation` tags turned into ones that Jinja knows and that do nothing, and the bytes between
/// them.
pub(super) fn without_tags(source: &str) -> (String, Vec<Range<usize>>) {
    let mut compiled = String::with_capacity(source.len());
    let (mut blocks, mut begins, mut last) = (Vec::new(), None, 0);
    for tag in TAG.captures_iter(source) {
        let (Some(whole), Some(before), Some(after)) = (tag.get(0), tag.get(1), tag.get(3)) else { continue };
        compiled.push_str(&source[last..whole.start()]);
        last = whole.end();
        let ends = tag.get(2).is_some();
        if ends && let Some(start) = begins.take() {
            blocks.push(start..compiled.len());
        }
        // `with` opens a scope of variables, as transformers' tag does.
        let word = if ends { "endwith" } else { "with" };
        compiled.extend(["{%", before.as_str(), " ", word, " ", after.as_str(), "%}"]);
        if !ends {
            begins = Some(compiled.len());
        }
    }
    compiled.push_str(&source[last..]);
    (compiled, blocks)
}
