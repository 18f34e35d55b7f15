/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An image as a VM's root and command. See image.h.
 *
 * The configuration of an image is what its maker wrote: each part goes through the function that
 * takes the text of the user's flag, so that it is refused where that would be, in its words.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/image.h>
#include <insula/log.h>

#include "spec/ending.h"
#include "image.h"
#include "paths.h"

_Static_assert(CONFIG_MAX_LAYERS == IMAGE_LAYERS_MAX, "as many as the VM has places for");
_Static_assert(PULL_MISSING == (int)IMAGE_PULL_MISSING && PULL_ALWAYS == (int)IMAGE_PULL_ALWAYS &&
		       PULL_NEVER == (int)IMAGE_PULL_NEVER,
	       "the same policies");

struct image_use {
	struct image image;
};

/* ---- its configuration ---- */

static unsigned count(char *const *list)
{
	unsigned n = 0;

	while (list && list[n])
		n++;
	return n;
}

/* Entry point and command as Docker joins them: the user's command replaces the image's, another
 * entry point drops it. */
static int take_command(const struct image *i, struct vm_config *c, struct err *e)
{
	char *own[] = {c->entrypoint, NULL}, **entry = c->entrypoint ? own : i->entrypoint;
	char *const *args = c->command ? c->command : c->entrypoint ? NULL : i->cmd;
	unsigned nentry = c->entrypoint && !*c->entrypoint ? 0 : count(entry);
	unsigned nargs = count(args), n = nentry + nargs;
	char **argv;
	int rc;

	if (!n)
		return err_set(e, -EINVAL,
			       "no command, and the image has none; expected one at "
			       "the end of the line");
	argv = calloc(n + 1, sizeof(char *));
	if (!argv)
		return err_set(e, -ENOMEM, "out of memory");
	for (unsigned k = 0; k < n; k++) {
		/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference) */
		argv[k] = strdup(k < nentry ? entry[k] : args[k - nentry]);
		if (!argv[k]) {
			rc = err_set(e, -ENOMEM, "out of memory");
			goto out;
		}
	}
	rc = argv[0][0] ? config_set_command(c, argv, n, e)
			: err_set(e, -EINVAL, "its command is empty; expected a program's name");
out:
	for (unsigned k = 0; k < n; k++)
		free(argv[k]);
	free((void *)argv);
	return rc;
}

int image_apply(const struct image *i, struct vm_config *c, struct err *e)
{
	int rc = take_command(i, c, e);

	if (!rc)
		rc = config_add_defaults(c, i->env, count(i->env), e);

	if (!rc && i->cwd && !c->cwd)
		rc = config_set(c, "its directory", "cwd", i->cwd, e);
	if (!rc && i->user && !c->has_user)
		rc = config_set(c, "its user", "user", i->user, e);
	return rc;
}

/* ---- its files ---- */

/* Disks that the VM has room for besides those that the user named. */
static int room(const struct vm_config *c, unsigned *out, struct err *e)
{
	unsigned others = c->ndisks + c->nshares + (c->rootfs_size ? 1 : 0) + c->seed.on;

	if (others > CONFIG_MAX_DISKS)
		return err_set(e, -EINVAL,
			       "no room for the image's layers beside %u other disks; "
			       "expected at most %d",
			       others, CONFIG_MAX_DISKS);
	*out = CONFIG_MAX_DISKS + 1 - others;
	if (c->bus == CONFIG_BUS_PCI) {
		others = config_pci_devices(c, true);
		if (others >= config_most_pci(c))
			return err_set(e, -EINVAL,
				       "no room for the image's layers beside %u other devices on "
				       "the PCI bus; expected at most %u, and bus=mmio for the "
				       "others",
				       others, config_most_pci(c) - 1);
		if (*out > config_most_pci(c) - others)
			*out = config_most_pci(c) - others;
	}
	if (*out > IMAGE_LAYERS_MAX)
		*out = IMAGE_LAYERS_MAX;
	return 0;
}

static int take_layers(const struct image *i, struct vm_config *c, struct err *e)
{
	for (; c->nlayers < i->nlayers; c->nlayers++) {
		c->layer[c->nlayers] = strdup(i->path[c->nlayers]);
		if (!c->layer[c->nlayers])
			return err_set(e, -ENOMEM, "out of memory");
	}
	return 0;
}

/* ---- the whole ---- */

static int take(struct image *i, struct vm_config *c, bool check_only, struct err *e)
{
	struct paths paths;
	struct image_params p = {.reference = c->image,
				 .pull = (enum image_pull)c->pull,
				 .libexec = paths.libexec,
				 .check_only = check_only,
				 .progress = image_progress_what};
	int rc = paths_find(&paths, e);

	if (!rc)
		rc = room(c, &p.layers, e);
	if (!rc)
		rc = image_open(&p, i, e);
	if (rc || !i->digest[0])
		return rc;
	log_info("image %s: %s, %u layers", c->image, i->digest, i->nlayers);
	rc = image_apply(i, c, e);
	if (!rc)
		rc = take_layers(i, c, e);
	return rc ? rc : config_check(c, e);
}

/* What the user can mend, or the maker of the image, is bad input. */
static int status_of(int rc)
{
	switch (rc) {
	case 0:
		return 0;
	case -ENOMEM:
	case -EMFILE:
	case -ENFILE:
	case -ENOSPC:
	case -EDQUOT:
	case -EIO:
	case -EPERM:
	case -ETIMEDOUT:
	case -EPROTO:
		return RUN_FAILED;
	default:
		return RUN_BAD_INPUT;
	}
}

int image_take(struct image_use **out, struct vm_config *c, bool check_only, struct err *e)
{
	struct image_use *u;
	struct err why;
	int rc;

	*out = NULL;
	if (!c->image)
		return 0;
	u = calloc(1, sizeof(*u));
	if (!u) {
		err_set(e, -ENOMEM, "out of memory");
		return RUN_FAILED;
	}
	*out = u;
	rc = take(&u->image, c, check_only, &why);
	if (rc)
		err_set(e, rc, "--image: %s", why.text);
	return status_of(rc);
}

void image_let_go(struct image_use *u)
{
	if (u)
		image_free(&u->image);
	free(u);
}
