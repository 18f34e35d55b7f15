/* SPDX-License-Identifier: BSD-2-Clause */
/* One VM on Windows. See vm_win.h. */
#include "vm_win.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "recover.h"
#include "result.h"

#define SECOND_NS 1000000000ull
#define START_DEADLINE_NS (30 * SECOND_NS) /* all children contained and ready */
#define STOP_DEADLINE_NS (2 * SECOND_NS)   /* insula-vmm leaves the guest */
#define DRAIN_DEADLINE_NS (10 * SECOND_NS) /* helpers finish what is in flight */
#define OUTPUT_DEADLINE_NS (2 * SECOND_NS) /* a command's last output, when the guest is gone */
#define LOOK_MS 1000 /* between two looks at how long the log, how large the window is */
#define TICK_MS 10   /* while something is waited for that has no event */

void vm_end(struct vm *vm, int status, const char *fmt, ...)
{
	va_list ap;

	if (vm->ended)
		return;
	vm->ended = true;
	vm->end->status = status;
	va_start(ap, fmt);
	vsnprintf(vm->end->why, sizeof(vm->end->why), fmt, ap);
	va_end(ap);
	err_clean(vm->end->why); /* a contained process may have worded it */
}

static bool is_set(HANDLE h)
{
	return h && WaitForSingleObject(h, 0) == WAIT_OBJECT_0;
}

/* ---- open ---- */

static int refuse(const struct vm_config *c, struct err *e)
{
	const char *what = c->nshares    ? "--share"
			   : c->nnets    ? "--net"
			   : c->mem_huge ? "--mem ...,hugepages"
					 : NULL;

	return what ? err_set(e, -EOPNOTSUPP, "%s: not on Windows yet", what) : 0;
}

static int check_memory(uint64_t mem, struct err *e)
{
	MEMORYSTATUSEX m = {.dwLength = sizeof(m)};

	if (GlobalMemoryStatusEx(&m) && mem > m.ullTotalPhys)
		return err_set(e, -EINVAL,
			       "--mem: %lluM; expected at most %lluM, what this host has",
			       (unsigned long long)(mem >> 20),
			       (unsigned long long)(m.ullTotalPhys >> 20));
	return 0;
}

static bool has_vsock(const struct vm *vm)
{
	return vm->conf->vsock.on || vm->conf->command || vm_has_agent(vm);
}

static int add_disk(struct vm *vm, const struct disk_config *c, struct err *e)
{
	vm->ndisks++; /* in any case, or its handle would stay */
	return disk_open(&vm->disk[vm->ndisks - 1], c, e);
}

static int open_disks(struct vm *vm, struct err *e)
{
	int rc = 0;

	for (unsigned i = 0; i < vm->conf->ndisks && !rc; i++)
		rc = add_disk(vm, &vm->conf->disk[i], e);
	if (rc || !vm->boot.root_image[0])
		return rc;
	vm->root_disk = (struct disk_config){.path = vm->boot.root_image, .ro = vm->boot.root_ro};
	strcpy(vm->root_disk.serial, IMAGE_ROOT_SERIAL);
	return add_disk(vm, &vm->root_disk, e);
}

static int open_named(struct vm *vm, bool check_only, bool verbose, struct err *e)
{
	const struct vm_config *c = vm->conf;
	int rc = paths_find(&vm->paths, e);

	if (!rc)
		rc = refuse(c, e);
	if (!rc)
		rc = check_memory(c->mem, e);
	if (!rc)
		rc = boot_open(&vm->boot, c, &vm->paths, check_only, verbose, e);
	if (!rc && has_vsock(vm))
		rc = vsock_open(&vm->vsock, &c->vsock, check_only, e);
	if (!rc)
		rc = open_disks(vm, e);
	if (!rc && c->command)
		rc = command_open(vm, e);
	return rc;
}

static int add_device(struct vm *vm, const struct device_class *class, const char *name,
		      unsigned nqueues, struct device **out, struct err *e)
{
	unsigned i = vm->ndevices++;

	*out = &vm->device[i];
	return device_init(*out, class, i, i ? i - 1 : 0, name, nqueues, NULL, e);
}

