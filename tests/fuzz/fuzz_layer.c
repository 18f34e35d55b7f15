/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * insula-layer without its jail: the first byte says whether layers are merged and after how much of
 * the rest (in 256ths) the second layer begins; then the layers.
 *
 * Besides not crashing and not taking for ever: a refusal is one clean line; what was taken is an
 * image of whole blocks, whose tree hangs together, and the same input makes the same image again.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "layer/tar.h"
#include "must.h"

struct input {
	const uint8_t *at;
	size_t left;
};

static long fetch(void *ctx, void *buf, size_t len)
{
	struct input *in = ctx;
	size_t n = len < in->left ? len : in->left;

	memcpy(buf, in->at, n);
	in->at += n;
	in->left -= n;
	return (long)n;
}

static void check_dir(const struct tree *t, const struct node *d)
{
	unsigned names = 0, dirs = 0;

	MUST(S_ISDIR(d->mode) && d->depth <= TREE_MAX_DEPTH);
	for (const struct name *n = d->first; n; n = n->next) {
		if (!n->node)
			continue;
		names++;
		MUST(n->dir == d && strlen(n->text) <= TREE_MAX_NAME && n->text[0]);
		MUST(!strchr(n->text, '/') && strcmp(n->text, ".") && strcmp(n->text, ".."));
		MUST(tree_find(t, d, n->text) == n->node);
		MUST(n->node->nlink > 0);
		if (!S_ISDIR(n->node->mode))
			continue;
		dirs++;
		MUST(n->node->parent == d && n->node->depth == d->depth + 1);
		check_dir(t, n->node);
	}
	MUST(names == d->nnames && d->nlink == dirs + 2);
}

static void check_refusal(int rc, const struct err *e)
{
	MUST(rc < 0 && e->code == rc && e->text[0]);
}

/* 0: *size bytes in `fd`. */
static int convert(const uint8_t *data, size_t size, int fd, uint64_t *out)
{
	size_t cut = size ? (size - 1) * (data[0] & 0x7f) / 128 : 0;
	struct input in[2] = {{data + 1, cut}, {data + 1 + cut, size ? size - 1 - cut : 0}};
	bool merge = size && data[0] & 0x80;
	static const uint8_t id[16] = {1};
	struct tree tree = {0};
	struct erofs w = {.buf = NULL};
	struct err e = {0};
	int rc = tree_init(&tree, &e);

	if (!rc)
		rc = erofs_begin(&w, fd, &e);
	for (unsigned i = merge ? 0 : 1; i < 2 && !rc; i++) {
		struct source s;
		const struct tar t = {&s, &tree, &w, merge};

		tree.layer++;
		MUST(!source_open(&s, fetch, &in[i], &e));
		rc = tar_read(&t, &e);
		source_close(&s);
	}
	if (!rc)
		check_dir(&tree, tree.root);
	if (!rc)
		rc = erofs_finish(&w, &tree, id, out, &e);
	if (rc)
		check_refusal(rc, &e);
	erofs_free(&w);
	tree_free(&tree);
	return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd[2] = {memfd_create("a", MFD_CLOEXEC), memfd_create("b", MFD_CLOEXEC)};
	uint64_t len[2] = {0};
	int rc = convert(data, size, fd[0], &len[0]);

	MUST(convert(data, size, fd[1], &len[1]) == rc);
	if (!rc) {
		struct stat st;

		MUST(len[0] == len[1] && len[0] && len[0] % EROFS_BLOCK == 0);
		MUST(!fstat(fd[0], &st) && (uint64_t)st.st_size == len[0]);
		if (len[0] <= 64u << 20) {
			void *a = mmap(NULL, len[0], PROT_READ, MAP_PRIVATE, fd[0], 0);
			void *b = mmap(NULL, len[0], PROT_READ, MAP_PRIVATE, fd[1], 0);

			MUST(a != MAP_FAILED && b != MAP_FAILED && !memcmp(a, b, len[0]));
			munmap(a, len[0]);
			munmap(b, len[0]);
		}
	}
	close(fd[0]);
	close(fd[1]);
	return 0;
}
