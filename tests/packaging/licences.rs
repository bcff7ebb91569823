//! Everything that is linked into the binary has its notice in THIRD-PARTY, which
//! goes into every package and the image.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::binary::tree;
use crate::common::cargo;

const THIRD_PARTY: &str = include_str!("../../systemd/package/THIRD-PARTY");

/// `name version` of each package in the binary, ours aside, and its sources.
fn packages() -> Vec<(String, PathBuf)> {
    let tree = tree("{p}");
    let packages: BTreeSet<_> = tree
        .lines()
        .filter(|line| !line.starts_with("healthport "))
        .map(|line| line.replace(" v", " "))
        .collect();
    // One that ships: for all of them cargo would download what Windows needs.
    let platform = "--filter-platform=x86_64-unknown-linux-gnu";
    let metadata = cargo(&["metadata", "--locked", "--format-version=1", platform]);
    let with_sources = |package: String| {
        // The folders of the registry are called name-version.
        let end = format!("/{}/Cargo.toml\"", package.replace(' ', "-"));
        let (before, _) = metadata.split_once(&end).expect("in the metadata");
        let (_, folder) = before.rsplit_once('"').unwrap();
        let sources = Path::new(folder).join(package.replace(' ', "-"));
        (package, sources)
    };
    packages.into_iter().map(with_sources).collect()
}

#[test]
fn every_package_has_its_text() {
    let packages = packages();
    assert_eq!(packages.len(), 16, "{packages:?}");
    for (name, sources) in &packages {
        let files = ["LICENSE-MIT", "LICENSE-MIT.txt", "LICENSE"];
        let files = files.map(|file| sources.join(file));
        let file = files.iter().find(|file| file.exists());
        let licence = fs::read_to_string(file.expect(name)).unwrap();
        let entry = format!("\n{name}\n\n{}\n", licence.trim_matches('\n'));
        assert!(THIRD_PARTY.contains(&entry), "{name} and {file:?}");
    }
    let rule = format!("\n{}\n", "-".repeat(78));
    let entries = THIRD_PARTY.matches(&rule).count();
    assert_eq!(entries, packages.len(), "one that is gone is left");
}

/// What the LGPL wants said of a library that is linked statically.
#[test]
fn the_c_library_has_its_notice_and_its_licence() {
    for sentence in [
        "The GNU C Library is used in this program",
        "covered by the GNU Lesser General Public License, version 2.1",
        "\n    cargo build --release --locked\n",
        "GNU LESSER GENERAL PUBLIC LICENSE\n                       Version 2.1, February 1999",
        "6. As an exception to the Sections above",
        "Copyright (c) The Rust Project Developers",
    ] {
        assert!(THIRD_PARTY.contains(sentence), "{sentence}");
    }
}
