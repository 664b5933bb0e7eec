//! What `/metrics` shows; and the shipped dashboard and alert rules, held against what a running node really
//! shows there: a name, a label or a value that is not there would be a panel that stays empty, or an alert
//! that never comes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use crate::support::http::Api;
use crate::support::{Network, TOPIC, run};
use serde_json::Value;
use smidge::{Client, PublishOptions};

/// Labels that Prometheus adds to what it scrapes.
const SCRAPED: [&str; 2] = ["instance", "job"];
/// Words of PromQL that stand where a metric could, and are none.
const WORDS: [&str; 12] = [
    "and",
    "or",
    "unless",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "bool",
    "offset",
    "inf",
];

/// A metric in an expression, with its matchers: label, operator, value.
#[derive(Debug, PartialEq)]
struct Selector {
    name: String,
    matchers: Vec<(String, String, String)>,
}

/// The metrics that an expression names, and the labels that it groups or joins by.
fn read(expression: &str) -> (Vec<Selector>, Vec<String>) {
    let mut rest = expression.replace("$__rate_interval", "5m");
    rest = rest.replace("$__all", "all");
    let (mut selectors, mut labels): (Vec<Selector>, Vec<String>) = Default::default();
    let text: Vec<char> = rest.chars().collect();
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let until = |from: usize, end: char| (from..text.len()).find(|i| text[*i] == end).expect("an end");
    let (mut at, mut last) = (0, String::new());
    while at < text.len() {
        let c = text[at];
        if c == '[' {
            at = until(at, ']') + 1; // a range
        } else if c == '"' {
            at = until(at + 1, '"') + 1; // a text
        } else if c == '{' {
            // A quoted value may hold a brace; none of ours does.
            let end = until(at, '}');
            let inside: String = text[at + 1..end].iter().collect();
            selectors.last_mut().expect("a metric before its matchers").matchers = matchers(&inside);
            at = end + 1;
        } else if c == '('
            && ["by", "without", "on", "ignoring", "group_left", "group_right"].contains(&last.as_str())
        {
            let end = until(at, ')');
            let inside: String = text[at + 1..end].iter().collect();
            labels.extend(inside.split(',').map(|l| l.trim().to_owned()).filter(|l| !l.is_empty()));
            last.clear();
            at = end + 1;
        } else if word(c) {
            let end = (at..text.len()).find(|i| !word(text[*i])).unwrap_or(text.len());
            last = text[at..end].iter().collect();
            let called = text[end..].iter().find(|c| !c.is_whitespace()) == Some(&'(');
            let number = c.is_ascii_digit();
            if !called && !number && !WORDS.contains(&last.as_str()) {
                // An aggregation may stand before its grouping: sum by (…) (…).
                let aggregation = ["sum", "min", "max", "avg", "count"].contains(&last.as_str());
                if !aggregation {
                    selectors.push(Selector { name: last.clone(), matchers: Vec::new() });
                }
            }
            at = end;
        } else {
            at += 1;
        }
    }
    (selectors, labels)
}

fn matchers(inside: &str) -> Vec<(String, String, String)> {
    let part = |matcher: &str| {
        let at = matcher.find(['=', '!']).expect("an operator");
        let (label, rest) = matcher.trim().split_at(at - (matcher.len() - matcher.trim_start().len()));
        let (operator, value) = rest.split_once('"').expect("a value in quotes");
        (label.trim().to_owned(), operator.trim().to_owned(), value.trim_end_matches('"').to_owned())
    };
    inside.split("\",").filter(|m| !m.trim().is_empty()).map(part).collect()
}

/// Two nodes in one mesh, and their APIs.
async fn pair(net: &Network) -> [(Api, Client); 2] {
    net.set("one", [2]);
    let nodes = [(2, &[][..]), (3, &["one"])].map(|(n, names)| {
        let mut config = net.config(n, names);
        // There, and finds nobody.
        config.mdns.enabled = true;
        config.mdns.interfaces = vec!["none".into()];
        (net.spawn(config.clone()), config)
    });
    for (node, _) in &nodes {
        net.meshed(node, 1).await;
        net.table(node, 1).await;
    }
    let [one, two] = nodes.map(async |(node, config)| (Api::serve(net, &node, config).await, node));
    [one.await, two.await]
}

