/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The manifest of a storage module, LIBEXEC/modules/NAME.json (docs/modules.md): what its settings
 * are, what the supervisor connects for it, its jail and its limits.
 *
 * There are two kinds. One is linked with libinsula-module.a and lies beside its manifest. The
 * other ("serves": "vhost-user") is a program of the host that knows nothing of us: its manifest
 * says where it is, how it is called, which files it works with, and what would be wrong with them.
 *
 * It is read by whoever starts a VM, with that user's rights, and may be installed by somebody
 * else: so it is checked strictly, and so are the files.
 */
#ifndef SPEC_MANIFEST_H
#define SPEC_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <insula/err.h>

#define MANIFEST_MAX (64u << 10) /* bytes of the text */
#define MANIFEST_SETTINGS 16
#define MANIFEST_CHOICES 8
#define MANIFEST_SCHEMES 8
#define MANIFEST_WORD 32 /* with its NUL: keys, choices, schemes */
#define MANIFEST_TEXT 160
#define MANIFEST_MAX_MEMORY (64ull << 30)
#define MANIFEST_ARGUMENTS 48
#define MANIFEST_ARGUMENT 512 /* bytes of one, with its NUL */
#define MANIFEST_REFUSALS 24
#define MANIFEST_WHEN 64
#define MANIFEST_BYTES 16
#define MANIFEST_AT 64 /* bytes of a path, with its NUL */
#define MANIFEST_PARTS 8
#define MANIFEST_REACHES 8
#define MANIFEST_TARGET "target"       /* the key of what follows NAME: */
#define MANIFEST_FILE_MAX (256u << 10) /* bytes of a file that a module of the first kind gets */

/* A file: an absolute path, opened by the supervisor. A module of the first kind gets what it holds. */
/* Hosts: names and addresses, "+" between them; ADDRESS/BITS is all of a network. */
enum manifest_type {
	MANIFEST_TEXT_TYPE = 1,
	MANIFEST_NUMBER,
	MANIFEST_CHOICE,
	MANIFEST_FILE,
	MANIFEST_HOSTS
};

struct manifest_setting {
	char key[MANIFEST_WORD];
	enum manifest_type type;
	uint64_t min, max; /* of a number; characters of a text; bytes of a file (max) */
	unsigned nchoices;
	char choice[MANIFEST_CHOICES][MANIFEST_WORD];
	char value[MANIFEST_TEXT]; /* the default; "": none */
	bool required;             /* the user has to say it */
	bool write;                /* a file: it is written, unless the disk is ro */
	bool line_of_user;    /* a file: of its lines "USER:..." that of the URI's user alone */
	char at[MANIFEST_AT]; /* a file of the second kind: where the program sees it; "": in /files */
	char help[MANIFEST_TEXT];
};

/* ---- of the second kind ---- */

/* It is one if `when` holds: words between spaces, each "KEY" (it is said), "KEY=VALUE", or one of
 * them after a "!". "": always. In `text` a value stands as ${KEY}. */
struct manifest_argument {
	char when[MANIFEST_WHEN];
	bool adds; /* to the one before */
	char text[MANIFEST_ARGUMENT];
};

/* If `when` holds, and what is said of the file, the disk is refused with a line. */
struct manifest_refusal {
	char when[MANIFEST_WHEN];
	char says[MANIFEST_TEXT];
	char file[MANIFEST_WORD]; /* key of a setting; "": nothing is said of a file */
	uint64_t at;              /* where in it: */
	unsigned nbits, nbytes;   /* any of these bits is set; other bytes than these are there */
	uint8_t bits[MANIFEST_BYTES], bytes[MANIFEST_BYTES];
	uint64_t multiple; /* its size is no multiple of this; 0: any size will do */
};

/* If `when` holds, the program may connect to what the setting `to` says (hosts), at the ports that
 * the setting `ports` says: "N" or "N-M". */
struct manifest_reach {
	char when[MANIFEST_WHEN];
	char to[MANIFEST_WORD], ports[MANIFEST_WORD];
};

/* What the user has said: `text` is of manifest_settings(). Besides the settings, ${ro} and
 * ${write} are true or false, and ${queues} is a number. */
struct manifest_values {
	const char *text;
	size_t len;
	bool ro;
	unsigned queues;
};

enum manifest_over { MANIFEST_TCP = 1, MANIFEST_UNIX };

