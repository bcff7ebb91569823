#!/bin/sh
# Makes a release twice, in two folders and with two homes of cargo's packages, and
# compares the bytes, so that trust in the source is trust in the binary on a node;
# holds what is in the packages against the list of the .deb in Cargo.toml; asks lintian
# and rpmlint. Leaves the release in target/dist, and in target/next an .rpm of another
# version, for tests/systemd.sh.
# For the commit, not for what is not committed. Takes two release builds, and the
# first time the tools of systemd/package/build, ten minutes.
# Needs: apt-get install dpkg-dev lintian rpm rpmlint
set -eu
cd "$(dirname "$0")/.."
fail() { echo "tests/packages.sh: $*" >&2; exit 1; }
work=$PWD/target/packages
rm -rf "$work" target/dist target/next
mkdir -p "$work" target/tools target/next

home=${CARGO_HOME:-$HOME/.cargo}
ln -s "$home" "$work/another-home"
for folder in one two/of/another/length; do
  git clone --quiet . "$work/$folder"
  mkdir "$work/$folder/target"
  ln -s "$PWD/target/tools" "$work/$folder/target/tools"
  CARGO_HOME=$home "$work/$folder/systemd/package/build"
  home=$work/another-home
done
cmp "$work/one/target/dist/SHA256SUMS" "$work/two/of/another/length/target/dist/SHA256SUMS"
cp -r "$work/one/target/dist" target/dist
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
target=$(cd "$work/one/target" && ls -d "$(uname -m)"-unknown-linux-*)
# It does not tell where it was built, has the list of its packages, for scanners, and
# says what it was built from.
binary=$work/one/target/$target/release/healthport
! grep -aqF -e "$PWD" -e "${CARGO_HOME:-$HOME/.cargo}" "$binary" || fail "the builder's paths are in the binary"
grep -aqF .dep-v0 "$binary" || fail "no audit data in the binary"
[ "$("$binary" --version)" = "healthport $version ($(git rev-parse --short=12 HEAD))" ] || fail "$("$binary" --version)"
(cd "$work/one" && PATH=$PWD/target/tools/bin:$PATH cargo generate-rpm --target "$target" \
  --set-metadata "version = \"$version.1\"" --output "$OLDPWD/target/next")

# Mode, owner and place of each file, by the list in Cargo.toml.
listed=$(sed -n '/^\[package.metadata.deb]/,/^]/s/^  \[".*", "\(.*\)", "\(.*\)"],$/\2 \1/p' Cargo.toml)
options=$(echo "$listed" | sed -n 's,^644 etc/,/etc/,p' | sort)
# holds PACKAGE OWNER [ADDED]: compares the lines "-rw-r--r-- owner place" that it reads.
holds() {
  grep -v '^d' | sed 's/^-rwxr-xr-x/755/; s/^-rw-r--r--/644/' | sort >"$work/seen"
  printf '%s\n%s\n' "$listed" "$3" | sed "s, , $2 ," | sort | diff - "$work/seen" || fail "not what $1 should hold"
}
cd target/dist
sha256sum --check --quiet SHA256SUMS
for deb in *.deb; do
  dpkg-deb -c "$deb" | awk '{ sub(/^\.\//, "", $NF); print $1, $2, $NF }' |
    holds "$deb" 0/0 '644 usr/share/doc/healthport/changelog.Debian.gz
644 usr/share/doc/healthport/copyright'
  [ "$(dpkg-deb -I "$deb" conffiles | sort)" = "$options" ] || fail "the conffiles of $deb"
  lintian --fail-on error,warning --suppress-tags-from-file ../../systemd/package/lintian "$deb"
done
for rpm in *.rpm; do
  rpm -qp --qf '[%{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} %{FILENAMES}\n]' "$rpm" |
    sed 's, /, ,' | holds "$rpm" root/root '644 usr/share/licenses/healthport/LICENSE'
  [ "$(rpm -qpc "$rpm" | sort)" = "$options" ] || fail "the configuration files of $rpm"
done
rpmlint --config ../../systemd/package/rpmlint.toml ./*.rpm
for tar in *.tar.gz; do
  tar -tvzf "$tar" | awk '{ print $1, $2, $NF }' |
    sed 's, etc/sysctl.d/, usr/lib/sysctl.d/,; s, etc/systemd/, usr/lib/systemd/,; s, usr/local/, usr/,' |
    holds "$tar" 0/0 '644 usr/share/doc/healthport/LICENSE'
  # The notices are those of the C library that BUILD names.
  document() { tar -xOf "$tar" "usr/local/share/doc/healthport/$1"; }
  library=$(document BUILD | grep -oE '^(GNU C Library|musl)') || fail "BUILD of $tar names no C library"
  document THIRD-PARTY | grep -q "^1\. The .*$library" || fail "THIRD-PARTY of $tar is another C library's"
done
rm -rf "$work"
echo "tests/packages.sh: ok: $(ls)"
