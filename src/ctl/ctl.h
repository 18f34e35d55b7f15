/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insulactl: friendly words over insulad's socket.
 *
 * conn.c speaks JSON-RPC, print.c makes tables, config.c turns the flags of insula-run into a
 * configuration, with alias.c those that other programs' users know (-p, -v ...); flags.c reads the
 * others. verbs.c has the table of verbs and those that start VMs, pool.c pools of them, look.c
 * those that look at them, usage.c what they use, end.c their end. In pairs for Linux and Windows:
 * wire_*.c is the connection, stream_*.c copies consoles, exec_*.c runs commands, cp_*.c copies
 * files. One thread; on Windows a second one that reads what is typed.
 */
#ifndef CTL_CTL_H
#define CTL_CTL_H

#include <stdbool.h>
#include <stdint.h>

#include <json-c/json.h>

#include <insula/err.h>

#include "spec/describe.h"

#define CTL_PATH_MAX 4096

/* An error code that is no errno: insulad has refused. */
#define CONN_REFUSED 10000
/* Those of them that somebody asks for; the others are CONN_REFUSED itself. */
enum { CONN_NOT_FOUND = CONN_REFUSED + 1, CONN_WRONG_STATE, CONN_BAD_INPUT, CONN_LAST };

enum ctl_status { CTL_FAILED = 125, CTL_BAD_INPUT = 2, CTL_REFUSED = 1 };

struct conn {
	int fd;
	char *in;
	size_t nin, size;
	int64_t id;
	int got; /* a descriptor that came with the last line; -1: none; the caller takes it */
};

int conn_open(struct conn *c, const char *path, struct err *e);
void conn_close(struct conn *c);
/* Send a request; its id, or a negative errno. Takes `params` over; `fds` stay the caller's. */
int64_t conn_send(struct conn *c, const char *method, json_object *params, const int *fds,
		  unsigned nfds, struct err *e);
/* The next object, the caller's. NULL: error in `e`. Blocks. */
json_object *conn_next(struct conn *c, struct err *e);
/* Is there one already, without asking the kernel? */
bool conn_has_line(const struct conn *c);
/* The answer to the request of this id: as conn_call(). */
json_object *conn_wait(struct conn *c, int64_t id, struct err *e);
/* Send, and wait for the answer: the result, the caller's. NULL: a line in `e`; e->code is
 * -CONN_REFUSED if the daemon refused. */
json_object *conn_call(struct conn *c, const char *method, json_object *params, struct err *e);
/* The result of an answer, the caller's; NULL: its error as a line. */
json_object *conn_result(json_object *answer, struct err *e);

/* print.c */
bool print_is_table(bool json); /* standard output is a terminal, and nobody wants JSON */
void print_json(json_object *o);
void print_vms(json_object *list);
void print_pools(json_object *list);
void print_devices(json_object *answer); /* of vm.device.list */
/* vm.stats of several VMs, each with "cpu_percent" if it is known. */
void print_stats(json_object *list);
void print_pretty(json_object *o);
/* Of a question on standard error: does the line on standard input begin with y? */
bool print_ask(const char *question);
void print_members(json_object *o); /* "key  value" lines, also of what is inside */
/* Text without control characters, tabs excepted. The buffer is the next call's, too. */
const char *print_clean(const char *text, size_t len);
/* A line for a person, on standard error: "insulactl: " and the text, which a VM may have worded:
 * without control characters. */
void print_message(const char *before, const char *text);
void print_event(json_object *params);

/* stream_*.c: consoles. Each has an end that is ours, a descriptor; the other goes to insulad. */
struct stream {
	int fd, errors; /* ours; errors < 0: there is one stream for both outputs */
};
void stream_close(struct stream *s);
/* Make one whose other ends go with a request: peer[] is for conn_send(), the caller's; how many
 * there are (0: it goes by name, in `params`), or a negative errno. Once in a process. */
int stream_offer(struct conn *c, json_object *params, struct stream *s, int peer[2], struct err *e);
/* Call vm.console, whose answer is only about that. Takes `params` over. Our end, or a negative
 * errno as conn_call() has it. */
int stream_attach(struct conn *c, json_object *params, struct err *e);
/* Copy between the standard streams and it until it ends (0), the user types the escape, Ctrl-]
 * (1), or a signal comes (its number, negative). The terminal is as it was. One that was offered
 * and is refused by an answer on `c` ends too. `leave`: 1 also STREAM_LEAVE_MS after the end of an
 * input that is no terminal, all of which has been delivered. STREAM_LOST: an output takes no more.
 */
#define STREAM_LEAVE_MS 1000
#define STREAM_LOST 2
int stream_console(struct conn *c, const struct stream *s, bool leave);

