/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a guest may send. The first byte of an input says what the rest is: 'f', a frame that the
 * guest sends; 'd', an answer of DNS; 'i', a frame that comes to it; 'p', a policy as the message
 * that insula-net gets, and a frame behind it; any other, the words of an allow rule.
 *
 * Besides not crashing: what passes is from the card's address and from one that the guest may
 * have, or from nobody; what an answer leads to is an address of a name of the policy; a policy that
 * is said to be sane is within its bounds; a rule that was taken is.
 */
#include <stdlib.h>
#include <string.h>

#include <insula/base.h>

#include "devices/net/net_policy.h"
#include "must.h"
#include "spec/netpolicy.h"

static struct net_policy known;
static struct net_names names;

static void fuzz_known(void)
{
	static const char *const allow[] = {"tcp:198.51.100.0/24:443", "udp:198.51.100.7:5000-5009",
					    "icmp:198.51.100.7",       "tcp:[2001:db8:1::/48]:443",
					    "tcp:www.example.org:443", "a.example"};
	const struct policy_card card = {"192.0.2.2/24", "192.0.2.53", 0};

	known = (struct net_policy){.mac = {2, 0, 0x5e, 0, 0x53, 1}};
	net_names_init(&names);
	for (size_t i = 0; i < ARRAY_LEN(allow); i++)
		MUST(!policy_add_allow(&known, allow[i]));
	MUST(!policy_add_serve(&known, "tcp:80"));
	MUST(!policy_add_from(&known, "2001:db8::2"));
	MUST(!policy_add_from(&known, "192.0.2.2"));
	MUST(!policy_finish(&known, &card));
	MUST(net_policy_is_sane(&known));
}

static void fuzz_frame(const struct net_policy *p, const uint8_t *f, size_t len)
{
	size_t head = len < NET_POLICY_HEAD ? len : NET_POLICY_HEAD;
	struct msg_net_denied what;
	enum policy_verdict v = net_policy_judge(p, &names, f, head, &what);

	MUST(v < POLICY_VERDICTS);
	if (v != POLICY_PASS) {
		MUST(what.verdict == v);
		return;
	}
	if (p != &known)
		return;
	MUST(len >= 14 && !memcmp(f + 6, known.mac, 6));
	if (f[12] == 8 && f[13] == 0)
		MUST(!memcmp(f + 26, "\xc0\0\2\2", 4) || !memcmp(f + 26, "\0\0\0\0", 4));
}

static void fuzz_found(const struct msg_net_name *found, unsigned n)
{
	MUST(n <= 8);
	for (unsigned i = 0; i < n; i++) {
		MUST(found[i].name < known.nnames);
		MUST(found[i].seconds >= NAMES_FLOOR_S && found[i].seconds <= NAMES_MOST_S);
		MUST((found[i].to.family == 4 && found[i].to.bits == 32) ||
		     (found[i].to.family == 6 && found[i].to.bits == 128));
	}
}

static void fuzz_policy(const uint8_t *data, size_t len)
{
	static struct net_policy p;

	if (len < sizeof(p))
		return;
	memcpy(&p, data, sizeof(p));
	if (net_policy_is_sane(&p))
		fuzz_frame(&p, data + sizeof(p), len - sizeof(p));
}

static void fuzz_words(const uint8_t *data, size_t len)
{
	struct net_policy p = {0};
	char text[256];
	const char *why;

	if (len >= sizeof(text))
		return;
	memcpy(text, data, len);
	text[len] = 0;
	why = policy_add_allow(&p, text);
	MUST(why ? *why && !p.nrules : p.nrules == 1);
	MUST(net_policy_is_sane(&p));
	if (!why)
		MUST(p.rule[0].port_lo <= p.rule[0].port_hi);
	(void)policy_add_serve(&p, text);
	(void)policy_add_from(&p, text);
	MUST(net_policy_is_sane(&p));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct msg_net_name found[8];

	if (!known.nrules)
		fuzz_known();
	if (!len)
		return 0;
	switch (data[0]) {
	case 'f':
		fuzz_frame(&known, data + 1, len - 1);
		break;
	case 'd':
		fuzz_found(found, net_names_read(&known, data + 1, len - 1, found, 8));
		break;
	case 'i':
		fuzz_found(found, net_names_frame(&known, data + 1, len - 1, found, 8));
		break;
	case 'p':
		fuzz_policy(data + 1, len - 1);
		break;
	default:
		fuzz_words(data, len);
	}
	return 0;
}
