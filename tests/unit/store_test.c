/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The store on real files: records, views, roll-ups, and what can go wrong. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
/* cmocka wants the above first. */
#include <cmocka.h>

#include "base/buf.h"
#include "base/mem.h"
#include "state/db.h"

#define T0 1700000000123LL /* 2023-11-14T22:13:20.123Z */
#define S_MS 1000LL
#define HOUR_MS 3600000LL
#define DAY_MS (24 * HOUR_MS)

struct fixture {
	char dir[128];
	char *path;
	struct store *s;
};

static int open_store(struct fixture *f)
{
	struct diag_list diags = { 0 };
	int err = store_open(f->dir, false, &f->s, &diags);

	assert_int_equal(diags.errors != 0, err != 0);
	diag_list_release(&diags);
	return err;
}

static int setup(void **state)
{
	struct fixture *f = mem_alloc(sizeof(*f));
	const char *tmp = getenv("TMPDIR");

	snprintf(f->dir, sizeof(f->dir), "%s/xlb-store-XXXXXX",
		 tmp && strlen(tmp) < 100 ? tmp : "/tmp");
	if (!mkdtemp(f->dir))
		return -1;
	f->path = mem_printf("%s/history.db", f->dir);
	*state = f;
	return open_store(f);
}

static int remove_one(const char *path, const struct stat *st, int flag,
		      struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	store_close(f->s);
	nftw(f->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(f->path);
	free(f);
	return 0;
}

/* First column of the first row, as another program's connection sees it. */
static char *ask(struct fixture *f, const char *sql)
{
	sqlite3 *db = NULL;
	sqlite3_stmt *st = NULL;
	char *text = NULL;

	assert_int_equal(sqlite3_open_v2(f->path, &db, SQLITE_OPEN_READONLY,
					 NULL),
			 SQLITE_OK);
	if (sqlite3_prepare_v2(db, sql, -1, &st, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	if (sqlite3_step(st) == SQLITE_ROW)
		text = mem_dup((const char *)sqlite3_column_text(st, 0));
	sqlite3_finalize(st);
	sqlite3_close(db);
	return text;
}

static void expect(struct fixture *f, const char *sql, const char *want)
{
	char *got = ask(f, sql);

	if (!got || strcmp(got, want) != 0)
		print_error("%s: %s\n", sql, got ? got : "(null)");
	assert_non_null(got);
	assert_string_equal(got, want);
	free(got);
}

static int add_change(struct store *s, const char *run, const char *object)
{
	struct store_change c = { .time_ms = T0,
				  .run_id = run,
				  .object = object,
				  .action = "add",
				  .cause = "services.yaml:3",
				  .file = "services.yaml",
				  .line = 3,
				  .result = "ok" };

	return store_add_change(s, &c);
}

static struct store_revision revision_of(int64_t time_ms, const char *result)
{
	return (struct store_revision){ .time_ms = time_ms,
					.path = "services.yaml",
					.sha256 = "abc",
					.result = result };
}

static struct scale_decision decision_of(uint32_t from, uint32_t to)
{
	struct scale_decision d = { .from = from, .wanted = to, .to = to };

	if (to != from) {
		d.direction = to > from ? SCALE_UP : SCALE_DOWN;
		d.reason =
			to > from ? REASON_ABOVE_TARGET : REASON_BELOW_TARGET;
	}
	d.signal_count = 1;
	d.signals[0] = (struct scale_signal_view){ .metric = METRIC_CPU,
						   .present = true,
						   .value = 81,
						   .target = 60,
						   .proposal = to };
	return d;
}

static int64_t add_scaling(struct store *s, int64_t time_ms, uint32_t from,
			   uint32_t to)
{
	struct scale_decision d = decision_of(from, to);
	struct store_scaling r = { .time_ms = time_ms,
				   .service = "web",
				   .mode = "live",
				   .decision = &d };

	return store_add_scaling(s, &r);
}

/* The contract: names and order of every view's columns. */
static const struct {
	const char *view, *columns;
} views[] = {
	{ "scaling_history",
	  "time,time_ms,service,direction,from_vms,wanted_vms,to_vms,reason,"
	  "limited_by,message,signals,mode,revision_id,took_ms" },
	{ "change_history", "time,time_ms,revision_id,run_id,object,action,"
			    "cause,file,line,result,error,took_ms" },
	{ "vm_history", "time,time_ms,service,vm,hypervisor,address,event,"
			"reason,took_ms" },
	{ "health_history", "time,time_ms,service,backend,from_state,to_state,"
			    "reason,probe_ms" },
	{ "load_history", "time,time_ms,service,metric,unit,mean,min,max,"
			  "samples,ready_vms,resolution_s" },
	{ "revisions",
	  "id,time,time_ms,path,sha256,git_revision,git_dirty,result" },
};

static void test_views(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(views); i++) {
		char *sql = mem_printf("SELECT group_concat(name, ',') FROM"
				       " pragma_table_info('%s')",
				       views[i].view);

		expect(f, sql, views[i].columns);
		free(sql);
	}
	expect(f, "PRAGMA journal_mode", "wal");
	expect(f,
	       "SELECT count(*) FROM pragma_table_list"
	       " WHERE type = 'table' AND strict = 0"
	       " AND name NOT LIKE 'sqlite_%'",
	       "0");
}

static void test_records(void **state)
{
	struct fixture *f = *state;
	struct store_revision r = revision_of(T0, "held");
	struct store_vm_event e = { .time_ms = T0,
				    .service = "web",
				    .vm = "web-1",
				    .event = "created",
				    .took_ms = 41 };
	struct store_health h = { .time_ms = T0,
				  .service = "web",
				  .backend = "web-1",
				  .from_state = "joining",
				  .to_state = "up",
				  .probe_ms = 1.5 };
	char sha[65];
	int64_t id, applied;

	assert_int_equal(store_last_applied(f->s, &applied, sha), 0);
	assert_int_equal(applied, 0);
	assert_string_equal(sha, "");
	id = store_add_revision(f->s, &r);
	assert_true(id > 0);
	assert_int_equal(store_set_revision_result(f->s, id, "applied"), 0);
	assert_int_equal(store_set_revision_result(f->s, id + 9, "x"), -ENOENT);
	assert_int_equal(store_set_revision_git(f->s, id, "c0ffee", true), 0);
	assert_int_equal(store_set_revision_git(f->s, id + 9, "x", 0), -ENOENT);
	expect(f, "SELECT git_revision FROM revisions", "c0ffee");
	assert_int_equal(store_last_applied(f->s, &applied, sha), 0);
	assert_int_equal(applied, id);
	assert_string_equal(sha, "abc");
	assert_int_equal(add_change(f->s, "r1", "service.web/vm/web-1"), 0);
	assert_int_equal(store_add_vm_event(f->s, &e), 0);
	assert_int_equal(store_add_health(f->s, &h), 0);
	expect(f, "SELECT time FROM vm_history", "2023-11-14T22:13:20.123Z");
	expect(f, "SELECT time_ms FROM vm_history", "1700000000123");
	expect(f, "SELECT probe_ms FROM health_history", "1.5");
	expect(f, "SELECT file || line || result FROM change_history",
	       "services.yaml3ok");
	expect(f, "SELECT result || git_dirty FROM revisions", "applied1");
	/* What is required and missing is an error, not a crash. */
	e.vm = NULL;
	assert_int_equal(store_add_vm_event(f->s, &e), -EINVAL);
	expect(f, "SELECT count(*) FROM vm_history", "1");
}

/* Whatever a name holds stays a value. */
static void test_no_injection(void **state)
{
	struct fixture *f = *state;
	const char *evil = "x'); DROP TABLE change; --";

	assert_int_equal(add_change(f->s, evil, evil), 0);
	expect(f, "SELECT object FROM change_history", evil);
	expect(f, "SELECT run_id FROM change_history", evil);
}

static void test_steady_rolls_up(void **state)
{
	struct fixture *f = *state;
	int64_t first = add_scaling(f->s, T0, 2, 2), up;

	assert_true(first > 0);
	for (int64_t i = 1; i < 10; i++)
		assert_int_equal(add_scaling(f->s, T0 + i * (5 * S_MS), 2, 2),
				 first);
	expect(f, "SELECT count(*) FROM scaling_history", "1");
	expect(f, "SELECT message FROM scaling_history",
	       "cpu 81.0 calls for no change (60.0): stays at 2 VMs"
	       " (10 times, until 2023-11-14T22:14:05.123Z)");
	expect(f, "SELECT signals FROM scaling_history",
	       "[{\"metric\":\"cpu\",\"value\":81.0,\"target\":60.0,"
	       "\"proposal\":2}]");
	up = add_scaling(f->s, T0 + 50 * S_MS, 2, 3);
	assert_int_not_equal(up, first);
	assert_int_equal(store_set_scaling_took(f->s, up, 1234), 0);
	expect(f, "SELECT took_ms FROM scaling_history WHERE direction = 'up'",
	       "1234");
	/* Equal actions are never one row, nor holds with a gap between. */
	assert_int_not_equal(add_scaling(f->s, T0 + 55 * S_MS, 2, 3), up);
	first = add_scaling(f->s, T0 + 60 * S_MS, 3, 3);
	assert_int_not_equal(add_scaling(f->s, T0 + HOUR_MS, 3, 3), first);
	expect(f, "SELECT count(*) FROM scaling_history", "5");
}

static void test_reopen(void **state)
{
	struct fixture *f = *state;
	struct store *reader = NULL;

	add_scaling(f->s, T0, 2, 3);
	store_close(f->s);
	f->s = NULL;
	assert_int_equal(store_open(f->dir, true, &reader, NULL), 0);
	assert_int_equal(add_change(reader, "r", "x"), -EROFS);
	store_close(reader);
	assert_int_equal(open_store(f), 0);
	expect(f, "SELECT to_vms FROM scaling_history", "3");
}

static void add_load(struct store *s, int64_t time_ms, const char *service,
		     double mean)
{
	struct store_load l = { .time_ms = time_ms,
				.service = service,
				.metric = METRIC_CPU,
				.mean = mean,
				.min = mean - 1,
				.max = mean + 1,
				.samples = 2,
				.ready_vms = 2,
				.resolution_s = 5 };

	assert_int_equal(store_add_load(s, &l), 0);
}

static void test_load_rolls_up(void **state)
{
	struct fixture *f = *state;
	int64_t start = T0 - T0 % HOUR_MS, now = start + 3 * HOUR_MS;

	store_begin(f->s);
	for (int64_t i = 0; i < 720; i++) { /* mean is the minute */
		double minute = (double)(i - i % 12) / 12;

		add_load(f->s, start + i * (5 * S_MS), "web", minute);
		add_load(f->s, start + i * (5 * S_MS), "api", 7);
	}
	add_load(f->s, now, "web", 50);
	assert_int_equal(store_commit(f->s), 0);
	expect(f, "SELECT unit FROM load_history", "%");
	for (int i = 0; i < 3; i++)
		assert_int_equal(store_maintain(f->s, now, 30 * DAY_MS), 0);
	expect(f,
	       "SELECT group_concat(n) FROM (SELECT resolution_s || ':' ||"
	       " count(*) AS n FROM load_history GROUP BY resolution_s)",
	       "5:1,60:120");
	expect(f,
	       "SELECT mean || ' ' || min || ' ' || max || ' ' || samples FROM"
	       " load_history WHERE service = 'web' ORDER BY time_ms LIMIT 1"
	       " OFFSET 30",
	       "30.0 29.0 31.0 24");
	now += 3 * DAY_MS;
	for (int i = 0; i < 5; i++)
		assert_int_equal(store_maintain(f->s, now, 30 * DAY_MS), 0);
	expect(f,
	       "SELECT mean || ' ' || min || ' ' || max || ' ' || samples FROM"
	       " load_history WHERE service = 'web' AND resolution_s = 3600"
	       " ORDER BY time_ms LIMIT 1",
	       "29.5 -1.0 60.0 1440");
	now += 60 * DAY_MS;
	for (int i = 0; i < 5; i++)
		assert_int_equal(store_maintain(f->s, now, 30 * DAY_MS), 0);
	expect(f, "SELECT count(*) FROM load_history", "0");
}

/* A call does a bounded piece; enough of them do all of it. */
static void test_retention(void **state)
{
	struct fixture *f = *state;
	struct store_revision old = revision_of(T0, "applied");
	struct store_revision named = revision_of(T0, "failed");
	struct store_change c = { .time_ms = T0 + 40 * DAY_MS,
				  .object = "slots",
				  .action = "update",
				  .result = "ok" };

	assert_true(store_add_revision(f->s, &named) == 1);
	assert_true(store_add_revision(f->s, &old) == 2);
	assert_true(store_add_revision(f->s, &named) == 3);
	c.revision_id = 1;
	store_begin(f->s);
	assert_int_equal(store_add_change(f->s, &c), 0);
	for (int i = 0; i < 1200; i++)
		assert_int_equal(add_change(f->s, "r", "service.web"), 0);
	assert_int_equal(store_commit(f->s), 0);
	add_scaling(f->s, T0, 1, 2);
	assert_int_equal(store_maintain(f->s, T0 + 41 * DAY_MS, 30 * DAY_MS),
			 0);
	expect(f, "SELECT count(*) FROM change_history", "701");
	for (int i = 0; i < 3; i++)
		store_maintain(f->s, T0 + 41 * DAY_MS, 30 * DAY_MS);
	expect(f, "SELECT count(*) FROM change_history", "1");
	expect(f, "SELECT count(*) FROM scaling_history", "0");
	/* One is named by a change, the other is what is applied. */
	expect(f, "SELECT group_concat(id) FROM revisions", "1,2");
}

static void test_scaler_memory(void **state)
{
	struct fixture *f = *state;
	uint64_t ns = 5000 * 1000000000ULL;
	struct scale_proposal proposals[] = { { ns - 3000000000ULL, 4 },
					      { ns, 2 } };
	uint64_t above[] = { 0, ns - 1000000000ULL }, below[] = { 1, 0 };
	struct scale_memory m = { .proposals = proposals,
				  .proposal_count = 2,
				  .above_since = above,
				  .below_since = below,
				  .signal_count = 2,
				  .up_cooldown_until = ns + 7000000000ULL,
				  .action_pending = 3,
				  .count = 5,
				  .action = SCALE_UP };
	struct scale_memory got;

	assert_int_equal(store_load_scaler(f->s, "web", &got, ns, T0), 0);
	assert_int_equal(got.proposal_count + got.signal_count, 0);
	scale_memory_release(&got);
	assert_int_equal(store_save_scaler(f->s, "web", &m, ns, T0), 0);
	assert_int_equal(store_save_scaler(f->s, "web", &m, ns, T0), 0);
	/* Rebooted: 10 s later by the wall, another monotonic clock. */
	ns = 100 * 1000000000ULL;
	assert_int_equal(store_load_scaler(f->s, "web", &got, ns, T0 + 10000),
			 0);
	assert_int_equal(got.proposal_count, 2);
	assert_int_equal(got.proposals[0].time, 87 * 1000000000ULL);
	assert_int_equal(got.proposals[0].count, 4);
	assert_int_equal(got.proposals[1].time, 90 * 1000000000ULL);
	assert_int_equal(got.signal_count, 2);
	assert_int_equal(got.above_since[0], 0);
	assert_int_equal(got.above_since[1], 89 * 1000000000ULL);
	assert_int_equal(got.below_since[0], 1); /* before this boot */
	assert_int_equal(got.up_cooldown_until, 97 * 1000000000ULL);
	assert_int_equal(got.down_cooldown_until, 0);
	assert_int_equal(got.action_pending, 3);
	assert_int_equal(got.count, 5);
	assert_int_equal(got.action, SCALE_UP);
	scale_memory_release(&got);
}

static void test_overrides(void **state)
{
	struct fixture *f = *state;
	struct store_override o = { (char *)"drain", (char *)"web/old-1", T0,
				    0 };
	struct store_override *list = NULL;
	size_t count = 9;

	assert_int_equal(store_overrides(f->s, &list, &count), 0);
	assert_int_equal(count, 0);
	store_overrides_free(list, count);
	assert_int_equal(store_set_override(f->s, &o), 0);
	o.until_ms = T0 + 5;
	assert_int_equal(store_set_override(f->s, &o), 0);
	o.key = (char *)"web/old-2";
	assert_int_equal(store_set_override(f->s, &o), 0);
	assert_int_equal(store_clear_override(f->s, "drain", "web/old-2"), 0);
	assert_int_equal(store_overrides(f->s, &list, &count), 0);
	assert_int_equal(count, 1);
	assert_string_equal(list[0].kind, "drain");
	assert_string_equal(list[0].key, "web/old-1");
	assert_int_equal(list[0].until_ms, T0 + 5);
	store_overrides_free(list, count);
}

static void collect(void *arg, const char *time, const char *kind,
		    const char *service, const char *text)
{
	buf_addf(arg, "%.19s %s %s %s\n", time, kind, service, text);
}

static void expect_history(struct fixture *f, const char *service,
			   const char *kind, int64_t since, unsigned int limit,
			   const char *want)
{
	struct buf b = BUF_INIT;

	assert_int_equal(store_history(f->s, service, kind, since, limit,
				       collect, &b),
			 0);
	assert_string_equal(buf_str(&b), want);
	buf_release(&b);
}

#define SCALED                                                      \
	"2023-11-14T22:13:20 scaling web cpu 81.0 is above target " \
	"60.0: 2 -> 3 VMs\n"
#define CREATED                                                  \
	"2023-11-14T22:13:21 vm web web-3 created at 10.0.0.3: " \
	"scale up (41 ms)\n"
#define ADDED                                                       \
	"2023-11-14T22:13:22 change api add service.api/slots: ok " \
	"(services.yaml:3)\n"

static void test_history(void **state)
{
	struct fixture *f = *state;
	struct store_vm_event e = { .time_ms = T0 + 1000,
				    .service = "web",
				    .vm = "web-3",
				    .address = "10.0.0.3",
				    .event = "created",
				    .reason = "scale up",
				    .took_ms = 41 };
	struct store_change c = { .time_ms = T0 + 2000,
				  .object = "service.api/slots",
				  .action = "add",
				  .cause = "services.yaml:3",
				  .result = "ok" };

	store_add_change(f->s, &c);
	store_add_vm_event(f->s, &e);
	add_scaling(f->s, T0, 2, 3);
	expect_history(f, NULL, NULL, 0, 0, SCALED CREATED ADDED);
	expect_history(f, NULL, NULL, 0, 2, CREATED ADDED);
	expect_history(f, "web", NULL, 0, 0, SCALED CREATED);
	expect_history(f, "api", NULL, 0, 0, ADDED);
	expect_history(f, NULL, "vm", 0, 0, CREATED);
	expect_history(f, NULL, NULL, T0 + 2000, 0, ADDED);
	expect_history(f, "x' OR 1=1 --", NULL, 0, 0, "");
}

/* People read with plain sqlite3 while the daemon writes. */
static void test_plain_sqlite3(void **state)
{
	struct fixture *f = *state;
	static const char *const flags[] = { "", "-readonly" };
	char line[64] = "";

	add_scaling(f->s, T0, 2, 3);
	assert_int_equal(store_begin(f->s), 0);
	add_scaling(f->s, T0, 3, 4); /* not committed yet */
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		char *cmd = mem_printf("sqlite3 %s %s 'SELECT count(*) || "
				       "max(to_vms) FROM scaling_history' 2>&1",
				       flags[i], f->path);
		FILE *p = popen(cmd, "r");

		assert_non_null(p);
		assert_non_null(fgets(line, sizeof(line), p));
		assert_int_equal(pclose(p), 0);
		assert_string_equal(line, "13\n");
		free(cmd);
	}
	assert_int_equal(store_commit(f->s), 0);
	expect(f, "SELECT count(*) FROM scaling_history", "2");
}

static void test_locked(void **state)
{
	struct fixture *f = *state;
	sqlite3 *other = NULL;

	assert_int_equal(sqlite3_open(f->path, &other), SQLITE_OK);
	assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL,
				      NULL),
			 SQLITE_OK);
	assert_int_equal(add_change(f->s, "r", "x"), -EBUSY);
	assert_int_equal(store_begin(f->s), -EBUSY);
	assert_int_equal(store_commit(f->s), 0); /* nothing was begun */
	assert_true(add_scaling(f->s, T0, 2, 3) == -EBUSY);
	assert_int_equal(store_maintain(f->s, T0, DAY_MS), -EBUSY);
	sqlite3_exec(other, "ROLLBACK", NULL, NULL, NULL);
	sqlite3_close(other);
	assert_int_equal(add_change(f->s, "r", "x"), 0);
	expect(f, "SELECT count(*) FROM change_history", "1");
}

