/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Processes that are none: the functions that child_linux.c and child_win.c have. A process says
 * what a case queues for it, and ends when the case wants it. Included once in a test.
 */
#ifndef TEST_FAKECHILD_H
#define TEST_FAKECHILD_H

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "supervisor/child.h"

#define CHILDREN 8u
#define QUEUE 8u
#define SENT 64u

struct fake {
	const struct child *child;
	struct {
		enum msg_type type;
		size_t len;
		_Alignas(8) uint8_t body[sizeof(struct msg_vm_exit)];
	} said[QUEUE];
	unsigned nsaid, heard;
	bool shot, unfit;
	unsigned spawned;
	enum msg_type sent[SENT];
	uint8_t body[SENT][16]; /* as it begins */
	unsigned nsent, nfds;   /* nfds: of the last one */
};

static struct fake fakes[CHILDREN];

static struct fake *fake_of(const struct child *c)
{
	for (unsigned i = 0; i < CHILDREN; i++) {
		if (fakes[i].child == c || !fakes[i].child) {
			fakes[i].child = c;
			return &fakes[i];
		}
	}
	ck_abort_msg("too many children");
	return NULL;
}

static void fake_spawn(struct child *c)
{
	struct fake *f = fake_of(c);

	f->nsaid = f->heard = 0;
	f->shot = false;
	f->spawned++;
	c->state = CHILD_STARTING;
	c->deaf = false;
}

void child_none(struct child *c)
{
	*c = (struct child){.program = NULL};
}

#ifdef _WIN32
void child_init_contained(struct child *c, const char *program, const char *device,
			  enum contain_kind kind)
{
	(void)kind;
	child_name(c, program, device);
}

int child_give(struct child *c, HANDLE h, DWORD access)
{
	(void)c;
	(void)h;
	(void)access;
	return -EPIPE;
}
#else
int child_program(const char *libexec, const char *program, struct err *e)
{
	return err_set(e, -ENOENT, "%s/%s", libexec, program);
}

int child_init(struct child *c, const char *libexec, const char *program, const char *device,
	       unsigned threads, unsigned nofile, struct err *e)
{
	(void)libexec;
	(void)threads;
	(void)nofile;
	(void)e;
	child_name(c, program, device);
	return 0;
}

int child_init_open(struct child *c, int exec_fd, const char *program, const char *device,
		    unsigned threads, unsigned nofile, struct err *e)
{
	(void)exec_fd;
	return child_init(c, "", program, device, threads, nofile, e);
}

int child_adopt(struct child *c, const char *program, pid_t pid, int log, struct err *e)
{
	(void)c;
	(void)pid;
	(void)log;
	return err_set(e, -ENOENT, "%s", program);
}
#endif

int child_spawn(struct child *c, const int *fds, unsigned nfds, struct err *e)
{
	(void)fds;
	(void)nfds;
	(void)e;
	fake_spawn(c);
	return 0;
}

int child_send(struct child *c, enum msg_type type, const void *body, size_t len, const int *fds,
	       unsigned nfds)
{
	struct fake *f = fake_of(c);

	(void)fds;
	if (c->state == CHILD_NONE)
		return -EPIPE;
	f->nfds = nfds;
	if (f->nsent < SENT) {
		memset(f->body[f->nsent], 0, sizeof(f->body[0]));
		if (len)
			memcpy(f->body[f->nsent], body,
			       len < sizeof(f->body[0]) ? len : sizeof(f->body[0]));
		f->sent[f->nsent++] = type;
	}
	return 0;
}

int child_send_new(struct child *c, enum msg_type type, const int *fds, unsigned nfds)
{
	return child_send(c, type, NULL, 0, fds, nfds);
}

int child_os_receive(struct child *c, enum msg_type *type, void *body, size_t size, size_t *len)
{
	struct fake *f = fake_of(c);
	unsigned i = f->heard;

	if (i == f->nsaid)
		return -EAGAIN;
	f->heard++;
	ck_assert_uint_le(f->said[i].len, size);
	memcpy(body, f->said[i].body, f->said[i].len);
	*type = f->said[i].type;
	*len = f->said[i].len;
	return 0;
}

int child_os_came(struct child *c)
{
	(void)c;
	return -1;
}

int child_os_verify(const struct child *c, struct err *e)
{
	return fake_of(c)->unfit ? err_set(e, -EPERM, "no filter") : 0;
}

void child_os_deaf(struct child *c)
{
	(void)c;
}

void child_os_reap(struct child *c, struct child_end *end)
{
	c->state = CHILD_NONE;
	end->status = 1;
	snprintf(end->how, sizeof(end->how), "exited with status 1");
}

bool child_os_wait(struct child *c)
{
	(void)c;
	return true;
}

void child_os_close(struct child *c)
{
	c->state = CHILD_NONE;
}

void child_os_free(struct child *c)
{
	(void)c;
}

bool child_ended(const struct child *c)
{
	return c->state == CHILD_NONE;
}

void child_shoot(const struct child *c)
{
	if (c->state != CHILD_NONE)
		fake_of(c)->shot = true;
}

static void queue(const struct child *c, enum msg_type t, const void *body, size_t len)
{
	struct fake *f = fake_of(c);

	ck_assert_uint_lt(f->nsaid, QUEUE);
	f->said[f->nsaid].type = t;
	f->said[f->nsaid].len = len;
	if (len)
		memcpy(f->said[f->nsaid].body, body, len);
	f->nsaid++;
}

static void says(struct child *c, enum msg_type t, const void *body, size_t len)
{
	queue(c, t, body, len);
	child_hear(c);
}

static unsigned sent(const struct child *c, enum msg_type t)
{
	const struct fake *f = fake_of(c);
	unsigned n = 0;

	for (unsigned i = 0; i < f->nsent; i++)
		n += f->sent[i] == t;
	return n;
}

#endif
