-- SPDX-License-Identifier: GPL-2.0-or-later
-- Why did it not scale?  Times when the signals asked for another number of
-- VMs, or were missing, and the rule that held it; newest first.
--   sqlite3 -box /var/lib/xlb/history.db < examples/queries/why_not.sql
SELECT time, service, from_vms AS vms, wanted_vms AS wanted, limited_by,
	message
FROM scaling_history
WHERE direction = 'hold' AND limited_by <> ''
ORDER BY time_ms DESC
LIMIT 50;
