//! What the packages hold, by the lists in Cargo.toml that cargo-deb and
//! cargo-generate-rpm go by. The tools take ten minutes to compile, so no test
//! makes the packages: `tests/packages.sh` does and looks into them,
//! `tests/systemd.sh` installs them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::common::tool;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const MANIFEST: &str = include_str!("../../Cargo.toml");

/// Where a file goes, what it is made from and its mode. More than these no node
/// gets; a new one is added here.
const FILES: [(&str, &str, &str); 12] = [
    ("etc/healthport/api.conf", "systemd/api.conf", "644"),
    (
        "etc/healthport/healthport.nft",
        "systemd/healthport.nft",
        "644",
    ),
    ("etc/healthport/mcs.conf", "systemd/mcs.conf", "644"),
    ("etc/healthport/router.conf", "systemd/router.conf", "644"),
    ("usr/bin/healthport", "target/release/healthport", "755"),
    (
        "usr/lib/sysctl.d/50-healthport.conf",
        "systemd/healthport.sysctl.conf",
        "644",
    ),
    (
        "usr/lib/systemd/system/healthport@.service",
        "systemd/healthport@.service",
        "644",
    ),
    (
        "usr/share/doc/healthport/BUILD",
        "target/package/BUILD",
        "644",
    ),
    (
        "usr/share/doc/healthport/THIRD-PARTY",
        "systemd/package/THIRD-PARTY",
        "644",
    ),
    (
        "usr/share/doc/healthport/balancer-only.conf",
        "systemd/balancer-only.conf",
        "644",
    ),
    (
        "usr/share/doc/healthport/changelog.gz",
        "target/package/changelog.gz",
        "644",
    ),
    (
        "usr/share/man/man8/healthport.8.gz",
        "target/package/healthport.8.gz",
        "644",
    ),
];

/// A section of Cargo.toml.
fn section(name: &str) -> &'static str {
    let (_, rest) = MANIFEST.split_once(&format!("\n[{name}]\n")).unwrap();
    rest.split("\n[").next().unwrap()
}

/// The lines of its list of files: source, place, mode, and the rest.
fn assets(
    section: &'static str,
) -> BTreeMap<&'static str, (&'static str, &'static str, &'static str)> {
    let (_, list) = section.split_once("\nassets = [\n").unwrap();
    let (list, _) = list.split_once("\n]").unwrap();
    list.lines()
        .map(|line| {
            let words: Vec<_> = line.split('"').collect();
            let place = words[3].trim_start_matches('/');
            (
                place,
                (words[1], words[5], line.split_once(words[5]).unwrap().1),
            )
        })
        .collect()
}

#[test]
fn both_hold_these_files() {
    let wanted = FILES.map(|(place, source, mode)| (place, (source, mode)));
    let wanted = BTreeMap::from(wanted);
    for name in ["package.metadata.deb", "package.metadata.generate-rpm"] {
        let mut listed = assets(section(name));
        // cargo-deb makes the file "copyright" of it.
        let licence = listed.remove("usr/share/licenses/healthport/LICENSE");
        assert_eq!(licence.is_some(), name.ends_with("rpm"));
        let listed: BTreeMap<_, _> = listed
            .iter()
            .map(|(place, (source, mode, _))| (*place, (*source, *mode)))
            .collect();
        assert_eq!(listed, wanted, "{name}");
    }
    for (_, source, _) in FILES {
        let made = source.starts_with("target/");
        assert!(made || Path::new(ROOT).join(source).is_file(), "{source}");
    }
}

/// What the owner of a node edits outlives an upgrade. (dpkg takes all in /etc for
/// such.)
#[test]
fn what_is_edited_stays() {
    for (place, (_, _, more)) in assets(section("package.metadata.generate-rpm")) {
        let kept = more.contains("config = \"noreplace\"");
        assert_eq!(kept, place.starts_with("etc/"), "{place}: {more}");
    }
}

/// `build` reads the list with sed.
#[test]
fn the_tar_is_made_from_the_same_list() {
    let build = fs::read_to_string(Path::new(ROOT).join("systemd/package/build")).unwrap();
    let sed = build
        .lines()
        .find(|line| line.contains("sed -n '/^\\[package.metadata.deb]"));
    let (ok, listed) = tool(
        Command::new("sh")
            .args(["-euc", sed.expect("no sed in build")])
            .current_dir(ROOT),
        "",
    );
    assert!(ok);
    let mut listed: Vec<_> = listed.lines().collect();
    listed.sort_unstable();
    let mut wanted = FILES.map(|(place, source, mode)| format!("{source} {place} {mode}"));
    wanted.sort_unstable();
    assert_eq!(listed, wanted);
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
        (format!("healthport_{version}-1_amd64.deb"), 2),
        (format!("healthport-{version}-1.x86_64.rpm"), 1),
        (format!("healthport-{version}-x86_64.tar.gz"), 2),
    ] {
        assert_eq!(page.matches(&package).count(), times, "{package}");
    }
    let image = include_str!("../../openshift/Containerfile");
    assert!(image.contains(&format!("/healthport:{version}\n")));
}
