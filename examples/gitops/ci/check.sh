#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# check.sh [--plan FILE]: is services/ valid?  With --plan, on the balancer,
# also what it would change: as JSON in FILE, and as text.
# Ends with 0, 3 (not valid), 4 (a guard would hold it back) or 1.
set -eu
cd "$(dirname "$0")/.."
xlb-reconcile -f services check
[ "${1:-}" = --plan ] || exit 0
plan=$2
code=0
xlb-reconcile -f services plan --json >"$plan" || code=$?
xlb-reconcile -f services plan || true # the same for people
exit $code
