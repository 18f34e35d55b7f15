/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * main() of a helper: what the processes of all devices do, in their order, once.
 *
 *   jail_enter(); the start message; the device's open(): map, threads, rings; jail_seal();
 * attach(): take up what an earlier helper left; MSG_READY; serve until MSG_STOP or the end of the
 * channel.
 *
 * Nothing that a guest, a client or a network wrote is looked at before jail_seal(). A step that
 * fails is reported over the channel by its name, and the process exits.
 */
#ifndef DEVICES_PROGRAM_H
#define DEVICES_PROGRAM_H

#include "helper.h"

/* What is special about one of them. The hooks run on the control thread, once, in this order. */
struct helper_program {
	enum msg_type start; /* the first message */
	size_t start_size;   /* bytes of its body */
	size_t log_level;    /* offset of its uint32_t log_level */
	void *dev;           /* all zeros; given to the hooks */

	/* Can the message be obeyed? The number of descriptors that belong to it, or -EINVAL, which
	 * says why not. The log level has been checked. */
	int (*check)(const void *start, struct err *e);
	/* Takes the descriptors over: those of the message in their order, then -1 up to
	 * MSG_MAX_FDS. *step (from "open") is what failed. */
	int (*open)(void *dev, struct helper *h, const void *start, const int *fds,
		    const char **step, struct err *e);
	/* The device's own system calls; those of the control thread are in the list already. */
	void (*rules)(const void *dev, struct rule_list *l);
	/* Sealed: helper_attach(). */
	int (*attach)(void *dev, struct helper *h, struct err *e);

	/* Instead of helper_loop(), for a program without a device page: it gets neither the
	 * control thread's rules nor attach(). As helper_loop(), after MSG_READY. */
	int (*loop)(void *dev);
};

_Noreturn void helper_main(const struct helper_program *p);

#endif
