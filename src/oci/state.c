/* SPDX-License-Identifier: BSD-2-Clause */
/* What is kept of containers. See state.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <insula/base.h>

#include "bundle.h"
#include "spec/json.h"
#include "state.h"

#define LOCK_MS 10000
#define LOCK_STEP_NS 10000000
#define STATE_MAX (8u << 20)

/* ---- the directory ---- */

static int make_root(const char *root, struct err *e)
{
	char path[PATH_MAX];

	if (root[0] != '/' || snprintf(path, sizeof(path), "%s", root) >= PATH_MAX - 200)
		return err_set(e, -EINVAL, "--root: %.100s; expected an absolute path", root);
	for (char *p = path + 1; (p = strchr(p, '/')); p++) {
		*p = 0;
		mkdir(path, 0711);
		*p = '/';
	}
	return mkdir(path, 0700) && errno != EEXIST ? err_sys(e, -errno, "--root: %s", root) : 0;
}

static int enter(struct container *c, const char *root, const char *id, struct err *e)
{
	int n;

	*c = (struct container){.at = -1, .lock = -1};
	if (bundle_check_id(id, e))
		return -EINVAL;
	snprintf(c->id, sizeof(c->id), "%s", id);
	n = snprintf(c->dir, sizeof(c->dir), "%s/%s", root, id);
	if (n >= PATH_MAX - 64)
		return err_set(e, -ENAMETOOLONG, "--root: %.100s...: too long", root);
	c->at = open(c->dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return c->at < 0 ? -errno : 0;
}

static int missing(const char *id, struct err *e)
{
	return err_set(e, -ENOENT, "container \"%s\" does not exist", id);
}

/* A directory that was removed while we waited is not the container's any more. */
static int take_lock(struct container *c, int ms)
{
	const struct timespec step = {.tv_nsec = LOCK_STEP_NS};
	uint64_t limit = clock_ns() + (uint64_t)ms * 1000000;
	struct stat st;

	c->lock = openat(c->at, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (c->lock < 0)
		return -errno;
	while (flock(c->lock, LOCK_EX | LOCK_NB)) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return -errno;
		if (clock_ns() >= limit)
			return -EBUSY;
		nanosleep(&step, NULL);
	}
	return fstat(c->lock, &st) || !st.st_nlink ? -ENOENT : 0;
}

/* ---- to JSON ---- */

static json_object *proc_json(const struct proc *p)
{
	json_object *o = json_object_new_object();

	j_int(o, "pid", p->pid);
	j_int(o, "start", (int64_t)p->start);
	return o;
}

static json_object *group_json(const struct cgroup *g)
{
	json_object *o = json_object_new_object();

	j_str(o, "path", g->path);
	j_str(o, "unit", g->unit);
	j_bool(o, "made", g->made);
	return o;
}

static void share_object(json_object *o, const char *key, json_object *v)
{
	if (v)
		j_obj(o, key, json_object_get(v));
}

static json_object *to_json(const struct container *c)
{
	json_object *o = json_object_new_object();

	j_str(o, "ociVersion", OCI_VERSION);
	j_str(o, "id", c->id);
	j_str(o, "sandbox", c->sandbox);
	j_str(o, "status", state_word(c->status));
	j_str(o, "bundle", c->bundle);
	j_str(o, "rootfs", c->rootfs);
	j_str(o, "netns", c->netns);
	j_int(o, "netns_dev", (int64_t)c->netns_dev);
	j_int(o, "netns_ino", (int64_t)c->netns_ino);
	j_str(o, "created", c->created);
	j_obj(o, "proxy", proc_json(&c->proxy));
	j_obj(o, "vm", proc_json(&c->vm));
	j_bool(o, "pod", c->pod);
	j_int(o, "execs", c->execs);
	j_int(o, "hook_timeout", c->hook_timeout);
	j_int(o, "boot_timeout", c->boot_timeout);
	j_bool(o, "seccomp", c->seccomp);
	j_int(o, "seccomp_flags", c->seccomp_flags);
	j_int(o, "overhead", (int64_t)c->overhead);
	j_int(o, "vm_mem", (int64_t)c->vm_mem);
	j_obj(o, "group", group_json(&c->group));
	share_object(o, "annotations", c->annotations);
	share_object(o, "hooks", c->hooks);
	share_object(o, "process", c->process);
	share_object(o, "net", c->net);
	share_object(o, "vfio", c->vfio);
	return o;
}

int state_save(const struct container *c, struct err *e)
{
	json_object *o = to_json(c);
	const char *text = j_text(o);
	int fd, rc = 0;

	unlinkat(c->at, "state.new", 0);
	fd = openat(c->at, "state.new", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		rc = -errno;
	if (!rc)
		rc = write_full(fd, text, strlen(text));
	fd_close(&fd);
	if (!rc && renameat(c->at, "state.new", c->at, "state.json"))
		rc = -errno;
	json_object_put(o);
	return rc ? err_sys(e, rc, "%s/state.json", c->dir) : 0;
}

/* ---- from JSON: written by ourselves, in a directory of ours ---- */

static const char *const words[] = {
	[STATUS_CREATING] = "creating", [STATUS_CREATED] = "created", [STATUS_RUNNING] = "running",
	[STATUS_PAUSED] = "paused",     [STATUS_STOPPED] = "stopped",
};

const char *state_word(enum status s)
{
	return words[s];
}

static void take_text(char *out, size_t size, json_object *o, const char *key)
{
	snprintf(out, size, "%s", j_get_str(o, key, ""));
}

static struct proc take_proc(json_object *o)
{
	return (struct proc){(pid_t)j_get_int(o, "pid", 0), (uint64_t)j_get_int(o, "start", 0)};
}

static json_object *take_object(json_object *o, const char *key)
{
	json_object *v = j_get(o, key);

	return json_object_is_type(v, json_type_object) ? json_object_get(v) : NULL;
}

static json_object *take_array(json_object *o, const char *key)
{
	json_object *v = j_get(o, key);

	return json_object_is_type(v, json_type_array) ? json_object_get(v) : NULL;
}

static void from_json(struct container *c, json_object *o)
{
	const char *status = j_get_str(o, "status", "");

	take_text(c->sandbox, sizeof(c->sandbox), o, "sandbox");
	take_text(c->bundle, sizeof(c->bundle), o, "bundle");
	take_text(c->rootfs, sizeof(c->rootfs), o, "rootfs");
	take_text(c->netns, sizeof(c->netns), o, "netns");
	c->netns_dev = (uint64_t)j_get_int(o, "netns_dev", 0);
	c->netns_ino = (uint64_t)j_get_int(o, "netns_ino", 0);
	take_text(c->created, sizeof(c->created), o, "created");
	for (unsigned i = 0; i < STATUS_STOPPED; i++) {
		if (!strcmp(words[i], status))
			c->status = (enum status)i;
	}
	c->proxy = take_proc(j_get(o, "proxy"));
	c->vm = take_proc(j_get(o, "vm"));
	c->pod = j_get_bool(o, "pod", false);
	c->execs = (unsigned)j_get_int(o, "execs", 0);
	c->hook_timeout = (unsigned)j_get_int(o, "hook_timeout", 0);
	c->boot_timeout = (unsigned)j_get_int(o, "boot_timeout", 60);
	c->seccomp = j_get_bool(o, "seccomp", false);
	c->seccomp_flags = (unsigned)j_get_int(o, "seccomp_flags", 0);
	c->overhead = (uint64_t)j_get_int(o, "overhead", 0);
	c->vm_mem = (uint64_t)j_get_int(o, "vm_mem", 0);
	take_text(c->group.path, sizeof(c->group.path), j_get(o, "group"), "path");
	take_text(c->group.unit, sizeof(c->group.unit), j_get(o, "group"), "unit");
	c->group.made = j_get_bool(j_get(o, "group"), "made", false);
	c->annotations = take_object(o, "annotations");
	c->hooks = take_object(o, "hooks");
	c->process = take_object(o, "process");
	c->net = j_get(o, "net") ? json_object_get(j_get(o, "net")) : NULL;
	c->vfio = take_array(o, "vfio");
}

static int load(struct container *c, struct err *e)
{
	char path[PATH_MAX + 16], *text;
	const char *why;
	json_object *o;
	size_t len;
	int rc;

	snprintf(path, sizeof(path), "/proc/self/fd/%d/state.json", c->at);
	rc = text_read(path, false, STATE_MAX, &text, &len);
	if (rc)
		return rc == -ENOENT ? missing(c->id, e) : err_sys(e, rc, "%s/state.json", c->dir);
	o = j_parse(text, len, BUNDLE_DEPTH + 2, &why);
	free(text);
	if (!o)
		return err_set(e, -EIO, "%s/state.json: %s", c->dir, why);
	from_json(c, o);
	json_object_put(o);
	return 0;
}

/* ---- open and close ---- */

static void stamp(char out[40])
{
	struct timespec t;
	struct tm tm;
	size_t n;

	clock_gettime(CLOCK_REALTIME, &t);
	gmtime_r(&t.tv_sec, &tm);
	n = strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out + n, 40 - n, ".%06ldZ", t.tv_nsec / 1000 % 1000000);
}

/* A directory without state.json, and without a command that holds its lock, is what one left that
 * was killed before it had made anything. */
static int claim(struct container *c, bool fresh, struct err *e)
{
	int rc = take_lock(c, fresh ? LOCK_MS : 0);

	/* A new one, too: somebody may have had the lock before us. */
	if (rc ? !fresh : !faccessat(c->at, "state.json", F_OK, 0))
		return err_set(e, -EEXIST, "container with id \"%s\" already exists", c->id);
	return rc ? err_sys(e, rc, "%s/lock", c->dir) : 0;
}

int state_new(struct container *c, const char *root, const char *id, struct err *e)
{
	char path[PATH_MAX];
	bool fresh;
	int rc;

	*c = (struct container){.at = -1, .lock = -1};
	rc = bundle_check_id(id, e);
	if (!rc)
		rc = make_root(root, e);
	if (rc)
		return rc;
	snprintf(path, sizeof(path), "%s/%s", root, id);
	fresh = !mkdir(path, 0700);
	if (!fresh && errno != EEXIST)
		return err_sys(e, -errno, "%s", path);
	rc = enter(c, root, id, e);
	if (rc)
		rc = err_sys(e, rc, "%s", path);
	else
		rc = claim(c, fresh, e);
	stamp(c->created);
	if (rc)
		state_close(c);
	return rc;
}

int container_state_open(struct container *c, const char *root, const char *id, bool lock,
			 struct err *e)
{
	int rc = enter(c, root, id, e);

	if (rc == -ENOENT)
		missing(id, e);
	else if (rc && rc != -EINVAL)
		err_sys(e, rc, "%s", c->dir);
	if (!rc && lock) {
		rc = take_lock(c, LOCK_MS);
		if (rc == -ENOENT)
			missing(id, e);
		else if (rc)
			err_sys(e, rc, "container \"%s\": another command is at work on it", id);
	}
	if (!rc)
		rc = load(c, e);
	if (rc)
		state_close(c);
	return rc;
}

void state_close(struct container *c)
{
	fd_close(&c->lock);
	fd_close(&c->at);
	json_object_put(c->annotations);
	json_object_put(c->hooks);
	json_object_put(c->process);
	json_object_put(c->net);
	json_object_put(c->vfio);
	c->annotations = c->hooks = c->process = c->net = c->vfio = NULL;
}

/* ---- away ---- */

static int remove_all(int at, const char *name)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), rc = 0;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *n;

	if (!d) {
		fd_close(&fd);
		return unlinkat(at, name, 0) && errno != ENOENT ? -errno : 0;
	}
	while ((n = readdir(d))) {
		if (strcmp(n->d_name, ".") != 0 && strcmp(n->d_name, "..") != 0 &&
		    unlinkat(fd, n->d_name, 0) && errno != ENOENT)
			rc = -errno;
	}
	closedir(d);
	if (unlinkat(at, name, AT_REMOVEDIR) && errno != ENOENT)
		rc = -errno;
	return rc;
}

