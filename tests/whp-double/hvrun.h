/* SPDX-License-Identifier: BSD-2-Clause */
/* hvrun: what it asks of the operating system (hvrun_linux.c, hvrun_win.c), its board, its loader.
 */
#ifndef INSULA_HVRUN_H
#define INSULA_HVRUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <insula/hv.h>

#include "hvrun_board.h"
#include "vmm/x86/ioapic.h"

/* Before anything else: what is printed is what the guest writes, byte for byte. */
void host_begin(void);
/* Zeroed pages, or NULL. */
void *host_memory(size_t size);
/* hv_vm_params.dev; the reason of a failure is printed. */
bool host_hypervisor(intptr_t *dev);

struct board {
	uint8_t device[4096];
	uint8_t uart[8];
	uint32_t sum, pattern;
	unsigned exits;
	struct ioapic *ioapic;
	bool ended, trace;
	int status;
};
/* One access of an exit; false: nothing is there. */
void board_port(struct board *b, uint16_t port, bool out, void *data, unsigned size);
void board_memory(struct board *b, struct hv_exit *x);

/* load.c: a kernel by the 64-bit boot protocol (an ELF file or a bzImage) into `ram`; 0 or -1, with
 * a line on stderr. */
struct load {
	uint8_t *ram;
	size_t size;
	const char *kernel, *initrd, *cmdline; /* initrd: NULL */
	uint64_t entry;
	unsigned ncpus;
};
int load(struct load *l);
void load_registers(const struct load *l, struct hv_regs *r);

#endif
