/* SPDX-License-Identifier: BSD-2-Clause */
/* See double.h. */
#include <stdio.h>
#include <string.h>

#include <insula/base.h>

#include "double.h"

static struct whp_double *the; /* the platform has one, too */

static void violate(const char *what)
{
	if (!the->violation[0])
		snprintf(the->violation, sizeof(the->violation), "%s", what);
}

/* Is this the call that is to fail? */
static bool refuse(const char *function, whp_hr *hr)
{
	if (!the->fail || strcmp(the->fail, function) != 0)
		return false;
	if (the->skip > 0) {
		the->skip--;
		return false;
	}
	the->fail = NULL;
	the->failed = true;
	*hr = the->fail_hr;
	return true;
}

static void check_partition(void *p, const char *function)
{
	char text[80];

	if (p == the && the->created && !the->deleted)
		return;
	snprintf(text, sizeof(text), "%s: not a partition", function);
	violate(text);
}

static void check_running(void *p, uint32_t index, const char *function)
{
	char text[80];

	check_partition(p, function);
	if (the->set_up && index < DOUBLE_VPS && the->vp[index].exists)
		return;
	snprintf(text, sizeof(text), "%s: no processor %u", function, index);
	violate(text);
}

/* ---- the host ---- */

static whp_hr give(void *buf, uint32_t size, uint32_t *written, const void *v, uint32_t n)
{
	if (size < n)
		return (whp_hr)0x80370301; /* insufficient buffer */
	memcpy(buf, v, n);
	*written = n;
	return 0;
}

static whp_hr get_capability(uint32_t code, void *buf, uint32_t size, uint32_t *written)
{
	whp_hr hr;

	if (refuse("get_capability", &hr))
		return hr;
	switch (code) {
	case WHP_CAP_PRESENT:
		return give(buf, size, written, &the->present, 4);
	case WHP_CAP_FEATURES:
		return give(buf, size, written, &the->features, 8);
	case WHP_CAP_EXITS:
		return give(buf, size, written, &the->exits, 8);
	case WHP_CAP_VENDOR:
		return give(buf, size, written, &the->vendor, 4);
	case WHP_CAP_CLOCK:
		return give(buf, size, written, &the->clock, 8);
	case WHP_CAP_APIC_CLOCK:
		return give(buf, size, written, &the->apic_clock, 8);
	case WHP_CAP_SYNTHETIC:
		if (the->synthetic.banks)
			return give(buf, size, written, &the->synthetic, sizeof(the->synthetic));
		break;
	default:
		break;
	}
	return WHP_E_UNKNOWN_CAPABILITY;
}

/* ---- the partition ---- */

static whp_hr create_partition(void **p)
{
	whp_hr hr;

	if (refuse("create_partition", &hr))
		return hr;
	the->created = true;
	*p = the;
	return 0;
}

static whp_hr setup_partition(void *p)
{
	whp_hr hr;

	check_partition(p, "WHvSetupPartition");
	if (refuse("setup_partition", &hr))
		return hr;
	if (!double_prop(the, WHP_PROP_PROCESSORS))
		violate("WHvSetupPartition before ProcessorCount");
	the->set_up = true;
	return 0;
}

static whp_hr delete_partition(void *p)
{
	check_partition(p, "WHvDeletePartition");
	for (unsigned i = 0; i < DOUBLE_VPS; i++)
		if (the->vp[i].exists)
			violate("WHvDeletePartition with a processor");
	for (unsigned i = 0; i < the->nbells; i++)
		if (the->bell[i].live)
			violate("WHvDeletePartition with a doorbell");
	the->deleted = true;
	return 0;
}

