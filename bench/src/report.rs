//! What people read: tables, and a line for each target.
//!
//! Knows no contestant and measures nothing.

use std::fmt;

/// How tables are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Columns aligned with spaces, for a terminal.
    Plain,
    /// For a README.
    Markdown,
}

/// Rows of text under a heading; the first column names the row, the others are numbers.
pub struct Table {
    title: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        Self { title: title.into(), rows: vec![columns.iter().map(ToString::to_string).collect()] }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<String> = cells.into_iter().collect();
        assert_eq!(cells.len(), self.rows[0].len(), "a row has a cell for every column");
        self.rows.push(cells);
    }

    pub fn print(&self, style: Style) {
        println!("\n{}{}\n", if style == Style::Markdown { "### " } else { "" }, self.title);
        print!("{}", self.draw(style));
    }

    fn draw(&self, style: Style) -> String {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.rows[0].len()).map(width).collect();
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            let cells: Vec<String> = row.iter().zip(&widths).enumerate().map(aligned).collect();
            match style {
                Style::Plain => text += &format!("  {}\n", cells.join("   ").trim_end()),
                Style::Markdown => text += &format!("| {} |\n", cells.join(" | ")),
            }
            if index == 0 && style == Style::Markdown {
                let rules: Vec<String> = widths.iter().enumerate().map(rule).collect();
                text += &format!("|{}|\n", rules.join("|"));
            }
        }
        text
    }
}

fn aligned((column, (cell, &width)): (usize, (&String, &usize))) -> String {
    match column {
        0 => format!("{cell:<width$}"),
        _ => format!("{cell:>width$}"),
    }
}

fn rule((column, &width): (usize, &usize)) -> String {
    let dashes = "-".repeat(width + 1);
    if column == 0 { dashes + "-" } else { dashes + ":" }
}

/// A promise and what was measured of it.
pub struct Target {
    pub what: String,
    pub bound: Bound,
    pub measured: f64,
}

/// Which side of a number is the good one.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    pub fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtMost(limit) => self.measured <= limit,
            Bound::AtLeast(limit) => self.measured >= limit,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_met() { "met   " } else { "MISSED" };
        let bound = match self.bound {
            Bound::AtMost(limit) => format!("at most {limit}"),
            Bound::AtLeast(limit) => format!("at least {limit}"),
        };
        write!(f, "{verdict}  {:.3} ({bound})  {}", self.measured, self.what)
    }
}

/// Prints the targets, one a line.
pub fn print_targets(targets: &[Target], style: Style) {
    println!();
    for target in targets {
        println!("{}{target}", if style == Style::Markdown { "- " } else { "  " });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new("speed", &["system", "ns"]);
        table.row(["a".into(), "5".into()]);
        table.row(["longer".into(), "1234".into()]);
        table
    }

    #[test]
    fn numbers_are_aligned_to_the_right() {
        assert_eq!(table().draw(Style::Plain), "  system     ns\n  a           5\n  longer   1234\n");
        assert_eq!(
            table().draw(Style::Markdown),
            "| system |   ns |\n|--------|-----:|\n| a      |    5 |\n| longer | 1234 |\n"
        );
    }

    #[test]
    fn a_target_says_whether_it_is_met() {
        let target = |bound, measured| Target { what: "x".into(), bound, measured };
        assert_eq!(target(Bound::AtMost(2.0), 1.5).to_string(), "met     1.500 (at most 2)  x");
        assert_eq!(target(Bound::AtLeast(3.0), 1.5).to_string(), "MISSED  1.500 (at least 3)  x");
        assert!(target(Bound::AtLeast(3.0), 3.0).is_met());
    }
}
