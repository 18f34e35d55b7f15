/* SPDX-License-Identifier: BSD-2-Clause */
/* Hooks. See hook.h. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>

#include "field.h"
#include "hook.h"
#include "proc.h"
#include "report.h"
#include "spec/json.h"

#define SAID_MAX 160
#define AFTER_MS 200 /* for the rest of its output, which a child of its own may hold */

static const char *const names[] = {"prestart",       "createRuntime", "createContainer",
				    "startContainer", "poststart",     "poststop"};

/* ---- check ---- */

static int check_texts(json_object *hook, const char *where, const char *key, struct err *e)
{
	char inner[FIELD_WHERE_MAX];
	json_object *list;
	const char *text;
	int rc = field_array(hook, where, key, &list, e);

	field_in(inner, where, key);
	for (size_t i = 0; i < field_count(list) && !rc; i++)
		rc = field_text_at(list, inner, i, &text, e);
	return rc;
}

static int check_one(json_object *hook, const char *where, struct err *e)
{
	const char *path = NULL;
	int64_t timeout;
	int rc;

	if (!json_object_is_type(hook, json_type_object))
		return field_wrong(where, "", hook, "an object", e);
	rc = field_text(hook, where, "path", &path, e);
	if (!rc && (!path || path[0] != '/'))
		rc = field_wrong(where, "path", j_get(hook, "path"), "an absolute path", e);
	if (!rc)
		rc = check_texts(hook, where, "args", e);
	if (!rc)
		rc = check_texts(hook, where, "env", e);
	if (!rc)
		rc = field_int(hook, where, "timeout", 1, HOOK_TIMEOUT_MAX, &timeout, e);
	return rc < 0 ? rc : 0;
}

int hooks_check(json_object *hooks, struct err *e)
{
	int rc = 0;

	for (size_t n = 0; n < ARRAY_LEN(names) && !rc; n++) {
		char where[FIELD_WHERE_MAX], at[FIELD_WHERE_MAX];
		json_object *list;

		rc = field_array(hooks, "hooks", names[n], &list, e);
		field_in(where, "hooks", names[n]);
		for (size_t i = 0; i < field_count(list) && !rc; i++) {
			field_at(at, where, i);
			rc = check_one(json_object_array_get_idx(list, i), at, e);
		}
	}
	return rc;
}

/* ---- run ---- */

struct running {
	pid_t pid;
	int process;      /* pidfd */
	int in, out;      /* our ends; in: -1 when all is written */
	const char *text; /* for its input: what is left */
	size_t left;
	uint64_t limit_ns; /* 0: none */
	char said[SAID_MAX + 1];
	size_t nsaid;
};

static char **texts(json_object *list)
{
	size_t n = field_count(list);
	char **out = calloc(n + 1, sizeof(*out));

	for (size_t i = 0; out && i < n; i++)
		out[i] = (char *)(uintptr_t)json_object_get_string(
			json_object_array_get_idx(list, i));
	return out;
}

static _Noreturn void hook_child(json_object *hook, int in, int out, int netns)
{
	const char *path = j_get_str(hook, "path", "");
	char *alone[] = {(char *)(uintptr_t)path, NULL};
	char **argv = texts(j_get(hook, "args")), **env = texts(j_get(hook, "env"));
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setpgid(0, 0);
	if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0 ||
	    (netns >= 0 && setns(netns, CLONE_NEWNET)))
		_exit(126);
	syscall(SYS_close_range, 3, ~0u, 0);
	execve(path, argv && argv[0] ? argv : alone, env);
	dprintf(2, "%s", strerror(errno));
	_exit(127);
}

/* -1, errno: nobody would hear of its end. */
static int hook_note(struct running *r)
{
	setpgid(r->pid, r->pid);
	r->process = (int)syscall(SYS_pidfd_open, r->pid, 0);
	return r->process < 0 ? -1 : 0;
}

static int hook_start(struct running *r, json_object *hook, int netns, struct err *e)
{
	int in[2] = {-1, -1}, out[2] = {-1, -1}, rc = 0;

	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
		rc = -errno;
	r->pid = rc ? -1 : fork();
	if (r->pid == 0)
		hook_child(hook, in[0], out[1], netns);
	if (!rc && r->pid < 0)
		rc = -errno;
	if (r->pid > 0 && hook_note(r)) {
		rc = -errno;
		kill(-r->pid, SIGKILL);
		(void)waitpid(r->pid, NULL, 0);
	}
	fd_close(&in[0]);
	fd_close(&out[1]);
	r->in = in[1];
	r->out = out[0];
	if (rc)
		return err_sys(e, rc, "a hook's process");
	fcntl(r->in, F_SETFL, O_NONBLOCK);
	fcntl(r->out, F_SETFL, O_NONBLOCK);
	return 0;
}

