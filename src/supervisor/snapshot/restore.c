/* SPDX-License-Identifier: BSD-2-Clause */
/* A VM that goes on from a snapshot. See restore.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>
#include <insula/log.h>

#include "faults.h"
#include "identity.h"
#include "pager.h"
#include "pages.h"
#include "restore.h"
#include "save.h"
#include "snapdir.h"
#include "spec/json.h"
#include "spec/settings.h"
#include "supervisor/vm.h"

#define LOAD_NS(mem) (((mem) >> 24) * 1000000000ull) /* 16 MiB a second */
#define TELL_NS 60000000000ull                       /* the guest's hooks have 10 s each */

#define ORDER_SIZE (8ull << 20)

struct restore {
	struct snapshot snap;
	struct child pager;
	struct restart restart; /* of it, while it serves */
	bool loaded;
	bool lazy;     /* memory is filled when it is touched, and is not whole yet */
	int order;     /* the working set; owned; -1: none */
	uint32_t told; /* the guest is being told that it goes on: its command; 0: it is not */
	bool serves, completing;
	struct identity who;
	bool bus_said; /* by the user, for all devices that do not say their own */
	bool damaged;  /* the snapshot; no other insula-pager reads it either */
};

/* ---- the configuration ---- */

/* What becomes of a setting that the snapshot has. */
enum use {
	USE_NOT,     /* it was for the beginning, or for a command */
	USE_MACHINE, /* the guest has seen it: it cannot be another one */
	USE_HOST,    /* it names what is the host's: the user may name another one */
};

static const struct {
	const char *name; /* of the setting */
	enum use use;
} uses[] = {
	{"cpus", USE_MACHINE},    {"mem", USE_MACHINE}, {"rng", USE_MACHINE},
	{"balloon", USE_MACHINE}, {"bus", USE_MACHINE}, {"hotplug", USE_MACHINE},
	{"disk", USE_HOST},       {"rootfs", USE_HOST}, {"image", USE_HOST},
	{"net", USE_HOST},        {"share", USE_HOST},  {"device", USE_HOST},
	{"vsock", USE_HOST},
};

/* kernel, initrd, append: they were for the beginning, and cannot be said again. */
static const char *const beginning[] = {"kernel",      "initrd",     "append",
					"rootfs-size", "entrypoint", "vfio",
					"cloud-init",  "template",   "sgx"};

static enum use use_of(const struct setting *s)
{
	for (size_t i = 0; i < ARRAY_LEN(uses); i++) {
		if (!strcmp(uses[i].name, s->name))
			return uses[i].use;
	}
	return USE_NOT;
}

static bool is_given(const struct vm_config *c, const struct setting *s)
{
	return c->given & config_bit(s->name);
}

static int refuse_given(struct vm_config *c, const char *name, const char *why, struct err *e)
{
	c->mistake = (struct mistake){0};
	snprintf(c->mistake.field, sizeof(c->mistake.field), "%s", name);
	snprintf(c->mistake.expected, sizeof(c->mistake.expected), "%s", why);
	return err_set(e, -EINVAL, "--%s: expected %s", name, why);
}

static int check_given(struct vm_config *c, const struct restore *r, struct err *e)
{
	char want[96], size[24], most[24], max[24] = "";
	int64_t places;

	for (size_t i = 0; i < ARRAY_LEN(beginning); i++) {
		const struct setting *s = setting_find(beginning[i]);

		if (s && is_given(c, s))
			return refuse_given(c, s->name,
					    "none with --restore: the guest has booted already", e);
	}
	if (is_given(c, setting_find("cpus")) &&
	    (c->cpus != r->snap.cpus || c->cpus_max != r->snap.cpus_max)) {
		if (r->snap.cpus_max)
			snprintf(max, sizeof(max), ",max=%u", r->snap.cpus_max);
		snprintf(want, sizeof(want), "%u%s, as the snapshot has", r->snap.cpus, max);
		return refuse_given(c, "cpus", want, e);
	}
	if (is_given(c, setting_find("mem")) &&
	    (c->mem != r->snap.mem || c->mem_max != r->snap.mem_max)) {
		snprintf(want, sizeof(want), "%s%s%s, as the snapshot has",
			 size_text(r->snap.mem, size), r->snap.mem_max ? ",max=" : "",
			 r->snap.mem_max ? size_text(r->snap.mem_max, most) : "");
		return refuse_given(c, "mem", want, e);
	}
	/* A number, or its text. */
	places = json_object_get_int64(j_get(j_get(r->snap.machine, "config"), "hotplug"));
	if (is_given(c, setting_find("hotplug")) && c->hotplug != places) {
		snprintf(want, sizeof(want), "%lld, as the snapshot has", (long long)places);
		return refuse_given(c, "hotplug", want, e);
	}
	return 0;
}

