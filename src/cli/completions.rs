//! `smidge completions`: what a shell needs to complete our verbs and flags.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Failure, print};

/// Prints a completion script for a shell.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  smidge completions bash > /etc/bash_completion.d/smidge")]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "smidge", &mut script);
    print(&String::from_utf8_lossy(&script))
}
