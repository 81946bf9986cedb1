//! Ratio against speed as a drawing (SVG). Pure.

use std::fmt::Write;

use super::meaning::{self, Point};
use super::scale::Scale;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 620.0;
/// Where the axes cross, and where they end.
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 550.0;
const RIGHT: f64 = 930.0;
const TOP: f64 = 80.0;

const HEAD: &str = "<style>text{font:12px sans-serif;fill:#222}.note{fill:#666}.grid{stroke:#e4e4e4}.axis{stroke:#444}\
.title{font-weight:bold}.label{paint-order:stroke;stroke:#fff;stroke-width:3px}.front{fill:none;stroke-width:1.5}.leader{stroke:#aaa}.rate{stroke:#2a7f3f;stroke-dasharray:2 4}</style>\n";

/// Points that belong together: those of one cipher.
#[derive(Debug)]
pub(crate) struct Series<'a> {
    pub(crate) name: &'a str,
    pub(crate) points: Vec<Point>,
    /// What each point is called.
    pub(crate) labels: Vec<String>,
}

/// How series are told apart: colour, the front's dashes, whether points are round.
const LOOKS: [(&str, &str, bool); 2] = [("#1f5fa8", "none", true), ("#c0571a", "6 4", false)];

/// The drawing. Speeds are drawn in MB/s, on a logarithmic axis.
pub(crate) fn svg(title: &str, series: &[Series<'_>], wal_rate: Option<u64>) -> String {
    let points = || series.iter().flat_map(|series| &series.points);
    let rate = wal_rate.map(|rate| rate as f64 / 1e6);
    let x = Scale::logarithmic(points().map(|point| point.speed / 1e6).chain(rate));
    let y = Scale::linear(points().map(|point| point.ratio).chain([1.0]));
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\">\n\
         {HEAD}<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"28\" class=\"title\">{}</text>\n",
        escaped(title)
    );
    draw_axes(&mut out, &x, &y);
    if let Some(rate) = rate {
        let at = x.place(rate, LEFT, RIGHT);
        let _ = writeln!(
            out,
            "<path class=\"rate\" d=\"M{at:.1} {BOTTOM}V{TOP}\"/><text class=\"note\" x=\"{:.1}\" y=\"{}\">WAL rate</text>",
            at + 4.0,
            BOTTOM - 6.0
        );
    }
    let place = |point: &Point| (x.place(point.speed / 1e6, LEFT, RIGHT), y.place(point.ratio, BOTTOM, TOP));
    let mut taken: Vec<Area> = points().map(|point| Area::around(place(point))).collect();
    for (nth, (series, look)) in series.iter().zip(LOOKS).enumerate() {
        draw_legend(&mut out, LEFT + 270.0 * nth as f64, series.name, look);
        draw_front(&mut out, series, look, &place);
    }
    for (series, look) in series.iter().zip(LOOKS) {
        draw_points(&mut out, series, look, &place, &mut taken);
    }
    out + "</svg>\n"
}

fn draw_axes(out: &mut String, x: &Scale, y: &Scale) {
    for tick in &x.ticks {
        let at = x.place(*tick, LEFT, RIGHT);
        let _ = writeln!(
            out,
            "<path class=\"grid\" d=\"M{at:.1} {BOTTOM}V{TOP}\"/><text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{tick}</text>",
            BOTTOM + 18.0
        );
    }
    for tick in &y.ticks {
        let at = y.place(*tick, BOTTOM, TOP);
        let _ = writeln!(
            out,
            "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{RIGHT}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            at + 4.0,
            rounded(*tick)
        );
    }
    let _ = writeln!(
        out,
        "<path class=\"axis\" fill=\"none\" d=\"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}\"/>\n\
         <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">speed in, MB/s on one core (logarithmic)</text>\n\
         <text transform=\"translate(20 {}) rotate(-90)\" text-anchor=\"middle\">ratio, plain by stored bytes</text>",
        (LEFT + RIGHT) / 2.0,
        BOTTOM + 45.0,
        (TOP + BOTTOM) / 2.0
    );
}

fn draw_legend(out: &mut String, x: f64, name: &str, look: (&str, &str, bool)) {
    let (colour, dashes, round) = look;
    let _ = write!(
        out,
        "<path d=\"M{x} 52h34\" class=\"front\" stroke=\"{colour}\" stroke-dasharray=\"{dashes}\"/>"
    );
    draw_mark(out, (x + 17.0, 52.0), colour, round, "");
    let _ = writeln!(out, "<text x=\"{}\" y=\"56\">{}, and its front</text>", x + 42.0, escaped(name));
}