/* The console is the first device; the others take the windows in their order. */
static int make_devices(struct vm *vm, struct err *e)
{
	unsigned nqueues = vm->conf->cpus < BLK_MAX_QUEUES ? vm->conf->cpus : BLK_MAX_QUEUES;
	char name[DEV_NAME_LEN];
	struct device *d;
	int rc = add_device(vm, &device_uart, "com1", 0, &d, e);

	d->back.terminal = &vm->terminal;
	for (unsigned i = 0; i < vm->ndisks && !rc; i++) {
		device_disk_name(i, name);
		rc = add_device(vm, &device_blk, name, nqueues, &d, e);
		d->back.disk = &vm->disk[i];
	}
	if (!rc && !vm->conf->rng_off) {
		rc = add_device(vm, &device_rng, "rng", 1, &d, e);
		d->back.conf = vm->conf;
	}
	if (!rc && has_vsock(vm)) {
		rc = add_device(vm, &device_vsock, "vsock", 3, &d, e);
		d->back.vsock = &vm->vsock;
		vm->vsock_device = d;
	}
	return rc;
}

static int open_own(struct vm *vm, struct err *e)
{
	child_init(&vm->vmm, "insula-vmm", "", CONTAIN_VMM);
	vm->mem = shm_create("insula-guest", vm->conf->mem, e);
	memmap_of_board(&vm->memmap, vm->conf->mem);
	return vm->mem < 0 ? vm->mem : make_devices(vm, e);
}

static void vm_close(struct vm *vm)
{
	child_kill(&vm->vmm);
	exec_free(vm);
	command_close(&vm->command);
	for (unsigned i = 0; i < vm->ndevices; i++)
		device_free(&vm->device[i]);
	for (unsigned i = 0; i < vm->ndisks; i++)
		fd_close(&vm->disk[i].fd);
	vsock_close(&vm->vsock);
	terminal_close(&vm->terminal);
	boot_close(&vm->boot);
	fd_close(&vm->mem);
}

/* ---- for what every system has ---- */

struct device *vm_vsock(const struct vm *vm)
{
	return vm->vsock_device;
}

const char *vm_why(const struct vm *vm)
{
	return vm->end->why;
}

int vm_tell(struct vm *vm, enum msg_type t, const void *body, size_t len)
{
	return child_send(&vm->vmm, t, body, len, NULL, 0);
}

bool vm_vsock_died(const struct vm *vm)
{
	const struct device *d = vm->vsock_device;

	return !d || d->restart.failed || !d->child.box.process || is_set(d->child.box.process);
}

/* ---- start ---- */

static int start_vmm(struct vm *vm, struct err *e)
{
	struct msg_start_vmm m;
	int fds[MSG_MAX_FDS], all[CONTAIN_MAX_HANDLES];
	unsigned n = vm_word_start(vm, -1, &m, fds), nall = n;
	int rc;

	memcpy(all, fds, n * sizeof(*fds));
	for (unsigned i = 0; i < vm->ndevices; i++) {
		memcpy(&all[nall], vm->device[i].slot, vm->device[i].desc.nslots * sizeof(int));
		nall += vm->device[i].desc.nslots;
	}
	rc = child_spawn(&vm->vmm, all, nall, e);
	for (unsigned i = 0; i < vm->ndevices && !rc; i++)
		rc = device_announce(&vm->device[i], &vm->vmm, e);
	if (rc)
		return rc;
	rc = child_send(&vm->vmm, MSG_START_VMM, &m, sizeof(m), fds, n);
	return rc ? err_sys(e, rc, "insula-vmm: channel") : 0;
}

static void start_all(struct vm *vm)
{
	struct err e;
	int rc = start_vmm(vm, &e);

	for (unsigned i = 0; i < vm->ndevices && !rc; i++)
		rc = device_start(&vm->device[i], vm->mem, &vm->memmap, &e);
	if (!rc && vm->conf->command)
		rc = command_start(vm, &e);
	if (rc)
		vm_end(vm, RUN_FAILED, "%s", e.text);
}

static void go(struct vm *vm)
{
	bool ready = vm->vmm.state == CHILD_READY;

	for (unsigned i = 0; i < vm->ndevices; i++)
		ready &= vm->device[i].child.state == CHILD_READY;
	if (vm->running || vm->ended || !ready)
		return;
	if (vm->command.raw)
		terminal_raw(&vm->terminal);
	if (child_send(&vm->vmm, MSG_GO, NULL, 0, NULL, 0)) {
		vm_end(vm, RUN_FAILED, "insula-vmm: its channel is closed");
		return;
	}
	vm->running = true;
	control_event(vm->control, "running", NULL, NULL);
	log_info("running after %llu us",
		 (unsigned long long)((clock_ns() - vm->started_ns) / 1000));
}

/* ---- messages ---- */

union body {
	struct msg_failed failed;
	struct msg_vm_exit exit;
	struct msg_dev dev;
	struct msg_vm_event event;
	struct msg_stats stats;
	struct msg_paused paused;
	uint8_t bytes[MSG_MAX_BODY];
};

