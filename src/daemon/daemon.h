/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insulad: the door and the registry. No guest memory, no device.
 *
 *   client.c    clients: lines in, lines out, limits
 *   foreign.c   descriptors that others have made
 *   closer_*.c  closing those, in other threads
 *   listen_*.c  where they come in, and who they are
 *   link_*.c    a connection: a socket, or a named pipe
 *   http_linux.c  the metrics socket
 *   rpc.c       JSON-RPC 2.0: a line becomes requests, answers become lines
 *   methods.c   the table of methods, and what each does
 *   exec.c      the methods that run commands in a VM
 *   logs.c      the method that reads a VM's log
 *   machine.c   one VM: its record, its supervisor, its end
 *   talk.c      the socket of a supervisor
 *   spawn_*.c   starting one
 *   process_*.c its process: whether it lives, its end
 *   state_*.c   the state directory
 *   event.c     who is told what
 *   cgroup_*.c  the control group of a VM
 *   host_*.c    what else the system has of its own
 *
 * One thread, one loop. Nothing here blocks but fsync of a record, and start-up. What clients and
 * supervisors have sent is closed in other threads, and the log is written in one; for root, the
 * groups of a user are looked up in one of libuv's.
 */
#ifndef DAEMON_DAEMON_H
#define DAEMON_DAEMON_H

#include <json-c/json.h>
#include <uv.h>

#include "cgroup.h"
#include "closer.h"
#include "conf.h"
#include "link.h"
#include "record.h"
#include "spec/json.h"
#include "watch.h"

struct client;
struct daemon;
struct machine;
struct method;
struct request;
struct user;

/* ---- requests (rpc.c) ---- */

#define REQUEST_FDS 3
#define RPC_DEPTH 24
#define RPC_BATCH 64

/* Codes of JSON-RPC 2.0, 5.1, and ours; each reason has one of them. */
enum rpc_code {
	RPC_PARSE = -32700,
	RPC_INVALID = -32600,
	RPC_NO_METHOD = -32601,
	RPC_BAD_PARAMS = -32602,
	RPC_INTERNAL = -32603,
	RPC_NOT_FOUND = -32001,
	RPC_EXISTS = -32002,
	RPC_STATE = -32003,
	RPC_LIMIT = -32004,
	RPC_FAILED = -32005,
	RPC_TIMEOUT = -32006,
	RPC_BUSY = -32007,
	RPC_UNSUPPORTED = -32008,
	RPC_DENIED = -32009,
};

struct refusal {
	enum rpc_code code;
	const char *reason;                          /* stable, a static string */
	const char *field, *value, *expected, *text; /* NULL: nothing to say */
};

struct batch;
struct request {
	struct request *next;  /* of the same client */
	struct client *client; /* NULL: it has gone; answering is still right */
	struct batch *batch;
	json_object *id; /* owned; may be JSON's null */
	bool notification;
	bool running, over; /* its method runs; and has answered it already */
	const struct method *method;
	json_object *params; /* an object; owned */
	struct daemon *d;
	uint32_t uid;        /* of the client, whose these are: */
	int fd[REQUEST_FDS]; /* owned; -1: none */
	unsigned nfds;
	bool more_fds; /* than a request may have */
	uint32_t exec; /* of a held request that waits for a command, not for the VM's end; 0 */
	/* While a machine keeps it: machine_hold(). */
	struct machine *machine;
	struct request *next_held;
	struct timer *timer;
};

/* One line of a client, without its end. */
void rpc_line(struct daemon *d, struct client *c, const char *text, size_t len);
/* A request whose client is gone and that nobody keeps. */
void request_free(struct request *r);
/* Each request is answered once, by one of these, now or later; it is freed then, or when the
 * method that was called for it returns, whichever is later. `result` is taken over; `fd` goes with
 * it (-1: none) and stays the caller's. */
void request_answer(struct request *r, json_object *result);
void request_answer_fd(struct request *r, json_object *result, int fd);
void request_refuse(struct request *r, const struct refusal *why);
/* A refusal outside any request: the line cannot be understood. */
void rpc_refuse_line(struct client *c, const struct refusal *why);

/* ---- methods (methods.c, discover.c) ---- */

