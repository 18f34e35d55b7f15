/* SPDX-License-Identifier: BSD-2-Clause */
/* One VM: open, spawn, watch, restart, end. See vm.h. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "host.h"
#include "recover.h"
#include "vm.h"

#define SECOND_NS 1000000000ull
#define START_DEADLINE_NS (30 * SECOND_NS) /* all children jailed and ready */
#define STOP_DEADLINE_NS (2 * SECOND_NS)   /* insula-vmm leaves the guest */
#define DRAIN_DEADLINE_NS (10 * SECOND_NS) /* helpers finish what is in flight */
#define PEER_START_NS (5 * SECOND_NS)      /* passt has begun by then */
#define VMM_NOFILE 1024
#define VMM_OTHER_THREADS \
	2 /* main, and the one that KVM starts in its user's process at the first run */
#define OUTPUT_DEADLINE_NS (2 * SECOND_NS) /* a command's last output, when the guest is gone */
#define MAX_POLL \
	(1 + 3 * (1 + VM_MAX_DEVICES + VM_EXEC_PLACES + CONFIG_MAX_NETS) + CONTROL_MAX_POLL)

/* ---- open ---- */

/* /dev/kvm: say what to do, since this is what most people meet first. */
static int open_kvm(struct err *e)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	struct stat st;

	if (fd >= 0)
		return fd;
	if (errno == ENOENT)
		return err_set(e, -ENOENT,
			       "no /dev/kvm: expected a Linux host with KVM (module kvm_intel or "
			       "kvm_amd loaded, virtualization on in the firmware)");
	if (errno != EACCES && errno != EPERM)
		return err_sys(e, -errno, "/dev/kvm");
	if (!stat("/dev/kvm", &st) && (st.st_mode & 060) == 060)
		return err_set(
			e, -EACCES,
			"no permission to open /dev/kvm: expected a member of its group (gid "
			"%u, usually \"kvm\"): usermod -aG kvm USER, then log in again",
			(unsigned)st.st_gid);
	return err_set(e, -EACCES,
		       "no permission to open /dev/kvm: it is for uid %u alone (mode %04o); "
		       "expected to read and write it: chmod 660 and a group for it, usually "
		       "\"kvm\"",
		       (unsigned)st.st_uid, (unsigned)st.st_mode & 07777);
}

/* KVM without VT-x or AMD-V (software KVM in some clouds) runs small programs, but no Linux. Say so
 * before somebody waits for it. */
static void warn_software_kvm(const struct vm *vm)
{
	const char *ends = vm->terminal.escape ? "; Ctrl-A x ends it"
			   : vm->command.raw   ? "; Ctrl-], three times in a second, ends it"
			   : isatty(0)         ? "; Ctrl-C, twice, ends it"
					       : "";
	char line[8192];
	bool found = false;
	FILE *f = vm->boot.ninitrds ? fopen("/proc/cpuinfo", "re") : NULL;

	if (!f)
		return;
	while (!found && fgets(line, sizeof(line), f))
		found = !strncmp(line, "flags", 5) &&
			(strstr(line, " vmx") || strstr(line, " svm"));
	fclose(f);
	if (!found)
		log_warn("this KVM has neither VT-x nor AMD-V behind it: a Linux guest will hardly "
			 "boot here%s; in the source tree, `make lab` has a machine where it does",
			 ends);
}

static int check_memory(uint64_t mem, struct err *e)
{
	uint64_t host = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

	if (mem > host)
		return err_set(e, -EINVAL,
			       "--mem: %lluM; expected at most %lluM, what this host has",
			       (unsigned long long)(mem >> 20), (unsigned long long)(host >> 20));
	return 0;
}

/* One that is open already holds the lock. */
static bool given_twice(const struct vm *vm, const char *path)
{
	struct stat a, b;

	for (unsigned i = 0; i < vm->ndisks; i++) {
		if (!stat(path, &a) && !fstat(vm->disk[i].fd, &b) && a.st_dev == b.st_dev &&
		    a.st_ino == b.st_ino)
			return true;
	}
	return false;
}

