/* SPDX-License-Identifier: BSD-2-Clause */
/* The proxy's beginning: fork, and what the command orders. See proxy.h; its loop is in pump.c. */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/capability.h>

#include <insula/base.h>

#include "bundle.h"
#include "net.h"
#include "ns.h"
#include "pump.h"
#include "report.h"
#include "share.h"
#include "spec/json.h"
#include "template.h"
#include "vm.h"

#define ORDER_MS 210000   /* a try with a template, its end, and VM_START_MS */
#define TEMPLATE_MS 30000 /* and that its memory is read; a boot is sooner than to wait on */
#define LOAD_MS_MAX 30000
#define BOOT_SECONDS_MAX 3600 /* as the supervisor takes it */
#define START_MS 140000       /* beside the guest's boot; pump.c gives up before */
#define ABANDON_MS 20000
#define PACKET 65536

/* ---- enter ---- */

static void set_oom(json_object *process)
{
	int64_t adj = j_get_int(process, "oomScoreAdj", INT64_MIN);
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	/* Lower than our own is for those who may. */
	if (adj >= -1000 && adj <= 1000 && fd >= 0 && dprintf(fd, "%lld", (long long)adj) < 0)
		report_warn("process.oomScoreAdj: %lld: %s", (long long)adj, strerror(errno));
	fd_close(&fd);
}

static int listen_for_start(const struct container *c, struct err *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/proxy", c->at);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 8) ||
	    fchmodat(c->at, "proxy", 0600, 0)) {
		int rc = err_sys(e, -errno, "%s/proxy", c->dir);

		fd_close(&fd);
		return rc;
	}
	return fd;
}

static bool net_of_ours(struct stat *st)
{
	return !stat("/proc/thread-self/ns/net", st);
}

/* What is done to a pod's network is never done to the host's, whatever a path led to meanwhile. */
static int enter_namespaces(const struct proxy_job *j, struct err *e)
{
	struct stat before, now;
	bool known = net_of_ours(&before);
	int rc = ns_enter(j->linux_, e);

	if (rc || !j->bundle || j->host_net)
		return rc;
	if (known && net_of_ours(&now) &&
	    (now.st_ino != before.st_ino || now.st_dev != before.st_dev))
		return 0;
	return err_set(e, -EPERM, "linux.namespaces: network: its path leads to the host's own");
}

static int do_enter(struct proxy *p, json_object *answer, struct err *e)
{
	int rc = enter_namespaces(p->j, e);

	(void)answer;
	set_oom(p->j->process);
	if (!rc && !p->j->exec) {
		p->go = listen_for_start(p->j->c, e);
		rc = p->go < 0 ? p->go : 0;
	}
	return rc;
}

/* ---- rights ---- */

/* What it reads from now on is a guest's; what it has to do is by descriptors it has. */
static int drop_rights(struct err *e)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2] = {{0, 0, 0}, {0, 0, 0}};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) ||
	    syscall(SYS_capset, &head, none))
		return err_sys(e, -errno, "capabilities of the proxy");
	return 0;
}

/* ---- the VM ---- */

/* From here on the guest may write in the share. */
static int watch_status(struct proxy *p, struct err *e)
{
	char path[64];

	p->share = vm_share(p->j->c, p->j->root, e);
	if (p->share < 0)
		return p->share;
	p->notify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", p->share);
	if (p->notify < 0 ||
	    inotify_add_watch(p->notify, path, IN_MOVED_TO | IN_CLOSE_WRITE | IN_CREATE) < 0)
		return err_sys(e, -errno, "inotify");
	return 0;
}

static int do_join(struct proxy *p, json_object *answer, struct err *e)
{
	int rc;

	(void)answer;
	p->vmdir = vm_open_dir(p->j->root, p->j->c->sandbox, e);
	rc = p->vmdir < 0 ? p->vmdir : watch_status(p, e);
	if (!rc)
		rc = vm_talk_open(&p->talk, p->vmdir, JOIN_MS, pump_event, p, NULL, e);
	p->talk.boot_timeout = p->j->c->boot_timeout;
	/* A container's still has its root to enter. */
	if (!rc && p->j->exec)
		rc = drop_rights(e);
	return rc;
}

