//! Numbers of many digits, as people write them: `5.76e23`, `1.4T`, `124M`.

use crate::text;

/// A number above 0, with `k`, `M`, `G` or `B`, `T` or `P` for thousands and so on.
pub(super) fn parse(text: &str) -> Result<f64, String> {
    let text = text.trim();
    let (digits, scale) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 1e3),
        Some((at, 'm' | 'M')) => (&text[..at], 1e6),
        Some((at, 'g' | 'G' | 'b' | 'B')) => (&text[..at], 1e9),
        Some((at, 't' | 'T')) => (&text[..at], 1e12),
        Some((at, 'p' | 'P')) => (&text[..at], 1e15),
        _ => (text, 1.0),
    };
    let number = digits.replace('_', "").parse::<f64>().ok().map(|number| number * scale);
    match number.filter(|number| number.is_finite() && *number > 0.0) {
        Some(number) => Ok(number),
        None => Err(format!("found `{text}`, expected a number above 0 such as 5.76e23, 1.4T or 124M")),
    }
}

/// A count for a table: up to four characters and a unit, in powers of ten beyond a thousand units.
pub(super) fn shown(number: f64) -> String {
    if number < 9.995e17 { text::count(number) } else { format!("{number:.2e}") }
}

/// Hours as people say them: minutes below one, years beyond a hundred days.
pub(super) fn hours(hours: f64) -> String {
    match hours {
        hours if hours < 100.0 => text::duration(3600.0 * hours),
        hours if hours < 2400.0 => format!("{:.0} days", hours / 24.0),
        hours => format!("{} years", text::count(hours / 8766.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_people_write_them() {
        let read = ["5.76e23", "1.4T", "124M", "7B", "1_000", "20k"].map(|text| parse(text).unwrap());
        assert_eq!(read, [5.76e23, 1.4e12, 124e6, 7e9, 1e3, 2e4]);
        for wrong in ["", "-3", "0", "M", "ten", "nan", "inf"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_and_times_are_shown_short() {
        assert_eq!([1.4e12, 5.76e23, 72.3e9].map(shown), ["1.40T", "5.76e23", "72.3G"]);
        assert_eq!(
            [0.5, 48.5, 240.0, 8766.0 * 1e6].map(hours),
            ["30 min 0 s", "48 h 30 min", "10 days", "1.00M years"]
        );
    }
}
