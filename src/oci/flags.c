/* SPDX-License-Identifier: BSD-2-Clause */
/* The command line. See flags.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "flags.h"

#define ON(c) (1u << CMD_##c)
#define GLOBAL (1u << CMD_NONE)
#define MAKES (ON(CREATE) | ON(RUN))

enum type { TEXT, SWITCH, REPEAT };

#define AT(member) offsetof(struct flags, member)
static const struct flag {
	const char *name;
	char letter;
	enum type type;
	size_t at;
	unsigned commands;
	const char *value, *help;
} table[] = {
	{"root", 0, TEXT, AT(root), GLOBAL, "DIR", "where containers are kept (/run/insula-oci)"},
	{"log", 0, TEXT, AT(log), GLOBAL, "FILE", "the log (standard error)"},
	{"log-format", 0, TEXT, AT(log_format), GLOBAL, "text|json", "of its lines"},
	{"debug", 0, SWITCH, AT(debug), GLOBAL, NULL, "more lines"},
	{"systemd-cgroup", 0, SWITCH, AT(systemd_cgroup), GLOBAL, NULL,
	 "control groups are systemd's: SLICE:PREFIX:NAME"},
	{"cgroup-manager", 0, TEXT, AT(cgroup_manager), GLOBAL, "cgroupfs|systemd|disabled",
	 "who makes control groups"},
	{"rootless", 0, TEXT, AT(rootless), GLOBAL, "BOOL", "taken from callers; root is needed"},
	{"config", 0, TEXT, AT(config), GLOBAL, "FILE", "in the place of /etc/insula/oci.json"},
	{"version", 'v', SWITCH, AT(version), GLOBAL, NULL, "and the specification's"},
	{"help", 'h', SWITCH, AT(help), ~0u, NULL, "this text"},

	{"bundle", 'b', TEXT, AT(bundle), MAKES | ON(SPEC), "DIR", "the bundle (.)"},
	{"console-socket", 0, TEXT, AT(console_socket), MAKES | ON(EXEC), "PATH",
	 "where the terminal's master is sent"},
	{"pid-file", 0, TEXT, AT(pid_file), MAKES | ON(EXEC), "FILE", "gets the process id"},
	{"preserve-fds", 0, TEXT, AT(preserve_fds), MAKES | ON(EXEC), "N",
	 "0: descriptors do not get into a VM"},
	{"no-pivot", 0, SWITCH, AT(no_pivot), MAKES, NULL, "no difference here"},
	{"no-new-keyring", 0, SWITCH, AT(no_new_keyring), MAKES, NULL, "no difference here"},
	{"no-subreaper", 0, SWITCH, AT(no_subreaper), ON(RUN) | ON(EXEC), NULL,
	 "no difference here"},
	{"detach", 'd', SWITCH, AT(detach), ON(RUN) | ON(EXEC), NULL, "do not wait for its end"},
	{"keep", 0, SWITCH, AT(keep), ON(RUN), NULL, "do not delete it at its end"},

	{"all", 'a', SWITCH, AT(all), ON(KILL), NULL, "to all of its processes"},
	{"force", 'f', SWITCH, AT(force), ON(DELETE), NULL, "kill it first; none is no error"},

	{"process", 'p', TEXT, AT(process), ON(EXEC), "FILE", "what to run, a Process as JSON"},
	{"cwd", 0, TEXT, AT(cwd), ON(EXEC), "DIR", "its directory"},
	{"env", 'e', REPEAT, AT(env), ON(EXEC), "NAME=VALUE", "a variable; repeat"},
	{"tty", 't', SWITCH, AT(tty), ON(EXEC), NULL, "on a terminal"},
	{"user", 'u', TEXT, AT(user), ON(EXEC), "UID[:GID]", "as this user"},
	{"additional-gids", 'g', REPEAT, AT(gids), ON(EXEC), "GID", "and this group; repeat"},
	{"cap", 'c', REPEAT, AT(caps), ON(EXEC), "CAP_NAME", "with this capability; repeat"},
	{"no-new-privs", 0, SWITCH, AT(no_new_privs), ON(EXEC), NULL, "no_new_privs"},
	{"process-label", 0, TEXT, AT(process_label), ON(EXEC), "LABEL", "no difference here"},
	{"apparmor", 0, TEXT, AT(apparmor), ON(EXEC), "PROFILE", "no difference here"},
	{"ignore-paused", 0, SWITCH, AT(ignore_paused), ON(EXEC), NULL, "also in a paused one"},

	{"format", 'f', TEXT, AT(format), ON(PS) | ON(LIST), "table|json", "of the answer"},
	{"quiet", 'q', SWITCH, AT(quiet), ON(LIST), NULL, "names alone"},

	{"resources", 'r', TEXT, AT(resources), ON(UPDATE), "FILE|-",
	 "limits, a LinuxResources as JSON"},
	{"memory", 0, TEXT, AT(memory), ON(UPDATE) | ON(TEMPLATE), "BYTES", "memory.limit"},
	{"memory-swap", 0, TEXT, AT(memory_swap), ON(UPDATE), "BYTES", "memory.swap"},
	{"memory-reservation", 0, TEXT, AT(memory_reservation), ON(UPDATE), "BYTES",
	 "memory.reservation"},
	{"cpu-quota", 0, TEXT, AT(cpu_quota), ON(UPDATE), "US", "cpu.quota"},
	{"cpu-period", 0, TEXT, AT(cpu_period), ON(UPDATE), "US", "cpu.period"},
	{"cpu-share", 0, TEXT, AT(cpu_share), ON(UPDATE), "N", "cpu.shares"},
	{"cpuset-cpus", 0, TEXT, AT(cpuset_cpus), ON(UPDATE), "LIST", "cpu.cpus"},
	{"cpuset-mems", 0, TEXT, AT(cpuset_mems), ON(UPDATE), "LIST", "cpu.mems"},
	{"pids-limit", 0, TEXT, AT(pids_limit), ON(UPDATE), "N", "pids.limit"},
	{"blkio-weight", 0, TEXT, AT(blkio_weight), ON(UPDATE), "N", "blockIO.weight"},

	{"cpus", 0, TEXT, AT(cpus), ON(TEMPLATE), "N", "processors (cpus of the configuration)"},
	{"cards", 0, TEXT, AT(cards), ON(TEMPLATE), "N", "network cards (1)"},

	{"stats", 0, SWITCH, AT(stats), ON(EVENTS), NULL, "once, and end"},
	{"interval", 0, TEXT, AT(interval), ON(EVENTS), "5s", "between two"},
};

/* Arguments: how many at the least and at the most, the ID included. */
static const struct {
	const char *name, *args, *help;
	unsigned min, max;
} commands[COMMANDS] = {
	[CMD_CREATE] = {"create", "ID", "make a container and its VM", 1, 1},
	[CMD_START] = {"start", "ID", "run its process", 1, 1},
	[CMD_STATE] = {"state", "ID", "how it is, as JSON", 1, 1},
	[CMD_KILL] = {"kill", "ID [SIGNAL]", "send a signal, TERM by itself", 1, 2},
	[CMD_DELETE] = {"delete", "ID", "remove what is left of it", 1, 1},
	[CMD_EXEC] = {"exec", "ID [COMMAND [ARG...]]", "run one more process in it", 1, ~0u},
	[CMD_PS] = {"ps", "ID [ps's options]", "its processes of the host", 1, ~0u},
	[CMD_PAUSE] = {"pause", "ID", "let nothing of it run", 1, 1},
	[CMD_RESUME] = {"resume", "ID", "let it go on", 1, 1},
	[CMD_UPDATE] = {"update", "ID", "change its limits", 1, 1},
	[CMD_FEATURES] = {"features", "", "what this runtime knows, as JSON", 0, 0},
	[CMD_LIST] = {"list", "", "all containers", 0, 0},
	[CMD_SPEC] = {"spec", "", "write a config.json", 0, 0},
	[CMD_RUN] = {"run", "ID", "create, start, wait, delete", 1, 1},
	[CMD_EVENTS] = {"events", "ID", "its counters and its ends, as JSON", 1, 1},
	[CMD_TEMPLATE] = {"template", "make|ls|rm [NAME]", "VMs that have booted already", 1, 2},
	[CMD_CHECK] = {"check", "", "read /etc/insula/oci.json and do nothing", 0, 0},
};

