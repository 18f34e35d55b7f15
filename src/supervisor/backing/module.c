/* SPDX-License-Identifier: BSD-2-Clause */
/* Storage modules: what is behind their disks. See module.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>

#include "module.h"
#include "served.h"

#define MS_NS 1000000ull
#define BACKOFF_MS 10u
#define STEADY_NS 250000000ull /* a connection that lasts so long ends a row of failures */
#define DRAIN_READS 256

/* ---- addresses ---- */

static void add_address(struct module_addresses *to, const void *at, size_t len)
{
	struct module_address *a = &to->at[to->n];

	for (unsigned i = 0; i < to->n; i++) {
		if (to->at[i].len == len && !memcmp(&to->at[i].at, at, len))
			return;
	}
	if (to->n == MODULE_ADDRESSES)
		return;
	memcpy(&a->at, at, len);
	a->len = (socklen_t)len;
	to->n++;
}

/* False: it is no address. */
static bool add_number(struct module_addresses *to, const char *text, uint16_t port)
{
	struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(port)};

	if (inet_pton(AF_INET, text, &four.sin_addr) == 1)
		add_address(to, &four, sizeof(four));
	else if (inet_pton(AF_INET6, text, &six.sin6_addr) == 1)
		add_address(to, &six, sizeof(six));
	else
		return false;
	return true;
}

ssize_t module_read(int fd, char *out, size_t size)
{
	uint64_t until = clock_ns() + MODULE_READ_MS * MS_NS;
	size_t n = 0;

	while (n < size) {
		struct pollfd p = {fd, POLLIN, 0};
		uint64_t now = clock_ns();
		ssize_t k;

		if (now >= until)
			return -ETIMEDOUT;
		if (poll(&p, 1, (int)((until - now) / MS_NS) + 1) <= 0)
			continue;
		k = read(fd, out + n, size - n);
		if (k < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (!k)
			break;
		n += k > 0 ? (size_t)k : 0;
	}
	return (ssize_t)n;
}

/* The C library's resolver is made of plug-ins, which a static program cannot load: getent(1) is a
 * program that can. Once, before the VM runs; an address is kept for the VM's life. */
static void resolve(struct module_addresses *to, const char *host, uint16_t port)
{
	char *const argv[] = {(char *)(uintptr_t) "getent", (char *)(uintptr_t) "ahosts",
			      (char *)(uintptr_t) "--", (char *)(uintptr_t)host, NULL};
	char out[4096] = "", *line, *rest = out;
	posix_spawn_file_actions_t fa;
	int pipefd[2], rc;
	pid_t pid;

	if (pipe2(pipefd, O_CLOEXEC))
		return;
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_adddup2(&fa, pipefd[1], STDOUT_FILENO);
	rc = posix_spawnp(&pid, "getent", &fa, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&fa);
	close(pipefd[1]);
	if (!rc) {
		(void)module_read(pipefd[0], out, sizeof(out) - 1);
		kill(pid, SIGKILL);
		while (waitpid(pid, &rc, 0) < 0 && errno == EINTR)
			;
		while ((line = strsep(&rest, "\n"))) {
			line[strcspn(line, " \t%")] = 0;
			(void)add_number(to, line, port);
		}
	}
	close(pipefd[0]);
}

int module_find(struct module_addresses *to, const char *host, uint16_t port, enum module_when when,
		struct err *e)
{
	const unsigned had = to->n;

	if (add_number(to, host, port))
		return 0;
	if (when == MODULE_LATER)
		return err_set(e, -EINVAL,
			       "host '%.60s'; expected an address: names are looked up when a VM "
			       "starts",
			       host);
	resolve(to, host, port);
	return to->n > had ? 0
			   : err_set(e, -EINVAL, "host '%.60s': no address for that name", host);
}

static int tcp_addresses(struct module_back *b, const struct manifest_scheme *s,
			 enum module_when when, struct err *e)
{
	uint16_t port = b->uri.port ? b->uri.port : s->port;

	if (!b->uri.host[0])
		return err_set(e, -EINVAL, "host ''; expected %s://HOST/...", s->name);
	if (b->uri.socket[0])
		return err_set(e, -EINVAL, "socket '%.60s'; expected none with %s://",
			       b->uri.socket, s->name);
	return module_find(&b->to, b->uri.host, port, when, e);
}

static int unix_address(struct module_back *b, const struct manifest_scheme *s, struct err *e)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	if (b->uri.host[0])
		return err_set(e, -EINVAL, "host '%.60s'; expected none: %s:///NAME?socket=FILE",
			       b->uri.host, s->name);
	if (b->uri.socket[0] != '/')
		return err_set(e, -EINVAL,
			       "socket '%.60s'; expected an absolute path: %s:///NAME?socket=FILE",
			       b->uri.socket, s->name);
	strcpy(a.sun_path, b->uri.socket);
	add_address(&b->to, &a, sizeof(a));
	return 0;
}

