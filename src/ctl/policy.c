/* SPDX-License-Identifier: BSD-2-Clause */
/* The verbs for what a VM may send, and how much in a second. See ctl.h. */
#include <errno.h>
#include <string.h>

#include <insula/base.h>

#include "ctl.h"
#include "spec/config.h"
#include "spec/json.h"

static json_object *of_card(char **argv)
{
	json_object *params = ctl_with_id(argv[1]);

	j_str(params, "device", argv[2]);
	return params;
}

/* ---- policy ---- */

/* One word: "allow=...", ..., "deny" (nothing more than the others say), "off". */
static int policy_word(json_object *params, const char *word, struct err *e)
{
	static const char *const lists[] = {"allow", "serve", "from"};
	size_t n = strcspn(word, "=");

	for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
		json_object *list = j_get(params, lists[i]);

		if (word[n] != '=' || strlen(lists[i]) != n || strncmp(lists[i], word, n) != 0)
			continue;
		if (!list) {
			list = json_object_new_array();
			j_obj(params, lists[i], list);
		}
		json_object_array_add(list, json_object_new_string(word + n + 1));
		return 0;
	}
	if (!strcmp(word, "deny"))
		return 0;
	if (strcmp(word, "off") != 0)
		return err_set(e, -EINVAL,
			       "policy: '%.60s'; expected allow=[tcp:|udp:|icmp:]DEST[:PORT], "
			       "serve=tcp:PORT, from=ADDRESS, deny or off",
			       word);
	j_bool(params, "off", true);
	return 0;
}

int verb_policy(struct ctl *c, int argc, char **argv)
{
	json_object *params = of_card(argv);
	struct err e;

	for (int i = 3; i < argc; i++) {
		if (policy_word(params, argv[i], &e)) {
			json_object_put(params);
			return ctl_fail(&e);
		}
	}
	return ctl_simple(c, "vm.net.policy", params);
}

/* ---- limit ---- */

static int limit_word(json_object *params, const char *word, struct err *e)
{
	static const char *const keys[] = {"rate", "pps", "iops"};
	size_t n = strcspn(word, "=");
	uint64_t value;

	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		if (word[n] != '=' || strlen(keys[i]) != n || strncmp(keys[i], word, n) != 0)
			continue;
		if (!parse_size(word + n + 1, &value) || value > (uint64_t)1 << 40)
			return err_set(e, -EINVAL,
				       "%s: '%.40s'; expected 0 (no limit) to 1024G, such as 10M",
				       keys[i], word + n + 1);
		j_int(params, keys[i], (int64_t)value);
		return 0;
	}
	return err_set(
		e, -EINVAL,
		"limit: '%.40s'; expected rate=BYTES, pps=N (of a card) or iops=N (of a disk), "
		"a second",
		word);
}

int verb_limit(struct ctl *c, int argc, char **argv)
{
	json_object *params = of_card(argv);
	struct err e;

	for (int i = 3; i < argc; i++) {
		if (limit_word(params, argv[i], &e)) {
			json_object_put(params);
			return ctl_fail(&e);
		}
	}
	return ctl_simple(c, "vm.limits", params);
}
