//! What changed since the last run, in words.

use super::{Diff, ModelDiff, Mover};

/// Movers that are printed; the others are in the JSON and in the page.
const PRINTED_MOVERS: usize = 5;
const FEWEST_COLUMNS: usize = 12;

impl Diff {
    /// The comparison for people, line by line.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "since {}: {} in both, {} new, {} gone",
            self.last.display(),
            self.both,
            self.new,
            self.gone
        )];
        if self.duplicates + self.last_duplicates > 0 {
            lines.push(format!(
                "  keys that come again: {} rows now, {} then; the last row of each counts",
                self.duplicates, self.last_duplicates
            ));
        }
        if !self.not_compared.is_empty() {
            let names = self.not_compared.join(", ");
            lines.push(format!(
                "  not compared, for it has no scores of them: {names}"
            ));
        }
        for model in &self.models {
            lines.push(String::new());
            lines.extend(model.lines());
        }
        lines
    }
}

impl ModelDiff {
    fn lines(&self) -> Vec<String> {
        let then = match &self.last_version {
            Some(version) if *version != self.version => format!(" (version {version} then)"),
            _ => String::new(),
        };
        let change = self
            .mean_change
            .map_or(String::new(), |change| format!("; {change:+.4} on average"));
        let mut lines = vec![format!(
            "{} version {}{then}: {} rose by a band or more, {} fell, {} stayed{change}",
            self.model, self.version, self.rose, self.fell, self.stayed
        )];
        let widest = self.bands.iter().map(|band| band.chars().count()).max();
        let width = widest.unwrap_or_default().max(FEWEST_COLUMNS);
        let row = |name: &str, cells: &[String]| {
            let cells: String = cells
                .iter()
                .map(|cell| format!(" {cell:>width$}"))
                .collect();
            format!("  {name:width$}{cells}")
        };
        let numbers = |counts: &[u64]| counts.iter().map(u64::to_string).collect::<Vec<_>>();
        let mut header = self.bands.clone();
        header.push("gone".to_owned());
        lines.push(row("then \\ now", &header));
        for ((band, counts), gone) in self.bands.iter().zip(&self.migration).zip(&self.gone) {
            let mut cells = numbers(counts);
            cells.push(gone.to_string());
            lines.push(row(band, &cells));
        }
        lines.push(row("new", &numbers(&self.new)));
        for (direction, movers) in [("up", &self.up), ("down", &self.down)] {
            if movers.is_empty() {
                continue;
            }
            lines.push(format!("  most {direction}:"));
            let printed = movers.iter().take(PRINTED_MOVERS);
            lines.extend(printed.map(|mover| format!("    {}", mover.line())));
        }
        lines
    }
}

impl Mover {
    fn line(&self) -> String {
        format!(
            "{}  {:.4} -> {:.4} ({:+.4})",
            self.name(),
            self.then,
            self.now,
            self.change
        )
    }

    /// The key as text; what a terminal could take for a command is left out.
    pub fn name(&self) -> String {
        let parts = self
            .key
            .values()
            .map(|part| part.as_str().unwrap_or_default());
        let name = parts.collect::<Vec<_>>().join(" / ");
        name.replace(char::is_control, "\u{fffd}")
    }
}
