/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The hypervisor contract against the real KVM: the cases of hv_cases.h, and what only KVM has.
 * Without /dev/kvm there is nothing to test, and the program says so; a /dev/kvm that cannot be
 * opened is a failure.
 */
#include <check.h>
#include <cpuid.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "hv/kvm/backend.h"

#define CASES_NO_EVENT(f) ((f)->dev)
#define CASES_PORT_DOORBELLS true
#define CASES_TIME_STOPS false
#define CASES_ERROR_CODE KVM_EXIT_INTERNAL_ERROR
#define CASES_ERROR_TEXT "KVM internal error"
#define CASES_ROOT ""
#define CASES_RECORDS 10
#define CASES_STATE_CANCELS true

static intptr_t cases_open(void)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	ck_assert_msg(fd >= 0, "/dev/kvm cannot be opened");
	return fd;
}

static void cases_close(intptr_t dev)
{
	close((int)dev);
}

#include "hv_cases.h"
#include "hv_state.h"

/* ---- creation ---- */

START_TEST(bad_parameters)
{
	struct hv_vm *vm;
	struct err e;
	int dev = open("/dev/kvm", O_RDWR | O_CLOEXEC), null = open("/dev/null", O_RDWR);
	struct hv_vm_params p = {.dev = null, .ncpus = 1, .nlines = 8};

	ck_assert_int_eq(hv_vm_create(&vm, &p, &e), -ENOTTY);
	ck_assert_ptr_null(vm);
	ck_assert_ptr_nonnull(strstr(e.text, "not a KVM device"));
	p.dev = -1;
	ck_assert_int_eq(hv_vm_create(&vm, &p, &e), -EBADF);
	p.dev = dev;
	p.ncpus = 0;
	ck_assert_int_eq(hv_vm_create(&vm, &p, &e), -EINVAL);
	p.ncpus = HV_MAX_CPUS + 1;
	ck_assert_int_eq(hv_vm_create(&vm, &p, &e), -EINVAL);
	p.ncpus = 1;
	p.nlines = 0;
	ck_assert_int_eq(hv_vm_create(&vm, &p, &e), -EINVAL);
	p.nlines = HV_MAX_LINES + 1;
	ck_assert_int_eq(hv_vm_create(&vm, &p, &e), -EINVAL);
	close(dev);
	close(null);
}
END_TEST

static void other_handler(int sig)
{
	(void)sig;
}

START_TEST(kick_signal_is_not_stolen)
{
	struct sigaction sa = {.sa_handler = other_handler}, old;
	struct hv_vm *vm;
	struct err e;
	struct hv_vm_params p = {.ncpus = 1, .nlines = 8};

	p.dev = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	ck_assert_int_eq(sigaction(HV_KICK_SIGNAL, &sa, &old), 0);
	ck_assert_int_eq(hv_vm_create(&vm, &p, &e), -EBUSY);
	ck_assert_int_eq(sigaction(HV_KICK_SIGNAL, &old, NULL), 0);
	ck_assert_int_eq(hv_vm_create(&vm, &p, &e), 0);
	hv_vm_destroy(vm);
	close((int)p.dev);
}
END_TEST

/* No vCPU without what its guest is told to have. */
START_TEST(enclaves_need_sgx)
{
	struct fixture f = {.dev = cases_open()};
	struct hv_vm_params p = {
		.dev = f.dev, .ncpus = 1, .nlines = 8, .epc_gpa = 1ull << 32, .epc_size = 1 << 20};
	bool sgx = false;

	ck_assert_int_eq(hv_vm_create(&f.vm, &p, &f.e), 0);
	for (unsigned i = 0; i < f.vm->arch.supported->nent; i++) {
		const struct kvm_cpuid_entry2 *n = &f.vm->arch.supported->entries[i];

		sgx |= n->function == 7 && n->index == 0 && (n->ebx & 4);
	}
	ck_assert_int_eq(hv_vcpu_create(f.vm, 0, &f.v[0], &f.e), sgx ? 0 : -EOPNOTSUPP);
	ck_assert_msg(sgx || strstr(f.e.text, "vCPU 0: CPUID: "), "%s", f.e.text);
	hv_vcpu_destroy(f.v[0]);
	hv_vm_destroy(f.vm);
	cases_close(f.dev);
}
END_TEST