static int refuse_unsealed(struct vm_config *c, const struct setting *s, json_object *value,
			   struct err *e)
{
	char what[160];

	snprintf(what, sizeof(what), "%s", j_text(value));
	err_clean(what);
	c->mistake = (struct mistake){.has_value = true};
	snprintf(c->mistake.field, sizeof(c->mistake.field), "restore");
	snprintf(c->mistake.value, sizeof(c->mistake.value), "%s", c->restore);
	return err_set(e, -EINVAL,
		       "--restore: %.80s: was not made by this user on this host, and names %s; "
		       "expected --%s, which says what it shall have",
		       c->restore, what, s->name);
}

/* virtio or a 16550: the guest has its driver. Where it leads is the user's to say. */
static void take_console(struct vm_config *c, json_object *value)
{
	const char *text =
		json_object_is_type(value, json_type_string) ? json_object_get_string(value) : "";

	c->console_virtio = !strncmp(text, "virtio", 6);
}

/* The member goes into `used` if it is to be applied. */
static int choose_member(struct vm_config *c, const struct restore *r, const char *key,
			 json_object *value, json_object *used, struct err *e)
{
	const struct setting *s = setting_of_key(key);
	enum use use = s ? use_of(s) : USE_NOT;

	if (s && !strcmp(s->name, "console") && !is_given(c, s))
		take_console(c, value);
	if (use == USE_NOT || is_given(c, s))
		return 0;
	if (use == USE_HOST && !r->snap.sealed)
		return refuse_unsealed(c, s, value, e);
	j_obj(used, key, json_object_get(value));
	return 0;
}

static int apply(struct vm_config *c, const struct restore *r, struct err *e)
{
	json_object *config = j_get(r->snap.machine, "config"), *used = json_object_new_object();
	const char *text;
	int rc = 0;

	json_object_object_foreach(config, key, value)
	{
		if (!rc)
			rc = choose_member(c, r, key, value, used, e);
	}
	text = j_text(used);
	if (!rc)
		rc = config_json(c, "", text, strlen(text), e);
	json_object_put(used);
	return rc;
}

/* insula-init mounts them where it was told at the boot. */
static int same_shares(struct vm_config *c, const struct vm_config *then, struct err *e)
{
	unsigned i = 0;

	while (i < c->nshares && i < then->nshares &&
	       !strcmp(c->share[i].guest, then->share[i].guest) &&
	       c->share[i].ro == then->share[i].ro && c->share[i].packed == then->share[i].packed)
		i++;
	if (i == c->nshares && i == then->nshares)
		return 0;
	return refuse_given(c, "share",
			    "as many as the snapshot has, each at the same place in the guest, "
			    "read-only and packed as there",
			    e);
}

static int check_shares(struct vm_config *c, const struct restore *r, struct err *e)
{
	json_object *shares = j_get(j_get(r->snap.machine, "config"), "shares");
	json_object *o = json_object_new_object();
	struct vm_config *then = calloc(1, sizeof(*then));
	int rc = then ? 0 : err_set(e, -ENOMEM, "out of memory");

	if (!rc) {
		config_init(then);
		if (shares)
			j_obj(o, "shares", json_object_get(shares));
		rc = config_json(then, "", j_text(o), strlen(j_text(o)), e);
		if (!rc)
			rc = same_shares(c, then, e);
		config_free(then);
	}
	json_object_put(o);
	free(then);
	return rc;
}