/* Writes till it fails; what was committed before stays. */
static int fill(struct store *s, int64_t *ret_added)
{
	static char big[20000];
	int err = 0;

	memset(big, 'x', sizeof(big) - 1);
	for (*ret_added = 0; *ret_added < 1000 && !err; ++*ret_added)
		err = add_change(s, "full", big);
	--*ret_added;
	return err;
}

static void expect_changes(struct fixture *f, int64_t count)
{
	char *want = mem_printf("%lld", (long long)count);

	expect(f, "SELECT count(*) FROM change_history", want);
	expect(f, "PRAGMA integrity_check", "ok");
	free(want);
}

static void test_full(void **state)
{
	struct fixture *f = *state;
	int64_t added = 0;

	sqlite3_exec(f->s->db, "PRAGMA max_page_count = 100", NULL, NULL, NULL);
	assert_int_equal(fill(f->s, &added), -ENOSPC);
	/* In a group too, also when all of it is taken back. */
	assert_int_equal(store_begin(f->s), 0);
	assert_int_equal(fill(f->s, &(int64_t){ 0 }), -ENOSPC);
	assert_int_equal(store_commit(f->s), -ENOSPC);
	expect_changes(f, added);
	sqlite3_exec(f->s->db, "PRAGMA max_page_count = 100000", NULL, NULL,
		     NULL);
	assert_int_equal(add_change(f->s, "r", "x"), 0);
	expect_changes(f, added + 1);
}

