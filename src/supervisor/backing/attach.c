/* SPDX-License-Identifier: BSD-2-Clause */
/* What is made on the host for a card. See attach.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "attach.h"

#define REMOVE_MS 6000

void attach_name(char ifname[IFNAMSIZ], const char *prefix)
{
	size_t len = strlen(prefix);

	memcpy(ifname, prefix, len);
	random_hex(ifname + len, ATTACH_NAME_DIGITS);
	ifname[len + ATTACH_NAME_DIGITS] = 0;
}

bool attach_is_name(const char *ifname, const char *prefix)
{
	size_t len = strlen(prefix);

	return !strncmp(ifname, prefix, len) &&
	       strspn(ifname + len, "0123456789abcdef") == ATTACH_NAME_DIGITS &&
	       !ifname[len + ATTACH_NAME_DIGITS];
}

static void no_ipv6(const char *ifname)
{
	char path[64 + IFNAMSIZ];
	int fd;

	snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/disable_ipv6", ifname);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return; /* the kernel has none */
	if (fd < 0 || write(fd, "1", 1) < 0)
		log_warn("--net: %s: IPv6 stays on: %s", ifname, strerror(errno));
	fd_close(&fd);
}

int attach_up(const char *ifname, short flags)
{
	struct ifreq r = {0};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), rc = 0;

	if (fd < 0)
		return -errno;
	no_ipv6(ifname);
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", ifname);
	if (ioctl(fd, SIOCGIFFLAGS, &r))
		rc = -errno;
	r.ifr_flags = (short)(r.ifr_flags | IFF_UP | flags);
	if (!rc && ioctl(fd, SIOCSIFFLAGS, &r))
		rc = -errno;
	close(fd);
	return rc;
}

int attach_queue(int fd, const char *ifname, unsigned queues, unsigned more)
{
	unsigned many = queues > 1 ? IFF_MULTI_QUEUE : 0;
	struct ifreq r = {0};

	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", ifname);
	r.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | many | more);
	return ioctl(fd, TUNSETIFF, &r) ? -errno : 0;
}

int attach_open(struct attach *a, const struct net_config *conf, const uint8_t mac[6],
		const char *vm_name, int *queue, unsigned *nqueues, enum attach_when when,
		struct err *e)
{
	*a = (struct attach){.conf = conf,
			     .lock = -1,
			     .said = -1,
			     .keeper = {.fd = -1},
			     .queue = queue,
			     .nqueues = nqueues,
			     .vm_name = vm_name};
	memcpy(a->mac, mac, sizeof(a->mac));
	return conf->kind == NET_ON_OVS ? ovs_open(a, when, e)
					: macvtap_open(a, when == ATTACH_CHECK, e);
}

int attach_ready(struct attach *a, struct err *e)
{
	return a->ifname[0] && a->conf->kind == NET_ON_OVS ? ovs_ready(a, e) : 1;
}

bool attach_quiet(struct attach *a)
{
	if (!a->ifname[0])
		return true;
	a->let = true;
	spawn_kill(&a->spawned);
	return keeper_let(&a->keeper);
}

int attach_address(struct attach *a, const uint8_t mac[6], struct err *e)
{
	if (!a->ifname[0] || !memcmp(a->mac, mac, sizeof(a->mac)))
		return 0;
	memcpy(a->mac, mac, sizeof(a->mac));
	return a->conf->kind == NET_ON_OVS ? ovs_address(a, e) : macvtap_address(a, e);
}

void attach_close(struct attach *a)
{
	int rc;

	if (!a->ifname[0])
		return;
	spawn_kill(&a->spawned);
	fd_close(&a->said);
	rc = keeper_end(&a->keeper, REMOVE_MS);
	if (rc == -EIO && !a->let) /* once more, ourselves */
		rc = a->conf->kind == NET_ON_OVS ? ovs_remove(a) : macvtap_remove(a);
	if (rc)
		log_warn("--net: %s on %s is not removed", a->ifname, a->conf->name);
	fd_close(&a->lock);
	a->ifname[0] = 0;
}
