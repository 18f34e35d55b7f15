/* SPDX-License-Identifier: BSD-2-Clause */
/* What machine.json says of a VM. See save.h. */
#include <time.h>

#include "held.h"
#include "restore.h"
#include "save.h"
#include "snapdir.h"
#include "spec/json.h"
#include "supervisor/vm.h"

json_object *save_describe(const struct vm *vm, const char *id)
{
	json_object *o = json_object_new_object();

	j_int(o, "format", restore_name_pci(vm, o) ? SNAPDIR_FORMAT_PCI : SNAPDIR_FORMAT);
	if (held_any(vm))
		j_int(o, "format", SNAPDIR_FORMAT_HELD);
	j_str(o, "insula", INSULA_VERSION);
	j_str(o, "id", id);
	j_int(o, "created", (int64_t)time(NULL));
	j_int(o, "mem", (int64_t)vm->conf->mem);
	if (vm_added(vm))
		j_obj(o, "memory", added_json(&vm->added));
	j_int(o, "cpus", vm->conf->cpus);
	if (vm->conf->cpus_max)
		j_int(o, "cpus_max", vm->conf->cpus_max);
	j_bool(o, "agent", vm_has_agent(vm));
	if (metadata_tree(vm) && metadata_is_open(vm->conf))
		j_bool(o, "metadata_open", true);
	if (metadata_tree(vm))
		j_str(o, "metadata", metadata_text(metadata_tree(vm)));
	j_obj(o, "images", boot_images(&vm->boot, vm->conf));
	if (vm->boot.booted)
		j_obj(o, "booted", json_object_get(vm->boot.booted));
	j_obj(o, "config", json_tokener_parse(vm->conf->json));
	return o;
}
