/* SPDX-License-Identifier: BSD-2-Clause */
/* The connections of a vsock device: each packet in each state, credit and its arithmetic, half
 * closes, resets, clients' lines, what waits and for how long, and that all have their turns. */
#include <check.h>

#include <insula/base.h>

#include <devices/vsock/vsock.h>

#include "fakehost.h"
#include "host.h"

#define CID 5u
#define GUEST_PORT 1000u
#define HOST_PORT 52u
#define HDR 44u
#define BUF 4096u

static struct vconns *t;
static struct fh h;

/* The last packet that the guest was given. */
static struct virtio_vsock_hdr got;
static uint8_t payload[VCONN_MAX_BUFS * BUF];
static size_t npayload;

static void setup(void)
{
	t = calloc(1, sizeof(*t));
	h = (struct fh){.t = t, .end = calloc(FH_ENDS, sizeof(*h.end))};
	t->ops = &fh_ops;
	t->ctx = &h;
	t->guest_cid = CID;
	t->max = VSOCK_MAX_CONNS;
	t->reachable = true;
	t->now = 1;
	t->rings = host_pages(VCONN_RINGS_SIZE);
	vconn_init(t);
}

static void teardown(void)
{
	fh_check(&h);
	vconn_drop_all(t);
	fh_check(&h);
	ck_assert_uint_eq(h.nopen, 0);
	host_free_pages(t->rings, VCONN_RINGS_SIZE);
	free(h.end);
	free(t);
}

/* ---- the guest ---- */

static struct virtio_vsock_hdr packet(unsigned op, uint32_t guest_port, uint32_t host_port)
{
	return (struct virtio_vsock_hdr){.src_cid = CID,
					 .dst_cid = 2,
					 .src_port = guest_port,
					 .dst_port = host_port,
					 .type = VIRTIO_VSOCK_TYPE_STREAM,
					 .op = (uint16_t)op,
					 .buf_alloc = 65536};
}

static void give(const struct virtio_vsock_hdr *p, const void *data)
{
	struct iovec iov = {(void *)(uintptr_t)data, p->len};

	ck_assert(vconn_may_take(t));
	vconn_packet(t, p, &iov, p->len ? 1 : 0);
	fh_check(&h);
}

static void say(unsigned op, uint32_t guest_port, uint32_t host_port)
{
	struct virtio_vsock_hdr p = packet(op, guest_port, host_port);

	give(&p, NULL);
}

static void say_data(uint32_t guest_port, uint32_t host_port, const void *data, uint32_t len)
{
	struct virtio_vsock_hdr p = packet(VIRTIO_VSOCK_OP_RW, guest_port, host_port);

	p.len = len;
	give(&p, data);
}

/* One turn with n buffers of BUF bytes: all its packets are data of one connection, or there is
 * one. False: nobody has anything. */
static bool take(unsigned n)
{
	static uint8_t mem[VCONN_MAX_BUFS][BUF];
	struct iovec iov[VCONN_MAX_BUFS][2];
	struct vconn_buf b[VCONN_MAX_BUFS];
	unsigned k = 0;

	for (unsigned i = 0; i < n; i++) { /* cut inside of the header */
		iov[i][0] = (struct iovec){mem[i], 10};
		iov[i][1] = (struct iovec){mem[i] + 10, BUF - 10};
		b[i] = (struct vconn_buf){iov[i], 2, BUF, 0};
	}
	while (k == 0 && vconn_pending(t)) {
		k = vconn_fill(t, b, n);
		fh_check(&h);
	}
	npayload = 0;
	for (unsigned i = 0; i < k; i++) {
		memcpy(&got, mem[i], HDR);
		ck_assert_uint_eq(b[i].used, HDR + got.len);
		ck_assert_uint_eq(got.dst_cid, CID);
		ck_assert(k == 1 || got.op == VIRTIO_VSOCK_OP_RW);
		memcpy(payload + npayload, mem[i] + HDR, got.len);
		npayload += got.len;
	}
	return k != 0;
}

static void expect(unsigned op, uint32_t guest_port, uint32_t host_port)
{
	ck_assert(take(1));
	ck_assert_uint_eq(got.op, op);
	ck_assert_uint_eq(got.src_cid, 2);
	ck_assert_uint_eq(got.src_port, host_port);
	ck_assert_uint_eq(got.dst_port, guest_port);
	ck_assert_uint_eq(got.type, VIRTIO_VSOCK_TYPE_STREAM);
}

static void expect_silence(void)
{
	ck_assert(!take(1));
}

static struct vconn *conn(uint32_t guest_port, uint32_t host_port)
{
	return vtab_find(t, guest_port, host_port);
}

/* A connection that the guest began. The host's end. */
static int open_by_guest(uint32_t guest_port, uint32_t host_port)
{
	unsigned asked = h.nasked;
	int fd;

	say(VIRTIO_VSOCK_OP_REQUEST, guest_port, host_port);
	ck_assert_uint_eq(h.nasked, asked + 1);
	ck_assert_uint_eq(h.asked_port[asked % 64], host_port);
	fd = fh_new(&h);
	ck_assert(vconn_connected(t, h.asked_id[asked % 64], 0, fd));
	expect(VIRTIO_VSOCK_OP_RESPONSE, guest_port, host_port);
	return fd;
}

/* A connection that a client of the host began. */
static int open_by_host(uint32_t guest_port, uint32_t *host_port)
{
	char line[32];
	int fd = fh_new(&h);

	snprintf(line, sizeof(line), "CONNECT %u\n", guest_port);
	fh_say(&h, fd, line, strlen(line));
	vconn_client(t, fd);
	ck_assert(take(1));
	ck_assert_uint_eq(got.op, VIRTIO_VSOCK_OP_REQUEST);
	ck_assert_uint_eq(got.dst_port, guest_port);
	*host_port = got.src_port;
	say(VIRTIO_VSOCK_OP_RESPONSE, guest_port, *host_port);
	return fd;
}

