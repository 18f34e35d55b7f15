/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * passt: networking without privileges, as a program of the host with a socket to insula-net.
 *
 * It is not jailed by us (it takes its own namespaces, user and system-call filter), it gets no
 * descriptor but its socket and its log, and it ends when the socket's other end is gone: so it
 * outlives neither its helper nor insula-run, however they end. What the guest may reach through it
 * is what the user may reach, except for the host's loopback: --no-map-gw, or the gateway's address
 * would lead there, and insula-net drops frames to loopback addresses (NET_NO_LOOPBACK).
 *
 * passt takes addresses from the interface with the default route and refuses to run without one.
 * A host without one forwards ports all the same: then passt is told addresses of its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>

#include "nic.h"

#define SOCK_FD 3
#define MAX_ARGS (32 + 2 * CONFIG_MAX_FORWARDS)
#define SPEC_LEN 48
#define PASST_MAC "02:00:5e:00:53:fe" /* lo has none that passt could take */

int passt_find(char *path, size_t size, struct err *e)
{
	static const char usual[] = "/usr/local/bin:/usr/bin:/bin";
	const char *dirs = getenv("PATH"), *p;

	for (p = dirs && *dirs ? dirs : usual; *p;) {
		size_t len = strcspn(p, ":");

		/* Absolute ones only: the current directory is no place for programs. */
		if (*p == '/' && (size_t)snprintf(path, size, "%.*s/passt", (int)len, p) < size &&
		    !access(path, X_OK))
			return 0;
		p += len + (p[len] == ':');
	}
	return err_set(e, -ENOENT,
		       "--net: user needs the program passt (Debian: apt-get install passt)");
}

/* Does a line of /proc/net/route, or ipv6_route, name a default route? */
static bool default_route4(const char *line)
{
	unsigned long dst, flags, mask;

	/* Iface Destination Gateway Flags RefCnt Use Metric Mask */
	return sscanf(line, "%*s %lx %*x %lx %*d %*d %*d %lx", &dst, &flags, &mask) == 3 && !dst &&
	       !mask && (flags & RTF_UP) && !(flags & RTF_REJECT);
}

static bool default_route6(const char *line)
{
	unsigned plen;
	char name[IFNAMSIZ + 1];

	/* The kernel's own, which leads nowhere, is on lo. */
	return sscanf(line, "%*32s %2x %*s %*s %*s %*s %*s %*s %*s %16s", &plen, name) == 2 &&
	       !plen && strcmp(name, "lo") != 0;
}

static bool any_line(const char *path, bool (*is)(const char *line))
{
	FILE *f = fopen(path, "re");
	char line[256];
	bool found = !f; /* without /proc nothing is known: as if there were one */

	while (f && !found && fgets(line, sizeof(line), f))
		found = is(line);
	if (f)
		fclose(f);
	return found;
}

bool passt_has_uplink(void)
{
	return any_line("/proc/net/route", default_route4) ||
	       (!access("/proc/net/ipv6_route", R_OK) &&
		any_line("/proc/net/ipv6_route", default_route6));
}

struct args {
	const char *v[MAX_ARGS];
	unsigned n;
	char spec[CONFIG_MAX_FORWARDS][SPEC_LEN], mtu[16];
};

static void passt_add(struct args *a, const char *flag, const char *value)
{
	a->v[a->n++] = flag;
	if (value)
		a->v[a->n++] = value;
}

static void passt_build(struct args *a, const struct net_config *c)
{
	*a = (struct args){0};
	passt_add(a, "passt", NULL);
	passt_add(a, "--foreground", NULL);
	passt_add(a, "--quiet", NULL);
	passt_add(a, "--stderr", NULL);
	passt_add(a, "--no-map-gw", NULL);
	passt_add(a, "--fd", "3");
	if (geteuid() == 0) /* what it would choose itself, with a complaint */
		passt_add(a, "--runas", "nobody");
	if (!passt_has_uplink()) {
		static const char *const own[][2] = {
			{"--interface", "lo"},     {"--address", "10.0.2.15"},
			{"--netmask", "24"},       {"--gateway", "10.0.2.2"},
			{"--mac-addr", PASST_MAC}, {"--ipv4-only", NULL}};

		for (unsigned i = 0; i < ARRAY_LEN(own); i++)
			passt_add(a, own[i][0], own[i][1]);
	}
	if (c->mtu) {
		snprintf(a->mtu, sizeof(a->mtu), "%u", c->mtu);
		passt_add(a, "--mtu", a->mtu);
	}
	if (c->dns[0])
		passt_add(a, "--dns", c->dns);
	for (unsigned i = 0; i < c->nforwards; i++) {
		const struct net_forward *f = &c->forward[i];

		snprintf(a->spec[i], SPEC_LEN, "%s/%u:%u", f->address, f->host, f->guest);
		passt_add(a, f->udp ? "--udp-ports" : "--tcp-ports", a->spec[i]);
	}
	a->v[a->n] = NULL;
}

/* In the child: nothing but async-signal-safe calls. */
static _Noreturn void become(const char *path, const struct args *a, int sock, int null, int log,
			     pid_t parent)
{
	sigset_t none;

	/* Goes with us. Where passt changes its user the kernel forgets this, and the end of the
	 * socket does the same. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(127);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	if (dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0)
		_exit(127);
	if (sock == SOCK_FD ? fcntl(sock, F_SETFD, 0) : dup2(sock, SOCK_FD) < 0)
		_exit(127);
	if (syscall(SYS_close_range, SOCK_FD + 1, ~0u, 0))
		_exit(127);
	execv(path, (char *const *)(uintptr_t)a->v);
	_exit(127);
}

int passt_spawn(struct child *c, const char *path, const struct net_config *conf, int sock,
		struct err *e)
{
	int log[2] = {-1, -1}, null = open("/dev/null", O_RDWR | O_CLOEXEC), rc = 0;
	pid_t parent = getpid(), pid = -1;
	struct args a;

	passt_build(&a, conf);
	if (null < 0 || pipe2(log, O_CLOEXEC | O_NONBLOCK))
		rc = err_sys(e, -errno, "passt: pipe");
	if (!rc && (pid = fork()) < 0)
		rc = err_sys(e, -errno, "passt: fork");
	if (pid == 0)
		become(path, &a, sock, null, log[1], parent);
	fd_close(&null);
	fd_close(&log[1]);
	if (rc) {
		fd_close(&log[0]);
		return rc;
	}
	rc = child_adopt(c, "passt", pid, log[0], e);
	c->talkative = true;
	return rc;
}