static enum command command_find(const char *name)
{
	for (unsigned i = CMD_NONE + 1; i < COMMANDS; i++) {
		if (!strcmp(commands[i].name, name))
			return (enum command)i;
	}
	return CMD_NONE;
}

static const char *command_meant(const char *name)
{
	const char *known[COMMANDS];

	for (unsigned i = 0; i < COMMANDS; i++)
		known[i] = commands[i].name;
	return nearest(name, known, COMMANDS);
}

/* "--name", "--name=..." or "-n"; *value: what follows '=', or NULL. */
static const struct flag *flag_find(const char *text, enum command c, const char **value)
{
	const char *equals = strchr(text, '=');
	size_t n = equals ? (size_t)(equals - text) : strlen(text);

	*value = equals ? equals + 1 : NULL;
	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		const struct flag *f = &table[i];
		bool is_long = n > 2 && text[1] == '-' && strlen(f->name) == n - 2 &&
			       !strncmp(f->name, text + 2, n - 2);

		if ((is_long || (n == 2 && f->letter && text[1] == f->letter)) &&
		    f->commands & 1u << c)
			return f;
	}
	return NULL;
}

static int bool_of(const char *text, bool *out)
{
	*out = !strcmp(text, "true") || !strcmp(text, "1");
	return *out || !strcmp(text, "false") || !strcmp(text, "0") ? 0 : -EINVAL;
}

