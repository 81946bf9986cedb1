//! One page of all runs. It needs nothing but itself.

use serde_json::Value;

use super::plot;

pub const NAME: &str = "index.html";

const STYLE: &str = "
:root { color-scheme: light dark; --text: #1b1f24; --faint: #59636e; --page: #fff; --line: #d1d9e0;
  --ours: #1f6feb; --other: #bc4c00; --floor: #818b98 }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --faint: #9198a1; --page: #0d1117; --line: #3d444d;
  --ours: #58a6ff; --other: #f0883e; --floor: #8b949e } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem }
h2 { border-bottom: 1px solid var(--line); margin-top: 3rem }
p.facts, td.note { color: var(--faint) }
svg { width: 100%; height: auto } svg text { fill: var(--text); font-size: 12px }
.ours { fill: var(--ours); color: var(--ours) } .other { fill: var(--other); color: var(--other) }
.floor { fill: var(--floor); color: var(--floor) }
.cpu { opacity: .5 } .one { stroke: var(--faint); stroke-dasharray: 3 3 }
.scroll { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-size: 13px }
th, td { border-bottom: 1px solid var(--line); padding: .2rem .5rem; text-align: right; white-space: nowrap }
th:first-child, td:first-child, td.note { text-align: left } td.note { white-space: normal }
";

/// The page.
pub fn of(runs: &[Value]) -> String {
    let body: String = runs.iter().map(run).collect();
    let names = runs.iter().map(|run| text(&run["bench"]));
    let links: Vec<String> = names.map(|name| format!("<a href=\"#{name}\">{name}</a>")).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>walarchive: benches</title><style>{STYLE}</style></head>\n<body><h1>walarchive: benches</h1>\n\
         <p>Each run beside what the same machine took for the same work in the same run. Only the ratios mean anything; \
         less is better. <b class=\"ours\">walarchive</b>, <b class=\"other\">other programs</b>, \
         <b class=\"floor\">floors</b>, which do only a part of the work.</p>\n<p>{}</p>\n{body}</body></html>\n",
        links.join(" · ")
    )
}

fn run(run: &Value) -> String {
    let (bench, machine) = (text(&run["bench"]), &run["machine"]);
    let mut out =
        format!("<section id=\"{bench}\"><h2>{bench}</h2>\n<p class=\"facts\">{}, ", text(&run["made_at"]));
    let load = text(&machine["load"]);
    out +=
        &format!("{} cores of {}, load at the start {load}", text(&machine["cores"]), text(&machine["cpu"]));
    if machine["optimised"] != Value::Bool(true) {
        out += ", measured by a bench that is not optimised";
    }
    for fact in all(&run["facts"]) {
        out += &format!("<br>{}", text(fact));
    }
    out += "</p>\n";
    all(&run["tables"]).for_each(|one| out += &table(one));
    out + "</section>\n"
}

fn table(table: &Value) -> String {
    let unit = text(&table["unit"]);
    let mut out = format!("<h3>{}</h3>\n<p class=\"facts\">in units of {unit}</p>\n", text(&table["title"]));
    out += &plot::of(table);
    out += "<div class=\"scroll\"><table><tr><th>case</th><th>wall, ms</th><th>ratio</th><th>CPU, ms</th><th>ratio</th>\
            <th>memory, MiB</th><th>stored, MB</th><th>ratio</th><th></th></tr>\n";
    for row in all(&table["rows"]) {
        let number = |key: &str, factor: f64, digits: usize| {
            row[key].as_f64().map_or("–".to_owned(), |number| format!("{:.digits$}", number * factor))
        };
        let cells = [
            number("wall_seconds", 1e3, 2),
            number("wall_ratio", 1.0, 2),
            number("cpu_seconds", 1e3, 2),
            number("cpu_ratio", 1.0, 2),
            number("memory_bytes", 1.0 / f64::from(1 << 20), 1),
            number("stored_bytes", 1e-6, 2),
            number("stored_ratio", 1.0, 2),
        ];
        let cells: String = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
        let (case, note) = (text(&row["case"]), text(&row["note"]));
        out += &format!("<tr><td>{case}</td>{cells}<td class=\"note\">{note}</td></tr>\n");
    }
    out + "</table></div>\n"
}

/// The elements of an array.
pub fn all(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A string or a number as HTML.
pub fn text(value: &Value) -> String {
    let plain = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut out = String::with_capacity(plain.len());
    for letter in plain.chars() {
        match letter {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            _ => out.push(letter),
        }
    }
    out
}
