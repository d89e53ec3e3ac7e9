#pragma once

namespace shoal {

/// Runs one more command inside a task that runs, with this process's own streams; ends with its exit code.
///
/// @param agent Descriptor from which the plan comes, then `size ROWS COLUMNS` of a terminal. Its end ends the command.
///   The one answer to it is `R PID 0` or `E why`.
[[noreturn]] void run_exec(int agent);

}  // namespace shoal