/* The child says that it is contained; believe the system, not the child. */
static void on_ready(struct vm *vm, struct child *c, struct device *d, struct exec_proc *x)
{
	struct err e;

	int rc = contain_check(c->box.process, c->box.job, c->kind, true, &e);

	if (rc && vm->running) {
		/* The guest goes on: a helper is started again, a command is reported. */
		log_error("%s: it is killed: %s", c->name, e.text);
		child_shoot(c);
		return;
	}
	if (rc) {
		vm_end(vm, RUN_FAILED, "%s: %s", c->name, e.text);
		return;
	}
	c->state = CHILD_READY;
	if (d)
		vm_helper_ready(vm, d);
	if (d && d == vm->vsock_device)
		exec_vsock_ready(vm);
	if (x)
		exec_ready(vm, x);
	go(vm);
}

static void on_vm_exit(struct vm *vm, const struct msg_vm_exit *x)
{
	vm->exit = *x;
	vm->exit.text[sizeof(vm->exit.text) - 1] = 0;
	vm->have_exit = true;
	vm->vmm.state = CHILD_DONE;
	if (vm->ended)
		return;
	vm->ended = true;
	ending_of(&vm->exit, vm->boot.own_initrd, vm->conf->command != NULL, vm->end);
	err_clean(vm->end->why);
}

static bool from_vmm(struct vm *vm, enum msg_type t, const union body *b, size_t len)
{
	if (t == MSG_VM_EXIT && len == sizeof(b->exit))
		on_vm_exit(vm, &b->exit);
	else if (t == MSG_DEV_STUCK && len == sizeof(b->dev))
		vm_helper_stuck(vm, b->dev.index);
	else if (t == MSG_DEV_IS_DOWN && len == sizeof(b->dev))
		vm_device_down(vm, b->dev.index);
	else if (t == MSG_PAUSED && len == sizeof(b->paused))
		control_paused(vm->control, vm, b->paused.paused);
	else if (t == MSG_VM_EVENT && len == sizeof(b->event) &&
		 b->event.event == BOARD_EVENT_AGENT_READY)
		exec_agent_ready(vm);
	else
		return false;
	return true;
}

static bool from_helper(struct vm *vm, struct device *d, enum msg_type t, const union body *b,
			size_t len)
{
	/* Before it was asked to stop it would not be started again when it dies. */
	if (t == MSG_STOPPED && len == sizeof(b->stats) && d->child.state == CHILD_STOPPING) {
		for (unsigned i = 0; i < ARRAY_LEN(b->stats.n); i++)
			d->stats.n[i] += b->stats.n[i];
		d->child.state = CHILD_DONE;
		return true;
	}
	/* Nothing for one that was not verified. */
	return d->child.state != CHILD_STARTING && d->class->message &&
	       d->class->message(vm, d, t, b, len);
}

/* One message; the channel's event is set. False: it was the last one. A child that breaks the
 * protocol is ended; what that means is decided where its end is seen. */
static bool on_message(struct vm *vm, struct child *c, struct device *d, struct exec_proc *x)
{
	union body b;
	enum msg_type t;
	size_t len;
	bool ok = true;
	int rc = channel_recv(&c->channel, &t, &b, sizeof(b), &len);

	if (rc == -EPIPE)
		return false;
	if (rc)
		ok = false;
	else if (t == MSG_READY && len == 0 && c->state == CHILD_STARTING)
		on_ready(vm, c, d, x);
	else if (t == MSG_FAILED && len == sizeof(b.failed))
		ok = vm_child_failed(vm, c, d, x, &b.failed);
	else
		ok = x   ? exec_message(vm, x, t, &b, len)
		     : d ? from_helper(vm, d, t, &b, len)
			 : from_vmm(vm, t, &b, len);
	if (!ok) {
		log_error("%s: broke the protocol", c->name);
		TerminateProcess(c->box.process, 1);
	}
	return ok;
}

/* ---- ends of children ---- */

static void on_end(struct vm *vm, struct child *c, struct device *d, struct exec_proc *x)
{
	enum child_state before;
	char how[64];
	DWORD code;

	/* What it said before it ended comes first. */
	while (!c->gone && is_set(channel_event(&c->channel)) && on_message(vm, c, d, x))
		;
	before = c->state;
	code = child_reap(c);
	snprintf(how, sizeof(how), "exited with status %lu", code);
	if (x)
		exec_gone(vm, x, how);
	else if (d)
		vm_helper_died(vm, d, before, how);
	else if (before != CHILD_DONE)
		vm_end(vm, RUN_FAILED, "insula-vmm exited with status %lu", code);
}

