// `shoal-shim task` supervises a task, `shoal-shim exec` runs a command inside one. What to do is read from descriptor 3.
#include "common.h"
#include "exec.h"
#include "supervisor.h"

int main(int argc, char **argv) {
  constexpr int AGENT = 3;
  if (argc == 2 && strcmp(argv[1], "task") == 0) shoal::run_supervisor(AGENT);
  if (argc == 2 && strcmp(argv[1], "exec") == 0) shoal::run_exec(AGENT);
  shoal::write_text(2, "shoal-shim is started by the shoal agent\n");
  return 125;
}
