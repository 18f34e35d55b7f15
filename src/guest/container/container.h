/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-container's own parts. main.c has the theory of operation; include/insula/container.h is
 * the contract with the host, and what each record means.
 *
 * One thread per process. Functions return 0 (or what they say) or a negative errno with the step,
 * the object and the reason in `e`; e->code is the errno, and only process_exec() gives another
 * exit status than 125.
 */
#ifndef GUEST_CONTAINER_H
#define GUEST_CONTAINER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <insula/container.h>
#include <insula/err.h>

#define NAME "insula-container"
#define CT_STATE "/run/insula/container" /* a file per container that runs, see state.c */
#define CT_CGROUP "/sys/fs/cgroup"       /* of version 2; containers in CT_CGROUP_PARENT */
#define CT_CGROUP_PARENT CT_CGROUP "/insula"
#define CT_PATH_MAX 4096u

enum { EXIT_FAILED = 125, EXIT_NOT_EXECUTABLE = 126, EXIT_NOT_FOUND = 127 };

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* ---- records.c: files of records ---- */

struct buffer {
	char *data; /* len bytes and one more NUL */
	size_t len;
};

/* All of what has at most `max` bytes. It must be a regular file, and no symbolic link is followed
 * in its last component. The caller frees data. */
int file_read(const char *path, size_t max, struct buffer *out, struct err *e);

/* Room for one more entry of `size` bytes in an array that has `n`. NULL: no memory, and the array
 * is as it was. Entries behind the nth are zeros. */
void *vec_grow(void *array, size_t n, size_t size);
/* One more entry at its end, NULL: no memory; and the last one, NULL: it is empty. */
#define PUSH(array, n)                                                 \
	({                                                             \
		void *more_ = vec_grow((array), (n), sizeof *(array)); \
		if (more_) {                                           \
			(array) = more_;                               \
			(n)++;                                         \
		}                                                      \
		more_ ? &(array)[(n)-1] : NULL;                        \
	})
#define LAST(array, n) ((n) ? &(array)[(n)-1] : NULL)

/* Numbers as records have them: no sign, blanks or more than asked; -EINVAL. */
int num_u64(const char *s, unsigned base, uint64_t max, uint64_t *out);
/* "1 2 3": exactly `n` of them, separated by one blank; -1 is taken where `minus` says so. */
int num_list(const char *s, int64_t *out, size_t n, bool minus, uint64_t max);
/* CT_ID_MAX and its letters. */
bool id_valid(const char *id);

/* ---- keys.c (records_read(): records.c): what the records say. Strings point into the buffer ---- */

struct list {
	char **v; /* NULL-terminated once there is an entry */
	size_t n;
};

struct rlimit_record {
	int number;
	uint64_t soft, hard; /* UINT64_MAX: none */
};

enum { CAP_BOUNDING, CAP_EFFECTIVE, CAP_PERMITTED, CAP_INHERITABLE, CAP_AMBIENT, CAP_SETS };

struct process {
	struct list arg, env;
	const char *cwd; /* NULL: / */
	uint32_t uid, gid, umask;
	uint32_t *addgid;
	size_t addgids;
	bool terminal, nnp, has_umask, has_oom;
	uint64_t cap[CAP_SETS]; /* none without a record */
	struct rlimit_record *rlimit;
	size_t rlimits;
	int oom;
	const char *seccomp; /* NULL: none */
	uint32_t seccomp_flags;
};

enum ns_kind { NS_USER, NS_MOUNT, NS_PID, NS_UTS, NS_IPC, NS_CGROUP, NS_KINDS };

struct ns {
	bool fresh;
	const char *of; /* the container whose it is; NULL: fresh, or the machine's own */
};

struct idmap {
	uint32_t inside, outside, size;
};
struct idmaps {
	struct idmap *v;
	size_t n;
};

struct mount_record {
	const char *dest, *type, *source, *data;
	unsigned long flags, clear, prop;
	bool copyup;
};

