/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The hypervisor contract (hv_cases.h) against the system's WinHvPlatform.dll: under wine the
 * double on KVM of tests/whp-double, on Windows the real one.
 */
#include "host.h"

#include "hv/whp/whp_abi.h"

#define CASES_NO_EVENT(f) ((hv_event)((f)->dev + 0x7ffffff0))
#define CASES_PORT_DOORBELLS false
#define CASES_TIME_STOPS true
#define CASES_ERROR_CODE WHP_EXIT_MEMORY
#define CASES_ERROR_TEXT "cannot be emulated"
#define CASES_ROOT "Z:" /* of wine */
#define CASES_RECORDS 4
#define CASES_STATE_CANCELS false

static intptr_t cases_open(void)
{
	return 0;
}

static void cases_close(intptr_t dev)
{
	(void)dev;
}

#include "../hv_cases.h"
#include "../hv_state.h"

int main(void)
{
	Suite *s = suite_create("hv");
	TCase *t = tcase_create("whp");
	SRunner *sr;
	int failed;

	add_cases(t);
	add_state(t);
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? 1 : 0;
}
