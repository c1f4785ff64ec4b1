#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# deb.sh OUTDIR [VERSION [BUILD]]: a Debian package of the sources as they are
# here, in OUTDIR.  VERSION: without it the last tag's, or 0~git and the time
# and name of the last commit.  BUILD: a folder with objects of these sources.
set -eu
out=$1 version=${2:-} build=${3:-}
top=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$out"
out=$(cd "$out" && pwd)
export LC_ALL=C
unset MAKEFLAGS MFLAGS MAKEOVERRIDES
cd "$top"

if [ -z "$version" ]; then
	version=$(git describe --tags --exact-match 2>/dev/null | sed -n 's/^v\?\([0-9]\)/\1/p')
	[ -n "$version" ] || version=$(TZ=UTC git log -1 --date=format-local:%Y%m%d%H%M \
		--format=0~git%cd.%h)
fi
source=$out/xlb-$version
rm -rf "$source"
mkdir -p "$source"
# With their times, by which make knows that BUILD is theirs.
git ls-files -z -co --exclude-standard |
	while IFS= read -r -d '' f; do [ ! -e "$f" ] || printf '%s\0' "$f"; done |
	xargs -0 cp -p --parents -t "$source"
cp -rp packaging/debian "$source/debian"
cat >"$source/debian/changelog" <<END
xlb ($version) unstable; urgency=medium

  * Built from the sources.

 -- xlb developers <xlb@packages.debian.org>  $(git log -1 --format=%cD 2>/dev/null || date -R)
END
cd "$source"
export XLB_BUILD=$build
# A build with objects at hand is a test's, and needs no symbols.
[ -z "$build" ] || export DEB_BUILD_OPTIONS="noautodbgsym ${DEB_BUILD_OPTIONS:-}"
dpkg-buildpackage --build=binary --no-sign >"$out/build.log" 2>&1 || {
	tail -n 40 "$out/build.log" >&2
	exit 1
}
rm -rf "$source"
ls "$out"/xlb_"$version"_*.deb
