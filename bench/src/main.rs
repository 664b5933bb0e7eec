//! The yardstick: `cargo run --release --manifest-path bench/Cargo.toml -- [SCENARIO…] [--quick] [--json FILE]`, and the
//! HTTP API's own, which has no other side to be held against: `… -- api [--quick] [--smidge BINARY]`.
//!
//! Ours and the stock node take turns, several times in the same run, so that whatever else the
//! machine does hits both. Every measured node is a process of its own.

mod api;
mod growth;
mod plot;
mod whole;

use std::{
    collections::BTreeMap,
    env, fs,
    io::BufReader,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use smidge_bench::{
    Kind,
    child::{self, line},
    gossip::rate_row,
    metric::{Better, Metric, percentile},
    proc::Reading,
};
use whole::Programs;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Scenario and what it measures.
const SCENARIOS: [(&str, &str); 10] = [
    ("stream-1", "one stream, 1 GiB up, then 1 GiB down"),
    ("streams-64", "64 streams of 16 MiB at once"),
    ("requests", "request and response of 64 B, 1 and 64 in flight"),
    ("handshakes", "dial and close, 8 at once"),
    ("gossip", "8 nodes, 1 publishes 100 B and 4 KiB, signed"),
    (
        "half-load",
        "the same at half of what the slower side takes (of gossip, in the same run): times to all",
    ),
    ("idle", "a whole node, as a program of its own, with 3 peers and nothing to do"),
    ("connections", "200 idle connections at a listener"),
    ("start", "a whole node, as a program of its own, to its listener and to its first connection"),
    ("size", "the two programs on the disk"),
];

fn main() -> Result<(), Failure> {
    let args: Vec<String> = env::args().skip(1).collect();
    if let [first, rest @ ..] = &args[..]
        && first == "--child"
    {
        return child::main(rest);
    }
    if let [first, rest @ ..] = &args[..]
        && first == "api"
    {
        return api::main(rest);
    }
    if let [first, rest @ ..] = &args[..]
        && first == "growth"
    {
        return growth::main(rest);
    }
    let (mut quick, mut json, mut chosen) = (false, None, Vec::new());
    let mut programs = Programs::default();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--quick" => quick = true,
            "--json" => json = Some(args.next().ok_or("--json FILE")?),
            "--smidge" => programs.ours = Some(args.next().ok_or("--smidge BINARY")?.into()),
            "--ours" => programs.child = Some(args.next().ok_or("--ours BINARY")?.into()),
            "--stock" => programs.stock = Some(args.next().ok_or("--stock BINARY")?.into()),
            name => match SCENARIOS.iter().find(|(scenario, _)| *scenario == name) {
                Some((scenario, _)) => chosen.push(*scenario),
                None => {
                    let known: Vec<_> = SCENARIOS.iter().map(|(n, what)| format!("  {n}: {what}")).collect();
                    return Err(format!(
                        "no scenario {name:?}; there are api and growth (each alone), and\n{}",
                        known.join("\n")
                    )
                    .into());
                }
            },
        }
    }
    if chosen.is_empty() {
        chosen = SCENARIOS.iter().map(|(name, _)| *name).collect();
    }
    let rounds = if quick { 3 } else { 5 };
    let mut table = Table::default();
    let (began, load) = (Instant::now(), load_average());
    println!("Load average before: {load}");
    for round in 0..rounds {
        for scenario in &chosen {
            // Who goes first changes from round to round.
            let order = if round % 2 == 0 { Kind::ALL } else { [Kind::Stock, Kind::Ours] };
            for kind in order {
                eprintln!("round {} of {rounds}: {scenario}, {kind}", round + 1);
                for figure in measure(scenario, kind, quick, &programs, &table)? {
                    table.add(scenario, kind, figure);
                }
            }
        }
    }
    let after = load_average();
    print!("{}", table.text());
    println!("{rounds} rounds in {} s; load average after: {after}", began.elapsed().as_secs());
    if let Some(file) = json {
        let mut all = table.json(rounds, quick);
        all["load_before"] = load.into();
        all["load_after"] = after.into();
        fs::write(file, serde_json::to_string_pretty(&all)?)?;
    }
    Ok(())
}

/// Over one, five and fifteen minutes. What is measured here is in it, as well.
fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

fn measure(
    scenario: &str,
    kind: Kind,
    quick: bool,
    programs: &Programs,
    table: &Table,
) -> Result<Vec<Metric>, Failure> {
    match scenario {
        "idle" => whole::idle(programs, kind, quick),
        "connections" => connections(programs, kind),
        "start" => whole::start(programs, kind),
        "size" => whole::size(programs, kind),
        "gossip" => Process::start(programs, kind, &["gossip"], quick)?.figures(),
        "half-load" => {
            let rates = [0, 1].map(|size| table.slower(&rate_row(size)).map(|rate| (rate / 2.0).to_string()));
            let [Some(small), Some(large)] = rates else {
                return Err("half-load is half of what gossip measured: name gossip before it".into());
            };
            Process::start(programs, kind, &["gossip", &small, &large], quick)?.figures()
        }
        load => {
            let serve = if load == "requests" { "serve-requests" } else { "serve" };
            let mut server = Process::start(programs, kind, &[serve], quick)?;
            let (address, pid) = (server.line()?, server.child.id().to_string());
            Process::start(programs, kind, &[load, &address, &pid], quick)?.figures()
        }
    }
}

