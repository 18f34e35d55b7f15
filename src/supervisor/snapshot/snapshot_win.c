/* SPDX-License-Identifier: BSD-2-Clause */
/* Windows has no snapshots yet: its hypervisor library cannot read a vCPU's state (insula/hv.h).
 * See save.h and restore.h. */
#include <errno.h>

#include "faults.h"
#include "restore.h"
#include "save.h"

bool save_active(const struct vm *vm)
{
	(void)vm;
	return false;
}

uint64_t save_deadline(const struct vm *vm)
{
	(void)vm;
	return 0;
}

void save_overdue(struct vm *vm)
{
	(void)vm;
}

void save_close(struct vm *vm)
{
	(void)vm;
}

int save_begin(struct vm *vm, const struct save_order *o, struct err *e)
{
	(void)vm, (void)o;
	return err_set(e, -EOPNOTSUPP, "snapshots are not there on Windows yet");
}

void save_paused(struct vm *vm)
{
	(void)vm;
}

void save_records(struct vm *vm, const struct msg_saved *m)
{
	(void)vm, (void)m;
}

void save_quiet(struct vm *vm, const struct device *d, uint32_t no)
{
	(void)vm, (void)d, (void)no;
}

void save_cancel(struct vm *vm, const char *why)
{
	(void)vm, (void)why;
}

void save_helper_died(struct vm *vm, const struct device *d)
{
	(void)vm, (void)d;
}

int restore_take(struct vm_config *c, struct err *e)
{
	(void)c, (void)e; /* the setting is refused here */
	return 0;
}

void restore_free(struct restore *r)
{
	(void)r;
}

int restore_bus(const struct vm_config *c, const char *name, enum config_bus said, bool *pci,
		struct err *e)
{
	(void)c, (void)name, (void)said, (void)pci, (void)e;
	return 0;
}

int restore_fill(struct vm *vm, struct err *e)
{
	(void)vm, (void)e;
	return 0;
}

int restore_records(const struct vm *vm)
{
	(void)vm;
	return -1;
}

int restore_start(struct vm *vm, struct err *e)
{
	(void)vm, (void)e;
	return 0;
}

int restore_tell(struct vm *vm, const char *name, struct err *e)
{
	(void)vm, (void)name, (void)e;
	return 0;
}

bool restore_loaded(const struct vm *vm)
{
	(void)vm;
	return true;
}

bool restore_stop(struct vm *vm)
{
	(void)vm;
	return false;
}

void restore_end(struct vm *vm)
{
	(void)vm;
}

bool restore_is_whole(const struct vm *vm)
{
	(void)vm;
	return true;
}

void faults_begin(struct vm *vm)
{
	(void)vm;
}

void faults_close(struct vm *vm)
{
	(void)vm;
}

int faults_device(const struct vm *vm)
{
	(void)vm;
	return -1;
}

enum start_role faults_role(const struct vm *vm)
{
	(void)vm;
	return START_WATCH;
}

bool restore_faults(struct vm *vm, const struct child *whose, const struct msg_faults *m, int fd)
{
	(void)vm, (void)whose, (void)m, (void)fd;
	return false;
}

void faults_forget(struct vm *vm, const struct child *whose)
{
	(void)vm, (void)whose;
}

uint64_t restore_deadline(const struct vm *vm)
{
	(void)vm;
	return 0;
}

void restore_overdue(struct vm *vm)
{
	(void)vm;
}

const char *save_last(const struct vm *vm)
{
	(void)vm;
	return NULL;
}

void save_remove_temporary(struct vm *vm)
{
	(void)vm;
}

bool save_was_live(const struct vm *vm)
{
	(void)vm;
	return false;
}

uint64_t save_paused_us(const struct vm *vm)
{
	(void)vm;
	return 0;
}
