/* SPDX-License-Identifier: BSD-2-Clause */
/* The flags of insulactl's verbs: their table, --help, and what is said about others. See ctl.h. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "ctl.h"
#include "spec/config.h"

#define HANG 8   /* of a second line of arguments */
#define WORDS 96 /* flags of one verb, or verbs and their other names */

const struct flag flags[] = {
	{FLAG_HELP, "help", 'h', NULL, "this help"},
	{FLAG_JSON, "json", 0, NULL, "JSON, on a terminal too"},
	{FLAG_FORCE, "force", 'f', NULL, "end those that run first: at once, or as -t says"},
	{FLAG_TIMEOUT, "timeout", 't', "SECONDS",
	 "how long the guest may take to power off; default 10"},
	{FLAG_FOLLOW, "follow", 'f', NULL, "go on until the VM ends"},
	{FLAG_TAIL, "tail", 'n', "N", "only the last N lines"},
	{FLAG_SINCE, "since", 0, "TIME",
	 "only lines since then: 10m (ago), 1h30m, 2026-11-28T10:00:00Z"},
	{FLAG_TIMESTAMPS, "timestamps", 't', NULL, "the time and the stream before each line"},
	{FLAG_ALL, "all", 'a', NULL, "also those that do not run"},
	{FLAG_QUIET, "quiet", 'q', NULL, "the ids alone, one a line"},
	{FLAG_FILTER, "filter", 0, "KEY=VALUE",
	 "only those with name=PART, state=STATE or id=BEGINNING; repeat: all must fit"},
	{FLAG_YES, "force", 'f', NULL, "do not ask"},
	{FLAG_LINKS, "follow-link", 'L', NULL, "what symbolic links lead to, instead of them"},
	{FLAG_CLOCK, "set-clock", 0, NULL,
	 "set the guest's clock, give it new random numbers, run its hooks"},
	{FLAG_BUILDS_ON, "base", 0, "DIR", "only what differs from this snapshot"},
	{FLAG_DIFF, "diff", 0, NULL, "only what differs from the last snapshot of this VM"},
	{FLAG_COUNT, "count", 'n', "N", "how many; default 1"},
	{FLAG_NAME, "name", 0, "NAME", "the name of the clone; of several NAME-1, NAME-2 ..."},
	{FLAG_CPUS, "cpus", 'c', "N", "the processors that the guest shall have"},
	{FLAG_MEM, "mem", 'm', "SIZE", "what the guest shall have, such as 2G"},
	{FLAG_ENDS, "stop", 0, NULL, "the VM ends with it"},
	{FLAG_PULLS, "force", 'f', NULL,
	 "rm: do not ask the guest; what it has not flushed may be lost"},
	{FLAG_GIVES, "timeout", 't', "SECONDS",
	 "rm: how long the guest may take to give it up; default 30"},
	{FLAG_CALLED, "name", 0, "NAME", "add: the name of the device; default: disk1, net2 ..."},
	{FLAG_ONCE, "no-stream", 0, NULL, "once, and not again every second"},
};
const size_t nflags = ARRAY_LEN(flags);

const struct flag_words ctl_flags[] = {
	{"socket", 0, "PATH", NULL, true, "of insulad; default: $INSULA_SOCKET, else its own"},
	{"json", 0, NULL, NULL, false, "JSON, on a terminal too"},
	{"help", 'h', NULL, NULL, false, "this help"},
	{"version", 0, NULL, NULL, false, "the version"},
};
const size_t nctl_flags = ARRAY_LEN(ctl_flags);

bool flag_number(const char *text, int64_t max, int64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoll(text, &end, 10);
	return text[0] >= '0' && text[0] <= '9' && !*end && !errno && *out <= max;
}

static int flags_filter(struct ctl *c, const char *value, struct err *e)
{
	static const char *const keys[] = {"name=", "state=", "status=", "id="};

	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		if (strncmp(value, keys[i], strlen(keys[i])) != 0)
			continue;
		if (!c->filters)
			c->filters = json_object_new_array();
		json_object_array_add(c->filters, json_object_new_string(value));
		return 0;
	}
	return err_set(e, -EINVAL, "--filter: '%.40s'; expected name=, state= or id=", value);
}

