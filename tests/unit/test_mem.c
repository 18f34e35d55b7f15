/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-mem: what each request is answered, what leaves the memory's file and what does not, a
 * driver that lies, the size that is asked for, restarts, and a kill at every single instruction.
 *
 * A block that was plugged has a stamp. One that was unplugged is a hole in the file, and reads as
 * zeros.
 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/virtio_ids.h>

#include <insula/board.h>
#include <insula/log.h>
#include <insula/stats.h>

#include <devices/mem/mem.h>

#include "bareworker.h"
#include "fakedrv.h"
#include "life.h"
#include "steps.h"

#define MEM (32u << 20)
#define BLOCK MEMMAP_BLOCK
#define NBLOCKS 64u
#define REGION (NBLOCKS * BLOCK)
#define ADDR BOARD_HIGH_RAM
#define RINGS 0x10000u
#define REQUEST 0x80000u
#define RESPONSE 0x81000u
#define QNUM 16
#define CONFIG_REG(field) (VIRTIO_MMIO_CONFIG + offsetof(struct virtio_mem_config, field))
#define INACCESSIBLE DRV_F(VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE)

static struct vmem vmem;
static struct helper helper;
static struct fakecore core;
static struct guestmem gm;
static struct msg_start_mem conf;
static struct drvq q;
static int mem_fd, kick;

/* ---- the guest's memory ---- */

static struct memmap map_of(uint64_t region)
{
	struct memmap m = board_map(MEM);

	memmap_add_of_board(&m, region);
	return m;
}

static uint64_t *block_at(unsigned i)
{
	return gm_ptr(&gm, ADDR + i * BLOCK, BLOCK);
}

/* The first word of it and the last one. */
static void put_stamp(unsigned i, uint64_t round)
{
	block_at(i)[0] = block_at(i)[BLOCK / 8 - 1] =
		(i + 1) * UINT64_C(0x9e3779b97f4a7c15) + round;
}

static bool has_stamp(unsigned i, uint64_t round)
{
	uint64_t want = (i + 1) * UINT64_C(0x9e3779b97f4a7c15) + round;

	return block_at(i)[0] == want && block_at(i)[BLOCK / 8 - 1] == want;
}

static bool is_zero(unsigned i)
{
	return block_at(i)[0] == 0 && block_at(i)[BLOCK / 8 - 1] == 0;
}

/* Without touching it: nothing of it is in the file. */
static bool is_hole(unsigned i)
{
	off_t at = (off_t)(MEM + i * BLOCK), data = lseek(mem_fd, at, SEEK_DATA);

	return data < 0 || data >= at + (off_t)BLOCK;
}

/* ---- the device ---- */

static int open_vmem(void)
{
	struct start_fds f = drv_start_fds(&core, mem_fd);
	const char *step = "";
	struct err e = {0};

	start_add(&f, START_KICK, fd_copy(kick));
	if (vmem_open(&vmem, &helper, &conf, &f, &step, &e) ||
	    helper_attach(&helper, &vmem.ops, &vmem.w, &e)) {
		fprintf(stderr, "%s: %s\n", step, e.text);
		return -1;
	}
	return 0;
}

static void setup(void)
{
	struct err e = {0};

	log_setup("", LOG_LVL_ERROR);
	fc_open(&core);
	conf = (struct msg_start_mem){.head.mem = map_of(REGION), .requested = REGION};
	mem_fd = shm_create("guest", memmap_size(&conf.head.mem), &e);
	ck_assert_msg(mem_fd >= 0 && !gm_map(&gm, &conf.head.mem, &mem_fd, 1, &e), "%s", e.text);
	kick = event_create();
}

static struct helper *opened(void)
{
	return open_vmem() ? NULL : &helper;
}

static void start_device(void)
{
	life_begin(opened);
}

static struct msg_stats stop_device(void)
{
	return life_end();
}

static void bring_up(void)
{
	ck_assert(drv_negotiate(&core, DRV_F(VIRTIO_F_VERSION_1) | INACCESSIBLE));
	drvq_init(&q, &gm, RINGS, QNUM, false, kick);
	ck_assert(drv_queue(&core, 0, &q));
	drv_ok(&core);
}

static uint64_t config64(uint32_t at)
{
	return fc_shadow32(&core, at) | (uint64_t)fc_shadow32(&core, at + 4) << 32;
}

static void put_request(uint16_t type, uint64_t addr, uint16_t n)
{
	struct virtio_mem_req r = {.type = type, .u.plug = {.addr = addr, .nb_blocks = n}};

	memcpy(gm_ptr(&gm, REQUEST, sizeof(r)), &r, sizeof(r));
}

static void offer(const struct vring_desc *d, unsigned n)
{
	uint16_t old = q.avail_idx;

	drvq_add(&q, d, n, NULL);
	drvq_kick(&q, old);
}

