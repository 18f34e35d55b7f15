/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * --sgx: what is taken and refused, where memory for enclaves lies, and what insula-vmm is told.
 * The hosts with SGX are made up: nothing has run on such a processor.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>
#include <insula/board.h>
#include <insula/log.h>

#include "supervisor/backing/sgx.h"
#include "supervisor/open.h"
#include "supervisor/snapshot/save.h"
#include "supervisor/vm.h"

#define MiB (1ull << 20)
#define GiB (1ull << 30)

static struct vm v; /* large */
static struct vm_config c;
static struct err e;
static const struct sgx_host good = {.sgx = true, .bits = 39, .epc = 256 * MiB};

static void setup(void)
{
	log_setup("test_sgx", LOG_LVL_ERROR);
	config_init(&c);
	memset(&v, 0, sizeof(v));
	v.conf = &c;
	v.epc_fd = v.kvm = v.mem = -1;
}

static void teardown(void)
{
	config_free(&c);
}

static int set(const char *text)
{
	e.text[0] = 0;
	return config_set(&c, "--sgx", "sgx", text, &e);
}

/* ---- the setting ---- */

START_TEST(texts)
{
	ck_assert_uint_eq(c.sgx, 0);
	ck_assert_int_eq(set("64M"), 0);
	ck_assert_uint_eq(c.sgx, 64 * MiB);
	ck_assert_int_eq(set("1052672"), 0); /* 257 pages */
	ck_assert_uint_eq(c.sgx, 257 * 4096);
	ck_assert_int_eq(set("1024G"), 0);
	ck_assert_int_eq(config_check(&c, &e), 0);
}
END_TEST

START_TEST(refused_texts)
{
	static const struct {
		const char *text, *says;
	} bad[] = {
		{"", "--sgx: ''; expected a size from 1M to 1024G, such as 64M"},
		{"64", "--sgx: '64'; expected a size from 1M to 1024G, such as 64M"},
		{"1023K", "--sgx: '1023K'; expected a size from 1M to 1024G, such as 64M"},
		{"1025G", "--sgx: '1025G'; expected a size from 1M to 1024G, such as 64M"},
		{"on", "--sgx: 'on'; expected a size from 1M to 1024G, such as 64M"},
		{"1048577", "--sgx: '1048577'; expected a multiple of 4096 bytes"},
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		ck_assert_int_eq(set(bad[i].text), -EINVAL);
		ck_assert_str_eq(e.text, bad[i].says);
		ck_assert_uint_eq(c.sgx, 0);
	}
}
END_TEST

START_TEST(not_with_snapshots)
{
	ck_assert_int_eq(set("64M"), 0);
	c.template = true;
	ck_assert_int_eq(config_check(&c, &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "--template: expected none with --sgx"));
	ck_assert_str_eq(c.mistake.field, "template");
	c.template = false;
	c.json = strdup("{}");
	v.running = true;
	ck_assert_int_eq(save_refuses(&v, &e), -EOPNOTSUPP);
	ck_assert_ptr_nonnull(strstr(e.text, "sgx: nobody but its processor"));
	c.sgx = 0;
	ck_assert_int_eq(save_refuses(&v, &e), 0);
}
END_TEST

/* ---- the host ---- */

#define ENTRIES 4
union cpuid {
	struct kvm_cpuid2 c;
	uint8_t room[sizeof(struct kvm_cpuid2) + ENTRIES * sizeof(struct kvm_cpuid_entry2)];
};

static void supported(union cpuid *u)
{
	static const struct kvm_cpuid_entry2 host[ENTRIES] = {
		{.function = 7, .ebx = 4},
		{.function = 0x12, .index = 0, .eax = 3},
		{.function = 0x12, .index = 1, .eax = 0x36},
		{.function = 0x80000008, .eax = 0x302e},
	};

	u->c.nent = ENTRIES;
	memcpy(u->c.entries, host, sizeof(host));
}

START_TEST(what_kvm_supports)
{
	struct sgx_host h = {0};
	union cpuid u;

	supported(&u);
	sgx_of_cpuid(&h, &u.c);
	ck_assert(h.sgx);
	ck_assert_uint_eq(h.bits, 46);
	u.c.entries[0].index = 1; /* means something else there */
	sgx_of_cpuid(&h, &u.c);
	ck_assert(!h.sgx);
	for (unsigned i = 0; i < 3; i++) { /* each of them has to be there */
		supported(&u);
		u.c.entries[i].function = 0xffff;
		sgx_of_cpuid(&h, &u.c);
		ck_assert(!h.sgx);
	}
	supported(&u);
	u.c.entries[1].eax = 2; /* SGX2 without SGX1 */
	sgx_of_cpuid(&h, &u.c);
	ck_assert(!h.sgx);
}
END_TEST

