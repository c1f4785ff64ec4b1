#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# libvirtd-inner.sh DIR KVM: the first process of a private libvirtd's process
# and mount namespace; moves to a control group of its own.
set -eu
dir=$1

mount --make-rprivate /
mount -t proc proc /proc
# The network namespace may not be the one /sys was mounted in, and libvirt
# looks for interfaces there.  Control groups: only a subtree of our own is
# seen, which our cleaner removes; lxc can't use a hybrid hierarchy, so a
# unified one beside others is left out.
group=/xlb-$(echo "$dir" | sha256sum | cut -c 1-16)
while read -r _ where type options _; do
	case $type:$where in
	cgroup:*) echo "$where $options" ;;
	cgroup2:/sys/fs/cgroup) echo "$where unified" ;;
	esac
done </proc/mounts >"$dir/hierarchies"
while read -r where options; do
	mkdir -p "$where$group"
	if [ -e "$where$group/cpuset.cpus" ] && [ "$options" != unified ]; then
		cat "$where/cpuset.cpus" >"$where$group/cpuset.cpus"
		cat "$where/cpuset.mems" >"$where$group/cpuset.mems"
	fi
	echo $$ >"$where$group/cgroup.procs"
done <"$dir/hierarchies"
exec unshare --cgroup /bin/bash "$(dirname "$0")/libvirtd-cgroup.sh" "$@"
