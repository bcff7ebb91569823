//! The same source gives the same bytes, so that whoever trusts the source can
//! trust the binary on a node. Built twice, in two folders, with two homes of
//! cargo's packages, by the commands of systemd/package/build.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::Folder;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const COMMIT: &str = "0123456789ab";

/// The lines of systemd/package/build that make the binary.
fn build_commands() -> String {
    let build = include_str!("../../systemd/package/build");
    let lines = ["remap=", "cargo auditable build "].map(|start| {
        let found = build.lines().find(|line| line.trim().starts_with(start));
        found.unwrap_or_else(|| panic!("no {start} in build"))
    });
    lines.join("\n")
}

/// Copies the checkout to `folder` and builds it there, with `home` as CARGO_HOME.
fn build(folder: &Path, home: &Path) -> Vec<u8> {
    fs::create_dir_all(folder).unwrap();
    let script = format!(
        "tar -C '{ROOT}' --exclude=./target --exclude=./.git -c . | tar -x\n\
        PATH='{ROOT}/target/tools/bin':$PATH\n\
        target=$(rustc -vV | sed -n 's/^host: //p')\n\
        {} --offline --quiet\n\
        cp target/$target/release/healthport .",
        build_commands()
    );
    let output = Command::new("sh")
        .args(["-euc", &script])
        .current_dir(folder)
        .env("CARGO_HOME", home)
        .env("HEALTHPORT_COMMIT", COMMIT)
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "in {folder:?}: {} (tests/run installs what is missing)",
        String::from_utf8_lossy(&output.stderr)
    );
    fs::read(folder.join("healthport")).unwrap()
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

#[test]
#[ignore = "needs two release builds"]
fn two_folders_give_the_same_bytes() {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.unwrap_or_else(|| PathBuf::from(env::var_os("HOME").unwrap()).join(".cargo"));
    let base = Folder::new();
    let other_home = base.file("another-home");
    symlink(&home, &other_home).unwrap();

    let one = build(&base.file("one"), &home);
    let two = build(&base.file("two/of/another/length"), &other_home);

    assert!(one.len() > 100_000, "this is no binary: {}", one.len());
    let difference = one.iter().zip(&two).position(|(one, two)| one != two);
    assert!(one == two, "they differ from byte {difference:?}");
    // Nor does it tell where it was built.
    for path in [base.path(), &home, &other_home] {
        let path = path.as_os_str().as_encoded_bytes();
        assert!(
            !contains(&one, path),
            "the builder's paths are in the binary"
        );
    }
    // The list of its packages, for scanners, and what it was built from.
    assert!(contains(&one, b"\0.dep-v0\0"), "no audit data");
    let version = Command::new(base.file("one/healthport"))
        .arg("--version")
        .output();
    let expected = format!("healthport {} ({COMMIT})\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8_lossy(&version.unwrap().stdout), expected);
}
