#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# deb-test.sh DIR: the newest package of DIR in a clean Debian (or Ubuntu) that
# is made for it from the network: apt installs it with what it depends on, it
# answers, it goes, and nothing of it stays.  Then the upgrade test in that
# system, with systemd and traffic.  Needs root; takes a minute or two.
set -eu
export LC_ALL=C
dir=$1
top=$(cd "$(dirname "$0")/.." && pwd)
deb=$(ls -t "$dir"/xlb_*.deb | head -n 1)
. /etc/os-release
components=main bpftool=bpftool # which the test looks at programs with
if [ "${ID:-}" = ubuntu ]; then
	components=main,universe bpftool=linux-tools-generic
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/xlb-deb.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root

cat >"$work/try.sh" <<'TRY'
#!/bin/sh
# In the new system.
set -eux
export DEBIAN_FRONTEND=noninteractive
everything() { find / -xdev \( -path /proc -o -path /sys -o -path /tmp -o -path /var/cache \
	-o -path /var/log -o -path /var/lib/apt \) -prune -o -print | sort; }
# What it depends on first, so that all that is new then is its own.
apt-get -qq install -y --no-install-recommends /tmp/xlb.deb
dpkg -P xlb
everything >/tmp/before
dpkg -i /tmp/xlb.deb
xlb-reconcile --version
xlb-reconcile --help | grep -q 'usage: xlb-reconcile'
xlb-reconcile -f /usr/share/doc/xlb/examples/minimal/services.yaml check
cp /usr/share/doc/xlb/examples/minimal/services.yaml /etc/xlb/
xlb-reconcile check | grep 'is valid'
sed -i s/vips/vipz/ /etc/xlb/services.yaml
! xlb-reconcile check
rm /etc/xlb/services.yaml
for page in man8/xlb-reconcile.8.gz man5/xlb-services.yaml.5.gz; do
	zcat /usr/share/man/$page | grep -q '^\.Sh DESCRIPTION'
done
test -f /lib/systemd/system/xlb-reconcile.service
mkdir -p /var/lib/xlb && touch /var/lib/xlb/history.db
dpkg -r xlb
test -f /var/lib/xlb/history.db
dpkg -P xlb
everything >/tmp/after
diff /tmp/before /tmp/after
rm /tmp/before /tmp/after /tmp/xlb.deb /tmp/try.sh
TRY
chmod 755 "$work/try.sh"
echo "# deb-test: a clean ${VERSION_CODENAME:-system}, and $(basename "$deb") in it"
mmdebstrap --quiet --variant=apt --components=$components --include=systemd,iproute2,procps,$bpftool \
	--dpkgopt='path-exclude=/usr/share/doc/*' \
	--dpkgopt='path-include=/usr/share/doc/xlb/*' \
	--dpkgopt='path-exclude=/usr/share/locale/*' \
	--customize-hook="copy-in $work/try.sh /tmp" \
	--customize-hook="cp '$deb' \"\$1/tmp/xlb.deb\"" \
	--customize-hook='chroot "$1" /tmp/try.sh' \
	"${VERSION_CODENAME:-stable}" "$root" >"$work/log" 2>&1 || {
	tail -n 60 "$work/log" >&2
	exit 1
}
echo "# deb-test: installed, tried, removed, purged: nothing is left"
make -s -C "$top" debs
XLB_DEB_ROOT=$root "$top/tests/net/upgrade_test.py"
