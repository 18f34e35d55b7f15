/* SPDX-License-Identifier: BSD-2-Clause */
/* The command line of insula-run. See options.h. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "ending.h"
#include "options.h"
#include "settings.h"

enum { OPT_JSON = 256, OPT_CONTROL };

/* Those that are no settings. --control is nobody's but insulad's. */
const struct flag_words run_flags[] = {
	{"json", 0, "FILE|-", NULL, true, "the same settings as one JSON object; flags win"},
	{NULL, 'n', NULL, NULL, false, "check everything, start nothing"},
	{NULL, 'v', NULL, NULL, false, "say what happens, show the kernel's messages (-vv: more)"},
	{"help", 'h', NULL, NULL, false, "this help"},
	{"version", 0, NULL, NULL, false, "the version"},
};
const size_t nrun_flags = ARRAY_LEN(run_flags);

static const struct option own_options[] = {
	{"json", required_argument, NULL, OPT_JSON},
	{"control", required_argument, NULL, OPT_CONTROL},
	{"help", no_argument, NULL, 'h'},
	{"version", no_argument, NULL, 'V'},
};

/* Ours, and one for each setting. */
struct flags {
	char letters[2 * SETTINGS + 8];
	struct option longopts[SETTINGS + ARRAY_LEN(own_options) + 1];
};

static void make_flags(struct flags *f)
{
	*f = (struct flags){.letters = "+:nvh"};
	settings_letters(f->letters + strlen(f->letters));
	memcpy(f->longopts, own_options, sizeof(own_options));
	settings_longopts(f->longopts + ARRAY_LEN(own_options));
}

static int print_help(const struct options *o)
{
	struct flag_words flags[SETTINGS];
	size_t n = settings_flags(flags);

	fputs(o->about, stdout);
	for (size_t i = 0; i < n; i++)
		flag_print(&flags[i]);
	for (size_t i = 0; i < nrun_flags; i++)
		flag_print(&run_flags[i]);
	puts("\nExit status: the command's; 128+N for a signal; 120 guest panic, 121 guest\n"
	     "crash, 122 the guest ended before the command did, 124 timeout, 125 failure of\n"
	     "Insula, 126 and 127 as a shell, 2 bad input (nothing was started). See\n"
	     "insula-run(1).");
	return fflush(stdout) || ferror(stdout) ? RUN_FAILED : 0;
}

static int read_json(struct vm_config *c, const char *path, struct err *e)
{
	char *text;
	size_t len;
	int rc = text_read(path, true, CONFIG_JSON_MAX, &text, &len);

	if (rc == -EFBIG)
		return err_set(e, -EINVAL, "--json: %s: too long; expected at most %u bytes", path,
			       CONFIG_JSON_MAX);
	if (rc)
		return err_sys(e, rc, "--json: %s", path);
	rc = config_json(c, strcmp(path, "-") ? path : "standard input", text, len, e);
	free(text);
	return rc;
}

static int take_control(struct options *o, const char *text, struct err *e)
{
	if (o->has_control)
		return err_set(e, -EINVAL, "--control: given twice");
	o->has_control = true;
	return o->use_control(o, text, e);
}

/* Of a bundle of letters the wrong one is in optopt. */
static int unknown_flag(const struct flags *f, const char *flag, struct err *e)
{
	const char *known[SETTINGS + ARRAY_LEN(own_options)], *near = NULL;
	char name[64];

	if (optopt && strncmp(flag, "--", 2) != 0)
		return err_set(e, -EINVAL, "-%c: unknown flag (see --help)", optopt);
	for (size_t i = 0; i < ARRAY_LEN(known); i++)
		known[i] = f->longopts[i].name;
	if (strlen(flag) > 3) {
		snprintf(name, sizeof(name), "%.*s", (int)strcspn(flag + 2, "="), flag + 2);
		near = nearest(name, known, ARRAY_LEN(known));
	}
	return near ? err_set(e, -EINVAL, "%.60s: unknown flag; did you mean --%s?", flag, near)
		    : err_set(e, -EINVAL, "%.60s: unknown flag (see --help)", flag);
}

/* First pass: only --json, so that flags win over it wherever they stand. Complains about unknown
 * flags. */
static int first_pass(struct options *o, const struct flags *f, int argc, char **argv,
		      struct err *e)
{
	int c, rc = 0;

	opterr = 0;
	while (!rc && (c = getopt_long(argc, argv, f->letters, f->longopts, NULL)) >= 0) {
		const char *flag = argv[optind - 1];

		if (c == OPT_JSON)
			rc = read_json(&o->conf, optarg, e);
		else if (c == OPT_CONTROL)
			rc = take_control(o, optarg, e);
		else if (c == ':')
			rc = err_set(e, -EINVAL, "%.60s: no value; expected one (see --help)",
				     flag);
		else if (c == '?')
			rc = unknown_flag(f, flag, e);
		else if (c == 'h')
			exit(print_help(o));
		else if (c == 'V')
			exit(puts("insula-run " INSULA_VERSION) < 0 ? RUN_FAILED : 0);
	}
	return rc;
}

/* What may come several times: the first flag replaces what JSON said. */
static void drop_replaced(struct options *o, const struct setting *s)
{
	if (!strcmp(s->name, "disk") && !o->disks_replaced) {
		config_drop_disks(&o->conf);
		o->disks_replaced = true;
	} else if (!strcmp(s->name, "net") && !o->nets_replaced) {
		config_drop_nets(&o->conf);
		o->nets_replaced = true;
	} else if (!strcmp(s->name, "device") && !o->devices_replaced) {
		config_drop_vhosts(&o->conf);
		o->devices_replaced = true;
	} else if (!strcmp(s->name, "vfio") && !o->vfios_replaced) {
		o->conf.nvfios = 0;
		o->vfios_replaced = true;
	}
}

static int options_set_flag(struct options *o, const struct setting *s, const char *value,
			    struct err *e)
{
	char where[32], *text = NULL;
	int rc;

	if (s->letter)
		snprintf(where, sizeof(where), "-%c", s->letter);
	else
		snprintf(where, sizeof(where), "--%s", s->name);
	drop_replaced(o, s);
	if (strcmp(s->name, "env") != 0 || !*value) /* config_set() words what is empty */
		return config_set(&o->conf, where, s->name, s->type == SETTING_FLAG ? "on" : value,
				  e);
	rc = setting_env(value, &text);
	if (rc < 0)
		return err_set(e, rc, "out of memory");
	rc = rc ? config_set(&o->conf, where, s->name, text, e) : 0;
	free(text);
	return rc;
}

static int second_pass(struct options *o, const struct flags *f, int argc, char **argv,
		       struct err *e)
{
	int c, rc = 0;

	optind = 0; /* start over, with GNU's extensions initialized anew */
	while (!rc && (c = getopt_long(argc, argv, f->letters, f->longopts, NULL)) >= 0) {
		const struct setting *s = setting_of_flag(c);

		o->check_only |= c == 'n';
		o->verbose += c == 'v';
		if (s)
			rc = options_set_flag(o, s, optarg, e);
	}
	if (!rc && optind < argc)
		rc = config_set_command(&o->conf, argv + optind, (unsigned)(argc - optind), e);
	return rc ? rc : config_check(&o->conf, e);
}

int options_parse(struct options *o, int argc, char **argv, struct err *e)
{
	struct flags f;
	int rc;

	make_flags(&f);
	rc = first_pass(o, &f, argc, argv, e);
	return rc ? rc : second_pass(o, &f, argc, argv, e);
}