/* What the VM is now, for its own snapshots: the snapshot's, and over it what was said. */
static int merge_json(struct vm_config *c, const struct restore *r, struct err *e)
{
	json_object *config = NULL, *own = json_tokener_parse(c->json);
	char *text;

	if (json_object_deep_copy(j_get(r->snap.machine, "config"), &config, NULL))
		config = NULL;
	if (!config || !own) {
		json_object_put(config);
		json_object_put(own);
		return err_set(e, -ENOMEM, "out of memory");
	}
	json_object_object_del(config, "template"); /* it has gone on */
	json_object_object_foreach(own, key, value)
	{
		if (strcmp(key, "restore") != 0 && strcmp(key, "paused") != 0)
			j_obj(config, key, json_object_get(value));
	}
	text = strdup(j_text(config));
	json_object_put(config);
	json_object_put(own);
	if (!text)
		return err_set(e, -ENOMEM, "out of memory");
	free(c->json);
	c->json = text;
	return 0;
}

int restore_take(struct vm_config *c, struct err *e)
{
	struct restore *r = c->restore ? calloc(1, sizeof(*r)) : NULL;
	struct paths paths;
	int rc;

	if (!c->restore)
		return 0;
	if (!r)
		return err_set(e, -ENOMEM, "out of memory");
	c->restoring = r;
	child_none(&r->pager);
	snapshot_none(&r->snap);
	r->order = -1;
	r->bus_said = is_given(c, setting_find("bus"));
	rc = paths_find(&paths, e);
	if (!rc)
		rc = snapshot_open(&r->snap, c->restore, paths.cache, e);
	if (!rc)
		rc = check_given(c, r, e);
	if (!rc)
		rc = apply(c, r, e);
	if (!rc && is_given(c, setting_find("share")))
		rc = check_shares(c, r, e);
	if (!rc && c->json)
		rc = merge_json(c, r, e);
	if (rc)
		return rc;
	c->cpus = r->snap.cpus;
	c->cpus_max = r->snap.cpus_max;
	c->mem = r->snap.mem;
	c->mem_max = r->snap.mem_max;
	c->serve = j_get_bool(r->snap.machine, "agent", false);
	if (c->command && !c->serve)
		return err_set(e, -EINVAL,
			       "command: the guest of this snapshot has no agent that "
			       "could run one; expected none");
	if (c->hostname && !c->serve)
		return refuse_given(c, "hostname",
				    "none: the guest of this snapshot has no agent that could "
				    "set it",
				    e);
	return 0;
}

const char *restore_metadata(const struct vm_config *c)
{
	return c->restoring && !is_given(c, setting_find("metadata"))
		       ? j_get_str(c->restoring->snap.machine, "metadata", NULL)
		       : NULL;
}

bool restore_metadata_open(const struct vm_config *c)
{
	return restore_metadata(c) &&
	       j_get_bool(c->restoring->snap.machine, "metadata_open", false);
}

int restore_fresh(const struct vm_config *c, const struct paths *p, struct err *e)
{
	struct err why;
	int rc = boot_stale(j_get(c->restoring->snap.machine, "booted"), p, &why);

	return rc ? err_set(e, rc, "--restore: %.80s: %s", c->restore, why.text) : 0;
}

void restore_free(struct restore *r)
{
	if (!r)
		return;
	child_free(&r->pager);
	snapshot_close(&r->snap);
	fd_close(&r->order);
	free(r);
}

/* ---- pages and images ---- */

/* Packed directories and layers are the same files, or the guest would find others under what it
 * has mounted. */
