/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of methods (methods.c), and the functions that it names: each gets a request whose
 * parameters are as its schema says, and answers it, now or later. */
#ifndef DAEMON_METHODS_H
#define DAEMON_METHODS_H

#include <stdbool.h>
#include <stddef.h>

#include <json-c/json.h>

struct daemon;
struct machine;
struct record;
struct request;

struct method {
	const char *name, *summary;
	void (*run)(struct daemon *d, struct request *r);
	const char *params, *result; /* JSON schemas */
	bool takes_fds;
};
extern const struct method methods[];
extern const size_t nmethods;
const struct method *method_find(const char *name, size_t *index);
/* One whose name is near; NULL: none is. */
const char *method_meant(const char *name);

/* daemon_methods.c */
void method_daemon_info(struct daemon *d, struct request *r);
void method_daemon_metrics(struct daemon *d, struct request *r);
void method_events_subscribe(struct daemon *d, struct request *r);
void method_events_unsubscribe(struct daemon *d, struct request *r);
void method_rpc_discover(struct daemon *d, struct request *r);
/* vm_start.c */
void method_vm_create(struct daemon *d, struct request *r);
void method_vm_start(struct daemon *d, struct request *r);
void method_vm_run(struct daemon *d, struct request *r);
/* What the parameter "config" says is refused. */
struct mistake;
void method_refuse_config(struct request *r, const struct mistake *m, const char *text);
/* Make a VM as vm.run does, from the request's parameters, and start it; the request stays open.
 * NULL: it was refused. */
struct machine *vm_begin_clone(struct daemon *d, struct request *r);
/* vm.run without a pool, with "config". */
void vm_run_now(struct daemon *d, struct request *r);
/* Could a VM, or a VM of this client, have the name? NULL: it will get one. False: refused. */
bool vm_name_is_good(struct request *r, const char *name);
bool vm_name_is_free(struct daemon *d, struct request *r, const char *name);
/* What there is not enough of; `value` may be empty. */
struct vm_shortage {
	const char *field;
	char value[96], expected[96];
};
void vm_refuse_shortage(struct request *r, const struct vm_shortage *s);
/* May it have so many processors, beside the other VMs of its owner? */
bool vm_may_have_cpus(const struct machine *m, unsigned n, struct vm_shortage *s);
/* Is there room for one more VM with this owner, cpus and mem, that runs? */
bool vm_room_for(const struct daemon *d, const struct record *r, struct vm_shortage *s);
/* For one that runs to have `mem` in all. */
bool vm_room_to_grow(const struct daemon *d, struct machine *m, uint64_t mem,
		     struct vm_shortage *s);
/* The parameter "config", validated with insula-run's own code; what a record needs of it goes into
 * `rec`, also when it is refused (false). */
bool vm_take_config(struct request *r, struct record *rec);
/* The same, for nobody. */
bool vm_config_is_good(struct request *r);
/* The streams that came with a request that starts a VM. False: refused. */
bool vm_streams_are_good(struct request *r);
/* vm_device.c */
void method_vm_net_policy(struct daemon *d, struct request *r);
void method_vm_limits(struct daemon *d, struct request *r);
void method_vm_device_restart(struct daemon *d, struct request *r);
void method_vm_device_list(struct daemon *d, struct request *r);
void method_vm_device_add(struct daemon *d, struct request *r);
void method_vm_device_remove(struct daemon *d, struct request *r);
/* vm_resize.c */
/* What a supervisor says of what its guest has: the VM's share follows. */
void vm_resized(struct machine *m, json_object *said);
void method_vm_resize(struct daemon *d, struct request *r);
/* vm_metadata.c */
void method_vm_metadata_get(struct daemon *d, struct request *r);
void method_vm_metadata_set(struct daemon *d, struct request *r);
void method_vm_metadata_patch(struct daemon *d, struct request *r);
/* vm_methods.c */
void method_vm_list(struct daemon *d, struct request *r);
void method_vm_info(struct daemon *d, struct request *r);
void method_vm_metrics(struct daemon *d, struct request *r);
void method_vm_stats(struct daemon *d, struct request *r);
void method_vm_pause(struct daemon *d, struct request *r);
void method_vm_resume(struct daemon *d, struct request *r);
void method_vm_balloon(struct daemon *d, struct request *r);
void method_vm_snapshot(struct daemon *d, struct request *r);
void method_vm_clone(struct daemon *d, struct request *r);
void method_vm_stop(struct daemon *d, struct request *r);
void method_vm_kill(struct daemon *d, struct request *r);
void method_vm_wait(struct daemon *d, struct request *r);
void method_vm_delete(struct daemon *d, struct request *r);
void method_vm_console(struct daemon *d, struct request *r);
/* exec.c */
void method_vm_exec(struct daemon *d, struct request *r);
void method_vm_exec_signal(struct daemon *d, struct request *r);
void method_vm_exec_resize(struct daemon *d, struct request *r);
void method_vm_exec_wait(struct daemon *d, struct request *r);
/* pool_methods.c */
void method_pool_create(struct daemon *d, struct request *r);
void method_pool_list(struct daemon *d, struct request *r);
void method_pool_info(struct daemon *d, struct request *r);
void method_pool_remove(struct daemon *d, struct request *r);
/* logs.c */
void method_vm_logs(struct daemon *d, struct request *r);

#endif
