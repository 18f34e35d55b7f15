/* SPDX-License-Identifier: BSD-2-Clause */
/* Commands in the guest. See exec.h. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/guestproto.h>
#include <insula/log.h>

#include "vm.h"

#define EXEC_THREADS 4 /* main, two writers, reader */
#define EXEC_NOFILE 32
#define SECOND_NS 1000000000ull
#define BROKEN_NS SECOND_NS /* the death of insula-vsock is seen within this, if it is that */
#define RESUME_NS                                                                       \
	(8 * SECOND_NS) /* less than AGENT_RESUME_MS: what the guest has forgotten must \
			 * not look new to it */
#define STOP_NS SECOND_NS
#define MAX_TRIES 3 /* streams for one generation of insula-vsock, after its first */
#define RETRY_NS (SECOND_NS / 10)

/* ---- the description ---- */

static int build(const struct exec_spec *s, uint8_t *body, struct err *e)
{
	const struct gp_start h = {.flags = (s->tty ? GP_START_TTY : 0u) |
					    (s->input ? GP_START_STDIN : 0u) |
					    (s->only ? GP_START_ONLY : 0u),
				   .uid = s->uid,
				   .gid = s->gid,
				   .rows = s->rows,
				   .cols = s->cols};
	int n = gp_start_build(body, GP_START_MAX, &h, s->cwd ? s->cwd : "/", s->argv, s->env);

	if (n == -E2BIG)
		return err_set(e, n,
			       "command: too long; expected at most %u arguments, as many "
			       "variables, and %u KiB of both",
			       GP_ARGS_MAX, GP_START_MAX >> 10);
	return n < 0 ? err_sys(e, n, "command") : n;
}

int exec_check(const struct exec_spec *s, struct err *e)
{
	uint8_t *body = malloc(GP_START_MAX);
	int n = body ? build(s, body, e) : err_set(e, -ENOMEM, "out of memory");

	free(body);
	return n < 0 ? n : 0;
}

/* A sealed memfd: insula-exec sends it as it is. */
static int seal(const void *body, size_t len, struct err *e)
{
	const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
	int fd = memfd_create("insula-command", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || write_full(fd, body, len) || fcntl(fd, F_ADD_SEALS, seals)) {
		int rc = err_sys(e, -errno, "command");

		fd_close(&fd);
		return rc;
	}
	return fd;
}

static int describe(const struct exec_spec *s, uint32_t *len, struct err *e)
{
	uint8_t *body = malloc(GP_START_MAX);
	int n = body ? build(s, body, e) : err_set(e, -ENOMEM, "out of memory");
	int fd = n < 0 ? n : seal(body, (size_t)n, e);

	free(body);
	*len = n < 0 ? 0 : (uint32_t)n;
	return fd;
}

/* ---- start ---- */

static struct exec_proc *find(const struct vm *vm, uint32_t id)
{
	for (unsigned i = 0; i < VM_EXEC_PLACES; i++) {
		if (id && vm->exec[i].id == id)
			return (struct exec_proc *)&vm->exec[i];
	}
	return NULL;
}

static struct exec_proc *free_place(struct vm *vm)
{
	for (unsigned i = 0; i < VM_MAX_EXECS; i++) {
		if (!vm->exec[i].id)
			return &vm->exec[i];
	}
	return NULL;
}

static void release(struct exec_proc *p)
{
	child_free(&p->child);
	fd_close(&p->stream);
	p->id = 0;
}

/* What an insula-exec gets; `spec` is closed, the user's descriptors are not. */
struct order {
	struct msg_start_exec msg;
	int spec, in, out, err;
};

static int send_order(struct exec_proc *p, const struct order *o, int stream, struct err *e)
{
	int fds[] = {stream, o->spec, o->out, o->err, o->in};
	unsigned n = o->msg.flags & EXEC_STDIN ? 5 : 4;
	int rc = msg_send(p->child.jail.channel, MSG_START_EXEC, &o->msg, sizeof(o->msg), fds, n);

	return rc ? err_sys(e, rc, "%s: channel", p->child.name) : 0;
}

/* [0] for insula-exec, [1] for insula-vsock. */
static int make_stream(int pair[2])
{
	return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) ? -errno
											: 0;
}