fn draw_front(
    out: &mut String,
    series: &Series<'_>,
    look: (&str, &str, bool),
    place: &impl Fn(&Point) -> (f64, f64),
) {
    let (colour, dashes, _) = look;
    let front = meaning::front(&series.points);
    let line: Vec<String> = front
        .iter()
        .map(|nth| {
            let (x, y) = place(&series.points[*nth]);
            format!("{x:.1},{y:.1}")
        })
        .collect();
    let _ = writeln!(
        out,
        "<polyline class=\"front\" stroke=\"{colour}\" stroke-dasharray=\"{dashes}\" points=\"{}\"/>",
        line.join(" ")
    );
}

fn draw_points(
    out: &mut String,
    series: &Series<'_>,
    look: (&str, &str, bool),
    place: &impl Fn(&Point) -> (f64, f64),
    taken: &mut Vec<Area>,
) {
    let (colour, _, round) = look;
    for (point, label) in series.points.iter().zip(&series.labels) {
        let at = place(point);
        let story = format!("{label}, {}: {:.2}, {:.1} MB/s", series.name, point.ratio, point.speed / 1e6);
        draw_mark(out, at, colour, round, &story);
        let (area, far) = label_area(at, label, taken);
        if far {
            let (x, y) = area.middle();
            let _ = write!(out, "<path class=\"leader\" d=\"M{:.1} {:.1}L{x:.1} {y:.1}\"/>", at.0, at.1);
        }
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" class=\"label\" style=\"fill:{colour}\">{}</text>",
            area.x,
            area.y + 10.0,
            escaped(label)
        );
        taken.push(area);
    }
}

fn draw_mark(out: &mut String, (x, y): (f64, f64), colour: &str, round: bool, story: &str) {
    let title = if story.is_empty() { String::new() } else { format!("<title>{}</title>", escaped(story)) };
    let _ = match round {
        true => {
            writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\">{title}</circle>")
        }
        false => writeln!(
            out,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"7\" height=\"7\" fill=\"#fff\" stroke=\"{colour}\">{title}</rect>",
            x - 3.5,
            y - 3.5
        ),
    };
}

/// A part of the drawing.
#[derive(Debug, Clone, Copy)]
struct Area {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

impl Area {
    fn around((x, y): (f64, f64)) -> Area {
        Area { x: x - 5.0, y: y - 5.0, width: 10.0, height: 10.0 }
    }

    fn meets(self, other: Area) -> bool {
        self.x < other.x + other.width
            && other.x < self.x + self.width
            && self.y < other.y + other.height
            && other.y < self.y + self.height
    }

    fn is_inside(self) -> bool {
        self.x >= LEFT
            && self.x + self.width <= WIDTH
            && self.y >= TOP - 20.0
            && self.y + self.height <= BOTTOM
    }

    fn middle(self) -> (f64, f64) {
        (self.x + self.width / 2.0, self.y + self.height / 2.0)
    }
}

/// Where a label finds room near its point, and whether that is so far off that a line must lead there.
fn label_area((x, y): (f64, f64), label: &str, taken: &[Area]) -> (Area, bool) {
    let (width, height) = (label.chars().count() as f64 * 6.8, 13.0);
    let beside = |ring: u8, turn: u8| {
        let distance = 8.0 + 11.0 * f64::from(ring);
        let (sine, cosine) = (f64::from(turn) * std::f64::consts::FRAC_PI_4).sin_cos();
        let (dx, dy) = (cosine * (distance + width / 2.0), -sine * (distance + height / 2.0));
        Area { x: x + dx - width / 2.0, y: y + dy - height / 2.0, width, height }
    };
    for ring in 0..12 {
        for turn in [1, 5, 0, 4, 2, 6, 3, 7] {
            let area = beside(ring, turn);
            if area.is_inside() && !taken.iter().any(|other| other.meets(area)) {
                return (area, ring > 0);
            }
        }
    }
    (beside(0, 0), false)
}

fn rounded(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Text that is safe inside of XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_clear_of_points_and_of_each_other() {
        let at = (400.0, 300.0);
        let mut taken = vec![Area::around(at)];
        for _ in 0..20 {
            let (area, _) = label_area(at, "zstd:19", &taken);
            assert!(area.is_inside() && !taken.iter().any(|other| other.meets(area)));
            taken.push(area);
        }
    }

    #[test]
    fn what_is_drawn() {
        let points = vec![Point { speed: 5e8, ratio: 2.0 }, Point { speed: 3e6, ratio: 4.0 }];
        let labels = vec!["lz4:1".to_owned(), "a<b".to_owned()];
        let series = [Series { name: "age & co", points, labels }];
        let text = svg("\"T\"", &series, Some(1_000_000));
        for part in ["<polyline", "lz4:1", "a&lt;b", "age &amp; co", "&quot;T&quot;", "WAL rate", "</svg>"] {
            assert!(text.contains(part), "no {part} in {text}");
        }
        assert!(!text.contains("NaN") && !text.contains("inf"));
        assert!(svg("empty", &[], None).ends_with("</svg>\n"));
    }
}
