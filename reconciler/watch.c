/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A thread waits in libinotifytools, which has one instance a process and is
 * used by nobody else; it pokes the loop through an eventfd.  Facts about the
 * library (3.22) that shape this file:
 *  - it waits with select(), so its descriptor must be below FD_SETSIZE: it
 *    is opened once, early, and kept;
 *  - it can't be interrupted: the thread is cancelled, which it allows only
 *    while it sleeps or waits, holding nothing;
 *  - it never forgets a watch the kernel has dropped, and finds a watch by
 *    name: so a folder that comes back is watched under another spelling;
 *  - what it had read is still there after a cleanup and is read away.
 */
#include "watch.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <inotifytools/inotifytools.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"
#include "watchpath.h"

#define MERGE (5 * NS_PER_MS)
#define NAP NS_PER_MS
#define PATIENCE_MS 10 /* for the rest of MERGE, and what it takes to say so */
/* A lock this old was probably left behind by a git that crashed. */
#define LOCK_WARNING (10 * NS_PER_S)
/* What the thread adds to its counter. */
#define TOLD_COMING (1ULL << 32)
#define TOLD_SAVED 1ULL
#define TOLD_MORE 2ULL /* saved, and more had come since TOLD_COMING */
#define EVENTS                                                      \
	(IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | \
	 IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)
#define FOLDER_ENDED (IN_IGNORED | IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT)

struct folder {
	char *path; /* as it was when the watch was set */
	dev_t dev;
	ino_t ino;
	int wd;
	bool gone; /* the kernel dropped the watch */
	bool used; /* by a name */
};

/* What an event means. */
enum news {
	NEWS_NONE,
	NEWS_PART, /* more may belong to it: wait a little */
	NEWS_SAVED, /* the very file is complete */
};

struct watch {
	struct loop_source *source;
	int event_fd;
	loop_fn coming;
	loop_fn saved;
	void *arg;
	pthread_t thread;
	bool running;
	/* The thread's own from here on. */
	char *path;
	struct watch_names names;
	int *wds; /* of each name's folder; -1: couldn't be watched */
	struct folder *folders;
	size_t folder_count;
};

static bool in_use; /* on the loop's thread only */

/* folders */

static struct folder *find_folder(struct watch *w, const struct stat *st)
{
	for (size_t i = 0; i < w->folder_count; i++) {
		struct folder *f = &w->folders[i];

		if (!f->gone && f->dev == st->st_dev && f->ino == st->st_ino)
			return f;
	}
	return NULL;
}

/* "dir/", and "dir//" when the library remembers an older "dir/". */
static char *spell(const struct watch *w, const char *path)
{
	struct buf b = BUF_INIT;

	buf_addf(&b, "%s/", path);
	for (size_t i = 0; i < w->folder_count; i++) {
		if (strcmp(w->folders[i].path, path) == 0)
			buf_adds(&b, "/");
	}
	return b.data;
}

static int watch_folder(struct watch *w, const char *path)
{
	AUTO_FREE char *spelling = NULL;
	struct folder *f;
	struct stat st;

	if (stat(path, &st))
		return -1;
	f = find_folder(w, &st);
	if (!f) {
		spelling = spell(w, path);
		if (!inotifytools_watch_file(spelling, EVENTS)) {
			log_warn("watch_folder", "path=%s error=%s", path,
				 strerror(inotifytools_error()));
			return -1;
		}
		f = MEM_PUSH(w->folders, w->folder_count);
		f->path = mem_dup(path);
		f->dev = st.st_dev;
		f->ino = st.st_ino;
		f->wd = inotifytools_wd_from_filename(spelling);
	}
	f->used = true;
	return f->wd;
}

/*
 * Watches of folders that no longer matter.  Removing one that the kernel has
 * dropped already makes the library complain on stderr, so look first.
 */
static void drop_unused(struct watch *w)
{
	struct stat st;

	for (size_t i = w->folder_count; i-- > 0;) {
		struct folder *f = &w->folders[i];

		if (f->used || f->gone || stat(f->path, &st) ||
		    st.st_dev != f->dev || st.st_ino != f->ino)
			continue;
		inotifytools_remove_watch_by_wd(f->wd);
		free(f->path);
		*f = w->folders[--w->folder_count];
	}
}

/* Find out again what matters.  Watch first, look after: nothing is missed. */
static void look_again(struct watch *w)
{
	for (size_t i = 0; i < w->folder_count; i++)
		w->folders[i].used = false;
	watch_names_release(&w->names);
	watch_names_of(w->path, &w->names);
	w->wds = mem_resize(w->wds, w->names.count, sizeof(*w->wds));
	for (size_t i = 0; i < w->names.count; i++)
		w->wds[i] = watch_folder(w, w->names.items[i].folder);
	drop_unused(w);
}

