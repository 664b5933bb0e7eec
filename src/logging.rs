//! Logging: env_logger behind a door that lets the levels change while the node runs, and a thread of its
//! own that writes to stderr while there is something to write: logging never waits.
//!
//! libp2p logs through `tracing`, whose `log` feature brings its lines here, under targets such as
//! `libp2p_swarm`. One event is one line on stderr, whatever a remote put into it: control
//! characters are escaped. This module never drops a bad directive silently, and never writes to
//! stdout.

use std::{
    fmt,
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    str::FromStr,
    sync::{Arc, OnceLock, RwLock},
    time::Duration,
};

use log::{LevelFilter, Log, Metadata, Record};

use self::queue::Queue;
use crate::text::{self, nearest, one_line, quoted};

mod queue;
mod repeats;

pub(crate) use repeats::Repeats;

/// The level of everything no directive speaks of.
const DEFAULT_LEVEL: LevelFilter = LevelFilter::Info;

/// Where the lines about single messages are: whoever wants them asks for this target.
pub(crate) const MESSAGES: &str = "smidge::message";

/// What says too much at `info` for an operator, and the level it gets there. Not applied to
/// targets that a directive names, nor once `debug` or `trace` is asked of everything, or of what a target belongs to.
const QUIET: &[(&str, LevelFilter)] = &[
    // A line for each is 170 MB a day at ten messages a second; the node counts them instead.
    (MESSAGES, LevelFilter::Warn),
    // Warns "No known peers" of every bootstrap that comes before the first connection.
    ("libp2p_kad", LevelFilter::Error),
    // Names its spans at their own level, without a word of what happened.
    ("tracing::span", LevelFilter::Off),
    ("libp2p_identify", LevelFilter::Warn),
    ("hickory_proto", LevelFilter::Error),
    ("hickory_resolver", LevelFilter::Error),
    ("quinn_proto", LevelFilter::Warn),
    ("quinn_udp", LevelFilter::Error),
    ("rustls", LevelFilter::Warn),
];

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Time, level, target and message, with blanks between.
    Text,
    /// One JSON object a line.
    Json,
}

/// Filter directives as `RUST_LOG` has them: `LEVEL`, `TARGET=LEVEL` or `TARGET`, commas between,
/// and `/TEXT` at the end for messages that hold a text.
///
/// Other than env_logger's own, they refuse a misspelt level instead of taking it for a target,
/// and what they do not speak of stays at `info`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directives {
    text: String,
    level: Option<LevelFilter>,
    targets: Vec<(String, LevelFilter)>,
}

impl Default for Directives {
    /// `info`.
    fn default() -> Self {
        Self { text: "info".into(), level: Some(DEFAULT_LEVEL), targets: Vec::new() }
    }
}

impl fmt::Display for Directives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A directive that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DirectivesError(String);

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl FromStr for Directives {
    type Err = DirectivesError;

    fn from_str(text: &str) -> Result<Self, DirectivesError> {
        let (mut level, mut targets, mut wrong) = (None, Vec::new(), Vec::new());
        let mut parts = text.splitn(3, '/');
        let directives = parts.next().unwrap_or_default();
        let _message = parts.next();
        if parts.next().is_some() {
            wrong.push("more than one \"/\"".to_owned());
        }
        for directive in directives.split(',').map(str::trim).filter(|d| !d.is_empty()) {
            match (directive.split_once('='), directive.parse()) {
                (None, Ok(all)) => level = Some(all),
                (None, Err(_)) if is_target(directive) => match nearest(directive, LEVELS) {
                    Some(near) => {
                        wrong.push(format!("no level {} (did you mean {near:?}?)", quoted(directive)));
                    }
                    None => targets.push((directive.to_owned(), LevelFilter::Trace)),
                },
                (Some((target, of)), _) if is_target(target.trim()) => match of.trim().parse() {
                    Ok(of) => targets.push((target.trim().to_owned(), of)),
                    Err(_) => {
                        let near = nearest(of.trim(), LEVELS);
                        let near = near.map(|near| format!(" (did you mean {near:?}?)")).unwrap_or_default();
                        wrong.push(format!("no level {} in {}{near}", quoted(of.trim()), quoted(directive)));
                    }
                },
                _ => wrong.push(format!("no directive {}", quoted(directive))),
            }
        }
        match wrong.is_empty() {
            true => Ok(Self { text: text.trim().to_owned(), level, targets }),
            false => Err(DirectivesError(wrong.join(", "))),
        }
    }
}

fn is_target(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-:.".contains(c))
}

