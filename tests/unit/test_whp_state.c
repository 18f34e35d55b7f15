/* SPDX-License-Identifier: BSD-2-Clause */
/* The state of a VM of the Windows backend: read, set, refused. */
#include "whprig.h"

/* ---- state ---- */

struct saved {
	_Alignas(8) uint8_t vm[HV_STATE_MAX], cpu[HV_STATE_MAX];
	size_t vm_len, cpu_len;
};

static void save(struct fixture *f, struct saved *s)
{
	struct state_out vm = {s->vm, sizeof(s->vm), 0}, cpu = {s->cpu, sizeof(s->cpu), 0};

	ck_assert_msg(hv_vm_state_get(f->vm, &vm, &f->e) == 0, "%s", f->e.text);
	ck_assert_msg(hv_vcpu_state_get(f->v, &cpu, &f->e) == 0, "%s", f->e.text);
	s->vm_len = vm.len;
	s->cpu_len = cpu.len;
}

static int set(struct fixture *f, const struct saved *s)
{
	double_written(&f->d, 0);
	return hv_vcpu_state_set(f->v, s->cpu, s->cpu_len, &f->e);
}

/* The same with another name for one register, which a record that is right in all else has; by
 * `more` bytes longer or shorter. */
static int set_renamed(struct fixture *f, const struct saved *s, uint32_t from, uint32_t to,
		       int more)
{
	static uint8_t body[HV_STATE_MAX], room[2 * HV_STATE_MAX];
	struct state_out o = {room, sizeof(room), 0};
	struct state_head h;
	bool found = false;

	for (size_t at = 0; at < s->cpu_len; at += (size_t)state_size(&h)) {
		memcpy(&h, s->cpu + at, sizeof(h));
		memcpy(body, s->cpu + at + sizeof(h), h.size);
		for (uint32_t i = 0; h.type == STATE_WHP_X86 + 1 && i < h.size; i += 24) {
			if (memcmp(body + i, &from, sizeof(from)) != 0)
				continue;
			memcpy(body + i, &to, sizeof(to));
			found = true;
		}
		ck_assert_int_eq(
			state_put(&o, h.type, h.version, h.index, body,
				  h.size + (h.type == STATE_WHP_X86 + 1 ? (uint32_t)more : 0)),
			0);
	}
	ck_assert(found);
	double_written(&f->d, 0);
	return hv_vcpu_state_set(f->v, o.at, o.len, &f->e);
}

START_TEST(state_is_set_as_it_was)
{
	static struct saved s;
	struct fixture f;

	open_vm(&f);
	set_reg(&f, 0, 0x1234);
	set_reg(&f, WHP_REG_TSC, 0x5678);
	set_reg(&f, (uint32_t)WHP_REG_ACTIVITY, 2);
	f.d.vp[0].xsave[160] = 3;
	f.d.vp[0].lapic[0x80] = 4;
	f.d.time = 99;
	ck_assert_int_eq(hv_irq_route(f.vm, 5, 0xfee00000, 0x41, &f.e), 0);
	save(&f, &s);
	set_reg(&f, 0, 0);
	set_reg(&f, WHP_REG_TSC, 0);
	set_reg(&f, (uint32_t)WHP_REG_ACTIVITY, 0);
	f.d.vp[0].xsave[160] = f.d.vp[0].lapic[0x80] = 0;
	f.d.time = 0;
	ck_assert_msg(hv_vm_state_set(f.vm, s.vm, s.vm_len, &f.e) == 0, "%s", f.e.text);
	ck_assert_msg(set(&f, &s) == 0, "%s", f.e.text);
	ck_assert_uint_eq(reg(&f, 0), 0x1234);
	ck_assert_uint_eq(reg(&f, WHP_REG_TSC), 0x5678);
	ck_assert_uint_eq(reg(&f, (uint32_t)WHP_REG_ACTIVITY), 2);
	ck_assert_uint_eq(f.d.vp[0].xsave[160], 3);
	ck_assert_uint_eq(f.d.vp[0].lapic[0x80], 4);
	ck_assert_uint_eq(f.d.time, 99);
	ck_assert_uint_eq(f.d.suspensions, 1); /* it stands until the first run */
	close_vm(&f);
}
END_TEST

