//! A learning-rate curve in the terminal, in braille dots.

use crate::text;
use cavy_train::Schedule;
use std::fmt::Write as _;

/// Cells of the drawing; each is two dots wide and four high.
const WIDTH: usize = 64;
const HEIGHT: usize = 10;

/// The curve of `schedule` with the rate at the left and steps below.
pub(crate) fn draw(schedule: &Schedule) -> String {
    let curve = schedule.curve();
    if curve.is_empty() {
        return "no steps".to_owned();
    }
    let top = curve.iter().copied().fold(0.0, f64::max);
    let dots = dots(&curve, top);
    let mut out = String::new();
    for (row, line) in dots.iter().enumerate() {
        let label = match row {
            0 => text::rate(top),
            row if row == HEIGHT / 2 => text::rate(top / 2.0),
            row if row == HEIGHT - 1 => "0".to_owned(),
            _ => String::new(),
        };
        let line: String = line.iter().collect();
        let _ = writeln!(out, "{label:>9} ┤{}", line.trim_end_matches('\u{2800}'));
    }
    let _ = writeln!(out, "{:>9} └{}", "", "─".repeat(WIDTH));
    let last = curve.len().to_string();
    let _ = write!(out, "{:>11}0{:>width$}", "", last, width = WIDTH - 1);
    out
}

/// The braille characters of a curve: a dot for each rate, and dots between so that steep parts stay a line.
fn dots(curve: &[f64], top: f64) -> Vec<Vec<char>> {
    // The bit of the dot at (column, row) of a cell, as Unicode numbers them.
    const BITS: [[u8; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
    let (columns, rows) = (2 * WIDTH, 4 * HEIGHT);
    let mut cells = vec![vec![0_u8; WIDTH]; HEIGHT];
    let row_of = |lr: f64| {
        let share = if top > 0.0 { lr / top } else { 0.0 };
        ((1.0 - share) * (rows - 1) as f64).round() as usize
    };
    let mut before = None;
    for column in 0..columns {
        let step = column * (curve.len() - 1) / (columns - 1);
        let row = row_of(curve[step]);
        let from = before.unwrap_or(row);
        for row in from.min(row)..=from.max(row) {
            cells[row / 4][column / 2] |= BITS[column % 2][row % 4];
        }
        before = Some(row);
    }
    let braille = |bits: &u8| char::from_u32(0x2800 + u32::from(*bits)).unwrap_or(' ');
    cells.iter().map(|line| line.iter().map(braille).collect()).collect()
}

/// What the curve does, in a line.
pub(crate) fn caption(schedule: &Schedule) -> String {
    use cavy_train::settings::LrSchedule;
    let (peak, min, total) = (text::rate(schedule.peak_lr), text::rate(schedule.min_lr), schedule.total_steps);
    let warmup = match schedule.warmup_steps {
        0 => format!("{total} steps: no warmup"),
        steps => format!("{total} steps: {steps} of warmup from {} to {peak}", text::rate(schedule.initial_lr)),
    };
    let rest = match schedule.kind {
        LrSchedule::Constant => format!("then constant at {peak}"),
        LrSchedule::Cosine => format!("then a cosine from {peak} to {min}"),
        LrSchedule::Linear => format!("then a line from {peak} to {min}"),
        LrSchedule::Wsd => format!("then {peak} until the last {} steps fall to {min}", schedule.decay_steps),
    };
    format!("{warmup}, {rest}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use cavy_train::settings::OptimizationSettings;

    #[test]
    fn the_curve_rises_to_the_first_row_and_falls_to_the_last() {
        let schedule = Schedule::new(&OptimizationSettings { min_lr: 0.0, ..OptimizationSettings::default() }, 200);
        let drawing = draw(&schedule);
        let lines: Vec<&str> = drawing.lines().collect();
        assert_eq!(lines.len(), HEIGHT + 2);
        assert!(lines[0].starts_with("  6.00e-4 ┤") && lines[0].chars().any(|c| c > '\u{2800}'), "{drawing}");
        let last = lines[HEIGHT - 1].chars().last().unwrap();
        assert!(last > '\u{2800}' && last <= '\u{28ff}', "{drawing}");
        assert_eq!(lines[HEIGHT - 1].chars().count(), 11 + WIDTH);
    }

    #[test]
    fn a_run_of_one_step_can_be_drawn() {
        assert!(draw(&Schedule::new(&OptimizationSettings::default(), 1)).contains('┤'));
    }
}
