//! Filtering by address.

use crate::error::CurateError;
use crate::ledger::Reason;
use aho_corasick::AhoCorasick;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Lists of what to leave out; each is a file of one entry a line, lines that begin with `#` are skipped.
///
/// Source: datatrove's `URLFilter`, whose own lists are not part of this program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UrlSettings {
    /// Domains, and hosts below a domain.
    pub domains: Vec<PathBuf>,
    /// Whole addresses.
    pub urls: Vec<PathBuf>,
    /// Words of which one is enough.
    pub banned_words: Vec<PathBuf>,
    /// Words of which `soft_word_threshold` are enough.
    pub soft_banned_words: Vec<PathBuf>,
    /// Parts of words.
    pub banned_subwords: Vec<PathBuf>,
    /// How many of the soft words drop a document.
    pub soft_word_threshold: usize,
    /// Domains and hosts, written into the recipe.
    pub extra_domains: Vec<String>,
}

impl Default for UrlSettings {
    fn default() -> Self {
        Self {
            domains: Vec::new(),
            urls: Vec::new(),
            banned_words: Vec::new(),
            soft_banned_words: Vec::new(),
            banned_subwords: Vec::new(),
            soft_word_threshold: 2,
            extra_domains: Vec::new(),
        }
    }
}

/// The filter with its lists read.
#[derive(Debug)]
pub struct UrlFilter {
    domains: HashSet<String>,
    urls: HashSet<String>,
    words: HashSet<String>,
    soft_words: HashSet<String>,
    subwords: Option<AhoCorasick>,
    soft_word_threshold: usize,
}

/// Letters and digits of `text`, small.
fn normalize(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

impl UrlFilter {
    /// Reads the lists; paths are read from `base`.
    ///
    /// Errors: if a list cannot be read.
    pub fn new(settings: &UrlSettings, base: &Path) -> Result<Self, CurateError> {
        let read = |paths: &[PathBuf], entry: fn(&str) -> String| -> Result<HashSet<String>, CurateError> {
            let mut set = HashSet::new();
            for path in paths {
                let path = base.join(path);
                let text = fs_err::read_to_string(&path).map_err(CurateError::read(&path))?;
                set.extend(text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(entry));
            }
            set.remove("");
            Ok(set)
        };
        let whole = |line: &str| line.trim().to_owned();
        let mut domains = read(&settings.domains, whole)?;
        domains.extend(settings.extra_domains.iter().cloned());
        let subwords = read(&settings.banned_subwords, normalize)?;
        let automaton = (!subwords.is_empty()).then(|| AhoCorasick::new(&subwords));
        let automaton = automaton.transpose().map_err(|error| CurateError::Recipe {
            found: format!("the list of subwords is too long: {error}"),
            hint: "shorten it".to_owned(),
        })?;
        Ok(Self {
            domains,
            urls: read(&settings.urls, whole)?,
            words: read(&settings.banned_words, normalize)?,
            soft_words: read(&settings.soft_banned_words, normalize)?,
            subwords: automaton,
            soft_word_threshold: settings.soft_word_threshold,
        })
    }

    /// Why a document from `url` is dropped; the first of the rules that applies.
    pub fn drops(&self, url: &str) -> Option<Reason> {
        let host = host(url);
        let registered = psl::domain_str(&host).unwrap_or_default();
        if self.domains.contains(registered) {
            return Some("domain".into());
        }
        if self.domains.contains(host.as_str()) {
            return Some("subdomain".into());
        }
        if self.urls.contains(url) {
            return Some("url".into());
        }
        // Words of the address as they are written: a list of small letters does not meet capitals.
        let words: HashSet<&str> = url.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        if words.iter().any(|word| self.words.contains(*word)) {
            return Some("hard_blacklisted".into());
        }
        if self.soft_word_threshold > 0
            && words.iter().filter(|word| self.soft_words.contains(**word)).count() >= self.soft_word_threshold
        {
            return Some("soft_blacklisted".into());
        }
        let subword = self.subwords.as_ref().is_some_and(|subwords| subwords.is_match(&normalize(url)));
        subword.then(|| "blacklisted_subword".into())
    }
}

/// The host of an address, in small letters, without user and port.
fn host(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    host.split(':').next().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_those_of_the_public_suffix_list() {
        let extra_domains =
            ["blocked.com", "danger.org", "badsubdomain.nice.com", "shop.co.uk"].map(str::to_owned).to_vec();
        let filter = UrlFilter::new(&UrlSettings { extra_domains, ..UrlSettings::default() }, Path::new("")).unwrap();
        let check = |url: &str, reason: Option<&str>| assert_eq!(filter.drops(url).as_deref(), reason, "{url}");
        check("https://blocked.com/some-sub-url?with=stuff", Some("domain"));
        check("https://hey.danger.org/some-sub-url?with=stuff", Some("domain"));
        check("http://hey.danger.org/some-sub-url?with=stuff", Some("domain"));
        check("http://www.danger.org/some-sub-url?with=stuff", Some("domain"));
        check("https://nice.com/some-sub-url?with=stuff", None);
        check("https://badsubdomain.nice.com/some-sub-url?with=stuff", Some("subdomain"));
        check("https://sdsd.badsubdomain.nice.com/some-sub-url?with=stuff", None);
        check("https://blocke.dcom/some-sub-url?with=stuff", None);
        check("https://user@www.SHOP.co.uk:8080/x", Some("domain"));
    }

    #[test]
    fn words_and_their_parts_are_looked_for_as_datatrove_does() {
        let folder = tempfile::tempdir().unwrap();
        let list = |name: &str, text: &str| {
            fs_err::write(folder.path().join(name), text).unwrap();
            vec![PathBuf::from(name)]
        };
        let settings = UrlSettings {
            urls: list("urls", "# a comment\nhttp://a.com/exact\n"),
            banned_words: list("words", "cas-ino\n"),
            soft_banned_words: list("soft", "cheap\npills\n"),
            banned_subwords: list("subwords", "free-stuff\n"),
            ..UrlSettings::default()
        };
        let filter = UrlFilter::new(&settings, folder.path()).unwrap();
        let check = |url: &str, reason: Option<&str>| assert_eq!(filter.drops(url).as_deref(), reason, "{url}");
        check("http://a.com/exact", Some("url"));
        check("http://a.com/exact/", None);
        check("http://a.com/casino", Some("hard_blacklisted"));
        check("http://a.com/Casino", None);
        check("http://a.com/casinos", None);
        check("http://a.com/cheap-cheap", None);
        check("http://a.com/cheap-PILLS", None);
        check("http://a.com/cheap-pills", Some("soft_blacklisted"));
        check("http://a.com/my-FREE_stuff", Some("blacklisted_subword"));
        assert!(UrlFilter::new(&settings, Path::new("/nowhere")).unwrap_err().to_string().contains("/nowhere"));
    }
}
