/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * create. Everything is checked first; then state.json says what will be, and it is made: the share
 * with the records, the proxy in its control group, hooks, the VM. Whatever fails takes all of it
 * away again.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>

#include "assign.h"
#include "bundle.h"
#include "commands.h"
#include "field.h"
#include "hook.h"
#include "ns.h"
#include "program.h"
#include "proxy.h"
#include "record.h"
#include "report.h"
#include "seccomp.h"
#include "share.h"
#include "spec/json.h"
#include "vm.h"

#define FILTER_BYTES (CT_FILTER_MAX * 8u)
#define SYS "/sys"

struct making {
	const struct flags *f;
	struct oci_conf conf;
	struct bundle b;
	struct container c;
	struct vm_size size;
	struct assign assign;
	enum bundle_role role;
	struct proxy_child proxy;
	struct stdio io;
	bool host_net;
	bool hooks; /* some have been run */
};

/* ---- small things ---- */

int write_pid_file(const char *path, pid_t pid, struct err *e)
{
	char temp[PATH_MAX], text[16];
	int fd, rc = 0, n = snprintf(text, sizeof(text), "%d", pid);

	if (!path)
		return 0;
	if (snprintf(temp, sizeof(temp), "%s.%d", path, getpid()) >= PATH_MAX)
		return err_set(e, -ENAMETOOLONG, "--pid-file: too long");
	fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return err_sys(e, -errno, "--pid-file: %.150s", path);
	if (write(fd, text, (size_t)n) != n || rename(temp, path)) {
		rc = err_sys(e, -errno, "--pid-file: %.150s", path);
		unlink(temp);
	}
	close(fd);
	return rc;
}

int check_preserve_fds(const struct flags *f, struct err *e)
{
	if (!f->preserve_fds || !strcmp(f->preserve_fds, "0"))
		return 0;
	return err_set(e, -EINVAL,
		       "--preserve-fds: %.20s; expected 0: a descriptor of the host is of no use "
		       "in a VM",
		       f->preserve_fds);
}

int copy_filter(const struct container *c, int share, const char *name, struct err *e)
{
	char *buf = malloc(FILTER_BYTES);
	int from = openat(c->at, "seccomp", O_RDONLY | O_CLOEXEC | O_NOFOLLOW), to = -1, rc = 0;
	uint64_t size = 0;

	if (!buf || from < 0 || file_size(from, &size) || size > FILTER_BYTES ||
	    read_full(from, buf, (size_t)size, 0))
		rc = err_set(e, -EIO, "%s/seccomp cannot be read", c->dir);
	if (!rc)
		to = openat(share, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
			    0600);
	if (!rc && (to < 0 || write_full(to, buf, (size_t)size)))
		rc = err_sys(e, -errno, "%s", name);
	fd_close(&from);
	fd_close(&to);
	free(buf);
	return rc;
}

/* ---- what is wanted ---- */

static int check_kvm(struct err *e)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return err_set(e, -errno, "/dev/kvm: %s; expected a Linux host with KVM",
			       strerror(errno));
	close(fd);
	return 0;
}

/* An annotation alone opens no VM: who has set up a network for the container means one VM by it. */
static int may_join(const struct making *m, const struct container *vm, struct err *e)
{
	char id[CT_ID_MAX + 1], theirs[64];
	const char *path;

	if (!bundle_namespace(&m->b, "network", &path) || !path || !path[0] ||
	    state_ns_owner(m->f->root, "net", path, vm->sandbox, NULL, id))
		return 0;
	snprintf(theirs, sizeof(theirs), "/proc/%d/ns/net", vm->proxy.pid);
	if (state_ns_is_ours("net", path) && state_ns_is_ours("net", theirs))
		return 0;
	return err_set(e, -EPERM,
		       "linux.namespaces: network: %.100s; expected the namespace of sandbox "
		       "\"%s\", which the annotations name",
		       path, vm->sandbox);
}

/* A pod of podman's with --infra=false has no machine: what the annotation names is the pod
 * itself. */
static bool is_pod_alone(const struct making *m, const char *sandbox)
{
	struct container c;
	int rc;

	if (strcmp(j_get_str(m->b.annotations, "io.container.manager", ""), "libpod") != 0)
		return false;
	rc = container_state_open(&c, m->f->root, sandbox, false, NULL);
	if (!rc)
		state_close(&c);
	return rc == -ENOENT;
}

/* Without an annotation, as with podman's --network container:NAME, a container names the
 * namespaces of another one. */