/* The file system itself says no. */
static void test_file_limit(void **state)
{
	struct fixture *f = *state;
	struct rlimit was, small = { 400000, 0 };
	int64_t added = 0;
	int err;

	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
	small.rlim_max = was.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	err = fill(f->s, &added);
	setrlimit(RLIMIT_FSIZE, &was);
	assert_true(err == -ENOSPC || err == -EIO);
	assert_true(added > 0);
	assert_int_equal(add_change(f->s, "r", "x"), 0);
	expect_changes(f, added + 1);
}

#define GROUP 20

/* A child that records groups of changes, each under its own run, till dead. */
static void write_for_ever(struct fixture *f, pid_t parent, int ready)
{
	struct store *s = NULL;
	char run[32];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent || store_open(f->dir, false, &s, NULL))
		_exit(1);
	for (int n = 0;; n++) {
		snprintf(run, sizeof(run), "%d-%d", getpid(), n);
		store_begin(s);
		for (int i = 0; i < GROUP; i++)
			add_change(s, run, "service.web");
		store_commit(s);
		if (n == 2 && write(ready, "", 1) != 1)
			_exit(1);
	}
}

static void kill_one_writer(struct fixture *f, int round)
{
	int fds[2], status;
	char c;
	pid_t pid, parent = getpid();

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid)
		write_for_ever(f, parent, fds[1]);
	close(fds[1]);
	assert_int_equal(read(fds[0], &c, 1), 1);
	usleep((useconds_t)(round * 700));
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	close(fds[0]);
}

