/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-vmm: stages of start-up, and the main thread's loop.
 *
 *   1. jail_enter()         nothing has been received yet
 *   2. receive              devices and MSG_START_VMM, over the channel
 *   3. build                guest memory, VM, slots, doorbells, vCPUs and their threads (waiting at
 *                           the gate)
 *   4. jail_seal()          from here on no descriptor can be opened; not one byte from outside has
 *                           been looked at
 *   5. load                 kernel, initrd, ACPI tables into guest memory, or what a VM was saved
 *                           as: the first untrusted input
 *   6. MSG_READY, MSG_GO    open the gate
 *   7. loop                 until the VM ends or the supervisor is gone
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/jail.h>
#include <insula/log.h>

#include "x86/acpi.h"
#include "x86/genid.h"
#include "x86/ioapic.h"
#include "x86/load.h"
#include "cpus.h"
#include "plug.h"
#include "save.h"
#include "vmm.h"

#define PARK_DEADLINE_NS 1000000000ull
#define MIN_PINS 8 /* of the interrupt controller */

static _Noreturn void main_fail(const char *step, int code, const char *text, int bad_input)
{
	msg_fail(MSG_CHANNEL_FD, step, code, text, bad_input);
	_exit(1);
}

/* ---- 2. receive ---- */

static void main_add_device(struct vmm *vm, const void *body, size_t len, int *fds, unsigned nfds)
{
	struct device_desc m;
	struct err e;
	int rc;

	if (vm->ndevices == VM_MAX_DEVICES || device_unpack(&m, body, len))
		main_fail("device", -EPROTO, "a device that does not fit", 0);
	if (m.index != vm->ndevices)
		main_fail("device", -EPROTO, "devices out of order", 0);
	rc = remote_init(&vm->dev[vm->ndevices], &m, fds, nfds, &e);
	if (rc)
		main_fail("device", rc, e.text, 0);
	vm->ndevices++;
}

static int check_start(const struct vmm *vm, const struct msg_start_vmm *m,
		       const struct start_fds *f, struct err *e)
{
	bool restore = m->flags & VMM_RESTORE;
	int rc = start_expect(f, START_HYPERVISOR, vmm_device_fds(), e);

	if (!rc)
		rc = start_expect(f, START_KERNEL, !restore, e);
	if (!rc)
		rc = start_expect(f, START_STATE, restore, e);
	if (!rc && f->n[START_FAULTS])
		rc = start_expect(f, START_FAULTS, restore, e);
	if (!rc && f->n[START_WATCH])
		rc = start_expect(f, START_WATCH, !f->n[START_FAULTS], e);
	for (enum start_role r = START_PAGE; r <= START_OWN && !rc; r++)
		rc = start_expect(f, r, 0, e);
	if (!rc)
		rc = start_expect(f, START_EPC, m->epc.size != 0, e);
	if (rc)
		return rc;
	if (!f->n[START_MEMORY] || f->n[START_INITRD] > (restore ? 0 : VMM_MAX_INITRDS) ||
	    m->ndevices != vm->ndevices || m->ncpus < 1 || m->ncpus > BOARD_MAX_CPUS ||
	    m->ncpus_in < 1 || m->ncpus_in > m->ncpus ||
	    (!(m->flags & VMM_CPUS) && m->ncpus_in < m->ncpus) ||
	    (m->flags &
	     ~(uint32_t)(VMM_HUGEPAGES | VMM_RESTORE | VMM_PAUSED | VMM_CPUS | VMM_ASSIGNS)) ||
	    !memchr(m->cmdline, 0, sizeof(m->cmdline)) ||
	    (m->epc.size && (restore || m->epc.gpa < BOARD_HIGH_RAM)))
		return err_set(e, -EPROTO, "malformed MSG_START_VMM");
	return 0;
}

