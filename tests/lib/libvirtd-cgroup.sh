#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# libvirtd-cgroup.sh DIR KVM: goes on where libvirtd-inner.sh ended, now in a
# control group namespace.  KVM 0: /dev/kvm is hidden.
set -eu
dir=$1 kvm=$2

umount -l /sys
mount -t sysfs sysfs /sys
if grep -qx '/sys/fs/cgroup unified' "$dir/hierarchies"; then
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
	# Controllers can't be handed down by a group with processes of its own.
	mkdir -p /sys/fs/cgroup/daemon
	echo $$ >/sys/fs/cgroup/daemon/cgroup.procs
else
	mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
	while read -r where options; do
		mkdir -p "$where"
		mount -t cgroup -o "$(echo "$options" |
			sed 's/\(rw\|ro\|relatime\|nosuid\|nodev\|noexec\),//g')" \
			cgroup "$where"
	done <"$dir/hierarchies"
fi

if [ "$kvm" = 0 ] && [ -e /dev/kvm ]; then
	mkdir -p "$dir/dev"
	mount -t tmpfs -o mode=755 tmpfs "$dir/dev"
	for node in null zero full random urandom tty console fuse; do
		[ -e /dev/$node ] || continue
		: >"$dir/dev/$node"
		mount --bind /dev/$node "$dir/dev/$node"
	done
	mkdir -p "$dir/dev/net" "$dir/dev/pts" "$dir/dev/shm"
	if [ -e /dev/net/tun ]; then
		: >"$dir/dev/net/tun"
		mount --bind /dev/net/tun "$dir/dev/net/tun"
	fi
	mount --rbind /dev/pts "$dir/dev/pts"
	ln -s pts/ptmx "$dir/dev/ptmx"
	ln -s /proc/self/fd "$dir/dev/fd"
	mount --move "$dir/dev" /dev
fi

mkdir -p /run/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt \
	/etc/libvirt
mount --bind "$dir/run" /run/libvirt
mount --bind "$dir/lib" /var/lib/libvirt
mount --bind "$dir/cache" /var/cache/libvirt
mount --bind "$dir/log" /var/log/libvirt
mount --bind "$dir/etc" /etc/libvirt

# tini reaps at once what libvirt leaves; a first process that doesn't makes
# every create wait.  A libvirtd that was killed comes back, and finds its
# guests alive; while DIR/hold is there it waits.
exec tini -s -- /bin/bash -c '
while :; do
	libvirtd --config /etc/libvirt/libvirtd.conf --pid-file "$0/run/private.pid"
	rm -f "$0/run/private.pid"
	while [ -e "$0/hold" ]; do sleep 0.02; done
done' "$dir"
