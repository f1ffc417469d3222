//! The table: figures, what stands beside them, and what they must reach.

use std::fmt;

use serde_json::{Value, json};

/// One row: a figure of ours that was measured several times, and where there is one, another from the same runs.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// The benchmark.
    pub(super) name: &'static str,
    /// What was measured.
    pub(super) what: String,
    /// Its unit, which is also that of the figure beside it.
    pub(super) unit: &'static str,
    /// Our figure, a value for each run.
    pub(super) ours: Vec<f64>,
    /// What it is compared with.
    pub(super) beside: Option<Beside>,
    /// What it must reach.
    pub(super) must: Option<Target>,
    /// What it should reach.
    pub(super) reach: Option<Target>,
}

/// A figure to compare with: a value for each run, or one that holds for all of them.
#[derive(Debug, Clone)]
pub(super) struct Beside {
    pub(super) what: String,
    pub(super) measured: Vec<f64>,
}

/// A bound, on the figure itself or on its ratio to the one beside it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Target {
    AtMost(f64),
    RatioAtLeast(f64),
    RatioAtMost(f64),
}

/// What several runs of one thing came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Summary {
    pub(super) median: f64,
    pub(super) lowest: f64,
    pub(super) highest: f64,
}

impl Row {
    /// A row that compares with nothing and has nothing to reach.
    pub(super) fn new(name: &'static str, what: impl Into<String>, unit: &'static str) -> Self {
        Self { name, what: what.into(), unit, ours: Vec::new(), beside: None, must: None, reach: None }
    }

    /// Compares with something; its values follow in `beside`.
    pub(super) fn beside(mut self, what: impl Into<String>) -> Self {
        self.beside = Some(Beside { what: what.into(), measured: Vec::new() });
        self
    }

    /// What the row must reach.
    pub(super) fn must(mut self, target: Target) -> Self {
        self.must = Some(target);
        self
    }

    /// What the row should reach.
    pub(super) fn reach(mut self, target: Target) -> Self {
        self.reach = Some(target);
        self
    }

    /// Adds a run.
    pub(super) fn push(&mut self, ours: f64, beside: f64) {
        self.ours.push(ours);
        if let Some(other) = &mut self.beside {
            other.measured.push(beside);
        }
    }

    /// Ours over the other, run by run: what drifts on a machine drifts in both.
    fn ratios(&self) -> Option<Summary> {
        let beside = self.beside.as_ref()?;
        // A figure that no run changes was taken once.
        let other = |run: usize| beside.measured.get(run).or_else(|| beside.measured.first());
        let ratios = self.ours.iter().enumerate().filter_map(|(run, ours)| Some(ours / other(run)?));
        Summary::of(&ratios.collect::<Vec<_>>())
    }

    /// Whether a target is met; `None` where nothing was measured.
    fn meets(&self, target: Target) -> Option<bool> {
        let figure = Summary::of(&self.ours)?.median;
        let ratio = self.ratios().map(|ratio| ratio.median);
        Some(match target {
            Target::AtMost(bound) => figure <= bound,
            Target::RatioAtLeast(bound) => ratio? >= bound,
            Target::RatioAtMost(bound) => ratio? <= bound,
        })
    }

    /// The row as JSON: `median`, `lowest` and `highest` are ours; `ratio` is ours over the other.
    pub(super) fn json(&self) -> Value {
        let ours = Summary::of(&self.ours);
        let mut row = json!({ "name": self.name, "what": self.what, "unit": self.unit, "runs": self.ours.len() });
        if let Some(ours) = ours {
            row["median"] = ours.median.into();
            row["lowest"] = ours.lowest.into();
            row["highest"] = ours.highest.into();
        }
        if let Some(beside) = &self.beside {
            row["beside"] = json!({ "what": beside.what, "median": Summary::of(&beside.measured).map(|of| of.median) });
        }
        if let Some(ratio) = self.ratios() {
            row["ratio"] = json!({ "median": ratio.median, "lowest": ratio.lowest, "highest": ratio.highest });
        }
        for (name, target) in [("must", self.must), ("reach", self.reach)] {
            if let Some(target) = target {
                row[name] = json!({ "target": target.to_string(), "met": self.meets(target) });
            }
        }
        row
    }

    fn cells(&self) -> [String; COLUMNS.len()] {
        let ours = Summary::of(&self.ours).map_or_else(|| "–".to_owned(), |ours| ours.show(self.unit));
        let beside = self.beside.as_ref().map_or_else(String::new, |beside| {
            let figure = Summary::of(&beside.measured);
            format!("{}: {}", beside.what, figure.map_or_else(|| "–".to_owned(), |of| of.show(self.unit)))
        });
        let ratio = self.ratios().map_or_else(String::new, |ratio| ratio.show("×"));
        let target = |target: Option<Target>| target.map_or_else(String::new, |target| self.mark(target));
        [self.name.into(), self.what.clone(), ours, beside, ratio, target(self.must), target(self.reach)]
    }