static void main_receive(struct vmm *vm, struct msg_start_vmm *start, struct start_fds *f)
{
	union {
		struct msg_start_vmm start;
		uint8_t bytes[MSG_MAX_BODY];
	} b;
	int fds[MSG_MAX_FDS];
	enum msg_type type;
	struct err e;
	size_t len;
	unsigned nfds;
	int rc;

	for (;;) {
		rc = msg_recv(MSG_CHANNEL_FD, &type, &b, sizeof(b), &len, fds, &nfds);
		if (rc == -EPIPE)
			_exit(1);
		if (rc)
			main_fail("start", rc, "malformed message", 0);
		if (type == MSG_START_VMM && len == sizeof(b.start))
			break;
		if (type != MSG_DEVICE)
			main_fail("start", -EPROTO, "unexpected message", 0);
		main_add_device(vm, &b, len, fds, nfds);
	}
	rc = start_sort(&b.start.head, START_TAG_VMM, fds, nfds, f, &e);
	if (!rc)
		rc = check_start(vm, &b.start, f, &e);
	if (rc)
		main_fail("start", rc, e.text, 0);
	*start = b.start;
	vm->ncpus = start->ncpus;
	vm->cpus_change = start->flags & VMM_CPUS;
	vm->assigns = start->flags & VMM_ASSIGNS;
	cpus_init(vm, start->ncpus_in);
	vm->memmap = start->head.mem;
	vm->epc = start->epc;
	vm->restored = start->flags & VMM_RESTORE;
	vm->pausing = start->flags & VMM_PAUSED;
	atomic_store(&vm->paused, vm->pausing);
	vm->save_fd = -1;
}

/* ---- 3. build ---- */

static int map_ram(struct vmm *vm, struct err *e)
{
	int rc = 0;

	for (unsigned i = 0; i < vm->gm.nregions && !rc; i++) {
		const struct gm_region *r = &vm->gm.region[i];
		rc = hv_mem_map(vm->hv, vm->next_slot++, r->gpa, r->host, r->size, HV_MEM_RW, e);
	}
	return rc;
}

static int add_window(struct vmm *vm, struct remote *d, unsigned i, struct err *e)
{
	const struct device_window *w = &d->desc.window[i];
	bool mmio = w->space == DEVICE_MMIO;
	int rc = bus_add(mmio ? &vm->mmio : &vm->pio, w->base, w->len, &remote_bus_ops,
			 &d->window[i], e);

	for (unsigned k = 0; k < vm->gm.nregions && mmio && !rc; k++) {
		const struct gm_region *r = &vm->gm.region[k];

		if (device_overlap(w->base, w->len, r->gpa, r->size))
			rc = err_set(e, -EINVAL, "%s: its window at 0x%llx is memory", d->desc.name,
				     (unsigned long long)w->base);
	}
	return rc;
}

/* Registers that the guest reads in place, from `base` on. One memory slot if they can be one:
 * each that is added makes the hypervisor wait for whoever may be using the others. */
static int map_shadows(struct vmm *vm, uint64_t base, void *const page[], unsigned n, struct err *e)
{
	void *all = n > 1 ? shm_join(page, n, DP_SHADOW_SIZE) : NULL;
	int rc = 0;

	if (all)
		return hv_mem_map(vm->hv, vm->next_slot++, base, all, n * DP_SHADOW_SIZE,
				  HV_MEM_READONLY, e);
	for (unsigned i = 0; i < n && !rc; i++)
		rc = hv_mem_map(vm->hv, vm->next_slot++, base + i * DP_SHADOW_SIZE, page[i],
				DP_SHADOW_SIZE, HV_MEM_READONLY, e);
	return rc;
}

