/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory that comes and goes (virtio-mem), and a console that answers. Needs --mem SIZE,max=: 128
 * MiB more. Each block that is plugged has stamps; one that was unplugged reads as zeros.
 *
 *   ?  "requested N plugged N" in blocks
 *   p  plugs what is requested. "plugged N", in all
 *   u  unplugs what is not. "plugged N"
 *   v  "ok memory", or where a block is wrong
 *   c  a correct driver's requests, then a hostile one's, with 32 blocks requested and none plugged:
 *      lines of results, then "checked"
 *   l  plugs and unplugs, until another key: "looping", then "ok loop N", or what was wrong
 *   w  writes to blocks that are not plugged. "wrote N"
 *   q  ends; status 0 if nothing was wrong
 *
 * Status 3: there is no such device.
 */
#include <linux/virtio_mem.h>

#include "virtio.h"

#define BLOCK (2ull << 20)
#define NBLOCKS 64u
#define ALL 0xffffffffu
#define CONFIG(field) (VIRTIO_MMIO_CONFIG + (unsigned)offsetof(struct virtio_mem_config, field))
#define WAIT_MS 20000 /* longer than a restart takes, whatever the machine does besides */

static uint64_t dev, addr;
static struct vq q;
static struct virtio_mem_req request;
static struct virtio_mem_resp response;
static uint64_t stamp_of[NBLOCKS], last_stamp = 1; /* 0: it is not plugged */

static uint64_t get64(unsigned reg)
{
	return vget(dev, reg) | (uint64_t)vget(dev, reg + 4) << 32;
}

static unsigned requested(void)
{
	return (unsigned)(get64(CONFIG(requested_size)) / BLOCK);
}

static unsigned plugged(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < NBLOCKS; i++)
		n += stamp_of[i] != 0;
	return n;
}

static volatile uint64_t *block_at(unsigned i)
{
	map_high(addr + i * BLOCK);
	return (volatile uint64_t *)(uintptr_t)(addr + i * BLOCK);
}

static void put_stamp(unsigned i)
{
	volatile uint64_t *p = block_at(i);

	stamp_of[i] = ++last_stamp;
	for (unsigned k = 0; k < BLOCK / 8; k += 4096 / 8)
		p[k] = last_stamp + k;
}

static bool has(unsigned i, uint64_t stamp)
{
	volatile uint64_t *p = block_at(i);

	for (unsigned k = 0; k < BLOCK / 8; k += 4096 / 8) {
		if (p[k] != (stamp ? stamp + k : 0))
			return false;
	}
	return true;
}

static bool start(void)
{
	bool good = vdev_negotiate(dev, VFEATURE(VIRTIO_F_VERSION_1) |
						VFEATURE(VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE));

	good = good && vq_start(&q, dev, 0, 16);
	if (good)
		vdev_add_status(dev, VIRTIO_CONFIG_S_DRIVER_OK);
	return good;
}

/* VIRTIO_MEM_RESP_*; ALL: no answer, or a wrong one. */
static unsigned ask_at(uint16_t type, uint64_t at, uint16_t n)
{
	struct vring_used_elem u;

	request = (struct virtio_mem_req){.type = type, .u.plug = {.addr = at, .nb_blocks = n}};
	response.type = 0xeeee;
	vq_desc(&q, 0, (uintptr_t)&request, sizeof(request), VRING_DESC_F_NEXT, 1);
	vq_desc(&q, 1, (uintptr_t)&response, sizeof(response), VRING_DESC_F_WRITE, 0);
	vq_push(&q, 0);
	vq_kick(&q);
	if (!vq_pop(&q, &u, WAIT_MS) || u.id || u.len != sizeof(response))
		return ALL;
	return *(volatile uint16_t *)&response.type;
}

static unsigned ask(uint16_t type, unsigned block, unsigned n)
{
	return ask_at(type, addr + block * BLOCK, (uint16_t)n);
}

