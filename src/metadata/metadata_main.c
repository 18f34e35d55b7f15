/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-metadata. See metadata.h. Its stages are in devices/program.h: the jail is closed before the
 * first frame is read.
 *
 * It holds the channel, one socket of frames, and nothing else: what it was handed as a tree is read
 * and closed.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/proto.h>

#include "devices/program.h"
#include "metadata.h"

#define BUDGET 64u /* frames between two looks at the channel */

struct metadata {
	int frames; /* the socket */
	struct md_tree tree;
	unsigned used; /* of the two: which has the tree */
	_Alignas(8) uint8_t blob[2][METADATA_BLOB_MAX];
	_Alignas(8) uint8_t frame[METADATA_FRAME_MAX + 1];
	struct md_tcp tcp;
};

/* A frame that the socket does not take is lost, as on a wire. */
static void send_to_guest(void *ctx, const void *frame, size_t len)
{
	const struct metadata *m = ctx;

	(void)!write(m->frames, frame, len);
}

static void random_for_md(void *buf, size_t n)
{
	if (random_bytes(buf, n) != n)
		panic("no random numbers");
}

static int check_len(uint32_t len, struct err *e)
{
	return len > METADATA_BLOB_MAX ? err_set(e, -EINVAL, "a tree of %u bytes", len) : 0;
}

static int metadata_main_check(const void *start, const struct start_fds *f, struct err *e)
{
	const struct msg_start_metadata *m = start;
	int rc = check_len(m->len, e);

	if (!rc && (m->flags & ~(uint32_t)METADATA_OPEN))
		rc = err_set(e, -EINVAL, "flags %#x", m->flags);
	return rc ? rc : start_expect(f, START_OWN, 2, e);
}

/* Takes `fd` over. On error the tree is what it was. */
static int take_tree(struct metadata *m, int fd, uint32_t len, struct err *e)
{
	void *to = m->blob[!m->used];
	struct md_tree t;
	int rc = read_full(fd, to, len, 0);

	close(fd);
	if (rc)
		return err_sys(e, rc, "a tree of %u bytes", len);
	rc = md_tree_check(&t, to, len, e);
	if (rc)
		return rc;
	m->tree = t;
	m->used = !m->used;
	return 0;
}

static int metadata_main_open(void *dev, struct helper *h, const void *start,
			      const struct start_fds *f, const char **step, struct err *e)
{
	const struct msg_start_metadata *s = start;
	struct metadata *m = dev;

	(void)h;
	*step = "tree";
	m->frames = f->fd[START_OWN][0];
	m->tcp.send = send_to_guest;
	m->tcp.ctx = m;
	m->tcp.http.tree = &m->tree;
	m->tcp.http.open = s->flags & METADATA_OPEN;
	m->tcp.http.random = random_for_md;
	return take_tree(m, f->fd[START_OWN][1], s->len, e);
}

static void metadata_main_rules(const void *dev, struct rule_list *l)
{
	const struct metadata *m = dev;

	rule_any(l, SYS_poll, "wait for a frame, a tree, or a deadline");
	rule_any(l, SYS_ppoll, "the same, as some C libraries call it");
	rule_fd(l, SYS_read, m->frames, "frames of the guest");
	rule_fd(l, SYS_write, m->frames, "frames to the guest");
	rule_any(l, SYS_pread64, "another tree");
	rule_any(l, SYS_close, "what it came in");
	rule_any(l, SYS_getrandom, "tokens, and the first number of a connection");
}

/* ---- the loop ---- */

static int metadata_hear(struct metadata *m)
{
	struct msg_metadata_tree b = {0};
	int fds[MSG_MAX_FDS], rc;
	enum msg_type type;
	unsigned nfds;
	struct err e;
	size_t len;

	rc = msg_recv(MSG_CHANNEL_FD, &type, &b, sizeof(b), &len, fds, &nfds);
	if (rc)
		return rc;
	if (type != MSG_METADATA_TREE || len != sizeof(b) || nfds != 1)
		return -EPROTO;
	rc = check_len(b.len, &e);
	return rc ? rc : take_tree(m, fds[0], b.len, &e);
}

static void hear_guest(struct metadata *m)
{
	for (unsigned i = 0; i < BUDGET; i++) {
		ssize_t n = read(m->frames, m->frame, sizeof(m->frame));

		if (n < 0)
			return;
		if (n <= (ssize_t)METADATA_FRAME_MAX)
			md_tcp_frame(&m->tcp, m->frame, (size_t)n, clock_ns());
	}
}

static int wait_ms(const struct metadata *m)
{
	uint64_t next = md_tcp_next(&m->tcp), now = clock_ns();

	if (!next)
		return -1;
	return next <= now ? 0 : (int)((next - now) / 1000000 + 1);
}

static int metadata_loop(void *dev)
{
	struct metadata *m = dev;
	int rc = 0;

	while (!rc) {
		struct pollfd p[2] = {{.fd = MSG_CHANNEL_FD, .events = POLLIN},
				      {.fd = m->frames, .events = POLLIN}};

		if (poll(p, 2, wait_ms(m)) < 0)
			continue;
		if (p[1].revents)
			hear_guest(m);
		md_tcp_tick(&m->tcp, clock_ns());
		if (p[0].revents)
			rc = metadata_hear(m);
	}
	return rc == -EPIPE ? 0 : rc;
}

int main(void)
{
	static struct metadata m;

	helper_main(&(struct helper_program){
		.start = MSG_START_METADATA,
		.log_level = offsetof(struct msg_start_metadata, log_level),
		.start_size = sizeof(struct msg_start_metadata),
		.dev = &m,
		.check = metadata_main_check,
		.open = metadata_main_open,
		.rules = metadata_main_rules,
		.loop = metadata_loop,
	});
}