static int flags_take(struct ctl *c, enum flag_bit bit, const char *value, struct err *e)
{
	uint64_t size;

	switch (bit) {
	case FLAG_JSON:
		c->json = true;
		return 0;
	case FLAG_FORCE:
	case FLAG_YES:
	case FLAG_PULLS:
		c->force = true;
		return 0;
	case FLAG_FOLLOW:
	case FLAG_LINKS:
		c->follow = true;
		return 0;
	case FLAG_TIMESTAMPS:
		c->timestamps = true;
		return 0;
	case FLAG_TIMEOUT:
	case FLAG_GIVES:
		if (flag_number(value, 3600, &c->timeout))
			return 0;
		return err_set(e, -EINVAL, "-t: '%.20s'; expected seconds from 0 to 3600", value);
	case FLAG_TAIL:
		if (flag_number(value, 1000000000, &c->tail))
			return 0;
		return err_set(e, -EINVAL, "--tail: '%.20s'; expected a number of lines", value);
	case FLAG_SINCE:
		if (time_since(value, &c->since_ms))
			return 0;
		return err_set(e, -EINVAL,
			       "--since: '%.40s'; expected a time such as 10m, 1h30m or "
			       "2026-11-28T10:00:00Z",
			       value);
	case FLAG_ALL:
		c->all = true;
		return 0;
	case FLAG_QUIET:
		c->quiet = true;
		return 0;
	case FLAG_FILTER:
		return flags_filter(c, value, e);
	case FLAG_ONCE:
		c->once = true;
		return 0;
	case FLAG_CLOCK:
		c->set_clock = true;
		return 0;
	case FLAG_BUILDS_ON:
		c->base = value;
		return 0;
	case FLAG_DIFF:
		c->diff = true;
		return 0;
	case FLAG_COUNT:
		if (flag_number(value, 256, &c->count) && c->count)
			return 0;
		return err_set(e, -EINVAL, "--count: '%.20s'; expected 1 to 256", value);
	case FLAG_CPUS:
		if (flag_number(value, BOARD_MAX_CPUS, &c->cpus) && c->cpus)
			return 0;
		return err_set(e, -EINVAL, "--cpus: '%.20s'; expected a number from 1 to %u", value,
			       BOARD_MAX_CPUS);
	case FLAG_MEM:
		if (parse_size(value, &size) && size && size <= INT64_MAX) {
			c->mem = (int64_t)size;
			return 0;
		}
		return err_set(e, -EINVAL, "--mem: '%.40s'; expected a size such as 2G", value);
	case FLAG_NAME:
	case FLAG_CALLED:
		c->name = value;
		return 0;
	case FLAG_ENDS:
		c->ends = true;
		return 0;
	case FLAG_HELP:
		break;
	}
	return 0;
}

/* ---- refusals ---- */

int unknown_flag(const char *verb, const char *text, const char *const *known, size_t n,
		 struct err *e)
{
	const char *name = text + strspn(text, "-"), *meant;
	char word[64];

	snprintf(word, sizeof(word), "%.*s", (int)strcspn(name, "="), name);
	meant = word[0] && word[1] ? nearest(word, known, n) : NULL;
	return err_set(e, -EINVAL, "%s has no '%.60s'%s%s%s; see insulactl %s --help", verb, text,
		       meant ? "; did you mean --" : "", meant ? meant : "", meant ? "?" : "",
		       verb);
}

const char *flag_text(char **argv, char out[64])
{
	if (optopt > 0 && optopt < 128)
		snprintf(out, 64, "-%c", optopt);
	else
		snprintf(out, 64, "%.63s", optind > 0 ? argv[optind - 1] : "");
	return out;
}

static int flags_refuse(const struct verb *v, int how, char **argv, struct err *e)
{
	const char *known[WORDS];
	char text[64];
	size_t n = 0;

	flag_text(argv, text);
	if (how == ':')
		return err_set(e, -EINVAL, "%s: '%.60s' needs a value; see insulactl %s --help",
			       v->name, text, v->name);
	for (size_t i = 0; i < nflags; i++) {
		if (v->flags & flags[i].bit)
			known[n++] = flags[i].name;
	}
	return unknown_flag(v->name, text, known, n, e);
}

/* ---- reading ---- */

