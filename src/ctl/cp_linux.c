/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insulactl cp: a tar in the guest, and its streams. See cp.h.
 *
 * The guest's end of each stream is a pipe of ours, which does not block us: while we wait for one,
 * what it says on standard error is read as well, so that it cannot make us wait for each other.
 */
#include "cp.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>

#include "pack.h"
#include "spec/json.h"
#include "unpack.h"

#define PIECE 65536
#define REST (1 << 20)  /* behind the end of an archive: blocks of zeros */
#define LEAVE_MS 5000   /* for a tar whose streams we have closed */
#define GUEST_SIGKILL 9 /* Linux's number */

struct cp_stream {
	struct cp *cp;
	int in, out, err; /* our ends; owned; -1: none */
	int64_t exec, wait;
	char line[256]; /* of its standard error, so far */
	size_t nline;
};

/* ---- its streams ---- */

static void end_line(struct cp_stream *s)
{
	if (s->nline && !s->cp->said[0])
		snprintf(s->cp->said, sizeof(s->cp->said), "%s", print_clean(s->line, s->nline));
	s->nline = 0;
}

/* The first line of what it says is kept: what follows is about that, too. */
static void hear(struct cp_stream *s)
{
	char buf[4096];
	ssize_t n = read(s->err, buf, sizeof(buf));

	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		fd_close(&s->err);
	for (ssize_t i = 0; i < n; i++) {
		if (buf[i] == '\n')
			end_line(s);
		else if (s->nline < sizeof(s->line))
			s->line[s->nline++] = buf[i];
	}
}

/* Until something is there to be done with `fd`, or `ms` is over: false. */
static bool cp_wait(struct cp_stream *s, int fd, short events, int ms)
{
	uint64_t end = clock_ns() + (uint64_t)(ms < 0 ? 0 : ms) * 1000000;

	for (;;) {
		struct pollfd p[] = {{fd, events, 0}, {s->err, POLLIN, 0}};
		int64_t left = ms < 0 ? -1 : (int64_t)(end - clock_ns()) / 1000000;

		if (ms >= 0 && left <= 0)
			return false;
		if (poll(p, 2, (int)left) < 0)
			continue;
		if (p[1].revents)
			hear(s);
		if (p[0].revents)
			return true;
	}
}

static int64_t cp_read(void *ctx, void *buf, size_t len, struct err *e)
{
	struct cp_stream *s = ctx;

	for (;;) {
		ssize_t n = read(s->out, buf, len);

		if (n >= 0)
			return n;
		if (errno == EAGAIN)
			cp_wait(s, s->out, POLLIN, -1);
		else if (errno != EINTR)
			return err_sys(e, -errno, "cp");
	}
}

static int cp_write(void *ctx, const void *buf, size_t len, struct err *e)
{
	struct cp_stream *s = ctx;
	const char *p = buf;

	while (len) {
		ssize_t n = write(s->in, p, len);

		if (n > 0) {
			p += n;
			len -= (size_t)n;
		} else if (errno == EAGAIN) {
			cp_wait(s, s->in, POLLOUT, -1);
		} else if (errno != EINTR) {
			return errno == EPIPE ? err_set(e, -EPIPE, "cp: the guest takes no more")
					      : err_sys(e, -errno, "cp");
		}
	}
	return 0;
}

/* ---- a command ---- */

/* *ours does not block; the guest's end, or a negative errno. */
static int cp_pipe(int *ours, bool we_read)
{
	int p[2];

	if (pipe2(p, O_CLOEXEC))
		return -errno;
	*ours = p[!we_read];
	(void)fcntl(*ours, F_SETFL, O_NONBLOCK);
	return p[we_read];
}

/* The guest's ends: input, if it has one, output and errors. How many, or a negative errno. */
static int open_streams(struct cp_stream *s, bool input, bool output, int fd[3])
{
	int n = 0;

	if (input)
		fd[n++] = cp_pipe(&s->in, false);
	fd[n++] = output ? cp_pipe(&s->out, true) : open("/dev/null", O_WRONLY | O_CLOEXEC);
	fd[n++] = cp_pipe(&s->err, true);
	for (int i = 0; i < n; i++) {
		if (fd[i] < 0)
			return -EMFILE;
	}
	return n;
}

static json_object *cp_params(struct cp_stream *s)
{
	json_object *o = ctl_with_id(s->cp->vm);

	if (s->exec)
		j_int(o, "exec", s->exec);
	return o;
}