/* Of all devices on no bus: windows that lie side by side are mapped together. */
static int map_windows(struct vmm *vm, struct err *e)
{
	void *page[VM_MAX_DEVICES * DEVICE_MAX_WINDOWS];
	uint64_t base = 0;
	unsigned n = 0;
	int rc = 0;

	for (unsigned i = 0; i < vm->ndevices * DEVICE_MAX_WINDOWS && !rc; i++) {
		const struct remote *d = &vm->dev[i / DEVICE_MAX_WINDOWS];
		const struct device_window *w = &d->desc.window[i % DEVICE_MAX_WINDOWS];

		if (w->space != DEVICE_MMIO || w->serve != DEVICE_SHADOW)
			continue;
		if (w->base != base + n * DP_SHADOW_SIZE) {
			rc = map_shadows(vm, base, page, n, e);
			base = w->base;
			n = 0;
		}
		page[n++] = d->shadow;
	}
	return rc ? rc : map_shadows(vm, base, page, n, e);
}

static int attach_device(struct vmm *vm, struct remote *d, bool may_spin, struct err *e)
{
	const struct device_desc *m = &d->desc;
	int rc = 0;

	d->wake_event = vm->main_event;
	d->ending = &vm->ending;
	d->may_spin = may_spin;
	if (m->pci.host_slot) {
		(void)hv_vm_assigns(vm->hv, e); /* without it the next one says so */
		pci_assign(vm->hv, d, hv_vm_assign);
		fd_close(&d->slot[m->pci.host_slot]);
	}
	if (device_is_pci(m))
		return pci_add(&vm->pci, d, &vm->next_line, &vm->next_slot, e);
	if (device_is_place(m) && vm->room)
		d->room = vm->room + vm->pci.nplaces * BOARD_PCI_PORT_SIZE;
	if (device_is_place(m))
		return pci_add_place(&vm->pci, d, &vm->next_line, &vm->next_slot, e);
	for (unsigned i = 0; i < m->nvectors && !rc; i++)
		rc = ioapic_set_event(vm->ioapic, m->vector[i].number, d->slot[m->vector[i].slot],
				      e);
	for (unsigned i = 0; i < m->nwindows && !rc; i++)
		rc = add_window(vm, d, i, e);
	for (unsigned i = 0; i < m->ndoorbells && !rc; i++) {
		struct hv_doorbell h = remote_doorbell(d, i, 0);

		rc = hv_doorbell_bind(vm->hv, &h, e);
	}
	return rc;
}

/* No more pins than the devices need: a kernel writes each of them several times while it boots. */
static unsigned count_pins(const struct vmm *vm)
{
	unsigned n = MIN_PINS;

	for (unsigned i = 0; i < vm->ndevices; i++) {
		const struct device_desc *m = &vm->dev[i].desc;

		for (unsigned k = 0; k < m->nvectors; k++) {
			if (m->vector[k].kind == DEVICE_PIN && m->vector[k].number >= n &&
			    m->vector[k].number < IOAPIC_MAX_PINS)
				n = m->vector[k].number + 1;
		}
	}
	return n;
}

static int build_vm(struct vmm *vm, int dev, struct err *e)
{
	static const struct line_ops irq_ops = {hv_irq_route, hv_irq_bind, hv_irq_unbind};
	struct hv_vm_params p = {.dev = dev,
				 .ncpus = vm->ncpus,
				 .nlines = vm->npins + pci_count_lines(vm->dev, vm->ndevices),
				 .epc_gpa = vm->epc.gpa,
				 .epc_size = vm->epc.size};
	bool spin = several_cpus();
	int rc = hv_vm_create(&vm->hv, &p, e);

	if (!rc)
		rc = map_ram(vm, e);
	if (!rc)
		rc = ioapic_create(&vm->ioapic, vm->npins, &irq_ops, vm->hv, e);
	if (!rc)
		rc = board_init(vm, e);
	if (!rc)
		rc = genid_init(vm, e);
	if (!rc && vm->assigns)
		rc = plug_make_room(vm, e);
	pci_init(&vm->pci, vm->hv, &irq_ops);
	vm->next_line = vm->npins;
	for (unsigned i = 0; i < vm->ndevices && !rc; i++)
		rc = attach_device(vm, &vm->dev[i], spin, e);
	if (!rc)
		rc = map_windows(vm, e);
	if (!rc)
		rc = pci_on_bus(&vm->pci, &vm->mmio, vm->next_slot++, e);
	if (!rc)
		rc = board_check_wide(vm, e);
	for (unsigned i = 0; i < vm->ncpus && !rc; i++) {
		vm->vcpu[i].vm = vm;
		vm->vcpu[i].index = i;
		rc = hv_vcpu_create(vm->hv, i, &vm->vcpu[i].hv, e);
	}
	return rc;
}

