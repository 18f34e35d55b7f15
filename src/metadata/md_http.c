/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One request and its answer, as Firecracker's MMDS version 2 and EC2's IMDSv2 have them:
 *
 *   PUT /latest/api/token    with how many seconds it shall count: a token
 *   GET PATH                 with a token: a string as it is, an object as the list of its members;
 *                            Accept: application/json: whatever it is, as JSON
 *
 * A token cannot be got through a proxy that an outsider uses (X-Forwarded-For), nor by a program
 * that can be made to GET alone: that is what it is for. Where tokens are optional a request without
 * one is answered, too. Each connection has one request.
 */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "metadata.h"

#define SECOND_NS 1000000000ull
#define TOKEN_PATH "/latest/api/token"

struct piece {
	const char *at;
	size_t len;
};

struct http_request {
	struct piece method, path;
	struct piece fields; /* the lines behind the first one */
};

/* ---- lines ---- */

/* The end of the head, behind the empty line; 0: not there. */
static size_t head_len(const char *in, size_t len)
{
	const char *end = memmem(in, len, "\r\n\r\n", 4);

	return end ? (size_t)(end - in) + 4 : 0;
}

static bool md_next_line(struct piece *rest, struct piece *line)
{
	const char *end = memmem(rest->at, rest->len, "\r\n", 2);

	if (!end || end == rest->at)
		return false;
	*line = (struct piece){rest->at, (size_t)(end - rest->at)};
	rest->len -= line->len + 2;
	rest->at = end + 2;
	return true;
}

static struct piece trimmed(struct piece p)
{
	while (p.len && (*p.at == ' ' || *p.at == '\t')) {
		p.at++;
		p.len--;
	}
	while (p.len && (p.at[p.len - 1] == ' ' || p.at[p.len - 1] == '\t'))
		p.len--;
	return p;
}

static bool md_field(const struct piece *fields, const char *name, struct piece *value)
{
	struct piece rest = *fields, line;
	size_t n = strlen(name);

	while (md_next_line(&rest, &line)) {
		if (line.len <= n || line.at[n] != ':' || strncasecmp(line.at, name, n) != 0)
			continue;
		*value = trimmed((struct piece){line.at + n + 1, line.len - n - 1});
		return true;
	}
	return false;
}

static bool same(struct piece p, const char *s)
{
	return p.len == strlen(s) && !memcmp(p.at, s, p.len);
}

/* At most `most`; false: it is no such number. */
static bool md_number(struct piece p, unsigned most, unsigned *out)
{
	*out = 0;
	for (size_t i = 0; i < p.len; i++) {
		if (p.at[i] < '0' || p.at[i] > '9' || *out > most)
			return false;
		*out = 10 * *out + (unsigned)(p.at[i] - '0');
	}
	return p.len && p.len < 9 && *out <= most;
}

size_t md_http_whole(const char *in, size_t len)
{
	size_t head = head_len(in, len);
	struct piece fields = {in, head}, length;
	unsigned body = 0;

	if (!head)
		return len < MD_REQUEST_MAX ? 0 : MD_TOO_LONG;
	if (md_field(&fields, "Content-Length", &length) &&
	    !md_number(length, MD_REQUEST_MAX - (unsigned)head, &body))
		return MD_TOO_LONG;
	return len >= head + body ? head + body : 0;
}

/* "GET /path HTTP/1.1", and no byte in the head that could not be there. */
static bool parse_request(const char *in, size_t len, struct http_request *q)
{
	struct piece rest = {in, head_len(in, len)}, line;
	const char *sp, *end;

	for (size_t i = 0; i < rest.len; i++) {
		if ((unsigned char)in[i] < ' ' && !strchr("\t\r\n", in[i]))
			return false;
		if (!in[i] || in[i] == 127)
			return false;
	}
	if (!md_next_line(&rest, &line) || !(sp = memchr(line.at, ' ', line.len)))
		return false;
	q->method = (struct piece){line.at, (size_t)(sp - line.at)};
	line.len -= q->method.len + 1;
	line.at = sp + 1;
	end = memchr(line.at, ' ', line.len);
	if (!end || line.len - (size_t)(end - line.at) != 9 || memcmp(end, " HTTP/1.", 8) != 0)
		return false;
	q->path = (struct piece){line.at, (size_t)(end - line.at)};
	q->fields = rest;
	return true;
}

/* Without "http://host", and without what follows a question mark. */
static bool bare_path(struct piece *p)
{
	const char *at;

	if (p->len >= 7 && !strncasecmp(p->at, "http://", 7)) {
		at = memchr(p->at + 7, '/', p->len - 7);
		if (!at)
			return false;
		p->len -= (size_t)(at - p->at);
		p->at = at;
	}
	at = memchr(p->at, '?', p->len);
	if (at)
		p->len = (size_t)(at - p->at);
	return p->len && *p->at == '/';
}

/* ---- answers ---- */

static const char *reason_of(unsigned status)
{
	static const struct {
		unsigned status;
		const char *text;
	} known[] = {{200, "OK"},
		     {400, "Bad Request"},
		     {401, "Unauthorized"},
		     {404, "Not Found"},
		     {405, "Method Not Allowed"},
		     {408, "Request Timeout"},
		     {413, "Payload Too Large"},
		     {501, "Not Implemented"}};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (known[i].status == status)
			return known[i].text;
	}
	return "Error";
}