struct method {
	const char *name, *summary;
	void (*run)(struct daemon *d, struct request *r);
	const char *params, *result; /* JSON schemas */
	bool takes_fds;
};
/* logs.c */
void vm_logs(struct daemon *d, struct request *r);
/* The VM has ended: who follows its log gets the rest and no more. `m` may go afterwards. */
void logs_ended(struct machine *m);
/* The loop ends. After clients_close(). */
void logs_close(struct daemon *d);
/* exec.c */
void vm_exec(struct daemon *d, struct request *r);
void vm_exec_signal(struct daemon *d, struct request *r);
void vm_exec_resize(struct daemon *d, struct request *r);
void vm_exec_wait(struct daemon *d, struct request *r);
/* The VM's supervisor says that a command has ended: {exec, status, reason, text}. */
void exec_ended(struct machine *m, json_object *data);

/* For them (methods.c). The VM that the parameter "id" names; NULL: refused. */
struct machine *method_named(struct daemon *d, struct request *r);
/* The same, and it runs. */
struct machine *method_machine(struct daemon *d, struct request *r);
/* How many streams came with the request, as descriptors or as names of pipes; negative: it is
 * refused. */
int method_streams(struct request *r);
/* Whose such pipes must be; NULL: anybody's. */
const char *method_owner(const struct request *r);
void method_refuse_field(struct request *r, enum rpc_code code, const char *reason,
			 const char *field, const char *value, const char *expected);
void method_refuse(struct request *r, enum rpc_code code, const char *reason, const char *text);
/* A supervisor's error. */
void method_refuse_as(struct request *r, json_object *error);
/* reply_fn: what the supervisor said, as it is. */
void method_pass_on(struct machine *m, struct request *r, json_object *result, json_object *error,
		    int fd);
extern const struct method methods[];
extern const size_t nmethods;
/* The schemas as objects; owned by the daemon. */
struct schemas {
	json_object **params, **result;
};
int schemas_load(struct schemas *s, struct err *e);
void schemas_free(struct schemas *s);
const struct method *method_find(const char *name, size_t *index);
/* One whose name is near; NULL: none is. */
const char *method_meant(const char *name);
json_object *discover_document(void); /* the caller's */
int discover_markdown(void);          /* to standard output */

/* ---- clients (client.c) ---- */

struct chunk;
struct client {
	struct client *next;
	struct daemon *d;
	struct link *link; /* owned; NULL: a test's */
	struct owner who;
	void (*serve)(struct client *c); /* what it sends is not JSON-RPC; NULL: it is */
	struct timer *idle;              /* looks whether it is: idle_timeout */
	uint64_t active_ns;              /* when it last was */
	bool closing;                    /* when everything is written */
	bool eof;                        /* it will not send more; it may still read */
	struct timer *again;             /* lines are left in the buffer */
	bool gone;                       /* freed when nothing in the call stack uses it */
	char *in;
	size_t nin, in_size;
	int got[REQUEST_FDS]; /* descriptors for the next line */
	unsigned ngot;
	bool got_more; /* than REQUEST_FDS: they are given up already */
	struct chunk *out, **out_end;
	size_t queued;
	unsigned nfds; /* in there */
	struct request *requests;
	unsigned nrequests;
	bool subscribed;
	char filter[ID_LEN + 1]; /* events of this VM only; "": all */
	uint64_t seq;
};

void clients_close(struct daemon *d);
/* Somebody has come in. Takes `l` over. */
void client_take(struct daemon *d, struct link *l, const struct owner *who,
		 void (*serve)(struct client *c));
/* Queue bytes as they are. */
void client_write(struct client *c, const char *text, size_t len);
/* Queue one line (its end is added); takes `fd` over, which foreign_took() has counted; -1: none.
 */
void client_send(struct client *c, const char *text, int fd);
void client_close(struct client *c);
/* After a request has been answered: read on, or close. */
void client_settle(struct client *c);
/* For tests and fuzzers: a client without a connection; what it is sent stays in its queue. */
struct client *client_make(struct daemon *d, const struct owner *who);
const char *client_first_line(const struct client *c);
void client_free_line(struct client *c);

/* May one more descriptor wait until it reads? */
bool client_has_room(struct client *c);
/* Those that had to wait are read from again. */
void clients_go_on(struct daemon *d);

/* ---- descriptors of others (foreign.c) ---- */

#define FOREIGN_MIN_NOFILE 2048
int foreign_open(struct daemon *d, struct err *e);
/* `n` of them have come from `uid`. */
void foreign_took(struct daemon *d, uint32_t uid, unsigned n);
/* One is needed no longer. -1: nothing to do; is -1 then. */
void foreign_close(struct daemon *d, uint32_t uid, int *fd);
/* link_free() of a connection to `uid`. NULL is fine. */
void foreign_hang_up(struct daemon *d, uint32_t uid, struct link *l);
/* May nothing be received from this user, because that may bring more? Whoever asks will be asked
 * again (clients_go_on(), machines_go_on()). */
