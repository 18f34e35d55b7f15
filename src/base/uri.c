/* SPDX-License-Identifier: BSD-2-Clause */
/* URIs, part by part from left to right. See insula/uri.h. */
#include <errno.h>
#include <string.h>

#include <insula/uri.h>

#define LETTERS "abcdefghijklmnopqrstuvwxyz"
#define DIGITS "0123456789"

static int uri_wrong(struct err *e, const char *part, const char *value, size_t len,
		     const char *expected)
{
	return err_set(e, -EINVAL, "%s '%.*s'; expected %s", part, (int)(len < 60 ? len : 60),
		       value, expected);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* False: no room, a '%' without two digits, or a character that has no place in a text. */
static bool uri_decode(const char *in, size_t len, char *out, size_t size)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)in[i];

		if (c == '%') {
			int high = i + 2 < len ? hex_digit(in[i + 1]) : -1;
			int low = high >= 0 ? hex_digit(in[i + 2]) : -1;

			if (low < 0)
				return false;
			c = (unsigned char)(high << 4 | low);
			i += 2;
		}
		if (c < ' ' || c == 0x7f || n + 1 >= size)
			return false;
		out[n++] = (char)c;
	}
	out[n] = 0;
	return true;
}

static int uri_scheme(struct uri *u, const char **p, struct err *e)
{
	size_t len = strcspn(*p, ":");

	if (!len || len > URI_SCHEME_MAX || strncmp(*p + len, "://", 3) != 0 ||
	    strspn(*p, LETTERS DIGITS "+-.") < len || !strchr(LETTERS, **p))
		return uri_wrong(e, "scheme", *p, strcspn(*p, "/"), "SCHEME:// in small letters");
	memcpy(u->scheme, *p, len);
	u->scheme[len] = 0;
	*p += len + 3;
	return 0;
}

static int uri_port(struct uri *u, const char *p, size_t len, struct err *e)
{
	uint32_t port = 0;

	for (size_t i = 0; i < len && port <= UINT16_MAX; i++) {
		if (!strchr(DIGITS, p[i]))
			port = UINT16_MAX;
		port = port * 10 + (uint32_t)(p[i] - '0');
	}
	if (!port || port > UINT16_MAX)
		return uri_wrong(e, "port", p, len, "a number from 1 to 65535");
	u->port = (uint16_t)port;
	return 0;
}

/* In brackets an IPv6 address, else a name or an IPv4 address. What follows is the port's. */
static int uri_host(struct uri *u, const char *p, size_t len, struct err *e)
{
	bool six = len && *p == '[';
	const char *end = six ? memchr(p, ']', len) : memchr(p, ':', len);
	size_t n = end ? (size_t)(end - p) : len;

	if (six && (!end || n < 3 || strspn(p + 1, DIGITS "abcdefABCDEF:.") < n - 1))
		return uri_wrong(e, "host", p, len, "an IPv6 address in brackets");
	if (six) {
		p++;
		len -= n + 1;
		n--;
	} else {
		len -= n;
	}
	if (n > URI_HOST_MAX ||
	    (!six && strspn(p, LETTERS DIGITS "ABCDEFGHIJKLMNOPQRSTUVWXYZ-._") < n))
		return uri_wrong(e, "host", p, n, "a name or an address");
	memcpy(u->host, p, n);
	u->host[n] = 0;
	if (!len)
		return 0;
	p += n + six;
	if (*p != ':')
		return uri_wrong(e, "host", p, len, "a port or the path behind it");
	return uri_port(u, p + 1, len - 1, e);
}

static int uri_authority(struct uri *u, const char **p, struct err *e)
{
	size_t len = strcspn(*p, "/?#");
	const char *at = memchr(*p, '@', len);
	size_t n = at ? (size_t)(at - *p) : 0;
	int rc;

	/* Also as iSCSI writes it, user%password. Its text is not repeated. */
	if (at && (memchr(*p, ':', n) || memchr(*p, '%', n)))
		return err_set(e, -EINVAL,
			       "user: a password in it, behind ':' or '%%'; expected a name alone, "
			       "and the password in a file: whoever lists processes sees a URI");
	if (at && (!n || !uri_decode(*p, n, u->user, sizeof(u->user))))
		return uri_wrong(e, "user", *p, n, "a name");
	if (at)
		n++;
	rc = uri_host(u, *p + n, len - n, e);
	*p += len;
	return rc;
}

static int uri_path(struct uri *u, const char **p, struct err *e)
{
	size_t len = strcspn(*p, "?#");
	const char *path = *p;

	*p += len;
	if (len && *path == '/') {
		path++;
		len--;
	}
	return uri_decode(path, len, u->path, sizeof(u->path))
		       ? 0
		       : uri_wrong(e, "path", path, len, "printable characters, others as %HH");
}

/* The item of the query with that key. */
static const char *query_item(const char *query, const char *key, size_t *len)
{
	size_t n = strlen(key);

	for (const char *p = query; *p; p += *p == '&') {
		size_t whole = strcspn(p, "&");

		if (whole > n && p[n] == '=' && !strncmp(p, key, n)) {
			*len = whole - n - 1;
			return p + n + 1;
		}
		p += whole;
	}
	return NULL;
}

bool uri_query(const struct uri *u, const char *key, char *out, unsigned size)
{
	size_t len = 0;
	const char *v = query_item(u->query, key, &len);

	return v && uri_decode(v, len, out, size);
}

static int uri_all_of_query(struct uri *u, const char *p, struct err *e)
{
	const char *socket;
	size_t len = 0;

	if (*p == '#')
		return uri_wrong(e, "fragment", p, strlen(p), "none");
	if (!*p)
		return 0;
	p++;
	if (strchr(p, '#'))
		return uri_wrong(e, "fragment", strchr(p, '#'), strlen(strchr(p, '#')), "none");
	for (const char *q = p; *q;) {
		size_t n = strcspn(q, "&");

		if (!memchr(q, '=', n) || *q == '=')
			return uri_wrong(e, "query", q, n, "KEY=VALUE");
		q += n + (q[n] == '&');
	}
	strcpy(u->query, p);
	socket = query_item(u->query, "socket", &len);
	if (socket && (!len || !uri_decode(socket, len, u->socket, sizeof(u->socket))))
		return uri_wrong(e, "socket", socket, len, "a path of 1 to 107 characters");
	return 0;
}

int uri_parse(struct uri *u, const char *text, struct err *e)
{
	int rc;

	memset(u, 0, sizeof(*u));
	if (strlen(text) > URI_MAX)
		return err_set(e, -EINVAL, "%zu characters; expected at most %u", strlen(text),
			       URI_MAX);
	rc = uri_scheme(u, &text, e);
	if (!rc)
		rc = uri_authority(u, &text, e);
	if (!rc)
		rc = uri_path(u, &text, e);
	return rc ? rc : uri_all_of_query(u, text, e);
}