/* config.c: flags as insula-run has them, up to the command; optind-like: *used says how many. */
struct run_options {
	const char *verb; /* for messages */
	const char *name;
	const char *pool; /* run: to take one of; NULL: of none */
	unsigned count;   /* pool create; 0: not given */
	char made[20];    /* a name, if somebody needs one and the user has given none */
	bool detach, remove, help;
	json_object *config;  /* owned */
	json_object *publish; /* of -p, an array; owned; NULL: none */
};
void config_options_free(struct run_options *o);
int config_flags(struct run_options *o, int argc, char **argv, struct err *e);
/* Are the files there that the VM needs at its start, seen with our own rights? One that is not is
 * the user's error, now and not when the VM starts. What is no good otherwise insulad refuses. */
int config_look(const struct run_options *o, struct err *e);
/* The flags of run, create or pool, which begin with the settings; CONFIG_WORDS entries are room
 * enough. How many there are. */
#define CONFIG_WORDS (SETTINGS + 20)
size_t config_words(const char *verb, struct flag_words *out);

/* alias.c: what is written as others write it becomes settings. */
/* "[ADDR:]HOST:GUEST[/tcp|/udp]" as the text of fwd=: the caller's; NULL: out of memory. */
char *alias_forward(const char *text);
/* The forwards of -p go to the first network that is "user", or to a new one. -ENOMEM. */
int alias_publish(json_object *config, json_object *forwards);
/* The lines of a file: NAME=VALUE, NAME (its value here), # and empty ones. */
int alias_env_file(json_object *config, const char *path, struct err *e);

/* wire_*.c: the connection. These block; negative errnos. */
extern const char wire_default[]; /* where insulad listens */
int wire_open(const char *path, struct err *e);
/* All of it; descriptors go with the first byte. */
int wire_send(int fd, const char *text, size_t len, const int *fds, unsigned nfds);
/* The number of bytes, 0: the end. A descriptor that came along replaces *got. */
int wire_recv(int fd, void *buf, size_t size, int *got);
/* What the user typed, in UTF-8. */
char **wire_arguments(int *argc, char **argv);
/* Is there such a file or directory, that we may read? */
int wire_look(const char *path);
/* The current directory, "": it has no such path. */
void wire_directory(char *out, size_t size);

/* verbs.c */
struct ctl {
	struct conn conn;
	const char *path; /* of the socket */
	bool json, force, follow, timestamps, all, quiet, once, set_clock, diff, ends;
	const char *base, *name;         /* --base, --name; borrowed */
	int64_t count;                   /* --count; 0: not given */
	int64_t mem, cpus;               /* --mem, bytes, and --cpus; 0: not given */
	json_object *filters;            /* of --filter, an array of texts; owned; NULL: none */
	int64_t timeout, tail, since_ms; /* seconds; -1: not given; 0: not given */
};
struct verb {
	const char *name;
	const char *aliases; /* between spaces; NULL: none */
	const char *args, *summary;
	int (*run)(struct ctl *c, int argc, char **argv); /* exit status */
	int min, max;                                     /* arguments; max < 0: any */
	unsigned flags;                                   /* flag_bit's; 0: it reads its own */
	const char *more;                                 /* for its help; NULL: nothing */
	/* Of its own flags; NULL: it has none. */
	size_t (*words)(const char *verb, struct flag_words *out);
};
/* What e->code means for whoever started us. */
int ctl_status(const struct err *e);
/* Say it: the status. */
int ctl_fail(const struct err *e);
/* Of several VMs the one that it is about is named, unless the line names it. */
int ctl_fail_of(const struct err *e, const char *vm, bool several);
/* {"id": VM} */
json_object *ctl_with_id(const char *vm);
/* For a program; what says nothing is printed only if JSON was asked for. */
void ctl_print_answer(const struct ctl *c, json_object *r);
/* One of several is done: on a terminal its name. */
void ctl_print_done(const struct ctl *c, const char *name, json_object *r);
/* Call it, and print what came: the status. */
int ctl_simple(struct ctl *c, const char *method, json_object *params);
/* The same for several VMs; quiet on a terminal. `deadline`: deadline_ms; -1: none. */
int ctl_each(struct ctl *c, const char *method, int argc, char **argv, int64_t deadline);
/* The same of other things than VMs, by this parameter. */
int ctl_each_of(struct ctl *c, const char *method, const char *key, int argc, char **argv,
		int64_t deadline);
/* What vm.wait, or vm.run with "wait", has answered: its message is printed; its status. */
int ctl_end_status(json_object *r);

