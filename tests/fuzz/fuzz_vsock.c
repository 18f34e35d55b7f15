/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A vsock device whose guest, whose host's ends and whose supervisor are the input: packets and
 * rings of any content, answers at any time, streams that end or fail in any state. Whatever they
 * do, the connection table stays whole (fh_check()), no byte lands outside of guest memory, and
 * every turn ends.
 *
 * The input is a list of actions. Virtqueues and table are the device's own code, the host's ends
 * are those of the unit test.
 */
#include <linux/virtio_ring.h>
#include <sys/mman.h>

#include <insula/base.h>
#include <insula/log.h>

#include <devices/vsock/vsock.h>

#include "../unit/boardmem.h"
#include "../unit/fakehost.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MEM_SIZE (16u << 20)
#define NUM 16u
#define RINGS 0x10000u
#define RING_STEP 0x4000u
#define BUFFERS 0x100000u
#define BUF_STEP 0x2000u
#define CID 3u
#define MAX_ACTIONS 400u
#define MAX_TURNS 64u

static struct {
	const uint8_t *p;
	size_t n;
} in;

static struct vsockdev dev;
static struct helper helper;
static struct virtio_state state;
static struct fh host;
static uint16_t avail[VSOCK_QUEUES];
static uint32_t last_port, answered;

static uint32_t take(unsigned bytes)
{
	uint32_t v = 0;

	for (unsigned i = 0; i < bytes && in.n; i++, in.n--)
		v |= (uint32_t)*in.p++ << 8 * i;
	return v;
}

static uint8_t *mem(uint64_t gpa)
{
	return dev.w.gm.region[0].host + gpa;
}

/* ---- the guest ---- */

static uint8_t *ring(unsigned q, unsigned area)
{
	return mem(RINGS + q * RING_STEP + area * 0x1000);
}

/* Offer a chain of up to two descriptors in the slots 2i and 2i+1. */
static void offer(unsigned q, uint32_t first, uint32_t second, bool write)
{
	unsigned slot = avail[q] % (NUM / 2), head = 2 * slot;
	uint64_t at = BUFFERS + (q * NUM + slot) * BUF_STEP;
	struct vring_desc d[2] = {{at, first, write ? VRING_DESC_F_WRITE : 0, 0}, {0}};
	uint16_t h = (uint16_t)head;

	if (second) {
		d[0].flags |= VRING_DESC_F_NEXT;
		d[0].next = (uint16_t)(head + 1);
		d[1] = (struct vring_desc){at + first, second, write ? VRING_DESC_F_WRITE : 0, 0};
	}
	memcpy(ring(q, 0) + head * sizeof(d[0]), d, sizeof(d));
	memcpy(ring(q, 1) + 4 + 2 * (avail[q] % NUM), &h, 2);
	avail[q]++;
	memcpy(ring(q, 1) + 2, &avail[q], 2);
}

static uint32_t port(uint8_t choice)
{
	return choice & 8 ? last_port : choice & 7;
}

static void packet(void)
{
	unsigned slot = avail[VSOCK_TX] % (NUM / 2);
	uint8_t shape = (uint8_t)take(1), op = (uint8_t)take(1), ports = (uint8_t)take(1);
	struct virtio_vsock_hdr h = {.src_cid = CID,
				     .dst_cid = 2,
				     .type = VIRTIO_VSOCK_TYPE_STREAM,
				     .op = op % 10,
				     .src_port = port(ports & 15),
				     .dst_port = port(ports >> 4),
				     .buf_alloc = 1u << (op >> 4),
				     .len = shape & 1 ? take(2) % 6000 : 0};
	uint32_t len = (uint32_t)sizeof(h) + h.len, cut = shape & 2 ? take(1) % len + 1 : len;

	if (shape & 4)
		h.flags = take(1);
	if (shape & 8)
		h.fwd_cnt = take(shape & 16 ? 4 : 2);
	if (shape & 32) /* anything */
		((uint8_t *)&h)[take(1) % sizeof(h)] ^= (uint8_t)take(1);
	memcpy(mem(BUFFERS + (VSOCK_TX * NUM + slot) * BUF_STEP), &h, sizeof(h));
	offer(VSOCK_TX, cut, len - cut, shape & 64);
}

static void buffers(void)
{
	unsigned n = take(1) % NUM + 1;
	uint32_t len = take(2) % BUF_STEP, cut = take(1);

	for (unsigned i = 0; i < n; i++)
		offer(VSOCK_RX, cut && cut < len ? cut : len, cut && cut < len ? len - cut : 0,
		      true);
}

