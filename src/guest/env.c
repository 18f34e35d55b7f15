/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-init: the environment of what it starts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent.h"

/* False: there is one of that name. */
static bool put_variable(char **env, size_t *n, char *var)
{
	size_t name = strcspn(var, "=") + 1;

	for (size_t i = 0; i < *n; i++)
		if (strncmp(env[i], var, name) == 0)
			return false;
	env[(*n)++] = var;
	return true;
}

static char *join(const char *name, const char *value)
{
	char *s = malloc(strlen(name) + strlen(value) + 2);

	if (s)
		sprintf(s, "%s=%s", name, value);
	return s;
}

char **env_make(char *const *set, const struct env_who *who)
{
	const char *const defaults[][2] = {
		{"PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		{"HOME", who->home},
		{"USER", who->user},
		{"LOGNAME", who->user},
		{"TERM", "linux"},
		{"LANG", "C.UTF-8"},
		{"HOSTNAME", who->hostname},
	};
	const size_t ndefaults = sizeof defaults / sizeof defaults[0];
	size_t nset = 0, n = 0;
	char **env;

	while (set && set[nset])
		nset++;
	env = calloc(nset + ndefaults + 1, sizeof *env);
	for (size_t i = nset; env && i-- > 0;)
		(void)put_variable(env, &n, set[i]);
	for (size_t i = 0; env && i < ndefaults; i++) {
		char *s = join(defaults[i][0], defaults[i][1]);

		if (!s) {
			free(env);
			return NULL;
		}
		if (!put_variable(env, &n, s))
			free(s);
	}
	return env;
}