static void test_killed_in_a_write(void **state)
{
	struct fixture *f = *state;

	store_close(f->s);
	f->s = NULL;
	for (int round = 0; round < 12; round++) {
		kill_one_writer(f, round);
		assert_int_equal(open_store(f), 0);
		expect(f, "PRAGMA integrity_check", "ok");
		expect(f,
		       "SELECT count(*) FROM (SELECT 1 FROM change_history"
		       " GROUP BY run_id HAVING count(*) <> 20)",
		       "0");
		store_close(f->s);
		f->s = NULL;
	}
	expect(f, "SELECT count(DISTINCT run_id) >= 36 FROM change_history",
	       "1");
}

static void test_newer_is_refused(void **state)
{
	struct fixture *f = *state;
	struct diag_list diags = { 0 };
	struct store *s = NULL;
	struct buf text = BUF_INIT;

	sqlite3_exec(f->s->db, "PRAGMA user_version = 99", NULL, NULL, NULL);
	for (int ro = 0; ro < 2; ro++) {
		assert_int_equal(store_open(f->dir, ro, &s, &diags),
				 -EPROTONOSUPPORT);
		assert_null(s);
	}
	diag_list_print(&diags, &text);
	assert_non_null(strstr(buf_str(&text), "newer than this program"));
	assert_int_equal(diags.errors, 2);
	buf_release(&text);
	diag_list_release(&diags);
	expect(f, "PRAGMA user_version", "99");
}

