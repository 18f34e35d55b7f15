/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insulad: stages of start-up.
 *
 *   1. configuration       -n ends here
 *   2. state directory     locked: there is one daemon for it
 *   3. control groups
 *   4. sockets             made or taken from systemd; nobody is served yet
 *   5. records             VMs that an earlier daemon has left are found again
 *   6. READY=1, loop
 *
 * At its end it leaves every VM alone.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "daemon.h"

#define STATUS_BAD_INPUT 2
#define STATUS_FAILED 1
#define MAX_SIGNALS 4

static const char usage[] =
	"usage: insulad [options]\n"
	"\n"
	"Keep microVMs and offer them on a socket: JSON-RPC 2.0, one object per line.\n"
	"\n"
	"  --config FILE  configuration (default %s, if it exists)\n"
	"  -n             check the configuration, start nothing\n"
	"  --api          print the methods as Markdown, start nothing\n"
	"  -v             say more\n"
	"  --help, --version\n"
	"\n"
	"See insulad(8), insulad.json(5), insulactl(1).\n";

struct options {
	const char *config;
	bool check, api, verbose;
};

static int bad_option(const char *text)
{
	fprintf(stderr, "insulad: '%.60s': unknown, or without its value; see --help\n", text);
	return -EINVAL;
}

static int parse_options(struct options *o, int argc, char **argv)
{
	enum { OPT_CONFIG = 256, OPT_API, OPT_HELP, OPT_VERSION };
	static const struct option longopts[] = {{"config", required_argument, NULL, OPT_CONFIG},
						 {"api", no_argument, NULL, OPT_API},
						 {"help", no_argument, NULL, OPT_HELP},
						 {"version", no_argument, NULL, OPT_VERSION},
						 {NULL, 0, NULL, 0}};
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, "nv", longopts, NULL)) >= 0) {
		if (c == OPT_CONFIG)
			o->config = optarg;
		else if (c == 'n')
			o->check = true;
		else if (c == 'v')
			o->verbose = true;
		else if (c == OPT_API)
			o->api = true;
		else if (c == OPT_HELP)
			exit(printf(usage, conf_default_file()) < 0 || fflush(stdout)
				     ? STATUS_FAILED
				     : 0);
		else if (c == OPT_VERSION)
			exit(puts("insulad " INSULA_VERSION) < 0 ? STATUS_FAILED : 0);
		else
			return bad_option(argv[optind - 1]);
	}
	if (optind == argc)
		return 0;
	fprintf(stderr, "insulad: '%.60s': expected no argument\n", argv[optind]);
	return -EINVAL;
}

static int load_conf(const struct options *o, struct conf *c, struct err *e)
{
	int rc;

	conf_init(c);
	rc = conf_load(c, o->config ? o->config : conf_default_file(), o->config != NULL, e);
	c->verbose |= o->verbose;
	return rc;
}

/* And that what it names exists. */
static int check_conf(struct daemon *d, const struct options *o, struct err *e)
{
	int rc = load_conf(o, &d->conf, e);

	if (!rc)
		rc = clients_check(&d->conf, e);
	return rc ? rc : host_supervisor(d, e);
}

static void open_groups(struct daemon *d)
{
	struct err e;

	cgroups_open(&d->cgroups, d->conf.cgroup, &e);
	if (d->cgroups.on)
		dlog(LOG_LVL_INFO, NULL, "control groups below %s", d->cgroups.path);
	else
		dlog(LOG_LVL_WARN, NULL,
		     "no control groups (%s): VMs have no limit of processor time, and of memory "
		     "only what the guest was given",
		     e.text);
}

static int open_all(struct daemon *d, struct err *e)
{
	int rc;

	rc = schemas_load(&d->schemas, e);
	if (!rc)
		rc = spawn_prepare(e);
	if (!rc)
		rc = foreign_open(d, e);
	if (rc)
		return rc;
	d->state = state_open(d->conf.state_dir, &d->state_lock, e);
	if (d->state < 0)
		return d->state;
	open_groups(d);
	rc = clients_listen(d, e);
	return rc ? rc : machines_load(d, e);
}

/* ---- signals ---- */