static int flag_set(struct flags *f, const struct flag *d, const char *value, struct err *e)
{
	char *at = (char *)f + d->at;
	struct flag_list *list = (struct flag_list *)(void *)at;

	if (d->type == SWITCH) {
		*(bool *)(void *)at = true;
		if (value && bool_of(value, (bool *)(void *)at))
			return err_set(e, -EINVAL, "--%s: '%.40s'; expected true or false", d->name,
				       value);
	} else if (d->type == REPEAT) {
		if (list->n == FLAG_REPEATS)
			return err_set(e, -E2BIG, "--%s: expected at most %d of them", d->name,
				       FLAG_REPEATS);
		list->at[list->n++] = value;
	} else {
		*(const char **)(void *)at = value;
	}
	return 0;
}

/* argv[*i] is a flag; *i becomes the last argument that was taken. */
static int flag_take(struct flags *f, char **argv, int *i, struct err *e)
{
	const char *value, *text = argv[*i];
	const struct flag *d = flag_find(text, f->command, &value);

	if (!d)
		return err_set(e, -EINVAL, "%.60s: unknown flag%s%s; expected one of --help", text,
			       f->name ? " of " : "", f->name ? f->name : "");
	if (d->type != SWITCH && !value) {
		value = argv[*i + 1];
		if (!value)
			return err_set(e, -EINVAL, "--%s: no value; expected %s", d->name,
				       d->value);
		++*i;
	}
	return flag_set(f, d, value, e);
}

static int command_take(struct flags *f, const char *name, struct err *e)
{
	const char *meant;

	f->command = command_find(name);
	f->name = name;
	if (f->command)
		return 0;
	if (!strcmp(name, "checkpoint") || !strcmp(name, "restore"))
		return err_set(e, -ENOTSUP,
			       "%s: refused: the container's processes are in a VM, where CRIU "
			       "does not reach them",
			       name);
	meant = command_meant(name);
	return err_set(e, -EINVAL, "%.40s: unknown command%s%s%s", name,
		       meant ? "; did you mean " : "; expected one of --help", meant ? meant : "",
		       meant ? "?" : "");
}

static int check_count(const struct flags *f, unsigned n, struct err *e)
{
	if (f->help || f->version ||
	    (n >= commands[f->command].min && n <= commands[f->command].max))
		return 0;
	return err_set(e, -EINVAL, "%s: %u argument%s; expected %s %s", f->name, n,
		       n == 1 ? "" : "s", f->name, commands[f->command].args);
}

/* Positional arguments are moved to the front of argv, in order: nothing is allocated. */
int flags_parse(struct flags *f, int argc, char **argv, struct err *e)
{
	int n = 0, rc = 0, i;
	bool rest = false;

	*f = (struct flags){.command = CMD_NONE};
	for (i = 1; i < argc && !rc; i++) {
		/* Callers say "-" for standard input. */
		if (!rest && argv[i][0] == '-' && argv[i][1]) {
			if (!strcmp(argv[i], "--") && f->command)
				rest = true;
			else
				rc = flag_take(f, argv, &i, e);
		} else if (!f->command) {
			rc = command_take(f, argv[i], e);
		} else {
			argv[n++] = argv[i];
			rest = rest || f->command == CMD_EXEC || f->command == CMD_PS;
		}
	}
	if (rc)
		return rc;
	if (!f->command)
		return f->help || f->version
			       ? 0
			       : err_set(e, -EINVAL, "no command; expected one of --help");
	argv[n] = NULL;
	rc = check_count(f, (unsigned)n, e);
	f->id = n && commands[f->command].max ? argv[0] : NULL;
	f->args = argv + (f->id ? 1 : 0);
	f->nargs = (unsigned)(n - (f->id ? 1 : 0));
	return rc;
}

static void help_flags(unsigned of)
{
	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		const struct flag *d = &table[i];
		char text[64];

		if (!(d->commands & of))
			continue;
		snprintf(text, sizeof(text), "%c%c --%s %s", d->letter ? '-' : ' ',
			 d->letter ? d->letter : ' ', d->name, d->value ? d->value : "");
		printf("  %-40s %s\n", text, d->help);
	}
}

void flags_help(const struct flags *f)
{
	if (f->command) {
		printf("usage: insula-oci [global flags] %s [flags] %s\n\n%s\n\n", f->name,
		       commands[f->command].args, commands[f->command].help);
		help_flags(1u << f->command);
		return;
	}
	puts("usage: insula-oci [flags] COMMAND [flags] [arguments]\n\n"
	     "An OCI runtime: each pod, or container without one, is a microVM.\n");
	for (unsigned i = CMD_NONE + 1; i < COMMANDS; i++)
		printf("  %-10s %-24s %s\n", commands[i].name, commands[i].args, commands[i].help);
	puts("");
	help_flags(GLOBAL);
}