/* A pipe of the host's was busy. True: look again soon. */
static bool ask_again(struct vm *vm)
{
	return vm->vsock_device && vsock_retry(&vm->vsock, &vm->vsock_device->child);
}

/* ---- loop ---- */

static unsigned add_slot(HANDLE *h, struct child *c)
{
	*h = child_event(c);
	return *h != NULL;
}

/* Clients wait while no helper is there that could take them. */
static HANDLE client_event(struct vm *vm)
{
	bool up = vm->vsock_device && vm->vsock_device->child.state == CHILD_READY;

	return up ? vsock_event(&vm->vsock) : NULL;
}

/* Its log, which needs no handle of ours to wait for, comes first. */
static void serve(struct vm *vm, struct child *c, struct device *d, struct exec_proc *x)
{
	if (!c->box.process)
		return;
	child_log(c);
	if (is_set(c->box.process)) {
		on_end(vm, c, d, x);
	} else if (!c->gone && is_set(channel_event(&c->channel)) && !on_message(vm, c, d, x)) {
		c->gone = true; /* it closed its channel, or broke the protocol */
		TerminateProcess(c->box.process, 1);
	}
}

static void serve_all(struct vm *vm)
{
	serve(vm, &vm->vmm, NULL, NULL);
	for (unsigned i = 0; i < vm->ndevices; i++)
		serve(vm, &vm->device[i].child, &vm->device[i], NULL);
	for (unsigned i = 0; i < VM_EXEC_PLACES; i++)
		serve(vm, &vm->exec[i], NULL, &vm->execs.place[i]);
}

/* Ctrl-C: the command's, as a signal is on Linux. */
static void on_key(struct vm *vm)
{
	ResetEvent(vm->interrupt);
	if (!vm->conf->command || !command_signal(vm, SIGINT))
		vm_end(vm, RUN_SIGNAL + SIGINT, "%s", "");
}

/* A console window does not say that its size has changed. */
static void look_at_window(struct vm *vm)
{
	uint16_t rows = vm->rows, cols = vm->cols;

	(void)window_size(&rows, &cols);
	if (rows == vm->rows && cols == vm->cols)
		return;
	if (vm->rows)
		command_resized(vm);
	vm->rows = rows;
	vm->cols = cols;
}

static DWORD wait_ms(const struct vm *vm, uint64_t deadline_ns, bool soon)
{
	uint64_t now = clock_ns(), turn = control_deadline(vm->control, vm);
	DWORD ms = INFINITE;

	if (turn && (!deadline_ns || turn < deadline_ns))
		deadline_ns = turn;
	if (deadline_ns)
		ms = deadline_ns <= now ? 0 : (DWORD)((deadline_ns - now) / 1000000 % 1000000) + 1;
	if (soon && ms > TICK_MS)
		ms = TICK_MS;
	/* The guest's console goes into insulad's log without a word to us: see control_serve(). */
	if ((vm->control || vm->command.raw) && ms > LOOK_MS)
		ms = LOOK_MS;
	return ms;
}

/* Wait for something and deal with it; at most until `deadline_ns` (0: none). */
static void step(struct vm *vm, uint64_t deadline_ns, bool soon)
{
	HANDLE h[MAX_SLOTS];
	DWORD n = 0;

	h[n++] = vm->interrupt;
	n += control_slots(vm->control, &h[n]);
	if (client_event(vm))
		h[n++] = client_event(vm);
	n += add_slot(&h[n], &vm->vmm);
	for (unsigned i = 0; i < vm->ndevices; i++)
		n += add_slot(&h[n], &vm->device[i].child);
	for (unsigned i = 0; i < VM_EXEC_PLACES; i++)
		n += add_slot(&h[n], &vm->exec[i]);
	WaitForMultipleObjectsEx(n, h, FALSE, wait_ms(vm, deadline_ns, soon), TRUE);
	control_serve(vm->control, vm);
	if (is_set(vm->interrupt))
		on_key(vm);
	if (is_set(client_event(vm)))
		vsock_client(&vm->vsock, &vm->vsock_device->child);
	serve_all(vm);
	if (vm->command.raw)
		look_at_window(vm);
}

static void run_until_ended(struct vm *vm)
{
	uint64_t start_limit = vm->started_ns + START_DEADLINE_NS, timeout = 0;

	if (vm->conf->timeout)
		timeout = vm->started_ns + vm->conf->timeout * SECOND_NS;
	while (!vm->ended) {
		uint64_t limit = vm_next_limit(vm, timeout, start_limit);

		vm_restart_due(vm);
		step(vm, vm_sooner(limit, vm_restart_next(vm)), ask_again(vm));
		if (limit && clock_ns() >= limit)
			vm_overdue(vm, limit, timeout);
	}
}

