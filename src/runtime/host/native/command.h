// The last steps before a program of the user's runs: who it is, what it may, and the program itself.
#pragma once

#include "plan.h"

namespace shoal {

/// Descriptors of `cgroup.procs` files, opened while the host's /sys is still in sight.
struct Cgroups {
  int fds[CGROUPS_MAX];
  int count = 0;
  bool open(const Plan &plan, Failure &failure);
};

struct CommandStreams {
  int in = -1, out = -1, err = -1;
  /// The terminal, in place of the three.
  int terminal = -1;
};

/// Becomes the command of the plan. Comes back only if that fails: with the exit code that says so.
int run_command(const Plan &plan, const Cgroups &cgroups, const CommandStreams &streams, Failure &failure);

/// Descriptors from `first` on are closed when a program is executed.
void close_on_exec_from(int first);
void close_from(int first);

}  // namespace shoal
