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
	{GP_ACK, HOST | GUEST, sizeof(struct gp_ack), sizeof(struct gp_ack)},
	{GP_HANGUP, HOST, 0, 0},
	{GP_RESUMED, HOST, sizeof(struct gp_resumed) + GP_RESUMED_NAMES, GP_RESUMED_MAX},
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

/* Frames of the connection, not of the command. */
static bool counts(unsigned type)
{
	return type != GP_HELLO && type != GP_ACK && type != GP_HANGUP;
}

/* ---- receiving ---- */

void gp_in_init(struct gp_in *in, void *body, uint32_t guestproto_room)
{
	*in = (struct gp_in){.body = body, .room = guestproto_room};
}

void gp_in_restart(struct gp_in *in)
{
	in->have = 0;
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
	if (in->have - GP_HDR_LEN != in->hdr.len)
		return 0;
	if (counts(in->hdr.type))
		in->received += in->have;
	return 1;
}

/* ---- sending ---- */

void gp_out_init(struct gp_out *o, uint64_t start)
{
	o->acked = o->sent = o->head = start;
	o->left = 0;
	gp_out_drop(o);
}

static uint32_t guestproto_room(const struct gp_out *o)
{
	return GP_REPLAY - (uint32_t)(o->head - o->acked);
}

static void ring_put(struct gp_out *o, const void *p, uint32_t n)
{
	uint32_t at = (uint32_t)(o->head % GP_REPLAY);
	uint32_t first = n < GP_REPLAY - at ? n : GP_REPLAY - at;

	memcpy(o->ring + at, p, first);
	memcpy(o->ring, (const uint8_t *)p + first, n - first);
	o->head += n;
}

int gp_put(struct gp_out *o, enum gp_type type, const void *body, uint32_t len)
{
	const struct gp_hdr h = {.len = len, .type = (uint16_t)type};

	if (len > GP_REPLAY - GP_HDR_LEN || GP_HDR_LEN + len > guestproto_room(o))
		return -ENOSPC;
	ring_put(o, &h, sizeof(h));
	if (body)
		ring_put(o, body, len);
	return 0;
}

int gp_put_own(struct gp_out *o, enum gp_type type, const void *body, uint32_t len)
{
	const struct gp_hdr h = {.len = len, .type = (uint16_t)type};

	if (len > GP_OUT_OWN - GP_HDR_LEN || GP_HDR_LEN + len > GP_OUT_OWN - o->own_n)
		return -ENOSPC;
	memcpy(o->own + o->own_n, &h, sizeof(h));
	if (len)
		memcpy(o->own + o->own_n + GP_HDR_LEN, body, len);
	o->own_n += GP_HDR_LEN + len;
	return 0;
}

static uint32_t data_at(const struct gp_out *o)
{
	return (uint32_t)((o->head + GP_HDR_LEN) % GP_REPLAY);
}

uint32_t gp_data_max(const struct gp_out *o)
{
	uint32_t n = guestproto_room(o), end = GP_REPLAY - data_at(o);

	if (o->sent != o->head || n <= GP_HDR_LEN + GP_OUT_SMALL)
		return 0;
	n -= GP_HDR_LEN + GP_OUT_SMALL;
	if (n > end)
		n = end;
	return n < GP_DATA_MAX ? n : GP_DATA_MAX;
}

uint8_t *gp_data_at(struct gp_out *o)
{
	return o->ring + data_at(o);
}

void gp_put_data(struct gp_out *o, enum gp_type type, uint32_t len)
{
	const struct gp_hdr h = {.len = len, .type = (uint16_t)type};

	ring_put(o, &h, sizeof(h));
	o->head += len;
}

bool gp_out_ready(const struct gp_out *o)
{
	return guestproto_room(o) >= GP_OUT_SMALL / 2;
}

bool gp_out_waits(const struct gp_out *o)
{
	return o->own_at < o->own_n || o->sent < o->head;
}

static void ring_get(const struct gp_out *o, uint64_t from, void *p, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		((uint8_t *)p)[i] = o->ring[(from + i) % GP_REPLAY];
}

size_t gp_out_piece(struct gp_out *o, const uint8_t **at)
{
	uint32_t i = (uint32_t)(o->sent % GP_REPLAY);
	struct gp_hdr h;

	if (!o->left && o->own_at < o->own_n) {
		*at = o->own + o->own_at;
		return o->own_n - o->own_at;
	}
	if (!o->left && o->sent < o->head) {
		ring_get(o, o->sent, &h, sizeof(h));
		o->left = GP_HDR_LEN + h.len;
	}
	*at = o->ring + i;
	return o->left < GP_REPLAY - i ? o->left : GP_REPLAY - i;
}

void gp_out_sent(struct gp_out *o, size_t n)
{
	if (o->left) {
		o->sent += n;
		o->left -= (uint32_t)n;
		return;
	}
	o->own_at += (uint32_t)n;
	if (o->own_at == o->own_n)
		o->own_at = o->own_n = 0;
}

int gp_out_acked(struct gp_out *o, uint64_t received)
{
	if (received < o->acked || received > o->sent)
		return -EPROTO;
	o->acked = received;
	return 0;
}

int gp_out_restart(struct gp_out *o, uint64_t received)
{
	int rc = gp_out_acked(o, received);

	if (!rc) {
		o->sent = received;
		o->left = 0;
	}
	return rc;
}