static whp_hr set_property(void *p, uint32_t code, const void *buf, uint32_t size)
{
	struct double_prop *q = &the->prop[the->nprops];
	uint32_t mode;
	whp_hr hr;

	check_partition(p, "WHvSetPartitionProperty");
	if (the->set_up && code != WHP_PROP_TIME)
		violate("WHvSetPartitionProperty after WHvSetupPartition");
	if (size > DOUBLE_PROP_SIZE || the->nprops == DOUBLE_LIST)
		violate("WHvSetPartitionProperty: more than the double holds");
	if (refuse("set_property", &hr))
		return hr;
	if (code == WHP_PROP_TIME) {
		memcpy(&the->time, buf, sizeof(the->time));
		return 0;
	}
	memcpy(&mode, buf, sizeof(mode));
	if (code == WHP_PROP_LAPIC && mode == WHP_LAPIC_X2APIC && the->no_x2apic)
		return WHP_E_INVALIDARG;
	q->code = code;
	q->size = size;
	memcpy(q->value, buf, size < DOUBLE_PROP_SIZE ? size : DOUBLE_PROP_SIZE);
	the->nprops++;
	return 0;
}

/* ---- memory ---- */

static whp_hr map(void *p, void *host, uint64_t gpa, uint64_t size, uint32_t flags)
{
	whp_hr hr;

	check_partition(p, "WHvMapGpaRange");
	if (!the->set_up || ((uintptr_t)host | gpa | size) % 4096 || !size)
		violate("WHvMapGpaRange: before the set-up, or not made of pages");
	if (refuse("map", &hr))
		return hr;
	if (the->nmaps < DOUBLE_LIST)
		the->map[the->nmaps++] = (struct double_map){gpa, size, flags, host};
	return 0;
}

static whp_hr unmap(void *p, uint64_t gpa, uint64_t size)
{
	whp_hr hr;

	check_partition(p, "WHvUnmapGpaRange");
	if (refuse("unmap", &hr))
		return hr;
	for (unsigned i = 0; i < the->nmaps; i++) {
		if (the->map[i].gpa != gpa || the->map[i].size != size)
			continue;
		the->map[i] = the->map[--the->nmaps];
		return 0;
	}
	violate("WHvUnmapGpaRange: not what was mapped");
	return WHP_E_RANGE_NOT_FOUND;
}

static whp_hr query_dirty(void *p, uint64_t gpa, uint64_t size, uint64_t *bitmap, uint32_t bytes)
{
	whp_hr hr;

	check_partition(p, "WHvQueryGpaRangeDirtyBitmap");
	if ((uintptr_t)bitmap % 8 || bytes != (size / 4096 + 63) / 64 * 8)
		violate("WHvQueryGpaRangeDirtyBitmap: size or alignment of the bitmap");
	if (refuse("query_dirty", &hr))
		return hr;
	for (unsigned i = 0; i < the->nmaps; i++) {
		if (the->map[i].gpa != gpa || !(the->map[i].flags & WHP_MAP_DIRTY))
			continue;
		memcpy(bitmap, the->dirty, bytes < sizeof(the->dirty) ? bytes : sizeof(the->dirty));
		memset(the->dirty, 0, sizeof(the->dirty));
		return 0;
	}
	return WHP_E_RANGE_NOT_FOUND;
}

/* ---- processors ---- */

static whp_hr create_vp(void *p, uint32_t index, uint32_t flags)
{
	whp_hr hr;

	check_partition(p, "WHvCreateVirtualProcessor");
	if (!the->set_up || flags || index >= DOUBLE_VPS)
		violate("WHvCreateVirtualProcessor: before the set-up, flags or index");
	if (refuse("create_vp", &hr))
		return hr;
	the->vp[index].exists = true;
	return 0;
}

static whp_hr delete_vp(void *p, uint32_t index)
{
	check_running(p, index, "WHvDeleteVirtualProcessor");
	the->vp[index].exists = false;
	return 0;
}

static bool take_cancel(struct double_vp *v, struct whp_exit *x)
{
	if (!v->canceled)
		return false;
	v->canceled = false;
	x->reason = WHP_EXIT_CANCELED;
	return true;
}

