-- SPDX-License-Identifier: GPL-2.0-or-later
-- What did the newest revision of the file change?  For another one, put its
-- id in place of the subquery.
--   sqlite3 -box /var/lib/xlb/history.db < examples/queries/changes_of_revision.sql
SELECT r.id AS revision, substr(r.git_revision, 1, 12) AS git, c.time,
	c.action, c.object, c.cause, c.file || ':' || c.line AS at, c.result,
	c.error
FROM revisions r
JOIN change_history c ON c.revision_id = r.id
WHERE r.id = (SELECT max(revision_id) FROM change_history)
ORDER BY c.time_ms, c.object;