/* `more`: other fields, each with its line end. `out` has room for MD_ANSWER_MAX. */
static size_t answer(unsigned status, const char *type, const char *more, const char *body,
		     size_t len, char *out)
{
	int head = snprintf(out, MD_ANSWER_MAX,
			    "HTTP/1.1 %u %s\r\nConnection: close\r\nContent-Type: %s\r\n"
			    "Content-Length: %zu\r\n%s\r\n",
			    status, reason_of(status), type, len, more);
	size_t n = (size_t)head;

	if (len > MD_ANSWER_MAX - n)
		return md_http_refuse(501, out);
	memcpy(out + n, body, len);
	return n + len;
}

static size_t refuse(unsigned status, const char *more, const char *text, char *out)
{
	return answer(status, "text/plain", more, text, strlen(text), out);
}

size_t md_http_refuse(unsigned status, char *out)
{
	return refuse(status, "", reason_of(status), out);
}

/* ---- tokens ---- */

static const struct {
	const char *ttl, *token;
} dialects[] = {
	{"X-metadata-token-ttl-seconds", "X-metadata-token"},
	{"X-aws-ec2-metadata-token-ttl-seconds", "X-aws-ec2-metadata-token"},
};
#define DIALECTS (sizeof(dialects) / sizeof(dialects[0]))

static const char *make_token(struct md_http *h, unsigned ttl, uint64_t now)
{
	static const char letters[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	struct md_token *t = &h->token[h->next++ % MD_TOKENS];

	h->random(t->text, sizeof(t->text));
	for (unsigned i = 0; i < MD_TOKEN_LEN; i++)
		t->text[i] = letters[t->text[i] & 63];
	t->until_ns = now + ttl * SECOND_NS;
	return t->text;
}

/* In a time that does not tell how much of it is right. */
static bool token_counts(const struct md_http *h, struct piece p, uint64_t now)
{
	bool found = false;

	if (p.len != MD_TOKEN_LEN)
		return false;
	for (unsigned i = 0; i < MD_TOKENS; i++) {
		unsigned other = 0;

		for (unsigned k = 0; k < MD_TOKEN_LEN; k++)
			other |= (unsigned)(h->token[i].text[k] ^ p.at[k]);
		found |= !other && h->token[i].until_ns > now;
	}
	return found;
}

static size_t answer_put(struct md_http *h, const struct http_request *q, uint64_t now, char *out)
{
	struct piece value;
	unsigned ttl = 0;
	char more[80];

	if (!same(q->path, TOKEN_PATH))
		return refuse(404, "", "Nothing can be put here but " TOKEN_PATH ".", out);
	if (md_field(&q->fields, "X-Forwarded-For", &value))
		return refuse(400, "", "X-Forwarded-For: a proxy gets no token.", out);
	for (size_t i = 0; i < DIALECTS; i++) {
		if (!md_field(&q->fields, dialects[i].ttl, &value))
			continue;
		if (!md_number(value, MD_TTL_MAX, &ttl) || !ttl)
			return refuse(400, "", "The token's seconds: expected 1 to 21600.", out);
		snprintf(more, sizeof(more), "%s: %u\r\n", dialects[i].ttl, ttl);
		return answer(200, "text/plain", more, make_token(h, ttl, now), MD_TOKEN_LEN, out);
	}
	return refuse(400, "", "Expected X-metadata-token-ttl-seconds: how long it shall count.",
		      out);
}

/* ---- the tree ---- */

static bool wants_json(const struct http_request *q)
{
	struct piece accept;

	return md_field(&q->fields, "Accept", &accept) &&
	       memmem(accept.at, accept.len, "application/json", 16);
}

static size_t answer_node(const struct md_tree *t, uint32_t i, bool json, char *out)
{
	const struct metadata_node *n = &t->node[i];
	char list[METADATA_JSON_MAX];
	size_t len;

	if (json)
		return answer(200, "application/json", "", t->text + n->json.off, n->json.len, out);
	if (n->kind == METADATA_STRING)
		return answer(200, "text/plain", "", t->text + n->text.off, n->text.len, out);
	if (n->kind != METADATA_OBJECT)
		return refuse(501, "", "Neither a string nor an object: ask for application/json.",
			      out);
	len = md_tree_list(t, i, list, sizeof(list));
	if (len > sizeof(list))
		return md_http_refuse(501, out);
	return answer(200, "text/plain", "", list, len, out);
}

static size_t answer_get(struct md_http *h, const struct http_request *q, uint64_t now, char *out)
{
	struct piece value = {0};
	bool found = false;
	uint32_t node;

	for (size_t i = 0; i < DIALECTS && !found; i++)
		found = md_field(&q->fields, dialects[i].token, &value);
	if (!found && !h->open)
		return refuse(401, "", "Expected X-metadata-token: PUT " TOKEN_PATH " gives one.",
			      out);
	if (found && !token_counts(h, value, now))
		return refuse(401, "", "This token does not count, or not any more.", out);
	if (md_tree_find(h->tree, q->path.at, q->path.len, &node) != MD_FOUND)
		return refuse(404, "", "There is nothing of that name.", out);
	return answer_node(h->tree, node, wants_json(q), out);
}

size_t md_http_answer(struct md_http *h, const char *in, size_t len, uint64_t now_ns, char *out)
{
	struct http_request q;

	if (!parse_request(in, len, &q) || !bare_path(&q.path))
		return refuse(400, "", "This is no request of HTTP/1.", out);
	if (same(q.method, "PUT"))
		return answer_put(h, &q, now_ns, out);
	if (same(q.method, "GET"))
		return answer_get(h, &q, now_ns, out);
	return refuse(405, "Allow: GET, PUT\r\n", "Expected GET or PUT.", out);
}