START_TEST(device_may_be_closed)
{
	struct fixture f;
	struct hv_vm_params p = {.ncpus = 1, .nlines = 8};

	f.dev = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	p.dev = f.dev;
	ck_assert_int_eq(hv_vm_create(&f.vm, &p, &f.e), 0);
	cases_close(f.dev);
	ck_assert_msg(hv_vcpu_create(f.vm, 0, &f.v[0], &f.e) == 0, "%s", f.e.text);
	hv_vcpu_destroy(f.v[0]);
	hv_vm_destroy(f.vm);
}
END_TEST

/* ---- kicks, errors, the jail's list ---- */

START_TEST(kick_with_the_signal_blocked)
{
	struct fixture f;
	sigset_t set, old;

	sigemptyset(&set);
	sigaddset(&set, HV_KICK_SIGNAL);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	open_vm(&f, 1);
	LOAD(&f, guest_spin);
	run_kicks(f.v[0], 50);
	close_vm(&f);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}
END_TEST

START_TEST(peek_stays_in_its_slot)
{
	struct fixture f;
	uint8_t buf[16];

	open_vm(&f, 1);
	f.ram[RAM_SIZE - 1] = 0xaa;
	ck_assert_uint_eq(kvm_mem_peek(f.vm, RAM_SIZE - 1, buf, 15), 1);
	ck_assert_uint_eq(buf[0], 0xaa);
	ck_assert_uint_eq(kvm_mem_peek(f.vm, RAM_SIZE, buf, 15), 0);
	ck_assert_uint_eq(kvm_mem_peek(f.vm, UINT64_MAX, buf, 15), 0);
	ck_assert_uint_eq(kvm_mem_peek(f.vm, 0x10, buf, 15), 15);
	close_vm(&f);
}
END_TEST

struct parked {
	struct ap ap;
	_Atomic bool kicked, over;
};

/* The first run after hv_vcpu_park() may be canceled. */
static void *parked_thread(void *arg)
{
	struct parked *p = arg;
	bool kicked;

	(void)hv_vcpu_bind(p->ap.v, NULL);
	do {
		kicked = atomic_load(&p->kicked);
		(void)ap_thread(&p->ap);
	} while (p->ap.x.kind == HV_EXIT_CANCELED && !kicked);
	atomic_store(&p->over, true);
	return NULL;
}

/* It is run, and does nothing until it is kicked. */
static void waits_for_its_start(struct hv_vcpu *v)
{
	struct parked p = {.ap.v = v};
	pthread_t t;

	ck_assert_int_eq(pthread_create(&t, NULL, parked_thread, &p), 0);
	usleep(50000);
	ck_assert(!atomic_load(&p.over));
	atomic_store(&p.kicked, true);
	/* One may end a run that was begun before the flag was looked at. */
	while (!atomic_load(&p.over)) {
		hv_vcpu_kick(v);
		usleep(1000);
	}
	pthread_join(t, NULL);
	ck_assert_int_eq(p.ap.x.kind, HV_EXIT_CANCELED);
}

static void starts(struct hv_vcpu *v)
{
	struct parked p = {.ap.v = v};
	pthread_t t;

	ck_assert_int_eq(pthread_create(&t, NULL, parked_thread, &p), 0);
	pthread_join(t, NULL);
	ck_assert_int_eq(p.ap.x.kind, HV_EXIT_PIO);
	ck_assert_uint_eq(p.ap.x.u.pio.port, 0x42);
	ck_assert_int_eq(hv_vcpu_complete(v, &p.ap.x), 0);
}