void gp_out_drop(struct gp_out *o)
{
	o->own_at = o->own_n = 0;
}

void gp_acknowledge(struct gp_in *in, struct gp_out *o, uint32_t due)
{
	const struct gp_ack m = {.received = in->received};

	if (in->received - in->acked >= due && !gp_put_own(o, GP_ACK, &m, sizeof(m)))
		in->acked = in->received;
}

/* ---- GP_START ---- */

#define START_FLAGS (GP_START_TTY | GP_START_STDIN | GP_START_ONLY | GP_START_USER)

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
	strings = 1 + out->argc + out->envc + !!(out->flags & GP_START_USER);
	for (; strings; strings--) {
		const uint8_t *nul = memchr(p, 0, (size_t)(end - p));

		if (!nul || (strings == 1 && nul == p && (out->flags & GP_START_USER)))
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

void gp_start_strings(uint8_t *body, char **cwd, char **user, char **argv, char **env)
{
	struct gp_start s;
	uint8_t *p;

	memcpy(&s, body, sizeof(s));
	p = point(body + sizeof(s), 1, cwd);
	p = point(p, s.argc, argv);
	p = point(p, s.envc, env);
	*user = s.flags & GP_START_USER ? (char *)p : NULL;
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
		   const char *user, char *const *argv, char *const *env)
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
	if (user && *user && !rc) {
		h.flags |= GP_START_USER;
		rc = append(body, size, &at, user);
	}
	if (rc)
		return rc;
	if (!counts_fit(&h))
		return h.argc ? -E2BIG : -EINVAL;
	memcpy(body, &h, sizeof(h));
	return (int)at;
}

/* ---- GP_RESUMED ---- */

/* Their own and not ctype.h's: a locale has no part in it. */
static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_hex(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool is_text(const char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < ' ' || *s == 0x7f)
			return false;
	return true;
}

bool gp_host_name_ok(const char *s)
{
	size_t n = 0;

	if (*s == '.' || *s == '-')
		return false;
	while (is_letter(s[n]) || is_digit(s[n]) || s[n] == '.' || s[n] == '-' || s[n] == '_')
		n++;
	return !s[n] && n <= 64;
}

bool gp_machine_id_ok(const char *s)
{
	size_t n = 0;

	while (is_digit(s[n]) || (s[n] >= 'a' && s[n] <= 'f'))
		n++;
	return !s[n] && (n == 32 || n == 0);
}

#define MAC_LEN 17 /* of its text */

static bool is_mac(const char *s)
{
	for (unsigned i = 0; i < MAC_LEN; i++)
		if (i % 3 == 2 ? s[i] != ':' : !is_hex(s[i]))
			return false;
	return true;
}

bool gp_card_ok(const char *s)
{
	return is_mac(s) && s[MAC_LEN] == ',' && is_mac(s + MAC_LEN + 1) &&
	       (!s[2 * MAC_LEN + 1] || s[2 * MAC_LEN + 1] == ',') && is_text(s);
}

/* Of the string that is the `n`th of them. */
static bool resumed_string_ok(uint32_t n, const char *s)
{
	switch (n) {
	case GP_NAME_VM:
		return is_text(s);
	case GP_NAME_HOST:
		return gp_host_name_ok(s);
	case GP_NAME_MACHINE_ID:
		return gp_machine_id_ok(s);
	default:
		return gp_card_ok(s);
	}
}

int gp_resumed_check(const uint8_t *body, size_t len, struct gp_resumed *out)
{
	const uint8_t *p, *end = body + len;

	if (len < sizeof(*out) || len > GP_RESUMED_MAX)
		return -EPROTO;
	memcpy(out, body, sizeof(*out));
	if ((out->flags & ~(uint32_t)GP_RESUMED_CLOCK) || out->ncards > GP_CARDS_MAX)
		return -EPROTO;
	p = body + sizeof(*out);
	for (uint32_t i = 0; i < GP_RESUMED_NAMES + out->ncards; i++) {
		const uint8_t *nul = memchr(p, 0, (size_t)(end - p));

		if (!nul || !resumed_string_ok(i, (const char *)p))
			return -EPROTO;
		p = nul + 1;
	}
	return p == end ? 0 : -EPROTO;
}

void gp_resumed_strings(uint8_t *body, char *s[GP_RESUMED_NAMES + GP_CARDS_MAX])
{
	struct gp_resumed r;

	memcpy(&r, body, sizeof(r));
	memset(s, 0, (GP_RESUMED_NAMES + GP_CARDS_MAX) * sizeof(*s));
	(void)point(body + sizeof(r), GP_RESUMED_NAMES + r.ncards, s);
}

int gp_resumed_build(uint8_t *body, size_t size, const struct gp_resumed *r, const char *const *s)
{
	struct gp_resumed again;
	size_t at = sizeof(*r);
	int rc = 0;

	if (size > GP_RESUMED_MAX)
		size = GP_RESUMED_MAX;
	if (size < sizeof(*r))
		return -E2BIG;
	if (r->ncards > GP_CARDS_MAX)
		return -EINVAL;
	memcpy(body, r, sizeof(*r));
	for (uint32_t i = 0; i < GP_RESUMED_NAMES + r->ncards && !rc; i++)
		rc = append(body, size, &at, s[i]);
	if (rc)
		return rc;
	return gp_resumed_check(body, at, &again) ? -EINVAL : (int)at;
}
