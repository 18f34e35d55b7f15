/* SPDX-License-Identifier: BSD-2-Clause */
/* The codec of the guest protocol. See insula/guestproto.h. Compiled for the host and, with musl,
 * into insula-init: standard C only. */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include <insula/guestproto.h>

#define HOST (1u << GP_HOST)
#define GUEST (1u << GP_GUEST)

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "structures are the wire format");

static const struct frame {
	uint16_t type;
	uint8_t from; /* who may send it */
	uint32_t min, max;
} frames[] = {
	{GP_HELLO, HOST | GUEST, sizeof(struct gp_hello), sizeof(struct gp_hello)},
	{GP_START, HOST, sizeof(struct gp_start) + 2, GP_START_MAX},
	{GP_POWEROFF, HOST, offsetof(struct gp_poweroff, init_ms), sizeof(struct gp_poweroff)},
	{GP_PING, HOST, 0, 0},
	{GP_STDIN, HOST, 1, GP_DATA_MAX},
	{GP_STDIN_END, HOST, 0, 0},
	{GP_SIGNAL, HOST, sizeof(struct gp_signal), sizeof(struct gp_signal)},
	{GP_RESIZE, HOST, sizeof(struct gp_size), sizeof(struct gp_size)},
	{GP_CREDIT, HOST | GUEST, sizeof(struct gp_credit), sizeof(struct gp_credit)},
	{GP_CLOSE, HOST | GUEST, sizeof(struct gp_close), sizeof(struct gp_close)},
	{GP_PONG, GUEST, 0, 0},
	{GP_STARTED, GUEST, sizeof(struct gp_started), sizeof(struct gp_started)},
	{GP_STDOUT, GUEST, 1, GP_DATA_MAX},
	{GP_STDERR, GUEST, 1, GP_DATA_MAX},
	{GP_SIGNALED, GUEST, 0, 0},
	{GP_EXIT, GUEST, sizeof(struct gp_exit), sizeof(struct gp_exit)},
};

int gp_check(const struct gp_hdr *h, enum gp_side from)
{
	for (size_t i = 0; i < sizeof(frames) / sizeof(frames[0]); i++) {
		const struct frame *f = &frames[i];

		if (f->type == h->type)
			return h->zero == 0 && (f->from & (1u << from)) && h->len >= f->min &&
					       h->len <= f->max
				       ? 0
				       : -EPROTO;
	}
	return -EPROTO;
}

/* ---- receiving ---- */

void gp_in_init(struct gp_in *in, void *body, uint32_t room)
{
	*in = (struct gp_in){.body = body, .room = room};
}

size_t gp_in_want(struct gp_in *in, uint8_t **at)
{
	if (in->have >= GP_HDR_LEN && in->have - GP_HDR_LEN == in->hdr.len)
		in->have = 0; /* the frame before this one has been dealt with */
	if (in->have < GP_HDR_LEN) {
		*at = (uint8_t *)&in->hdr + in->have;
		return GP_HDR_LEN - in->have;
	}
	*at = in->body + (in->have - GP_HDR_LEN);
	return in->hdr.len - (in->have - GP_HDR_LEN);
}

int gp_in_got(struct gp_in *in, size_t n, enum gp_side from)
{
	in->have += (uint32_t)n;
	if (in->have < GP_HDR_LEN)
		return 0;
	if (in->have == GP_HDR_LEN && (gp_check(&in->hdr, from) || in->hdr.len > in->room))
		return -EPROTO;
	return in->have - GP_HDR_LEN == in->hdr.len;
}

/* ---- sending ---- */

static void start_over(struct gp_out *o)
{
	if (o->at == o->len)
		o->at = o->len = 0;
}

