/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The smallest VMM that runs the project's payloads, and a Linux kernel with an initrd, on the
 * hypervisor layer alone: the same source on KVM and on the Windows Hypervisor Platform, so that
 * what their guests print can be compared line by line.
 *
 *     hvrun [--mem MIB] [--initrd FILE] [--append TEXT] [--exits] [--trace] KERNEL
 *
 * One vCPU, no interrupt but the local APIC's, no ACPI. Exit status: what the guest writes to
 * BOARD_REG_EXIT; 100 after a triple fault, 101 if the vCPU cannot go on, 125 if hvrun itself
 * fails.
 * On stderr: --exits, their number; --trace, each access to the device that remembers.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/board.h>

#include "hvrun.h"

#define STATUS_TRIPLE_FAULT 100
#define STATUS_ERROR 101
#define STATUS_HVRUN 125
#define MIB (1024u * 1024u)

struct options {
	unsigned mem;
	bool exits, trace;
	struct load load;
};

static int fail(const char *what, const struct err *e)
{
	fprintf(stderr, "hvrun: %s: %s\n", what, e->text);
	return STATUS_HVRUN;
}

/* ---- exits ---- */

static void on_pio(struct board *b, struct hv_exit *x)
{
	uint8_t *p = x->u.pio.data;

	for (uint32_t i = 0; i < x->u.pio.count; i++, p += x->u.pio.size)
		board_port(b, x->u.pio.port, x->u.pio.out, p, x->u.pio.size);
}

static void on_error(struct board *b, const struct hv_exit *x)
{
	printf("error: %s; rip 0x%llx, bytes", x->u.error.text, (unsigned long long)x->u.error.rip);
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

static int run(struct hv_vcpu *v, struct board *b)
{
	struct hv_exit x;
	int r = 0;

	while (!b->ended && r == 0) {
		r = hv_vcpu_run(v, &x);
		if (r < 0 || x.kind == HV_EXIT_NONE)
			continue;
		on_exit_of(b, &x);
		if (is_answered(x.kind))
			r = hv_vcpu_complete(v, &x);
	}
	fflush(stdout);
	if (r < 0)
		fprintf(stderr, "hvrun: the hypervisor fails: errno %d\n", -r);
	return r < 0 ? STATUS_HVRUN : b->status;
}

/* ---- the machine ---- */

static uint8_t *make_rom(void)
{
	uint8_t *rom = host_memory(BOARD_PAGE);

	for (unsigned i = 0; rom && i < BOARD_PAGE; i++)
		rom[i] = (uint8_t)(i * 7 + (i >> 8));
	return rom;
}

static int machine(struct options *o, struct board *b)
{
	struct hv_vm_params p = {.ncpus = 1, .nlines = 24};
	uint8_t *rom = make_rom();
	struct hv_vcpu *v = NULL;
	struct hv_vm *vm = NULL;
	struct hv_regs r;
	struct err e = {0};
	int rc = STATUS_HVRUN;

	if (!rom || !host_hypervisor(&p.dev))
		return rc;
	if (hv_vm_create(&vm, &p, &e) < 0)
		return fail("the VM", &e);
	if (hv_mem_map(vm, 0, 0, o->load.ram, o->load.size, HV_MEM_RW, &e) < 0 ||
	    hv_mem_map(vm, 1, HVRUN_ROM, rom, BOARD_PAGE, HV_MEM_READONLY, &e) < 0)
		fail("memory", &e);
	else if (hv_vcpu_create(vm, 0, &v, &e) < 0 || hv_vcpu_get_regs(v, &r, &e) < 0)
		fail("the vCPU", &e);
	else {
		load_registers(&o->load, &r);
		rc = hv_vcpu_set_regs(v, &r, &e) < 0 ? fail("registers", &e) : run(v, b);
	}
	hv_vcpu_destroy(v);
	hv_vm_destroy(vm);
	return rc;
}

static bool parse(int argc, char **argv, struct options *o)
{
	int i = 1;

	*o = (struct options){.mem = 64, .load.cmdline = ""};
	for (; i < argc - 1; i++) {
		if (strcmp(argv[i], "--exits") == 0)
			o->exits = true;
		else if (strcmp(argv[i], "--trace") == 0)
			o->trace = true;
		else if (strcmp(argv[i], "--mem") == 0)
			o->mem = (unsigned)strtoul(argv[++i], NULL, 10);
		else if (strcmp(argv[i], "--initrd") == 0)
			o->load.initrd = argv[++i];
		else if (strcmp(argv[i], "--append") == 0)
			o->load.cmdline = argv[++i];
		else
			return false;
	}
	o->load.kernel = i < argc ? argv[i] : NULL;
	return o->load.kernel && o->mem >= 16 && o->mem <= BOARD_LOW_RAM_END / MIB;
}

int main(int argc, char **argv)
{
	static struct board board;
	struct options o;
	int rc;

	host_begin();
	if (!parse(argc, argv, &o)) {
		fprintf(stderr, "usage: hvrun [--mem MIB] [--initrd FILE] [--append TEXT] "
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
