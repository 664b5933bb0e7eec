//! The command line: arguments, one file per group of verbs, and exit codes.
//!
//! Data goes to stdout, everything else to stderr; a reader that goes away is no error. The raw
//! arguments of a verb are turned into what the program means once, here or in the verb's file.

use std::{
    fmt,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    config::{Config, ConfigError, LoadOptions, Problem},
    error::chain,
    identity::IdentityError,
    logging::{self, LogError},
    runtime::Handle,
    text::lines,
    transport::admission::KeyFileError,
};

mod api;
mod completions;
mod config;
mod demo;
mod dht;
mod doctor;
mod health;
mod inspect;
mod key;
mod messages;
mod notify;
#[cfg(test)]
mod pages;
mod ping;
mod run;
mod short_id;
mod state;
mod table;
mod words;

/// Exit codes, as sysexits has them where it has one.
pub mod exit {
    /// Done.
    pub const DONE: u8 = 0;
    /// Failed.
    pub const FAILED: u8 = 1;
    /// Called with wrong arguments.
    pub const USAGE: u8 = 2;
    /// No node answers.
    pub const UNAVAILABLE: u8 = 69;
    /// Timed out; try again.
    pub const TIMED_OUT: u8 = 75;
    /// A bad configuration.
    pub const CONFIG: u8 = 78;
}

/// Connects the replicas behind a service name into a publish/subscribe and key-value mesh.
#[derive(Debug, Parser)]
#[command(
    name = "smidge",
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 usage, 69 no node answers, 75 timed out, 78 bad configuration.\n\
                  Configuration: flag > --set > SMIDGE__SECTION__KEY > file > defaults; `smidge config show` tells."
)]
struct Cli {
    /// The node to ask, as behind the verb
    #[arg(long, value_name = "URL")]
    api: Option<String>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(run::RunArgs),
    Demo(demo::DemoArgs),
    Pub(messages::PubArgs),
    Sub(messages::SubArgs),
    State(state::StateArgs),
    Dht(dht::DhtArgs),
    Status(inspect::StatusArgs),
    Peers(inspect::PeersArgs),
    Mesh(inspect::MeshArgs),
    Names(inspect::NamesArgs),
    Ping(ping::PingArgs),
    Health(health::HealthArgs),
    Ready(health::ReadyArgs),
    Doctor(doctor::DoctorArgs),
    Key(key::KeyArgs),
    Config(config::ConfigVerbArgs),
    Completions(completions::CompletionsArgs),
}

/// Where the configuration comes from, for verbs that need one.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ConfigArgs {
    /// The configuration file [default: /etc/smidge/config.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Sets one key, for instance gossip.mesh_n=4 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) sets: Vec<String>,
}

impl ConfigArgs {
    /// These arguments over this process's environment.
    pub(crate) fn options(&self) -> LoadOptions {
        LoadOptions::from_env(self.config.clone(), self.sets.clone())
    }

    /// The configuration they ask for.
    pub(crate) fn load(&self) -> Result<Config, Failure> {
        Ok(Config::load(&self.options())?)
    }
}

/// Why a verb did not do what it was asked: what is printed, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) code: u8,
    /// What went wrong, in a word or two.
    pub(crate) what: String,
    /// Why, and what to do about it; a line of its own each.
    pub(crate) why: Vec<(String, Option<String>)>,
}

impl Failure {
    /// A failure with one reason.
    pub(crate) fn new(code: u8, what: &str, why: impl fmt::Display) -> Self {
        Self { code, what: what.into(), why: vec![(why.to_string(), None)] }
    }

    /// A failure that `error` and its causes tell.
    pub(crate) fn of(code: u8, what: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(code, what, chain(error))
    }

    /// Adds what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Some((_, last)) = self.why.last_mut() {
            *last = Some(hint.into());
        }
        self
    }

    /// Whether a reason has these words.
    fn says(&self, words: &str) -> bool {
        self.why.iter().any(|(why, _)| why.contains(words))
    }

    /// A failure without a message: the reader of stdout has gone.
    fn quiet() -> Self {
        Self { code: exit::DONE, what: String::new(), why: Vec::new() }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let why = |problem: Problem| (problem.to_string(), problem.hint);
        Self {
            code: exit::CONFIG,
            what: "bad config".into(),
            why: error.problems.into_iter().map(why).collect(),
        }
    }
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Self {
        let code = if error.is_config() { exit::CONFIG } else { exit::FAILED };
        Self::of(code, "key", &error).hint(error.hint())
    }
}

impl From<KeyFileError> for Failure {
    fn from(error: KeyFileError) -> Self {
        Self::of(exit::CONFIG, "network key", &error)
            .hint("make one: smidge key network FILE; network.key_file names it")
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        Self::of(exit::FAILED, "log", &error)
    }
}

impl From<io::Error> for Failure {
    /// An error of stdout.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::quiet(),
            _ => Self::new(exit::FAILED, "stdout", error),
        }
    }
}