/* ---- tests ---- */

START_TEST(guest_begins)
{
	int fd = open_by_guest(GUEST_PORT, HOST_PORT);

	say_data(GUEST_PORT, HOST_PORT, "hello", 5);
	ck_assert_uint_eq(h.end[fd].nout, 5);
	ck_assert_mem_eq(h.end[fd].out, "hello", 5);
	fh_say(&h, fd, "world!", 6);
	vconn_readable(t, conn(GUEST_PORT, HOST_PORT));
	expect(VIRTIO_VSOCK_OP_RW, GUEST_PORT, HOST_PORT);
	ck_assert_uint_eq(npayload, 6);
	ck_assert_mem_eq(payload, "world!", 6);
	ck_assert_uint_eq(got.fwd_cnt, 5);
	expect_silence();
	ck_assert_uint_eq(t->stat.connections, 1);
	ck_assert_uint_eq(t->stat.to_host, 5);
	ck_assert_uint_eq(t->stat.to_guest, 6);
}
END_TEST

/* Packets of connections that are gone, before the guest knows that: not even a reset. */
START_TEST(cut_off)
{
	static const unsigned ops[] = {
		VIRTIO_VSOCK_OP_RESPONSE,          VIRTIO_VSOCK_OP_RST,
		VIRTIO_VSOCK_OP_SHUTDOWN,          VIRTIO_VSOCK_OP_RW,
		VIRTIO_VSOCK_OP_CREDIT_UPDATE,     VIRTIO_VSOCK_OP_CREDIT_REQUEST,
		VIRTIO_VSOCK_OP_CREDIT_REQUEST + 1};

	t->cut = true;
	for (unsigned i = 0; i < ARRAY_LEN(ops); i++)
		say(ops[i], GUEST_PORT, HOST_PORT);
	expect_silence();
	/* A request is a new one, and nothing that is old ends it. */
	say(VIRTIO_VSOCK_OP_REQUEST, GUEST_PORT, HOST_PORT);
	for (unsigned i = 0; i < ARRAY_LEN(ops); i++)
		say(ops[i], GUEST_PORT, HOST_PORT);
	ck_assert(vconn_connected(t, h.asked_id[0], 0, fh_new(&h)));
	expect(VIRTIO_VSOCK_OP_RESPONSE, GUEST_PORT, HOST_PORT);
	t->cut = false;
	say(VIRTIO_VSOCK_OP_RW, GUEST_PORT + 1, HOST_PORT);
	expect(VIRTIO_VSOCK_OP_RST, GUEST_PORT + 1, HOST_PORT);
}
END_TEST

START_TEST(host_begins)
{
	uint32_t port;
	int fd = open_by_host(7, &port);
	char ok[32];

	snprintf(ok, sizeof(ok), "OK %u\n", port);
	ck_assert_uint_eq(h.end[fd].nout, strlen(ok));
	ck_assert_mem_eq(h.end[fd].out, ok, strlen(ok));
	/* The line is not part of the guest's stream. */
	say_data(7, port, "x", 1);
	ck_assert_uint_eq(h.end[fd].nout, strlen(ok) + 1);
	ck_assert_uint_eq(conn(7, port)->fwd, 1);
}
END_TEST

START_TEST(supervisor_begins)
{
	int fd = fh_new(&h);

	vconn_stream(t, fd, 9);
	ck_assert(take(1));
	ck_assert_uint_eq(got.op, VIRTIO_VSOCK_OP_REQUEST);
	say(VIRTIO_VSOCK_OP_RESPONSE, 9, got.src_port);
	ck_assert_uint_eq(h.end[fd].nout, 0); /* no line */
	ck_assert(h.end[fd].open);
}
END_TEST

START_TEST(guest_refuses)
{
	int fd = fh_new(&h);

	vconn_stream(t, fd, 9);
	ck_assert(take(1));
	say(VIRTIO_VSOCK_OP_RST, 9, got.src_port);
	ck_assert(!h.end[fd].open);
	ck_assert_uint_eq(t->used, 0);
	expect_silence();
}
END_TEST

/* The line, whole and in pieces; what follows it belongs to the guest. */
START_TEST(client_lines)
{
	static const struct {
		const char *text;
		bool good;
		uint32_t port;
	} lines[] = {
		{"CONNECT 1\n", true, 1},
		{"CONNECT 0\n", true, 0},
		{"CONNECT 0052\n", true, 52},
		{"CONNECT 4294967295\n", true, 4294967295u},
		{"CONNECT 4294967296\n", false, 0},
		{"CONNECT 18446744073709551669\n", false, 0},
		{"CONNECT \n", false, 0},
		{"CONNECT 1 \n", false, 0},
		{"CONNECT -1\n", false, 0},
		{"CONNECT +1\n", false, 0},
		{"CONNECT  1\n", false, 0},
		{"CONNECT 1\r\n", false, 0},
		{"CONNECT 0x1\n", false, 0},
		{"connect 1\n", false, 0},
		{"GET / HTTP/1.0\r\n\r\n", false, 0},
		{"\n\n\n\n\n\n\n\n\n\n", false, 0},
		{"CONNECT 1CONNECT 1\n", false, 0},
		{"CONNECT 00000000000000000000000000000001\n", false, 0},
	};

	for (unsigned i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		size_t len = strlen(lines[i].text);

		for (size_t piece = 1; piece <= len; piece += piece < 3 ? 1 : len - 3) {
			int fd = fh_new(&h);
			unsigned used = t->used;

			vconn_client(t, fd);
			for (size_t at = 0; at < len && h.end[fd].open; at += piece) {
				struct vconn *c = &t->conn[t->nfresh - 1];

				for (unsigned k = 0; k < t->nfresh; k++)
					c = t->conn[k].fd == fd ? &t->conn[k] : c;
				fh_say(&h, fd, lines[i].text + at,
				       piece < len - at ? piece : len - at);
				vconn_readable(t, c);
				fh_check(&h);
			}
			if (!lines[i].good) {
				ck_assert_msg(!h.end[fd].open, "taken: %s", lines[i].text);
				ck_assert_uint_eq(t->used, used);
				expect_silence();
				continue;
			}
			ck_assert_msg(take(1), "refused: %s", lines[i].text);
			ck_assert_uint_eq(got.op, VIRTIO_VSOCK_OP_REQUEST);
			ck_assert_uint_eq(got.dst_port, lines[i].port);
		}
	}
}
END_TEST

