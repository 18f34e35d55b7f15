/* SPDX-License-Identifier: BSD-2-Clause */
/* insulactl: the command line of insulad. The verbs are in src/ctl. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/ctl.h"

#define ARGS_WIDTH 26
#define SUMMARY_AT (12 + ARGS_WIDTH)

static void print_usage(void)
{
	printf("usage: insulactl [--socket PATH] [--json] VERB ...\n\n"
	       "Use the VMs of insulad. Tables on a terminal; JSON in pipes and with --json.\n\n");
	for (size_t i = 0; i < nverbs; i++) {
		bool fits = strlen(verbs[i].args) <= ARGS_WIDTH;

		printf("  %-8s %-*s%s%*s ", verbs[i].name, fits ? ARGS_WIDTH : 0, verbs[i].args,
		       fits ? "" : "\n", fits ? 0 : 11 + ARGS_WIDTH, "");
		print_words(verbs[i].summary, SUMMARY_AT, SUMMARY_AT);
		printf("\n");
	}
	printf("\n");
	for (size_t i = 0; i < nctl_flags; i++)
		flag_print(&ctl_flags[i]);
	printf("\nrun and create take the flags of insula-run (--kernel, --mem, --disk ...),\n"
	       "--name NAME and --config FILE (what insula-run --json takes).\n"
	       "See insulactl(1).\n");
}

static int bad(const char *what, const char *value, const char *expected)
{
	fprintf(stderr, "insulactl: %s%s%.60s%s expected %s\n", what, value ? ": '" : "",
		value ? value : "", value ? "';" : ":", expected);
	return CTL_BAD_INPUT;
}

/* Verbs with flags of their own are asked for help without a daemon, too. */
static int is_help(int argc, char **argv)
{
	return argc == 2 && (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help"));
}

static int insulactl_run(struct ctl *c, const struct verb *v, int argc, char **argv)
{
	struct err e;
	int status;

	if (v->flags & FLAG_ALONE)
		return v->run(c, argc, argv);
	if (conn_open(&c->conn, c->path, &e)) {
		fprintf(stderr, "insulactl: %s\n", e.text);
		return e.code == -ENAMETOOLONG ? CTL_BAD_INPUT : CTL_FAILED;
	}
	status = v->run(c, argc, argv);
	conn_close(&c->conn);
	json_object_put(c->filters);
	return status;
}

static int unknown_verb(const char *name)
{
	const char *meant = verb_meant(name);

	fprintf(stderr, "insulactl: '%.60s' is no verb%s%s%s; see insulactl --help\n", name,
		meant ? "; did you mean " : "", meant ? meant : "", meant ? "?" : "");
	return CTL_BAD_INPUT;
}

static int verb(struct ctl *c, int argc, char **argv)
{
	const struct verb *v = verb_find(argv[0]);
	struct err e;
	int rc;

	if (!v)
		return unknown_verb(argv[0]);
	rc = v->flags ? verb_flags(c, v, &argc, &argv, &e) : is_help(argc, argv);
	if (rc > 0 && !v->flags)
		verb_help(v);
	if (rc > 0)
		return fflush(stdout) ? CTL_FAILED : 0;
	if (rc) {
		fprintf(stderr, "insulactl: %s\n", e.text);
		return CTL_BAD_INPUT;
	}
	if (argc - 1 < v->min || (v->max >= 0 && argc - 1 > v->max))
		return bad(v->name, NULL, v->args[0] ? v->args : "no argument");
	return insulactl_run(c, v, argc, argv);
}

static bool is_one_of(const char *text, const char *a, const char *b)
{
	return !strcmp(text, a) || !strcmp(text, b);
}

int main(int argc, char **argv)
{
	struct ctl c = {.path = getenv("INSULA_SOCKET"), .timeout = -1, .tail = -1};
	int i = 1;

	argv = wire_arguments(&argc, argv);
	if (!argv)
		return bad("arguments", NULL, "Unicode");
	if (!c.path || !*c.path)
		c.path = wire_default;
	for (; i < argc && argv[i][0] == '-'; i++) {
		if (!strcmp(argv[i], "--json"))
			c.json = true;
		else if (!strcmp(argv[i], "--socket") && i + 1 < argc)
			c.path = argv[++i];
		else if (is_one_of(argv[i], "--help", "-h"))
			return print_usage(), 0;
		else if (!strcmp(argv[i], "--complete"))
			return complete(i + 1 < argc ? argv[i + 1] : NULL);
		else if (!strcmp(argv[i], "--version"))
			return puts("insulactl " INSULA_VERSION) < 0 ? CTL_FAILED : 0;
		else
			return bad("flag", argv[i], "--socket PATH, --json, --help or --version");
	}
	if (i == argc)
		return bad("no verb", NULL, "one; see insulactl --help");
	return verb(&c, argc - i, argv + i);
}