/* Whatever was sent to it before, and wherever it was. */
START_TEST(parked_cpu)
{
	struct fixture f;

	open_vm(&f, 2);
	LOAD(&f, guest_sipi);
	copy_code(&f, 0x2000, guest_ap, guest_ap_end);
	expect_done(f.v[0]);
	ck_assert_msg(!hv_vcpu_park(f.v[1], &f.e), "%s", f.e.text);
	waits_for_its_start(f.v[1]);
	LOAD(&f, guest_sipi);
	expect_done(f.v[0]);
	starts(f.v[1]);
	/* Behind the access that was its last: the instruction is finished, and forgotten. */
	ck_assert_msg(!hv_vcpu_park(f.v[1], &f.e), "%s", f.e.text);
	waits_for_its_start(f.v[1]);
	ck_assert_msg(!hv_vcpu_park(f.v[1], &f.e), "%s", f.e.text);
	LOAD(&f, guest_sipi);
	expect_done(f.v[0]);
	starts(f.v[1]);
	close_vm(&f);
}
END_TEST

START_TEST(ioctl_list)
{
	const unsigned long *p = hv_ioctls_used(0);
	bool run = false;
	unsigned n = 0;

	for (; p[n]; n++) {
		run = run || p[n] == KVM_RUN;
		ck_assert_uint_eq(_IOC_TYPE(p[n]), KVMIO);
		ck_assert_uint_lt(n, 32);
	}
	ck_assert(run);
}
END_TEST

/* ---- CPUID ---- */

static const struct kvm_cpuid_entry2 *leaf(const struct kvm_cpuid2 *c, uint32_t function,
					   uint32_t index)
{
	for (unsigned i = 0; i < c->nent; i++)
		if (c->entries[i].function == function && c->entries[i].index == index)
			return &c->entries[i];
	return NULL;
}

static unsigned bits_for(unsigned n)
{
	return n <= 1 ? 0 : n <= 2 ? 1 : n <= 4 ? 2 : n <= 8 ? 3 : n <= 16 ? 4 : 5;
}

static void check_topology_leaf(const struct kvm_cpuid2 *c, uint32_t fn, unsigned i, unsigned n)
{
	const struct kvm_cpuid_entry2 *smt = leaf(c, fn, 0), *core = leaf(c, fn, 1);

	ck_assert_ptr_nonnull(smt);
	ck_assert_ptr_nonnull(core);
	ck_assert_uint_eq(smt->eax, 0);
	ck_assert_uint_eq(smt->ebx, 1);
	ck_assert_uint_eq(smt->ecx, 0x100);
	ck_assert_uint_eq(smt->edx, i);
	ck_assert_uint_eq(core->eax, bits_for(n));
	ck_assert_uint_eq(core->ebx, n);
	ck_assert_uint_eq(core->ecx, 0x201);
	ck_assert_uint_eq(core->edx, i);
}

/* What must hold for vCPU i of n, whatever the host. */
static void check_cpuid(const struct kvm_cpuid2 *c, unsigned i, unsigned n, bool tsc_deadline)
{
	const struct kvm_cpuid_entry2 *e = leaf(c, 1, 0);

	ck_assert_uint_eq(e->ebx >> 24, i);
	ck_assert_uint_eq(e->ebx >> 16 & 0xff, 1u << bits_for(n));
	ck_assert((e->edx & 1u << 28) || n == 1); /* some KVMs always set HTT */
	ck_assert(e->ecx & 1u << 31);
	ck_assert(!(e->ecx & 1u << 5));
	ck_assert(!!(e->ecx & 1u << 24) == tsc_deadline);
	if (leaf(c, 0, 0)->eax >= 0xb)
		check_topology_leaf(c, 0xb, i, n);
	if (leaf(c, 0, 0)->eax >= 0x1f)
		check_topology_leaf(c, 0x1f, i, n);
	ck_assert_ptr_null(leaf(c, 0xa, 0));
	e = leaf(c, 0x40000000, 0);
	ck_assert_uint_ge(e->eax, 0x40000001);
	ck_assert_uint_eq(e->ebx, 0x4b4d564b); /* "KVMK" */
	e = leaf(c, 0x80000001, 0);
	ck_assert(!(e->ecx & 1u << 2)); /* no SVM */
}