static int find_addresses(struct module_back *b, enum module_when when, struct err *e)
{
	const struct manifest_scheme *s;
	char all[MANIFEST_SCHEMES * (MANIFEST_WORD + 5)];
	size_t n = 0;

	s = manifest_scheme(&b->manifest, b->uri.scheme);
	for (unsigned i = 0; i < b->manifest.nschemes; i++)
		n += (size_t)snprintf(all + n, sizeof(all) - n, "%s%s://", i ? ", " : "",
				      b->manifest.scheme[i].name);
	if (!s)
		return err_set(e, -EINVAL, "scheme '%s'; expected one of: %.160s", b->uri.scheme,
			       all);
	return s->over == MANIFEST_TCP ? tcp_addresses(b, s, when, e) : unix_address(b, s, e);
}

/* ---- connections ---- */

/* Begin to connect: a socket that is connected or about to be. */
static int begin_connect(struct module_back *b, struct err *e)
{
	const struct module_address *a = &b->to.at[b->turn++ % b->to.n];
	int fd = asks_connect(&a->at, a->len);

	return fd >= 0 ? fd
		       : err_sys(e, fd, "connection to %s",
				 b->uri.socket[0] ? b->uri.socket : b->uri.host);
}

/* 0, -EINPROGRESS or why not. */
static int connected(int fd, int timeout)
{
	struct pollfd p = {fd, POLLOUT, 0};
	socklen_t len = sizeof(int);
	int error = 0;

	if (poll(&p, 1, timeout) <= 0)
		return -EINPROGRESS;
	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) ? -errno : -error;
}

static int connect_now(struct module_back *b, struct err *e)
{
	int rc = -EINVAL;

	for (unsigned i = 0; i < b->to.n; i++) {
		int fd = begin_connect(b, e);

		rc = fd;
		if (fd < 0)
			continue;
		rc = connected(fd, MODULE_CONNECT_MS);
		if (!rc) {
			b->turn--; /* it is a good one */
			return fd;
		}
		close(fd);
		rc = err_sys(e, rc == -EINPROGRESS ? -ETIMEDOUT : rc, "connection to %s",
			     b->uri.socket[0] ? b->uri.socket : b->uri.host);
	}
	return rc;
}

/* ---- open ---- */

static int put_text(struct module_back *b, const char *target, struct err *e)
{
	size_t n = strlen(target) + 1;
	int rc;

	if (n > sizeof(b->text) / 2)
		return err_set(e, -EINVAL, "%zu characters; expected at most %zu", n - 1,
			       sizeof(b->text) / 2 - 1);
	memcpy(b->text, target, n);
	rc = manifest_settings(&b->manifest, b->conf->options, b->text + n, sizeof(b->text) - n, e);
	if (rc < 0)
		return rc;
	b->text_len = (unsigned)(n + (size_t)rc);
	return module_take_files(b, e);
}

/* The parts of a target that is a URI, behind b->text[*n]. */
static int put_uri(struct module_back *b, const char *target, size_t *n, enum module_when when,
		   struct err *e)
{
	char port[8];
	unsigned number;
	int rc = uri_parse(&b->uri, target, e);

	if (!rc)
		rc = find_addresses(b, when, e);
	if (rc)
		return rc;
	if (b->uri.query[0] && !manifest_takes_query(&b->manifest))
		return err_set(e, -EINVAL, "query; expected none with %s://", b->uri.scheme);
	number = b->uri.port ? b->uri.port : manifest_scheme(&b->manifest, b->uri.scheme)->port;
	snprintf(port, sizeof(port), "%u", number);
	for (const char *const *p =
		     (const char *const[]){"scheme", b->uri.scheme, "host", b->uri.host, "port",
					   port, "user", b->uri.user, "path", b->uri.path, NULL};
	     *p && !rc; p += 2) {
		/* What is not said is not there. */
		if (p[1][0] && manifest_put(b->text, sizeof(b->text), n, p[0], p[1]))
			rc = err_set(e, -EINVAL, "too long");
	}
	return rc;
}

/* The target is a value as those of the settings are. */
static int open_served(struct module_back *b, const char *target, enum module_when when,
		       struct err *e)
{
	int rc = manifest_target(&b->manifest, target, b->text, sizeof(b->text), e);
	size_t n = rc > 0 ? (size_t)rc : 0;