static int check_images(struct vm *vm, struct err *e)
{
	json_object *now = boot_images(&vm->boot, vm->conf);
	json_object *then = j_get(vm->conf->restoring->snap.machine, "images");
	bool same = json_object_equal(now, then);

	json_object_put(now);
	return same ? 0
		    : err_set(e, -EINVAL,
			      "--restore: a directory or image that the guest has as its root or "
			      "as a "
			      "share has changed since the snapshot; expected the same");
}

/* The guest may have commands of before yet, and takes one of the same number for one of these that
 * has a new stream. */
static void other_commands(struct vm *vm)
{
	uint32_t first;

	random_bytes(&first, sizeof(first));
	vm_execs(vm)->ids = first & INT32_MAX;
}

bool restore_name_pci(const struct vm *vm, json_object *machine)
{
	json_object *names = json_object_new_array();

	for (unsigned i = 0; i < vm->ndevices; i++) {
		if (device_is_pci(&vm->device[i].desc))
			json_object_array_add(names,
					      json_object_new_string(vm->device[i].desc.name));
	}
	if (json_object_array_length(names)) {
		j_obj(machine, "pci", names);
		return true;
	}
	json_object_put(names);
	return false;
}

/* Disks, cards and the like may be others than they were; where the guest's drivers have them may
 * not. */
int restore_bus(const struct vm_config *c, const char *name, enum config_bus said, bool *pci,
		struct err *e)
{
	const struct restore *r = c->restoring;
	json_object *on_pci = j_get(r->snap.machine, "pci");
	size_t n =
		json_object_is_type(on_pci, json_type_array) ? json_object_array_length(on_pci) : 0;
	bool was = false;

	for (size_t i = 0; i < n && !was; i++) {
		json_object *one = json_object_array_get_idx(on_pci, i);

		was = json_object_is_type(one, json_type_string) &&
		      !strcmp(json_object_get_string(one), name);
	}
	*pci = was;
	if (!said && r->bus_said)
		said = c->bus;
	if (said && (said == CONFIG_BUS_PCI) != was)
		return err_set(e, -EINVAL, "%s: bus=%s; expected %s, as the snapshot has", name,
			       was ? "mmio" : "pci", was ? "pci" : "mmio");
	return 0;
}

static int restore_added(struct vm *vm, struct err *e)
{
	json_object *o = j_get(vm->conf->restoring->snap.machine, "memory");
	int64_t requested = j_get_int(o, "requested", 0), actual = j_get_int(o, "actual", 0);

	return added_restore(&vm->added, (uint64_t)requested, (uint64_t)actual, e);
}

int restore_fill(struct vm *vm, struct err *e)
{
	struct restore *r = vm->conf->restoring;
	int rc = r ? check_images(vm, e) : 0;

	if (r)
		other_commands(vm);
	if (r && !rc && vm_added(vm))
		rc = restore_added(vm, e);
	return r && !rc ? pages_read(vm, r->snap.file[SNAPDIR_DEVICES], e) : rc;
}

int restore_records(const struct vm *vm)
{
	return vm->conf->restoring->snap.file[SNAPDIR_VMM];
}

/* ---- memory ---- */

bool restore_loaded(const struct vm *vm)
{
	return !vm->conf->restoring || vm->conf->restoring->loaded;
}

bool restore_faults(struct vm *vm, const struct child *whose, const struct msg_faults *m, int fd)
{
	struct restore *r = vm->conf->restoring;

	if (!faults_keep(vm, whose, m, fd))
		return false;
	/* One that does not take it is of no use; the next one gets them all. */
	if (r && r->serves && faults_give(vm, &r->pager, whose, m->offset))
		child_shoot(&r->pager);
	return true;
}

static void load_ready(void *ctx)
{
	struct vm *vm = ctx;

	if (child_send(&vm->conf->restoring->pager, MSG_PAGER_GO, NULL, 0, NULL, 0))
		child_shoot(&vm->conf->restoring->pager);
}

/* The first one finds out whether the snapshot looks good. A page that is damaged is found when it
 * is asked for, and the guest cannot go on without it; a disk that cannot be read may come back. */
