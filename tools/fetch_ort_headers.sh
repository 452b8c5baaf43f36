#!/usr/bin/env bash
# Puts ONNX Runtime's C headers into a cache folder, where CMake looks for them, and prints that folder.
# They are not in ONNX Runtime's wheels. Debian's package is downloaded and unpacked, never installed; the system's
# package sources stay as they are. Without apt, or without the package: one line on stderr and exit status 1.
# CMake itself tries ORT_INCLUDE_DIR, the system's include folders and the official release archive.
set -euo pipefail
cache="${XDG_CACHE_HOME:-$HOME/.cache}/lidcam/onnxruntime-headers"
header=onnxruntime_c_api.h
suite=trixie
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

if [ -f "$cache/$header" ]; then echo "$cache"; exit 0; fi
fail() { echo "no ONNX Runtime headers: $1" >&2; exit 1; }
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || fail "apt-get or dpkg-deb is missing"
# The mirror that this system already uses.
mirror=$(apt-get --print-uris update 2>/dev/null | sed -n "s#^'\(.*\)/dists/.*#\1#p" | grep -v -- -security | sort -u | head -n 1)
[ -n "$mirror" ] || fail "apt has no package source"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists/partial,archives/partial,parts,root}
[ -f "$keyring" ] || fail "no Debian keyring"
echo "deb [signed-by=$keyring] $mirror $suite main" > "$work/sources.list"
apt=(apt-get -q -o "Dir::Etc::SourceList=$work/sources.list" -o "Dir::Etc::SourceParts=$work/parts"
     -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work" -o "Dir::Cache::archives=$work/archives"
     -o Acquire::Languages=none -o Acquire::http::Timeout=30 -o Acquire::Retries=2 -o APT::Sandbox::User=
     -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false)
"${apt[@]}" update >"$work/log" 2>&1 || { tail -n 3 "$work/log" >&2; fail "the package list of $suite cannot be read"; }
(cd "$work" && "${apt[@]}" download "libonnxruntime-dev/$suite") >>"$work/log" 2>&1 ||
  { tail -n 3 "$work/log" >&2; fail "libonnxruntime-dev cannot be downloaded"; }
dpkg-deb -x "$work"/libonnxruntime-dev_*.deb "$work/root"
found=$(find "$work/root" -name "$header" -print -quit)
[ -n "$found" ] || fail "the package has no $header"
mkdir -p "$(dirname "$cache")"
copy=$(mktemp -d "$cache.XXXXXX")
cp -r "$(dirname "$found")"/. "$copy"
chmod 755 "$copy"
mv -T "$copy" "$cache" 2>/dev/null || rm -rf "$copy"  # another process was faster
[ -f "$cache/$header" ] || fail "$cache cannot be written"
echo "$cache"
