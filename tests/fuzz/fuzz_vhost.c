/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A vhost-user back end whose words are the input: two connections, one after the other, and the
 * channel of its own requests, under a driver that sets the device up, uses it, writes its
 * configuration and resets it, over rings that are the input too. Whatever is said, nothing waits,
 * no descriptor stays open or is lost, and the driver can always begin again.
 */
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_mmio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <insula/scm.h>

#include <devices/vhost/vhost.h>

#include "../unit/fakedrv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MEM_SIZE (4u << 20)
#define RINGS(i) (0x10000u + (i)*0x3000u)
#define NQUEUES 2u

struct head {
	uint8_t device; /* what it is, and in the highest bit the bus */
	uint8_t nfds;   /* that come with what the back end says */
	uint8_t num_log2, flags;
	uint16_t talk[2], back; /* bytes of each connection, and of the other channel */
	uint16_t avail, used;   /* indices of the rings */
	uint32_t features;      /* that the driver takes */
};

static struct guestmem gm;
static struct fakecore core;
static struct vhost v;
static struct helper h;
static int mem_fd = -1, chan[2];

static void must(bool ok, const char *what)
{
	if (!ok)
		fc_die(what);
}

static void init_once(void)
{
	if (mem_fd >= 0)
		return;
	log_setup("", LOG_LVL_ERROR);
	mem_fd = drv_memory(&gm, MEM_SIZE);
	fc_open(&core);
	fc_vectors(&core, NQUEUES + 1);
}

static const uint8_t *take(const uint8_t **p, size_t *left, size_t n)
{
	const uint8_t *at = *p;

	*p += n;
	*left -= n;
	return at;
}

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Say all of it, with descriptors in front. */
static void says(int fd, const uint8_t *p, size_t n, unsigned nfds)
{
	struct iovec iov = {(void *)(uintptr_t)p, n};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	union scm_buf ctl;
	int fds[32];

	for (unsigned i = 0; i < 32; i++)
		fds[i] = mem_fd;
	scm_attach(&m, &ctl, fds, nfds % 32);
	(void)!sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Hear everything; the channel of the back end's requests is a socket among what comes. */
static int hears(int fd)
{
	int sock = -1;

	for (;;) {
		uint8_t bytes[512];
		struct iovec iov = {bytes, sizeof(bytes)};
		struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
		union scm_buf ctl;
		int fds[SCM_MAX_FDS], type;
		unsigned n = 0;

		scm_expect(&m, &ctl, SCM_MAX_FDS);
		if (recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) <= 0)
			return sock;
		scm_take(&m, fds, &n, SCM_MAX_FDS);
		for (unsigned i = 0; i < n; i++) {
			if (sock < 0 && !getsockopt(fds[i], SOL_SOCKET, SO_TYPE, &type,
						    &(socklen_t){sizeof(type)}))
				sock = fds[i];
			else
				close(fds[i]);
		}
	}
}

/* On the front that there is: 32 bits on MMIO. */
static void reg(uint32_t mmio, uint32_t pci, uint32_t size, uint32_t val)
{
	if (core.nvectors)
		vhost_helper_ops.regs.write(&v, pci, size, val);
	else
		vhost_helper_ops.regs.write(&v, mmio, 4, val);
	vhost_helper_ops.regs.settle(&v);
}

static void set_status(uint32_t val)
{
	reg(VIRTIO_MMIO_STATUS, VPCI_STATUS, 1, val);
}

/* Which vector it is on PCI the input says, also while it runs. */
static void set_vector(const struct head *d, uint32_t queue)
{
	if (core.nvectors)
		reg(0, VPCI_QUEUE_VECTOR, 2, (d->flags >> (2 * queue)) % 4);
}

static void bring_up(const struct head *d)
{
	uint64_t f = (d->features | DRV_F(VIRTIO_F_VERSION_1)) & v.st->features;

	set_status(0);
	must(v.front.v.st->status == 0, "a reset that does not");
	set_status(3);
	for (uint32_t i = 0; i < 2; i++) {
		reg(VIRTIO_MMIO_DRIVER_FEATURES_SEL, VPCI_DRIVER_FEATURE_SELECT, 4, i);
		reg(VIRTIO_MMIO_DRIVER_FEATURES, VPCI_DRIVER_FEATURE, 4, (uint32_t)(f >> (32 * i)));
	}
	set_status(0xb);
	for (uint32_t i = 0; i < NQUEUES; i++) {
		reg(VIRTIO_MMIO_QUEUE_SEL, VPCI_QUEUE_SELECT, 2, i);
		reg(VIRTIO_MMIO_QUEUE_NUM, VPCI_QUEUE_SIZE, 2, 1u << d->num_log2 % 9);
		set_vector(d, i);
		reg(VIRTIO_MMIO_QUEUE_DESC_LOW, VPCI_QUEUE_DESC, 4, RINGS(i));
		reg(VIRTIO_MMIO_QUEUE_AVAIL_LOW, VPCI_QUEUE_DRIVER, 4, RINGS(i) + 0x1000);
		reg(VIRTIO_MMIO_QUEUE_USED_LOW, VPCI_QUEUE_DEVICE, 4, RINGS(i) + 0x2000);
		reg(VIRTIO_MMIO_QUEUE_READY, VPCI_QUEUE_ENABLE, 2, 1);
	}
	set_status(0xf);
}