    fn mark(&self, target: Target) -> String {
        match self.meets(target) {
            Some(true) => format!("{target} ✓"),
            Some(false) => format!("{target} ✗"),
            None => format!("{target} ?"),
        }
    }
}

impl Summary {
    /// `None` of nothing. Of an even number of values the median is the mean of the middle two.
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (lowest, highest) = (*sorted.first()?, *sorted.last()?);
        let median = f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self { median, lowest, highest })
    }

    /// The median, and in brackets the lowest and the highest where they differ as shown.
    fn show(&self, unit: &str) -> String {
        let (median, lowest, highest) = (number(self.median), number(self.lowest), number(self.highest));
        let unit = if unit == "×" { "×".to_owned() } else { format!(" {unit}") };
        if lowest == highest { format!("{median}{unit}") } else { format!("{median}{unit} ({lowest}–{highest})") }
    }
}

/// A whole number as it is, another with three digits that mean something.
fn number(value: f64) -> String {
    match value.abs() {
        _ if value.fract() == 0.0 => format!("{value:.0}"),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(bound) => write!(f, "≤ {bound}"),
            Self::RatioAtLeast(bound) => write!(f, "≥ {bound}×"),
            Self::RatioAtMost(bound) => write!(f, "≤ {bound}×"),
        }
    }
}

const COLUMNS: [&str; 7] = ["name", "what", "ours", "beside", "ratio", "must", "reach"];

/// The table as text, in the form that Markdown has for one.
pub(super) fn text(rows: &[Row]) -> String {
    let mut lines = vec![COLUMNS.map(str::to_owned)];
    lines.extend(rows.iter().map(Row::cells));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(&format!("| {} |\n", cells.collect::<Vec<_>>().join(" | ")));
        if number == 0 {
            let rules = widths.iter().map(|width| "-".repeat(*width));
            text.push_str(&format!("| {} |\n", rules.collect::<Vec<_>>().join(" | ")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_runs_does_not_depend_on_their_order() {
        let summary = Summary::of(&[5.0, 1.0, 3.0]).unwrap();
        assert_eq!(summary, Summary { median: 3.0, lowest: 1.0, highest: 5.0 });
        assert_eq!(Summary::of(&[4.0, 1.0]).unwrap().median, 2.5);
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn a_ratio_is_taken_run_by_run() {
        // The machine was twice as slow in the second run, for both.
        let mut row = Row::new("single", "", "MB/s").beside("other").must(Target::RatioAtLeast(2.0));
        for (ours, other) in [(400.0, 200.0), (200.0, 100.0), (400.0, 200.0)] {
            row.push(ours, other);
        }
        assert_eq!(row.ratios(), Some(Summary { median: 2.0, lowest: 2.0, highest: 2.0 }));
        assert_eq!(row.meets(Target::RatioAtLeast(2.0)), Some(true));
        assert_eq!(row.meets(Target::RatioAtMost(1.9)), Some(false));
    }

    #[test]
    fn a_figure_taken_once_stands_beside_every_run() {
        let mut row = Row::new("image", "", "MB").beside("zstd -3");
        row.ours = vec![50.0, 100.0, 150.0];
        row.beside.as_mut().unwrap().measured = vec![100.0];
        assert_eq!(row.ratios(), Some(Summary { median: 1.0, lowest: 0.5, highest: 1.5 }));
    }

    #[test]
    fn what_was_not_measured_meets_nothing() {
        let row = Row::new("memory", "", "MB").must(Target::AtMost(200.0));
        assert_eq!(row.meets(Target::AtMost(200.0)), None);
        assert_eq!(row.json()["must"]["met"], Value::Null);
        let mut alone = row.clone();
        alone.ours = vec![1.0];
        assert_eq!(alone.meets(Target::RatioAtMost(1.0)), None, "there is nothing to compare with");
    }

    #[test]
    fn the_table_says_what_is_met() {
        let mut row = Row::new("swarm", "slowest of 8", "s").beside("the link's own time");
        row = row.must(Target::RatioAtMost(1.4)).reach(Target::RatioAtMost(1.15));
        row.push(12.5, 10.0);
        let text = text(&[row]);
        let line = text.lines().nth(2).unwrap();
        assert!(line.contains("12.5 s | the link's own time: 10 s | 1.25× | ≤ 1.4× ✓ | ≤ 1.15× ✗ |"), "{line}");
    }
}
