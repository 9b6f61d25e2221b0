//! A run as a picture: completion over time, traffic by kind over time, and the swarm's graph, as one self-contained
//! SVG, or an HTML page with it and the numbers.

use std::collections::BTreeMap;
use std::f64::consts::TAU;
use std::fmt::Write;
use std::time::Duration;

use crate::scenario::{Kind, Report, Sample};

/// Size of the whole, in pixels.
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 1010.0;
/// The height of each row of numbers beyond those that fit.
const ROW_HEIGHT: f64 = 19.0;
/// Rows of numbers that fit.
const ROWS_FIT: usize = 13;
/// Left and right edge of both charts' areas.
const LEFT: f64 = 78.0;
const RIGHT: f64 = 880.0;
/// Top and height of the charts' areas.
const COMPLETION_TOP: f64 = 96.0;
const TRAFFIC_TOP: f64 = 362.0;
const CHART_HEIGHT: f64 = 180.0;
/// The graph's middle and radius.
const GRAPH_MIDDLE: (f64, f64) = (300.0, 800.0);
const GRAPH_RADIUS: f64 = 165.0;
/// Flows drawn in the graph, largest first.
const FLOWS_DRAWN_MAX: usize = 400;
/// Marks of acts on the time axis.
const MARKS_MAX: usize = 60;
/// Points of a line: more than one for each pixel would not be seen.
const POINTS_MAX: usize = 400;
/// Points of a line that shows a rate, each a mean over the time since the one before.
const RATES_MAX: usize = 90;

// Okabe and Ito's colours, which stay apart for colour-blind readers; lines also differ in their dashes.
const BLUE: &str = "#0072b2";
const ORANGE: &str = "#d55e00";
const GREEN: &str = "#009e73";
const PURPLE: &str = "#cc79a7";
const GREY: &str = "#666";

/// The traffic chart's series: name, colour, dashes, and value of a sample.
type Series = (&'static str, &'static str, &'static str, fn(&Sample) -> u64);

const TRAFFIC: [Series; 3] = [
    ("content", BLUE, "", |sample| sample.traffic.data),
    ("control messages", ORANGE, "7 4", |sample| sample.traffic.control),
    ("handshakes", PURPLE, "2 3", |sample| sample.traffic.handshake),
];

/// The picture as SVG. `commit` names the program that made it.
pub fn svg(report: &Report, commit: &str) -> String {
    let rows_of =
        |value: &String| if value_lines(value).len() == 1 { 1 } else { 1 + value_lines(value).len() };
    let rows: usize = numbers(report).iter().map(|(_, value)| rows_of(value)).sum();
    let height = HEIGHT + ROW_HEIGHT * count(rows.saturating_sub(ROWS_FIT));
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\" fill=\"#222\" role=\"img\">\
         <title>{}</title><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>",
        escape(&title(report)),
    );
    text(&mut out, 20.0, 30.0, "start", "font-size=\"19\" font-weight=\"bold\"", &title(report));
    let commit: String = commit.chars().take(12).collect();
    let subtitle = format!("seed {} · commit {commit} · {}", report.params.seed, report.crypto.describe());
    text(&mut out, 20.0, 52.0, "start", "fill=\"#444\"", &subtitle);
    let end = report.took.as_secs_f64().max(0.001);
    let marks = report.timeline.iter().filter(|entry| matches!(entry.kind, "act" | "heal")).count();
    completion(&mut out, report, end, marks);
    traffic(&mut out, report, end);
    graph(&mut out, report);
    if let Some(finding) = &report.finding {
        let words: String =
            format!("FAILED ({}): {}", finding.checker, finding.text).chars().take(115).collect();
        text(&mut out, 20.0, height - 12.0, "start", "fill=\"#d55e00\" font-weight=\"bold\"", &words);
    }
    out.push_str("</svg>\n");
    out
}

