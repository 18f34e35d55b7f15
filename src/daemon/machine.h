/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One VM: from its record to its end.
 *
 *   machine.c        the list, what it says of itself, its start
 *   machine_hold.c   requests that wait for it
 *   machine_end.c    its end
 *   machine_adopt.c  what an earlier insulad has left
 */
#ifndef DAEMON_MACHINE_H
#define DAEMON_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#include <json-c/json.h>

#include <insula/err.h>

#include "record.h"

struct client;
struct clones;
struct daemon;
struct link;
struct machine;
struct request;
struct timer;
struct watch;

typedef void reply_fn(struct machine *m, struct request *r, json_object *result, json_object *error,
		      int fd);
struct pending;

struct machine {
	struct machine *next;
	struct daemon *d;
	struct record r;
	int process;       /* pidfd or handle of its supervisor; -1: none, or not for us; owned */
	struct link *talk; /* to it; NULL: none */
	struct console_of {
		int fd;            /* -1: none */
		int errors;        /* for the errors of a command; -1: they come by fd */
		const char *name;  /* Windows: the client's pipe; NULL: none */
		const char *owner; /* whose it must be; NULL: anybody's */
	} console; /* attached from the first byte on; borrowed, for machine_start() */
	struct watch *death;
	bool hello;       /* its supervisor has shown the token */
	char version[32]; /* its supervisor's release; "": not said */
	bool adopted;     /* started by an earlier insulad */
	int64_t next_op;
	struct pending *pending;
	struct request *starting; /* answered when the guest runs, or will not */
	struct request *waiting;  /* answered at the end; by next_held */
	char reason[32];          /* of the end; "" before */
	int status;
	struct timer *force;  /* kills the supervisor if nothing else ends it */
	struct timer *again;  /* connects to the supervisor */
	struct timer *reopen; /* looks for its process, which could not be opened */
	unsigned again_ms;    /* the last interval; 0: none since it has said hello */
	unsigned events;      /* from its supervisor since events_since; see talk.c */
	uint64_t events_since;
	struct timer *rest;     /* until it is read from again */
	bool held;              /* not read from: its user has too many descriptors */
	bool resizing;          /* vm.resize has not been answered yet */
	uint64_t before_resize; /* and what r.mem was before it */
	struct timer *grace;    /* removes what ended while nobody could see it */
	unsigned restarts;
	unsigned cpus_now; /* its share of processors; 0: those that it boots with */
	unsigned cpus_had; /* before vm.resize raised that, until it is answered; 0: it has not */
	struct clones *clones; /* that it is one of, until it has begun: clone.h */
	char *broken;          /* VM_BROKEN: why its record cannot be read; owned */
	bool newer;            /* and that is because a newer insulad has written it */
};

/* May this client see and touch it? */
bool machine_visible(const struct machine *m, const struct client *c);
/* By id or name. Of equal names the client's own counts; *several, and NULL: there are others'
 * only, and more than one. */
struct machine *machine_find(struct daemon *d, const struct client *c, const char *which,
			     bool *several);
/* Whose ever it is; NULL: it is gone. */
struct machine *machine_by_id(struct daemon *d, const char *id);
struct machine *machine_new(struct daemon *d);
/* Forget one that nobody has seen. */
void machine_forget(struct machine *m);
/* Forget it, with everything in the state directory. It must not run. */
void machine_remove(struct machine *m);
bool machine_active(const struct machine *m); /* it has a supervisor */
/* Of one whose record cannot be read: its supervisor's socket is served. */
bool machine_is_served(struct machine *m);
int machine_save(struct machine *m, struct err *e);
/* The same without a sync, whatever its kind: what is lost with the host need not be known. */
int machine_note(struct machine *m, struct err *e);
/* It stood in a pool, and is somebody's VM from now on: it runs whenever it is started. */
int machine_taken(struct machine *m, struct err *e);
int machine_start(struct machine *m, struct err *e);
void machine_set_state(struct machine *m, enum vm_state s);
/* Its supervisor has died. */
void machine_ended(struct machine *m);
/* Answer `r` with machine_result() at the end, or refuse it after `ms` (0: no limit). */
void machine_hold(struct machine *m, struct request *r, uint64_t ms);
/* Refuse those of them that wait for a command. */
void machine_refuse_execs(struct machine *m);
/* The client of a held request has gone: unlink it. */
void machine_release(struct request *r);
/* SIGKILL to the supervisor, and with it everything. */
void machine_shoot(struct machine *m);
/* After `ms`, unless it has ended before. */
void machine_shoot_later(struct machine *m, uint64_t ms);
/* Its supervisor is told to end it (op and its parameters, which are taken over), and is shot when
 * it does not take that, or has not ended after `ms`. */
void machine_order_end(struct machine *m, const char *op, json_object *params, uint64_t ms);
/* The processors that it has now. */
unsigned machine_cpus(const struct machine *m);
json_object *machine_json(const struct machine *m, bool full);
json_object *machine_result(const struct machine *m); /* the caller's; "{}" if it has not ended */
/* machine_adopt.c: those of an earlier insulad. */
int machines_load(struct daemon *d, struct err *e);
void machines_close(struct daemon *d);
/* Those that had to wait are read from again. */
void machines_go_on(struct daemon *d);

/* ---- between machine.c, machine_hold.c, machine_end.c and machine_adopt.c ---- */

/* A new one in the list; NULL: out of memory. */
struct machine *machine_add(struct daemon *d);
/* Answer those who wait for its end; refuse those who wait for its start, or for the end of one
 * that will never start. */
void machine_answer_waiting(struct machine *m);
void machine_refuse_starting(struct machine *m);
void machine_refuse_waiting(struct machine *m);
/* machine_ended(); `keep`: also one that goes by itself, for a while. */
void machine_end(struct machine *m, bool keep);
/* Give up all that belongs to its process. */
void machine_close_process(struct machine *m);
void machine_leave_group(struct machine *m);
int machine_watch_process(struct machine *m, struct err *e);
/* The supervisor, whose process is no more, has not had its byte to go on: there was no VM. */
bool machine_never_began(const struct machine *m);
/* Reason and status from the record's result. */
void machine_take_result(struct machine *m);

#endif
