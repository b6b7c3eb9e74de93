//! What the policies came to, as rows: for the terminal and for the report.

use super::Played;
use sim::planner::{Arrivals, Scenario};

/// A span of time as a person reads it.
fn span(seconds: i64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{:.1} min", seconds as f64 / 60.0),
        7200..172_800 => format!("{:.1} h", seconds as f64 / 3600.0),
        _ => format!("{:.1} d", seconds as f64 / 86_400.0),
    }
}

/// Column heads, and a row for each policy.
pub fn rows(scenario: &Scenario, played: &[Played]) -> (Vec<String>, Vec<Vec<String>>) {
    let in_time = scenario.arrivals == Arrivals::InTime;
    let gpus = scenario.nodes.iter().any(|node| node.gpus > 0);
    let mut heads: Vec<&str> = vec!["policy", "placed", if in_time { "waiting at the end" } else { "not placed" }];
    let states: &[&str] = if in_time {
        &["CPU mean/most %", "memory mean/most %", "GPU mean/most %"]
    } else {
        &["CPU %", "memory %", "GPU %"]
    };
    heads.extend(&states[..if gpus { 3 } else { 2 }]);
    let at_100 = played.iter().any(|played| played.outcome.at_100.is_some());
    if at_100 {
        heads.push("at 100 % demand");
    }
    heads.extend(["fragmentation %", "hot nodes mean/most", "empty nodes"]);
    if in_time {
        heads.extend(["waited p50", "waited p95", "waited longest", "preempted", "lost with nodes"]);
    }
    heads.push("played in");
    let rows = played.iter().map(|played| row(played, in_time, gpus, at_100)).collect();
    (heads.into_iter().map(str::to_owned).collect(), rows)
}

fn row(played: &Played, in_time: bool, gpus: bool, at_100: bool) -> Vec<String> {
    let outcome = &played.outcome;
    let last = outcome.last();
    let mut row = vec![outcome.policy.name().to_owned(), outcome.placed.to_string(), outcome.left_over.to_string()];
    for resource in 0..if gpus { 3 } else { 2 } {
        let (mean, most) = (outcome.mean(|s| s.allocated_pct[resource]), outcome.most(|s| s.allocated_pct[resource]));
        row.push(if in_time {
            format!("{mean:.1} / {most:.1}")
        } else {
            format!("{:.2}", last.allocated_pct[resource])
        });
    }
    if at_100 {
        row.push(outcome.at_100.map_or_else(String::new, |share| format!("{share:.2}")));
    }
    if in_time {
        row.push(format!("{:.2}", outcome.mean(|s| s.fragmentation_pct)));
        row.push(format!("{:.1} / {:.0}", outcome.mean(|s| s.hot as f64), outcome.most(|s| s.hot as f64)));
        row.push(format!("{:.1}", outcome.mean(|s| s.empty as f64)));
        let waits = &outcome.waits;
        row.extend([span(waits.p50_s), span(waits.p95_s), span(waits.max_s)]);
        row.extend([outcome.preempted.to_string(), outcome.lost.to_string()]);
    } else {
        row.push(format!("{:.2}", last.fragmentation_pct));
        row.push(format!("{} / {:.0}", last.hot, outcome.most(|s| s.hot as f64)));
        row.push(last.empty.to_string());
    }
    row.push(format!("{:.2} s", played.seconds));
    row
}

/// The table for the terminal: one line for each figure, one column for each policy, as policies are few and figures many.
pub fn text(scenario: &Scenario, played: &[Played]) -> String {
    let (heads, rows) = rows(scenario, played);
    let first = heads.iter().map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = rows.iter().map(|row| row.iter().map(String::len).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for (line, head) in heads.iter().enumerate() {
        text.push_str(&format!("{head:<first$}"));
        for (row, width) in rows.iter().zip(&widths) {
            text.push_str(&format!("  {:>width$}", row[line]));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::span;

    #[test]
    fn spans_read_well() {
        assert_eq!([0, 119, 120, 7200, 200_000].map(span), ["0 s", "119 s", "2.0 min", "2.0 h", "2.3 d"]);
    }
}
