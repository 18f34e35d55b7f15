/* SPDX-License-Identifier: BSD-2-Clause */
/* The board's own registers (insula/board.h): sleep, reset, exit status, pvpanic; two ports by
 * which a PC is reset; and the window of the IOAPIC. */
#include <errno.h>

#include <insula/base.h>
#include <insula/log.h>

#include "ioapic.h"
#include "vmm/cpus.h"
#include "vmm/vmm.h"

#define SLP_EN (1u << 5) /* ACPI 6.5, 4.8.3.7, table 4.22 */
#define SLP_TYP(v) ((v) >> 2 & 7)

static void sleep_control(struct vmm *vm, uint64_t value)
{
	if ((value & SLP_EN) && SLP_TYP(value) == BOARD_SLEEP_TYP_S5)
		vmm_end(vm, VM_EXIT_POWEROFF, NULL);
}

static void reset(struct vmm *vm, uint64_t value)
{
	if ((value & 0xff) == BOARD_RESET_VALUE)
		vmm_end(vm, VM_EXIT_REBOOT, NULL);
}

static void guest_event(struct vmm *vm, uint64_t value)
{
	uint32_t none = 0;

	if ((value & 0xff) == BOARD_EVENT_INIT_STARTED)
		atomic_store(&vm->init_started, 1);
	/* Once: whatever the guest writes, the supervisor hears one message. */
	if ((value & 0xff) == BOARD_EVENT_AGENT_READY &&
	    atomic_compare_exchange_strong(&vm->agent_ready, &none, 1))
		event_signal(vm->main_event);
}

static void exit_status(struct vmm *vm, uint64_t value)
{
	struct msg_vm_exit x = {.status = (uint32_t)value & 0xff};

	vmm_end(vm, VM_EXIT_STATUS, &x);
}

static void pvpanic(struct vmm *vm, uint64_t value)
{
	if (value & BOARD_PVPANIC_PANICKED)
		vmm_end(vm, VM_EXIT_PANIC, NULL);
}

static const struct board_reg {
	uint16_t port;
	uint8_t size; /* accesses of another size do nothing and read all ones */
	uint8_t reads;
	void (*write)(struct vmm *, uint64_t);
} regs[] = {
	{BOARD_REG_SLEEP_CTL, 1, 0, sleep_control},
	{BOARD_REG_SLEEP_STS, 1, 0, NULL},
	{BOARD_REG_RESET, 1, 0, reset},
	{BOARD_REG_EVENT, 1, 0, guest_event},
	{BOARD_REG_EXIT, 4, 0, exit_status},
	{BOARD_REG_PVPANIC, 1, BOARD_PVPANIC_EVENTS, pvpanic},
};

static const struct board_reg *find_reg(uint64_t off, unsigned size)
{
	for (unsigned i = 0; i < sizeof(regs) / sizeof(regs[0]); i++) {
		if (regs[i].port == BOARD_REGS + off && regs[i].size == size)
			return &regs[i];
	}
	return NULL;
}

static uint64_t board_read(void *self, uint64_t off, unsigned size, struct bus_patience *w)
{
	struct vmm *vm = self;
	const struct board_reg *r = find_reg(off, size);

	(void)w;
	atomic_fetch_add_explicit(&vm->board_accesses, 1, memory_order_relaxed);
	return r ? r->reads : ~0ull;
}

static void board_write(void *self, uint64_t off, unsigned size, uint64_t value,
			struct bus_patience *w)
{
	struct vmm *vm = self;
	const struct board_reg *r = find_reg(off, size);

	(void)w;
	atomic_fetch_add_explicit(&vm->board_accesses, 1, memory_order_relaxed);
	if (r && r->write)
		r->write(vm, value);
}

/* ---- processors that come and go ---- */

static uint64_t cpus_read(void *self, uint64_t off, unsigned size, struct bus_patience *w)
{
	struct vmm *vm = self;

	(void)w;
	atomic_fetch_add_explicit(&vm->board_accesses, 1, memory_order_relaxed);
	if (size != 4 || off % 4)
		return ~0ull;
	switch (BOARD_CPUS + off) {
	case BOARD_CPUS_PRESENT:
		return cpus_present(vm);
	case BOARD_CPUS_NEWS:
		return atomic_exchange(&vm->cpus_news, 0);
	case BOARD_CPUS_ASKED:
		return atomic_exchange(&vm->cpus_asked, 0);
	default:
		return 0;
	}
}

static void cpus_write(void *self, uint64_t off, unsigned size, uint64_t value,
		       struct bus_patience *w)
{
	struct vmm *vm = self;

	(void)w;
	atomic_fetch_add_explicit(&vm->board_accesses, 1, memory_order_relaxed);
	if (size == 4 && BOARD_CPUS + off == BOARD_CPUS_EJECT)
		cpus_eject(vm, value);
}

/* ---- what resets a PC ---- */

