//! The time that templates may tell.

use std::fmt::Write as _;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

const SECS_PER_DAY: i64 = 86_400;

/// A time on the user's clock: seconds since 1970 plus the offset of the time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime(pub i64);

impl LocalTime {
    /// What Python's `strftime` writes in the C locale, for the codes `aAbBdmyYHIpMSjweuDFTRcxX%`; any other code
    /// stands as it is.
    pub fn format(self, format: &str) -> String {
        let (day, secs) = (self.0.div_euclid(SECS_PER_DAY), self.0.rem_euclid(SECS_PER_DAY));
        let (year, month, month_day) = date(day);
        let year_day = day - days_before(year, 1) + 1;
        let week_day = (day + 4).rem_euclid(7);
        let (hour, minute, second) = (secs / 3600, secs / 60 % 60, secs % 60);
        let mut text = String::new();
        let mut rest = format.chars();
        while let Some(character) = rest.next() {
            if character != '%' {
                text.push(character);
                continue;
            }
            let code = rest.next();
            let written = match code {
                Some('a') => write!(text, "{}", &DAYS[week_day as usize][..3]),
                Some('A') => write!(text, "{}", DAYS[week_day as usize]),
                Some('b' | 'h') => write!(text, "{}", &MONTHS[month as usize - 1][..3]),
                Some('B') => write!(text, "{}", MONTHS[month as usize - 1]),
                Some('d') => write!(text, "{month_day:02}"),
                Some('e') => write!(text, "{month_day:2}"),
                Some('m') => write!(text, "{month:02}"),
                Some('y') => write!(text, "{:02}", year.rem_euclid(100)),
                Some('Y') => write!(text, "{year}"),
                Some('H') => write!(text, "{hour:02}"),
                Some('I') => write!(text, "{:02}", (hour + 11) % 12 + 1),
                Some('p') => write!(text, "{}", if hour < 12 { "AM" } else { "PM" }),
                Some('M') => write!(text, "{minute:02}"),
                Some('S') => write!(text, "{second:02}"),
                Some('j') => write!(text, "{year_day:03}"),
                Some('w') => write!(text, "{week_day}"),
                Some('u') => write!(text, "{}", (week_day + 6) % 7 + 1),
                Some('F') => write!(text, "{}", self.format("%Y-%m-%d")),
                Some('D' | 'x') => write!(text, "{}", self.format("%m/%d/%y")),
                Some('T' | 'X') => write!(text, "{}", self.format("%H:%M:%S")),
                Some('R') => write!(text, "{}", self.format("%H:%M")),
                Some('c') => write!(text, "{}", self.format("%a %b %e %H:%M:%S %Y")),
                Some('%') | None => write!(text, "%"),
                Some(other) => write!(text, "%{other}"),
            };
            written.expect("a string takes any text");
        }
        text
    }
}

/// Year, month and day of the `day`-th day since 1970.
///
/// Source: Howard Hinnant, `civil_from_days` in <https://howardhinnant.github.io/date_algorithms.html>.
fn date(day: i64) -> (i64, i64, i64) {
    // Days since 1 March of the year 0, in eras of 400 years.
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let month_day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, month_day)
}

/// Days from 1970 to the first of a month: `days_from_civil` of the same source.
fn days_before(year: i64, month: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let year_of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5;
    year.div_euclid(400) * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_python_writes_them() {
        let all = "%a %A %b %B %d %e %m %y %Y %H %I %p %M %S %j %w %u %F %D %T %R|%c|%x|%X|%%|%!|%";
        // By `datetime(...).strftime(...)` of Python 3.11, but for the last two codes, which it leaves to the platform.
        let leap = LocalTime(1_709_164_799 + SECS_PER_DAY);
        assert_eq!(
            leap.format(all),
            "Thu Thursday Feb February 29 29 02 24 2024 23 11 PM 59 59 060 4 4 2024-02-29 02/29/24 23:59:59 23:59|Thu Feb 29 23:59:59 2024|02/29/24|23:59:59|%|%!|%"
        );
        assert_eq!(LocalTime(0).format("%d %b %Y %I %p %a %j"), "01 Jan 1970 12 AM Thu 001");
        assert_eq!(LocalTime(-1).format("%F %T"), "1969-12-31 23:59:59");
        assert_eq!(LocalTime(951_782_400).format("%F"), "2000-02-29");
    }
}
