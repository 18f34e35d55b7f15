/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The smallest VMM that runs the project's payloads, and a Linux kernel with an initrd, on the
 * hypervisor layer alone: the same source on KVM and on the Windows Hypervisor Platform, so that
 * what their guests print can be compared line by line.
 *
 *     hvrun [--mem MIB] [--cpus N] [--initrd FILE] [--append TEXT] [--exits] [--trace] KERNEL
 *
 * The ACPI tables and the IOAPIC are src/vmm's. Exit status: what the guest writes to
 * BOARD_REG_EXIT; 100 after a triple fault, 101 if the vCPU cannot go on, 125 if hvrun itself
 * fails.
 * On stderr: --exits, their number; --trace, each access to the device that remembers.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/board.h>

#include "hvrun.h"

#define STATUS_TRIPLE_FAULT 100
#define STATUS_ERROR 101
#define STATUS_HVRUN 125
#define MIB (1024u * 1024u)
#define MAX_CPUS 8
#define PINS 24

struct options {
	unsigned mem, cpus;
	bool exits, trace;
	struct load load;
};

/* ---- exits ---- */

static void on_pio(struct board *b, struct hv_exit *x)
{
	uint8_t *p = x->u.pio.data;

	for (uint32_t i = 0; i < x->u.pio.count; i++, p += x->u.pio.size)
		board_port(b, x->u.pio.port, x->u.pio.out, p, x->u.pio.size);
}

static void on_error(struct board *b, const struct hv_exit *x)
{
	printf("error: %s; rip 0x%llx, bytes", x->u.error.text, (unsigned long long)x->u.error.pc);
	for (unsigned i = 0; i < x->u.error.ninsn; i++)
		printf(" %02x", x->u.error.insn[i]);
	printf("\n");
	b->ended = true;
	b->status = STATUS_ERROR;
}

static void on_exit_of(struct board *b, struct hv_exit *x)
{
	b->exits++;
	if (x->kind == HV_EXIT_PIO) {
		on_pio(b, x);
	} else if (x->kind == HV_EXIT_MMIO) {
		board_memory(b, x);
	} else if (x->kind == HV_EXIT_MSR) {
		x->u.msr.fault = true;
	} else if (x->kind == HV_EXIT_SHUTDOWN) {
		printf("triple fault\n");
		b->ended = true;
		b->status = STATUS_TRIPLE_FAULT;
	} else if (x->kind == HV_EXIT_ERROR) {
		on_error(b, x);
	}
}

static bool is_answered(enum hv_exit_kind kind)
{
	return kind == HV_EXIT_PIO || kind == HV_EXIT_MMIO || kind == HV_EXIT_MSR ||
	       kind == HV_EXIT_CPUID;
}

struct machine {
	struct board *b;
	struct hv_vm *vm;
	unsigned ncpus;
	pthread_mutex_t lock; /* the board's */
	struct cpu {
		struct machine *m;
		struct hv_vcpu *v;
		pthread_t thread;
	} cpu[MAX_CPUS];
};

/* Whoever ends the VM brings the others out of it. */
static bool ended(struct machine *m)
{
	bool yes;

	pthread_mutex_lock(&m->lock);
	yes = m->b->ended;
	pthread_mutex_unlock(&m->lock);
	return yes;
}

static void handle(struct machine *m, struct hv_exit *x)
{
	pthread_mutex_lock(&m->lock);
	if (!m->b->ended)
		on_exit_of(m->b, x);
	for (unsigned i = 0; m->b->ended && i < m->ncpus; i++)
		hv_vcpu_kick(m->cpu[i].v);
	pthread_mutex_unlock(&m->lock);
}

static void *run(void *arg)
{
	struct cpu *c = arg;
	struct hv_exit x;
	int r = hv_vcpu_bind(c->v, NULL);

	while (r == 0 && !ended(c->m)) {
		r = hv_vcpu_run(c->v, &x);
		if (r < 0 || x.kind == HV_EXIT_NONE)
			continue;
		handle(c->m, &x);
		if (is_answered(x.kind))
			r = hv_vcpu_complete(c->v, &x);
	}
	if (r < 0) {
		fprintf(stderr, "hvrun: the hypervisor fails: errno %d\n", -r);
		exit(STATUS_HVRUN);
	}
	return NULL;
}

/* ---- the machine ---- */

static uint8_t *make_rom(void)
{
	uint8_t *rom = host_memory(BOARD_PAGE);

	for (unsigned i = 0; rom && i < BOARD_PAGE; i++)
		rom[i] = (uint8_t)(i * 7 + (i >> 8));
	return rom;
}

