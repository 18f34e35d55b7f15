/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Commands in the guest: one jailed insula-exec each, which holds the user's descriptors and the
 * stream to insula-init and parses what comes out of it. The supervisor sees fixed messages only.
 *
 *   exec_start()        spawn insula-exec, give it the descriptors and one end of a stream
 *   jailed, verified, and insula-init listens (BOARD_EVENT_AGENT_READY)
 *                       the other end goes to insula-vsock, which connects it to the guest
 *   MSG_EXEC_BROKEN     that connection has ended. insula-vsock, or the next one if it has died,
 *                       gets another stream's other end, and the command goes on; when a few of
 *                       them end at once there is nothing to go on with, and insula-exec is told so
 *   MSG_EXEC_EXIT       the command has ended and all its output is written: `done` is called,
 *                       insula-exec is killed; its place is free when it is reaped
 *
 * Thread: the supervisor's. Nothing here blocks.
 */
#ifndef SUPERVISOR_EXEC_H
#define SUPERVISOR_EXEC_H

#include <insula/proto.h>

struct child;

/* Of the guest's 64 streams (AGENT_TASKS) one is left for exec_poweroff() and one for
 * exec_resumed(); Windows waits for 64 handles in all. */
#ifdef _WIN32
#define VM_MAX_EXECS 16u
#else
#define VM_MAX_EXECS 62u
#endif
#define VM_EXEC_PLACES (VM_MAX_EXECS + 2) /* the last are exec_resumed()'s and exec_poweroff()'s */

struct vm;

struct exec_spec {
	char *const *argv; /* NULL-terminated, at least one */
	char *const *env;  /* NULL-terminated NAME=VALUE, added to insula-init's own; may be NULL */
	const char *cwd;   /* NULL: / */
	uint32_t uid, gid; /* gid GP_NO_GID: that user's */
	const char *user;  /* with a name in it, USER[:GROUP]; NULL or empty: uid and gid */
	bool tty;          /* a terminal of rows x cols in the guest */
	uint16_t rows, cols;
	bool input;  /* fds[0] is its input; else it has none */
	bool escape; /* a person types: Ctrl-] three times within a second is vm_quit() */
	bool only; /* the VM's one task: disks are written back and unmounted when it ends. Not in a
			guest that goes on from a snapshot, which had other tasks */
};

/* Called once for every started command, from the supervisor's loop; the id is free afterwards.
 * The text in `x` is not clean. */
typedef void exec_done(struct vm *vm, uint32_t id, const struct msg_exec_exit *x);

struct exec_proc {
	struct vm *vm;       /* that it is in */
	struct child *child; /* its process: the VM's, one for each place */
	uint32_t id;         /* 0: a free place */
	exec_done *done;
	bool escape; /* it may say that the user typed it */
	bool ready;  /* jailed and verified */
	int stream;  /* for insula-vsock until it is connected; owned; -1 */
	bool connected, started, ended;
	uint64_t broken_ns;    /* since when it has had no connection; 0: it has one, or not yet */
	uint64_t connected_ns; /* when it was given its last stream */
	uint64_t kill_ns;      /* it was told to stop and is killed then; 0 */
	unsigned generation;   /* of insula-vsock, that the stream was given to */
	unsigned tries;        /* more streams that this generation was given */
	uint64_t signaled_ns;  /* when a signal was passed on that the guest has not taken yet; 0 */
};

struct execs { /* of a VM */
	struct exec_proc place[VM_EXEC_PLACES];
	uint32_t ids;     /* ever given */
	bool agent_ready; /* insula-init listens */
	bool held;        /* exec_hold() */
};

/* Check what only exec_start() would find out: -E2BIG (too many or too long arguments). */
int exec_check(const struct exec_spec *s, struct err *e);
/* Start a command as soon as the guest is up. fds: input (ignored without spec->input), output,
 * errors; they stay the caller's, their flags are not changed. -EAGAIN: VM_MAX_EXECS run already.
 * Windows: handles that can be inherited, of pipes or files (a console window is refused:
 * std_open() in ends_win.h turns one into a pipe), with no more rights than to read or to write.
 */
