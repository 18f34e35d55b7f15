/* SPDX-License-Identifier: BSD-2-Clause */
/* insula-vhost: every message, what it makes of a back end, and deaths of both. */
#include <linux/virtio_fs.h>
#include <linux/virtio_net.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <insula/stats.h>

#include <devices/vhost/vhost_ring.h>

#include "vhostrig.h"

/* ---- the jail ---- */

/* A socket that a back end has sent could take the place of its connection: no call may make that
 * one connect, and so none has flags of its own choice. */
START_TEST(sends_with_its_flags)
{
	static const struct vhost v = {.link = {.fd = 20, .back_fd = 21}};
	static struct rule_list l;
	unsigned n = 0;

	l.n = 0;
	vhost_rules(&v, &l);
	for (size_t i = 0; i < l.n; i++) {
		const struct jail_arg *flags = &l.rule[i].arg[1];

		ck_assert_int_ne(l.rule[i].nr, SYS_sendto);
		ck_assert_int_ne(l.rule[i].nr, SYS_sendmmsg);
		if (l.rule[i].nr != SYS_sendmsg)
			continue;
		ck_assert_uint_eq(flags->index, 2);
		ck_assert_uint_eq(flags->cmp, JAIL_EQ);
		ck_assert_uint_eq(flags->value & MSG_FASTOPEN, 0);
		n++;
	}
	ck_assert_uint_eq(n, 2);
}
END_TEST

/* ---- what is said ---- */

START_TEST(handshake)
{
	begin();
	/* Neither the log, nor packed rings, nor what is the protocol's own. */
	ck_assert_uint_eq(drv_features(&core), DRV_COMMON | 0x1e46);
	ck_assert_uint_eq(back.n[VHOST_SET_OWNER], 1);
	ck_assert_uint_eq(back.got_protocol,
			  DRV_F(VHOST_P_MQ) | DRV_F(VHOST_P_REPLY_ACK) | DRV_F(VHOST_P_CONFIG) |
				  DRV_F(VHOST_P_BACKEND_REQ) | DRV_F(VHOST_P_DEVICE_STATE));
	ck_assert_uint_eq(fc_shadow8(&core, VIRTIO_MMIO_CONFIG + 7), 8);
	ck_assert_uint_eq(fc_shadow8(&core, VIRTIO_MMIO_CONFIG + 34), 2); /* num_queues: ours */
	ck_assert_uint_eq(fc_shadow8(&core, VIRTIO_MMIO_CONFIG + 60), 0);
	bring_up(USUAL);
	offer(0, 3);
	answered(0, 3);
	offer(1, 5);
	answered(1, 5);
	ck_assert_uint_eq(fc_shadow32(&core, VIRTIO_MMIO_INTERRUPT_STATUS), 1);
	ck_assert_uint_eq(back.got_features, USUAL | DRV_F(VHOST_F_PROTOCOL_FEATURES));
	ck_assert_uint_eq(back.mem.nregions, 1);
	ck_assert_uint_eq(back.mem.region[0].gpa, 0);
	ck_assert_uint_eq(back.mem.region[0].user, 0);
	ck_assert_uint_eq(back.mem.region[0].size, MEM_SIZE);
	for (unsigned i = 0; i < 2; i++) {
		ck_assert_uint_eq(back.ring[i].num, QNUM);
		ck_assert_uint_eq(back.ring[i].base, 0);
		ck_assert_uint_eq(back.ring[i].enabled, 1);
		ck_assert_uint_eq(back.ring[i].addr.desc, RINGS(i));
		ck_assert_uint_eq(back.ring[i].addr.avail, RINGS(i) + 0x1000);
		ck_assert_uint_eq(back.ring[i].addr.used, RINGS(i) + 0x2000);
	}
	vb_kill(&back);
}
END_TEST

START_TEST(stop_and_counters)
{
	struct msg_stats s;

	begin();
	bring_up(USUAL);
	ck_assert_int_eq(msg_send(chan[0], MSG_STOP, NULL, 0, NULL, 0), 0);
	hears(MSG_STOPPED, &s, sizeof(s), NULL);
	ck_assert_uint_eq(s.n[STAT_VHOST_CONNECTIONS], 1);
	ck_assert_uint_eq(s.n[STAT_VHOST_LOST], 0);
	ck_assert_uint_eq(back.n[VHOST_GET_VRING_BASE], 2);
	vb_kill(&back);
}
END_TEST

START_TEST(reset)
{
	begin();
	for (unsigned n = 1; n <= 3; n++) {
		bring_up(USUAL);
		offer(0, 2);
		answered(0, 2);
		drv_reg(&core, VIRTIO_MMIO_STATUS, 0);
		ck_assert_uint_eq(back.n[VHOST_GET_VRING_BASE], 2 * n);
		ck_assert_uint_eq(drv_status(&core), 0);
		ck_assert_int_eq(back.ring[0].kick, -1);
	}
	ck_assert_uint_eq(back.ring[0].base, 0);
	vb_kill(&back);
}
END_TEST

