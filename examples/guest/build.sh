#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# build.sh OUTDIR: the smallest guest that serves: OUTDIR/vmlinuz and
# OUTDIR/initrd.  The kernel is the distribution's, downloaded and unpacked
# below OUTDIR: nothing is installed.  Run again, it does only what is needed.
set -eu
export LC_ALL=C

[ $# = 1 ] || {
	echo "usage: build.sh OUTDIR" >&2
	exit 64
}
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
server=$top/tools/backend.c
unwrap=$here/unwrap.c

# In insmod order; what the kernel has built in is left out.
modules="failover net_failover virtio_ring virtio virtio_pci_legacy_dev
virtio_pci_modern_dev virtio_pci virtio_net"
late_modules="evdev button"
# For a guest behind ipip or gue, in this order too.
tunnel_modules="ip_tunnel tunnel4 ipip sit tunnel6 ip6_tunnel udp_tunnel
ip6_udp_tunnel fou"
applets="sh mount cat echo insmod hostname ip usleep cut udhcpc poweroff acpid"

say() { echo "guest: $*"; }
die() {
	echo "guest: $*" >&2
	exit 1
}

busybox=
for b in /bin/busybox /usr/bin/busybox; do
	if [ -x $b ] && ! ldd $b >/dev/null 2>&1; then busybox=$b; fi
done
[ -n "$busybox" ] || die "no static busybox: install busybox-static"

# Two builds at once would tread on each other.
exec 9>"$out/.lock"
flock 9

stamp=$(cat "$here/build.sh" "$here/init" "$here/dhcp" "$server" "$unwrap" "$busybox" |
	sha256sum | cut -d' ' -f1)
if [ -s "$out/vmlinuz" ] && [ -s "$out/initrd" ] &&
	[ "$(cat "$out/.stamp" 2>/dev/null)" = "$stamp" ]; then
	exit 0
fi

arch=$(dpkg --print-architecture)

# What a package of kernel images depends on, by a pattern: the real package
# behind a meta package, which is the newest of the release.
depends() {
	apt-cache depends --no-recommends --no-suggests --no-conflicts \
		--no-breaks --no-replaces --no-enhances "$1" 2>/dev/null |
		sed -n 's/^ *|\?Depends: *//p' | grep -E "$2" || true
}

# Names of the packages with the kernel and its modules.
kernel_packages() {
	local meta image
	for meta in "linux-image-cloud-$arch" linux-image-virtual \
		linux-image-kvm "linux-image-$arch"; do
		image=$(depends "$meta" '^linux-image-' | head -n 1)
		[ -n "$image" ] || continue
		echo "$image"
		depends "$image" '^linux-modules-'
		return
	done
	apt-cache pkgnames linux-image- |
		grep -E "^linux-image-[0-9].*-cloud-$arch(-unsigned)?\$" |
		sort -V | tail -n 1
}

