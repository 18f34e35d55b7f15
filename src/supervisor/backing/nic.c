/* SPDX-License-Identifier: BSD-2-Clause */
/* Network cards. See nic.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <image/hash.h>
#include <insula/base.h>
#include <insula/log.h>

#include "nic.h"
#include "nic_policy.h"
#include "vhost_node.h"

#define HEADER_LEN 12 /* of virtio 1.2, 5.1.6: struct virtio_net_hdr with num_buffers */
#define STREAM_BUFFER (1 << 20)
#define BACKOFF_FIRST_MS 10u
#define BACKOFF_LAST_MS 5000u
#define STEADY_NS 5000000000ull /* a stream that lasts so long ends a row of failures */
#define MS_NS 1000000ull
#ifndef TUN_F_USO4 /* Linux 6.2 */
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

/* ---- the address ---- */

static void one_station(uint8_t mac[6])
{
	mac[0] = (uint8_t)((mac[0] & 0xfc) | 2); /* locally administered */
}

/* Cards share a bridge, or a parent: a port's own name tells them apart, or else the process. */
static void hash_shared(struct hash *h, const struct net_config *conf)
{
	struct stat st = {0};

	hash_str(h, conf->iface_id);
	if (conf->iface_id[0])
		return;
	if (!stat("/proc/self/ns/pid", &st))
		hash_u64(h, st.st_ino);
	hash_u64(h, (uint64_t)getpid());
}

static bool is_made(const struct net_config *conf)
{
	return conf->kind == NET_ON_OVS || conf->kind == NET_ON_MACVTAP;
}

/* Two machines that run at once have different TAPs, and what is behind a stream is a network of
 * its own; so the TAP's name (or the path) and the host tell cards apart. */
void nic_address(const struct net_config *conf, unsigned nth, uint8_t mac[6])
{
	char id[64] = "";
	struct hash h;
	int fd = open("/etc/machine-id", O_RDONLY | O_CLOEXEC);

	if (fd >= 0) {
		if (read(fd, id, sizeof(id) - 1) < 0)
			id[0] = 0;
		close(fd);
	}
	hash_init(&h);
	hash_str(&h, id);
	hash_u64(&h, conf->kind);
	hash_str(&h, conf->name ? conf->name : "");
	hash_u64(&h, nth);
	if (is_made(conf))
		hash_shared(&h, conf);
	memcpy(mac, &h.v, 6);
	one_station(mac);
}

bool nic_is_parents(const struct net_config *conf)
{
	return conf->kind == NET_ON_MACVTAP && conf->mode == MACVTAP_PASSTHRU;
}

/* A card that has all of its parent has the parent's address, too, if it was not given another. */
static bool parent_address(const struct net_config *conf, uint8_t mac[6])
{
	struct ifreq r = {0};
	bool got = false;
	int fd;

	if (!nic_is_parents(conf))
		return false;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", conf->name);
	if (fd >= 0 && !ioctl(fd, SIOCGIFHWADDR, &r)) {
		memcpy(mac, r.ifr_hwaddr.sa_data, 6);
		got = true;
	}
	fd_close(&fd);
	return got;
}

void nic_wanted(const struct net_config *conf, unsigned nth, uint8_t mac[6])
{
	if (conf->has_mac)
		memcpy(mac, conf->mac, 6);
	else if (!parent_address(conf, mac))
		nic_address(conf, nth, mac);
}

void nic_random(uint8_t mac[6])
{
	random_bytes(mac, 6);
	one_station(mac);
}

void nic_mac_text(const uint8_t mac[6], char out[NIC_MAC_TEXT])
{
	snprintf(out, NIC_MAC_TEXT, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3],
		 mac[4], mac[5]);
}

void nic_record(const struct net_config *n, const uint8_t mac[6], char out[NIC_RECORD])
{
	char text[NIC_MAC_TEXT];

	nic_mac_text(mac, text);
	snprintf(out, NIC_RECORD, "%s%s%s%s%s%s%s%s", text, n->dhcp ? ",dhcp" : "",
		 n->ip[0] ? ",ip=" : "", n->ip, n->gw[0] ? ",gw=" : "", n->gw,
		 n->dns[0] && !n->dhcp ? ",dns=" : "", n->dhcp ? "" : n->dns);
}

/* ---- TAP ---- */

/* In /sys the interfaces of the network namespace are seen in which it was mounted, not those of
 * ours (of a pod, say): then TUNSETIFF will say whether it is a TAP, with several queues. */