struct manifest_scheme {
	char name[MANIFEST_WORD];
	enum manifest_over over;
	uint16_t port; /* of TCP, when the URI says none */
};

struct manifest {
	char program[MANIFEST_TEXT]; /* a file beside the manifest; its name if it does not say. Of
				      * the second kind an absolute path */
	char about[MANIFEST_TEXT];
	bool serves;                 /* the second kind */
	bool keeps_account;          /* of requests (INFLIGHT_SHMFD), though it does not offer to */
	char package[MANIFEST_TEXT]; /* of Debian, with the program in it; "": not said */
	bool has_target;
	struct manifest_setting target;
	unsigned nparts; /* what the target looks like: the first that fits, "${KEY}/${KEY}" */
	char part[MANIFEST_PARTS][MANIFEST_WHEN];
	unsigned nreaches;
	struct manifest_reach reach[MANIFEST_REACHES];
	bool reconnects; /* its connections come back; else it ends with them, and is started again */
	unsigned narguments, nrefusals;
	struct manifest_argument argument[MANIFEST_ARGUMENTS];
	struct manifest_refusal refusal[MANIFEST_REFUSALS];
	/* 0: nothing is connected, and what follows NAME: is the module's own. Of the second
	 * kind the target is such a URI, and ${scheme}, ${host}, ${port}, ${user} and ${path}
	 * are there. */
	unsigned nschemes;
	struct manifest_scheme scheme[MANIFEST_SCHEMES];
	unsigned nsettings;
	struct manifest_setting setting[MANIFEST_SETTINGS];
	uint32_t calls; /* enum module_calls */
	uint64_t memory;
	uint32_t threads, descriptors;
};

/* `name` is the module's. -EINVAL: a line that names the member, its value and what was expected.
 * */
int manifest_parse(struct manifest *m, const char *name, const char *text, size_t len,
		   struct err *e);

/* Read DIR/NAME.json and open its program, both checked: regular files that belong to root or to
 * who asks, that nobody else may write to, in a directory of which the same holds. *exec_fd is the
 * caller's. -ENOENT: there is no such module. */
int manifest_open(struct manifest *m, const char *dir, const char *name, int *exec_fd,
		  struct err *e);

/* Another file of that directory, checked in the same way; the caller's. */
int manifest_open_beside(const char *dir, const char *name, struct err *e);

/* NULL: there is none of that name. */
const struct manifest_setting *manifest_setting(const struct manifest *m, const char *key,
						size_t len);
const struct manifest_scheme *manifest_scheme(const struct manifest *m, const char *name);
/* Of the second kind: does the program get the query of a URI? It does with the whole target,
 * and not with its parts. */
bool manifest_takes_query(const struct manifest *m);

/* The settings as the user gave them, "KEY=VALUE:KEY=VALUE", where "::" stands for a colon in a
 * value, and the defaults of the others: into out[size], "KEY=VALUE" each, with a NUL behind each
 * of them. The length, or -EINVAL. */
int manifest_settings(const struct manifest *m, const char *given, char *out, size_t size,
		      struct err *e);

/* ---- of the second kind: manifest_serve.c ---- */

/* The same for what follows NAME: as the value of MANIFEST_TARGET. */
int manifest_target(const struct manifest *m, const char *target, char *out, size_t size,
		    struct err *e);
/* One behind the other into out[size] at *n, "KEY=VALUE" and a NUL. -ENOSPC. */
int manifest_put(char *out, size_t size, size_t *n, const char *key, const char *value);
/* Has it connections at all? */
bool manifest_has_network(const struct manifest *m);
/* Do these words of a `when` hold? */
bool manifest_holds(const struct manifest_values *v, const char *when);
/* The value of a setting; NULL: it has none. */
const char *manifest_value(const struct manifest_values *v, const char *key);
/* What its files and settings must not be, of those that say something of `file` (key of a setting;
 * NULL: those that say nothing of a file). -EINVAL: the line. */
int manifest_refuses(const struct manifest *m, const struct manifest_values *v, const char *file,
		     int fd, struct err *e);
/* Its arguments, with the name of the program before them and a NULL behind them, all of them in
 * `room`. A file is named /files/KEY. */
int manifest_argv(const struct manifest *m, const struct manifest_values *v,
		  const char *argv[MANIFEST_ARGUMENTS + 2], char *room, size_t size, struct err *e);

#endif
