//! Whether a piece is a web address, which is not cut at its inner punctuation.

/// A host with a top-level domain in small letters, with or without scheme, user, port and path; ends in a letter, a digit,
/// `_` or `/`. A simpler test than spaCy's pattern.
pub(super) fn is_address(piece: &str) -> bool {
    if !piece.as_bytes().contains(&b'.') {
        return false;
    }
    let ends = piece.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '/');
    let starts = piece.chars().next().is_some_and(|c| c.is_alphanumeric() || c == '_');
    if !ends || !starts {
        return false;
    }
    let rest = match piece.find("://") {
        Some(at)
            if at >= 2 && piece[..at].chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '+' | '-' | '.')) =>
        {
            &piece[at + 3..]
        }
        _ => piece,
    };
    // A user may contain anything but white space, so every `@` may be where the host begins.
    host_and_path(rest) || rest.match_indices('@').any(|(at, _)| at > 0 && host_and_path(&rest[at + 1..]))
}

fn host_and_path(text: &str) -> bool {
    let host_end = text.find(['/', '?', '#']).unwrap_or(text.len());
    let host = &text[..host_end];
    let host = match host.rsplit_once(':') {
        Some((name, port)) if (2..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) => return false,
        None => host,
    };
    let label_char = |c: char| c.is_ascii_alphanumeric() || ('\u{a1}'..='\u{ffff}').contains(&c);
    let label = |label: &str| {
        label.starts_with(label_char)
            && label.ends_with(label_char)
            && label.chars().all(|c| label_char(c) || matches!(c, '_' | '-'))
    };
    let numbers = |part: &str| !part.is_empty() && part.len() <= 3 && part.bytes().all(|byte| byte.is_ascii_digit());
    if host.split('.').count() == 4 && host.split('.').all(numbers) {
        return !host.starts_with("10.")
            && !host.starts_with("127.")
            && !host.starts_with("192.168.")
            && !host.starts_with('0');
    }
    let Some((names, top)) = host.rsplit_once('.') else { return false };
    let lower = |c: char| c.is_alphabetic() && !c.is_uppercase();
    let top_fits = (2..=63).contains(&top.chars().count()) && top.chars().all(lower);
    top_fits && names.split('.').all(label)
}