START_TEST(data_right_after_the_line)
{
	int fd = fh_new(&h);

	fh_say(&h, fd, "CONNECT 52\nearly", 16);
	vconn_client(t, fd);
	ck_assert(take(1));
	say(VIRTIO_VSOCK_OP_RESPONSE, 52, got.src_port);
	ck_assert(take(1));
	ck_assert_uint_eq(npayload, 5);
	ck_assert_mem_eq(payload, "early", 5);
}
END_TEST

/* Addresses, types, operations and lengths that cannot be. */
START_TEST(bad_packets)
{
	struct virtio_vsock_hdr p;

	p = packet(VIRTIO_VSOCK_OP_REQUEST, 1, 2);
	p.src_cid = CID + 1;
	give(&p, NULL);
	p.src_cid = CID | 1ull << 32;
	give(&p, NULL);
	expect_silence();
	p = packet(VIRTIO_VSOCK_OP_REQUEST, 1, 2);
	p.dst_cid = 77;
	give(&p, NULL);
	ck_assert(take(1));
	ck_assert_uint_eq(got.op, VIRTIO_VSOCK_OP_RST);
	ck_assert_uint_eq(got.src_cid, 77);
	ck_assert_uint_eq(got.src_port, 2);
	ck_assert_uint_eq(got.dst_port, 1);
	p = packet(VIRTIO_VSOCK_OP_REQUEST, 1, 2);
	p.type = VIRTIO_VSOCK_TYPE_SEQPACKET;
	give(&p, NULL);
	ck_assert(take(1));
	ck_assert_uint_eq(got.op, VIRTIO_VSOCK_OP_RST);
	ck_assert_uint_eq(got.type, VIRTIO_VSOCK_TYPE_SEQPACKET);
	ck_assert_uint_eq(h.nasked, 0);
	ck_assert_uint_eq(t->stat.bad_packets, 4);
	/* No reset is an answer to a reset. */
	p.op = VIRTIO_VSOCK_OP_RST;
	give(&p, NULL);
	say(VIRTIO_VSOCK_OP_RST, 3, 4);
	expect_silence();
	/* Of a connection that does not exist. */
	for (unsigned op = 0; op < 12; op++) {
		if (op == VIRTIO_VSOCK_OP_REQUEST || op == VIRTIO_VSOCK_OP_RST)
			continue;
		say(op, 3, 4);
		expect(VIRTIO_VSOCK_OP_RST, 3, 4);
	}
	ck_assert_uint_eq(t->used, 0);
}
END_TEST

/* Every operation in every state: the connection is reset exactly where the table says so. */
START_TEST(every_operation_in_every_state)
{
	enum { ASKING, CALLING, OPEN, GONE, NSTATES };
	static const char fine[NSTATES][10] = {
		/* by operation: . fine, x reset */
		[ASKING] = "xxxfxxfxx",
		[CALLING] = "xxffxxfxx",
		[OPEN] = "xxxfffffx",
		[GONE] = "xxxffffff",
	};
	uint32_t port = HOST_PORT;
	int fd = -1;

	for (unsigned state = 0; state < NSTATES; state++) {
		for (unsigned op = 0; op < 9; op++) {
			uint32_t gp = 100 + state * 10 + op;
			uint64_t bad;

			if (state == CALLING) {
				vconn_stream(t, fh_new(&h), gp);
				ck_assert(take(1));
				port = got.src_port;
			} else {
				port = HOST_PORT;
				if (state == ASKING)
					say(VIRTIO_VSOCK_OP_REQUEST, gp, port);
				else
					fd = open_by_guest(gp, port);
			}
			if (state == GONE) {
				h.end[fd].eof = true;
				vconn_hangup(t, conn(gp, port));
				expect(VIRTIO_VSOCK_OP_SHUTDOWN, gp, port);
				if (got.flags != 3)
					expect(VIRTIO_VSOCK_OP_SHUTDOWN, gp, port);
				ck_assert_uint_eq(got.flags, 3);
				ck_assert(!h.end[fd].open);
			}
			bad = t->stat.bad_packets;
			say(op, gp, port);
			/* An unknown operation is 0 or 8. */
			if (op == VIRTIO_VSOCK_OP_RST)
				ck_assert_ptr_null(conn(gp, port));
			else if (fine[state][op] == 'x' || op == 0 || op == 8)
				ck_assert_msg(t->stat.bad_packets == bad + 1,
					      "state %u, operation %u", state, op);
			else
				ck_assert_msg(t->stat.bad_packets == bad, "state %u, operation %u",
					      state, op);
			if (t->stat.bad_packets != bad)
				expect(VIRTIO_VSOCK_OP_RST, gp, port);
			while (take(1))
				;
		}
	}
}
END_TEST

START_TEST(payload_where_none_belongs)
{
	struct virtio_vsock_hdr p = packet(VIRTIO_VSOCK_OP_CREDIT_UPDATE, GUEST_PORT, HOST_PORT);

	open_by_guest(GUEST_PORT, HOST_PORT);
	p.len = 4;
	give(&p, "junk");
	expect(VIRTIO_VSOCK_OP_RST, GUEST_PORT, HOST_PORT);
	ck_assert_uint_eq(t->used, 0);
}
END_TEST