static void offer_request(uint16_t type, uint64_t addr, uint16_t n)
{
	const struct vring_desc d[2] = {drv_desc(REQUEST, sizeof(struct virtio_mem_req), false),
					drv_desc(RESPONSE, sizeof(struct virtio_mem_resp), true)};

	put_request(type, addr, n);
	memset(gm_ptr(&gm, RESPONSE, 64), 0xee, 64);
	offer(d, 2);
}

static bool is_answered(void)
{
	uint16_t head;
	uint32_t len;
	void *p;

	if (!drvq_get(&q, &head, &len, &p))
		return false;
	ck_assert_uint_eq(len, sizeof(struct virtio_mem_resp));
	return true;
}

static uint16_t response(uint16_t *state)
{
	struct virtio_mem_resp r;

	memcpy(&r, gm_ptr(&gm, RESPONSE, sizeof(r)), sizeof(r));
	if (state)
		*state = r.u.state.state;
	return r.type;
}

static uint16_t ask_at(uint16_t type, uint64_t addr, uint16_t n, uint16_t *state)
{
	uint64_t until = clock_ns() + FC_DEADLINE_NS;

	offer_request(type, addr, n);
	while (!is_answered()) {
		ck_assert(clock_ns() < until);
		usleep(20);
	}
	return response(state);
}

static uint16_t ask(uint16_t type, unsigned block, uint16_t n)
{
	return ask_at(type, ADDR + block * BLOCK, n, NULL);
}

static uint16_t state_of(unsigned block, uint16_t n)
{
	uint16_t s = 99;

	ck_assert_uint_eq(ask_at(VIRTIO_MEM_REQ_STATE, ADDR + block * BLOCK, n, &s),
			  VIRTIO_MEM_RESP_ACK);
	return s;
}

static void needs_reset(const char *what)
{
	uint64_t until = clock_ns() + FC_DEADLINE_NS;

	while (!(drv_status(&core) & VIRTIO_CONFIG_S_NEEDS_RESET)) {
		ck_assert_msg(clock_ns() < until, "%s", what);
		usleep(50);
	}
}

/* ---- what it is ---- */

START_TEST(start_messages)
{
	struct msg_start_mem m = {.head.mem = map_of(REGION)};
	struct err e;

	m.requested = REGION;
	ck_assert_int_eq(vmem_check_conf(&m, &e), 0);
	m.requested = REGION + BLOCK;
	ck_assert_int_eq(vmem_check_conf(&m, &e), -EINVAL);
	m.requested = BLOCK + 4096;
	ck_assert_int_eq(vmem_check_conf(&m, &e), -EINVAL);
	ck_assert_str_eq(e.text, "0x201000 bytes requested; expected blocks of 0x200000, at most "
				 "0x8000000");
	m.requested = 0;
	m.head.mem.region[1].gpa += 4096;
	ck_assert_int_eq(vmem_check_conf(&m, &e), -EINVAL);
	m.head.mem = board_map(MEM);
	ck_assert_int_eq(vmem_check_conf(&m, &e), -EINVAL);
	ck_assert_str_eq(e.text, "a memory map without one region that is added");
	/* 32768 blocks, whatever it takes. */
	ck_assert_uint_eq(memmap_block(64ull << 30), BLOCK);
	ck_assert_uint_eq(memmap_block((64ull << 30) + 1), BLOCK);
	ck_assert_uint_eq(memmap_block(65ull << 30), 2 * BLOCK);
	ck_assert_uint_eq(memmap_block(1ull << 40), 16 * BLOCK);
}
END_TEST

START_TEST(configuration)
{
	conf.requested = 5 * BLOCK;
	start_device();
	ck_assert_uint_eq(fc_shadow32(&core, VIRTIO_MMIO_DEVICE_ID), VIRTIO_ID_MEM);
	ck_assert(drv_features(&core) & INACCESSIBLE);
	ck_assert(!(drv_features(&core) & DRV_F(VIRTIO_MEM_F_ACPI_PXM)));
	ck_assert_uint_eq(config64(CONFIG_REG(block_size)), BLOCK);
	ck_assert_uint_eq(config64(CONFIG_REG(addr)), ADDR);
	ck_assert_uint_eq(config64(CONFIG_REG(region_size)), REGION);
	ck_assert_uint_eq(config64(CONFIG_REG(usable_region_size)), REGION);
	ck_assert_uint_eq(config64(CONFIG_REG(requested_size)), 5 * BLOCK);
	ck_assert_uint_eq(config64(CONFIG_REG(plugged_size)), 0);
	drv_reg(&core, CONFIG_REG(requested_size), 7); /* that one is ours */
	ck_assert_uint_eq(config64(CONFIG_REG(requested_size)), 5 * BLOCK);
	/* Without the feature it works as well. */
	ck_assert(drv_negotiate(&core, DRV_F(VIRTIO_F_VERSION_1)));
	stop_device();
}
END_TEST

