//! Addresses of people and machines, replaced.

use regex::{Captures, Regex};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::sync::LazyLock;

/// Source: datatrove's `PIIFormatter`.
static EMAIL: LazyLock<Regex> = LazyLock::new(|| {
    let local = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+";
    let label = "[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?";
    let byte = "(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)";
    let literal = format!(r"\[(?:{byte}\.){{3}}(?:{byte}|[A-Za-z0-9-]*[A-Za-z0-9]:)\]");
    Regex::new(&format!(r"\b{local}(?:\.{local})*@(?:(?:{label}\.)+{label}|{literal})")).expect("a valid pattern")
});
static IPV4: LazyLock<Regex> = LazyLock::new(|| {
    let byte = "(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)";
    Regex::new(&format!(r"(?:{byte}\.){{3}}{byte}")).expect("a valid pattern")
});

/// Replaces e-mail addresses, and public IPv4 addresses, in turn by those given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PiiFormatter {
    /// Replace e-mail addresses.
    pub remove_emails: bool,
    /// Replace IP addresses.
    pub remove_ips: bool,
    /// Only those that are globally routable.
    pub only_remove_public_ips: bool,
    /// What e-mail addresses become, one after another.
    pub email_replacement: Vec<String>,
    /// What IP addresses become, one after another.
    pub ip_replacement: Vec<String>,
}

impl Default for PiiFormatter {
    fn default() -> Self {
        // Addresses under example.com and example.org are kept for examples; the IPs are datatrove's, which answered nobody.
        let ips =
            ["22.214.171.124", "126.96.36.199", "188.8.131.52", "184.108.40.206", "220.127.116.11", "18.104.22.168"];
        Self {
            remove_emails: true,
            remove_ips: true,
            only_remove_public_ips: true,
            email_replacement: ["email@example.com", "firstname.lastname@example.org"].map(str::to_owned).to_vec(),
            ip_replacement: ips.map(str::to_owned).to_vec(),
        }
    }
}

/// Whose turn it is. datatrove keeps one per worker, so its output depends on the order of documents; here one per shard of
/// input, so that it does not depend on the number of workers.
#[derive(Clone, Copy, Debug, Default)]
pub struct PiiTurns {
    email: usize,
    ip: usize,
}

impl PiiFormatter {
    /// The text without addresses; `None` if it has none.
    pub fn format(&self, text: &str, turns: &mut PiiTurns) -> Option<String> {
        let mut changed = None;
        if self.remove_emails && !self.email_replacement.is_empty() && memchr::memchr(b'@', text.as_bytes()).is_some() {
            changed = replace(&EMAIL, text, &self.email_replacement, &mut turns.email, |_| true);
        }
        if self.remove_ips && !self.ip_replacement.is_empty() {
            let public = |found: &str| is_public(found, self.only_remove_public_ips);
            let text = changed.as_deref().unwrap_or(text);
            changed = replace(&IPV4, text, &self.ip_replacement, &mut turns.ip, public).or(changed);
        }
        changed
    }
}

fn replace(
    pattern: &Regex,
    text: &str,
    by: &[String],
    turn: &mut usize,
    fits: impl Fn(&str) -> bool,
) -> Option<String> {
    let mut any = false;
    let replaced = pattern.replace_all(text, |found: &Captures| {
        if !fits(&found[0]) {
            return found[0].to_owned();
        }
        any = true;
        let replacement = by[*turn].clone();
        *turn = (*turn + 1) % by.len();
        replacement
    });
    let replaced = replaced.into_owned();
    any.then_some(replaced)
}

/// Python's `ipaddress.ip_address(text).is_global` for IPv4 (any valid address if not `public_only`).
fn is_public(text: &str, public_only: bool) -> bool {
    // Rust's parser refuses leading zeros, as Python's does.
    let Ok(address) = text.parse::<Ipv4Addr>() else { return false };
    if !public_only {
        return true;
    }
    let [a, b, c, _] = address.octets();
    let reserved = matches!((a, b, c), (192, 0, 0 | 2) | (198, 51, 100) | (203, 0, 113));
    let private = matches!(
        (a, b),
        (0 | 10 | 127 | 240..=255, _) | (100, 64..=127) | (169, 254) | (172, 16..=31) | (192, 168) | (198, 18 | 19)
    );
    !(private || reserved)
}

#[cfg(test)]
mod tests;