static int create(struct machine *m, struct options *o, struct err *e)
{
	static const struct line_ops ops = {hv_irq_route, hv_irq_bind, hv_irq_unbind};
	struct hv_vm_params p = {.ncpus = o->cpus, .nlines = PINS};
	uint8_t *rom = make_rom();
	int r = rom && host_hypervisor(&p.dev) ? 0 : -1;

	if (r == 0)
		r = hv_vm_create(&m->vm, &p, e);
	if (r == 0)
		r = hv_mem_map(m->vm, 0, 0, o->load.ram, o->load.size, HV_MEM_RW, e);
	if (r == 0)
		r = hv_mem_map(m->vm, 1, HVRUN_ROM, rom, BOARD_PAGE, HV_MEM_READONLY, e);
	if (r == 0)
		r = ioapic_create(&m->b->ioapic, PINS, &ops, m->vm, e);
	for (; r == 0 && m->ncpus < o->cpus; m->ncpus++) {
		m->cpu[m->ncpus].m = m;
		r = hv_vcpu_create(m->vm, m->ncpus, &m->cpu[m->ncpus].v, e);
	}
	return r;
}

static int start(struct machine *m, const struct load *l, struct err *e)
{
	struct hv_regs regs;
	int r = hv_vcpu_get_regs(m->cpu[0].v, &regs, e);

	if (r < 0)
		return r;
	load_registers(l, &regs);
	r = hv_vcpu_set_regs(m->cpu[0].v, &regs, e);
	for (unsigned i = 0; r == 0 && i < m->ncpus; i++)
		r = -pthread_create(&m->cpu[i].thread, NULL, run, &m->cpu[i]);
	for (unsigned i = 0; r == 0 && i < m->ncpus; i++)
		pthread_join(m->cpu[i].thread, NULL);
	return r;
}

static int machine(struct options *o, struct board *b)
{
	struct machine m = {.b = b};
	struct err e = {.text = ""};
	int r;

	pthread_mutex_init(&m.lock, NULL);
	r = create(&m, o, &e);
	if (r == 0)
		r = start(&m, &o->load, &e);
	fflush(stdout);
	if (r < 0)
		fprintf(stderr, "hvrun: %s\n", e.text);
	for (unsigned i = 0; i < m.ncpus; i++)
		hv_vcpu_destroy(m.cpu[i].v);
	ioapic_destroy(b->ioapic);
	hv_vm_destroy(m.vm);
	return r < 0 ? STATUS_HVRUN : b->status;
}

static bool parse(int argc, char **argv, struct options *o)
{
	int i = 1;

	*o = (struct options){.mem = 64, .cpus = 1, .load.cmdline = ""};
	for (; i < argc - 1; i++) {
		if (strcmp(argv[i], "--exits") == 0)
			o->exits = true;
		else if (strcmp(argv[i], "--trace") == 0)
			o->trace = true;
		else if (strcmp(argv[i], "--mem") == 0)
			o->mem = (unsigned)strtoul(argv[++i], NULL, 10);
		else if (strcmp(argv[i], "--cpus") == 0)
			o->cpus = (unsigned)strtoul(argv[++i], NULL, 10);
		else if (strcmp(argv[i], "--initrd") == 0)
			o->load.initrd = argv[++i];
		else if (strcmp(argv[i], "--append") == 0)
			o->load.cmdline = argv[++i];
		else
			return false;
	}
	o->load.kernel = i < argc ? argv[i] : NULL;
	o->load.ncpus = o->cpus;
	return o->load.kernel && o->cpus >= 1 && o->cpus <= MAX_CPUS && o->mem >= 16 &&
	       o->mem <= BOARD_LOW_RAM_END / MIB;
}

int main(int argc, char **argv)
{
	static struct board board;
	struct options o;
	int rc;

	host_begin();
	if (!parse(argc, argv, &o)) {
		fprintf(stderr,
			"usage: hvrun [--mem MIB] [--cpus N] [--initrd FILE] [--append TEXT] "
			"[--exits] [--trace] KERNEL\n");
		return STATUS_HVRUN;
	}
	o.load.size = (size_t)o.mem * MIB;
	o.load.ram = host_memory(o.load.size);
	if (!o.load.ram || load(&o.load) < 0)
		return STATUS_HVRUN;
	board.trace = o.trace;
	rc = machine(&o, &board);
	if (o.exits)
		fprintf(stderr, "exits %u\n", board.exits);
	return rc;
}
