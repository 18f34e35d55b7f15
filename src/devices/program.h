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
	uint32_t tag; /* of its start message (insula/start.h); its body is MSG_START's */
	bool memory;  /* it works in guest memory; otherwise it is refused a map with some */
	/* It serves a device of the host: no interrupts go through it, and it may get guest memory
	 * or none, as its check() knows. */
	bool assigned;
	size_t start_size; /* bytes of its body, the head included */
	void *dev;         /* all zeros; given to the hooks */

	/* Can the message be obeyed, with these descriptors (START_KICK, START_OWN)? -EINVAL says
	 * why not. The head has been checked. */
	int (*check)(const void *start, const struct start_fds *f, struct err *e);
	/* Takes the descriptors over. *step (from "open") is what failed. */
	int (*open)(void *dev, struct helper *h, const void *start, const struct start_fds *f,
		    const char **step, struct err *e);
	/* The device's own system calls; those of the control thread are in the list already. */
	void (*rules)(const void *dev, struct rule_list *l);
	/* Sealed: helper_attach(). */
	int (*attach)(void *dev, struct helper *h, struct err *e);
	/* What attach() is called if it fails; NULL: "page". A step of that name is about what the
	 * user said. */
	const char *attach_step;

	/* Instead of helper_loop(), for a program without a device page: it gets neither the
	 * control thread's rules nor attach(). As helper_loop(), after MSG_READY. Its message is of
	 * this type, older than the head: all of its descriptors are START_OWN, its log level is at
	 * this place. */
	int (*loop)(void *dev);
	enum msg_type start;
	size_t log_level;

	/* What the program is if the message has this one's tag. Its body is as long. NULL: it has
	 * one kind. */
	const struct helper_program *other;
};

_Noreturn void helper_main(const struct helper_program *p);

#endif
