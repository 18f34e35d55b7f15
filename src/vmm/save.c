/* SPDX-License-Identifier: BSD-2-Clause */
/* What insula-vmm holds, saved and restored. See save.h. */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include <insula/base.h>
#include <insula/state.h>

#include "save.h"
#include "vmm.h"
#include "x86/ioapic.h"

#define VERSION 1u
#define ROOM (HV_STATE_MAX + 4096u) /* of the largest record */
_Static_assert(VMM_SAVE_ROOM(1) - VMM_SAVE_ROOM(0) >= ROOM, "a record of each vCPU fits");

enum {
	REC_MACHINE = STATE_VMM,
	REC_HV,
	REC_IOAPIC,
	REC_BOARD,
	REC_VCPU,
	REC_DEVICE,
	REC_PCI,
	REC_CPUS, /* if they come and go */
	REC_PORT,
};

struct rec_machine {
	uint32_t ncpus, ndevices, npins, pad;
	struct memmap mem;
};

struct rec_board {
	uint32_t rst_cnt, init_started, agent_ready, pad;
};

struct rec_cpus {
	uint32_t in, parked, news, asked, wanted, pad;
};

/* What the core keeps to itself of a device page, and the description behind it. */
struct rec_device {
	uint32_t head, seq;
	uint8_t desc[sizeof(struct device_desc)];
};

static _Alignas(8) uint8_t room[ROOM]; /* the main thread's: the record at hand */

static struct rec_machine machine_of(const struct vmm *vm)
{
	return (struct rec_machine){vm->ncpus, vm->ndevices, vm->npins, 0, vm->memmap};
}

static size_t describe_device(const struct remote *d, struct rec_device *r)
{
	r->head = d->head;
	r->seq = d->seq;
	return offsetof(struct rec_device, desc) + device_pack(&d->desc, r->desc);
}

/* ---- save ---- */

void save_vcpu(struct vcpu *c)
{
	struct state_out out = {c->state, sizeof(c->state), 0};

	do
		c->save_rc = hv_vcpu_state_get(c->hv, &out, &c->save_err);
	while (c->save_rc == -EAGAIN && !atomic_load(&c->vm->ending) && !vcpu_step(c));
	c->state_len = out.len;
}

struct writer {
	int fd;
	uint64_t len;
};

static int put(struct writer *w, uint32_t type, uint32_t index, const void *body, size_t size,
	       struct err *e)
{
	struct state_out o = {room, sizeof(room), 0};
	int rc = state_put(&o, type, VERSION, index, body, (uint32_t)size);

	if (!rc)
		rc = shm_write(w->fd, o.at, o.len, w->len);
	w->len += o.len;
	return rc ? err_sys(e, rc, "a record of %zu bytes cannot be written", size) : 0;
}

static int put_hv(struct vmm *vm, struct writer *w, struct err *e)
{
	static _Alignas(8) uint8_t body[HV_STATE_MAX];
	struct state_out o = {body, sizeof(body), 0};
	int rc = hv_vm_state_get(vm->hv, &o, e);

	return rc ? rc : put(w, REC_HV, 0, body, o.len, e);
}

static int put_board(struct vmm *vm, struct writer *w, struct err *e)
{
	struct rec_board b = {.rst_cnt = atomic_load(&vm->rst_cnt),
			      .init_started = atomic_load(&vm->init_started),
			      .agent_ready = atomic_load(&vm->agent_ready) != 0};

	return put(w, REC_BOARD, 0, &b, sizeof(b), e);
}

static int put_vcpus(struct vmm *vm, struct writer *w, struct err *e)
{
	int rc = 0;

	for (unsigned i = 0; i < vm->ncpus && !rc; i++) {
		const struct vcpu *c = &vm->vcpu[i];

		if (c->save_rc) {
			*e = c->save_err;
			return c->save_rc;
		}
		rc = put(w, REC_VCPU, i, c->state, c->state_len, e);
	}
	return rc;
}

static int put_devices(struct vmm *vm, struct writer *w, struct err *e)
{
	struct rec_device r;
	int rc = 0;

	for (unsigned i = 0; i < vm->ndevices && !rc; i++)
		rc = put(w, REC_DEVICE, i, &r, describe_device(&vm->dev[i], &r), e);
	return rc;
}

static int put_pci(struct vmm *vm, struct writer *w, struct err *e)
{
	struct pci_port_state port;
	struct pci_state s;
	int rc = 0;

	for (unsigned i = 0; i < pci_fixed(&vm->pci) && !rc; i++) {
		pci_get(&vm->pci, i, &s);
		rc = put(w, REC_PCI, i, &s, sizeof(s), e);
	}
	for (unsigned i = 0; i < vm->pci.nplaces && !rc; i++) {
		pci_port_get(&vm->pci.place[i].port, &port);
		rc = put(w, REC_PORT, i, &port, sizeof(port), e);
	}
	return rc;
}

