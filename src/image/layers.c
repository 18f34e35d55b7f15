/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Feeds insula-layer. See layers.h.
 *
 * What a layer's bytes hash to is found out here, while they go into its stream, and not by the
 * program that parses them: whoever takes that over with a layer cannot put something else into the
 * cache under the digest of another one. The image that it has written is used by guests as if it
 * had been given by the image's maker, whose layer it is.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/jail.h>
#include <insula/layer.h>
#include <insula/log.h>
#include <insula/proto.h>

#include "layers.h"

#define READY_MS 90000 /* as a VM's processes */
#define SLICE_MS 250   /* so often is looked whether it may go on */
#define IDLE_MS 600000 /* it takes no more of a layer, or says nothing: a decompression bomb */
#define CHUNK (256u << 10)
#define NOFILE 16
#ifdef INSULA_SANITIZE
#define MEMORY 0
#else
#define MEMORY (2ull << 30) /* a million names, and what zstd takes at most */
#endif

struct feed {
	const struct layers_job *job;
	struct jail_child child;
};

/* ---- the process ---- */

/* 1: one of them has something; 0: none has in this time. */
static int wait_any(const struct feed *f, struct pollfd *p, nfds_t n, int ms, struct err *e)
{
	int rc = 0;

	for (; !rc && ms > 0; ms -= SLICE_MS) {
		rc = poll(p, n, SLICE_MS);
		if (rc > 0)
			return 1;
		rc = rc < 0 && errno != EINTR ? err_sys(e, -errno, "insula-layer")
					      : store_go_on(f->job->store, e);
	}
	return rc;
}

static int wait_message(const struct feed *f, int ms, const char *what, struct err *e)
{
	struct pollfd p = {.fd = f->child.channel, .events = POLLIN};
	int rc = wait_any(f, &p, 1, ms, e);

	if (!rc)
		rc = err_set(e, -ETIMEDOUT, "insula-layer: no %s in %d s", what, ms / 1000);
	return rc < 0 ? rc : 0;
}

static int start(struct feed *f, int out, struct err *e)
{
	struct jail_plan p = {.program = "insula-layer",
			      .exec_fd = f->job->program,
			      .nofile = NOFILE,
			      .nproc = 1,
			      .as = MEMORY,
			      .fsize = f->job->bytes};
	const struct msg_start_layer m = {.log_level = (uint32_t)log_most(),
					  .flags = f->job->merge ? LAYER_MERGE : 0};
	int rc;

	jail_ids(&p);
	rc = jail_spawn(&p, &f->child, e);
	if (rc) {
		f->child = (struct jail_child){-1, -1, -1, -1};
		return rc;
	}
	rc = msg_send(f->child.channel, MSG_START_LAYER, &m, sizeof(m), &out, 1);
	if (rc)
		rc = err_sys(e, rc, "insula-layer");
	if (!rc)
		rc = wait_message(f, READY_MS, "sign of life", e);
	if (!rc)
		rc = msg_expect(f->child.channel, MSG_READY, NULL, 0, NULL, 0, e);
	return rc ? rc : jail_verify(f->child.pid, e);
}

/* A jailed process may be an enemy: its lines are cleaned. */
static void show_log(struct feed *f)
{
	char text[1024];
	ssize_t n = read(f->child.log, text, sizeof(text) - 1);

	if (n <= 0)
		return;
	text[n] = 0;
	text[strcspn(text, "\n")] = 0;
	err_clean(text);
	log_warn("insula-layer: %s", text);
}

static void stop(struct feed *f)
{
	if (f->child.pid <= 0)
		return;
	kill(f->child.pid, SIGKILL);
	while (waitpid(f->child.pid, NULL, 0) < 0 && errno == EINTR)
		;
	show_log(f);
	fd_close(&f->child.pidfd);
	fd_close(&f->child.channel);
	fd_close(&f->child.log);
}

/* ---- a layer ---- */

