/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The console of a VM under insulad on Windows. As ctlconsole.h: the console's helper has ends of
 * two pipes, the supervisor the others, keeps the last output, and copies between them and whoever
 * is attached, each through a pipe of one instance.
 *
 * One thread: the supervisor's. Nothing here waits but ctlconsole_drain().
 */
#ifndef SUPERVISOR_CTLCONSOLE_WIN_H
#define SUPERVISOR_CTLCONSOLE_WIN_H

#include "os/win/win.h"
#include "supervisor/loop.h"
#include "scrollback.h"
#include "vmlog.h"

#define CTLCONSOLE_CLIENTS 4
#define CTLCONSOLE_WATCHES 1
#define CTLCONSOLE_CHUNK 4096

/* A read or a write, one at a time, which ends an alertable wait: no handle has to be waited for.
 */
struct overlapped {
	OVERLAPPED ov; /* first */
	bool busy;     /* the system has it, or nobody has looked at its end yet */
	bool done;
	DWORD error, n;
	struct timer *wake; /* of its console */
};

struct ctlconsole_client {
	HANDLE pipe;         /* NULL: free; owned */
	uint64_t connect_ns; /* it must have come by then; 0: it has */
	OVERLAPPED connect;  /* with the console's event */
	struct overlapped in, out;
	uint64_t pos;
	DWORD nin; /* typed, and not taken yet */
	char typed[CTLCONSOLE_CHUNK], shown[CTLCONSOLE_CHUNK];
};

/* See ctlconsole.h. */
enum ctlconsole_output {
	CTLCONSOLE_MAIN,
	CTLCONSOLE_ERRORS,
	CTLCONSOLE_SERIAL,
	CTLCONSOLE_OUTPUTS
};

struct ctlconsole_from {
	HANDLE pipe, helper; /* our end; the helper's, kept for its successors; owned */
	enum vmlog_stream stream;
	struct overlapped read;
	char got[CTLCONSOLE_CHUNK];
};

struct ctlconsole {
	struct ctlconsole_from from[CTLCONSOLE_OUTPUTS];
	HANDLE to, helper_in; /* our end; the helper's; owned */
	HANDLE connected;     /* event: set when a client has come; owned */
	struct watch connected_watch;
	struct timer wake; /* something is done, or overdue */
	struct overlapped write;
	struct vmlog *log; /* of all outputs; borrowed */
	struct scrollback out;
	struct ctlconsole_client client[CTLCONSOLE_CLIENTS];
	uint64_t lost; /* bytes that slow clients have not seen */
	char in[CTLCONSOLE_CHUNK];
};

/* `log` is borrowed. Until ctlconsole_has_command() the first output is the serial console. */
int ctlconsole_open(struct ctlconsole *c, struct vmlog *log, struct err *e);
void ctlconsole_has_command(struct ctlconsole *c);
void ctlconsole_close(struct ctlconsole *c);
/* A new pipe for the client with this SID, which must open it within ten seconds and then reads
 * the last `scrollback` bytes first. `name` gets PIPE_NAME_LEN. -EBUSY: too many are attached. */
int ctlconsole_attach(struct ctlconsole *c, uint64_t scrollback, const char *sid, char *name,
		      struct err *e);
/* A pipe that the client has made: it is taken over, also on errors. */
int ctlconsole_adopt(struct ctlconsole *c, int fd, struct err *e);
unsigned ctlconsole_clients(const struct ctlconsole *c);
/* From now on the loop serves it. */
void ctlconsole_begin(struct ctlconsole *c, struct loop *l);
/* The helper has ended: take what it still wrote, and give it to the clients as far as they take it
 * within a second. */
void ctlconsole_drain(struct ctlconsole *c);

#endif
