/* SPDX-License-Identifier: BSD-2-Clause */
/* Commands in the guest. See exec.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/guestproto.h>
#include <insula/log.h>

#include "exec_os.h"
#include "supervisor/vm_common.h"

#define PLACE_RESUMED VM_MAX_EXECS
#define PLACE_POWEROFF (VM_MAX_EXECS + 1)
#define SECOND_NS 1000000000ull
#define BROKEN_NS SECOND_NS /* the death of insula-vsock is seen within this, if it is that */
#define RESUME_NS \
	(8 * SECOND_NS) /* less than AGENT_RESUME_MS: what the guest has forgotten must \
			 * not look new to it */
#define STOP_NS SECOND_NS
/* More streams from the same insula-vsock, one after the other ends; a stream that has held for a
 * while begins to count again. */
#define MAX_TRIES 3
#define RETRY_NS (SECOND_NS / 10)
#define STEADY_NS SECOND_NS

/* ---- the description ---- */

static int exec_build(const struct exec_spec *s, uint8_t *body, struct err *e)
{
	const struct gp_start h = {.flags = (s->tty ? GP_START_TTY : 0u) |
					    (s->input ? GP_START_STDIN : 0u) |
					    (s->only ? GP_START_ONLY : 0u),
				   .uid = s->uid,
				   .gid = s->gid,
				   .rows = s->rows,
				   .cols = s->cols};
	int n = gp_start_build(body, GP_START_MAX, &h, s->cwd ? s->cwd : "/", s->user, s->argv,
			       s->env);

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
	int n = body ? exec_build(s, body, e) : err_set(e, -ENOMEM, "out of memory");

	free(body);
	return n < 0 ? n : 0;
}

static int exec_describe(const struct exec_spec *s, uint32_t *len, struct err *e)
{
	uint8_t *body = malloc(GP_START_MAX);
	int n = body ? exec_build(s, body, e) : err_set(e, -ENOMEM, "out of memory");
	int fd = n < 0 ? n : exec_os_seal(body, (size_t)n, e);

	free(body);
	*len = n < 0 ? 0 : (uint32_t)n;
	return fd;
}

/* ---- start ---- */

static struct exec_proc *exec_find(const struct vm *vm, uint32_t id)
{
	struct execs *x = vm_execs(vm);

	for (unsigned i = 0; i < VM_EXEC_PLACES; i++) {
		if (id && x->place[i].id == id)
			return &x->place[i];
	}
	return NULL;
}

static struct exec_proc *free_place(struct execs *x)
{
	for (unsigned i = 0; i < VM_MAX_EXECS; i++) {
		if (!x->place[i].id)
			return &x->place[i];
	}
	return NULL;
}

static void release(struct exec_proc *p)
{
	exec_os_free(p);
	fd_close(&p->stream);
	p->id = 0;
}

static int launch(struct vm *vm, struct exec_proc *p, struct exec_order *o, exec_done *done,
		  struct err *e)
{
	int rc;

	o->msg.id = ++vm_execs(vm)->ids;
	*p = (struct exec_proc){.vm = vm, .child = p->child, .stream = -1, .done = done};
	p->escape = o->msg.flags & EXEC_ESCAPE;
	rc = exec_os_launch(vm, p, o, e);
	if (rc)
		release(p);
	else
		p->id = o->msg.id;
	return rc;
}

int exec_start(struct vm *vm, const struct exec_spec *s, const int fds[3], exec_done *done,
	       uint32_t *id, struct err *e)
{
	struct exec_proc *p = free_place(vm_execs(vm));
	struct exec_order o = {.msg = {.flags = (s->input ? EXEC_STDIN : 0u) |
						(s->input && s->escape ? EXEC_ESCAPE : 0u),
				       .log_level = log_most()},
			       .in = fds[0],
			       .out = fds[1],
			       .err = fds[2]};
	int rc;

	if (!p)
		return err_set(e, -EAGAIN, "%u commands run already", VM_MAX_EXECS);
	o.spec = exec_describe(s, &o.msg.start_len, e);
	if (o.spec < 0)
		return o.spec;
	rc = launch(vm, p, &o, done, e);
	fd_close(&o.spec);
	if (!rc)
		*id = p->id;
	return rc;
}

/* A request of ours and no command: `flag` says which frame `body` is of. */
static int ask_agent(struct vm *vm, unsigned place, enum exec_flags flag, const void *body,
		     uint32_t len, exec_done *done, struct err *e)
{
	struct exec_order o = {.msg = {.flags = flag, .log_level = log_most(), .start_len = len}};
	int rc;

	o.spec = exec_os_seal(body, len, e);
	if (o.spec < 0)
		return o.spec;
	o.out = o.err = exec_os_null();
	rc = o.out < 0 ? err_sys(e, o.out, "no output")
		       : launch(vm, &vm_execs(vm)->place[place], &o, done, e);
	fd_close(&o.out);
	fd_close(&o.spec);
	return rc;
}