/* ---- requests ---- */

START_TEST(a_block_comes_and_goes)
{
	struct msg_stats s;

	start_device();
	bring_up();
	ck_assert_uint_eq(ask(VIRTIO_MEM_REQ_PLUG, 3, 4), VIRTIO_MEM_RESP_ACK);
	ck_assert_uint_eq(config64(CONFIG_REG(plugged_size)), 4 * BLOCK);
	for (unsigned i = 3; i < 7; i++)
		put_stamp(i, 1);
	ck_assert_uint_eq(ask(VIRTIO_MEM_REQ_UNPLUG, 4, 2), VIRTIO_MEM_RESP_ACK);
	ck_assert_uint_eq(config64(CONFIG_REG(plugged_size)), 2 * BLOCK);
	ck_assert(is_hole(4) && is_hole(5));
	ck_assert(has_stamp(3, 1) && has_stamp(6, 1));
	ck_assert_uint_eq(ask(VIRTIO_MEM_REQ_PLUG, 4, 1), VIRTIO_MEM_RESP_ACK);
	ck_assert(is_zero(4));
	put_stamp(4, 2);
	/* What a guest writes where it has nothing goes with the next unplug, and before that
	 * nobody looks. */
	put_stamp(20, 3);
	ck_assert_uint_eq(ask(VIRTIO_MEM_REQ_UNPLUG_ALL, 0, 0), VIRTIO_MEM_RESP_ACK);
	ck_assert_uint_eq(config64(CONFIG_REG(plugged_size)), 0);
	ck_assert(is_hole(3) && is_hole(4) && is_hole(6) && has_stamp(20, 3));
	s = stop_device();
	ck_assert_uint_eq(s.n[STAT_MEM_PLUGGED], 5 * BLOCK);
	ck_assert_uint_eq(s.n[STAT_MEM_UNPLUGGED], 5 * BLOCK);
	ck_assert_uint_eq(s.n[STAT_MEM_REQUESTS], 4);
	ck_assert_uint_eq(s.n[STAT_MEM_REFUSED] + s.n[STAT_MEM_ERRORS], 0);
}
END_TEST

START_TEST(states)
{
	start_device();
	bring_up();
	ck_assert_uint_eq(ask(VIRTIO_MEM_REQ_PLUG, 60, 3), VIRTIO_MEM_RESP_ACK);
	ck_assert_uint_eq(state_of(60, 3), VIRTIO_MEM_STATE_PLUGGED);
	ck_assert_uint_eq(state_of(63, 1), VIRTIO_MEM_STATE_UNPLUGGED);
	ck_assert_uint_eq(state_of(0, 60), VIRTIO_MEM_STATE_UNPLUGGED);
	ck_assert_uint_eq(state_of(0, 64), VIRTIO_MEM_STATE_MIXED);
	stop_device();
}
END_TEST

