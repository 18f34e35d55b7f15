/* SPDX-License-Identifier: BSD-2-Clause */
/* "image ls|rm|prune": the caller's own store of images, without insulad. See ctl.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <insula/base.h>
#include <insula/image.h>

#include "ctl.h"
#include "spec/json.h"

static int image_fail(const struct err *e)
{
	print_message("", e->text);
	return e->code == -EINVAL                        ? CTL_BAD_INPUT
	       : e->code == -ENOENT || e->code == -EBUSY ? CTL_REFUSED
							 : CTL_FAILED;
}

static void image_json(const struct image_listed *i)
{
	json_object *o = json_object_new_object(), *refs = json_object_new_array();

	for (char **r = i->reference; *r; r++)
		json_object_array_add(refs, json_object_new_string(*r));
	j_obj(o, "references", refs);
	j_str(o, "digest", i->digest);
	j_int(o, "bytes", (int64_t)i->bytes);
	j_int(o, "used", (int64_t)i->used);
	j_bool(o, "in_use", i->in_use);
	j_bool(o, "complete", i->complete);
	print_json(o);
	json_object_put(o);
}

static void size_words(uint64_t bytes, char out[24])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	double n = (double)bytes;
	unsigned u = 0;

	for (; n >= 1024 && u + 1 < ARRAY_LEN(units); u++)
		n /= 1024;
	snprintf(out, 24, n < 10 && u ? "%.1f %s" : "%.0f %s", n, units[u]);
}

static void image_line(const struct image_listed *i, const char *reference, int width)
{
	char size[24], used[32];
	time_t t = (time_t)i->used;
	struct tm tm;

	size_words(i->bytes, size);
	if (!localtime_r(&t, &tm) || !strftime(used, sizeof(used), "%Y-%m-%d %H:%M", &tm))
		snprintf(used, sizeof(used), "-");
	printf("%-*s  %.19s  %9s  %s%s\n", width, print_clean(reference, strlen(reference)),
	       i->digest, size, used,
	       i->in_use      ? "  in use"
	       : !i->complete ? "  layers are missing"
			      : "");
}

static void image_table(const struct image_listed *list, size_t n)
{
	int width = 9;

	for (size_t i = 0; i < n; i++) {
		for (char **r = list[i].reference; *r; r++)
			width = (int)strlen(*r) > width ? (int)strlen(*r) : width;
	}
	printf("%-*s  %-19s  %9s  %s\n", width, "REFERENCE", "DIGEST", "SIZE", "LAST USE");
	for (size_t i = 0; i < n; i++) {
		if (!list[i].reference[0])
			image_line(&list[i], "-", width);
		for (char **r = list[i].reference; *r; r++)
			image_line(&list[i], *r, width);
	}
}

static int image_ls(const struct ctl *c)
{
	struct image_listed *list;
	struct err e;
	size_t n;

	if (image_list(&list, &n, &e))
		return image_fail(&e);
	if (print_is_table(c->json)) {
		image_table(list, n);
	} else {
		for (size_t i = 0; i < n; i++)
			image_json(&list[i]);
	}
	image_list_free(list, n);
	return 0;
}

static int image_rm(int argc, char **argv)
{
	int status = 0;
	struct err e;

	for (int i = 0; i < argc; i++) {
		if (image_remove(argv[i], &e))
			status = image_fail(&e);
		else if (print_is_table(false))
			puts(argv[i]);
	}
	return status;
}

static int image_prune_all(const struct ctl *c, bool all)
{
	uint64_t bytes;
	char size[24];
	struct err e;

	if (image_prune(all, &bytes, &e))
		return image_fail(&e);
	size_words(bytes, size);
	if (print_is_table(c->json))
		printf("%s freed\n", size);
	else
		printf("{\"bytes\":%" PRIu64 "}\n", bytes);
	return 0;
}

int ctl_image(struct ctl *c, int argc, char **argv)
{
	const char *what = argv[1];
	struct err e;

	if (!strcmp(what, "ls") && argc == 2)
		return image_ls(c);
	if (!strcmp(what, "rm") && argc > 2)
		return image_rm(argc - 2, argv + 2);
	if (!strcmp(what, "prune") && argc == 2)
		return image_prune_all(c, c->all);
	err_set(&e, -EINVAL, "image: '%.40s'; expected ls, rm IMAGE... or prune [-a]", what);
	return image_fail(&e);
}
