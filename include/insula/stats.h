/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the counters in MSG_STOPPED (struct msg_stats, proto.h) mean, by program.
 *
 * They count since this process started: a restarted helper begins at zero.
 */
#ifndef INSULA_STATS_H
#define INSULA_STATS_H

enum stat_common {               /* every helper */
		   STAT_CALLS,   /* synchronous calls executed */
		   STAT_POSTED,  /* posted writes executed */
		   STAT_IRQS,    /* interrupt events signalled */
		   STAT_WAKEUPS, /* how often the control thread slept and was woken */
		   STAT_FIRST,   /* the program's own counters begin here */
};

enum stat_blk {
	STAT_BLK_READS = STAT_FIRST, /* requests completed, by kind */
	STAT_BLK_WRITES,
	STAT_BLK_FLUSHES,
	STAT_BLK_DISCARDS,
	STAT_BLK_ZEROES,
	STAT_BLK_OTHERS, /* get-id, unknown */
	STAT_BLK_READ_BYTES,
	STAT_BLK_WRITTEN_BYTES,
	STAT_BLK_KICKS,       /* doorbell events seen (several rings may be one event) */
	STAT_BLK_RESUBMITTED, /* in flight when the helper before this one died */
	STAT_BLK_ERRORS,      /* requests that ended with an error status */
	STAT_BLK_BOUNCED,     /* direct I/O through a bounce buffer */
	STAT_BLK_THROTTLED,   /* how often a limit made an I/O thread wait */
};

enum stat_uart {
	STAT_UART_OUT_BYTES = STAT_FIRST, /* bytes written to the output descriptor */
	STAT_UART_OUT_WRITES,             /* in so many writes */
	STAT_UART_IN_BYTES,               /* bytes read from the input descriptor */
	STAT_UART_OUT_DROPPED,            /* bytes the guest sent without looking at LSR.THRE */
	STAT_UART_OUT_LOST,               /* bytes that the output descriptor refused */
};

enum stat_vcon {
	STAT_VCON_OUT_BYTES = STAT_FIRST, /* as those of the UART */
	STAT_VCON_OUT_WRITES,
	STAT_VCON_IN_BYTES,
	STAT_VCON_OUT_LOST,
	STAT_VCON_KICKS, /* doorbell events seen */
};

enum stat_vsock {
	STAT_VSOCK_CONNECTIONS = STAT_FIRST, /* that came to be open, both ways */
	STAT_VSOCK_TO_GUEST,                 /* bytes of payload */
	STAT_VSOCK_TO_HOST,
	STAT_VSOCK_RESETS,      /* RST packets to the guest */
	STAT_VSOCK_STALLS,      /* how often a stream had to wait for the guest's credit */
	STAT_VSOCK_BAD_PACKETS, /* packets that cannot be */
	STAT_VSOCK_KICKS,       /* doorbell events seen */
};

enum stat_rng {
	STAT_RNG_REQUESTS = STAT_FIRST, /* buffers filled */
	STAT_RNG_BYTES,
	STAT_RNG_KICKS, /* turns that a doorbell began */
	STAT_RNG_HELD,  /* how often the rate made a request wait */
};

enum stat_balloon {
	STAT_BALLOON_INFLATED = STAT_FIRST, /* bytes that went to the host by the balloon */
	STAT_BALLOON_DEFLATED,              /* bytes that the driver took out of it */
	STAT_BALLOON_REPORTED,              /* bytes that went to the host by reports */
	STAT_BALLOON_ERRORS,                /* ranges that the host did not take */
	STAT_BALLOON_STATS,                 /* statistics that came */
	STAT_BALLOON_KICKS,                 /* doorbell events seen */
};

enum stat_mem {
	STAT_MEM_PLUGGED = STAT_FIRST, /* bytes, each time */
	STAT_MEM_UNPLUGGED,
	STAT_MEM_REQUESTS, /* that came */
	STAT_MEM_REFUSED,  /* and were not acknowledged */
	STAT_MEM_ERRORS,   /* blocks that the host did not take */
	STAT_MEM_KICKS,    /* doorbell events seen */
};

enum stat_vhost {
	STAT_VHOST_CONNECTIONS = STAT_FIRST, /* to a back end that could be used */
	STAT_VHOST_LOST,                     /* of these, that have ended */
	STAT_VHOST_MESSAGES,                 /* sent to it */
	STAT_VHOST_REQUESTS,                 /* that it made */
};

enum stat_vfio {
	STAT_VFIO_ACCESSES = STAT_FIRST, /* to registers of the device that are not mapped */
	STAT_VFIO_FAILED,                /* of these, that did not work */
	STAT_VFIO_RESETS,                /* by the guest */
};

enum stat_net {
	STAT_NET_RX_PACKETS = STAT_FIRST, /* given to the guest */
	STAT_NET_RX_BYTES,                /* of frames, without the virtio header */
	STAT_NET_RX_DROPPED,              /* lost: too long, or not what the guest can take */
	STAT_NET_TX_PACKETS,              /* sent by the guest */
	STAT_NET_TX_BYTES,
	STAT_NET_TX_DROPPED, /* a header that was not negotiated, or
				refused by the backing */
	STAT_NET_COMMANDS,   /* of the control queue */
	STAT_NET_RX_SPILLED, /* frames that came before there were buffers enough */
	STAT_NET_THROTTLED,  /* how often a limit made the I/O thread wait */
	STAT_NET_IO_WAKEUPS, /* how often the I/O thread slept */
	STAT_NET_DENIED,     /* dropped by the card's policy */
};

#endif
