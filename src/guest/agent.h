/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-init's server: runs commands for the host, one stream each (insula/guestproto.h).
 *
 *   agent.c        the loop: accept, reap, deadlines
 *   agent_task.c   one stream: input, output, credit, the end
 *   agent_frames.c what the host says on it
 *   agent_spawn.c  one process: pipes or a terminal, environment, exec
 *   agent_hooks.c  the programs that want to know that the machine goes on
 *
 * One thread, one poll loop, nothing that waits anywhere else; memory is bounded by AGENT_TASKS
 * and the windows. The host is trusted by its guest, but no stream can stop another one, and the
 * commands are nobody's friend: whatever they do with their pipes and processes, the loop goes on.
 * Runs on any listening stream socket, so it is tested outside a guest as well.
 */
#ifndef GUEST_AGENT_H
#define GUEST_AGENT_H

#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#include <insula/guestproto.h>

#define AGENT_TASKS 64
#define AGENT_GRACE_MS 200    /* a background process keeps the output open: so long at most */
#define AGENT_KILL_MS 2000    /* SIGHUP, then SIGKILL; and how long killed processes may take */
#define AGENT_LINGER_MS 10000 /* the host closes a finished stream within this */
#define AGENT_RESUME_MS 10000 /* a stream has ended: the host comes back within this */

#define STATUS_INTERNAL 125
#define STATUS_NOT_EXECUTABLE 126
#define STATUS_NOT_FOUND 127
#define STATUS_SIGNAL 128

/* What only the machine's PID 1 can do. */
struct agent_ops {
	/* Start a program that asks the root's own init to power off: its process id, or -1. NULL:
	 * there is no such init. */
	pid_t (*ask_init)(void);
	void (*kill_all)(void);                     /* every process but this one; no waiting */
	void (*finish)(void);                       /* write back and unmount */
	void (*end)(const struct gp_poweroff *how); /* does not return in a guest */
	/* A program of the guest has asked for the end, by a signal: board_leave(). NULL: somebody
	 * else is PID 1, and these signals are left alone. */
	void (*leave)(int signo);
	/* GP_RESUMED, in two parts: what must not wait for anything, in the loop; then, in a process
	 * of its own, the rest, with gp_resumed_strings(). Both note() what fails. */
	void (*resumed)(const struct gp_resumed *r, char why[GP_TEXT_LEN]);
	void (*renew)(char *const *strings, char why[GP_TEXT_LEN]);
};

enum task_state {
	TASK_HELLO,
	TASK_REQUEST,
	TASK_STARTING, /* forked; exec_fd tells how exec went */
	TASK_RUNNING,
	TASK_ENDED,   /* the process has ended; its output has not */
	TASK_CLOSING, /* GP_EXIT is on its way; the host closes */
	TASK_LOST,    /* given up; the processes follow */
};

struct task {
	enum task_state state;
	uint32_t id;                   /* the host's; 0: not yet said */
	int sock, exec_fd, in, out[2]; /* -1: closed */
	pid_t pid;                     /* session and process group; 0: none */
	bool reaped, tty, only, in_end, turn;
	unsigned eofs; /* end-of-file characters that the terminal has not taken yet */
	bool owe_close, owe_pong, owe_signaled; /* frames that wait for room */
	struct gp_in rx;
	uint8_t *body;             /* rx's: GP_START_MAX at first, then GP_DATA_MAX */
	uint32_t in_head, in_tail; /* free-running, into in_buf */
	uint32_t in_owed;          /* taken by the command, not yet given back as credit */
	uint32_t credit[2];        /* what the host takes of each output */
	uint32_t left[2];          /* TASK_ENDED: bytes that were there when it ended */
	uint64_t deadline;         /* ms; 0: none */
	uint64_t resume_by;  /* ms; without a stream: the host is back by then; 0: it is here */
	uint64_t oom_kills;  /* of the whole guest when it started */
	struct gp_exit exit; /* valid from TASK_ENDED on */
	struct gp_out tx;
	uint8_t in_buf[GP_WINDOW_IN];
};

/* The kernel's struct sockaddr_vm; its headers are not musl's. vsock(7). */
struct vsock_addr {
	sa_family_t family;
	uint16_t reserved;
	uint32_t port, cid;
	uint8_t zero[4];
};
#define VSOCK_HOST 2u
#define VSOCK_ANY UINT32_MAX

struct agent {
	int listener, sigfd;
	bool childless;     /* no process but this one, as far as is known */
	unsigned resume_ms; /* AGENT_RESUME_MS; so long, too, until a new stream says what it wants
			     */
	const struct agent_ops *ops;
	struct task *task[AGENT_TASKS];
	/* The machine ends at `end_at` (ms; 0: it does not), if the init that `asking` speaks to
	 * has not ended it before. */
	struct gp_poweroff end;
	uint64_t end_at;
	pid_t asking;
	int leaving; /* the signal that asked for the end; 0 */
};

/* A guest that has vsock_loopback can connect to itself: the host alone is served. A stream that is
 * not vsock is a test's. */
