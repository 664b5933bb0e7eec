//! What the documents say holds: links lead somewhere, the page of keys is the keys', and what is marked as runnable runs.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::daemon::{Daemon, run};

const MADE_FROM: &str = "<!-- made from config/smidge.toml -->\n";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every document of the project, by its path from the root.
fn documents() -> BTreeMap<PathBuf, String> {
    let mut files: Vec<PathBuf> = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !["target", "dist"].contains(&&*name) && !name.starts_with('.') {
                folders.push(path);
            } else if name.ends_with(".md") {
                files.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    files.into_iter().map(|file| (file.clone(), read(file))).collect()
}

/// Lines outside of fenced blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fence && !fenced
    })
}

/// Where a heading can be linked to, as Git hosts derive it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

fn anchors(text: &str) -> HashSet<String> {
    prose(text)
        .filter(|line| line.starts_with('#'))
        .map(|line| anchor(line.trim_start_matches('#')))
        .collect()
}

/// The targets of inline links and pictures.
fn links(text: &str) -> Vec<&str> {
    prose(text)
        .flat_map(|line| line.split("](").skip(1))
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let documents = documents();
    assert!(documents.len() > 20, "these are our documents: {}", documents.len());
    let (mut wrong, mut followed) = (Vec::new(), 0);
    for (file, text) in &documents {
        for link in links(text).into_iter().filter(|link| !link.contains("://")) {
            followed += 1;
            let (path, fragment) =
                link.split_once('#').map_or((link, None), |(path, part)| (path, Some(part)));
            let target = match path {
                "" => root().join(file),
                path => root().join(file).parent().unwrap().join(path),
            };
            let exists = match fragment {
                _ if !target.exists() => false,
                Some(fragment) => anchors(&fs::read_to_string(&target).unwrap()).contains(fragment),
                None => true,
            };
            if !exists {
                wrong.push(format!("{}: {link}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "links that lead nowhere:\n{}", wrong.join("\n"));
    assert!(followed > 60, "{followed}");
}

#[test]
fn every_document_in_docs_is_reached_from_the_readme() {
    let linked = links(&read("README.md")).into_iter().map(str::to_owned).collect::<HashSet<_>>();
    let all = documents().into_keys().filter(|file| file.parent() == Some(Path::new("docs")));
    let below: String =
        ["docs/operating.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "docs/limits.md"].map(read).concat();
    let missing: Vec<_> = all
        .filter(|file| !linked.contains(file.to_str().unwrap()))
        .filter(|file| !below.contains(file.file_name().unwrap().to_str().unwrap()))
        .collect();
    assert!(missing.is_empty(), "nothing leads to {missing:?}");
}

#[test]
fn the_readme_is_a_first_page() {
    let lines = read("README.md").lines().count();
    assert!(lines <= 150, "{lines} lines: what is for who reads on belongs into docs/");
}

/// A comment block as prose and, where it is indented, as code.
fn comment(lines: &[&str], out: &mut String) {
    let mut code = false;
    for line in lines {
        let indented = line.starts_with("  ");
        if indented != code {
            out.push_str(if indented { "\n```toml\n" } else { "```\n\n" });
            code = indented;
        }
        // A table's row or a heading by accident would not be the comment any more.
        let text = if code { line.trim_start_matches("  ").to_owned() } else { line.replace('<', "\\<") };
        writeln!(out, "{text}").unwrap();
    }
    if code {
        out.push_str("```\n");
    }
}

/// A page of all keys from the file that has each with its default below a comment.
fn keys(toml: &str) -> String {
    let (mut out, mut section, mut comments) = (String::new(), String::new(), Vec::new());
    // The file's own introduction ends with the first empty line behind it.
    let (_, rest) = toml.split_once("\n\n").unwrap();
    for line in rest.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = format!("{name}.");
            write!(out, "\n## [{name}]\n").unwrap();
            if !comments.is_empty() {
                out.push('\n');
                comment(&std::mem::take(&mut comments), &mut out);
            }
            continue;
        }
        let assigned = line.trim_start_matches("# ");
        let key = assigned
            .split_once(" = ")
            .filter(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        match key {
            // An assignment in a comment is a key whose default is not a value, unless it is an example.
            Some((key, default)) if !line.starts_with("#  ") => {
                let live = comments.first().is_some_and(|first: &&str| first.starts_with("[live] "));
                if let Some(first) = comments.first_mut() {
                    *first = first.trim_start_matches("[live] ");
                }
                let default = match line.starts_with('#') {
                    true => format!("left out unless given; written as `{assigned}`"),
                    false => format!("default `{default}`"),
                };
                let live = if live { ", *live*" } else { "" };
                write!(out, "\n### {section}{key}\n\n{default}{live}\n\n").unwrap();
                comment(&std::mem::take(&mut comments), &mut out);
            }
            _ if line.starts_with('#') => {
                comments.push(line.trim_start_matches('#').strip_prefix(' ').unwrap_or_default());
            }
            _ => {}
        }
    }
    out
}

#[test]
fn the_page_of_keys_is_made_from_the_file_of_keys() {
    let path = "docs/configuration.md";
    let page = read(path);
    let (intro, made) = page.split_once(MADE_FROM).expect("the page says where it is made from");
    let expected = keys(&read("config/smidge.toml"));
    if std::env::var_os("SMIDGE_WRITE").is_some() {
        fs::write(root().join(path), format!("{intro}{MADE_FROM}{expected}")).unwrap();
    } else {
        assert!(
            made == expected,
            "{path} is not up to date: SMIDGE_WRITE=1 cargo test --test it documents::"
        );
    }
    let headings = expected.lines().filter(|line| line.starts_with("### ")).count();
    let (_, shown, _) = run(Command::new(env!("CARGO_BIN_EXE_smidge")).args(["config", "show"]).env_clear());
    let known = shown.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count();
    assert!(headings >= known && known > 100, "{headings} of {known} keys");
}

/// Blocks that say `sh run` behind their fence: commands for a shell with `smidge` and one running node.
fn runnable(text: &str) -> Vec<String> {
    text.split("```sh run\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn blocks_marked_as_runnable_run() {
    let folder = tempfile::tempdir().unwrap();
    let bin = folder.path().join("bin");
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_smidge"), bin.join("smidge")).unwrap();
    std::os::unix::fs::symlink(root().join("config"), folder.path().join("config")).unwrap();
    let node = Daemon::start(&["--topic", "some_topic"]);
    let mut blocks = 0;
    for (file, text) in documents() {
        for block in runnable(&text) {
            blocks += 1;
            let mut shell = Command::new("sh");
            shell.args(["-euc", &block]).current_dir(folder.path());
            let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
            shell.env_clear().env("PATH", path).env("HOME", folder.path()).env("SMIDGE_API", &node.url);
            let (code, out, err) = run(&mut shell);
            assert_eq!(code, 0, "{}:\n{block}\n{out}\n{err}", file.display());
        }
    }
    assert!(blocks >= 4, "{blocks} blocks are marked");
}