/* Blocks 10 to 19 are plugged, 40 are requested. */
#define TEN (ADDR + 10 * BLOCK)
#define END (ADDR + REGION)
static const struct {
	const char *what;
	uint64_t addr;
	uint16_t type, n, want;
} asked[] = {
	{"plug: one that is plugged", TEN, VIRTIO_MEM_REQ_PLUG, 1, VIRTIO_MEM_RESP_ERROR},
	{"plug: the last one is plugged", TEN - BLOCK, VIRTIO_MEM_REQ_PLUG, 2,
	 VIRTIO_MEM_RESP_ERROR},
	{"plug: none", ADDR, VIRTIO_MEM_REQ_PLUG, 0, VIRTIO_MEM_RESP_ERROR},
	{"plug: beyond", END, VIRTIO_MEM_REQ_PLUG, 1, VIRTIO_MEM_RESP_ERROR},
	{"plug: the last one is beyond", END - BLOCK, VIRTIO_MEM_REQ_PLUG, 2,
	 VIRTIO_MEM_RESP_ERROR},
	{"plug: before", ADDR - BLOCK, VIRTIO_MEM_REQ_PLUG, 1, VIRTIO_MEM_RESP_ERROR},
	{"plug: memory of the beginning", 0, VIRTIO_MEM_REQ_PLUG, 1, VIRTIO_MEM_RESP_ERROR},
	{"plug: unaligned", ADDR + 4096, VIRTIO_MEM_REQ_PLUG, 1, VIRTIO_MEM_RESP_ERROR},
	{"plug: as many as there can be", ADDR, VIRTIO_MEM_REQ_PLUG, UINT16_MAX,
	 VIRTIO_MEM_RESP_ERROR},
	{"plug: the end of all addresses", UINT64_MAX - BLOCK + 1, VIRTIO_MEM_REQ_PLUG, 1,
	 VIRTIO_MEM_RESP_ERROR},
	{"plug: more than requested", ADDR + 20 * BLOCK, VIRTIO_MEM_REQ_PLUG, 31,
	 VIRTIO_MEM_RESP_NACK},
	{"unplug: one that is not plugged", ADDR, VIRTIO_MEM_REQ_UNPLUG, 1, VIRTIO_MEM_RESP_ERROR},
	{"unplug: the last one is not", TEN, VIRTIO_MEM_REQ_UNPLUG, 11, VIRTIO_MEM_RESP_ERROR},
	{"unplug: none", TEN, VIRTIO_MEM_REQ_UNPLUG, 0, VIRTIO_MEM_RESP_ERROR},
	{"unplug: unaligned", TEN + 1, VIRTIO_MEM_REQ_UNPLUG, 1, VIRTIO_MEM_RESP_ERROR},
	{"unplug: memory of the beginning", 0, VIRTIO_MEM_REQ_UNPLUG, 1, VIRTIO_MEM_RESP_ERROR},
	{"unplug: beyond", END, VIRTIO_MEM_REQ_UNPLUG, 1, VIRTIO_MEM_RESP_ERROR},
	{"state: none", TEN, VIRTIO_MEM_REQ_STATE, 0, VIRTIO_MEM_RESP_ERROR},
	{"state: beyond", ADDR, VIRTIO_MEM_REQ_STATE, NBLOCKS + 1, VIRTIO_MEM_RESP_ERROR},
	{"no such request", TEN, 4, 1, VIRTIO_MEM_RESP_ERROR},
	{"no such request, by far", TEN, UINT16_MAX, 1, VIRTIO_MEM_RESP_ERROR},
};

START_TEST(refusals_change_nothing)
{
	struct msg_stats s;

	conf.requested = 40 * BLOCK;
	start_device();
	bring_up();
	ck_assert_uint_eq(ask(VIRTIO_MEM_REQ_PLUG, 10, 10), VIRTIO_MEM_RESP_ACK);
	for (unsigned i = 10; i < 20; i++)
		put_stamp(i, 4);
	for (unsigned i = 0; i < ARRAY_LEN(asked); i++) {
		ck_assert_msg(ask_at(asked[i].type, asked[i].addr, asked[i].n, NULL) ==
				      asked[i].want,
			      "%s: %u", asked[i].what, response(NULL));
		ck_assert_uint_eq(config64(CONFIG_REG(plugged_size)), 10 * BLOCK);
	}
	for (unsigned i = 0; i < NBLOCKS; i++)
		ck_assert_msg(i >= 10 && i < 20 ? has_stamp(i, 4) : is_hole(i), "block %u", i);
	ck_assert_uint_eq(ask(VIRTIO_MEM_REQ_PLUG, 20, 30), VIRTIO_MEM_RESP_ACK);
	ck_assert_uint_eq(ask(VIRTIO_MEM_REQ_PLUG, 0, 1), VIRTIO_MEM_RESP_NACK);
	s = stop_device();
	ck_assert_uint_eq(s.n[STAT_MEM_REFUSED], ARRAY_LEN(asked) + 1);
}
END_TEST

static const struct {
	const char *what;
	gpa_t addr[2];
	uint32_t len[2];
	bool write[2];
} lies[] = {
	{"a request that is too short", {REQUEST, RESPONSE}, {23, 16}, {false, true}},
	{"a response that does not fit", {REQUEST, RESPONSE}, {24, 9}, {false, true}},
	{"no response", {REQUEST, RESPONSE}, {24, 16}, {false, false}},
	{"no request", {REQUEST, RESPONSE}, {24, 16}, {true, true}},
	{"a request that is nowhere", {ADDR + REGION - 8, RESPONSE}, {24, 16}, {false, true}},
	{"a response that is nowhere", {REQUEST, MEM}, {24, 16}, {false, true}},
};

START_TEST(lies_do_no_harm)
{
	struct vring_desc d[2];

	start_device();
	bring_up();
	ck_assert_uint_eq(ask(VIRTIO_MEM_REQ_PLUG, 1, 1), VIRTIO_MEM_RESP_ACK);
	put_stamp(1, 1);
	put_request(VIRTIO_MEM_REQ_UNPLUG, ADDR + BLOCK, 1);
	for (unsigned i = 0; i < 2; i++)
		d[i] = drv_desc(lies[_i].addr[i], lies[_i].len[i], lies[_i].write[i]);
	offer(d, 2);
	needs_reset(lies[_i].what);
	ck_assert(has_stamp(1, 1));
	/* And after a reset it works, with what there was. */
	bring_up();
	ck_assert_uint_eq(state_of(1, 1), VIRTIO_MEM_STATE_PLUGGED);
	ck_assert_uint_eq(ask(VIRTIO_MEM_REQ_UNPLUG, 1, 1), VIRTIO_MEM_RESP_ACK);
	ck_assert(is_hole(1));
	stop_device();
}
END_TEST