/* ---- what guards remember ---- */

struct seen {
	struct store_deletion deletions[4];
	char vms[4][16];
	size_t count;
	char declarations[256];
};

static void see_deletion(void *arg, const struct store_deletion *d)
{
	struct seen *seen = arg;

	assert_true(seen->count < 4);
	seen->deletions[seen->count] = *d;
	snprintf(seen->vms[seen->count++], 16, "%s", d->vm);
}

static void see_declaration(void *arg, const struct store_declaration *d)
{
	struct seen *seen = arg;
	size_t len = strlen(seen->declarations);

	snprintf(seen->declarations + len, sizeof(seen->declarations) - len,
		 "%s%s=%s;", d->service, d->protect ? "!" : "", d->text);
}

static void test_deletions(void **state)
{
	struct fixture *f = *state;
	struct store_deletion late = { .time_ms = T0,
				       .vm = "web-2",
				       .open = true };
	struct store_deletion early = {
		.time_ms = T0 - 1, .vm = "web-1", .approved = true, .open = true
	};
	struct store_deletion old = { .time_ms = T0 - 40 * DAY_MS,
				      .vm = "web-0" };
	struct seen seen = { 0 };
	int64_t id = store_add_deletion(f->s, &late);

	assert_true(id > 0);
	assert_true(store_add_deletion(f->s, &early) > id);
	assert_true(store_add_deletion(f->s, &old) > 0);
	assert_int_equal(store_close_deletion(f->s, id), 0);
	store_close(f->s);
	assert_int_equal(open_store(f), 0);
	/* They count for longer than history may be kept. */
	assert_int_equal(store_maintain(f->s, T0, HOUR_MS), 0);
	assert_int_equal(store_deletions(f->s, see_deletion, &seen), 0);
	assert_int_equal(seen.count, 2);
	assert_string_equal(seen.vms[0], "web-1");
	assert_true(seen.deletions[0].approved && seen.deletions[0].open);
	assert_string_equal(seen.vms[1], "web-2");
	assert_int_equal(seen.deletions[1].time_ms, T0);
	assert_false(seen.deletions[1].approved || seen.deletions[1].open);
}

