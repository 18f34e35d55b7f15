/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A card as a macvtap: an interface with the card's address on an interface of the host, and a
 * character device that gives its frames as a TAP does. See attach.h.
 *
 * Order: the lock, the keeper, the interface, the device. The lock is an abstract socket with the
 * interface's name. It belongs to the network namespace as the interface does, and ends with the
 * supervisor: an interface of ours that nobody has locked is one of a VM that is gone.
 *
 * The device is /dev/tapN where devtmpfs or udev has made one. Where not (containers), a child makes
 * it in a tmpfs of a mount namespace of its own, and hands over what it has opened.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if_arp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>

#include "attach.h"

#define MACVTAP_PREFIX "insm"
#define MACVTAP_LOCK "insula-macvtap/"

/* ---- rtnetlink ---- */

struct link_request {
	struct nlmsghdr head;
	struct ifinfomsg info;
	char attr[256];
};

static struct rtattr *link_add(struct link_request *r, unsigned short type, const void *data,
			       size_t len)
{
	struct rtattr *a = (struct rtattr *)((char *)r + NLMSG_ALIGN(r->head.nlmsg_len));

	a->rta_type = type;
	a->rta_len = (unsigned short)RTA_LENGTH(len);
	if (len)
		memcpy(RTA_DATA(a), data, len);
	r->head.nlmsg_len = NLMSG_ALIGN(r->head.nlmsg_len) + RTA_ALIGN(a->rta_len);
	return a;
}

static void link_end(const struct link_request *r, struct rtattr *a)
{
	a->rta_len = (unsigned short)((const char *)r + r->head.nlmsg_len - (const char *)a);
}

static int link_ask(struct link_request *r)
{
	struct {
		struct nlmsghdr head;
		struct nlmsgerr error;
		char more[1024];
	} answer;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), rc = -EPROTO;
	ssize_t n;

	if (fd < 0)
		return -errno;
	r->head.nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
	n = send(fd, r, r->head.nlmsg_len, 0);
	if (n >= 0)
		n = recv(fd, &answer, sizeof(answer), 0);
	if (n < 0)
		rc = -errno;
	else if ((size_t)n >= offsetof(__typeof__(answer), more) &&
		 answer.head.nlmsg_type == NLMSG_ERROR)
		rc = answer.error.error;
	close(fd);
	return rc;
}

static struct link_request link_begin(unsigned short type, unsigned short flags)
{
	return (struct link_request){.head = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg)),
					      .nlmsg_type = type,
					      .nlmsg_flags = flags},
				     .info = {.ifi_family = AF_UNSPEC}};
}

static int link_make(const struct attach *a, unsigned parent)
{
	static const uint32_t modes[] = {[MACVTAP_BRIDGE] = MACVLAN_MODE_BRIDGE,
					 [MACVTAP_PRIVATE] = MACVLAN_MODE_PRIVATE,
					 [MACVTAP_VEPA] = MACVLAN_MODE_VEPA,
					 [MACVTAP_PASSTHRU] = MACVLAN_MODE_PASSTHRU};
	struct link_request r = link_begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
	struct rtattr *outer, *inner;

	link_add(&r, IFLA_IFNAME, a->ifname, strlen(a->ifname) + 1);
	link_add(&r, IFLA_LINK, &parent, sizeof(parent));
	link_add(&r, IFLA_ADDRESS, a->mac, sizeof(a->mac));
	if (a->conf->mtu)
		link_add(&r, IFLA_MTU, &a->conf->mtu, sizeof(a->conf->mtu));
	outer = link_add(&r, IFLA_LINKINFO, NULL, 0);
	link_add(&r, IFLA_INFO_KIND, "macvtap", sizeof("macvtap"));
	inner = link_add(&r, IFLA_INFO_DATA, NULL, 0);
	link_add(&r, IFLA_MACVLAN_MODE, &modes[a->conf->mode], sizeof(modes[0]));
	link_end(&r, inner);
	link_end(&r, outer);
	return link_ask(&r);
}

static int link_remove(const char *ifname)
{
	struct link_request r = link_begin(RTM_DELLINK, 0);
	int rc;

	link_add(&r, IFLA_IFNAME, ifname, strlen(ifname) + 1);
	rc = link_ask(&r);
	return rc == -ENODEV ? 0 : rc; /* it went with its parent, say */
}

int macvtap_remove(const void *attach)
{
	return link_remove(((const struct attach *)attach)->ifname);
}

/* ---- who owns it ---- */

