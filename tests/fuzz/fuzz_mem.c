/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A virtio-mem device whose guest is the input: requests of any kind for any blocks, chains of any
 * form, registers, resets; a helper that ends after any turn, and one that was taken over and left
 * anything as its state; a host that asks for other sizes.
 *
 * As long as the guest's chains are requests, each answer is the one that a model of the device
 * gives. Whatever it does, a block that is plugged keeps what the guest has written, one that was
 * unplugged reads as zeros, no more is plugged than was asked for, and the memory beside the region
 * stays.
 *
 * The input is a list of actions, each a byte with its operands behind it.
 */
#include <errno.h>

#include <insula/board.h>
#include <insula/log.h>

#include <devices/mem/mem.h>

#include "../unit/fakedrv.h"
#include "must.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MEM (16u << 20)
#define BLOCK MEMMAP_BLOCK
#define NBLOCKS 64u
#define REGION (NBLOCKS * BLOCK)
#define ADDR BOARD_HIGH_RAM
#define RINGS 0x10000u
#define PLACES 0x80000u /* of requests, and 64 bytes behind each its response */
#define BESIDE 0x400000u
#define QNUM 16
#define MAX_ACTIONS 300u
#define MAX_TURNS 64u

static struct {
	const uint8_t *p;
	size_t n;
} in;

static struct {
	struct fakecore core;
	struct guestmem gm;
	struct msg_start_mem conf;
	struct vmem b;
	struct helper h;
	struct drvq q;
	int event[4];
} x;

/* What the device should be. */
static struct {
	uint64_t stamp[NBLOCKS]; /* 0: it is not plugged */
	uint64_t last;
	/* Offered, in this order, and not served. */
	struct vmem_request pending[QNUM];
	unsigned npending, done;
	bool known; /* all chains since the last reset are requests */
} model;

static uint64_t take(unsigned bytes)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < bytes && in.n; i++, in.n--)
		v |= (uint64_t)*in.p++ << 8 * i;
	return v;
}

static uint64_t *block_at(unsigned i)
{
	return gm_ptr(&x.gm, ADDR + i * BLOCK, BLOCK);
}

static gpa_t place(unsigned i)
{
	return PLACES + i * 128;
}

/* ---- the model ---- */

static void put_stamp(unsigned i)
{
	MUST(block_at(i)[0] == 0 && block_at(i)[BLOCK / 8 - 1] == 0);
	model.stamp[i] = ++model.last;
	block_at(i)[0] = block_at(i)[BLOCK / 8 - 1] = model.last;
}

static unsigned model_count(unsigned from, unsigned to)
{
	unsigned n = 0;

	for (unsigned i = from; i < to; i++)
		n += model.stamp[i] != 0;
	return n;
}

/* The answer, and *state. */
static uint16_t model_answer(const struct vmem_request *r, uint16_t *state)
{
	uint64_t at = (r->addr - ADDR) / BLOCK, most = x.conf.requested / BLOCK;
	unsigned n;

	if (r->type == VIRTIO_MEM_REQ_UNPLUG_ALL)
		return VIRTIO_MEM_RESP_ACK;
	if (r->type > VIRTIO_MEM_REQ_STATE || r->addr < ADDR || r->addr >= ADDR + REGION ||
	    r->addr % BLOCK || !r->n || at + r->n > NBLOCKS)
		return VIRTIO_MEM_RESP_ERROR;
	n = model_count((unsigned)at, (unsigned)at + r->n);
	*state = n == r->n ? VIRTIO_MEM_STATE_PLUGGED
		 : n       ? VIRTIO_MEM_STATE_MIXED
			   : VIRTIO_MEM_STATE_UNPLUGGED;
	if (r->type == VIRTIO_MEM_REQ_PLUG)
		return n                                       ? VIRTIO_MEM_RESP_ERROR
		       : model_count(0, NBLOCKS) + r->n > most ? VIRTIO_MEM_RESP_NACK
							       : VIRTIO_MEM_RESP_ACK;
	return r->type == VIRTIO_MEM_REQ_UNPLUG && n != r->n ? VIRTIO_MEM_RESP_ERROR
							     : VIRTIO_MEM_RESP_ACK;
}

