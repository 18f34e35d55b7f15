/* SPDX-License-Identifier: BSD-2-Clause */
/* The supervisor's own socket, and the console's clients. See control_linux.h. */
#include "control_linux.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>
#include <insula/scm.h>

#include "spec/json.h"
#include "supervisor/vm.h"

#define PACKETS 16 /* per connection and wake-up */

struct control_conn {
	int fd; /* owned; -1: free */
	struct watch watch;
	struct control *control; /* this and what follows: since control_os_begin() */
	struct vm *vm;
	unsigned number;
};

struct control_os {
	int listen; /* owned */
	struct watch listener;
	struct control_conn conn[CONTROL_CONNS];
	struct loop *loop;
	struct ctlconsole console;
};

static void control_drop(struct control *k, unsigned i)
{
	watch_off(&k->os->conn[i].watch);
	fd_close(&k->os->conn[i].fd);
	control_hung_up(k, i);
}

void control_os_send(struct control *k, unsigned i, const char *text, size_t len, int fd)
{
	struct iovec iov = {(void *)(uintptr_t)text, len};
	union scm_buf ctl;
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	scm_attach(&m, &ctl, &fd, fd >= 0);
	if (k->os->conn[i].fd >= 0 &&
	    sendmsg(k->os->conn[i].fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
		log_warn("control: the peer does not take what it asked for: %s", strerror(errno));
		control_drop(k, i);
	}
}

int control_os_attach(struct control *k, json_object *params, json_object *result, int *fd,
		      struct err *e)
{
	int64_t want = j_get_int(params, "scrollback", 0);

	(void)result;
	*fd = ctlconsole_attach(&k->os->console, want < 0 ? 0 : (uint64_t)want, e);
	return *fd < 0 ? *fd : 0;
}

/* They come as descriptors. */
int control_os_streams(json_object *params, int fd[CTLEXEC_FDS], unsigned *n, struct err *e)
{
	(void)params;
	(void)fd;
	(void)n;
	(void)e;
	return 0;
}

void control_os_console(const struct control *k, struct control_console *n)
{
	const struct ctlconsole *c = &k->os->console;

	*n = (struct control_console){ctlconsole_clients(c), c->out.total, c->lost};
}

/* ---- in ---- */

static bool on_packet(struct control *k, struct vm *vm, unsigned i)
{
	static char buf[CONTROL_PACKET]; /* one thread; too large for the stack */
	struct control_fds f = {.n = 0};
	union scm_buf ctl;
	struct iovec iov = {buf, sizeof(buf)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;
	bool ok;

	scm_expect(&m, &ctl, CTLEXEC_FDS + 1);
	n = recvmsg(k->os->conn[i].fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n >= 0)
		f.more = scm_take(&m, f.fd, &f.n, CTLEXEC_FDS);
	/* One that is cut has no sense in it. */
	ok = n > 0 && control_packet(k, vm, i, buf, m.msg_flags & MSG_TRUNC ? 0 : (size_t)n, &f);
	if (!ok)
		control_drop(k, i);
	return ok && k->os->conn[i].fd >= 0;
}

/* insulad runs as root or as the user of this VM. */
static bool may_connect(int fd)
{
	struct ucred u;
	socklen_t len = sizeof(u);

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &len) &&
	       (u.uid == 0 || u.uid == getuid());
}

/* What goes to standard error directly, such as a panic, is at the log's end. */
int vmlog_os_begin(int fd)
{
	struct stat st;

	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || ftruncate(fd, 0) || lseek(fd, 0, SEEK_SET))
		return -EINVAL;
	return dup2(fd, STDERR_FILENO) < 0 ? -errno : 0;
}

/* ---- what the loop finds ---- */

static void on_packets(void *ctx, unsigned events)
{
	struct control_conn *c = ctx;

	(void)events;
	for (int m = 0; m < PACKETS && on_packet(c->control, c->vm, c->number); m++)
		;
}

