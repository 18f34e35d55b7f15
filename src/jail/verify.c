/* SPDX-License-Identifier: BSD-2-Clause */
/* The parent's look at a child that says it is sealed: the kernel's own account of every thread. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <insula/base.h>

#include "steps.h"

/* Lines of /proc/PID/status (proc_pid_status(5)) and what they must say. The kernel escapes
 * newlines in the program's name, so a line cannot be forged. */
static const struct {
	const char *key, *want;
} expected[] = {
	{"\nNoNewPrivs:\t", "1"},
	{"\nSeccomp:\t", "2"},
	{"\nCapInh:\t", "0000000000000000"},
	{"\nCapPrm:\t", "0000000000000000"},
	{"\nCapEff:\t", "0000000000000000"},
	{"\nCapBnd:\t", "0000000000000000"},
	{"\nCapAmb:\t", "0000000000000000"},
};

static int check_status(const char *status, const char *who, struct err *e)
{
	const char *state = strstr(status, "\nState:\t");

	if (state && (state[8] == 'Z' || state[8] == 'X'))
		return err_set(e, -ESRCH, "%s has ended", who);
	for (size_t i = 0; i < ARRAY_LEN(expected); i++) {
		const char *at = strstr(status, expected[i].key);
		int len = 0;

		if (at) {
			at += strlen(expected[i].key);
			len = (int)strcspn(at, "\n");
		}
		if (!at || (size_t)len != strlen(expected[i].want) ||
		    memcmp(at, expected[i].want, (size_t)len) != 0)
			return err_set(e, -EPERM, "%s: %.*s is \"%.*s\", not \"%s\"", who,
				       (int)strlen(expected[i].key) - 3, expected[i].key + 1, len,
				       at ? at : "", expected[i].want);
	}
	return 0;
}

static int check_file(const char *path, struct err *e)
{
	char status[4096];
	int rc = jail_file_read(path, status, sizeof(status));

	if (rc < 0)
		return err_sys(e, rc == -ENOENT ? -ESRCH : rc, "%s", path);
	return check_status(status, path, e);
}

/* Threads other than the first: it is no fault if a thread has ended meanwhile. */
static int check_threads(pid_t pid, struct err *e)
{
	char path[64];
	struct dirent *d;
	int rc = 0;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	DIR *dir = opendir(path);
	if (!dir)
		return err_sys(e, errno == ENOENT ? -ESRCH : -errno, "%s", path);
	while (!rc && (errno = 0, d = readdir(dir))) {
		int tid;

		if (sscanf(d->d_name, "%d", &tid) != 1 || tid == pid)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%d/status", (int)pid, tid);
		rc = check_file(path, e);
		if (rc == -ESRCH)
			rc = 0;
	}
	if (!rc && errno)
		rc = err_sys(e, -errno, "/proc/%d/task", (int)pid);
	closedir(dir);
	return rc;
}

int jail_verify(pid_t pid, struct err *e)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	int rc = check_file(path, e);
	return rc ? rc : check_threads(pid, e);
}
