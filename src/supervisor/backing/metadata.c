/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-metadata as a child. See metadata.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/log.h>
#include <insula/metadata.h>

#include "metadata.h"
#include "spec/json.h"
#include "supervisor/snapshot/restore.h"
#include "supervisor/vm.h"

#define METADATA_NOFILE 16
#define FILE_MAX (1u << 20)
/* Of each direction: more than the window of all connections. */
#define FRAMES_BUFFER (256 << 10)

enum { NET_END, OWN_END };

struct metadata_service {
	struct vm *vm;
	const struct net_config *card;
	json_object *tree;
	int pair[2]; /* owned */
	struct child child;
	struct restart restart;
};

/* ---- open ---- */

static const struct net_config *card_of(const struct vm_config *c)
{
	for (unsigned i = 0; i < c->nnets; i++) {
		if (c->net[i].metadata)
			return &c->net[i];
	}
	return c->nnets && (c->metadata || restore_metadata(c)) ? &c->net[0] : NULL;
}

bool metadata_is_open(const struct vm_config *c)
{
	return c->metadata_open || restore_metadata_open(c);
}

static json_object *read_tree(const struct vm_config *c, struct err *e)
{
	const char *saved = restore_metadata(c);
	json_object *o;
	struct err why;
	char *text;
	size_t len;
	int rc;

	if (saved)
		return metadata_parse(saved, strlen(saved), e);
	if (!c->metadata)
		return json_object_new_object();
	rc = text_read(c->metadata, false, FILE_MAX, &text, &len);
	if (rc) {
		err_sys(e, rc, "--metadata: %s", c->metadata);
		return NULL;
	}
	o = metadata_parse(text, len, &why);
	free(text);
	if (!o)
		err_set(e, -EINVAL, "--metadata: %s: %s", c->metadata, why.text);
	return o;
}

