/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pools: their records, the rests after failures, what a VM of one is made of, and who sees
 * which.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <check.h>

#include <insula/base.h>

#include "daemon/client.h"
#include "daemon/daemon.h"
#include "daemon/machine.h"
#include "daemon/pool.h"
#include "spec/json.h"

#define HOUR_MS 3600000

static struct pool sample(void)
{
	struct pool p = {.count = 3,
			 .r = {.owner = {.uid = 1000, .gid = 100, .groups = {27}, .ngroups = 1},
			       .created_ms = 5,
			       .cpus = 2,
			       .mem = 1ull << 30}};

	strcpy(p.r.id, "0123456789abcdef");
	strcpy(p.r.name, "web");
	strcpy(p.r.boot_id, "b");
	memset(p.r.token, 'f', TOKEN_LEN);
	p.r.config = strdup("{\"restore\":\"/srv/snap\",\"cpus\":2,\"timeout\":7}");
	return p;
}

START_TEST(round_trip)
{
	struct pool p = sample(), q;
	char *text = pool_print(&p);
	struct err e;

	memset(&q, 0, sizeof(q));
	ck_assert_int_eq(pool_parse(&q, text, strlen(text), &e), 0);
	ck_assert_uint_eq(q.count, 3);
	ck_assert_str_eq(q.r.id, p.r.id);
	ck_assert_str_eq(q.r.name, "web");
	ck_assert_str_eq(q.r.config, p.r.config);
	ck_assert(q.r.owner.uid == 1000 && q.r.owner.groups[0] == 27 && q.r.cpus == 2);
	ck_assert_uint_eq(q.r.mem, 1ull << 30);
	record_free(&q.r);
	for (size_t n = 0; n < strlen(text); n++)
		ck_assert_msg(pool_parse(&q, text, n, &e) != 0, "%zu bytes", n);
	free(text);
	record_free(&p.r);
}
END_TEST

static int parse_changed(const char *key, json_object *value, struct err *e)
{
	struct pool p = sample(), q;
	char *text = pool_print(&p);
	json_object *o = json_tokener_parse(text);
	int rc;

	memset(&q, 0, sizeof(q));
	if (value)
		j_obj(o, key, value);
	else
		json_object_object_del(o, key);
	rc = pool_parse(&q, j_text(o), strlen(j_text(o)), e);
	if (!rc)
		record_free(&q.r);
	json_object_put(o);
	free(text);
	record_free(&p.r);
	return rc;
}

START_TEST(members)
{
	struct err e;

	ck_assert_int_eq(parse_changed("more", json_object_new_int(1), &e), 0);
	ck_assert_int_eq(parse_changed("count", json_object_new_int(POOL_MAX_COUNT), &e), 0);
	ck_assert_int_eq(parse_changed("count", json_object_new_int(POOL_MAX_COUNT + 1), &e),
			 -EINVAL);
	ck_assert_str_eq(e.text, "pool: count: expected 1 to 256");
	ck_assert_int_eq(parse_changed("count", json_object_new_int(0), &e), -EINVAL);
	ck_assert_int_eq(parse_changed("count", json_object_new_string("3"), &e), -EINVAL);
	ck_assert_int_eq(parse_changed("count", NULL, &e), -EINVAL);
	ck_assert_int_eq(parse_changed("version", NULL, &e), -EINVAL);
	ck_assert_int_eq(parse_changed("version", json_object_new_int(2), &e), -EPROTONOSUPPORT);
	ck_assert_int_eq(parse_changed("vm", NULL, &e), -EINVAL);
	ck_assert_int_eq(parse_changed("vm", json_object_new_array(), &e), -EINVAL);
	ck_assert_int_eq(parse_changed("vm", json_object_new_object(), &e), -EINVAL);
}
END_TEST

START_TEST(rests)
{
	uint64_t ms = 0, all = 0;

	/* One failure after the other, as soon as it may be tried again. */
	for (int i = 0; i < 20; i++) {
		uint64_t next = pool_rest_ms(ms, ms);

		ck_assert(next >= ms && next <= POOL_REST_MAX_MS);
		ck_assert(i > 0 || next == POOL_REST_MS);
		ms = next;
		all += ms;
	}
	ck_assert_uint_eq(ms, POOL_REST_MAX_MS);
	ck_assert_uint_ge(all, 10 * POOL_REST_MAX_MS);
	/* A long time without any: from the beginning. */
	ck_assert_uint_eq(pool_rest_ms(ms, POOL_FORGET_MS + 1), POOL_REST_MS);
	/* What fails slowly fails, too. */
	ck_assert_uint_eq(pool_rest_ms(POOL_REST_MS, 130000), 2 * POOL_REST_MS);
	ck_assert_uint_eq(pool_rest_ms(0, 0), POOL_REST_MS);
	ck_assert_uint_eq(pool_rest_ms(POOL_REST_MS, UINT64_MAX), POOL_REST_MS);
}
END_TEST

static json_object *config_of(bool paused, int64_t timeout)
{
	struct pool p = sample();
	json_object *o = pool_config(&p, paused, timeout);

	record_free(&p.r);
	return o;
}

START_TEST(configurations)
{
	json_object *o = config_of(true, 0);

	ck_assert(j_get_bool(o, "paused", false));
	ck_assert_int_eq(j_get_int(o, "timeout", 0), 7);
	ck_assert_str_eq(j_get_str(o, "restore", ""), "/srv/snap");
	json_object_put(o);
	o = config_of(false, 9);
	ck_assert_ptr_null(j_get(o, "paused"));
	ck_assert_int_eq(j_get_int(o, "timeout", 0), 9);
	json_object_put(o);
}
END_TEST