static void model_do(const struct vmem_request *r)
{
	bool all = r->type == VIRTIO_MEM_REQ_UNPLUG_ALL;
	unsigned from = all ? 0 : (unsigned)((r->addr - ADDR) / BLOCK);
	unsigned to = all ? NBLOCKS : from + r->n;

	for (unsigned i = from; i < to && r->type != VIRTIO_MEM_REQ_STATE; i++) {
		bool was = model.stamp[i];

		model.stamp[i] = r->type == VIRTIO_MEM_REQ_PLUG ? UINT64_MAX : 0;
		MUST(!was || model.stamp[i] || (!block_at(i)[0] && !block_at(i)[BLOCK / 8 - 1]));
	}
}

/* What was answered since the last time, in the order of the requests: nobody else has written to
 * the blocks, so the stamps can wait until all is looked at. */
static void check_answers(void)
{
	uint16_t head;
	uint32_t len;
	void *p;

	while (model.known && drvq_get(&x.q, &head, &len, &p)) {
		const struct vmem_request *r = &model.pending[model.done];
		uint16_t state = 0, want = model_answer(r, &state);
		struct virtio_mem_resp got;

		MUST(model.done < model.npending);
		memcpy(&got, gm_ptr(&x.gm, (gpa_t)(uintptr_t)p, sizeof(got)), sizeof(got));
		MUST(len == sizeof(got) && got.type == want);
		MUST(r->type != VIRTIO_MEM_REQ_STATE || want != VIRTIO_MEM_RESP_ACK ||
		     got.u.state.state == state);
		if (want == VIRTIO_MEM_RESP_ACK)
			model_do(r);
		model.done++;
	}
}

/* After chains of any form: what there is now is what the state says. */
static void take_over(void)
{
	for (unsigned i = 0; i < NBLOCKS; i++) {
		bool plugged = x.b.st->map[i / 64] >> i % 64 & 1;

		if (!plugged && model.stamp[i]) {
			MUST(block_at(i)[0] == 0);
			model.stamp[i] = 0;
		} else if (plugged && !model.stamp[i]) {
			model.stamp[i] = UINT64_MAX;
		}
	}
}

static void check_blocks(void)
{
	for (unsigned i = 0; i < NBLOCKS; i++) {
		bool plugged = x.b.st->map[i / 64] >> i % 64 & 1;

		MUST(plugged == (model.stamp[i] != 0));
		if (model.stamp[i] == UINT64_MAX)
			put_stamp(i);
		MUST(!plugged || (block_at(i)[0] == model.stamp[i] &&
				  block_at(i)[BLOCK / 8 - 1] == model.stamp[i]));
	}
	MUST(atomic_load(&x.b.plugged) == model_count(0, NBLOCKS) * BLOCK);
	MUST(*(uint64_t *)gm_ptr(&x.gm, BESIDE, 8) == BESIDE);
}

/* ---- the device ---- */

static void fuzz_start(void *dev)
{
	vmem_prepare(dev);
	atomic_fetch_add(&((struct worker *)dev)->want, 1);
}

static void fuzz_stop(void *dev)
{
	atomic_fetch_add(&((struct worker *)dev)->want, 1);
	vmem_turn(dev);
	atomic_store(&((struct worker *)dev)->fault, NULL);
}

static void all_turns(void)
{
	unsigned n = 0;

	while (vmem_turn(&x.b) || (x.b.phase != VMEM_IDLE && lane_runs(x.b.w.lane))) {
		vmem_event(&x.b);
		MUST(++n < MAX_TURNS);
	}
	vmem_event(&x.b);
}

static void settle(void)
{
	all_turns();
	check_answers();
	if (!model.known)
		take_over();
	check_blocks();
}

static void pump(void *arg)
{
	(void)arg;
	MUST(port_run(&x.h.port) >= 0);
}