START_TEST(one_queue_goes)
{
	begin();
	bring_up(USUAL);
	offer(0, 3);
	answered(0, 3);
	drv_reg(&core, VIRTIO_MMIO_QUEUE_SEL, 1);
	drv_reg(&core, VIRTIO_MMIO_QUEUE_READY, 0);
	ck_assert_uint_eq(back.ring[0].base, 3);
	ck_assert_int_eq(back.ring[1].kick, -1);
	offer(0, 2);
	answered(0, 2);
	vb_kill(&back);
}
END_TEST

/* Old ones have neither protocol features nor acknowledges; a device that has no configuration
 * works with them. */
START_TEST(plain_back_end)
{
	back.features = DRV_F(VIRTIO_F_VERSION_1);
	conf.device_id = 63;
	conf.config_len = 0;
	begin();
	bring_up(DRV_F(VIRTIO_F_VERSION_1));
	offer(0, 3);
	answered(0, 3);
	ck_assert_uint_eq(drv_features(&core), DRV_F(VIRTIO_F_VERSION_1));
	ck_assert_uint_eq(back.n[VHOST_SET_VRING_ENABLE] + back.n[VHOST_GET_PROTOCOL_FEATURES], 0);
	vb_kill(&back);
}
END_TEST

/* ---- what it is ---- */

static void refused(const char *why)
{
	void *rc;

	start_helper(vb_start(&back), -1);
	ck_assert_int_eq(pthread_join(thread, &rc), 0);
	ck_assert_int_eq((intptr_t)rc, -1);
	ck_assert_msg(strstr(rig->e.text, why), "%s", rig->e.text);
	vb_kill(&back);
	free(rig);
	rig = NULL;
}

START_TEST(not_fit)
{
	back.features &= ~DRV_F(VIRTIO_F_VERSION_1);
	refused("expected VIRTIO_F_VERSION_1");
}
END_TEST

START_TEST(too_few_queues)
{
	back.nqueues = 1;
	refused("it has 1 queues; expected at least 2");
}
END_TEST

START_TEST(disk_without_configuration)
{
	back.protocol = DRV_F(VHOST_P_REPLY_ACK);
	refused("it does not tell its configuration (CONFIG)");
}
END_TEST

START_TEST(file_system)
{
	struct virtio_fs_config *c = (void *)(core.page + DP_SHADOW_OFF + VIRTIO_MMIO_CONFIG);

	conf.device_id = VIRTIO_ID_FS;
	conf.nqueues = 4;
	conf.config_len = 0;
	back.protocol &= ~DRV_F(VHOST_P_CONFIG);
	memcpy(conf.tag, "work", 4);
	begin();
	ck_assert_str_eq((char *)c->tag, "work");
	ck_assert_uint_eq(c->num_request_queues, 3);
	ck_assert_uint_eq(back.n[VHOST_GET_CONFIG] + back.n[VHOST_SET_BACKEND_REQ_FD], 0);
	vb_kill(&back);
}
END_TEST

START_TEST(file_system_names_itself)
{
	conf.device_id = VIRTIO_ID_FS;
	conf.config_len = 0;
	strcpy((char *)back.config, "itself");
	begin();
	ck_assert_str_eq((char *)core.page + DP_SHADOW_OFF + VIRTIO_MMIO_CONFIG, "itself");
	ck_assert_uint_eq(fc_shadow32(&core, VIRTIO_MMIO_CONFIG + 36), 1);
	vb_kill(&back);
}
END_TEST

START_TEST(network_card)
{
	static const uint8_t mac[6] = {2, 0, 0x5e, 0, 0x53, 1};

	conf.device_id = VIRTIO_ID_NET;
	conf.config_len = 0;
	memcpy(conf.mac, mac, sizeof(mac));
	back.features |= DRV_F(VIRTIO_NET_F_CTRL_VQ) | DRV_F(VIRTIO_NET_F_MQ) | 3;
	begin();
	ck_assert_uint_eq(drv_features(&core) & ~DRV_COMMON, DRV_F(VIRTIO_NET_F_MAC) | 0x1e03);
	ck_assert_mem_eq(core.page + DP_SHADOW_OFF + VIRTIO_MMIO_CONFIG, mac, 6);
	bring_up(DRV_F(VIRTIO_F_VERSION_1) | DRV_F(VIRTIO_NET_F_MAC));
	/* The address is ours: it is not the back end's to agree to. */
	ck_assert_uint_eq(back.got_features & 0xff, 0);
	vb_kill(&back);
}
END_TEST

START_TEST(start_messages)
{
	static const struct {
		size_t at;
		uint32_t value;
	} bad[] = {
		{offsetof(struct msg_start_vhost, device_id), 0},
		{offsetof(struct msg_start_vhost, nqueues), 0},
		{offsetof(struct msg_start_vhost, nqueues), VIRTIO_MAX_QUEUES + 1},
		{offsetof(struct msg_start_vhost, config_len), VHOST_CONFIG_MAX + 1},
		{offsetof(struct msg_start_vhost, flags), 4},
		{offsetof(struct msg_start_vhost, flags), VHOST_INFLIGHT},
		{offsetof(struct msg_start_vhost, inflight), 4096},
		{offsetof(struct msg_start_vhost, tag), 'x'},
	};
	struct err e = {0};

	ck_assert_int_eq(vhost_check_conf(&conf, &e), 0);
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		struct msg_start_vhost m = conf;

		memcpy((uint8_t *)&m + bad[i].at, &bad[i].value, 4);
		ck_assert_msg(vhost_check_conf(&m, &e) == -EINVAL, "case %u", i);
	}
}
END_TEST

