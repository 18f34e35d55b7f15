/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who a restored guest is: what is chosen for it, from its configuration and the page of its
 * card.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <insula/base.h>

#include "devices/net/net_page.h"
#include "supervisor/snapshot/identity.h"
#include "supervisor/vm.h"

#define OLD "52:54:00:00:00:01"

static struct vm_config c;
static struct vm vm;
static struct nic nic[CONFIG_MAX_NETS];
static struct identity who;
static struct err e;

static void write_page(struct device *d, uint32_t tag, bool valid, uint8_t last)
{
	const struct port_state port = {.magic = PORT_STATE_MAGIC, .tag = tag};
	const struct net_state st = {.mac = {0x52, 0x54, 0, 0, 0, last}, .valid = valid};
	int page = d->slot[d->desc.page_slot];

	ck_assert_int_eq(pwrite(page, &port, sizeof(port), DP_STATE_OFF), sizeof(port));
	ck_assert_int_eq(pwrite(page, &st, sizeof(st), NET_STATE_OFF), sizeof(st));
}

/* A VM with what the configuration says now, restored from the page of a driver that runs. */
static void setup(void)
{
	config_init(&c);
	vm = (struct vm){.conf = &c};
}

static void net(const char *text)
{
	unsigned n = c.nnets;
	struct device *d = &vm.device[2 * n + 1]; /* others are between them */

	ck_assert_int_eq(config_set(&c, "--net", "net", text, &e), 0);
	vm.ndevices = 2 * n + 2;
	d->class = &device_net;
	d->back.nic = &nic[n];
	nic[n] = (struct nic){.conf = &c.net[n]};
	nic_wanted(&c.net[n], n, nic[n].start.mac);
	d->slot[d->desc.page_slot] = shm_create("page", DP_SIZE, &e);
	ck_assert_int_ge(d->slot[d->desc.page_slot], 0);
	write_page(d, NET_TAG, true, (uint8_t)(n + 1));
}

static void teardown(void)
{
	for (unsigned i = 1; i < vm.ndevices; i += 2)
		fd_close(&vm.device[i].slot[vm.device[i].desc.page_slot]);
	config_free(&c);
}

/* `then`: what the snapshot says, as JSON. */
static void choose(const char *then)
{
	json_object *o = json_tokener_parse(then);

	ck_assert_int_eq(identity_choose(&who, &vm, o, &e), 0);
	identity_name(&who, &c, c.vm_name);
	json_object_put(o);
}

static void set(const char *name, const char *value)
{
	ck_assert_int_eq(config_set(&c, name, name, value, &e), 0);
}

/* As if the cards had come from the snapshot. */
static void not_said(void)
{
	c.given &= ~config_bit("net");
}

START_TEST(the_same_machine)
{
	net("user");
	net("tap=t,ip=192.0.2.2/24");
	not_said();
	c.vm_name = strdup("web");
	choose("{\"nets\":[\"user\",{\"tap\":\"t\",\"ip\":\"192.0.2.2/24\"}]}");
	ck_assert(!who.host_name && !who.machine_id[0]);
	ck_assert_uint_eq(who.ncards, 0);
	ck_assert_uint_eq(nic[0].start.mac[5], 1); /* what the driver would see after a reset */
	ck_assert_uint_eq(nic[1].start.mac[5], 2);
}
END_TEST

START_TEST(the_same_on_another_tap)
{
	net("tap=other,ip=192.0.2.2/24");
	choose("{\"nets\":[\"tap=t,ip=192.0.2.2/24\"]}");
	ck_assert_uint_eq(who.ncards, 0);
	ck_assert_uint_eq(nic[0].start.mac[0], 0x52);
	set("hostname", "other");
	choose("{\"nets\":[\"tap=t,ip=192.0.2.2/24\"]}");
	ck_assert_str_eq(who.host_name, "other");
	ck_assert(!who.machine_id[0]);
}
END_TEST

START_TEST(what_is_said_is_told)
{
	net("tap=t,mac=02:00:00:00:00:09");
	net("tap=u,ip=192.0.2.3/24,gw=192.0.2.1");
	net("tap=v,ip=192.0.2.4/24,mac=02:00:00:00:00:0A");
	net("user");
	choose("{\"nets\":[\"tap=t\",\"tap=u,ip=192.0.2.2/24,gw=192.0.2.1\"]}");
	ck_assert_uint_eq(who.ncards, 4);
	ck_assert_str_eq(who.card[0], OLD ",02:00:00:00:00:09");
	ck_assert_str_eq(who.card[1],
			 "52:54:00:00:00:02,52:54:00:00:00:02,ip=192.0.2.3/24,gw=192.0.2.1");
	ck_assert_str_eq(who.card[2], "52:54:00:00:00:03,02:00:00:00:00:0a,ip=192.0.2.4/24");
	ck_assert_str_eq(who.card[3], "52:54:00:00:00:04,52:54:00:00:00:04,dhcp");
	for (unsigned i = 0; i < who.ncards; i++)
		ck_assert(gp_card_ok(who.card[i]));
}
END_TEST