START_TEST(answer_before_the_question)
{
	vconn_stream(t, fh_new(&h), 9);
	say(VIRTIO_VSOCK_OP_RESPONSE, 9, VCONN_FIRST_PORT);
	expect(VIRTIO_VSOCK_OP_RST, 9, VCONN_FIRST_PORT);
	ck_assert_uint_eq(h.nopen, 0);
}
END_TEST

/* What the host does not take is kept as far as the credit goes, in order, and no further. */
START_TEST(slow_host)
{
	static uint8_t data[VCONN_BIG_RING + 1];
	int fd = open_by_guest(GUEST_PORT, HOST_PORT);
	struct vconn *c = conn(GUEST_PORT, HOST_PORT);
	struct fh_end *e = &h.end[fd];
	uint32_t sum = 0;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7 + i / 251);
	e->room = 100;
	say_data(GUEST_PORT, HOST_PORT, data, 60000);
	ck_assert_uint_eq(e->nout, 100);
	ck_assert(e->watched);
	while (sum = c->received, VCONN_BIG_RING - (sum - c->fwd) >= 60000)
		say_data(GUEST_PORT, HOST_PORT, data + sum, 60000);
	expect_silence(); /* no credit for what was not taken */
	/* To the last byte, then one more. */
	sum = VCONN_BIG_RING - (c->received - c->fwd);
	ck_assert_uint_gt(sum, 0);
	e->room = SIZE_MAX;
	while (e->watched)
		vconn_writable(t, c);
	ck_assert_uint_eq(c->fwd, c->received);
	ck_assert_uint_eq(e->nout, c->received);
	for (size_t i = 0; i < FH_BYTES; i++) {
		size_t at = e->nout - FH_BYTES + i;

		ck_assert_uint_eq(e->out[at % FH_BYTES], data[at]);
	}
	expect(VIRTIO_VSOCK_OP_CREDIT_UPDATE, GUEST_PORT, HOST_PORT);
	ck_assert_uint_eq(got.fwd_cnt, c->received);
	expect_silence();
	e->room = 0;
	for (unsigned i = 0; i < 4; i++)
		say_data(GUEST_PORT, HOST_PORT, data, VCONN_BIG_RING / 4);
	ck_assert_uint_eq(c->received - c->fwd, VCONN_BIG_RING);
	say_data(GUEST_PORT, HOST_PORT, data, 1);
	expect(VIRTIO_VSOCK_OP_RST, GUEST_PORT, HOST_PORT);
	ck_assert_uint_eq(h.nforgotten, 1);
}
END_TEST

/* The counters wrap around in the middle of it all. */
START_TEST(counters_wrap)
{
	static const uint32_t ends[] = {UINT32_MAX, UINT32_MAX - 1, UINT32_MAX - 5, 0x7ffffffe, 0};
	int fd = open_by_guest(GUEST_PORT, HOST_PORT);
	struct vconn *c = conn(GUEST_PORT, HOST_PORT);
	struct virtio_vsock_hdr p;

	for (unsigned i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		struct fh_end *e = &h.end[fd];

		c->received = c->fwd = c->told_fwd = ends[i];
		c->sent = c->peer_fwd = ends[i];
		e->room = 3;
		e->nout = 0;
		say_data(GUEST_PORT, HOST_PORT, "0123456789", 10);
		ck_assert_uint_eq(c->received, ends[i] + 10);
		ck_assert_uint_eq(c->fwd, ends[i] + 3);
		e->room = SIZE_MAX;
		vconn_writable(t, c);
		ck_assert_mem_eq(e->out, "0123456789", 10);
		fh_say(&h, fd, "abcdefghij", 10);
		p = packet(VIRTIO_VSOCK_OP_CREDIT_UPDATE, GUEST_PORT, HOST_PORT);
		p.buf_alloc = 8;
		p.fwd_cnt = ends[i];
		give(&p, NULL);
		vconn_readable(t, c);
		ck_assert(take(1));
		ck_assert_uint_eq(npayload, 8);
		expect(VIRTIO_VSOCK_OP_CREDIT_REQUEST, GUEST_PORT, HOST_PORT);
		expect_silence();
		p.fwd_cnt = ends[i] + 9; /* more than it was sent: not believed */
		give(&p, NULL);
		expect_silence();
		p.fwd_cnt = ends[i] + 8;
		give(&p, NULL);
		ck_assert(take(1));
		ck_assert_uint_eq(npayload, 2);
		p.fwd_cnt = ends[i]; /* an older packet that was overtaken: not believed */
		give(&p, NULL);
		ck_assert_uint_eq(c->peer_fwd, ends[i] + 8);
	}
}
END_TEST

/* No credit: one request for it, and not one look at the host's end more. */
START_TEST(slow_guest)
{
	int fd = open_by_guest(GUEST_PORT, HOST_PORT);
	struct vconn *c = conn(GUEST_PORT, HOST_PORT);
	struct virtio_vsock_hdr p = packet(VIRTIO_VSOCK_OP_CREDIT_UPDATE, GUEST_PORT, HOST_PORT);

	p.buf_alloc = 0;
	give(&p, NULL);
	fh_say(&h, fd, "data", 4);
	vconn_readable(t, c);
	expect(VIRTIO_VSOCK_OP_CREDIT_REQUEST, GUEST_PORT, HOST_PORT);
	for (unsigned i = 0; i < 10; i++) {
		vconn_readable(t, c);
		expect_silence();
	}
	ck_assert_uint_eq(t->stat.stalls, 1);
	p.buf_alloc = 3;
	give(&p, NULL);
	ck_assert(take(1));
	ck_assert_uint_eq(npayload, 3);
	expect(VIRTIO_VSOCK_OP_CREDIT_REQUEST, GUEST_PORT, HOST_PORT);
	ck_assert_uint_eq(t->stat.stalls, 2);
	/* A buffer that shrinks below what is under way is no credit, and no huge one. */
	p.buf_alloc = 1;
	give(&p, NULL);
	expect_silence();
}
END_TEST

