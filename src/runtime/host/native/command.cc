#include "command.h"

#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

namespace shoal {

constexpr int EXIT_NOT_EXECUTABLE = 126;
constexpr int EXIT_NOT_FOUND = 127;
constexpr int CAPABILITY_MAX = 63;
constexpr unsigned int CLOSE_ON_EXEC = 4;

static void each_descriptor(int first, bool close_now) {
  if (syscall(SYS_close_range, first, ~0u, close_now ? 0 : CLOSE_ON_EXEC) == 0) return;
  long count = sysconf(_SC_OPEN_MAX);
  for (int fd = first; fd < (count < 65536 ? count : 65536); fd++) {
    if (close_now) close(fd);
    else fcntl(fd, F_SETFD, FD_CLOEXEC);
  }
}

void close_on_exec_from(int first) { each_descriptor(first, false); }
void close_from(int first) { each_descriptor(first, true); }

bool Cgroups::open(const Plan &plan, Failure &failure) {
  for (int i = 0; i < plan.cgroup_count; i++) {
    fds[count] = ::open(plan.cgroups[i], O_WRONLY | O_CLOEXEC);
    if (fds[count] < 0) {
      failure.set("%s: %s", plan.cgroups[i], strerror(errno));
      return false;
    }
    count++;
  }
  return true;
}

static bool set_capabilities(const Plan &plan) {
  for (int i = 0; i <= CAPABILITY_MAX; i++) {
    if ((plan.capabilities >> i & 1) == 0 && prctl(PR_CAPBSET_DROP, i, 0, 0, 0) != 0 && errno != EINVAL) return false;
  }
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  return true;
}

/// Of root: what it keeps. Executing gives it the bounding set, which is the same.
static bool keep_capabilities(uint64_t mask) {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2];
  if (syscall(SYS_capget, &header, data) != 0) return false;
  for (int i = 0; i < 2; i++) {
    uint32_t part = static_cast<uint32_t>(mask >> (32 * i)) & data[i].permitted;
    data[i].effective = data[i].permitted = part;
    data[i].inheritable = 0;
  }
  return syscall(SYS_capset, &header, data) == 0;
}

static void reset_signals() {
  struct sigaction action;
  memset(&action, 0, sizeof(action));
  action.sa_handler = SIG_DFL;
  for (int i = 1; i < NSIG; i++) sigaction(i, &action, nullptr);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

static bool set_streams(const CommandStreams &streams) {
  int in = streams.in, out = streams.out, err = streams.err;
  if (streams.terminal >= 0) {
    if (ioctl(streams.terminal, TIOCSCTTY, 0) != 0) return false;
    in = out = err = streams.terminal;
  }
  return dup2(in, 0) == 0 && dup2(out, 1) == 1 && dup2(err, 2) == 2;
}

static const char *path_of(const Plan &plan) {
  for (int i = 0; i < plan.envc; i++) {
    if (strncmp(plan.env[i], "PATH=", 5) == 0) return plan.env[i] + 5;
  }
  return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
}

/// Only comes back with the code for a program that cannot be executed.
static int execute(const Plan &plan, Failure &failure) {
  char *name = plan.argv[0];
  char *const *argv = plan.argv;
  char *const *env = plan.env;
  int code = ENOENT;
  if (strchr(name, '/') != nullptr) {
    execve(name, argv, env);
    code = errno;
    failure.set("exec: \"%.200s\": %s", name, strerror(code));
  } else {
    // As execvp does; that one asks its own PATH, not the one of the program to be.
    for (const char *at = path_of(plan); *name != 0;) {
      size_t length = strcspn(at, ":");
      char file[PATH_MAX];
      if (snprintf(file, sizeof(file), "%.*s%s%s", static_cast<int>(length), at, length > 0 ? "/" : "./", name) <
          PATH_MAX) {
        struct stat facts;
        bool is_folder = stat(file, &facts) == 0 && S_ISDIR(facts.st_mode);
        if (!is_folder) execve(file, argv, env);
        if (!is_folder && errno != ENOENT && errno != ENOTDIR) code = errno;
      }
      if (at[length] == 0) break;
      at += length + 1;
    }
    failure.set("exec: \"%.200s\": %s", name,
                code == ENOENT ? "executable file not found in $PATH" : strerror(code));
  }
  return code == ENOENT || code == ENOTDIR ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
}

static bool become(const Plan &plan, const Cgroups &cgroups, const CommandStreams &streams, Failure &failure) {
  const char *doing = "session";
  setsid();
  do {
    doing = "cgroup";
    bool joined = true;
    // Zero is whoever writes it.
    for (int i = 0; i < cgroups.count; i++) joined = joined && write_text(cgroups.fds[i], "0");
    if (!joined) break;
    doing = "output";
    if (!set_streams(streams)) break;
    if (plan.oom_score != nullptr) {
      doing = "oom_score_adj";
      int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
      bool done = fd >= 0 && write_text(fd, plan.oom_score);
      if (fd >= 0) close(fd);
      if (!done) break;
    }
    doing = "ulimit";
    bool limited = true;
    for (int i = 0; i < plan.limit_count; i++)
      limited = limited && setrlimit(static_cast<__rlimit_resource_t>(plan.limits[i].resource), &plan.limits[i].value) == 0;
    if (!limited) break;
    doing = "working directory";
    if (chdir(plan.cwd) != 0) break;
    doing = "capabilities";
    if (!set_capabilities(plan)) break;
    doing = "user";
    if (setgroups(static_cast<size_t>(plan.group_count), plan.groups) != 0 ||
        setresgid(plan.gid, plan.gid, plan.gid) != 0 || setresuid(plan.uid, plan.uid, plan.uid) != 0)
      break;
    if (plan.uid == 0 && !keep_capabilities(plan.capabilities)) break;
    doing = "privileges";
    if (plan.no_new_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) break;
    umask(022);
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    return true;
  } while (false);
  failure.set("%s: %s", doing, strerror(errno));
  return false;
}

int run_command(const Plan &plan, const Cgroups &cgroups, const CommandStreams &streams, Failure &failure) {
  reset_signals();
  close_on_exec_from(3);
  if (!become(plan, cgroups, streams, failure)) return EXIT_NOT_EXECUTABLE;
  // Changing the user has cleared it.
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  return execute(plan, failure);
}

}  // namespace shoal