static uint64_t kbc_read(void *self, uint64_t off, unsigned size, struct bus_patience *w)
{
	struct vmm *vm = self;

	(void)off, (void)size, (void)w; /* one port: there is no other access */
	atomic_fetch_add_explicit(&vm->board_accesses, 1, memory_order_relaxed);
	return BOARD_KBC_STATUS;
}

static void kbc_write(void *self, uint64_t off, unsigned size, uint64_t value,
		      struct bus_patience *w)
{
	struct vmm *vm = self;

	(void)off, (void)size, (void)w;
	atomic_fetch_add_explicit(&vm->board_accesses, 1, memory_order_relaxed);
	if (value == BOARD_KBC_RESET)
		vmm_end(vm, VM_EXIT_REBOOT, NULL);
}

static uint64_t rst_cnt_read(void *self, uint64_t off, unsigned size, struct bus_patience *w)
{
	struct vmm *vm = self;

	(void)off, (void)size, (void)w;
	atomic_fetch_add_explicit(&vm->board_accesses, 1, memory_order_relaxed);
	return atomic_load(&vm->rst_cnt);
}

static void rst_cnt_write(void *self, uint64_t off, unsigned size, uint64_t value,
			  struct bus_patience *w)
{
	struct vmm *vm = self;

	(void)off, (void)size, (void)w;
	atomic_fetch_add_explicit(&vm->board_accesses, 1, memory_order_relaxed);
	atomic_store(&vm->rst_cnt, (uint32_t)value & BOARD_RST_BITS);
	if (value & BOARD_RST_CPU)
		vmm_end(vm, VM_EXIT_REBOOT, NULL);
}

/* ---- the IOAPIC's window ---- */

static uint64_t ioapic_window_read(void *self, uint64_t off, unsigned size, struct bus_patience *w)
{
	struct vmm *vm = self;

	(void)w;
	atomic_fetch_add_explicit(&vm->ioapic_accesses, 1, memory_order_relaxed);
	return ioapic_read(vm->ioapic, off, size);
}

static void ioapic_window_write(void *self, uint64_t off, unsigned size, uint64_t value,
				struct bus_patience *w)
{
	struct vmm *vm = self;

	(void)w;
	atomic_fetch_add_explicit(&vm->ioapic_accesses, 1, memory_order_relaxed);
	if (ioapic_write(vm->ioapic, off, size, value)) {
		struct err e;

		ioapic_failure(vm->ioapic, &e);
		log_error("interrupt controller: %s", e.text);
	}
}

int board_init(struct vmm *vm, struct err *e)
{
	static const struct bus_ops board_ops = {board_read, board_write};
	static const struct bus_ops cpus_ops = {cpus_read, cpus_write};
	static const struct bus_ops kbc_ops = {kbc_read, kbc_write};
	static const struct bus_ops rst_cnt_ops = {rst_cnt_read, rst_cnt_write};
	static const struct bus_ops ioapic_ops = {ioapic_window_read, ioapic_window_write};
	int rc = bus_add(&vm->pio, BOARD_REGS, BOARD_REGS_LEN, &board_ops, vm, e);

	if (!rc && vm->cpus_change)
		rc = bus_add(&vm->pio, BOARD_CPUS, BOARD_CPUS_LEN, &cpus_ops, vm, e);
	if (!rc)
		rc = bus_add(&vm->pio, BOARD_KBC, 1, &kbc_ops, vm, e);
	if (!rc)
		rc = bus_add(&vm->pio, BOARD_RST_CNT, 1, &rst_cnt_ops, vm, e);
	return rc ? rc : bus_add(&vm->mmio, BOARD_IOAPIC, BOARD_PAGE, &ioapic_ops, vm, e);
}

/* A slot as RAM is. But it is in no map, so that no helper has it. */
int board_map_epc(struct vmm *vm, int fd, struct err *e)
{
	const struct mem_region *r = &vm->epc;
	void *at;
	int rc;

	if (!r->size)
		return 0;
	rc = device_map(fd, 0, r->size, &at, e);
	return rc ? rc : hv_mem_map(vm->hv, vm->next_slot++, r->gpa, at, r->size, HV_MEM_RW, e);
}

int board_check_wide(const struct vmm *vm, struct err *e)
{
	const struct pci *p = &vm->pci;
	uint64_t size = p->wide_to - p->wide_from;
	bool bad = vm->epc.size && device_overlap(p->wide_from, size, vm->epc.gpa, vm->epc.size);

	for (unsigned i = 0; i < vm->gm.nregions; i++) {
		const struct gm_region *r = &vm->gm.region[i];

		bad |= device_overlap(p->wide_from, size, r->gpa, r->size);
	}
	return bad && p->wide_to ? err_set(e, -EINVAL, "PCI: the BARs from 0x%llx on are memory",
					   (unsigned long long)p->wide_from)
				 : 0;
}
