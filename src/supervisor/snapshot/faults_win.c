/* SPDX-License-Identifier: BSD-2-Clause */
/* Windows tells no process of another one's page faults. See faults.h. */
#include <errno.h>

#include <insula/base.h>
#include <insula/log.h>

#include "faults.h"
#include "pager.h"

void faults_begin(struct vm *vm)
{
	(void)vm;
	log_info("snapshots: memory is read and written as a whole: Windows has no userfaultfd");
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

void faults_fill(struct vm *vm, bool fill)
{
	(void)vm, (void)fill;
}

enum start_role faults_role(const struct vm *vm)
{
	(void)vm;
	return START_WATCH;
}

bool faults_keep(struct vm *vm, const struct child *whose, const struct msg_faults *m, int fd)
{
	(void)vm, (void)whose, (void)m, (void)fd;
	return false;
}

void faults_forget(struct vm *vm, const struct child *whose)
{
	(void)vm, (void)whose;
}

bool faults_complete(const struct vm *vm)
{
	(void)vm;
	return false;
}

int faults_give(const struct vm *vm, struct child *pager, const struct child *whose,
		uint64_t offset)
{
	(void)vm, (void)pager, (void)whose, (void)offset;
	return -EOPNOTSUPP;
}

void faults_let_go(struct vm *vm)
{
	(void)vm;
}

/* Nothing is asked for page by page, so there is no order. */
int pager_order(const char *snapshot)
{
	(void)snapshot;
	return -1;
}
