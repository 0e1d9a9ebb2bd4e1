//! Numbers and tables as people read them in a terminal.

use std::fmt::Write as _;
use std::time::Duration;

/// `64 MiB`, `1.5 GiB`, `512 B`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = usize::from(value < 100.0);
    let text = format!("{value:.decimals$}");
    format!("{} {}", text.trim_end_matches(".0"), UNITS[unit])
}

/// `144,563`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `85 µs`, `1.2 ms`, `340 ms`, `2.1 s`.
pub fn time(duration: Duration) -> String {
    let micros = duration.as_micros() as f64;
    match micros {
        ..1_000.0 => format!("{micros:.0} µs"),
        ..10_000.0 => format!("{:.1} ms", micros / 1e3),
        ..1_000_000.0 => format!("{:.0} ms", micros / 1e3),
        _ => format!("{:.1} s", micros / 1e6),
    }
}

/// `97.3 %`; a dash of nothing.
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "–".into() } else { format!("{:.1} %", part as f64 / whole as f64 * 100.0) }
}

#[derive(Clone, Copy, PartialEq)]
pub enum Align {
    Left,
    Right,
}

/// Columns as wide as their widest cell, two spaces between them.
pub struct Table {
    aligns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(columns: impl IntoIterator<Item = (&'static str, Align)>) -> Self {
        let (head, aligns): (Vec<String>, Vec<Align>) =
            columns.into_iter().map(|(name, align)| (name.into(), align)).unzip();
        Self { aligns, rows: vec![head] }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The lines, the head first.
    pub fn lines(&self) -> Vec<String> {
        let width = |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| width_of(cell)).max();
        let widths: Vec<usize> = (0..self.aligns.len()).map(|column| width(column).unwrap_or(0)).collect();
        self.rows.iter().map(|row| line(row, &self.aligns, &widths)).collect()
    }

    /// For the terminal: the head in bold.
    pub fn print(&self) {
        let bold = anstyle::Style::new().bold();
        for (i, line) in self.lines().iter().enumerate() {
            if i == 0 { anstream::println!("{bold}{line}{bold:#}") } else { anstream::println!("{line}") }
        }
    }
}

fn line(row: &[String], aligns: &[Align], widths: &[usize]) -> String {
    let mut line = String::new();
    for ((cell, align), width) in row.iter().zip(aligns).zip(widths) {
        let gap = " ".repeat(width - width_of(cell));
        let _ = match align {
            Align::Left => write!(line, "{cell}{gap}  "),
            Align::Right => write!(line, "{gap}{cell}  "),
        };
    }
    line.truncate(line.trim_end().len());
    line
}

fn width_of(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(
            [512, 64 << 20, 1536, 100 << 30, 3_100_000].map(bytes),
            ["512 B", "64 MiB", "1.5 KiB", "100 GiB", "3 MiB"]
        );
        assert_eq!([count(7), count(999), count(1_000), count(144_563)], ["7", "999", "1,000", "144,563"]);
        assert_eq!([percent(1, 3), percent(0, 0)], ["33.3 %", "–"]);
        let times = [85, 1_234, 34_000, 2_100_000].map(|micros| time(Duration::from_micros(micros)));
        assert_eq!(times, ["85 µs", "1.2 ms", "34 ms", "2.1 s"]);
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new([("NAME", Align::Left), ("READS", Align::Right)]);
        table.row(["users".into(), "7".into()]);
        table.row(["naïve-2".into(), "1,000".into()]);
        assert_eq!(table.lines(), ["NAME     READS", "users        7", "naïve-2  1,000"]);
    }
}
