//! A small extractor without a DOM: one pass over the tags, text by blocks, and blocks of links left out.

use super::reference;

/// Elements whose content is no text of the article.
const SKIPPED: [&str; 15] = [
    "script", "style", "noscript", "nav", "form", "footer", "aside", "svg", "iframe", "button", "select", "template",
    "head", "header", "menu",
];
/// Elements that end a block.
const BLOCKS: [&str; 28] = [
    "p",
    "div",
    "br",
    "li",
    "ul",
    "ol",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "tr",
    "td",
    "th",
    "table",
    "section",
    "article",
    "main",
    "blockquote",
    "pre",
    "figcaption",
    "dd",
    "dt",
    "hr",
    "body",
    "figure",
    "center",
];
/// Elements without an end.
const VOID: [&str; 9] = ["br", "hr", "img", "input", "meta", "link", "source", "wbr", "area"];

/// A block of text.
#[derive(Debug, Default)]
struct Block {
    text: String,
    /// Characters inside links.
    linked: usize,
    in_article: bool,
    is_prose: bool,
}

/// The text of the page's article, a block a line; `None` if nothing reads like one.
pub(super) fn article(html: &str) -> Option<String> {
    let blocks = blocks(html);
    let has_article =
        blocks.iter().filter(|block| block.in_article && block.is_prose).map(|block| block.text.len()).sum::<usize>()
            > 250;
    let fits = |block: &&Block| {
        let length = block.text.chars().count();
        let linked = block.linked as f64 / length.max(1) as f64;
        let ends = block.text.ends_with(['.', '!', '?', '"', '”', ':', '…', '’', '\'', ')']);
        (block.in_article || !has_article)
            && linked < 0.5
            && (block.is_prose && (length >= 30 || ends) || length >= 80 && ends)
    };
    let kept: Vec<&str> = blocks.iter().filter(fits).map(|block| block.text.as_str()).collect();
    let text = kept.join("\n");
    (!text.is_empty()).then_some(text)
}

fn blocks(html: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut block = Block::default();
    let (mut skipping, mut depth, mut links, mut articles, mut prose): (Option<String>, usize, usize, usize, usize) =
        (None, 0, 0, 0, 0);
    let mut rest = html;
    while !rest.is_empty() {
        let Some(at) = rest.find('<') else {
            add(&mut block, rest, links > 0, skipping.is_some());
            break;
        };
        add(&mut block, &rest[..at], links > 0, skipping.is_some());
        let (tag, after) = tag(&rest[at..]);
        rest = after;
        let Some((name, is_end)) = tag else { continue };
        if let Some(skipped) = &skipping {
            // Inside `script` and `style` only their own end counts; elsewhere the same element may be nested.
            if *skipped == name {
                depth = if is_end { depth - 1 } else { depth + 1 };
                if depth == 0 {
                    skipping = None;
                }
            }
            continue;
        }
        if !is_end && SKIPPED.contains(&name.as_str()) {
            (skipping, depth) = (Some(name), 1);
            continue;
        }
        let count = |count: &mut usize| *count = if is_end { count.saturating_sub(1) } else { *count + 1 };
        if BLOCKS.contains(&name.as_str()) {
            block.in_article = articles > 0;
            block.is_prose |= prose > 0;
            let done = std::mem::take(&mut block);
            push(&mut blocks, done);
        }
        match name.as_str() {
            "a" => count(&mut links),
            "article" | "main" => count(&mut articles),
            "p" => prose = usize::from(!is_end),
            "h1" | "h2" | "h3" | "blockquote" | "pre" => count(&mut prose),
            _ => {}
        }
    }
    push(&mut blocks, block);
    blocks
}

fn push(blocks: &mut Vec<Block>, mut block: Block) {
    let text = crate::lines::split_space(&block.text).collect::<Vec<_>>().join(" ");
    if !text.is_empty() {
        block.text = text;
        blocks.push(block);
    }
}

fn add(block: &mut Block, text: &str, linked: bool, skipped: bool) {
    if skipped || text.is_empty() {
        return;
    }
    let text = unescape(text);
    block.linked += if linked { text.trim().chars().count() } else { 0 };
    block.text.push_str(&text);
}

/// The tag at the start of `text`, its name in small letters and whether it is an end; and what follows it.
fn tag(text: &str) -> (Option<(String, bool)>, &str) {
    if let Some(comment) = text.strip_prefix("<!--") {
        return (None, comment.find("-->").map_or("", |end| &comment[end + 3..]));
    }
    let inside = &text[1..];
    let is_end = inside.starts_with('/');
    let name: String = inside.trim_start_matches('/').chars().take_while(char::is_ascii_alphanumeric).collect();
    // A `>` inside quotes does not end the tag.
    let mut quote = None;
    let end = inside.char_indices().find(|&(_, c)| {
        match (quote, c) {
            (None, '"' | '\'') if !name.is_empty() => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None, '>') => return true,
            _ => {}
        }
        false
    });
    let after = end.map_or("", |(at, _)| &inside[at + 1..]);
    let name = name.to_ascii_lowercase();
    if name.is_empty() || (is_end && VOID.contains(&name.as_str())) {
        return (None, after);
    }
    (Some((name, is_end)), after)
}

/// The frequent character references, and all numbers.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest[1..].find(|c: char| !(c.is_ascii_alphanumeric() || c == '#')).map_or(rest.len(), |end| end + 1);
        if let Some(c) = reference(&rest[1..end]) {
            out.push(c);
            rest = rest[end..].strip_prefix(';').unwrap_or(&rest[end..]);
        } else {
            out.push('&');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_stays_and_menus_go() {
        let page = "<html><head><title>T</title></head><body><nav><a href=x>Home</a></nav><script>if (a < b) { '<p>no</p>' }</script>\
            <!-- <p>not this</p> --><div><a href=\"a>b\">One</a> <a href=y>Two</a></div>\
            <article><h1>A headline that is long enough to be kept</h1><p>Tom &amp; Anna&#39;s <b>first</b> line&hellip;<br>The second.</p>\
            <P>See <a href=z>this</a> for more of the same.</P></article><footer><p>All rights reserved by nobody.</p></footer></body></html>";
        let text = article(page).unwrap();
        let expected = "A headline that is long enough to be kept\nTom & Anna's first line…\nThe second.\nSee this for more of the same.";
        assert_eq!(text, expected);
        assert_eq!(article("<ul><li>a</li></ul>"), None);
        assert_eq!(article("<<<p"), None);
        assert_eq!(unescape("a &lt b &unknown; &#x41;&#0; &"), "a < b &unknown; A&#0; &");
    }
}