static int start_threads(struct vmm *vm, struct err *e)
{
	pthread_attr_t attr;
	int rc = 0;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 256 << 10);
	pthread_barrier_init(&vm->begun, NULL, vm->ncpus + 1);
	atomic_store(&vm->running, vm->ncpus);
	for (unsigned i = 0; i < vm->ncpus && !rc; i++)
		rc = -pthread_create(&vm->vcpu[i].thread, &attr, vcpu_thread, &vm->vcpu[i]);
	pthread_attr_destroy(&attr);
	/* A thread that has not begun yet would make its first system calls under the filter. */
	if (!rc)
		pthread_barrier_wait(&vm->begun);
	return rc ? err_sys(e, rc, "vCPU threads") : 0;
}

/* All of it now, as the user asked; what the host cannot give is said, and the guest runs without.
 */
static void take_huge_pages(const struct guestmem *gm, unsigned nregions)
{
	for (unsigned i = 0; i < nregions; i++) {
		const struct gm_region *r = &gm->region[i];
		int rc = gm_collapse(gm, r->gpa, r->gpa + r->size);

		if (rc)
			log_warn("hugepages: not all memory is in huge pages: %s",
				 rc == -EINVAL ? "expected Linux 6.1 or newer" : strerror(-rc));
	}
}

static void close_role(struct start_fds *f, enum start_role role)
{
	for (unsigned i = 0; i < f->n[role]; i++)
		fd_close(&f->fd[role][i]);
}

static void main_build(struct vmm *vm, const struct msg_start_vmm *start, struct start_fds *f)
{
	struct err e;
	int rc;

	vm->npins = count_pins(vm);
	vm->main_event = event_create();
	if (vm->main_event < 0)
		main_fail("event", vm->main_event, "eventfd", 0);
	rc = gm_map(&vm->gm, &start->head.mem, f->fd[START_MEMORY], f->n[START_MEMORY], &e);
	if (rc)
		main_fail("memory", rc, e.text, 0);
	rc = gm_give_faults(&vm->gm, &start->head.mem, f, MSG_CHANNEL_FD, &e);
	if (rc)
		main_fail("memory", rc, e.text, 0);
	if (start->flags & VMM_HUGEPAGES)
		take_huge_pages(&vm->gm, memmap_present(&vm->memmap));
	rc = build_vm(vm, f->n[START_HYPERVISOR] ? f->fd[START_HYPERVISOR][0] : -1, &e);
	if (!rc)
		rc = board_map_epc(vm, f->fd[START_EPC][0], &e);
	if (rc)
		main_fail("hypervisor", rc, e.text, 0);
	close_role(f, START_HYPERVISOR);
	close_role(f, START_MEMORY);
	close_role(f, START_EPC);
	rc = start_threads(vm, &e);
	if (rc)
		main_fail("threads", rc, e.text, 0);
}

/* ---- 5. load ---- */