struct device_record {
	const char *path;
	char type; /* c, b, p; 0: not said yet */
	unsigned major, minor;
	mode_t mode;
	uint32_t uid, gid;
};

/* A PCI function of the machine, whose driver's nodes the container gets. */
struct function_record {
	const char *address;
	mode_t mode;
	uint32_t uid, gid;
};

struct devrule {
	bool allow;
	char type;        /* a, b, c */
	int major, minor; /* -1: any */
	unsigned access;  /* DEV_* */
};
#define DEVRULES_MAX 1024u /* a jump of BPF reaches 32767 instructions */
enum { DEV_MKNOD = 1, DEV_READ = 2, DEV_WRITE = 4 };

struct hook {
	const char *path, *input; /* input: NULL: none */
	struct list arg, env;
	unsigned timeout; /* seconds; 0: none */
};

struct container {
	const char *id, *rootfs, *hostname, *domainname;
	bool readonly, has_propagation;
	unsigned long propagation;
	struct ns ns[NS_KINDS];
	struct idmaps uidmap, gidmap;
	struct mount_record *mount;
	size_t mounts;
	struct device_record *device;
	size_t devices;
	struct devrule *devrule;
	size_t devrules;
	struct function_record *function;
	size_t functions;
	struct list found; /* paths of functions_find(), of the heap */
	struct list masked, ro_path, sysctl, cgroup;
	struct hook *hook;
	size_t hooks;
	struct process process;
};

struct nic {
	const char *mac, *name; /* name: NULL: as it is */
	uint32_t mtu;           /* 0: as it is */
	struct list addr;
};

struct route {
	const char *dest, *via, *dev, *src;
	uint32_t metric; /* 0: none */
	bool link, onlink;
};

struct neigh {
	const char *address, *dev, *mac;
};

struct sandbox {
	const char *hostname;
	struct list sysctl;
	struct nic *nic;
	size_t nics;
	struct route *route;
	size_t routes;
	struct neigh *neigh;
	size_t neighs;
};

/* What one file of records says; all zeros before records_parse(). The other parts than that of its
 * kind stay empty. */
enum config_kind { CONFIG_CONTAINER, CONFIG_PROCESS, CONFIG_SANDBOX, CONFIG_UPDATE };
struct config {
	struct container container; /* and the process of CONFIG_PROCESS in it */
	struct sandbox sandbox;
};

/* -EINVAL names the number of the record, its key and what was expected. `text` has len bytes and a
 * NUL behind them; it is written to, and must live as long as `c`. records_free() in any case. */
int records_parse(enum config_kind kind, char *text, size_t len, struct config *c, struct err *e);
void records_free(struct config *c);
/* The same of a file; b->data is the caller's to free, after records_free(). */
int records_read(enum config_kind kind, const char *path, struct buffer *b, struct config *c,
		 struct err *e);

/* ---- status.c: what the host is told, and what is known about containers that run ---- */

/* CT_SHARE/ID/FILE */
int share_path(char out[CT_PATH_MAX], const char *id, const char *file, struct err *e);
/* Write a status file: one line, under another name first. `file` is "status" or "exec-N.status".
 */
int status_write(const char *id, const char *file, const char *line, struct err *e);

/* The first process of a container. A pid that another process has meanwhile is not taken for it:
 * its time of birth is kept, too. */
int state_write(const char *id, pid_t pid, struct err *e);
void state_remove(const char *id);
/* A pidfd of it and its pid. -ESRCH: it does not run. */
int state_open(const char *id, int *pidfd, pid_t *pid, struct err *e);

/* ---- path.c: paths inside a root that its owner may have made to hurt ---- */

/* Open `path` below `root` (O_PATH and `flags`), resolved as if root were "/": no symbolic link and
 * no ".." leaves it. The descriptor or a negative errno without a text. */
