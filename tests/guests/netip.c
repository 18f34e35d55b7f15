/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A card on a network that gives addresses and routes. Asks for an address by DHCP, prints
 * `has A.B.C.D` with what it gets, and pings another host by way of the router that it was told
 * of: `reaches it` when an answer has come, `lost it` when none has for a while. Answers ARP and
 * pings itself.
 *
 * Command line: `to=N`: the other host's address as a number. Ends after 100 s.
 */
#include "vnet.h"

#define LIFE_MS 100000
#define TURN_MS 100
#define LOST_MS 1500
#define WANTED                                                           \
	(VFEATURE(VIRTIO_NET_F_MRG_RXBUF) | VFEATURE(VIRTIO_NET_F_MAC) | \
	 VFEATURE(VIRTIO_F_VERSION_1))
/* Where things are in a frame. */
#define IP 14u
#define L4 34u
#define BOOTP 42u
#define OPTIONS (BOOTP + 240u)
#define ARP_OP 20u
#define COOKIE 0x63825363u
#define DISCOVER 1u
#define OFFER 2u
#define REQUEST 3u
#define ACK 5u

static uint8_t *const f = net.tx_buf + VNET_HDR;
static uint64_t heard;
static uint8_t router_mac[6];
static uint32_t mine, router, server, offered, to;
static bool have_router, reaches;

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v & 0xffff);
}

static void begin(const uint8_t *dst, unsigned type)
{
	memset(net.tx_buf, 0, sizeof(net.tx_buf));
	memcpy(f, dst, 6);
	memcpy(f + 6, net.mac, 6);
	put16(f + 12, type);
}

static bool send_frame(uint32_t len)
{
	return vnet_send(len < 60 ? 60 : len, VIRTIO_WAIT_MS);
}

static void sum(uint8_t *at, const uint8_t *p, unsigned len)
{
	uint32_t s = 0;

	put16(at, 0);
	for (unsigned i = 0; i < len; i += 2)
		s += (uint32_t)p[i] << 8 | p[i + 1];
	s = (s & 0xffff) + (s >> 16);
	put16(at, ~(s + (s >> 16)) & 0xffff);
}

static bool send_ip(uint8_t protocol, uint32_t src, uint32_t dst, unsigned len)
{
	f[IP] = 0x45;
	put16(f + IP + 2, 20 + len);
	f[IP + 8] = 64;
	f[IP + 9] = protocol;
	put32(f + IP + 12, src);
	put32(f + IP + 16, dst);
	sum(f + IP + 10, f + IP, 20);
	return send_frame(L4 + len);
}

static uint8_t *option(uint8_t *o, uint8_t code, uint32_t v)
{
	o[0] = code;
	o[1] = 4;
	put32(o + 2, v);
	return o + 6;
}

static bool ask_address(void)
{
	static const uint8_t all[6] = {255, 255, 255, 255, 255, 255};
	uint8_t *o = f + OPTIONS;

	begin(all, 0x0800);
	put16(f + L4, 68);
	put16(f + L4 + 2, 67);
	put16(f + L4 + 4, 8 + 300);
	f[BOOTP] = 1;
	f[BOOTP + 1] = 1;
	f[BOOTP + 2] = 6;
	put32(f + BOOTP + 4, 0x12345678);
	memcpy(f + BOOTP + 28, net.mac, 6);
	put32(f + BOOTP + 236, COOKIE);
	*o++ = 53;
	*o++ = 1;
	*o++ = offered ? REQUEST : DISCOVER;
	if (offered) {
		o = option(o, 50, offered);
		o = option(o, 54, server);
	}
	*o = 255;
	return send_ip(17, 0, ~0u, 8 + 300);
}

