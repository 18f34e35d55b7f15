/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-oci: an OCI runtime whose containers are in microVMs. docs/containers.md.
 *
 * Stages: the command line; the log; the command, which checks everything before it makes anything.
 * A mistake, whoever's it is, is one line in the log and status 1.
 *
 * A container is, on the host, a proxy (proxy.h) with the container's streams, pid, control group
 * and namespaces, and for the first of a VM a supervisor (vm.h). Its process runs in the guest. The
 * commands are short-lived and share nothing but --root (state.h); they speak with the proxy (start),
 * by signals (kill), or with the guest through the supervisor's control socket (talk.h).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>

#include "commands.h"
#include "conf.h"
#include "report.h"

#define ROOT "/run/insula-oci"
#define CONFIG "INSULA_OCI_CONFIG"

static int (*const commands[COMMANDS])(const struct flags *f, struct err *e) = {
	[CMD_CREATE] = create_command,
	[CMD_START] = start_command,
	[CMD_STATE] = state_command,
	[CMD_KILL] = kill_command,
	[CMD_DELETE] = delete_command,
	[CMD_EXEC] = exec_command,
	[CMD_PS] = ps_command,
	[CMD_PAUSE] = pause_command,
	[CMD_RESUME] = resume_command,
	[CMD_UPDATE] = update_command,
	[CMD_FEATURES] = features_command,
	[CMD_LIST] = list_command,
	[CMD_SPEC] = spec_command,
	[CMD_RUN] = run_command,
	[CMD_EVENTS] = events_command,
	[CMD_TEMPLATE] = template_command,
	[CMD_CHECK] = check_command,
};

static int open_log(const struct flags *f, struct err *e)
{
	bool json = f->log_format && !strcmp(f->log_format, "json");

	if (f->log_format && !json && strcmp(f->log_format, "text") != 0)
		return err_set(e, -EINVAL, "--log-format: '%.20s'; expected text or json",
			       f->log_format);
	return report_open(f->log, json, f->debug, e);
}

/* What needs no container and no rights. */
static bool is_harmless(const struct flags *f)
{
	return f->command == CMD_FEATURES || f->command == CMD_SPEC || f->command == CMD_CHECK;
}

static int command(struct flags *f, struct err *e)
{
	if (!f->root)
		f->root = ROOT;
	if (!f->config)
		f->config = getenv(CONFIG);
	f->config_named = f->config && f->config[0];
	if (!f->config_named)
		f->config = CONF_FILE;
	if (geteuid() != 0 && !is_harmless(f))
		return err_set(e, -EPERM,
			       "insula-oci needs root: rootless containers are not "
			       "there yet");
	return commands[f->command](f, e);
}

int main(int argc, char **argv)
{
	static struct flags f; /* large */
	struct err e = {.code = 0}, later;
	int rc;

	fd_occupy_standard();
	rc = flags_parse(&f, argc, argv, &e);
	if (!rc && f.version) {
		printf("insula-oci version %s\nspec: %s\n", INSULA_VERSION, OCI_VERSION);
		return 0;
	}
	if (!rc && f.help) {
		flags_help(&f);
		return 0;
	}
	if (!rc)
		rc = open_log(&f, &e);
	else
		(void)open_log(&f, &later); /* callers look there for the reason */
	if (!rc)
		rc = command(&f, &e);
	if (rc < 0 || (rc && e.code))
		report_error("%s", e.text);
	return rc < 0 ? 1 : rc;
}
