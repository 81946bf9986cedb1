//! Bars for the ratios of a table, or for its wall times where there are no ratios.

use serde_json::Value;

use super::page::{all, text};

/// In units of the drawing.
const NAMES: f64 = 300.0;
const BARS: f64 = 400.0;
const FIGURES: f64 = 60.0;
const ROW: f64 = 36.0;
const BAR: f64 = 14.0;

/// Two bars for each row, one for wall time and a paler one for CPU time, on one scale from nothing.
pub fn of(table: &Value) -> String {
    let rows: Vec<&Value> = all(&table["rows"]).collect();
    let is_ratio = rows.iter().any(|row| row["wall_ratio"].is_number());
    let keys = if is_ratio { ["wall_ratio", "cpu_ratio"] } else { ["wall_seconds", "cpu_seconds"] };
    let of = |row: &Value, key: &str| row[key].as_f64().unwrap_or_default();
    let values = rows.iter().flat_map(|row| keys.map(|key| of(row, key)));
    let most = values.fold(f64::MIN_POSITIVE, f64::max);
    let (width, height) = (NAMES + BARS + FIGURES, ROW * rows.len() as f64);
    let title = text(&table["title"]);
    let mut out = format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\"><title>{title}</title>\n");
    for (number, row) in rows.iter().enumerate() {
        let top = ROW * number as f64;
        let (who, case) = (text(&row["who"]), text(&row["case"]));
        out +=
            &format!("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{case}</text>\n", NAMES - 8.0, top + 21.0);
        for (key, (class, at)) in keys.iter().zip([("", 3.0), (" cpu", 3.0 + BAR)]) {
            let (value, y) = (of(row, key), top + at);
            let long = BARS * value / most;
            out += &format!(
                "<rect class=\"{who}{class}\" x=\"{NAMES}\" y=\"{y}\" width=\"{long:.1}\" height=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"{}\">{}</text>\n",
                BAR - 1.0,
                NAMES + long + 4.0,
                y + 11.0,
                figure(value, is_ratio)
            );
        }
    }
    if is_ratio {
        let x = NAMES + BARS / most;
        out += &format!("<line class=\"one\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{height}\"/>\n");
    }
    out + "</svg>\n<p class=\"facts\">upper bar: wall time; paler bar: CPU time</p>\n"
}

fn figure(value: f64, is_ratio: bool) -> String {
    if is_ratio { format!("{value:.2}") } else { format!("{value:.3} s") }
}
