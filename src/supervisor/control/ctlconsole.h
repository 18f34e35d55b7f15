/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The console of a VM under insulad: the console's helper has one end of a stream, the supervisor
 * the other, keeps the last output, and copies between it and whoever is attached. In a VM with a
 * command that stream is the command's, its errors come by another one, and the serial console's
 * output, by a third, is only logged.
 *
 * A client that does not read loses output, never the guest's time; what clients type is taken only
 * while there is room for it.
 *
 * But whoever has started the VM with a stream for the command's output and one for its errors gets
 * all of both, as from a command of this host: the command waits until they are read, and so does
 * the end of the VM. Until that client goes.
 *
 * One thread: the supervisor's.
 */
#ifndef SUPERVISOR_CTLCONSOLE_H
#define SUPERVISOR_CTLCONSOLE_H

#include <stdbool.h>

#include <insula/err.h>

#include "supervisor/loop.h"
#include "scrollback.h"
#include "vmlog.h"

#define CTLCONSOLE_CLIENTS 4
#define CTLCONSOLE_FIRST 2 /* its streams: of CTLCONSOLE_MAIN and CTLCONSOLE_ERRORS */
#define CTLCONSOLE_ALL (CTLCONSOLE_CLIENTS + CTLCONSOLE_FIRST)
#define CTLCONSOLE_WATCHES (CTLCONSOLE_OUTPUTS + CTLCONSOLE_ALL)
#define CTLCONSOLE_IN 4096

enum ctlconsole_output {
	CTLCONSOLE_MAIN,
	CTLCONSOLE_ERRORS,
	CTLCONSOLE_SERIAL,
	CTLCONSOLE_OUTPUTS
};

struct ctlconsole {
	struct loop *loop; /* NULL before ctlconsole_begin() */
	struct ctlconsole_from {
		struct ctlconsole *console;
		int fd;     /* our end, non-blocking; owned */
		int helper; /* the helper's end, kept for its successors; owned */
		enum vmlog_stream stream;
		struct watch watch;
	} from[CTLCONSOLE_OUTPUTS];
	struct vmlog *log; /* of all of them; borrowed */
	struct scrollback out;
	struct scrollback apart[CTLCONSOLE_FIRST]; /* for the first client alone */
	struct ctlconsole_client {
		struct ctlconsole *console;
		const struct scrollback *ring; /* that it reads */
		int fd;                        /* -1: free; owned */
		bool eof;                      /* it sends no more, and still reads */
		uint64_t pos;
		struct watch watch;
	} client[CTLCONSOLE_ALL]; /* the first client's are the last ones */
	uint64_t lost;            /* bytes that slow clients have not seen */
	char in[CTLCONSOLE_IN];
	size_t nin;
};

/* `log` is borrowed. Until ctlconsole_has_command() the first stream is the serial console. */
int ctlconsole_open(struct ctlconsole *c, struct vmlog *log, struct err *e);
void ctlconsole_has_command(struct ctlconsole *c);
void ctlconsole_close(struct ctlconsole *c);
/* A stream for a new client, which begins with the last `scrollback` bytes: the client's end (the
 * caller's to close after it is handed on) or a negative errno; -EBUSY: too many are attached. */
int ctlconsole_attach(struct ctlconsole *c, uint64_t scrollback, struct err *e);
/* The same with a stream that the client has made: it is taken over. */
int ctlconsole_adopt(struct ctlconsole *c, int fd, uint64_t scrollback, struct err *e);
/* The first client: its output (and input), and its errors. Both are taken over. -ENOMEM. */
int ctlconsole_first(struct ctlconsole *c, int fd, int errors, struct err *e);
unsigned ctlconsole_clients(const struct ctlconsole *c);
/* From now on the loop serves it. */
void ctlconsole_begin(struct ctlconsole *c, struct loop *l);
/* The helper has ended: take what it still wrote, and give it to the clients as far as they take it
 * at once; but to the first one all of it. Blocks as long as that one has something to read. */
void ctlconsole_drain(struct ctlconsole *c);

#endif
