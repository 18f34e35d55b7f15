/* SPDX-License-Identifier: BSD-2-Clause */
/* This system's struct vm, with the members of one name that vm_common.c and usage.c use. */
#ifndef SUPERVISOR_VM_OS_H
#define SUPERVISOR_VM_OS_H

#ifdef _WIN32
#include "vm_win.h"
#else
#include "vm.h"
#endif

#endif