static whp_hr play(struct double_vp *v, struct whp_exit *x)
{
	if (the->at == the->nscript) {
		violate("WHvRunVirtualProcessor: the script is at its end");
		return WHP_E_NOTIMPL;
	}
	*x = the->script[the->at++];
	if (x->reason != DOUBLE_BLOCK)
		return 0;
	pthread_cond_broadcast(&the->changed);
	while (!take_cancel(v, x))
		pthread_cond_wait(&the->changed, &the->lock);
	return 0;
}

static whp_hr run(void *p, uint32_t index, void *exit, uint32_t size)
{
	whp_hr hr;

	check_running(p, index, "WHvRunVirtualProcessor");
	if (size != sizeof(struct whp_exit))
		violate("WHvRunVirtualProcessor: size of the exit");
	pthread_mutex_lock(&the->lock);
	the->runs++;
	if (refuse("run", &hr))
		;
	else if (take_cancel(&the->vp[index], exit)) /* a cancel is kept for the next run */
		hr = 0;
	else
		hr = play(&the->vp[index], exit);
	pthread_mutex_unlock(&the->lock);
	return hr;
}

static whp_hr cancel(void *p, uint32_t index, uint32_t flags)
{
	check_running(p, index, "WHvCancelRunVirtualProcessor");
	if (flags)
		violate("WHvCancelRunVirtualProcessor: flags");
	pthread_mutex_lock(&the->lock);
	the->vp[index].canceled = true;
	the->cancels++;
	pthread_cond_broadcast(&the->changed);
	pthread_mutex_unlock(&the->lock);
	return 0;
}

static struct double_reg *find_reg(struct double_vp *v, uint32_t name)
{
	for (unsigned i = 0; i < v->nregs; i++)
		if (v->reg[i].name == name)
			return &v->reg[i];
	if (v->nregs == DOUBLE_REGS) {
		violate("more registers than the double holds");
		return &v->reg[0];
	}
	v->reg[v->nregs].name = name;
	return &v->reg[v->nregs++];
}

/* Unaligned arrays crash the real one. */
static void check_values(const union whp_value *v, const char *function)
{
	char text[80];

	if ((uintptr_t)v % 16 == 0)
		return;
	snprintf(text, sizeof(text), "%s: values are not aligned", function);
	violate(text);
}

static whp_hr get_registers(void *p, uint32_t index, const uint32_t *names, uint32_t n,
			    union whp_value *v)
{
	whp_hr hr;

	check_running(p, index, "WHvGetVirtualProcessorRegisters");
	check_values(v, "WHvGetVirtualProcessorRegisters");
	if (refuse("get_registers", &hr))
		return hr;
	for (uint32_t i = 0; i < n && the->lacks; i++)
		if (names[i] == the->lacks)
			return (whp_hr)0x80370309; /* invalid register name */
	for (uint32_t i = 0; i < n; i++)
		memcpy((char *)v + i * sizeof(*v), &find_reg(&the->vp[index], names[i])->v,
		       sizeof(*v));
	return 0;
}

/* The local APIC's timer, by its mode. In another one WRMSR of the deadline changes nothing. */
static bool counts_to_deadline(const struct double_vp *v)
{
	return (v->lapic[0x322] & 6) == 4;
}

static whp_hr set_registers(void *p, uint32_t index, const uint32_t *names, uint32_t n,
			    const union whp_value *v)
{
	whp_hr hr;

	check_running(p, index, "WHvSetVirtualProcessorRegisters");
	check_values(v, "WHvSetVirtualProcessorRegisters");
	if (n == 0)
		violate("WHvSetVirtualProcessorRegisters: of nothing");
	if (refuse("set_registers", &hr))
		return hr;
	for (uint32_t i = 0; i < n; i++) {
		struct double_reg *r = find_reg(&the->vp[index], names[i]);
		uint64_t before = r->v.u64;

		if (names[i] == WHP_REG_TSC_DEADLINE && !counts_to_deadline(&the->vp[index]))
			continue;
		memcpy(&r->v, (const char *)v + i * sizeof(*v), sizeof(*v));
		r->written = true;
		if (names[i] == WHP_REG_TSC && the->tsc_moves_adjust)
			find_reg(&the->vp[index], WHP_REG_TSC_ADJUST)->v.u64 += r->v.u64 - before;
		if (names[i] == WHP_REG_TSC_ADJUST && the->adjust_moves_tsc)
			find_reg(&the->vp[index], WHP_REG_TSC)->v.u64 += r->v.u64 - before;
	}
	return 0;
}