static int lock_name(const char *ifname)
{
	struct sockaddr_un u = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), rc;
	int n = snprintf(u.sun_path + 1, sizeof(u.sun_path) - 1, MACVTAP_LOCK "%s", ifname);

	if (fd < 0)
		return -errno;
	if (!bind(fd, (struct sockaddr *)&u,
		  (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)))
		return fd;
	rc = -errno;
	close(fd);
	return rc;
}

/* Those of VMs that are gone. */
static void remove_stale(void)
{
	struct if_nameindex *all = if_nameindex();

	for (struct if_nameindex *i = all; i && i->if_index; i++) {
		int lock = attach_is_name(i->if_name, MACVTAP_PREFIX) ? lock_name(i->if_name) : -1;

		if (lock < 0)
			continue;
		if (!link_remove(i->if_name))
			log_info("--net: macvtap: %s of a VM that is gone is removed", i->if_name);
		close(lock);
	}
	if (all)
		if_freenameindex(all);
}

/* ---- the device ---- */

static int open_queue_at(const struct attach *a, const char *path)
{
	int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	struct ifreq r = {0};
	int rc;

	if (fd < 0)
		return -errno;
	rc = attach_queue(fd, a->ifname, a->conf->queues, 0);
	if (!rc && ioctl(fd, TUNGETIFF, &r))
		rc = -errno;
	/* A node that was left in a container's /dev is somebody else's. */
	if (!rc && strcmp(r.ifr_name, a->ifname))
		rc = -ENOENT;
	if (!rc)
		return fd;
	close(fd);
	return rc;
}

static int send_queue(int sock, int fd)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {.head = {.cmsg_len = CMSG_LEN(sizeof(int)),
			      .cmsg_level = SOL_SOCKET,
			      .cmsg_type = SCM_RIGHTS}};
	char byte = 0;
	struct iovec iov = {&byte, 1};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = &control,
			   .msg_controllen = sizeof(control)};

	memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
	return sendmsg(sock, &m, MSG_NOSIGNAL) == 1 ? 0 : -errno;
}

static int receive_queue(int sock)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	char byte;
	struct iovec iov = {&byte, 1};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = &control,
			   .msg_controllen = sizeof(control)};
	int fd = -1;

	if (recvmsg(sock, &m, MSG_CMSG_CLOEXEC) != 1 || !CMSG_FIRSTHDR(&m) ||
	    control.head.cmsg_type != SCM_RIGHTS)
		return -EIO;
	memcpy(&fd, CMSG_DATA(&control.head), sizeof(fd));
	return fd;
}

/* In the child; /sys is a directory that there is. Its own /sys shows the interfaces of this
 * network namespace, whichever the host's shows. */
static int make_node(const struct attach *a, const char *path)
{
	unsigned hi = 0, lo = 0;
	char name[128], text[32] = "";
	int fd;

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, NULL))
		return -errno;
	snprintf(name, sizeof(name), "/sys/class/net/%s/macvtap/tap%u/dev", a->ifname, a->ifindex);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		return -errno;
	close(fd);
	if (sscanf(text, "%u:%u", &hi, &lo) != 2)
		return -EPROTO;
	if (mount("tmpfs", "/sys", "tmpfs", MS_NOSUID | MS_NOEXEC, "size=4k,mode=700") ||
	    mknod(path, S_IFCHR | 0600, makedev(hi, lo)))
		return -errno;
	return 0;
}

static int queues_from_child(const struct attach *a, int sock)
{
	static const char path[] = "/sys/tap";
	int rc = make_node(a, path);

	for (unsigned i = 0; i < a->conf->queues && !rc; i++) {
		int fd = open_queue_at(a, path);

		rc = fd < 0 ? fd : send_queue(sock, fd);
	}
	return rc;
}

static int open_queues_in_child(struct attach *a)
{
	int pair[2], status = 0, rc = 0;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -errno;
	pid = fork();
	if (pid == 0)
		_exit(-queues_from_child(a, pair[1]));
	close(pair[1]);
	if (pid < 0)
		rc = -errno;
	while (!rc && *a->nqueues < a->conf->queues) {
		int fd = receive_queue(pair[0]);

		if (fd < 0)
			rc = fd;
		else
			a->queue[(*a->nqueues)++] = fd;
	}
	close(pair[0]);
	if (pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status))
		rc = -WEXITSTATUS(status);
	return rc;
}