/// The picture within an HTML page that also has the numbers and the timeline.
pub fn html(report: &Report, commit: &str) -> String {
    let title = escape(&title(report));
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title><style>\
         body{{max-width:900px;margin:1em auto;padding:0 1em;font:15px/1.5 Helvetica,Arial,sans-serif;color:#222}}\
         svg{{max-width:100%;height:auto}}table{{border-collapse:collapse;margin:1em 0}}\
         td,th{{padding:.2em .8em;text-align:left;border-bottom:1px solid #ddd;vertical-align:top}}\
         td.n{{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}}code{{background:#f3f3f3}}\
         </style></head><body>\n{}\n<h2>Numbers</h2><table>",
        svg(report, commit),
    );
    for (name, value) in numbers(report) {
        let _ = write!(out, "<tr><th>{}</th><td>{}</td></tr>", escape(&name), escape(&value));
    }
    let (hash, command) = (report.trace_hex(), escape(&report.command()));
    let _ = write!(
        out,
        "</table>\n<p>Trace hash: <code>{hash}</code></p>\n<p>Again: <code>{command}</code></p>\n"
    );
    out.push_str("<h2>Timeline</h2><table><tr><th>seconds</th><th>what</th></tr>\n");
    for entry in &report.timeline {
        let at = entry.at.as_secs_f64();
        let _ = writeln!(out, "<tr><td class=\"n\">{at:.1}</td><td>{}</td></tr>", escape(&entry.text));
    }
    if report.entries_left_out > 0 {
        let _ = writeln!(out, "<tr><td></td><td>{} more</td></tr>", report.entries_left_out);
    }
    out.push_str("</table></body></html>\n");
    out
}

/// A run's result in names and values, for people.
pub fn numbers(report: &Report) -> Vec<(String, String)> {
    let time = |time: Option<Duration>| match time {
        None => "–".into(),
        Some(time) if time < Duration::from_secs(1) => format!("{} ms", time.as_millis()),
        Some(time) => format!("{:.1} s", time.as_secs_f64()),
    };
    let mut rows = vec![
        ("complete".into(), format!("{} of {} peers", report.completions.len(), report.peers)),
        ("median time".into(), time(report.median())),
        ("last peer's time".into(), time(report.last())),
    ];
    rows.extend(bounds(report, time));
    if let (Some(peaceful), Some(slowdown)) = (&report.peaceful, report.slowdown_permille()) {
        rows.push((
            "without adversaries".into(),
            format!(
                "median {}, last {}; they make it {:.2} times as long",
                time(peaceful.median),
                time(peaceful.last),
                big(slowdown) / 1000.0
            ),
        ));
    }
    for (index, times) in report.updates.iter().enumerate() {
        let mut times = times.clone();
        times.sort_unstable();
        let most = times.get((times.len() * 99).div_ceil(100).saturating_sub(1)).copied();
        let half = times.get(times.len().div_ceil(2).saturating_sub(1)).copied();
        let value =
            format!("known to {} peers: half after {}, 99 % after {}", times.len(), time(half), time(most));
        rows.push((format!("version {}", index + 1), value));
    }
    let mut senders: Vec<Kind> = report.exchanges.iter().map(|exchange| exchange.from).collect();
    senders.dedup();
    for from in senders {
        let of = report.exchanges.iter().filter(|exchange| exchange.from == from);
        let sent: Vec<_> =
            of.map(|exchange| format!("{} to {}", bytes(exchange.bytes), exchange.to.name())).collect();
        rows.push((format!("{} sent", from.name()), sent.join("; ")));
    }
    let traffic = report.traffic;
    let share = 100.0 * big(traffic.control) / big(traffic.data.max(1));
    let control = format!("{}, {share:.1} % as much", bytes(traffic.control));
    rows.extend([
        ("content sent".into(), bytes(traffic.data)),
        ("duplicates".into(), format!("{:.1} % of it", big(report.duplicates_permille) / 10.0)),
        ("control messages".into(), control),
        ("handshakes".into(), bytes(traffic.handshake)),
        ("dials".into(), traffic.dials.to_string()),
        ("DHT operations".into(), traffic.dht_ops.to_string()),
    ]);
    rows
}

/// What the links allow, where nothing else limits the swarm.
fn bounds(report: &Report, time: impl Fn(Option<Duration>) -> String) -> Vec<(String, String)> {
    let (Some(ratio), Some(fluid_ratio)) = (report.ratio_permille(), report.fluid_ratio_permille()) else {
        return Vec::new();
    };
    let row = |name: &str, bound, ratio, from| {
        let ratio = big(ratio) / 1000.0;
        (name.to_owned(), format!("{}; the last peer took {ratio:.2} times it{from}", time(bound)))
    };
    vec![
        ("discovery".into(), format!("half of the peers had a connection after {}", time(report.discovery))),
        row("honest bound", report.honest_bound, ratio, " from discovery on"),
        row("fluid bound", report.fluid_bound, fluid_ratio, ""),
    ]
}

fn title(report: &Report) -> String {
    let hostile = match report.adversaries {
        0 => String::new(),
        1 => ", 1 adversary".into(),
        n => format!(", {n} adversaries"),
    };
    let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    format!(
        "{}: {}, {}{hostile}",
        report.scenario,
        plural(report.peers, "peer"),
        plural(report.blobs, "blob")
    )
}

// --- charts -------------------------------------------------------------------------------------------------

/// A chart's area and scales.
struct Chart {
    top: f64,
    seconds: f64,
    most: f64,
}

impl Chart {
    fn x(&self, seconds: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * seconds / self.seconds
    }

    fn y(&self, value: f64) -> f64 {
        self.top + CHART_HEIGHT * (1.0 - value / self.most)
    }

    /// Draws the heading, the grid, and the axes with their numbers and units.
    fn axes(&self, out: &mut String, heading: &str, unit: &str) {
        text(out, 20.0, self.top - 14.0, "start", "font-size=\"15\" font-weight=\"bold\"", heading);
        let step = round_step(self.most / 4.0);
        for tick in (0..).map(|n| f64::from(n) * step).take_while(|tick| *tick <= self.most * 1.001) {
            let y = self.y(tick);
            line(out, (LEFT, y), (RIGHT, y), "stroke=\"#ddd\"");
            text(out, LEFT - 7.0, y + 4.0, "end", "", &number(tick));
        }
        let step = round_step(self.seconds / 8.0);
        let bottom = self.top + CHART_HEIGHT;
        for tick in (0..).map(|n| f64::from(n) * step).take_while(|tick| *tick <= self.seconds * 1.001) {
            let x = self.x(tick);
            line(out, (x, bottom), (x, bottom + 5.0), "stroke=\"#666\"");
            text(out, x, bottom + 19.0, "middle", "", &number(tick));
        }
        line(out, (LEFT, bottom), (RIGHT, bottom), "stroke=\"#666\"");
        let middle = f64::midpoint(LEFT, RIGHT);
        text(out, middle, bottom + 37.0, "middle", "", "time since the publication [s]");
        let (x, y) = (22.0, self.top + CHART_HEIGHT / 2.0);
        text(out, x, y, "middle", &format!("transform=\"rotate(-90 {x} {y})\""), unit);
    }

    fn path(&self, out: &mut String, points: &[(f64, f64)], is_stepped: bool, style: &str) {
        let mut path = String::new();
        let mut last: Option<f64> = None;
        for &(seconds, value) in points {
            let (x, y) = (self.x(seconds), self.y(value));
            match last {
                None => drop(write!(path, "M{x:.1} {y:.1}")),
                Some(_) if !is_stepped => drop(write!(path, "L{x:.1} {y:.1}")),
                Some(before) if (y - before).abs() < 0.05 => drop(write!(path, "H{x:.1}")),
                Some(_) => drop(write!(path, "H{x:.1}V{y:.1}")),
            }
            last = Some(y);
        }
        let _ = write!(out, "<path d=\"{path}\" fill=\"none\" stroke-width=\"2\" {style}/>");
    }
}

fn completion(out: &mut String, report: &Report, end: f64, marks: usize) {
    let chart = Chart { top: COMPLETION_TOP, seconds: end, most: 100.0 };
    chart.axes(out, "Completion", "share of all [%]");
    let percent = |value: f64, all: f64| 100.0 * (value / all.max(1.0)).min(1.0);
    let peers = count(report.peers);
    let most_blobs = report.samples.iter().map(|sample| sample.blobs_stored).max().unwrap_or(0);
    let line_of = |value: &dyn Fn(&Sample) -> f64| {
        report.samples.iter().map(|sample| (sample.at.as_secs_f64(), value(sample))).collect::<Vec<_>>()
    };
    if marks <= MARKS_MAX {
        for entry in report.timeline.iter().filter(|entry| matches!(entry.kind, "act" | "heal")) {
            let x = chart.x(entry.at.as_secs_f64());
            let style = if entry.kind == "heal" { "stroke=\"#009e73\"" } else { "stroke=\"#bbb\"" };
            let bottom = COMPLETION_TOP + CHART_HEIGHT;
            line(out, (x, COMPLETION_TOP), (x, bottom), &format!("{style} stroke-dasharray=\"2 3\""));
        }
    }
    let style = |colour: &str, dashes: &str| format!("stroke=\"{colour}\" stroke-dasharray=\"{dashes}\"");
    let up = line_of(&|sample| percent(count(sample.up), peers));
    chart.path(out, &thinned(&up), true, &style(GREY, "2 3"));
    let blobs = line_of(&|sample| percent(big(sample.blobs_stored), big(most_blobs)));
    chart.path(out, &thinned(&blobs), false, &style(ORANGE, "7 4"));
    if let Some(peaceful) = &report.peaceful {
        let shown = peaceful.samples.iter().filter(|sample| sample.at <= report.took);
        let points: Vec<_> =
            shown.map(|sample| (sample.at.as_secs_f64(), percent(count(sample.complete), peers))).collect();
        chart.path(out, &thinned(&points), true, &style(PURPLE, "5 3"));
    }
    let complete = line_of(&|sample| percent(count(sample.complete), peers));
    chart.path(out, &thinned(&complete), true, &style(BLUE, ""));
    if let Some(bound) = report.honest_end().map(|bound| bound.as_secs_f64()).filter(|bound| *bound <= end) {
        let (x, bottom) = (chart.x(bound), COMPLETION_TOP + CHART_HEIGHT);
        line(out, (x, COMPLETION_TOP), (x, bottom), "stroke=\"#009e73\" stroke-width=\"2\"");
    }
    let mut legend: Vec<(&str, &str, &str)> =
        vec![("peers complete", BLUE, ""), ("blobs stored", ORANGE, "7 4"), ("peers up", GREY, "2 3")];
    if report.peaceful.is_some() {
        legend.insert(1, ("without adversaries", PURPLE, "5 3"));
    }
    if marks <= MARKS_MAX {
        legend.push(("events", "#bbb", "2 3"));
    }
    if report.honest_bound.is_some() {
        legend.push(("honest bound", GREEN, ""));
    } else if !report.timeline.iter().all(|entry| entry.kind != "heal") {
        legend.push(("healed", GREEN, "2 3"));
    }
    draw_legend(out, COMPLETION_TOP - 18.0, &legend);
}

fn traffic(out: &mut String, report: &Report, end: f64) {
    let step = report.samples.len().div_ceil(RATES_MAX).max(1);
    let binned: Vec<&Sample> = report.samples.iter().step_by(step).collect();
    let rate = |value: fn(&Sample) -> u64| {
        let pairs = binned.windows(2).filter(|pair| pair[1].at > pair[0].at);
        let points = pairs.map(|pair| {
            let seconds = pair[1].at.saturating_sub(pair[0].at).as_secs_f64();
            (pair[1].at.as_secs_f64(), big(value(pair[1]) - value(pair[0])) / seconds)
        });
        points.collect::<Vec<_>>()
    };
    let series: Vec<_> =
        TRAFFIC.iter().map(|(_, colour, dashes, value)| (colour, dashes, rate(*value))).collect();
    let most = series.iter().flat_map(|(_, _, points)| points).map(|(_, rate)| *rate).fold(10.0, f64::max);
    // By powers of ten, from a byte to the maximum: content is thousands of times the rest.
    let top = most.log10().ceil().max(1.0);
    let chart = Chart { top: TRAFFIC_TOP, seconds: end, most: top };
    chart_with_powers(out, &chart, top);
    for (colour, dashes, points) in series {
        let points: Vec<_> = points.into_iter().map(|(at, rate)| (at, rate.max(1.0).log10())).collect();
        chart.path(out, &points, false, &format!("stroke=\"{colour}\" stroke-dasharray=\"{dashes}\""));
    }
    let legend: Vec<_> = TRAFFIC.iter().map(|(name, colour, dashes, _)| (*name, *colour, *dashes)).collect();
    draw_legend(out, TRAFFIC_TOP - 18.0, &legend);
}

/// The axes of a chart whose values are powers of ten.
fn chart_with_powers(out: &mut String, chart: &Chart, top: f64) {
    // Without grid lines: those of the powers follow.
    let bare = Chart { top: chart.top, seconds: chart.seconds, most: f64::INFINITY };
    bare.axes(out, "Traffic by kind (logarithmic)", "all links [bytes/s]");
    let mut power = 0.0;
    let step = if top > 6.0 { 2.0 } else { 1.0 };
    while power <= top {
        let y = chart.y(power);
        line(out, (LEFT, y), (RIGHT, y), "stroke=\"#ddd\"");
        let label =
            ["1", "10", "100", "1 k", "10 k", "100 k", "1 M", "10 M", "100 M", "1 G", "10 G", "100 G"];
        let label = label.iter().enumerate().find(|(n, _)| (count(*n) - power).abs() < 0.5);
        text(out, LEFT - 7.0, y + 4.0, "end", "", label.map_or("1 T", |(_, label)| label));
        power += step;
    }
}

fn draw_legend(out: &mut String, y: f64, entries: &[(&str, &str, &str)]) {
    let mut x = RIGHT;
    for (name, colour, dashes) in entries.iter().rev() {
        x -= count(name.len()) * 7.2 + 46.0;
        let style = format!("stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"");
        line(out, (x, y), (x + 28.0, y), &style);
        text(out, x + 34.0, y + 4.0, "start", "", name);
    }
}

// --- the graph ----------------------------------------------------------------------------------------------

fn graph(out: &mut String, report: &Report) {
    let top = TRAFFIC_TOP + CHART_HEIGHT + 72.0;
    text(out, 20.0, top, "start", "font-size=\"15\" font-weight=\"bold\"", "Who sent content to whom");
    let mut flows = report.flows.clone();
    flows.sort_by_key(|(from, to, bytes)| (std::cmp::Reverse(*bytes), *from, *to));
    flows.truncate(FLOWS_DRAWN_MAX);
    let last = flows.iter().map(|(from, to, _)| *from.max(to)).max().unwrap_or(0);
    let last = last.max(u32::try_from(report.peers).unwrap_or(u32::MAX));
    let place = |host: u32| {
        if host == 0 {
            return GRAPH_MIDDLE;
        }
        let angle = TAU * f64::from(host - 1) / f64::from(last);
        (GRAPH_MIDDLE.0 + GRAPH_RADIUS * angle.sin(), GRAPH_MIDDLE.1 - GRAPH_RADIUS * angle.cos())
    };
    let most = flows.first().map_or(1.0, |(_, _, bytes)| big(*bytes).max(1.0));
    for (from, to, bytes) in flows.iter().rev() {
        let width = 0.4 + 3.6 * (big(*bytes) / most).sqrt();
        let colour = if *from == 0 { BLUE } else { ORANGE };
        let style = format!("stroke=\"{colour}\" stroke-width=\"{width:.1}\" stroke-opacity=\"0.45\"");
        line(out, place(*from), place(*to), &style);
    }
    let mut sent: BTreeMap<u32, u64> = BTreeMap::new();
    for (from, _, bytes) in &report.flows {
        *sent.entry(*from).or_default() += bytes;
    }
    let radius = (GRAPH_RADIUS * TAU / f64::from(last.max(1)) / 2.6).clamp(1.0, 7.0);
    for host in 1..=last {
        let (x, y) = place(host);
        let fill = if sent.contains_key(&host) { ORANGE } else { "#fff" };
        let _ = write!(
            out,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\" fill=\"{fill}\" stroke=\"#444\"/>"
        );
    }
    let (x, y) = (GRAPH_MIDDLE.0 - 8.0, GRAPH_MIDDLE.1 - 8.0);
    let _ = write!(
        out,
        "<rect x=\"{x}\" y=\"{y}\" width=\"16\" height=\"16\" fill=\"{BLUE}\" stroke=\"#fff\" stroke-width=\"2\"/>"
    );
    graph_words(out, report, &sent, top);
}

/// The graph's legend and the run's numbers, beside it.
fn graph_words(out: &mut String, report: &Report, sent: &BTreeMap<u32, u64>, top: f64) {
    let (x, mut y) = (530.0, top + 8.0);
    let _ = write!(out, "<rect x=\"{x}\" y=\"{}\" width=\"14\" height=\"14\" fill=\"{BLUE}\"/>", y - 11.0);
    let from_author = sent.get(&0).copied().unwrap_or(0);
    text(out, x + 26.0, y, "start", "", &format!("the author; it sent {}", bytes(from_author)));
    let from_peers: u64 = sent.iter().filter(|(host, _)| **host != 0).map(|(_, bytes)| bytes).sum();
    for (fill, words) in [
        (ORANGE, format!("a peer that sent; together {}", bytes(from_peers))),
        ("#fff", "a peer that sent nothing".into()),
    ] {
        y += 22.0;
        let cx = x + 7.0;
        let _ =
            write!(out, "<circle cx=\"{cx}\" cy=\"{}\" r=\"6\" fill=\"{fill}\" stroke=\"#444\"/>", y - 4.0);
        text(out, x + 26.0, y, "start", "", &words);
    }
    y += 22.0;
    text(out, x, y, "start", "fill=\"#444\"", "Lines: wider for more bytes, in the sender's colour");
    y += 14.0;
    for (name, value) in numbers(report) {
        y += 20.0;
        text(out, x, y, "start", "fill=\"#444\"", &name);
        match value_lines(&value)[..] {
            [line] => text(out, x + 142.0, y, "start", "", line),
            ref lines => {
                for line in lines {
                    y += 18.0;
                    text(out, x + 16.0, y, "start", "", line);
                }
            }
        }
    }
}

/// A value in lines that fit: a short one stands beside its name, a long one below it.
fn value_lines(value: &str) -> Vec<&str> {
    if value.len() <= 30 {
        vec![value]
    } else {
        value.split(": ").flat_map(|part| part.split("; ")).collect()
    }
}

// --- small things -------------------------------------------------------------------------------------------

fn text(out: &mut String, x: f64, y: f64, anchor: &str, style: &str, words: &str) {
    let words = escape(words);
    let _ = write!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {style}>{words}</text>");
}

fn line(out: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64), style: &str) {
    let _ = write!(out, "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" {style}/>");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// At most [`POINTS_MAX`] of the points, evenly, with the last.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let step = points.len().div_ceil(POINTS_MAX).max(1);
    let last = points.last().filter(|_| points.len() % step != 1 && step > 1);
    points.iter().step_by(step).chain(last).copied().collect()
}

/// 1, 2 or 5 times a power of ten, not below `least`.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power).find(|step| *step >= least * 0.999).unwrap_or(least)
}

/// A tick's number, without digits that say nothing.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn bytes(n: u64) -> String {
    let units = [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    let unit = units.into_iter().find(|(_, size)| big(n) >= *size);
    unit.map_or(format!("{n} bytes"), |(name, size)| format!("{:.1} {name}", big(n) / size))
}

#[expect(clippy::cast_precision_loss, reason = "a picture needs no more than a pixel's precision")]
fn big(n: u64) -> f64 {
    n as f64
}

fn count(n: usize) -> f64 {
    big(n as u64)
}
