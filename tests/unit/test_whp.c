/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The Windows backend against the scripted double: what it asks for and in which order, what
 * happens when the platform refuses, and that no kick is lost. test_whp_exits.c: what it makes of
 * each exit, and which registers it writes. test_whp_state.c: the state of a VM.
 */
#include <sched.h>
#include <time.h>

#include "whprig.h"

/* ---- creation ---- */

static uint64_t number(const struct fixture *f, uint32_t code)
{
	const struct double_prop *p = double_prop(&f->d, code);
	uint64_t v = 0;

	ck_assert_ptr_nonnull(p);
	memcpy(&v, p->value, p->size < 8 ? p->size : 8);
	return v;
}

START_TEST(properties)
{
	struct fixture f = {0};
	const struct double_prop *p;
	struct whp_synthetic s;
	uint32_t leaf;

	double_init(&f.d);
	ck_assert_int_eq(create(&f, 3, false), 0);
	ck_assert(f.d.set_up);
	ck_assert_uint_eq(number(&f, WHP_PROP_PROCESSORS), 3);
	ck_assert_uint_eq(number(&f, WHP_PROP_LAPIC), WHP_LAPIC_X2APIC);
	ck_assert_uint_eq(number(&f, WHP_PROP_EXITS), WHP_EXT_CPUID | WHP_EXT_MSR);
	ck_assert_uint_eq(number(&f, WHP_PROP_MSR_BITMAP), WHP_MSR_UNHANDLED);
	ck_assert_uint_eq(number(&f, WHP_PROP_SECURITY_DOMAIN), 1);
	p = double_prop(&f.d, WHP_PROP_CPUID_EXITS);
	ck_assert_uint_eq(p->size % 4, 0);
	memcpy(&leaf, p->value, 4);
	ck_assert_uint_eq(leaf, 1);
	p = double_prop(&f.d, WHP_PROP_SYNTHETIC);
	memcpy(&s, p->value, sizeof(s));
	ck_assert_uint_eq(s.banks, 1);
	ck_assert_uint_eq(s.bank0, 0xb8b);
	hv_vm_destroy(f.vm);
	ck_assert_msg(!f.d.violation[0], "%s", f.d.violation);
	double_end(&f.d);
}
END_TEST

START_TEST(less_of_a_host)
{
	struct fixture f = {0};

	/* What is optional: no x2APIC mode, no MSR exits, no Hyper-V leaves. */
	double_init(&f.d);
	f.d.no_x2apic = true;
	f.d.exits = WHP_EXT_CPUID;
	f.d.synthetic.bank0 &= ~(uint64_t)WHP_SYN_FREQUENCY;
	ck_assert_int_eq(create(&f, 1, true), 0);
	ck_assert_uint_eq(number(&f, WHP_PROP_LAPIC), WHP_LAPIC_XAPIC);
	ck_assert_uint_eq(number(&f, WHP_PROP_EXITS), WHP_EXT_CPUID);
	ck_assert_ptr_null(double_prop(&f.d, WHP_PROP_MSR_BITMAP));
	ck_assert_ptr_null(double_prop(&f.d, WHP_PROP_SYNTHETIC));
	hv_vm_destroy(f.vm);
	double_end(&f.d);
}
END_TEST

static void expect_refusal(struct fixture *f, int code, const char *text)
{
	int r = create(f, 1, false);

	ck_assert_int_eq(r, code);
	ck_assert_ptr_null(f->vm);
	ck_assert_msg(strstr(f->e.text, text) != NULL, "%s", f->e.text);
	ck_assert_msg(!f->d.violation[0], "%s", f->d.violation);
	ck_assert(f->d.deleted == f->d.created);
	double_end(&f->d);
}