/* One run of blocks, all of which are, or are not, plugged. False: what was wrong is said. */
static bool change(bool plug, unsigned at, unsigned n)
{
	unsigned got = ask(plug ? VIRTIO_MEM_REQ_PLUG : VIRTIO_MEM_REQ_UNPLUG, at, n);

	if (got != VIRTIO_MEM_RESP_ACK)
		return check(plug ? "plug" : "unplug", false, "%u blocks at %u: %u", n, at, got);
	for (unsigned i = at; i < at + n; i++) {
		if (plug && !has(i, 0))
			return check("zeros", false, "block %u is not", i);
		stamp_of[i] = 0;
		if (plug)
			put_stamp(i);
	}
	if (get64(CONFIG(plugged_size)) != plugged() * BLOCK)
		return check("plugged_size", false, "%u blocks; expected %u",
			     (unsigned)(get64(CONFIG(plugged_size)) / BLOCK), plugged());
	return true;
}

/* The run that begins at `at`, at most `max` blocks. */
static unsigned run_at(unsigned at, unsigned max)
{
	unsigned n = 1;

	while (n < max && at + n < NBLOCKS && !stamp_of[at + n] == !stamp_of[at])
		n++;
	return n;
}

static void move(bool plug)
{
	unsigned want = requested();

	for (unsigned i = 0; i < NBLOCKS && (plug ? plugged() < want : plugged() > want); i++) {
		unsigned at = plug ? i : NBLOCKS - 1 - i;

		if ((stamp_of[at] == 0) == plug && !change(plug, at, 1))
			break;
	}
	print("plugged %u\n", plugged());
}

static bool verify(const char *name)
{
	for (unsigned i = 0; i < NBLOCKS; i++) {
		if (stamp_of[i] && !has(i, stamp_of[i]))
			return check(name, false, "block %u", i);
	}
	return true;
}

/* ---- c ---- */

static void correct(void)
{
	check("plugs", change(true, 0, 32) && verify("plugged"), "no");
	check("not_more", ask(VIRTIO_MEM_REQ_PLUG, 40, 1) == VIRTIO_MEM_RESP_NACK, "%u",
	      response.type);
	check("unplugs", change(false, 4, 8) && verify("beside_it"), "no");
	check("state",
	      ask(VIRTIO_MEM_REQ_STATE, 0, 12) == VIRTIO_MEM_RESP_ACK &&
		      response.u.state.state == VIRTIO_MEM_STATE_MIXED &&
		      ask(VIRTIO_MEM_REQ_STATE, 0, 4) == VIRTIO_MEM_RESP_ACK &&
		      response.u.state.state == VIRTIO_MEM_STATE_PLUGGED &&
		      ask(VIRTIO_MEM_REQ_STATE, 4, 8) == VIRTIO_MEM_RESP_ACK &&
		      response.u.state.state == VIRTIO_MEM_STATE_UNPLUGGED,
	      "%u", response.u.state.state);
	check("plugs_zeros", change(true, 4, 8) && verify("again"), "no");
	check("a_reset_plugs_nothing",
	      start() && verify("reset") && get64(CONFIG(plugged_size)) == 32 * BLOCK,
	      "status 0x%x", vget(dev, VIRTIO_MMIO_STATUS));
}

static void hostile(void)
{
	const struct {
		const char *name;
		uint64_t at;
		uint16_t type, n;
	} bad[] = {
		{"twice", addr, VIRTIO_MEM_REQ_PLUG, 1},
		{"overlapping", addr + 31 * BLOCK, VIRTIO_MEM_REQ_PLUG, 2},
		{"nothing", addr + 40 * BLOCK, VIRTIO_MEM_REQ_PLUG, 0},
		{"unaligned", addr + 40 * BLOCK + 4096, VIRTIO_MEM_REQ_PLUG, 1},
		{"the_first_memory", 0, VIRTIO_MEM_REQ_UNPLUG, 1},
		{"before", addr - BLOCK, VIRTIO_MEM_REQ_UNPLUG, 2},
		{"beyond", addr + NBLOCKS * BLOCK, VIRTIO_MEM_REQ_PLUG, 1},
		{"over_the_end", addr + (NBLOCKS - 1) * BLOCK, VIRTIO_MEM_REQ_PLUG, 2},
		{"far_away", UINT64_MAX - BLOCK + 1, VIRTIO_MEM_REQ_UNPLUG, 1},
		{"very_many", addr, VIRTIO_MEM_REQ_UNPLUG, UINT16_MAX},
		{"unplug_what_is_not", addr + 31 * BLOCK, VIRTIO_MEM_REQ_UNPLUG, 2},
		{"state_of_nothing", addr, VIRTIO_MEM_REQ_STATE, 0},
		{"another_request", addr, 77, 1},
	};

	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		unsigned got = ask_at(bad[i].type, bad[i].at, bad[i].n);

		check(bad[i].name, got == VIRTIO_MEM_RESP_ERROR, "%u", got);
	}
	check("nothing_has_changed", get64(CONFIG(plugged_size)) == 32 * BLOCK && verify("hostile"),
	      "%u blocks", (unsigned)(get64(CONFIG(plugged_size)) / BLOCK));
}