static void test_declarations(void **state)
{
	struct fixture *f = *state;
	struct store_declaration web = { "web", T0, true, "a" };
	struct store_declaration dns = { "dns", T0, false, "b" };
	struct seen seen = { 0 };

	assert_int_equal(store_keep_declaration(f->s, &web), 0);
	assert_int_equal(store_keep_declaration(f->s, &dns), 0);
	web.protect = false;
	web.text = "c";
	assert_int_equal(store_keep_declaration(f->s, &web), 0);
	assert_int_equal(store_declarations(f->s, see_declaration, &seen), 0);
	assert_string_equal(seen.declarations, "dns=b;web=c;");
	assert_int_equal(store_drop_declaration(f->s, "dns"), 0);
	assert_int_equal(store_drop_declaration(f->s, "none"), 0);
	seen.declarations[0] = '\0';
	assert_int_equal(store_declarations(f->s, see_declaration, &seen), 0);
	assert_string_equal(seen.declarations, "web=c;");
}

/* A history of the first version comes to have what it lacked. */
static void test_first_version(void **state)
{
	struct fixture *f = *state;
	struct seen seen = { 0 };

	assert_int_equal(add_change(f->s, "r", "service.web"), 0);
	assert_int_equal(sqlite3_exec(f->s->db,
				      "DROP TABLE vm_deletion;"
				      "DROP TABLE declaration;"
				      "PRAGMA user_version = 1",
				      NULL, NULL, NULL),
			 SQLITE_OK);
	store_close(f->s);
	assert_int_equal(open_store(f), 0);
	assert_int_equal(store_deletions(f->s, see_deletion, &seen), 0);
	assert_int_equal(store_declarations(f->s, see_declaration, &seen), 0);
	assert_int_equal(seen.count, 0);
	expect(f, "SELECT count(*) FROM change_history", "1");
	/* And is what a new one is. */
	expect(f,
	       "SELECT group_concat(name) FROM pragma_table_info"
	       "('vm_deletion')",
	       "id,time_ms,vm,approved,open");
	expect(f,
	       "SELECT group_concat(name) FROM pragma_table_info"
	       "('declaration')",
	       "service,time_ms,protect,text");
}

