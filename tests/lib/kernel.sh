#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# kernel.sh OUTDIR VERSION: Debian's cloud kernel of a version (6.12), taken
# from this release or its backports and unpacked below OUTDIR: vmlinuz and
# modules/*.ko.  Nothing is installed, and the machine's own package lists stay
# as they are.  Where it can't be had OUTDIR/reason says why, and all is well:
# the tests skip with that.
set -eu
export LC_ALL=C
out=$1 version=$2
modules="llc stp bridge veth sch_ingress cls_bpf tunnel4 ip_tunnel ipip tunnel6 ip6_tunnel sit
udp_tunnel ip6_udp_tunnel fou fou6"

mkdir -p "$out"
out=$(cd "$out" && pwd)
exec 9>"$out/.lock"
flock 9
stamp=$(echo "$version" | cat "$0" - | sha256sum | cut -d' ' -f1)
if [ -s "$out/vmlinuz" ] && [ "$(cat "$out/.stamp" 2>/dev/null)" = "$stamp" ]; then
	exit 0
fi
rm -rf "$out/vmlinuz" "$out/modules" "$out/reason" "$out/.stamp"
work=$(mktemp -d "$out/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
say() { echo "# kernel: $*"; }
give_up() {
	say "$*"
	echo "$*" >"$out/reason"
	exit 0
}

. /etc/os-release
[ "${ID:-}" = debian ] || give_up "${PRETTY_NAME:-this system} has no Debian kernels"
arch=$(dpkg --print-architecture)

# The mirror is the one that the release itself comes from; its backports may
# not be among the machine's sources, so apt gets lists of its own.
mirror=$(apt-get indextargets --format '$(CREATED_BY) $(RELEASE) $(REPO_URI)' |
	awk -v r="$VERSION_CODENAME" '$1 == "Packages" && $2 == r { print $3; exit }')
[ -n "$mirror" ] || give_up "no mirror of $VERSION_CODENAME is known"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/unpacked"
for suite in "$VERSION_CODENAME" "$VERSION_CODENAME-backports"; do
	echo "deb [arch=$arch signed-by=$keys] $mirror $suite main"
done >"$work/sources.list"
own="-o Dir::Etc::SourceList=$work/sources.list -o Dir::Etc::SourceParts=-
	-o Dir::State::Lists=$work/lists -o Dir::Cache=$work/cache
	-o APT::Sandbox::User=root -o Acquire::Languages=none
	-o Acquire::Retries=2 -o Acquire::http::Timeout=20"

say "reading package lists"
# shellcheck disable=SC2086
apt-get $own -qq update >"$work/log" 2>&1 || give_up "no package lists from $mirror"
# shellcheck disable=SC2086
package=$(apt-cache $own pkgnames "linux-image-$version" |
	grep -E "^linux-image-$version[.][^ ]*-cloud-$arch(-unsigned)?\$" |
	grep -v -e -unsigned | sort -V | tail -n 1)
[ -n "$package" ] ||
	give_up "no linux-image-$version*-cloud-$arch in $VERSION_CODENAME and its backports"
say "downloading $package"
# shellcheck disable=SC2086
(cd "$work" && apt-get $own -qq download "$package" >"$work/log" 2>&1) ||
	give_up "$package can't be downloaded"
dpkg-deb -x "$work"/linux-image-*.deb "$work/unpacked"

# Names with _ and -, compressed or not; what is built in is left out.
mkdir -p "$work/modules"
for m in $modules; do
	file=$(find "$work/unpacked" -name "${m//_/[-_]}.ko*" | head -n 1)
	case $file in
	'') ;;
	*.xz) xz -dc "$file" >"$work/modules/$m.ko" ;;
	*.zst) zstd -qdc "$file" >"$work/modules/$m.ko" ;;
	*) cp "$file" "$work/modules/$m.ko" ;;
	esac
done
image=$(find "$work/unpacked/boot" -name 'vmlinuz-*' | head -n 1)
[ -n "$image" ] || give_up "no kernel in $package"
mv "$work/modules" "$out/modules"
mv "$image" "$out/vmlinuz"
echo "$stamp" >"$out/.stamp"
say "ready: $package"
