/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For the build: what is made of the tables of flags, on standard output.
 *
 *   insula-spec complete bash|zsh|fish insula-run|insulactl|insulad   a completion for that shell
 *   insula-spec man insula-run|insulad                                part of the manual page
 *
 * Nothing of this is installed but its output; tests/api-doc looks whether the manual pages have
 * it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "ctl/ctl.h"
#include "daemon/conf.h"
#include "spec/describe.h"
#include "spec/options.h"

#define FLAGS_MAX 96
#define PROGRAMS "insula-run|insulactl|insulad"

struct list {
	struct flag_words flag[FLAGS_MAX];
	size_t n;
};

static void add_all(struct list *l, const struct flag_words *from, size_t n)
{
	for (size_t i = 0; i < n && l->n < FLAGS_MAX; i++)
		l->flag[l->n++] = from[i];
}

static bool flags_of(struct list *l, const char *program)
{
	l->n = 0;
	if (!strcmp(program, "insula-run")) {
		l->n = settings_flags(l->flag);
		add_all(l, run_flags, nrun_flags);
	} else if (!strcmp(program, "insulad")) {
		l->n = conf_flags(l->flag);
		add_all(l, daemon_flags, ndaemon_flags);
	} else {
		add_all(l, ctl_flags, nctl_flags);
	}
	return l->n;
}

static void flags_of_verb(struct list *l, const struct verb *v)
{
	l->n = verb_words(v, l->flag, FLAGS_MAX);
}

/* The first clause of a help, without what a shell's quotes or lists would take. */
static void print_brief(const char *help, const char *escape)
{
	for (const char *p = help; *p && *p != ';' && *p != ':' && strncmp(p, " (", 2) != 0; p++) {
		if (*p == '\'')
			continue;
		if (strchr(escape, *p))
			putchar('\\');
		putchar(*p);
	}
}

/* A function's name has no dashes. */
static void print_name(const char *program)
{
	for (; *program; program++)
		putchar(*program == '-' ? '_' : *program);
}

/* ---- bash ---- */

/* "--kernel | -k": the flags of one kind, for a case; false: there is none. */
static bool bash_case(const struct list *l, bool (*is)(const struct flag_words *f))
{
	bool any = false;

	for (size_t i = 0; i < l->n; i++) {
		const struct flag_words *f = &l->flag[i];

		if (!is(f))
			continue;
		if (f->name)
			printf("%s--%s", any ? " | " : "\t", f->name);
		if (f->letter)
			printf("%s-%c", any || f->name ? " | " : "\t", f->letter);
		any = true;
	}
	return any;
}

static bool is_path(const struct flag_words *f)
{
	return f->value && f->path && !f->words;
}

static bool is_other(const struct flag_words *f)
{
	return f->value && !f->path && !f->words;
}

static void bash_flags(const struct list *l)
{
	for (size_t i = 0; i < l->n; i++) {
		if (l->flag[i].name)
			printf("%s--%s", i ? " " : "", l->flag[i].name);
		if (l->flag[i].letter)
			printf("%s-%c", i || l->flag[i].name ? " " : "", l->flag[i].letter);
	}
}

/* What may stand behind a flag: _NAME_value FLAG. */
static void bash_values(const char *name, const struct list *l)
{
	printf("_%s_value() {\n\tcase $1 in\n", name);
	for (size_t i = 0; i < l->n; i++) {
		if (l->flag[i].words)
			printf("\t--%s) mapfile -t COMPREPLY < <(compgen -W \"%s\" -- \"$cur\") "
			       ";;\n",
			       l->flag[i].name, l->flag[i].words);
	}
	if (bash_case(l, is_path))
		printf(" | =) mapfile -t COMPREPLY < <(compgen -f -- \"$cur\") ;;\n");
	if (bash_case(l, is_other))
		printf(") ;;\n");
	printf("\t*) return 1 ;;\n\tesac\n}\n");
}

static void bash_program(const char *program)
{
	struct list l;
	char name[32] = "";

	(void)flags_of(&l, program);
	for (size_t i = 0; i < sizeof(name) - 1 && program[i]; i++)
		name[i] = program[i] == '-' ? '_' : program[i];
	bash_values(name, &l);
	printf("_%s() {\n\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}\n"
	       "\tCOMPREPLY=()\n\t_%s_value \"$prev\" && return\n\tcase $cur in\n\t-*) mapfile -t "
	       "COMPREPLY < <(compgen -W \"",
	       name, name);
	bash_flags(&l);
	printf("\" -- \"$cur\") ;;\n\tesac\n}\ncomplete -F _%s %s\n", name, program);
}