	if (n && b->manifest.nschemes)
		rc = put_uri(b, target, &n, when, e);
	if (rc < 0)
		return rc;
	rc = manifest_settings(&b->manifest, b->conf->options, b->text + n, sizeof(b->text) - n, e);
	if (rc < 0)
		return rc;
	b->text_len = (unsigned)n + (unsigned)rc;
	return served_open(&b->served, b, when, e);
}

static int open_linked(struct module_back *b, const char *target, enum module_when when,
		       struct err *e)
{
	int rc;

	b->connects = b->manifest.nschemes;
	rc = b->connects ? uri_parse(&b->uri, target, e) : 0;
	if (!rc)
		rc = put_text(b, target, e);
	return !rc && b->connects ? find_addresses(b, when, e) : rc;
}

static int open_all(struct module_back *b, const char *libexec, enum module_when when,
		    struct err *e)
{
	const char *target = b->conf->path + strlen(b->name) + 1;
	int rc;

	snprintf(b->dir, sizeof(b->dir), "%s/modules", libexec);
	rc = manifest_open(&b->manifest, b->dir, b->name, &b->exec_fd, e);
	if (rc)
		return rc;
	/* "nbd://host/x" is short for "nbd:nbd://host/x". */
	if (b->manifest.nschemes && !strncmp(target, "//", 2))
		target = b->conf->path;
	rc = b->manifest.serves ? open_served(b, target, when, e) : open_linked(b, target, when, e);
	if (rc || when == MODULE_CHECK || !b->to.n)
		return rc;
	rc = b->first = when == MODULE_NOW ? connect_now(b, e) : begin_connect(b, e);
	return rc < 0 ? rc : 0;
}

/* A password that somebody has put into the URI is not said again, and neither is a query, which
 * may hold one. */
static void put_says(struct module_back *b, const char *path)
{
	const char *from = strstr(path, "://"), *at, *rest = path;
	size_t len = from ? strcspn(from + 3, "/?#") : 0, n = 0;

	at = from ? memchr(from + 3, '@', len) : NULL;
	if (at) {
		len = strcspn(from + 3, ":%@");
		n = (size_t)snprintf(b->says, sizeof(b->says), "%.*s%s",
				     (int)(from + 3 - path + (ptrdiff_t)len), path,
				     from[3 + len] == '@' ? "" : ":...");
		rest = at;
	}
	len = from ? strcspn(rest, "?") : strlen(rest);
	if (n < sizeof(b->says))
		snprintf(b->says + n, sizeof(b->says) - n, "%.*s%s", (int)len, rest,
			 rest[len] ? "?..." : "");
}

int module_open(struct module_back **out, const struct disk_config *conf, const char *libexec,
		enum module_when when, struct err *e)
{
	struct module_back *b = calloc(1, sizeof(*b));
	struct err why;
	int rc;

	*out = NULL;
	if (!b)
		return err_set(e, -ENOMEM, "out of memory");
	b->conf = conf;
	b->late = when == MODULE_LATER;
	b->exec_fd = b->first = b->files = -1;
	for (unsigned i = 0; i < BLK_MAX_QUEUES; i++)
		b->slot[i].had = -1;
	memcpy(b->name, conf->path, config_module(conf->path));
	put_says(b, conf->path);
	rc = open_all(b, libexec, when, &why);
	if (rc) {
		err_set(e, rc, "disk %.80s: %s", b->says, why.text);
		module_close(b);
		return rc;
	}
	*out = b;
	return 0;
}

int module_connected(struct module_back *b, struct err *e)
{
	int rc = b->first < 0 ? 0 : connected(b->first, 0);

	if (!rc || rc == -EINPROGRESS)
		return !rc;
	return err_sys(e, rc, "connection to %s", b->uri.socket[0] ? b->uri.socket : b->uri.host);
}

void module_close(struct module_back *b)
{
	if (!b)
		return;
	served_close(b->served);
	fd_close(&b->exec_fd);
	fd_close(&b->first);
	fd_close(&b->files);
	for (unsigned i = 0; i < BLK_MAX_QUEUES; i++)
		fd_close(&b->slot[i].had);
	free(b);
}

/* ---- fences ---- */