impl Directives {
    fn apply(&self, builder: &mut env_logger::Builder) {
        // The text after "/" is all that is left to env_logger's own parser: it cannot fail.
        if let Some((_, message)) = self.text.split_once('/') {
            builder.parse_filters(&format!("/{message}"));
        }
        let level = self.level.unwrap_or(DEFAULT_LEVEL);
        builder.filter_level(level);
        for (target, quiet) in QUIET {
            // As for any target, the longest directive that it begins with holds.
            let named = self.targets.iter().filter(|(named, _)| target.starts_with(named.as_str()));
            let asked = named.max_by_key(|(named, _)| named.len()).map_or(level, |(_, level)| *level);
            if asked <= LevelFilter::Info {
                builder.filter_module(target, (*quiet).min(asked));
            }
        }
        for (target, level) in &self.targets {
            builder.filter_module(target, *level);
        }
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// Another logger was installed by this process.
    #[error("a logger is installed already")]
    Installed,
    /// Stderr is not open.
    #[error("the log cannot be written")]
    Writer(#[source] io::Error),
}

/// Where the log can be changed after it was set up. Clones change the same log.
#[derive(Clone)]
pub(crate) struct Control {
    logger: Arc<Reloadable>,
    queue: Queue,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("format", &self.logger.format).finish_non_exhaustive()
    }
}

impl Control {
    /// Applies other levels from now on.
    pub(crate) fn apply(&self, directives: &Directives) {
        let logger = self.logger.build(directives);
        let most = logger.filter();
        *self.logger.inner.write().unwrap_or_else(std::sync::PoisonError::into_inner) = logger;
        log::set_max_level(most);
    }
}

static LOGGER: OnceLock<Control> = OnceLock::new();

/// What a log is set up with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// How lines look.
    pub(crate) format: Format,
    /// Which lines there are.
    pub(crate) level: Directives,
    /// Bytes of lines that wait to be written; beyond, lines are dropped and counted.
    pub(crate) buffer: usize,
}

/// Sets the log of this process up, on stderr. A second call changes the levels of the first. Lines are
/// written by a thread of their own: a program that ends itself calls [`flush`] before.
///
/// # Errors
/// [`LogError::Installed`] when the process has a logger that is not ours; [`LogError::Writer`].
pub(crate) fn init(settings: &Settings) -> Result<Control, LogError> {
    if let Some(control) = LOGGER.get() {
        control.apply(&settings.level);
        return Ok(control.clone());
    }
    let queue = Queue::new(settings.buffer);
    let logger = Arc::new(Reloadable::new(settings.format, &settings.level, Box::new(queue.clone())));
    log::set_boxed_logger(Box::new(Shared(logger.clone()))).map_err(|_| LogError::Installed)?;
    write_to_stderr(&queue, settings.format).map_err(LogError::Writer)?;
    let control = LOGGER.get_or_init(|| Control { logger, queue });
    control.apply(&settings.level);
    Ok(control.clone())
}

/// Waits until what was logged so far is written; a second at most, where it is not read.
pub(crate) fn flush() {
    if let Some(control) = LOGGER.get() {
        control.queue.flush(FLUSH);
    }
}

/// Log lines of this process that were dropped, because they came faster than they were read.
pub(crate) fn dropped() -> u64 {
    LOGGER.get().map_or(0, |control| control.queue.dropped())
}

/// How long the end of a process waits for the reader of its log.
const FLUSH: Duration = Duration::from_secs(1);

fn write_to_stderr(queue: &Queue, format: Format) -> io::Result<()> {
    // Not through `io::stderr()`: its lock would be held for as long as there is no reader, and whatever else has
    // something to say there would wait for it.
    let out = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let notices = build(format, &Directives::default(), Box::new(out.try_clone()?));
    queue.write_to(out, move |dropped| {
        let words = format!("{dropped} log lines were dropped: they came faster than they were read");
        notices.log(
            &Record::builder().target("smidge").level(log::Level::Warn).args(format_args!("{words}")).build(),
        );
    });
    Ok(())
}

/// A logger whose filter can be replaced.
struct Reloadable {
    format: Format,
    inner: RwLock<env_logger::Logger>,
    sink: Box<dyn Sink>,
}

/// Where lines go, one a call. Clones are the same place.
trait Sink: Write + Send + Sync {
    fn again(&self) -> Box<dyn Write + Send>;
}

impl<W: Write + Send + Sync + Clone + 'static> Sink for W {
    fn again(&self) -> Box<dyn Write + Send> {
        Box::new(self.clone())
    }
}

impl Reloadable {
    fn new(format: Format, directives: &Directives, sink: Box<dyn Sink>) -> Self {
        let inner = RwLock::new(build(format, directives, sink.again()));
        Self { format, inner, sink }
    }

    fn build(&self, directives: &Directives) -> env_logger::Logger {
        build(self.format, directives, self.sink.again())
    }
}

fn build(format: Format, directives: &Directives, out: Box<dyn Write + Send>) -> env_logger::Logger {
    let mut builder = env_logger::Builder::new();
    directives.apply(&mut builder);
    builder.target(env_logger::Target::Pipe(out));
    builder.write_style(env_logger::WriteStyle::Never);
    match format {
        Format::Text => builder.format(|out, record| {
            let (ts, level, target) = (out.timestamp_micros(), record.level(), record.target());
            writeln!(out, "{ts} {level:5} {}: {}", one_line(target), one_line(&record.args().to_string()))
        }),
        Format::Json => builder.format(|out, record| {
            let line = serde_json::json!({
                "ts": out.timestamp_micros().to_string(),
                "level": record.level().as_str(),
                "target": record.target(),
                "msg": record.args().to_string(),
            });
            writeln!(out, "{}", text::json(&line.to_string()))
        }),
    };
    builder.build()
}

/// The logger as the `log` crate holds it.
struct Shared(Arc<Reloadable>);

impl Log for Shared {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        self.0.log(record);
    }

    fn flush(&self) {
        self.0.flush();
    }
}

impl Log for Reloadable {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.inner.read().unwrap_or_else(std::sync::PoisonError::into_inner).enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        self.inner.read().unwrap_or_else(std::sync::PoisonError::into_inner).log(record);
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests;