START_TEST(hosts_that_cannot)
{
	struct fixture f = {0};
	struct hv_vm_params bad = {.ncpus = 0, .nlines = 1};
	struct whp_api api = double_api(false);

	double_init(&f.d);
	f.d.present = 0;
	expect_refusal(&f, -EOPNOTSUPP, "HypervisorPlatform");
	double_init(&f.d);
	f.d.features = 0;
	expect_refusal(&f, -EOPNOTSUPP, "LocalApicEmulation");
	double_init(&f.d);
	f.d.exits = 0;
	expect_refusal(&f, -EOPNOTSUPP, "X64CpuidExit");
	ck_assert_int_eq(whp_vm_create(&f.vm, &bad, &api, &f.e), -EINVAL);
	bad = (struct hv_vm_params){.ncpus = HV_MAX_CPUS + 1, .nlines = 1};
	ck_assert_int_eq(whp_vm_create(&f.vm, &bad, &api, &f.e), -EINVAL);
	bad = (struct hv_vm_params){.ncpus = 1, .nlines = HV_MAX_LINES + 1};
	ck_assert_int_eq(whp_vm_create(&f.vm, &bad, &api, &f.e), -EINVAL);
	double_init(&f.d);
	bad = (struct hv_vm_params){
		.ncpus = 1, .nlines = 1, .epc_gpa = 1ull << 32, .epc_size = 4096};
	ck_assert_int_eq(whp_vm_create(&f.vm, &bad, &api, &f.e), -EOPNOTSUPP);
	ck_assert_ptr_nonnull(strstr(f.e.text, "memory for enclaves; expected none"));
}
END_TEST

/* Every function of the creation fails in turn, at each of its calls. */
START_TEST(creation_fails)
{
	static const struct {
		const char *function;
		unsigned calls;
		whp_hr hr;
		int code;
	} cases[] = {
		{"create_partition", 1, WHP_E_ACCESSDENIED, -EACCES},
		{"set_property", 7, WHP_E_OUTOFMEMORY, -ENOMEM},
		{"setup_partition", 1, WHP_E_INVALID_CONFIG, -EINVAL},
		{"setup_partition", 1, (whp_hr)0x80001234, -EIO},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		for (unsigned n = 0; n < cases[i].calls; n++) {
			struct fixture f = {0};
			int r;

			double_init(&f.d);
			f.d.fail = cases[i].function;
			f.d.fail_hr = cases[i].hr;
			f.d.skip = n;
			r = create(&f, 1, false);
			ck_assert_msg(f.d.failed, "%s is not called %u times", cases[i].function,
				      n + 1);
			/* The second property has another value to try. */
			if (strcmp(cases[i].function, "set_property") == 0 && n == 1) {
				ck_assert_int_eq(r, 0);
				hv_vm_destroy(f.vm);
			} else {
				ck_assert_int_eq(r, cases[i].code);
				ck_assert_ptr_null(f.vm);
				ck_assert_ptr_nonnull(strstr(f.e.text, "HRESULT 0x8"));
			}
			ck_assert(f.d.deleted == f.d.created);
			ck_assert_msg(!f.d.violation[0], "%s", f.d.violation);
			double_end(&f.d);
		}
	}
}
END_TEST

START_TEST(unknown_properties)
{
	/* The optional ones, by the order in which they are set. */
	for (unsigned n = 4; n < 7; n++) {
		struct fixture f = {0};

		double_init(&f.d);
		f.d.fail = "set_property";
		f.d.fail_hr = n == 4 ? WHP_E_INVALIDARG : WHP_E_UNKNOWN_PROPERTY;
		f.d.skip = n;
		ck_assert_msg(create(&f, 1, false) == 0, "%s", f.e.text);
		ck_assert(f.d.failed && f.d.set_up);
		hv_vm_destroy(f.vm);
		double_end(&f.d);
	}
}
END_TEST

START_TEST(vcpus)
{
	struct fixture f;
	struct hv_vcpu *v;

	open_vm(&f);
	ck_assert_uint_eq(reg(&f, WHP_REG_MTRR_DEF_TYPE), 0x806);
	ck_assert_int_eq(hv_vcpu_create(f.vm, 2, &v, &f.e), -EINVAL);
	ck_assert_int_eq(hv_vcpu_create(f.vm, 0, &v, &f.e), -EEXIST);
	f.d.fail = "set_registers";
	f.d.fail_hr = WHP_E_INVALIDARG;
	ck_assert_int_eq(hv_vcpu_create(f.vm, 1, &v, &f.e), -EINVAL);
	ck_assert_ptr_null(v);
	ck_assert(!f.d.vp[1].exists);
	close_vm(&f);
}
END_TEST

