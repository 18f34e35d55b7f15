/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Between control.c, which knows what can be asked, control_setup.c, and control_linux.c or
 * control_win.c, which has the connections and the console's clients. Thread: the supervisor's.
 */
#ifndef SUPERVISOR_CONTROL_OS_H
#define SUPERVISOR_CONTROL_OS_H

#include <json-c/json.h>

#include <insula/err.h>

#include "spec/config.h"
#include "control.h"
#include "ctlexec.h"
#include "ctlresize.h"
#include "vmlog.h"

/* Connections have numbers below it; Windows has one at a time. insulad needs one, insula-oci one
 * for each process of a pod, and one more for each of its commands. */
#define CONTROL_CONNS 64
#define CONTROL_PACKET (64u << 10)

struct control_os;
struct loop;

struct control {
	struct control_os *os;
	int result; /* owned */
	char token[CONTROL_TOKEN_LEN + 1];
	bool hello[CONTROL_CONNS];
	bool has_console; /* clients may attach */
	struct ctlexec exec;
	struct vmlog log;
	bool paused;
	/* A pause or resume that insula-vmm has not answered yet: who asked. */
	struct {
		unsigned conn; /* CONTROL_CONNS: nobody any more */
		int64_t id;
		uint64_t deadline_ns; /* 0: none */
		bool want;
	} turn;
	/* Who waits for the guest's word about its memory. */
	struct {
		unsigned conn;
		int64_t id;
		uint64_t deadline_ns; /* 0: nobody */
	} balloon;
	struct ctlresize resize;
	/* What the guest is still to be told, that it goes on: exec_resumed(). */
	struct {
		bool wanted;       /* as soon as it has heard of the last time */
		uint32_t id;       /* is under way; 0: none */
		uint64_t limit_ns; /* and is given up then */
		char vm[128];
	} renew;
	struct {
		unsigned conn;
		int64_t id;
		char device[DEV_NAME_LEN]; /* "": nobody waits */
	} policy;                          /* who waits for the new policy of a card */
	struct {
		unsigned conn;
		int64_t id;
	} saving; /* who asked for the snapshot that is under way */
	struct {
		unsigned conn;
		int64_t id;
	} plugs[CONFIG_MAX_HOTPLUG]; /* who waits for what happens in a place */
	unsigned owner;              /* the connection that the VM ends with; CONTROL_CONNS: none */
	bool disowned;               /* it has ended */
	uint64_t stop_ns;            /* the clean stop's deadline; 0: none */
	bool stopping;               /* it was asked for */
	bool forced;                 /* and the guest did not do it by itself */
};

/* ---- control_setup.c ---- */

/* Takes `result` over, unless it returns NULL. */
struct control *control_new(int result, struct err *e);
/* Read the set-up from `fd` into the token and `c`; *setup is the caller's, NULL on some errors.
 * -EINVAL: the configuration is bad. */
int control_setup(struct control *k, int fd, struct vm_config *c, json_object **setup,
		  struct err *e);
/* The helpers' ends of the streams of ctlconsole.h: `c` gets them, unless it names other ends.
 * Borrowed. True: the first is a command's. */
struct control_ends {
	int in, out, errors, serial;
};
bool control_use_console(struct control *k, struct vm_config *c, const struct control_ends *ends);
/* The log's second file is `fd`, the first one standard error; both as large as the set-up says.
 * Takes it over. */
int control_use_log(struct control *k, json_object *setup, int fd, struct err *e);

/* ---- control.c ---- */

struct control_fds {
	int fd[CTLEXEC_FDS]; /* what came along */
	unsigned n;
	bool more; /* than may be */
};
/* One packet; `f`, NULL without, is taken over. False: the peer does not speak the protocol. */
bool control_packet(struct control *k, struct vm *vm, unsigned i, const char *text, size_t len,
		    struct control_fds *f);
/* The connection of this number has ended. */
void control_hung_up(struct control *k, unsigned i);

/* ---- control_linux.c, control_win.c ---- */

/* One packet, with a descriptor (-1: without) that stays the caller's; a peer that does not read is
 * dropped, it may come again. There may be no connection of this number. */
void control_os_send(struct control *k, unsigned i, const char *text, size_t len, int fd);
/* A stream to the console for one more client: *fd, the caller's, or its name in `result`. -EBUSY:
 * too many are attached. */
int control_os_attach(struct control *k, json_object *params, json_object *result, int *fd,
		      struct err *e);
/* The streams of a command that `params` names: appended to fd, the caller's. */
int control_os_streams(json_object *params, int fd[CTLEXEC_FDS], unsigned *n, struct err *e);
/* The streams of whoever has taken a VM that stands: as those of whoever starts one. What is used
 * is taken over. */
void control_os_first(struct control *k, bool command, int fd[CTLEXEC_FDS], unsigned *n);
struct control_console {
	unsigned clients;
	uint64_t bytes, lost;
};
void control_os_console(const struct control *k, struct control_console *n);
/* The console's helper has ended: what it still wrote goes to the clients, as far as they take it.
 */
void control_os_drain(struct control *k);
/* Let the loop watch the connections and the console's clients. */
void control_os_begin(struct control *k, struct vm *vm, struct loop *l);
/* Close all connections and free. */
void control_os_close(struct control *k);

#endif