static int ask(struct cp_stream *s, const char *const *words, const int *fd, int n, struct err *e)
{
	struct conn *conn = &s->cp->ctl->conn;
	json_object *o = cp_params(s), *list = json_object_new_array(), *r;
	int64_t id;

	for (; *words; words++)
		json_object_array_add(list, json_object_new_string(*words));
	j_obj(o, "command", list);
	j_bool(o, "queue", true);
	id = conn_send(conn, "vm.exec", o, fd, (unsigned)n, e);
	r = id < 0 ? NULL : conn_wait(conn, id, e);
	if (!r)
		return e->code;
	s->exec = j_get_int(r, "exec", 0);
	json_object_put(r);
	s->wait = conn_send(conn, "vm.exec.wait", cp_params(s), NULL, 0, e);
	return s->wait < 0 ? e->code : 0;
}

static int cp_begin(struct cp_stream *s, struct cp *c, const char *const *words, bool input,
		    bool output, struct err *e)
{
	int fd[3] = {-1, -1, -1}, n, rc;

	*s = (struct cp_stream){.cp = c, .in = -1, .out = -1, .err = -1};
	c->said[0] = 0;
	signal(SIGPIPE, SIG_IGN);
	n = open_streams(s, input, output, fd);
	rc = n < 0 ? err_sys(e, n, "cp: pipe") : ask(s, words, fd, n, e);
	for (int i = 0; i < 3; i++)
		fd_close(&fd[i]);
	return rc;
}

static void cp_kill(struct cp_stream *s)
{
	json_object *o = cp_params(s);
	struct err e;

	j_int(o, "signal", GUEST_SIGKILL);
	(void)conn_send(&s->cp->ctl->conn, "vm.exec.signal", o, NULL, 0, &e);
}

/* Its end: the status, which is c->status now, or a negative errno. One that we have given up
 * (`rc` is why) does not get for ever. */
static int cp_end(struct cp_stream *s, int rc, struct err *e)
{
	struct conn *conn = &s->cp->ctl->conn;
	json_object *r = NULL;
	struct err lost;

	fd_close(&s->in);
	fd_close(&s->out);
	if (s->wait > 0) {
		if (!conn_has_line(conn) && !cp_wait(s, conn->fd, POLLIN, rc ? LEAVE_MS : -1))
			cp_kill(s);
		r = conn_wait(conn, s->wait, rc ? &lost : e);
	}
	if (r)
		s->cp->status = (int)j_get_int(r, "status", CTL_FAILED);
	else if (!rc)
		rc = e->code;
	json_object_put(r);
	end_line(s);
	fd_close(&s->err);
	return rc;
}

/* ---- paths ---- */

/* "a/b//" is "a" and "b"; "a/." and "/" are all that is in a directory: *base is "". Both are the
 * caller's. */
static void split(const char *path, char **dir, char **base)
{
	size_t n = strlen(path), at;

	while (n > 1 && path[n - 1] == '/')
		n--;
	for (at = n; at && path[at - 1] != '/'; at--)
		;
	*base = strndup(path + at, n - at);
	*dir = at ? strndup(path, at > 1 ? at - 1 : 1) : strdup(".");
	if (!*dir || !*base)
		panic("out of memory");
	if (strcmp(*base, ".") != 0 && strcmp(*base, "..") != 0 && **base)
		return;
	free(*dir);
	*dir = strndup(path, n);
	if (!*dir)
		panic("out of memory");
	**base = 0;
}

static bool ends_in_slash(const char *path)
{
	return path[0] && path[strlen(path) - 1] == '/';
}

/* ---- out of the guest ---- */

/* What is copied, into the directory that is there, or under the name that the user has given. */
static int open_target(struct unpack *u, const char *path, const char *base, char **name,
		       struct err *e)
{
	struct stat st;
	char *dir;

	*name = NULL;
	if (!stat(path, &st) && S_ISDIR(st.st_mode)) {
		u->top = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		u->target = base;
		return u->top < 0 ? err_sys(e, -errno, "cp: %s", path) : 0;
	}
	if (!stat(path, &st) && !S_ISREG(st.st_mode))
		return err_set(e, -EINVAL, "cp: %.160s: expected a directory, a file or - here",
			       path);
	u->need_file = !stat(path, &st);
	u->need_directory = ends_in_slash(path);
	split(path, &dir, name);
	u->top = **name ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (u->top < 0)
		err_sys(e, **name ? -errno : -ENOENT, "cp: %s", dir);
	u->target = *name;
	free(dir);
	return u->top < 0 ? e->code : 0;
}

/* Behind its end there may be more zeros, as much as tar likes to write at once. */
static void read_rest(struct cp_stream *s)
{
	static char buf[PIECE]; /* one thread; too large for the stack */
	struct err e;
	size_t all = 0;
	int64_t n = 1;

	while (n > 0 && all < REST) {
		n = cp_read(s, buf, sizeof(buf), &e);
		all += n > 0 ? (size_t)n : 0;
	}
}