/* The guest learns the port of the newest packet for it. */
static void learn(void)
{
	uint16_t idx;
	uint32_t elem[2];
	uint64_t at;
	struct virtio_vsock_hdr h;

	memcpy(&idx, ring(VSOCK_RX, 2) + 2, 2);
	memcpy(elem, ring(VSOCK_RX, 2) + 4 + 8 * ((uint16_t)(idx - 1) % NUM), 8);
	at = BUFFERS + elem[0] / 2 % (NUM / 2) * BUF_STEP;
	memcpy(&h, mem(at), sizeof(h));
	last_port = h.src_port;
}

static void scribble(void)
{
	uint32_t at = take(2) % (VSOCK_QUEUES * RING_STEP), n = take(1) % 16;

	for (uint32_t i = 0; i < n; i++)
		*mem(RINGS + at + i) = (uint8_t)take(1);
}

/* ---- the host ---- */

static int new_end(void)
{
	static const size_t rooms[] = {SIZE_MAX, 0, 1, 100, 5000};
	int fd = fh_new(&host);

	host.end[fd].room = rooms[take(1) % ARRAY_LEN(rooms)];
	return fd;
}

static void client(void)
{
	static const char *const lines[] = {
		"CONNECT 1\n", "CONNECT 2\nand more",  "CONNECT 3",
		"GET /",       "CONNECT 4294967295\n", "CONNECT 99999999999\n"};
	const char *line = lines[take(1) % ARRAY_LEN(lines)];
	int fd = new_end();

	fh_say(&host, fd, line, strlen(line));
	if (vconn_has_room(&dev.conns))
		vconn_client(&dev.conns, fd);
	else
		fh_lose(&host, fd);
}

static void stream(void)
{
	int fd = new_end();

	if (vconn_has_room(&dev.conns))
		vconn_stream(&dev.conns, fd, take(1) & 7);
	else
		fh_lose(&host, fd);
}

/* An answer, to a question or to nothing. */
static void answer(void)
{
	uint8_t how = (uint8_t)take(1);
	uint32_t id = how & 1 ? take(4) : host.asked_id[answered % 64];
	int fd = how & 2 ? -1 : new_end();

	if (!(how & 1) && answered == host.nasked) {
		if (fd >= 0)
			fh_lose(&host, fd);
		return;
	}
	answered += !(how & 1);
	if (!vconn_connected(&dev.conns, id, fd < 0 ? -ECONNREFUSED : 0, fd) && fd >= 0)
		fh_lose(&host, fd);
}

/* Something happens to the host's end of some connection. */
static void happen(void)
{
	uint8_t which = (uint8_t)take(1), what = (uint8_t)take(1);
	static const uint8_t text[FH_BYTES];
	struct vconns *t = &dev.conns;
	struct vconn *c = t->nfresh ? &t->conn[which % t->nfresh] : NULL;
	struct fh_end *e;
	uint32_t id;

	if (!c || c->state == VCONN_FREE || c->fd < 0)
		return;
	id = vconn_id(t, c);
	e = &host.end[c->fd];
	if (what & 1)
		fh_say(&host, c->fd, text, FH_BYTES - e->nin < 700 ? 0 : take(2) % 700);
	if (what & 2)
		e->eof = true;
	if (what & 4)
		e->read_error = -ECONNRESET;
	if (what & 8)
		e->write_error = -EPIPE;
	if (what & 16)
		e->room = what & 1 ? 10 : SIZE_MAX;
	if ((what & 32) && e->watched)
		vconn_writable(t, c);
	c = vconn_find_id(t, id);
	if ((what & 64) && c)
		vconn_readable(t, c);
	c = vconn_find_id(t, id);
	if ((what & 128) && c)
		vconn_hangup(t, c);
}

/* ---- the device ---- */

static void turn(void)
{
	unsigned n = 0;

	while (vsock_turn(&dev))
		fh_must(++n < MAX_TURNS, "turns without an end");
	if (!dev.w.lane->broken)
		(void)vsock_rest(&dev);
}