static int tap_flags(const struct net_config *c, unsigned *flags)
{
	char path[64 + IFNAMSIZ];
	FILE *f;
	int n;

	*flags = 0;
	snprintf(path, sizeof(path), "/sys/class/net/%s", c->name);
	if (access(path, F_OK)) {
		*flags = IFF_TAP | (c->queues > 1 ? IFF_MULTI_QUEUE : 0);
		return 0;
	}
	strcat(path, "/tun_flags");
	f = fopen(path, "re");
	if (!f)
		return -errno;
	n = fscanf(f, "%x", flags);
	fclose(f);
	return n == 1 ? 0 : -EINVAL;
}

static int check_tap(const struct net_config *c, unsigned *flags, struct err *e)
{
	if (!if_nametoindex(c->name))
		return err_set(e, -ENODEV,
			       "--net: tap %s: no such interface; make one with: ip tuntap add %s "
			       "mode tap%s",
			       c->name, c->name, c->queues > 1 ? " multi_queue" : "");
	if (tap_flags(c, flags) || !(*flags & IFF_TAP))
		return err_set(e, -EINVAL, "--net: tap %s: not a TAP interface", c->name);
	if (c->queues > 1 && !(*flags & IFF_MULTI_QUEUE))
		return err_set(e, -EINVAL,
			       "--net: tap %s: it has one queue; expected one made with: ip tuntap "
			       "add %s mode tap multi_queue",
			       c->name, c->name);
	return 0;
}

static int attach_error(const struct net_config *c, int code, struct err *e)
{
	if (code == -EBUSY)
		return err_set(e, code, "--net: tap %s: in use by another program", c->name);
	if (code == -EINVAL)
		return err_set(e, code, "--net: tap %s: expected a TAP with %s", c->name,
			       c->queues > 1 ? "several queues" : "one queue");
	if (code == -EPERM)
		return err_set(
			e, code,
			"--net: tap %s: no permission; expected root, or a TAP made with: ip "
			"tuntap add %s mode tap user NAME",
			c->name, c->name);
	return err_sys(e, code, "--net: tap %s", c->name);
}

static int open_queue(const struct net_config *c, unsigned flags, struct err *e)
{
	struct ifreq r = {0};
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), rc;

	if (fd < 0)
		return err_sys(e, -errno, "--net: /dev/net/tun%s",
			       errno == ENOENT ? " (is the module tun loaded?)" : "");
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", c->name);
	r.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (flags & IFF_MULTI_QUEUE));
	if (!ioctl(fd, TUNSETIFF, &r))
		return fd;
	rc = attach_error(c, -errno, e);
	close(fd);
	return rc;
}

/* A descriptor that the user has opened: is it what it must be? */
static int check_fd(int fd, struct err *e)
{
	struct ifreq r = {0};

	if (fcntl(fd, F_SETFD, FD_CLOEXEC))
		return err_sys(e, -errno, "--net: fd %d", fd);
	if (ioctl(fd, TUNGETIFF, &r))
		return err_set(e, -EINVAL, "--net: fd %d: not a TAP", fd);
	if (!(r.ifr_flags & IFF_TAP) || !(r.ifr_flags & IFF_VNET_HDR) || !(r.ifr_flags & IFF_NO_PI))
		return err_set(e, -EINVAL,
			       "--net: fd %d: flags %#x; expected IFF_TAP, IFF_NO_PI and "
			       "IFF_VNET_HDR",
			       fd, (unsigned)(unsigned short)r.ifr_flags);
	if (fcntl(fd, F_SETFL, O_NONBLOCK))
		return err_sys(e, -errno, "--net: fd %d", fd);
	return 0;
}

/* The best that this kernel has; the helper chooses less when the guest wants less. */
static int probe_offloads(int fd, uint32_t *out)
{
	static const uint32_t best[] = {
		TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN | TUN_F_UFO | TUN_F_USO4 |
			TUN_F_USO6,
		TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN | TUN_F_UFO,
		TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN,
		TUN_F_CSUM,
	};

	*out = 0;
	for (unsigned i = 0; i < ARRAY_LEN(best) && !*out; i++) {
		if (!ioctl(fd, TUNSETOFFLOAD, (unsigned long)best[i]))
			*out = best[i];
	}
	return ioctl(fd, TUNSETOFFLOAD, 0ul) ? -errno : 0;
}

static uint32_t interface_mtu(int tap)
{
	struct ifreq r = {0};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	uint32_t mtu = 0;

	if (!ioctl(tap, TUNGETIFF, &r) && fd >= 0 && !ioctl(fd, SIOCGIFMTU, &r) &&
	    r.ifr_mtu >= 68 && r.ifr_mtu <= 65535)
		mtu = (uint32_t)r.ifr_mtu;
	fd_close(&fd);
	return mtu;
}