static int make_pair(struct metadata_service *m, struct err *e)
{
	int size = FRAMES_BUFFER;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, m->pair))
		return err_sys(e, -errno, "metadata: socketpair");
	for (unsigned i = 0; i < 2; i++)
		setsockopt(m->pair[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	return 0;
}

int metadata_open(struct vm *vm, bool check_only, struct err *e)
{
	const struct net_config *card = card_of(vm->conf);
	struct metadata_service *m;
	int rc = 0;

	if (!card)
		return !vm->conf->metadata
			       ? 0
			       : err_set(e, -EINVAL,
					 "--metadata: no network card; expected --net, too");
	if (card->vhost)
		return err_set(e, -EINVAL,
			       "--metadata: its card has vhost=on; expected metadata on another "
			       "card, or vhost=off");
	m = calloc(1, sizeof(*m));
	if (!m)
		return err_set(e, -ENOMEM, "out of memory");
	vm->metadata = m;
	*m = (struct metadata_service){.vm = vm, .card = card, .pair = {-1, -1}};
	child_none(&m->child);
	m->tree = read_tree(vm->conf, e);
	if (!m->tree)
		return e->code ? e->code : -EINVAL;
	if (!check_only)
		rc = make_pair(m, e);
	return rc ? rc
		  : child_init(&m->child, vm->paths.libexec, "insula-metadata", "", 1,
			       METADATA_NOFILE, e);
}

/* ---- the tree, handed over ---- */

/* A descriptor, the caller's. */
static int tree_fd(const struct metadata_service *m, uint32_t *len, struct err *e)
{
	void *blob = NULL, *at;
	size_t n = 0;
	int rc = metadata_flatten(m->tree, &blob, &n, e), fd = -1;

	if (!rc)
		rc = fd = shm_create("insula-metadata", n, e);
	if (fd >= 0) {
		rc = shm_map(fd, 0, 0, n, true, &at, e);
		if (!rc) {
			memcpy(at, blob, n);
			shm_unmap(at, n);
		}
	}
	free(blob);
	*len = (uint32_t)n;
	if (rc >= 0)
		return fd;
	fd_close(&fd);
	return rc;
}

/* ---- the process ---- */

static void metadata_on_ready(void *ctx)
{
	struct metadata_service *m = ctx;

	if (restart_ready(&m->restart, clock_ns()))
		log_warn("insula-metadata: serves again");
	vm_go(m->vm);
}

static bool metadata_on_failed(void *ctx, const struct msg_failed *f)
{
	struct metadata_service *m = ctx;

	if (m->child.state != CHILD_STARTING)
		return false;
	if (m->vm->running)
		log_error("%s: %s: %s", m->child.name, f->step, f->text);
	else
		vm_end(m->vm, RUN_FAILED, "%s: %s: %s", m->child.name, f->step, f->text);
	return true;
}

static bool metadata_on_message(void *ctx, enum msg_type t, const void *body, size_t len)
{
	(void)ctx;
	(void)t;
	(void)body;
	(void)len;
	return false;
}

static void metadata_on_gone(void *ctx, const struct child_end *end)
{
	struct metadata_service *m = ctx;

	if (m->vm->ended)
		return;
	if (!m->vm->running) {
		vm_end(m->vm, RUN_FAILED, "%s %s before the guest ran", m->child.name, end->how);
		return;
	}
	log_warn("%s %s; it is restarted", m->child.name, end->how);
	control_event(m->vm->control, "helper-died", "metadata", end->how);
	if (restart_died(&m->restart, clock_ns()))
		log_error("%s: has failed; it is tried on", m->child.name);
}

static const struct child_ops metadata_child_ops = {metadata_on_ready, metadata_on_failed,
						    metadata_on_message, NULL, metadata_on_gone};

int metadata_start(struct vm *vm, struct err *e)
{
	struct metadata_service *m = vm->metadata;
	struct msg_start_metadata start = {.log_level = log_most(),
					   .flags = metadata_is_open(vm->conf) ? METADATA_OPEN : 0};
	int fds[2], rc;

	if (!m)
		return 0;
	child_own(&m->child, &vm->loop, &metadata_child_ops, m);
	fds[0] = m->pair[OWN_END];
	rc = fds[1] = tree_fd(m, &start.len, e);
	if (rc < 0)
		return rc;
	rc = child_spawn(&m->child, fds, 2, e);
	if (!rc && (rc = child_send(&m->child, MSG_START_METADATA, &start, sizeof(start), fds, 2)))
		err_sys(e, rc, "insula-metadata: channel");
	close(fds[1]);
	return rc;
}

bool metadata_ready(const struct vm *vm)
{
	return !vm->metadata || vm->metadata->child.state == CHILD_READY;
}

int metadata_net_end(const struct vm *vm, const struct net_config *card)
{
	return vm->metadata && vm->metadata->card == card ? vm->metadata->pair[NET_END] : -1;
}

uint64_t metadata_due(const struct vm *vm)
{
	return vm->metadata && vm->running ? restart_next(&vm->metadata->restart) : 0;
}

void metadata_tend(struct vm *vm)
{
	struct metadata_service *m = vm->metadata;
	uint64_t now = clock_ns();
	struct err e;

	if (restart_due(&m->restart, now)) {
		if (metadata_start(vm, &e)) {
			child_kill(&m->child);
			log_error("%s cannot be started: %s", m->child.name, e.text);
			(void)restart_died(&m->restart, now);
		} else {
			restart_started(&m->restart, now);
		}
	} else if (restart_overdue(&m->restart, now)) {
		log_warn("%s: was not ready in time", m->child.name);
		restart_started(&m->restart, now); /* for its end */
		child_shoot(&m->child);
	}
}

void metadata_stop(struct vm *vm)
{
	if (vm->metadata)
		child_kill(&vm->metadata->child);
}

void metadata_close(struct vm *vm)
{
	struct metadata_service *m = vm->metadata;

	if (!m)
		return;
	child_free(&m->child);
	json_object_put(m->tree);
	fd_close(&m->pair[0]);
	fd_close(&m->pair[1]);
	free(m);
	vm->metadata = NULL;
}

const struct child *metadata_child(const struct vm *vm)
{
	return vm->metadata ? &vm->metadata->child : NULL;
}

/* ---- changes ---- */

json_object *metadata_tree(const struct vm *vm)
{
	return vm->metadata ? vm->metadata->tree : NULL;
}

/* One that starts, or is away, gets it with its start, or a moment later. */
static int send_tree(struct metadata_service *m, struct err *e)
{
	struct msg_metadata_tree t = {0};
	int fd, rc;

	if (m->child.state != CHILD_READY && m->child.state != CHILD_STARTING)
		return 0;
	fd = tree_fd(m, &t.len, e);
	if (fd < 0)
		return fd;
	rc = child_send(&m->child, MSG_METADATA_TREE, &t, sizeof(t), &fd, 1);
	close(fd);
	/* One that does not take it has died, or is about to: the next one starts with this tree. */
	if (rc)
		child_shoot(&m->child);
	return 0;
}

int metadata_change(struct vm *vm, json_object *tree, bool patch, struct err *e)
{
	struct metadata_service *m = vm->metadata;
	json_object *before, *now = NULL;
	int rc;

	if (!m)
		return err_set(e, -EOPNOTSUPP, "this VM has no metadata service");
	if (!json_object_is_type(tree, json_type_object))
		return err_set(e, -EINVAL, "metadata: expected an object of JSON");
	if (patch)
		now = metadata_merge(m->tree, tree);
	else
		(void)json_object_deep_copy(tree, &now, NULL);
	if (!now)
		return err_set(e, -ENOMEM, "out of memory");
	before = m->tree;
	rc = metadata_check(now, e);
	if (!rc) {
		m->tree = now;
		rc = send_tree(m, e);
	}
	if (rc)
		m->tree = before;
	json_object_put(rc ? now : before);
	return rc;
}
