/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a program of the host may connect to: the host of a URI, and the settings that its manifest
 * names. Names are looked up here, once; the program finds them in its /etc/hosts. See served.h.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "served.h"

#define LEAST_BITS 8 /* a network that is larger is more than somebody's storage */
#define LEAST_BITS_6 32

static void place_of(const struct module_address *a, struct ask_place *p)
{
	struct sockaddr_in6 six;
	struct sockaddr_in four;

	*p = (struct ask_place){.family = a->at.ss_family};
	if (a->at.ss_family == AF_INET) {
		memcpy(&four, &a->at, sizeof(four));
		memcpy(p->addr, &four.sin_addr, sizeof(four.sin_addr));
		p->first = p->last = ntohs(four.sin_port);
		p->bits = 32;
		return;
	}
	memcpy(&six, &a->at, sizeof(six));
	memcpy(p->addr, &six.sin6_addr, sizeof(six.sin6_addr));
	p->first = p->last = ntohs(six.sin6_port);
	p->bits = 128;
}

int served_add_host(char hosts[SERVED_HOSTS], const struct module_address *a, const char *name,
		    struct err *e)
{
	struct ask_place p;
	char text[INET6_ADDRSTRLEN] = "", line[INET6_ADDRSTRLEN + URI_HOST_MAX + 4];
	size_t n = strlen(hosts);

	place_of(a, &p);
	inet_ntop(p.family, p.addr, text, sizeof(text));
	/* Between two ends of lines, so that it is found as a whole. */
	snprintf(line, sizeof(line), "\n%s %s\n", text, name);
	if (strstr(hosts, line))
		return 0;
	if (strlen(line) >= SERVED_HOSTS - n)
		return err_set(e, -ENOSPC, "too many hosts");
	strcpy(hosts + n, line);
	return 0;
}

static int add_place(struct served *s, const struct ask_place *p, struct err *e)
{
	return asks_add(&s->asks, p) ? err_set(e, -ENOSPC, "more than %d hosts", ASKS_PLACES) : 0;
}

/* "N" or "N-M". */
static int read_ports(const char *key, const char *text, struct ask_place *p, struct err *e)
{
	unsigned first = 0, last = 0;
	int end = 0;

	if (sscanf(text, "%5u%n", &first, &end) == 1 && !text[end])
		last = first;
	else if (sscanf(text, "%5u-%5u%n", &first, &last, &end) != 2 || text[end])
		first = 0;
	if (!first || last < first || last > UINT16_MAX)
		return err_set(e, -EINVAL, "options: %s '%.60s'; expected N or N-M from 1 to 65535",
			       key, text);
	p->first = (uint16_t)first;
	p->last = (uint16_t)last;
	return 0;
}

/* What is the least number of bits of such a network? A connection to IPv4 in IPv6
 * (::ffff:0:0/96) is one to that address of IPv4. */
static unsigned least_bits(const struct ask_place *p)
{
	static const uint8_t mapped[16] = {[10] = 0xff, [11] = 0xff};

	if (p->family == AF_INET)
		return LEAST_BITS;
	return asks_same_bits(p->addr, mapped, p->bits < 96 ? p->bits : 96) ? 96 + LEAST_BITS
									    : LEAST_BITS_6;
}

/* "ADDRESS/BITS". */
static int add_network(struct served *s, const char *key, const char *text, struct ask_place p,
		       struct err *e)
{
	const char *slash = strchr(text, '/');
	char address[INET6_ADDRSTRLEN];
	unsigned bits = 0, least, most;
	int end = 0;
	bool fits;

	snprintf(address, sizeof(address), "%.*s", (int)(slash - text), text);
	p.family = strchr(address, ':') ? AF_INET6 : AF_INET;
	most = p.family == AF_INET ? 32 : 128;
	fits = inet_pton(p.family, address, p.addr) == 1 &&
	       sscanf(slash + 1, "%3u%n", &bits, &end) == 1 && !slash[1 + end] && bits <= most;
	p.bits = fits ? (uint8_t)bits : (uint8_t)most;
	least = least_bits(&p);
	if (!fits || bits < least)
		return err_set(e, -EINVAL,
			       "options: %s '%.60s'; expected ADDRESS/BITS with %u to %u bits", key,
			       text, least, most);
	return add_place(s, &p, e);
}

/* All of its addresses; in /etc/hosts by its name, if it is one, and by the setting's. */
static int add_host(struct served *s, const char *key, const char *host,
		    const struct ask_place *ports, struct module_addresses *all,
		    enum module_when when, struct err *e)
{
	struct module_addresses now = {0};
	struct err why;
	int rc = module_find(&now, host, ports->first, when, &why);

	if (rc)
		return err_set(e, rc, "options: %s: %s", key, why.text);
	for (unsigned i = 0; i < now.n && !rc; i++) {
		struct ask_place p;

		place_of(&now.at[i], &p);
		p.last = ports->last;
		rc = add_place(s, &p, e);
		if (!rc)
			rc = served_add_host(s->hosts, &now.at[i], key, e);
		if (!rc)
			rc = served_add_host(s->hosts, &now.at[i], host, e);
		if (all && all->n < MODULE_ADDRESSES)
			all->at[all->n++] = now.at[i];
	}
	return rc;
}

/* One of `network`; `all`: NULL, or where its addresses are wanted. */
static int add_reach(struct served *s, const struct manifest_reach *r,
		     const struct manifest_values *v, struct module_addresses *all,
		     enum module_when when, struct err *e)
{
	const char *hosts = manifest_value(v, r->to), *ports = manifest_value(v, r->ports);
	struct ask_place p = {0};
	char one[256];
	int rc = ports ? read_ports(r->ports, ports, &p, e)
		       : err_set(e, -EINVAL, "options: %s: missing", r->ports);

	for (const char *at = hosts; at && !rc; at = *at ? at + 1 : NULL) {
		size_t n = strcspn(at, "+");

		if (!n || n >= sizeof(one))
			return err_set(e, -EINVAL,
				       "options: %s '%.60s'; expected names or "
				       "addresses, + between them",
				       r->to, hosts);
		snprintf(one, sizeof(one), "%.*s", (int)n, at);
		rc = strchr(one, '/') ? add_network(s, r->to, one, p, e)
				      : add_host(s, r->to, one, &p, all, when, e);
		at += n;
	}
	return rc;
}

int served_reach(struct served *s, const struct manifest_values *v, enum module_when when,
		 struct err *e)
{
	const struct manifest *m = &s->module->manifest;
	struct module_addresses *to = &s->module->to;
	struct ask_place p;
	int rc = 0;

	for (unsigned i = 0; i < to->n && !rc; i++) {
		place_of(&to->at[i], &p);
		rc = add_place(s, &p, e);
	}
	for (unsigned i = 0; i < m->nreaches && !rc; i++) {
		const struct manifest_reach *r = &m->reach[i];

		if (!manifest_holds(v, r->when))
			continue;
		/* What is tried before it starts: of the first. */
		rc = add_reach(s, r, v, i || m->nschemes ? NULL : to, when, e);
		if (!i && !m->nschemes)
			snprintf(s->module->uri.host, sizeof(s->module->uri.host), "%.200s",
				 manifest_value(v, r->to) ? manifest_value(v, r->to) : "");
	}
	return rc;
}