static void test_cannot_open(void **state)
{
	struct fixture *f = *state;
	struct store *s = NULL;
	char *dir = mem_printf("%s/none", f->dir);
	char *sub = mem_printf("%s/none/history.db", f->dir);
	FILE *file;
	sqlite3 *db;

	assert_int_equal(store_open(dir, true, &s, NULL), -ENOENT);
	assert_int_equal(store_open(f->path, false, &s, NULL), -EACCES);
	assert_int_equal(mkdir(dir, 0700), 0);
	/* Not a database at all. */
	file = fopen(sub, "w");
	assert_non_null(file);
	fprintf(file, "%2000s", "not sqlite");
	fclose(file);
	assert_int_equal(store_open(dir, false, &s, NULL), -EUCLEAN);
	assert_int_equal(unlink(sub), 0);
	/* Somebody else's: left as it is. */
	assert_int_equal(sqlite3_open(sub, &db), SQLITE_OK);
	sqlite3_exec(db, "CREATE TABLE mine (x)", NULL, NULL, NULL);
	assert_int_equal(store_open(dir, false, &s, NULL), -EUCLEAN);
	assert_int_equal(sqlite3_exec(db, "SELECT * FROM mine", NULL, NULL,
				      NULL),
			 SQLITE_OK);
	sqlite3_close(db);
	assert_null(s);
	free(dir);
	free(sub);
}

