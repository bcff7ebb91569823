//! What of the packages can be seen without making them: the tools take ten minutes to
//! compile. `tests/packages.sh` makes them and looks into them, `tests/systemd.sh`
//! installs them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::common::tool;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const MANIFEST: &str = include_str!("../../Cargo.toml");

/// What the .deb has, the .rpm has from the same source, and an upgrade keeps what the
/// owner of a node edits. (dpkg takes all in /etc for such.)
#[test]
fn packages_hold_the_same_files() {
    let listed = MANIFEST
        .lines()
        .filter_map(|line| line.strip_prefix("  [\""));
    let listed: Vec<Vec<_>> = listed
        .map(|line| line.split('"').step_by(2).collect())
        .collect();
    assert!(listed.len() > 10, "{listed:?}");
    for file in &listed {
        let (from, to, mode) = (file[0], file[1], file[2]);
        let mut rpm = format!("source = \"{from}\", dest = \"/{to}\", mode = \"{mode}\"");
        if to.starts_with("etc/") {
            rpm += ", config = \"noreplace\"";
        }
        assert!(MANIFEST.contains(&rpm), "{rpm}");
    }
    // Everything for a node is shipped.
    for file in fs::read_dir(Path::new(ROOT).join("systemd")).unwrap() {
        let file = file.unwrap().file_name().into_string().unwrap();
        let shipped = listed
            .iter()
            .any(|from| from[0] == format!("systemd/{file}"));
        let is_no_file_for_it = ["README.md", "package"].contains(&&*file);
        assert_ne!(shipped, is_no_file_for_it, "{file}");
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
    for (key, script) in [
        ("post_install_script", "postinst"),
        ("pre_uninstall_script", "prerm"),
        ("post_uninstall_script", "postrm"),
    ] {
        let line = format!("\n{key} = \"systemd/package/{script}\"\n");
        assert!(MANIFEST.contains(&line), "{line}");
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
