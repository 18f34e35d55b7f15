/* SPDX-License-Identifier: BSD-2-Clause */
/* exec: one more process in a container. Attached it is this very process that stands for it;
 * detached, a proxy of its own. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>

#include "bundle.h"
#include "commands.h"
#include "proxy.h"
#include "raw.h"
#include "record.h"
#include "spec/json.h"
#include "vm.h"

/* ---- the process ---- */

static json_object *copy_of(json_object *o)
{
	json_object *copy = NULL;

	return o && !json_object_deep_copy(o, &copy, NULL) ? copy : json_object_new_object();
}

static void set_texts(json_object *o, const char *key, const struct flag_list *l)
{
	json_object *list = json_object_new_array();

	for (unsigned i = 0; i < l->n; i++)
		json_object_array_add(list, json_object_new_string(l->at[i]));
	j_obj(o, key, list);
}

static void add_env(json_object *process, const struct flag_list *l)
{
	json_object *env = j_get(process, "env");

	if (!json_object_is_type(env, json_type_array)) {
		set_texts(process, "env", l);
		return;
	}
	for (unsigned i = 0; i < l->n; i++)
		json_object_array_add(env, json_object_new_string(l->at[i]));
}

static int number(const char *text, size_t len, int64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoll(text, &end, 10);
	return errno || !len || end != text + len || *out < 0 || *out >= UINT32_MAX ? -EINVAL : 0;
}

static int set_user(json_object *process, const struct flags *f, struct err *e)
{
	json_object *user = json_object_new_object(), *gids = json_object_new_array();
	const char *colon = f->user ? strchr(f->user, ':') : NULL;
	int64_t uid, gid = 0, more;
	int rc = 0;

	if (number(f->user ? f->user : "0",
		   colon ? (size_t)(colon - f->user) : strlen(f->user ? f->user : "0"), &uid) ||
	    (colon && number(colon + 1, strlen(colon + 1), &gid)))
		rc = err_set(e, -EINVAL, "--user: '%.40s'; expected UID[:GID], numbers", f->user);
	for (unsigned i = 0; i < f->gids.n && !rc; i++) {
		if (number(f->gids.at[i], strlen(f->gids.at[i]), &more))
			rc = err_set(e, -EINVAL, "--additional-gids: '%.40s'; expected a number",
				     f->gids.at[i]);
		else
			json_object_array_add(gids, json_object_new_int64(more));
	}
	if (!rc) {
		j_int(user, "uid", uid);
		j_int(user, "gid", gid);
	}
	j_obj(user, "additionalGids", gids);
	j_obj(process, "user", user);
	return rc;
}

/* In all sets, as others do it. */
static void add_caps(json_object *process, const struct flag_list *l)
{
	static const char *const sets[] = {"bounding", "effective", "permitted"};
	json_object *caps = j_get(process, "capabilities");

	if (!caps) {
		caps = json_object_new_object();
		j_obj(process, "capabilities", caps);
	}
	for (size_t s = 0; s < ARRAY_LEN(sets); s++) {
		json_object *list = j_get(caps, sets[s]);

		if (!list) {
			list = json_object_new_array();
			j_obj(caps, sets[s], list);
		}
		for (unsigned i = 0; i < l->n; i++)
			json_object_array_add(list, json_object_new_string(l->at[i]));
	}
}

/* By flags: the container's own process with another command. */
static int from_flags(const struct container *c, const struct flags *f, json_object **out,
		      struct err *e)
{
	json_object *p = copy_of(c->process), *args = json_object_new_array();
	int rc = 0;

	for (unsigned i = 0; i < f->nargs; i++)
		json_object_array_add(args, json_object_new_string(f->args[i]));
	j_obj(p, "args", args);
	j_bool(p, "terminal", f->tty);
	if (f->cwd)
		j_str(p, "cwd", f->cwd);
	if (f->no_new_privs)
		j_bool(p, "noNewPrivileges", true);
	if (f->env.n)
		add_env(p, &f->env);
	if (f->caps.n)
		add_caps(p, &f->caps);
	if (f->user || f->gids.n)
		rc = set_user(p, f, e);
	if (!rc && !f->nargs)
		rc = err_set(e, -EINVAL, "exec: no command; expected one, or --process FILE");
	if (rc)
		json_object_put(p);
	else
		*out = p;
	return rc;
}

static int find_process(const struct container *c, const struct flags *f, json_object **out,
			struct err *e)
{
	*out = NULL;
	return f->process ? bundle_object(f->process, "--process", out, e)
			  : from_flags(c, f, out, e);
}

/* ---- its records ---- */