/* ---- deaths ---- */

START_TEST(back_end_dies)
{
	begin();
	bring_up(USUAL);
	offer(0, 3);
	answered(0, 3);
	vb_kill(&back);
	hears(MSG_VHOST_LOST, NULL, 0, NULL);
	offer(0, 4); /* nobody is there */
	offer(1, 1);
	ck_assert_uint_eq(drv_status(&core), 0xf); /* registers are answered */
	drv_reg(&core, VIRTIO_MMIO_QUEUE_SEL, 1);
	new_back(&next);
	answered(0, 4);
	answered(1, 1);
	ck_assert_uint_eq(next.ring[0].base, 3);
	ck_assert_uint_eq(next.ring[1].base, 0);
	ck_assert_uint_eq(next.got_features, back.got_features);
	vb_kill(&next);
}
END_TEST

/* While there is nobody, the driver may do what it likes. */
START_TEST(reset_without_back_end)
{
	begin();
	bring_up(USUAL);
	offer(0, 2);
	answered(0, 2);
	vb_kill(&back);
	hears(MSG_VHOST_LOST, NULL, 0, NULL);
	bring_up(USUAL);
	offer(0, 5);
	new_back(&next);
	answered(0, 5);
	ck_assert_uint_eq(next.ring[0].base, 0);
	vb_kill(&next);
}
END_TEST

/* Five were offered, the fourth and the second were answered. */
START_TEST(out_of_order)
{
	uint16_t all[QNUM], rest[QNUM];

	back.hold = next.hold = true;
	begin();
	bring_up(USUAL);
	offer(0, 5);
	until_ring(&back, 0, 1);
	ck_assert_uint_eq(finds(&back, 0, all), 5);
	answers(&back, 0, all[3]);
	answers(&back, 0, all[1]);
	answered(0, 2);
	vb_kill(&back);
	hears(MSG_VHOST_LOST, NULL, 0, NULL);
	new_back(&next);
	until_ring(&next, 1, 1);
	ck_assert_uint_eq(next.ring[0].base, 2);
	ck_assert_uint_eq(finds(&next, 0, rest), 3);
	ck_assert_uint_eq(rest[0], all[0]);
	ck_assert_uint_eq(rest[1], all[2]);
	ck_assert_uint_eq(rest[2], all[4]);
	/* The same once more, before the ring has made a turn. */
	answers(&next, 0, rest[2]);
	answered(0, 1);
	vb_kill(&next);
	hears(MSG_VHOST_LOST, NULL, 0, NULL);
	vb_init(&back, &gm);
	back.hold = true;
	new_back(&back);
	until_ring(&back, 1, 1);
	ck_assert_uint_eq(back.ring[0].base, 3);
	ck_assert_uint_eq(finds(&back, 0, rest), 2);
	ck_assert_uint_eq(rest[0], all[0]);
	ck_assert_uint_eq(rest[1], all[2]);
	answers(&back, 0, rest[1]);
	answers(&back, 0, rest[0]);
	answered(0, 2);
	vb_kill(&back);
}
END_TEST

/* What the guest offers while nobody is there goes behind what is undone. */
START_TEST(offered_meanwhile)
{
	uint16_t all[QNUM], rest[QNUM];

	back.hold = next.hold = true;
	begin();
	bring_up(USUAL);
	offer(0, 3);
	until_ring(&back, 0, 1);
	ck_assert_uint_eq(finds(&back, 0, all), 3);
	answers(&back, 0, all[2]);
	vb_kill(&back);
	hears(MSG_VHOST_LOST, NULL, 0, NULL);
	answered(0, 1);
	offer(0, 2); /* the first with the head that is free again */
	new_back(&next);
	until_ring(&next, 1, 1);
	ck_assert_uint_eq(next.ring[0].base, 1);
	ck_assert_uint_eq(finds(&next, 0, rest), 4);
	ck_assert_uint_eq(rest[0], all[0]);
	ck_assert_uint_eq(rest[1], all[1]);
	ck_assert_uint_eq(rest[2], all[2]);
	vb_kill(&next);
}
END_TEST

START_TEST(rings_that_contradict_themselves)
{
	uint16_t all[QNUM];

	back.hold = true;
	begin();
	bring_up(USUAL);
	offer(0, 5);
	until_ring(&back, 0, 1);
	finds(&back, 0, all);
	answers(&back, 0, all[1]);
	answers(&back, 0, all[1]);
	vb_kill(&back);
	hears(MSG_VHOST_LOST, NULL, 0, NULL);
	new_back(&next);
	needs_reset();
	bring_up(USUAL); /* and then it works */
	offer(0, 1);
	answered(0, 1);
	vb_kill(&next);
}
END_TEST