/* The deadline of a timer that is set before its mode would be lost. */
START_TEST(state_of_an_armed_timer)
{
	static struct saved s;
	struct fixture f;

	open_vm(&f);
	f.d.vp[0].lapic[0x322] = 4;
	set_reg(&f, WHP_REG_TSC_DEADLINE, 0x9999);
	save(&f, &s);
	f.d.vp[0].lapic[0x322] = 0;
	set_reg(&f, WHP_REG_TSC_DEADLINE, 0);
	ck_assert_msg(set(&f, &s) == 0, "%s", f.e.text);
	ck_assert_uint_eq(reg(&f, WHP_REG_TSC_DEADLINE), 0x9999);
	close_vm(&f);
}
END_TEST

/* Whichever of the two the platform moves with the other one; with both, the TSC. */
START_TEST(state_of_the_tsc)
{
	static struct saved s;
	struct fixture f;

	open_vm(&f);
	set_reg(&f, WHP_REG_TSC, 70000000000);
	set_reg(&f, WHP_REG_TSC_ADJUST, 5);
	save(&f, &s);
	for (unsigned i = 0; i < 4; i++) {
		f.d.tsc_moves_adjust = i & 1;
		f.d.adjust_moves_tsc = i & 2;
		set_reg(&f, WHP_REG_TSC, 200000000000);
		set_reg(&f, WHP_REG_TSC_ADJUST, 100000000000);
		ck_assert_msg(set(&f, &s) == 0, "%s", f.e.text);
		ck_assert_uint_eq(reg(&f, WHP_REG_TSC), 70000000000);
		if (i != 3)
			ck_assert_uint_eq(reg(&f, WHP_REG_TSC_ADJUST), 5);
	}
	close_vm(&f);
}
END_TEST

START_TEST(state_and_time_that_does_not_stand_still)
{
	static struct saved s;
	struct fixture f;

	open_vm(&f);
	f.d.time = 99;
	save(&f, &s);
	f.d.time = 1;
	f.d.fail = "suspend_time";
	f.d.fail_hr = WHP_E_INVALIDARG;
	ck_assert_int_eq(hv_vm_state_set(f.vm, s.vm, s.vm_len, &f.e), -EINVAL);
	ck_assert_ptr_nonnull(strstr(f.e.text, "WHvSuspendPartitionTime"));
	ck_assert_uint_eq(f.d.time, 1);
	close_vm(&f);
}
END_TEST

START_TEST(state_that_is_refused)
{
	static struct saved s;
	struct fixture f;

	open_vm(&f);
	save(&f, &s);
	ck_assert_int_eq(set_renamed(&f, &s, WHP_REG_RIP, 0x3002, 0), -EPROTO);
	ck_assert_str_eq(f.e.text, "state: register 0x10 is missing");
	ck_assert_int_eq(set_renamed(&f, &s, WHP_REG_SPEC_CTRL, 0x80000003, 0), -EPROTO);
	ck_assert_str_eq(f.e.text, "state: register 0x2000 is missing");
	ck_assert_int_eq(set_renamed(&f, &s, WHP_REG_RIP, WHP_REG_RAX, 0), -EPROTO);
	ck_assert_int_eq(set_renamed(&f, &s, WHP_REG_RIP, WHP_REG_RIP, -24), -EPROTO);
	ck_assert_str_eq(f.e.text, "state: register 0x80000005 is missing");
	ck_assert_int_eq(set_renamed(&f, &s, WHP_REG_RIP, WHP_REG_RIP, 24), -EPROTO);
	ck_assert_ptr_nonnull(strstr(f.e.text, "is not expected"));
	f.d.cpuid = 1;
	ck_assert_int_eq(set(&f, &s), -EOPNOTSUPP);
	ck_assert_ptr_nonnull(strstr(f.e.text, "CPUID differs"));
	f.d.cpuid = 0;
	f.d.lacks = WHP_REG_XSS;
	ck_assert_int_eq(set(&f, &s), -EOPNOTSUPP);
	ck_assert_str_eq(f.e.text, "state: register 0x208b, which this host lacks");
	ck_assert_uint_eq(double_written(&f.d, 0), 0); /* none of these has changed anything */
	save(&f, &s);
	f.d.lacks = 0; /* the other way it may be: it stays as it is in a new processor */
	ck_assert_msg(set(&f, &s) == 0, "%s", f.e.text);
	f.d.lacks = WHP_REG_RIP;
	ck_assert_int_eq(hv_vcpu_state_get(f.v, &(struct state_out){s.cpu, sizeof(s.cpu), 0}, &f.e),
			 -EIO);
	f.d.lacks = 0;
	close_vm(&f);
}
END_TEST