/* ---- memory ---- */

START_TEST(memory_slots)
{
	struct fixture f;
	uint8_t *p = host_pages(2 * HV_PAGE);

	open_vm(&f);
	ck_assert_uint_eq(f.d.map[0].flags,
			  WHP_MAP_READ | WHP_MAP_WRITE | WHP_MAP_EXECUTE | WHP_MAP_DIRTY);
	ck_assert_uint_eq(f.d.map[1].flags, WHP_MAP_READ | WHP_MAP_EXECUTE);
	ck_assert_int_eq(hv_mem_map(f.vm, 2, RAM - 4096, p, 8192, 0, &f.e), -EEXIST);
	ck_assert_int_eq(hv_mem_map(f.vm, 1, 0x50000, p, 4096, 0, &f.e), -EEXIST);
	ck_assert_int_eq(hv_mem_map(f.vm, 2, HV_X86_LAPIC, p, 4096, 0, &f.e), -EEXIST);
	ck_assert_int_eq(hv_mem_map(f.vm, HV_MAX_SLOTS, 0x50000, p, 4096, 0, &f.e), -EINVAL);
	ck_assert_int_eq(hv_mem_map(f.vm, 2, 0x50001, p, 4096, 0, &f.e), -EINVAL);
	ck_assert_int_eq(hv_mem_map(f.vm, 2, 0x50000, p, 4096, 4, &f.e), -EINVAL);
	ck_assert_int_eq(hv_mem_map(f.vm, 2, UINT64_MAX - 4095, p, 8192, 0, &f.e), -EINVAL);
	f.d.fail = "map";
	f.d.fail_hr = WHP_E_OUTOFMEMORY;
	ck_assert_int_eq(hv_mem_map(f.vm, 2, 0x50000, p, 4096, HV_MEM_DIRTY_LOG, &f.e), -ENOMEM);
	ck_assert_int_eq(hv_mem_unmap(f.vm, 2, &f.e), -ENOENT);
	ck_assert_int_eq(hv_mem_map(f.vm, 2, 0x50000, p, 4096, HV_MEM_DIRTY_LOG, &f.e), 0);
	ck_assert_int_eq(hv_mem_unmap(f.vm, 2, &f.e), 0);
	ck_assert_int_eq(hv_mem_unmap(f.vm, 2, &f.e), -ENOENT);
	ck_assert_int_eq(hv_mem_unmap(f.vm, 99, &f.e), -ENOENT);
	ck_assert_uint_eq(f.d.nmaps, 2);
	close_vm(&f);
	host_free_pages(p, 2 * HV_PAGE);
}
END_TEST

/* What the hypervisor saw, and what the emulator wrote, which the hypervisor cannot see. */
START_TEST(dirty_pages)
{
	struct fixture f;
	uint64_t bits = 99;

	open_vm(&f);
	set_reg(&f, X86_RSI, MMIO);
	set_reg(&f, X86_RDI, 0x5ffe); /* into two pages */
	PUSH_MEMORY(&f, 0xa5);
	run(&f, HV_EXIT_MMIO);
	memcpy(f.x.u.mmio.data, "\x11\x22\x33\x44", 4);
	complete(&f);
	ck_assert_mem_eq(f.ram + 0x5ffe, "\x11\x22\x33\x44", 4);
	f.d.dirty[0] = 1 << 2;
	ck_assert_int_eq(hv_mem_dirty(f.vm, 0, &bits, &f.e), 0);
	ck_assert_uint_eq(bits, 1 << 2 | 1 << 5 | 1 << 6);
	ck_assert_int_eq(hv_mem_dirty(f.vm, 0, &bits, &f.e), 0);
	ck_assert_uint_eq(bits, 0);
	ck_assert_int_eq(hv_mem_dirty(f.vm, 1, &bits, &f.e), -ENOENT);
	f.d.fail = "query_dirty";
	f.d.fail_hr = WHP_E_INVALIDARG;
	ck_assert_int_eq(hv_mem_dirty(f.vm, 0, &bits, &f.e), -EINVAL);
	close_vm(&f);
}
END_TEST

