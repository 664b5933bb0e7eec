//! The rules of `[peers]` and `[topics]`: how they are written, and each way to write them wrong.

use std::collections::BTreeSet;

use super::*;

const ONE: &str = "12D3KooWEWkkfDUnn6CjvabTF9ussb1wqCbaZkpVAn7dGx5DE7mz";

#[test]
fn peers_are_named_by_id_address_or_range() {
    let text =
        format!("[peers]\nallow = [\"10.0.0.0/8\", \"fd00::/8\", \"{ONE}\"]\ndeny = [\"10.0.0.7\", \"::1\"]");
    let peers = load(&text).unwrap().peers;
    let shown = |rules: &[PeerRule]| rules.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(shown(&peers.allow), ["10.0.0.0/8", "fd00::/8", ONE]);
    assert_eq!(shown(&peers.deny), ["10.0.0.7", "::1"]);
    let expected = "expected a list, each item a peer id such as 12D3KooW…, an IP address, or a range such as 10.0.0.0/8";
    for (item, why) in [
        ("10.0.0.1/8", "is one address of a range: 10.0.0.0/8 is the range"),
        ("10.0.0.0/33", "is no address and no range of addresses"),
        ("10.0.0", "is no address and no range of addresses"),
        ("/ip4/10.0.0.1", "is no address and no range of addresses"),
    ] {
        let text = format!("[peers]\nallow = [\n\"127.0.0.1\",\n\"{item}\"]");
        assert_eq!(refusal(&text), format!("c.toml:4: peers.allow: \"{item}\": {why}; {expected}"));
    }
    let refused = refusal("[peers]\ndeny = [\"xyz\"]");
    assert!(refused.starts_with("c.toml:2: peers.deny: \"xyz\": is no peer id: "), "{refused}");
}

#[test]
fn topics_have_publishers_and_a_score_of_their_own() {
    let text = format!(
        "[topics.\"a b\"]\npublish = [\"{ONE}\"]\n[topics.\"a b\".score]\npreset = \"strict\"\n\
         time_in_mesh_quantum = \"2s\"\ntopic_weight = 3\n[topics.quiet.score]\npreset = \"off\"\n[topics.plain]\n\
         [topics.many]\nbundle = true"
    );
    let config = load(&text).unwrap();
    let rules = &config.topics["a b"];
    assert_eq!(rules.publish, Some(BTreeSet::from([ONE.parse().unwrap()])));
    let params = rules.score.params();
    assert_eq!((params.topic_weight, params.time_in_mesh_quantum), (3.0, secs(2)));
    assert_eq!(params.invalid_message_deliveries_weight, -40.0, "of the preset");
    assert_eq!(config.topics["quiet"].score.params().topic_weight, 0.0);
    assert_eq!(config.topics["plain"], TopicRules::default());
    assert!(config.topics["many"].bundle && !rules.bundle);
    let again = load(&config.toml()).unwrap();
    assert_eq!(config.changes(&again), Changes::default(), "{}", config.toml());
    let set = format!("topics={{ prices = {{ publish = [\"{ONE}\"] }} }}");
    let config = Config::load(&LoadOptions { sets: vec![set], ..LoadOptions::default() }).unwrap();
    assert!(config.topics["prices"].publish.is_some());
}

#[test]
fn a_topic_keeps_messages_or_the_newest_value_of_each_key() {
    let latest =
        |text: &str| load(&format!("[topics.t]\nkeep = {text}")).map(|config| config.topics["t"].clone());
    let short = latest("\"latest\"").unwrap();
    assert_eq!((short.latest, short.keep), (Some(Latest::default()), None));
    assert_eq!(latest("{ latest = true }").unwrap(), short);
    let bounds = Latest { keys: 9, bytes: 64 << 10, marks: secs(3600), durable: false };
    let own =
        load("[topics.t]\nkeep = { latest = true, keys = 9, bytes = \"64KiB\", marks = \"1h\" }").unwrap();
    assert_eq!(own.topics["t"].latest, Some(bounds));
    assert_eq!(load(&own.toml()).unwrap().topics, own.topics, "{}", own.toml());
    for (text, said) in [
        ("\"newest\"", "keep: \"newest\" is neither \"latest\" nor a table such as { age = \"10m\" }"),
        ("{ latest = false }", "keep.latest: false says nothing"),
        ("{ latest = true, keys = 0 }", "keep.keys: 0 is out of range (expected 1 to 100000)"),
        ("{ latest = true, marks = \"1s\" }", "keep.marks: \"1s\" is out of range (expected 10s or more)"),
        ("{ latest = true, messages = 5 }", "keep.messages: unknown key \"messages\""),
        ("{ keys = 5 }", "keep.keys: unknown key \"keys\""),
    ] {
        let refused = refusal(&format!("[topics.t]\nkeep = {text}"));
        assert!(refused.starts_with(&format!("c.toml:2: topics: of \"t\": {said}")), "{text}: {refused}");
    }
    let refused = refusal("[topics.t]\nkeep = { latest = true, durable = true }");
    assert!(refused.contains("kad.store"), "{refused}");
    let refused = refusal("[topics.t]\nkeep = \"latest\"\nbundle = true");
    assert!(refused.contains("one of them"), "{refused}");
    let refused = refusal("[gossip]\nvalidation = \"permissive\"\n[topics.t]\nkeep = \"latest\"");
    assert!(refused.contains("strict"), "{refused}");
}