START_TEST(helper_dies)
{
	begin();
	bring_up(USUAL);
	offer(0, 3);
	answered(0, 3);
	end_helper();
	vb_kill(&back);
	offer(0, 2);
	conf.flags = VHOST_AWAY;
	start_helper(vb_start(&next), -1); /* an end that nobody will use */
	hears(MSG_READY, NULL, 0, NULL);
	vb_kill(&next);
	/* It knows what the device is without any back end. */
	ck_assert_uint_eq(drv_features(&core), DRV_COMMON | 0x1e46);
	ck_assert_uint_eq(drv_status(&core), 0xf);
	vb_init(&next, &gm);
	new_back(&next);
	answered(0, 2);
	ck_assert_uint_eq(next.ring[0].base, 3);
	vb_kill(&next);
}
END_TEST

/* With the connection of the one before. */
static void next_helper(int had)
{
	conf.flags = VHOST_AWAY | VHOST_HAD;
	start_helper(had, -1);
	hears(MSG_READY, NULL, 0, NULL);
}

/* Its back end lives: it gives the rings back to the next helper on the same connection, whatever
 * it was doing out of order, and is free for the next one. */
START_TEST(helper_dies_alone)
{
	uint16_t all[QNUM];
	int had;

	back.hold = true;
	begin();
	bring_up(USUAL);
	offer(0, 5);
	until_ring(&back, 0, 1);
	finds(&back, 0, all);
	answers(&back, 0, all[3]);
	answers(&back, 0, all[1]);
	had = fd_copy(rig->v.link.fd);
	end_helper();
	ck_assert_uint_eq(back.n[VHOST_GET_VRING_BASE], 0);
	ck_assert(!back.ended);
	next_helper(had);
	ck_assert_uint_eq(back.n[VHOST_GET_VRING_BASE], 2);
	for (unsigned n = 0; n < WAIT_MS && !back.ended; n++)
		usleep(1000);
	ck_assert(back.ended);
	answers(&back, 0, all[4]); /* it was still busy with them */
	answers(&back, 0, all[0]);
	answers(&back, 0, all[2]);
	answered(0, 5);
	vb_kill(&back);
	new_back(&next);
	offer(0, 2);
	answered(0, 2);
	ck_assert_uint_eq(next.ring[0].base, 5);
	vb_kill(&next);
}
END_TEST

/* And if it dies as well, with what it was still busy with: only that is done again. */
START_TEST(helper_dies_alone_and_then_the_back_end)
{
	uint16_t all[QNUM], rest[QNUM];
	int had;

	back.hold = next.hold = true;
	begin();
	bring_up(USUAL);
	offer(0, 4);
	until_ring(&back, 0, 1);
	finds(&back, 0, all);
	answers(&back, 0, all[3]);
	had = fd_copy(rig->v.link.fd);
	end_helper();
	next_helper(had);
	answers(&back, 0, all[1]);
	answered(0, 2);
	vb_kill(&back);
	new_back(&next);
	until_ring(&next, 1, 1);
	ck_assert_uint_eq(next.ring[0].base, 2);
	ck_assert_uint_eq(finds(&next, 0, rest), 2);
	ck_assert_uint_eq(rest[0], all[0]);
	ck_assert_uint_eq(rest[1], all[2]);
	vb_kill(&next);
}
END_TEST

/* It does not give them back, or not as it must: as if it had gone. */
START_TEST(helper_dies_alone_back_end_misbehaves)
{
	int had;

	back.fault_at = VHOST_GET_VRING_BASE;
	back.fault = (enum vb_fault)_i;
	begin();
	bring_up(USUAL);
	offer(0, 2);
	answered(0, 2);
	had = fd_copy(rig->v.link.fd);
	end_helper();
	patience(CALL_MS);
	next_helper(had);
	patience(WAIT_MS);
	vb_kill(&back);
	offer(0, 2);
	new_back(&next);
	answered(0, 2);
	ck_assert_uint_eq(next.ring[0].base, 2);
	vb_kill(&next);
}
END_TEST

/* The successor gets a connection with its start, and the one that it lost before it was ready is
 * told about afterwards. */
START_TEST(helper_dies_and_back_end_too)
{
	int fd;

	begin();
	bring_up(USUAL);
	end_helper();
	vb_kill(&back);
	offer(1, 2);
	fd = vb_start(&next);
	vb_kill(&next);
	start_helper(fd, -1);
	hears(MSG_READY, NULL, 0, NULL);
	hears(MSG_VHOST_LOST, NULL, 0, NULL);
	vb_init(&next, &gm);
	new_back(&next);
	answered(1, 2);
	vb_kill(&next);
}
END_TEST

START_TEST(another_back_end)
{
	begin();
	bring_up(USUAL);
	vb_kill(&back);
	hears(MSG_VHOST_LOST, NULL, 0, NULL);
	next.config[1] = 0x99; /* a larger disk */
	new_back(&next);
	until_ring(&next, 1, 1);
	for (unsigned n = 0; n < WAIT_MS && fc_shadow32(&core, VIRTIO_MMIO_INTERRUPT_STATUS) != 3;
	     n++)
		usleep(1000);
	ck_assert_uint_eq(fc_shadow32(&core, VIRTIO_MMIO_INTERRUPT_STATUS), 3);
	ck_assert_uint_eq(fc_shadow8(&core, VIRTIO_MMIO_CONFIG + 1), 0x99);
	ck_assert_uint_eq(drv_status(&core), 0xf);
	vb_kill(&next);
}
END_TEST