/* state.json before the lock: who waits for that finds the container gone. Only files of ours, one
 * level deep: a share that could not be unmounted stays, and so does all of it. */
int container_state_remove(struct container *c, struct err *e)
{
	static const char *const names[] = {"vm",      "share",     "proxy",      "seccomp",
					    "sandbox", "state.new", "state.json", "lock"};
	int rc = 0;

	for (size_t i = 0; i < ARRAY_LEN(names) && !rc; i++)
		rc = remove_all(c->at, names[i]);
	if (!rc && rmdir(c->dir) && errno != ENOENT)
		rc = -errno;
	return rc ? err_sys(e, rc, "%s cannot be removed", c->dir) : 0;
}

/* ---- questions ---- */

bool state_owns_vm(const struct container *c)
{
	return !strcmp(c->id, c->sandbox);
}

enum status state_status(const struct container *c)
{
	if (c->status == STATUS_CREATING && !c->proxy.pid)
		return STATUS_CREATING;
	return proc_alive(&c->proxy) ? c->status : STATUS_STOPPED;
}

json_object *state_json(const struct container *c, enum status s)
{
	json_object *o = json_object_new_object();

	j_str(o, "ociVersion", OCI_VERSION);
	j_str(o, "id", c->id);
	j_int(o, "pid", s == STATUS_STOPPED ? 0 : c->proxy.pid);
	j_str(o, "status", state_word(s));
	j_str(o, "bundle", c->bundle);
	j_str(o, "rootfs", c->rootfs);
	j_str(o, "created", c->created);
	share_object(o, "annotations", c->annotations);
	j_str(o, "owner", "root");
	return o;
}

