#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The other parts of 38-pods.sh, so that neither takes two minutes: volumes, terminals, and what stands around a container.
PODS=${PODS:-volumes terminals life}
. "$(dirname "$0")/38-pods.sh"
