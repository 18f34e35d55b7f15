/* SPDX-License-Identifier: BSD-2-Clause */
/* Take everybody's rights to a process away, or give them back: deny.exe PID [back]. For
 * tests/windows/daemon: what a process of a more privileged user looks like. */
#include <windows.h>

#include <aclapi.h>
#include <sddl.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
	HANDLE h = OpenProcess(WRITE_DAC, FALSE, argc > 1 ? (DWORD)atoi(argv[1]) : 0);
	PSECURITY_DESCRIPTOR sd;

	if (!h ||
	    !ConvertStringSecurityDescriptorToSecurityDescriptorA(
		    argc > 2 ? "D:(A;;GA;;;WD)" : "D:", SDDL_REVISION_1, &sd, NULL) ||
	    !SetKernelObjectSecurity(h, DACL_SECURITY_INFORMATION, sd)) {
		fprintf(stderr, "deny: error %lu\n", GetLastError());
		return 1;
	}
	CloseHandle(h);
	h = OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, FALSE, (DWORD)atoi(argv[1]));
	printf("%s\n", h ? "open" : GetLastError() == ERROR_ACCESS_DENIED ? "denied" : "?");
	return 0;
}
