// The steps that turn fresh namespaces into what the task is to see.
#pragma once

#include "plan.h"

namespace shoal {

/// Does all steps in order; `false` with `failure` set at the first that fails and must not.
bool perform_steps(const Plan &plan, Failure &failure);

/// Brings the loopback link of this network namespace up.
bool raise_loopback();

}  // namespace shoal
