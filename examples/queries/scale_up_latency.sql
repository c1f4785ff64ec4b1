-- SPDX-License-Identifier: GPL-2.0-or-later
-- How long did scaling up take, from the decision to VMs that serve?
--   sqlite3 -box /var/lib/xlb/history.db < examples/queries/scale_up_latency.sql
SELECT service, count(*) AS actions, sum(to_vms - from_vms) AS vms,
	min(took_ms) AS best_ms, round(avg(took_ms)) AS mean_ms,
	max(took_ms) AS worst_ms
FROM scaling_history
WHERE direction = 'up' AND took_ms IS NOT NULL
GROUP BY service
ORDER BY service;
