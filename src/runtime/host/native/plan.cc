#include "plan.h"

#include <sys/mman.h>

namespace shoal {

static bool read_all(int fd, void *target, size_t size) {
  char *at = static_cast<char *>(target);
  while (size > 0) {
    ssize_t got = read(fd, at, size);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    at += got;
    size -= static_cast<size_t>(got);
  }
  return true;
}

static uint32_t u32_at(const char *at) {
  const unsigned char *b = reinterpret_cast<const unsigned char *>(at);
  return b[0] | b[1] << 8 | b[2] << 16 | static_cast<uint32_t>(b[3]) << 24;
}

bool next_step(const Plan &plan, size_t &offset, Step &step) {
  if (offset + 2 > plan.size) return false;
  step.op = plan.bytes[offset];
  step.count = static_cast<unsigned char>(plan.bytes[offset + 1]);
  if (step.count > ARGUMENTS_MAX) return false;
  size_t at = offset + 2;
  for (int i = 0; i < step.count; i++) {
    if (at + 4 > plan.size) return false;
    uint32_t length = u32_at(plan.bytes + at);
    at += 4;
    if (length >= plan.size - at || plan.bytes[at + length] != 0) return false;
    step.argument[i] = plan.bytes + at;
    step.length[i] = length;
    at += length + 1;
  }
  offset = at;
  return true;
}

static uint64_t number(const Step &step, int index) {
  return index < step.count ? strtoull(step.argument[index], nullptr, 10) : 0;
}

static bool apply_limit(Plan &plan, const Step &step) {
  if (plan.limit_count == 16 || step.count != 3) return false;
  Limit &limit = plan.limits[plan.limit_count++];
  limit.resource = static_cast<int>(number(step, 0));
  // Minus one is "unlimited" in either form.
  limit.value.rlim_cur = strtoull(step.argument[1], nullptr, 10);
  limit.value.rlim_max = strtoull(step.argument[2], nullptr, 10);
  return true;
}

/// Takes a record that is a setting. Steps are small letters, and are left alone.
static bool apply_setting(Plan &plan, const Step &step) {
  if (step.op >= 'a' && step.op <= 'z') return true;
  if (step.count < 1) return false;
  char *first = step.argument[0];
  switch (step.op) {
    case 'D': plan.folder = first; return true;
    case 'N': plan.namespaces = number(step, 0); return true;
    case 'H': plan.hostname = first; return true;
    case 'I': plan.with_init = *first == '1'; return true;
    case 'T':
      plan.with_tty = true;
      plan.rows = static_cast<unsigned short>(number(step, 0));
      plan.columns = static_cast<unsigned short>(number(step, 1));
      return true;
    case 'L':
      plan.with_log = true;
      plan.log_bytes_max = number(step, 0);
      plan.log_files_max = static_cast<unsigned>(number(step, 1));
      return true;
    case 'G':
      if (plan.cgroup_count == CGROUPS_MAX) return false;
      plan.cgroups[plan.cgroup_count++] = first;
      return true;
    case 'O': plan.oom_events = first; return true;
    case 'S': plan.oom_score = first; return true;
    case 'A':
      if (plan.argc == STRINGS_MAX) return false;
      plan.argv[plan.argc++] = first;
      return true;
    case 'E':
      if (plan.envc == STRINGS_MAX) return false;
      plan.env[plan.envc++] = first;
      return true;
    case 'W': plan.cwd = first; return true;
    case 'U':
      plan.uid = static_cast<uid_t>(number(step, 0));
      plan.gid = static_cast<gid_t>(number(step, 1));
      return true;
    case 'V':
      if (plan.group_count == GROUPS_MAX) return false;
      plan.groups[plan.group_count++] = static_cast<gid_t>(number(step, 0));
      return true;
    case 'C': plan.capabilities = strtoull(first, nullptr, 16); return true;
    case 'P': plan.no_new_privileges = *first == '1'; return true;
    case 'R': return apply_limit(plan, step);
    case 'X':
      plan.target = static_cast<pid_t>(number(step, 0));
      plan.target_start = number(step, 1);
      return true;
    default: return false;
  }
}

bool read_plan(int fd, Plan &plan) {
  char header[4];
  if (!read_all(fd, header, sizeof(header))) return false;
  plan.size = u32_at(header);
  if (plan.size == 0 || plan.size > PLAN_BYTES_MAX) return false;
  void *memory = mmap(nullptr, plan.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return false;
  plan.bytes = static_cast<char *>(memory);
  if (!read_all(fd, plan.bytes, plan.size)) return false;
  size_t offset = 0;
  Step step;
  while (next_step(plan, offset, step)) {
    if (!apply_setting(plan, step)) return false;
  }
  plan.argv[plan.argc] = nullptr;
  plan.env[plan.envc] = nullptr;
  return offset == plan.size && plan.argc > 0;
}

void forget_contents(const Plan &plan) {
  size_t offset = 0;
  Step step;
  while (next_step(plan, offset, step)) {
    if (step.op == 'f' && step.count == 5) explicit_bzero(step.argument[4], step.length[4]);
  }
}

}  // namespace shoal