static int open_disk(struct vm *vm, const struct disk_config *c, struct err *e)
{
	int rc;

	if (vm->ndisks == CONFIG_MAX_DISKS + 1)
		return err_set(e, -EINVAL,
			       "--share: more than %d disks, the root and the shares among them",
			       CONFIG_MAX_DISKS + 1);
	rc = disk_open(&vm->disk[vm->ndisks], c, e);
	if (rc == -EBUSY && given_twice(vm, c->path))
		rc = err_set(e, -EINVAL, "disk %s: given twice; expected once, or ro each time",
			     c->path);
	vm->ndisks += !rc;
	return rc;
}

static int open_disks(struct vm *vm, struct err *e)
{
	const struct vm_config *c = vm->conf;
	int rc = 0;

	for (unsigned i = 0; i < c->ndisks && !rc; i++)
		rc = open_disk(vm, &c->disk[i], e);
	if (!rc && vm->boot.root_image[0]) {
		vm->root_disk =
			(struct disk_config){.path = vm->boot.root_image, .ro = vm->boot.root_ro};
		strcpy(vm->root_disk.serial, IMAGE_ROOT_SERIAL);
		rc = open_disk(vm, &vm->root_disk, e);
	}
	for (unsigned i = 0; i < vm->boot.nshares && !rc; i++) {
		struct disk_config *s = &vm->share_disk[i];

		*s = (struct disk_config){.path = vm->boot.share_image[i], .ro = true};
		snprintf(s->serial, sizeof(s->serial), IMAGE_SHARE_SERIAL "%u", i);
		rc = open_disk(vm, s, e);
	}
	return rc;
}

static int open_nics(struct vm *vm, bool check_only, struct err *e)
{
	int rc = 0;

	for (; vm->nnics < vm->conf->nnets && !rc; vm->nnics += !rc)
		rc = nic_open(&vm->nic[vm->nnics], &vm->conf->net[vm->nnics], vm->nnics,
			      vm->conf->cpus, check_only, e);
	return rc;
}

/* Can it be written, or made? It is opened when there is something to write: bad input leaves no
 * file behind. */
static int check_output(const char *what, const char *path, struct err *e)
{
	char copy[PATH_MAX];
	struct stat st;
	int rc;

	if (!path)
		return 0;
	if (!stat(path, &st) && S_ISDIR(st.st_mode))
		return err_set(e, -EISDIR, "%s: %s: a directory; expected a file", what, path);
	rc = faccessat(AT_FDCWD, path, W_OK, AT_EACCESS);
	if (rc && errno == ENOENT && strlen(path) < sizeof(copy)) {
		strcpy(copy, path);
		rc = faccessat(AT_FDCWD, dirname(copy), W_OK | X_OK, AT_EACCESS);
	}
	return rc ? err_sys(e, -errno, "%s: %s", what, path) : 0;
}

static int check_outputs(const struct vm_config *c, struct err *e)
{
	int rc = check_output("--metrics", c->metrics, e);

	return rc || config_console(c) != CONSOLE_FILE
		       ? rc
		       : check_output("--console", c->console_file, e);
}

/* The console is the first device; the others take the windows in their order. */
static int add_device(struct vm *vm, const struct device_class *class, const char *name,
		      unsigned nqueues, struct device **out, struct err *e)
{
	unsigned i = vm->ndevices++;

	*out = &vm->device[i];
	return device_init(*out, class, i, i ? i - 1 : 0, name, nqueues, vm->paths.libexec, e);
}

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
	for (unsigned i = 0; i < vm->nnics && !rc; i++) {
		snprintf(name, sizeof(name), "eth%u", i);
		rc = add_device(vm, &device_net, name, 2 * vm->nic[i].start.npairs + 1, &d, e);
		d->back.nic = &vm->nic[i];
	}
	if (!rc && !vm->conf->rng_off) {
		rc = add_device(vm, &device_rng, "rng", 1, &d, e);
		d->back.conf = vm->conf;
	}
	if (!rc && (vm->conf->vsock.on || vm->conf->command || vm_has_agent(vm))) {
		rc = add_device(vm, &device_vsock, "vsock", 3, &d, e);
		d->back.vsock = &vm->vsock;
		d->child.nofile = vsock_nofile();
	}
	if (!rc)
		rc = child_init(&vm->vmm, vm->paths.libexec, "insula-vmm", "",
				vm->conf->cpus + VMM_OTHER_THREADS, VMM_NOFILE, e);
	if (!rc)
		rc = vm->exec_program = child_program(vm->paths.libexec, "insula-exec", e);
	return rc < 0 ? rc : 0;
}