static int launch(struct vm *vm, struct exec_proc *p, struct order *o, exec_done *done,
		  struct err *e)
{
	int pair[2], rc = make_stream(pair);

	if (rc)
		return err_sys(e, rc, "socketpair");
	o->msg.id = ++vm->exec_ids;
	*p = (struct exec_proc){.stream = pair[1], .done = done, .child = {.exec_fd = -1}};
	rc = child_init(&p->child, vm->paths.libexec, "insula-exec", "", EXEC_THREADS, EXEC_NOFILE,
			e);
	if (!rc)
		rc = child_spawn(&p->child, e);
	if (!rc)
		rc = send_order(p, o, pair[0], e);
	close(pair[0]);
	if (rc)
		release(p);
	else
		p->id = o->msg.id;
	return rc;
}

int exec_start(struct vm *vm, const struct exec_spec *s, const int fds[3], exec_done *done,
	       uint32_t *id, struct err *e)
{
	struct exec_proc *p = free_place(vm);
	struct order o = {.msg = {.flags = (s->input ? EXEC_STDIN : 0u) |
					   (s->input && s->escape ? EXEC_ESCAPE : 0u),
				  .log_level = log_most()},
			  .in = fds[0],
			  .out = fds[1],
			  .err = fds[2]};
	int rc;

	if (!p)
		return err_set(e, -EAGAIN, "%u commands run already", VM_MAX_EXECS);
	o.spec = describe(s, &o.msg.start_len, e);
	if (o.spec < 0)
		return o.spec;
	rc = launch(vm, p, &o, done, e);
	close(o.spec);
	if (!rc)
		*id = p->id;
	return rc;
}

int exec_poweroff(struct vm *vm, uint32_t init_ms, exec_done *done, struct err *e)
{
	const struct gp_poweroff how = {.how = GP_END_POWEROFF, .init_ms = init_ms};
	struct exec_proc *p = &vm->exec[VM_EXEC_PLACES - 1];
	struct order o = {
		.msg = {.flags = EXEC_POWEROFF, .log_level = log_most(), .start_len = sizeof(how)}};
	int rc;

	if (p->id)
		return err_set(e, -EALREADY, "the guest has been asked to power off");
	o.spec = seal(&how, sizeof(how), e);
	if (o.spec < 0)
		return o.spec;
	o.out = o.err = open("/dev/null", O_WRONLY | O_CLOEXEC);
	rc = o.out < 0 ? err_sys(e, -errno, "/dev/null") : launch(vm, p, &o, done, e);
	fd_close(&o.out);
	close(o.spec);
	return rc;
}

/* ---- life ---- */

static void finish(struct vm *vm, struct exec_proc *p, const struct msg_exec_exit *x)
{
	if (p->ended)
		return;
	p->ended = true;
	p->broken_ns = 0;
	p->child.state = CHILD_DONE;
	/* It has nothing left to do, and its place is wanted. */
	if (p->child.jail.pid > 0 && !p->kill_ns)
		kill(p->child.jail.pid, SIGKILL);
	p->done(vm, p->id, x);
}

static void lost(struct vm *vm, struct exec_proc *p, const char *why)
{
	struct msg_exec_exit x = {.end = EXEC_LOST};

	snprintf(x.text, sizeof(x.text), "%s", why);
	finish(vm, p, &x);
}

/* For a second insula-vsock is given what the first one had; before it is there, it waits. */
static void connect_stream(struct vm *vm, struct exec_proc *p)
{
	struct device *d = vm_vsock(vm);
	struct err e;

	if (p->stream < 0 || p->child.state != CHILD_READY || !vm->agent_ready)
		return;
	if (!d) {
		lost(vm, p, "this machine has no vsock device");
	} else if (d->dead) {
		lost(vm, p, "insula-vsock has died too often");
	} else if (d->child.state != CHILD_READY) {
		if (!p->broken_ns)
			p->broken_ns = clock_ns();
		return;
	} else if (vsock_stream(d, GP_PORT, p->stream, &e)) {
		/* It is dying. insula-exec sees the end of what it has, and says so. */
		log_debug("%s: %s", p->child.name, e.text);
		p->connected = true;
		p->broken_ns = 0;
		p->generation = d->restarts;
	} else {
		p->connected = true;
		p->broken_ns = 0;
		p->generation = d->restarts;
	}
	fd_close(&p->stream);
}