START_TEST(sections)
{
	static const uint32_t one[] = {0x70200001, 0, 0x05d80001, 0};
	static const uint32_t large[] = {0x1, 0x40, 0x80000002, 0xfff0001f};
	static const uint32_t none[4], other[] = {0x70200002, 0, 0x05d80001, 0};

	ck_assert_uint_eq(sgx_section(one), 0x5d80000);
	ck_assert_uint_eq(sgx_section(large), 0x1f80000000ull);
	ck_assert_uint_eq(sgx_section(none), 0);
	ck_assert_uint_eq(sgx_section(other), 0);
}
END_TEST

/* Whatever this host is, it is asked. */
START_TEST(this_host)
{
	struct sgx_host h;
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), null = open("/dev/null", O_RDWR);

	ck_assert_int_eq(sgx_look(&h, null, &e), -ENOTTY);
	ck_assert_ptr_nonnull(strstr(e.text, "--sgx: what KVM supports: "));
	if (kvm >= 0) {
		ck_assert_int_eq(sgx_look(&h, kvm, &e), 0);
		ck_assert(h.bits >= 36 && h.bits <= 52);
		ck_assert(h.sgx || !h.epc);
	}
	close(kvm);
	close(null);
}
END_TEST

/* ---- where it lies ---- */

START_TEST(places)
{
	static const struct {
		uint64_t mem, max, at;
	} t[] = {
		{256 * MiB, 0, 4 * GiB},
		{3 * GiB, 0, 4 * GiB},
		{3 * GiB + 4096, 0, 6 * GiB},
		{5 * GiB, 0, 6 * GiB},
		{5 * GiB + 4096, 0, 8 * GiB},
		{256 * MiB, 512 * MiB, 6 * GiB}, /* behind memory that comes later */
		{4 * GiB, 16 * GiB, 18 * GiB},
	};

	for (size_t i = 0; i < ARRAY_LEN(t); i++) {
		struct mem_region epc = {0}, *last;
		struct memmap m;

		memmap_of_board(&m, t[i].mem);
		if (t[i].max)
			memmap_add_of_board(&m, t[i].max - t[i].mem);
		last = &m.region[m.nregions - 1];
		ck_assert_int_eq(sgx_place(&good, 64 * MiB, last->gpa + last->size, &epc, &e), 0);
		ck_assert_uint_eq(epc.gpa, t[i].at);
		ck_assert_uint_eq(epc.size, 64 * MiB);
		ck_assert(epc.gpa >= last->gpa + last->size);
		ck_assert(!epc.offset && !epc.fd && !epc.flags);
		/* It could be one region more of the same map, on another descriptor. */
		m.region[m.nregions] = epc;
		m.region[m.nregions].fd = 1;
		for (unsigned k = 0; k < m.nregions; k++)
			m.region[k].flags = 0;
		m.nregions++;
		ck_assert_msg(!memmap_check(&m, 2, &e), "%s", e.text);
	}
}
END_TEST

START_TEST(no_place)
{
	struct mem_region epc = {0};
	struct sgx_host h = good;

	h.bits = 36;
	ck_assert_int_eq(sgx_place(&h, 64 * MiB, 64 * GiB - 64 * MiB, &epc, &e), -EINVAL);
	ck_assert_str_eq(e.text, "--sgx 64M: no room behind the guest's memory; expected an end "
				 "below 64G, which the processor can address");
	ck_assert_int_eq(sgx_place(&h, 64 * MiB, 62 * GiB, &epc, &e), 0);
	ck_assert_uint_eq(epc.gpa, 62 * GiB);
	h.epc = 4 * GiB;
	ck_assert_int_eq(sgx_place(&h, 2 * GiB, 62 * GiB, &epc, &e), 0); /* to the last byte */
	ck_assert_int_eq(sgx_place(&h, 2 * GiB + 4096, 62 * GiB, &epc, &e), -EINVAL);
	h.sgx = false;
	h.epc = 0;
	epc.size = 0;
	ck_assert_int_eq(sgx_place(&h, 64 * MiB, GiB, &epc, &e), -EINVAL);
	ck_assert_ptr_nonnull(
		strstr(e.text, "--sgx 64M: KVM gives no SGX to guests here; expected"));
	ck_assert_int_eq(sgx_place(&good, 256 * MiB, GiB, &epc, &e), 0);
	epc.size = 0;
	ck_assert_int_eq(sgx_place(&good, 256 * MiB + 4096, GiB, &epc, &e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.text, "more memory for enclaves than this host has; "
					     "expected at most 256M"));
	ck_assert_uint_eq(epc.size, 0);
}
END_TEST