/* A new process on the same page. False: it refuses what it finds. */
static bool birth(void)
{
	struct worker *w = &x.b.w;
	struct err e;

	memset(&x.b, 0, sizeof(x.b));
	memset(&x.h.port, 0, sizeof(x.h.port));
	if (port_open(&x.h.port, x.core.page, VMEM_TAG, &e))
		return false;
	w->h = &x.h;
	w->gm = x.gm;
	w->nlanes = 1;
	w->quiet_fd = x.event[2];
	w->lane[0] = (struct lane){.w = w, .ctl_fd = x.event[3], .queues = 1};
	if (vmem_describe(&x.b, &x.conf, &e))
		return false;
	w->model.start = fuzz_start;
	w->model.stop = fuzz_stop;
	port_attach(&x.h.port, &x.b.ops.regs, w);
	MUST(port_run(&x.h.port) >= 0);
	x.b.ops.resume(w);
	return true;
}

static void bring_up(void)
{
	/* What is under way is over; blocks may have come or gone before. */
	check_answers();
	model.known = false;
	MUST(drv_negotiate(&x.core, DRV_F(VIRTIO_F_VERSION_1)));
	take_over();
	drvq_init(&x.q, &x.gm, RINGS, QNUM, false, -1);
	MUST(drv_queue(&x.core, 0, &x.q));
	drv_ok(&x.core);
	model.npending = model.done = 0;
	model.known = true;
}

/* ---- actions ---- */

static uint64_t some_addr(void)
{
	uint64_t how = take(1), at = ADDR + (how & 63) * BLOCK;

	return how < 0xc0 ? at : how < 0xe0 ? at + take(2) : take(8);
}

static void make_request(unsigned i, struct vmem_request *r)
{
	struct virtio_mem_req *out = gm_ptr(&x.gm, place(i), sizeof(*out));

	r->type = (uint16_t)take(1);
	r->type = r->type < 0xfe ? r->type % 5 : (uint16_t)take(2);
	r->addr = some_addr();
	r->n = (uint16_t)take(1);
	r->n = r->n < 0xf0 ? r->n % (NBLOCKS + 2) : (uint16_t)take(2);
	*out = (struct virtio_mem_req){.type = r->type,
				       .u.plug = {.addr = r->addr, .nb_blocks = r->n}};
	memset(gm_ptr(&x.gm, place(i) + 64, 64), 0xee, 64);
}

static void ask(void)
{
	unsigned i = model.npending % QNUM;
	struct vring_desc d[2];

	if (model.npending == QNUM / 2)
		settle(), bring_up();
	i = model.npending;
	make_request(i, &model.pending[model.npending++]);
	d[0] = drv_desc(place(i), sizeof(struct virtio_mem_req), false);
	d[1] = drv_desc(place(i) + 64, sizeof(struct virtio_mem_resp), true);
	drvq_add(&x.q, d, 2, (void *)(uintptr_t)(place(i) + 64));
}

/* Anything. The device may want a reset, and gets one. */
static void ask_strangely(void)
{
	struct vmem_request r;
	struct vring_desc d[4];
	unsigned n = 1 + take(1) % 4;

	settle();
	model.known = false;
	make_request(0, &r);
	for (unsigned i = 0; i < n; i++) {
		uint8_t how = (uint8_t)take(1);

		d[i] = drv_desc(how & 1 ? place(0) + 64 : place(0), how >> 2, how & 2);
		if (how >= 0xf0)
			d[i] = drv_desc(take(5), (uint32_t)take(4), how & 2);
		/* Not into the rings, nor into what is looked at. */
		if (d[i].addr >= PLACES + 4096 || d[i].addr < PLACES || d[i].len > 4096)
			d[i].flags = 0;
	}
	drvq_add(&x.q, d, n, NULL);
	settle();
	bring_up();
}

static void order(void)
{
	struct msg_mem m = {.requested = take(1) % (NBLOCKS + 1) * BLOCK, .known = take(1) * BLOCK};
	int rc;

	settle();
	rc = x.b.ops.message(&x.b, MSG_MEM, &m, sizeof(m), NULL, 0);
	MUST(rc != -EPROTO);
	x.conf.requested = m.requested;
}

