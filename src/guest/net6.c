/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-init: what IPv6 has made of a card's MAC address, when the card gets another one and stays
 * up. The kernel makes no new addresses then, and another machine has the old ones.
 */
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <netinet/in.h>

#include "guest.h"

#define ADDRESSES "/proc/net/if_inet6"
#define LINK_LOCAL 0x20 /* the scope, in that file */

struct in6_request { /* linux/ipv6.h: struct in6_ifreq, which musl does not have */
	struct in6_addr address;
	uint32_t bits;
	int index;
};

/* RFC 4291, appendix A: the second half of an address. */
static bool interface_id(const char *mac, uint8_t id[8])
{
	uint8_t b[6];

	if (!net_mac(mac, b))
		return false;
	memcpy(id, b, 3);
	id[0] ^= 2;
	id[3] = 0xff;
	id[4] = 0xfe;
	memcpy(id + 5, b + 3, 3);
	return true;
}

/* A line of ADDRESSES; false: it is none, or of another card. */
static bool read_address6(const char *line, const char *card, struct in6_request *r,
			  unsigned *scope)
{
	char hex[33], name[IFNAMSIZ];
	unsigned index, bits;

	if (sscanf(line, "%32s %x %x %x %*x %15s", hex, &index, &bits, scope, name) != 5 ||
	    strcmp(name, card) != 0 || strlen(hex) != 32)
		return false;
	*r = (struct in6_request){.bits = bits, .index = (int)index};
	for (unsigned i = 0; i < 16; i++) {
		if (sscanf(hex + 2 * i, "%2hhx", &r->address.s6_addr[i]) != 1)
			return false;
	}
	return true;
}

/* The first of them that is made of `old`: gone. One of the link is made again, and with it the
 * kernel asks routers for the others. */
static bool renew_one(int fd, const char *card, const uint8_t old[8], const uint8_t new[8])
{
	FILE *f = fopen(ADDRESSES, "re");
	struct in6_request r;
	bool found = false;
	unsigned scope = 0;
	char line[128];

	while (f && !found && fgets(line, sizeof line, f))
		found = read_address6(line, card, &r, &scope) &&
			memcmp(r.address.s6_addr + 8, old, 8) == 0;
	if (f)
		fclose(f);
	if (!found || ioctl(fd, SIOCDIFADDR, &r) < 0)
		return false;
	memcpy(r.address.s6_addr + 8, new, 8);
	return scope != LINK_LOCAL || ioctl(fd, SIOCSIFADDR, &r) == 0;
}

void net6_renew(const char *card, const char *old_mac, const char *new_mac)
{
	int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	uint8_t old[8], new[8];

	if (fd < 0)
		return; /* a kernel without it */
	if (interface_id(old_mac, old) && interface_id(new_mac, new) && memcmp(old, new, 8) != 0) {
		for (unsigned i = 0; i < 64 && renew_one(fd, card, old, new); i++)
			;
	}
	close(fd);
}