int gp_put(struct gp_out *o, enum gp_type type, const void *body, uint32_t len)
{
	const struct gp_hdr h = {.len = len, .type = (uint16_t)type};

	start_over(o);
	if (len > sizeof(o->buf) || GP_HDR_LEN + len > sizeof(o->buf) - o->len)
		return -ENOSPC;
	memcpy(o->buf + o->len, &h, sizeof(h));
	if (len)
		memcpy(o->buf + o->len + GP_HDR_LEN, body, len);
	o->len += GP_HDR_LEN + len;
	return 0;
}

uint8_t *gp_data_room(struct gp_out *o)
{
	start_over(o);
	return o->len ? NULL : o->buf + GP_HDR_LEN;
}

void gp_put_data(struct gp_out *o, enum gp_type type, uint32_t len)
{
	const struct gp_hdr h = {.len = len, .type = (uint16_t)type};

	memcpy(o->buf, &h, sizeof(h));
	o->len = GP_HDR_LEN + len;
}

bool gp_out_ready(const struct gp_out *o)
{
	return o->at == o->len || sizeof(o->buf) - o->len >= GP_OUT_SMALL / 2;
}

void gp_out_sent(struct gp_out *o, size_t n)
{
	o->at += (uint32_t)n;
	start_over(o);
}

/* ---- GP_START ---- */

#define START_FLAGS (GP_START_TTY | GP_START_STDIN | GP_START_ONLY)

static bool counts_fit(const struct gp_start *s)
{
	return s->argc >= 1 && s->argc <= GP_ARGS_MAX && s->envc <= GP_ARGS_MAX;
}

int gp_start_check(const uint8_t *body, size_t len, struct gp_start *out)
{
	const uint8_t *p, *end = body + len;
	uint32_t strings;

	if (len < sizeof(*out) || len > GP_START_MAX)
		return -EPROTO;
	memcpy(out, body, sizeof(*out));
	if ((out->flags & ~(uint32_t)START_FLAGS) || !counts_fit(out))
		return -EPROTO;
	p = body + sizeof(*out);
	for (strings = 1 + out->argc + out->envc; strings; strings--) {
		const uint8_t *nul = memchr(p, 0, (size_t)(end - p));

		if (!nul)
			return -EPROTO;
		p = nul + 1;
	}
	return p == end ? 0 : -EPROTO;
}

static uint8_t *point(uint8_t *p, uint32_t n, char **out)
{
	for (uint32_t i = 0; i < n; i++) {
		out[i] = (char *)p;
		p += strlen((char *)p) + 1;
	}
	return p;
}

void gp_start_strings(uint8_t *body, char **cwd, char **argv, char **env)
{
	struct gp_start s;
	uint8_t *p;

	memcpy(&s, body, sizeof(s));
	p = point(body + sizeof(s), 1, cwd);
	p = point(p, s.argc, argv);
	point(p, s.envc, env);
	argv[s.argc] = env[s.envc] = NULL;
}

static int append(uint8_t *body, size_t size, size_t *at, const char *text)
{
	size_t n = strlen(text) + 1;

	if (n > size - *at)
		return -E2BIG;
	memcpy(body + *at, text, n);
	*at += n;
	return 0;
}

int gp_start_build(uint8_t *body, size_t size, const struct gp_start *s, const char *cwd,
		   char *const *argv, char *const *env)
{
	struct gp_start h = *s;
	size_t at = sizeof(h);
	int rc;

	if (size > GP_START_MAX)
		size = GP_START_MAX;
	if (size < sizeof(h))
		return -E2BIG;
	rc = append(body, size, &at, cwd);
	for (h.argc = 0; argv[h.argc] && !rc; h.argc++)
		rc = append(body, size, &at, argv[h.argc]);
	for (h.envc = 0; env && env[h.envc] && !rc; h.envc++)
		rc = append(body, size, &at, env[h.envc]);
	if (rc)
		return rc;
	if (!counts_fit(&h))
		return h.argc ? -E2BIG : -EINVAL;
	memcpy(body, &h, sizeof(h));
	return (int)at;
}
