//! The verdict on one seed, as one process tells it to another.
//!
//! Each seed is simulated by a process of its own: in what order a crash drops a node's tasks depends on numbers that tokio counts
//! through the whole process, so that only the first run of a process can be repeated. The invariants: what is said of a seed here is
//! what `replay` says of it; a process that ends without a report is a violation like any other.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use distcache_checker::{Verdict, Violation};

use crate::cluster::Setting;
use crate::plan::Only;

/// What there is to say of one seed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub ops: u64,
    pub hot_hits: u64,
    pub faults: u64,
    pub forgotten: u64,
    pub after_a_write: u64,
    pub strict: u64,
    pub void: Option<String>,
    pub violations: Vec<Found>,
}

/// A violation in words, and whether it is an answer that is too old.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    pub is_stale: bool,
    pub text: String,
}

impl Report {
    pub fn of(verdict: &Verdict) -> Self {
        let found = |violation: &Violation| Found {
            is_stale: matches!(violation, Violation::Stale { .. }),
            text: violation.to_string().replace('\n', " "),
        };
        Self {
            ops: verdict.ops,
            hot_hits: verdict.hot_hits,
            faults: verdict.faults,
            forgotten: verdict.forgotten,
            after_a_write: verdict.after_a_write,
            strict: verdict.strict,
            void: verdict.void.map(Into::into),
            violations: verdict.violations.iter().map(found).collect(),
        }
    }

    /// Nothing was wrong, and the run means something.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty() && self.void.is_none()
    }

    /// The first answer that was too old.
    pub fn stale(&self) -> Option<&str> {
        self.violations.iter().find(|found| found.is_stale).map(|found| &*found.text)
    }

    fn broken(text: String) -> Self {
        Self { violations: vec![Found { is_stale: false, text }], ..Self::default() }
    }

    /// One line for each thing to say; the last one says that it is the last.
    pub fn to_lines(&self) -> String {
        let counts = [self.ops, self.hot_hits, self.faults, self.forgotten, self.after_a_write, self.strict];
        let mut lines = format!("counts {}\n", counts.map(|count| count.to_string()).join(" "));
        let mut line = |kind: &str, text: &str| writeln!(lines, "{kind} {text}").unwrap_or_default();
        self.void.iter().for_each(|why| line("void", why));
        for found in &self.violations {
            line(if found.is_stale { "stale" } else { "wrong" }, &found.text);
        }
        line("end", "");
        lines
    }

    fn parse(lines: &str) -> Option<Self> {
        let mut report = Self::default();
        for line in lines.lines() {
            let (kind, text) = line.split_once(' ')?;
            match kind {
                "counts" => {
                    let counts: Vec<u64> = text.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
                    let [ops, hot_hits, faults, forgotten, after_a_write, strict] = counts.try_into().ok()?;
                    report = Self { ops, hot_hits, faults, forgotten, after_a_write, strict, ..report };
                }
                "void" => report.void = Some(text.into()),
                "stale" | "wrong" => report.violations.push(Found { is_stale: kind == "stale", text: text.into() }),
                "end" => return Some(report),
                _ => return None,
            }
        }
        None
    }
}

/// Simulates and judges, in a process of its own.
pub fn report_on(setting: Setting) -> Report {
    let minutes = setting.length.as_secs_f64() / 60.0;
    let sizes = [("--seed", setting.seed.to_string()), ("--minutes", minutes.to_string())];
    let nodes = ("--nodes", setting.nodes.to_string());
    let rule = setting.without.map(|rule| ("--without", format!("{rule:?}")));
    let mut command = match std::env::current_exe() {
        Ok(program) => Command::new(program),
        Err(error) => return Report::broken(format!("this program cannot be started again: {error}")),
    };
    command.arg("judge").args(setting.only.map(Only::to_argument));
    command.stdin(Stdio::null()).stderr(Stdio::inherit());
    for (name, value) in sizes.into_iter().chain([nodes]).chain(rule) {
        command.args([name, &value]);
    }
    match command.output() {
        Ok(output) => Report::parse(&String::from_utf8_lossy(&output.stdout))
            .unwrap_or_else(|| Report::broken(format!("its process ended without a report: {}", output.status))),
        Err(error) => Report::broken(format!("no process for it: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_arrives_as_it_was_sent_and_a_part_of_one_does_not() {
        let found = |is_stale, text: &str| Found { is_stale, text: text.into() };
        let violations = vec![found(true, "1 s: too old"), found(false, "broken")];
        let void = Some("no fault".into());
        let counted =
            Report { ops: 1, hot_hits: 2, faults: 3, forgotten: 4, after_a_write: 6, strict: 5, ..Report::default() };
        let report = Report { void, violations, ..counted };
        let lines = report.to_lines();
        assert_eq!(Report::parse(&lines).as_ref(), Some(&report));
        assert_eq!(Report::parse(lines.strip_suffix("end \n").unwrap()), None);
        assert_eq!(report.stale().unwrap(), "1 s: too old");
    }
}