static int write_sandbox(struct proxy *p, json_object **nets, json_object **kept, struct err *e)
{
	char path[PATH_MAX + 16];
	struct rec r;
	int at, rc;

	rec_init(&r);
	rc = net_join(p->j->conf, p->j->host_net, &r, nets, kept, e);
	snprintf(path, sizeof(path), "%s/share", p->j->c->dir);
	at = rc ? -1 : open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (!rc && at < 0)
		rc = err_sys(e, -errno, "%s", path);
	if (!rc)
		rc = record_machine(p->j->bundle, &r, e);
	if (!rc)
		rc = rec_write(&r, at, "sandbox", e);
	fd_close(&at);
	rec_free(&r);
	return rc;
}

/* A kernel without it is no reason not to run: whoever forwards a port is refused, as by a program
 * that does not listen. */
static void open_forward(struct proxy *p)
{
	struct err e;

	if (p->j->conf->port_forward && !p->j->host_net && forward_open(&p->forward, &e)) {
		report_warn("port_forward: %s", e.text);
		p->forward = (struct forward){{-1, -1}, -1};
	}
}

/* `snapshot`: of a template; NULL: it boots. */
static int start_one(struct proxy *p, json_object *nets, const char *snapshot, struct err *e)
{
	json_object *config =
		vm_config(p->j->c, p->j->conf, p->j->size, json_object_get(nets), snapshot);
	unsigned load = snapshot ? vm_load_seconds(p->j->size->mem) : 0, load_ms = load * 1000;
	int limit = snapshot ? TEMPLATE_MS + (int)(load_ms < LOAD_MS_MAX ? load_ms : LOAD_MS_MAX)
			     : VM_START_MS;
	int rc = vm_spawn(p->vmdir, p->j->conf, config, &p->vm, e);

	json_object_put(config);
	if (rc)
		return rc;
	rc = vm_await(p->vmdir, &p->talk, limit, snapshot ? talk_ignore : pump_event, p, e);
	p->talk.event = pump_event;
	/* Its commands wait until it has been told, and it may have to wait for its memory. */
	p->talk.boot_timeout = load + p->j->c->boot_timeout < BOOT_SECONDS_MAX
				       ? load + p->j->c->boot_timeout
				       : BOOT_SECONDS_MAX;
	return rc;
}

/* True: the VM goes on from a template. Where it cannot, it boots, and that is said. */
static bool start_from_template(struct proxy *p, json_object *nets)
{
	char path[PATH_MAX];
	struct err e;
	int rc = p->j->c->vfio ? err_set(&e, -ENOENT, "template: none with functions of the host")
			       : template_find(p->j->conf, p->j->size,
					       (unsigned)json_object_array_length(nets), path, &e);

	if (!rc)
		rc = template_way(p->j->conf->templates, &e);
	if (rc == -ENOENT)
		report_debug("%s: the VM boots", e.text);
	else if (rc)
		report_warn("%s: the VM boots", e.text);
	if (rc)
		return false;
	rc = start_one(p, nets, path, &e);
	if (!rc) {
		report_debug("template: the VM goes on from %s", path);
		return true;
	}
	report_warn("template: %.120s: the VM boots: %s", path, e.text);
	vm_end_now(&p->talk, &p->vm, 0);
	vm_talk_close(&p->talk);
	p->vm = (struct proc){0};
	vm_clear(p->vmdir);
	return false;
}

static int start_vm(struct proxy *p, json_object *nets, struct err *e)
{
	int rc = watch_status(p, e);

	if (!rc && !start_from_template(p, nets))
		rc = start_one(p, nets, NULL, e);
	json_object_put(nets);
	return rc ? rc : pump_sandbox(p, e);
}

static int do_vm(struct proxy *p, json_object *answer, struct err *e)
{
	json_object *nets = NULL, *kept = NULL, *vm;
	int rc;

	p->owner = true;
	rc = vm_check_devices(p->j->c, e);
	if (!rc)
		p->vmdir = vm_directory(p->j->c, e);
	if (!rc)
		rc = p->vmdir < 0 ? p->vmdir : write_sandbox(p, &nets, &kept, e);
	if (!rc)
		rc = start_vm(p, nets, e);
	else
		json_object_put(nets);
	if (!rc) {
		open_forward(p);
		/* Hooks have written the file, and its path still leads there. */
		p->has_names = !p->j->host_net && names_server(p->j->bundle, &p->names_at);
	}
	if (rc) {
		net_leave(kept);
		json_object_put(kept);
		return rc;
	}
	vm = json_object_new_object();
	j_int(vm, "pid", p->vm.pid);
	j_int(vm, "start", (int64_t)p->vm.start);
	j_obj(answer, "vm", vm);
	if (kept)
		j_obj(answer, "net", kept);
	return 0;
}

