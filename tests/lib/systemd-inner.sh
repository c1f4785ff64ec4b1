#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# systemd-inner.sh ROOT CGROUP2 GROUP TARGET: the first process of a small
# machine whose root is ROOT; becomes systemd in a control group of its own.
set -eu
root=$1 unified=$2 group=$3 target=$4

if [ "${5:-}" != inside ]; then
	mkdir -p "$unified/$group"
	echo $$ >"$unified/$group/cgroup.procs"
	exec unshare --cgroup /bin/bash "$0" "$@" inside
fi

mount --make-rprivate /
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t bpf -o mode=700 bpf "$root/sys/fs/bpf"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null zero full random urandom tty; do
	: >"$root/dev/$node"
	mount --bind "/dev/$node" "$root/dev/$node"
done
: >"$root/dev/kmsg" # the machine's own messages are none of the test's
mkdir -p "$root/dev/shm" "$root/dev/pts" "$root/dev/mqueue"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/var/log"
mkdir -p "$root/run/lock"

# Only what the test asks for: none of this machine's own units.
rm -rf "$root/etc/systemd/system" "$root/etc/systemd/network"
mkdir -p "$root/etc/systemd/system" "$root/etc/systemd/journald.conf.d"
for folder in system-generators system-environment-generators \
	system/sysinit.target.wants system/multi-user.target.wants; do
	[ ! -d "$root/usr/lib/systemd/$folder" ] ||
		mount -t tmpfs tmpfs "$root/usr/lib/systemd/$folder"
done
cat >"$root/etc/systemd/journald.conf.d/test.conf" <<'END'
[Journal]
Storage=volatile
ReadKMsg=no
Audit=no
RateLimitBurst=0
END
cat >"$root/etc/systemd/system/$target" <<'END'
[Unit]
Description=What a test needs
DefaultDependencies=no
Requires=systemd-journald.service
After=systemd-journald.service
END
hostname xlb-test
cd "$root"
mkdir -p .before
pivot_root . .before
exec chroot . /bin/sh -c 'umount -l /.before
	rmdir /.before
	export container=xlb-test
	exec /lib/systemd/systemd --system --unit='"$target"' --log-target=journal \
		--show-status=no --log-level=notice'