static void take_connection(struct control *k)
{
	int fd = accept4(k->os->listen, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	for (unsigned i = 0; i < CONTROL_CONNS && may_connect(fd); i++) {
		struct control_conn *c = &k->os->conn[i];

		if (c->fd >= 0)
			continue;
		c->fd = fd;
		watch_on(k->os->loop, &c->watch, fd, WATCH_IN, on_packets, c);
		return;
	}
	close(fd);
}

static void on_listener(void *ctx, unsigned events)
{
	(void)events;
	take_connection(ctx);
}

void control_os_begin(struct control *k, struct vm *vm, struct loop *l)
{
	struct control_os *os = k->os;

	os->loop = l;
	for (unsigned i = 0; i < CONTROL_CONNS; i++) {
		os->conn[i].control = k;
		os->conn[i].vm = vm;
		os->conn[i].number = i;
	}
	watch_on(l, &os->listener, os->listen, WATCH_IN, on_listener, k);
	ctlconsole_begin(&os->console, l);
}

/* ---- begin and end ---- */

static bool is_socket(int fd)
{
	struct stat st;

	fcntl(fd, F_SETFD, FD_CLOEXEC);
	return !fstat(fd, &st) && S_ISSOCK(st.st_mode);
}

/* `errors`: -1 if there is none. A console's output has no errors, and its guest does not wait. */
static void attach_first(struct control *k, int fd, int errors, bool command)
{
	struct err e;

	if (errors >= 0 && (!is_socket(errors) || !command)) {
		close(errors);
		errors = -1;
	}
	if (!is_socket(fd)) {
		close(fd);
		fd_close(&errors);
	} else if (errors >= 0) {
		(void)ctlconsole_first(&k->os->console, fd, errors, &e);
	} else if (ctlconsole_adopt(&k->os->console, fd, 0, &e)) {
		close(fd);
	}
}

void control_os_first(struct control *k, bool command, int fd[CTLEXEC_FDS], unsigned *n)
{
	while (*n > 2)
		fd_close(&fd[--*n]);
	attach_first(k, fd[0], *n > 1 ? fd[1] : -1, command);
	*n = 0;
}

static struct control *control_make(int fd, struct err *e)
{
	struct control *k = control_new(fd + 2, e);

	if (!k)
		return NULL;
	k->os = calloc(1, sizeof(*k->os));
	if (!k->os || ctlconsole_open(&k->os->console, &k->log, e)) {
		if (k->os)
			ctlconsole_close(&k->os->console);
		else
			err_set(e, -ENOMEM, "out of memory");
		free(k->os);
		free(k);
		return NULL;
	}
	k->os->listen = fd;
	for (unsigned i = 0; i < CONTROL_CONNS; i++)
		k->os->conn[i].fd = -1;
	for (int i = fd; i <= fd + 2; i++)
		fcntl(i, F_SETFD, FD_CLOEXEC);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return k;
}

static void use_console(struct control *k, struct vm_config *c)
{
	struct ctlconsole *s = &k->os->console;
	const int both = s->from[CTLCONSOLE_MAIN].helper;
	const struct control_ends ends = {both, both, s->from[CTLCONSOLE_ERRORS].helper,
					  s->from[CTLCONSOLE_SERIAL].helper};

	if (control_use_console(k, c, &ends))
		ctlconsole_has_command(s);
}

int control_open(struct control **out, int fd, struct vm_config *c, struct err *e)
{
	struct control *k = control_make(fd, e);
	json_object *o;
	int rc, next = fd + 3;

	*out = k;
	if (!k)
		return e->code;
	rc = control_setup(k, fd + 1, c, &o, e);
	if (j_get(o, "log_max")) {
		fcntl(next, F_SETFD, FD_CLOEXEC);
		control_use_log(k, o, next++, e);
	}
	if (j_get(o, "console"))
		attach_first(k, next, j_get(o, "errors") ? next + 1 : -1, c->command);
	json_object_put(o);
	close(fd + 1);
	if (!rc)
		use_console(k, c);
	return rc;
}

void control_os_drain(struct control *k)
{
	ctlconsole_drain(&k->os->console);
}

void control_os_close(struct control *k)
{
	for (unsigned i = 0; i < CONTROL_CONNS; i++) {
		watch_off(&k->os->conn[i].watch);
		fd_close(&k->os->conn[i].fd);
	}
	watch_off(&k->os->listener);
	ctlconsole_close(&k->os->console);
	fd_close(&k->os->listen);
	free(k->os);
}