static bool load_failed(void *ctx, const struct msg_failed *f)
{
	struct vm *vm = ctx;

	vm->conf->restoring->damaged |= f->bad_input;
	if (!vm->running || f->bad_input)
		vm_end(vm, f->bad_input && !vm->running ? RUN_BAD_INPUT : RUN_FAILED,
		       "--restore: %.80s: %s", vm->conf->restore, f->text);
	else
		log_error("insula-pager: %s: %s", f->step, f->text);
	return true;
}

/* It knows what there is to fill. */
static void begin_to_serve(struct vm *vm)
{
	struct restore *r = vm->conf->restoring;

	r->serves = true;
	(void)restart_ready(&r->restart, clock_ns());
	if (faults_give(vm, &r->pager, NULL, 0))
		child_shoot(&r->pager);
	if (r->completing)
		restore_complete(vm);
	r->loaded = true;
	vm_go(vm);
}

static void is_whole(struct vm *vm)
{
	struct restore *r = vm->conf->restoring;

	/* Those who wait have been woken, and find their page. */
	faults_fill(vm, false);
	faults_let_go(vm);
	r->lazy = r->serves = r->completing = false;
	child_shoot(&r->pager);
	log_info("restore: all of the memory is there");
	save_memory_is_whole(vm);
}

static bool load_message(void *ctx, enum msg_type t, const void *body, size_t len)
{
	struct vm *vm = ctx;
	struct restore *r = vm->conf->restoring;
	const struct msg_pager_done *m = body;

	if (t == MSG_STOPPED && !len && r->pager.state == CHILD_STOPPING) {
		r->pager.state = CHILD_DONE;
		return true;
	}
	if (t != MSG_PAGER_DONE || len != sizeof(*m))
		return false;
	if (r->lazy && !r->serves) {
		begin_to_serve(vm);
	} else if (r->completing) {
		is_whole(vm);
	} else if (!r->loaded) {
		log_info("restore: %llu pages of memory", (unsigned long long)m->pages);
		r->loaded = true; /* and when it has ended the helpers start */
		child_shoot(&r->pager);
	} else {
		return false;
	}
	return true;
}

static void load_gone(void *ctx, const struct child_end *end)
{
	struct vm *vm = ctx;
	struct restore *r = vm->conf->restoring;

	if (!r->loaded) {
		vm_end(vm, RUN_FAILED, "insula-pager %s before the guest ran", end->how);
		return;
	}
	if (!r->lazy && !vm->running && !vm->ended) {
		/* Nobody has a file of the snapshot open any more: it may be removed. */
		snapshot_close_files(&r->snap);
		vm_start_helpers(vm);
	}
	if (!r->lazy || r->damaged)
		return;
	r->serves = false;
	log_warn("insula-pager %s: another one takes over", end->how);
	control_event(vm->control, "helper-died", "memory", end->how);
	if (restart_died(&r->restart, clock_ns()))
		log_error("insula-pager %s, %u times in a row: the guest waits for its memory",
			  end->how, RESTART_TELL);
}

static const struct child_ops load_ops = {load_ready, load_failed, load_message, NULL, load_gone};

static int start_load(struct vm *vm, struct err *e)
{
	struct restore *r = vm->conf->restoring;
	return pager_start(vm, &r->pager, &load_ops, r->lazy ? PAGER_SERVE : PAGER_LOAD, false,
			   &r->snap, r->lazy ? r->order : -1,
			   r->lazy ? ORDER_SIZE : memmap_size(&vm->memmap), e);
}

/* ---- the guest is told ---- */

/* Until when: of the time that the guest has run, and its memory may come as it is touched. */
static uint64_t tell_by(const struct vm *vm)
{
	return vm->running && !control_is_paused(vm->control)
		       ? vm->went_on_ns + TELL_NS + LOAD_NS(memmap_size(&vm->memmap))
		       : 0;
}

