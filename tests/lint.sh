#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Formatter, linter and house rules over all tracked files; prints TAP.
# clang-tidy's verdict on a file is kept under build/lint, named by a hash of
# everything that it read, so that a second run only looks at what changed.
set -u
cd "$(dirname "$0")/.." || exit 1

cache=build/lint
# build/ holds generated headers, which are nobody's to tidy.
flags="-D_GNU_SOURCE -DXLB_VERSION=\"lint\" -I. -Ireconciler -isystem build -std=gnu17
	$(make -s --no-print-directory --eval='lint-flags:;@echo $(PKG_CFLAGS)' lint-flags)"
# The analyzer looks at so many states of a function at most, which takes a third
# of the time; the long form leaves it its own bound, 225,000.
[ -n "${XLB_SOAK:-}" ] || flags="$flags -Xclang -analyzer-config -Xclang max-nodes=60000"
count=0
failed=0

tracked() {
	git ls-files -- "$@" | while read -r f; do [ -f "$f" ] && echo "$f"; done
}

# verdict NAME OUTPUT: an empty output is a pass.
verdict() {
	count=$((count + 1))
	if [ -z "$2" ]; then
		echo "ok $count - $1"
		return
	fi
	echo "not ok $count - $1"
	printf '%s\n' "$2" | head -n 200 | sed 's/^/# /'
	failed=1
}

check_format() {
	tracked '*.c' '*.h' | xargs -r clang-format --dry-run -Werror 2>&1
}

# The headers that the programs' skeletons are generated into.
make_skeletons() {
	local skeletons

	skeletons=$(tracked 'bpf/*.bpf.c' | sed 's,^,build/,; s,\.c$,,; s,bpf$,skel.h,')
	# shellcheck disable=SC2086
	[ -z "$skeletons" ] || make -s --no-print-directory $skeletons 2>&1
}

tidy_key() {
	local files

	# shellcheck disable=SC2086
	files=$(clang -MM ${flags%% -Xclang*} "$1" 2>/dev/null | tr -d '\\' | cut -d: -f2-) || return
	# shellcheck disable=SC2086
	{ clang-tidy --version; echo "$flags"; cat .clang-tidy $files; } | sha256sum | cut -c1-32
}

# The analyzer follows calls into generated code, whatever the header filter.
only_generated() {
	[ -n "$1" ] && ! grep -E ': (error|warning): ' <<<"$1" | grep -qvE '(^|/)build/'
}

# The output of a clean file is empty; only those are remembered.
tidy_one() {
	local key out

	key=$(tidy_key "$1")
	[ -n "$key" ] && [ -e "$cache/$key" ] && return
	# shellcheck disable=SC2086
	if out=$(clang-tidy --quiet "$1" -- $flags 2>/dev/null) || only_generated "$out"; then
		[ -z "$key" ] || : >"$cache/$key"
	else
		printf '%s\n' "${out:-$1: clang-tidy failed}" | sed "s,$PWD/,,"
	fi
}

check_tidy() {
	mkdir -p "$cache"
	# What nothing has asked for in a month belongs to files long changed.
	find "$cache" -type f -mtime +30 -delete
	make_skeletons || return
	export -f tidy_key tidy_one only_generated
	export flags cache
	tracked 'reconciler/*.c' 'state/*.c' 'tools/*.c' |
		xargs -r -P "$(nproc)" -n 1 bash -c 'tidy_one "$1"' -
}

# Sources by name, and scripts by their first line.
sources() {
	tracked '*.c' '*.h' '*.py' '*.sh' '*.sql' Makefile
	scripts '.*'
}

scripts() {
	tracked | grep -vE '^tests/(golden|fuzz/corpus)/' | tr '\n' '\0' |
		xargs -0 -r awk 'FNR == 1 && /^#!/ { print FILENAME "\t" $0 } { nextfile }' |
		grep -E "	.*$1" | cut -f1
}

check_licence() {
	sources | sort -u | while read -r f; do
		head -n 3 "$f" | grep -q 'SPDX-License-Identifier: GPL-2.0-or-later' ||
			echo "$f: no SPDX line among the first three"
	done
}

check_comments() {
	tracked '*.c' '*.h' | python3 -c '
import re, sys
skip = re.compile(r"""("(?:\\.|[^"\\\n])*"|\x27(?:\\.|[^\x27\\\n])*\x27|/\*.*?\*/)|//""", re.S)
for name in sys.stdin.read().split("\n"):
    text = open(name).read() if name else ""
    for m in skip.finditer(text):
        if not m.group(1):
            print("%s:%d: a // comment" % (name, text.count("\n", 0, m.start()) + 1))
'
}

check_shell() {
	{ tracked '*.sh'; scripts '(ba|da|)sh'; } | sort -u | while read -r f; do
		bash -n "$f" 2>&1
	done
}

# compile() and not py_compile, which would leave __pycache__ behind.
check_python() {
	{ tracked '*.py'; scripts python; } | sort -u | while read -r f; do
		python3 -W error -c 'import pathlib, sys
compile(pathlib.Path(sys.argv[1]).read_text(), sys.argv[1], "exec")' "$f" 2>&1 | tail -n 4
	done
}

echo 1..6
verdict "SPDX lines" "$(check_licence)"
verdict "no // comments" "$(check_comments)"
verdict "shell syntax" "$(check_shell)"
verdict "python syntax" "$(check_python)"
verdict "clang-format" "$(check_format)"
verdict "clang-tidy" "$(check_tidy)"
exit $failed