/* One that cannot be written is right where it has its value, and else it is named. */
START_TEST(state_that_cannot_be_written)
{
	static struct saved s;
	struct fixture f;

	open_vm(&f);
	set_reg(&f, WHP_REG_DR0, 7);
	save(&f, &s);
	f.d.fail = "set_registers";
	f.d.fail_hr = WHP_E_INVALIDARG;
	ck_assert_int_eq(set(&f, &s), -EINVAL);
	f.d.fail = "set_registers";
	f.d.skip = 1;
	ck_assert_msg(set(&f, &s) == 0, "%s", f.e.text);
	set_reg(&f, WHP_REG_DR0, 8);
	f.d.fail = "set_registers";
	f.d.skip = 1;
	ck_assert_int_eq(set(&f, &s), -EOPNOTSUPP);
	ck_assert_str_eq(f.e.text, "vCPU 0: state: the hypervisor refuses 0x7 for register 0x21");
	close_vm(&f);
}
END_TEST

/* Not with half an instruction. */
START_TEST(state_amid_an_access)
{
	struct state_out o;
	static uint8_t room[HV_STATE_MAX];
	struct fixture f;

	open_vm(&f);
	o = (struct state_out){room, sizeof(room), 0};
	push(&f, WHP_EXIT_MSR);
	run(&f, HV_EXIT_MSR);
	ck_assert_int_eq(hv_vcpu_state_get(f.v, &o, &f.e), -EAGAIN);
	complete(&f);
	ck_assert_int_eq(hv_vcpu_state_get(f.v, &o, &f.e), 0);
	close_vm(&f);
}
END_TEST

START_TEST(no_state_on_an_older_windows)
{
	uint8_t room[64] = {0};
	struct state_out o = {room, sizeof(room), 0};
	struct fixture f;

	memset(&f, 0, sizeof(f));
	double_init(&f.d);
	ck_assert_int_eq(create(&f, 1, true), 0);
	ck_assert_int_eq(hv_vcpu_create(f.vm, 0, &f.v, &f.e), 0);
	ck_assert_int_eq(hv_vm_state_get(f.vm, &o, &f.e), -EOPNOTSUPP);
	ck_assert_ptr_nonnull(strstr(f.e.text, "expected Windows 10 20H2"));
	ck_assert_int_eq(hv_vcpu_state_get(f.v, &o, &f.e), -EOPNOTSUPP);
	ck_assert_int_eq(hv_vm_state_set(f.vm, room, sizeof(room), &f.e), -EOPNOTSUPP);
	ck_assert_int_eq(hv_vcpu_state_set(f.v, room, sizeof(room), &f.e), -EOPNOTSUPP);
	ck_assert_uint_eq(o.len, 0);
	hv_vcpu_destroy(f.v);
	hv_vm_destroy(f.vm);
	double_end(&f.d);
}
END_TEST

int main(void)
{
	/* clang-format off */
	const TTest *const tests[] = {
		state_is_set_as_it_was, state_of_an_armed_timer, state_of_the_tsc,
		state_and_time_that_does_not_stand_still, state_that_is_refused, state_that_cannot_be_written,
		state_amid_an_access, no_state_on_an_older_windows,
	};
	/* clang-format on */

	return whp_run_all("whp_state", tests, ARRAY_LEN(tests));
}