bool foreign_full(struct daemon *d, uint32_t uid);
/* The process has no descriptors left for one more connection or VM of this user. */
bool foreign_table_full(const struct daemon *d, uint32_t uid);
/* There are fewer. */
void foreign_go_on(struct daemon *d);

/* listen_*.c */
struct door; /* where clients come in */
/* Is there whom socket_group names? */
int clients_check(const struct conf *c, struct err *e);
int clients_listen(struct daemon *d, struct err *e);
void clients_unlisten(struct daemon *d);
/* The system has no descriptor left but the one that is just being taken. */
bool clients_full(const struct daemon *d);
/* A record was read: what its owner is called in this daemon. Linux: as it says. */
int owner_found_again(struct daemon *d, struct owner *who, struct err *e);
/* http_linux.c */
void http_serve(struct client *c);

/* ---- events (event.c) ---- */

/* Tell the subscribers who may know of `m`. `data` is taken over, may be NULL. */
void event_emit(struct daemon *d, struct machine *m, const char *what, json_object *data);

/* ---- machines (machine.c, talk.c, spawn.c) ---- */

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
	struct timer *rest;  /* until it is read from again */
	bool held;           /* not read from: its user has too many descriptors */
	struct timer *grace; /* removes what ended while nobody could see it */
	unsigned restarts;
	char *broken; /* VM_BROKEN: why its record cannot be read; owned */
	bool newer;   /* and that is because a newer insulad has written it */
};

/* May this client see and touch it? */
bool machine_visible(const struct machine *m, const struct client *c);
/* By id or name. Of equal names the client's own counts; *several, and NULL: there are others'
 * only, and more than one. */
struct machine *machine_find(struct daemon *d, const struct client *c, const char *which,
			     bool *several);
struct machine *machine_new(struct daemon *d);
/* Forget one that nobody has seen. */
void machine_forget(struct machine *m);
/* Forget it, with everything in the state directory. It must not run. */
void machine_remove(struct machine *m);
bool machine_active(const struct machine *m); /* it has a supervisor */
/* Of one whose record cannot be read: its supervisor's socket is served. */
bool machine_is_served(struct machine *m);
int machine_save(struct machine *m, struct err *e);
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
json_object *machine_json(const struct machine *m, bool full);
json_object *machine_result(const struct machine *m); /* the caller's; "{}" if it has not ended */
int machines_load(struct daemon *d, struct err *e);
void machines_close(struct daemon *d);
/* Those that had to wait are read from again. */
void machines_go_on(struct daemon *d);

/* Connect to its supervisor and say hello. */
int talk_open(struct machine *m, struct err *e);
/* The same over a connection that there is already; takes `fd` over. */
int talk_begin(struct machine *m, int fd, struct err *e);
/* The same, now and at longer and longer intervals until it works: a supervisor may be busy. One
 * whose process cannot be watched, and whose socket is no more, has ended: `m` may be freed. */
void talk_find(struct machine *m);
void talk_close(struct machine *m);
/* Ask the supervisor; `done` is called exactly once, with a result or an error. Takes `params`
 * over. `fd` descriptors of `r` go along when `with_fds`. */
void talk_ask(struct machine *m, const char *op, json_object *params, reply_fn *done,
	      struct request *r, bool with_fds);

/* Before any descriptor comes from anybody else. */
int spawn_prepare(struct err *e);
/* Start the supervisor: r.pid, r.start_time, process. It begins when one byte is written to *go,
 * and never if insulad dies before. */
int spawn_supervisor(struct machine *m, int *go, struct err *e);
/* Connect to it: a descriptor for link_new(), of packets. -ENOENT: its socket is no more; other
 * errors: not now. */
int supervisor_connect(struct machine *m, struct err *e);

/* ---- processes (process_*.c) ---- */

/* When it started, in its own units; 0: there is no such process, or it cannot be looked at. */
uint64_t process_start_time(int pid);
/* That very process: pidfd or handle, as far as we may. -ESRCH: it is no more. Other errors: it
 * cannot be seen, for want of rights or, just now, of descriptors or memory. */
int process_open(const struct record *r);
/* Kill it. Negative: it cannot be, or is no more. */
int process_shoot(int process);
/* One that we have just made: end it and wait for that. */
void process_undo(const struct machine *m);
/* It has ended: how, -1: nobody knows. */
int64_t process_reap(const struct machine *m);
/* And without a result: `reason` (of 32 bytes) and a line. */
void process_loss(int64_t how, char *reason, char *text, size_t size);
/* What tells one run of the system from the next, "": nothing does. */
int process_boot_id(char *out, size_t size, struct err *e);

