/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frames: the address by ARP, and TCP (RFC 9293) as far as a server needs it that reads one request,
 * writes one answer and closes.
 *
 * Not needed, and not there: connections that we open, options but the MSS of a SYN, urgent data,
 * segments out of order (dropped, they come again), more than one answer, TIME-WAIT (a segment of a
 * connection that is over gets a reset). Checksums are not looked at: the frames come from the
 * guest's memory by way of a socket, and a driver that has been promised offloads leaves them empty.
 * What we send has them. The other side is a single guest, next door: no congestion control, but no
 * more than IN_FLIGHT at once; a retransmission timer, because a guest without receive buffers, or a
 * socket that is full, lose frames.
 *
 * A connection that takes too long is reset, and the oldest one makes room for a new one: who opens
 * many, and says nothing, keeps nobody else out.
 */
#include <string.h>

#include "metadata.h"

#define ETH_LEN 14u
#define IP_LEN 20u
#define TCP_LEN 20u
#define ARP_LEN 28u
#define ETH_IP 0x0800u
#define ETH_ARP 0x0806u
#define OUR_ADDR 0xa9fea9feu /* 169.254.169.254 */
#define OUR_PORT 80u
#define IN_FLIGHT (8 * MD_MSS)
#define RETRY_NS 200000000ull /* doubled each time */
#define MAX_TRIES 6u
#define MIN_MSS 64u

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };

static const uint8_t our_mac[6] = {0x02, 0x00, 0xa9, 0xfe, 0xa9, 0xfe};

/* ---- numbers ---- */

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

