/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A scripted Windows Hypervisor Platform: it runs no guest. It plays back exits, keeps registers,
 * refuses what it is told to refuse, and watches that it is called as the documentation says:
 * properties before the set-up, processors after it, register arrays aligned, sizes right.
 *
 * One at a time per process (the platform's first functions take no handle). What was called
 * wrongly is kept as a text in `violation`; a test looks at it at the end.
 */
#ifndef INSULA_WHP_DOUBLE_H
#define INSULA_WHP_DOUBLE_H

#include <pthread.h>

#include "hv/whp/whp_abi.h"

#define DOUBLE_VPS 4
#define DOUBLE_REGS 192
#define DOUBLE_XSAVE 576 /* bytes of a small processor's */
#define DOUBLE_LAPIC 4096
#define DOUBLE_LIST 32
#define DOUBLE_PROP_SIZE 64
#define DOUBLE_BLOCK 0xb10cu /* a scripted exit that waits for a cancel */

struct double_prop {
	uint32_t code, size;
	uint8_t value[DOUBLE_PROP_SIZE];
};
struct double_map {
	uint64_t gpa, size;
	uint32_t flags;
	void *host;
};
struct double_reg {
	uint32_t name;
	bool written;
	union whp_value v;
};
struct double_vp {
	bool exists, canceled;
	struct double_reg reg[DOUBLE_REGS];
	unsigned nregs;
	uint8_t xsave[DOUBLE_XSAVE], lapic[DOUBLE_LAPIC];
};
struct double_bell {
	struct whp_doorbell d;
	void *event;
	bool port; /* by a notification port */
	bool live;
};

struct whp_double {
	/* what the host can do */
	uint32_t present, vendor;
	uint64_t features, exits, clock, apic_clock;
	struct whp_synthetic synthetic; /* banks 0: the capability is unknown */
	bool no_x2apic;
	/* the next call of this function fails, after `skip` that do not */
	const char *fail;
	unsigned skip;
	whp_hr fail_hr;
	bool failed;
	/* what has happened */
	bool created, set_up, deleted;
	struct double_prop prop[DOUBLE_LIST];
	unsigned nprops;
	struct double_map map[DOUBLE_LIST];
	unsigned nmaps;
	struct double_bell bell[DOUBLE_LIST];
	unsigned nbells;
	struct whp_interrupt interrupt[DOUBLE_LIST];
	unsigned ninterrupts;
	struct double_vp vp[DOUBLE_VPS];
	uint64_t dirty[4]; /* what the next query says */
	uint64_t time;     /* the partition's */
	uint32_t cpuid;    /* what each leaf says */
	uint32_t lacks;    /* a register that this processor has not got; 0: none */
	/* setting one is as WRMSR */
	bool tsc_moves_adjust, adjust_moves_tsc;
	struct whp_exit script[DOUBLE_LIST];
	unsigned nscript, at;
	unsigned runs, cancels, suspensions;
	char violation[160];
	pthread_mutex_t lock;
	pthread_cond_t changed;
};

/* Ready for a test: a good host, nothing created. */
void double_init(struct whp_double *d);
void double_end(struct whp_double *d);
/* The functions. `old`: without those of Windows 10 20H2. */
struct whp_api double_api(bool old);

/* The register of a processor, made if it is not there. */
union whp_value *double_reg(struct whp_double *d, unsigned vp, uint32_t name);
/* How many registers have been written since the last call, which forgets them. */
unsigned double_written(struct whp_double *d, unsigned vp);
/* Play back one more exit. */
struct whp_exit *double_push(struct whp_double *d, uint32_t reason);
const struct double_prop *double_prop(const struct whp_double *d, uint32_t code);

#endif