static int find_vm(struct making *m, const char *sandbox, struct err *e)
{
	static const char *const kinds[][2] = {{"network", "net"}, {"ipc", "ipc"}, {"uts", "uts"}};
	char id[CT_ID_MAX + 1];
	struct container other;
	const char *path;
	bool named;
	int rc = 0;

	if (m->role == BUNDLE_MEMBER && is_pod_alone(m, sandbox))
		m->role = BUNDLE_ALONE;
	named = m->role == BUNDLE_MEMBER;
	for (size_t i = 0; i < ARRAY_LEN(kinds) && m->role == BUNDLE_ALONE; i++) {
		if (bundle_namespace(&m->b, kinds[i][0], &path) && path &&
		    state_ns_owner(m->f->root, kinds[i][1], path, NULL, NULL, id)) {
			m->role = BUNDLE_MEMBER;
			sandbox = id;
		}
	}
	if (m->role != BUNDLE_MEMBER)
		return 0;
	if (container_state_open(&other, m->f->root, sandbox, false, e))
		return err_set(e, -ENOENT, "sandbox \"%s\" does not exist", sandbox);
	snprintf(m->c.sandbox, sizeof(m->c.sandbox), "%s", other.sandbox);
	if (!proc_alive(&other.proxy))
		rc = err_set(e, -ENOENT, "sandbox \"%s\" is not running", sandbox);
	else if (named)
		rc = may_join(m, &other, e);
	state_close(&other);
	return rc;
}

/* Functions of the host: of its own VM, or which are in the one that it joins. */
static int find_functions(struct making *m, struct err *e)
{
	struct container owner;
	int rc = assign_wanted(SYS, &m->b, m->conf.vfio_annotation, &m->assign, e);

	if (rc || !m->assign.ngroups)
		return rc;
	if (m->role != BUNDLE_MEMBER)
		return assign_functions(SYS, &m->assign, e);
	rc = container_state_open(&owner, m->f->root, m->c.sandbox, false, e);
	if (rc)
		return rc;
	rc = assign_join(&m->assign, owner.vfio, m->c.sandbox, e);
	state_close(&owner);
	return rc;
}

static bool wants_systemd(const struct flags *f)
{
	return f->systemd_cgroup || (f->cgroup_manager && !strcmp(f->cgroup_manager, "systemd"));
}

static int name_group(struct making *m, struct err *e)
{
	const char *path = NULL;
	int rc = field_text(m->b.linux_, "linux", "cgroupsPath", &path, e);

	if (rc || (m->f->cgroup_manager && !strcmp(m->f->cgroup_manager, "disabled")))
		return rc;
	rc = cgroup_name(&m->c.group, path, wants_systemd(m->f), m->f->id, e);
	return rc ? rc : container_group_check(&m->c.group, e);
}

/* Not silently another one: who asks for the host's network means what listens there. */
static int check_net(struct making *m, struct err *e)
{
	const char *path;

	m->host_net = !bundle_namespace(&m->b, "network", &path) ||
		      (path && state_ns_is_ours("net", path));
	if (!m->host_net || m->role == BUNDLE_MEMBER || strcmp(m->conf.net_host, "refuse") != 0)
		return 0;
	return err_set(e, -EINVAL,
		       "linux.namespaces: network: the host's; expected another one: a VM cannot "
		       "have the host's network (host_network of the configuration may give it "
		       "none or a user's)");
}

static int making_check(struct making *m, struct err *e)
{
	const char *sandbox;
	int rc = bundle_check_id(m->f->id, e);

	if (!rc)
		rc = conf_read(&m->conf, m->f->config, m->f->config_named, e);
	if (!rc)
		rc = check_preserve_fds(m->f, e);
	if (!rc)
		rc = bundle_read(&m->b, m->f->bundle, e);
	if (!rc)
		rc = program_check(&m->b, e);
	if (!rc)
		rc = hooks_check(m->b.hooks, e);
	if (!rc)
		rc = tty_check(m->b.process, m->f->console_socket,
			       m->f->command == CMD_CREATE || m->f->detach, e);
	if (!rc)
		rc = bundle_role(&m->b, &m->role, &sandbox, e);
	if (!rc)
		rc = find_vm(m, sandbox, e);
	if (!rc && m->role != BUNDLE_MEMBER)
		rc = check_kvm(e);
	if (!rc && m->role != BUNDLE_MEMBER)
		rc = conf_size(&m->conf, &m->b, &m->size, e);
	if (!rc)
		rc = find_functions(m, e);
	if (!rc)
		rc = name_group(m, e);
	return rc ? rc : check_net(m, e);
}

/* ---- state ---- */

static json_object *hold(json_object *o)
{
	return o ? json_object_get(o) : NULL;
}