bool agent_serves(const struct vsock_addr *peer);
/* What PID 1 waits for: SIGCHLD, and the signals of poweroff, reboot and halt. */
void agent_signals(sigset_t *set);
/* `listener` is a listening stream socket, borrowed. Blocks SIGCHLD, and agent_signals() if there
 * is ops->leave; ignores SIGPIPE. 0 or a negative errno. */
int agent_init(struct agent *a, int listener, const struct agent_ops *ops);
/* Wait at most `timeout` ms (-1: for ever) and serve. */
void agent_step(struct agent *a, int timeout);
/* End the machine in order, as GP_POWEROFF says. */
void agent_end(struct agent *a, const struct gp_poweroff *how);

/* ---- agent_task.c ---- */

#define TASK_FDS 5
/* NULL: out of memory. It has until `deadline` (ms) to send GP_START or GP_POWEROFF. */
struct task *task_new(int sock, uint64_t deadline);
/* What to wait for: TASK_FDS entries, -1 where there is nothing. */
void task_poll(const struct task *t, struct pollfd p[TASK_FDS]);
void task_serve(struct agent *a, struct task *t, const struct pollfd p[TASK_FDS]);
/* Its process has ended with this wait status. */
void task_reaped(struct agent *a, struct task *t, int status);
/* After everything: deadlines and ends. False: the task is over and freed. */
bool task_settle(struct agent *a, struct task *t, uint64_t now);

/* ---- agent_frames.c, and what it needs of agent_task.c ---- */

/* Read what there is, and do what it says. */
void task_receive(struct agent *a, struct task *t);

void task_close_fd(int *fd);
/* The host has given it up, or broke the protocol: what it started ends as if a terminal had hung
 * up, and soon by force. */
void task_lose(struct task *t);
/* The stream has ended. If the process that carries it has died on the host, another stream comes.
 * Until then the command runs on, as far as it can without a reader. */
void task_hang_up(const struct agent *a, struct task *t);
/* A stream that takes no more has ended: that is seen when it is read. */
void task_flush(struct task *t);
/* Bytes for the command. -EPROTO: more than the host may send. */
int task_input(struct task *t, const uint8_t *data, uint32_t len);
/* A terminal has no end of file: the character that its line discipline takes for the end is typed
 * instead. An unfinished line needs two: the first ends the line. */
void task_end_input(struct task *t);
/* There is no process, and the host is told why. */
void task_refused(struct agent *a, struct task *t, int status, const char *text);
/* How many processes this guest has lost to a lack of memory. */
uint64_t task_oom_kills(void);

uint64_t agent_now(void); /* ms */
/* One more failure behind those in `why`, which is "" at first; what does not fit is left out. */
void note(char why[GP_TEXT_LEN], const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- agent_spawn.c ---- */

/* Start the command of an accepted GP_START body: fills pid, in, out, exec_fd, tty. -errno. */
int spawn_command(struct task *t, const struct gp_start *s, uint8_t *body);
/* renew() of an accepted GP_RESUMED body in a child, which ends with what it and `why` say: fills
 * pid, exec_fd. -errno. */
int spawn_renew(struct task *t, void (*renew)(char *const *, char *), uint8_t *body,
		const char why[GP_TEXT_LEN]);
/* For a child between fork and exec: signals as a program expects them, and no protection against
 * the guest's out-of-memory killer, which insula-init may have. */
void spawn_defaults(void);
/* What the child says through exec_fd if it cannot become the command. */
struct spawn_failure {
	int status;
	char text[GP_TEXT_LEN];
};

/* ---- agent_hooks.c ---- */

/* What hooks are told of an accepted GP_RESUMED, the strings of which are in it once. */
struct hook_env {
	char text[2 * GP_RESUMED_MAX];
	size_t len;
	char *set[5]; /* NULL-terminated */
	unsigned n;
};
/* Fill *e, which is all zeros: INSULA_VM, and of what is new INSULA_HOSTNAME, INSULA_MACHINE_ID and
 * INSULA_CARDS, the records of gp_card_ok() with a blank between one and the next. */
void hooks_environment(struct hook_env *e, char *const *strings);
#define HOOK_MS 10000
/* Run the executables of `dir` one after the other, in the order of their names, as "FILE WORD", if
 * their names have letters, digits, hyphens and underscores alone; for each at most `ms`, then its
 * process group is killed. Their environment has `set`, NULL-terminated NAME=VALUE; their output is
 * the caller's. No directory, no hooks. note()s the name of each that fails. Waits; for a process
 * of its own. */
void hooks_run(const char *dir, const char *word, char *const *set, unsigned ms,
	       char why[GP_TEXT_LEN]);

/* env.c */
struct env_who {
	const char *home, *user, *hostname;
};
/* `set` (NULL-terminated NAME=VALUE; of equal names the last counts), then the defaults of what it
 * does not set. NULL-terminated; never freed; NULL: out of memory. */
char **env_make(char *const *set, const struct env_who *who);

#endif