START_TEST(another_machine)
{
	char first[IDENTITY_CARD], id[33];

	net("user,mac=" OLD);
	not_said(); /* so the address is that of the source */
	set("identity", "new");
	choose("{\"nets\":[\"user\"]}");
	ck_assert_uint_eq(strlen(who.machine_id), 32);
	ck_assert(gp_machine_id_ok(who.machine_id));
	ck_assert_int_eq(who.machine_id[12], '4');
	ck_assert_ptr_nonnull(strchr("89ab", who.machine_id[16]));
	ck_assert_int_eq(strncmp(who.host_name, "insula-", 7), 0);
	ck_assert_int_eq(strncmp(who.host_name + 7, who.machine_id, 8), 0);
	ck_assert_uint_eq(strlen(who.host_name), 15);
	ck_assert_uint_eq(who.ncards, 1);
	ck_assert(gp_card_ok(who.card[0]) && strlen(who.card[0]) == 35);
	ck_assert_int_eq(strncmp(who.card[0], OLD ",", 18), 0);
	ck_assert_uint_eq(nic[0].start.mac[0] & 3, 2);
	strcpy(first, who.card[0]);
	strcpy(id, who.machine_id);
	c.vm_name = strdup("copy-1");
	choose("{\"nets\":[\"user\"]}");
	ck_assert_str_ne(first, who.card[0]);
	ck_assert_str_ne(id, who.machine_id);
	ck_assert_str_eq(who.host_name, "copy-1");
	set("hostname", "mine");
	choose("{\"nets\":[\"user\"]}");
	ck_assert_str_eq(who.host_name, "mine");
}
END_TEST

/* With its address, or without. */
START_TEST(another_machine_of_that_address)
{
	net("tap=t,mac=02:00:00:00:00:09,ip=192.0.2.2/24");
	net("tap=u,ip=192.0.2.3/24");
	set("identity", "new");
	choose("{\"nets\":[\"tap=x,ip=192.0.2.1/24\",\"tap=y,ip=192.0.2.1/24\"]}");
	ck_assert_uint_eq(who.ncards, 2);
	ck_assert_str_eq(who.card[0], OLD ",02:00:00:00:00:09,ip=192.0.2.2/24");
	ck_assert_str_eq(who.card[1] + 35, ",ip=192.0.2.3/24");
	ck_assert(strncmp(who.card[1], who.card[1] + 18, 17) != 0); /* old and new address */
	ck_assert(memcmp(nic[1].start.mac, (uint8_t[]){0x52, 0x54, 0, 0, 0, 2}, 6) != 0);
}
END_TEST

/* A card that has all of its parent: it keeps the parent's address, which is written to that. */
START_TEST(another_machine_of_that_parent)
{
	uint8_t wanted[6];

	net("macvtap=lo,mode=passthru");
	memcpy(wanted, nic[0].start.mac, 6);
	set("identity", "new");
	choose("{\"nets\":[\"macvtap=lo,mode=passthru\"]}");
	ck_assert_mem_eq(nic[0].start.mac, wanted, 6);
}
END_TEST

/* No driver has been there, or the page is of something else: nobody is told, and a driver that
 * comes sees the new address. */
START_TEST(no_driver)
{
	net("user");
	set("identity", "new");
	for (unsigned i = 0; i < 2; i++) {
		write_page(&vm.device[1], i ? NET_TAG : NET_TAG + 1, !i, 1);
		choose("{}");
		ck_assert_uint_eq(who.ncards, 0);
		ck_assert_uint_eq(nic[0].start.mac[0] & 3, 2);
	}
}
END_TEST

/* A template's driver comes now: the card is set up as at a boot, with the address that the driver
 * sees. One that has a driver already is told as ever. */
START_TEST(template)
{
	char same[2 * NIC_MAC_TEXT];

	net("tap=t,mac=02:00:00:00:00:09,ip=192.0.2.2/24");
	net("tap=u");
	net("tap=v,mac=02:00:00:00:00:0A");
	set("identity", "new");
	write_page(&vm.device[1], NET_TAG, false, 1);
	write_page(&vm.device[3], NET_TAG, false, 2);
	choose("{\"template\":true,\"nets\":[\"tap=t\",\"tap=t\",\"tap=t\"]}");
	ck_assert_uint_eq(who.ncards, 3);
	ck_assert_str_eq(who.card[0], "02:00:00:00:00:09,02:00:00:00:00:09,ip=192.0.2.2/24");
	nic_mac_text(nic[1].start.mac, same);
	same[NIC_MAC_TEXT - 1] = ',';
	nic_mac_text(nic[1].start.mac, same + NIC_MAC_TEXT);
	ck_assert_str_eq(who.card[1], same);
	ck_assert_str_eq(who.card[2], "52:54:00:00:00:03,02:00:00:00:00:0a");
	for (unsigned i = 0; i < who.ncards; i++)
		ck_assert(gp_card_ok(who.card[i]));
}
END_TEST

/* A snapshot is another's: whatever it says of its cards, ours are told what we want. */
START_TEST(hostile)
{
	static const char too_many[] =
		"{\"nets\":[\"user\",\"user\",\"user\",\"user\",\"user\",\"user\",\"user\","
		"\"user\",\"user\"]}";
	const char *const then[] = {"null", "[]", "{\"nets\":{}}", "{\"nets\":[{\"tap\":1}]}",
				    too_many};

	for (unsigned i = 0; i < CONFIG_MAX_NETS; i++)
		net("tap=t,ip=192.0.2.2/24");
	for (unsigned i = 0; i < ARRAY_LEN(then); i++) {
		choose(then[i]);
		ck_assert_uint_eq(who.ncards, CONFIG_MAX_NETS);
		ck_assert_str_eq(who.card[0], OLD "," OLD ",ip=192.0.2.2/24");
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("identity");
	TCase *t = tcase_create("identity");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, the_same_machine);
	tcase_add_test(t, the_same_on_another_tap);
	tcase_add_test(t, what_is_said_is_told);
	tcase_add_test(t, another_machine);
	tcase_add_test(t, another_machine_of_that_address);
	tcase_add_test(t, another_machine_of_that_parent);
	tcase_add_test(t, no_driver);
	tcase_add_test(t, template);
	tcase_add_test(t, hostile);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