/* What the server still answers is nobody's. False: it has closed its side. */
static bool drain(struct module_slot *s)
{
	static char nobodys[64 << 10];
	ssize_t n = 1;

	for (unsigned i = 0; i < DRAIN_READS && n > 0; i++) {
		n = recv(s->had, nobodys, sizeof(nobodys), MSG_DONTWAIT);
		if (n > 0)
			s->since_ns = clock_ns();
	}
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

static void slot_done(struct module_slot *s)
{
	fd_close(&s->had);
	s->shut = false;
	s->since_ns = s->fence_ns = 0;
}

/* True: the server has let go of it. `silence`: how long it has to say nothing before it is shut;
 * *alive becomes false if it was closed before that. */
static bool slot_fence(struct module_slot *s, uint64_t silence, bool *alive)
{
	uint64_t now = clock_ns();

	if (s->had < 0)
		return true;
	if (!s->fence_ns)
		s->fence_ns = s->since_ns = now;
	if (!drain(s)) {
		*alive &= s->shut;
		slot_done(s);
		return true;
	}
	if (!s->shut && now - s->since_ns >= silence)
		s->shut = !shutdown(s->had, SHUT_WR);
	if (now - s->fence_ns < MODULE_FENCE_NS)
		return false;
	*alive = false;
	slot_done(s);
	return true;
}

/*
 * Before another process starts. That the server is the same one all the time, and not one that was
 * started meanwhile and has forgotten what the other one had not made stable, is seen so: it takes
 * a new connection, and after that the old ones are still open.
 */
int module_quiet(struct module_back *b)
{
	bool waits = false, any = false;
	struct err e;

	for (unsigned i = 0; i < BLK_MAX_QUEUES; i++)
		any |= b->slot[i].had >= 0;
	b->same &= any;
	if (any && b->first < 0) {
		b->first = begin_connect(b, &e);
		b->same = b->first >= 0;
	} else if (any && b->same && connected(b->first, 0)) {
		b->same = false;
	}
	for (unsigned i = 0; i < BLK_MAX_QUEUES; i++)
		waits |= !slot_fence(&b->slot[i], MODULE_SILENCE_NS, &b->same);
	return !waits;
}

/* ---- for the process ---- */

static int give(struct module_back *b, uint32_t lane, int fd)
{
	struct module_slot *s = &b->slot[lane];

	s->had = fd_copy(fd);
	s->given_ns = clock_ns();
	s->wants = false;
	return fd;
}

int module_hand_out(struct module_back *b)
{
	int fd = b->first;

	for (unsigned i = 0; i < BLK_MAX_QUEUES; i++)
		b->slot[i].wants = false;
	if (fd < 0)
		return -1;
	b->first = -1;
	return give(b, 0, fd);
}

bool module_asks(struct module_back *b, uint32_t lane)
{
	struct module_slot *s = &b->slot[lane < BLK_MAX_QUEUES ? lane : 0];
	uint64_t now = clock_ns();

	if (lane >= BLK_MAX_QUEUES || !b->connects)
		return false;
	if (s->wants)
		return true;
	s->wants = true;
	s->due_ns = now;
	if (now - s->given_ns > STEADY_NS || !s->given_ns) {
		s->backoff_ms = 0;
		return true;
	}
	s->backoff_ms = !s->backoff_ms ? BACKOFF_MS : 2 * s->backoff_ms;
	if (s->backoff_ms > MODULE_PATIENCE_MS)
		s->backoff_ms = MODULE_PATIENCE_MS;
	s->due_ns = now + s->backoff_ms * MS_NS;
	return true;
}

uint64_t module_due(const struct module_back *b)
{
	uint64_t first = 0;

	for (unsigned i = 0; i < BLK_MAX_QUEUES; i++) {
		const struct module_slot *s = &b->slot[i];

		if (s->wants && (!first || s->due_ns < first))
			first = s->due_ns;
	}
	return first;
}

static void later(struct module_slot *s, unsigned ms)
{
	s->due_ns = clock_ns() + ms * MS_NS;
}

int module_retry(struct module_back *b, uint32_t *lane, struct err *e)
{
	uint64_t now = clock_ns();
	bool alive = true;

	for (uint32_t i = 0; i < BLK_MAX_QUEUES; i++) {
		struct module_slot *s = &b->slot[i];
		int fd;

		if (!s->wants || s->due_ns > now)
			continue;
		if (!slot_fence(s, 0, &alive)) {
			later(s, BACKOFF_MS);
			continue;
		}
		*lane = i;
		fd = begin_connect(b, e);
		if (fd >= 0)
			return give(b, i, fd);
		s->backoff_ms = !s->backoff_ms ? BACKOFF_MS : 2 * s->backoff_ms;
		if (s->backoff_ms > MODULE_PATIENCE_MS)
			s->backoff_ms = MODULE_PATIENCE_MS;
		later(s, s->backoff_ms);
		return fd;
	}
	return err_set(e, -EAGAIN, "none is due");
}