static int put_cpus(struct vmm *vm, struct writer *w, struct err *e)
{
	struct rec_cpus r = {.in = atomic_load(&vm->cpus_in),
			     .parked = atomic_load(&vm->cpus_parked),
			     .news = atomic_load(&vm->cpus_news),
			     .asked = atomic_load(&vm->cpus_asked),
			     .wanted = vm->cpus_wanted};

	return vm->cpus_change ? put(w, REC_CPUS, 0, &r, sizeof(r), e) : 0;
}

int save_write(struct vmm *vm, int fd, uint64_t *len, struct err *e)
{
	const struct rec_machine m = machine_of(vm);
	struct ioapic_state io;
	struct writer w = {fd, 0};
	int rc = put(&w, REC_MACHINE, 0, &m, sizeof(m), e);

	ioapic_get(vm->ioapic, &io);
	if (!rc)
		rc = put_hv(vm, &w, e);
	if (!rc)
		rc = put(&w, REC_IOAPIC, 0, &io, sizeof(io), e);
	if (!rc)
		rc = put_board(vm, &w, e);
	if (!rc)
		rc = put_vcpus(vm, &w, e);
	if (!rc)
		rc = put_devices(vm, &w, e);
	if (!rc)
		rc = put_pci(vm, &w, e);
	if (!rc)
		rc = put_cpus(vm, &w, e);
	*len = w.len;
	return rc;
}

/* ---- restore ---- */

struct reader {
	int fd;
	uint64_t at;
};

/* The next record, which is of this kind; p->body is in `room` until the next call. */
static int take(struct reader *r, struct state_part *p, uint32_t index, struct err *e)
{
	struct state_head h;
	uint64_t size;
	int rc = read_full(r->fd, &h, sizeof(h), r->at);

	if (rc)
		return err_set(e, -EPROTO, "state: it ends before %s %u", p->name, index);
	size = state_size(&h);
	if (size > sizeof(room))
		return err_set(e, -EPROTO, "state: a record of %u bytes; expected %zu at most",
			       h.size, sizeof(room) - sizeof(h));
	if (read_full(r->fd, room, size, r->at))
		return err_set(e, -EPROTO, "state: it ends in %s %u", p->name, index);
	p->version = VERSION;
	r->at += size;
	return state_take(room, size, index, p, 1, e);
}

static int differs(struct err *e, const char *what, uint64_t saved, uint64_t here)
{
	return err_set(e, -EINVAL, "state: of a VM with %s %llu, and this one has %llu", what,
		       (unsigned long long)saved, (unsigned long long)here);
}

static int take_machine(const struct vmm *vm, struct reader *r, struct err *e)
{
	struct state_part p = {
		.type = REC_MACHINE, .name = "the machine", .size = sizeof(struct rec_machine)};
	const struct rec_machine here = machine_of(vm);
	struct rec_machine m;
	int rc = take(r, &p, 0, e);

	if (rc)
		return rc;
	memcpy(&m, p.body, sizeof(m));
	if (m.ncpus != here.ncpus)
		return differs(e, "cpus", m.ncpus, here.ncpus);
	if (m.ndevices != here.ndevices)
		return differs(e, "devices", m.ndevices, here.ndevices);
	if (m.npins != here.npins)
		return differs(e, "interrupt pins", m.npins, here.npins);
	if (memcmp(&m.mem, &here.mem, sizeof(m.mem)) != 0)
		return err_set(e, -EINVAL, "state: of a VM with another memory map");
	return 0;
}

static int take_hv(struct vmm *vm, struct reader *r, struct err *e)
{
	struct state_part p = {
		.type = REC_HV, .name = "the hypervisor's VM", .size = HV_STATE_MAX, .unit = 8};
	int rc = take(r, &p, 0, e);

	return rc ? rc : hv_vm_state_set(vm->hv, p.body, p.len, e);
}

static int take_ioapic(struct vmm *vm, struct reader *r, struct err *e)
{
	struct state_part p = {
		.type = REC_IOAPIC, .name = "the IOAPIC", .size = sizeof(struct ioapic_state)};
	struct ioapic_state s;
	int rc = take(r, &p, 0, e);

	if (rc)
		return rc;
	memcpy(&s, p.body, sizeof(s));
	return ioapic_set(vm->ioapic, &s, e);
}

static int take_board(struct vmm *vm, struct reader *r, struct err *e)
{
	struct state_part p = {
		.type = REC_BOARD, .name = "the board", .size = sizeof(struct rec_board)};
	struct rec_board b;
	int rc = take(r, &p, 0, e);

	if (rc)
		return rc;
	memcpy(&b, p.body, sizeof(b));
	atomic_store(&vm->rst_cnt, b.rst_cnt & BOARD_RST_BITS);
	atomic_store(&vm->init_started, b.init_started != 0);
	/* The new supervisor hears of it when the loop begins. */
	atomic_store(&vm->agent_ready, b.agent_ready != 0);
	event_signal(vm->main_event);
	return 0;
}