/* poll() refuses more entries than there may be descriptors, empty ones included. */
static int allow_files(struct err *e)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l))
		return err_sys(e, -errno, "RLIMIT_NOFILE");
	if (l.rlim_cur >= MAX_POLL)
		return 0;
	if (l.rlim_max < MAX_POLL)
		return err_set(e, -EMFILE, "RLIMIT_NOFILE: %llu; expected at least %u",
			       (unsigned long long)l.rlim_max, (unsigned)MAX_POLL);
	l.rlim_cur = l.rlim_max;
	return setrlimit(RLIMIT_NOFILE, &l) ? err_sys(e, -errno, "RLIMIT_NOFILE") : 0;
}

static int open_own(struct vm *vm, struct err *e)
{
	vm->mem = shm_create("insula-guest", vm->conf->mem, e);
	memmap_of_board(&vm->memmap, vm->conf->mem);
	return vm->mem < 0 ? vm->mem : make_devices(vm, e);
}

/* What the user named: what is wrong here is the user's to mend. */
static int open_named(struct vm *vm, bool check_only, bool verbose, struct err *e)
{
	const struct vm_config *c = vm->conf;
	int rc = check_memory(c->mem, e);

	if (!rc)
		rc = boot_open(&vm->boot, c, &vm->paths, check_only, verbose, e);
	if (!rc)
		rc = open_disks(vm, e);
	if (!rc)
		rc = open_nics(vm, check_only, e);
	if (!rc)
		rc = check_outputs(c, e);
	if (!rc)
		rc = vsock_open(&vm->vsock, &c->vsock, check_only, e);
	if (!rc && c->command)
		rc = command_open(vm, e);
	if (rc && rc != -ENOMEM && rc != -EMFILE && rc != -ENFILE && rc != -EAGAIN)
		vm->status = RUN_BAD_INPUT;
	return rc;
}

/* After everything that may be refused: a console file is made here. */
static int open_terminal(struct vm *vm, struct err *e)
{
	int rc = terminal_open(&vm->terminal, vm->conf, e);

	if (rc)
		vm->status = RUN_BAD_INPUT;
	/* Insula's own shell, and nothing else in a guest, says when it wants its input. */
	vm->terminal.stream = vm->boot.own_initrd && !vm->conf->rootfs && !vm->conf->command &&
			      config_console(vm->conf) == CONSOLE_STDIO && vm->terminal.in >= 0 &&
			      !vm->terminal.escape;
	vm->terminal.raw_wanted = vm->terminal.escape || vm->command.raw;
	return rc;
}

int vm_open(struct vm *vm, const struct vm_config *c, bool check_only, bool verbose, struct err *e)
{
	int rc;

	memset(vm, 0, sizeof(*vm));
	vm->conf = c;
	vm->kvm = vm->mem = vm->signals = -1;
	vm->started_ns = clock_ns();
	vm->vmm.exec_fd = vm->exec_program = -1;
	boot_init(&vm->boot);
	vm->vsock = (struct vsock){.dir = -1, .listener = -1};
	vm->terminal = (struct terminal){.in = -1, .out = -1, .slave = -1};
	exec_init(&vm->execs);
	for (unsigned i = 0; i < VM_EXEC_PLACES; i++) {
		child_none(&vm->exec[i]);
		vm->execs.place[i].child = &vm->exec[i];
	}
	command_init(&vm->command);
	vm->status = RUN_FAILED;
	rc = host_check(e);
	if (!rc)
		rc = allow_files(e);
	if (!rc)
		rc = paths_find(&vm->paths, e);
	if (!rc)
		rc = open_named(vm, check_only, verbose, e);
	if (!rc)
		rc = vm->kvm = open_kvm(e);
	if (rc >= 0)
		rc = check_only ? 0 : open_terminal(vm, e);
	if (!rc)
		rc = open_own(vm, e);
	if (rc)
		vm_close(vm);
	else
		vm->status = 0;
	return rc;
}

