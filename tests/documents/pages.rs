//! Every page: its links lead somewhere, its commands and options exist, and the
//! front page stays one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex_lite::Regex;

use crate::common::{help, tool};

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
    let link = Regex::new(r"\]\(([^) ]+)").unwrap();
    let mut links = 0;
    for (page, text) in pages() {
        for link in link.captures_iter(&text) {
            links += 1;
            assert_eq!(broken(&page, &text, &link[1]), None, "{}", page.display());
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
    let help: Vec<_> = help::entries().into_iter().map(|it| it.name).collect();
    // The namespace of oc and the value of a label are no commands.
    let command = Regex::new("(namespace |=)?healthport --[^\n|;#`]*").unwrap();
    let option = Regex::new(r"(?:^|\s)--([\w-]+)").unwrap();
    let mut options = 0;
    for (page, text) in pages() {
        for command in command
            .captures_iter(&text)
            .filter(|it| it.get(1).is_none())
        {
            for option in option.captures_iter(&command[0]) {
                let exists = help.iter().any(|known| *known == option[1]);
                assert!(exists, "{}: {}", page.display(), &command[0]);
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
    let indented = Regex::new(r"(?m)^    (\w.*\n)").unwrap();
    let indented = indented.captures_iter(text).map(|line| line[1].to_string());
    blocks(text, "sh").concat() + &indented.collect::<String>()
}

/// What a command names in this project that does not exist.
fn missing(command: &str) -> Option<String> {
    let named = |pattern| Some(Regex::new(pattern).unwrap().captures(command)?[1].to_string());
    let lacks = |path: &str| !Path::new(ROOT).join(path).exists();
    let script = named(r"^((?:tests|systemd|\.ci)/\S+)").filter(|script| lacks(script));
    // In capitals it stands for the reader's choice.
    let test = named(r"cargo .*--test ([a-z]\S*)").filter(|test| {
        let there = [format!("tests/{test}.rs"), format!("tests/{test}/main.rs")];
        there.iter().all(|path| lacks(path))
    });
    let bench = named(r"cargo .*--bench (\S+)").filter(|bench| {
        let named = format!("[[bench]]\nname = \"{bench}\"\n");
        !include_str!("../../Cargo.toml").contains(&named)
    });
    script.or(test).or(bench)
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