static int take_archive(struct cp_stream *s, struct unpack *u, struct err *e)
{
	struct tar_reader t = {.read = cp_read, .ctx = s};
	int rc = unpack_all(u, &t, e);

	if (!rc)
		read_rest(s);
	return rc;
}

static int pass_archive(struct cp_stream *s, struct err *e)
{
	static char buf[PIECE]; /* one thread; too large for the stack */
	int64_t n;

	while ((n = cp_read(s, buf, sizeof(buf), e)) > 0) {
		int rc = write_full(STDOUT_FILENO, buf, (size_t)n);

		if (rc)
			return err_sys(e, rc, "cp: standard output");
	}
	return (int)n;
}

int cp_out(struct cp *c, struct err *e)
{
	struct unpack u = {.top = -1, .left_out = cp_left_out, .ctx = c};
	bool stream = !strcmp(c->path, "-");
	char *dir, *base, *name = NULL, *what = NULL;
	struct cp_stream s;
	int rc = 0;

	split(c->inside, &dir, &base);
	u.base = *base ? base : NULL;
	if (asprintf(&what, "./%s", base) < 0)
		panic("out of memory");
	if (!stream)
		rc = open_target(&u, c->path, base, &name, e);
	if (!rc) {
		const char *const words[] = {
			"tar", c->follow ? "-ch" : "-c", "-f", "-", "-C", dir, what, NULL};

		rc = cp_begin(&s, c, words, false, true, e);
		if (!rc)
			rc = stream ? pass_archive(&s, e) : take_archive(&s, &u, e);
		rc = cp_end(&s, rc, e);
	}
	if (!rc && !stream && !c->status && !u.entries && !u.skipped)
		rc = err_set(e, -EPROTO, "cp: the guest has sent nothing");
	fd_close(&u.top);
	free(dir);
	free(base);
	free(name);
	free(what);
	return rc;
}

/* ---- into the guest ---- */

/* 1: there is such a directory in the guest. */
static int is_directory_inside(struct cp *c, struct err *e)
{
	const char *const words[] = {"sh", "-c", "test -d \"$1\"", "sh", c->inside, NULL};
	struct cp_stream s;
	int rc = cp_begin(&s, c, words, false, false, e);

	rc = cp_end(&s, rc, e);
	if (rc || c->status > 1)
		return rc; /* there is no such command: c->status says so */
	rc = !c->status;
	c->status = 0;
	return rc;
}

static int give_archive(struct cp *c, const char *dir, const char *name, struct err *e)
{
	static char buf[PIECE]; /* one thread; too large for the stack */
	const char *const words[] = {"tar", "-x", "-p", "-f", "-", "-C", dir, NULL};
	struct cp_stream s;
	struct pack p = {.write = cp_write,
			 .stream = &s,
			 .left_out = cp_left_out,
			 .ctx = c,
			 .follow = c->follow};
	int rc = cp_begin(&s, c, words, true, false, e);
	ssize_t n = 1;

	if (!rc && name)
		rc = pack_all(&p, c->path, name, e);
	while (!rc && !name && (n = read(STDIN_FILENO, buf, sizeof(buf))) != 0) {
		if (n > 0)
			rc = cp_write(&s, buf, (size_t)n, e);
		else if (errno != EINTR)
			rc = err_sys(e, -errno, "cp: standard input");
	}
	return cp_end(&s, rc, e);
}

/* Where it goes, as docker cp has it: into a directory that is there, else under that name. */
static int give_place(struct cp *c, bool directory, struct err *e)
{
	char *dir, *base, *to_dir, *to_base;
	int there = is_directory_inside(c, e), rc = 0;

	if (there < 0 || c->status)
		return there < 0 ? there : 0;
	split(c->path, &dir, &base);
	split(c->inside, &to_dir, &to_base);
	if (there)
		rc = give_archive(c, c->inside, *base ? base : ".", e);
	else if (!*to_base || (!directory && ends_in_slash(c->inside)))
		rc = err_set(e, -ENOTDIR, "cp: %.160s: no such directory in the guest", c->inside);
	else
		rc = give_archive(c, to_dir, to_base, e);
	free(dir);
	free(base);
	free(to_dir);
	free(to_base);
	return rc;
}

int cp_in(struct cp *c, struct err *e)
{
	struct stat st;

	if (!strcmp(c->path, "-"))
		return give_archive(c, c->inside, NULL, e);
	if (c->follow ? stat(c->path, &st) : lstat(c->path, &st))
		return err_sys(e, -errno, "cp: %s", c->path);
	return give_place(c, S_ISDIR(st.st_mode), e);
}
