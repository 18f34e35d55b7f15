/* SPDX-License-Identifier: BSD-2-Clause */
/* Where insulad's things are on Windows. See conf.h. */
#include "os/win/win.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "conf.h"

#define PIPE_PREFIX "\\\\.\\pipe\\"

/* An access-control list has no mode, and users have no numbers; a metrics socket is for Unix
 * scrapers; there are no control groups. */
const char *const conf_missing[] = {"socket_mode",  "metrics_socket", "metrics_mode",
				    "cgroup",       "io_max",         "cpu_percent",
				    "overhead_mib", "users",          NULL};
const char conf_socket_words[] = PIPE_PREFIX "NAME";

/* Of the user that insulad runs as; "" if the system does not say where that is. */
static void below_appdata(char *out, size_t size, const char *what)
{
	const wchar_t *base = _wgetenv(L"LOCALAPPDATA");
	char utf8[CONF_PATH_MAX];

	out[0] = 0;
	if (base && WideCharToMultiByte(CP_UTF8, 0, base, -1, utf8, sizeof(utf8), NULL, NULL) &&
	    path_is_absolute(utf8))
		snprintf(out, size, "%s\\insula%s", utf8, what);
}

const char *conf_default_file(void)
{
	static char path[CONF_PATH_MAX]; /* the same each time */

	below_appdata(path, sizeof(path), "\\insulad.json");
	return path;
}

void conf_init_paths(struct conf *c)
{
	strcpy(c->socket, PIPE_PREFIX "insula");
	strcpy(c->cgroup, "off");
	below_appdata(c->state_dir, sizeof(c->state_dir), "\\state");
}

bool conf_is_socket(const char *text)
{
	return pipe_is_name(text);
}
