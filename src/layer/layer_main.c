/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-layer. See insula/layer.h for what it talks, tar.h and erofs.h for what it does. Its
 * stages are in devices/program.h: the jail is closed before the first byte of a layer is read.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/layer.h>
#include <insula/proto.h>

#include "devices/program.h"
#include "tar.h"

#define FDS_MAX 64 /* RLIMIT_NOFILE is below it */

struct layers {
	int image;
	uint32_t flags;
	struct tree tree;
	struct erofs out;
	uint8_t id[SHA256_LEN]; /* of all layers so far */
};

static int layer_check(const void *start, const struct start_fds *f, struct err *e)
{
	const struct msg_start_layer *m = start;

	if (m->flags & ~(uint32_t)LAYER_MERGE)
		return err_set(e, -EINVAL, "unknown flags %#x", m->flags);
	return start_expect(f, START_OWN, 1, e);
}

static int layer_open(void *dev, struct helper *h, const void *start, const struct start_fds *f,
		      const char **step, struct err *e)
{
	const struct msg_start_layer *m = start;
	struct layers *l = dev;
	int rc;

	(void)h;
	*step = "memory";
	l->image = f->fd[START_OWN][0];
	l->flags = m->flags;
	rc = tree_init(&l->tree, e);
	return rc ? rc : erofs_begin(&l->out, l->image, e);
}

/* A layer's pipe is a descriptor that comes later. This process has no other one that says anything
 * but the channel, which may be read anyway. */
static void layer_rules(const void *dev, struct rule_list *l)
{
	const struct layers *all = dev;

	rule_any(l, SYS_read, "the layer, from a pipe that comes with a message");
	rule_any(l, SYS_close, "the pipe of a layer that has been read");
	rule_fd(l, SYS_pwrite64, all->image, "the image");
	rule_fd(l, SYS_ftruncate, all->image, "the image's length");
	rule_any(l, SYS_brk, "memory for names and inodes");
	rule_arg(
		l, SYS_mmap,
		(struct jail_arg){.index = 2, .cmp = JAIL_EQ, .value = PROT_READ | PROT_WRITE},
		(struct jail_arg){.index = 3, .cmp = JAIL_EQ, .value = MAP_PRIVATE | MAP_ANONYMOUS},
		"memory for names and inodes");
	rule_any(l, SYS_munmap, "give it back");
	rule_any(l, SYS_mremap, "let it grow");
}

static long layer_fetch(void *ctx, void *buf, size_t len)
{
	ssize_t n = read(*(int *)ctx, buf, len);

	return n < 0 ? -errno : n;
}

/* It is to blame, unless memory or the disk are. */
static int refuse(int rc, const struct err *e)
{
	bool ours = rc == -ENOMEM || rc == -ENOSPC || rc == -EIO || rc == -EDQUOT || rc == -EPROTO;

	msg_fail(MSG_CHANNEL_FD, "layer", rc, e->text, !ours);
	return rc;
}

/* The name of the image is made of all layers in it. */
static void add_to_id(struct layers *l, const uint8_t digest[SHA256_LEN])
{
	struct sha256 s;

	sha256_init(&s);
	sha256_add(&s, l->id, sizeof(l->id));
	sha256_add(&s, digest, SHA256_LEN);
	sha256_end(&s, l->id);
}

static int one_layer(struct layers *l, int pipe, struct err *e)
{
	struct msg_layer_done done = {0};
	struct source s;
	const struct tar t = {
		.source = &s, .tree = &l->tree, .image = &l->out, .merge = l->flags & LAYER_MERGE};
	int rc = source_open(&s, layer_fetch, &pipe, e);

	if (rc)
		return rc;
	l->tree.layer++;
	rc = tar_read(&t, e);
	done.bytes = s.total;
	sha256_end(&s.sum, done.diff_id);
	source_close(&s);
	if (rc)
		return rc;
	add_to_id(l, done.diff_id);
	rc = msg_send(MSG_CHANNEL_FD, MSG_LAYER_DONE, &done, sizeof(done), NULL, 0);
	return rc ? err_sys(e, rc, "channel") : 0;
}

static int finish(struct layers *l, struct err *e)
{
	struct msg_layer_written w = {.files = l->tree.nnames};
	int rc = erofs_finish(&l->out, &l->tree, l->id, &w.size, e);

	if (!rc && msg_send(MSG_CHANNEL_FD, MSG_LAYER_WRITTEN, &w, sizeof(w), NULL, 0))
		rc = err_set(e, -EPIPE, "channel");
	return rc;
}

static int layer_loop(void *dev)
{
	struct layers *l = dev;
	int fds[MSG_MAX_FDS], rc = 0;
	enum msg_type type;
	struct err e = {0};
	unsigned nfds;
	char body[16];
	size_t len;

	while (!rc) {
		rc = msg_recv(MSG_CHANNEL_FD, &type, body, sizeof(body), &len, fds, &nfds);
		if (rc)
			return rc == -EPIPE ? 0 : rc; /* it is not wanted any more */
		if (type == MSG_LAYER && !len && nfds == 1) {
			rc = one_layer(l, fds[0], &e);
			close(fds[0]);
		} else if (type == MSG_LAYER_END && !len && !nfds) {
			rc = finish(l, &e);
			if (!rc)
				return 0;
		} else {
			rc = err_set(&e, -EPROTO, "message %d", (int)type);
		}
	}
	return refuse(rc, &e);
}

int main(void)
{
	static struct layers layers;

	helper_main(&(struct helper_program){
		.start = MSG_START_LAYER,
		.start_size = sizeof(struct msg_start_layer),
		.log_level = offsetof(struct msg_start_layer, log_level),
		.dev = &layers,
		.check = layer_check,
		.open = layer_open,
		.rules = layer_rules,
		.loop = layer_loop,
	});
}
