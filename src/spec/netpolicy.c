/* SPDX-License-Identifier: BSD-2-Clause */
/* The words of a card's policy. See netpolicy.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>

#include <insula/base.h>

#include "netpolicy.h"

#define ALLOW_FORM                                                            \
	"[tcp:|udp:|icmp:]DEST[:PORT[-PORT]], DEST being an IPv4 prefix, an " \
	"IPv6 prefix in brackets, a name or *"
#define SERVE_FORM "tcp:PORT[-PORT] or udp:PORT[-PORT], ports from 1 to 65535"
#define FROM_FORM "an address, or a prefix such as 192.0.2.0/28 or 2001:db8::/64"

/* ---- parts ---- */

/* Digits alone, up to `most`; -1: it is none. */
static long policy_number(const char *text, size_t len, long most)
{
	long n = 0;

	if (len == 0 || len > 5)
		return -1;
	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -1;
		n = 10 * n + (text[i] - '0');
	}
	return n <= most ? n : -1;
}

static bool policy_ports(const char *text, uint16_t *lo, uint16_t *hi)
{
	size_t n = strcspn(text, "-");
	long a = policy_number(text, n, 65535), b = a;

	if (text[n])
		b = policy_number(text + n + 1, strlen(text + n + 1), 65535);
	if (a < 1 || b < a)
		return false;
	*lo = (uint16_t)a;
	*hi = (uint16_t)b;
	return true;
}

/* Bits behind the length are a mistake: 10.0.0.1/8 may have been meant as either. */
static bool no_bits_behind(const struct policy_prefix *p)
{
	unsigned whole = p->family == 4 ? 4 : 16;

	for (unsigned i = p->bits; i < 8 * whole; i++) {
		if (p->addr[i / 8] >> (7 - i % 8) & 1)
			return false;
	}
	return true;
}

static bool policy_prefix(const char *text, size_t len, struct policy_prefix *p)
{
	char copy[INET6_ADDRSTRLEN];
	const char *slash = memchr(text, '/', len);
	size_t n = slash ? (size_t)(slash - text) : len;
	long bits;

	*p = (struct policy_prefix){0};
	if (n == 0 || n >= sizeof(copy))
		return false;
	memcpy(copy, text, n);
	copy[n] = 0;
	p->family = strchr(copy, ':') ? 6 : 4;
	if (inet_pton(p->family == 6 ? AF_INET6 : AF_INET, copy, p->addr) != 1)
		return false;
	bits = p->family == 6 ? 128 : 32;
	if (slash)
		bits = policy_number(slash + 1, len - n - 1, bits);
	if (bits < 0)
		return false;
	p->bits = (uint8_t)bits;
	return no_bits_behind(p);
}

/* A name of DNS, with a letter in its last label: what is none is a mistyped address. */
static bool policy_name(const char *text, size_t len, char out[POLICY_NAME_LEN])
{
	size_t label = 0;
	bool letter = false;

	if (len && text[len - 1] == '.')
		len--;
	if (len == 0 || len >= POLICY_NAME_LEN)
		return false;
	for (size_t i = 0; i < len; i++) {
		char c = text[i];

		if (c >= 'A' && c <= 'Z')
			c = (char)(c - 'A' + 'a');
		if (c == '.') {
			if (label == 0)
				return false;
			label = 0;
			letter = false;
		} else {
			bool small = c >= 'a' && c <= 'z';

			if (!small && !(c >= '0' && c <= '9') && c != '-' && c != '_')
				return false;
			letter |= small;
			if (++label > 63)
				return false;
		}
		out[i] = c;
	}
	out[len] = 0;
	return label && letter;
}

/* Its index + 1; 0: there is no room. */
static uint8_t policy_name_index(struct net_policy *p, const char *name)
{
	for (unsigned i = 0; i < p->nnames; i++) {
		if (!strcmp(p->name[i], name))
			return (uint8_t)(i + 1);
	}
	if (p->nnames == POLICY_MAX_NAMES)
		return 0;
	strcpy(p->name[p->nnames++], name);
	return (uint8_t)p->nnames;
}

static const char *skip_proto(const char *text, uint8_t *proto)
{
	static const struct {
		const char *word;
		uint8_t proto;
	} words[] = {{"tcp:", POLICY_TCP}, {"udp:", POLICY_UDP}, {"icmp:", POLICY_ICMP}};

	*proto = POLICY_ANY_PROTO;
	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		size_t n = strlen(words[i].word);

		if (!strncmp(text, words[i].word, n)) {
			*proto = words[i].proto;
			return text + n;
		}
	}
	return text;
}

/* ---- allow ---- */

/* DEST, of `len` bytes. */
static const char *allow_dest(struct net_policy *p, struct policy_rule *r, const char *text,
			      size_t len)
{
	char name[POLICY_NAME_LEN];

	if (len == 1 && text[0] == '*')
		return NULL;
	if (text[0] == '[')
		return policy_prefix(text + 1, len - 2, &r->to) && r->to.family == 6 ? NULL
										     : ALLOW_FORM;
	if (policy_prefix(text, len, &r->to))
		return NULL;
	r->to = (struct policy_prefix){0};
	if (!policy_name(text, len, name))
		return ALLOW_FORM;
	r->name = policy_name_index(p, name);
	return r->name ? NULL : "at most 16 names";
}