/// Every name of a sample with the labels it has, each with its values.
type Exposed = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

fn exposed(metrics: &str) -> Exposed {
    let mut all = Exposed::new();
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, inside) = series.split_once('{').unwrap_or((series, "}"));
        let labels = all.entry(name.to_owned()).or_default();
        for (label, _, value) in matchers(inside.trim_end_matches('}')) {
            labels.entry(label).or_default().insert(value);
        }
    }
    all
}

fn config(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(file)).unwrap()
}

/// Every `expr` of a dashboard, and every query that fills one of its variables.
fn of_dashboard(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) if key == "expr" => found.push(text.clone()),
                    Value::String(text) if key == "query" && text.starts_with("label_values(") => {
                        let inside = text.trim_start_matches("label_values(").trim_end_matches(')');
                        found.push(inside.split_once(',').unwrap().0.to_owned());
                    }
                    other => of_dashboard(other, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| of_dashboard(value, found)),
        _ => {}
    }
}

#[test]
fn expressions_are_read_for_the_metrics_they_name() {
    let selector = |name: &str, matchers: &[(&str, &str, &str)]| Selector {
        name: name.into(),
        matchers: matchers.iter().map(|(a, b, c)| ((*a).into(), (*b).into(), (*c).into())).collect(),
    };
    for (expression, selectors, labels) in [
        ("a == 0 and b > 60", vec![selector("a", &[]), selector("b", &[])], vec![]),
        (
            "sum by (x, y) (rate(a_total{p=\"1\",q!=\"2\"}[5m])) > 1e3 * vector(0)",
            vec![selector("a_total", &[("p", "=", "1"), ("q", "!=", "2")])],
            vec!["x", "y"],
        ),
        (
            "histogram_quantile(0.95, sum by (le) (rate(a_bucket{i=~\"$i\"}[$__rate_interval])))",
            vec![selector("a_bucket", &[("i", "=~", "$i")])],
            vec!["le"],
        ),
        (
            "a * on (i) group_left (v) b offset 5m",
            vec![selector("a", &[]), selector("b", &[])],
            vec!["i", "v"],
        ),
    ] {
        let (found, grouped) = read(expression);
        assert_eq!(
            (found, grouped.iter().map(String::as_str).collect()),
            (selectors, labels),
            "{expression}"
        );
    }
}

#[test]
fn every_metric_of_the_dashboard_and_the_alerts_is_one_that_a_node_shows() {
    let mut expressions = Vec::new();
    of_dashboard(&serde_json::from_str(&config("grafana-dashboard.json")).unwrap(), &mut expressions);
    let panels = expressions.len();
    assert!(panels > 30, "{panels} expressions in the dashboard");
    let rules = config("alerts.yml");
    let of_rules = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    expressions.extend(of_rules.map(ToOwned::to_owned));
    let alerts = rules.lines().filter(|line| line.trim().starts_with("- alert: ")).count();
    assert_eq!(expressions.len() - panels, alerts, "one expression, on one line, for each alert");
    assert!(alerts > 10, "{alerts} alerts");

    run(async |net| {
        let nodes = pair(&net).await;
        let options = PublishOptions {
            wait_peers: Some(1),
            timeout: crate::support::PATIENCE,
            ..PublishOptions::default()
        };
        nodes[0].1.publish(TOPIC, "x", options).await.unwrap();
        // The first ping of libp2p comes with the connection, and its round trip with the first answer.
        net.until("a round trip", &nodes[1].1, |node| async move {
            node.peers().await.unwrap().iter().any(|peer| peer.rtt_us.is_some())
        })
        .await;
        // A status once answered is counted from then on.
        for path in ["/v1/status", "/v1/nothing"] {
            nodes[1].0.get(path).await;
        }
        let mut shown = exposed(&nodes[1].0.get("/metrics").await.text());
        let mqtt = crate::support::mqtt::serve(&net, &nodes[1].1, &net.config(9, &[]));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &mqtt.figures()).unwrap();
        shown.extend(exposed(&text));
        for expression in &expressions {
            let (selectors, labels) = read(expression);
            assert!(!selectors.is_empty(), "no metric in {expression}");
            let mut known: BTreeSet<&str> = SCRAPED.into();
            for Selector { name, matchers } in &selectors {
                let has = shown.get(name).unwrap_or_else(|| {
                    panic!("{name}, in {expression}, is not shown; there are {:?}", shown.keys())
                });
                known.extend(has.keys().map(String::as_str));
                for (label, operator, value) in matchers {
                    if SCRAPED.contains(&label.as_str()) {
                        continue;
                    }
                    let values =
                        has.get(label).unwrap_or_else(|| panic!("{name} has no label {label}: {expression}"));
                    let exact = matches!(operator.as_str(), "=" | "!=");
                    assert!(
                        !exact || values.contains(value),
                        "{name}: {label} is never {value:?}, but {values:?}"
                    );
                }
            }
            for label in &labels {
                assert!(known.contains(label.as_str()), "no label {label} in any metric of {expression}");
            }
        }
    });
}

