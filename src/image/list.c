/* SPDX-License-Identifier: BSD-2-Clause */
/* The images of the store, for insulactl (insula/image.h). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/image.h>

#include "store.h"

#define DIGITS_MIN 6

static int open_own(struct store *s, char dir[IMAGE_PATH_MAX], struct err *e)
{
	int rc = image_store_dir(dir, e);

	*s = (struct store){.cache = {.dir = -1, .tmp = -1}, .lock = -1};
	return rc ? rc : store_open(s, dir, e);
}

static int take_one(struct store_image *from, struct image_listed *to, struct err *e)
{
	*to = (struct image_listed){.bytes = from->bytes,
				    .used = from->used,
				    .in_use = from->in_use,
				    .complete = from->complete};
	snprintf(to->digest, sizeof(to->digest), "sha256:%s", from->hex);
	to->reference = calloc(from->nrefs + 1, sizeof(char *));
	if (!to->reference)
		return err_set(e, -ENOMEM, "out of memory");
	for (unsigned i = 0; i < from->nrefs; i++)
		to->reference[i] = from->ref[i];
	from->nrefs = 0; /* they have moved */
	return 0;
}

int image_list(struct image_listed **list, size_t *n, struct err *e)
{
	char dir[IMAGE_PATH_MAX];
	struct store_list all = {.n = 0};
	struct store s;
	int rc = open_own(&s, dir, e);

	*list = NULL;
	*n = 0;
	if (!rc)
		rc = store_images(&s, &all, e);
	if (!rc) {
		*list = calloc(all.n + 1, sizeof(**list));
		rc = *list ? 0 : err_set(e, -ENOMEM, "out of memory");
		for (; !rc && *n < all.n; (*n)++)
			rc = take_one(&all.image[*n], &(*list)[*n], e);
		store_list_free(&all);
	}
	if (rc) {
		image_list_free(*list, *n);
		*list = NULL;
		*n = 0;
	}
	store_close(&s);
	return rc;
}

void image_list_free(struct image_listed *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		for (char **r = list[i].reference; r && *r; r++)
			free(*r);
		free((void *)list[i].reference);
	}
	free(list);
}

/* "docker://x" is also found as "x". */
static bool is_named(const struct image_listed *i, const char *name)
{
	static const char docker[] = "docker://";

	for (char **r = i->reference; *r; r++) {
		if (!strcmp(*r, name) || (!strncmp(*r, docker, sizeof(docker) - 1) &&
					  !strcmp(*r + sizeof(docker) - 1, name)))
			return true;
	}
	return false;
}

static bool has_digits(const struct image_listed *i, const char *name)
{
	const char *hex = strncmp(name, "sha256:", 7) ? name : name + 7;

	return strlen(hex) >= DIGITS_MIN && !strncmp(i->digest + 7, hex, strlen(hex));
}

int image_remove(const char *name, struct err *e)
{
	const struct image_listed *found = NULL;
	struct image_listed *list;
	char dir[IMAGE_PATH_MAX];
	struct store s;
	size_t n, named = 0;
	int rc = image_list(&list, &n, e);

	if (rc)
		return rc;
	for (size_t i = 0; i < n; i++) {
		if (is_named(&list[i], name) || has_digits(&list[i], name)) {
			found = &list[i];
			named++;
		}
	}
	if (!named)
		rc = err_set(e, -ENOENT, "%.100s: no such image", name);
	else if (named > 1)
		rc = err_set(e, -EINVAL, "%.100s: %zu images; expected a digest", name, named);
	if (!rc)
		rc = open_own(&s, dir, e);
	if (!rc) {
		rc = store_remove(&s, found->digest + 7, e);
		store_close(&s);
	}
	image_list_free(list, n);
	return rc;
}

int image_prune(bool all, uint64_t *bytes, struct err *e)
{
	char dir[IMAGE_PATH_MAX];
	uint64_t limit = 0;
	struct store s;
	int rc = all ? 0 : store_limit(&limit, e);

	if (!rc)
		rc = open_own(&s, dir, e);
	if (rc)
		return rc;
	rc = store_trim(&s, limit, NULL, bytes, e);
	store_close(&s);
	return rc;
}