int root_open(int root, const char *path, int flags);
/* The same without a symbolic link in any component: -ELOOP. */
int root_open_plain(int root, const char *path, int flags);
/* The same; what is missing is made: directories (0755), and in the end a directory or an empty
 * file. Where a symbolic link leads to nothing, that is made. */
int root_make(int root, const char *path, bool directory, struct err *e);
/* root_make() of the parent, and the last name of `path`, which is neither "." nor "..". */
int root_make_parent(int root, const char *path, char name[256], struct err *e);
/* "/proc/self/fd/N": how mount(2) is told what a descriptor stands for. */
#define FD_PATH_MAX 32u
const char *fd_path(int fd, char out[FD_PATH_MAX]);

/* ---- cgroup.c ---- */

/* Make the group, with all controllers, write the records and load the device rules. -EEXIST: there
 * is one with processes. */
int cgroup_make(const struct container *c, struct err *e);
int cgroup_write(const char *id, const char *file, const char *value, struct err *e);
/* `record` is FILE=VALUE of cgroup= */
int cgroup_apply(const char *id, char *const *record, struct err *e);
int cgroup_enter(const char *id, pid_t pid, pid_t first, struct err *e);
/* SIGKILL for all that is in it, and wait until it is empty. */
int cgroup_kill(const char *id, struct err *e);
int cgroup_remove(const char *id, struct err *e);
int cgroup_freeze(const char *id, bool freeze, struct err *e);
/* The pids of the group and of all below it. */
int cgroup_each(const char *id, int (*fn)(void *ctx, pid_t pid), void *ctx, struct err *e);
int cgroup_exists(const char *id, struct err *e);
void cgroup_path(const char *id, const char *file, char out[CT_PATH_MAX]);
/* A number of "KEY N" lines, or with key NULL of the file's first line; -1: none ("max", missing).
 */
int64_t cgroup_number(const char *id, const char *file, const char *key);

/* ---- devices.c: which devices a group may use ---- */

struct k_bpf_insn;
/* The program of these rules: the last one that speaks of a device and a kind of access decides,
 * none refuses. *out is the caller's. The number of instructions. */
int devices_program(const struct devrule *rule, size_t n, struct k_bpf_insn **out, struct err *e);
/* The rules, and after them those of the devices that every container has. */
int devices_attach(int group, const struct devrule *rule, size_t n, struct err *e);

/* ---- functions.c: nodes that drivers of PCI functions make ---- */

/* As sysfs names it: 0000:00:01.0. */
bool function_valid(const char *address);
/* Add those of c->function to c->device and c->devrule. Waits for a disk, but not for ever: what is
 * not there by then is not there. `sys` is "/sys", but for tests. */
int functions_find(const char *sys, struct container *c, struct err *e);

/* ---- namespaces.c ---- */

extern const char *const ns_name[NS_KINDS]; /* in /proc/PID/ns */
/* Flags of unshare(2) of the namespaces that this container has anew; not that of cgroups. */
int ns_fresh(const struct container *c);
/* Enter those of other containers. */
int ns_join(const struct container *c, struct err *e);
/* Enter all namespaces of a process that are not this one's already. */
int ns_join_all(int pidfd, pid_t pid, struct err *e);
/* The maps of the new user namespace of `pid`. */
int ns_write_maps(const struct container *c, pid_t pid, struct err *e);
/* Is this process in another user namespace than the machine's? */
bool ns_user_is_other(void);
/* Enter the new cgroup namespace; once the process is in its group. */
int ns_cgroup(const struct container *c, struct err *e);

/* ---- rootfs.c, mounts.c, dev.c, copy.c: in the new mount namespace, before its root is entered.
 * Paths of the machine still work; mounts are made through /proc/self/fd. ---- */

#define CT_ROOT "/run/insula/root" /* where a root is mounted, in each container's namespace */

struct root {
	const struct container *c;
	int fd;      /* of the root, O_PATH */
	int *source; /* per mount record: what a bind takes, O_PATH; -1: it is none */
	bool userns; /* mknod(2) and a sysfs of its own are not to be had */
};

