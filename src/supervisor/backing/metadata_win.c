/* SPDX-License-Identifier: BSD-2-Clause */
/* There is no network card on Windows, and so no metadata service. See metadata.h. */
#include <errno.h>

#include "metadata.h"

int metadata_open(struct vm *vm, bool check_only, struct err *e)
{
	(void)vm;
	(void)check_only;
	(void)e;
	return 0;
}

bool metadata_is_open(const struct vm_config *c)
{
	(void)c;
	return false;
}

int metadata_start(struct vm *vm, struct err *e)
{
	(void)vm;
	(void)e;
	return 0;
}

bool metadata_ready(const struct vm *vm)
{
	(void)vm;
	return true;
}

int metadata_net_end(const struct vm *vm, const struct net_config *card)
{
	(void)vm;
	(void)card;
	return -1;
}

uint64_t metadata_due(const struct vm *vm)
{
	(void)vm;
	return 0;
}

void metadata_tend(struct vm *vm)
{
	(void)vm;
}

void metadata_stop(struct vm *vm)
{
	(void)vm;
}

void metadata_close(struct vm *vm)
{
	(void)vm;
}

const struct child *metadata_child(const struct vm *vm)
{
	(void)vm;
	return NULL;
}

json_object *metadata_tree(const struct vm *vm)
{
	(void)vm;
	return NULL;
}

int metadata_change(struct vm *vm, json_object *tree, bool patch, struct err *e)
{
	(void)vm;
	(void)tree;
	(void)patch;
	return err_set(e, -EOPNOTSUPP, "there is no metadata service on Windows");
}