/* All that any verb has, for what may stand behind a flag. */
static void every_flag(struct list *l)
{
	struct list one;

	(void)flags_of(l, "insulactl");
	for (size_t i = 0; i < nverbs; i++) {
		if (!strcmp(verbs[i].name, "create"))
			continue; /* as run */
		flags_of_verb(&one, &verbs[i]);
		for (size_t k = 0; k < one.n; k++) {
			if (one.flag[k].value && one.flag[k].name)
				add_all(l, &one.flag[k], 1);
		}
	}
}

static void bash_ctl(void)
{
	struct list l;

	every_flag(&l);
	bash_values("insulactl", &l);
	printf("_insulactl_vms() {\n\tinsulactl --json ps 2>/dev/null | grep -o "
	       "'\"name\":\"[^\"]*\"' | "
	       "cut -d'\"' -f4\n}\n"
	       "_insulactl_pools() {\n\tinsulactl --json pool ls 2>/dev/null | grep -o "
	       "'\"name\":\"[^\"]*\"' | "
	       "cut -d'\"' -f4\n}\n"
	       "_insulactl_words() { # VERB\n\tcase $1 in\n\t'') echo \"");
	for (size_t i = 0; i < nverbs; i++)
		printf("%s ", verbs[i].name);
	(void)flags_of(&l, "insulactl");
	bash_flags(&l);
	printf("\" ;;\n");
	for (size_t i = 0; i < nverbs; i++) {
		const char *aliases = verbs[i].aliases ? verbs[i].aliases : "";

		printf("\t%s", verbs[i].name);
		for (const char *p = aliases; *p; p += strspn(p, " ")) {
			printf(" | %.*s", (int)strcspn(p, " "), p);
			p += strcspn(p, " ");
		}
		flags_of_verb(&l, &verbs[i]);
		printf(") echo \"");
		bash_flags(&l);
		printf("\" ;;\n");
	}
	printf("\tesac\n}\n"
	       "_insulactl() {\n"
	       "\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb='' i "
	       "words=''\n"
	       "\tfor ((i = 1; i < COMP_CWORD; i++)); do\n"
	       "\t\tcase ${COMP_WORDS[i]} in\n"
	       "\t\t--socket) i=$((i + 1)) ;;\n"
	       "\t\t-*) ;;\n"
	       "\t\t*) verb=${COMP_WORDS[i]} && break ;;\n"
	       "\t\tesac\n"
	       "\tdone\n"
	       "\tCOMPREPLY=()\n"
	       "\t_insulactl_value \"$prev\" && return\n"
	       "\tcase $verb:$cur in\n"
	       "\t:* | *:-*) words=$(_insulactl_words \"$verb\") ;;\n"
	       "\trun:* | create:* | rpc:* | call:*) ;;\n"
	       "\tdevice:*)\n"
	       "\t\tcase $((COMP_CWORD - i)) in\n"
	       "\t\t1) words=restart ;;\n"
	       "\t\t2) words=$(_insulactl_vms) ;;\n"
	       "\t\tesac\n"
	       "\t\t;;\n"
	       "\tmetadata:*)\n"
	       "\t\tcase $((COMP_CWORD - i)) in\n"
	       "\t\t1) words='get set patch' ;;\n"
	       "\t\t2) words=$(_insulactl_vms) ;;\n"
	       "\t\tesac\n"
	       "\t\t;;\n"
	       "\tpool:* | pools:*)\n"
	       "\t\tcase $((COMP_CWORD - i)) in\n"
	       "\t\t1) words='create ls info rm' ;;\n"
	       "\t\t*) words=$(_insulactl_pools) ;;\n"
	       "\t\tesac\n"
	       "\t\t;;\n"
	       "\t*) words=$(_insulactl_vms) ;;\n"
	       "\tesac\n"
	       "\tmapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
	       "}\ncomplete -F _insulactl insulactl\n");
}

/* ---- zsh ---- */

/* One argument of _arguments. */
static void zsh_flag(const struct flag_words *f)
{
	const char *action = f->words ? f->words : f->path ? "_insula_path" : " ";

	for (int both = 0; both < 2; both++) {
		if (both ? !f->name : !f->letter)
			continue;
		printf(" \\\n\t\t'*");
		if (both)
			printf("--%s[", f->name);
		else
			printf("-%c[", f->letter);
		print_brief(f->help, "[]\\");
		printf("]");
		if (f->value)
			printf(f->words ? ":value:(%s)" : ":value:%s", action);
		printf("'");
	}
}

static void zsh_flags(const struct list *l)
{
	for (size_t i = 0; i < l->n; i++)
		zsh_flag(&l->flag[i]);
}

