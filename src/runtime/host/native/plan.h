// The plan of a task: what its agent decided, as a list of records that are done one after the other.
//
//   u32 bytes that follow | records: u8 op, u8 count of arguments, arguments: u32 length, bytes, NUL
//
// Numbers are little-endian. The ops are listed in src/runtime/host/wire/plan.ts, which writes it.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include "common.h"

namespace shoal {

constexpr size_t PLAN_BYTES_MAX = 64u << 20;
constexpr int ARGUMENTS_MAX = 8;
constexpr int STRINGS_MAX = 4096;
constexpr int CGROUPS_MAX = 8;
constexpr int GROUPS_MAX = 64;

struct Step {
  char op;
  int count;
  char *argument[ARGUMENTS_MAX];
  uint32_t length[ARGUMENTS_MAX];
};

struct Limit {
  int resource;
  rlimit value;
};

/// The settings of a plan. The steps stay where they are, and are read again one by one.
struct Plan {
  char *bytes = nullptr;
  size_t size = 0;

  const char *folder = nullptr;
  unsigned long namespaces = 0;
  const char *hostname = nullptr;
  bool with_init = true;
  bool with_tty = false;
  unsigned short rows = 0, columns = 0;
  bool with_log = false;
  uint64_t log_bytes_max = 0;
  unsigned log_files_max = 0;
  const char *cgroups[CGROUPS_MAX];
  int cgroup_count = 0;
  const char *oom_events = nullptr;
  const char *oom_score = nullptr;

  char *argv[STRINGS_MAX + 1];
  int argc = 0;
  char *env[STRINGS_MAX + 1];
  int envc = 0;
  const char *cwd = "/";
  uid_t uid = 0;
  gid_t gid = 0;
  gid_t groups[GROUPS_MAX];
  int group_count = 0;
  uint64_t capabilities = 0;
  bool no_new_privileges = false;
  Limit limits[16];
  int limit_count = 0;

  // Of `exec` only: the first process of the task, and when it started (clock ticks since boot).
  pid_t target = 0;
  unsigned long long target_start = 0;
};

/// Reads the whole plan; `false` if its end came too early or it makes no sense.
bool read_plan(int fd, Plan &plan);

/// The record at `offset`, which is moved behind it; `false` at the end or at nonsense.
bool next_step(const Plan &plan, size_t &offset, Step &step);

/// Makes what is secret in a plan unreadable.
void forget_contents(const Plan &plan);

}  // namespace shoal