/* The table that the vCPU really has. */
static void check_vcpu(const struct fixture *f, unsigned i)
{
	struct kvm_cpuid2 *c = kvm_cpuid_alloc();
	int khz = kvm_call_value(f->v[i]->fd, KVM_GET_TSC_KHZ, 0);

	ck_assert_int_eq(kvm_call(f->v[i]->fd, KVM_GET_CPUID2, c), 0);
	check_cpuid(c, i, f->ncpus, f->vm->arch.tsc_deadline);
	if (khz > 0) {
		const struct kvm_cpuid_entry2 *e = leaf(c, 0x40000010, 0);

		ck_assert_ptr_nonnull(e);
		ck_assert_uint_eq(e->eax, (unsigned)khz);
		ck_assert_uint_eq(e->ebx, 1000000);
		ck_assert_uint_ge(leaf(c, 0x40000000, 0)->eax, 0x40000010);
	}
	free(c);
}

START_TEST(cpuid_of_this_host)
{
	static const unsigned counts[] = {1, 2, 3, 8, 32};

	struct fixture f;

	open_vm(&f, counts[_i]);
	for (unsigned i = 0; i < f.ncpus; i++)
		check_vcpu(&f, i);
	close_vm(&f);
}
END_TEST

GUEST(guest_cpuid, "mov $1, %eax\n cpuid\n mov %ebx, %eax\n outl %eax, $0x20\n"
		   "mov $0x40000000, %eax\n cpuid\n mov %ebx, %eax\n outl %eax, $0x21\n" DONE);

START_TEST(cpuid_as_the_guest_sees_it)
{
	struct fixture f;
	struct hv_exit x;
	uint32_t ebx;

	open_vm(&f, 3);
	LOAD(&f, guest_cpuid);
	next_exit(f.v[0], &x);
	ck_assert(x.kind == HV_EXIT_PIO && x.u.pio.port == 0x20);
	memcpy(&ebx, x.u.pio.data, 4);
	ck_assert_uint_eq(ebx >> 24, 0);
	ck_assert_uint_eq(ebx >> 16 & 0xff, 4);
	hv_vcpu_complete(f.v[0], &x);
	expect_out(f.v[0], 0x21, 4, 0x4b4d564b);
	expect_done(f.v[0]);
	close_vm(&f);
}
END_TEST

/* Hosts that this one is not. */
static struct kvm_cpuid2 *made_up(const struct kvm_cpuid_entry2 *from, unsigned n)
{
	struct kvm_cpuid2 *c = kvm_cpuid_alloc();

	memcpy(c->entries, from, n * sizeof(*from));
	c->nent = n;
	return c;
}

START_TEST(cpuid_intel)
{
	static const struct kvm_cpuid_entry2 host[] = {
		{.function = 0,
		 .eax = 0x1f,
		 .ebx = 0x756e6547,
		 .ecx = 0x6c65746e,
		 .edx = 0x49656e69},
		{.function = 1, .ebx = 0x37100800, .ecx = 0xffffffff, .edx = 0xffffffff},
		{.function = 4, .index = 0, .flags = 1, .eax = 0x7c004121},
		{.function = 4, .index = 2, .flags = 1, .eax = 0x7c00c143},
		{.function = 4, .index = 3, .flags = 1, .eax = 0x7c0fc163},
		{.function = 4, .index = 4, .flags = 1},
		{.function = 0xa, .eax = 0x08300805},
		{.function = 0xb, .index = 0, .flags = 1, .ebx = 2, .ecx = 0x100, .edx = 55},
		{.function = 0x1f, .index = 5, .flags = 1, .ebx = 2, .ecx = 0x100, .edx = 55},
		{.function = 0x40000000, .eax = 0x40000001, .ebx = 0x4b4d564b},
		{.function = 0x80000000, .eax = 0x80000008},
		{.function = 0x80000001, .ecx = 0x121},
		{.function = 0x80000008, .eax = 0x3027},
	};
	struct kvm_cpuid_params p = {.index = 2, .ncpus = 3, .tsc_khz = 2100000};
	struct kvm_cpuid2 *c = made_up(host, ARRAY_LEN(host));

	ck_assert_int_eq(kvm_cpuid_build(c, &p), 0);
	check_cpuid(c, 2, 3, false);
	ck_assert_uint_eq(leaf(c, 4, 0)->eax, 0x0c000121); /* private, 4 ids a package */
	ck_assert_uint_eq(leaf(c, 4, 3)->eax, 0x0c00c163); /* shared by 4 ids */
	ck_assert_uint_eq(leaf(c, 4, 4)->eax, 0);
	ck_assert_ptr_null(leaf(c, 0x1f, 5));
	ck_assert_uint_eq(leaf(c, 0x40000010, 0)->eax, 2100000);
	ck_assert_uint_eq(leaf(c, 0x40000000, 0)->eax, 0x40000010);
	ck_assert_uint_eq(leaf(c, 0x80000008, 0)->ecx, 0);
	ck_assert_uint_eq(leaf(c, 0x80000001, 0)->ecx, 0x121);
	ck_assert_ptr_null(leaf(c, 0x8000001e, 0));
	free(c);
}
END_TEST

