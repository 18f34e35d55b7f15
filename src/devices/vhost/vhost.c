/* SPDX-License-Identifier: BSD-2-Clause */
/* The device and its connections. See vhost.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/stats.h>

#include "vhost.h"

#define FS_CONFIG_LEN 40u  /* virtio 1.2, 5.11.4, without VIRTIO_FS_F_NOTIFICATION */
#define NET_CONFIG_LEN 12u /* 5.1.4, up to the MTU */
#define WAIT_MS 1000       /* one of several waits for the first back end */

void vhost_limit(struct vhost *v, unsigned ms)
{
	v->link.until_ns = clock_ns() + (uint64_t)ms * 1000000u;
}

/* ---- a connection comes and goes ---- */

/* Before MSG_READY nothing may be said: then vhost_event() does it. */
static void vhost_tell_lost(struct vhost *v)
{
	if (v->told || !v->ready)
		return;
	/* If it cannot be said, the supervisor is gone, and the loop sees that. */
	(void)msg_send(v->channel, MSG_VHOST_LOST, NULL, 0, NULL, 0);
	v->told = true;
}

void vhost_drop(struct vhost *v, const struct err *e)
{
	log_warn("the back end: %s", e->text);
	v->lost += v->is == VHOST_UP;
	v->is = VHOST_NOBODY;
	v->st->flags &= ~(uint32_t)VHOST_CAN_SAVE;
	vlink_end(&v->link);
	vhost_tell_lost(v);
}

static void vhost_is_up(struct vhost *v)
{
	v->is = VHOST_UP;
	v->connections++;
	v->st->flags &= ~(uint32_t)VHOST_CAN_SAVE;
	v->st->flags |= vhost_speaks(v, VHOST_P_DEVICE_STATE) ? VHOST_CAN_SAVE : 0;
}

/* The first question; its answer may take long. */
static void vhost_greet(struct vhost *v)
{
	struct err e;
	int rc;

	v->told = false;
	v->is = VHOST_HELLO;
	vhost_limit(v, v->setup_ms);
	rc = vlink_send(&v->link, VHOST_GET_FEATURES, 0, NULL, 0, NULL, 0);
	if (!rc)
		return;
	err_sys(&e, rc, "GET_FEATURES");
	vhost_drop(v, &e);
}

/* The driver is there: the rings are the back end's. */
static void vhost_serve(struct vhost *v)
{
	struct err e;
	int rc = vhost_run(v, &e);

	if (rc == -EINVAL)
		virtio_fail(&v->front.v, e.text);
	else if (rc)
		vhost_drop(v, &e);
}

void vhost_go(struct vhost *v)
{
	if (!v->front.v.running)
		return;
	vhost_serve(v);
	/* What the last back end has answered may not have been told. */
	if (v->is == VHOST_UP)
		front_irq_queues(&v->front);
}

/* Before the driver has looked at it a device may become another one. */
static void vhost_compare(struct vhost *v, uint8_t config[VHOST_CONFIG_MAX])
{
	uint64_t offer = vhost_offer(v), wants = v->front.v.st->driver_features;
	bool differs;

	/* What the driver wrote is written again when it runs. */
	for (unsigned i = 0; i < v->config_len; i++) {
		if (v->st->wrote[i])
			config[i] = v->st->config[i];
	}
	differs = memcmp(config, v->st->config, sizeof(v->st->config)) != 0;

	if (v->front.v.st->status & VIRTIO_CONFIG_S_FEATURES_OK && wants & ~offer) {
		virtio_fail(&v->front.v, "the next back end lacks features that were negotiated");
		return;
	}
	v->st->features = v->model.features = offer;
	memcpy(v->st->config, config, sizeof(v->st->config));
	front_show(&v->front);
	if (differs)
		front_config_changed(&v->front, true);
}

/* The first answer is there. */
static void vhost_welcome(struct vhost *v)
{
	uint8_t config[VHOST_CONFIG_MAX];
	struct err e;

	vhost_limit(v, v->setup_ms);
	if (vhost_meet(v, config, &e)) {
		vhost_drop(v, &e);
		return;
	}
	vhost_is_up(v);
	vhost_compare(v, config);
	if (v->h->quiet)
		v->rests = true;
	else
		vhost_go(v);
}

