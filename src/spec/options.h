/* SPDX-License-Identifier: BSD-2-Clause */
/* The command line of insula-run: flags and --json become a struct vm_config. */
#ifndef SPEC_OPTIONS_H
#define SPEC_OPTIONS_H

#include "config.h"
#include "describe.h"

struct control;
struct options {
	const char *about; /* for --help, before the flags */
	/* --control: who insulad starts finds what it needs there; sets `control`. */
	int (*use_control)(struct options *o, const char *text, struct err *e);
	struct vm_config conf; /* config_init() first, config_free() at the end */
	struct control *control;
	bool has_control;
	bool check_only;
	int verbose;
	bool disks_replaced, nets_replaced, devices_replaced, vfios_replaced;
};

/* The flags beside those of the settings, for people. */
extern const struct flag_words run_flags[];
extern const size_t nrun_flags;

/* JSON first, so that flags win wherever they stand. -EINVAL and a line. --help and --version do
 * not return. */
int options_parse(struct options *o, int argc, char **argv, struct err *e);

#endif
