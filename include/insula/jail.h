/*
 * The jail: one list per program, planned by the parent, executed by the child, checked by the
 * parent.
 *
 * Order (a step that fails is reported by name over the channel and the program does not run):
 *
 *   parent, jail_spawn()    clone into new user and pid namespaces; id maps
 *   child, before exec      "parent"        dies with its parent
 *                           "signals"
 *                           "namespaces"    mount, net, ipc, uts, cgroup: made here because it is
 *                                           the slow part, and so children do it in parallel
 *                           "ids", "session"
 *                           "descriptors"   only 0, 1, 2 and the channel survive
 *                           "rlimits"
 *                           "privilege"     two capabilities in the new user namespace are left
 *                                           for jail_enter()
 *                           "exec"
 *   program, jail_enter()   "parent"        again, and not dumpable
 *                           "root"          empty, read-only
 *                           "capabilities", "no_new_privs"
 *   program                 what it needs once: map memory, start threads, set up io_uring
 *   program, jail_seal()    "seccomp"       an allow-list with arguments pinned to its own
 *                                           descriptors; then a read-back
 *   parent, jail_verify()   reads /proc/PID/status; only then may the guest run
 *
 * There is no switch that leaves a step out.
 */
#ifndef INSULA_JAIL_H
#define INSULA_JAIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <insula/err.h>

/* ---- parent ---- */

struct jail_plan {
	const char *program; /* "insula-blk": argv[0], and the name in messages */
	int exec_fd;         /* open O_RDONLY|O_CLOEXEC on the binary */
	uint32_t nofile;     /* RLIMIT_NOFILE */
	uint32_t nproc;      /* RLIMIT_NPROC: threads that it may have */
	uint64_t as;         /* RLIMIT_AS in bytes, 0: unlimited (sanitizers) */
	uint32_t outer_uid;  /* host ids that the jail's user maps to; chosen by jail_ids() */
	uint32_t outer_gid;
	uint64_t fsize;   /* RLIMIT_FSIZE: how long it may make a regular file; 0: it writes none */
	uint64_t memlock; /* RLIMIT_MEMLOCK, if it is more than what all get (docs/jail.md) */
};

#define JAIL_FSIZE_ANY UINT64_MAX

/* Choose host ids: root with the range mapped gets ids of its own (JAIL_UID_BASE + getpid()),
 * everybody else their own ids. */
#define JAIL_UID_BASE 0x70000000u
void jail_ids(struct jail_plan *p);

struct jail_child {
	pid_t pid;
	int pidfd;   /* the caller closes */
	int channel; /* the parent's end, SOCK_SEQPACKET, close-on-exec; the caller closes */
	/* Read end of the child's stdout and stderr, non-blocking; the caller closes. The child's
	 * end is non-blocking too: a full pipe loses lines, it never stops a vCPU or a device. */
	int log;
};

/* The user and group that the program has inside. Not 0: root is special in too many places of a
 * kernel. Not 65534: that is what an id without a mapping looks like, so a missing map could not be
 * told from a working one. */
#define JAIL_INNER_ID 1u

/* Start the program in its namespaces, with an empty environment and no argument but its name. The
 * calling thread must live as long as the child may (PR_SET_PDEATHSIG is about threads), the caller
 * must not be PR_SET_DUMPABLE 0 (it writes /proc/PID/uid_map), and SIGCHLD must not be ignored. The
 * child is pid 1 of its namespace: SIGTERM and SIGINT do nothing to it; MSG_STOP or SIGKILL end it.
 * The caller reaps. 0 when the program was exec'd or will report over the channel; on error nothing
 * is left. The text says what to do where user namespaces are forbidden. */
int jail_spawn(const struct jail_plan *p, struct jail_child *out, struct err *e);

/* Read /proc/PID/status and that of every thread: NoNewPrivs 1, Seccomp 2,
 * CapInh/CapPrm/CapEff/CapBnd/CapAmb 0. -EPERM names what is missing, -ESRCH: it has ended. */
int jail_verify(pid_t pid, struct err *e);

/* ---- child ---- */

/* First call of main(). On failure sends MSG_FAILED over MSG_CHANNEL_FD and exits. */
void jail_enter(void);

enum jail_cmp { JAIL_ANY = 0, JAIL_EQ, JAIL_MASKED_EQ /* (arg & mask) == value */ };
struct jail_arg {
	uint8_t index; /* 0-5 */
	uint8_t cmp;   /* enum jail_cmp */
	uint64_t value, mask;
};
struct jail_rule {
	int nr;                 /* SYS_xxx */
	const char *why;        /* the reason; never NULL */
	struct jail_arg arg[4]; /* all must hold; several rules for one nr are alternatives */
};

/* What every program needs once it is sealed, each with its reason: exit_group, futex (wait and
 * wake), rt_sigreturn, restart_syscall, clock_gettime, write to descriptor 2, sendmsg and recvmsg
 * on the channel, and reading back the seccomp mode (src/jail/rules.c). */
extern const struct jail_rule jail_base_rules[];
extern const size_t jail_base_nrules;

/* Install the allow-list, `rules` and jail_base_rules together, for all threads (TSYNC), then read
 * back that it is in force. Anything else kills the process with SIGSYS. Values are compared in all
 * 64 bits (masks too). A new thread makes system calls of its own before it reaches its function:
 * let every thread arrive first. 0; -EINVAL: a rule that cannot work; -EPERM: jail_enter() has not
 * been called; else what the kernel said. */
int jail_seal(const struct jail_rule *rules, size_t n, struct err *e);

#endif