/* In any pieces, in memory that was plugged, too. */
START_TEST(pieces)
{
	struct vring_desc d[5];
	struct virtio_mem_req r = {.type = VIRTIO_MEM_REQ_PLUG,
				   .u.plug = {.addr = ADDR + 7 * BLOCK, .nb_blocks = 2}};
	uint64_t until = clock_ns() + FC_DEADLINE_NS;
	uint16_t head;
	uint32_t len;
	void *p;

	start_device();
	bring_up();
	ck_assert_uint_eq(ask(VIRTIO_MEM_REQ_PLUG, 1, 1), VIRTIO_MEM_RESP_ACK);
	memcpy((uint8_t *)block_at(1) + 5, &r, sizeof(r));
	d[0] = drv_desc(ADDR + BLOCK + 5, 1, false);
	d[1] = drv_desc(ADDR + BLOCK + 6, 22, false);
	d[2] = drv_desc(ADDR + BLOCK + 28, 100, false);
	d[3] = drv_desc(ADDR + BLOCK + 4096, 3, true);
	d[4] = drv_desc(ADDR + BLOCK + 4099, 1000, true);
	offer(d, 5);
	while (!drvq_get(&q, &head, &len, &p)) {
		ck_assert(clock_ns() < until);
		usleep(20);
	}
	ck_assert_uint_eq(len, sizeof(struct virtio_mem_resp));
	ck_assert_uint_eq(config64(CONFIG_REG(plugged_size)), 3 * BLOCK);
	stop_device();
}
END_TEST

/* ---- the size that is asked for ---- */

static void order(uint64_t requested, uint64_t known)
{
	struct msg_mem m = {.requested = requested, .known = known};
	struct err e = {0};

	ck_assert_int_eq(msg_send(chan[0], MSG_MEM, &m, sizeof(m), NULL, 0), 0);
	ck_assert_int_eq(msg_expect(chan[0], MSG_MEM_TAKEN, NULL, 0, NULL, 0, &e), 0);
}

static uint64_t heard(void)
{
	struct msg_mem_state s;
	struct err e = {0};

	ck_assert_int_eq(msg_expect(chan[0], MSG_MEM_STATE, &s, sizeof(s), NULL, 0, &e), 0);
	return s.plugged;
}

START_TEST(the_size_is_asked_for)
{
	uint32_t gen;

	conf.requested = 0;
	start_device();
	bring_up();
	ck_assert_uint_eq(ask(VIRTIO_MEM_REQ_PLUG, 0, 1), VIRTIO_MEM_RESP_NACK);
	event_drain(core.irq_fd);
	gen = fc_shadow32(&core, VIRTIO_MMIO_CONFIG_GENERATION);
	order(4 * BLOCK, 0);
	ck_assert_uint_eq(config64(CONFIG_REG(requested_size)), 4 * BLOCK);
	ck_assert_uint_ne(fc_shadow32(&core, VIRTIO_MMIO_CONFIG_GENERATION), gen);
	ck_assert(fc_shadow32(&core, VIRTIO_MMIO_INTERRUPT_STATUS) & 2);
	ck_assert(events_wait(&core.irq_fd, 1, -1, 10000) & 1);
	ck_assert_uint_eq(ask(VIRTIO_MEM_REQ_PLUG, 0, 3), VIRTIO_MEM_RESP_ACK);
	ck_assert_uint_eq(heard(), 3 * BLOCK);
	/* Once: nobody has asked for more. */
	ck_assert_uint_eq(ask(VIRTIO_MEM_REQ_PLUG, 3, 1), VIRTIO_MEM_RESP_ACK);
	order(BLOCK, 3 * BLOCK);
	ck_assert_uint_eq(heard(), 4 * BLOCK);
	/* Less than there is: nothing is taken away, and nothing is given. */
	ck_assert_uint_eq(state_of(0, 4), VIRTIO_MEM_STATE_PLUGGED);
	ck_assert_uint_eq(ask(VIRTIO_MEM_REQ_PLUG, 9, 1), VIRTIO_MEM_RESP_NACK);
	ck_assert_uint_eq(ask(VIRTIO_MEM_REQ_UNPLUG, 1, 3), VIRTIO_MEM_RESP_ACK);
	order(BLOCK, 0);
	ck_assert_uint_eq(heard(), BLOCK);
	stop_device();
}
END_TEST

