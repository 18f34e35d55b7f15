/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-metadata: what a guest reads at http://169.254.169.254 of its card.
 *
 *   metadata_main.c   jail, start, the loop: frames, the channel, deadlines
 *   md_tcp.c          frames: ARP, IPv4 and as much of TCP as a server needs
 *   md_http.c         one request and its answer, tokens
 *   md_tree.c         the tree that is served
 *
 * insula-net sends what the guest sends to that address here, and gives the guest what comes back;
 * no network of the host is involved. All input but the tree is the guest's. One thread, no memory
 * but what is there from the start, no clock and no randomness but by arguments: so tests and a
 * fuzzer drive all of it (tests/unit/test_metadata.c, tests/fuzz/fuzz_metadata.c).
 */
#ifndef METADATA_METADATA_H
#define METADATA_METADATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <insula/err.h>
#include <insula/metadata.h>

/* ---- md_tree.c ---- */

/* Borrowed pieces of a flat tree that md_tree_check() has found sound. */
struct md_tree {
	const struct metadata_node *node;
	uint32_t nodes;
	const char *text;
};
/* `len` bytes at `at`, aligned for 8. -EINVAL says what is wrong. */
int md_tree_check(struct md_tree *t, const void *at, size_t len, struct err *e);

enum md_found { MD_FOUND, MD_NOWHERE };
/* The node at a path such as "latest/meta-data/": slashes more or less do not count. A first part
 * that is a date, as EC2 has them, and is not in the tree is "latest". */
enum md_found md_tree_find(const struct md_tree *t, const char *path, size_t len, uint32_t *node);
/* Its members, a line each, with a slash behind those that have some: as many bytes as they are, of
 * which at most `size` were written. */
size_t md_tree_list(const struct md_tree *t, uint32_t node, char *out, size_t size);

/* ---- md_http.c ---- */

#define MD_REQUEST_MAX 4096 /* bytes of a request */
#define MD_ANSWER_MAX (METADATA_JSON_MAX + 1024u)
#define MD_TOKENS 64    /* that count; the next one takes the place of the oldest */
#define MD_TOKEN_LEN 40 /* letters and digits */
#define MD_TTL_MAX 21600u

struct md_token {
	char text[MD_TOKEN_LEN];
	uint64_t until_ns; /* 0: none */
};
struct md_http {
	const struct md_tree *tree;
	bool open; /* who shows no token is answered as well */
	void (*random)(void *buf, size_t n);
	struct md_token token[MD_TOKENS];
	unsigned next; /* of them, to be made */
};
/* Is the request whole? Bytes of it (head and body), 0: there is more to come, MD_TOO_LONG: more than
 * MD_REQUEST_MAX. */
#define MD_TOO_LONG SIZE_MAX
size_t md_http_whole(const char *in, size_t len);
/* Answer the request of `len` bytes; bytes of the answer, at most MD_ANSWER_MAX. */
size_t md_http_answer(struct md_http *h, const char *in, size_t len, uint64_t now_ns, char *out);
/* What is said to one that is too long or late. */
size_t md_http_refuse(unsigned status, char *out);

/* ---- md_tcp.c ---- */

#define MD_CONNS 16
#define MD_MSS 1460u
#define MD_REQUEST_NS 10000000000ull /* from the first segment to the whole request */
#define MD_ANSWER_NS 30000000000ull  /* from there to the end */

enum md_state { MD_NONE, MD_SYN, MD_OPEN };
struct md_conn {
	enum md_state state;
	uint8_t mac[6];
	uint32_t addr; /* of the guest, as all numbers here in host byte order */
	uint16_t port;
	uint16_t mss;
	uint32_t iss, rcv_nxt; /* ours; what we expect */
	/* Of the answer and its FIN, bytes: acknowledged, sent since the last retry, ever sent. */
	uint32_t una, nxt, top;
	uint32_t wnd;
	bool fin_seen;     /* the guest has said all */
	bool answered;     /* out[] is the answer */
	unsigned tries;    /* in a row without progress */
	uint64_t retry_ns; /* 0: nothing is in flight */
	uint64_t limit_ns; /* it ends then */
	uint32_t nin, nout;
	char in[MD_REQUEST_MAX];
	char out[MD_ANSWER_MAX];
};
struct md_tcp {
	struct md_http http;
	/* Send a frame to the guest; it may be lost. */
	void (*send)(void *ctx, const void *frame, size_t len);
	void *ctx;
	struct md_conn conn[MD_CONNS];
};
/* A frame of the guest's. */
void md_tcp_frame(struct md_tcp *t, const uint8_t *frame, size_t len, uint64_t now_ns);
/* Do what is due. */
void md_tcp_tick(struct md_tcp *t, uint64_t now_ns);
/* When that is; 0: never. */
uint64_t md_tcp_next(const struct md_tcp *t);

#endif