struct layer_feed {
	struct feed *f;
	unsigned i;
	int blob, stream;
	struct sha256 sum;
	uint64_t done;
};

/* What it says about the layer, and which one it is. */
static int layer_failed(const struct layer_feed *l, int rc, const char *text, struct err *e)
{
	const char *what = !strncmp(text, "layer: ", 7) ? text + 7 : text;

	return err_set(e, rc, "layer sha256:%.12s: %.200s", l->f->job->layer[l->i].hex, what);
}

/* It ends its stream only with an answer. */
static int heard(const struct layer_feed *l, struct err *e)
{
	struct msg_layer_done done;
	struct err why;
	int rc =
		msg_expect(l->f->child.channel, MSG_LAYER_DONE, &done, sizeof(done), NULL, 0, &why);

	if (rc == -EPIPE)
		return layer_failed(l, -EIO, "the process that unpacks it has died", e);
	return layer_failed(l, rc ? rc : -EPROTO, rc ? why.text : "answered too early", e);
}

/* Until there is room in the stream. */
static int wait_room(const struct layer_feed *l, struct err *e)
{
	struct pollfd p[2] = {{.fd = l->stream, .events = POLLOUT},
			      {.fd = l->f->child.channel, .events = POLLIN}};
	int rc = wait_any(l->f, p, 2, IDLE_MS, e);

	if (rc < 0)
		return rc;
	if (!rc)
		return layer_failed(l, -ETIMEDOUT, "takes too long to unpack", e);
	return p[1].revents ? heard(l, e) : 0;
}

static int send_all(const struct layer_feed *l, const uint8_t *p, size_t n, struct err *e)
{
	int rc = 0;

	while (n && !rc) {
		ssize_t k = send(l->stream, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (k > 0) {
			p += k;
			n -= (size_t)k;
		} else if (errno == EAGAIN) {
			rc = wait_room(l, e);
		} else if (errno == EPIPE) {
			/* Its end is closed: it owes an answer, and poll() would not wait. */
			rc = wait_message(l->f, IDLE_MS, "answer", e);
			rc = rc ? rc : heard(l, e);
		} else if (errno != EINTR) {
			rc = err_sys(e, -errno, "insula-layer");
		}
	}
	return rc;
}

/* Once a MiB, or where a piece of the last one ends. */
static int tell(const struct layer_feed *l, size_t n, struct err *e)
{
	const struct layers_job *j = l->f->job;
	char what[64];

	if (l->done >> 20 == (l->done - n) >> 20 && l->done != n)
		return 0;
	if (!j->progress)
		return store_go_on(j->store, e);
	snprintf(what, sizeof(what), "unpacking layer %u of %u", j->first + l->i + 1, j->all);
	j->progress(j->progress_ctx, what, l->done, j->layer[l->i].size);
	return store_go_on(j->store, e);
}

static int send_blob(struct layer_feed *l, struct err *e)
{
	const struct oci_blob *b = &l->f->job->layer[l->i];
	uint8_t *buf = malloc(CHUNK);
	int rc = buf ? 0 : err_set(e, -ENOMEM, "out of memory");

	while (!rc && l->done < b->size) {
		uint64_t left = b->size - l->done;
		ssize_t n = read(l->blob, buf, left < CHUNK ? (size_t)left : CHUNK);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			rc = n ? err_sys(e, -errno, "layer sha256:%.12s", b->hex)
			       : layer_failed(l, -EINVAL, "shorter than its manifest says", e);
			break;
		}
		sha256_add(&l->sum, buf, (size_t)n);
		rc = send_all(l, buf, (size_t)n, e);
		l->done += (uint64_t)n;
		rc = rc ? rc : tell(l, (size_t)n, e);
	}
	free(buf);
	return rc;
}