static void zsh_head(const char *program)
{
	printf("#compdef %s\n# A path, also behind the key of an item.\n_insula_path() {\n"
	       "\tcompset -P '*='\n\t_files\n}\n",
	       program);
}

static void zsh_program(const char *program)
{
	struct list l;

	(void)flags_of(&l, program);
	zsh_head(program);
	printf("_");
	print_name(program);
	printf("() {\n\t_arguments -s -S");
	zsh_flags(&l);
	printf(" \\\n\t\t'*:: :_default'\n}\n_");
	print_name(program);
	printf(" \"$@\"\n");
}

/* Verbs whose arguments are VMs; device and metadata have a word before it. */
static bool takes_vms(const struct verb *v)
{
	return strstr(v->args, "VM") && strcmp(v->name, "device") != 0 &&
	       strcmp(v->name, "metadata") != 0;
}

static void zsh_ctl(void)
{
	struct list l;

	zsh_head("insulactl");
	printf("_insulactl_vms() {\n\tlocal -a vms\n"
	       "\tvms=(${(f)\"$(insulactl --json ps 2>/dev/null | grep -o '\"name\":\"[^\"]*\"' | "
	       "cut -d'\"' -f4)\"})\n\tcompadd -a vms\n}\n"
	       "_insulactl_rest() {\n\tcase $1 in\n");
	for (size_t i = 0; i < nverbs; i++) {
		flags_of_verb(&l, &verbs[i]);
		printf("\t%s)\n\t\t_arguments -s -S", verbs[i].name);
		zsh_flags(&l);
		if (!strcmp(verbs[i].name, "device"))
			printf(" \\\n\t\t'1:what:(restart)' '2:VM:_insulactl_vms' '3:device: '");
		else if (!strcmp(verbs[i].name, "metadata"))
			printf(" \\\n\t\t'1:what:(get set patch)' '2:VM:_insulactl_vms' "
			       "'3:file:_files'");
		else if (!strcmp(verbs[i].name, "pool"))
			printf(" \\\n\t\t'1:what:(create ls info rm)' '*:pool: '");
		else if (takes_vms(&verbs[i]))
			printf(" \\\n\t\t'*:VM:_insulactl_vms'");
		printf("\n\t\t;;\n");
	}
	printf("\tesac\n}\n_insulactl() {\n\tlocal curcontext=\"$curcontext\" state line\n"
	       "\tlocal -a verbs\n\tverbs=(\n");
	for (size_t i = 0; i < nverbs; i++) {
		printf("\t\t'%s:", verbs[i].name);
		print_brief(verbs[i].summary, "\\");
		printf("'\n");
	}
	(void)flags_of(&l, "insulactl");
	printf("\t)\n\t_arguments -C");
	zsh_flags(&l);
	printf(" \\\n\t\t'1: :->verb' '*:: :->rest'\n\tcase $state in\n"
	       "\tverb) _describe verb verbs ;;\n\trest) _insulactl_rest \"$words[1]\" ;;\n"
	       "\tesac\n}\n_insulactl \"$@\"\n");
}

/* ---- fish ---- */

static void fish_flags(const char *program, const char *condition, const struct list *l)
{
	for (size_t i = 0; i < l->n; i++) {
		const struct flag_words *f = &l->flag[i];

		printf("complete -c %s%s", program, condition);
		if (f->name)
			printf(" -l %s", f->name);
		if (f->letter)
			printf(" -s %c", f->letter);
		if (f->words)
			printf(" -x -a '%s'", f->words);
		else if (f->value)
			printf(f->path ? " -r -F" : " -x");
		printf(" -d '");
		print_brief(f->help, "\\");
		printf("'\n");
	}
}

static void fish_program(const char *program)
{
	struct list l;

	(void)flags_of(&l, program);
	printf("complete -c %s -f\n", program);
	fish_flags(program, "", &l);
}

static void fish_ctl(void)
{
	char condition[128];
	struct list l;

	printf("function __insulactl_vms\n\tinsulactl --json ps 2>/dev/null | string match -ra "
	       "'\"name\":\"[^\"]*\"' | cut -d'\"' -f4\nend\ncomplete -c insulactl -f\n");
	(void)flags_of(&l, "insulactl");
	fish_flags("insulactl", " -n __fish_use_subcommand", &l);
	for (size_t i = 0; i < nverbs; i++) {
		const struct verb *v = &verbs[i];

		printf("complete -c insulactl -n __fish_use_subcommand -a %s -d '", v->name);
		print_brief(v->summary, "\\");
		snprintf(condition, sizeof(condition), " -n '__fish_seen_subcommand_from %s%s%s'",
			 v->name, v->aliases ? " " : "", v->aliases ? v->aliases : "");
		printf("'\n");
		flags_of_verb(&l, v);
		fish_flags("insulactl", condition, &l);
		if (takes_vms(v))
			printf("complete -c insulactl%s -a '(__insulactl_vms)'\n", condition);
		else if (!strcmp(v->name, "device"))
			printf("complete -c insulactl%s -a 'restart (__insulactl_vms)'\n",
			       condition);
		else if (!strcmp(v->name, "pool"))
			printf("complete -c insulactl%s -a 'create ls info rm'\n", condition);
	}
}