static void reload(struct daemon *d)
{
	struct conf fresh;
	struct err e;
	char kept[200];
	bool named = strcmp(d->conf_path, conf_default_file()) != 0;

	notify_send("RELOADING=1");
	conf_init(&fresh);
	if (conf_load(&fresh, d->conf_path, named, &e)) {
		dlog(LOG_LVL_ERROR, NULL, "%s; the old configuration stays", e.text);
	} else {
		fresh.verbose |= d->conf.verbose;
		conf_reload(&d->conf, &fresh, kept, sizeof(kept));
		dlog_setup(&d->conf);
		if (kept[0])
			dlog(LOG_LVL_WARN, NULL, "takes a restart: %s", kept);
		dlog(LOG_LVL_INFO, NULL, "configuration read again");
	}
	notify_send("READY=1");
}

static void on_signal(uv_signal_t *s, int number)
{
	struct daemon *d = s->data;

	if (number == host_reload_signal)
		reload(d);
	else
		uv_stop(&d->loop);
}

/* systemd kills a daemon whose loop stands still. Without a watchdog there is no timer. */
static void on_watchdog(void *ctx)
{
	struct daemon *d = ctx;

	notify_send("WATCHDOG=1");
	d->watchdog = timer_after(&d->loop, notify_watchdog_ms(), on_watchdog, d);
}

static void close_handle(uv_handle_t *h, void *arg)
{
	(void)arg;
	/* Ours close themselves; only the signals are static. */
	if (h->type == UV_SIGNAL && !uv_is_closing(h))
		uv_close(h, NULL);
}

static void shut(struct daemon *d)
{
	notify_send("STOPPING=1");
	timer_cancel(d->watchdog);
	clients_close(d);
	logs_close(d);
	machines_close(d);
	closer_free(d->closer);
	uv_walk(&d->loop, close_handle, NULL);
	/* What is left are closing handles and timers of graves. */
	for (int i = 0; i < 100 && uv_run(&d->loop, UV_RUN_NOWAIT); i++)
		;
	cgroups_close(&d->cgroups);
	schemas_free(&d->schemas);
	fd_close(&d->state);
	fd_close(&d->state_lock);
	fd_close(&d->supervisor);
}

static void run(struct daemon *d)
{
	uv_signal_t signals[MAX_SIGNALS];

	for (size_t i = 0; i < host_nsignals; i++) {
		uv_signal_init(&d->loop, &signals[i]);
		signals[i].data = d;
		uv_signal_start(&signals[i], on_signal, host_signals[i]);
	}
	if (notify_watchdog_ms())
		on_watchdog(d);
	notify_send("READY=1");
	dlog(LOG_LVL_INFO, NULL, "ready on %s, %u VMs", d->conf.socket, d->nmachines);
	uv_run(&d->loop, UV_RUN_DEFAULT);
	dlog(LOG_LVL_INFO, NULL, "ends; VMs run on");
	shut(d);
}

int main(int argc, char **argv)
{
	static struct daemon d = {
		.state = -1, .state_lock = -1, .supervisor = -1, .cgroups = {.dir = -1}};
	struct options o = {0};
	struct err e;
	int rc;

	host_prepare(&d);
	argv = host_arguments(&argc, argv);
	if (!argv || parse_options(&o, argc, argv))
		return STATUS_BAD_INPUT;
	if (o.api)
		return discover_markdown() ? STATUS_FAILED : 0;
	if (check_conf(&d, &o, &e)) {
		fprintf(stderr, "insulad: %s\n", e.text);
		return STATUS_BAD_INPUT;
	}
	if (o.check) {
		puts("insulad: the configuration is good; nothing was started");
		return 0;
	}
	d.conf_path = o.config ? o.config : conf_default_file();
	d.started_ns = clock_ns();
	if (dlog_start(&d.conf) || uv_loop_init(&d.loop))
		return STATUS_FAILED;
	rc = open_all(&d, &e);
	if (!rc)
		run(&d);
	log_queue_finish();
	if (rc)
		fprintf(stderr, "insulad: %s\n", e.text);
	return rc ? STATUS_FAILED : 0;
}