START_TEST(no_dirty_tracking)
{
	struct fixture f = {0};
	uint8_t *p = host_pages(4096);

	double_init(&f.d);
	f.d.features = WHP_FEATURE_LAPIC;
	ck_assert_int_eq(create(&f, 1, false), 0);
	ck_assert_int_eq(hv_mem_map(f.vm, 0, 0, p, 4096, HV_MEM_DIRTY_LOG, &f.e), -EOPNOTSUPP);
	ck_assert_int_eq(hv_mem_map(f.vm, 0, 0, p, 4096, 0, &f.e), 0);
	hv_vm_destroy(f.vm);
	double_end(&f.d);
	host_free_pages(p, 4096);
}
END_TEST

/* ---- kicks ---- */

START_TEST(kick_before_run)
{
	struct fixture f;

	open_vm(&f);
	hv_vcpu_kick(f.v);
	run(&f, HV_EXIT_CANCELED);
	ck_assert_uint_eq(f.d.runs, 0);
	/* The cancel itself is still in the hypervisor: it means nothing any more. */
	run(&f, HV_EXIT_NONE);
	push(&f, WHP_EXIT_HALT);
	run(&f, HV_EXIT_HALT);
	close_vm(&f);
}
END_TEST

struct runner {
	struct fixture *f;
	atomic_uint seen, stop;
};

static void *run_until_stopped(void *arg)
{
	struct runner *r = arg;
	struct hv_exit x;

	while (!atomic_load(&r->stop)) {
		pthread_mutex_lock(&r->f->d.lock);
		if (r->f->d.at == r->f->d.nscript)
			r->f->d.at = 0;
		pthread_mutex_unlock(&r->f->d.lock);
		if (hv_vcpu_run(r->f->v, &x) == 0 && x.kind == HV_EXIT_CANCELED)
			atomic_fetch_add(&r->seen, 1);
	}
	return NULL;
}

static bool wait_for(atomic_uint *what, unsigned least)
{
	time_t end = time(NULL) + 10;

	while (atomic_load(what) < least) {
		if (time(NULL) > end)
			return false;
		sched_yield();
	}
	return true;
}

/* The guest never exits by itself: each kick must bring it out, wherever the thread is just then.
 */
START_TEST(no_kick_is_lost)
{
	struct fixture f;
	struct runner r = {.f = &f};
	pthread_t t;

	open_vm(&f);
	double_push(&f.d, DOUBLE_BLOCK);
	ck_assert_int_eq(pthread_create(&t, NULL, run_until_stopped, &r), 0);
	for (unsigned i = 1; i <= 3000; i++) {
		hv_vcpu_kick(f.v);
		ck_assert_msg(wait_for(&r.seen, i), "kick %u is lost", i);
	}
	atomic_store(&r.stop, 1);
	hv_vcpu_kick(f.v);
	pthread_join(t, NULL);
	close_vm(&f);
}
END_TEST

/* ---- time ---- */