/* ---- interrupts and doorbells ---- */

static whp_hr request_interrupt(void *p, const struct whp_interrupt *i, uint32_t size)
{
	whp_hr hr;

	check_partition(p, "WHvRequestInterrupt");
	if (size != sizeof(*i))
		violate("WHvRequestInterrupt: size");
	if (refuse("request_interrupt", &hr))
		return hr;
	pthread_mutex_lock(&the->lock);
	if (the->ninterrupts < DOUBLE_LIST)
		the->interrupt[the->ninterrupts++] = *i;
	pthread_cond_broadcast(&the->changed);
	pthread_mutex_unlock(&the->lock);
	return 0;
}

static struct double_bell *add_bell(const struct whp_doorbell *d, void *event, bool port)
{
	struct double_bell *b = &the->bell[the->nbells];

	if (the->nbells == DOUBLE_LIST) {
		violate("more doorbells than the double holds");
		return &the->bell[0];
	}
	the->nbells++;
	*b = (struct double_bell){*d, event, port, true};
	return b;
}

static whp_hr create_port(void *p, const struct whp_port_params *params, void *event, void **port)
{
	whp_hr hr;

	check_partition(p, "WHvCreateNotificationPort");
	if (params->type != WHP_PORT_DOORBELL)
		violate("WHvCreateNotificationPort: type");
	if (refuse("create_port", &hr))
		return hr;
	*port = add_bell(&params->doorbell, event, true);
	return 0;
}

static whp_hr delete_port(void *p, void *port)
{
	struct double_bell *b = port;

	check_partition(p, "WHvDeleteNotificationPort");
	if (b < the->bell || b >= the->bell + the->nbells || !b->live || !b->port)
		violate("WHvDeleteNotificationPort: no such port");
	else
		b->live = false;
	return 0;
}

static whp_hr register_doorbell(void *p, const struct whp_doorbell *d, void *event)
{
	whp_hr hr;

	check_partition(p, "WHvRegisterPartitionDoorbellEvent");
	if (refuse("register_doorbell", &hr))
		return hr;
	add_bell(d, event, false);
	return 0;
}

static whp_hr unregister_doorbell(void *p, const struct whp_doorbell *d)
{
	check_partition(p, "WHvUnregisterPartitionDoorbellEvent");
	for (unsigned i = 0; i < the->nbells; i++) {
		struct double_bell *b = &the->bell[i];

		if (b->live && !b->port && memcmp(&b->d, d, sizeof(*d)) == 0) {
			b->live = false;
			return 0;
		}
	}
	violate("WHvUnregisterPartitionDoorbellEvent: no such doorbell");
	return WHP_E_INVALIDARG;
}

static whp_hr suspend_time(void *p)
{
	whp_hr hr;

	check_partition(p, "WHvSuspendPartitionTime");
	if (refuse("suspend_time", &hr))
		return hr;
	the->suspensions++;
	return 0;
}

/* ---- state ---- */

static whp_hr get_property(void *p, uint32_t code, void *buf, uint32_t size, uint32_t *written)
{
	whp_hr hr;

	check_partition(p, "WHvGetPartitionProperty");
	if (refuse("get_property", &hr))
		return hr;
	if (code != WHP_PROP_TIME)
		violate("WHvGetPartitionProperty: not the time");
	return give(buf, size, written, &the->time, sizeof(the->time));
}

static whp_hr get_xsave(void *p, uint32_t index, void *buf, uint32_t size, uint32_t *written)
{
	check_running(p, index, "WHvGetVirtualProcessorXsaveState");
	return give(buf, size, written, the->vp[index].xsave, DOUBLE_XSAVE);
}

