-- SPDX-License-Identifier: GPL-2.0-or-later
-- Why did it scale?  Every action with what was measured, newest first.
--   sqlite3 -box /var/lib/xlb/history.db < examples/queries/why_did_it_scale.sql
SELECT s.time, s.service, s.direction,
	s.from_vms || ' -> ' || s.to_vms AS vms,
	s.reason, s.limited_by, s.message,
	(SELECT group_concat(json_extract(j.value, '$.metric') || ' '
			|| coalesce(json_extract(j.value, '$.value'), 'missing')
			|| ' (target ' || json_extract(j.value, '$.target')
			|| ')', ', ')
		FROM json_each(s.signals) j) AS measured,
	s.took_ms
FROM scaling_history s
WHERE s.direction <> 'hold'
ORDER BY s.time_ms DESC
LIMIT 50;