static void order_strangely(void)
{
	struct msg_mem m = {.requested = take(8), .known = take(1)};
	bool good = m.requested <= REGION && m.requested % BLOCK == 0;

	if (!good)
		MUST(x.b.ops.message(&x.b, MSG_MEM, &m, sizeof(m), NULL, 0) == -EPROTO);
	MUST(x.b.ops.message(&x.b, MSG_MEM, &m, take(1) % sizeof(m), NULL, 0) == -EPROTO);
}

/* False: the successor does not take what it finds, and the VM has no device any more. */
static bool hostile_state(void)
{
	uint32_t at = (uint32_t)take(2) % sizeof(struct vmem_state), n = (uint32_t)take(1) % 9;
	uint8_t *to = (uint8_t *)x.b.st + at;

	settle();
	for (uint32_t i = 0; i < n && at + i < sizeof(struct vmem_state); i++)
		to[i] = (uint8_t)take(1);
	if (!birth())
		return false;
	/* Its bits are what they are: blocks that nobody has plugged have zeros, or what was there.
	 * */
	for (unsigned i = 0; i < NBLOCKS; i++) {
		bool plugged = x.b.st->map[i / 64] >> i % 64 & 1;

		if (plugged && !model.stamp[i])
			model.stamp[i] = UINT64_MAX;
		if (!plugged && model.stamp[i]) {
			MUST(!vmem_cut(block_at(i), BLOCK));
			model.stamp[i] = 0;
		}
	}
	bring_up();
	return true;
}

static bool action(void)
{
	switch (take(1) % 9) {
	case 0:
	case 1:
		ask();
		break;
	case 2:
		settle();
		break;
	case 3: /* killed after some of it */
		for (unsigned n = take(1) % 4; n; n--) {
			vmem_turn(&x.b);
			vmem_event(&x.b);
		}
		return birth();
	case 4:
		order();
		break;
	case 5:
		order_strangely();
		break;
	case 6:
		ask_strangely();
		break;
	case 7:
		if (take(1) & 1)
			return hostile_state();
		bring_up();
		break;
	case 8:
		settle();
		drv_reg(&x.core, VIRTIO_MMIO_CONFIG + (uint32_t)take(1) % 64, (uint32_t)take(4));
		break;
	}
	return true;
}

static void setup(void)
{
	static bool is_set;
	struct err e;
	int fd;

	if (is_set)
		return;
	is_set = true;
	log_setup("", LOG_LVL_ERROR);
	x.conf.head.mem = board_map(MEM);
	memmap_add_of_board(&x.conf.head.mem, REGION);
	fd = shm_create("guest", memmap_size(&x.conf.head.mem), &e);
	MUST(fd >= 0 && !gm_map(&x.gm, &x.conf.head.mem, &fd, 1, &e));
	for (unsigned i = 0; i < ARRAY_LEN(x.event); i++)
		x.event[i] = event_create();
	fc_open(&x.core);
	x.core.pump = pump;
	x.h.irq_fd[0] = x.event[0];
	x.h.nirqs = 1;
	x.h.event_fd = x.event[1];
	x.h.channel = -1;
	*(uint64_t *)gm_ptr(&x.gm, BESIDE, 8) = BESIDE;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	in.p = data;
	in.n = size;
	setup();
	memset(x.core.page, 0, DP_SIZE);
	x.core.ctrl->magic = DP_MAGIC;
	x.core.ctrl->size = DP_SIZE;
	x.core.head = x.core.seq = 0;
	x.conf.requested = 32 * BLOCK;
	memset(&model, 0, sizeof(model));
	MUST(!vmem_cut(block_at(0), REGION));
	MUST(birth());
	bring_up();
	for (unsigned i = 0; i < MAX_ACTIONS && in.n; i++) {
		if (!action())
			return 0;
	}
	settle();
	return 0;
}