START_TEST(credit_is_told)
{
	static uint8_t data[65536];

	open_by_guest(GUEST_PORT, HOST_PORT);
	say(VIRTIO_VSOCK_OP_CREDIT_REQUEST, GUEST_PORT, HOST_PORT);
	expect(VIRTIO_VSOCK_OP_CREDIT_UPDATE, GUEST_PORT, HOST_PORT);
	ck_assert_uint_eq(got.buf_alloc, VCONN_BIG_RING);
	say_data(GUEST_PORT, HOST_PORT, data, VCONN_BIG_RING / 4 - 1);
	expect_silence();
	say_data(GUEST_PORT, HOST_PORT, data, 1);
	expect(VIRTIO_VSOCK_OP_CREDIT_UPDATE, GUEST_PORT, HOST_PORT);
	ck_assert_uint_eq(got.fwd_cnt, VCONN_BIG_RING / 4);
	expect_silence();
}
END_TEST

START_TEST(many_buffers_at_once)
{
	static uint8_t data[FH_BYTES];
	int fd = open_by_guest(GUEST_PORT, HOST_PORT);

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 13);
	fh_say(&h, fd, data, sizeof(data));
	vconn_readable(t, conn(GUEST_PORT, HOST_PORT));
	ck_assert(take(VCONN_MAX_BUFS));
	ck_assert_uint_eq(npayload, FH_BYTES); /* one turn, two packets */
	ck_assert_mem_eq(payload, data, FH_BYTES);
	ck_assert_uint_eq(got.len, FH_BYTES - (BUF - HDR));
	expect_silence();
}
END_TEST

/* The host has said everything, and still listens. */
START_TEST(host_half_closes)
{
	int fd = open_by_guest(GUEST_PORT, HOST_PORT);

	fh_say(&h, fd, "last words", 10);
	h.end[fd].eof = true;
	vconn_readable(t, conn(GUEST_PORT, HOST_PORT));
	ck_assert(take(1));
	ck_assert_uint_eq(npayload, 10);
	expect(VIRTIO_VSOCK_OP_SHUTDOWN, GUEST_PORT, HOST_PORT);
	ck_assert_uint_eq(got.flags, VIRTIO_VSOCK_SHUTDOWN_SEND);
	say_data(GUEST_PORT, HOST_PORT, "answer", 6);
	ck_assert_mem_eq(h.end[fd].out, "answer", 6);
	say(VIRTIO_VSOCK_OP_CREDIT_UPDATE, GUEST_PORT, HOST_PORT);
	expect_silence();
	ck_assert(h.end[fd].open);
	/* Now it is gone altogether; the guest has no other way to hear of it. */
	h.end[fd].write_error = -EPIPE;
	say_data(GUEST_PORT, HOST_PORT, "more", 4);
	expect(VIRTIO_VSOCK_OP_SHUTDOWN, GUEST_PORT, HOST_PORT);
	ck_assert_uint_eq(got.flags, 3);
	ck_assert(!h.end[fd].open);
	/* What it sends before it hears of it is taken and forgotten. */
	say_data(GUEST_PORT, HOST_PORT, "too late", 8);
	expect_silence();
	say(VIRTIO_VSOCK_OP_RST, GUEST_PORT, HOST_PORT);
	ck_assert_uint_eq(t->used, 0);
}
END_TEST

/* yes | head -1: the host stops listening while the guest writes. */
START_TEST(host_stops_reading)
{
	static uint8_t data[65536];
	int fd = open_by_guest(GUEST_PORT, HOST_PORT);

	h.end[fd].room = 10;
	say_data(GUEST_PORT, HOST_PORT, data, sizeof(data));
	h.end[fd].write_error = -EPIPE;
	vconn_writable(t, conn(GUEST_PORT, HOST_PORT));
	expect(VIRTIO_VSOCK_OP_SHUTDOWN, GUEST_PORT, HOST_PORT);
	ck_assert_uint_eq(got.flags, VIRTIO_VSOCK_SHUTDOWN_RCV);
	ck_assert_uint_eq(got.fwd_cnt, sizeof(data));
	/* The other direction lives. */
	fh_say(&h, fd, "still here", 10);
	vconn_readable(t, conn(GUEST_PORT, HOST_PORT));
	ck_assert(take(1));
	ck_assert_uint_eq(npayload, 10);
}
END_TEST

/* What the peer sent before it closed is still delivered, then the end. */
START_TEST(host_closes)
{
	int fd = open_by_guest(GUEST_PORT, HOST_PORT);

	fh_say(&h, fd, "all of it", 9);
	h.end[fd].eof = true;
	vconn_readable(t, conn(GUEST_PORT, HOST_PORT));
	vconn_hangup(t, conn(GUEST_PORT, HOST_PORT));
	expect(VIRTIO_VSOCK_OP_SHUTDOWN, GUEST_PORT, HOST_PORT);
	ck_assert_uint_eq(got.flags, VIRTIO_VSOCK_SHUTDOWN_RCV);
	ck_assert(take(1));
	ck_assert_mem_eq(payload, "all of it", 9);
	expect(VIRTIO_VSOCK_OP_SHUTDOWN, GUEST_PORT, HOST_PORT);
	ck_assert_uint_eq(got.flags, 3);
	/* The guest may take its time to read what it has got: no reset before it says so. */
	t->now += 1000000000000ull;
	vconn_tick(t);
	expect_silence();
	say(VIRTIO_VSOCK_OP_SHUTDOWN, GUEST_PORT, HOST_PORT);
	ck_assert_uint_eq(t->used, 1); /* no flags: nothing */
	say(VIRTIO_VSOCK_OP_RST, GUEST_PORT, HOST_PORT);
	ck_assert_uint_eq(t->used, 0);
}
END_TEST

