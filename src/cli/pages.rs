//! What packages ship of the command line, from the definitions that `--help` prints: a manual page for each verb, and the
//! completions. Nothing of it is in the program.
//!
//! `SMIDGE_PAGES=DIR cargo test --lib cli::pages` writes them; packaging/deb.sh does.

use std::{collections::BTreeSet, env, fs, path::PathBuf, process::Command};

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, completions::script};

#[test]
fn there_is_a_manual_page_for_each_verb_and_completions_for_three_shells() {
    let temporary = tempfile::tempdir().unwrap();
    let into = env::var_os("SMIDGE_PAGES").map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    fs::create_dir_all(&into).unwrap();
    // `smidge help VERB` is the page of the verb.
    let mut cli = Cli::command().disable_help_subcommand(true);
    cli.build();
    clap_mangen::generate_to(cli.clone(), &into).unwrap();
    for (shell, file) in [(Shell::Bash, "smidge.bash"), (Shell::Zsh, "_smidge"), (Shell::Fish, "smidge.fish")]
    {
        fs::write(into.join(file), script(shell)).unwrap();
    }

    let mut expected = BTreeSet::from(["smidge.1".to_owned()]);
    let mut verbs = vec![("smidge".to_owned(), &cli)];
    while let Some((words, verb)) = verbs.pop() {
        for sub in verb.get_subcommands() {
            let words = format!("{words}-{}", sub.get_name());
            expected.insert(format!("{words}.1"));
            verbs.push((words, sub));
        }
    }
    assert!(expected.len() > 20 && expected.contains("smidge-dht-put.1"), "{expected:?}");
    let page = |name: &String| fs::read_to_string(into.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    for name in &expected {
        let page = page(name);
        assert!(page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "{name}: {page}");
        assert!(name == "smidge.1" || page.contains("Example"), "{name}: {page}");
    }
    // Built twice, they are the same: no day stands in them.
    assert!(page(&"smidge.1".into()).contains(".TH smidge 1  \"smidge "), "{}", page(&"smidge.1".into()));
}

#[test]
fn bash_completes_keys_and_topics_and_runs_nothing_that_a_topic_says() {
    let folder = tempfile::tempdir().unwrap();
    let stand_in = r#"case $1 in
        config) printf 'role = "peer" # x\ntopics = {}\n\n[gossip]\nmesh_n = 6 # default\nmesh_n_low = 4\n' ;;
        status) printf '{"peer":"p","topics":["home","ha$(touch ran)ll"],"records":0}\n' ;;
    esac"#;
    let ask = |line: &str, shown: &str| {
        let words = line.split(' ').map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
        let count = line.split(' ').count() - 1;
        let call = format!(
            "smidge() {{\n{stand_in}\n}}\n{}\nCOMP_WORDS=({words}) COMP_CWORD={count}\n\
             _smidge_values smidge \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"\n\
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            script(Shell::Bash)
        );
        let output =
            Command::new("bash").args(["-c", &call]).current_dir(folder.path()).output().expect("bash runs");
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said.trim_end(), shown, "{line}: {}", String::from_utf8_lossy(&output.stderr));
    };
    ask("smidge run --set gossip.me", "gossip.mesh_n=\ngossip.mesh_n_low=");
    ask("smidge run --set ro", "role=");
    ask("smidge sub -t ho", "home");
    ask("smidge pub --topic ha", r"ha\$\(touch\ ran\)ll");
    ask("smidge health --js", "--json");
    assert!(!folder.path().join("ran").exists());
}
