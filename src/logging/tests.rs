//! What a line looks like, and which lines there are.

use log::Level;

use super::*;

/// Lines in memory.
#[derive(Clone, Default)]
struct Memory(Arc<std::sync::Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A log into memory, and a way to write to it.
struct Log(Arc<Reloadable>, Memory);

impl Log {
    fn new(format: Format, level: &str) -> Self {
        let sink = Memory::default();
        Self(Arc::new(Reloadable::new(format, &level.parse().unwrap(), Box::new(sink.clone()))), sink)
    }

    /// What comes out of one event.
    fn line(&self, target: &str, level: Level, message: &str) -> String {
        self.1.0.lock().unwrap().clear();
        log::Log::log(
            &*self.0,
            &Record::builder().target(target).level(level).args(format_args!("{message}")).build(),
        );
        String::from_utf8(self.1.0.lock().unwrap().clone()).unwrap()
    }

    fn says(&self, target: &str, level: Level) -> bool {
        !self.line(target, level, "x").is_empty()
    }
}

#[test]
fn a_text_line_has_time_level_target_and_message() {
    let line = Log::new(Format::Text, "info").line("smidge::node", Level::Info, "starting");
    let (ts, rest) = line.split_once(' ').unwrap();
    assert_eq!(rest, "INFO  smidge::node: starting\n");
    assert_eq!((ts.len(), &ts[10..11], &ts[19..20], &ts[26..]), (27, "T", ".", "Z"), "{ts}");
}

#[test]
fn a_json_line_is_one_object() {
    let line = Log::new(Format::Json, "info").line("smidge", Level::Warn, "a \"b\"\nc\u{1b}[0m");
    assert_eq!(line.lines().count(), 1, "{line}");
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["level"], "WARN");
    assert_eq!(value["target"], "smidge");
    assert_eq!(value["msg"], "a \"b\"\nc\u{1b}[0m");
    assert!(value["ts"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn a_message_cannot_start_a_line_of_its_own() {
    let log = Log::new(Format::Text, "info");
    let line = log.line("smidge", Level::Info, "topic a\n2026 INFO forged\r\u{1b}[2J\u{85}\u{2028}\u{202e}x");
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(line.ends_with("topic a\\n2026 INFO forged\\r\\u{1b}[2J\\u{85}\\u{2028}\\u{202e}x\n"), "{line}");
}

#[test]
fn chatty_targets_are_quiet_unless_asked_for() {
    let log = Log::new(Format::Text, "info");
    assert!(log.says("smidge", Level::Info) && !log.says("smidge", Level::Debug));
    assert!(log.says("libp2p_swarm", Level::Info), "the peer id stands in this line");
    assert!(!log.says("libp2p_kad::behaviour", Level::Warn) && log.says("libp2p_kad", Level::Error));

    let log = Log::new(Format::Text, "libp2p_kad=debug");
    assert!(log.says("libp2p_kad", Level::Debug), "a target that is named says what was asked");
    assert!(log.says("smidge", Level::Info), "the rest stays at info");

    let log = Log::new(Format::Text, "debug");
    assert!(log.says("libp2p_kad", Level::Debug), "debug of everything is debug of everything");

    for asked in ["info,smidge::message=info", "smidge=debug", "warn,smidge::message", "debug"] {
        assert!(Log::new(Format::Text, asked).says(MESSAGES, Level::Info), "{asked}");
    }
    for not in ["info", "info,smidge=info", "smidge::node=debug", "libp2p=debug", "smidge::message=warn"] {
        assert!(!Log::new(Format::Text, not).says(MESSAGES, Level::Info), "{not}");
    }
    let log = Log::new(Format::Text, "info,libp2p=debug");
    assert!(log.says("libp2p_kad", Level::Debug), "it is one of them");

    let log = Log::new(Format::Text, "off,smidge::node");
    assert!(log.says("smidge::node", Level::Trace) && !log.says("smidge::dns", Level::Error));
    assert!(!log.says("libp2p_kad", Level::Error), "off is off");

    let log = Log::new(Format::Text, "info/peer");
    assert!(!log.says("smidge", Level::Info) && !log.line("smidge", Level::Info, "a peer").is_empty());
}

#[test]
fn levels_change_while_it_runs() {
    let log = Log::new(Format::Text, "info");
    let control = Control { logger: log.0.clone(), queue: Queue::new(0) };
    control.apply(&"debug".parse().unwrap());
    assert!(log.says("smidge", Level::Debug));
    assert_eq!(log::max_level(), LevelFilter::Debug);
    // The one test that installs a logger: what libp2p says through `tracing` comes out of it.
    log::set_boxed_logger(Box::new(Shared(log.0.clone()))).unwrap();
    tracing::debug!(target: "libp2p_swarm", peer = %"12D3", "hello\nthere");
    let lines = String::from_utf8(log.1.0.lock().unwrap().clone()).unwrap();
    assert!(
        lines.lines().any(|line| line.ends_with(" DEBUG libp2p_swarm: hello\\nthere peer=12D3")),
        "{lines}"
    );
    control.apply(&"warn".parse().unwrap());
    assert!(!log.says("smidge", Level::Info));
}

#[test]
fn bad_directives_are_named() {
    for (text, why) in [
        ("inof", "no level \"inof\" (did you mean \"info\"?)"),
        ("smidge=loud", "no level \"loud\" in \"smidge=loud\""),
        (
            "smidge=dbug,xx=wran",
            "no level \"dbug\" in \"smidge=dbug\" (did you mean \"debug\"?), no level \"wran\" in \"xx=wran\" (did you mean \"warn\"?)",
        ),
        ("a=b=c", "no level \"b=c\" in \"a=b=c\""),
        ("=info", "no directive \"=info\""),
        ("sm idge", "no directive \"sm idge\""),
        ("info/a/b", "more than one \"/\""),
        ("a\nb", "no directive \"a\\nb\""),
    ] {
        assert_eq!(text.parse::<Directives>().unwrap_err().to_string(), why);
    }
    for text in ["", "info", "INFO", " warn , smidge::dns=trace", "smidge", "libp2p_swarm=off/x"] {
        text.parse::<Directives>().unwrap_or_else(|e| panic!("{text}: {e}"));
    }
}
