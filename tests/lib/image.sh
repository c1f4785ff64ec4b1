#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# image.sh OUT.qcow2 GUESTDIR: a small disk image that boots by itself, the way
# users' images do: boot loader, kernel, initramfs, and a root file system of
# Debian packages on a partition.  Instead of cloud-init a script reads the
# seed: network-config's addresses and routes, meta-data's name, and user-data
# when it is a script.  GUESTDIR is what examples/guest/build.sh made: its
# kernel is used.  No mounts and no loop devices are needed.
set -eu
export LC_ALL=C
out=$1 guest=$2
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)

mkdir -p "$(dirname "$out")"
exec 9>"$out.lock"
flock 9
stamp=$(cat "$0" "$top/tools/backend.c" "$guest"/kernel/boot/config-* | sha256sum | cut -d' ' -f1)
if [ -s "$out" ] && [ "$(cat "$out.stamp" 2>/dev/null)" = "$stamp" ]; then
	exit 0
fi
work=$(mktemp -d "$out.XXXXXX")
trap 'rm -rf "$work"' EXIT
say() { echo "# image: $*"; }

say "root file system from Debian packages"
. /etc/os-release
# A mirror that is being updated refuses for a moment.
fetch_root() {
	rm -rf "$work/root"
	mmdebstrap --quiet --variant=extract --include=busybox-static,base-files \
		--aptopt='Acquire::Retries "3"' \
		"${VERSION_CODENAME:-stable}" "$work/root" >/dev/null 2>"$work/log"
}
fetch_root || { sleep 5 && fetch_root; } || { sleep 20 && fetch_root; } || {
	cat "$work/log" >&2
	exit 1
}
root=$work/root
mkdir -p "$root"/{bin,sbin,dev,proc,sys,mnt,boot,usr/bin,usr/sbin}
busybox=$(find "$root/bin/" "$root/usr/bin/" -name busybox | head -n 1)
for a in sh mount cat echo insmod hostname ip sed grep head sleep usleep cut \
	touch sync poweroff; do
	[ -e "$root/bin/$a" ] || ln -s busybox "$(dirname "$busybox")/$a"
done
gcc -std=gnu17 -O2 -D_GNU_SOURCE -static -s -o "$root/bin/xlb-backend" \
	"$top/tools/backend.c"

module() { # NAME DIR
	cp "$(find "$guest/kernel" -name "${1//_/[-_]}.ko")" "$2/$1.ko"
	strip --strip-debug "$2/$1.ko"
}
mkdir -p "$root/lib/modules"
for m in failover net_failover virtio_net cdrom isofs; do
	module $m "$root/lib/modules"
done

cat >"$root/sbin/init" <<'INIT'
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
for m in failover net_failover virtio_net cdrom isofs; do
	insmod /lib/modules/$m.ko
done
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
mount -t iso9660 -o ro /dev/vdb /mnt
hostname "$(sed -n 's/^local-hostname: //p' /mnt/meta-data)"
ip link set lo up
mac=$(sed -n 's/.*macaddress: "\(.*\)"/\1/p' /mnt/network-config)
for i in /sys/class/net/*; do
	[ "$(cat "$i/address")" != "$mac" ] || dev=${i##*/}
done
echo 0 >"/proc/sys/net/ipv6/conf/$dev/accept_dad"
ip link set "$dev" up
for a in $(sed -n 's/^      - "\(.*\)"/\1/p' /mnt/network-config); do
	ip addr add "$a" dev "$dev"
done
for g in $(sed -n 's/^        via: "\(.*\)"/\1/p' /mnt/network-config); do
	case $g in
	*:*) ip -6 route add default via "$g" dev "$dev" ;;
	*) ip route add default via "$g" dev "$dev" ;;
	esac
done
echo "written on the first boot" >/etc/booted
sync
if head -n 1 /mnt/user-data | grep -q '^#!'; then
	sh /mnt/user-data
fi
echo "xlb image: $(hostname) is up after $(cut -d' ' -f1 /proc/uptime) s"
while :; do sleep 1000; done
INIT
chmod 755 "$root/sbin/init"

say "initramfs"
initrd=$work/initrd
mkdir -p "$initrd"/{bin,dev,proc,sys,root,lib/modules}
cp "$busybox" "$initrd/bin/busybox"
for a in sh mount insmod usleep switch_root; do
	ln -s busybox "$initrd/bin/$a"
done
for m in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev \
	virtio_pci virtio_blk; do
	module $m "$initrd/lib/modules"
	echo "insmod /lib/modules/$m.ko"
done >"$initrd/modules"
cat >"$initrd/init" <<'INIT'
#!/bin/sh
mount -t devtmpfs dev /dev
. /modules
tries=0
while [ ! -e /dev/vda1 ] && [ $tries -lt 500 ]; do
	usleep 10000
	tries=$((tries + 1))
done
mount -t ext4 /dev/vda1 /root
mount --move /dev /root/dev
exec switch_root /root /sbin/init
INIT
chmod 755 "$initrd/init"
(cd "$initrd" && find . -print0 | sort -z |
	cpio -0 -o -H newc -R 0:0 --quiet) >"$root/boot/initrd"
cp "$(find "$guest/kernel/boot" -name 'vmlinuz-*' | head -n 1)" \
	"$root/boot/vmlinuz"
mkdir -p "$root/boot/grub"
cat >"$root/boot/grub/grub.cfg" <<'CFG'
linux /boot/vmlinuz quiet console=ttyS0 panic=-1 cryptomgr.notests
initrd /boot/initrd
boot
CFG

say "disk with boot loader"
rm -rf "$root"/usr/share/{doc,man,locale}
size=$(($(du -sm "$root" | cut -f1) + 24))
mke2fs -q -t ext4 -O ^metadata_csum,^64bit -d "$root" "$work/part" "${size}M" >/dev/null
truncate -s $((size + 2))M "$work/disk"
grub-mkimage -O i386-pc -p '(hd0,msdos1)/boot/grub' -o "$work/core.img" \
	biosdisk part_msdos ext2 linux normal configfile minicmd
grub=/usr/lib/grub/i386-pc
dd if=$grub/boot.img of="$work/disk" bs=440 count=1 conv=notrunc status=none
# One bootable partition, from 1 MiB on.
le32() { printf '\\x%02x\\x%02x\\x%02x\\x%02x' $(($1 & 255)) $(($1 >> 8 & 255)) \
	$(($1 >> 16 & 255)) $(($1 >> 24 & 255)); }
printf "\\x80\\xfe\\xff\\xff\\x83\\xfe\\xff\\xff$(le32 2048)$(le32 $((size * 2048)))" |
	dd of="$work/disk" bs=1 seek=446 conv=notrunc status=none
printf '\x55\xaa' | dd of="$work/disk" bs=1 seek=510 conv=notrunc status=none
dd if="$work/core.img" of="$work/disk" bs=512 seek=1 conv=notrunc status=none
dd if="$work/part" of="$work/disk" bs=1M seek=1 conv=notrunc status=none
qemu-img convert -q -O qcow2 "$work/disk" "$work/out"
mv "$work/out" "$out"
echo "$stamp" >"$out.stamp"
say "ready: $(du -h "$out" | cut -f1)"