static int making_begin(struct making *m, struct err *e)
{
	struct container had = m->c, *c = &m->c;
	const char *path;
	int rc = state_new(c, m->f->root, m->f->id, e);

	if (rc)
		return rc;
	c->group = had.group;
	memcpy(c->sandbox, m->role == BUNDLE_MEMBER ? had.sandbox : c->id, sizeof(c->sandbox));
	memcpy(c->bundle, m->b.path, sizeof(c->bundle));
	memcpy(c->rootfs, m->b.rootfs, sizeof(c->rootfs));
	if (!m->host_net && bundle_namespace(&m->b, "network", &path) && path)
		snprintf(c->netns, sizeof(c->netns), "%s", path);
	c->status = STATUS_CREATING;
	c->pod = m->role == BUNDLE_SANDBOX;
	c->overhead = m->role == BUNDLE_MEMBER ? 0 : m->conf.overhead + m->conf.mem_overhead;
	c->vm_mem = m->role == BUNDLE_MEMBER ? 0 : m->size.mem;
	c->annotations = hold(m->b.annotations);
	c->hooks = hold(m->b.hooks);
	c->hook_timeout = m->conf.hook_timeout;
	c->boot_timeout = m->conf.boot_timeout;
	c->process = hold(m->b.process);
	c->vfio = m->role == BUNDLE_MEMBER ? NULL : assign_json(&m->assign);
	return state_save(c, e);
}

/* ---- the share ---- */

static const char *ns_owner(void *ctx, const char *path)
{
	static const char *const types[] = {"ipc", "uts", "net", "pid"};
	static char id[CT_ID_MAX + 1];
	const struct making *m = ctx;

	for (size_t i = 0; i < ARRAY_LEN(types); i++) {
		if (state_ns_owner(m->f->root, types[i], path, m->c.sandbox, m->c.id, id))
			return id;
	}
	return NULL;
}

static int write_records(struct making *m, int share, char **source, unsigned n, struct err *e)
{
	json_object *state = state_json(&m->c, STATUS_CREATED); /* for startContainer */
	const struct record_container rc_in = {.id = m->c.id,
					       .bundle = &m->b,
					       .hook_input = j_text(state),
					       .source = source,
					       .nsources = n,
					       .ns_owner = ns_owner,
					       .ctx = m,
					       .sys = SYS,
					       .machine = m->role != BUNDLE_MEMBER,
					       .pod = m->role != BUNDLE_ALONE};
	struct rec r;
	int rc;

	rec_init(&r);
	rc = record_container(&rc_in, &r, e);
	assign_records(&m->assign, &r);
	if (!rc)
		rc = record_process(m->b.process, m->c.seccomp ? "seccomp" : NULL,
				    m->c.seccomp_flags, &r, e);
	if (!rc)
		rc = rec_write(&r, share, "config", e);
	if (!rc && m->c.seccomp)
		rc = copy_filter(&m->c, share, "seccomp", e);
	rec_free(&r);
	json_object_put(state);
	return rc;
}

static int make_filter(struct making *m, struct err *e)
{
	json_object *seccomp;
	int rc = field_object(m->b.linux_, "linux", "seccomp", &seccomp, e);

	if (rc || !seccomp)
		return rc;
	m->c.seccomp = true;
	return seccomp_write(seccomp, m->c.at, "seccomp", &m->c.seccomp_flags, e);
}

static int fill_share(struct making *m, struct err *e)
{
	char dir[PATH_MAX], **source = NULL;
	unsigned n = 0;
	int share = -1, rc = 0;

	snprintf(dir, sizeof(dir), "%s/%s/share", m->f->root, m->c.sandbox);
	if (m->role != BUNDLE_MEMBER)
		rc = share_make(dir, e);
	if (!rc)
		rc = share_container(dir, m->c.id, &m->b, &source, &n, e);
	if (!rc) {
		share = vm_share(&m->c, m->f->root, e);
		rc = share < 0 ? share : 0;
	}
	if (!rc)
		rc = write_records(m, share, source, n, e);
	fd_close(&share);
	for (unsigned i = 0; source && i < n; i++)
		free(source[i]);
	free(source);
	return rc;
}

/* ---- the proxy ---- */

