#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# debs.sh OUT BUILD: two Debian packages of these sources in OUT, xlb 1.0 and
# 2.0.  The second is another build: its programs for the kernel are compiled
# with another option, so that an upgrade has to swap them.
set -eu
export LC_ALL=C
unset MAKEFLAGS MFLAGS MAKEOVERRIDES
out=$1 build=$2
top=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$top"
exec 9>"$out/.lock"
flock 9
stamp=$(find packaging examples schemas README.md Makefile tests/lib/debs.sh \
	"$build/libxlb.a" reconciler/main.c -type f -print0 | sort -z |
	xargs -0 sha256sum | sha256sum | cut -d' ' -f1)
if [ "$(cat "$out/stamp" 2>/dev/null)" = "$stamp" ]; then
	exit 0
fi
rm -rf "$out"/*.deb "$out/stamp" "$out/1" "$out/2"
echo "# debs: packages of two builds"
for n in 1 2; do
	mkdir -p "$out/$n/b"
	cp -a "$build/reconciler" "$build/state" "$build/bpf" "$build/libxlb.a" "$out/$n/b"
done
# Only the programs and what has them in it is built again.
rm -rf "$out/2/b/bpf" "$out/2/b/libxlb.a"
find "$out/2/b" -name '*.d' -exec grep -l 'skel\.h' {} + | sed 's/d$/o/' | xargs rm -f
make -s B="$out/2/b" BPF_EXTRA=-fno-unroll-loops VERSION=2.0 "$out/2/b/xlb-reconcile" >/dev/null
if cmp -s "$out/1/b/bpf/xdp.bpf.o" "$out/2/b/bpf/xdp.bpf.o"; then
	echo "debs: both builds have the same programs" >&2
	exit 1
fi
for n in 1 2; do
	packaging/deb.sh "$out/$n" $n.0 "$out/$n/b" >/dev/null
	mv "$out/$n"/xlb_$n.0_*.deb "$out/xlb_$n.0.deb"
	rm -rf "${out:?}/$n"
done
echo "$stamp" >"$out/stamp"