int exec_poweroff(struct vm *vm, uint32_t init_ms, exec_done *done, struct err *e)
{
	const struct gp_poweroff how = {.how = GP_END_POWEROFF, .init_ms = init_ms};

	if (vm_execs(vm)->place[PLACE_POWEROFF].id)
		return err_set(e, -EALREADY, "the guest has been asked to power off");
	return ask_agent(vm, PLACE_POWEROFF, EXEC_POWEROFF, &how, sizeof(how), done, e);
}

static int check_resumed(const struct resumed *r, struct err *e)
{
	if (r->host_name && !gp_host_name_ok(r->host_name))
		return err_set(e, -EINVAL, "host name '%.70s'; expected " GP_HOST_NAME_FORM,
			       r->host_name);
	if (r->machine_id && !gp_machine_id_ok(r->machine_id))
		return err_set(e, -EINVAL, "machine-id '%.40s'; expected 32 digits 0-9a-f",
			       r->machine_id);
	if (r->ncards > GP_CARDS_MAX)
		return err_set(e, -EINVAL, "%u network cards; expected at most %u", r->ncards,
			       GP_CARDS_MAX);
	for (unsigned i = 0; i < r->ncards; i++) {
		if (!gp_card_ok(r->card[i]))
			return err_set(e, -EINVAL,
				       "network card %u: '%.120s'; expected two MAC addresses and "
				       "what the second one is to have",
				       i, r->card[i]);
	}
	return 0;
}

int exec_resumed(struct vm *vm, const struct resumed *r, exec_done *done, uint32_t *id,
		 struct err *e)
{
	const char *s[GP_RESUMED_NAMES + GP_CARDS_MAX] = {r->vm ? r->vm : "",
							  r->host_name ? r->host_name : "",
							  r->machine_id ? r->machine_id : ""};
	struct gp_resumed h = {.flags = r->clock ? GP_RESUMED_CLOCK : 0, .ncards = r->ncards};
	uint8_t body[GP_RESUMED_MAX];
	int n = check_resumed(r, e), rc;

	if (n)
		return n;
	if (vm_execs(vm)->place[PLACE_RESUMED].id)
		return err_set(e, -EALREADY, "the guest is still being told of the last time");
	for (unsigned i = 0; i < r->ncards; i++)
		s[GP_RESUMED_NAMES + i] = r->card[i];
	random_bytes(h.seed, sizeof(h.seed));
	n = gp_resumed_build(body, sizeof(body), &h, s);
	if (n == -EINVAL) /* all else has been checked */
		return err_set(e, n, "the VM's name; expected no control characters");
	if (n < 0)
		return err_set(e, n, "names and network cards: expected at most %u bytes",
			       GP_RESUMED_MAX);
	rc = ask_agent(vm, PLACE_RESUMED, EXEC_RESUMED, body, (uint32_t)n, done, e);
	if (!rc && id)
		*id = vm_execs(vm)->place[PLACE_RESUMED].id;
	return rc;
}

void exec_resumed_why(const struct msg_exec_exit *x, char why[EXEC_TEXT_LEN])
{
	snprintf(why, EXEC_TEXT_LEN, "%s",
		 x->end == EXEC_CODE && !x->value ? ""
		 : x->text[0]                     ? x->text
						  : "the guest's answer cannot be read");
	err_clean(why);
}

/* ---- life ---- */

static void exec_finish(struct vm *vm, struct exec_proc *p, const struct msg_exec_exit *x)
{
	if (p->ended)
		return;
	p->ended = true;
	p->broken_ns = 0;
	p->ready = false;
	/* It has nothing left to do, and its place is wanted. */
	if (!p->kill_ns)
		exec_os_kill(p);
	p->done(vm, p->id, x);
}

static void exec_lose(struct vm *vm, struct exec_proc *p, const char *why)
{
	struct msg_exec_exit x = {.end = EXEC_LOST};

	snprintf(x.text, sizeof(x.text), "%s", why);
	exec_finish(vm, p, &x);
}