/* ---- end ---- */

static void stop_vmm(struct vm *vm)
{
	uint64_t limit = clock_ns() + STOP_DEADLINE_NS;

	if (!vm->running || vm->vmm.state != CHILD_READY ||
	    child_send(&vm->vmm, MSG_STOP, NULL, 0, NULL, 0))
		return;
	vm->vmm.state = CHILD_STOPPING;
	while (vm->vmm.state == CHILD_STOPPING && clock_ns() < limit)
		step(vm, limit, false);
}

static bool stop_helpers(struct vm *vm)
{
	bool any = false;

	for (unsigned i = 0; i < vm->ndevices; i++) {
		struct child *c = &vm->device[i].child;

		restart_stop(&vm->device[i].restart);
		if (c->state == CHILD_READY)
			c->state = child_send(c, MSG_STOP, NULL, 0, NULL, 0) ? CHILD_DONE
									     : CHILD_STOPPING;
		any |= c->state == CHILD_STOPPING;
	}
	return any;
}

/* The guest has stopped: nothing is posted any more. Helpers write out what they have, then
 * everything goes. */
static void wind_down(struct vm *vm)
{
	uint64_t limit;

	if (!vm->hard)
		stop_vmm(vm);
	child_kill(&vm->vmm);
	limit = clock_ns() + DRAIN_DEADLINE_NS;
	while (!vm->hard && vm->running && stop_helpers(vm) && clock_ns() < limit)
		step(vm, limit, false);
	for (unsigned i = 0; i < vm->ndevices; i++)
		child_kill(&vm->device[i].child);
	/* With insula-vsock the streams have ended: what came through them is still written. */
	exec_guest_gone(vm);
	limit = clock_ns() + OUTPUT_DEADLINE_NS;
	while (exec_pending(vm) && clock_ns() < limit)
		step(vm, limit, false);
	exec_free(vm);
}

json_object *result_json(const struct vm *vm)
{
	struct result r = {.reason = vm->reason,
			   .command_ended = vm->command.ended,
			   .have_exit = vm->have_exit,
			   .status = vm->end->status,
			   .why = vm->end->why,
			   .started_ns = vm->started_ns,
			   .exit = &vm->exit,
			   .ndevices = vm->ndevices};

	for (unsigned i = 0; i < vm->ndevices; i++) {
		const struct device *d = &vm->device[i];

		r.device[i] = (struct result_device){.name = d->desc.name,
						     .restarts = d->restart.total,
						     .stats = &d->stats,
						     .names = d->class->stats};
	}
	return result_object(&r);
}

static void metrics_write(const struct vm *vm)
{
	if (vm->conf->metrics && vm->running)
		result_write(vm->conf->metrics, result_json(vm));
}

/* The handler runs on a thread of the system's and gets no argument. */
static HANDLE interrupted;

static BOOL WINAPI on_interrupt(DWORD which)
{
	(void)which;
	return SetEvent(interrupted);
}

static void init(struct vm *vm)
{
	vm->mem = -1;
	vm->terminal = (struct terminal){.in = -1, .out = -1};
	vm->started_ns = clock_ns();
	boot_init(&vm->boot);
	command_init(&vm->command);
	exec_init(&vm->execs);
	for (unsigned i = 0; i < VM_EXEC_PLACES; i++)
		vm->execs.place[i].child = &vm->exec[i];
}

void vm_win_run(const struct vm_config *c, struct control *control, bool check_only, bool verbose,
		struct ending *end)
{
	static struct vm vm; /* large */
	struct err e = {0};
	int rc;

	vm.conf = c;
	vm.end = end;
	vm.control = control;
	init(&vm);
	rc = open_named(&vm, check_only, verbose, &e);
	if (!rc && !check_only)
		rc = terminal_open(&vm.terminal, c, &e);
	if (rc) {
		vm_end(&vm, RUN_BAD_INPUT, "%s", e.text);
	} else if (!check_only) {
		interrupted = vm.interrupt = CreateEventW(NULL, TRUE, FALSE, NULL);
		SetConsoleCtrlHandler(on_interrupt, TRUE);
		if (open_own(&vm, &e))
			vm_end(&vm, RUN_FAILED, "%s", e.text);
		else
			start_all(&vm);
		run_until_ended(&vm);
		wind_down(&vm);
		metrics_write(&vm);
	}
	control_finish(control, &vm);
	vm_close(&vm);
}

void vm_win_refused(struct control *control, struct ending *end)
{
	static struct vm vm; /* large */

	vm.end = end;
	vm.started_ns = clock_ns();
	control_finish(control, &vm);
}