/* The flags of this verb, as getopt_long() wants them. */
static void flags_describe(const struct verb *v, struct option *longopts, char *letters)
{
	*letters++ = ':';
	for (size_t i = 0; i < nflags; i++) {
		if (!(v->flags & flags[i].bit))
			continue;
		*longopts++ = (struct option){flags[i].name,
					      flags[i].value ? required_argument : no_argument,
					      NULL, (int)flags[i].bit + FLAG_BASE};
		if (!flags[i].letter)
			continue;
		*letters++ = flags[i].letter;
		if (flags[i].value)
			*letters++ = ':';
	}
	*letters = 0;
}

static int bit_of(const struct verb *v, int c)
{
	for (size_t i = 0; i < nflags; i++) {
		if ((v->flags & flags[i].bit) &&
		    (c == flags[i].letter || c == (int)flags[i].bit + FLAG_BASE))
			return (int)flags[i].bit;
	}
	return 0;
}

int verb_flags(struct ctl *c, const struct verb *v, int *argc, char ***argv, struct err *e)
{
	struct option longopts[ARRAY_LEN(flags) + 1] = {0};
	char letters[2 * ARRAY_LEN(flags) + 2];
	int got, rc = 0;

	flags_describe(v, longopts, letters);
	optind = 0;
	opterr = 0;
	while (!rc && (got = getopt_long(*argc, *argv, letters, longopts, NULL)) >= 0) {
		int bit = bit_of(v, got);

		if (bit == FLAG_HELP)
			return verb_help(v), 1;
		rc = bit ? flags_take(c, (enum flag_bit)bit, optarg, e)
			 : flags_refuse(v, got, *argv, e);
	}
	if (rc)
		return rc;
	(*argv)[optind - 1] = (char *)(uintptr_t)v->name;
	*argv += optind - 1;
	*argc -= optind - 1;
	return 0;
}

/* ---- help ---- */

size_t verb_words(const struct verb *v, struct flag_words *out, size_t max)
{
	size_t n = v->words ? v->words(v->name, out) : 0;

	for (size_t i = 0; i < nflags && n < max; i++) {
		const struct flag *f = &flags[i];

		if (v->flags & f->bit)
			out[n++] = (struct flag_words){f->name, f->letter, f->value,
						       NULL,    false,     f->words};
	}
	return n;
}

/* The flags of a VM are in insula-run's help. */
void verb_help(const struct verb *v)
{
	struct flag_words words[WORDS];
	size_t known = v->words == config_words ? settings_flags(words) : 0;
	size_t n = verb_words(v, words, WORDS);

	printf("usage: insulactl %s%s", v->name, v->args[0] ? " " : "");
	print_words(v->args, strlen("usage: insulactl ") + strlen(v->name) + 1, HANG);
	printf("\n\n");
	print_words(v->summary, 0, 0);
	printf("\n\n");
	for (size_t i = known; i < n; i++)
		flag_print(&words[i]);
	if (v->more)
		printf("\n%s\n", v->more);
	if (v->aliases)
		printf("\nOther names: %s\n", v->aliases);
}

static bool is_alias(const struct verb *v, const char *name)
{
	const char *p = v->aliases;
	size_t len = strlen(name);

	while (p && *p) {
		size_t n = strcspn(p, " ");

		if (n == len && !strncmp(p, name, n))
			return true;
		p += n + (p[n] == ' ');
	}
	return false;
}

const struct verb *verb_find(const char *name)
{
	for (size_t i = 0; i < nverbs; i++) {
		if (!strcmp(verbs[i].name, name) || is_alias(&verbs[i], name))
			return &verbs[i];
	}
	return NULL;
}

const char *verb_meant(const char *name)
{
	const char *known[WORDS];

	for (size_t i = 0; i < nverbs; i++)
		known[i] = verbs[i].name;
	return nearest(name, known, nverbs);
}

int complete(const char *name)
{
	const struct verb *v = name ? verb_find(name) : NULL;
	struct flag_words words[WORDS];
	size_t n;

	if (name && !v)
		return 0;
	for (size_t i = 0; i < nverbs && !v; i++)
		puts(verbs[i].name);
	n = v ? verb_words(v, words, WORDS) : 0;
	for (size_t i = 0; i < n; i++) {
		if (words[i].name)
			printf("--%s\n", words[i].name);
		else
			printf("-%c\n", words[i].letter);
	}
	return fflush(stdout) ? CTL_FAILED : 0;
}
