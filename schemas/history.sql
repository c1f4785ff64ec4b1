-- SPDX-License-Identifier: GPL-2.0-or-later
-- history.db, version 2: what happened and why.  Read the views; the tables
-- may change with a version, the views keep their columns.  Times are wall
-- clock, milliseconds since 1970, and shown as ISO-8601 in UTC.

CREATE TABLE revision (
	id INTEGER PRIMARY KEY,
	time_ms INTEGER NOT NULL,
	path TEXT NOT NULL,
	sha256 TEXT NOT NULL,
	git_revision TEXT,
	git_dirty INTEGER NOT NULL DEFAULT 0,
	result TEXT NOT NULL -- applied, failed, invalid, refused, held, destroyed
) STRICT;
CREATE INDEX revision_result ON revision (result);
CREATE INDEX revision_time ON revision (time_ms);

-- A steady hold is one row: `times` decisions alike from time_ms to until_ms.
CREATE TABLE scaling (
	id INTEGER PRIMARY KEY,
	time_ms INTEGER NOT NULL,
	until_ms INTEGER NOT NULL,
	times INTEGER NOT NULL DEFAULT 1,
	service TEXT NOT NULL,
	direction TEXT NOT NULL CHECK (direction IN ('up', 'down', 'hold')),
	from_vms INTEGER NOT NULL,
	wanted_vms INTEGER NOT NULL,
	to_vms INTEGER NOT NULL,
	reason TEXT NOT NULL,
	limited_by TEXT NOT NULL DEFAULT '',
	message TEXT NOT NULL,
	signals TEXT NOT NULL CHECK (json_valid(signals)),
	mode TEXT NOT NULL CHECK (mode IN ('live', 'observe')),
	revision_id INTEGER REFERENCES revision (id),
	took_ms INTEGER
) STRICT;
CREATE INDEX scaling_service ON scaling (service);
CREATE INDEX scaling_time ON scaling (time_ms);
CREATE INDEX scaling_until ON scaling (until_ms);
CREATE INDEX scaling_revision ON scaling (revision_id);

CREATE TABLE change (
	id INTEGER PRIMARY KEY,
	time_ms INTEGER NOT NULL,
	revision_id INTEGER REFERENCES revision (id),
	run_id TEXT,
	object TEXT NOT NULL,
	action TEXT NOT NULL,
	cause TEXT,
	file TEXT,
	line INTEGER,
	result TEXT NOT NULL,
	error TEXT,
	took_ms INTEGER
) STRICT;
CREATE INDEX change_time ON change (time_ms);
CREATE INDEX change_revision ON change (revision_id);

CREATE TABLE vm_event (
	id INTEGER PRIMARY KEY,
	time_ms INTEGER NOT NULL,
	service TEXT NOT NULL,
	vm TEXT NOT NULL,
	hypervisor TEXT,
	address TEXT,
	event TEXT NOT NULL,
	reason TEXT,
	took_ms INTEGER
) STRICT;
CREATE INDEX vm_event_time ON vm_event (time_ms);
CREATE INDEX vm_event_vm ON vm_event (service, vm);

CREATE TABLE health (
	id INTEGER PRIMARY KEY,
	time_ms INTEGER NOT NULL,
	service TEXT NOT NULL,
	backend TEXT NOT NULL,
	from_state TEXT NOT NULL,
	to_state TEXT NOT NULL,
	reason TEXT,
	probe_ms REAL
) STRICT;
CREATE INDEX health_time ON health (time_ms);
CREATE INDEX health_backend ON health (service, backend);

-- level 0: one row an interval; 1: rolled up to minutes; 2: to hours.  A
-- rolled-up row's time is the beginning of its minute or hour.
CREATE TABLE load (
	level INTEGER NOT NULL,
	time_ms INTEGER NOT NULL,
	service TEXT NOT NULL,
	metric TEXT NOT NULL,
	mean REAL NOT NULL,
	min REAL NOT NULL,
	max REAL NOT NULL,
	samples INTEGER NOT NULL,
	ready_vms INTEGER NOT NULL,
	resolution_s INTEGER NOT NULL,
	PRIMARY KEY (level, time_ms, service, metric)
) STRICT, WITHOUT ROWID;

-- What the scaler remembers, so that windows survive a restart.
CREATE TABLE scaler (
	service TEXT PRIMARY KEY,
	time_ms INTEGER NOT NULL,
	memory TEXT NOT NULL CHECK (json_valid(memory))
) STRICT, WITHOUT ROWID;