START_TEST(bad_messages)
{
	static const struct msg_mem bad[] = {{REGION + BLOCK, 0}, {BLOCK / 2, 0}, {UINT64_MAX, 0}};

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		void *rc;

		start_device();
		ck_assert_int_eq(msg_send(chan[0], MSG_MEM, &bad[i], sizeof(bad[i]), NULL, 0), 0);
		pthread_join(life_thread, &rc);
		ck_assert_int_eq((int)(intptr_t)rc, -EPROTO);
		helper_close(&helper);
	}
}
END_TEST

/* ---- restarts ---- */

START_TEST(blocks_survive_a_restart)
{
	start_device();
	bring_up();
	ck_assert_uint_eq(ask(VIRTIO_MEM_REQ_PLUG, 5, 2), VIRTIO_MEM_RESP_ACK);
	put_stamp(5, 1);
	stop_device();
	event_drain(core.irq_fd);
	conf.requested = 6 * BLOCK;
	start_device();
	ck_assert_uint_eq(config64(CONFIG_REG(plugged_size)), 2 * BLOCK);
	ck_assert_uint_eq(config64(CONFIG_REG(requested_size)), 6 * BLOCK);
	ck_assert(fc_shadow32(&core, VIRTIO_MMIO_INTERRUPT_STATUS) & 2);
	ck_assert_uint_eq(state_of(5, 2), VIRTIO_MEM_STATE_PLUGGED);
	ck_assert(has_stamp(5, 1));
	ck_assert_uint_eq(ask(VIRTIO_MEM_REQ_PLUG, 10, 5), VIRTIO_MEM_RESP_NACK);
	stop_device();
	/* Bits behind the last block do not count. */
	((struct vmem_page *)helper.port.dev_state)->mem.map[1] = UINT64_MAX;
	start_device();
	ck_assert_uint_eq(config64(CONFIG_REG(plugged_size)), 2 * BLOCK);
	stop_device();
	/* And those of another region are not taken over. */
	((struct vmem_page *)helper.port.dev_state)->mem.nblocks = NBLOCKS + 1;
	ck_assert_int_eq(open_vmem(), -1);
}
END_TEST

/* Registers answer, and so does the reset, which leaves the blocks as they are. */
START_TEST(the_longest_request_keeps_nobody_waiting)
{
	uint64_t begin, plugged;

	start_device();
	bring_up();
	ck_assert_uint_eq(ask(VIRTIO_MEM_REQ_PLUG, 0, NBLOCKS), VIRTIO_MEM_RESP_ACK);
	for (unsigned i = 0; i < NBLOCKS; i++)
		memset(block_at(i), 1, BLOCK);
	offer_request(VIRTIO_MEM_REQ_UNPLUG_ALL, 0, 0);
	while (!is_hole(0))
		;
	begin = clock_ns();
	bring_up();
	ck_assert_uint_lt(clock_ns() - begin, DP_DEADLINE_NS);
	plugged = config64(CONFIG_REG(plugged_size));
	for (unsigned i = 0; i < NBLOCKS; i++) {
		bool there = state_of(i, 1) == VIRTIO_MEM_STATE_PLUGGED;

		ck_assert_msg(there != is_hole(i), "block %u", i);
		plugged -= there ? BLOCK : 0;
	}
	ck_assert_uint_eq(plugged, 0);
	ck_assert_uint_eq(ask(VIRTIO_MEM_REQ_UNPLUG_ALL, 0, 0), VIRTIO_MEM_RESP_ACK);
	ck_assert_uint_eq(config64(CONFIG_REG(plugged_size)), 0);
	stop_device();
}
END_TEST

/* ---- kills ---- */

static uint64_t rnd_state = 1;

static unsigned rnd(unsigned n)
{
	rnd_state ^= rnd_state << 13;
	rnd_state ^= rnd_state >> 7;
	rnd_state ^= rnd_state << 17;
	return (unsigned)(rnd_state >> 16) % n;
}

static pid_t start_process(void)
{
	return life_fork(opened);
}

/* The guest: it plugs what it does not have, and unplugs what it has, and knows what it should be
 * answered, whoever was killed meanwhile. */
static uint64_t stamp_of[NBLOCKS]; /* 0: it is not plugged */
static uint64_t last_stamp;
static struct {
	unsigned at, n;
	bool plug, out;
} job;

static void job_begin(void)
{
	job.at = rnd(NBLOCKS);
	job.plug = !stamp_of[job.at];
	for (job.n = 1; job.at + job.n < NBLOCKS && job.n < 20; job.n++) {
		if ((stamp_of[job.at + job.n] != 0) == job.plug)
			break;
	}
	job.out = true;
	offer_request(job.plug ? VIRTIO_MEM_REQ_PLUG : VIRTIO_MEM_REQ_UNPLUG, ADDR + job.at * BLOCK,
		      (uint16_t)job.n);
}

