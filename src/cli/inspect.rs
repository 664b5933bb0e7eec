//! `smidge status`, `peers`, `mesh` and `names`: how a running node stands.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::Value;

use super::{
    Failure,
    api::{self, ApiArgs},
    print,
    table::{Table, age, called, millis},
};

/// Shows a running node at a glance.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  smidge status --api http://127.0.0.1:4080\n\n\
                        --json: {\"peer\", \"name\", \"version\", \"listening\", \"not_listening\", \"same_key\",\n\
                        \"peers\", \"gossip_off\", \"table\", \"topics\", \"records\",\n\
                        \"remembered\": {\"messages\", \"bytes\"}, \"state\": {\"keys\", \"marks\", \"bytes\"}, \"uptime_s\",\n\
                        \"role\", \"live\", \"ready\", \"store\": {\"place\", …}, \"log_dropped\", \"traffic\": {\"received\", …}}")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    show: ShowArgs,
}

/// Shows the connected peers.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  smidge peers\n\nOf several connections with a peer, the oldest direct one is shown. RTT is in milliseconds.\n\n\
                  --json: {\"peers\": [{\"peer\", \"connections\": [{\"address\", \"outbound\", \"relayed\", \"age_s\"}],\n\
                  \"agent\", \"name\", \"rtt_us\", \"score\", \"gossip\", \"gossip_trouble\", \"topics\"}]}"
)]
pub(crate) struct PeersArgs {
    #[command(flatten)]
    show: ShowArgs,
}

/// Shows the mesh of each topic.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  smidge mesh\n\n--json: {\"topics\": {TOPIC: [PEER]}}")]
pub(crate) struct MeshArgs {
    #[command(flatten)]
    show: ShowArgs,
}

/// Shows each name with its records and how they stand.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  smidge names\n\n\
                        --json: {\"names\": [{\"name\", \"last_error\", \"records\": [{\"address\", \"peer\", \"state\",\n\
                        \"hold\", \"retry_in_ms\", \"relayed\", \"failures\", \"last_error\"}]}]}")]
pub(crate) struct NamesArgs {
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// Print a JSON record
    #[arg(long)]
    json: bool,
    /// Print peer ids in full
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    api: ApiArgs,
}

pub(super) fn status(args: &StatusArgs) -> Result<(), Failure> {
    show(&args.show, "status", "/v1/status", |record, _, _| {
        let list = |key: &str| items(&record[key]).map(word).collect::<Vec<_>>().join(", ");
        let mut table = Table::new(["peer", &word(&record["peer"])]);
        if let Some(name) = record["name"].as_str() {
            table.row(["name".into(), name.into()]);
        }
        table.row(["version".into(), word(&record["version"])]);
        table.row(["role".into(), word(&record["role"])]);
        let stands = match (&record["live"], &record["ready"]) {
            (live, _) if live != true => "not live: a listener is down",
            (_, ready) if ready != true => "live, without peers",
            _ => "live and ready",
        };
        table.row(["stands".into(), stands.into()]);
        table.row(["listening".into(), list("listening")]);
        for address in items(&record["same_key"]) {
            let why = "another node has this node's key, or this address leads back here";
            table.row(["same key".into(), format!("{}: {why}", word(address))]);
        }
        for missing in items(&record["not_listening"]) {
            let text = format!("{}: {}", word(&missing["address"]), word(&missing["why"]));
            table.row(["not listening".into(), text]);
        }
        table.row(["peers".into(), word(&record["peers"])]);
        table.row(["table".into(), word(&record["table"])]);
        table.row(["topics".into(), list("topics")]);
        table.row(["records".into(), word(&record["records"])]);
        let store = &record["store"];
        table.row(["store".into(), format!("{}, {} bytes", word(&store["place"]), store["bytes"])]);
        if let Some(error) = store["file"]["last_error"].as_str() {
            table.row(["store fails".into(), error.into()]);
        }
        let traffic = &record["traffic"];
        let said = |what: &str| format!("{}, {} bytes", traffic[what], traffic[format!("{what}_bytes")]);
        table.row(["received".into(), said("received")]);
        table.row(["published".into(), said("published")]);
        if let Some(dropped @ 1..) = record["log_dropped"].as_u64() {
            table.row([
                "log".into(),
                format!("{dropped} lines dropped: nobody takes them as fast as they come"),
            ]);
        }
        table.row(["up".into(), age(record["uptime_s"].as_u64().unwrap_or_default())]);
        table.shown()
    })
}