#define V1 "CREATE TABLE a (x INTEGER) STRICT; PRAGMA user_version = 1"
#define V3                                                         \
	"CREATE TABLE a (x INTEGER, y INTEGER, z INTEGER) STRICT;" \
	"PRAGMA user_version = 3"

static const struct migration good[] = {
	{ 1, NULL },
	{ 2, "ALTER TABLE a ADD COLUMN y INTEGER" },
	{ 3, "ALTER TABLE a ADD COLUMN z INTEGER" },
};
static const struct migration broken[] = {
	{ 1, NULL },
	{ 2, "ALTER TABLE a ADD COLUMN y INTEGER" },
	{ 3, "ALTER TABLE none ADD COLUMN z INTEGER" },
};

static int columns_of(sqlite3 *db)
{
	sqlite3_stmt *st = NULL;
	int n;

	assert_int_equal(sqlite3_prepare_v2(db, "SELECT * FROM a", -1, &st,
					    NULL),
			 SQLITE_OK);
	n = sqlite3_column_count(st);
	sqlite3_finalize(st);
	return n;
}

static void test_migrations(void **state)
{
	sqlite3 *db = NULL;
	int version = 0;

	(void)state;
	assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
	assert_int_equal(migrate(db, 1, V1, good, 1), 0);
	sqlite3_exec(db, "INSERT INTO a VALUES (7)", NULL, NULL, NULL);
	/* A step that fails takes the ones before it back. */
	assert_int_equal(migrate(db, 3, V3, broken, 3), -EIO);
	assert_int_equal(columns_of(db), 1);
	assert_int_equal(migrate_version(db, &version), 0);
	assert_int_equal(version, 1);
	/* A step that is missing is noticed. */
	assert_int_equal(migrate(db, 3, V3, good, 2), -EUCLEAN);
	assert_int_equal(columns_of(db), 1);
	assert_int_equal(migrate(db, 3, V3, good, 3), 0);
	assert_int_equal(columns_of(db), 3);
	assert_int_equal(migrate_version(db, &version), 0);
	assert_int_equal(version, 3);
	assert_int_equal(migrate(db, 3, V3, good, 3), 0);
	assert_int_equal(migrate(db, 2, V3, good, 2), -EPROTONOSUPPORT);
	sqlite3_close(db);
	assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
	assert_int_equal(migrate(db, 3, V3, good, 3), 0);
	assert_int_equal(columns_of(db), 3);
	sqlite3_close(db);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_views),
		T(test_records),
		T(test_no_injection),
		T(test_steady_rolls_up),
		T(test_reopen),
		T(test_load_rolls_up),
		T(test_retention),
		T(test_scaler_memory),
		T(test_overrides),
		T(test_history),
		T(test_plain_sqlite3),
		T(test_locked),
		T(test_full),
		T(test_file_limit),
		T(test_killed_in_a_write),
		T(test_newer_is_refused),
		T(test_cannot_open),
		T(test_deletions),
		T(test_declarations),
		T(test_first_version),
		cmocka_unit_test(test_migrations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
