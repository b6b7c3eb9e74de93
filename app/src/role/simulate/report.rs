//! The report: one HTML file that needs nothing else, neither files nor a network nor scripts.

use super::chart::{self, Chart};
use super::{Played, table};
use sim::planner::{Arrivals, Hot, Sample, Scenario};
use std::fmt::Write as _;

const STYLE: &str = "
body{font:15px/1.5 system-ui,sans-serif;margin:0;background:#f4f6f9;color:#1d2430}
main{max-width:1080px;margin:0 auto;padding:24px}
h1{font-size:24px;margin:0 0 4px}h2{font-size:17px;margin:28px 0 4px}
p{margin:4px 0;color:#4b5565}ul{margin:6px 0;padding-left:20px;color:#4b5565}
.card{background:#fff;border:1px solid #dfe4ec;border-radius:8px;padding:12px 16px;margin:10px 0;overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:5px 10px;border-bottom:1px solid #edf0f5;white-space:nowrap}
th:first-child,td:first-child{text-align:left}tr:last-child td{border-bottom:0}
.key{display:inline-block;width:12px;height:12px;border-radius:3px;margin:0 6px 0 0;vertical-align:-1px}
.keys span.name{margin-right:18px}svg{display:block;height:auto}
@media print{body{background:#fff}.card{break-inside:avoid}}
";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

type Value = fn(&Sample) -> f64;

/// One figure over time: title, what it means, its value, and where its axis ends at least.
struct Figure {
    title: &'static str,
    means: String,
    value: Value,
    least: f64,
}

fn figures(scenario: &Scenario, hot: Hot) -> Vec<Figure> {
    let in_time = scenario.arrivals == Arrivals::InTime;
    let gpus = scenario.nodes.iter().any(|node| node.gpus > 0);
    let figure = |title, means: &str, value: Value, least| Figure { title, means: means.to_owned(), value, least };
    let mut figures = Vec::new();
    if gpus {
        figures.push(figure(
            "GPU allocation, %",
            "Allocated share of all GPUs, in thousandths of a GPU.",
            |s| s.allocated_pct[2],
            100.0,
        ));
    }
    figures.push(figure("CPU allocation, %", "Requested share of allocatable CPU.", |s| s.allocated_pct[0], 100.0));
    figures.push(figure(
        "Memory allocation, %",
        "Requested share of allocatable memory.",
        |s| s.allocated_pct[1],
        100.0,
    ));
    let what = if gpus { "GPU" } else { "CPU" };
    figures.push(Figure {
        title: "Fragmentation, % of capacity",
        means: format!("Free {what} that the next pod, drawn from all pods, could not use where it is (as in FGD)."),
        value: |s| s.fragmentation_pct,
        least: 5.0,
    });
    if in_time {
        figures.push(figure("Pending pods", "Pods that wait for room.", |s| s.pending as f64, 1.0));
        figures.push(figure(
            "Pending time, s",
            "How long those that wait have waited, on average.",
            |s| s.pending_age_s,
            1.0,
        ));
    } else {
        figures.push(figure("Pods not placed", "Pods that fitted nowhere when they came.", |s| s.pending as f64, 1.0));
    }
    figures.push(Figure {
        title: "Hot spots, nodes",
        means: format!(
            "Nodes that really use more than {} % of their CPU or {} % of their memory.",
            hot.cpu_pct, hot.memory_pct
        ),
        value: |s| s.hot as f64,
        least: 1.0,
    });
    figures.push(figure("Empty nodes", "Nodes without pods, which could be handed back.", |s| s.empty as f64, 1.0));
    figures
}

/// The x axis: its name, and what a second (or a per cent) is divided by.
fn axis(scenario: &Scenario) -> (&'static str, f64) {
    match (scenario.arrivals, scenario.end_s) {
        (Arrivals::Fill, _) => ("arrived demand, % of capacity", 1.0),
        (_, 0..7200) => ("minutes", 60.0),
        (_, 7200..345_600) => ("hours", 3600.0),
        _ => ("days", 86_400.0),
    }
}

/// The page.
pub fn page(scenario: &Scenario, played: &[Played], hot: Hot) -> String {
    let mut page = String::new();
    // Writing into a string does not fail.
    let _ = write_page(&mut page, scenario, played, hot);
    page
}

fn write_page(page: &mut String, scenario: &Scenario, played: &[Played], hot: Hot) -> std::fmt::Result {
    let name = escaped(&scenario.name);
    write!(
        page,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{name}: diolkos simulate</title>"
    )?;
    write!(page, "<meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body><main>")?;
    write!(
        page,
        "<h1>{name}</h1><p>{}, {} pods. Made by diolkos {} simulate.</p><ul>",
        escaped(&scenario.capacity()),
        scenario.pods.len(),
        env!("CARGO_PKG_VERSION")
    )?;
    for note in &scenario.notes {
        write!(page, "<li>{}</li>", escaped(note))?;
    }
    page.push_str("</ul>");
    write_table(page, scenario, played)?;
    let (x, unit) = axis(scenario);
    for figure in figures(scenario, hot) {
        write!(
            page,
            "<h2>{}</h2><p>{}</p><div class=\"card\"><p class=\"keys\">",
            figure.title,
            escaped(&figure.means)
        )?;
        for (at, played) in played.iter().enumerate() {
            write!(page, "<span class=\"key\" style=\"background:{}\"></span>", chart::colour(at))?;
            write!(page, "<span class=\"name\">{}</span>", played.outcome.policy.name())?;
        }
        page.push_str("</p>");
        let points =
            |played: &Played| played.outcome.samples.iter().map(|s| (s.at / unit, (figure.value)(s))).collect();
        let chart = Chart { x, series: played.iter().map(points).collect(), least: figure.least };
        match chart::svg(&chart) {
            Ok(picture) => page.push_str(&picture),
            Err(error) => write!(page, "<p>could not be drawn: {}</p>", escaped(&error))?,
        }
        page.push_str("</div>");
    }
    page.push_str("</main></body></html>\n");
    Ok(())
}

fn write_table(page: &mut String, scenario: &Scenario, played: &[Played]) -> std::fmt::Result {
    let (heads, rows) = table::rows(scenario, played);
    page.push_str("<div class=\"card\"><table><tr>");
    // Figures go down, policies across: reports are read on narrow screens too.
    for (line, head) in heads.iter().enumerate() {
        let tag = if line == 0 { "th" } else { "td" };
        write!(page, "<{tag}>{}</{tag}>", escaped(head))?;
        for row in &rows {
            write!(page, "<{tag}>{}</{tag}>", escaped(&row[line]))?;
        }
        page.push_str("</tr><tr>");
    }
    page.push_str("</tr></table></div>");
    Ok(())
}
