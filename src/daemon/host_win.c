/* SPDX-License-Identifier: BSD-2-Clause */
/* Programs, paths and the rest of Windows. See daemon.h. */
#include "os/win/win.h"

#include <errno.h>
#include <fcntl.h>
#include <io.h>
#include <shellapi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "spec/utf8_win.h"
#include "cgroup.h"
#include "conf.h"
#include "daemon.h"
#include "dlog.h"
#include "host.h"
#include "notify.h"

const int host_signals[] = {SIGINT, SIGBREAK};
const size_t host_nsignals = ARRAY_LEN(host_signals);
const int host_reload_signal = 0;

void host_prepare(struct daemon *d)
{
	(void)d;
	_setmode(_fileno(stdout), _O_BINARY);
}

/* The path is written into the configuration: spawn_win.c makes a process of it. The handle keeps
 * the file as it is meanwhile. */
int host_supervisor(struct daemon *d, struct err *e)
{
	char *path = d->conf.supervisor, *name;
	wchar_t wide[CONF_PATH_MAX];
	DWORD n;

	if (!path[0]) {
		n = GetModuleFileNameW(NULL, wide, CONF_PATH_MAX);
		if (!n || n == CONF_PATH_MAX ||
		    !WideCharToMultiByte(CP_UTF8, 0, wide, -1, path, CONF_PATH_MAX, NULL, NULL))
			return err_set(e, -ENAMETOOLONG, "the path of insulad.exe");
		name = strrchr(path, '\\');
		if (!name || strlen("\\insula-run.exe") >= (size_t)(path + CONF_PATH_MAX - name))
			return err_set(e, -ENAMETOOLONG, "the path of insulad.exe");
		strcpy(name, "\\insula-run.exe");
	}
	d->supervisor = win_open(path, GENERIC_READ, FILE_SHARE_READ, OPEN_EXISTING, 0);
	return d->supervisor < 0 ? err_sys(e, d->supervisor, "supervisor: %s", path) : 0;
}

uint64_t host_memory(void)
{
	MEMORYSTATUSEX m = {.dwLength = sizeof(m)};

	return GlobalMemoryStatusEx(&m) ? m.ullTotalPhys : 0;
}

int host_groups(struct owner *who)
{
	(void)who;
	return 0;
}

uint32_t host_uid(void)
{
	return 0;
}

const bool host_names_streams = true;

bool host_is_stream(int fd)
{
	(void)fd;
	return false;
}

char **host_arguments(int *argc, char **argv)
{
	(void)argv;
	return utf8_arguments(argc);
}

/* ---- what Windows has not got ---- */

void journal_open(void)
{
}

bool journal_write(int level, const struct machine *m, const char *text)
{
	(void)level;
	(void)m;
	(void)text;
	return false;
}

void notify_send(const char *text)
{
	(void)text;
}

uint64_t notify_watchdog_ms(void)
{
	return 0;
}

void cgroups_open(struct cgroups *g, const char *how, struct err *e)
{
	(void)how;
	*g = (struct cgroups){.dir = -1};
	err_set(e, -EOPNOTSUPP, "Windows has none");
}

void cgroups_close(struct cgroups *g)
{
	(void)g;
}

/* Nobody asks: there is no group. */
int cgroup_cpu(const struct cgroups *g, const char *name, unsigned percent)
{
	(void)g;
	(void)name;
	(void)percent;
	return -EOPNOTSUPP;
}

int cgroup_set_memory(const struct cgroups *g, const char *name, uint64_t memory, struct err *e)
{
	(void)g;
	(void)name;
	(void)memory;
	return err_set(e, -EOPNOTSUPP, "no control groups on Windows");
}

void cgroup_kill(const struct cgroups *g, const char *name)
{
	(void)g;
	(void)name;
}

bool cgroup_remove(const struct cgroups *g, const char *id)
{
	(void)g;
	(void)id;
	return true;
}

bool cgroup_usage(const struct cgroups *g, const char *name, struct cgroup_usage *u)
{
	(void)g;
	(void)name;
	*u = (struct cgroup_usage){0};
	return false;
}

bool cgroup_had_oom(const struct cgroups *g, const char *id)
{
	(void)g;
	(void)id;
	return false;
}