static void restore_told(struct vm *vm, uint32_t id, const struct msg_exec_exit *x)
{
	struct restore *r = vm->conf->restoring;
	char why[EXEC_TEXT_LEN];
	uint64_t now = clock_ns(), by = tell_by(vm);

	(void)id;
	r->told = 0;
	exec_resumed_why(x, why);
	/* Its random numbers, names and addresses are those of all that go on from the snapshot. */
	if (vm->conf->new_identity && x->end == EXEC_LOST && by && now >= by) {
		vm_end(vm, RUN_FAILED,
		       "--restore: the guest could not be told that it is another one: %s", why);
		return;
	}
	if (why[0])
		log_warn("restore: the guest goes on, but: %s", why);
	if (vm->standing.since_ns)
		control_event(vm->control, "renewed", NULL, why[0] ? why : NULL);
	exec_hold(vm, false);
}

/* Its commands wait until it knows. */
int restore_tell(struct vm *vm, const char *name, struct err *e)
{
	struct restore *r = vm->conf->restoring;

	identity_name(&r->who, vm->conf, name);
	if (!vm_has_agent(vm)) {
		identity_not_told(vm, &r->who);
		return 0;
	}
	exec_hold(vm, true);
	return identity_tell(vm, &r->who, restore_told, &r->told, e);
}

static bool has_back_end(const struct vm *vm)
{
	for (unsigned i = 0; i < vm->ndevices; i++) {
		if (vm->device[i].class->back_end)
			return true;
	}
	return false;
}

int restore_start(struct vm *vm, struct err *e)
{
	struct restore *r = vm->conf->restoring;
	int rc = identity_choose(&r->who, vm, j_get(r->snap.machine, "config"), e);

	if (!rc && !vm->conf->paused)
		rc = restore_tell(vm, vm->conf->vm_name, e);
	if (rc)
		return rc;
	if (vm->conf->paused)
		standing_begin(vm);
	/* What a guest has given back would come back as it was, and not as zeros; and a back end
	 * of another program maps memory without a word to us. */
	r->lazy = vm->faults && !vm_balloon(vm) && !vm_added(vm) && !has_back_end(vm);
	if (!r->lazy) {
		vm->start_limit_ns += LOAD_NS(memmap_size(&vm->memmap));
		return start_load(vm, e);
	}
	faults_fill(vm, true);
	if (r->snap.sealed)
		r->order = pager_order(vm->conf->restore);
	return start_load(vm, e);
}

bool restore_is_whole(const struct vm *vm)
{
	return !vm->conf->restoring || !vm->conf->restoring->lazy;
}

void restore_complete(struct vm *vm)
{
	struct restore *r = vm->conf->restoring;

	r->completing = true;
	if (r->serves)
		(void)child_send(&r->pager, MSG_PAGER_FILL, NULL, 0, NULL, 0);
}

uint64_t restore_deadline(const struct vm *vm)
{
	const struct restore *r = vm->conf->restoring;

	uint64_t next = r && r->lazy && r->loaded ? restart_next(&r->restart) : 0;

	return r && r->told && !vm->ended ? loop_sooner(tell_by(vm), next) : next;
}

void restore_overdue(struct vm *vm)
{
	struct restore *r = vm->conf->restoring;
	uint64_t now = clock_ns(), by = tell_by(vm);
	struct err e;

	if (r->told && by && now >= by && !vm->ended)
		(void)exec_cancel(vm, r->told, "it did not answer in time");
	if (restart_due(&r->restart, now)) {
		restart_started(&r->restart, now);
		if (start_load(vm, &e)) {
			log_error("insula-pager: %s", e.text);
			child_kill(&r->pager);
			(void)restart_died(&r->restart, now);
		}
	} else if (restart_overdue(&r->restart, now)) {
		restart_started(&r->restart, now);
		child_shoot(&r->pager);
	}
}

bool restore_stop(struct vm *vm)
{
	struct restore *r = vm->conf->restoring;

	return r && r->lazy && child_stop(&r->pager);
}

void restore_end(struct vm *vm)
{
	struct restore *r = vm->conf ? vm->conf->restoring : NULL;

	if (r)
		child_kill(&r->pager);
}