START_TEST(cpuid_amd)
{
	static const struct kvm_cpuid_entry2 host[] = {
		{.function = 0,
		 .eax = 0x10,
		 .ebx = 0x68747541,
		 .ecx = 0x444d4163,
		 .edx = 0x69746e65},
		{.function = 1, .ebx = 0x37100800, .ecx = 0x20, .edx = 0},
		{.function = 0x40000000, .eax = 0x40000001, .ebx = 0x4b4d564b},
		{.function = 0x80000000, .eax = 0x80000026},
		{.function = 0x80000001, .ecx = 0x11c00007},
		{.function = 0x80000008, .eax = 0x3030, .ebx = 7, .ecx = 0x700f},
		{.function = 0x8000000a, .eax = 1},
		{.function = 0x8000001d, .index = 0, .flags = 1, .eax = 0x4121},
		{.function = 0x8000001d, .index = 3, .flags = 1, .eax = 0x3c163},
		{.function = 0x8000001e, .eax = 55, .ebx = 0x11b, .ecx = 0x100},
		{.function = 0x80000022, .eax = 1},
		{.function = 0x80000026, .index = 0, .flags = 1, .ebx = 2},
	};
	struct kvm_cpuid_params p = {.index = 5, .ncpus = 8, .tsc_deadline = true};
	struct kvm_cpuid2 *c = made_up(host, ARRAY_LEN(host));

	ck_assert_int_eq(kvm_cpuid_build(c, &p), 0);
	check_cpuid(c, 5, 8, true);
	ck_assert_uint_eq(leaf(c, 0x80000001, 0)->ecx, 0x00400003); /* TOPOEXT, CmpLegacy, LAHF */
	ck_assert_uint_eq(leaf(c, 0x80000008, 0)->ecx, 0x3007);
	ck_assert_uint_eq(leaf(c, 0x80000008, 0)->ebx, 7);
	ck_assert_uint_eq(leaf(c, 0x8000001d, 0)->eax, 0x121);
	ck_assert_uint_eq(leaf(c, 0x8000001d, 3)->eax, 0x1c163);
	ck_assert_uint_eq(leaf(c, 0x8000001e, 0)->eax, 5);
	ck_assert_uint_eq(leaf(c, 0x8000001e, 0)->ebx, 5);
	ck_assert_uint_eq(leaf(c, 0x8000001e, 0)->ecx, 0);
	ck_assert_ptr_null(leaf(c, 0x8000000a, 0));
	ck_assert_ptr_null(leaf(c, 0x80000022, 0));
	ck_assert_ptr_null(leaf(c, 0x80000026, 0));
	ck_assert_ptr_null(leaf(c, 0x40000010, 0)); /* frequency unknown */
	free(c);
}
END_TEST