/* The device must ask for a reset, and work after it. */
static void mistake(const char *name, uint32_t len, uint32_t room)
{
	uint64_t end = deadline_ms(VIRTIO_WAIT_MS);

	vq_desc(&q, 0, (uintptr_t)&request, len, VRING_DESC_F_NEXT, 1);
	vq_desc(&q, 1, (uintptr_t)&response, room, VRING_DESC_F_WRITE, 0);
	vq_push(&q, 0);
	vq_kick(&q);
	while (!(vget(dev, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET) && rdtsc() < end)
		;
	check(name, vget(dev, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET, "status 0x%x",
	      vget(dev, VIRTIO_MMIO_STATUS));
	if (!start() || ask(VIRTIO_MEM_REQ_STATE, 0, 32) != VIRTIO_MEM_RESP_ACK)
		check(name, false, "it does not work after a reset");
}

static void checks(void)
{
	correct();
	hostile();
	mistake("a_short_request", 23, sizeof(response));
	mistake("no_room", sizeof(request), 9);
	check("unplugs_all",
	      ask(VIRTIO_MEM_REQ_UNPLUG_ALL, 0, 0) == VIRTIO_MEM_RESP_ACK &&
		      get64(CONFIG(plugged_size)) == 0,
	      "%u", response.type);
	memset(stamp_of, 0, sizeof(stamp_of));
	print("checked\n");
}

/* ---- l ---- */

static bool has_key(void)
{
	return inb(BOARD_COM1 + UART_LSR) & UART_LSR_DR;
}

static void loop(void)
{
	uint64_t random = rdtsc() | 1;
	unsigned rounds = 0;

	print("looping\n");
	while (!has_key()) {
		unsigned at = (unsigned)(xorshift(&random) % NBLOCKS);
		unsigned room = requested() - plugged(), n = run_at(at, 9);

		if (!stamp_of[at] && n > room)
			n = room;
		if (n && !change(!stamp_of[at], at, n))
			break;
		if (!verify("loop"))
			break;
		rounds++;
	}
	print("ok loop %u\n", rounds);
}

static void intrude(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < NBLOCKS; i++) {
		if (stamp_of[i])
			continue;
		for (unsigned k = 0; k < BLOCK / 8; k += 4096 / 8)
			block_at(i)[k] = 1;
		n++;
	}
	print("wrote %u\n", n);
}

static void answer(uint8_t key)
{
	if (key == '?')
		print("requested %u plugged %u\n", requested(), plugged());
	else if (key == 'p' || key == 'u')
		move(key == 'p');
	else if (key == 'v' && verify("memory"))
		print("ok memory\n");
	else if (key == 'c')
		checks();
	else if (key == 'l')
		loop();
	else if (key == 'w')
		intrude();
}

int main(void)
{
	uint8_t key = 0;

	dev = vdev_find(VIRTIO_ID_MEM);
	if (!dev)
		return 3;
	check("starts", start(), "status 0x%x", vget(dev, VIRTIO_MMIO_STATUS));
	addr = get64(CONFIG(addr));
	check("is_as_it_should_be",
	      get64(CONFIG(block_size)) == BLOCK && get64(CONFIG(region_size)) == NBLOCKS * BLOCK &&
		      addr % (128u << 20) == 0,
	      "%u blocks of 0x%x", (unsigned)(get64(CONFIG(region_size)) / BLOCK),
	      vget(dev, CONFIG(block_size)));
	print("here\n");
	while (key != 'q') {
		while (!has_key())
			__asm__ volatile("pause");
		key = inb(BOARD_COM1);
		answer(key);
	}
	return finish();
}
