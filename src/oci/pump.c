/* SPDX-License-Identifier: BSD-2-Clause */
/* The proxy's loop. See pump.h. */
#include "pump.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>

#include "proc.h"
#include "report.h"
#include "share.h"
#include "spec/json.h"
#include "vm.h"

#define PROCESS_NS 90000000000ull /* a process has begun, when the guest is up */
#define SIGNAL_MS 10000
#define STOP_MS 3000 /* of a pod's VM: others may have something to write back */
#define LOST 137     /* of a process that a dead VM took along, as if by SIGKILL */

/* ---- ends ---- */

static void pump_answer(struct proxy *p, const char *error)
{
	json_object *o = json_object_new_object();

	if (p->asker >= 0)
		proxy_reply(p->asker, o, error);
	json_object_put(o);
	if (p->asker != p->channel)
		fd_close(&p->asker);
	p->asker = -1;
}

static void pump_over(struct proxy *p, int status)
{
	if (p->phase == PHASE_OVER)
		return;
	p->phase = PHASE_OVER;
	p->status = status;
}

/* The words by which callers tell a missing program (status 127) from one that may not run. */
static void start_failed(struct proxy *p, int status, const char *why)
{
	bool said = strstr(why, "o such file") || strstr(why, "not found");

	snprintf(p->failed, sizeof(p->failed), "%s%s",
		 status == 127 && !said ? "executable file not found in $PATH: " : "", why);
	pump_answer(p, p->failed); /* who asked has the log, too */
	pump_over(p, status);
}

static void vm_is_gone(struct proxy *p)
{
	char why[200];

	if (p->phase == PHASE_OVER)
		return;
	vm_reason(p->vmdir, why, sizeof(why));
	if (p->phase == PHASE_STARTING || p->start_wanted) {
		char text[260];

		snprintf(text, sizeof(text), "the VM has ended: %s", why);
		start_failed(p, LOST, text);
		return;
	}
	report_error("container \"%s\": the VM has ended: %s", p->j->c->id, why);
	pump_over(p, LOST);
}

void pump_deserted(struct proxy *p)
{
	p->asker = -1;
	if (p->phase == PHASE_PREPARING || (p->phase == PHASE_STARTING && p->j->exec))
		pump_over(p, 1);
}

/* ---- the status file ---- */

static const char *status_name(const struct proxy *p, char out[64])
{
	snprintf(out, 64, "%s%sstatus", p->j->exec ? p->j->exec : "", p->j->exec ? "." : "");
	return out;
}

static void pass_signal(struct proxy *p, int signo);

static void pump_started(struct proxy *p)
{
	p->phase = PHASE_RUNNING;
	pump_answer(p, NULL);
	for (int s = 1; s <= 64; s++) {
		if (p->held & UINT64_C(1) << (s - 1))
			pass_signal(p, s);
	}
	p->held = 0;
	if (p->j->io.tty)
		pass_signal(p, SIGWINCH);
}

/* A guest's words: "started PID", or "failed STATUS TEXT". */
static void take_status(struct proxy *p, const char *line)
{
	unsigned status;
	int n = 0;

	if (!strncmp(line, "started ", 8)) {
		pump_started(p);
	} else if (sscanf(line, "failed %3u %n", &status, &n) == 1 && n && status && status < 256) {
		start_failed(p, (int)status, line + n);
	} else {
		start_failed(p, LOST, "the guest's status file makes no sense");
	}
}

static void look_at_status(struct proxy *p)
{
	char line[CT_STATUS_MAX + 1], name[64];
	struct err e;
	int rc;

	if (p->phase != PHASE_STARTING)
		return;
	rc = share_status(p->share, status_name(p, name), line, &e);
	if (!rc)
		take_status(p, line);
	else if (rc != -ENOENT)
		start_failed(p, LOST, e.text);
}