/* No stream will come: insula-exec writes out what it has and reports. */
static void no_more(struct vm *vm, struct exec_proc *p)
{
	p->broken_ns = 0;
	fd_close(&p->stream);
	if (!p->connected) {
		lost(vm, p, "insula-vsock did not come back in time");
		return;
	}
	(void)msg_send(p->child.jail.channel, MSG_EXEC_STREAM, NULL, 0, NULL, 0);
}

/* Its end of another stream goes to insula-exec, the other one to insula-vsock. */
static void another_stream(struct vm *vm, struct exec_proc *p)
{
	int pair[2];

	if (make_stream(pair)) {
		no_more(vm, p);
		return;
	}
	p->stream = pair[1];
	if (msg_send(p->child.jail.channel, MSG_EXEC_STREAM, NULL, 0, &pair[0], 1))
		fd_close(&p->stream); /* it is dying: its end is seen elsewhere */
	close(pair[0]);
	connect_stream(vm, p);
}

static bool same_vsock(const struct exec_proc *p, const struct device *d)
{
	return p->connected && d->child.state == CHILD_READY && d->restarts == p->generation;
}

/* Linux resets all its connections when it hears that the device has been replaced, and the first
 * of the new ones may be among them. */
static bool may_retry(const struct exec_proc *p, const struct device *d)
{
	return same_vsock(p, d) && d->restarts && p->tries < MAX_TRIES;
}

/* If there is an insula-vsock that has not had a stream of this command yet. */
static void reconnect(struct vm *vm, struct exec_proc *p)
{
	const struct device *d = vm_vsock(vm);

	if (!p->broken_ns || !p->connected || p->ended || d->child.state != CHILD_READY ||
	    d->restarts == p->generation)
		return;
	p->tries = 0;
	another_stream(vm, p);
}

static void broken(struct vm *vm, struct exec_proc *p)
{
	p->broken_ns = clock_ns();
	if (vm->ended)
		no_more(vm, p);
	else
		reconnect(vm, p);
}

void exec_vsock_ready(struct vm *vm)
{
	for (unsigned i = 0; i < VM_EXEC_PLACES; i++) {
		connect_stream(vm, &vm->exec[i]);
		reconnect(vm, &vm->exec[i]);
	}
}

void exec_guest_gone(struct vm *vm)
{
	for (unsigned i = 0; i < VM_EXEC_PLACES; i++) {
		if (vm->exec[i].broken_ns)
			no_more(vm, &vm->exec[i]);
	}
}

/* ---- deadlines ---- */

static uint64_t resume_limit(const struct vm *vm, const struct exec_proc *p)
{
	const struct device *d = vm_vsock((struct vm *)vm);

	if (!p->broken_ns)
		return 0;
	if (may_retry(p, d))
		return p->broken_ns + RETRY_NS;
	/* One that serves, and is the same, has not died: the guest has ended the stream. */
	return p->broken_ns + (d->dead || same_vsock(p, d) ? BROKEN_NS : RESUME_NS);
}

static uint64_t limit_of(const struct vm *vm, const struct exec_proc *p)
{
	uint64_t resume = resume_limit(vm, p);

	return resume && (!p->kill_ns || resume < p->kill_ns) ? resume : p->kill_ns;
}

uint64_t exec_deadline(const struct vm *vm)
{
	uint64_t first = 0;

	for (unsigned i = 0; i < VM_EXEC_PLACES; i++) {
		uint64_t limit = limit_of(vm, &vm->exec[i]);

		if (limit && (!first || limit < first))
			first = limit;
	}
	return first;
}

static void overdue(struct vm *vm, struct exec_proc *p)
{
	if (may_retry(p, vm_vsock(vm))) {
		p->tries++;
		another_stream(vm, p);
	} else {
		no_more(vm, p);
	}
}

void exec_overdue(struct vm *vm)
{
	uint64_t now = clock_ns();

	for (unsigned i = 0; i < VM_EXEC_PLACES; i++) {
		struct exec_proc *p = &vm->exec[i];
		uint64_t resume = resume_limit(vm, p);

		if (resume && now >= resume)
			overdue(vm, p);
		if (p->kill_ns && now >= p->kill_ns && p->child.jail.pid > 0) {
			kill(p->child.jail.pid, SIGKILL);
			p->kill_ns = 0;
		}
	}
}