void vm_close(struct vm *vm)
{
	child_free(&vm->vmm);
	exec_free(vm);
	fd_close(&vm->exec_program);
	command_close(&vm->command);
	for (unsigned i = 0; i < vm->ndevices; i++)
		device_free(&vm->device[i]);
	for (unsigned i = 0; i < vm->ndisks; i++)
		disk_close(&vm->disk[i]);
	vsock_close(&vm->vsock);
	for (unsigned i = 0; i < vm->nnics; i++)
		nic_close(&vm->nic[i]);
	terminal_close(&vm->terminal);
	boot_close(&vm->boot);
	fd_close(&vm->kvm);
	fd_close(&vm->mem);
	fd_close(&vm->signals);
}

struct device *vm_vsock(const struct vm *vm)
{
	for (unsigned i = 0; i < vm->ndevices; i++) {
		if (vm->device[i].class == &device_vsock)
			return (struct device *)&vm->device[i];
	}
	return NULL;
}

/* ---- for what every system has ---- */

const char *vm_why(const struct vm *vm)
{
	return vm->why;
}

int vm_tell(struct vm *vm, enum msg_type t, const void *body, size_t len)
{
	return msg_send(vm->vmm.jail.channel, t, body, len, NULL, 0);
}

bool vm_vsock_died(const struct vm *vm)
{
	const struct device *d = vm_vsock(vm);

	return !d || d->restart.failed || child_ended(&d->child);
}

/* ---- start ---- */

void vm_end(struct vm *vm, int status, const char *fmt, ...)
{
	va_list ap;

	if (vm->ended)
		return;
	vm->ended = true;
	vm->status = status;
	va_start(ap, fmt);
	vsnprintf(vm->why, sizeof(vm->why), fmt, ap);
	va_end(ap);
	err_clean(vm->why); /* a jailed process may have worded it */
}