static void fill_rings(const struct head *d, const uint8_t *p, size_t n)
{
	for (unsigned i = 0; i < NQUEUES; i++) {
		uint8_t *at = gm_ptr(&gm, RINGS(i), 0x3000);

		memcpy(at + 0x1004, p, least(n / 2, 512));
		memcpy(at + 0x2004, p + n / 2, least(n - n / 2, 2048));
		drv_store16(at + 0x1002, d->avail);
		drv_store16(at + 0x2002, d->used);
	}
}

static void open_device(const struct head *d, int conn)
{
	static const uint32_t ids[] = {VIRTIO_ID_BLOCK, VIRTIO_ID_FS, VIRTIO_ID_NET, 40};
	struct start_fds f = drv_start_fds(&core, mem_fd);
	struct msg_start_vhost m = {.head.mem = board_map(MEM_SIZE),
				    .device_id = ids[d->device % 4],
				    .nqueues = NQUEUES,
				    .config_len = 60};
	const char *step;
	struct err e;

	for (unsigned i = 0; i < NQUEUES; i++)
		start_add(&f, START_KICK, event_create());
	start_add(&f, START_OWN, conn);
	must(!vhost_check_conf(&m, &e), "the message");
	must(!vhostdev_open(&v, &h, chan[1], &m, &f, &step, &e), "vhostdev_open");
	v.setup_ms = v.call_ms = v.rest_ms = v.held_ms =
		0; /* what is not there already does not come */
	v.st->known = 1;
	v.st->features = DRV_COMMON | d->features;
	must(!vhost_attach(&v, &e), "vhost_attach");
}

static void close_device(void)
{
	for (unsigned i = 0; i < v.nmem; i++)
		close(v.mem_fd[i]);
	for (unsigned i = 0; i < NQUEUES; i++)
		close(v.kick_fd[i]);
	/* Each is there, whatever happened: close() tells. */
	must(!close(v.link.fd) && !close(v.link.back_fd) && !close(v.inflight_fd) &&
		     !close(v.held_fd) && !close(v.pipe_fd) && !close(v.err_fd) && !close(v.ep_fd),
	     "a number that is lost");
	gm_unmap(&v.gm);
	helper_close(&h);
}

/* The other end of a pair; the device's is in *ours. */
static int pair(int *ours)
{
	int p[2];

	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, p), "socketpair");
	*ours = p[0];
	return p[1];
}

static void wake(void)
{
	vhost_helper_ops.event(&v);
	(void)vhost_helper_ops.woken(&v);
	vhost_helper_ops.regs.settle(&v);
}

/* The supervisor has heard of the end, and gives another one. */
static int next_connection(const struct head *d, const uint8_t *p, size_t n)
{
	int ours, other = pair(&ours);

	says(other, p, n, d->nfds >> 4);
	if (vhost_helper_ops.message(&v, MSG_VHOST_PEER, NULL, 0, &ours, 1))
		must(v.is != VHOST_NOBODY, "a connection that was not taken");
	return other;
}

/* A snapshot is made, and it goes on. */
static void save(void)
{
	struct err e;
	int memory = shm_create("held", VHOST_HELD_MAX, &e);

	must(memory >= 0, "memory");
	must(!vhost_helper_ops.message(&v, MSG_SAVE, NULL, 0, &memory, 1), "MSG_SAVE");
	h.quiet = true;
	vhost_helper_ops.quiet(&v);
	wake();
	h.quiet = false;
	vhost_helper_ops.go_on(&v);
	wake();
}

static void run(const struct head *d, const uint8_t *talk[2], const size_t n[2],
		const uint8_t *back, size_t nback)
{
	int ours, first = pair(&ours), second, sock;

	says(first, talk[0], n[0], d->nfds & 15);
	open_device(d, ours);
	wake();
	bring_up(d);
	if (d->flags & 0x10)
		save();
	wake();
	sock = hears(first);
	if (sock >= 0) {
		says(sock, back, nback, d->flags & 7);
		wake();
	}
	vhost_helper_ops.regs.write(&v, VIRTIO_MMIO_CONFIG + 32, 1, d->flags);
	close(first);
	fd_close(&sock);
	wake();
	second = next_connection(d, talk[1], n[1]);
	wake();
	reg(VIRTIO_MMIO_QUEUE_SEL, VPCI_QUEUE_SELECT, 2, 1);
	if (core.nvectors)
		set_vector(d, 2);
	else
		reg(VIRTIO_MMIO_QUEUE_READY, 0, 4, 0);
	wake();
	bring_up(d);
	sock = hears(second);
	fd_close(&sock);
	close(second);
	wake();
	sock = hears(chan[0]);
	fd_close(&sock);
	close_device();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *p = data, *talk[2], *back;
	struct head d;
	size_t left = size, n[2], nback;
	int probe, again;

	init_once();
	if (size < sizeof(d))
		return 0;
	memcpy(&d, take(&p, &left, sizeof(d)), sizeof(d));
	core.nvectors = d.device & 0x80 ? NQUEUES + 1 : 0;
	for (unsigned i = 0; i < 2; i++) {
		n[i] = least(d.talk[i], left);
		talk[i] = take(&p, &left, n[i]);
	}
	nback = least(d.back, left);
	back = take(&p, &left, nback);
	memset(core.page + DP_STATE_OFF, 0, DP_STATE_SIZE);
	fill_rings(&d, p, left);
	must(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, chan), "chan");
	probe = dup(mem_fd);
	close(probe);
	run(&d, talk, n, back, nback);
	again = dup(mem_fd);
	must(probe == again, "descriptors that stay open");
	close(again);
	close(chan[0]);
	close(chan[1]);
	return 0;
}