static void shutdown_by_guest(uint32_t flags)
{
	struct virtio_vsock_hdr p = packet(VIRTIO_VSOCK_OP_SHUTDOWN, GUEST_PORT, HOST_PORT);

	p.flags = flags;
	give(&p, NULL);
}

START_TEST(guest_half_closes)
{
	int fd = open_by_guest(GUEST_PORT, HOST_PORT);

	h.end[fd].room = 2;
	say_data(GUEST_PORT, HOST_PORT, "question", 8);
	shutdown_by_guest(VIRTIO_VSOCK_SHUTDOWN_SEND | 0xfffffff0);
	ck_assert(!h.end[fd].shut_wr); /* not before the data */
	shutdown_by_guest(VIRTIO_VSOCK_SHUTDOWN_SEND);
	h.end[fd].room = SIZE_MAX;
	vconn_writable(t, conn(GUEST_PORT, HOST_PORT));
	ck_assert(h.end[fd].shut_wr);
	ck_assert_mem_eq(h.end[fd].out, "question", 8);
	fh_say(&h, fd, "answer", 6);
	vconn_readable(t, conn(GUEST_PORT, HOST_PORT));
	ck_assert(take(1));
	ck_assert_mem_eq(payload, "answer", 6);
	say_data(GUEST_PORT, HOST_PORT, "after all", 9); /* it said that it would not */
	expect(VIRTIO_VSOCK_OP_RST, GUEST_PORT, HOST_PORT);
}
END_TEST

START_TEST(guest_stops_reading)
{
	int fd = open_by_guest(GUEST_PORT, HOST_PORT);

	shutdown_by_guest(VIRTIO_VSOCK_SHUTDOWN_RCV);
	ck_assert(h.end[fd].shut_rd);
	fh_say(&h, fd, "nobody listens", 14);
	vconn_readable(t, conn(GUEST_PORT, HOST_PORT));
	expect_silence();
	shutdown_by_guest(VIRTIO_VSOCK_SHUTDOWN_SEND);
	expect(VIRTIO_VSOCK_OP_RST, GUEST_PORT, HOST_PORT);
	ck_assert(!h.end[fd].open);
}
END_TEST

/* The guest's program has written and exited: a slow host gets it all, and the ports are free. */
START_TEST(guest_closes_with_data_under_way)
{
	int fd = open_by_guest(GUEST_PORT, HOST_PORT), again;
	struct vconn *c = conn(GUEST_PORT, HOST_PORT);

	h.end[fd].room = 3;
	say_data(GUEST_PORT, HOST_PORT, "goodbye", 7);
	shutdown_by_guest(3);
	expect(VIRTIO_VSOCK_OP_RST, GUEST_PORT, HOST_PORT);
	ck_assert(h.end[fd].open);
	again = open_by_guest(GUEST_PORT, HOST_PORT);
	h.end[fd].room = 2;
	vconn_writable(t, c);
	ck_assert(h.end[fd].open);
	h.end[fd].room = SIZE_MAX;
	vconn_writable(t, c);
	ck_assert(!h.end[fd].open);
	ck_assert_mem_eq(h.end[fd].out, "goodbye", 7);
	ck_assert(h.end[again].open);
	ck_assert_uint_eq(t->used, 1);
}
END_TEST

START_TEST(lingering_ends)
{
	int fd = open_by_guest(GUEST_PORT, HOST_PORT);
	struct vconn *c = conn(GUEST_PORT, HOST_PORT);

	h.end[fd].room = 0;
	say_data(GUEST_PORT, HOST_PORT, "goodbye", 7);
	shutdown_by_guest(3);
	t->now += VCONN_LINGER_NS - 1;
	ck_assert(vconn_tick(t));
	h.end[fd].room = 1;
	vconn_writable(t, c); /* it moves */
	t->now += VCONN_LINGER_NS - 1;
	ck_assert(vconn_tick(t));
	ck_assert(h.end[fd].open);
	t->now += 1;
	ck_assert(!vconn_tick(t));
	ck_assert(!h.end[fd].open);
	expect(VIRTIO_VSOCK_OP_RST, GUEST_PORT, HOST_PORT); /* of its shutdown */
}
END_TEST

START_TEST(waits_end)
{
	uint32_t port;
	int fd = fh_new(&h);

	vconn_client(t, fd); /* says nothing */
	t->now += VCONN_HELLO_NS;
	ck_assert(!vconn_tick(t));
	ck_assert(!h.end[fd].open);
	expect_silence();

	fd = fh_new(&h);
	vconn_stream(t, fd, 9);
	t->now += VCONN_ANSWER_NS; /* no buffer to ask the guest with */
	ck_assert(!vconn_tick(t));
	ck_assert(!h.end[fd].open);
	expect_silence();

	fd = fh_new(&h);
	vconn_stream(t, fd, 9);
	ck_assert(take(1));
	port = got.src_port;
	t->now += VCONN_ANSWER_NS; /* no answer of the guest */
	ck_assert(!vconn_tick(t));
	ck_assert(!h.end[fd].open);
	expect(VIRTIO_VSOCK_OP_RST, 9, port);

	say(VIRTIO_VSOCK_OP_REQUEST, GUEST_PORT, HOST_PORT);
	t->now += VCONN_ANSWER_NS; /* none of the supervisor */
	ck_assert(!vconn_tick(t));
	expect(VIRTIO_VSOCK_OP_RST, GUEST_PORT, HOST_PORT);
	fd = fh_new(&h);
	ck_assert(!vconn_connected(t, h.asked_id[0], 0, fd)); /* late */
	fh_lose(&h, fd);
}
END_TEST

