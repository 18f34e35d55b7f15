/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One or two queues of a device under full load, each driven by a processor of its own: a measuring
 * payload for tests/bench/queues. Reads of a disk, or frames sent by a network card; what is
 * answered is asked for again at once. A processor that has nothing to do sleeps until the next tick
 * of its timer, so that it leaves the host's processors to the I/O threads.
 *
 * Command line: `queues=N` (1 or 2), `seconds=N`, `bytes=N` of a request,
 * `depth=N` (16, at
 * most 32) requests of each in flight; `spin=1`: a processor does not sleep. Prints `queue I
 * REQUESTS` for each and `us N`, then sleeps until somebody types.
 */
#include <linux/virtio_net.h>

#include "smp.h"
#include "virtio.h"

#define DEPTH 16u
#define MOST_DEPTH 32u
#define MAX_QUEUES 2u
#define MAX_BYTES (1u << 20)
#define SEGMENT (256u << 10) /* size_max of our disks */
#define CHAIN (2u + MAX_BYTES / SEGMENT)
#define NET_HDR 12u

/* The local APIC. */
#define LAPIC(reg) (BOARD_LAPIC + (reg))
#define LAPIC_SVR 0xf0
#define LAPIC_TIMER 0x320
#define LAPIC_TIMER_COUNT 0x380
#define LAPIC_TIMER_DIVIDE 0x3e0
#define TIMER_PERIODIC 0x20000u
#define TIMER_BY_ONE 0xbu
#define TICK_VECTOR 0x20u
#define TICK_NS 300000u /* of a bus clock of 1 GHz, which KVM's is */

void tick(void);

__asm__(".text\n"
	".globl tick\n"
	"tick:\n"
	"	push %rax\n"
	"	movl $0xfee000b0, %eax\n"
	"	movl $0, (%rax)\n"
	"	pop %rax\n"
	"	iretq\n");

static struct {
	uint16_t low, selector;
	uint8_t stack, type;
	uint16_t middle;
	uint32_t high, zero;
} idt[TICK_VECTOR + 1];

struct load {
	struct vq q;
	struct blk_slot slot[MOST_DEPTH];
	uint64_t done;
};

static struct load load[MAX_QUEUES];
static _Alignas(BOARD_PAGE) uint8_t data[MAX_QUEUES][DEPTH * MAX_BYTES];
static uint64_t dev;
static bool net, spin;
static unsigned queues, bytes, depth;
static volatile bool ap_is_up, go, stop;

/* ---- processors ---- */

static void start_ticks(void)
{
	const struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) pointer = {sizeof(idt) - 1, (uintptr_t)idt};

	__asm__ volatile("lidt %0" : : "m"(pointer));
	write32(LAPIC(LAPIC_SVR), 0x1ff);
	write32(LAPIC(LAPIC_TIMER_DIVIDE), TIMER_BY_ONE);
	write32(LAPIC(LAPIC_TIMER), TIMER_PERIODIC | TICK_VECTOR);
	write32(LAPIC(LAPIC_TIMER_COUNT), TICK_NS);
}

static void doze(void)
{
	__asm__ volatile("sti\n hlt\n cli" : : : "memory");
}

/* ---- a queue ---- */

static uint32_t stride(void)
{
	return ((net ? NET_HDR : 0) + bytes + BOARD_PAGE - 1) & ~(BOARD_PAGE - 1);
}

/* Header, data, status; as many descriptors as `bytes` takes. */
static void fill_read(struct load *l, uint16_t first, struct blk_slot *slot, uint8_t *to)
{
	uint16_t at = first;

	blk_fill(&l->q, first, slot, VIRTIO_BLK_T_IN, slot->hdr.sector, NULL, 0);
	l->q.desc[first].next = ++at;
	for (unsigned done = 0; done < bytes; done += SEGMENT, at++) {
		unsigned n = bytes - done < SEGMENT ? bytes - done : SEGMENT;

		vq_desc(&l->q, at, (uintptr_t)to + done, n, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE,
			(uint16_t)(at + 1));
	}
	vq_desc(&l->q, at, (uintptr_t)&slot->status, 1, VRING_DESC_F_WRITE, 0);
}