static bool complete_for(const char *shell, const char *program)
{
	static const struct {
		const char *shell;
		void (*program)(const char *program);
		void (*ctl)(void);
	} shells[] = {{"bash", bash_program, bash_ctl},
		      {"zsh", zsh_program, zsh_ctl},
		      {"fish", fish_program, fish_ctl}};

	for (size_t i = 0; i < ARRAY_LEN(shells); i++) {
		if (strcmp(shells[i].shell, shell) != 0)
			continue;
		if (strcmp(shell, "zsh") != 0) /* there the first line says what it is */
			printf("# Made from Insula's tables of flags: completion of %s for %s.\n",
			       program, shell);
		if (!strcmp(program, "insulactl"))
			shells[i].ctl();
		else
			shells[i].program(program);
		return true;
	}
	return false;
}

/* ---- manual pages ---- */

static const char *type_words(enum setting_type t)
{
	static const char *const words[] = {
		[SETTING_TEXT] = "string",  [SETTING_TEXTS] = "string or array of strings",
		[SETTING_PATH] = "string",  [SETTING_NUMBER] = "number",
		[SETTING_FLAG] = "boolean", [SETTING_SIZE] = "string or number"};

	return words[t];
}

static void print_items(const struct setting *s)
{
	printf("%sobject%s or %sstring%s;", s->many ? "array of " : "", s->many ? "s" : "",
	       s->many ? "" : "a ", s->many ? "s" : "");
	for (size_t i = 0; i < s->nitems; i++)
		printf("%s %s (%s)", i ? "," : "", s->item[i].key, type_words(s->item[i].type));
}

static void print_range(const struct setting *s)
{
	char least[24], most[24];

	if (s->type == SETTING_NUMBER)
		printf(", %llu to %llu", (unsigned long long)s->min, (unsigned long long)s->max);
	else if (s->type == SETTING_SIZE)
		printf(", %s to %s", size_text(s->min, least), size_text(s->max, most));
	if (s->type == SETTING_NUMBER && s->unit)
		printf(" %s", s->unit);
}

/* The keys of JSON: a row each. */
static void man_run(void)
{
	for (size_t i = 0; i < SETTINGS; i++) {
		const struct setting *s = &settings[i];

		printf(".It %s Ta Fl ", setting_key(s));
		if (s->letter)
			printf("%c", s->letter);
		else
			printf("-%s", s->name);
		printf(" Ta ");
		if (s->items)
			print_items(s);
		else
			printf("%s%s", s->many ? "array of strings" : type_words(s->type), "");
		print_range(s);
		printf("\n");
	}
	printf(".It command Ta - Ta array of strings, the command and its arguments\n");
}

static void man_daemon(void)
{
	struct list l;

	l.n = conf_flags(l.flag);
	for (size_t i = 0; i < l.n; i++)
		printf(".It Fl -%s Ar %s\n%c%s.\n", l.flag[i].name, l.flag[i].value,
		       l.flag[i].help[0] >= 'a' && l.flag[i].help[0] <= 'z' ? l.flag[i].help[0] - 32
									    : l.flag[i].help[0],
		       l.flag[i].help + 1);
}

static bool man_for(const char *program)
{
	if (!strcmp(program, "insula-run"))
		man_run();
	else if (!strcmp(program, "insulad"))
		man_daemon();
	else
		return false;
	return true;
}

int main(int argc, char **argv)
{
	bool done = argc == 4 && !strcmp(argv[1], "complete") && strstr(PROGRAMS, argv[3]) &&
		    complete_for(argv[2], argv[3]);

	if (!done && argc == 3 && !strcmp(argv[1], "man"))
		done = man_for(argv[2]);
	if (!done) {
		fprintf(stderr, "usage: insula-spec complete bash|zsh|fish " PROGRAMS "\n"
				"       insula-spec man insula-run|insulad\n");
		return 2;
	}
	return fflush(stdout) ? 1 : 0;
}