START_TEST(device)
{
	int fd = 42;

	ck_assert_int_eq(sgx_open("/nonexistent/sgx_vepc", 64 * MiB, &fd, &e), -ENOENT);
	ck_assert_int_eq(fd, -1);
	ck_assert_ptr_nonnull(strstr(e.text, "--sgx 64M: /nonexistent/sgx_vepc; expected it, which "
					     "a kernel with CONFIG_X86_SGX_KVM makes"));
	ck_assert_int_eq(sgx_open("/", 64 * MiB, &fd, &e), -EISDIR);
	ck_assert_ptr_nonnull(strstr(e.text, "expected that this user may open it"));
	ck_assert_int_eq(sgx_open("/dev/null", 64 * MiB, &fd, &e), 0);
	ck_assert_int_ne(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
	close(fd);
}
END_TEST

/* ---- the VM ---- */

START_TEST(without)
{
	memmap_of_board(&v.memmap, c.mem);
	ck_assert_int_eq(open_epc(&v, false, &e), 0); /* /dev/kvm is not even asked */
	ck_assert_int_eq(v.epc_fd, -1);
	ck_assert_uint_eq(v.epc.size, 0);
}
END_TEST

static unsigned count(const struct msg_start_vmm *m, enum start_role role)
{
	unsigned n = 0;

	for (unsigned i = 0; i < m->head.nslots; i++)
		n += m->head.slot[i] == role;
	return n;
}

/* insula-vmm has it; the map, which helpers have too, has not. */
START_TEST(told)
{
	int fds[MSG_MAX_FDS];
	struct msg_start_vmm m;
	struct start_fds f;
	unsigned n;

	memmap_of_board(&v.memmap, c.mem);
	n = vm_word_start(&v, 7, &m, fds);
	ck_assert_uint_eq(count(&m, START_EPC), 0);
	ck_assert_uint_eq(m.epc.size, 0);
	v.epc = (struct mem_region){.gpa = 4 * GiB, .size = 64 * MiB};
	v.epc_fd = 99;
	ck_assert_uint_eq(vm_word_start(&v, 7, &m, fds), n + 1);
	ck_assert_int_eq(start_sort(&m.head, START_TAG_VMM, fds, n + 1, &f, &e), 0);
	ck_assert_int_eq(start_expect(&f, START_EPC, 1, &e), 0);
	ck_assert_int_eq(f.fd[START_EPC][0], 99);
	ck_assert_uint_eq(m.epc.gpa, 4 * GiB);
	ck_assert_uint_eq(m.epc.size, 64 * MiB);
	ck_assert_mem_eq(&m.head.mem, &v.memmap, sizeof(v.memmap));
	ck_assert_uint_eq(v.memmap.nregions, 1);
}
END_TEST

/* BARs of 64 bits come behind it. (The device is none: that its interrupts cannot be bound is found
 * later.) */
START_TEST(bars_behind_it)
{
	static const struct vfio_config f = {.address = "0000:01:00.0", .fd = -1};
	struct vfio_back *b = &v.opened.vfio[0];

	snprintf(v.paths.libexec, sizeof(v.paths.libexec), "%s/libexec/insula", getenv("BUILD"));
	memmap_of_board(&v.memmap, c.mem);
	c.nvfios = v.opened.nvfios = 1;
	*b = (struct vfio_back){.conf = &f, .wide = 1, .seen = {.nvectors = 1}};
	b->device = b->group = open("/dev/null", O_RDWR | O_CLOEXEC);
	b->seen.pci.bar_size[0] = 64 * MiB;
	v.epc = (struct mem_region){.gpa = 4 * GiB, .size = 64 * MiB + 4096};
	ck_assert_int_eq(open_cards(&v, &e), -ENOTTY);
	ck_assert_uint_eq(v.device[0].desc.pci.bar_at[0], 4 * GiB + 128 * MiB);
	device_free(&v.device[0]);
	v.ndevices = v.nassigned = 0;
	v.epc.size = 0;
	ck_assert_int_eq(open_cards(&v, &e), -ENOTTY);
	ck_assert_uint_eq(v.device[0].desc.pci.bar_at[0], 4 * GiB);
	device_free(&v.device[0]);
	close(b->device);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("sgx");
	TCase *t = tcase_create("sgx");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, texts);
	tcase_add_test(t, refused_texts);
	tcase_add_test(t, not_with_snapshots);
	tcase_add_test(t, what_kvm_supports);
	tcase_add_test(t, sections);
	tcase_add_test(t, this_host);
	tcase_add_test(t, places);
	tcase_add_test(t, no_place);
	tcase_add_test(t, device);
	tcase_add_test(t, without);
	tcase_add_test(t, told);
	tcase_add_test(t, bars_behind_it);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
