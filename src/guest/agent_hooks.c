/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-init: programs of the guest's that are told what has happened to the machine. See
 * agent.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"

#define HOOKS_MAX 64
#define WORD "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"

/* What an editor or a package manager leaves behind (x~, x.dpkg-old) is no hook. */
static int is_hook_name(const struct dirent *e)
{
	return e->d_name[0] && e->d_name[strspn(e->d_name, WORD)] == '\0';
}

/* By their bytes: a locale has no part in it. */
static int by_bytes(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void hook_tell(struct hook_env *t, const char *name, const char *value)
{
	t->set[t->n++] = t->text + t->len;
	t->len += (size_t)sprintf(t->text + t->len, "%s=%s", name, value) + 1;
}

/* A blank between one and the next. */
static void hook_tell_cards(struct hook_env *t, char *const *cards)
{
	for (unsigned i = 0; i < GP_CARDS_MAX && cards[i]; i++) {
		if (!i)
			hook_tell(t, "INSULA_CARDS", cards[i]);
		else
			t->len += (size_t)sprintf(t->text + t->len - 1, " %s", cards[i]);
	}
}

void hooks_environment(struct hook_env *t, char *const *strings)
{
	hook_tell(t, "INSULA_VM", strings[GP_NAME_VM]);
	if (strings[GP_NAME_HOST][0])
		hook_tell(t, "INSULA_HOSTNAME", strings[GP_NAME_HOST]);
	if (strings[GP_NAME_MACHINE_ID][0])
		hook_tell(t, "INSULA_MACHINE_ID", strings[GP_NAME_MACHINE_ID]);
	hook_tell_cards(t, strings + GP_RESUMED_NAMES);
}

static _Noreturn void become_hook(const char *path, const char *word, char *const *set)
{
	char *const argv[] = {(char *)path, (char *)word, NULL};
	char host[65] = "";
	struct env_who who = {.home = "/root", .user = "root", .hostname = host};
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* if the host gives us up */
	gethostname(host, sizeof host - 1);
	environ = env_make(set, &who);
	if (!environ || null < 0 || dup2(null, STDIN_FILENO) < 0 || chdir("/") < 0)
		_exit(STATUS_INTERNAL);
	execv(path, argv);
	_exit(errno == ENOENT ? STATUS_NOT_FOUND : STATUS_NOT_EXECUTABLE);
}

/* Its wait status; -1: it had to be killed. */
static int wait_hook(pid_t pid, unsigned ms)
{
	const struct timespec step = {.tv_nsec = 2000000};
	uint64_t limit = agent_now() + ms;
	int status = 0;
	pid_t got;

	while ((got = waitpid(pid, &status, WNOHANG)) != pid) {
		if (got < 0 && errno != EINTR)
			return 0;
		if (agent_now() >= limit) {
			kill(-pid, SIGKILL);
			kill(pid, SIGKILL); /* before setpgid() */
			waitpid(pid, NULL, 0);
			return -1;
		}
		nanosleep(&step, NULL);
	}
	return status;
}

static void run_hook(const char *path, const char *word, char *const *set, unsigned ms,
		     char why[GP_TEXT_LEN])
{
	const char *name = strrchr(path, '/') + 1;
	pid_t pid = fork();
	int status;

	if (pid == 0)
		become_hook(path, word, set);
	if (pid < 0) {
		note(why, "%.60s: %s", name, strerror(errno));
		return;
	}
	status = wait_hook(pid, ms);
	if (status == -1)
		note(why, "%.60s: killed after %u s", name, ms / 1000);
	else if (WIFSIGNALED(status))
		note(why, "%.60s: signal %d", name, WTERMSIG(status));
	else if (WEXITSTATUS(status))
		note(why, "%.60s: status %d", name, WEXITSTATUS(status));
}

void hooks_run(const char *dir, const char *word, char *const *set, unsigned ms,
	       char why[GP_TEXT_LEN])
{
	struct dirent **list;
	int n = scandir(dir, &list, is_hook_name, by_bytes);

	if (n < 0 && errno != ENOENT)
		note(why, "%.60s: %s", dir, strerror(errno));
	if (n > HOOKS_MAX)
		note(why, "%.60s: %d hooks; expected at most %d", dir, n, HOOKS_MAX);
	for (int i = 0; i < n; i++) {
		char path[512];
		struct stat st;

		snprintf(path, sizeof path, "%s/%s", dir, list[i]->d_name);
		if (i < HOOKS_MAX && stat(path, &st) == 0 && S_ISREG(st.st_mode) &&
		    access(path, X_OK) == 0)
			run_hook(path, word, set, ms, why);
		free(list[i]);
	}
	if (n >= 0)
		free(list);
}