static void offer_all(unsigned k)
{
	struct load *l = &load[k];

	for (uint16_t i = 0; i < depth; i++) {
		uint16_t head = (uint16_t)(CHAIN * i);
		uint8_t *to = data[k] + (size_t)i * stride();

		if (net) {
			vq_desc(&l->q, head, (uintptr_t)to, NET_HDR + bytes, 0, 0);
			/* A type that no host listens to; the addresses are nobody's. */
			memset(to + NET_HDR, 2, 12);
			to[NET_HDR + 12] = 0x88;
			to[NET_HDR + 13] = 0xb5;
		} else {
			l->slot[i].hdr.sector = (uint64_t)(k * depth + i) * (bytes / SECTOR);
			fill_read(l, head, &l->slot[i], to);
		}
		vq_push(&l->q, head);
	}
	vq_kick(&l->q);
}

/* What was answered is offered again as it is. */
static unsigned turn(struct load *l)
{
	struct vq *q = &l->q;
	uint16_t used = *(volatile uint16_t *)&q->used->idx;
	unsigned n = (uint16_t)(used - q->seen);

	if (n == 0)
		return 0;
	barrier();
	while (q->seen != used)
		q->avail->ring[q->next++ % q->size] =
			(uint16_t)q->used->ring[q->seen++ % q->size].id;
	barrier();
	*(volatile uint16_t *)&q->avail->idx = q->next;
	__asm__ volatile("mfence" : : : "memory");
	if (!(*(volatile uint16_t *)&q->used->flags & VRING_USED_F_NO_NOTIFY))
		vq_kick(q);
	return n;
}

_Noreturn void ap_main(void)
{
	start_ticks();
	ap_is_up = true;
	while (!go)
		doze();
	offer_all(1);
	while (!stop) {
		unsigned n = turn(&load[1]);

		load[1].done += n;
		if (!n && !spin)
			doze();
	}
	for (;;)
		__asm__ volatile("cli\n hlt");
}

static bool bring_up(void)
{
	uint64_t wanted = VFEATURE(VIRTIO_F_VERSION_1) |
			  VFEATURE(net ? VIRTIO_NET_F_MQ : VIRTIO_BLK_F_MQ) |
			  (net ? VFEATURE(VIRTIO_NET_F_CTRL_VQ) : 0);

	if (!vdev_negotiate(dev, vdev_offered(dev) & wanted))
		return false;
	for (unsigned i = 0; i < queues; i++) {
		/* A card's queues: receive, transmit of each pair. */
		if (!vq_start(&load[i].q, dev, net ? 2 * i + 1 : i, 256))
			return false;
	}
	vdev_add_status(dev, VIRTIO_CONFIG_S_DRIVER_OK);
	return vget(dev, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_DRIVER_OK;
}

static uint64_t measure(unsigned seconds)
{
	uint64_t begin = rdtsc(), end = begin + (uint64_t)seconds * 1000 * tsc_khz(), now = begin;

	go = true;
	offer_all(0);
	for (; now < end; now = rdtsc()) {
		unsigned n = turn(&load[0]);

		load[0].done += n;
		if (!n && !spin)
			doze();
	}
	stop = true;
	return (now - begin) * 1000 / tsc_khz();
}

int main(void)
{
	uint64_t handler = (uintptr_t)tick, us;

	queues = cmdline_number("queues=", 1);
	bytes = cmdline_number("bytes=", 65536);
	depth = cmdline_number("depth=", DEPTH);
	spin = cmdline_number("spin=", 0);
	dev = vdev_find(VIRTIO_ID_BLOCK);
	net = !dev;
	if (net)
		dev = vdev_find(VIRTIO_ID_NET);
	if (!check("device",
		   dev && queues >= 1 && queues <= MAX_QUEUES && depth >= 1 &&
			   depth <= MOST_DEPTH && depth * stride() <= sizeof(data[0]) &&
			   bytes <= MAX_BYTES - (net ? NET_HDR : 0) && bring_up(),
		   "there is none, or it does not start"))
		return finish();
	idt[TICK_VECTOR].low = (uint16_t)handler;
	idt[TICK_VECTOR].middle = (uint16_t)(handler >> 16);
	idt[TICK_VECTOR].selector = 8;
	idt[TICK_VECTOR].type = 0x8e;
	start_ticks();
	if (queues > 1 &&
	    !check("processor", smp_start(&ap_is_up), "the second one does not start"))
		return finish();
	us = measure(cmdline_number("seconds=", 2));
	for (unsigned i = 0; i < queues; i++)
		print("queue %u %lu\n", i, load[i].done);
	print("us %lu\n", us);
	while (!(inb(BOARD_COM1 + UART_LSR) & UART_LSR_DR))
		doze();
	return finish();
}
