/* SPDX-License-Identifier: BSD-2-Clause */
/* Answers of DNS (RFC 1035), followed. See net_names.h. */
#include <string.h>

#include <insula/base.h>

#include "net_names.h"
#include "net_policy.h"

#define SECOND_NS 1000000000ull
#define ETH_LEN 14u
#define UDP_LEN 8u
#define DNS_HEADER 12u
#define TYPE_A 1u
#define TYPE_CNAME 5u
#define TYPE_AAAA 28u
#define CLASS_IN 1u
#define NAME_MAX_LEN 256u
#define RECORDS_MAX 128u /* of one answer that are looked at */
#define CHAIN_MAX 8u     /* of CNAME */

/* ---- the table ---- */

void net_names_init(struct net_names *t)
{
	memset(t, 0, sizeof(*t));
	pthread_mutex_init(&t->lock, NULL);
}

void net_names_forget(struct net_names *t)
{
	pthread_mutex_lock(&t->lock);
	t->n = 0;
	pthread_mutex_unlock(&t->lock);
}

static unsigned slot_for(struct net_names *t, unsigned name, const struct policy_prefix *to,
			 uint64_t now_ns)
{
	unsigned first = 0;

	for (unsigned i = 0; i < t->n; i++) {
		if (t->at[i].name == name && t->at[i].family == to->family &&
		    !memcmp(t->at[i].addr, to->addr, sizeof(to->addr)))
			return i;
		if (t->at[i].until_ns < t->at[first].until_ns)
			first = i;
	}
	if (t->n < NAMES_MAX && (!t->n || t->at[first].until_ns > now_ns))
		return t->n++;
	t->at[first].until_ns = 0;
	return first;
}

void net_names_add(struct net_names *t, unsigned name, const struct policy_prefix *to,
		   unsigned seconds, uint64_t now_ns)
{
	uint64_t until = now_ns + seconds * SECOND_NS;
	unsigned i;

	pthread_mutex_lock(&t->lock);
	i = slot_for(t, name, to, now_ns);
	memcpy(t->at[i].addr, to->addr, sizeof(to->addr));
	t->at[i].family = to->family;
	t->at[i].name = (uint8_t)name;
	if (until > t->at[i].until_ns)
		t->at[i].until_ns = until;
	pthread_mutex_unlock(&t->lock);
}

bool net_names_has(struct net_names *t, unsigned name, uint8_t family, const uint8_t *addr)
{
	uint64_t now = t ? clock_ns() : 0;
	bool has = false;

	if (!t)
		return false;
	pthread_mutex_lock(&t->lock);
	for (unsigned i = 0; i < t->n && !has; i++)
		has = t->at[i].name == name && t->at[i].family == family &&
		      t->at[i].until_ns > now && !memcmp(t->at[i].addr, addr, family == 4 ? 4 : 16);
	pthread_mutex_unlock(&t->lock);
	return has;
}

/* ---- an answer ---- */

struct dns {
	const uint8_t *p;
	size_t len;
};

static unsigned dns16(const struct dns *d, size_t at)
{
	return (unsigned)d->p[at] << 8 | d->p[at + 1];
}

/* The name at *at, in small letters, with dots; *at goes behind it. A pointer leads to an earlier
 * place than the last one, so there is no circle. */
static bool dns_name(const struct dns *d, size_t *at, char out[NAME_MAX_LEN])
{
	size_t pos = *at, bound = *at, n = 0;
	bool jumped = false;

	for (;;) {
		unsigned c;

		if (pos >= d->len)
			return false;
		c = d->p[pos];
		if (c >= 0xc0) {
			size_t to;

			if (pos + 2 > d->len)
				return false;
			to = dns16(d, pos) & 0x3fff;
			if (!jumped)
				*at = pos + 2;
			jumped = true;
			if (to >= bound)
				return false;
			pos = bound = to;
			continue;
		}
		if (c > 63 || pos + 1 + c > d->len)
			return false;
		pos++;
		if (c == 0)
			break;
		if (n + c + 2 > NAME_MAX_LEN)
			return false;
		if (n)
			out[n++] = '.';
		for (unsigned i = 0; i < c; i++) {
			char l = (char)d->p[pos + i];

			/* A dot or a zero within a label is no name that a policy could have. */
			if (l == '.' || l == 0)
				l = '\1';
			out[n++] = l >= 'A' && l <= 'Z' ? (char)(l - 'A' + 'a') : l;
		}
		pos += c;
	}
	out[n] = 0;
	if (!jumped)
		*at = pos;
	return true;
}

struct record {
	char owner[NAME_MAX_LEN];
	unsigned type, class;
	uint32_t ttl;
	size_t data, len;
};

static bool dns_record(const struct dns *d, size_t *at, struct record *r)
{
	if (!dns_name(d, at, r->owner) || *at + 10 > d->len)
		return false;
	r->type = dns16(d, *at);
	r->class = dns16(d, *at + 2);
	r->ttl = (uint32_t)dns16(d, *at + 4) << 16 | dns16(d, *at + 6);
	r->len = dns16(d, *at + 8);
	r->data = *at + 10;
	*at = r->data + r->len;
	return *at <= d->len;
}

