/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pools as text: STATE/pool/ID/record.json, {version, count, vm}, of which "vm" is the record of a
 * VM that is never started: whose it is, and what those of the pool begin with. See pool.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pool.h"
#include "spec/json.h"

#define VERSION 1
#define DEPTH 17 /* a record's, and one more */

char *pool_print(const struct pool *p)
{
	json_object *o = json_object_new_object();
	char *vm = record_print(&p->r), *text = NULL;

	j_int(o, "version", VERSION);
	j_int(o, "count", p->count);
	if (vm) {
		j_obj(o, "vm", json_tokener_parse(vm));
		text = strdup(j_text(o));
	}
	free(vm);
	json_object_put(o);
	return text;
}

static int take_pool(struct pool *p, json_object *o, struct err *e)
{
	int64_t version = j_get_int(o, "version", 0), count = j_get_int(o, "count", 0);
	json_object *vm = j_get(o, "vm");
	const char *text;

	if (version > VERSION)
		return err_set(e, -EPROTONOSUPPORT,
			       "pool: version %lld, of a newer insulad; this one reads version %d",
			       (long long)version, VERSION);
	if (version != VERSION)
		return err_set(e, -EINVAL, "pool: version: expected %d", VERSION);
	if (count < 1 || count > POOL_MAX_COUNT)
		return err_set(e, -EINVAL, "pool: count: expected 1 to %d", POOL_MAX_COUNT);
	if (!json_object_is_type(vm, json_type_object))
		return err_set(e, -EINVAL, "pool: vm: expected an object");
	p->count = (unsigned)count;
	text = j_text(vm);
	return record_parse(&p->r, text, strlen(text), e);
}

int pool_parse(struct pool *p, const char *text, size_t len, struct err *e)
{
	const char *why = "";
	json_object *o = j_parse(text, len, DEPTH, &why);
	int rc = o ? take_pool(p, o, e) : err_set(e, -EINVAL, "pool: %s", why);

	json_object_put(o);
	return rc;
}

uint64_t pool_rest_ms(uint64_t last_ms, uint64_t since_ms)
{
	if (!last_ms || since_ms > POOL_FORGET_MS)
		return POOL_REST_MS;
	return last_ms * 2 < POOL_REST_MAX_MS ? last_ms * 2 : POOL_REST_MAX_MS;
}

json_object *pool_config(const struct pool *p, bool paused, int64_t timeout)
{
	json_object *o = json_tokener_parse(p->r.config);

	if (o && paused)
		j_bool(o, "paused", true);
	if (o && timeout)
		j_int(o, "timeout", timeout);
	return o;
}
