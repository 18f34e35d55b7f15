/* SPDX-License-Identifier: BSD-2-Clause */
/* rtnetlink(7), as little of it as a pod's network needs: requests with attributes, their answer,
 * dumps. In the network namespace that the process was in at nl_open(). */
#ifndef OCI_NL_H
#define OCI_NL_H

#include <stdint.h>

#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include "oci.h"

#define NL_REQUEST_MAX 2048u

struct nl {
	int fd; /* owned; -1 */
	uint32_t seq;
};

/* A request while it is made. What does not fit is told by nl_do(). */
struct nlreq {
	union {
		struct nlmsghdr h;
		char text[NL_REQUEST_MAX];
	};
	bool full;
};

int nl_open(struct nl *n, struct err *e);
void nl_close(struct nl *n);

/* `flags`: NLM_F_CREATE ...; `body` is the family's header. */
void nlreq_init(struct nlreq *r, uint16_t type, uint16_t flags, const void *body, size_t len);
void nlreq_put(struct nlreq *r, uint16_t type, const void *data, size_t len);
void nlreq_text(struct nlreq *r, uint16_t type, const char *text); /* with its NUL */
void nlreq_u32(struct nlreq *r, uint16_t type, uint32_t v);
/* Attributes until nlreq_end() are inside of this one; its result is for that. */
size_t nlreq_nest(struct nlreq *r, uint16_t type);
void nlreq_end(struct nlreq *r, size_t nest);

/* 0 or what the kernel answered, a negative errno. */
int nl_do(struct nl *n, struct nlreq *r);

/* Call `fn` for each message of a dump, with its attributes by type below `max` (NULL: absent);
 * `body_len` is of the header before them. Until it returns other than 0. */
typedef int nl_fn(void *ctx, const void *body, const struct rtattr *const *attr);
#define NL_ATTR_MAX 64u
int nl_dump(struct nl *n, uint16_t type, const void *body, size_t body_len, nl_fn *fn, void *ctx);

/* The attributes of a nest, or behind a header; `attr` has NL_ATTR_MAX places. */
void nl_attributes(const void *from, size_t len, const struct rtattr **attr);
size_t nl_size(const struct rtattr *a); /* bytes of its data; 0 of NULL */
const void *nl_data(const struct rtattr *a);
uint32_t nl_u32(const struct rtattr *a, uint32_t otherwise);

#endif