static uint32_t lesser(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static uint32_t add_up(uint32_t sum, const uint8_t *p, size_t n)
{
	for (; n > 1; n -= 2, p += 2)
		sum += get16(p);
	return n ? sum + ((uint32_t)p[0] << 8) : sum;
}

static uint16_t folded(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

/* ---- out ---- */

struct segment {
	const uint8_t *mac; /* of the guest */
	uint32_t addr;
	uint16_t port, from; /* the guest's; ours */
	uint32_t seq, ack, wnd;
	unsigned flags;
	const char *data;
	uint32_t len;
};

static void put_eth(uint8_t *f, const uint8_t *mac, unsigned type)
{
	memcpy(f, mac, 6);
	memcpy(f + 6, our_mac, 6);
	put16(f + 12, type);
}

static void put_ip(uint8_t *ip, uint32_t addr, uint32_t len)
{
	memset(ip, 0, IP_LEN);
	ip[0] = 0x45;
	put16(ip + 2, IP_LEN + len);
	put16(ip + 6, 0x4000); /* do not fragment */
	ip[8] = 64;
	ip[9] = 6;
	put32(ip + 12, OUR_ADDR);
	put32(ip + 16, addr);
	put16(ip + 10, folded(add_up(0, ip, IP_LEN)));
}

static void send_segment(struct md_tcp *t, const struct segment *s)
{
	uint8_t f[ETH_LEN + IP_LEN + TCP_LEN + 4 + MD_MSS], *ip = f + ETH_LEN, *tcp = ip + IP_LEN;
	uint32_t head = TCP_LEN + (s->flags & SYN ? 4 : 0), len = head + s->len;

	put_eth(f, s->mac, ETH_IP);
	put_ip(ip, s->addr, len);
	memset(tcp, 0, head);
	put16(tcp, s->from);
	put16(tcp + 2, s->port);
	put32(tcp + 4, s->seq);
	put32(tcp + 8, s->ack);
	tcp[12] = (uint8_t)(head / 4 << 4);
	tcp[13] = (uint8_t)s->flags;
	put16(tcp + 14, s->wnd);
	if (s->flags & SYN) {
		tcp[20] = 2;
		tcp[21] = 4;
		put16(tcp + 22, MD_MSS);
	}
	if (s->len)
		memcpy(tcp + head, s->data, s->len);
	put16(tcp + 16, folded(add_up(add_up(6 + len, ip + 12, 8), tcp, len)));
	t->send(t->ctx, f, ETH_LEN + IP_LEN + len);
}

/* ---- connections ---- */

/* What may still come of a request. */
static uint32_t room_of(const struct md_conn *c)
{
	return c->answered ? MD_REQUEST_MAX : MD_REQUEST_MAX - c->nin;
}

/* A part of the answer, its FIN, the SYN, or an acknowledgement alone. */
static void say(struct md_tcp *t, struct md_conn *c, unsigned flags, uint32_t off, uint32_t len)
{
	send_segment(t, &(struct segment){.mac = c->mac,
					  .addr = c->addr,
					  .port = c->port,
					  .from = OUR_PORT,
					  .seq = c->iss + !(flags & SYN) + off,
					  .ack = c->rcv_nxt,
					  .wnd = room_of(c),
					  .flags = flags,
					  .data = c->out + off,
					  .len = len});
}

static void drop(struct md_conn *c)
{
	c->state = MD_NONE;
}

static void reset(struct md_tcp *t, struct md_conn *c)
{
	say(t, c, RST | ACK, c->top, 0);
	drop(c);
}

/* Send what may be sent. The FIN is the byte behind the answer. */
static void md_push(struct md_tcp *t, struct md_conn *c, uint64_t now)
{
	uint32_t wnd = lesser(c->wnd, IN_FLIGHT), end = c->nout + 1;

	/* A window that is shut is tried with a byte, when it is time to. */
	if (!wnd && c->retry_ns && c->nxt == c->una && now >= c->retry_ns)
		wnd = 1;
	while (c->answered && c->nxt < end && c->nxt - c->una < wnd) {
		uint32_t n = lesser(lesser(c->mss, c->nout - c->nxt), wnd - (c->nxt - c->una));
		bool last = c->nxt + n == c->nout;

		say(t, c, ACK | (last ? PSH | FIN : 0), c->nxt, n);
		c->nxt += n + last;
		c->top = c->nxt > c->top ? c->nxt : c->top;
	}
	if (c->answered && c->una < end && !c->retry_ns)
		c->retry_ns = now + RETRY_NS;
}

static void md_answer(struct md_tcp *t, struct md_conn *c, size_t n, uint64_t now)
{
	c->nout = (uint32_t)n;
	c->answered = true;
	c->una = c->nxt = c->top = 0;
	c->tries = 0;
	c->retry_ns = 0;
	c->limit_ns = now + MD_ANSWER_NS;
	md_push(t, c, now);
}

static void read_request(struct md_tcp *t, struct md_conn *c, uint64_t now)
{
	size_t n = md_http_whole(c->in, c->nin);

	if (c->answered || !n)
		return;
	n = n == MD_TOO_LONG ? md_http_refuse(413, c->out)
			     : md_http_answer(&t->http, c->in, n, now, c->out);
	md_answer(t, c, n, now);
}

static struct md_conn *find(struct md_tcp *t, uint32_t addr, uint16_t port)
{
	for (unsigned i = 0; i < MD_CONNS; i++) {
		struct md_conn *c = &t->conn[i];

		if (c->state != MD_NONE && c->addr == addr && c->port == port)
			return c;
	}
	return NULL;
}

/* One that is free, or else the one that is over first. */
static struct md_conn *make_room(struct md_tcp *t)
{
	struct md_conn *best = &t->conn[0];

	for (unsigned i = 0; i < MD_CONNS; i++) {
		struct md_conn *c = &t->conn[i];

		if (c->state == MD_NONE)
			return c;
		if (c->limit_ns < best->limit_ns)
			best = c;
	}
	reset(t, best);
	return best;
}

/* ---- in ---- */

struct incoming {
	const uint8_t *mac;
	uint32_t addr, seq, ack, wnd, len;
	uint16_t port, to;
	unsigned flags;
	const uint8_t *data, *option, *option_end;
};

/* Whatever belongs to no connection (RFC 9293, 3.5.2). */
static void reset_stranger(struct md_tcp *t, const struct incoming *s)
{
	struct segment r = {.mac = s->mac, .addr = s->addr, .port = s->port, .from = s->to};

	if (s->flags & RST)
		return;
	if (s->flags & ACK) {
		r.flags = RST;
		r.seq = s->ack;
	} else {
		r.flags = RST | ACK;
		r.ack = s->seq + s->len + !!(s->flags & SYN) + !!(s->flags & FIN);
	}
	send_segment(t, &r);
}

static uint16_t mss_of(const struct incoming *s)
{
	const uint8_t *p = s->option, *end = s->option_end;
	uint32_t mss = 536;

	while (p < end && *p) {
		if (*p == 1) {
			p++;
			continue;
		}
		if (end - p < 2 || p[1] < 2 || p[1] > end - p)
			break;
		if (*p == 2 && p[1] == 4)
			mss = get16(p + 2);
		p += p[1];
	}
	return (uint16_t)(mss < MIN_MSS ? MIN_MSS : lesser(mss, MD_MSS));
}

static void begin(struct md_tcp *t, const struct incoming *s, uint64_t now)
{
	struct md_conn *c = make_room(t);

	/* The buffers are not touched before they are filled. */
	memset(c, 0, offsetof(struct md_conn, in));
	c->state = MD_SYN;
	memcpy(c->mac, s->mac, 6);
	c->addr = s->addr;
	c->port = s->port;
	c->mss = mss_of(s);
	c->rcv_nxt = s->seq + 1;
	c->wnd = s->wnd;
	t->http.random(&c->iss, sizeof(c->iss));
	c->limit_ns = now + MD_REQUEST_NS;
	c->retry_ns = now + RETRY_NS;
	say(t, c, SYN | ACK, 0, 0);
}

/* False: it acknowledges what was never sent. */
static bool take_ack(struct md_conn *c, const struct incoming *s)
{
	uint32_t off = s->ack - c->iss - 1; /* of the answer */

	if (c->state == MD_SYN && off != 0)
		return false;
	if (off - c->una > c->top - c->una)
		/* Older ones are old, newer ones wrong: that is what half of all numbers are. */
		return c->una - off < 1u << 31;
	c->state = MD_OPEN;
	if (off != c->una || !c->answered) {
		c->retry_ns = 0;
		c->tries = 0;
	}
	c->una = off;
	c->nxt = c->nxt < off ? off : c->nxt;
	c->wnd = s->wnd;
	return true;
}

/* In order, or not at all. */
static void take_data(struct md_tcp *t, struct md_conn *c, const struct incoming *s, uint64_t now)
{
	uint32_t old = c->rcv_nxt - s->seq, n;
	bool fin = s->flags & FIN;

	if (!s->len && !fin)
		return;
	if (old > s->len) { /* a gap, or all of it was there already */
		say(t, c, ACK, c->top, 0);
		return;
	}
	n = lesser(s->len - old, room_of(c));
	if (n && !c->answered) {
		memcpy(c->in + c->nin, s->data + old, n);
		c->nin += n;
	}
	c->rcv_nxt += n;
	if (fin && old + n == s->len && !c->fin_seen) {
		c->fin_seen = true;
		c->rcv_nxt++;
	}
	read_request(t, c, now);
	say(t, c, ACK, c->top, 0);
}

static void take_segment(struct md_tcp *t, struct md_conn *c, const struct incoming *s,
			 uint64_t now)
{
	if (s->flags & RST) {
		if (s->seq == c->rcv_nxt)
			drop(c);
		return;
	}
	if (s->flags & SYN) {
		if (c->state == MD_SYN && s->seq + 1 == c->rcv_nxt) {
			say(t, c, SYN | ACK, 0, 0);
		} else { /* the guest has begun again */
			drop(c);
			begin(t, s, now);
		}
		return;
	}
	if (!(s->flags & ACK))
		return;
	if (!take_ack(c, s)) { /* RFC 9293, 3.10.7.4 */
		if (c->state == MD_SYN)
			reset_stranger(t, s);
		else
			say(t, c, ACK, c->top, 0);
		return;
	}
	take_data(t, c, s, now);
	md_push(t, c, now);
	if (c->answered && c->una == c->nout + 1 && c->fin_seen)
		drop(c);
	else if (!c->answered && c->fin_seen) /* nothing more comes, and it is no request */
		reset(t, c);
}

static void md_tcp_segment(struct md_tcp *t, struct incoming *s, const uint8_t *tcp, uint32_t len,
			   uint64_t now)
{
	uint32_t head = len >= TCP_LEN ? (uint32_t)(tcp[12] >> 4) * 4 : 0;
	struct md_conn *c;

	if (head < TCP_LEN || head > len)
		return;
	s->port = get16(tcp);
	s->to = get16(tcp + 2);
	s->seq = get32(tcp + 4);
	s->ack = get32(tcp + 8);
	s->flags = tcp[13];
	s->wnd = get16(tcp + 14);
	s->option = tcp + TCP_LEN;
	s->option_end = s->data = tcp + head;
	s->len = len - head;
	c = s->to == OUR_PORT ? find(t, s->addr, s->port) : NULL;
	if (c)
		take_segment(t, c, s, now);
	else if (s->to == OUR_PORT && (s->flags & (SYN | ACK | RST | FIN)) == SYN)
		begin(t, s, now);
	else
		reset_stranger(t, s);
}

static void take_ip(struct md_tcp *t, const uint8_t *f, size_t len, uint64_t now)
{
	const uint8_t *ip = f + ETH_LEN;
	struct incoming s = {.mac = f + 6};
	uint32_t head, all;

	if (len < ETH_LEN + IP_LEN || ip[0] >> 4 != 4)
		return;
	head = (ip[0] & 15u) * 4;
	all = get16(ip + 2);
	s.addr = get32(ip + 12);
	/* No fragments; and nobody is answered who cannot be a single station. */
	if (head < IP_LEN || all < head || all > len - ETH_LEN || (get16(ip + 6) & 0x3fff) ||
	    ip[9] != 6 || get32(ip + 16) != OUR_ADDR || s.addr == OUR_ADDR || s.addr >> 28 >= 14 ||
	    !s.addr || (s.mac[0] & 1))
		return;
	md_tcp_segment(t, &s, ip + head, all - head, now);
}

/* Who has 169.254.169.254? (RFC 826) */
static void take_arp(struct md_tcp *t, const uint8_t *f, size_t len)
{
	static const uint8_t request[8] = {0, 1, 8, 0, 6, 4, 0, 1};
	const uint8_t *q = f + ETH_LEN;
	uint8_t r[ETH_LEN + ARP_LEN];

	if (len < sizeof(r) || memcmp(q, request, sizeof(request)) != 0 ||
	    get32(q + 24) != OUR_ADDR || get32(q + 14) == OUR_ADDR || (f[6] & 1))
		return;
	put_eth(r, f + 6, ETH_ARP);
	memcpy(r + ETH_LEN, request, sizeof(request));
	r[ETH_LEN + 7] = 2;
	memcpy(r + ETH_LEN + 8, our_mac, 6);
	put32(r + ETH_LEN + 14, OUR_ADDR);
	memcpy(r + ETH_LEN + 18, q + 8, 10);
	t->send(t->ctx, r, sizeof(r));
}

void md_tcp_frame(struct md_tcp *t, const uint8_t *frame, size_t len, uint64_t now_ns)
{
	unsigned type = len >= ETH_LEN ? get16(frame + 12) : 0;

	if (type == ETH_IP)
		take_ip(t, frame, len, now_ns);
	else if (type == ETH_ARP)
		take_arp(t, frame, len);
}

/* ---- time ---- */

static void try_again(struct md_tcp *t, struct md_conn *c, uint64_t now)
{
	if (++c->tries > MAX_TRIES) {
		reset(t, c);
		return;
	}
	if (c->state == MD_SYN) {
		say(t, c, SYN | ACK, 0, 0);
	} else {
		c->nxt = c->una;
		md_push(t, c, now);
	}
	c->retry_ns = now + (RETRY_NS << c->tries);
}

void md_tcp_tick(struct md_tcp *t, uint64_t now_ns)
{
	for (unsigned i = 0; i < MD_CONNS; i++) {
		struct md_conn *c = &t->conn[i];

		if (c->state == MD_NONE)
			continue;
		if (now_ns >= c->limit_ns)
			reset(t, c);
		else if (c->retry_ns && now_ns >= c->retry_ns)
			try_again(t, c, now_ns);
	}
}

uint64_t md_tcp_next(const struct md_tcp *t)
{
	uint64_t first = 0;

	for (unsigned i = 0; i < MD_CONNS; i++) {
		const struct md_conn *c = &t->conn[i];
		uint64_t due = c->retry_ns && c->retry_ns < c->limit_ns ? c->retry_ns : c->limit_ns;

		if (c->state != MD_NONE && (!first || due < first))
			first = due;
	}
	return first;
}