START_TEST(a_lesser_back_end)
{
	begin();
	bring_up(USUAL);
	vb_kill(&back);
	hears(MSG_VHOST_LOST, NULL, 0, NULL);
	next.features &= ~DRV_F(VIRTIO_BLK_F_FLUSH);
	new_back(&next);
	needs_reset();
	ck_assert_uint_eq(next.n[VHOST_SET_VRING_KICK], 0);
	vb_kill(&next);
}
END_TEST

/* ---- the account of what is in flight ---- */

static ino_t inode(int fd)
{
	struct stat st;

	ck_assert_int_eq(fstat(fd, &st), 0);
	return st.st_ino;
}

START_TEST(inflight)
{
	struct vhost_inflight region;
	ino_t ino;
	int fd;

	back.protocol = next.protocol = ~UINT64_C(0);
	begin();
	bring_up(USUAL);
	hears(MSG_VHOST_INFLIGHT, &region, sizeof(region), &fd);
	until_ring(&back, 1, 1);
	ck_assert_uint_eq(region.size, 4096);
	ck_assert_uint_eq(region.nqueues, 2);
	ck_assert_uint_eq(region.queue_size, QNUM);
	ino = inode(fd);
	ck_assert_uint_eq(inode(back.inflight_fd), ino);
	vb_kill(&back);
	hears(MSG_VHOST_LOST, NULL, 0, NULL);
	new_back(&next); /* the same memory for the next one, */
	until_ring(&next, 1, 1);
	ck_assert_uint_eq(inode(next.inflight_fd), ino);
	ck_assert_uint_eq(next.n[VHOST_GET_INFLIGHT_FD], 0);
	vb_kill(&next);
	hears(MSG_VHOST_LOST, NULL, 0, NULL);
	end_helper();
	vb_init(&next, &gm); /* and for the next helper */
	next.protocol = ~UINT64_C(0);
	conf.flags = VHOST_INFLIGHT;
	conf.inflight = region;
	start_helper(vb_start(&next), fd);
	hears(MSG_READY, NULL, 0, NULL);
	until_ring(&next, 1, 1);
	ck_assert_uint_eq(inode(next.inflight_fd), ino);
	drv_reg(&core, VIRTIO_MMIO_STATUS, 0); /* until a reset */
	hears(MSG_VHOST_INFLIGHT, &region, sizeof(region), NULL);
	ck_assert_uint_eq(region.size, 0);
	bring_up(USUAL);
	hears(MSG_VHOST_INFLIGHT, &region, sizeof(region), &fd);
	ck_assert_uint_ne(inode(fd), ino);
	close(fd);
	vb_kill(&next);
}
END_TEST

/* A back end that has it and does not say so. */
START_TEST(inflight_unoffered)
{
	struct vhost_inflight region;
	int fd;

	begin();
	bring_up(USUAL);
	ck_assert_uint_eq(back.n[VHOST_GET_INFLIGHT_FD], 0);
	vb_kill(&back);
	hears(MSG_VHOST_LOST, NULL, 0, NULL);
	end_helper();
	vb_init(&next, &gm);
	conf.flags = VHOST_KEEPS_ACCOUNT;
	start_helper(vb_start(&next), -1); /* the driver still runs: it gets the rings */
	hears(MSG_READY, NULL, 0, NULL);
	hears(MSG_VHOST_INFLIGHT, &region, sizeof(region), &fd);
	until_ring(&next, 1, 1);
	ck_assert_uint_eq(next.got_protocol >> VHOST_P_INFLIGHT_SHMFD & 1, 1);
	ck_assert_uint_eq(inode(next.inflight_fd), inode(fd));
	close(fd);
	vb_kill(&next);
}
END_TEST

/* ---- configuration ---- */

START_TEST(write_cache)
{
	const unsigned wce = VIRTIO_MMIO_CONFIG + offsetof(struct virtio_blk_config, wce);

	begin();
	bring_up(USUAL | DRV_F(VIRTIO_BLK_F_CONFIG_WCE));
	fc_write(&core, VIRTIO_MMIO_CONFIG, 4, 0); /* the capacity is not the driver's */
	fc_write(&core, wce, 4, 0);
	ck_assert_uint_eq(back.n[VHOST_SET_CONFIG], 0);
	fc_write(&core, wce, 1, 0);
	ck_assert_uint_eq(back.n[VHOST_SET_CONFIG], 1);
	ck_assert_uint_eq(back.set.offset, 32);
	ck_assert_uint_eq(back.set.size, 1);
	ck_assert_uint_eq(fc_shadow8(&core, wce), 0);
	vb_kill(&back);
	hears(MSG_VHOST_LOST, NULL, 0, NULL);
	new_back(&next); /* which has one that is on */
	until_ring(&next, 1, 1);
	ck_assert_uint_eq(next.n[VHOST_SET_CONFIG], 1);
	ck_assert_uint_eq(next.config[32], 0);
	ck_assert_uint_eq(fc_shadow8(&core, wce), 0);
	vb_kill(&next);
}
END_TEST

