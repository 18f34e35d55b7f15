/* SPDX-License-Identifier: BSD-2-Clause */
/* The proxy's loop: what it hears from the command, `start`, signals, the supervisor and the guest's
 * status file. See proxy.h. */
#ifndef OCI_PUMP_H
#define OCI_PUMP_H

#include "forward.h"
#include "names.h"
#include "proxy.h"
#include "record.h"

#define JOIN_MS 20000

enum phase {
	PHASE_PREPARING, /* the command orders */
	PHASE_CREATED,
	PHASE_STARTING, /* the guest was told to, and has not said that it has */
	PHASE_RUNNING,
	PHASE_OVER /* `status` is the process's */
};

struct proxy {
	const struct proxy_job *j;
	int channel; /* to the command; owned like all of these; -1 */
	int go;      /* listens for `start` */
	int asker; /* waits for the answer of a start; the channel of an exec is not owned by it */
	int share; /* the container's directory in the share */
	int vmdir; /* of the VM's owner */
	int signals, notify;
	int null;               /* of an owner: /dev/null, which it cannot open any more */
	struct forward forward; /* of a pod's loopback; its listeners are -1 without */
	bool has_names;         /* there is a name server on it: */
	struct in_addr names_at;
	int names_stream; /* the guest's end, until it has got it */
	int names_ready;  /* the relay says here that the guest listens */
	struct talk talk;
	bool owner;
	struct proc vm; /* of an owner */
	enum phase phase;
	int64_t id;               /* the process in the guest; 0: none yet */
	int64_t sandbox;          /* CT_PROGRAM sandbox; 0: none */
	bool sandbox_over;        /* it has ended */
	int said;                 /* its errors */
	char sandbox_failed[160]; /* "": it has not */
	bool start_wanted;        /* as soon as it has ended */
	uint64_t start_limit_ns;
	uint64_t held; /* signals that came before the guest could take them: bit N - 1 */
	bool killed;   /* what ends it has come before its start */
	int status;
	char failed[CT_STATUS_MAX + 64]; /* why it could not be started; "" */
};

/* To the end; what the process exits with. */
int pump_run(struct proxy *p);
/* What the supervisor says. */
void pump_event(void *p, const char *event, json_object *data);
/* Have the guest set up the machine. */
int pump_sandbox(struct proxy *p, struct err *e);
/* The relay to the pod's name server runs: have the guest listen, as soon as it is set up. */
void pump_names(struct proxy *p);
/* Start the process; the answer goes to `asker` (-1: nobody), which is taken over unless it is the
 * channel. */
void pump_start(struct proxy *p, int asker);
/* The command has gone. */
void pump_deserted(struct proxy *p);

/* ---- proxy.c ---- */

/* An order waits in the channel. */
void proxy_on_order(struct proxy *p);
/* One packet; error NULL: none. */
void proxy_reply(int fd, json_object *answer, const char *error);

#endif