/* What KVM does not say of AMD's first caches the processor says; what it does say stays. */
START_TEST(cpuid_amd_caches)
{
	static const struct kvm_cpuid_entry2 host[] = {
		{.function = 0,
		 .eax = 0x10,
		 .ebx = 0x68747541,
		 .ecx = 0x444d4163,
		 .edx = 0x69746e65},
		{.function = 1},
		{.function = 0x40000000, .eax = 0x40000001, .ebx = 0x4b4d564b},
		{.function = 0x80000000, .eax = 0x8000001e},
		{.function = 0x80000001},
		{.function = 0x80000005},
	};
	struct kvm_cpuid_params p = {.ncpus = 1};
	struct kvm_cpuid2 *c = made_up(host, ARRAY_LEN(host));
	unsigned a, b, l1d, l1i;

	ck_assert_int_eq(__get_cpuid(0x80000005, &a, &b, &l1d, &l1i), 1);
	ck_assert_int_eq(kvm_cpuid_build(c, &p), 0);
	ck_assert_uint_eq(leaf(c, 0x80000005, 0)->ecx, l1d);
	ck_assert_uint_eq(leaf(c, 0x80000005, 0)->edx, l1i);
	free(c);
	c = made_up(host, ARRAY_LEN(host) - 1); /* not at all */
	ck_assert_int_eq(kvm_cpuid_build(c, &p), 0);
	ck_assert_ptr_nonnull(leaf(c, 0x80000005, 0));
	free(c);
	c = made_up(host, ARRAY_LEN(host));
	c->entries[5].ecx = 0x20080140;
	ck_assert_int_eq(kvm_cpuid_build(c, &p), 0);
	ck_assert_uint_eq(leaf(c, 0x80000005, 0)->ecx, 0x20080140);
	ck_assert_uint_eq(leaf(c, 0x80000005, 0)->edx, 0);
	free(c);
}
END_TEST

START_TEST(cpuid_single)
{
	static const struct kvm_cpuid_entry2 host[] = {
		{.function = 0,
		 .eax = 0xd,
		 .ebx = 0x68747541,
		 .ecx = 0x444d4163,
		 .edx = 0x69746e65},
		{.function = 1, .ebx = 0x37100800, .edx = 1u << 28},
		{.function = 0x80000000, .eax = 0x80000008},
		{.function = 0x80000001, .ecx = 3},
		{.function = 0x80000008, .ecx = 0x700f},
	};
	struct kvm_cpuid_params p = {.index = 0, .ncpus = 1, .tsc_khz = 1};
	struct kvm_cpuid2 *c = made_up(host, ARRAY_LEN(host));

	ck_assert_int_eq(kvm_cpuid_build(c, &p), 0);
	ck_assert_uint_eq(leaf(c, 1, 0)->ebx, 0x00010800);
	ck_assert_uint_eq(leaf(c, 1, 0)->edx, 0);
	ck_assert_uint_eq(leaf(c, 0x80000001, 0)->ecx, 1);
	ck_assert_uint_eq(leaf(c, 0x80000008, 0)->ecx, 0);
	ck_assert_ptr_null(leaf(c, 0x8000001e, 0)); /* beyond the highest leaf */
	check_topology_leaf(c, 0xb, 0, 1);
	free(c);
}
END_TEST

/* A host with SGX, as KVM of Linux 5.13 and newer describes it: two sub-leaves, with the
 * provisioning key, and with AMX, which XCR0 here has not. No such processor has run this. */
static const struct kvm_cpuid_entry2 sgx_host[] = {
	{.function = 0, .eax = 0x1f, .ebx = 0x756e6547, .ecx = 0x6c65746e, .edx = 0x49656e69},
	{.function = 1},
	{.function = 7, .index = 0, .flags = 1, .ebx = 0x20000107, .ecx = 0x40000102, .edx = 0x10},
	{.function = 7, .index = 1, .flags = 1, .ebx = 4, .ecx = 1u << 30},
	{.function = 0xd, .index = 0, .flags = 1, .eax = 0x2e7, .edx = 1},
	{.function = 0x12, .index = 0, .flags = 1, .eax = 0x403, .ebx = 1, .edx = 0x381f},
	{.function = 0x12, .index = 1, .flags = 1, .eax = 0x4b6, .ecx = 0x602e5, .edx = 3},
	{.function = 0x80000000, .eax = 0x80000008},
	{.function = 0x80000001},
	{.function = 0x80000008, .eax = 0x302e},
};
#define SGX_GPA 0x4580000000ull
#define SGX_SIZE 0x180400000ull /* its upper half, too */