START_TEST(no_write_cache)
{
	const unsigned wce = VIRTIO_MMIO_CONFIG + offsetof(struct virtio_blk_config, wce);

	conf.flags = VHOST_NO_WCE;
	begin();
	ck_assert(!drv_negotiate(&core, USUAL | DRV_F(VIRTIO_BLK_F_CONFIG_WCE)));
	bring_up(USUAL);
	fc_write(&core, wce, 1, 1);
	ck_assert_uint_eq(back.n[VHOST_SET_CONFIG], 0);
	vb_kill(&back);
}
END_TEST

/* ---- what rings tell ---- */

static int mend(const uint16_t *offered, unsigned no, const uint16_t *used, unsigned nu,
		uint16_t *rest, uint16_t start)
{
	uint16_t since = start;
	struct vq_state q = {.num = 8,
			     .ready = 1,
			     .desc = RINGS(0),
			     .driver = RINGS(0) + 0x1000,
			     .device = RINGS(0) + 0x2000};
	uint8_t *avail = gm_ptr(&gm, q.driver, 64), *done = gm_ptr(&gm, q.device, 128);
	struct err e = {0};
	int n;

	for (unsigned i = 0; i < no; i++)
		drv_store16(avail + 4 + 2 * ((start + i) % 8), offered[i]);
	for (unsigned i = 0; i < nu; i++)
		drv_store16(done + 4 + 8 * ((start + i) % 8), used[i]);
	drv_store16(avail + 2, (uint16_t)(start + no));
	drv_store16(done + 2, (uint16_t)(start + nu));
	ck_assert_uint_eq(vring_used(&q, &gm), (uint16_t)(start + nu));
	n = vring_mend(&q, &gm, &since, &e);
	ck_assert_uint_eq(since, (uint16_t)(n < 0 ? start : start + nu));
	for (int i = 0; i < n; i++)
		rest[i] = drv_load16(avail + 4 + 2 * ((start + nu + (unsigned)i) % 8));
	return n;
}

/* ---- on PCI ---- */

static void begin_pci(void)
{
	fc_vectors(&core, conf.nqueues + 1);
	begin();
	bring_up(USUAL);
}

static void choose(unsigned queue, unsigned vector)
{
	fc_write(&core, VPCI_QUEUE_SELECT, 2, queue);
	fc_write(&core, VPCI_QUEUE_VECTOR, 2, vector);
	ck_assert_uint_eq(fc_shadow16(&core, VPCI_QUEUE_VECTOR), vector);
}

/* The back end signals what the guest has chosen for the ring, also while it runs. */
START_TEST(rings_have_their_vectors)
{
	begin_pci();
	for (unsigned i = 0; i < conf.nqueues; i++) {
		offer(i, 3);
		answered(i, 3);
	}
	ck_assert_uint_eq(back.n[VHOST_SET_VRING_CALL], 2);
	/* Another one. */
	choose(1, 0);
	ck_assert_uint_eq(back.n[VHOST_SET_VRING_CALL], 3);
	event_drain(core.vector_fd[2]);
	offer(1, 1);
	ck_assert(events_wait(core.vector_fd, 1, -1, WAIT_MS) & 1);
	ck_assert_uint_eq(event_drain(core.vector_fd[2]), 0);
	/* None: there is nothing to signal. */
	choose(1, VPCI_NO_VECTOR);
	ck_assert_uint_eq(back.n[VHOST_SET_VRING_CALL], 4);
	ck_assert_int_eq(back.ring[1].call, -1);
	ck_assert_int_ge(back.ring[0].call, 0);
	choose(1, 2);
	ck_assert_uint_eq(back.n[VHOST_SET_VRING_CALL], 5);
	drvq_init(&drv[1], &gm, RINGS(1), QNUM, false, kick[1]);
	/* A driver that wants none from the beginning. */
	ck_assert(drv_negotiate(&core, USUAL));
	ck_assert(drv_queue(&core, 1, &drv[1]));
	choose(1, VPCI_NO_VECTOR);
	ck_assert_uint_eq(back.n[VHOST_SET_VRING_CALL], 5);
	drv_ok(&core);
	ck_assert_uint_eq(back.n[VHOST_SET_VRING_CALL], 6);
	ck_assert_int_eq(back.ring[1].call, -1);
	ck_assert_uint_eq(drv_status(&core), 0xf);
	vb_kill(&back);
}
END_TEST