static int fork_proxy(struct making *m, struct err *e)
{
	const struct proxy_job j = {.c = &m->c,
				    .bundle = &m->b,
				    .conf = &m->conf,
				    .size = &m->size,
				    .root = m->f->root,
				    .linux_ = m->b.linux_,
				    .process = m->b.process,
				    .host_net = m->host_net,
				    .io = m->io};
	json_object *resources;
	int rc = field_object(m->b.linux_, "linux", "resources", &resources, e);

	if (!rc)
		rc = proxy_fork(&j, &m->proxy, e);
	if (rc)
		return rc;
	m->c.proxy = m->proxy.process;
	m->c.group.made = m->c.group.path[0];
	rc = state_save(&m->c, e);
	if (!rc && m->c.group.path[0])
		rc = container_group_make(&m->c.group, m->c.proxy.pid, resources, m->c.overhead, e);
	if (rc && !m->c.group.made) /* others' */
		(void)state_save(&m->c, NULL);
	return rc ? rc : proxy_order(&m->proxy, "enter", NULL, e);
}

/* What net_leave() is for, whatever its path leads to by then. */
static int note_net(struct making *m, struct err *e)
{
	int fd = ns_open_net(m->c.proxy.pid, e);
	struct stat st;

	if (fd < 0)
		return fd;
	if (m->c.netns[0] && !fstat(fd, &st)) {
		m->c.netns_dev = st.st_dev;
		m->c.netns_ino = st.st_ino;
	}
	close(fd);
	return 0;
}

static int run_hooks(struct making *m, struct err *e)
{
	json_object *state = state_json(&m->c, STATUS_CREATING);
	int netns = ns_open_net(m->c.proxy.pid, e), rc = netns < 0 ? netns : 0;
	int64_t timeout = m->c.hook_timeout;

	m->hooks = true;
	if (!rc)
		rc = hooks_run(m->c.hooks, "prestart", state, timeout, -1, e);
	if (!rc)
		rc = hooks_run(m->c.hooks, "createRuntime", state, timeout, -1, e);
	if (!rc)
		rc = hooks_run(m->c.hooks, "createContainer", state, timeout, netns, e);
	fd_close(&netns);
	json_object_put(state);
	return rc;
}

static int start_vm(struct making *m, struct err *e)
{
	json_object *answer = NULL, *vm;
	int rc = proxy_order(&m->proxy, m->role == BUNDLE_MEMBER ? "join" : "vm", &answer, e);

	if (rc)
		return rc;
	vm = j_get(answer, "vm");
	m->c.vm.pid = (pid_t)j_get_int(vm, "pid", 0);
	m->c.vm.start = (uint64_t)j_get_int(vm, "start", 0);
	m->c.net = hold(j_get(answer, "net"));
	json_object_put(answer);
	return state_save(&m->c, e);
}

/* The share is filled when the hooks are done: what is in the share of a VM that runs is in the hands
 * of its guest, and hooks work in the container's root with the rights of the host's root. */
static int making_make(struct making *m, struct err *e)
{
	int rc = make_filter(m, e);

	if (!rc)
		rc = tty_open(&m->io, m->b.process, m->f->console_socket, e);
	if (!rc)
		rc = fork_proxy(m, e);
	if (!rc)
		rc = note_net(m, e);
	if (!rc)
		rc = run_hooks(m, e);
	if (!rc)
		rc = fill_share(m, e);
	if (!rc)
		rc = start_vm(m, e);
	if (!rc)
		rc = proxy_order(&m->proxy, "leave", NULL, e);
	if (!rc)
		rc = write_pid_file(m->f->pid_file, m->c.proxy.pid, e);
	m->c.status = STATUS_CREATED;
	return rc ? rc : state_save(&m->c, e);
}

static void making_undo(struct making *m)
{
	json_object *state = state_json(&m->c, STATUS_STOPPED), *hooks = hold(m->c.hooks);
	struct err e;

	if (m->proxy.channel >= 0)
		proxy_abandon(&m->proxy);
	if (destroy(&m->c, m->f->root, &e))
		report_warn("%s", e.text);
	if (m->hooks)
		hooks_run_all(hooks, "poststop", state, m->c.hook_timeout);
	json_object_put(hooks);
	json_object_put(state);
}

static int create_one(const struct flags *f, struct proc *proxy, struct err *e)
{
	static struct making m; /* large */
	int rc;

	m = (struct making){
		.f = f, .proxy.channel = -1, .io.fd = {-1, -1, -1}, .c.at = -1, .c.lock = -1};
	rc = making_check(&m, e);
	if (!rc)
		rc = making_begin(&m, e);
	if (!rc) {
		rc = making_make(&m, e);
		if (rc)
			making_undo(&m);
	}
	*proxy = m.c.proxy;
	fd_close(&m.proxy.channel);
	tty_close(&m.io);
	state_close(&m.c);
	bundle_free(&m.b);
	conf_free(&m.conf);
	return rc;
}

int create_command(const struct flags *f, struct err *e)
{
	struct proc proxy;

	return create_one(f, &proxy, e);
}