static void on_notify(struct proxy *p)
{
	char buf[4096] __attribute__((aligned(__alignof__(struct inotify_event))));

	if (read(p->notify, buf, sizeof(buf)) > 0)
		look_at_status(p);
}

/* ---- start ---- */

/* The machine is set up, and its name server listens. */
static bool is_prepared(const struct proxy *p)
{
	return (!p->sandbox || p->sandbox_over) && p->names_stream < 0 && p->names_ready < 0;
}

static void tell_guest(struct proxy *p)
{
	const char *const run[] = {CT_PROGRAM, "run", p->j->c->id, NULL};
	const char *const exec[] = {CT_PROGRAM, "exec", p->j->c->id, p->j->exec, NULL};
	const int fds[] = {0, 1, 2};
	struct talk_command c = {.argv = p->j->exec ? exec : run, .fds = fds, .tty = p->j->io.tty};
	struct err e;

	p->start_wanted = false;
	p->phase = PHASE_STARTING;
	if (c.tty)
		tty_size(0, &c.rows, &c.cols);
	if (talk_exec(&p->talk, &c, &p->id, &e))
		start_failed(p, LOST, e.text);
	else
		look_at_status(p);
}

void pump_start(struct proxy *p, int asker)
{
	bool may = p->phase == PHASE_CREATED || (p->phase == PHASE_PREPARING && p->j->exec);

	if (!may || p->start_wanted) {
		json_object *o = json_object_new_object();

		proxy_reply(asker, o, "cannot start an already running container");
		json_object_put(o);
		if (asker != p->channel)
			close(asker);
		return;
	}
	p->asker = asker;
	p->start_limit_ns = clock_ns() + p->talk.boot_timeout * 1000000000ull + PROCESS_NS;
	if (p->talk.fd < 0)
		vm_is_gone(p);
	else if (p->sandbox_failed[0])
		start_failed(p, 1, p->sandbox_failed);
	else if (!is_prepared(p))
		p->start_wanted = true;
	else
		tell_guest(p);
}

static void on_go(struct proxy *p)
{
	int fd = accept4(p->go, NULL, NULL, SOCK_CLOEXEC);
	const struct timeval limit = {.tv_sec = 5};
	struct ucred u;
	socklen_t len = sizeof(u);
	char word[16];

	if (fd < 0)
		return;
	if (!getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &len) &&
	    (u.uid == 0 || u.uid == geteuid()) &&
	    !setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) &&
	    recv(fd, word, sizeof(word), 0) == 5 && !memcmp(word, "start", 5))
		pump_start(p, fd);
	else
		close(fd);
}

/* ---- the machine ---- */

int pump_sandbox(struct proxy *p, struct err *e)
{
	static const char *const argv[] = {CT_PROGRAM, "sandbox", NULL};
	int out[2] = {-1, -1}, rc;
	int fds[3];

	p->null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (p->null < 0 || pipe2(out, O_CLOEXEC | O_NONBLOCK))
		return err_sys(e, -errno, "a pipe");
	fds[0] = fds[1] = p->null;
	fds[2] = out[1];
	rc = talk_exec(&p->talk, &(struct talk_command){.argv = argv, .fds = fds}, &p->sandbox, e);
	close(out[1]);
	p->said = out[0];
	return rc;
}

static void sandbox_ended(struct proxy *p, int status, const char *text)
{
	char said[100] = "";
	ssize_t n = read(p->said, said, sizeof(said) - 1);

	said[n > 0 ? n : 0] = 0;
	said[strcspn(said, "\n")] = 0;
	err_clean(said);
	fd_close(&p->said);
	p->sandbox_over = true;
	if (status)
		snprintf(p->sandbox_failed, sizeof(p->sandbox_failed), "the VM's set-up: %s",
			 said[0] ? said : text);
	pump_names(p);
	if (status && p->start_wanted)
		start_failed(p, 1, p->sandbox_failed);
	else if (p->start_wanted && is_prepared(p))
		tell_guest(p);
}

/* ---- the pod's name server ---- */