/* ---- in a daemon ---- */

static struct daemon d;

static void daemon_setup(void)
{
	memset(&d, 0, sizeof(d));
	d.state = d.pool_state = d.state_lock = d.supervisor = d.cgroups.dir = -1;
	ck_assert_int_eq(uv_loop_init(&d.loop), 0);
	conf_init(&d.conf);
}

static void daemon_teardown(void)
{
	pools_close(&d);
	machines_close(&d);
	while (uv_run(&d.loop, UV_RUN_NOWAIT))
		;
	ck_assert_int_eq(uv_loop_close(&d.loop), 0);
}

static struct pool *add(const char *name, uint32_t uid)
{
	struct pool *p = pool_add(&d);

	ck_assert_ptr_nonnull(p);
	random_hex(p->r.id, ID_LEN);
	strcpy(p->r.name, name);
	p->r.owner.uid = uid;
	p->r.config = strdup("{}");
	p->count = 2;
	return p;
}

static struct pool *find(uint32_t uid, const char *which, bool *several)
{
	struct client c = {.who = {.uid = uid}};

	return pool_find(&d, &c, which, several);
}

START_TEST(who_sees_which)
{
	struct pool *a = add("web", 1000), *b = add("web", 1001), *r = add("mine", 0);
	bool several;

	ck_assert_ptr_eq(find(1000, "web", &several), a);
	ck_assert_ptr_eq(find(1001, "web", &several), b);
	ck_assert_ptr_null(find(1000, b->r.id, &several));
	ck_assert_ptr_null(find(1000, "mine", &several));
	ck_assert(!several);
	ck_assert_ptr_null(find(0, "web", &several));
	ck_assert(several);
	ck_assert_ptr_eq(find(0, a->r.id, &several), a);
	ck_assert(!several);
	ck_assert_ptr_eq(find(0, "mine", &several), r);
	/* Root's own of an equal name counts. */
	r = add("web", 0);
	ck_assert_ptr_eq(find(0, "web", &several), r);
	ck_assert(!several);
	a->removed = true;
	ck_assert_ptr_null(find(1000, "web", &several));
}
END_TEST

static struct machine *stand(const struct pool *p, enum vm_state state, int64_t started)
{
	struct machine *m = machine_new(&d);

	ck_assert_ptr_nonnull(m);
	strcpy(m->r.pool, p->r.id);
	m->r.state = state;
	m->r.started_ms = started;
	m->r.config = strdup("{}");
	m->hello = true;
	return m;
}

START_TEST(the_oldest_is_taken)
{
	struct pool *p = add("web", 1000), *other = add("other", 1000);
	struct machine *young, *old, *m;
	json_object *o;

	ck_assert_ptr_null(pool_pick(p));
	stand(p, VM_STARTING, 1);
	stand(p, VM_STOPPING, 1);
	stand(other, VM_PAUSED, 1);
	ck_assert_ptr_null(pool_pick(p));
	young = stand(p, VM_PAUSED, 9);
	ck_assert_ptr_eq(pool_pick(p), young);
	old = stand(p, VM_PAUSED, 5);
	ck_assert_ptr_eq(pool_pick(p), old);
	ck_assert_str_eq(pool_name_of(old), "web");
	o = pool_json(p, false);
	ck_assert_int_eq(j_get_int(o, "standing", 0), 2);
	ck_assert_int_eq(j_get_int(o, "starting", 0), 1);
	json_object_put(o);
	old->hello = false; /* its supervisor has not been heard of yet */
	ck_assert_ptr_eq(pool_pick(p), young);
	old->r.pool[0] = 0; /* somebody has it */
	ck_assert_ptr_null(pool_name_of(old));
	for (m = d.machines; m; m = m->next)
		m->r.state = VM_ENDED;
}
END_TEST

START_TEST(what_went_wrong_is_told)
{
	struct pool *p = add("web", 1000);
	json_object *o;

	pool_failed(p, "no\nroom");
	ck_assert_str_eq(p->why, "no?room");
	pool_failed(p, "still none");
	ck_assert_uint_eq(p->next_ns - p->failed_ns, POOL_REST_MS * 1000000ull);
	p->next_ns += HOUR_MS * 1000000ull; /* it rests until then, however slow we are */
	o = pool_json(p, false);
	ck_assert_str_eq(j_get_str(o, "why", ""), "still none");
	ck_assert_int_eq(j_get_int(o, "failures", 0), 2);
	ck_assert_int_gt(j_get_int(o, "next_try_ms", 0), 0);
	ck_assert_int_le(j_get_int(o, "next_try_ms", 0), HOUR_MS + POOL_REST_MS);
	ck_assert_uint_eq(p->rest_ms, POOL_REST_MS); /* they were one trouble */
	json_object_put(o);
	pool_tend_soon(p); /* it rests on */
	ck_assert_uint_eq(p->failures, 2);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("pool");
	TCase *plain = tcase_create("plain"), *daemon = tcase_create("daemon");
	SRunner *sr;
	int failures;

	tcase_add_test(plain, round_trip);
	tcase_add_test(plain, members);
	tcase_add_test(plain, rests);
	tcase_add_test(plain, configurations);
	suite_add_tcase(s, plain);
	tcase_add_checked_fixture(daemon, daemon_setup, daemon_teardown);
	tcase_add_test(daemon, who_sees_which);
	tcase_add_test(daemon, the_oldest_is_taken);
	tcase_add_test(daemon, what_went_wrong_is_told);
	suite_add_tcase(s, daemon);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures != 0;
}