static int set_up_tap(struct nic *c, struct err *e)
{
	int len = HEADER_LEN, rc = 0;

	for (unsigned i = 0; i < c->ntaps && !rc; i++) {
		if (ioctl(c->tap[i], TUNSETVNETHDRSZ, &len))
			rc = err_sys(e, -errno, "--net: length of the TAP's header");
		else if ((rc = probe_offloads(c->tap[i], &c->start.tun_offloads)))
			err_sys(e, rc, "--net: offloads of the TAP");
	}
	if (!rc && !c->start.mtu)
		c->start.mtu = interface_mtu(c->tap[0]);
	return rc;
}

static int open_tap(struct nic *c, struct err *e)
{
	unsigned flags = 0;
	int rc = check_tap(c->conf, &flags, e);

	for (; !rc && c->ntaps < c->conf->queues; c->ntaps++) {
		int fd = open_queue(c->conf, flags, e);

		if (fd < 0)
			rc = fd;
		else
			c->tap[c->ntaps] = fd;
		if (rc)
			break;
	}
	return rc ? rc : set_up_tap(c, e);
}

static int open_fds(struct nic *c, struct err *e)
{
	int rc = 0;

	for (unsigned i = 0; i < c->conf->nfds && !rc; i++) {
		rc = check_fd(c->conf->fd[i], e);
		if (!rc)
			c->tap[c->ntaps++] = c->conf->fd[i];
	}
	return rc ? rc : set_up_tap(c, e);
}

static int check_vhost(const struct nic *c, struct err *e)
{
	int fd;

	if (!c->conf->vhost)
		return 0;
	fd = vhost_node_open("net", e);
	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

/* ---- streams ---- */

static int connect_socket(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int size = STREAM_BUFFER;
	/* Non-blocking: a switch whose queue of connections is full must not hold up the VM. */
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	strcpy(a.sun_path, path); /* its length was checked with the setting */
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	if (!connect(fd, (struct sockaddr *)&a, sizeof(a)))
		return fd;
	size = -errno;
	close(fd);
	return size;
}

/* Somebody was there once, or may come: the socket is there, and nobody listens, or more want to
 * connect than it takes. */
static bool only_away(int code)
{
	return code == -ECONNREFUSED || code == -EAGAIN;
}

static int open_socket(struct nic *c, bool check_only, struct err *e)
{
	const char *path = c->conf->name;
	struct stat st;

	if (stat(path, &st))
		return err_sys(e, -errno, "--net: socket %s", path);
	if (!S_ISSOCK(st.st_mode))
		return err_set(e, -EINVAL, "--net: socket %s: not a socket", path);
	if (check_only)
		return 0;
	c->conn = connect_socket(path);
	return c->conn >= 0 || only_away(c->conn) ? 0
						  : err_sys(e, c->conn, "--net: socket %s", path);
}

static int connect_passt(struct nic *c, struct err *e)
{
	int pair[2], size = STREAM_BUFFER, rc;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return err_sys(e, -errno, "socketpair");
	for (unsigned i = 0; i < 2; i++)
		setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	child_kill(&c->passt); /* the one before has lost its connection */
	c->passts++;
	if (!passt_has_uplink())
		log_info("--net: user: the host has no default route: the guest gets 10.0.2.15 and "
			 "is reached by forwarded ports");
	rc = fcntl(pair[0], F_SETFL, O_NONBLOCK)
		     ? err_sys(e, -errno, "socket")
		     : passt_spawn(&c->passt, c->passt_path, c->conf, pair[1], e);
	close(pair[1]);
	if (!rc)
		return pair[0];
	close(pair[0]);
	return rc;
}

static int nic_connect(struct nic *c, struct err *e)
{
	int fd = c->conn;

	if (c->conf->kind == NET_ON_USER)
		return connect_passt(c, e);
	c->conn = -1;
	if (fd < 0)
		fd = connect_socket(c->conf->name);
	return fd < 0 ? err_sys(e, fd, "--net: socket %s", c->conf->name) : fd;
}

/* Twice as long as the last time, less a part of chance. */
static void try_later(struct nic *c)
{
	uint32_t chance;

	c->backoff_ms = !c->backoff_ms                        ? BACKOFF_FIRST_MS
			: c->backoff_ms > BACKOFF_LAST_MS / 2 ? BACKOFF_LAST_MS
							      : 2 * c->backoff_ms;
	random_bytes(&chance, sizeof(chance));
	c->due_ns = clock_ns() + (c->backoff_ms - chance % (c->backoff_ms / 2)) * MS_NS;
	c->away = true;
}

static int connected(struct nic *c, int fd)
{
	c->away = false;
	c->up_ns = clock_ns();
	return fd;
}

bool nic_lost(struct nic *c)
{
	if (c->start.kind != NET_STREAM || c->away)
		return false;
	if (clock_ns() - c->up_ns >= STEADY_NS)
		c->backoff_ms = 0;
	try_later(c);
	/* One that is not about to end, but has closed its socket. */
	child_shoot(&c->passt);
	return true;
}

uint64_t nic_due(const struct nic *c)
{
	/* A passt that has not ended yet has still to say why. */
	return c->away && c->passt.state == CHILD_NONE ? c->due_ns : 0;
}

int nic_retry(struct nic *c, struct err *e)
{
	int fd = nic_connect(c, e);

	if (fd >= 0)
		return connected(c, fd);
	try_later(c);
	return fd;
}

/* A stream without its other end. */
static int dead_stream(struct err *e)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair))
		return err_sys(e, -errno, "socketpair");
	close(pair[1]);
	return pair[0];
}

