//! What the packages hold, by the lists in Cargo.toml that cargo-deb and
//! cargo-generate-rpm go by. The tools take ten minutes to compile, so no test
//! makes the packages: `tests/packages.sh` does and looks into them,
//! `tests/systemd.sh` installs them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::common::tool;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const MANIFEST: &str = include_str!("../../Cargo.toml");

/// A section of Cargo.toml.
fn section(name: &str) -> &'static str {
    let (_, rest) = MANIFEST.split_once(&format!("\n[{name}]\n")).unwrap();
    rest.split("\n[").next().unwrap()
}

/// The lines of its list of files: place, source, mode, and the rest.
fn assets(section: &'static str) -> Vec<[&'static str; 4]> {
    let (_, list) = section.split_once("\nassets = [\n").unwrap();
    let (list, _) = list.split_once("\n]").unwrap();
    let lines = list.lines().map(|line| {
        let words: Vec<_> = line.split('"').collect();
        let rest = line.split_once(words[5]).unwrap().1;
        [words[3].trim_start_matches('/'), words[1], words[5], rest]
    });
    lines.collect()
}

/// The .deb, the .rpm and the tar, which `build` makes from the list of the .deb with sed.
#[test]
fn packages_hold_the_same_files() {
    let listed = assets(section("package.metadata.deb"));
    let listed: Vec<_> = listed
        .iter()
        .map(|[to, from, mode, _]| [to, from, mode])
        .collect();
    assert!(listed.len() > 10, "{listed:?}");
    let rpm = assets(section("package.metadata.generate-rpm"));
    // cargo-deb makes the file "copyright" of it.
    let rpm = rpm.iter().filter(|[_, from, ..]| *from != "LICENSE");
    let rpm: Vec<_> = rpm.map(|[to, from, mode, _]| [to, from, mode]).collect();
    assert_eq!(rpm, listed);
    let build = fs::read_to_string(Path::new(ROOT).join("systemd/package/build")).unwrap();
    let sed = build
        .lines()
        .find(|line| line.contains("sed -n '/^\\[package.metadata.deb]"));
    let mut shell = Command::new("sh");
    shell.args(["-euc", sed.expect("no sed in build")]);
    let (ok, tar) = tool(shell.current_dir(ROOT), "");
    assert!(ok);
    let lines = listed
        .iter()
        .map(|[to, from, mode]| format!("{from} {to} {mode}"));
    assert_eq!(tar.lines().collect::<Vec<_>>(), lines.collect::<Vec<_>>());
    // Everything for a node is shipped.
    for file in fs::read_dir(Path::new(ROOT).join("systemd")).unwrap() {
        let file = file.unwrap().file_name().into_string().unwrap();
        let from = format!("systemd/{file}");
        let shipped = listed.iter().any(|[_, source, _]| **source == from);
        assert_eq!(
            shipped,
            !["README.md", "package"].contains(&&*file),
            "{file}"
        );
    }
}

/// What the owner of a node edits outlives an upgrade. (dpkg takes all in /etc for
/// such.)
#[test]
fn what_is_edited_stays() {
    for [place, _, _, more] in assets(section("package.metadata.generate-rpm")) {
        let kept = more.contains("config = \"noreplace\"");
        assert_eq!(kept, place.starts_with("etc/"), "{place}: {more}");
    }
}

/// One script for both: dpkg says a word, rpm a number.
#[test]
fn the_scripts_do_nothing_at_a_word_they_do_not_know() {
    for script in ["postinst", "prerm", "postrm"] {
        let path = Path::new(ROOT).join("systemd/package").join(script);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o755);
        for words in [
            &["abort-upgrade", "0.1.0"][..],
            &["upgrade", "0.3.0"],
            &["failed-upgrade"],
        ] {
            // A PATH without a command: whatever it called would fail.
            let mut command = Command::new("/bin/sh");
            command.arg(&path).args(words).env("PATH", "/nowhere");
            assert_eq!(
                tool(&mut command, ""),
                (true, String::new()),
                "{script} {words:?}"
            );
        }
    }
    let rpm = section("package.metadata.generate-rpm");
    for (key, script) in [
        ("post_install_script", "postinst"),
        ("pre_uninstall_script", "prerm"),
        ("post_uninstall_script", "postrm"),
    ] {
        let line = format!("\n{key} = \"systemd/package/{script}\"\n");
        assert!(rpm.contains(&line), "{line}");
    }
}

/// The install page names the packages of this version.
#[test]
fn the_install_page_names_this_version() {
    let page = include_str!("../../systemd/README.md");
    let version = env!("CARGO_PKG_VERSION");
    for (package, times) in [
        (format!("healthport_{version}-1_amd64.deb"), 3),
        (format!("healthport-{version}-1.x86_64.rpm"), 1),
        (format!("healthport-{version}-x86_64.tar.gz"), 2),
    ] {
        assert_eq!(page.matches(&package).count(), times, "{package}");
    }
    let image = include_str!("../../openshift/Containerfile");
    assert!(image.contains(&format!("/healthport:{version}\n")));
}
