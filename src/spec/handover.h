/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What insulad and the supervisor that it starts (`insula-run --control`) agree on beside the
 * packets of the control socket (supervisor/control/control.h, docs/protocol.md): the descriptors
 * that come with the start, the token, and what the result file says before the result.
 *
 * insulad and a supervisor may be of different releases: an insulad that was upgraded goes on with
 * the supervisors of the one before. What is here changes only so that both directions still work.
 */
#ifndef SPEC_HANDOVER_H
#define SPEC_HANDOVER_H

#define CONTROL_TOKEN_LEN 64 /* in hexadecimal digits */

/* Linux: the number after --control, and how many descriptors there are from it on. Which they are
 * is in supervisor/control/control_linux.h. */
#define CONTROL_FD 3
#define CONTROL_FDS 6

/* What stands in the result file from its making on until the supervisor has had its byte to go on,
 * and then until it writes its line over it. Of one length. */
#define CONTROL_NOT_BEGUN "not begun\n"
#define CONTROL_BEGUN "begun    \n"

#endif