START_TEST(client_gives_up)
{
	int fd = fh_new(&h);

	fh_say(&h, fd, "CONN", 4);
	h.end[fd].eof = true;
	vconn_client(t, fd);
	ck_assert(!h.end[fd].open);

	fd = fh_new(&h);
	vconn_stream(t, fd, 9);
	vconn_hangup(t, &t->conn[0]);
	expect_silence(); /* the guest has heard nothing of it */
	ck_assert(!h.end[fd].open);

	fd = fh_new(&h);
	vconn_stream(t, fd, 9);
	ck_assert(take(1));
	vconn_hangup(t, &t->conn[0]);
	expect(VIRTIO_VSOCK_OP_RST, 9, got.src_port);
	ck_assert(!h.end[fd].open);
}
END_TEST

START_TEST(nobody_is_reachable)
{
	t->reachable = false;
	say(VIRTIO_VSOCK_OP_REQUEST, GUEST_PORT, HOST_PORT);
	expect(VIRTIO_VSOCK_OP_RST, GUEST_PORT, HOST_PORT);
	ck_assert_uint_eq(h.nasked, 0);
}
END_TEST

START_TEST(supervisor_refuses)
{
	say(VIRTIO_VSOCK_OP_REQUEST, GUEST_PORT, HOST_PORT);
	ck_assert(!vconn_connected(t, h.asked_id[0], -ECONNREFUSED, -1));
	expect(VIRTIO_VSOCK_OP_RST, GUEST_PORT, HOST_PORT);
	ck_assert_uint_eq(t->used, 0);
}
END_TEST

/* The guest asks for more than the supervisor is told at a time; some of it it takes back. */
START_TEST(questions_are_bounded)
{
	unsigned n = 3 * VSOCK_MAX_ASKED, answered = 0;

	for (unsigned i = 0; i < n; i++)
		say(VIRTIO_VSOCK_OP_REQUEST, GUEST_PORT + i, HOST_PORT);
	ck_assert_uint_eq(h.nasked, VSOCK_MAX_ASKED);
	say(VIRTIO_VSOCK_OP_RST, GUEST_PORT + 1, HOST_PORT);                   /* asked */
	say(VIRTIO_VSOCK_OP_RST, GUEST_PORT + VSOCK_MAX_ASKED + 1, HOST_PORT); /* not yet */
	ck_assert_uint_eq(h.nasked, VSOCK_MAX_ASKED);
	while (answered < h.nasked) {
		vconn_connected(t, h.asked_id[answered % 64], -ENOENT, -1);
		answered++;
		fh_check(&h);
		ck_assert_uint_le(h.nasked - answered, VSOCK_MAX_ASKED);
	}
	ck_assert_uint_eq(answered, n - 1);
	for (unsigned i = 0; i < n - 2; i++)
		ck_assert(take(1) && got.op == VIRTIO_VSOCK_OP_RST);
	ck_assert_uint_eq(t->used, 0);
	/* An answer to nothing changes nothing. */
	ck_assert(!vconn_connected(t, 0xffffffff, 0, -1));
	ck_assert(!vconn_connected(t, 0, 0, -1));
}
END_TEST

/* An answer to a question that still waits for its turn is none, and takes nothing with it. */
START_TEST(answers_need_a_question)
{
	struct vconn *c;

	for (unsigned i = 0; i < VSOCK_MAX_ASKED + 3; i++)
		say(VIRTIO_VSOCK_OP_REQUEST, GUEST_PORT + i, HOST_PORT);
	c = &t->conn[t->list[VCONN_ASK].last];
	ck_assert(!vconn_connected(t, vconn_id(t, c), 0, -1));
	ck_assert(!vconn_connected(t, vconn_id(t, c), -ENOENT, -1));
	ck_assert_uint_eq(c->state, VCONN_ASKING);
	fh_check(&h);
	vconn_drop_all(t);
	ck_assert_uint_eq(t->used, 0);
}
END_TEST

/* A flood of packets that get resets, without a buffer for a single one. */
START_TEST(resets_are_bounded)
{
	unsigned n = 0;

	while (vconn_may_take(t)) {
		say(VIRTIO_VSOCK_OP_RW, n++, 1);
		ck_assert_uint_le(n, VCONN_STRAYS);
	}
	ck_assert_uint_eq(n, VCONN_STRAYS);
	for (unsigned i = 0; i < n; i++)
		expect(VIRTIO_VSOCK_OP_RST, i, 1);
	ck_assert(vconn_may_take(t));
	expect_silence();
}
END_TEST

START_TEST(table_is_full)
{
	uint32_t id;

	t->max = 3;
	for (uint32_t i = 0; i < 3; i++)
		open_by_guest(i, HOST_PORT);
	ck_assert(!vconn_has_room(t));
	say(VIRTIO_VSOCK_OP_REQUEST, 3, HOST_PORT);
	expect(VIRTIO_VSOCK_OP_RST, 3, HOST_PORT);
	id = vconn_id(t, conn(1, HOST_PORT));
	say(VIRTIO_VSOCK_OP_RST, 1, HOST_PORT);
	ck_assert(vconn_has_room(t));
	open_by_guest(3, HOST_PORT);
	ck_assert_ptr_null(vconn_find_id(t, id)); /* the same slot, another connection */
	ck_assert_ptr_nonnull(vconn_find_id(t, vconn_id(t, conn(3, HOST_PORT))));
}
END_TEST

/* As take(1), without the checks that take time with thousands. */
static bool take_quickly(void)
{
	struct iovec iov = {payload, BUF};
	struct vconn_buf b = {&iov, 1, BUF, 0};

	while (vconn_pending(t)) {
		if (vconn_fill(t, &b, 1) == 1) {
			memcpy(&got, payload, HDR);
			return true;
		}
	}
	return false;
}