/* ---- leave ---- */

static void keep_only(const int *keep, unsigned n)
{
	int next = 3;

	/* They are few: the smallest that is not yet passed, again and again. */
	for (;;) {
		int least = INT_MAX;

		for (unsigned i = 0; i < n; i++)
			least = keep[i] >= next && keep[i] < least ? keep[i] : least;
		if (least > next)
			syscall(SYS_close_range, next, least == INT_MAX ? ~0u : (unsigned)least - 1,
				0);
		if (least == INT_MAX)
			return;
		next = least + 1;
	}
}

/* Of a configuration with a filter's list, as engines write it, there is a MiB and more; a proxy stays
 * as long as its container. */
static void forget(struct proxy *p)
{
	if (p->j->bundle)
		bundle_free(p->j->bundle);
	(void)malloc_trim(0);
}

/* It is in the pod's namespace as the proxy is, and has no rights; it ends with the proxy, or with the
 * guest's end of the stream. */
static _Noreturn void names_main(struct proxy *p, int stream, int ready)
{
	const int keep[] = {stream, ready};

	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || dup2(p->null, 0) < 0 || dup2(p->null, 1) < 0 ||
	    dup2(p->null, 2) < 0)
		_exit(1);
	keep_only(keep, ARRAY_LEN(keep));
	forget(p);
	_exit(names_relay(stream, ready, p->names_at, NAMES_PORT) ? 1 : 0);
}

static int open_names(struct proxy *p, struct err *e)
{
	int stream[2] = {-1, -1}, ready[2] = {-1, -1};
	pid_t pid = -1;

	if (!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stream) && !pipe2(ready, O_CLOEXEC))
		pid = fork();
	if (pid == 0)
		names_main(p, stream[0], ready[1]);
	if (pid < 0)
		err_sys(e, -errno, "the relay to the pod's name server");
	fd_close(&stream[0]);
	fd_close(&ready[1]);
	if (pid < 0) {
		fd_close(&stream[1]);
		fd_close(&ready[0]);
		return e->code;
	}
	p->names_stream = stream[1];
	p->names_ready = ready[0];
	pump_names(p);
	return 0;
}

static int do_leave(struct proxy *p, json_object *answer, struct err *e)
{
	int rc = p->j->bundle ? ns_root(p->j->bundle, e) : 0;

	(void)answer;
	if (!rc)
		rc = drop_rights(e);
	if (!rc && p->has_names)
		rc = open_names(p, e);
	if (!rc && p->phase == PHASE_PREPARING)
		p->phase = PHASE_CREATED;
	if (!rc)
		forget(p);
	return rc;
}

/* ---- orders ---- */

static const struct {
	const char *name;
	int (*run)(struct proxy *p, json_object *answer, struct err *e);
} orders[] = {{"enter", do_enter}, {"vm", do_vm}, {"join", do_join}, {"leave", do_leave}};

static int run_order(struct proxy *p, const char *name, json_object *answer, struct err *e)
{
	for (size_t i = 0; i < ARRAY_LEN(orders); i++) {
		if (!strcmp(orders[i].name, name))
			return orders[i].run(p, answer, e);
	}
	return err_set(e, -EPROTO, "proxy: %s: unknown order", name);
}

void proxy_reply(int fd, json_object *answer, const char *error)
{
	if (error)
		j_str(answer, "error", error);
	(void)send(fd, j_text(answer), strlen(j_text(answer)), MSG_NOSIGNAL);
}

void proxy_on_order(struct proxy *p)
{
	json_object *answer;
	char name[32];
	struct err e = {.code = 0};
	ssize_t n = recv(p->channel, name, sizeof(name) - 1, 0);
	int rc;

	if (n < 0 && errno == EINTR)
		return;
	name[n > 0 ? n : 0] = 0;
	if (n <= 0) {
		fd_close(&p->channel);
		pump_deserted(p);
		return;
	}
	if (!strcmp(name, "start")) {
		pump_start(p, p->channel);
		return;
	}
	answer = json_object_new_object();
	rc = run_order(p, name, answer, &e);
	proxy_reply(p->channel, answer, rc ? e.text : NULL);
	json_object_put(answer);
	if (!rc && !strcmp(name, "leave"))
		fd_close(&p->channel);
}

/* ---- the process ---- */

/* SIGCHLD: the supervisor's. */
static int all_signals(struct err *e)
{
	sigset_t all;
	int fd;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	fd = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? err_sys(e, -errno, "signalfd") : fd;
}