-- What an operator asked for; until_ms 0: for ever.
CREATE TABLE operator_override (
	kind TEXT NOT NULL,
	key TEXT NOT NULL,
	since_ms INTEGER NOT NULL,
	until_ms INTEGER NOT NULL,
	PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;

-- Deletions of VMs that an edit or drift asked for, which are limited by time;
-- open: it may go, and is still there.  The row without a VM says since when
-- they are known (0: always).
CREATE TABLE vm_deletion (
	id INTEGER PRIMARY KEY,
	time_ms INTEGER NOT NULL,
	vm TEXT NOT NULL,
	approved INTEGER NOT NULL,
	open INTEGER NOT NULL
) STRICT;

-- Services that stay when their block is edited away, as they were declared
-- last: protected ones, ones that pause, ones whose VMs may not all go at once.
CREATE TABLE declaration (
	service TEXT PRIMARY KEY,
	time_ms INTEGER NOT NULL,
	protect INTEGER NOT NULL,
	text TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW scaling_history AS
SELECT strftime('%Y-%m-%dT%H:%M:%S', time_ms / 1000, 'unixepoch')
		|| printf('.%03dZ', time_ms % 1000) AS time,
	time_ms, service, direction, from_vms, wanted_vms, to_vms, reason,
	limited_by,
	CASE times WHEN 1 THEN message
	ELSE message || ' (' || times || ' times, until '
		|| strftime('%Y-%m-%dT%H:%M:%S', until_ms / 1000, 'unixepoch')
		|| printf('.%03dZ)', until_ms % 1000)
	END AS message,
	signals, mode, revision_id, took_ms
FROM scaling;

CREATE VIEW change_history AS
SELECT strftime('%Y-%m-%dT%H:%M:%S', time_ms / 1000, 'unixepoch')
		|| printf('.%03dZ', time_ms % 1000) AS time,
	time_ms, revision_id, run_id, object, action, cause, file, line,
	result, error, took_ms
FROM change;

CREATE VIEW vm_history AS
SELECT strftime('%Y-%m-%dT%H:%M:%S', time_ms / 1000, 'unixepoch')
		|| printf('.%03dZ', time_ms % 1000) AS time,
	time_ms, service, vm, hypervisor, address, event, reason, took_ms
FROM vm_event;

CREATE VIEW health_history AS
SELECT strftime('%Y-%m-%dT%H:%M:%S', time_ms / 1000, 'unixepoch')
		|| printf('.%03dZ', time_ms % 1000) AS time,
	time_ms, service, backend, from_state, to_state, reason, probe_ms
FROM health;

CREATE VIEW load_history AS
SELECT strftime('%Y-%m-%dT%H:%M:%S', time_ms / 1000, 'unixepoch')
		|| printf('.%03dZ', time_ms % 1000) AS time,
	time_ms, service, metric,
	CASE metric
		WHEN 'cpu' THEN '%'
		WHEN 'packets_per_second' THEN 'packets/s'
		WHEN 'new_connections_per_second' THEN 'connections/s'
		ELSE '' END AS unit,
	mean, min, max, samples, ready_vms, resolution_s
FROM load;

CREATE VIEW revisions AS
SELECT id,
	strftime('%Y-%m-%dT%H:%M:%S', time_ms / 1000, 'unixepoch')
		|| printf('.%03dZ', time_ms % 1000) AS time,
	time_ms, path, sha256, git_revision, git_dirty, result
FROM revision;

-- Everything but load, in words; what `xlb-reconcile history` prints.
CREATE VIEW timeline AS
SELECT time, time_ms, 'scaling' AS kind, service, message AS text
FROM scaling_history
UNION ALL
SELECT time, time_ms, 'change',
	CASE WHEN object NOT LIKE 'service.%' THEN NULL
	WHEN instr(object, '/') THEN substr(object, 9, instr(object, '/') - 9)
	ELSE substr(object, 9) END,
	action || ' ' || object || ': ' || result
		|| coalesce(', ' || nullif(error, ''), '')
		|| coalesce(' (' || nullif(cause, '') || ')', '')
FROM change_history
UNION ALL
SELECT time, time_ms, 'vm', service,
	vm || ' ' || event
		|| coalesce(' at ' || nullif(address, ''), '')
		|| coalesce(': ' || nullif(reason, ''), '')
		|| coalesce(' (' || took_ms || ' ms)', '')
FROM vm_history
UNION ALL
SELECT time, time_ms, 'health', service,
	backend || ' ' || from_state || ' -> ' || to_state
		|| coalesce(': ' || nullif(reason, ''), '')
FROM health_history
UNION ALL
SELECT time, time_ms, 'revision', NULL,
	'revision ' || id || ' of ' || path || ': ' || result
		|| coalesce(', git ' || substr(nullif(git_revision, ''), 1, 12)
		|| CASE git_dirty WHEN 0 THEN '' ELSE ' (dirty)' END, '')
FROM revisions;

PRAGMA user_version = 2;