static int check_digests(struct layer_feed *l, const struct msg_layer_done *done, struct err *e)
{
	const struct layers_job *j = l->f->job;
	uint8_t digest[SHA256_LEN];
	char hex[SHA256_TEXT], text[120];

	sha256_end(&l->sum, digest);
	sha256_text(digest, hex);
	if (strcmp(hex, j->layer[l->i].hex) != 0) {
		snprintf(text, sizeof(text), "the digest of its content is sha256:%s", hex);
		return layer_failed(l, -EINVAL, text, e);
	}
	sha256_text(done->diff_id, hex);
	if (j->diff_id && strcmp(hex, j->diff_id[l->i]) != 0) {
		snprintf(text, sizeof(text), "unpacked it is sha256:%.12s; expected sha256:%.12s",
			 hex, j->diff_id[l->i]);
		return layer_failed(l, -EINVAL, text, e);
	}
	return 0;
}

static int finish_layer(struct layer_feed *l, struct err *e)
{
	struct msg_layer_done done;
	struct err why;
	int rc = wait_message(l->f, IDLE_MS, "answer", &why);

	if (!rc)
		rc = msg_expect(l->f->child.channel, MSG_LAYER_DONE, &done, sizeof(done), NULL, 0,
				&why);
	if (rc == -EPIPE)
		return layer_failed(l, -EIO, "the process that unpacks it has died", e);
	return rc ? layer_failed(l, rc, why.text, e) : check_digests(l, &done, e);
}

static int open_blob(struct layer_feed *l, struct err *e)
{
	const struct layers_job *j = l->f->job;
	struct stat st;

	l->blob = j->blob(j->ctx, l->i, e);
	if (l->blob < 0)
		return l->blob;
	if (fstat(l->blob, &st))
		return err_sys(e, -errno, "layer sha256:%.12s", j->layer[l->i].hex);
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != j->layer[l->i].size)
		return layer_failed(l, -EINVAL, "not a file as long as its manifest says", e);
	return 0;
}

static int one_layer(struct feed *f, unsigned i, struct err *e)
{
	struct layer_feed l = {.f = f, .i = i, .blob = -1, .stream = -1};
	int pair[2] = {-1, -1}, rc;

	sha256_init(&l.sum);
	rc = open_blob(&l, e);
	if (rc)
		goto out;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
		rc = err_sys(e, -errno, "stream");
		goto out;
	}
	l.stream = pair[0];
	rc = msg_send(f->child.channel, MSG_LAYER, NULL, 0, &pair[1], 1);
	fd_close(&pair[1]);
	rc = rc ? layer_failed(&l, rc, "the process that unpacks it has died", e)
		: send_blob(&l, e);
	fd_close(&l.stream);
	if (!rc)
		rc = finish_layer(&l, e);
out:
	fd_close(&l.blob);
	return rc;
}

/* ---- the whole ---- */

static int written(struct feed *f, int out, struct err *e)
{
	struct msg_layer_written w;
	struct stat st;
	int rc = msg_send(f->child.channel, MSG_LAYER_END, NULL, 0, NULL, 0);

	if (!rc)
		rc = wait_message(f, IDLE_MS, "image", e);
	if (!rc)
		rc = msg_expect(f->child.channel, MSG_LAYER_WRITTEN, &w, sizeof(w), NULL, 0, e);
	if (rc)
		return rc;
	if (fstat(out, &st) || (uint64_t)st.st_size != w.size || !w.size || w.size % 4096)
		return err_set(e, -EPROTO, "insula-layer: an image of another length than it says");
	return 0;
}

int layers_make(const struct layers_job *j, int out, struct err *e)
{
	struct feed f = {.job = j, .child = {-1, -1, -1, -1}};
	int rc = start(&f, out, e);

	for (unsigned i = 0; i < j->n && !rc; i++)
		rc = one_layer(&f, i, e);
	if (!rc)
		rc = written(&f, out, e);
	stop(&f);
	if (j->progress)
		j->progress(j->progress_ctx, "", 1, 1);
	return rc;
}