/* For a second insula-vsock is given what the first one had; before it is there, it waits. */
static void connect_stream(struct vm *vm, struct exec_proc *p)
{
	unsigned generation;
	enum vm_vsock state = vm_vsock_state(vm, &generation);

	if (p->stream < 0 || !p->ready || !vm_execs(vm)->agent_ready)
		return;
	if (vm_execs(vm)->held && p != &vm_execs(vm)->place[PLACE_RESUMED] &&
	    p != &vm_execs(vm)->place[PLACE_POWEROFF])
		return;
	if (state == VM_VSOCK_AWAY) {
		if (!p->broken_ns)
			p->broken_ns = clock_ns();
		return;
	}
	if (state == VM_VSOCK_SERVES) {
		/* One that is dying may not take it: insula-exec sees the end of its stream then,
		 * and says so. */
		exec_os_connect(vm, p);
		p->connected = true;
		p->connected_ns = clock_ns();
		p->broken_ns = 0;
		p->generation = generation;
	} else {
		exec_lose(vm, p,
			  state == VM_VSOCK_NONE ? "this machine has no vsock device"
						 : "insula-vsock has died too often in a row");
	}
	fd_close(&p->stream);
}

/* No stream will come: insula-exec writes out what it has and reports. */
static void no_more(struct vm *vm, struct exec_proc *p)
{
	p->broken_ns = 0;
	fd_close(&p->stream);
	if (!p->connected) {
		exec_lose(vm, p, "insula-vsock did not come back in time");
		return;
	}
	(void)exec_os_send(p, MSG_EXEC_STREAM, NULL, 0);
}

/* Its end of another stream goes to insula-exec, the other one to insula-vsock. */
static void another_stream(struct vm *vm, struct exec_proc *p)
{
	if (exec_os_another(p))
		no_more(vm, p);
	else
		connect_stream(vm, p);
}

/* The process that served this command's stream still serves. */
static bool same_vsock(const struct vm *vm, const struct exec_proc *p, unsigned *generation)
{
	return p->connected && vm_vsock_state(vm, generation) == VM_VSOCK_SERVES &&
	       *generation == p->generation;
}

/* Linux resets all its connections when it suspends, and when it hears that the device has been
 * replaced; the first of the new ones may be among them. While the guest sleeps insula-vsock keeps
 * the new one back. A guest that has ended the command says so, or refuses all of them. */
static bool may_retry(const struct vm *vm, const struct exec_proc *p)
{
	unsigned generation;

	return same_vsock(vm, p, &generation) && p->tries < MAX_TRIES;
}

/* If there is an insula-vsock that has not had a stream of this command yet. */
static void reconnect(struct vm *vm, struct exec_proc *p)
{
	unsigned generation;

	if (!p->broken_ns || !p->connected || p->ended ||
	    vm_vsock_state(vm, &generation) != VM_VSOCK_SERVES || generation == p->generation)
		return;
	p->tries = 0;
	another_stream(vm, p);
}

static void broken(struct vm *vm, struct exec_proc *p)
{
	p->broken_ns = clock_ns();
	if (p->broken_ns - p->connected_ns >= STEADY_NS)
		p->tries = 0;
	if (vm_has_ended(vm))
		no_more(vm, p);
	else
		reconnect(vm, p);
}

void exec_vsock_ready(struct vm *vm)
{
	struct execs *x = vm_execs(vm);

	for (unsigned i = 0; i < VM_EXEC_PLACES; i++) {
		connect_stream(vm, &x->place[i]);
		reconnect(vm, &x->place[i]);
	}
}

void exec_guest_gone(struct vm *vm)
{
	struct execs *x = vm_execs(vm);

	for (unsigned i = 0; i < VM_EXEC_PLACES; i++) {
		if (x->place[i].broken_ns)
			no_more(vm, &x->place[i]);
	}
}

/* ---- deadlines ---- */

static uint64_t resume_limit(const struct vm *vm, const struct exec_proc *p)
{
	unsigned generation;

	if (!p->broken_ns)
		return 0;
	if (may_retry(vm, p))
		return p->broken_ns + RETRY_NS;
	/* One that serves, and is the same, has not died: the guest ends all streams. */
	if (same_vsock(vm, p, &generation) || vm_vsock_state(vm, &generation) <= VM_VSOCK_DEAD)
		return p->broken_ns + BROKEN_NS;
	return p->broken_ns + RESUME_NS;
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
		uint64_t limit = limit_of(vm, &vm_execs(vm)->place[i]);

		if (limit && (!first || limit < first))
			first = limit;
	}
	return first;
}

static void overdue(struct vm *vm, struct exec_proc *p)
{
	if (may_retry(vm, p)) {
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
		struct exec_proc *p = &vm_execs(vm)->place[i];
		uint64_t resume = resume_limit(vm, p);

		if (resume && now >= resume)
			overdue(vm, p);
		if (p->kill_ns && now >= p->kill_ns) {
			exec_os_kill(p);
			p->kill_ns = 0;
		}
	}
}