static int start_vmm(struct vm *vm, struct err *e)
{
	struct msg_start_vmm m;
	int fds[MSG_MAX_FDS];
	unsigned n = vm_word_start(vm, vm->kvm, &m, fds);
	int rc = child_spawn(&vm->vmm, e);

	for (unsigned i = 0; i < vm->ndevices && !rc; i++)
		rc = device_announce(&vm->device[i], &vm->vmm, e);
	if (rc)
		return rc;
	rc = msg_send(vm->vmm.jail.channel, MSG_START_VMM, &m, sizeof(m), fds, n);
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

static bool all_ready(const struct vm *vm)
{
	if (vm->vmm.state != CHILD_READY)
		return false;
	for (unsigned i = 0; i < vm->ndevices; i++) {
		if (vm->device[i].child.state != CHILD_READY)
			return false;
	}
	return true;
}

static void go(struct vm *vm)
{
	if (vm->running || vm->ended || !all_ready(vm))
		return;
	warn_software_kvm(vm);
	terminal_raw(&vm->terminal);
	if (msg_send(vm->vmm.jail.channel, MSG_GO, NULL, 0, NULL, 0)) {
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
	struct msg_paused paused;
	struct msg_stats stats;
	uint8_t bytes[MSG_MAX_BODY];
};

/* The child says that it is jailed; believe the kernel, not the child. */
static void on_ready(struct vm *vm, struct child *c, struct device *d, struct exec_proc *x)
{
	struct err e;
	int rc = jail_verify(c->jail.pid, &e);

	if (rc == -ESRCH)
		return; /* it has died meanwhile: its pidfd tells */
	if (rc && vm->running) {
		/* The guest goes on: a helper is started again, a command is reported. */
		log_error("%s: not in its jail, it is killed: %s", c->name, e.text);
		child_shoot(c);
		return;
	}
	if (rc) {
		vm_end(vm, RUN_FAILED, "%s: not in its jail: %s", c->name, e.text);
		return;
	}
	c->state = CHILD_READY;
	if (d)
		vm_helper_ready(vm, d);
	if (d && d->class == &device_vsock)
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
	if (!vm->ended) {
		vm->ended = true;
		result_from_exit(vm);
		err_clean(vm->why);
	}
}

static bool from_vmm(struct vm *vm, enum msg_type t, const union body *b, size_t len)
{
	if (t == MSG_VM_EXIT && len == sizeof(b->exit))
		on_vm_exit(vm, &b->exit);
	else if (t == MSG_DEV_STUCK && len == sizeof(b->dev))
		vm_helper_stuck(vm, b->dev.index);
	else if (t == MSG_DEV_IS_DOWN && len == sizeof(b->dev))
		vm_device_down(vm, b->dev.index);
	else if (t == MSG_VM_EVENT && len == sizeof(b->event) &&
		 b->event.event == BOARD_EVENT_AGENT_READY)
		exec_agent_ready(vm);
	else if (t == MSG_PAUSED && len == sizeof(b->paused))
		control_paused(vm->control, vm, b->paused.paused);
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
	/* One that is not verified yet has nothing to say but that it is ready. */
	return d->child.state != CHILD_STARTING && d->class->message &&
	       d->class->message(vm, d, t, b, len);
}

/* One message. A child that breaks the protocol is killed; what that means is decided where its
 * death is seen. */
static bool on_message(struct vm *vm, struct child *c, struct device *d, struct exec_proc *x)
{
	union body b;
	int fds[MSG_MAX_FDS];
	enum msg_type t;
	size_t len;
	unsigned nfds;
	bool ok = true;
	int rc = msg_recv(c->jail.channel, &t, &b, sizeof(b), &len, fds, &nfds);

	if (rc == -EPIPE || rc == -EAGAIN)
		return false;
	for (unsigned i = 0; i < nfds && !rc; i++)
		close(fds[i]);
	if (rc || nfds)
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
		kill(c->jail.pid, SIGKILL);
	}
	return ok;
}

/* ---- deaths ---- */

static void on_death(struct vm *vm, struct child *c, struct device *d, struct exec_proc *x)
{
	enum child_state before;
	char how[96];

	/* What it said before it died comes first. */
	while (on_message(vm, c, d, x))
		;
	before = c->state;
	child_describe(child_reap(c), how, sizeof(how));
	if (x) {
		exec_gone(vm, x, how);
	} else if (d) {
		vm_helper_died(vm, d, before, how);
	} else if (before != CHILD_DONE) {
		if (!vm->ended)
			vm->reason = "vmm-died";
		vm_end(vm, RUN_FAILED, "insula-vmm %s", how);
	}
}

/* When a device wants to be tended, clock_ns(); 0: none does. */
static uint64_t next_due(const struct vm *vm)
{
	uint64_t next = 0;

	for (unsigned i = 0; i < vm->ndevices && !vm->ended; i++) {
		const struct device *d = &vm->device[i];
		uint64_t due = d->class->due ? d->class->due(d) : 0;

		next = vm_sooner(next, due);
	}
	return next;
}

static void tend_devices(struct vm *vm)
{
	uint64_t now = clock_ns();

	for (unsigned i = 0; i < vm->ndevices && !vm->ended; i++) {
		struct device *d = &vm->device[i];
		uint64_t due = d->class->due ? d->class->due(d) : 0;

		if (due && due <= now)
			d->class->tend(d);
	}
}

/* ---- loop ---- */

static void on_signal(struct vm *vm)
{
	struct signalfd_siginfo si;

	if (read(vm->signals, &si, sizeof(si)) != (ssize_t)sizeof(si))
		return;
	if (vm->conf->command && si.ssi_signo == SIGWINCH) {
		command_resized(vm);
		return;
	}
	if (vm->conf->command && command_signal(vm, (int)si.ssi_signo))
		return;
	vm_end(vm, RUN_SIGNAL + (int)si.ssi_signo, "%s", "");
}

static void fill(struct pollfd *p, struct child *c)
{
	p[0] = (struct pollfd){c->jail.channel, POLLIN, 0};
	p[1] = (struct pollfd){c->jail.log, POLLIN, 0};
	p[2] = (struct pollfd){c->jail.pidfd, POLLIN, 0};
}

static void serve(struct vm *vm, const struct pollfd *p, struct child *c, struct device *d,
		  struct exec_proc *x)
{
	if (p[1].revents)
		child_log(c);
	if (p[2].revents)
		on_death(vm, c, d, x);
	else if (p[0].revents & POLLIN)
		on_message(vm, c, d, x);
	else if (p[0].revents)
		kill(c->jail.pid, SIGKILL); /* it closed its channel: it is of no use any more */
}

static struct child *peer_of(const struct device *d)
{
	return d->class->peer ? d->class->peer(d) : NULL;
}

/* Its helper sees the end of the connection and says so; then there is another one. But one that
 * gives up right at the beginning would do so again: what it was told cannot be. */
static void serve_peer(struct vm *vm, const struct pollfd *p, struct child *c,
		       const struct device *d)
{
	bool first = d->class->peer_began(d) && clock_ns() - vm->started_ns < PEER_START_NS;
	char how[96];
	int status;

	if (p[1].revents)
		child_log(c);
	if (!p[2].revents)
		return;
	status = child_reap(c);
	child_describe(status, how, sizeof(how));
	if (!vm->running)
		vm_end(vm, RUN_FAILED, "%s %s before the guest ran%s%s", c->name, how,
		       c->last[0] ? ": " : "", c->last);
	else if (first && WIFEXITED(status) && WEXITSTATUS(status))
		vm_end(vm, RUN_FAILED, "%s %s%s%s", c->name, how, c->last[0] ? ": " : "", c->last);
	else if (!vm->ended)
		log_warn("%s %s%s%s", c->name, how, c->last[0] ? ": " : "", c->last);
}

/* Wait for something and deal with it; at most until `deadline_ns` (0: none). */
static void step(struct vm *vm, uint64_t deadline_ns)
{
	struct pollfd p[MAX_POLL];
	unsigned n = 0, execs, peers, controls, ncontrols;
	uint64_t now = clock_ns(), wake = control_deadline(vm->control, vm), due = next_due(vm);
	int ms = -1;

	p[n++] = (struct pollfd){vm->signals, POLLIN, 0};
	fill(&p[n], &vm->vmm);
	n += 3;
	for (unsigned i = 0; i < vm->ndevices; i++, n += 3)
		fill(&p[n], &vm->device[i].child);
	execs = n;
	for (unsigned i = 0; i < VM_EXEC_PLACES; i++, n += 3)
		fill(&p[n], &vm->exec[i]);
	peers = n;
	for (unsigned i = 0; i < vm->ndevices; i++) {
		struct child *c = peer_of(&vm->device[i]);

		if (c) {
			fill(&p[n], c);
			n += 3;
		}
	}
	controls = n;
	ncontrols = control_fill(vm->control, &p[n]);
	if (wake && (!deadline_ns || wake < deadline_ns))
		deadline_ns = wake;
	if (due && (!deadline_ns || due < deadline_ns))
		deadline_ns = due;
	if (deadline_ns)
		ms = deadline_ns <= now ? 0 : (int)((deadline_ns - now) / 1000000 % 1000000) + 1;
	if (poll(p, n + ncontrols, ms) < 0) {
		if (errno == EINTR)
			return;
		vm->hard = true; /* nobody can be waited for */
		vm_end(vm, RUN_FAILED, "poll: %s", strerror(errno));
		return;
	}
	control_serve(vm->control, vm, &p[controls], ncontrols);
	if (p[0].revents)
		on_signal(vm);
	serve(vm, &p[1], &vm->vmm, NULL, NULL);
	for (unsigned i = 0; i < vm->ndevices; i++)
		serve(vm, &p[4 + 3 * i], &vm->device[i].child, &vm->device[i], NULL);
	for (unsigned i = 0; i < VM_EXEC_PLACES; i++)
		serve(vm, &p[execs + 3 * i], &vm->exec[i], NULL, &vm->execs.place[i]);
	n = peers;
	for (unsigned i = 0; i < vm->ndevices; i++) {
		struct child *c = peer_of(&vm->device[i]);

		/* A device that has just been served may have a new one by now. */
		if (c && p[n + 2].fd == c->jail.pidfd)
			serve_peer(vm, &p[n], c, &vm->device[i]);
		n += c ? 3 : 0;
	}
}

static void run_until_ended(struct vm *vm)
{
	uint64_t start_limit = clock_ns() + START_DEADLINE_NS;

	while (!vm->ended) {
		uint64_t limit = vm_next_limit(vm, vm->deadline_ns, start_limit);

		tend_devices(vm);
		vm_restart_due(vm);
		step(vm, vm_sooner(limit, vm_restart_next(vm)));
		if (limit && clock_ns() >= limit)
			vm_overdue(vm, limit, vm->deadline_ns);
	}
}

/* ---- end ---- */

static void stop_vmm(struct vm *vm)
{
	uint64_t limit = clock_ns() + STOP_DEADLINE_NS;

	if (vm->running && vm->vmm.state == CHILD_READY &&
	    !msg_send(vm->vmm.jail.channel, MSG_STOP, NULL, 0, NULL, 0)) {
		vm->vmm.state = CHILD_STOPPING;
		while (vm->vmm.state == CHILD_STOPPING && clock_ns() < limit)
			step(vm, limit);
	}
}

static bool stop_helpers(struct vm *vm)
{
	bool any = false;

	for (unsigned i = 0; i < vm->ndevices; i++) {
		struct child *c = &vm->device[i].child;

		restart_stop(&vm->device[i].restart);
		if (c->state == CHILD_READY)
			c->state = msg_send(c->jail.channel, MSG_STOP, NULL, 0, NULL, 0)
					   ? CHILD_DONE
					   : CHILD_STOPPING;
		any |= c->state == CHILD_STOPPING;
	}
	return any;
}

/* The guest has stopped: nothing is posted any more. Helpers write out what they have, then
 * everything goes. */
static void wind_down(struct vm *vm)
{
	uint64_t limit = clock_ns() + DRAIN_DEADLINE_NS;

	if (!vm->hard)
		stop_vmm(vm);
	/* Nobody is waited for that others could be dying beside. */
	child_shoot(&vm->vmm);
	while (!vm->hard && vm->running && stop_helpers(vm) && clock_ns() < limit)
		step(vm, limit);
	for (unsigned i = 0; i < vm->ndevices; i++)
		child_shoot(&vm->device[i].child);
	child_kill(&vm->vmm);
	for (unsigned i = 0; i < vm->ndevices; i++)
		child_kill(&vm->device[i].child);
	/* With insula-vsock the streams have ended: what came through them is still written. */
	exec_guest_gone(vm);
	limit = clock_ns() + OUTPUT_DEADLINE_NS;
	while (exec_pending(vm) && clock_ns() < limit)
		step(vm, limit);
	exec_free(vm);
	terminal_close(&vm->terminal);
}

static int catch_signals(struct vm *vm)
{
	static const int wanted[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH};
	const unsigned n =
		vm->conf->command ? ARRAY_LEN(wanted) : 4; /* the others are a command's */
	sigset_t set;

	sigemptyset(&set);
	for (unsigned i = 0; i < n; i++)
		sigaddset(&set, wanted[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_DFL);
	vm->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return vm->signals < 0 ? -errno : 0;
}

int vm_run(struct vm *vm)
{
	int rc = catch_signals(vm);

	if (vm->conf->timeout)
		vm->deadline_ns = vm->started_ns + vm->conf->timeout * SECOND_NS;
	if (rc)
		vm_end(vm, RUN_FAILED, "signalfd: %s", strerror(-rc));
	else
		start_all(vm);
	if (vm->terminal.slave >= 0)
		log_line("console: %s", vm->terminal.slave_name);
	run_until_ended(vm);
	wind_down(vm);
	metrics_write(vm);
	return vm->status;
}