int exec_start(struct vm *vm, const struct exec_spec *s, const int fds[3], exec_done *done,
	       uint32_t *id, struct err *e);
/* Ask insula-init to end the machine in order: it asks an init of the root's own, which has
 * `init_ms` for it, or else kills what runs, writes back, unmounts and powers off. Goes out as soon
 * as the guest is up; `done` is only called if that fails or the stream ends, which a power-off
 * does too. -EALREADY: it has been asked. */
int exec_poweroff(struct vm *vm, uint32_t init_ms, exec_done *done, struct err *e);
struct resumed { /* what the guest is told when it goes on; NULL: nothing, all stays as it is */
	const char *vm;          /* INSULA_VM of its hooks */
	bool clock;              /* the host's time, as it is when insula-init takes the request */
	const char *host_name;   /* gp_host_name_ok() */
	const char *machine_id;  /* gp_machine_id_ok() */
	unsigned ncards;         /* at most GP_CARDS_MAX */
	const char *const *card; /* "OLD,RECORD": gp_card_ok(), struct gp_resumed */
};
/* Tell insula-init that the machine goes on, after a pause or from the memory of another one: new
 * random numbers of the host, what `r` says, then the guest's hooks of /etc/insula/resume.d. Goes
 * out as soon as the guest is up and runs. `done`: EXEC_CODE 0, all is well; EXEC_REFUSED, its text
 * says what failed, the rest was done; EXEC_LOST, the guest did not answer or does not know the
 * request. At most 10 s for each hook, and without a deadline otherwise: exec_cancel(). `id` may be
 * NULL. -EALREADY: the last one is under way; -EINVAL: a member that is not as it should be. */
int exec_resumed(struct vm *vm, const struct resumed *r, exec_done *done, uint32_t *id,
		 struct err *e);
/* What its end says: "", or a clean line of what failed. */
void exec_resumed_why(const struct msg_exec_exit *x, char why[EXEC_TEXT_LEN]);
/* Commands wait until the guest knows that it goes on: nothing but exec_resumed() is connected. */
void exec_hold(struct vm *vm, bool hold);
/* Give one up: `done` is called with EXEC_LOST and this text, insula-exec is killed, and the guest
 * ends what it has begun as if a terminal had hung up. -ESRCH: there is no such command. */
int exec_cancel(struct vm *vm, uint32_t id, const char *why);
/* To its whole process group. -ESRCH: there is no such command, or it has not started yet. */
int exec_signal(struct vm *vm, uint32_t id, int signo);
int exec_resize(struct vm *vm, uint32_t id, uint16_t rows, uint16_t cols);
/* Has the command begun to run? */
bool exec_running(const struct vm *vm, uint32_t id);
/* When the oldest signal was passed on that the guest has not taken; 0: none. */
uint64_t exec_unanswered(const struct vm *vm, uint32_t id);

/* ---- for vm.c ---- */

/* All places are free; the caller sets their `child`. */
void exec_init(struct execs *x);
void exec_free(struct vm *vm);
/* insula-init listens now: connect what waits. */
void exec_agent_ready(struct vm *vm);
/* A new insula-vsock serves: connect what waits, and what the old one took with it. */
void exec_vsock_ready(struct vm *vm);
/* The guest has ended: no stream will come any more. */
void exec_guest_gone(struct vm *vm);
/* When exec_overdue() wants to be called; 0: not at all. */
uint64_t exec_deadline(const struct vm *vm);
void exec_overdue(struct vm *vm);
/* It is jailed and verified. */
void exec_ready(struct vm *vm, struct exec_proc *p);
/* A message that only insula-exec sends. False: it breaks the protocol. */
bool exec_message(struct vm *vm, struct exec_proc *p, enum msg_type t, const void *body,
		  size_t len);
/* It could not set itself up, and will end. */
void exec_failed(struct vm *vm, struct exec_proc *p, const char *step, const char *text);
/* It is dead and reaped: `how`. */
void exec_gone(struct vm *vm, struct exec_proc *p, const char *how);
/* Is any command still between its connection and its end? */
bool exec_pending(const struct vm *vm);

#endif