pub(super) fn peers(args: &PeersArgs) -> Result<(), Failure> {
    show(&args.show, "peers", "/v1/peers", |record, full, _| {
        let mut table = Table::new(["PEER", "ADDRESS", "WAY", "DIALED BY", "AGE", "RTT", "GOSSIP", "AGENT"]);
        for peer in items(&record["peers"]) {
            let direct = items(&peer["connections"]).find(|connection| connection["relayed"] != true);
            let oldest = direct.unwrap_or(&peer["connections"][0]);
            table.row([
                called(&word(&peer["peer"]), peer["name"].as_str(), full),
                word(&oldest["address"]),
                if direct.is_some() { "direct".into() } else { "relayed".into() },
                if oldest["outbound"] == true { "us".into() } else { "them".into() },
                age(oldest["age_s"].as_u64().unwrap_or_default()),
                peer["rtt_us"].as_u64().map_or_else(|| "-".into(), millis),
                word(&peer["gossip"]),
                word(&peer["agent"]),
            ]);
        }
        table.shown()
    })
}

pub(super) fn mesh(args: &MeshArgs) -> Result<(), Failure> {
    show(&args.show, "mesh", "/v1/mesh", |record, full, names| {
        let mut table = Table::new(["TOPIC", "PEERS", "WHO"]);
        for (topic, peers) in record["topics"].as_object().into_iter().flatten() {
            let who: Vec<_> = items(peers).map(|peer| names.of(&word(peer), full)).collect();
            table.row([topic.clone(), who.len().to_string(), who.join(", ")]);
        }
        table.shown()
    })
}

pub(super) fn names(args: &NamesArgs) -> Result<(), Failure> {
    show(&args.show, "names", "/v1/names", |record, full, names| {
        let mut table = Table::new(["NAME", "RECORD", "STATE", "PEER", "FAILED", "WHY"]);
        for name in items(&record["names"]) {
            let records: Vec<_> = items(&name["records"]).collect();
            if records.is_empty() {
                let [nothing, none] = ["-".to_owned(), String::new()];
                let why = word(&name["last_error"]);
                table.row([word(&name["name"]), nothing.clone(), "looking".into(), nothing, none, why]);
            }
            for record in records {
                let state = match record["retry_in_ms"].as_u64() {
                    Some(ms) => format!("retry in {}s", ms.div_ceil(1000)),
                    None if record["relayed"] == true => "relayed".into(),
                    None if record["state"] == "connected"
                        && matches!(record["hold"].as_str(), Some("chosen" | "more")) =>
                    {
                        "connected, held".into()
                    }
                    None => word(&record["state"]),
                };
                table.row([
                    word(&name["name"]),
                    word(&record["address"]),
                    state,
                    names.of(&word(&record["peer"]), full),
                    word(&record["failures"]),
                    word(&record["last_error"]).trim_start_matches('-').to_owned(),
                ]);
            }
        }
        table.shown()
    })
}

fn show(
    args: &ShowArgs,
    verb: &'static str,
    path: &str,
    text: impl Fn(&Value, bool, &Called) -> String,
) -> Result<(), Failure> {
    api::ask(&args.api, verb, async |mut api| {
        let body = api.get(path).await?;
        if args.json {
            return print(&String::from_utf8_lossy(&body));
        }
        // Other answers than that about the peers have their ids alone.
        let called = match path {
            "/v1/mesh" | "/v1/names" => Called::of_peers(&api.get("/v1/peers").await?),
            _ => Called::default(),
        };
        print(&text(&serde_json::from_slice(&body).unwrap_or_default(), args.full, &called))
    })
}

/// What connected peers call themselves.
#[derive(Default)]
struct Called(BTreeMap<String, String>);

impl Called {
    fn of_peers(body: &[u8]) -> Self {
        let record: Value = serde_json::from_slice(body).unwrap_or_default();
        let named =
            |peer: &Value| Some((peer["peer"].as_str()?.to_owned(), peer["name"].as_str()?.to_owned()));
        Self(items(&record["peers"]).filter_map(named).collect())
    }

    fn of(&self, peer: &str, full: bool) -> String {
        called(peer, self.0.get(peer).map(String::as_str), full)
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// A value as it stands in a cell.
fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        other => other.to_string(),
    }
}