fetch_kernel() {
	local packages work=$out/kernel.new
	packages=$(kernel_packages)
	if [ -z "$packages" ]; then
		say "reading package lists"
		apt-get update -q >/dev/null
		packages=$(kernel_packages)
	fi
	[ -n "$packages" ] || die "no kernel package found for $arch"
	rm -rf "$work"
	mkdir -p "$work"
	say "downloading" $packages
	# The package may be newer than the lists know: then read them again.
	# shellcheck disable=SC2086
	(cd "$work" && { apt_download $packages ||
		{ apt-get update -q >/dev/null &&
			apt_download $(kernel_packages); }; }) ||
		die "the kernel can't be downloaded"
	say "unpacking the kernel"
	for p in "$work"/*.deb; do
		dpkg-deb -x "$p" "$work"
	done
	rm -f "$work"/*.deb
	rm -rf "$out/kernel"
	mv "$work" "$out/kernel"
}

apt_download() {
	apt-get -o APT::Sandbox::User=root -o Acquire::Retries=3 -qq download "$@" >/dev/null 2>&1
}

image=$(find "$out/kernel/boot" -name 'vmlinuz-*' 2>/dev/null | head -n 1)
if [ -z "$image" ]; then
	fetch_kernel
	image=$(find "$out/kernel/boot" -name 'vmlinuz-*' | head -n 1)
fi
[ -n "$image" ] || die "no kernel in its package"

root=$out/root
rm -rf "$root"
mkdir -p "$root"/{bin,dev,proc,sys,tmp,lib/modules/{late,tunnel},etc/acpi/PWRF}
trap 'rm -rf "$root"' EXIT

say "compiling the programs"
gcc -std=gnu17 -O2 -Wall -Wextra -D_GNU_SOURCE -static -s \
	-o "$root/bin/xlb-backend" "$server"
gcc -std=gnu17 -O2 -Wall -Wextra -D_GNU_SOURCE -static -s \
	-o "$root/bin/unwrap" "$unwrap"

# copy_module NAME DIR: 1 when the kernel has it built in.
copy_module() {
	local file stem=${1//_/[-_]}
	file=$(find "$out/kernel" -name "$stem.ko" -o -name "$stem.ko.xz" \
		-o -name "$stem.ko.zst" | head -n 1)
	[ -n "$file" ] || return 1
	case $file in
	*.xz) xz -dc "$file" >"$2/$1.ko" ;;
	*.zst) zstd -qdc "$file" >"$2/$1.ko" ;;
	*) cp "$file" "$2/$1.ko" ;;
	esac
	strip --strip-debug "$2/$1.ko"
}

# unpack_image FROM TO: the ELF image inside a bzImage, which an emulated guest
# starts 0.4 s sooner (PVH); else the image as it is.  The offsets are those of
# the x86 boot protocol; the payload ends with its unpacked size.
unpack_image() {
	local sectors offset length tool
	word() { od -A n -t "u$2" -j "$1" -N "$2" "$image" | tr -d ' '; }
	cp "$1" "$2"
	[ "$arch" = amd64 ] || return 0
	sectors=$(word $((0x1f1)) 1)
	offset=$(((${sectors/#0/4} + 1) * 512 + $(word $((0x248)) 4)))
	length=$(($(word $((0x24c)) 4) - 4))
	case $(od -A n -t x1 -j $offset -N 4 "$1" | tr -d ' ') in
	02214c18) tool="lz4 -dcq" ;;
	28b52ffd) tool="zstd -dcq" ;;
	fd377a58) tool="xz -dcq" ;;
	*) return 0 ;;
	esac
	tail -c +$((offset + 1)) "$1" | head -c $length | $tool >"$2.elf" 2>/dev/null || true
	if [ "$(head -c 4 "$2.elf" | tail -c 3)" = ELF ]; then mv "$2.elf" "$2"; fi
	rm -f "$2.elf"
}

say "packing the initramfs"
: >"$root/lib/modules/order"
: >"$root/lib/modules/tunnel/order"
for m in $modules; do
	if copy_module "$m" "$root/lib/modules"; then
		echo "$m" >>"$root/lib/modules/order"
	fi
done
for m in $late_modules; do
	copy_module "$m" "$root/lib/modules/late" || true
done
for m in $tunnel_modules; do
	if copy_module "$m" "$root/lib/modules/tunnel"; then
		echo "$m" >>"$root/lib/modules/tunnel/order"
	fi
done
cp "$busybox" "$root/bin/busybox"
for a in $applets; do
	ln -s busybox "$root/bin/$a"
done
ln -s bin "$root/sbin"
install -m 755 "$here/init" "$root/init"
install -m 755 "$here/dhcp" "$root/bin/dhcp"
printf '#!/bin/sh\npoweroff -f\n' >"$root/etc/acpi/PWRF/00000080"
chmod 755 "$root/etc/acpi/PWRF/00000080"
# Unpacked as it is: that costs an emulated guest less than decompressing.
find "$root" -exec touch -h -d @0 {} +
(cd "$root" && find . -print0 | sort -z |
	cpio -0 -o -H newc -R 0:0 --quiet --reproducible) >"$out/initrd.new"
mv "$out/initrd.new" "$out/initrd"
unpack_image "$image" "$out/vmlinuz.new"
mv "$out/vmlinuz.new" "$out/vmlinuz"
echo "$stamp" >"$out/.stamp"
say "ready: $out/vmlinuz and $out/initrd"
