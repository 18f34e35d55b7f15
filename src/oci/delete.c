/* SPDX-License-Identifier: BSD-2-Clause */
/* delete, and what takes away a container that could not be made. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>

#include "commands.h"
#include "hook.h"
#include "net.h"
#include "report.h"
#include "share.h"
#include "spec/json.h"
#include "talk.h"
#include "vm.h"

#define PROXY_MS 10000
#define VM_MS 15000
#define GUEST_MS 10000

/* ---- one thing after the other ---- */

/* The proxy ends its VM by itself, when it is asked to; killed, by its connection. */
static int end_processes(const struct container *c, struct err *e)
{
	int rc = proc_kill(&c->proxy, SIGKILL), vm;

	if (rc && rc != -ESRCH)
		return err_sys(e, rc, "container \"%s\": its processes", c->id);
	rc = proc_wait(&c->proxy, PROXY_MS);
	vm = proc_wait(&c->vm, VM_MS);
	if (vm) {
		proc_kill(&c->vm, SIGKILL);
		vm = proc_wait(&c->vm, PROXY_MS);
	}
	rc = rc ? rc : vm;
	return rc ? err_sys(e, rc, "container \"%s\": its processes do not end", c->id) : 0;
}

/* In a VM that goes on. */
static void leave_guest(const struct container *c, const char *root)
{
	struct err e;
	int rc;

	if (state_owns_vm(c))
		return;
	rc = ask_guest(c, root, "delete", NULL, NULL, GUEST_MS, NULL, &e);
	if (rc && rc != -ENOENT)
		report_debug("container \"%s\": %s", c->id, e.text);
}

/* By its path alone it may be another one by now, the host's even. */
static bool enter_net(const struct container *c)
{
	int fd = open(c->netns, O_RDONLY | O_CLOEXEC);
	char name[32];
	struct stat st;

	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	return fd >= 0 && !fstat(fd, &st) && st.st_dev == c->netns_dev &&
	       st.st_ino == c->netns_ino && !state_ns_is_ours("net", name) &&
	       !setns(fd, CLONE_NEWNET);
}

/* A namespace that is gone took its rules along; so did one of the container's own, with its proxy. */
static void leave_net(const struct container *c)
{
	pid_t pid = c->net && c->netns[0] ? fork() : -1;

	if (pid == 0) {
		if (enter_net(c))
			net_leave(c->net);
		_exit(0);
	}
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

static int drop_share(const struct container *c, const char *root, struct err *e)
{
	char dir[PATH_MAX];

	snprintf(dir, sizeof(dir), "%s/%s/share", root, c->sandbox);
	return state_owns_vm(c) ? share_remove(dir, e) : share_drop(dir, c->id, e);
}

/* ---- all of it ---- */

static void note(int *rc, int got, struct err *e, const struct err *now)
{
	if (!got)
		return;
	report_warn("%s", now->text);
	if (!*rc)
		*e = *now;
	*rc = *rc ? *rc : got;
}

int destroy(struct container *c, const char *root, struct err *e)
{
	struct err now = {.code = 0};
	int rc = 0;

	leave_guest(c, root);
	note(&rc, end_processes(c, &now), e, &now);
	leave_net(c);
	note(&rc, drop_share(c, root, &now), e, &now);
	if (c->group.made)
		note(&rc, container_group_remove(&c->group, &now), e, &now);
	/* What is left is known as long as its state is. */
	if (!rc) {
		rc = container_state_remove(c, e);
		state_close(c);
	}
	return rc;
}

static int may_delete(const struct container *c, bool force, struct err *e)
{
	enum status s = state_status(c);

	if (s == STATUS_STOPPED || s == STATUS_CREATING || force)
		return 0;
	return err_set(e, -EBUSY, "cannot delete container %s that is not stopped: %s", c->id,
		       state_word(s));
}

int delete_command(const struct flags *f, struct err *e)
{
	json_object *state, *hooks;
	struct container c;
	int rc = container_state_open(&c, f->root, f->id, true, e);

	if (rc == -ENOENT && f->force)
		return 0;
	if (rc)
		return rc;
	rc = may_delete(&c, f->force, e);
	if (rc) {
		state_close(&c);
		return rc;
	}
	state = state_json(&c, STATUS_STOPPED);
	hooks = c.hooks ? json_object_get(c.hooks) : NULL;
	rc = destroy(&c, f->root, e);
	state_close(&c);
	if (!rc)
		hooks_run_all(hooks, "poststop", state, c.hook_timeout);
	json_object_put(hooks);
	json_object_put(state);
	return rc;
}
