// `shoal-shim task`: supervises one task. The plan is read from descriptor 3.
#include <fcntl.h>

#include "common.h"
#include "supervisor.h"

int main(int argc, char **argv) {
  constexpr int AGENT = 3;
  if (argc == 2 && strcmp(argv[1], "task") == 0) shoal::run_supervisor(AGENT);
  shoal::write_text(2, "shoal-shim is started by the shoal agent\n");
  return 125;
}