static void hook_feed(struct running *r)
{
	ssize_t n = write(r->in, r->text, r->left);

	if (n > 0) {
		r->text += n;
		r->left -= (size_t)n;
	}
	/* Whoever does not read the state is none the worse for it. */
	if (!r->left || (n < 0 && errno != EAGAIN && errno != EINTR))
		fd_close(&r->in);
}

/* The last of what it says. */
static void hook_hear(struct running *r)
{
	char buf[512];
	ssize_t n = read(r->out, buf, sizeof(buf));
	size_t take, keep;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		fd_close(&r->out);
		return;
	}
	take = (size_t)n < SAID_MAX ? (size_t)n : SAID_MAX;
	keep = r->nsaid + take > SAID_MAX ? SAID_MAX - take : r->nsaid;
	memmove(r->said, r->said + r->nsaid - keep, keep);
	memcpy(r->said + keep, buf + n - take, take);
	r->nsaid = keep + take;
	r->said[r->nsaid] = 0;
}

/* 0: it has ended. */
static int hook_wait(struct running *r)
{
	uint64_t over = 0;

	while (!over || (r->out >= 0 && clock_ns() < over)) {
		struct pollfd p[] = {{over ? -1 : r->process, POLLIN, 0},
				     {r->in, POLLOUT, 0},
				     {r->out, POLLIN, 0}};
		uint64_t limit = over ? over : r->limit_ns;

		if (!over && limit && clock_ns() >= limit)
			return -ETIMEDOUT;
		if (poll(p, 3, limit ? ms_until(limit) : -1) < 0)
			continue;
		if (p[1].revents)
			hook_feed(r);
		if (p[2].revents)
			hook_hear(r);
		if (p[0].revents)
			over = clock_ns() + AFTER_MS * 1000000ull;
	}
	return 0;
}

static int hook_judge(struct running *r, const char *where, const char *path, int timed_out,
		      int64_t timeout, struct err *e)
{
	int ws = 0;

	if (timed_out)
		kill(-r->pid, SIGKILL);
	while (waitpid(r->pid, &ws, 0) < 0 && errno == EINTR)
		;
	if (timed_out)
		return err_set(e, -ETIMEDOUT, "%s: %.80s did not end within its timeout, %lld s",
			       where, path, (long long)timeout);
	for (char *p = r->said; *p; p++)
		*p = *p == '\n' ? ' ' : *p;
	err_clean(r->said);
	if (WIFSIGNALED(ws))
		return err_set(e, -EIO, "%s: %.80s was killed by signal %d: %s", where, path,
			       WTERMSIG(ws), r->said);
	if (WEXITSTATUS(ws))
		return err_set(e, -EIO, "%s: %.80s ended with status %d: %s", where, path,
			       WEXITSTATUS(ws), r->said);
	return 0;
}

static int hook_run(json_object *hook, const char *where, const char *state, int64_t otherwise,
		    int netns, struct err *e)
{
	int64_t timeout = j_get_int(hook, "timeout", otherwise);
	struct running r = {.process = -1,
			    .text = state,
			    .left = strlen(state),
			    .limit_ns = timeout ? clock_ns() + (uint64_t)timeout * 1000000000 : 0};
	int rc = hook_start(&r, hook, netns, e);

	if (!rc)
		rc = hook_judge(&r, where, j_get_str(hook, "path", ""), hook_wait(&r), timeout, e);
	fd_close(&r.in);
	fd_close(&r.out);
	fd_close(&r.process);
	return rc;
}

int hooks_run(json_object *hooks, const char *name, json_object *state, int64_t timeout, int netns,
	      struct err *e)
{
	json_object *list = j_get(hooks, name);
	char where[FIELD_WHERE_MAX], at[FIELD_WHERE_MAX];
	int rc = 0;

	field_in(where, "hooks", name);
	for (size_t i = 0; i < field_count(list) && !rc; i++) {
		field_at(at, where, i);
		rc = hook_run(json_object_array_get_idx(list, i), at, j_text(state), timeout, netns,
			      e);
	}
	return rc;
}

void hooks_run_all(json_object *hooks, const char *name, json_object *state, int64_t timeout)
{
	json_object *list = j_get(hooks, name);
	char where[FIELD_WHERE_MAX], at[FIELD_WHERE_MAX];
	struct err e;

	field_in(where, "hooks", name);
	for (size_t i = 0; i < field_count(list); i++) {
		field_at(at, where, i);
		if (hook_run(json_object_array_get_idx(list, i), at, j_text(state), timeout, -1,
			     &e))
			report_warn("%s", e.text);
	}
}