/* ---- state directory (state.c) ---- */

/* A directory of this mode, unless there is one; 0 or a negative errno. Linux. */
int make_dir(const char *path, unsigned mode);
/* Create and lock it; the descriptor of STATE/vm. */
int state_open(const char *path, int *lock, struct err *e);
int state_make(int dir, const char *id, struct err *e);
/* The directory of one VM. */
int state_enter(int dir, const char *id);
/* Replace a file: a temporary one, fsync if `durable`, rename. */
int state_write(int dir, const char *id, const char *name, const char *text, bool durable,
		struct err *e);
/* A whole file of at most `max` bytes; the caller's, with a NUL behind it. */
int state_read(int dir, const char *id, const char *name, size_t max, char **text, size_t *len);
/* A file of a VM to read, which another process may write: a descriptor, or a negative errno. */
int state_file_open(int dir, const char *id, const char *name);
/* Its record first, and if that cannot be removed, nothing. */
void state_remove(int dir, const char *id);
/* Call `fn` with each id that has a directory. */
int state_list(int dir, void (*fn)(struct daemon *d, const char *id), struct daemon *d,
	       struct err *e);

/* ---- the rest ---- */

/* log.c: one line, as text or as JSON; with fields where the journal listens. */
void dlog_setup(const struct conf *c);
/* The first time. From here on a thread writes the lines: log_queue_start(). */
int dlog_start(const struct conf *c);
void dlog(int level, const struct machine *m, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* log_*.c: the system's own log. */
void journal_open(void);
/* False: there is none. */
bool journal_write(int level, const struct machine *m, const char *text);

/* notify_*.c: what systemd wants to know, and the sockets that it hands over. */
int notify_sockets(int *out, unsigned max); /* number of descriptors */
void notify_send(const char *text);
uint64_t notify_watchdog_ms(void); /* 0: none */

/* metrics.c */
json_object *metrics_json(struct daemon *d);
#define METRICS 12
/* One of the counters. */
uint64_t metric(const struct daemon *d, size_t i, const char **name, const char **help);
void metrics_states(const struct daemon *d, unsigned n[VM_STATES]);

/* host_*.c */
void host_prepare(struct daemon *d); /* limits, signals; before everything */
/* Where the supervisors' program is: d->supervisor. */
int host_supervisor(struct daemon *d, struct err *e);
uint64_t host_memory(void); /* bytes */
/* Fill in the groups that the system gives who->uid today, and its first one; a user whom nobody
 * knows has none. May take long, and is called from other threads. -E2BIG: more than MAX_GROUPS;
 * other errors: they cannot be known. Windows: there is nothing to look up. */
int host_groups(struct owner *who);
/* Whose the daemon is. 0: root, who may become anybody; Windows: always. */
uint32_t host_uid(void);
/* Clients name their streams, because no descriptor can travel. */
extern const bool host_names_streams;
/* A client's descriptor that can be a console. */
bool host_is_stream(int fd);
/* What ends the daemon, and what makes it read its configuration again (0: nothing). */
extern const int host_signals[];
extern const size_t host_nsignals;
extern const int host_reload_signal;
/* Arguments in UTF-8. */
char **host_arguments(int *argc, char **argv);

struct daemon {
	uv_loop_t loop;
	struct conf conf;
	const char *conf_path;
	json_object *flags; /* settings of the command line; owned */
	struct schemas schemas;
	struct cgroups cgroups;
	int state, state_lock, supervisor;
	struct door *door;
	struct closer *closer;
	struct user *users; /* who have descriptors here */
	unsigned foreign;   /* all of those */
	bool held_back;     /* somebody waits until there are fewer */
	struct timer *watchdog;
	struct client *clients;
	unsigned nclients;
	struct machine *machines;
	unsigned nmachines;
	struct logs_job *logs; /* reading of logs that is under way */
	unsigned nlogs;
	char boot_id[37];
	struct rlimit_pair {
		uint64_t soft, hard;
	} nofile; /* as it was, for supervisors */
	bool quitting;
	uint64_t started_ns;
	struct {
		uint64_t requests, refusals, bad_lines, clients, refused_clients,
			dropped_subscribers;
		uint64_t created, started, ended, deleted, adopted, restarts;
	} n;
};

int64_t now_ms(void); /* since 1970 */
/* Hexadecimal digits from the kernel's random numbers. */
void random_hex(char *out, size_t digits);

#endif
