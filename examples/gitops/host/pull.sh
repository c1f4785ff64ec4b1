#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# pull.sh WORKTREE: brings it to what its branch is upstream.  Only forward: a
# rewritten branch, or an edit in the work tree that is in the way, is an error
# for people to look at; nothing changes then.
set -eu
cd "$1"
git fetch --quiet
before=$(git rev-parse HEAD)
git merge --ff-only --quiet '@{upstream}'
now=$(git rev-parse HEAD)
[ "$before" = "$now" ] || git log --oneline "$before..$now" -- services