/* The back end says that it is another one now: a larger disk. */
static void vhost_config_news(struct vhost *v)
{
	uint8_t config[VHOST_CONFIG_MAX];
	struct err e;

	v->link.config_news = false;
	if (vhost_get_config(v, config, &e)) {
		vhost_drop(v, &e);
		return;
	}
	memcpy(v->st->config, config, sizeof(v->st->config));
	front_config_changed(&v->front, true);
}

/* ---- the control thread is woken ---- */

/* UP, a back end says nothing that it was not asked for. */
static void vhost_hear(struct vhost *v)
{
	struct err e;
	char byte;

	if (v->is == VHOST_HELLO) {
		vhost_welcome(v);
	} else if (v->is == VHOST_UP) {
		bool end = recv(v->link.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0;

		err_set(&e, -EPROTO, "%s",
			end ? "its end of the connection is closed"
			    : "it answers what it was not asked");
		vhost_drop(v, &e);
	}
}

static bool vhost_woken(void *dev)
{
	struct vhost *v = dev;
	struct pollfd p[] = {{.fd = v->channel, .events = POLLIN},
			     {.fd = v->link.up ? v->link.fd : -1, .events = POLLIN},
			     {.fd = v->link.back_up ? v->link.back_fd : -1, .events = POLLIN},
			     {.fd = v->err_fd, .events = POLLIN}};

	if (poll(p, ARRAY_LEN(p), 0) <= 0)
		return false;
	vhost_limit(v, v->setup_ms);
	if (p[2].revents)
		vlink_hear_back(&v->link);
	if (p[3].revents && event_drain(v->err_fd))
		virtio_fail(&v->front.v, "the back end says that a ring is broken");
	if (p[1].revents)
		vhost_hear(v);
	if (v->link.config_news && v->is == VHOST_UP && !v->h->quiet)
		vhost_config_news(v);
	return p[0].revents;
}

static void vhost_event(void *dev)
{
	struct vhost *v = dev;

	vhost_limit(v, v->setup_ms);
	if (!v->ready) {
		v->ready = true;
		if (v->is == VHOST_NOBODY && v->link.up)
			vhost_greet(v);
		else if (v->is == VHOST_NOBODY)
			vhost_tell_lost(v);
	}
	if (v->link.config_news && v->is == VHOST_UP && !v->h->quiet)
		vhost_config_news(v);
}

static int vhost_message(void *dev, enum msg_type type, const void *body, size_t len,
			 const int *fds, unsigned nfds)
{
	struct vhost *v = dev;

	(void)body;
	if (type == MSG_SAVE && !len && nfds == 1 && !v->h->quiet) {
		vhost_place(v, fds[0], v->held_fd);
		v->saves = true;
		return 0;
	}
	if (type != MSG_VHOST_PEER || len || nfds != 1 || !v->told) {
		for (unsigned i = 0; i < nfds; i++)
			close(fds[i]);
		return -EPROTO;
	}
	vlink_begin(&v->link, fds[0]);
	vhost_greet(v);
	return 0;
}

/* ---- the model ---- */

static void vhost_model_start(void *dev)
{
	struct vhost *v = dev;

	if (v->is == VHOST_UP)
		vhost_serve(v);
}

/* A back end that does not give the rings back in time loses its connection: it is told no more of
 * the guest than it knows. */
static void vhost_model_stop(void *dev)
{
	struct vhost *v = dev;
	struct err e;

	if (v->is == VHOST_UP && vhost_halt(v, &e))
		vhost_drop(v, &e);
}

static void vhost_model_reset(void *dev)
{
	struct vhost *v = dev;

	memset(v->st->ring, 0, sizeof(v->st->ring));
	memset(v->st->wrote, 0, sizeof(v->st->wrote));
	vhost_forget_inflight(v);
}

/* A ring that the back end does not have is given it with the vector. */
static void vhost_model_vector(void *dev, unsigned i)
{
	struct vhost *v = dev;
	struct err e;

	if (v->is == VHOST_UP && vhost_set_call(v, i, &e))
		vhost_drop(v, &e);
}

/* ---- registers ---- */

/* Of a disk the one byte that 5.2.4 lets a driver write; of a device that we do not know, all. */
static bool vhost_may_write(const struct vhost *v, uint32_t at, uint32_t size)
{
	if (v->conf.device_id == VIRTIO_ID_BLOCK)
		return at == offsetof(struct virtio_blk_config, wce) && size == 1 &&
		       v->front.v.st->driver_features >> VIRTIO_BLK_F_CONFIG_WCE & 1;
	return v->conf.device_id != VIRTIO_ID_NET && v->conf.device_id != VIRTIO_ID_FS &&
	       at < v->config_len && size <= v->config_len - at;
}

/* What of it the back end takes is read back. One that is away hears it when it comes. */
static void vhost_model_config(void *dev, uint32_t at, uint32_t size, uint64_t val)
{
	struct vhost *v = dev;
	struct err e;

	if (!vhost_may_write(v, at, size))
		return;
	memcpy(v->st->config + at, &val, size);
	memset(v->st->wrote + at, 1, size);
	if (v->is != VHOST_UP)
		front_config_changed(&v->front, false);
	else if (vhost_set_config(v, at, size, &e))
		vhost_drop(v, &e);
	else
		vhost_config_news(v);
}

static void vhost_reg_write(void *dev, uint32_t off, uint32_t size, uint64_t val)
{
	struct vhost *v = dev;

	vhost_limit(v, v->call_ms);
	front_write(&v->front, off, size, val);
	/* Heard while it was waited for something else. */
	if (v->link.config_news)
		event_signal(v->h->event_fd);
}

static uint64_t vhost_reg_read(void *dev, uint32_t off, uint32_t size)
{
	struct vhost *v = dev;

	return front_read(&v->front, off, size);
}

static void vhost_settle(void *dev)
{
	struct vhost *v = dev;

	front_show(&v->front);
}

static void vhost_lost_access(void *dev)
{
	struct vhost *v = dev;

	vhost_limit(v, v->call_ms);
	virtio_fail(&v->front.v, "register accesses were lost");
}

static void vhost_resume(void *dev)
{
	struct vhost *v = dev;

	virtio_resume(&v->front.v);
}

static void vhost_stop(void *dev, struct msg_stats *s)
{
	struct vhost *v = dev;

	vhost_limit(v, v->call_ms);
	if (v->front.v.running)
		vhost_model_stop(v);
	v->front.v.running = false;
	s->n[STAT_VHOST_CONNECTIONS] = v->connections;
	s->n[STAT_VHOST_LOST] = v->lost;
	s->n[STAT_VHOST_MESSAGES] = v->link.messages;
	s->n[STAT_VHOST_REQUESTS] = v->link.requests;
}

const struct helper_ops vhost_helper_ops = {
	.regs = {.write = vhost_reg_write,
		 .read = vhost_reg_read,
		 .settle = vhost_settle,
		 .lost = vhost_lost_access},
	.resume = vhost_resume,
	.event = vhost_event,
	.woken = vhost_woken,
	.message = vhost_message,
	.quiet = vhost_quiet,
	.go_on = vhost_go_on,
	.stop = vhost_stop,
};

/* ---- start ---- */

int vhost_check_conf(const struct msg_start_vhost *m, struct err *e)
{
	bool tag = memchr(m->tag, 0, sizeof(m->tag)) != m->tag;

	if (m->device_id == 0)
		return err_set(e, -EINVAL, "device 0");
	if (m->nqueues == 0 || m->nqueues > VIRTIO_MAX_QUEUES ||
	    (m->device_id == VIRTIO_ID_NET && m->nqueues != 2) ||
	    (m->device_id == VIRTIO_ID_FS && m->nqueues < 2))
		return err_set(e, -EINVAL, "%u queues", m->nqueues);
	if (m->config_len > VHOST_CONFIG_MAX)
		return err_set(e, -EINVAL, "%u bytes of configuration", m->config_len);
	if (m->flags & ~(uint32_t)(VHOST_AWAY | VHOST_INFLIGHT | VHOST_HAD | VHOST_NO_WCE |
				   VHOST_KEEPS_ACCOUNT | VHOST_LOAD) ||
	    (m->flags & VHOST_HAD && !(m->flags & VHOST_AWAY)))
		return err_set(e, -EINVAL, "flags %#x", m->flags);
	if (tag && m->device_id != VIRTIO_ID_FS)
		return err_set(e, -EINVAL, "a tag of what is no file system");
	if (!(m->flags & VHOST_INFLIGHT) != !m->inflight.size)
		return err_set(e, -EINVAL, "memory of what is in flight: %llu bytes",
			       (unsigned long long)m->inflight.size);
	if (!(m->flags & VHOST_LOAD) != !m->held || m->held > VHOST_HELD_MAX)
		return err_set(e, -EINVAL, "what a back end held: %llu bytes",
			       (unsigned long long)m->held);
	return 0;
}

static size_t vhost_config_size(const struct msg_start_vhost *m)
{
	if (m->device_id == VIRTIO_ID_FS)
		return FS_CONFIG_LEN;
	return m->device_id == VIRTIO_ID_NET ? NET_CONFIG_LEN : m->config_len;
}

static void vhost_take_fds(struct vhost *v, const struct start_fds *f)
{
	bool inflight = v->conf.flags & VHOST_INFLIGHT;

	v->nmem = f->n[START_MEMORY];
	memcpy(v->mem_fd, f->fd[START_MEMORY], v->nmem * sizeof(int));
	memcpy(v->kick_fd, f->fd[START_KICK], f->n[START_KICK] * sizeof(int));
	v->link.fd = f->fd[START_OWN][0];
	v->inflight_fd = inflight ? f->fd[START_OWN][1] : -1;
	v->held_fd = v->conf.flags & VHOST_LOAD ? f->fd[START_OWN][inflight ? 2 : 1] : -1;
}

/* The numbers that the jail's rules name. */
static int vhost_open_fds(struct vhost *v, struct err *e)
{
	struct epoll_event ev = {.events = EPOLLIN};
	int rc = 0;

	v->err_fd = event_create();
	v->link.spare_fd = v->err_fd;
	v->link.back_fd = fd_copy(v->err_fd);
	if (v->inflight_fd < 0)
		v->inflight_fd = fd_copy(v->err_fd);
	if (v->held_fd < 0)
		v->held_fd = fd_copy(v->err_fd);
	v->pipe_fd = fd_copy(v->err_fd);
	v->ep_fd = v->link.ep_fd = epoll_create1(EPOLL_CLOEXEC);
	if (v->err_fd < 0 || v->link.back_fd < 0 || v->inflight_fd < 0 || v->held_fd < 0 ||
	    v->pipe_fd < 0 || v->ep_fd < 0)
		return err_set(e, -EMFILE, "descriptors");
	ev.data.fd = v->channel;
	rc |= epoll_ctl(v->ep_fd, EPOLL_CTL_ADD, v->channel, &ev);
	ev.data.fd = v->err_fd;
	rc |= epoll_ctl(v->ep_fd, EPOLL_CTL_ADD, v->err_fd, &ev);
	return rc ? err_sys(e, -errno, "epoll_ctl") : 0;
}

static int vhost_map(struct vhost *v, struct err *e)
{
	return gm_map(&v->gm, &v->conf.head.mem, v->mem_fd, v->nmem, e);
}

int vhostdev_open(struct vhost *v, struct helper *h, int channel, const struct msg_start_vhost *m,
		  const struct start_fds *f, const char **step, struct err *e)
{
	struct vhost_page *page;
	int rc;

	memset(v, 0, sizeof(*v));
	v->h = h;
	v->channel = channel;
	v->conf = *m;
	v->setup_ms = VHOST_SETUP_MS;
	v->call_ms = VHOST_CALL_MS;
	v->rest_ms = VHOST_REST_MS;
	v->held_ms = VHOST_HELD_MS;
	v->config_len = vhost_config_size(m);
	vhost_take_fds(v, f);
	*step = "page";
	rc = helper_open(h, f, VHOST_PAGE_TAG, e);
	if (rc)
		return rc;
	page = h->port.dev_state;
	v->st = &page->vhost;
	if (!h->port.resumed)
		memset(v->st, 0, sizeof(*v->st));
	*step = "memory";
	rc = vhost_map(v, e);
	if (rc)
		return rc;
	*step = "descriptors";
	rc = vhost_open_fds(v, e);
	h->wait_fd = v->ep_fd;
	return rc;
}

/* With these flags alone. MSG_FASTOPEN connects, and what a back end has sent may stand in the
 * place of this descriptor: a TCP socket of the host's network namespace, if it has a network. */
static void rule_send(struct rule_list *l, int fd, uint64_t flags, const char *why)
{
	rule_arg(l, SYS_sendmsg,
		 (struct jail_arg){.index = 0, .cmp = JAIL_EQ, .value = (uint64_t)(unsigned)fd},
		 (struct jail_arg){.index = 2, .cmp = JAIL_EQ, .value = flags}, why);
}

void vhost_rules(const struct vhost *v, struct rule_list *l)
{
	rule_send(l, v->link.fd, MSG_NOSIGNAL,
		  "requests; guest memory, doorbells and the interrupt go to the back end so");
	rule_fd(l, SYS_recvmsg, v->link.fd, "its answers, and the memory of what is in flight");
	rule_fd(l, SYS_recvfrom, v->link.fd, "has it closed its end?");
	rule_send(l, v->link.back_fd, MSG_NOSIGNAL | MSG_DONTWAIT,
		  "answers to requests of the back end");
	rule_fd(l, SYS_recvmsg, v->link.back_fd, "requests of the back end");
	rule_arg(
		l, SYS_socketpair,
		(struct jail_arg){.index = 0, .cmp = JAIL_EQ, .value = (uint64_t)(unsigned)AF_UNIX},
		(struct jail_arg){0}, "the channel of its requests, new with each connection");
	rule_arg(l, SYS_dup3,
		 (struct jail_arg){
			 .index = 1, .cmp = JAIL_EQ, .value = (uint64_t)(unsigned)v->link.fd},
		 (struct jail_arg){0}, "the next connection takes the place of one that has ended");
	rule_arg(l, SYS_dup3,
		 (struct jail_arg){
			 .index = 1, .cmp = JAIL_EQ, .value = (uint64_t)(unsigned)v->link.back_fd},
		 (struct jail_arg){0}, "and the channel of its requests");
	rule_arg(l, SYS_dup3,
		 (struct jail_arg){
			 .index = 1, .cmp = JAIL_EQ, .value = (uint64_t)(unsigned)v->inflight_fd},
		 (struct jail_arg){0}, "and the memory of what is in flight");
	rule_arg(l, SYS_fcntl,
		 (struct jail_arg){
			 .index = 1, .cmp = JAIL_EQ, .value = (uint64_t)(unsigned)F_GET_SEALS},
		 (struct jail_arg){0}, "is that memory?");
	rule_arg(l, SYS_pipe2,
		 (struct jail_arg){
			 .index = 1, .cmp = JAIL_EQ, .value = (uint64_t)(unsigned)O_CLOEXEC},
		 (struct jail_arg){0}, "a snapshot: what the back end holds comes through it");
	rule_arg(l, SYS_dup3,
		 (struct jail_arg){
			 .index = 1, .cmp = JAIL_EQ, .value = (uint64_t)(unsigned)v->pipe_fd},
		 (struct jail_arg){0}, "our end of it");
	rule_arg(l, SYS_dup3,
		 (struct jail_arg){
			 .index = 1, .cmp = JAIL_EQ, .value = (uint64_t)(unsigned)v->held_fd},
		 (struct jail_arg){0}, "and the memory in which it is kept");
	rule_arg(l, SYS_fcntl,
		 (struct jail_arg){
			 .index = 1, .cmp = JAIL_EQ, .value = (uint64_t)(unsigned)F_GETPIPE_SZ},
		 (struct jail_arg){0}, "is what the back end wants instead a pipe?");
	rule_fd(l, SYS_read, v->pipe_fd, "what the back end holds");
	rule_fd(l, SYS_pwrite64, v->held_fd, "the same, for the supervisor");
	rule_fd(l, SYS_pread64, v->held_fd, "what the back end of a snapshot held");
	rule_fd(l, SYS_write, v->pipe_fd, "the same, for the back end that is there now");
	rule_any(l, SYS_close,
		 "the numbers under which they came; what a back end sent without being asked");
	rule_fd(l, SYS_epoll_ctl, v->ep_fd,
		"wait for a connection, and no more for one that has ended");
	rule_fd(l, SYS_read, v->err_fd, "the back end says that a ring is broken");
	for (unsigned i = 0; i < v->conf.nqueues; i++)
		rule_fd(l, SYS_write, v->kick_fd[i], "let the back end look at a ring");
}

/* ---- sealed ---- */

static void vhost_describe(struct vhost *v)
{
	v->model = (struct virtio_model){
		.device_id = v->conf.device_id,
		.features = v->st->features,
		.nqueues = v->conf.nqueues,
		.foreign = true,
		.config = v->st->config,
		.config_len = v->config_len,
		.start = vhost_model_start,
		.stop = vhost_model_stop,
		.reset = vhost_model_reset,
		.configure = vhost_model_config,
		.vector = vhost_model_vector,
	};
	front_init(&v->front, v->h, &v->gm, &v->model, v);
}

static int vhost_wait_peer(struct vhost *v, struct err *e)
{
	int fds[MSG_MAX_FDS], rc;
	enum msg_type type;
	unsigned nfds;
	uint8_t body[64];
	size_t len;

	rc = msg_recv(v->channel, &type, body, sizeof(body), &len, fds, &nfds);
	if (rc)
		return err_sys(e, rc, "channel");
	if (vhost_message(v, type, body, len, fds, nfds) || v->is != VHOST_HELLO)
		return err_set(e, -EPROTO, "no back end has come");
	return 0;
}

static bool vhost_must_load(const struct vhost *v)
{
	return v->conf.flags & VHOST_LOAD;
}

/* The guest goes on with what the last one held, or not at all. */
static int vhost_load_now(struct vhost *v, struct err *e)
{
	const struct vhost_page *page = v->h->port.dev_state;
	int rc;

	if (page->virtio.driver_features & ~vhost_offer(v))
		return err_set(e, -EINVAL, "it lacks features that were negotiated");
	vhost_limit(v, v->held_ms);
	rc = vhost_load(v, e);
	if (!rc)
		v->conf.flags &= ~(uint32_t)VHOST_LOAD;
	return rc;
}

/* Nothing has been read yet from whoever is there. */
static int vhost_first_turn(struct vhost *v, uint8_t config[VHOST_CONFIG_MAX], struct err *e)
{
	struct pollfd p = {.fd = v->is == VHOST_HELLO ? v->link.fd : v->channel, .events = POLLIN};
	int rc;

	if (poll(&p, 1, WAIT_MS) <= 0)
		return 0;
	if (v->is == VHOST_NOBODY)
		return vhost_wait_peer(v, e);
	vhost_limit(v, v->setup_ms);
	rc = vhost_meet(v, config, e);
	if (!rc && vhost_must_load(v))
		rc = vhost_load_now(v, e);
	if (rc)
		return rc;
	vhost_is_up(v);
	if (v->st->known)
		return 0;
	memcpy(v->st->config, config, sizeof(v->st->config));
	v->st->features = vhost_offer(v);
	v->st->known = 1;
	return 0;
}

/* On the connection of the helper before. If that has died in the middle of a question, the answers
 * do not fit, and the rings are as after a back end that has gone. */
static void vhost_take_back(struct vhost *v)
{
	struct err e;

	vlink_first(&v->link);
	vhost_limit(v, v->setup_ms);
	if (vhost_halt(v, &e))
		log_warn("the back end: %s", e.text);
	vlink_end(&v->link);
}

int vhost_attach(struct vhost *v, struct err *e)
{
	uint8_t config[VHOST_CONFIG_MAX];
	bool loads = vhost_must_load(v);
	int rc = 0;

	if (v->conf.flags & VHOST_HAD)
		vhost_take_back(v);
	v->told = v->conf.flags & VHOST_AWAY;
	if (!v->told)
		vlink_first(&v->link);
	if (!v->told && (!v->st->known || loads)) {
		vhost_greet(v);
		rc = v->is == VHOST_HELLO ? 0 : err_set(e, -EPIPE, "it has closed its connection");
	}
	while ((!v->st->known || vhost_must_load(v)) && !rc)
		rc = vhost_first_turn(v, config, e);
	if (rc)
		return rc;
	vhost_describe(v);
	if (loads)
		vhost_compare(v, config);
	/* Before MSG_READY nothing else may be said to the supervisor: the rest is the loop's. */
	event_signal(v->h->event_fd);
	return helper_attach(v->h, &vhost_helper_ops, v, e);
}