#[test]
fn metrics_are_openmetrics_and_tell_how_the_node_stands() {
    run(async |net| {
        let [(at_one, one), (at_two, _two)] = pair(&net).await;
        let options = PublishOptions {
            wait_peers: Some(1),
            timeout: crate::support::PATIENCE,
            ..PublishOptions::default()
        };
        let mut stream = at_two.follow(TOPIC).await;
        one.publish(TOPIC, "12345", options).await.unwrap();
        net.patiently("an event", stream.event()).await.unwrap();
        let answer = at_two.get("/metrics").await;
        assert!(answer.head.contains("application/openmetrics-text; version=1.0.0"), "{}", answer.head);
        let text = answer.text();
        assert!(text.ends_with("# EOF\n"));
        let name = format!("one:{}", net.port);
        for line in [
            "smidge_messages_received_total 1",
            "smidge_messages_received_bytes_total 5",
            "smidge_peers 1",
            "smidge_connections 1",
            "smidge_table_peers 1",
            "smidge_names 1",
            &format!("smidge_mesh_peers{{topic=\"{TOPIC}\"}} 1"),
            &format!("smidge_name_records{{name=\"{name}\",state=\"connected\"}} 1"),
            &format!("smidge_name_records{{name=\"{name}\",state=\"waiting\"}} 0"),
            "smidge_api_streams 1",
            &format!("smidge_topic_peers{{topic=\"{TOPIC}\"}} 1"),
            "smidge_dials_total{outcome=\"connected\"} 1",
            "smidge_dials_total{outcome=\"failed\"} 0",
            "smidge_mesh_changes_total{change=\"joined\"} 1",
            "smidge_events_lost_total{stream=\"events\"} 0",
            "# UNIT smidge_loop_delay_seconds seconds",
            "# UNIT smidge_executor_delay_seconds seconds",
            "# TYPE smidge_executor_tasks_started counter",
            "# TYPE process_max_fds gauge",
            "smidge_log_lines_dropped_total 0",
            "smidge_peers_connected_total 1",
            "# UNIT smidge_uptime_seconds seconds",
            "# UNIT process_resident_memory_bytes bytes",
            "# TYPE process_cpu_seconds counter",
            "# TYPE libp2p_swarm_connections_established counter",
        ] {
            assert!(text.lines().any(|is| is == line), "no {line:?} in\n{text}");
        }
        let build = format!("smidge_build_info{{version=\"{}\",os=", env!("CARGO_PKG_VERSION"));
        assert!(text.contains(&build), "no {build:?} in\n{text}");
        // Every sample belongs to a family that was described, and every help text says something.
        let mut families = Vec::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (family, help) = help.split_once(' ').unwrap();
                assert!(help.len() > 4 && !families.contains(&family), "{line}");
                families.push(family);
            } else if !line.starts_with('#') {
                let family = families.last().unwrap();
                assert!(line.starts_with(family), "{line} stands under {family}");
            }
        }
        let text = at_one.get("/metrics").await.text();
        assert!(
            text.contains("smidge_messages_published_total 1\n")
                && text.contains("smidge_messages_published_bytes_total 5\n")
                && text.contains("smidge_messages_handed_total 1\n")
                && text.contains("smidge_publishes_total{outcome=\"handed\"} 1\n")
        );
    });
}