static void check_entry(struct kvm_cpuid2 *c, unsigned sub, uint32_t a, uint32_t b, uint32_t cx,
			uint32_t d)
{
	const struct kvm_cpuid_entry2 *n = leaf(c, 0x12, sub);

	ck_assert_ptr_nonnull(n);
	ck_assert_uint_eq(n->flags, KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
	ck_assert_uint_eq(n->eax, a);
	ck_assert_uint_eq(n->ebx, b);
	ck_assert_uint_eq(n->ecx, cx);
	ck_assert_uint_eq(n->edx, d);
}

START_TEST(cpuid_without_sgx)
{
	struct kvm_cpuid_params p = {.ncpus = 1, .epc_gpa = SGX_GPA, .epc_kind = 1};
	struct kvm_msr_entry m[KVM_FIRST_MSRS];
	struct kvm_cpuid2 *c = made_up(sgx_host, ARRAY_LEN(sgx_host));

	ck_assert_int_eq(kvm_cpuid_build(c, &p), 0);
	ck_assert_uint_eq(leaf(c, 7, 0)->ebx, 0x20000103);
	ck_assert_uint_eq(leaf(c, 7, 0)->ecx, 0x102);
	ck_assert_uint_eq(leaf(c, 7, 0)->edx, 0x10);
	ck_assert_uint_eq(leaf(c, 7, 1)->ebx, 4); /* means something else there */
	ck_assert_uint_eq(leaf(c, 7, 1)->ecx, 1u << 30);
	for (unsigned i = 0; i < c->nent; i++)
		ck_assert_uint_ne(c->entries[i].function, 0x12);
	ck_assert_uint_eq(kvm_x86_first_msrs(&(struct kvm_arch_vm){.supported = c}, m), 2);
	ck_assert(m[0].index != 0x3a && m[1].index != 0x3a);
	free(c);
}
END_TEST

START_TEST(cpuid_with_sgx)
{
	struct kvm_cpuid_params p = {
		.ncpus = 1, .epc_gpa = SGX_GPA, .epc_size = SGX_SIZE, .epc_kind = 2};
	struct kvm_cpuid2 *c = made_up(sgx_host, ARRAY_LEN(sgx_host));

	ck_assert_int_eq(kvm_cpuid_build(c, &p), 0);
	ck_assert_uint_eq(leaf(c, 7, 0)->ebx, 0x20000107);
	ck_assert_uint_eq(leaf(c, 7, 0)->ecx, 0x40000102);
	check_entry(c, 0, 0x403, 1, 0, 0x381f);
	check_entry(c, 1, 0x4a6, 0, 0x2e7,
		    1); /* no provisioning key; XCR0, and always x87 and SSE */
	check_entry(c, 2, 0x80000001, 0x45, 0x80400002, 1);
	ck_assert_ptr_null(leaf(c, 0x12, 3)); /* KVM answers 0 */
	free(c);
}
END_TEST

/* A KVM that told of the host's own sections would not tell the guest. Without XSAVE there are x87
 * and SSE alone. */
START_TEST(cpuid_sgx_of_the_host)
{
	struct kvm_cpuid_params p = {.ncpus = 1, .epc_gpa = SGX_GPA, .epc_size = 0x100000};
	struct kvm_cpuid2 *c = made_up(sgx_host, ARRAY_LEN(sgx_host));

	c->entries[4] = (struct kvm_cpuid_entry2){
		.function = 0x12, .index = 2, .flags = 1, .eax = 0x70200001, .ecx = 0x5d80001};
	c->entries[3] = (struct kvm_cpuid_entry2){
		.function = 0x12, .index = 3, .flags = 1, .eax = 0x90200001, .ecx = 0x5d80001};
	ck_assert_int_eq(kvm_cpuid_build(c, &p), 0);
	check_entry(c, 1, 0x4a6, 0, 3, 0);
	check_entry(c, 2, 0x80000001, 0x45, 0x00100000, 0);
	ck_assert_ptr_null(leaf(c, 0x12, 3));
	free(c);
}
END_TEST

START_TEST(cpuid_sgx_is_not_there)
{
	static const unsigned missing[] = {2, 5, 6}; /* of sgx_host: leaf 7, sub-leaves 0 and 1 */
	struct kvm_cpuid_params p = {.ncpus = 1, .epc_gpa = SGX_GPA, .epc_size = SGX_SIZE};
	struct kvm_cpuid2 *c;

	for (unsigned i = 0; i < ARRAY_LEN(missing); i++) {
		c = made_up(sgx_host, ARRAY_LEN(sgx_host));
		c->entries[missing[i]].function = 0xffff;
		ck_assert_int_eq(kvm_cpuid_build(c, &p), -EOPNOTSUPP);
		free(c);
	}
	c = made_up(sgx_host, ARRAY_LEN(sgx_host));
	c->entries[2].ebx &= ~4u;
	ck_assert_int_eq(kvm_cpuid_build(c, &p), -EOPNOTSUPP);
	free(c);
}
END_TEST

/* IA32_FEATURE_CONTROL: locked, SGX on, its launch control on if there is any; and nothing else. */
START_TEST(feature_control)
{
	struct kvm_cpuid2 *c = made_up(sgx_host, ARRAY_LEN(sgx_host));
	static struct kvm_arch_vm a;
	struct kvm_msr_entry m[KVM_FIRST_MSRS];

	a.supported = c;
	ck_assert_uint_eq(kvm_x86_first_msrs(&a, m), 2); /* SGX, and no memory for it */
	ck_assert_uint_eq(m[0].index, 0x1a0);
	ck_assert_uint_eq(m[1].index, 0x2ff);
	a.epc_size = SGX_SIZE;
	ck_assert_uint_eq(kvm_x86_first_msrs(&a, m), 3);
	ck_assert_uint_eq(m[1].index, 0x2ff);
	ck_assert_uint_eq(m[2].index, 0x3a);
	ck_assert_uint_eq(m[2].data, 0x60001);
	c->entries[2].ecx = 0;
	ck_assert_uint_eq(kvm_x86_first_msrs(&a, m), 3);
	ck_assert_uint_eq(m[2].data, 0x40001);
	free(c);
}
END_TEST

START_TEST(cpuid_full_table)
{
	struct kvm_cpuid_params p = {.index = 0, .ncpus = 1, .tsc_khz = 1};
	struct kvm_cpuid2 *c = kvm_cpuid_alloc();

	for (unsigned i = 0; i < c->nent; i++)
		c->entries[i] = (struct kvm_cpuid_entry2){.function = 7, .index = i, .flags = 1};
	c->entries[0] = (struct kvm_cpuid_entry2){.function = 0, .eax = 0xb};
	ck_assert_int_eq(kvm_cpuid_build(c, &p), -E2BIG);
	free(c);
}
END_TEST

/* ---- */

static void add_kvm(TCase *t)
{
	add_cases(t);
	add_state(t);
	tcase_add_test(t, bad_parameters);
	tcase_add_test(t, kick_signal_is_not_stolen);
	tcase_add_test(t, device_may_be_closed);
	tcase_add_test(t, enclaves_need_sgx);
	tcase_add_test(t, kick_with_the_signal_blocked);
	tcase_add_test(t, peek_stays_in_its_slot);
	tcase_add_test(t, parked_cpu);
	tcase_add_loop_test(t, cpuid_of_this_host, 0, 5);
	tcase_add_test(t, cpuid_as_the_guest_sees_it);
}

int main(void)
{
	Suite *s = suite_create("hv");
	TCase *pure = tcase_create("pure");
	SRunner *sr;
	int failures;

	tcase_add_test(pure, ioctl_list);
	tcase_add_test(pure, cpuid_intel);
	tcase_add_test(pure, cpuid_amd);
	tcase_add_test(pure, cpuid_amd_caches);
	tcase_add_test(pure, cpuid_single);
	tcase_add_test(pure, cpuid_without_sgx);
	tcase_add_test(pure, cpuid_with_sgx);
	tcase_add_test(pure, cpuid_sgx_of_the_host);
	tcase_add_test(pure, cpuid_sgx_is_not_there);
	tcase_add_test(pure, feature_control);
	tcase_add_test(pure, cpuid_full_table);
	suite_add_tcase(s, pure);
	if (access("/dev/kvm", F_OK) == 0) {
		TCase *kvm = tcase_create("kvm");

		add_kvm(kvm);
		suite_add_tcase(s, kvm);
	} else {
		printf("test_hv: no /dev/kvm here, its tests are skipped\n");
	}
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures != 0;
}
