/* SPDX-License-Identifier: BSD-2-Clause */
/* insulactl: the command line of insulad. The verbs are in src/ctl. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/ctl.h"

#define ARGS_WIDTH 26

static void print_usage(void)
{
	printf("usage: insulactl [--socket PATH] [--json] VERB ...\n\n"
	       "Use the VMs of insulad. Tables on a terminal; JSON in pipes and with --json.\n\n");
	for (size_t i = 0; i < nverbs; i++) {
		bool fits = strlen(verbs[i].args) <= ARGS_WIDTH;

		printf("  %-8s %-*s%s%*s %s\n", verbs[i].name, fits ? ARGS_WIDTH : 0, verbs[i].args,
		       fits ? "" : "\n", fits ? 0 : 11 + ARGS_WIDTH, "", verbs[i].summary);
	}
	printf("\nrun and create take the flags of insula-run (--kernel, --mem, --disk ...), "
	       "--name NAME\n"
	       "and --config FILE (what insula-run --json takes). See insulactl(1).\n");
}

static const struct verb *find(const char *name)
{
	for (size_t i = 0; i < nverbs; i++) {
		if (!strcmp(verbs[i].name, name))
			return &verbs[i];
	}
	return NULL;
}

static int bad(const char *what, const char *value, const char *expected)
{
	fprintf(stderr, "insulactl: %s%s%.60s%s; expected %s\n", what, value ? ": '" : "",
		value ? value : "", value ? "'" : "", expected);
	return CTL_BAD_INPUT;
}

static int run(const char *path, bool json, const struct verb *v, int argc, char **argv)
{
	struct ctl c = {.path = path, .json = json};
	struct err e;
	int status;

	if (conn_open(&c.conn, path, &e)) {
		fprintf(stderr, "insulactl: %s\n", e.text);
		return e.code == -ENAMETOOLONG ? CTL_BAD_INPUT : CTL_FAILED;
	}
	status = v->run(&c, argc, argv);
	conn_close(&c.conn);
	return status;
}

int main(int argc, char **argv)
{
	const char *path = getenv("INSULA_SOCKET");
	const struct verb *v;
	bool json = false;
	int i = 1;

	argv = wire_arguments(&argc, argv);
	if (!argv)
		return bad("arguments", NULL, "Unicode");
	if (!path || !*path)
		path = wire_default;
	for (; i < argc && argv[i][0] == '-'; i++) {
		if (!strcmp(argv[i], "--json"))
			json = true;
		else if (!strcmp(argv[i], "--socket") && i + 1 < argc)
			path = argv[++i];
		else if (!strcmp(argv[i], "--help"))
			return print_usage(), 0;
		else if (!strcmp(argv[i], "--version"))
			return puts("insulactl " INSULA_VERSION) < 0 ? CTL_FAILED : 0;
		else
			return bad("flag", argv[i], "--socket PATH, --json, --help or --version");
	}
	if (i == argc)
		return bad("no verb", NULL, "one; see --help");
	v = find(argv[i]);
	if (!v)
		return bad("verb", argv[i], "one that --help names");
	argc -= i;
	argv += i;
	if (argc - 1 < v->min || (v->max >= 0 && argc - 1 > v->max))
		return bad(v->name, NULL, v->args[0] ? v->args : "no argument");
	return run(path, json, v, argc, argv);
}
