//! The same source gives the same bytes, so that whoever trusts the source can
//! trust the binary on a node. Built twice, in two folders, with two homes of
//! cargo's packages, by the README's command.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::Folder;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The README's command for a build whose bytes can be compared.
fn build_command() -> String {
    let readme = fs::read_to_string(Path::new(ROOT).join("systemd/README.md")).unwrap();
    let mut lines = readme.lines();
    let line = lines.find(|line| line.starts_with("cargo build") && line.contains("remap-path"));
    line.expect("the README has no such command").to_string()
}

/// Copies the checkout to `folder` and builds it there, with `home` as CARGO_HOME.
fn build(folder: &Path, home: &Path) -> Vec<u8> {
    fs::create_dir_all(folder).unwrap();
    let script = format!(
        "tar -C '{ROOT}' --exclude=./target --exclude=./.git -c . | tar -x\n\
        exec timeout 300 {} --offline --quiet",
        build_command()
    );
    let output = Command::new("sh")
        .args(["-euc", &script])
        .current_dir(folder)
        .env("CARGO_HOME", home)
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "in {folder:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    fs::read(folder.join("target/release/healthport")).unwrap()
}

fn contains(bytes: &[u8], text: &Path) -> bool {
    let text = text.as_os_str().as_encoded_bytes();
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
        assert!(!contains(&one, path), "{path:?} is in the binary");
    }
}
