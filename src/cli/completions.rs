//! `smidge completions`: what a shell needs to complete our verbs and flags, the keys behind `--set`, and the topics that
//! the node follows.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Failure, print};

/// Prints a completion script for a shell.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  smidge completions bash > /etc/bash_completion.d/smidge\n\n\
                        In bash, zsh and fish --set completes keys, and -t the topics of the node that\n\
                        SMIDGE_API or the default names.")]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    print(&script(args.shell))
}

/// Lists the keys, one a line, as `--set` takes them.
const KEYS: &str = r#"smidge config show --config /dev/null 2>/dev/null | awk -F' = ' '/^\[/ { s = substr($1, 2, length($1) - 2) "." } / = / { print s $1 "=" }'"#;
/// Lists the topics that the node follows, one a line.
const TOPICS: &str = r#"smidge status --json 2>/dev/null | sed -n 's/.*"topics":\[\([^]]*\)\].*/\1/p' | tr -d '"' | tr , '\n'"#;

/// A topic may be any text: `compgen -W` would run commands in it.
const BASH: &str = r#"
_smidge_values() {
    local cur=${COMP_WORDS[COMP_CWORD]} word
    case ${COMP_WORDS[COMP_CWORD - 1]} in
        --set) compopt -o nospace 2>/dev/null; set -- _smidge_keys ;;
        -t | --topic) set -- _smidge_topics ;;
        *) _smidge "$@"; return ;;
    esac
    COMPREPLY=()
    while IFS= read -r word; do
        [[ $word != "$cur"* ]] || COMPREPLY+=("$(printf %q "$word")")
    done < <("$1")
}
complete -F _smidge_values -o bashdefault -o default smidge
"#;

/// The script for `shell`.
pub(super) fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "smidge", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        Shell::Bash => {
            format!("{script}\n_smidge_keys() {{ {KEYS}; }}\n_smidge_topics() {{ {TOPICS}; }}{BASH}")
        }
        Shell::Zsh => {
            let list = |name, flags, values| {
                format!(
                    "{name}() {{\n    local -a found=(${{(f)\"$({values})\"}})\n    compadd {flags}-a found\n}}\n"
                )
            };
            let functions = list("_smidge_keys", "-S '' ", KEYS) + &list("_smidge_topics", "", TOPICS);
            // The first line is for compinit; what is behind the functions calls them.
            script
                .replacen('\n', &format!("\n\n{functions}"), 1)
                .replace(":KEY=VALUE:_default'", ":KEY=VALUE:_smidge_keys'")
                .replace(":TOPIC:_default'", ":TOPIC:_smidge_topics'")
        }
        Shell::Fish => {
            let mut out = format!(
                "function __smidge_keys\n    {KEYS}\nend\nfunction __smidge_topics\n    {TOPICS}\nend\n"
            );
            for line in script.lines() {
                out.push_str(line);
                if line.contains(" -l set ") {
                    out.push_str(" -f -a '(__smidge_keys)'");
                } else if line.contains(" -l topic ") {
                    out.push_str(" -f -a '(__smidge_topics)'");
                }
                out.push('\n');
            }
            out
        }
        _ => script,
    }
}