static bool same_names(const struct watch_names *a, const struct watch_names *b)
{
	if (a->count != b->count)
		return false;
	for (size_t i = 0; i < a->count; i++) {
		const char *x = a->items[i].name, *y = b->items[i].name;

		if (strcmp(a->items[i].folder, b->items[i].folder) != 0 ||
		    strcmp(x ? x : "", y ? y : "") != 0)
			return false;
	}
	return true;
}

/* Until nothing moved while it was looked at, or, giving up, often enough. */
static void settle(struct watch *w)
{
	for (int i = 0; i < 4; i++) {
		struct watch_names now;
		bool same;

		look_again(w);
		watch_names_of(w->path, &now);
		same = same_names(&w->names, &now);
		watch_names_release(&now);
		if (same)
			return;
	}
}

/* events */

/* A new name is complete when it is a link, or another name of a whole file. */
static enum news created(const struct watch_name *n, const char *name)
{
	AUTO_FREE char *path = mem_printf("%s/%s", n->folder, name);
	struct stat st;

	if (lstat(path, &st))
		return NEWS_PART;
	if (S_ISREG(st.st_mode) && st.st_nlink < 2)
		return NEWS_NONE; /* its writer will close it */
	return S_ISDIR(st.st_mode) ? NEWS_PART : NEWS_SAVED;
}

static enum news news_of(const struct watch *w, const struct watch_name *n,
			 const struct inotify_event *e)
{
	enum news news = NEWS_NONE;

	if (n->name ? strcmp(n->name, e->name) != 0
		    : fnmatch("*.yaml", e->name, 0) != 0)
		return NEWS_NONE;
	if (e->mask & (IN_CLOSE_WRITE | IN_MOVED_TO))
		news = NEWS_SAVED;
	else if (e->mask & IN_CREATE)
		news = created(n, e->name);
	else if (e->mask & (IN_DELETE | IN_MOVED_FROM))
		news = NEWS_PART;
	/* A folder's files often come several at once. */
	return news == NEWS_SAVED && w->names.is_folder ? NEWS_PART : news;
}

static void folder_ended(struct watch *w, const struct inotify_event *e)
{
	for (size_t i = 0; i < w->folder_count; i++) {
		if (w->folders[i].wd == e->wd && (e->mask & IN_IGNORED))
			w->folders[i].gone = true;
	}
}

static enum news take(struct watch *w, const struct inotify_event *e)
{
	enum news most = NEWS_NONE;
	bool ended = e->mask & FOLDER_ENDED;

	if (e->mask & IN_Q_OVERFLOW)
		return NEWS_PART;
	for (size_t i = 0; i < w->names.count; i++) {
		enum news news = NEWS_NONE;

		if (w->wds[i] != e->wd)
			continue;
		if (ended)
			news = NEWS_PART;
		else if (e->len)
			news = news_of(w, &w->names.items[i], e);
		most = news > most ? news : most;
	}
	if (ended)
		folder_ended(w, e);
	return most;
}

/* the thread */

static void may_be_cancelled(bool yes)
{
	pthread_setcancelstate(
		yes ? PTHREAD_CANCEL_ENABLE : PTHREAD_CANCEL_DISABLE, NULL);
}

static void nap(void)
{
	static const struct timespec ts = { .tv_nsec = NAP };

	may_be_cancelled(true);
	nanosleep(&ts, NULL);
	may_be_cancelled(false);
}

static struct inotify_event *wait_event(void)
{
	struct inotify_event *e;

	may_be_cancelled(true);
	e = inotifytools_next_events(-1, 1);
	may_be_cancelled(false);
	return e;
}

/* What is there already. */
static enum news take_all(struct watch *w)
{
	enum news most = NEWS_NONE;
	struct inotify_event *e;

	while ((e = inotifytools_next_events(0, 1))) {
		enum news news = take(w, e);

		/* Later events are about what is there then. */
		if (news)
			settle(w);
		most = news > most ? news : most;
	}
	return most;
}

/* Did more come? */
static bool merge(struct watch *w)
{
	uint64_t until = clock_ns() + MERGE;
	enum news news, most = NEWS_NONE;

	do {
		nap();
		news = take_all(w);
		most = news > most ? news : most;
	} while (most != NEWS_SAVED && clock_ns() < until);
	return most != NEWS_NONE;
}

static bool locked(const struct watch *w)
{
	for (size_t i = 0; i < w->names.count; i++) {
		if (git_locked(w->names.items[i].folder))
			return true;
	}
	return false;
}

