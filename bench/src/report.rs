//! Figures as a table and as JSON.

use serde::Serialize;
use std::path::PathBuf;

#[derive(Serialize)]
struct Figure {
    scenario: String,
    metric: String,
    value: f64,
    unit: &'static str,
}

/// The figures of one bench.
pub struct Report {
    name: &'static str,
    figures: Vec<Figure>,
}

impl Report {
    pub fn new(name: &'static str) -> Report {
        Report { name, figures: Vec::new() }
    }

    /// Adds a figure and prints it.
    pub fn add(&mut self, scenario: &str, metric: &str, value: f64, unit: &'static str) {
        println!("{scenario:<28} {metric:<28} {value:>14.2} {unit}");
        self.figures.push(Figure { scenario: scenario.into(), metric: metric.into(), value, unit });
    }

    /// Writes target/bench/NAME.json.
    pub fn write(&self) -> Result<(), String> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
        let dir = target.join("bench");
        let path = dir.join(format!("{}.json", self.name));
        let json = serde_json::to_string_pretty(&self.figures).map_err(|error| error.to_string())?;
        std::fs::create_dir_all(&dir)
            .and_then(|()| std::fs::write(&path, json))
            .map_err(|e| format!("{}: {e}", path.display()))?;
        println!("{}", path.display());
        Ok(())
    }
}
