-- SPDX-License-Identifier: GPL-2.0-or-later
-- Everything that happened from a minute before the newest scaling action to
-- five minutes after it, in order.
--   sqlite3 -box /var/lib/xlb/history.db < examples/queries/around_a_scaling.sql
SELECT t.time, t.kind, t.service, t.text
FROM timeline t,
	(SELECT max(time_ms) AS ms FROM scaling_history
		WHERE direction <> 'hold') a
WHERE t.time_ms BETWEEN a.ms - 60000 AND a.ms + 300000
ORDER BY t.time_ms;
