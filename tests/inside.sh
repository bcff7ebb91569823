#!/bin/sh
# Prints the table "What is inside" of tests/bench/README.md: of each run-time package
# its licence, its lines of Rust without comments, how many lines of it have machine
# code in the binary that ships (by the line table of a build that differs only in
# having one), and its lines with the word "unsafe", used or not.
# Needs objdump and addr2line (apt-get install binutils).
set -eu
cd "$(dirname "$0")/.."

cargo build --quiet --release --locked --target-dir target/inside \
    --config 'profile.release.strip=false' --config 'profile.release.debug="line-tables-only"'
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
binary=target/inside/release/healthport
# The address of each entry, then its file and line; a line counts once.
objdump --dwarf=decodedline $binary | awk '$3 ~ /^0x/ { print $3 }' |
  addr2line --exe=$binary | grep ':[1-9]' | sed 's/ (discriminator.*//' | sort -u >"$work/lines"

# shellcheck disable=SC2016 # Markdown's backticks
echo '| package | licence | lines of Rust | of them in the binary | lines with `unsafe` |'
echo '|---|---|---:|---:|---:|'
cargo tree --locked --edges normal,build --prefix none --format '{p};{l}' |
  sed 's/ (\*)//' | sort -u | while IFS=';' read -r package licence; do
  name=${package%% *}
  version=${package#* v} version=${version%% *}
  case $package in
    healthport*) sources=src files=^$PWD/src/ ;;
    *)
      sources=$(echo "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"$name-$version"/src)
      files="/$name-$version/" ;;
  esac
  find "$sources" -name '*.rs' -exec cat {} + | grep -vE '^[[:space:]]*(//|$)' >"$work/source"
  printf '| %s %s | %s | %s | %s | %s |\n' "$name" "$version" "$licence" "$(wc -l <"$work/source")" \
    "$(grep -c -- "$files" "$work/lines")" "$(grep -cw unsafe "$work/source")" || true
done
printf '\nThe standard library has %s lines in the binary; glibc is not counted.\n' \
  "$(grep -cE '^/rust(c/|/deps/)' "$work/lines")"