static void start_queues(bool resume)
{
	for (unsigned q = 0; q < VSOCK_QUEUES; q++) {
		struct vq_state *st = &state.q[q];

		st->num = NUM;
		st->ready = 1;
		st->desc = RINGS + q * RING_STEP;
		st->driver = st->desc + 0x1000;
		st->device = st->desc + 0x2000;
		if (vq_start(&dev.w.front.v.vq[q], st, &dev.w.gm, 3ull << 28, resume, NULL))
			memset(&dev.w.front.v.vq[q], 0, sizeof(struct virtqueue));
	}
	atomic_fetch_add(&dev.w.want, 1);
}

static void stop_queues(void)
{
	if (!(dev.w.want & 1))
		return;
	atomic_fetch_add(&dev.w.want, 1);
	(void)vsock_turn(&dev);
	fh_must(lane_idle(dev.w.lane), "quiet after a stop");
	fh_must(dev.conns.used == 0 && host.nopen == 0, "connections after a stop");
}

static void restart(void)
{
	stop_queues();
	start_queues(take(1) & 1);
}

static void pass_time(void)
{
	static const uint64_t steps[] = {1000, VCONN_TICK_NS, VCONN_HELLO_NS, VCONN_ANSWER_NS,
					 VCONN_LINGER_NS};

	dev.conns.now += steps[take(1) % ARRAY_LEN(steps)];
	(void)vconn_tick(&dev.conns);
}

static void event_buffer(void)
{
	offer(VSOCK_EVENT, take(1) % 8, 0, true);
}

static void fail_open(void)
{
	host.open_fails = take(1) & 1;
}

static void (*const actions[])(void) = {
	packet, buffers, turn,      client,       stream,   answer,    happen,
	learn,  restart, pass_time, event_buffer, scribble, fail_open,
};

static void birth(void)
{
	struct vconns *t = &dev.conns;
	memset(&state, 0, sizeof(state));
	memset(avail, 0, sizeof(avail));
	memset(t->conn, 0, t->nfresh * sizeof(t->conn[0]));
	fh_must(madvise(mem(0), MEM_SIZE, MADV_REMOVE) == 0, "MADV_REMOVE");
	host.nends = host.nopen = host.nasked = 0;
	host.open_fails = false;
	last_port = answered = 0;
	dev.first = dev.nheld = 0;
	dev.reset = VSOCK_RESET_NONE;
	dev.clients = dev.retry = false;
	dev.started = 0;
	dev.w.want = dev.w.lane->seen = 0;
	dev.w.lane->broken = false;
	t->max = take(1) % 20 + 1;
	t->reachable = take(1) % 4 != 0;
	t->now = 1;
	vconn_init(t);
	start_queues(false);
}

static void init_once(void)
{
	struct err e = {0};
	int fd;

	if (dev.w.gm.nregions)
		return;
	log_setup("", LOG_LVL_ERROR);
	fd = shm_create("fuzz", MEM_SIZE, &e);
	fh_must(fd >= 0 && board_gm_map(&dev.w.gm, fd, MEM_SIZE, &e) == 0, "guest memory");
	helper.event_fd = -1; /* and no interrupt */
	dev.w.nlanes = 1;
	dev.w.lane->w = &dev.w;
	dev.w.lane->queues = (1u << VSOCK_QUEUES) - 1;
	dev.w.h = &helper;
	dev.w.front.h = &helper;
	dev.w.front.v.st = &state;
	dev.w.quiet_fd = -1;
	dev.w.model.nqueues = VSOCK_QUEUES;
	dev.listen_fd = -1;
	host.t = &dev.conns;
	host.end = calloc(FH_ENDS, sizeof(*host.end));
	dev.conns.ops = &fh_ops;
	dev.conns.ctx = &host;
	dev.conns.guest_cid = CID;
	dev.conns.rings = mmap(NULL, VCONN_RINGS_SIZE, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	fh_must(host.end && dev.conns.rings != MAP_FAILED, "memory");
	vsock_box_init(&dev.in);
	vsock_box_init(&dev.out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	init_once();
	in.p = data;
	in.n = size;
	birth();
	for (unsigned i = 0; i < MAX_ACTIONS && in.n; i++) {
		actions[take(1) % ARRAY_LEN(actions)]();
		fh_check(&host);
		fh_must(dev.nheld <= VCONN_MAX_BUFS, "buffers held");
	}
	turn();
	fh_check(&host);
	stop_queues();
	fh_check(&host);
	vconn_drop_all(&dev.conns);
	fh_must(dev.conns.used == 0 && host.nopen == 0, "an end that got lost");
	return 0;
}
