//! Log lines with the simulated time and the number of the node that wrote them.

use log::{Level, LevelFilter, Log, Metadata, Record};
use smidge::runtime::sim;

struct Logger(LevelFilter);

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let own = ["smidge", "seeds"].iter().any(|own| metadata.target().starts_with(own));
        metadata.level() <= if own { self.0 } else { self.0.min(Level::Warn.to_level_filter()) }
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let here = sim::here();
        let elapsed = here.map(|here| here.elapsed.as_secs_f64()).unwrap_or_default();
        // Host 0 is the name server's.
        let node = match here.and_then(|here| here.host) {
            Some(host @ 1..) => (host - 1).to_string(),
            _ => "–".to_owned(),
        };
        println!("{elapsed:10.4} {node:>4} {:5} {}: {}", record.level(), record.target(), record.args());
    }

    fn flush(&self) {}
}

/// Writes what is logged at `level` or above; of what is not smidge's, warnings at most.
pub(crate) fn start(level: LevelFilter) {
    if level > LevelFilter::Off && log::set_boxed_logger(Box::new(Logger(level))).is_ok() {
        log::set_max_level(level);
    }
}