/* Without it the container runs all the same, and finds no names. */
static void names_failed(struct proxy *p, const char *why)
{
	char at[INET_ADDRSTRLEN];

	report_warn("container \"%s\": the name server at %s is not there in the VM: %s",
		    p->j->c->id, inet_ntop(AF_INET, &p->names_at, at, sizeof(at)), why);
	fd_close(&p->names_stream);
	fd_close(&p->names_ready);
}

void pump_names(struct proxy *p)
{
	char at[INET_ADDRSTRLEN];
	const char *const argv[] = {CT_PROGRAM, "names",
				    inet_ntop(AF_INET, &p->names_at, at, sizeof(at)), NULL};
	const int fds[] = {p->names_stream, p->names_stream, p->null};
	struct err e;
	int64_t id;

	if (p->names_stream < 0 || !p->sandbox_over)
		return;
	if (p->sandbox_failed[0])
		names_failed(p, p->sandbox_failed);
	else if (talk_exec(&p->talk, &(struct talk_command){.argv = argv, .fds = fds}, &id, &e))
		names_failed(p, e.text);
	fd_close(&p->names_stream);
}

static void on_names(struct proxy *p)
{
	char ready;

	if (read(p->names_ready, &ready, 1) == 1)
		fd_close(&p->names_ready);
	else
		names_failed(p, "the guest's program has ended");
	if (p->start_wanted && is_prepared(p))
		tell_guest(p);
}

static void process_ended(struct proxy *p, json_object *data)
{
	const char *reason = j_get_str(data, "reason", "lost"), *text = j_get_str(data, "text", "");
	int status = (int)j_get_int(data, "status", LOST);

	look_at_status(p); /* it may have begun and ended at once */
	if (p->phase == PHASE_STARTING) {
		start_failed(p, status ? status : LOST,
			     text[0] ? text : "the guest did not start it");
		return;
	}
	if (!strcmp(reason, "lost") || !strcmp(reason, "refused"))
		status = LOST;
	if (text[0])
		report_warn("container \"%s\": %s", p->j->c->id, text);
	pump_over(p, status & 0xff);
}

void pump_event(void *ctx, const char *event, json_object *data)
{
	struct proxy *p = ctx;
	int64_t id = j_get_int(data, "exec", 0);

	if (strcmp(event, "exec-ended") != 0 || !id)
		return;
	if (id == p->sandbox && !p->sandbox_over)
		sandbox_ended(p, (int)j_get_int(data, "status", LOST),
			      j_get_str(data, "text", "it failed"));
	else if (id == p->id)
		process_ended(p, data);
}

/* ---- signals ---- */

static void pass_size(struct proxy *p)
{
	json_object *o = json_object_new_object();
	uint16_t rows, cols;

	if (!p->j->io.tty || !tty_size(0, &rows, &cols)) {
		json_object_put(o);
		return;
	}
	j_int(o, "exec", p->id);
	j_int(o, "rows", rows);
	j_int(o, "cols", cols);
	(void)talk_call(&p->talk, "exec-resize", o, NULL, 0, SIGNAL_MS, NULL, NULL);
}

static void pass_signal(struct proxy *p, int signo)
{
	json_object *o;

	if (signo == SIGWINCH && p->j->io.tty) {
		pass_size(p);
		return;
	}
	o = json_object_new_object();
	j_int(o, "exec", p->id);
	j_int(o, "signal", signo);
	(void)talk_call(&p->talk, "exec-signal", o, NULL, 0, SIGNAL_MS, NULL, NULL);
}

/* Before its start, the process is what anybody would be who handles no signal. */
static bool is_harmless(int signo)
{
	return signo == SIGCHLD || signo == SIGURG || signo == SIGWINCH || signo == SIGCONT ||
	       signo == SIGPIPE || signo == SIGTTIN || signo == SIGTTOU || signo == SIGTSTP;
}

