/* SPDX-License-Identifier: BSD-2-Clause */
/* Nothing comes while a VM runs on Windows. See plug.h. */
#include <errno.h>

#include "supervisor/plug_state.h"

int plug_back_open(struct plug *p, const char *name, const struct device_class **class,
		   unsigned *nqueues, struct err *e)
{
	(void)p;
	(void)name;
	(void)class;
	(void)nqueues;
	return err_set(e, -EOPNOTSUPP, "hotplug: not on Windows");
}

int plug_back_set(struct plug *p, struct err *e)
{
	(void)p;
	(void)e;
	return 0;
}

int plug_back_ready(struct plug *p, struct err *e)
{
	(void)p;
	(void)e;
	return 1;
}

void plug_back_stop(struct plug *p)
{
	(void)p;
}

uint64_t plug_back_takes(const struct plug *p)
{
	(void)p;
	return 0;
}

const char *plug_back_tty(const struct plug *p)
{
	(void)p;
	return NULL;
}

bool plug_back_quiet(struct plug *p)
{
	(void)p;
	return true;
}

void plug_back_close(struct plug *p)
{
	p->kind = NULL;
}
