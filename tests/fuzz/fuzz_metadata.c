/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The metadata service. The first byte chooses what the others are:
 *   0  what a guest does: records of a kind, a length (16 bits, little endian) and so many bytes. Kind
 *      0: a frame; 1: a segment from the flags on, of a connection whose numbers are right; 2: so
 *      many milliseconds pass (no bytes)
 *   1  a request; the token that counts is 40 times A
 *   2  a flat tree
 *   3  a tree as JSON
 *
 * Besides not crashing: no answer and no frame is too long, frames go to the guest alone, everything
 * that waits has an end, and a tree of JSON that is taken is served.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <metadata/metadata.h>
#include <supervisor/backing/metadata.h>

#include "must.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TREE "{\"latest\":{\"meta-data\":{\"id\":\"i\",\"n\":1,\"d\":{}},\"user-data\":\"u\"}}"

static struct md_tcp tcp;
static struct md_tree tree;
static uint32_t seen_seq, seen_ack; /* of the last segment of the service */
static uint64_t now;

static void no_random(void *buf, size_t n)
{
	memset(buf, 0, n);
}

static uint32_t get_be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put_be32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static void take_frame(void *ctx, const void *frame, size_t len)
{
	const uint8_t *f = frame;
	uint32_t data;

	(void)ctx;
	MUST(len >= 42 && len <= 14 + 1500);
	MUST(!(f[0] & 1) && f[12] == 8 && (f[13] == 0 || f[13] == 6));
	if (f[13] == 6)
		return;
	MUST(get_be32(f + 26) == 0xa9fea9fe && f[23] == 6);
	data = (uint32_t)len - 34 - (uint32_t)(f[46] >> 4) * 4;
	seen_seq = get_be32(f + 38) + data + !!(f[47] & 2) + (f[47] & 1);
	seen_ack = get_be32(f + 42);
}

/* `p` begins with flags, port and window. */
static void segment(const uint8_t *p, size_t n)
{
	static uint8_t f[70000];
	size_t len = n > 4 ? n - 4 : 0;

	if (n < 4)
		return;
	memset(f, 0, 54);
	f[6] = 2;
	f[12] = 8;
	f[14] = 0x45;
	f[16] = (uint8_t)((40 + len) >> 8);
	f[17] = (uint8_t)(40 + len);
	f[23] = 6;
	put_be32(f + 26, 0x0a000002);
	put_be32(f + 30, 0xa9fea9fe);
	f[35] = p[1];
	f[37] = 80;
	put_be32(f + 38, seen_ack);
	put_be32(f + 42, seen_seq);
	f[46] = 0x50;
	f[47] = p[0];
	f[48] = p[2];
	f[49] = p[3];
	memcpy(f + 54, p + 4, len);
	md_tcp_frame(&tcp, f, 54 + len, now);
}

static void guest(const uint8_t *p, size_t n)
{
	while (n >= 3) {
		size_t len = (size_t)p[1] | (size_t)p[2] << 8, take = len < n - 3 ? len : n - 3;
		uint8_t *copy;

		if (p[0] % 3 == 2) {
			now += len * 1000000;
			md_tcp_tick(&tcp, now);
			p += 3;
			n -= 3;
			continue;
		}
		copy = malloc(take + 1);
		memcpy(copy, p + 3, take);
		if (p[0] % 3)
			segment(copy, take);
		else
			md_tcp_frame(&tcp, copy, take, now);
		free(copy);
		p += 3 + take;
		n -= 3 + take;
	}
	for (unsigned i = 0; md_tcp_next(&tcp); i++) {
		MUST(i < 20 * MD_CONNS);
		now = md_tcp_next(&tcp) > now ? md_tcp_next(&tcp) : now;
		md_tcp_tick(&tcp, now);
	}
}

static void request(const uint8_t *p, size_t n)
{
	static const char put[] =
		"PUT /latest/api/token HTTP/1.1\r\nX-metadata-token-ttl-seconds: 9\r\n\r\n";
	static char out[MD_ANSWER_MAX];
	char *copy = malloc(n + 1);
	size_t whole;

	memcpy(copy, p, n);
	MUST(md_http_answer(&tcp.http, put, sizeof(put) - 1, now, out) < sizeof(out));
	whole = md_http_whole(copy, n);
	MUST(whole == MD_TOO_LONG || whole <= n);
	if (whole && whole != MD_TOO_LONG) {
		size_t len = md_http_answer(&tcp.http, copy, whole, now, out);

		MUST(len <= sizeof(out) && !memcmp(out, "HTTP/1.1 ", 9));
	}
	free(copy);
}

static void flat_tree(const uint8_t *p, size_t n)
{
	static char list[METADATA_JSON_MAX];
	uint8_t *copy = malloc(n + 8);
	struct md_tree t;
	uint32_t node;
	struct err e;

	memcpy(copy, p, n);
	if (!md_tree_check(&t, copy, n, &e)) {
		for (uint32_t i = 0; i < t.nodes; i++)
			(void)md_tree_list(&t, i, list, sizeof(list));
		if (md_tree_find(&t, "latest/meta-data/d", 18, &node) == MD_FOUND)
			MUST(node < t.nodes);
	}
	free(copy);
}

static void json(const char *p, size_t n)
{
	struct err e;
	json_object *o = metadata_parse(p, n, &e);
	struct md_tree t;
	const char *text;
	size_t len;
	void *flat;

	if (!o)
		return;
	text = metadata_text(o);
	MUST(!metadata_flatten(o, &flat, &len, &e));
	MUST(!md_tree_check(&t, flat, len, &e));
	MUST(t.node[0].json.len == strlen(text) &&
	     !memcmp(t.text + t.node[0].json.off, text, strlen(text)));
	free(flat);
	json_object_put(o);
}

static void prepare(void)
{
	struct err e;
	size_t len;
	void *flat;
	json_object *o = metadata_parse(TREE, strlen(TREE), &e);

	MUST(o && !metadata_flatten(o, &flat, &len, &e) && !md_tree_check(&tree, flat, len, &e));
	json_object_put(o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct md_token none[MD_TOKENS];

	if (!tree.node)
		prepare();
	for (unsigned i = 0; i < MD_CONNS; i++)
		tcp.conn[i].state = MD_NONE;
	memcpy(tcp.http.token, none, sizeof(none));
	tcp.http.tree = &tree;
	tcp.http.random = no_random;
	tcp.send = take_frame;
	seen_seq = seen_ack = 0;
	now = 1000000000;
	if (!size)
		return 0;
	switch (data[0]) {
	case 0:
		guest(data + 1, size - 1);
		break;
	case 1:
		request(data + 1, size - 1);
		break;
	case 2:
		flat_tree(data + 1, size - 1);
		break;
	case 3:
		json((const char *)data + 1, size - 1);
		break;
	}
	return 0;
}