#[test]
fn every_preset_is_valid_and_lets_silence_cost_nothing() {
    for preset in ["default", "strict", "off"] {
        let config = load(&format!("[topics.t.score]\npreset = \"{preset}\"")).unwrap();
        let params = config.topics["t"].score.params();
        params.validate().unwrap();
        assert_eq!(params.mesh_message_deliveries_weight, 0.0, "{preset}");
        assert_eq!(params.mesh_failure_penalty_weight, 0.0, "{preset}");
    }
}

#[test]
fn a_bad_rule_for_a_topic_is_refused_at_its_line() {
    let expected = "expected tables such as [topics.\"prices\"], with publish = [peer ids], bundle = true, keep = { age = \"10m\" }, and [topics.\"prices\".score]";
    for (text, said) in [
        ("topics = 3", "c.toml:1: topics: found the number 3"),
        ("[topics]\nprices = 3", "c.toml:2: topics: of \"prices\": found the number 3"),
        ("[topics.\"\"]", "c.toml:1: topics: of \"\": an empty topic"),
        (
            "[topics.t]\npublish = []",
            "c.toml:2: topics: of \"t\": publish is empty, so that nobody could: leave it out to let everybody",
        ),
        ("[topics.t]\npublish = \"x\"", "c.toml:2: topics: of \"t\": publish: found the text \"x\""),
        (
            "[topics.a]\n[topics.t]\npublis = []",
            "c.toml:3: topics: of \"t\": unknown key \"publis\"; did you mean publish?",
        ),
        (
            "[topics.t.score]\n\npreset = \"lax\"",
            "c.toml:3: topics: of \"t\": score.preset: found \"lax\" (expected \"default\", \"strict\" or \"off\")",
        ),
        (
            "[topics.t.score]\ntime_in_mesh_cap = 1.0\ntopic_wait = 1.0",
            "c.toml:3: topics: of \"t\": score.topic_wait: unknown key \"topic_wait\"; did you mean topic_weight?",
        ),
        (
            "[topics.t.score]\ntopic_weight = \"1\"",
            "c.toml:2: topics: of \"t\": score.topic_weight: found the text \"1\"",
        ),
        (
            "[topics.t.score]\ntopic_weight = nan",
            "c.toml:2: topics: of \"t\": score.topic_weight: found the number NaN",
        ),
        (
            "[topics.t.score]\ntopic_weight = -1",
            "c.toml:2: topics: of \"t\": score: topic_weight must be at least 0",
        ),
        ("[topics.t]\nscore = \"strict\"", "c.toml:2: topics: of \"t\": score: found the text \"strict\""),
    ] {
        let refused = refusal(text);
        assert!(refused.starts_with(said), "{text}: {refused}");
        assert!(refused.ends_with(expected), "{text}: {refused}");
    }
    let unsigned = format!("[gossip]\nvalidation = \"permissive\"\n[topics.t]\npublish = [\"{ONE}\"]");
    assert_eq!(
        refusal(&unsigned),
        "c.toml:3: topics: who publishes on \"t\" cannot be known; expected gossip.validation = \"strict\", so that authors sign"
    );
    let durable = "[topics.t]\nkeep = { messages = 5, durable = true }";
    assert_eq!(
        refusal(durable),
        "c.toml:1: topics: keep of \"t\" has durable = true, and kad.store is \"memory\"; expected durable = true with kad.store = \"/path/of/a/file\": what topics remember lies beside it"
    );
    let config = load(&format!("{durable}\n[kad]\nstore = \"/var/lib/smidge/records\"")).unwrap();
    assert!(config.topics["t"].keep.unwrap().durable);
    assert_eq!(config.changes(&load(&config.toml()).unwrap()), Changes::default(), "{}", config.toml());
    let nothing = refusal("[topics.t]\nkeep = { durable = true }");
    assert!(
        nothing.contains("of \"t\": keep does not say how much: give messages, bytes or age"),
        "{nothing}"
    );
    let many: String = (0..1025).map(|n| format!("[topics.t{n}]\n")).collect();
    assert!(
        refusal(&many).starts_with("c.toml:1: topics: 1025 topics, more than 1024"),
        "{}",
        refusal(&many)
    );
}
