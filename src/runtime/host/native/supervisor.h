#pragma once

#include <sys/types.h>

namespace shoal {

/// @param agent Descriptor from which the plan comes, and to which the one answer goes: `R PID START` or `E why`.
[[noreturn]] void run_supervisor(int agent);

/// When a process started, in clock ticks since boot; 0 if there is none.
unsigned long long start_time_of(pid_t pid);

}  // namespace shoal