/// Runs the command that the process's arguments ask for, and returns its exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to stdout with code 0, a complaint to stderr with code 2.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { exit::DONE });
        }
    };
    if let Some(url) = cli.api {
        if let Verb::Run(_) | Verb::Demo(_) | Verb::Key(_) | Verb::Config(_) | Verb::Completions(_) = cli.verb
        {
            let why = "--api before the verb names the node that a verb asks, and this one asks none";
            complain(
                &Failure::new(exit::USAGE, "usage", why).hint("where a node listens: smidge run --api ADDR"),
            );
            return ExitCode::from(exit::USAGE);
        }
        api::name(url);
    }
    let done = match cli.verb {
        Verb::Run(args) => run::run(&args),
        Verb::Demo(args) => demo::run(&args),
        Verb::Pub(args) => messages::publish(&args),
        Verb::Sub(args) => messages::subscribe(&args),
        Verb::State(args) => state::run(args),
        Verb::Dht(args) => dht::run(args),
        Verb::Status(args) => inspect::status(&args),
        Verb::Peers(args) => inspect::peers(&args),
        Verb::Mesh(args) => inspect::mesh(&args),
        Verb::Names(args) => inspect::names(&args),
        Verb::Ping(args) => ping::run(&args),
        Verb::Health(args) => health::health(&args),
        Verb::Ready(args) => health::ready(&args),
        Verb::Doctor(args) => doctor::run(&args),
        Verb::Key(args) => key::run(args),
        Verb::Config(args) => config::run(args),
        Verb::Completions(args) => completions::run(&args),
    };
    logging::flush();
    match done {
        Ok(()) => ExitCode::from(exit::DONE),
        Err(failure) => {
            complain(&failure);
            ExitCode::from(failure.code)
        }
    }
}

/// Writes all of `text` to stdout.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// Writes all of `bytes` to stdout.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// Writes all of `text` to stdout, which may be a pipe without a reader: it is awaited then, and a signal or a
/// time limit can still end the verb.
pub(crate) async fn print_patiently(runtime: &Handle, text: String) -> Result<(), Failure> {
    // A pipe that is writable takes as much as this without blocking.
    if text.len() <= rustix::pipe::PIPE_BUF && stdout_is(PollFlags::OUT) {
        return print(&text);
    }
    runtime.unblock(move || print(&text)).await?
}

/// Whether any of `flags` holds of stdout now.
pub(crate) fn stdout_is(flags: PollFlags) -> bool {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(&stdout, flags)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok() && fds[0].revents().intersects(flags)
}

/// Writes to stderr what is worth knowing and nothing wrong.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "smidge: note: {}", lines(text));
}

/// Writes a warning to stderr.
pub(crate) fn warn(text: &str) {
    let _ = writeln!(io::stderr(), "smidge: warning: {}", lines(text));
}

/// How long the reader of stderr has to take the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Says why a verb failed. The process ends whether that is read or not.
fn complain(failure: &Failure) {
    let mut text = String::new();
    for (why, hint) in &failure.why {
        // Some of it may be what others wrote.
        text.push_str(&format!("smidge: {}: {}\n", failure.what, lines(why)));
        if let Some(hint) = hint {
            text.push_str(&format!("  hint: {}\n", lines(hint)));
        }
    }
    let (done, wait) = std::sync::mpsc::sync_channel(1);
    let write = move || {
        let _ = io::stderr().write_all(text.as_bytes());
        let _ = done.send(());
    };
    // Without a thread, nothing can be said.
    if std::thread::Builder::new().spawn(write).is_ok() {
        let _ = wait.recv_timeout(LAST_LINES);
    }
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory};

    use super::*;

    /// Every verb that does something, with the words that call it.
    fn verbs(command: &Command, words: &str, all: &mut Vec<(String, Command)>) {
        for verb in command.get_subcommands() {
            let words = format!("{words} {}", verb.get_name());
            all.push((words.clone(), verb.clone()));
            verbs(verb, &words, all);
        }
    }

    #[test]
    fn every_verbs_help_has_an_example_and_each_example_is_understood() {
        let mut all = Vec::new();
        verbs(&Cli::command(), "smidge", &mut all);
        assert!(all.len() > 20, "{}", all.len());
        for (words, verb) in all {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples: Vec<_> = help.lines().filter_map(|line| line.strip_prefix("  ")).collect();
            assert!(help.starts_with("Example"), "{words}: {help}");
            assert!(examples.iter().any(|example| example.contains(&words)), "{words}: {help}");
            for example in examples.iter().filter(|example| example.contains("smidge ")) {
                // From the program's name to where the shell takes over.
                let call = &example[example.find("smidge ").unwrap()..];
                let call = call.split(['>', '|', ';']).next().unwrap();
                let parsed = Cli::try_parse_from(call.split_whitespace());
                assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
            }
        }
    }

    #[test]
    fn completions_of_every_shell_know_every_verb() {
        use clap::ValueEnum;
        for shell in clap_complete::Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "smidge", &mut script);
            let script = String::from_utf8(script).unwrap();
            for verb in Cli::command().get_subcommands() {
                assert!(script.contains(verb.get_name()), "{shell}: {}", verb.get_name());
            }
        }
    }
}
