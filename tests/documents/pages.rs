//! Every page: its links lead somewhere, its commands and options exist, and the
//! front page stays one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::tool;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// All pages in the folders where the project keeps any, with their text.
fn pages() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(ROOT)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                folders.push(path);
            } else if name.ends_with(".md") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

/// The name that a heading has in a link, as the usual renderers make it.
fn anchor(heading: &str) -> String {
    let kept = heading
        .chars()
        .filter(|c| c.is_alphanumeric() || "- _".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// What is wrong with a link of a page. Links that lead out of the project are not
/// followed.
fn broken(page: &Path, text: &str, link: &str) -> Option<String> {
    if link.starts_with("https://") {
        return None;
    }
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let target = page.parent().unwrap().join(file);
    let text = match file {
        "" => text.to_string(),
        _ if target.is_dir() && heading.is_empty() => return None,
        _ => match fs::read_to_string(&target) {
            Ok(text) => text,
            Err(error) => return Some(format!("{link}: {error}")),
        },
    };
    let mut anchors = text.lines().filter(|line| line.starts_with('#'));
    let found = heading.is_empty()
        || anchors.any(|line| anchor(line.trim_start_matches('#').trim()) == heading);
    (!found).then(|| format!("{link}: no such heading"))
}

#[test]
fn every_link_leads_somewhere() {
    let mut links = 0;
    for (page, text) in pages() {
        for rest in text.split("](").skip(1) {
            let link = rest.split([')', ' ']).next().unwrap();
            links += 1;
            assert_eq!(broken(&page, &text, link), None, "{}", page.display());
        }
    }
    assert!(links > 20, "{links} links");
    let readme = Path::new(ROOT).join("README.md");
    for link in [
        "tests/nowhere.rs",
        "src#main",
        "#nothing",
        "man/healthport.8#options",
    ] {
        assert!(broken(&readme, "# Something\n", link).is_some(), "{link}");
    }
    assert_eq!(
        broken(&readme, "## The switch's side\n", "#the-switchs-side"),
        None
    );
}

/// Every option that a page gives to healthport exists.
#[test]
fn the_options_exist() {
    let help = healthport::options::HELP;
    let mut options = 0;
    for (page, text) in pages() {
        // The namespace of oc and the value of a label are no commands.
        let text = text
            .replace("=healthport ", "")
            .replace("namespace healthport ", "");
        for command in text.split("healthport --").skip(1) {
            let command = command.split(['\n', '|', ';', '#', '`']).next().unwrap();
            let words = format!("--{command}");
            for word in words
                .split_whitespace()
                .filter(|word| word.starts_with("--"))
            {
                let name = word
                    .split('=')
                    .next()
                    .unwrap()
                    .trim_end_matches([',', '.', ')', '"']);
                let exists = help
                    .split(|c: char| c.is_whitespace() || c == ',')
                    .any(|known| known == name);
                assert!(exists, "{}: healthport --{command}: {name}", page.display());
                options += 1;
            }
        }
    }
    assert!(options > 15, "{options} options");
}

/// The code blocks of a page in a language, in their order.
pub fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let start = format!("\n```{language}\n");
    let blocks = page.split(&start).skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap())
        .collect()
}

/// The commands of a page: its blocks of sh, and what is indented as code.
fn commands(text: &str) -> String {
    let blocks = blocks(text, "sh").into_iter().map(str::to_string);
    let indented = text.lines().filter_map(|line| line.strip_prefix("    "));
    let commands = indented.filter(|line| line.starts_with(|c: char| c.is_alphanumeric()));
    blocks
        .chain(commands.map(|line| format!("{line}\n")))
        .collect()
}

/// What a command names in this project that does not exist.
fn missing(command: &str) -> Option<String> {
    let exists = |path: &str| Path::new(ROOT).join(path).exists();
    let words: Vec<_> = command.split_whitespace().collect();
    let after = |flag: &str| words.iter().skip_while(|&&word| word != flag).nth(1);
    let script = words.first().filter(|word| {
        ["tests/", "systemd/", ".ci/"]
            .iter()
            .any(|folder| word.starts_with(folder))
    });
    if let Some(script) = script.filter(|script| !exists(script)) {
        return Some(script.to_string());
    }
    let test = after("--test").filter(|_| words.contains(&"cargo"));
    // In capitals it stands for the reader's choice.
    if let Some(test) = test.filter(|test| *test == &test.to_lowercase()) {
        let there = [format!("tests/{test}.rs"), format!("tests/{test}/main.rs")];
        if !there.iter().any(|path| exists(path)) {
            return Some(format!("--test {test}"));
        }
    }
    let bench = after("--bench").filter(|_| words.contains(&"cargo"));
    if let Some(bench) = bench {
        let named = format!("[[bench]]\nname = \"{bench}\"\n");
        if !include_str!("../../Cargo.toml").contains(&named) {
            return Some(format!("--bench {bench}"));
        }
    }
    None
}

#[test]
fn the_commands_can_be_read_and_name_what_is_there() {
    let mut found = 0;
    for (page, text) in pages() {
        let commands = commands(&text);
        let mut shell = Command::new("sh");
        let (ok, said) = tool(shell.args(["-n", "-c", &commands]), "");
        assert!(ok, "{}: {said}", page.display());
        for command in commands.lines() {
            assert_eq!(missing(command), None, "{}: {command}", page.display());
            found += 1;
        }
    }
    assert!(found > 30, "{found} lines of commands");
    for command in [
        "tests/nothing.sh",
        "SECONDS=1 cargo test --release --test nothing",
        "cargo bench --bench nothing",
    ] {
        assert!(missing(command).is_some(), "{command}");
    }
}