START_TEST(time_is_suspended)
{
	struct fixture f;

	open_vm(&f);
	ck_assert_int_eq(hv_vm_suspend_time(f.vm, &f.e), 0);
	ck_assert_uint_eq(f.d.suspensions, 1);
	f.d.fail = "suspend_time";
	f.d.fail_hr = WHP_E_INVALIDARG;
	ck_assert_int_eq(hv_vm_suspend_time(f.vm, &f.e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(f.e.text, "WHvSuspendPartitionTime"));
	hv_vcpu_was_paused(f.v); /* asks nothing of the platform */
	ck_assert_uint_eq(double_written(&f.d, 0), 0);
	close_vm(&f);
	/* An older Windows: time goes on, and that is no error. */
	memset(&f, 0, sizeof(f));
	double_init(&f.d);
	ck_assert_int_eq(create(&f, 1, true), 0);
	ck_assert_int_eq(hv_vm_suspend_time(f.vm, &f.e), 0);
	ck_assert_uint_eq(f.d.suspensions, 0);
	hv_vm_destroy(f.vm);
	double_end(&f.d);
}
END_TEST

/* ---- doorbells ---- */

START_TEST(doorbells)
{
	struct hv_doorbell d = {
		.addr = MMIO + 0x50, .size = 4, .match = true, .value = 1, .event = 77};
	struct hv_doorbell pio = {.pio = true, .addr = 0x600, .size = 1, .event = 78};
	struct hv_doorbell any = {.addr = MMIO + 0x64, .size = 4, .event = 79};
	struct fixture f;

	open_vm(&f);
	ck_assert_int_eq(hv_doorbell_bind(f.vm, &d, &f.e), 0);
	ck_assert_uint_eq(f.d.nbells, 1);
	ck_assert(f.d.bell[0].port && f.d.bell[0].live);
	ck_assert_ptr_eq(f.d.bell[0].event, (void *)77);
	ck_assert_uint_eq(f.d.bell[0].d.gpa, MMIO + 0x50);
	ck_assert_uint_eq(f.d.bell[0].d.length, 4);
	ck_assert_uint_eq(f.d.bell[0].d.match, WHP_MATCH_VALUE | WHP_MATCH_LENGTH);
	ck_assert_int_eq(hv_doorbell_bind(f.vm, &d, &f.e), -EEXIST);
	ck_assert_int_eq(hv_doorbell_bind(f.vm, &pio, &f.e), 0); /* exits; the caller signals */
	ck_assert_uint_eq(f.d.nbells, 1);
	ck_assert_int_eq(hv_doorbell_unbind(f.vm, &pio, &f.e), 0);
	ck_assert_int_eq(hv_doorbell_unbind(f.vm, &pio, &f.e), -ENOENT);
	ck_assert_int_eq(hv_doorbell_bind(f.vm, &any, &f.e), 0);
	ck_assert_uint_eq(f.d.bell[1].d.match, WHP_MATCH_LENGTH);
	ck_assert_int_eq(hv_doorbell_unbind(f.vm, &d, &f.e), 0);
	ck_assert(!f.d.bell[0].live);
	d.size = 3;
	ck_assert_int_eq(hv_doorbell_bind(f.vm, &d, &f.e), -EINVAL);
	d.size = 4;
	f.d.fail = "create_port";
	f.d.fail_hr = WHP_E_OUTOFMEMORY;
	ck_assert_int_eq(hv_doorbell_bind(f.vm, &d, &f.e), -ENOMEM);
	ck_assert_int_eq(hv_doorbell_unbind(f.vm, &d, &f.e), -ENOENT);
	close_vm(&f); /* takes `any` along */
}
END_TEST

START_TEST(older_doorbells)
{
	struct hv_doorbell d = {.addr = MMIO + 0x50, .size = 4, .event = 77};
	struct fixture f = {0};

	double_init(&f.d);
	ck_assert_int_eq(create(&f, 1, true), 0);
	ck_assert_int_eq(hv_doorbell_bind(f.vm, &d, &f.e), 0);
	ck_assert(!f.d.bell[0].port && f.d.bell[0].live);
	ck_assert_int_eq(hv_doorbell_unbind(f.vm, &d, &f.e), 0);
	ck_assert(!f.d.bell[0].live);
	/* Neither way: the write exits, and the caller signals. */
	f.d.fail = "register_doorbell";
	f.d.fail_hr = WHP_E_NOTIMPL;
	ck_assert_int_eq(hv_doorbell_bind(f.vm, &d, &f.e), 0);
	ck_assert_int_eq(hv_doorbell_unbind(f.vm, &d, &f.e), 0);
	hv_vm_destroy(f.vm);
	ck_assert_msg(!f.d.violation[0], "%s", f.d.violation);
	double_end(&f.d);
}
END_TEST

/* ---- interrupts ---- */

START_TEST(messages)
{
	struct fixture f;

	open_vm(&f);
	ck_assert_int_eq(hv_msi_send(f.vm, 0xfee03004, 0x8141), 0);
	ck_assert_uint_eq(f.d.ninterrupts, 1);
	ck_assert_uint_eq(f.d.interrupt[0].control,
			  WHP_INT_LOWEST | WHP_INT_LOGICAL | WHP_INT_LEVEL);
	ck_assert_uint_eq(f.d.interrupt[0].destination, 3);
	ck_assert_uint_eq(f.d.interrupt[0].vector, 0x41);
	/* Nonsense of the guest's is dropped: another address, SMI, INIT, ExtINT. */
	ck_assert_int_eq(hv_msi_send(f.vm, 0x1234, 0x41), 0);
	ck_assert_int_eq(hv_msi_send(f.vm, 0x1fee00000, 0x41), 0);
	ck_assert_int_eq(hv_msi_send(f.vm, 0xfee00000, 0x241), 0);
	ck_assert_int_eq(hv_msi_send(f.vm, 0xfee00000, 0x541), 0);
	ck_assert_int_eq(hv_msi_send(f.vm, 0xfee00000, 0x741), 0);
	ck_assert_uint_eq(f.d.ninterrupts, 1);
	f.d.fail = "request_interrupt";
	f.d.fail_hr = WHP_E_INVALIDARG;
	ck_assert_int_eq(hv_msi_send(f.vm, 0xfee00000, 0x01), 0);
	f.d.fail = "request_interrupt";
	f.d.fail_hr = WHP_E_OUTOFMEMORY;
	ck_assert_int_eq(hv_msi_send(f.vm, 0xfee00000, 0x41), -ENOMEM);
	close_vm(&f);
}
END_TEST

static void wait_interrupts(struct fixture *f, unsigned n)
{
	struct timespec end;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += 10;
	pthread_mutex_lock(&f->d.lock);
	while (f->d.ninterrupts < n)
		ck_assert_int_eq(pthread_cond_timedwait(&f->d.changed, &f->d.lock, &end), 0);
	ck_assert_uint_eq(f->d.ninterrupts, n);
	pthread_mutex_unlock(&f->d.lock);
}

START_TEST(lines)
{
	struct fixture f;
	hv_event ev = host_event();

	open_vm(&f);
	ck_assert_int_eq(hv_irq_route(f.vm, 24, 0xfee00000, 0x30, &f.e), -EINVAL);
	ck_assert_int_eq(hv_irq_bind(f.vm, 24, ev, &f.e), -EINVAL);
	ck_assert_int_eq(hv_irq_unbind(f.vm, 500, ev, &f.e), -EINVAL);
	ck_assert_int_eq(hv_irq_route(f.vm, 5, 0xfee00000, 0x30, &f.e), 0);
	host_ring(ev); /* before the bind: delivered at the bind */
	ck_assert_int_eq(hv_irq_bind(f.vm, 5, ev, &f.e), 0);
	wait_interrupts(&f, 1);
	ck_assert_uint_eq(f.d.interrupt[0].vector, 0x30);
	ck_assert_int_eq(hv_irq_bind(f.vm, 5, ev, &f.e), -EBUSY);
	ck_assert_int_eq(hv_irq_bind(f.vm, 6, ev, &f.e), -EBUSY); /* another line has it */
	ck_assert_int_eq(hv_irq_route(f.vm, 5, 0xfee01000, 0x31, &f.e), 0);
	host_ring(ev);
	wait_interrupts(&f, 2);
	ck_assert_uint_eq(f.d.interrupt[1].vector, 0x31);
	ck_assert_uint_eq(f.d.interrupt[1].destination, 1);
	/* Unbound, the event is a latch. */
	ck_assert_int_eq(hv_irq_unbind(f.vm, 5, ev, &f.e), 0);
	host_ring(ev);
	host_sleep_us(20000);
	ck_assert_uint_eq(f.d.ninterrupts, 2);
	ck_assert_int_eq(hv_irq_bind(f.vm, 5, ev, &f.e), 0);
	wait_interrupts(&f, 3);
	close_vm(&f); /* takes the watch along */
	host_close(ev);
}
END_TEST

int main(void)
{
	/* clang-format off */
	const TTest *const tests[] = {
		properties, less_of_a_host, hosts_that_cannot, creation_fails, unknown_properties, vcpus,
		memory_slots, dirty_pages, no_dirty_tracking,
		kick_before_run, no_kick_is_lost, time_is_suspended,
		doorbells, older_doorbells, messages, lines,
	};
	/* clang-format on */

	return whp_run_all("whp", tests, ARRAY_LEN(tests));
}