/* The whole root: mounts, devices, paths; then enter it. */
int rootfs_enter(const struct container *c, struct err *e);
int mounts_all(struct root *r, struct err *e);
/* masked= and ro_path= */
int mounts_paths(struct root *r, struct err *e);
/* MS_RDONLY in addition, and nothing else. */
int mount_readonly(int fd, const char *what, struct err *e);
/* A file or directory of the machine; no symbolic link in any component. */
int machine_open(const char *path, struct err *e);
int dev_all(struct root *r, struct err *e);
int dev_console(struct root *r, struct err *e);
/* What is in the directory `from` into the directory `to` (O_PATH both). */
int copy_tree(int from, int to, unsigned depth, struct err *e);

/* ---- process.c, caps.c: what a process becomes before exec ---- */

/* key=value of sysctl= or of kernel: /proc/sys */
int sysctl_write(const char *record, struct err *e);
/* The filter of a process, read before the container's root is entered. NULL without one. */
int seccomp_read(const char *id, const struct process *p, struct buffer *out, struct err *e);
/* Limits, identity, rights, directory, filter, exec. Returns only if it fails; *status is EXIT_*.
 * `ready` is called when nothing but the filter and exec are left. */
int process_exec(const struct process *p, const struct buffer *filter, void (*ready)(void *ctx),
		 void *ctx, int *status, struct err *e);
/* From outside: let its hard limits be those that it wants later, and no lower than they are. */
int process_raise_limits(pid_t pid, const struct process *p, struct err *e);
/* Drop what is not in it. */
int caps_bound(uint64_t bounding, struct err *e);
/* Permitted, effective, inheritable and ambient. `more` stays in the first two beside. */
int caps_set(const uint64_t cap[CAP_SETS], uint64_t more, struct err *e);
/* A session of its own, with the terminal that is its input. */
int process_session(const struct process *p, struct err *e);
/* Root of the user namespace in which this process is. */
int process_ns_root(struct err *e);
/* Run the hooks in order; the first failure ends it. */
int hooks_run(const struct container *c, struct err *e);

/* ---- self.c ---- */

/* Returns 0 in a process that runs from a sealed copy of this program, and begins it anew there if
 * it does not. */
int self_seal(char **argv, struct err *e);

/* ---- launch.c: the tree of processes of `run` and `exec` ---- */

struct launch {
	const char *id;
	const char *status_file;
	const struct container *container; /* of `run`; NULL: `exec` */
	const struct process *process;
	struct buffer filter;
	int joined; /* `exec`: pidfd of the container's first process, and its pid */
	pid_t first;
	int channel; /* to the other end of the set-up: SOCK_SEQPACKET */
	int child;   /* pidfd of the process, once there is one */
	bool started;
};

/* Start the process, wait for it, clean up. Returns the exit status. All signals are blocked
 * already. */
int launch(struct launch *l);

/* ---- the commands; each returns the exit status ---- */

int command_run(char **argv);
int command_exec(char **argv);
int command_sandbox(char **argv);
int command_kill(char **argv);
int command_pause(char **argv);
int command_resume(char **argv);
int command_ps(char **argv);
int command_stats(char **argv);
int command_update(char **argv);
int command_delete(char **argv);
int command_connect(char **argv);
int command_names(char **argv);

/* ---- netlink.c ---- */

int net_open(struct err *e);
enum net_state { NET_AS_IT_IS, NET_UP, NET_DOWN };
/* Name (NULL: as it is), MTU (0) and state of the interface with this index. */
int net_link(int nl, int index, const char *name, uint32_t mtu, enum net_state state,
	     struct err *e);
int net_addr(int nl, int index, const char *address, struct err *e);
int net_route(int nl, const struct route *r, struct err *e);
int net_neigh(int nl, const struct neigh *n, struct err *e);

/* One line on stderr; returns EXIT_FAILED. */
int complain(const struct err *e);

#endif
