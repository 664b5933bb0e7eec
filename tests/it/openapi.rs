//! `docs/openapi.json` and the node's router know the same paths, methods and parameters. (`tests/api/run.py` tries them.)

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
};

use serde_json::Value;

use crate::support::{
    daemon::Daemon,
    http::{self, Answer},
};

const METHODS: [&str; 6] = ["get", "head", "post", "put", "delete", "patch"];

fn document() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn ask(node: &Daemon, method: &str, target: &str) -> Answer {
    let address = node.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    http::parse(&answer)
}

/// A path that is asked for: each variable has a value that nobody has.
fn example(path: &str, node: &Daemon) -> String {
    path.replace("{topic}", "nothing").replace("{key}", "nothing").replace("{id}", &node.peer)
}

/// The path as the node's own list of them has it.
fn listed(path: &str) -> String {
    path.replace("{topic}", "TOPIC").replace("{key}", "KEY").replace("{id}", "ID")
}

fn allow(answer: &Answer) -> &str {
    answer
        .head
        .lines()
        .find_map(|line| line.strip_prefix("Allow: "))
        .expect("a refused method names those that are not")
}

#[test]
fn the_document_has_the_paths_methods_and_parameters_of_the_node() {
    let (node, document) = (Daemon::start(&[]), document());
    let paths = document["paths"].as_object().unwrap();

    let refused = ask(&node, "GET", "/v1/no/such/path");
    let hint = refused.json()["hint"].as_str().unwrap().to_owned();
    let known: BTreeSet<String> =
        hint.split([' ', ',']).filter(|w| w.starts_with('/')).map(str::to_owned).collect();
    assert_eq!(known, paths.keys().map(|path| listed(path)).collect(), "{hint}");

    for (path, item) in paths {
        let target = example(path, &node);
        let mut allowed: BTreeSet<_> =
            METHODS.into_iter().filter(|method| item.get(*method).is_some()).map(str::to_uppercase).collect();
        // PATCH is no method of this API: the answer lists those that are.
        let refused = ask(&node, "PATCH", &target);
        assert_eq!(refused.status, 405, "{path}");
        let named: BTreeSet<_> = allow(&refused).split(", ").map(str::to_owned).collect();
        if named.contains("HEAD") {
            // It comes with GET, as HTTP has it.
            allowed.insert("HEAD".into());
        }
        assert_eq!(named, allowed, "{path}");

        for method in METHODS.iter().filter(|method| item.get(**method).is_some()) {
            let unknown = format!("{target}?no_such_parameter=1");
            let refused = ask(&node, &method.to_uppercase(), &unknown);
            if refused.status == 200 {
                assert_eq!(path, "/", "{method} {path} takes any parameter");
                continue;
            }
            let answer = refused.json();
            let hint = answer["hint"].as_str().unwrap();
            assert_eq!(refused.status, 400, "{method} {path}: {answer}");
            let parameters = item[*method]["parameters"].as_array().cloned().unwrap_or_default();
            let named: BTreeSet<_> = parameters
                .iter()
                .filter(|p| p["in"] == "query")
                .map(|p| p["name"].as_str().unwrap().to_owned())
                .collect();
            let known: BTreeSet<_> = match hint.strip_prefix("this path knows ").unwrap() {
                "no parameters" => BTreeSet::new(),
                list => {
                    list.split([' ', ',']).filter(|w| !["", "and"].contains(w)).map(str::to_owned).collect()
                }
            };
            assert_eq!(named, known, "{method} {path}: {hint}");
        }
    }
}