static whp_hr set_xsave(void *p, uint32_t index, const void *buf, uint32_t size)
{
	check_running(p, index, "WHvSetVirtualProcessorXsaveState");
	if (size != DOUBLE_XSAVE)
		violate("WHvSetVirtualProcessorXsaveState: size");
	memcpy(the->vp[index].xsave, buf, size);
	return 0;
}

static whp_hr get_lapic(void *p, uint32_t index, void *buf, uint32_t size, uint32_t *written)
{
	check_running(p, index, "WHvGetVirtualProcessorInterruptControllerState2");
	return give(buf, size, written, the->vp[index].lapic, DOUBLE_LAPIC);
}

/* Its mode is among the registers: they come first. What is pending goes by what it holds. */
static whp_hr set_lapic(void *p, uint32_t index, const void *buf, uint32_t size)
{
	struct double_vp *v = &the->vp[index];

	check_running(p, index, "WHvSetVirtualProcessorInterruptControllerState2");
	if (size != DOUBLE_LAPIC)
		violate("WHvSetVirtualProcessorInterruptControllerState2: size");
	if (!find_reg(v, WHP_REG_APIC_BASE)->written)
		violate("the local APIC's state before its mode");
	if (find_reg(v, (uint32_t)WHP_REG_ACTIVITY)->written)
		violate("the activity before the local APIC");
	memcpy(v->lapic, buf, size);
	return 0;
}

static whp_hr cpuid(void *p, uint32_t index, uint32_t leaf, uint32_t subleaf, uint32_t r[4])
{
	(void)leaf, (void)subleaf;
	check_running(p, index, "WHvGetVirtualProcessorCpuidOutput");
	r[0] = r[1] = r[2] = r[3] = the->cpuid;
	return 0;
}

/* ---- for the test ---- */

struct whp_api double_api(bool old)
{
	struct whp_api a = {
		get_capability,
		create_partition,
		setup_partition,
		delete_partition,
		set_property,
		map,
		unmap,
		query_dirty,
		create_vp,
		delete_vp,
		run,
		cancel,
		get_registers,
		set_registers,
		request_interrupt,
		create_port,
		delete_port,
		register_doorbell,
		unregister_doorbell,
		suspend_time,
		get_property,
		get_xsave,
		set_xsave,
		get_lapic,
		set_lapic,
		cpuid,
	};

	if (old) {
		a.create_port = NULL;
		a.delete_port = NULL;
		a.suspend_time = NULL;
		a.cpuid = NULL;
	}
	return a;
}

void double_init(struct whp_double *d)
{
	memset(d, 0, sizeof(*d));
	d->present = 1;
	d->vendor = WHP_VENDOR_INTEL;
	d->features = WHP_FEATURE_LAPIC | WHP_FEATURE_DIRTY;
	d->exits = UINT64_MAX;
	d->clock = 2900000000;
	d->apic_clock = 200000000;
	d->synthetic = (struct whp_synthetic){.banks = 1, .bank0 = UINT64_MAX};
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->changed, NULL);
	the = d;
}

void double_end(struct whp_double *d)
{
	pthread_cond_destroy(&d->changed);
	pthread_mutex_destroy(&d->lock);
	the = NULL;
}

union whp_value *double_reg(struct whp_double *d, unsigned vp, uint32_t name)
{
	return &find_reg(&d->vp[vp], name)->v;
}

unsigned double_written(struct whp_double *d, unsigned vp)
{
	unsigned n = 0;

	for (unsigned i = 0; i < d->vp[vp].nregs; i++) {
		n += d->vp[vp].reg[i].written;
		d->vp[vp].reg[i].written = false;
	}
	return n;
}

struct whp_exit *double_push(struct whp_double *d, uint32_t reason)
{
	struct whp_exit *x = &d->script[d->nscript++];

	memset(x, 0, sizeof(*x));
	x->reason = reason;
	return x;
}

const struct double_prop *double_prop(const struct whp_double *d, uint32_t code)
{
	for (unsigned i = 0; i < d->nprops; i++)
		if (d->prop[i].code == code)
			return &d->prop[i];
	return NULL;
}