static void job_end(void)
{
	ck_assert_uint_eq(response(NULL), VIRTIO_MEM_RESP_ACK);
	for (unsigned i = job.at; i < job.at + job.n; i++) {
		ck_assert_msg(is_hole(i), "block %u: %s", i, job.plug ? "plugged" : "unplugged");
		stamp_of[i] = job.plug ? ++last_stamp : 0;
		if (job.plug)
			put_stamp(i, stamp_of[i]);
	}
	job.out = false;
}

static void nothing_is_lost(void)
{
	for (unsigned i = 0; i < NBLOCKS; i++) {
		if (stamp_of[i] && !(job.out && i >= job.at && i < job.at + job.n))
			ck_assert_msg(has_stamp(i, stamp_of[i]), "block %u", i);
	}
}

START_TEST(killed)
{
	const char *env = getenv("INSULA_TEST_KILLS");
	const unsigned wanted = env ? (unsigned)atoi(env) : 200;
	unsigned jobs = 0;
	uint64_t until;
	pid_t pid;

	rnd_state = 11;
	pid = start_process();
	bring_up();
	/* As many as it takes: a busy machine leaves little between two of them. */
	for (unsigned kills = 0; kills < wanted || jobs < wanted; kills++) {
		for (until = clock_ns() + rnd(2000000); clock_ns() < until;) {
			if (!job.out)
				job_begin();
			if (is_answered()) {
				job_end();
				jobs++;
			}
		}
		life_kill(pid);
		nothing_is_lost();
		pid = start_process();
	}
	for (until = clock_ns() + FC_DEADLINE_NS; job.out && clock_ns() < until;) {
		if (is_answered())
			job_end();
	}
	ck_assert_msg(!job.out, "it was never answered");
	nothing_is_lost();
	for (unsigned i = 0; i < NBLOCKS; i++)
		ck_assert_uint_eq(state_of(i, 1), stamp_of[i] ? VIRTIO_MEM_STATE_PLUGGED
							      : VIRTIO_MEM_STATE_UNPLUGGED);
	life_kill(pid);
}
END_TEST

/* ---- without its threads: a kill at every instruction ---- */

struct bare {
	struct vmem b;
	struct helper h;
};
static struct bare bare, next;

static void bare_start(void *dev)
{
	vmem_prepare(dev);
	atomic_fetch_add(&((struct worker *)dev)->want, 1);
}

static void turns(struct vmem *b)
{
	for (unsigned n = 0; vmem_turn(b) || b->phase != VMEM_IDLE; n++) {
		vmem_event(b);
		ck_assert_uint_lt(n, 1000);
	}
}

static void bare_stop(void *dev)
{
	atomic_fetch_add(&((struct worker *)dev)->want, 1);
	vmem_turn(dev);
}

static void birth(struct bare *r)
{
	struct worker *w = &r->b.w;
	struct err e = {0};

	memset(r, 0, sizeof(*r));
	bare_open(w, &r->h, core.page, VMEM_TAG, &gm, 1);
	ck_assert_msg(vmem_describe(&r->b, &conf, &e) == 0, "%s", e.text);
	w->model.start = bare_start;
	w->model.stop = bare_stop;
	bare_attach(w, &r->b.ops.regs);
	r->b.ops.resume(w);
}

/* Of the requests that wait, the nth has its own place. 2 and 3 are plugged, 4 to 6 as well, from
 * before. */
static const struct {
	uint16_t type, at, n, want;
} work[] = {
	{VIRTIO_MEM_REQ_PLUG, 8, 2, VIRTIO_MEM_RESP_ACK},
	{VIRTIO_MEM_REQ_PLUG, 7, 2, VIRTIO_MEM_RESP_ERROR},
	{VIRTIO_MEM_REQ_UNPLUG, 2, 3, VIRTIO_MEM_RESP_ACK},
	{VIRTIO_MEM_REQ_UNPLUG, 2, 1, VIRTIO_MEM_RESP_ERROR},
	{VIRTIO_MEM_REQ_PLUG, 2, 1, VIRTIO_MEM_RESP_ACK},
	{VIRTIO_MEM_REQ_PLUG, 20, 3, VIRTIO_MEM_RESP_NACK},
};
static const bool before[11] = {[2] = true, [3] = true, [4] = true, [5] = true, [6] = true};
static const bool after[11] = {[2] = true, [5] = true, [6] = true, [8] = true, [9] = true};

static gpa_t place(unsigned i)
{
	return REQUEST + i * 64;
}