/* A back end that does not take it loses its connection; the next one gets all. */
START_TEST(vector_is_refused)
{
	begin_pci();
	back.fault_at = VHOST_SET_VRING_CALL;
	back.fault = VB_REFUSE;
	choose(0, 0);
	hears(MSG_VHOST_LOST, NULL, 0, NULL);
	vb_kill(&back);
	choose(1, 0); /* nobody hears of it */
	for (unsigned i = 0; i < 3; i++)
		event_drain(core.vector_fd[i]);
	new_back(&next);
	until_ring(&next, 1, 1);
	/* What the last one has answered may not have been told: each vector in use, once. */
	ck_assert(events_wait(core.vector_fd, 1, -1, WAIT_MS) & 1);
	ck_assert_uint_eq(event_drain(core.vector_fd[1]), 0);
	ck_assert_uint_eq(event_drain(core.vector_fd[2]), 0);
	offer(1, 1);
	ck_assert(events_wait(core.vector_fd, 1, -1, WAIT_MS) & 1);
	vb_kill(&next);
}
END_TEST

START_TEST(configuration_is_told_by_its_vector)
{
	begin_pci();
	ck_assert_uint_eq(fc_shadow8(&core, VPCI_CONFIG + 7), 8);
	vb_kill(&back);
	hears(MSG_VHOST_LOST, NULL, 0, NULL);
	event_drain(core.vector_fd[0]);
	next.config[1] = 0x99; /* a larger disk */
	new_back(&next);
	until_ring(&next, 1, 1);
	ck_assert(events_wait(core.vector_fd, 1, -1, WAIT_MS) & 1);
	ck_assert_uint_eq(fc_shadow8(&core, VPCI_CONFIG + 1), 0x99);
	ck_assert_uint_eq(fc_read(&core, VPCI_ISR_PLACE, 1), 2);
	vb_kill(&next);
}
END_TEST

START_TEST(rings)
{
	static const uint16_t a[] = {1, 2, 3, 4, 5}, turns[] = {0, 1, 2, 1, 2, 1, 2, 1, 2, 1};
	static const uint16_t u[] = {4, 1}, one[] = {2}, bad[] = {9}, twice[] = {2, 2};
	static const uint16_t cycled[] = {1, 2, 1, 2, 1, 2, 1};
	uint16_t rest[8];

	ck_assert_int_eq(mend(a, 5, u, 2, rest, 0), 3);
	ck_assert(rest[0] == 2 && rest[1] == 3 && rest[2] == 5);
	ck_assert_int_eq(mend(a, 5, one, 1, rest, 0), 4);
	ck_assert(rest[0] == 1 && rest[1] == 3 && rest[2] == 4 && rest[3] == 5);
	ck_assert_int_eq(mend(a, 5, a, 5, rest, 0), 0);
	ck_assert_int_eq(mend(a, 5, bad, 1, rest, 0), -EINVAL);
	ck_assert_int_eq(mend(a, 5, twice, 2, rest, 0), -EINVAL);
	ck_assert_int_eq(mend(a, 5, a, 0, rest, 65533), 5);
	/* Heads that come again and again beside one that is not answered. */
	ck_assert_int_eq(mend(turns, 8, cycled, 6, rest, 0), 2);
	ck_assert(rest[0] == 0 && rest[1] == 1);
	ck_assert_int_eq(mend(a, 5, a, 0, rest, 0), 5);
}
END_TEST

/* ---- back ends that answer as they like, killed after several turns of the ring ---- */

#define SIM_NUM 128u
#define SIM_TURNS 3u

/* A driver that keeps `depth` requests under way and takes the head that came back last, as Linux
 * does, and a back end that takes `least` to `most` for each. */
struct sim {
	unsigned depth, least, most;
	uint16_t offered[SIM_NUM * (SIM_TURNS + 1)], used[SIM_NUM * (SIM_TURNS + 1)];
	unsigned noffered, nused;
	unsigned free[SIM_NUM], nfree;
	struct {
		uint64_t at;
		uint16_t head;
	} way[SIM_NUM];
	unsigned nway;
	uint64_t now;
};

static uint32_t sim_state;

static unsigned sim_rnd(unsigned below)
{
	sim_state = sim_state * 1664525u + 1013904223u;
	return (unsigned)(((uint64_t)sim_state * below) >> 32);
}

static void sim_offer(struct sim *s)
{
	uint16_t head = (uint16_t)s->free[--s->nfree];

	s->offered[s->noffered++] = head;
	s->way[s->nway].at = s->now + s->least + sim_rnd(s->most - s->least + 1);
	s->way[s->nway++].head = head;
}

/* Of two that end at once the older one. */
static void sim_answer(struct sim *s)
{
	unsigned first = 0;

	for (unsigned i = 1; i < s->nway; i++) {
		if (s->way[i].at < s->way[first].at)
			first = i;
	}
	s->now = s->way[first].at;
	s->used[s->nused++] = s->way[first].head;
	s->free[s->nfree++] = s->way[first].head;
	s->nway--;
	memmove(&s->way[first], &s->way[first + 1], (s->nway - first) * sizeof(s->way[0]));
}

static void sim_run(struct sim *s)
{
	unsigned end = SIM_NUM * SIM_TURNS + sim_rnd(SIM_NUM);

	s->noffered = s->nused = s->nfree = s->nway = 0;
	s->now = 0;
	while (s->nfree < SIM_NUM) {
		s->free[s->nfree] = SIM_NUM - 1 - s->nfree;
		s->nfree++;
	}
	while (s->noffered < end) {
		while (s->nway < s->depth && s->noffered < end)
			sim_offer(s);
		sim_answer(s);
	}
	for (unsigned n = sim_rnd(s->nway + 1); n; n--)
		sim_answer(s);
}