const char *policy_add_allow(struct net_policy *p, const char *text)
{
	struct policy_rule r = {0};
	const char *dest = skip_proto(text, &r.proto), *ports, *why;
	size_t len = strcspn(dest, ":");

	if (p->nrules == POLICY_MAX_RULES)
		return "at most 64 rules";
	if (dest[0] == '[') {
		const char *end = strchr(dest, ']');

		if (!end)
			return ALLOW_FORM;
		len = (size_t)(end - dest) + 1;
	}
	ports = dest[len] ? dest + len + 1 : NULL;
	if (dest[len] && dest[len] != ':')
		return ALLOW_FORM;
	if (ports && (r.proto == POLICY_ICMP || !policy_ports(ports, &r.port_lo, &r.port_hi)))
		return r.proto == POLICY_ICMP ? "icmp:DEST, without a port" : ALLOW_FORM;
	why = allow_dest(p, &r, dest, len);
	if (why)
		return why;
	p->rule[p->nrules++] = r;
	p->flags |= POLICY_ON;
	return NULL;
}

/* ---- serve, from ---- */

const char *policy_add_serve(struct net_policy *p, const char *text)
{
	struct policy_serve s = {0};
	const char *ports = skip_proto(text, &s.proto);

	if (p->nserves == POLICY_MAX_SERVES)
		return "at most 16 ports, or ranges of ports";
	if ((s.proto != POLICY_TCP && s.proto != POLICY_UDP) ||
	    !policy_ports(ports, &s.port_lo, &s.port_hi))
		return SERVE_FORM;
	p->serve[p->nserves++] = s;
	p->flags |= POLICY_ON;
	return NULL;
}

const char *policy_add_from(struct net_policy *p, const char *text)
{
	struct policy_prefix s;

	if (p->nsources == POLICY_MAX_SOURCES)
		return "at most 8 addresses";
	if (!policy_prefix(text, strlen(text), &s))
		return FROM_FORM;
	p->source[p->nsources++] = s;
	p->flags |= POLICY_ON;
	return NULL;
}

/* ---- JSON ---- */

static int policy_wrong(struct policy_mistake *m, const char *field, int at, const char *value,
			const char *expected, struct err *e)
{
	if (at < 0)
		snprintf(m->field, sizeof(m->field), "%s", field);
	else
		snprintf(m->field, sizeof(m->field), "%s[%d]", field, at);
	snprintf(m->value, sizeof(m->value), "%.100s", value);
	err_clean(m->value);
	m->expected = expected;
	return err_set(e, -EINVAL, "%s: '%.60s'; expected %s", m->field, m->value, expected);
}

static int policy_texts(struct net_policy *p, struct json_object *params, const char *key,
			const char *(*add)(struct net_policy *p, const char *text),
			struct policy_mistake *m, struct err *e)
{
	struct json_object *list = NULL;

	if (!json_object_object_get_ex(params, key, &list))
		return 0;
	if (!json_object_is_type(list, json_type_array))
		return policy_wrong(m, key, -1, json_object_to_json_string(list),
				    "an array of texts", e);
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *one = json_object_array_get_idx(list, i);
		const char *text = json_object_get_string(one), *why;

		why = json_object_is_type(one, json_type_string) &&
				      strlen(text) == (size_t)json_object_get_string_len(one)
			      ? add(p, text)
			      : "a text";
		if (why)
			return policy_wrong(m, key, (int)i, text ? text : "null", why, e);
	}
	return 0;
}

int policy_json(struct net_policy *p, struct json_object *params, struct policy_mistake *m,
		struct err *e)
{
	struct json_object *off = NULL;
	int rc;

	*p = (struct net_policy){.flags = POLICY_ON};
	rc = policy_texts(p, params, "allow", policy_add_allow, m, e);
	if (!rc)
		rc = policy_texts(p, params, "serve", policy_add_serve, m, e);
	if (!rc)
		rc = policy_texts(p, params, "from", policy_add_from, m, e);
	if (rc || !json_object_object_get_ex(params, "off", &off) || !json_object_get_boolean(off))
		return rc;
	if (p->nrules || p->nserves || p->nsources)
		return policy_wrong(m, "off", -1, "true", "alone: no rule is left then", e);
	p->flags = 0;
	return 0;
}

/* ---- the whole ---- */

const char *policy_finish(struct net_policy *p, const struct policy_card *card)
{
	if (!(p->flags & POLICY_ON))
		return NULL;
	if (p->nnames && !policy_prefix(card->dns, strlen(card->dns), &p->resolver))
		return "dns=ADDRESS with a name in allow: its answers are followed";
	if (p->nsources)
		return NULL;
	if (card->ip[0] &&
	    policy_prefix(card->ip, strcspn(card->ip, "/"), &p->source[p->nsources])) {
		p->nsources++;
		return NULL;
	}
	if (!card->any_source)
		return "ip=ADDRESS/LENGTH or from=ADDRESS with a policy: what the guest sends from";
	p->flags |= POLICY_ANY_SOURCE;
	return NULL;
}

const char *policy_prefix_text(const struct policy_prefix *p, char out[POLICY_TEXT])
{
	char addr[INET6_ADDRSTRLEN] = "";

	inet_ntop(p->family == 6 ? AF_INET6 : AF_INET, p->addr, addr, sizeof(addr));
	snprintf(out, POLICY_TEXT, "%s/%u", addr, p->bits);
	return out;
}