static void guest_with_work(void)
{
	conf.requested = 6 * BLOCK;
	birth(&bare);
	core.pump = bare_pump;
	core.arg = &bare.h;
	bring_up();
	turns(&bare.b);
	offer_request(VIRTIO_MEM_REQ_PLUG, ADDR + 2 * BLOCK, 5);
	turns(&bare.b);
	ck_assert(is_answered() && response(NULL) == VIRTIO_MEM_RESP_ACK);
	for (unsigned i = 2; i < 7; i++)
		put_stamp(i, 1);
	conf.requested = 7 * BLOCK;
	atomic_store(&bare.b.requested, conf.requested);
	for (unsigned i = 0; i < ARRAY_LEN(work); i++) {
		struct virtio_mem_req r = {
			.type = work[i].type,
			.u.plug = {.addr = ADDR + work[i].at * BLOCK, .nb_blocks = work[i].n}};
		const struct vring_desc d[2] = {drv_desc(place(i), sizeof(r), false),
						drv_desc(place(i) + 32, 16, true)};

		memcpy(gm_ptr(&gm, place(i), sizeof(r)), &r, sizeof(r));
		memset(gm_ptr(&gm, place(i) + 32, 16), 0xee, 16);
		offer(d, 2);
	}
}

#define COPY_LEN (REQUEST + ARRAY_LEN(work) * 64 - RINGS)
/* What lies in the blocks, by their first words: the rest is not written meanwhile. */
#define WORDS 11

/* A successor carries on: every request is answered once, with what it would have been answered,
 * and the blocks are as they are after all of them. */
static void check_successor(unsigned step)
{
	static uint8_t page[DP_SIZE], memory[COPY_LEN];
	bool there[WORDS];

	memcpy(page, core.page, DP_SIZE);
	memcpy(memory, gm_ptr(&gm, RINGS, COPY_LEN), COPY_LEN);
	for (unsigned i = 0; i < WORDS; i++)
		there[i] = !is_hole(i);
	birth(&next);
	turns(&next.b);
	ck_assert_uint_eq(drv_load16(q.used + 2), 1 + ARRAY_LEN(work));
	for (unsigned i = 0; i < ARRAY_LEN(work); i++) {
		uint16_t got;

		memcpy(&got, gm_ptr(&gm, place(i) + 32, 2), 2);
		ck_assert_msg(got == work[i].want, "step %u: request %u: %u", step, i, got);
	}
	for (unsigned i = 0; i < WORDS; i++) {
		bool plugged = next.b.st->map[0] >> i & 1;

		ck_assert_msg(plugged == after[i], "step %u: block %u", step, i);
		ck_assert_msg(is_hole(i) == !(after[i] && before[i] && i != 2), "step %u: block %u",
			      step, i);
	}
	ck_assert_uint_eq(atomic_load(&next.b.plugged), 5 * BLOCK);
	ck_assert_uint_eq(config64(CONFIG_REG(plugged_size)), 5 * BLOCK);
	memcpy(core.page, page, DP_SIZE);
	memcpy(gm_ptr(&gm, RINGS, COPY_LEN), memory, COPY_LEN);
	for (unsigned i = 0; i < WORDS; i++) {
		if (there[i] && is_hole(i))
			put_stamp(i, 1);
	}
}

static void all_turns(void *arg)
{
	raise(SIGSTOP);
	turns(arg);
}

static uint32_t what_has_come(void)
{
	return drv_load16(q.used + 2) |
	       (uint32_t)((struct vmem_page *)bare.h.port.dev_state)->mem.map[0] << 8;
}

START_TEST(kill_at_every_instruction)
{
	struct steps s;
	pid_t pid;

	bare_events();
	guest_with_work();
	pid = steps_begin(all_turns, &bare.b);
	if (!pid)
		return;
	s = steps_through(pid, STEPS_STRIDE, what_has_come, check_successor);
	ck_assert_uint_ge(s.changes, 10);
	ck_assert_uint_gt(s.all, 1000);
	event_drain(events[1]);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("mem");
	TCase *c = tcase_create("device"), *k = tcase_create("kills");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(c, 120);
	tcase_add_checked_fixture(c, setup, NULL);
	tcase_add_test(c, start_messages);
	tcase_add_test(c, configuration);
	tcase_add_test(c, a_block_comes_and_goes);
	tcase_add_test(c, states);
	tcase_add_test(c, refusals_change_nothing);
	tcase_add_loop_test(c, lies_do_no_harm, 0, ARRAY_LEN(lies));
	tcase_add_test(c, pieces);
	tcase_add_test(c, the_size_is_asked_for);
	tcase_add_test(c, bad_messages);
	tcase_add_test(c, blocks_survive_a_restart);
	tcase_add_test(c, the_longest_request_keeps_nobody_waiting);
	suite_add_tcase(s, c);
	tcase_set_timeout(k, 600);
	tcase_add_checked_fixture(k, setup, NULL);
	tcase_add_test(k, killed);
	tcase_add_test(k, kill_at_every_instruction);
	suite_add_tcase(s, k);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
