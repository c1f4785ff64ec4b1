-- SPDX-License-Identifier: GPL-2.0-or-later
-- From reading a saved file to its last change being recorded, in ms.
--   sqlite3 -box /var/lib/xlb/history.db < examples/queries/save_to_applied.sql
SELECT r.id AS revision, r.time, r.result, count(*) AS changes,
	sum(c.error IS NOT NULL AND c.error <> '') AS failed,
	max(c.time_ms) - r.time_ms AS ms
FROM revisions r
JOIN change_history c ON c.revision_id = r.id
GROUP BY r.id
ORDER BY r.id DESC
LIMIT 50;