/* Where the answers begin, and what was asked; 0: this is no answer to one question. */
static size_t dns_question(const struct dns *d, char asked[NAME_MAX_LEN])
{
	size_t at = DNS_HEADER;

	/* An answer (QR), of a query (opcode 0), without an error (RCODE 0), to one question. */
	if (d->len < DNS_HEADER || (d->p[2] & 0xf8) != 0x80 || (d->p[3] & 0x0f) != 0 ||
	    dns16(d, 4) != 1 || !dns_name(d, &at, asked) || at + 4 > d->len)
		return 0;
	return at + 4;
}

/* The next name of the chain; false: there is none. */
static bool follow_cname(const struct dns *d, size_t at, unsigned records, char name[NAME_MAX_LEN])
{
	for (unsigned i = 0; i < records; i++) {
		struct record r;

		if (!dns_record(d, &at, &r))
			return false;
		if (r.type == TYPE_CNAME && r.class == CLASS_IN && !strcmp(r.owner, name)) {
			size_t data = r.data;

			return dns_name(d, &data, name);
		}
	}
	return false;
}

static bool record_address(const struct dns *d, const struct record *r, struct policy_prefix *to)
{
	bool v4 = r->type == TYPE_A && r->len == 4;

	if (r->class != CLASS_IN || (!v4 && (r->type != TYPE_AAAA || r->len != 16)))
		return false;
	*to = (struct policy_prefix){.family = v4 ? 4 : 6, .bits = v4 ? 32 : 128};
	memcpy(to->addr, d->p + r->data, r->len);
	return true;
}

static unsigned dns_addresses(const struct dns *d, size_t at, unsigned records, const char *name,
			      unsigned index, struct msg_net_name *out, unsigned max)
{
	unsigned n = 0;

	for (unsigned i = 0; i < records && n < max; i++) {
		struct record r;

		if (!dns_record(d, &at, &r))
			break;
		if (strcmp(r.owner, name) != 0 || !record_address(d, &r, &out[n].to))
			continue;
		out[n].name = index;
		out[n].seconds = r.ttl < NAMES_FLOOR_S  ? NAMES_FLOOR_S
				 : r.ttl > NAMES_MOST_S ? NAMES_MOST_S
							: r.ttl;
		n++;
	}
	return n;
}

unsigned net_names_read(const struct net_policy *p, const uint8_t *dns, size_t len,
			struct msg_net_name *out, unsigned max)
{
	const struct dns d = {dns, len};
	char name[NAME_MAX_LEN];
	size_t at = dns_question(&d, name);
	unsigned index, records, n = 0;

	for (index = 0; at && index < p->nnames && strcmp(p->name[index], name) != 0; index++)
		;
	if (!at || index == p->nnames)
		return 0;
	records = dns16(&d, 6);
	if (records > RECORDS_MAX)
		records = RECORDS_MAX;
	for (unsigned i = 0; i < CHAIN_MAX; i++) {
		n += dns_addresses(&d, at, records, name, index, out + n, max - n);
		if (!follow_cname(&d, at, records, name))
			break;
	}
	return n;
}

/* ---- a frame ---- */

/* Where UDP begins, from the resolver; 0: it is not. Fragments are none: the first one is cut. */
static size_t from_resolver(const struct net_policy *p, const uint8_t *f, size_t len)
{
	const uint8_t *ip = f + ETH_LEN;
	unsigned type;
	size_t at;

	if (len < ETH_LEN + 20)
		return 0;
	type = (unsigned)f[12] << 8 | f[13];
	if (type == 0x0800 && ip[0] >> 4 == 4 && ip[9] == POLICY_UDP && !(ip[6] & 0x3f) && !ip[7] &&
	    p->resolver.family == 4 && net_policy_within(&p->resolver, 4, ip + 12)) {
		at = ETH_LEN + 4u * (ip[0] & 15);
		return at >= ETH_LEN + 20 ? at : 0;
	}
	if (type == 0x86dd && len >= ETH_LEN + 40 && ip[0] >> 4 == 6 && ip[6] == POLICY_UDP &&
	    p->resolver.family == 6 && net_policy_within(&p->resolver, 6, ip + 8))
		return ETH_LEN + 40;
	return 0;
}

unsigned net_names_frame(const struct net_policy *p, const uint8_t *frame, size_t len,
			 struct msg_net_name *out, unsigned max)
{
	size_t at = p->nnames ? from_resolver(p, frame, len) : 0, n;

	if (!at || at + UDP_LEN > len || frame[at] != 0 || frame[at + 1] != 53)
		return 0;
	n = (size_t)frame[at + 4] << 8 | frame[at + 5];
	if (n < UDP_LEN || at + n > len)
		return 0;
	return net_names_read(p, frame + at + UDP_LEN, n - UDP_LEN, out, max);
}
