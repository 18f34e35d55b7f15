/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The other end of a supervisor's control socket (supervisor/control/control.h): requests, answers,
 * events. One thread. The supervisor is trusted with its own VM alone: what it says is checked for
 * its shape, and a peer that does not keep to the protocol is gone.
 */
#ifndef OCI_TALK_H
#define OCI_TALK_H

#include "oci.h"

struct talk;
/* {event, data}; `data` is an object or NULL; borrowed. */
typedef void talk_event(void *ctx, const char *event, json_object *data);

/* What nobody wants to hear. */
talk_event talk_ignore;

struct talk {
	int fd; /* owned; -1: closed, or the supervisor has gone */
	int64_t last;
	unsigned boot_timeout; /* seconds: a command waits for a guest that boots; 0: a minute */
	talk_event *event;
	void *ctx;
};

/* To DIR/control, `at` a descriptor of DIR, and hello. *state (may be NULL, the caller's): what it
 * answers, within `ms`. -ENOENT: nobody listens there (any more). */
int vm_talk_open(struct talk *t, int at, int ms, talk_event *event, void *ctx, json_object **result,
		 struct err *e);
void vm_talk_close(struct talk *t);
/* Ask, with descriptors, which stay the caller's; takes `params` over. Events that come before the
 * answer are told. *result: the caller's; may be NULL. A refusal is -EPROTO, -EAGAIN ("busy"),
 * -ENOENT ("not-found"), -ESRCH ("not-ready"), -EINVAL ("wrong-state") with its text;
 * -ETIMEDOUT; -EPIPE: it is gone. */
int talk_call(struct talk *t, const char *op, json_object *params, const int *fds, unsigned nfds,
	      int ms, json_object **result, struct err *e);
/* Tell the events that are there. -EPIPE: it is gone, the descriptor is closed. */
int talk_turn(struct talk *t);

/* A command of the guest (container.h): argv, NULL-terminated, on these streams, which stay the
 * caller's. `tty`: they are a terminal of rows x cols. It ends with this connection. Its number. */
struct talk_command {
	const char *const *argv;
	const int *fds; /* input, output, errors */
	bool tty;
	uint16_t rows, cols;
};
int talk_exec(struct talk *t, const struct talk_command *c, int64_t *id, struct err *e);

/* Run a program of the guest, or CT_PROGRAM with these arguments, to its end, on a connection of
 * its own. `at`, `boot_timeout` as above. Its status, or a negative errno. *out (may be NULL;
 * the caller's): what it wrote, at most 64 KiB; a status other than 0 is said in `e` with the
 * last line of its errors. */
int talk_program(int at, const char *const *argv, unsigned boot_timeout, int ms, char **out,
		 struct err *e);
int talk_guest(int at, const char *const *args, int ms, char **out, struct err *e);

#endif
