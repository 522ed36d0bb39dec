//! What may be peeled off the ends of a piece, and where its middle is cut.

/// Punctuation that is a prefix and a suffix wherever it stands.
fn is_edge(c: char) -> bool {
    matches!(
        c,
        '…' | ','
            | ':'
            | ';'
            | '!'
            | '?'
            | '¿'
            | '؟'
            | '¡'
            | '('
            | ')'
            | '['
            | ']'
            | '{'
            | '}'
            | '<'
            | '>'
            | '_'
            | '#'
            | '*'
            | '&'
            | '。'
            | '？'
            | '！'
            | '，'
            | '、'
            | '；'
            | '：'
            | '～'
            | '·'
            | '।'
            | '،'
            | '۔'
            | '؛'
            | '٪'
    ) || is_quote(c)
}

fn is_quote(c: char) -> bool {
    matches!(
        c,
        '\'' | '"'
            | '”'
            | '“'
            | '`'
            | '‘'
            | '´'
            | '’'
            | '‚'
            | ','
            | '„'
            | '»'
            | '«'
            | '「'
            | '」'
            | '『'
            | '』'
            | '（'
            | '）'
            | '〔'
            | '〕'
            | '【'
            | '】'
            | '《'
            | '》'
            | '〈'
            | '〉'
            | '\u{2329}'
            | '\u{232a}'
            | '⟦'
            | '⟧'
    )
}

fn is_currency(c: char) -> bool {
    matches!(c, '$' | '£' | '€' | '¥' | '฿' | '﷼' | '\u{20a0}'..='\u{20bf}')
}

/// Symbols that are tokens of their own: spaCy's icons, by ranges.
fn is_icon(c: char) -> bool {
    matches!(c, '¦' | '©' | '®' | '°' | '҂' | '\u{2100}' | '\u{2101}' | '\u{2103}'..='\u{2106}' | '\u{2116}' | '\u{2117}' | '\u{211e}'..='\u{2123}'
        | '\u{212e}' | '\u{2195}'..='\u{2199}' | '\u{219c}'..='\u{219f}' | '\u{21a1}'..='\u{21cd}' | '\u{21d5}'..='\u{21f3}'
        | '\u{2300}'..='\u{2307}' | '\u{230c}'..='\u{231f}' | '\u{2322}'..='\u{2328}' | '\u{232b}'..='\u{23db}' | '\u{23e2}'..='\u{2426}'
        | '\u{249c}'..='\u{24e9}' | '\u{2500}'..='\u{25b6}' | '\u{25b8}'..='\u{25c0}' | '\u{25c2}'..='\u{25f7}' | '\u{2600}'..='\u{266e}'
        | '\u{2670}'..='\u{2767}' | '\u{2794}'..='\u{27bf}' | '\u{2800}'..='\u{28ff}' | '\u{2b00}'..='\u{2b2f}' | '\u{2e80}'..='\u{2fd5}'
        | '\u{3200}'..='\u{33ff}' | '\u{fffc}' | '\u{fffd}' | '\u{1f000}'..='\u{1faff}')
}

/// Length in bytes of the prefix that peels off `piece`, 0 if none.
pub(super) fn prefix(piece: &str) -> usize {
    let bytes = piece.as_bytes();
    let first = bytes[0];
    if first.is_ascii_alphanumeric() {
        // Only `US$`, `C$` and `A$` begin with letters.
        let money = ["US$", "C$", "A$"].into_iter().find(|money| piece.starts_with(money));
        return money.map_or(0, str::len);
    }
    if first == b'.' {
        let dots = bytes.iter().take_while(|&&byte| byte == b'.').count();
        return if dots >= 2 { dots } else { 0 };
    }
    if first == b'+' {
        return usize::from(!bytes.get(1).is_some_and(u8::is_ascii_digit));
    }
    let c = piece.chars().next().expect("a piece is not empty");
    let peels = is_edge(c) || matches!(c, '§' | '%' | '=' | '—' | '–') || is_currency(c) || is_icon(c);
    if peels { c.len_utf8() } else { 0 }
}

/// Units that are cut off a number.
const UNITS: &[&str] = &[
    "km", "km²", "km³", "m", "m²", "m³", "dm", "dm²", "dm³", "cm", "cm²", "cm³", "mm", "mm²", "mm³", "ha", "µm", "nm",
    "yd", "in", "ft", "kg", "g", "mg", "µg", "t", "lb", "oz", "m/s", "km/h", "kmh", "mph", "hPa", "Pa", "mbar", "mb",
    "MB", "kb", "KB", "gb", "GB", "tb", "TB", "T", "G", "M", "K", "%", "км", "м", "см", "мм", "кг", "г", "US$", "C$",
    "A$",
];

