-- SPDX-License-Identifier: GPL-2.0-or-later
-- Every VM: its first and last event, and how long it lived so far.
--   sqlite3 -box /var/lib/xlb/history.db < examples/queries/vm_lifetimes.sql
SELECT service, vm, max(address) AS address, count(*) AS events,
	min(time) AS first_seen, max(time) AS last_seen,
	(SELECT event FROM vm_history l
		WHERE l.service = v.service AND l.vm = v.vm
		ORDER BY l.time_ms DESC LIMIT 1) AS last_event,
	round((max(time_ms) - min(time_ms)) / 1000.0, 1) AS seconds
FROM vm_history v
GROUP BY service, vm
ORDER BY min(time_ms) DESC
LIMIT 100;