static void load(struct vmm *vm, const struct msg_start_vmm *start, struct start_fds *f)
{
	struct acpi_params ap = {.ncpus = vm->ncpus,
				 .ncpus_in = start->ncpus_in,
				 .cpus_change = vm->cpus_change,
				 .epc = vm->epc,
				 .ndevices = vm->ndevices};
	struct guestmem present = vm->gm; /* what the guest is told of */
	struct load_params lp = {.gm = &present,
				 .pci_buses = 1 + vm->pci.nplaces,
				 .epc = vm->epc,
				 .kernel_fd = f->fd[START_KERNEL][0],
				 .ninitrds = f->n[START_INITRD],
				 .cmdline = start->cmdline};
	struct load_entry entry;
	struct hv_regs regs;
	struct err e;
	int rc;

	present.nregions = memmap_present(&vm->memmap);
	for (unsigned i = 0; i < vm->ndevices; i++)
		ap.device[i] = &vm->dev[i].desc;
	rc = acpi_build(&vm->gm, &ap, &lp.acpi_rsdp, &e);
	if (!rc)
		rc = genid_place(vm, start->genid, start->clock, &e);
	if (rc)
		main_fail("acpi", rc, e.text, 0);
	memcpy(lp.initrd_fd, f->fd[START_INITRD], sizeof(lp.initrd_fd));
	rc = load_kernel(&lp, &entry, &e);
	if (rc)
		main_fail("load", rc, e.text, 1);
	load_entry_regs(&entry, &regs);
	rc = hv_vcpu_set_regs(vm->vcpu[0].hv, &regs, &e);
	if (rc)
		main_fail("registers", rc, e.text, 0);
	close_role(f, START_KERNEL);
	close_role(f, START_INITRD);
}

static void restore(struct vmm *vm, const struct msg_start_vmm *start, struct start_fds *f)
{
	struct err e;
	int rc = save_read(vm, f->fd[START_STATE][0], &e);

	if (!rc)
		rc = genid_renew(vm, start->genid, start->clock, &e);
	if (rc)
		main_fail("restore", rc, e.text, 1);
	close_role(f, START_STATE);
}

/* ---- 7. loop ---- */

void vmm_end(struct vmm *vm, enum vm_exit_reason reason, const struct msg_vm_exit *x)
{
	uint32_t none = 0;

	if (!atomic_compare_exchange_strong(&vm->reason, &none, reason))
		return;
	if (x) {
		vm->exit.status = x->status;
		vm->exit.rip = x->rip;
		vm->exit.ninsn = x->ninsn;
		memcpy(vm->exit.insn, x->insn, sizeof(x->insn));
		memcpy(vm->exit.text, x->text, sizeof(x->text));
	}
	atomic_store(&vm->ending, true);
	event_signal(vm->main_event);
}

/* A word that none was before: who is about to sleep on an older one, through a resume and another
 * pause even, does not sleep over a save, or over being let in. */
static void set_paused(struct vmm *vm, bool paused)
{
	atomic_store(&vm->paused, ((atomic_load(&vm->paused) & ~VMM_IS_PAUSED) + 2) |
					  (paused ? VMM_IS_PAUSED : 0));
}

void vmm_wake_resting(struct vmm *vm)
{
	set_paused(vm, atomic_load(&vm->paused) & VMM_IS_PAUSED);
	word_wake(&vm->paused);
}

static void end_pause(struct vmm *vm)
{
	set_paused(vm, false);
	word_wake(&vm->paused);
}

/* Answered by report_paused() when the last vCPU has come out; the supervisor has the deadline. */
static void pause_vm(struct vmm *vm)
{
	set_paused(vm, true);
	vm->pausing = true;
	for (unsigned i = 0; i < vm->ncpus; i++)
		hv_vcpu_kick(vm->vcpu[i].hv);
}

static void send_paused(uint32_t paused)
{
	struct msg_paused m = {paused};

	(void)msg_send(MSG_CHANNEL_FD, MSG_PAUSED, &m, sizeof(m), NULL, 0);
}

static void resume_vm(struct vmm *vm)
{
	vm->pausing = false;
	fd_close(&vm->save_fd); /* a record that nobody waits for any more */
	end_pause(vm);
	send_paused(0);
}

