/* SPDX-License-Identifier: BSD-2-Clause */
/* A place, for plug.c and backing/plug_back.c. See plug.h. */
#ifndef SUPERVISOR_PLUG_STATE_H
#define SUPERVISOR_PLUG_STATE_H

#include "plug.h"
#include "spec/config.h"
#include "supervisor/device/device.h"
#ifndef _WIN32
#include "supervisor/backing/nic.h"
#include "supervisor/backing/share.h"
#include "supervisor/backing/vfio.h"
#include "supervisor/backing/vhost.h"
#include "supervisor/backing/vsock.h"
#endif

enum plug_state {
	PLUG_EMPTY,
	PLUG_CONNECTS, /* to the server of a storage module's disk, or to a switch */
	PLUG_STARTS,   /* its first helper */
	PLUG_COMES,    /* insula-vmm was told */
	PLUG_THERE,
	PLUG_LEAVES, /* the guest was asked, or insula-vmm was told that it is gone */
	PLUG_UNDOES, /* the add has failed; insula-vmm was told that it is gone */
	PLUG_STOPS,  /* it is off the bus; its helper ends */
	PLUG_QUIETS, /* there is no helper; what it had in flight has not ended */
};

struct plug {
	struct vm *vm;
	struct device *device; /* its place among those of the VM */
	unsigned number;       /* 0 ...; the slot is one more */
	enum plug_state state;
	bool was_there; /* the guest has had it */
	bool forced;    /* LEAVES: the guest is not asked */
	uint64_t limit_ns, look_ns;
	uint64_t connect_ns; /* CONNECTS: the end of patience */
	struct err why;      /* why the add fails; code 0: it does not */
	struct {
		plug_done *fn; /* NULL: nobody waits */
		void *ctx;
	} asks;
	const char *kind;       /* the setting's name; NULL: nothing is open */
	struct vm_config *conf; /* of what is there alone; owned */
	union {
		struct disk disk;
#ifndef _WIN32
		struct nic nic;
		struct share share;
		struct vhost_back vhost;
		struct vfio_later vfio;
		struct vsock vsock;
		struct terminal terminal;
#endif
	} back;
};

/* backing/plug_back.c, plug_back_win.c: open what p->conf says for a device of this name. What it
 * is, and with how many queues. On error nothing is left open. */
int plug_back_open(struct plug *p, const char *name, const struct device_class **class,
		   unsigned *nqueues, struct err *e);
/* Tell the device what is behind it. */
int plug_back_set(struct plug *p, struct err *e);
/* Behind it is what its first helper needs: 1, 0 (not yet) or why not. Does not block. */
int plug_back_ready(struct plug *p, struct err *e);
/* It is about to be pulled out: what it can do by itself ends. */
void plug_back_stop(struct plug *p);
/* How much longer than others its first helper may take, in nanoseconds. */
uint64_t plug_back_takes(const struct plug *p);
/* The terminal at which it is reached; NULL: it is none. */
const char *plug_back_tty(const struct plug *p);
/* There is no helper any more: has whoever is behind it ended, too? Does not block; asked until it
 * has. */
bool plug_back_quiet(struct plug *p);
/* No-op if nothing is open. */
void plug_back_close(struct plug *p);

#endif
