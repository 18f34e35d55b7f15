/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-container: `sandbox`: what all containers of the machine share, set up once before the
 * first one: loopback, network, host name, sysctls.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "container.h"

#define CLASS "/sys/class/net"
#define WAIT_MS 2000 /* the driver may still be at it when the host asks for this */

static bool has_mac(const char *interface, const char *mac)
{
	char path[300], got[64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof path, CLASS "/%.200s/address", interface);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, got, sizeof got - 1);
	close(fd);
	got[n > 0 ? n : 0] = '\0';
	got[strcspn(got, "\n")] = '\0';
	return strcasecmp(got, mac) == 0;
}

/* The index; 0: there is none. */
static int find_mac(const char *mac)
{
	DIR *d = opendir(CLASS);
	struct dirent *entry;
	int index = 0;

	while (d && !index && (entry = readdir(d)))
		if (entry->d_name[0] != '.' && has_mac(entry->d_name, mac))
			index = (int)if_nametoindex(entry->d_name);
	if (d)
		closedir(d);
	return index;
}

static int wait_mac(const char *mac, struct err *e)
{
	int index = find_mac(mac);

	for (unsigned i = 0; !index && i < WAIT_MS; i++) {
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
		index = find_mac(mac);
	}
	return index ? index : err_set(e, -ENODEV, "nic=%.40s: no such card", mac);
}

/* While an interface is up, older kernels do not change its name, not even to the one it has. */
static int give_name(int nl, int index, const char *name, struct err *e)
{
	int r = net_link(nl, index, NULL, 0, NET_DOWN, e);

	return r ? r : net_link(nl, index, name, 0, NET_AS_IT_IS, e);
}

/* The kernel may have given the name to another card, which then waits aside for its own. */
static int set_name(int nl, int index, const char *name, struct err *e)
{
	int holder = (int)if_nametoindex(name), r = 0;
	char aside[IFNAMSIZ];

	if (holder == index)
		return 0;
	snprintf(aside, sizeof aside, "ins-%d", holder);
	if (holder)
		r = give_name(nl, holder, aside, e);
	return r ? r : give_name(nl, index, name, e);
}

static int set_nic(int nl, const struct nic *n, struct err *e)
{
	int index = wait_mac(n->mac, e), r = 0;

	if (index < 0)
		return index;
	if (n->name)
		r = set_name(nl, index, n->name, e);
	if (!r && n->mtu)
		r = net_link(nl, index, NULL, n->mtu, NET_AS_IT_IS, e);
	if (!r)
		r = net_link(nl, index, NULL, 0, NET_UP, e);
	for (size_t i = 0; i < n->addr.n && !r; i++)
		r = net_addr(nl, index, n->addr.v[i], e);
	return r;
}

static int set_network(const struct sandbox *s, struct err *e)
{
	int nl = net_open(e), lo = (int)if_nametoindex("lo"), r = 0;

	if (nl < 0)
		return nl;
	/* Its addresses come with it. */
	if (lo)
		r = net_link(nl, lo, NULL, 0, NET_UP, e);
	for (size_t i = 0; i < s->nics && !r; i++)
		r = set_nic(nl, &s->nic[i], e);
	for (size_t i = 0; i < s->neighs && !r; i++)
		r = net_neigh(nl, &s->neigh[i], e);
	for (size_t i = 0; i < s->routes && !r; i++)
		r = net_route(nl, &s->route[i], e);
	close(nl);
	return r;
}

static int set_sandbox(const struct sandbox *s, struct err *e)
{
	int r = set_network(s, e);

	if (!r && s->hostname && sethostname(s->hostname, strlen(s->hostname)) < 0)
		r = err_sys(e, -errno, "host name %s", s->hostname);
	for (size_t i = 0; i < s->sysctl.n && !r; i++)
		r = sysctl_write(s->sysctl.v[i], e);
	return r;
}

int command_sandbox(char **argv)
{
	struct buffer b;
	struct config c;
	struct err e;
	int r = records_read(CONFIG_SANDBOX, CT_SHARE "/sandbox", &b, &c, &e);

	(void)argv;
	if (!r)
		r = set_sandbox(&c.sandbox, &e);
	records_free(&c);
	free(b.data);
	return r ? complain(&e) : 0;
}