static int take_vcpus(struct vmm *vm, struct reader *r, struct err *e)
{
	int rc = 0;

	for (unsigned i = 0; i < vm->ncpus && !rc; i++) {
		struct state_part p = {
			.type = REC_VCPU, .name = "vCPU", .size = HV_STATE_MAX, .unit = 8};

		rc = take(r, &p, i, e);
		if (!rc)
			rc = hv_vcpu_state_set(vm->vcpu[i].hv, p.body, p.len, e);
	}
	return rc;
}

/* A helper that takes over interrupts the guest once more than it must; so does this, for what was
 * signalled between the vCPUs' records and the helpers' rest. */
static void interrupt(const struct remote *d)
{
	for (unsigned i = 0; i < d->desc.nvectors && d->desc.vector[i].kind == DEVICE_PIN; i++)
		event_signal(d->slot[d->desc.vector[i].slot]);
}

static int take_devices(struct vmm *vm, struct reader *r, struct err *e)
{
	struct rec_device here, d;
	int rc = 0;

	for (unsigned i = 0; i < vm->ndevices && !rc; i++) {
		struct state_part p = {
			.type = REC_DEVICE, .name = "device", .size = sizeof(d), .unit = 1};
		size_t len = describe_device(&vm->dev[i], &here);

		rc = take(r, &p, i, e);
		if (rc)
			return rc;
		memcpy(&d, p.body, p.len);
		if (p.len != len ||
		    memcmp(d.desc, here.desc, p.len - offsetof(struct rec_device, desc)) != 0)
			return err_set(e, -EINVAL, "state: device %u was another one than %s", i,
				       vm->dev[i].desc.name);
		vm->dev[i].head = d.head;
		vm->dev[i].seq = d.seq;
		interrupt(&vm->dev[i]);
	}
	return rc;
}

/* As pins, above: pci_set() does it for the vectors. */
static int take_pci(struct vmm *vm, struct reader *r, struct err *e)
{
	static struct pci_state s[BOARD_MAX_PCI];
	int rc = 0;

	for (unsigned i = 0; i < pci_fixed(&vm->pci) && !rc; i++) {
		struct state_part p = {.type = REC_PCI, .name = "PCI function", .size = sizeof(*s)};

		rc = take(r, &p, i, e);
		if (!rc)
			memcpy(&s[i], p.body, sizeof(*s));
	}
	return rc ? rc : pci_set(&vm->pci, s, e);
}

static int take_cpus(struct vmm *vm, struct reader *r, struct err *e)
{
	struct state_part p = {
		.type = REC_CPUS, .name = "the processors", .size = sizeof(struct rec_cpus)};
	uint32_t all = (uint32_t)((UINT64_C(1) << vm->ncpus) - 1);
	struct rec_cpus c;
	int rc = vm->cpus_change ? take(r, &p, 0, e) : 0;

	if (rc || !vm->cpus_change)
		return rc;
	memcpy(&c, p.body, sizeof(c));
	if (((c.in | c.parked | c.asked) & ~all) || !(c.in & 1) || c.parked & 1 ||
	    c.wanted > vm->ncpus)
		return err_set(e, -EPROTO,
			       "state: the processors: expected some of %u, with the first",
			       vm->ncpus);
	atomic_store(&vm->cpus_in, c.in);
	atomic_store(&vm->cpus_parked, c.parked);
	atomic_store(&vm->cpus_news, c.news & all);
	atomic_store(&vm->cpus_asked, c.asked);
	vm->cpus_wanted = c.wanted;
	return 0;
}

/* With nothing in their slots: what would be there is no place (take_devices()). */
static int take_ports(struct vmm *vm, struct reader *r, struct err *e)
{
	struct pci_port_state s;
	int rc = 0;

	for (unsigned i = 0; i < vm->pci.nplaces && !rc; i++) {
		struct state_part p = {.type = REC_PORT, .name = "PCI port", .size = sizeof(s)};

		rc = take(r, &p, i, e);
		if (rc)
			return rc;
		memcpy(&s, p.body, sizeof(s));
		pci_port_set(&vm->pci.place[i].port, &s);
	}
	return rc;
}

int save_read(struct vmm *vm, int fd, struct err *e)
{
	struct reader r = {fd, 0};
	int rc = take_machine(vm, &r, e);

	if (!rc)
		rc = take_hv(vm, &r, e);
	if (!rc)
		rc = take_ioapic(vm, &r, e);
	if (!rc)
		rc = take_board(vm, &r, e);
	if (!rc)
		rc = take_vcpus(vm, &r, e);
	if (!rc)
		rc = take_devices(vm, &r, e);
	if (!rc)
		rc = take_pci(vm, &r, e);
	if (!rc)
		rc = take_ports(vm, &r, e);
	return rc ? rc : take_cpus(vm, &r, e);
}
