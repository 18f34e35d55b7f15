/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The one command of insula-run: the user's streams, terminal and signals, and what its end makes
 * of the VM.
 */
#ifndef SUPERVISOR_COMMAND_H
#define SUPERVISOR_COMMAND_H

#include <stdbool.h>
#include <stdint.h>

#include <insula/err.h>
#include <insula/proto.h>

/* A second SIGINT or SIGTERM within this time ends the VM. */
#define COMMAND_AGAIN_NS 3000000000ull
/* So does a guest that does not take a signal within this time. */
#define COMMAND_DEAF_NS 5000000000ull
/* A guest that powers off closes its streams first: so long its own end may take. */
#define COMMAND_LOST_NS 5000000000ull

struct vm;
struct vm_config;

struct command {
	uint32_t id;             /* of exec_start(); 0: not started */
	int in, out, err;        /* ours, of what the user gave; owned; -1 */
	bool raw;                /* its terminal is the user's: raw while it runs */
	uint64_t interrupted_ns; /* the last SIGINT or SIGTERM that was passed on */
	int signo;               /* the last signal that was passed on */
	bool ended;              /* the status of insula-run is the command's */
	uint64_t lost_ns;        /* when the stream ended before the command did; 0 */
	char lost[EXEC_TEXT_LEN];
	void *pump[2]; /* threads that write to a console window (Windows); owned */
};

void command_init(struct command *c);
void command_close(struct command *c);
/* Check and take the user's streams. -EINVAL and the like: the user's input. */
int command_open(struct vm *vm, struct err *e);
int command_start(struct vm *vm, struct err *e);
/* Deal with a signal to insula-run (Linux's number). False: it ends the VM. */
bool command_signal(struct vm *vm, int signo);
/* The user's terminal has another size now. */
void command_resized(struct vm *vm);
/* When a signal must have been taken by the guest, or a guest whose stream has ended must have
 * ended too, CLOCK_MONOTONIC in ns; 0: none of that is under way. */
uint64_t command_deadline(const struct vm *vm);
/* That time has come: end the VM. */
void command_overdue(struct vm *vm);

/* ---- command_linux.c, command_win.c ---- */

/* The user's streams into c->in, out, err, and c->raw. */
int command_streams(struct command *c, const struct vm_config *conf, struct err *e);
/* Its descriptors are closed: let what is on the way to the user arrive. */
void command_drain(struct command *c);

#endif