/* ---- events ---- */

static void connect_all(struct vm *vm)
{
	for (unsigned i = 0; i < VM_EXEC_PLACES; i++)
		connect_stream(vm, &vm_execs(vm)->place[i]);
}

void exec_agent_ready(struct vm *vm)
{
	vm_execs(vm)->agent_ready = true;
	connect_all(vm);
}

void exec_hold(struct vm *vm, bool hold)
{
	vm_execs(vm)->held = hold;
	if (!hold)
		connect_all(vm);
}

void exec_ready(struct vm *vm, struct exec_proc *p)
{
	if (p->ended)
		return;
	p->ready = true;
	connect_stream(vm, p);
}

bool exec_message(struct vm *vm, struct exec_proc *p, enum msg_type t, const void *body, size_t len)
{
	struct msg_exec_exit x;

	if (t == MSG_EXEC_EXIT && len == sizeof(x)) {
		memcpy(&x, body, sizeof(x));
		x.text[sizeof(x.text) - 1] = 0;
		exec_finish(vm, p, &x);
	} else if (t == MSG_EXEC_STARTED && len == 0) {
		p->started = true;
	} else if (t == MSG_EXEC_BROKEN && len == 0 && !p->broken_ns) {
		broken(vm, p);
	} else if (t == MSG_EXEC_SIGNALED && len == 0) {
		p->signaled_ns = 0;
	} else if (t == MSG_QUIT && len == 0 && p->escape) {
		vm_quit(vm);
	} else {
		return false;
	}
	return true;
}

void exec_failed(struct vm *vm, struct exec_proc *p, const char *step, const char *text)
{
	char why[EXEC_TEXT_LEN];

	snprintf(why, sizeof(why), "insula-exec: %s: %s", step, text);
	exec_lose(vm, p, why);
}

void exec_gone(struct vm *vm, struct exec_proc *p, const char *how)
{
	char why[EXEC_TEXT_LEN];

	snprintf(why, sizeof(why), "insula-exec %s", how);
	exec_lose(vm, p, why);
	release(p);
}

bool exec_pending(const struct vm *vm)
{
	for (unsigned i = 0; i < VM_EXEC_PLACES; i++) {
		const struct exec_proc *p = &vm_execs(vm)->place[i];

		if (p->connected && p->id && !p->ended)
			return true;
	}
	return false;
}

/* ---- requests ---- */

static int request(struct vm *vm, uint32_t id, enum msg_type t, const void *body, size_t len)
{
	struct exec_proc *p = exec_find(vm, id);

	if (!p || !p->started || p->ended)
		return -ESRCH;
	return exec_os_send(p, t, body, len);
}

int exec_signal(struct vm *vm, uint32_t id, int signo)
{
	const struct msg_exec_signal m = {.signo = (uint32_t)signo};
	int rc = request(vm, id, MSG_EXEC_SIGNAL, &m, sizeof(m));

	if (!rc && !exec_find(vm, id)->signaled_ns)
		exec_find(vm, id)->signaled_ns = clock_ns();
	return rc;
}

int exec_resize(struct vm *vm, uint32_t id, uint16_t rows, uint16_t cols)
{
	const struct msg_exec_size m = {.rows = rows, .cols = cols};

	return request(vm, id, MSG_EXEC_RESIZE, &m, sizeof(m));
}

int exec_cancel(struct vm *vm, uint32_t id, const char *why)
{
	struct exec_proc *p = exec_find(vm, id);

	if (!p || p->ended)
		return -ESRCH;
	/* It tells the guest, which would wait for another stream otherwise. */
	if (p->ready && !exec_os_send(p, MSG_STOP, NULL, 0))
		p->kill_ns = clock_ns() + STOP_NS;
	exec_lose(vm, p, why);
	return 0;
}

bool exec_running(const struct vm *vm, uint32_t id)
{
	const struct exec_proc *p = exec_find(vm, id);

	return p && p->started && !p->ended;
}

uint64_t exec_unanswered(const struct vm *vm, uint32_t id)
{
	const struct exec_proc *p = exec_find(vm, id);

	return p ? p->signaled_ns : 0;
}

void exec_init(struct execs *x)
{
	*x = (struct execs){.ids = 0};
	for (unsigned i = 0; i < VM_EXEC_PLACES; i++)
		x->place[i].stream = -1;
}

void exec_free(struct vm *vm)
{
	for (unsigned i = 0; i < VM_EXEC_PLACES; i++)
		release(&vm_execs(vm)->place[i]);
}