START_TEST(thousands)
{
	struct virtio_vsock_hdr p = packet(VIRTIO_VSOCK_OP_RESPONSE, 0, 0);
	uint32_t n = VSOCK_MAX_CONNS;

	for (uint32_t i = 0; i < n; i++) {
		vconn_stream(t, fh_new(&h), i % 3); /* many to one port */
		ck_assert(take_quickly());
		p.src_port = i % 3;
		p.dst_port = got.src_port;
		vconn_packet(t, &p, NULL, 0);
	}
	fh_check(&h);
	ck_assert_uint_eq(t->stat.connections, n);
	ck_assert(!vconn_has_room(t));
	ck_assert(!take_quickly());
	/* One that never stops, and all others with a word each: everyone's turn comes. */
	fh_say(&h, 0, payload, FH_BYTES);
	vconn_readable(t, &t->conn[0]);
	for (uint32_t i = 1; i < n; i++) {
		fh_say(&h, (int)i, "x", 1);
		vconn_readable(t, &t->conn[i]);
	}
	for (uint32_t i = 0; i < n; i++) {
		h.end[0].at = 0;
		ck_assert(take_quickly());
	}
	for (uint32_t i = 1; i < n; i++)
		ck_assert_msg(h.end[i].at == 1, "connection %u had no turn", i);
	ck_assert_uint_eq(t->stat.to_guest, n - 1 + BUF - HDR);
	fh_check(&h);
}
END_TEST

/* The host's end cannot be watched (no memory in the kernel): that connection fails, nothing else.
 */
START_TEST(open_fails)
{
	int fd = fh_new(&h);

	h.open_fails = true;
	vconn_client(t, fd);
	ck_assert(!h.end[fd].open);
	vconn_stream(t, fh_new(&h), 1);
	expect_silence();
	say(VIRTIO_VSOCK_OP_REQUEST, GUEST_PORT, HOST_PORT);
	ck_assert(vconn_connected(t, h.asked_id[0], 0, fh_new(&h)));
	expect(VIRTIO_VSOCK_OP_RST, GUEST_PORT, HOST_PORT);
	ck_assert_uint_eq(h.nopen, 0);
}
END_TEST

/* The driver comes back with a port that we still know: both ends of the old one go. */
START_TEST(port_used_again)
{
	int fd = open_by_guest(GUEST_PORT, HOST_PORT);

	say(VIRTIO_VSOCK_OP_REQUEST, GUEST_PORT, HOST_PORT);
	ck_assert(!h.end[fd].open);
	say(VIRTIO_VSOCK_OP_REQUEST, GUEST_PORT, HOST_PORT); /* before it has heard of it */
	expect(VIRTIO_VSOCK_OP_RST, GUEST_PORT, HOST_PORT);
	expect_silence();
	open_by_guest(GUEST_PORT, HOST_PORT);
}
END_TEST

START_TEST(configurations_refused)
{
	const struct msg_start_vsock good = {
		.guest_cid = 3, .max_conns = 1, .flags = VSOCK_LISTENS};
	struct msg_start_vsock bad[] = {good, good, good, good, good, good};
	struct err e;

	ck_assert_int_eq(vsock_check_conf(&good, &e), 0);
	bad[0].guest_cid = 2;
	bad[1].guest_cid = UINT32_MAX;
	bad[2].max_conns = 0;
	bad[3].max_conns = VSOCK_MAX_CONNS + 1;
	bad[4].flags = VSOCK_VHOST | VSOCK_LISTENS;
	bad[5].flags = UINT32_MAX;
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
		ck_assert_int_eq(vsock_check_conf(&bad[i], &e), -EINVAL);
}
END_TEST

/* The mailbox: in order, and no more than there is room for. */
START_TEST(mail)
{
	struct vsock_box b;
	struct vsock_mail m = {.fd = -1};
	uint32_t in = 0, out = 0;

	vsock_box_init(&b);
	ck_assert(!vsock_box_get(&b, &m));
	for (unsigned round = 0; round < 5; round++) {
		for (m.id = in; vsock_box_put(&b, &m); m.id = ++in)
			;
		ck_assert_uint_eq(in - out, VSOCK_MAIL);
		for (unsigned i = 0; i < VSOCK_MAIL - round; i++) {
			ck_assert(vsock_box_get(&b, &m));
			ck_assert_uint_eq(m.id, out++);
		}
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vsock");
	TCase *c = tcase_create("vsock");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_set_timeout(c, 60);
	tcase_add_test(c, guest_begins);
	tcase_add_test(c, cut_off);
	tcase_add_test(c, host_begins);
	tcase_add_test(c, supervisor_begins);
	tcase_add_test(c, guest_refuses);
	tcase_add_test(c, client_lines);
	tcase_add_test(c, data_right_after_the_line);
	tcase_add_test(c, bad_packets);
	tcase_add_test(c, every_operation_in_every_state);
	tcase_add_test(c, payload_where_none_belongs);
	tcase_add_test(c, answer_before_the_question);
	tcase_add_test(c, slow_host);
	tcase_add_test(c, counters_wrap);
	tcase_add_test(c, slow_guest);
	tcase_add_test(c, credit_is_told);
	tcase_add_test(c, many_buffers_at_once);
	tcase_add_test(c, host_half_closes);
	tcase_add_test(c, host_stops_reading);
	tcase_add_test(c, host_closes);
	tcase_add_test(c, guest_half_closes);
	tcase_add_test(c, guest_stops_reading);
	tcase_add_test(c, guest_closes_with_data_under_way);
	tcase_add_test(c, lingering_ends);
	tcase_add_test(c, waits_end);
	tcase_add_test(c, client_gives_up);
	tcase_add_test(c, nobody_is_reachable);
	tcase_add_test(c, supervisor_refuses);
	tcase_add_test(c, questions_are_bounded);
	tcase_add_test(c, answers_need_a_question);
	tcase_add_test(c, resets_are_bounded);
	tcase_add_test(c, table_is_full);
	tcase_add_test(c, thousands);
	tcase_add_test(c, open_fails);
	tcase_add_test(c, port_used_again);
	tcase_add_test(c, configurations_refused);
	tcase_add_test(c, mail);
	suite_add_tcase(s, c);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