static int write_process(const struct container *c, const struct flags *f, const char *name,
			 json_object *process, struct err *e)
{
	char filter[48];
	int share = vm_share(c, f->root, e), rc;
	struct rec r;

	snprintf(filter, sizeof(filter), "%s.seccomp", name);
	if (share < 0)
		return share;
	rec_init(&r);
	rc = record_process(process, c->seccomp ? filter : NULL, c->seccomp_flags, &r, e);
	if (!rc)
		rc = rec_write(&r, share, name, e);
	if (!rc && c->seccomp)
		rc = copy_filter(c, share, filter, e);
	rec_free(&r);
	close(share);
	return rc;
}

/* Those of a process that has not come so far as to remove them itself. */
static void drop_records(const struct container *c, const struct flags *f, const char *name)
{
	static const char *const ends[] = {"", ".status", ".seccomp"};
	int share = vm_share(c, f->root, NULL);
	char file[48];

	for (size_t i = 0; i < ARRAY_LEN(ends) && share >= 0; i++) {
		snprintf(file, sizeof(file), "%s%s", name, ends[i]);
		unlinkat(share, file, 0);
	}
	fd_close(&share);
}

/* ---- run ---- */

static int exec_detached(const struct proxy_job *j, const struct flags *f, struct err *e)
{
	struct proxy_child p;
	int rc = proxy_fork(j, &p, e);

	if (rc)
		return rc;
	if (j->c->group.path[0])
		rc = container_group_enter(&j->c->group, p.process.pid, e);
	if (!rc)
		rc = proxy_order(&p, "join", NULL, e);
	if (!rc)
		rc = proxy_order(&p, "start", NULL, e);
	if (!rc)
		rc = write_pid_file(f->pid_file, p.process.pid, e);
	if (!rc)
		rc = proxy_order(&p, "leave", NULL, e);
	if (rc)
		proxy_abandon(&p);
	fd_close(&p.channel);
	return rc;
}

static int exec_attached(const struct proxy_job *j, const struct flags *f, struct err *e)
{
	struct termios before;
	bool raw = false;
	int rc = j->c->group.path[0] ? container_group_enter(&j->c->group, 0, e) : 0;

	if (!rc)
		rc = write_pid_file(f->pid_file, getpid(), e);
	if (rc)
		return rc;
	if (j->io.tty && !j->io.session)
		raw = raw_enter(&before);
	rc = proxy_here(j, e);
	if (raw)
		raw_leave(&before);
	return rc;
}

static int may_exec(const struct container *c, const struct flags *f, struct err *e)
{
	enum status s = state_status(c);

	if (s == STATUS_PAUSED && !f->ignore_paused)
		return err_set(e, -EINVAL, "cannot exec in a paused container");
	if (s == STATUS_STOPPED || s == STATUS_CREATING)
		return err_set(e, -ESRCH,
			       "cannot exec in a stopped container: container not running");
	if (s == STATUS_CREATED)
		return err_set(e, -EINVAL, "cannot exec in a container that is not started");
	return 0;
}

/* A name that no other exec of the container has. */
static int take_name(struct container *c, const struct flags *f, char name[24], struct err *e)
{
	int rc = container_state_open(c, f->root, f->id, true, e);

	if (rc)
		return rc;
	rc = may_exec(c, f, e);
	snprintf(name, 24, "exec-%u", ++c->execs);
	if (!rc)
		rc = state_save(c, e);
	if (rc)
		state_close(c);
	fd_close(&c->lock);
	return rc;
}

static int exec_it(const struct container *c, const struct flags *f, const char *name,
		   json_object *process, struct err *e)
{
	struct proxy_job j = {.c = c, .root = f->root, .exec = name, .process = process};
	bool detached = f->detach || f->console_socket;
	int rc = tty_check(process, f->console_socket, f->detach, e);

	if (!rc)
		rc = tty_open(&j.io, process, f->console_socket, e);
	if (rc)
		return rc;
	rc = write_process(c, f, name, process, e);
	if (!rc)
		rc = detached ? exec_detached(&j, f, e) : exec_attached(&j, f, e);
	if (rc < 0)
		drop_records(c, f, name);
	tty_close(&j.io);
	return rc;
}

int exec_command(const struct flags *f, struct err *e)
{
	json_object *process = NULL;
	struct container c;
	char name[24];
	int rc = check_preserve_fds(f, e);

	if (!rc)
		rc = take_name(&c, f, name, e);
	if (rc)
		return rc;
	rc = find_process(&c, f, &process, e);
	if (!rc)
		rc = exec_it(&c, f, name, process, e);
	json_object_put(process);
	state_close(&c);
	return rc;
}