static void report_paused(struct vmm *vm)
{
	struct err e;

	if (!vm->pausing || atomic_load(&vm->resting) < vm->ncpus)
		return;
	vm->pausing = false;
	if (hv_vm_suspend_time(vm->hv, &e))
		log_warn("paused, but time goes on: %s", e.text);
	send_paused(1);
}

/* ---- MSG_SAVE ---- */

static void send_saved(struct vmm *vm, uint64_t len, int error, const char *text)
{
	struct msg_saved m = {.error = error, .len = len};

	snprintf(m.text, sizeof(m.text), "%s", text);
	(void)msg_send(MSG_CHANNEL_FD, MSG_SAVED, &m, sizeof(m), NULL, 0);
	fd_close(&vm->save_fd);
}

/* Takes the descriptor. Answered by report_saved() when the last vCPU has made its record; the
 * supervisor has the deadline. */
static void save_vm(struct vmm *vm, int fd)
{
	fd_close(&vm->save_fd); /* nobody waits for that one any more */
	vm->save_fd = fd;
	if (!(atomic_load(&vm->paused) & VMM_IS_PAUSED) || vm->pausing) {
		send_saved(vm, 0, -EBUSY, "the VM is not paused");
		return;
	}
	atomic_fetch_add(&vm->save_no, 1);
	vmm_wake_resting(vm);
}

static void report_saved(struct vmm *vm)
{
	struct err e = {0};
	uint64_t len = 0;
	int rc;

	if (vm->save_fd < 0)
		return;
	for (unsigned i = 0; i < vm->ncpus; i++) {
		if (atomic_load(&vm->vcpu[i].save_no) != atomic_load(&vm->save_no))
			return;
	}
	rc = save_write(vm, vm->save_fd, &len, &e);
	send_saved(vm, len, rc, rc ? e.text : "");
}

static void take_down(struct vmm *vm, uint32_t index)
{
	struct msg_dev m = {index};

	if (!device_is_place(&vm->dev[index].desc))
		remote_down(&vm->dev[index]);
	(void)msg_send(MSG_CHANNEL_FD, MSG_DEV_IS_DOWN, &m, sizeof(m), NULL, 0);
}

static void handle_message(struct vmm *vm)
{
	union {
		struct msg_dev dev;
		struct msg_cpus cpus;
		uint8_t bytes[MSG_MAX_BODY];
	} b;
	int fds[MSG_MAX_FDS];
	enum msg_type type;
	size_t len;
	unsigned nfds;

	/* The supervisor is gone or speaks another language: nothing may outlive it. */
	if (msg_recv(MSG_CHANNEL_FD, &type, &b, sizeof(b), &len, fds, &nfds))
		_exit(1);
	if (type == MSG_SAVE && len == 0 && nfds == 1) {
		save_vm(vm, fds[0]);
		return;
	}
	if (plug_message(vm, type, &b, len, fds, nfds))
		return;
	for (unsigned i = 0; i < nfds; i++)
		fd_close(&fds[i]);
	if (type == MSG_STOP)
		vmm_end(vm, VM_EXIT_STOPPED, NULL);
	else if (type == MSG_PAUSE && len == 0)
		pause_vm(vm);
	else if (type == MSG_RESUME && len == 0)
		resume_vm(vm);
	else if (type == MSG_DEV_UP && len == sizeof(b.dev) && b.dev.index < vm->ndevices)
		remote_up(&vm->dev[b.dev.index]);
	else if (type == MSG_DEV_DOWN && len == sizeof(b.dev) && b.dev.index < vm->ndevices)
		take_down(vm, b.dev.index);
	else if (type == MSG_CPUS && len == sizeof(b.cpus))
		cpus_want(vm, b.cpus.n);
}

static void report_stuck(struct vmm *vm)
{
	for (unsigned i = 0; i < vm->ndevices; i++) {
		struct msg_dev m = {i};

		if (atomic_exchange(&vm->dev[i].stuck, false))
			(void)msg_send(MSG_CHANNEL_FD, MSG_DEV_STUCK, &m, sizeof(m), NULL, 0);
	}
}

