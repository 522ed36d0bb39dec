//! Web pages to text.

mod plain;
mod reference;

pub(crate) use reference::reference;

use serde::{Deserialize, Serialize};

/// How much of a page is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HtmlSettings {
    /// Which extractor.
    pub extractor: ExtractorName,
    /// Rather leave text out than take boilerplate in; FineWeb's choice. `trafilatura` alone listens to it.
    pub favor_precision: bool,
    /// Pages of more bytes are dropped.
    pub max_bytes: usize,
}

impl Default for HtmlSettings {
    fn default() -> Self {
        Self { extractor: ExtractorName::Auto, favor_precision: true, max_bytes: 4 << 20 }
    }
}

/// The extractors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExtractorName {
    /// The best that this build has.
    #[default]
    Auto,
    /// A small one of our own: blocks of prose, without those of links.
    Plain,
    /// trafilatura's rules, from the crate `rs-trafilatura`; needs the feature `html`.
    Trafilatura,
}

/// Turns a page into the text of its article.
pub trait Extractor: Send + Sync + std::fmt::Debug {
    /// The article's text; `None` if the page has none.
    fn extract(&self, html: &str, url: Option<&str>) -> Option<String>;
}

/// The extractor of that name; `None` if this build does not have it.
pub fn extractor(settings: &HtmlSettings) -> Option<Box<dyn Extractor>> {
    #[cfg(feature = "html")]
    if settings.extractor != ExtractorName::Plain {
        return Some(Box::new(Trafilatura { settings: settings.clone() }));
    }
    let has = settings.extractor != ExtractorName::Trafilatura;
    has.then(|| Box::new(Plain { max_bytes: settings.max_bytes }) as Box<dyn Extractor>)
}

/// Our own.
#[derive(Debug)]
struct Plain {
    max_bytes: usize,
}

impl Extractor for Plain {
    fn extract(&self, html: &str, _url: Option<&str>) -> Option<String> {
        if html.len() > self.max_bytes { None } else { plain::article(html) }
    }
}

/// trafilatura's rules, in Rust.
#[cfg(feature = "html")]
#[derive(Debug)]
struct Trafilatura {
    settings: HtmlSettings,
}

#[cfg(feature = "html")]
impl Extractor for Trafilatura {
    fn extract(&self, html: &str, url: Option<&str>) -> Option<String> {
        if html.len() > self.settings.max_bytes {
            return None;
        }
        // In precision some pages come out empty; as in trafilatura, what then counts is the text that a second look finds.
        let modes: &[bool] = if self.settings.favor_precision { &[true, false] } else { &[false] };
        modes.iter().find_map(|&favor_precision| {
            let options = rs_trafilatura::Options {
                favor_precision,
                include_comments: false,
                url: url.map(str::to_owned),
                ..rs_trafilatura::Options::default()
            };
            // The library is young: a page on which it panics is a page without text.
            let found = std::panic::catch_unwind(|| rs_trafilatura::extract_with_options(html, &options));
            found.ok()?.ok().map(|page| page.content_text).filter(|text| !text.trim().is_empty())
        })
    }
}