static int open_queues(struct attach *a)
{
	char path[32];
	int fd = 0;

	snprintf(path, sizeof(path), "/dev/tap%u", a->ifindex);
	while (*a->nqueues < a->conf->queues && fd >= 0) {
		fd = open_queue_at(a, path);
		if (fd >= 0)
			a->queue[(*a->nqueues)++] = fd;
	}
	return !*a->nqueues && fd == -ENOENT ? open_queues_in_child(a) : fd < 0 ? fd : 0;
}

/* ---- the whole ---- */

static int parent_of(const struct attach *a, unsigned *index, struct err *e)
{
	const char *name = a->conf->name;
	struct ifreq r = {0};
	int fd, rc;

	*index = if_nametoindex(name);
	if (!*index)
		return err_set(e, -ENODEV,
			       "--net: macvtap %s: no such interface; expected one that is up",
			       name);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
	rc = fd < 0 || ioctl(fd, SIOCGIFFLAGS, &r) ? -errno : 0;
	fd_close(&fd);
	if (rc)
		return err_sys(e, rc, "--net: macvtap %s", name);
	if (r.ifr_flags & IFF_LOOPBACK)
		return err_set(e, -EINVAL,
			       "--net: macvtap %s: the loopback; expected an interface of Ethernet",
			       name);
	if (!(r.ifr_flags & IFF_UP))
		return err_set(e, -ENETDOWN,
			       "--net: macvtap %s: it is down; bring it up with: ip link set %s up",
			       name, name);
	return 0;
}

static int make_error(const struct attach *a, int code, struct err *e)
{
	const char *name = a->conf->name;

	switch (code) {
	case -EPERM:
		return err_set(e, code, "--net: macvtap %s: no permission; expected root", name);
	case -EOPNOTSUPP:
		return err_set(e, code,
			       "--net: macvtap %s: this kernel has no macvtap (modprobe macvtap)",
			       name);
	case -EBUSY:
		return err_set(e, code,
			       "--net: macvtap %s: in use by a bridge or another switch; expected "
			       "an interface of its own",
			       name);
	case -EINVAL:
		return err_set(e, code,
			       "--net: macvtap %s: the kernel refuses it; expected an interface of "
			       "Ethernet%s%s",
			       name, a->conf->mtu ? ", and an mtu that it can carry" : "",
			       a->conf->mode == MACVTAP_PASSTHRU ? ", with nothing else on it"
								 : "");
	default:
		return err_sys(e, code, "--net: macvtap %s", name);
	}
}

int macvtap_address(const struct attach *a, struct err *e)
{
	struct ifreq r = {.ifr_hwaddr = {.sa_family = ARPHRD_ETHER}};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), rc = 0;

	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", a->ifname);
	memcpy(r.ifr_hwaddr.sa_data, a->mac, sizeof(a->mac));
	if (fd < 0 || ioctl(fd, SIOCSIFHWADDR, &r))
		rc = err_sys(e, -errno, "--net: macvtap %s: its address", a->conf->name);
	fd_close(&fd);
	return rc;
}

static int macvtap_make(struct attach *a, unsigned parent, struct err *e)
{
	int rc = link_make(a, parent);

	if (rc)
		return make_error(a, rc, e);
	a->ifindex = if_nametoindex(a->ifname);
	/* One that has all of its parent was made with the parent's address. */
	rc = a->conf->mode == MACVTAP_PASSTHRU ? macvtap_address(a, e) : 0;
	if (rc)
		return rc;
	rc = open_queues(a);
	if (rc)
		return err_sys(e, rc, "--net: macvtap %s: the device of %s", a->conf->name,
			       a->ifname);
	/* The guest says to nobody on the host which multicast addresses it listens to. */
	rc = attach_up(a->ifname, IFF_ALLMULTI);
	return rc ? err_sys(e, rc, "--net: macvtap %s: %s", a->conf->name, a->ifname) : 0;
}

int macvtap_open(struct attach *a, bool check_only, struct err *e)
{
	unsigned parent = 0;
	char what[48];
	int rc = parent_of(a, &parent, e);

	if (rc || check_only)
		return rc;
	remove_stale();
	attach_name(a->ifname, MACVTAP_PREFIX);
	a->lock = lock_name(a->ifname);
	if (a->lock < 0)
		return err_sys(e, a->lock, "--net: macvtap %s: its lock", a->conf->name);
	snprintf(what, sizeof(what), "--net: macvtap %s", a->conf->name);
	rc = keeper_start(&a->keeper, macvtap_remove, a, what, e);
	return rc ? rc : macvtap_make(a, parent, e);
}