/// Length in bytes of the suffix that peels off `piece`, 0 if none.
pub(super) fn suffix(piece: &str) -> usize {
    let Some(last) = piece.chars().next_back() else { return 0 };
    let before = &piece[..piece.len() - last.len_utf8()];
    match last {
        '.' => return dot(piece, before),
        's' | 'S' if before.ends_with(['\'', '’']) => {
            return 1 + before.chars().next_back().map_or(0, char::len_utf8);
        }
        '—' | '–' => return last.len_utf8(),
        '+' => return usize::from(before.ends_with(|c: char| c.is_ascii_digit())),
        '…' if before.ends_with('…') => return 2 * last.len_utf8(),
        _ if is_edge(last) || is_icon(last) => return last.len_utf8(),
        _ => {}
    }
    // What stands directly after the last digit, up to the end.
    let Some(digit) = piece.bytes().rposition(|byte| byte.is_ascii_digit()) else { return 0 };
    let tail = &piece[digit + 1..];
    let unit = !tail.is_empty()
        && tail.len() <= 6
        && (UNITS.contains(&tail) || tail.chars().all(is_currency) && tail.chars().count() == 1);
    if unit { tail.len() } else { 0 }
}

/// The suffix of a piece that ends in a full stop.
fn dot(piece: &str, before: &str) -> usize {
    let dots = piece.bytes().rev().take_while(|&byte| byte == b'.').count();
    if dots >= 2 {
        return dots;
    }
    let mut back = before.chars().rev();
    let Some(c) = back.next() else { return 0 };
    if c.is_uppercase() {
        return usize::from(back.next().is_some_and(char::is_uppercase));
    }
    let degrees = matches!(c, 'F' | 'C' | 'K' | 'f' | 'c' | 'k') && before[..before.len() - 1].ends_with('°');
    let ends = c.is_ascii_digit() || c.is_alphabetic() || matches!(c, '%' | '²' | '-' | '+') || is_edge(c);
    usize::from(ends || degrees)
}

/// Cuts what the affixes left at its infixes; `push` gets the ranges, in bytes.
pub(super) fn split_infixes(piece: &str, push: &mut impl FnMut(usize, usize)) {
    if piece.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return push(0, piece.len());
    }
    let mut start = 0;
    let mut previous: Option<char> = None;
    let mut at = 0;
    while let Some(c) = piece[at..].chars().next() {
        let length = infix(piece, at, c, previous);
        if length > 0 {
            if start < at {
                push(start, at);
            }
            push(at, at + length);
            start = at + length;
            at = start;
            previous = piece[..at].chars().next_back();
        } else {
            previous = Some(c);
            at += c.len_utf8();
        }
    }
    if start < piece.len() {
        push(start, piece.len());
    }
}

/// Length of the infix that begins at `at` with the character `c`, 0 if none.
fn infix(piece: &str, at: usize, c: char, previous: Option<char>) -> usize {
    if c.is_ascii_alphanumeric() {
        return 0;
    }
    let after = |length: usize| piece[at + length..].chars().next();
    let letter = |c: Option<char>| c.is_some_and(char::is_alphabetic);
    let letter_or_digit = |c: Option<char>| c.is_some_and(|c| c.is_alphabetic() || c.is_ascii_digit());
    let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    if c == '.' {
        let dots = piece.as_bytes()[at..].iter().take_while(|&&byte| byte == b'.').count();
        if dots >= 2 {
            return dots;
        }
        let lower = previous.is_some_and(|c| (c.is_alphabetic() && !c.is_uppercase()) || is_quote(c));
        return usize::from(lower && after(1).is_some_and(|c| c.is_uppercase() || is_quote(c)));
    }
    if c == '…' || is_icon(c) {
        return c.len_utf8();
    }
    if matches!(c, '+' | '-' | '*' | '^') && digit(previous) && after(1).is_some_and(|c| c.is_ascii_digit() || c == '-')
    {
        return 1;
    }
    if c == ',' {
        return usize::from(letter(previous) && letter(after(1)));
    }
    if matches!(c, ':' | '<' | '>' | '=' | '/') {
        return usize::from(letter_or_digit(previous) && letter(after(1)));
    }
    let hyphens: &[&str] = match c {
        '-' => &["-", "--", "---"],
        '—' => &["—", "——"],
        '–' => &["–"],
        '~' => &["~"],
        _ => return 0,
    };
    if !letter_or_digit(previous) {
        return 0;
    }
    let fits = |hyphen: &&&str| piece[at..].starts_with(**hyphen) && letter(after(hyphen.len()));
    hyphens.iter().find(fits).map_or(0, |hyphen| hyphen.len())
}