static void take_dhcp(const uint8_t *p, uint32_t len)
{
	uint8_t kind = 0;

	if (len < OPTIONS || get32(p + BOOTP + 236) != COOKIE || memcmp(p + BOOTP + 28, net.mac, 6))
		return;
	for (uint32_t i = OPTIONS; i + 2 < len && p[i] != 255; i += p[i] ? 2u + p[i + 1] : 1) {
		if (p[i] == 53)
			kind = p[i + 2];
		else if (p[i] == 54 && i + 6 <= len)
			server = get32(p + i + 2);
		else if (p[i] == 3 && i + 6 <= len)
			router = get32(p + i + 2);
	}
	if (kind == OFFER)
		offered = get32(p + BOOTP + 16);
	if (kind != ACK || mine)
		return;
	mine = get32(p + BOOTP + 16);
	print("has %u.%u.%u.%u\n", mine >> 24, mine >> 16 & 255, mine >> 8 & 255, mine & 255);
}

static bool send_arp(const uint8_t *dst, uint8_t op, const uint8_t *tha, uint32_t tpa)
{
	begin(dst, 0x0806);
	put16(f + IP, 1);
	put16(f + IP + 2, 0x0800);
	f[IP + 4] = 6;
	f[IP + 5] = 4;
	f[ARP_OP + 1] = op;
	memcpy(f + 22, net.mac, 6);
	put32(f + 28, mine);
	if (tha)
		memcpy(f + 32, tha, 6);
	put32(f + 38, tpa);
	return send_frame(60);
}

static bool take_arp(const uint8_t *p)
{
	if (p[ARP_OP + 1] == 1 && mine && get32(p + 38) == mine)
		return send_arp(p + 22, 2, p + 22, get32(p + 28));
	if (p[ARP_OP + 1] == 2 && get32(p + 28) == router) {
		memcpy(router_mac, p + 22, 6);
		have_router = true;
	}
	return true;
}

static bool take_ping(const uint8_t *p, uint32_t len)
{
	uint32_t from = get32(p + IP + 12);

	if (p[L4] == 0 && from == to) {
		if (!reaches)
			print("reaches it\n");
		reaches = true;
		heard = deadline_ms(LOST_MS);
	}
	if (p[L4] != 8 || get32(p + IP + 16) != mine || len > 500)
		return true;
	begin(p + 6, 0x0800);
	memcpy(f + L4, p + L4, len - L4);
	f[L4] = 0;
	sum(f + L4 + 2, f + L4, (len - L4 + 1) & ~1u);
	return send_ip(1, mine, from, len - L4);
}

static bool take(const uint8_t *p, uint32_t len)
{
	if (p[12] == 8 && p[13] == 6)
		return take_arp(p);
	if (p[12] != 8 || p[13] || p[IP] != 0x45)
		return true;
	if (p[IP + 9] == 17 && p[L4 + 2] == 0 && p[L4 + 3] == 68)
		take_dhcp(p, len);
	return p[IP + 9] == 1 ? take_ping(p, IP + ((uint32_t)p[IP + 2] << 8 | p[IP + 3])) : true;
}

static bool receive(void)
{
	struct vnet_frame r;
	bool good = true;

	while (good && vnet_receive(&r, TURN_MS)) {
		if (r.len >= 42)
			good = take(r.data, r.len);
		vnet_give_back(&r);
	}
	return good && !net.wrong;
}

static bool turn(void)
{
	static const uint8_t all[6] = {255, 255, 255, 255, 255, 255};

	if (!mine)
		return ask_address();
	if (!have_router)
		return send_arp(all, 1, NULL, router);
	begin(router_mac, 0x0800);
	f[L4] = 8;
	put32(f + L4 + 4, 1);
	sum(f + L4 + 2, f + L4, 16);
	return send_ip(1, mine, to, 16);
}

int main(void)
{
	uint64_t end = deadline_ms(LIFE_MS);
	bool good;

	to = (uint32_t)cmdline_number("to=", 0);
	good = vnet_start(WANTED);
	check("starts", good, "no card, or it refuses features or queues");
	while (good && rdtsc() < end) {
		good = turn() && receive();
		if (reaches && rdtsc() > heard) {
			print("lost it\n");
			reaches = false;
		}
	}
	check("is_served", good, "a frame is not taken");
	return finish();
}