static void report_ready(struct vmm *vm)
{
	const struct msg_vm_event m = {BOARD_EVENT_AGENT_READY};
	uint32_t seen = 1;

	if (atomic_compare_exchange_strong(&vm->agent_ready, &seen, 2))
		(void)msg_send(MSG_CHANNEL_FD, MSG_VM_EVENT, &m, sizeof(m), NULL, 0);
}

static void loop(struct vmm *vm)
{
	cpus_turn(vm);
	while (!atomic_load(&vm->ending)) {
		uint64_t got = events_wait(&vm->main_event, 1, MSG_CHANNEL_FD, -1);

		if (got & 1) {
			report_stuck(vm);
			report_ready(vm);
			plug_report(vm);
		}
		if (got & EVENTS_CHANNEL)
			handle_message(vm);
		cpus_turn(vm);
		report_paused(vm);
		report_saved(vm);
	}
}

/* Bring the vCPUs out of the guest, so that the counters are final. One that does not come is not
 * waited for. */
static void stop_vcpus(struct vmm *vm)
{
	uint64_t start = clock_ns();

	end_pause(vm);
	for (unsigned i = 0; i < vm->ncpus; i++)
		hv_vcpu_kick(vm->vcpu[i].hv);
	while (atomic_load(&vm->running) && clock_ns() - start < PARK_DEADLINE_NS)
		(void)events_wait(&vm->main_event, 1, -1, 10);
}

static void report_exit(struct vmm *vm)
{
	struct msg_vm_exit *x = &vm->exit;

	x->reason = atomic_load(&vm->reason);
	x->init_started = atomic_load(&vm->init_started);
	x->first_run_ns = vm->first_run_ns;
	x->board = atomic_load(&vm->board_accesses);
	x->ioapic = atomic_load(&vm->ioapic_accesses);
	for (unsigned i = 0; i < vm->ncpus; i++) {
		for (unsigned k = 0; k < HV_EXIT_KINDS; k++)
			x->exits[k] += vm->vcpu[i].exits[k];
		x->unclaimed += vm->vcpu[i].unclaimed;
	}
	x->ndevices = vm->ndevices;
	for (unsigned i = 0; i < vm->ndevices; i++)
		remote_metrics(&vm->dev[i], &x->dev[i]);
	(void)msg_send(MSG_CHANNEL_FD, MSG_VM_EXIT, x, sizeof(*x), NULL, 0);
}

_Static_assert(HV_EXIT_KINDS <= ARRAY_LEN(((struct msg_vm_exit *)0)->exits), "counters fit");

/* Megabytes, of which few VMs touch much. */
static struct vmm *main_vm(void)
{
	struct vmm *vm = reserve_memory(sizeof(*vm), true);

	if (vm)
		return vm;
	main_fail("memory", -ENOMEM, "out of memory", 0);
}

int main(void)
{
	struct msg_start_vmm start;
	struct start_fds fds;
	struct err e;
	struct vmm *vm;
	int rc;

	jail_enter();
	vm = main_vm();
	main_receive(vm, &start, &fds);
	log_setup("", (enum log_level)start.head.log_level);
	main_build(vm, &start, &fds);
	rc = vmm_seal(vm, &e);
	if (rc)
		main_fail("seccomp", rc, e.text, 0);
	if (vm->restored)
		restore(vm, &start, &fds);
	else
		load(vm, &start, &fds);
	rc = msg_send(MSG_CHANNEL_FD, MSG_READY, NULL, 0, NULL, 0);
	if (!rc)
		rc = msg_expect(MSG_CHANNEL_FD, MSG_GO, NULL, 0, NULL, 0, &e);
	if (rc)
		_exit(1);
	atomic_store(&vm->gate, 1);
	word_wake(&vm->gate);
	loop(vm);
	stop_vcpus(vm);
	report_exit(vm);
	_exit(0);
}