static int proxy_init(struct proxy *p, const struct proxy_job *j, int channel, struct err *e)
{
	*p = (struct proxy){.j = j,
			    .channel = channel,
			    .go = -1,
			    .asker = -1,
			    .share = -1,
			    .vmdir = -1,
			    .notify = -1,
			    .said = -1,
			    .null = -1,
			    .forward = {{-1, -1}, -1},
			    .names_stream = -1,
			    .names_ready = -1,
			    .talk.fd = -1};
	p->signals = all_signals(e);
	return p->signals < 0 ? p->signals : 0;
}

static _Noreturn void proxy_main(const struct proxy_job *j, int channel)
{
	const int keep[] = {channel, report_fd(), j->c->at};
	struct proxy p;
	struct err e;

	setsid();
	if (dup2(j->io.fd[0], 0) < 0 || dup2(j->io.fd[1], 1) < 0 || dup2(j->io.fd[2], 2) < 0 ||
	    (j->io.session && ioctl(0, TIOCSCTTY, 0)))
		_exit(1);
	keep_only(keep, ARRAY_LEN(keep));
	report_to_file_only();
	prctl(PR_SET_NAME, "insula-oci");
	if (proxy_init(&p, j, channel, &e))
		_exit(1);
	_exit(pump_run(&p));
}

int proxy_fork(const struct proxy_job *j, struct proxy_child *p, struct err *e)
{
	int pair[2], rc;
	pid_t pid;

	*p = (struct proxy_child){.channel = -1};
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return err_sys(e, -errno, "proxy");
	pid = fork();
	if (pid == 0) {
		close(pair[0]);
		proxy_main(j, pair[1]);
	}
	p->channel = pair[0];
	rc = proc_child(pid, "proxy", &p->process, e);
	close(pair[1]);
	if (rc)
		fd_close(&p->channel);
	return rc;
}

/* ---- the command's side ---- */

static int hear(int fd, const char *what, int ms, json_object **answer, struct err *e)
{
	struct pollfd w = {fd, POLLIN, 0};
	static char buf[PACKET]; /* one thread; too large for the stack */
	const char *why, *error;
	json_object *o;
	ssize_t n = -1;
	int got;

	while ((got = poll(&w, 1, ms)) < 0 && errno == EINTR)
		;
	if (got > 0)
		n = recv(fd, buf, sizeof(buf), 0);
	if (got == 0)
		return err_set(e, -ETIMEDOUT, "the container's process: %s: no answer in time",
			       what);
	o = n > 0 ? j_parse(buf, (size_t)n, BUNDLE_DEPTH, &why) : NULL;
	if (!o)
		return err_set(e, -EPIPE, "the container's process has ended");
	error = j_get_str(o, "error", NULL);
	if (error)
		err_set(e, -EIO, "%s", error);
	if (answer && !error)
		*answer = json_object_get(o);
	json_object_put(o);
	return error ? -EIO : 0;
}

int proxy_order(struct proxy_child *p, const char *order, json_object **answer, struct err *e)
{
	if (answer)
		*answer = NULL;
	if (send(p->channel, order, strlen(order), MSG_NOSIGNAL) < 0)
		return err_set(e, -EPIPE, "the container's process has ended");
	return hear(p->channel, order, ORDER_MS, answer, e);
}

void proxy_abandon(struct proxy_child *p)
{
	fd_close(&p->channel);
	if (!p->process.pid)
		return;
	if (proc_wait(&p->process, ABANDON_MS))
		proc_kill(&p->process, SIGKILL);
	(void)waitpid(p->process.pid, NULL, 0);
}

int proxy_start(const struct container *c, struct err *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), rc = 0;

	snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/proxy", c->at);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) ||
	    send(fd, "start", 5, MSG_NOSIGNAL) < 0)
		rc = err_sys(e, -errno, "the container's process");
	if (!rc)
		rc = hear(fd, "start",
			  START_MS + (int)(c->boot_timeout + vm_load_seconds(c->vm_mem)) * 1000,
			  NULL, e);
	fd_close(&fd);
	return rc;
}

/* ---- here ---- */

int proxy_here(const struct proxy_job *j, struct err *e)
{
	struct proxy p;
	int rc = proxy_init(&p, j, -1, e);

	if (!rc)
		rc = do_join(&p, NULL, e);
	if (!rc)
		pump_start(&p, -1);
	if (!rc)
		rc = pump_run(&p);
	if (p.failed[0])
		err_set(e, -EIO, "%s", p.failed);
	return rc;
}
