/* SPDX-License-Identifier: BSD-2-Clause */
/* Names of counters. See stats.h. */
#include <insula/base.h>
#include <insula/proto.h>
#include <insula/stats.h>

#include "stats.h"

static const struct stat_name common[] = {{STAT_CALLS, "calls"},
					  {STAT_POSTED, "posted"},
					  {STAT_IRQS, "interrupts"},
					  {STAT_WAKEUPS, "wakeups"}};
static const struct stat_name blk[] = {
	{STAT_BLK_READS, "reads"},           {STAT_BLK_WRITES, "writes"},
	{STAT_BLK_FLUSHES, "flushes"},       {STAT_BLK_DISCARDS, "discards"},
	{STAT_BLK_ZEROES, "write_zeroes"},   {STAT_BLK_OTHERS, "others"},
	{STAT_BLK_READ_BYTES, "read_bytes"}, {STAT_BLK_WRITTEN_BYTES, "written_bytes"},
	{STAT_BLK_KICKS, "kicks"},           {STAT_BLK_RESUBMITTED, "resubmitted"},
	{STAT_BLK_ERRORS, "errors"},         {STAT_BLK_BOUNCED, "bounced"},
	{STAT_BLK_THROTTLED, "throttled"}};
static const struct stat_name net[] = {
	{STAT_NET_RX_PACKETS, "rx_packets"}, {STAT_NET_RX_BYTES, "rx_bytes"},
	{STAT_NET_RX_DROPPED, "rx_dropped"}, {STAT_NET_TX_PACKETS, "tx_packets"},
	{STAT_NET_TX_BYTES, "tx_bytes"},     {STAT_NET_TX_DROPPED, "tx_dropped"},
	{STAT_NET_COMMANDS, "commands"},     {STAT_NET_RX_SPILLED, "rx_spilled"},
	{STAT_NET_THROTTLED, "throttled"},   {STAT_NET_IO_WAKEUPS, "io_wakeups"},
	{STAT_NET_DENIED, "denied"}};
static const struct stat_name rng[] = {{STAT_RNG_REQUESTS, "requests"},
				       {STAT_RNG_BYTES, "bytes"},
				       {STAT_RNG_KICKS, "kicks"},
				       {STAT_RNG_HELD, "held_back"}};
static const struct stat_name balloon[] = {
	{STAT_BALLOON_INFLATED, "inflated_bytes"}, {STAT_BALLOON_DEFLATED, "deflated_bytes"},
	{STAT_BALLOON_REPORTED, "reported_bytes"}, {STAT_BALLOON_ERRORS, "errors"},
	{STAT_BALLOON_STATS, "statistics"},        {STAT_BALLOON_KICKS, "kicks"}};
static const struct stat_name mem[] = {
	{STAT_MEM_PLUGGED, "plugged_bytes"}, {STAT_MEM_UNPLUGGED, "unplugged_bytes"},
	{STAT_MEM_REQUESTS, "requests"},     {STAT_MEM_REFUSED, "refused"},
	{STAT_MEM_ERRORS, "errors"},         {STAT_MEM_KICKS, "kicks"}};
static const struct stat_name uart[] = {{STAT_UART_OUT_BYTES, "out_bytes"},
					{STAT_UART_OUT_WRITES, "out_writes"},
					{STAT_UART_IN_BYTES, "in_bytes"},
					{STAT_UART_OUT_DROPPED, "out_dropped"},
					{STAT_UART_OUT_LOST, "out_lost"}};
static const struct stat_name vcon[] = {{STAT_VCON_OUT_BYTES, "out_bytes"},
					{STAT_VCON_OUT_WRITES, "out_writes"},
					{STAT_VCON_IN_BYTES, "in_bytes"},
					{STAT_VCON_OUT_LOST, "out_lost"},
					{STAT_VCON_KICKS, "kicks"}};
static const struct stat_name vhost[] = {{STAT_VHOST_CONNECTIONS, "connections"},
					 {STAT_VHOST_LOST, "lost"},
					 {STAT_VHOST_MESSAGES, "messages"},
					 {STAT_VHOST_REQUESTS, "requests"}};
static const struct stat_name vfio[] = {{STAT_VFIO_ACCESSES, "accesses"},
					{STAT_VFIO_FAILED, "failed"},
					{STAT_VFIO_RESETS, "resets"}};
static const struct stat_name vsock[] = {{STAT_VSOCK_CONNECTIONS, "connections"},
					 {STAT_VSOCK_TO_GUEST, "to_guest_bytes"},
					 {STAT_VSOCK_TO_HOST, "to_host_bytes"},
					 {STAT_VSOCK_RESETS, "resets"},
					 {STAT_VSOCK_STALLS, "credit_stalls"},
					 {STAT_VSOCK_BAD_PACKETS, "bad_packets"},
					 {STAT_VSOCK_KICKS, "kicks"}};

const struct stat_names stats_common = {common, ARRAY_LEN(common)};
const struct stat_names stats_blk = {blk, ARRAY_LEN(blk)};
const struct stat_names stats_net = {net, ARRAY_LEN(net)};
const struct stat_names stats_rng = {rng, ARRAY_LEN(rng)};
const struct stat_names stats_balloon = {balloon, ARRAY_LEN(balloon)};
const struct stat_names stats_mem = {mem, ARRAY_LEN(mem)};
const struct stat_names stats_uart = {uart, ARRAY_LEN(uart)};
const struct stat_names stats_vcon = {vcon, ARRAY_LEN(vcon)};
const struct stat_names stats_vhost = {vhost, ARRAY_LEN(vhost)};
const struct stat_names stats_vfio = {vfio, ARRAY_LEN(vfio)};
const struct stat_names stats_vsock = {vsock, ARRAY_LEN(vsock)};

void stats_add(json_object *o, const struct msg_stats *s, const struct stat_names *names)
{
	for (size_t i = 0; names && i < names->n; i++)
		json_object_object_add(o, names->name[i].name,
				       json_object_new_uint64(s->n[names->name[i].index]));
}
