// The steps that turn fresh namespaces into what the task is to see.
#pragma once

#include "plan.h"

namespace shoal {

/// Does steps in order: those before the mark `y`, or those of each run behind it. `false` with `failure` set at the
/// first that fails and must not.
bool perform_steps(const Plan &plan, bool of_run, Failure &failure);

}  // namespace shoal