static bool wait_for_git(struct watch *w)
{
	bool more = false;
	uint64_t warn = clock_ns() + LOCK_WARNING;

	while (locked(w)) {
		nap();
		more |= take_all(w) != NEWS_NONE;
		if (warn && clock_ns() > warn) {
			log_warn("git_lock",
				 "path=%s index.lock exists since "
				 "%llu s; changes wait for it",
				 w->path, LOCK_WARNING / NS_PER_S);
			warn = 0;
		}
	}
	return more;
}

static void tell(struct watch *w, uint64_t what)
{
	/* Fails only when the counter is full, and then it wakes anyway. */
	eventfd_write(w->event_fd, what);
}

static void tell_news(struct watch *w, enum news news)
{
	bool more = false;

	/* What is there already came before it is looked at. */
	if (news == NEWS_PART && take_all(w) != NEWS_SAVED) {
		if (!locked(w))
			tell(w, TOLD_COMING);
		more |= merge(w);
	}
	more |= wait_for_git(w);
	more |= take_all(w) != NEWS_NONE;
	tell(w, more ? TOLD_MORE : TOLD_SAVED);
}

static void *watch_thread(void *arg)
{
	struct watch *w = arg;

	may_be_cancelled(false);
	for (;;) {
		const struct inotify_event *e = wait_event();
		enum news news = e ? take(w, e) : NEWS_NONE;

		if (!e)
			nap(); /* interrupted; never a busy loop */
		if (news == NEWS_NONE)
			continue;
		settle(w);
		tell_news(w, news);
	}
	return NULL;
}

/* the loop's side */

static void on_told(void *arg, int fd, uint32_t events)
{
	struct watch *w = arg;
	uint64_t count;

	(void)events;
	if (read(fd, &count, sizeof(count)) != sizeof(count))
		return;
	if (count % TOLD_COMING)
		w->saved(w->arg);
	else if (w->coming)
		w->coming(w->arg);
}

bool watch_take_saved(struct watch *w)
{
	struct pollfd told = { .fd = w->event_fd, .events = POLLIN };
	uint64_t count = 0;

	if (poll(&told, 1, PATIENCE_MS) < 1 ||
	    read(w->event_fd, &count, sizeof(count)) != sizeof(count))
		return false;
	if (count == TOLD_SAVED)
		return true;
	tell(w, count);
	return false;
}

/*
 * The library opens its descriptor without close-on-exec and doesn't say which
 * it is: the lowest that is free, like ours here.
 */
static int open_library(void)
{
	char name[64], target[64] = "";
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	close(fd);
	if (fd >= FD_SETSIZE)
		return -EMFILE;
	if (!inotifytools_initialize())
		return inotifytools_error() ? -inotifytools_error() : -EIO;
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	if (readlink(name, target, sizeof(target) - 1) > 0 &&
	    strcmp(target, "anon_inode:inotify") == 0)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
	while (inotifytools_next_events(0, 1))
		;
	return 0;
}

static int start_thread(struct watch *w)
{
	sigset_t all, old;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	error = pthread_create(&w->thread, NULL, watch_thread, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	w->running = !error;
	return -error;
}

static char *absolute(const char *path)
{
	char here[PATH_MAX];

	if (path[0] == '/' || !getcwd(here, sizeof(here)))
		return mem_dup(path);
	return mem_printf("%s/%s", here, path);
}

int watch_new(struct loop *l, const char *path, loop_fn coming, loop_fn saved,
	      void *arg, struct watch **ret)
{
	struct watch *w;
	int error;

	if (in_use)
		return -EBUSY;
	error = open_library();
	if (error)
		return error;
	in_use = true;
	w = mem_alloc(sizeof(*w));
	w->coming = coming;
	w->saved = saved;
	w->arg = arg;
	w->path = absolute(path);
	settle(w);
	w->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	error = w->event_fd < 0 ? -errno : start_thread(w);
	if (error) {
		watch_free(w);
		return error;
	}
	w->source = loop_add_fd(l, w->event_fd, EPOLLIN, on_told, w);
	*ret = w;
	return 0;
}

void watch_free(struct watch *w)
{
	if (!w)
		return;
	if (w->running) {
		pthread_cancel(w->thread);
		pthread_join(w->thread, NULL);
	}
	inotifytools_cleanup();
	in_use = false;
	loop_remove(w->source);
	if (w->event_fd >= 0)
		close(w->event_fd);
	for (size_t i = 0; i < w->folder_count; i++)
		free(w->folders[i].path);
	free(w->folders);
	watch_names_release(&w->names);
	free(w->wds);
	free(w->path);
	free(w);
}