static void on_signal(struct proxy *p, int signo)
{
	if (signo == SIGCHLD)
		return; /* the supervisor's; its connection says it too */
	if (p->phase == PHASE_RUNNING)
		pass_signal(p, signo);
	else if (p->phase == PHASE_STARTING)
		p->held |= UINT64_C(1) << (signo - 1);
	else if (!is_harmless(signo))
		pump_over(p, 128 + signo);
}

static void on_signals(struct proxy *p)
{
	struct signalfd_siginfo s;

	for (int i = 0; i < 16 && read(p->signals, &s, sizeof(s)) == sizeof(s); i++) {
		if (s.ssi_signo >= 1 && s.ssi_signo <= 64)
			on_signal(p, (int)s.ssi_signo);
	}
}

/* ---- the pod's loopback ---- */

/* In the guest a program connects to that port; what is nobody's port there is closed here. */
static void on_connection(struct proxy *p, int listener)
{
	char number[8];
	const char *const argv[] = {CT_PROGRAM, "connect", number, NULL};
	int fd, fds[3];
	uint16_t port;
	int64_t id;
	struct err e;

	fd = forward_accept(listener, &port);
	if (fd < 0)
		return;
	fds[0] = fds[1] = fd;
	fds[2] = p->null;
	snprintf(number, sizeof(number), "%u", port);
	if (talk_exec(&p->talk, &(struct talk_command){.argv = argv, .fds = fds}, &id, &e))
		report_warn("port %u: %s", port, e.text);
	close(fd);
}

/* ---- the loop ---- */

static int until_limit(const struct proxy *p)
{
	return p->phase == PHASE_STARTING || p->start_wanted ? ms_until(p->start_limit_ns) : -1;
}

static void pump_turn(struct proxy *p)
{
	struct pollfd w[] = {{p->channel, POLLIN, 0},
			     {p->go, POLLIN, 0},
			     {p->signals, POLLIN, 0},
			     {p->talk.fd, POLLIN, 0},
			     {p->phase == PHASE_STARTING ? p->notify : -1, POLLIN, 0},
			     {p->forward.listener[0], POLLIN, 0},
			     {p->forward.listener[1], POLLIN, 0},
			     {p->names_stream < 0 ? p->names_ready : -1, POLLIN, 0}};
	int n = poll(w, ARRAY_LEN(w), until_limit(p));

	if (n == 0 && until_limit(p) == 0)
		start_failed(p, LOST, "the guest has not started it in time");
	if (n <= 0)
		return;
	if (w[4].revents)
		on_notify(p);
	if (w[3].revents && talk_turn(&p->talk))
		vm_is_gone(p);
	if (w[2].revents)
		on_signals(p);
	if (w[1].revents)
		on_go(p);
	for (int i = 0; i < 2; i++) {
		if (w[5 + i].revents && p->talk.fd >= 0)
			on_connection(p, p->forward.listener[i]);
	}
	if (w[7].revents)
		on_names(p);
	if (w[0].revents)
		proxy_on_order(p);
}

/* The share is small, and a container may have many. */
static void remove_records(const struct proxy *p)
{
	static const char *const ends[] = {"", ".status", ".seccomp"};
	char name[64];

	for (size_t i = 0; i < ARRAY_LEN(ends) && p->share >= 0; i++) {
		snprintf(name, sizeof(name), "%s%s", p->j->exec, ends[i]);
		unlinkat(p->share, name, 0);
	}
}

int pump_run(struct proxy *p)
{
	while (p->phase != PHASE_OVER) {
		bool had = p->talk.fd >= 0;

		pump_turn(p);
		/* A call may have found it first. */
		if (had && p->talk.fd < 0)
			vm_is_gone(p);
	}
	if (p->j->exec)
		remove_records(p);
	if (p->owner)
		vm_end_now(&p->talk, &p->vm, p->j->c->pod && !p->failed[0] ? STOP_MS : 0);
	else
		vm_talk_close(&p->talk);
	return p->status;
}
