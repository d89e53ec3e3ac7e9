#include "exec.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>

#include "command.h"
#include "supervisor.h"

namespace shoal {

constexpr int EXIT_EXEC = 125;
/// Reads of what was printed last, after the command's end.
constexpr int LAST_READS_MAX = 4096;

/// Bytes on their way from one descriptor to another.
struct Relay {
  int from = -1, to = -1;
  char held[16384];
  size_t start = 0, end = 0;

  bool is_open() const { return to >= 0; }
  void close_both() {
    if (from >= 0) close(from);
    if (to >= 0) close(to);
    from = to = -1;
  }
  short wants_from() const { return from >= 0 && start == end ? POLLIN : 0; }
  short wants_to() const { return start < end ? POLLOUT : 0; }

  void take() {
    if (from < 0 || start < end) return;
    ssize_t got = read(from, held, sizeof(held));
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (got <= 0) return close_both();
    start = 0;
    end = static_cast<size_t>(got);
  }
  void give() {
    if (to < 0 || start == end) return;
    ssize_t put = write(to, held + start, end - start);
    if (put < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (put <= 0) return close_both();
    start += static_cast<size_t>(put);
  }
};

static void answer(int agent, const char *kind, const char *text) {
  char line[600];
  snprintf(line, sizeof(line), "%s %s\n", kind, text);
  if (!write_text(agent, line)) errno = 0;
}

[[noreturn]] static void refuse(int agent, const char *why) {
  answer(agent, "E", why);
  _exit(EXIT_EXEC);
}

static const char *const NAMESPACES[] = {"net", "uts", "ipc", "pid", "mnt"};
constexpr int NAMESPACE_COUNT = 5;

/// Enters the namespaces of the task's first process. They are opened before it is asked whether it is the right one:
/// so another process that has its number by then does no harm.
static bool enter(const Plan &plan) {
  int fds[NAMESPACE_COUNT];
  for (int i = 0; i < NAMESPACE_COUNT; i++) {
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/ns/%s", plan.target, NAMESPACES[i]);
    if ((fds[i] = open(path, O_RDONLY | O_CLOEXEC)) < 0) return false;
  }
  if (start_time_of(plan.target) != plan.target_start) return false;
  for (int fd : fds) {
    if (setns(fd, 0) != 0) return false;
    close(fd);
  }
  return true;
}

struct Exec {
  Plan plan;
  Cgroups cgroups;
  int agent = -1, signals = -1, terminal = -1;
  pid_t command = 0;
  bool is_over = false;
  int code = 0;
  /// To the command, and its output and errors back.
  Relay relays[3];
  char words[128];
  size_t word_size = 0;
};

static Exec self;

static void kill_command() {
  // It leads a session of its own, so this is all that it started and did not send away.
  if (self.is_over || self.command <= 0) return;
  kill(-self.command, SIGKILL);
  kill(self.command, SIGKILL);
}

static void on_words() {
  ssize_t got = read(self.agent, self.words + self.word_size, sizeof(self.words) - 1 - self.word_size);
  if (got < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (got <= 0) {
    close(self.agent);
    self.agent = -1;
    return kill_command();
  }
  self.word_size += static_cast<size_t>(got);
  self.words[self.word_size] = 0;
  char *line = self.words;
  while (char *end = strchr(line, '\n')) {
    winsize size = {0, 0, 0, 0};
    if (sscanf(line, "size %hu %hu", &size.ws_row, &size.ws_col) == 2 && self.terminal >= 0)
      ioctl(self.terminal, TIOCSWINSZ, &size);
    line = end + 1;
  }
  self.word_size -= static_cast<size_t>(line - self.words);
  memmove(self.words, line, self.word_size);
  if (self.word_size == sizeof(self.words) - 1) self.word_size = 0;
}

static void on_child() {
  signalfd_siginfo info;
  if (read(self.signals, &info, sizeof(info)) < 0 && errno != EAGAIN) return;
  int status;
  if (waitpid(self.command, &status, WNOHANG) != self.command) return;
  self.is_over = true;
  self.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/// What was printed last goes out; a process in the background may keep its end open, and is not waited for.
[[noreturn]] static void conclude() {
  for (int i = 1; i < 3; i++) {
    Relay &relay = self.relays[i];
    if (relay.is_open()) fcntl(relay.to, F_SETFL, 0);
    for (int reads = 0; reads < LAST_READS_MAX && relay.is_open(); reads++) {
      relay.give();
      pollfd one = {relay.from, POLLIN, 0};
      if (relay.start == relay.end && poll(&one, 1, 0) <= 0) break;
      relay.take();
    }
  }
  _exit(self.code);
}

[[noreturn]] static void relay_all() {
  for (Relay &relay : self.relays) {
    if (relay.from >= 0) fcntl(relay.from, F_SETFL, O_NONBLOCK);
    if (relay.to >= 0) fcntl(relay.to, F_SETFL, O_NONBLOCK);
  }
  while (!self.is_over) {
    pollfd watched[8] = {{self.agent, POLLIN, 0}, {self.signals, POLLIN, 0}};
    for (int i = 0; i < 3; i++) {
      Relay &relay = self.relays[i];
      // A descriptor that nothing is wanted of would wake us by its end, again and again.
      watched[2 + 2 * i] = {relay.wants_from() != 0 ? relay.from : -1, POLLIN, 0};
      watched[3 + 2 * i] = {relay.wants_to() != 0 ? relay.to : -1, POLLOUT, 0};
    }
    if (poll(watched, 8, -1) < 0) continue;
    for (int i = 0; i < 3; i++) {
      if (watched[2 + 2 * i].revents != 0) self.relays[i].take();
      if (watched[3 + 2 * i].revents != 0) self.relays[i].give();
    }
    if (watched[0].revents != 0) on_words();
    if (watched[1].revents != 0) on_child();
  }
  conclude();
}

/// The command's ends of pipes or of a terminal; ours go into the relays.
static bool make_streams(CommandStreams &theirs) {
  Relay *relays = self.relays;
  if (self.plan.with_tty) {
    winsize size = {self.plan.rows, self.plan.columns, 0, 0};
    if (openpty(&self.terminal, &theirs.terminal, nullptr, nullptr, &size) != 0) return false;
    relays[0].from = 0;
    relays[0].to = fcntl(self.terminal, F_DUPFD_CLOEXEC, 3);
    relays[1].from = self.terminal;
    relays[1].to = 1;
    return true;
  }
  int in[2], out[2], err[2];
  if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0) return false;
  theirs.in = in[0];
  theirs.out = out[1];
  theirs.err = err[1];
  relays[0].from = 0;
  relays[0].to = in[1];
  relays[1].from = out[0];
  relays[1].to = 1;
  relays[2].from = err[0];
  relays[2].to = 2;
  return true;
}

void run_exec(int agent) {
  self.agent = agent;
  fcntl(agent, F_SETFD, FD_CLOEXEC);
  Plan &plan = self.plan;
  if (!read_plan(agent, plan) || plan.target <= 0) refuse(agent, "the plan did not arrive whole");
  prctl(PR_SET_NAME, "shoal-exec", 0, 0, 0);
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  Failure failure;
  CommandStreams theirs;
  if (!self.cgroups.open(plan, failure)) refuse(agent, failure.text);
  if (!make_streams(theirs)) refuse(agent, strerror(errno));
  if (!enter(plan)) refuse(agent, "the task does not run");
  sigset_t all, child;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, nullptr);
  self.command = fork();
  if (self.command < 0) refuse(agent, strerror(errno));
  if (self.command == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    int code = run_command(plan, self.cgroups, theirs, failure);
    // Its streams are set by then, but for failures that name them.
    write_text(2, failure.text);
    write_text(2, "\n");
    _exit(code);
  }
  const int given[] = {theirs.in, theirs.out, theirs.err, theirs.terminal};
  for (int fd : given) {
    if (fd >= 0) close(fd);
  }
  // As the host counts: only what is forked from here on is in the task's PID namespace.
  char text[64];
  snprintf(text, sizeof(text), "%d 0", self.command);
  answer(agent, "R", text);
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  self.signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
  relay_all();
}

}  // namespace shoal
