//! Words to the user: stderr for what is said, stdout for data, numbers as people read them.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the one place that writes to the terminal")]

use std::time::Duration;

/// A line to stderr.
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}

/// A line of data to stdout.
pub(crate) fn data(line: &str) {
    println!("{line}");
}

/// Data to stdout as it comes, without a line's end.
pub(crate) fn piece(text: &str) {
    use std::io::Write;
    print!("{text}");
    // Where nobody reads any more, nothing is left to be said.
    let _ = std::io::stdout().flush();
}

/// A count in at most four characters and a unit: `950`, `12.3k`, `124M`.
pub(crate) fn count(number: f64) -> String {
    let (scaled, unit) = match number.abs() {
        size if size >= 9.995e14 => (number / 1e15, "P"),
        size if size >= 9.995e11 => (number / 1e12, "T"),
        size if size >= 9.995e8 => (number / 1e9, "G"),
        size if size >= 9.995e5 => (number / 1e6, "M"),
        size if size >= 9999.5 => (number / 1e3, "k"),
        _ => (number, ""),
    };
    match scaled.abs() {
        size if unit.is_empty() || size >= 99.95 => format!("{scaled:.0}{unit}"),
        size if size >= 9.995 => format!("{scaled:.1}{unit}"),
        _ => format!("{scaled:.2}{unit}"),
    }
}

/// Thousands apart: `1,234,567`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes as `1.4 GB` or `320 MB`.
pub(crate) fn bytes(number: f64) -> String {
    if number >= 1e9 { format!("{:.1} GB", number / 1e9) } else { format!("{:.0} MB", (number / 1e6).max(1.0)) }
}

/// A duration as `45 s`, `3 min 20 s` or `2 h 5 min`.
pub(crate) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds > 1e9 {
        return "unknown".to_owned();
    }
    let whole = Duration::from_secs_f64(seconds.max(0.0)).as_secs();
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole / 60 % 60),
    }
}

/// A learning rate as `6.00e-4`.
pub(crate) fn rate(lr: f64) -> String {
    if lr == 0.0 { "0".to_owned() } else { format!("{lr:.2e}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_three_digits_and_a_unit() {
        let shown = [0.0, 9.0, 950.0, 9999.0, 12_345.0, 124_439_808.0, 999_999.0, 1.5e12].map(count);
        assert_eq!(shown, ["0", "9", "950", "9999", "12.3k", "124M", "1.00M", "1.50T"]);
    }

    #[test]
    fn durations_read_as_people_say_them() {
        let shown = [0.25, 59.0, 200.0, 7500.0, f64::NAN].map(duration);
        assert_eq!(shown, ["0.2 s", "59 s", "3 min 20 s", "2 h 5 min", "unknown"]);
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(thousands(999), "999");
    }
}
