/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A card on a network with others of its kind. Says hello to all, again and again, and answers each
 * hello to the one that it came from. Prints `up` when the card works, `talks to N` when N has
 * answered, `lost N` when it has not for a while, and `unasked` when a frame comes that was sent to
 * another address.
 *
 * Command line: `me=N`, 1 to 9. Ends after 100 s.
 */
#include "vnet.h"

#define LIFE_MS 100000
#define TURN_MS 5
#define LOST_MS 1500
#define PEERS 10u
#define TYPE_HI 0x88 /* an EtherType for experiments */
#define TYPE_LO 0xb5
#define HELLO 1
#define ANSWER 2
#define WANTED                                                           \
	(VFEATURE(VIRTIO_NET_F_MRG_RXBUF) | VFEATURE(VIRTIO_NET_F_MAC) | \
	 VFEATURE(VIRTIO_NET_F_STATUS) | VFEATURE(VIRTIO_F_VERSION_1))

static uint64_t heard[PEERS];
static bool talks[PEERS];

static bool send_frame(const uint8_t to[6], uint8_t what, uint8_t me)
{
	uint8_t *f = vnet_room();
	struct vring_used_elem u;

	memcpy(f, to, 6);
	memcpy(f + 6, net.mac, 6);
	f[12] = TYPE_HI;
	f[13] = TYPE_LO;
	f[14] = what;
	f[15] = me;
	/* Restored, its clock has gone on: the time of a wait in the middle of which it was saved may
	 * be over at once. */
	return vnet_send(60, VIRTIO_WAIT_MS) || vq_pop(&net.tx, &u, VIRTIO_WAIT_MS);
}

static bool take(const uint8_t *f, uint8_t me)
{
	uint8_t who = f[15];

	if (f[12] != TYPE_HI || f[13] != TYPE_LO || who >= PEERS || who == me)
		return true;
	if (f[14] == HELLO)
		return send_frame(f + 6, ANSWER, me);
	if (memcmp(f, net.mac, 6)) {
		print("unasked\n");
		return true;
	}
	if (!talks[who])
		print("talks to %u\n", who);
	talks[who] = true;
	heard[who] = deadline_ms(LOST_MS);
	return true;
}

static bool receive(uint8_t me)
{
	struct vnet_frame r;
	bool good = true;

	while (good && vnet_receive(&r, TURN_MS)) {
		if (r.len >= 16)
			good = take(r.data, me);
		vnet_give_back(&r);
	}
	return good && !net.wrong;
}

int main(void)
{
	static const uint8_t all[6] = {255, 255, 255, 255, 255, 255};
	uint8_t me = (uint8_t)cmdline_number("me=", 1);
	uint64_t end = deadline_ms(LIFE_MS);
	bool good;

	good = vnet_start(WANTED);
	check("starts", good, "no card, or it refuses features or queues");
	if (good)
		print("up\n");
	while (good && rdtsc() < end) {
		good = send_frame(all, HELLO, me) && receive(me);
		for (unsigned i = 0; i < PEERS; i++) {
			if (talks[i] && rdtsc() > heard[i]) {
				print("lost %u\n", i);
				talks[i] = false;
			}
		}
	}
	check("is_served", good, "a frame is not taken");
	return finish();
}
