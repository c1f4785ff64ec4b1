#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# libvirtd-clean.sh DIR: waits until standard input ends, which it does when
# the owner of a private libvirtd stops it or dies, then removes what the
# processes, by then killed, left behind.
dir=$1
trap '' INT TERM HUP
cat >/dev/null

group=/xlb-$(echo "$dir" | sha256sum | cut -c 1-16)
# A killed namespace takes a moment to be gone.
for _ in $(seq 100); do
	left=
	while read -r where _; do
		[ -d "$where$group" ] || continue
		find "$where$group" -depth -type d -exec rmdir {} + 2>/dev/null
		[ ! -d "$where$group" ] || left=1
	done 2>/dev/null <"$dir/hierarchies"
	[ -n "$left" ] || break
	sleep 0.05
done
for _ in $(seq 100); do
	rm -rf --one-file-system "$dir" 2>/dev/null && break
	sleep 0.05
done
