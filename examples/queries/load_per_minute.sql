-- SPDX-License-Identifier: GPL-2.0-or-later
-- Load per ready VM by the minute, the newest two hours first.
--   sqlite3 -box /var/lib/xlb/history.db < examples/queries/load_per_minute.sql
SELECT strftime('%Y-%m-%dT%H:%MZ', time_ms / 60000 * 60, 'unixepoch')
		AS minute,
	service, metric, unit,
	round(sum(mean * max(samples, 1)) / sum(max(samples, 1)), 1) AS mean,
	round(min(min), 1) AS min, round(max(max), 1) AS max,
	max(ready_vms) AS ready_vms
FROM load_history
WHERE resolution_s <= 60
	AND time_ms > (SELECT max(time_ms) FROM load_history) - 7200000
GROUP BY minute, service, metric
ORDER BY minute DESC, service, metric;
