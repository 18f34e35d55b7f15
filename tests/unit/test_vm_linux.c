/* SPDX-License-Identifier: BSD-2-Clause */
/* Where devices of a VM are on PCI, with functions of the host among them. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "supervisor/open.h"
#include "supervisor/vm.h"

/* The host's functions are the first ones, whatever comes before them elsewhere. */
START_TEST(places_of_functions)
{
	static const unsigned numbers[] = {3, 1, 4, 2};
	static struct vm v; /* large */
	static struct vm_config k;
	struct device *d;
	struct err e = {0};

	config_init(&k);
	k.bus = CONFIG_BUS_PCI;
	k.nvfios = 2;
	v.conf = &k;
	snprintf(v.paths.libexec, sizeof(v.paths.libexec), "%s/libexec/insula", getenv("BUILD"));
	for (unsigned i = 0; i < 4; i++) {
		const struct device_class *class = i % 2 ? &device_vfio : &device_rng;

		ck_assert_msg(!vm_add_device(&v, class, CONFIG_BUS_UNSAID, "x", 1, &d, &e), "%s",
			      e.text);
		ck_assert_uint_eq(d->desc.pci.number, numbers[i]);
	}
	v.npci = BOARD_MAX_PCI - 2;
	ck_assert_int_eq(vm_add_device(&v, &device_rng, CONFIG_BUS_UNSAID, "y", 1, &d, &e),
			 -EINVAL);
	ck_assert_str_eq(e.text,
			 "y: more than 31 devices on the PCI bus; expected bus=mmio for the "
			 "others");
	for (unsigned i = 0; i < 4; i++)
		device_free(&v.device[i]);
	config_free(&k);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vm_linux");
	TCase *t = tcase_create("places");
	SRunner *r;
	int failed;

	tcase_add_test(t, places_of_functions);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