/* ---- events ---- */

void exec_agent_ready(struct vm *vm)
{
	vm->agent_ready = true;
	for (unsigned i = 0; i < VM_EXEC_PLACES; i++)
		connect_stream(vm, &vm->exec[i]);
}

void exec_ready(struct vm *vm, struct exec_proc *p)
{
	connect_stream(vm, p);
}

bool exec_message(struct vm *vm, struct exec_proc *p, enum msg_type t, const void *body, size_t len)
{
	struct msg_exec_exit x;

	if (t == MSG_EXEC_EXIT && len == sizeof(x)) {
		memcpy(&x, body, sizeof(x));
		x.text[sizeof(x.text) - 1] = 0;
		finish(vm, p, &x);
	} else if (t == MSG_EXEC_STARTED && len == 0) {
		p->started = true;
	} else if (t == MSG_EXEC_BROKEN && len == 0 && !p->broken_ns) {
		broken(vm, p);
	} else if (t == MSG_EXEC_SIGNALED && len == 0) {
		p->signaled_ns = 0;
	} else if (t == MSG_QUIT && len == 0) {
		vm_quit(vm);
	} else {
		return false;
	}
	return true;
}

void exec_gone(struct vm *vm, struct exec_proc *p, const char *how)
{
	char why[EXEC_TEXT_LEN];

	snprintf(why, sizeof(why), "insula-exec %s", how);
	lost(vm, p, why);
	release(p);
}

bool exec_pending(const struct vm *vm)
{
	for (unsigned i = 0; i < VM_EXEC_PLACES; i++) {
		if (vm->exec[i].connected && vm->exec[i].id && !vm->exec[i].ended)
			return true;
	}
	return false;
}

/* ---- requests ---- */

static int request(struct vm *vm, uint32_t id, enum msg_type t, const void *body, size_t len)
{
	struct exec_proc *p = find(vm, id);

	if (!p || !p->started || p->ended)
		return -ESRCH;
	return msg_send(p->child.jail.channel, t, body, len, NULL, 0);
}

int exec_signal(struct vm *vm, uint32_t id, int signo)
{
	const struct msg_exec_signal m = {.signo = (uint32_t)signo};
	int rc = request(vm, id, MSG_EXEC_SIGNAL, &m, sizeof(m));

	if (!rc && !find(vm, id)->signaled_ns)
		find(vm, id)->signaled_ns = clock_ns();
	return rc;
}

int exec_resize(struct vm *vm, uint32_t id, uint16_t rows, uint16_t cols)
{
	const struct msg_exec_size m = {.rows = rows, .cols = cols};

	return request(vm, id, MSG_EXEC_RESIZE, &m, sizeof(m));
}

int exec_cancel(struct vm *vm, uint32_t id, const char *why)
{
	struct exec_proc *p = find(vm, id);

	if (!p || p->ended)
		return -ESRCH;
	/* It tells the guest, which would wait for another stream otherwise. */
	if (p->child.state == CHILD_READY &&
	    !msg_send(p->child.jail.channel, MSG_STOP, NULL, 0, NULL, 0))
		p->kill_ns = clock_ns() + STOP_NS;
	lost(vm, p, why);
	return 0;
}

bool exec_running(const struct vm *vm, uint32_t id)
{
	const struct exec_proc *p = find(vm, id);

	return p && p->started && !p->ended;
}

uint64_t exec_unanswered(const struct vm *vm, uint32_t id)
{
	const struct exec_proc *p = find(vm, id);

	return p ? p->signaled_ns : 0;
}

void exec_init(struct vm *vm)
{
	for (unsigned i = 0; i < VM_EXEC_PLACES; i++)
		vm->exec[i] = (struct exec_proc){
			.stream = -1,
			.child = {.exec_fd = -1,
				  .jail = {.pid = -1, .pidfd = -1, .channel = -1, .log = -1}}};
}

void exec_free(struct vm *vm)
{
	for (unsigned i = 0; i < VM_EXEC_PLACES; i++)
		release(&vm->exec[i]);
}