/// A child process that ends when this is dropped.
struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(programs: &Programs, kind: Kind, role: &[&str], quick: bool) -> Result<Self, Failure> {
        let mut command = Command::new(programs.child(kind)?);
        if kind == Kind::Stock {
            command.arg("--child");
        }
        command.arg(kind.word()).args(role);
        if quick {
            command.arg("--quick");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(child.stdout.take().ok_or("no output")?);
        Ok(Self { input: child.stdin.take(), child, output })
    }

    fn line(&mut self) -> Result<String, Failure> {
        line(&mut self.output)
    }

    fn reading(&self) -> Result<Reading, Failure> {
        Ok(Reading::of(self.child.id())?)
    }

    fn figures(mut self) -> Result<Vec<Metric>, Failure> {
        let figures: Value = serde_json::from_str(&self.line()?)?;
        let figures = figures.as_array().ok_or("no figures")?;
        Ok(figures.iter().filter_map(Metric::from_json).collect())
    }

    /// Reads up to the line `ready`.
    fn ready(&mut self) -> Result<(), Failure> {
        while self.line()? != "ready" {}
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.input.take());
        // It ends by itself now; how, and whether it had already, is of no interest.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connections(programs: &Programs, kind: Kind) -> Result<Vec<Metric>, Failure> {
    const COUNT: usize = 200;
    let mut server = Process::start(programs, kind, &["serve"], false)?;
    let address = server.line()?;
    let mut some = Process::start(programs, kind, &["hold", "10", &address], false)?;
    some.ready()?;
    let before = server.reading()?.rss;
    let mut many = Process::start(programs, kind, &["hold", &COUNT.to_string(), &address], false)?;
    many.ready()?;
    thread::sleep(Duration::from_secs(1));
    let after = server.reading()?.rss;
    let each = after.saturating_sub(before) as f64 / COUNT as f64;
    Ok(vec![Metric::lower("200 idle connections, listener's RSS each", "KiB", each)])
}

/// Figures by line of the table, in the order of their first appearance.
#[derive(Default)]
struct Table(Vec<Row>);

struct Row {
    scenario: String,
    name: String,
    unit: String,
    better: Better,
    values: BTreeMap<Kind, Vec<f64>>,
}

impl Row {
    fn median(&self, kind: Kind) -> f64 {
        percentile(&mut self.values.get(&kind).cloned().unwrap_or_default(), 0.5)
    }

    /// From the least to the most, as a share of the median: the noise.
    fn spread(&self, kind: Kind) -> f64 {
        let values = self.values.get(&kind).map_or(&[][..], Vec::as_slice);
        let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
        (high - low) / self.median(kind)
    }

    /// Ours over stock.
    fn ratio(&self) -> f64 {
        self.median(Kind::Ours) / self.median(Kind::Stock)
    }
}

impl Table {
    fn add(&mut self, scenario: &str, kind: Kind, figure: Metric) {
        let Metric { name, unit, better, value } = figure;
        let at = self.0.iter().position(|row| row.name == name).unwrap_or_else(|| {
            let values = BTreeMap::new();
            self.0.push(Row { scenario: scenario.into(), name, unit, better, values });
            self.0.len() - 1
        });
        self.0[at].values.entry(kind).or_default().push(value);
    }

    /// The median of the slower side, where both were measured.
    fn slower(&self, name: &str) -> Option<f64> {
        let row = self.0.iter().find(|row| row.name == name)?;
        let [ours, stock] = Kind::ALL.map(|kind| row.values.contains_key(&kind).then(|| row.median(kind)));
        Some(ours?.min(stock?))
    }

    fn text(&self) -> String {
        let mut text = format!(
            "| {:<44} | {:<6} | {:>10} | {:>6} | {:>10} | {:>6} | {:>7} |\n|{}|\n",
            "what",
            "unit",
            "ours",
            "spread",
            "stock",
            "spread",
            "ratio",
            [
                "-".repeat(46),
                "-".repeat(8),
                "-".repeat(12),
                "-".repeat(8),
                "-".repeat(12),
                "-".repeat(8),
                "-".repeat(9)
            ]
            .join("|")
        );
        for row in &self.0 {
            let ratio = row.ratio();
            let good = if row.better == Better::Higher { ratio > 1.0 } else { ratio < 1.0 };
            let mark = if good { '+' } else { '-' };
            let number = |v: f64| {
                if v.abs() >= 100.0 { format!("{v:.0}") } else { format!("{v:.2}") }
            };
            text += &format!(
                "| {:<44} | {:<6} | {:>10} | {:>5.0}% | {:>10} | {:>5.0}% | {ratio:>5.2} {mark} |\n",
                row.name,
                row.unit,
                number(row.median(Kind::Ours)),
                row.spread(Kind::Ours) * 100.0,
                number(row.median(Kind::Stock)),
                row.spread(Kind::Stock) * 100.0,
            );
        }
        text + "\nMedians; spread is (most - least) / median; ratio is ours / stock, + where ours is better.\n"
    }

    fn json(&self, rounds: usize, quick: bool) -> Value {
        let rows: Vec<_> = self
            .0
            .iter()
            .map(|row| {
                json!({
                    "scenario": row.scenario,
                    "what": row.name,
                    "unit": row.unit,
                    "better": if row.better == Better::Higher { "higher" } else { "lower" },
                    "ours": row.values.get(&Kind::Ours),
                    "stock": row.values.get(&Kind::Stock),
                    "ratio": row.ratio(),
                })
            })
            .collect();
        json!({ "rounds": rounds, "quick": quick, "rows": rows })
    }
}