int state_each(const char *root, state_fn *fn, void *ctx, struct err *e)
{
	DIR *d = opendir(root);
	const struct dirent *n;
	int rc = 0;

	if (!d)
		return errno == ENOENT ? 0 : err_sys(e, -errno, "--root: %s", root);
	while (!rc && (n = readdir(d))) {
		struct container c;

		/* One that is being made or removed is passed over. */
		if (bundle_check_id(n->d_name, NULL) ||
		    container_state_open(&c, root, n->d_name, false, NULL))
			continue;
		rc = fn(ctx, &c);
		state_close(&c);
	}
	closedir(d);
	return rc;
}

/* ---- namespaces ---- */

struct ns_look {
	const char *type, *sandbox, *but;
	pid_t pid;      /* 0: the path does not name one */
	struct stat st; /* st_ino 0: there is none */
	char *id;
};

static int ns_is_of(void *ctx, const struct container *c)
{
	const struct ns_look *l = ctx;
	char path[64];
	struct stat st;

	if (!proc_alive(&c->proxy) || (l->sandbox && strcmp(l->sandbox, c->sandbox) != 0) ||
	    (l->but && !strcmp(l->but, c->id)))
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/ns/%s", c->proxy.pid, l->type);
	/* Its own pid namespace no process can be in: there the number alone counts. */
	if (c->proxy.pid != l->pid &&
	    (!l->st.st_ino || !strcmp(l->type, "pid") || stat(path, &st) ||
	     st.st_ino != l->st.st_ino || st.st_dev != l->st.st_dev))
		return 0;
	snprintf(l->id, CT_ID_MAX + 1, "%s", c->id);
	return 1;
}

/* The host's own namespace is nobody's. */
bool state_ns_is_ours(const char *type, const char *path)
{
	static const char *const who[] = {"self", "1"};
	char name[64];
	struct stat st, own;

	if (stat(path, &st))
		return false;
	for (size_t i = 0; i < ARRAY_LEN(who); i++) {
		snprintf(name, sizeof(name), "/proc/%s/ns/%s", who[i], type);
		if (!stat(name, &own) && own.st_ino == st.st_ino && own.st_dev == st.st_dev)
			return true;
	}
	return false;
}

bool state_ns_owner(const char *root, const char *type, const char *path, const char *sandbox,
		    const char *but, char id[CT_ID_MAX + 1])
{
	struct ns_look l = {.type = type, .sandbox = sandbox, .but = but, .id = id};
	int n = 0;

	if (sscanf(path, "/proc/%d/ns/%n", &l.pid, &n) != 1 || !n)
		l.pid = 0;
	if (stat(path, &l.st) || state_ns_is_ours(type, path))
		l.st.st_ino = 0;
	return state_each(root, ns_is_of, &l, NULL) == 1;
}