/* device.c: the verb. */
int verb_device(struct ctl *c, int argc, char **argv);
/* metadata.c: the verb. */
int verb_metadata(struct ctl *c, int argc, char **argv);
/* policy.c: the verbs. */
int verb_policy(struct ctl *c, int argc, char **argv);
int verb_limit(struct ctl *c, int argc, char **argv);
/* pool.c: the verb. */
int verb_pool(struct ctl *c, int argc, char **argv);

/* look.c, usage.c, end.c: verbs. */
int verb_ps(struct ctl *c, int argc, char **argv);
int verb_info(struct ctl *c, int argc, char **argv);
int verb_inspect(struct ctl *c, int argc, char **argv);
int verb_metrics(struct ctl *c, int argc, char **argv);
int verb_top(struct ctl *c, int argc, char **argv);
int verb_stats(struct ctl *c, int argc, char **argv);
int verb_cp(struct ctl *c, int argc, char **argv);
int verb_stop(struct ctl *c, int argc, char **argv);
int verb_kill(struct ctl *c, int argc, char **argv);
int verb_rm(struct ctl *c, int argc, char **argv);
int verb_prune(struct ctl *c, int argc, char **argv);
int verb_wait(struct ctl *c, int argc, char **argv);

/* exec.c: the flags. And: 0 and the command's status; or a negative errno, as conn_result() has it.
 */
size_t exec_words(const char *verb, struct flag_words *out);
int ctl_exec(struct ctl *c, int argc, char **argv, int *status, struct err *e);
/* image_linux.c, image_win.c: the caller's images, which insulad has no part in. */
int ctl_image(struct ctl *c, int argc, char **argv);
/* module_linux.c, module_win.c: "module ls", without insulad. */
int ctl_module(struct ctl *c, int argc, char **argv);
/* logs.c: the same without a status. */
int ctl_logs(struct ctl *c, const char *vm, struct err *e);
/* "10m", "1h30m" ago, or a date and a time: milliseconds since 1970. False: neither. */
bool time_since(const char *text, int64_t *out);
extern const struct verb verbs[];
extern const size_t nverbs;

/* flags.c: of verbs; one table of all. */
#define FLAG_BASE 1000 /* above every letter */
enum flag_bit {
	FLAG_HELP = 1,
	FLAG_JSON = 2,
	FLAG_FORCE = 4,
	FLAG_TIMEOUT = 8,
	FLAG_FOLLOW = 16,
	FLAG_TAIL = 32,
	FLAG_SINCE = 64,
	FLAG_TIMESTAMPS = 128,
	FLAG_ALL = 256,
	FLAG_QUIET = 512,
	FLAG_FILTER = 1024,
	FLAG_YES = 2048,
	FLAG_ONCE = 4096,
	FLAG_LINKS = 8192,
	FLAG_CLOCK = 16384,
	FLAG_BUILDS_ON = 32768,
	FLAG_DIFF = 65536,
	FLAG_ENDS = 131072,
	FLAG_COUNT = 262144,
	FLAG_NAME = 524288,
	FLAG_MEM = 1048576,
	FLAG_CPUS = 2097152,
	FLAG_PULLS = 4194304,
	FLAG_GIVES = 8388608,
	FLAG_CALLED = 16777216,
};
#define FLAG_ALONE (1u << 30) /* in a verb's flags: it needs no insulad */
struct flag {
	enum flag_bit bit;
	const char *name;
	char letter;       /* 0: none */
	const char *value; /* NULL: it has none */
	const char *words;
};
extern const struct flag flags[];
extern const size_t nflags;
/* Read them, wherever they stand, into `c`; *argc and *argv are without them then. 1: it was asked
 * for help, which is printed. -EINVAL. */
int verb_flags(struct ctl *c, const struct verb *v, int *argc, char ***argv, struct err *e);
void verb_help(const struct verb *v);
/* By its name or another one of it; NULL: there is none. */
const struct verb *verb_find(const char *name);
/* A name that is near; NULL: none is. */
const char *verb_meant(const char *name);
/* The flags before the verb. */
extern const struct flag_words ctl_flags[];
extern const size_t nctl_flags;
/* All flags of a verb; at most `max`. How many there are. */
/* All of the text: 0 to max. False: it is none. */
bool flag_number(const char *text, int64_t max, int64_t *out);
size_t verb_words(const struct verb *v, struct flag_words *out, size_t max);
/* For a shell: all verbs, or the flags of one, a word on each line. */
int complete(const char *name);
/* "VERB has no '--x'; did you mean --y?" `known`: without their dashes. -EINVAL. */
int unknown_flag(const char *verb, const char *text, const char *const *known, size_t n,
		 struct err *e);
/* What getopt_long() stopped at. */
const char *flag_text(char **argv, char out[64]);

#endif