/* Mended: right, or an error. */
static bool sim_mend(const struct sim *s)
{
	struct vq_state q = {.num = SIM_NUM,
			     .ready = 1,
			     .desc = RINGS(0),
			     .driver = RINGS(0) + 0x1000,
			     .device = RINGS(0) + 0x2000};
	uint8_t *avail = gm_ptr(&gm, q.driver, 6 + 2 * SIM_NUM);
	uint8_t *done = gm_ptr(&gm, q.device, 6 + 8 * SIM_NUM);
	uint8_t undone[SIM_NUM] = {0};
	uint16_t since = 0;
	struct err e = {0};
	int n;

	for (unsigned i = 0; i < s->noffered; i++)
		drv_store16(avail + 4 + 2 * (i % SIM_NUM), s->offered[i]);
	for (unsigned i = 0; i < s->nused; i++) {
		drv_store16(done + 4 + 8 * (i % SIM_NUM), s->used[i]);
		drv_store16(done + 6 + 8 * (i % SIM_NUM), 0);
	}
	drv_store16(avail + 2, (uint16_t)s->noffered);
	drv_store16(done + 2, (uint16_t)s->nused);
	n = vring_mend(&q, &gm, &since, &e);
	if (n < 0) {
		ck_assert_int_eq(n, -EINVAL);
		return false;
	}
	ck_assert_int_eq(n, (int)s->nway);
	for (unsigned i = 0; i < s->nway; i++)
		undone[s->way[i].head] = 1;
	for (unsigned i = 0; i < s->nway; i++) {
		uint16_t head = drv_load16(avail + 4 + 2 * ((s->nused + i) % SIM_NUM));

		ck_assert_msg(head < SIM_NUM && undone[head], "depth %u, %u to %u: %u was answered",
			      s->depth, s->least, s->most, head);
		undone[head] = 0;
	}
	return true;
}

static const struct {
	unsigned depth, least, most;
	bool all; /* nothing is given up */
} sims[] = {{1, 1, 1, true},       {8, 100, 100, true},   {100, 100, 100, true},
	    {2, 0, 1000, false},   {4, 0, 1000, false},   {2, 100, 120, false},
	    {4, 100, 120, false},  {8, 100, 120, false},  {16, 100, 120, false},
	    {32, 100, 110, false}, {100, 100, 200, false}};

START_TEST(rings_of_many_turns)
{
	static struct sim s;
	unsigned good = 0;

	sim_state = 5;
	s.depth = sims[_i].depth;
	s.least = sims[_i].least;
	s.most = sims[_i].most;
	for (unsigned i = 0; i < 150; i++) {
		sim_run(&s);
		good += sim_mend(&s);
	}
	if (sims[_i].all)
		ck_assert_uint_eq(good, 150);
	else if (s.depth <= 8)
		ck_assert_uint_gt(good, 30);
}
END_TEST

int main(void)
{
	TCase *said = tcase_create("said"), *is = tcase_create("is"), *dies = tcase_create("dies");
	TCase *pci = tcase_create("pci");

	tcase_add_test(said, sends_with_its_flags);
	tcase_add_test(said, handshake);
	tcase_add_test(said, stop_and_counters);
	tcase_add_test(said, reset);
	tcase_add_test(said, one_queue_goes);
	tcase_add_test(said, plain_back_end);
	tcase_add_test(said, write_cache);
	tcase_add_test(said, no_write_cache);
	tcase_add_test(is, not_fit);
	tcase_add_test(is, too_few_queues);
	tcase_add_test(is, disk_without_configuration);
	tcase_add_test(is, file_system);
	tcase_add_test(is, file_system_names_itself);
	tcase_add_test(is, network_card);
	tcase_add_test(is, start_messages);
	tcase_add_test(dies, back_end_dies);
	tcase_add_test(dies, reset_without_back_end);
	tcase_add_test(dies, out_of_order);
	tcase_add_test(dies, offered_meanwhile);
	tcase_add_test(dies, rings_that_contradict_themselves);
	tcase_add_test(dies, helper_dies);
	tcase_add_loop_test(dies, rings_of_many_turns, 0, (int)ARRAY_LEN(sims));
	tcase_add_test(dies, helper_dies_alone);
	tcase_add_test(dies, helper_dies_alone_and_then_the_back_end);
	tcase_add_loop_test(dies, helper_dies_alone_back_end_misbehaves, VB_GOOD, VB_FAULTS);
	tcase_add_test(dies, helper_dies_and_back_end_too);
	tcase_add_test(dies, another_back_end);
	tcase_add_test(dies, a_lesser_back_end);
	tcase_add_test(dies, inflight);
	tcase_add_test(dies, inflight_unoffered);
	tcase_add_test(dies, rings);
	tcase_add_test(pci, rings_have_their_vectors);
	tcase_add_test(pci, vector_is_refused);
	tcase_add_test(pci, configuration_is_told_by_its_vector);
	return run_suite("vhost", (TCase *[]){said, is, dies, pci}, 4);
}
