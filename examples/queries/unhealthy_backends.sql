-- SPDX-License-Identifier: GPL-2.0-or-later
-- Which backends changed their health, how often, and what are they now?
--   sqlite3 -box /var/lib/xlb/history.db < examples/queries/unhealthy_backends.sql
SELECT h.service, h.backend, count(*) AS changes,
	max(h.time) AS last_change,
	(SELECT l.from_state || ' -> ' || l.to_state FROM health_history l
		WHERE l.service = h.service AND l.backend = h.backend
		ORDER BY l.time_ms DESC LIMIT 1) AS last,
	(SELECT l.reason FROM health_history l
		WHERE l.service = h.service AND l.backend = h.backend
		ORDER BY l.time_ms DESC LIMIT 1) AS reason,
	round(avg(h.probe_ms), 1) AS mean_probe_ms
FROM health_history h
GROUP BY h.service, h.backend
ORDER BY changes DESC, last_change DESC;
