//! Every page: its links lead somewhere, its options exist.

use std::fs;
use std::path::{Path, PathBuf};

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

/// What a link of a page leads to: nothing if it leads out of the project.
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
    let help = healthport::options::help();
    let mut options = 0;
    for (page, text) in pages() {
        // oc's namespace and a label's value are no commands.
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
                    .trim_end_matches([',', '.', ')']);
                let exists = help
                    .split(|c: char| c.is_whitespace() || c == ',')
                    .any(|known| known == name);
                assert!(exists, "{}: healthport --{command}: {name}", page.display());
                options += 1;
            }
        }
    }
    assert!(options > 2, "{options} options");
}