int nic_stream(struct nic *c, struct err *e)
{
	bool first = !c->up_ns && !c->away;
	int fd;

	if (c->away && clock_ns() < c->due_ns)
		return dead_stream(e);
	fd = nic_connect(c, e);
	if (fd >= 0)
		return connected(c, fd);
	/* A program that cannot be started, or a path that cannot be: the user's to mend. */
	if (first && !only_away(fd))
		return fd;
	try_later(c);
	return dead_stream(e);
}

/* ---- all kinds ---- */

static int make_tap(struct nic *c, const char *vm_name, enum attach_when when, struct err *e)
{
	int rc =
		attach_open(&c->attach, c->conf, c->start.mac, vm_name, c->tap, &c->ntaps, when, e);

	if (!rc && when != ATTACH_CHECK)
		rc = set_up_tap(c, e);
	if (c->attach.whole_frames)
		c->start.tun_offloads = 0;
	return rc;
}

static int open_backing(struct nic *c, const char *vm_name, enum attach_when when, struct err *e)
{
	switch (c->conf->kind) {
	case NET_ON_TAP:
		return open_tap(c, e);
	case NET_ON_FD:
		return open_fds(c, e);
	case NET_ON_SOCKET:
		return open_socket(c, when == ATTACH_CHECK, e);
	case NET_ON_USER:
		return passt_find(c->passt_path, sizeof(c->passt_path), e);
	case NET_ON_OVS:
	case NET_ON_MACVTAP:
		return make_tap(c, vm_name, when, e);
	case NET_ON_NOTHING:
		break;
	}
	return err_set(e, -EINVAL, "--net: no backing");
}

int nic_open(struct nic *c, const struct net_config *conf, unsigned nth, const struct vm_config *vm,
	     enum attach_when when, struct err *e)
{
	bool tap = conf->kind == NET_ON_TAP || conf->kind == NET_ON_FD || is_made(conf);
	unsigned cpus = vm->cpus;
	int rc;

	*c = (struct nic){.conf = conf,
			  .conn = -1,
			  .start = {.limit = {conf->rate, conf->pps},
				    .kind = tap ? NET_TAP : NET_STREAM,
				    .npairs = conf->queues,
				    /* More could not have work at the same time. */
				    .nthreads = (uint16_t)(conf->vhost           ? 1
							   : conf->queues < cpus ? conf->queues
										 : cpus),
				    .flags = conf->kind == NET_ON_USER ? NET_NO_LOOPBACK
					     : conf->vhost             ? NET_VHOST
								       : 0,
				    .mtu = conf->mtu}};
	child_none(&c->passt);
	nft_none(&c->nft);
	nic_wanted(conf, nth, c->start.mac);
	rc = check_vhost(c, e);
	if (!rc)
		rc = open_backing(c, vm->vm_name, when, e);
	if (!rc && when != ATTACH_CHECK)
		rc = nic_policy_open(c, e);
	if (rc)
		nic_close(c);
	return rc;
}

int nic_ready(struct nic *c, struct err *e)
{
	int rc = attach_ready(&c->attach, e);

	if (c->attach.whole_frames)
		c->start.tun_offloads = 0;
	return rc;
}

bool nic_quiet(struct nic *c)
{
	return attach_quiet(&c->attach);
}

void nic_close(struct nic *c)
{
	child_free(&c->passt);
	nft_end(&c->nft);
	attach_close(&c->attach);
	for (unsigned i = 0; i < c->ntaps; i++)
		fd_close(&c->tap[i]);
	c->ntaps = 0;
	fd_close(&c->conn);
}
