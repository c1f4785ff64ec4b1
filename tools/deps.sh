#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Installs what building, testing and the demo need (Debian, Ubuntu), and with
# the argument `bench` what the benchmarks compare with and draw with.  Quiet
# and fast when all is there.  Services of installed packages aren't started.
set -eu

packages="
gcc make git pkg-config clang clang-format clang-tidy llvm bpftool libc6-dev
linux-libc-dev libbpf-dev libvirt-dev libyaml-dev libinotifytools0-dev
libsqlite3-dev libcmocka-dev libmnl-dev libjansson-dev nettle-dev
libcurl4-openssl-dev libclang-rt-dev libarchive-dev libgit2-dev libxml2-dev libsystemd-dev lz4 sqlite3 python3 python3-scapy
python3-jsonschema python3-yaml
qemu-system-x86 qemu-utils openssl
libvirt-daemon libvirt-daemon-driver-qemu libvirt-daemon-driver-lxc
libvirt-daemon-system libvirt-clients dnsmasq-base tini busybox-static cpio zstd ethtool iproute2 curl
util-linux procps strace mmdebstrap grub-pc-bin grub-common e2fsprogs vim-tiny xz-utils
systemd mandoc man-db zsh debhelper dpkg-dev fakeroot
"
if [ "${1:-}" = bench ]; then
	packages="$packages haproxy nftables gnuplot-nox fonts-dejavu-core"
fi
. /etc/os-release
if [ "${ID:-}" = ubuntu ]; then
	packages=${packages/ bpftool / linux-tools-common linux-tools-generic }
fi

# The YAML language server, for the test that completion and checking in
# editors work; without npm, or without its registry, that test is skipped.
language_server() {
	local want=yaml-language-server@1.19.2 dir
	dir=$(cd "$(dirname "$0")/.." && pwd)/build/yaml-language-server

	command -v npm >/dev/null && [ "$(cat "$dir/version" 2>/dev/null)" != $want ] || return 0
	rm -rf "$dir"
	mkdir -p "$dir"
	echo "deps: installing $want"
	if (cd "$dir" && timeout 120 npm install --prefix . --no-audit --no-fund --no-package-lock \
		--ignore-scripts $want </dev/null >npm.log 2>&1); then
		echo $want >"$dir/version"
	else
		echo "deps: npm can't install $want: its test will be skipped"
	fi
}
language_server

missing=
for p in $packages; do
	dpkg-query -W -f '${db:Status-Status}\n' "$p" 2>/dev/null |
		grep -qx installed || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
	echo "deps: these packages are missing, and installing needs root:$missing" >&2
	exit 1
fi
echo "deps: installing $(wc -w <<<"$missing") packages:$missing"

# Packages may not start their services: policy-rc.d says no while we install.
policy=/usr/sbin/policy-rc.d
made_policy=
if [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod 755 $policy
	made_policy=1
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"; [ -z "$made_policy" ] || rm -f $policy' EXIT

# Quiet, but for a line every few seconds that shows where it is.
quietly() {
	"$@" </dev/null >"$log" 2>&1 &
	local pid=$! began=$SECONDS
	while kill -0 $pid 2>/dev/null; do
		sleep 1
		if [ $(((SECONDS - began) % 5)) = 0 ]; then
			echo "deps: $((SECONDS - began)) s: $(tail -n 1 "$log" | cut -c1-70)"
		fi
	done
	wait $pid && return
	cat "$log" >&2
	echo "deps: '$*' failed" >&2
	exit 1
}
quietly apt-get -o Acquire::Retries=3 update -q
# shellcheck disable=SC2086
quietly apt-get -o Acquire::Retries=3 install -q -y --no-install-recommends $missing
echo "deps: done"
