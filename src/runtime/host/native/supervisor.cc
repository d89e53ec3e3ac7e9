// What stands by a task from before its first instruction to after its last, whether its agent lives or not.
//
// Two processes: the supervisor itself, in the namespaces of the host, and the first process of the task's own.
// In the task's folder they keep
//
//   ctl       a pipe for the agent's words: `go`, `sig N`, `kill`
//   life      a pipe whose writing end closes when the supervisor is gone; bytes in it mean "look again"
//   prepared  `PID START`: the first process, with its start in clock ticks since boot
//   started   `NANOSECONDS`: the command runs since then
//   exited    `CODE OOM NANOSECONDS`, then a line of what went wrong; written when nothing of the task runs any more
//   log.N     see log-writer.h
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "command.h"
#include "log-writer.h"
#include "steps.h"
#include "supervisor.h"

namespace shoal {

constexpr int EXIT_SUPERVISOR = 125;
/// Reads of what was printed last, after the task's end: 64 MiB.
constexpr int LAST_READS_MAX = 4096;

enum class Phase { PREPARING, PREPARED, STARTING, RUNNING };

struct Supervisor {
  Plan plan;
  Cgroups cgroups;
  int agent = -1;
  int folder = -1;
  int ctl = -1, life = -1, signals = -1;
  /// Of the first process: its words to us, and ours to it.
  int report = -1, go = -1;
  pid_t first = 0;
  Phase phase = Phase::PREPARING;
  bool is_killed = false;
  int waiting_signal = 0;
  int code = 0;
  char words[600];
  size_t word_size = 0;
  char orders[256];
  size_t order_size = 0;
  LogWriter log;
  OutputStream outputs[2];
};

static Supervisor self;

static unsigned long long now_ns() {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<unsigned long long>(now.tv_sec) * 1000000000ull + static_cast<unsigned long long>(now.tv_nsec);
}

unsigned long long start_time_of(pid_t pid) {
  char path[64], text[1024];
  snprintf(path, sizeof(path), "/proc/%d/stat", pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  ssize_t size = read(fd, text, sizeof(text) - 1);
  close(fd);
  if (size <= 0) return 0;
  text[size] = 0;
  char *at = strrchr(text, ')');
  for (int field = 2; at != nullptr && field < 22; field++) at = strchr(at + 1, ' ');
  return at == nullptr ? 0 : strtoull(at + 1, nullptr, 10);
}

/// Replaces a file of the folder as a whole.
static void keep(const char *name, const char *text, bool durably) {
  char partial[32];
  snprintf(partial, sizeof(partial), "%s.partial", name);
  int fd = openat(self.folder, partial, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
  if (fd < 0) return;
  bool done = write_text(fd, text);
  if (durably) fsync(fd);
  close(fd);
  if (done) renameat(self.folder, partial, self.folder, name);
  if (durably) fsync(self.folder);
}

static void wake_agent() {
  // Nobody may be listening, and the pipe be full: then there is enough to wake him.
  if (write(self.life, "!", 1) < 0) return;
}

static void answer_agent(const char *text) {
  if (self.agent < 0) return;
  if (!write_text(self.agent, text)) errno = 0;
  close(self.agent);
  self.agent = -1;
}

[[noreturn]] static void give_up(const char *why) {
  char text[600];
  snprintf(text, sizeof(text), "E %s\n", why);
  answer_agent(text);
  _exit(EXIT_SUPERVISOR);
}

// ---- the first process of the task

struct FirstProcess {
  int report, go;
  CommandStreams streams;
};

[[noreturn]] static void fail_first(int report, char kind, int code, const Failure &failure) {
  char text[560];
  snprintf(text, sizeof(text), "%c%d %s", kind, code, failure.text);
  write_text(report, text);
  _exit(code);
}

/// Stands in for an init: passes signals on, and buries orphans, until the command has ended.
[[noreturn]] static void tend(pid_t command) {
  sigset_t all;
  sigfillset(&all);
  for (;;) {
    siginfo_t info;
    if (sigwaitinfo(&all, &info) < 0) continue;
    if (info.si_signo != SIGCHLD) {
      kill(command, info.si_signo);
      continue;
    }
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
      // With the first process the kernel ends all others of its namespace.
      if (pid == command) _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    }
  }
}

[[noreturn]] static void be_first(const FirstProcess &mine) {
  const Plan &plan = self.plan;
  Failure failure;
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  close(self.ctl);
  close(self.life);
  if (self.agent >= 0) close(self.agent);
  if (plan.hostname != nullptr && sethostname(plan.hostname, strlen(plan.hostname)) != 0)
    failure.set("hostname: %s", strerror(errno));
  else if (perform_steps(plan, failure) && !write_all(mine.report, "R", 1))
    _exit(EXIT_SUPERVISOR);
  if (failure.text[0] != 0) fail_first(mine.report, 'E', EXIT_SUPERVISOR, failure);

  char go;
  ssize_t got;
  while ((got = read(mine.go, &go, 1)) < 0 && errno == EINTR) {
  }
  // The supervisor has died: nobody would hear of the task's end.
  if (got != 1) _exit(EXIT_SUPERVISOR);

  pid_t command = plan.with_init ? fork() : 0;
  if (command < 0) {
    failure.set("fork: %s", strerror(errno));
    fail_first(mine.report, 'X', 126, failure);
  }
  if (command == 0) {
    int code = run_command(plan, self.cgroups, mine.streams, failure);
    fail_first(mine.report, 'X', code, failure);
  }
  close_from(0);
  tend(command);
}

// ---- the supervisor

static bool read_report() {
  for (;;) {
    ssize_t got = read(self.report, self.words + self.word_size, sizeof(self.words) - 1 - self.word_size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return true;
    if (got == 0) return false;
    self.word_size += static_cast<size_t>(got);
    if (self.word_size == sizeof(self.words) - 1) return true;
  }
}

static void kill_first(int signal) {
  if (self.first > 0) kill(self.first, signal);
}

static void on_report() {
  bool is_open = read_report();
  self.words[self.word_size] = 0;
  if (self.phase == Phase::PREPARING && self.words[0] == 'R') {
    char text[64];
    snprintf(text, sizeof(text), "%d %llu\n", self.first, start_time_of(self.first));
    keep("prepared", text, false);
    self.phase = Phase::PREPARED;
    char reply[80];
    snprintf(reply, sizeof(reply), "R %s", text);
    answer_agent(reply);
  }
  if (is_open) return;
  close(self.report);
  self.report = -1;
  // Closed without a word of failure: the command is being executed.
  if (self.phase != Phase::STARTING || strchr(self.words, 'X') != nullptr) return;
  char text[32];
  snprintf(text, sizeof(text), "%llu\n", now_ns());
  keep("started", text, false);
  self.phase = Phase::RUNNING;
  wake_agent();
  if (self.waiting_signal != 0) kill_first(self.waiting_signal);
}

static void obey(const char *order) {
  int signal = 0;
  if (strcmp(order, "go") == 0) {
    if (self.phase != Phase::PREPARED) return;
    self.phase = Phase::STARTING;
    if (!write_all(self.go, "g", 1)) kill_first(SIGKILL);
  } else if (strcmp(order, "kill") == 0) {
    self.is_killed = true;
    kill_first(SIGKILL);
  } else if (sscanf(order, "sig %d", &signal) == 1 && signal > 0 && signal < NSIG) {
    if (self.phase == Phase::RUNNING) kill_first(signal);
    // Between "go" and the program there is nobody who could handle a signal.
    else if (self.phase == Phase::STARTING) self.waiting_signal = signal;
    else kill_first(SIGKILL);
  }
}

static void on_orders() {
  ssize_t got = read(self.ctl, self.orders + self.order_size, sizeof(self.orders) - self.order_size);
  if (got <= 0) return;
  self.order_size += static_cast<size_t>(got);
  size_t start = 0;
  while (void *end = memchr(self.orders + start, '\n', self.order_size - start)) {
    *static_cast<char *>(end) = 0;
    obey(self.orders + start);
    start = static_cast<size_t>(static_cast<char *>(end) - self.orders) + 1;
  }
  self.order_size -= start;
  memmove(self.orders, self.orders + start, self.order_size);
  if (self.order_size == sizeof(self.orders)) self.order_size = 0;
}

static void pump(OutputStream &stream) {
  if (stream.fd < 0 || stream.pump(self.log)) return;
  close(stream.fd);
  stream.fd = -1;
}

/// What the command printed last may still be in the pipes. Somebody else may hold their other end: so not to the end.
static void drain(OutputStream &stream) {
  for (int i = 0; i < LAST_READS_MAX && stream.fd >= 0; i++) {
    pollfd one = {stream.fd, POLLIN, 0};
    if (poll(&one, 1, 0) <= 0) break;
    pump(stream);
  }
  stream.finish(self.log);
}

static unsigned long oom_kills() {
  if (self.plan.oom_events == nullptr) return 0;
  FILE *file = fopen(self.plan.oom_events, "re");
  if (file == nullptr) return 0;
  char key[64];
  unsigned long value, found = 0;
  while (fscanf(file, "%63s %lu", key, &value) == 2) {
    if (strcmp(key, "oom_kill") == 0) found = value;
  }
  fclose(file);
  return found;
}

[[noreturn]] static void conclude(int status) {
  if (self.report >= 0) on_report();
  for (OutputStream &stream : self.outputs) drain(stream);
  int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  const char *error = "";
  // `R`, then `X127 why`; or `E125 why`.
  char *failed = strpbrk(self.words, "XE");
  if (self.phase != Phase::RUNNING && failed != nullptr) {
    error = strchr(failed, ' ') == nullptr ? "" : strchr(failed, ' ') + 1;
    code = atoi(failed + 1);
  }
  char text[700];
  snprintf(text, sizeof(text), "%d %lu %llu\n%s\n", code, oom_kills(), now_ns(), error);
  if (self.phase == Phase::PREPARING && !self.is_killed) give_up(error[0] == 0 ? "the first process ended early" : error);
  keep("exited", text, true);
  wake_agent();
  _exit(0);
}

static void on_child() {
  signalfd_siginfo info;
  if (read(self.signals, &info, sizeof(info)) < 0) return;
  int status;
  for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
    if (pid == self.first) conclude(status);
  }
}

static bool make_pipes(Failure &failure) {
  unlinkat(self.folder, "ctl", 0);
  unlinkat(self.folder, "life", 0);
  if (mkfifoat(self.folder, "ctl", 0600) == 0 && mkfifoat(self.folder, "life", 0600) == 0) {
    self.ctl = openat(self.folder, "ctl", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    self.life = openat(self.folder, "life", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  }
  if (self.ctl >= 0 && self.life >= 0) return true;
  failure.set("pipes in %s: %s", self.plan.folder, strerror(errno));
  return false;
}

static bool make_outputs(CommandStreams &theirs, Failure &failure) {
  self.outputs[0].name = "stdout";
  self.outputs[1].name = "stderr";
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  theirs.in = theirs.out = theirs.err = null;
  bool done = null >= 0;
  if (done && self.plan.with_tty) {
    winsize size = {self.plan.rows, self.plan.columns, 0, 0};
    done = openpty(&self.outputs[0].fd, &theirs.terminal, nullptr, nullptr, &size) == 0;
    if (done) fcntl(self.outputs[0].fd, F_SETFD, FD_CLOEXEC);
  } else if (done && self.plan.with_log) {
    int out[2], err[2];
    done = pipe2(out, O_CLOEXEC) == 0 && pipe2(err, O_CLOEXEC) == 0;
    if (done) {
      self.outputs[0].fd = out[0];
      self.outputs[1].fd = err[0];
      theirs.out = out[1];
      theirs.err = err[1];
    }
  }
  // Of a terminal that is not logged the output is read all the same, into no file.
  if (done && self.plan.with_log) done = self.log.open(self.folder, self.plan.log_bytes_max, self.plan.log_files_max);
  if (!done) failure.set("output: %s", strerror(errno));
  return done;
}

static void start_first(const CommandStreams &streams) {
  int report[2], go[2];
  if (pipe2(report, O_CLOEXEC) != 0 || pipe2(go, O_CLOEXEC) != 0) give_up("no pipes");
  // Blocked from the beginning, so that none is lost before somebody waits for them.
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, nullptr);
  long pid = syscall(SYS_clone, self.plan.namespaces | SIGCHLD, nullptr, nullptr, nullptr, nullptr);
  if (pid < 0) {
    char text[128];
    snprintf(text, sizeof(text), "namespaces: %s", strerror(errno));
    give_up(text);
  }
  if (pid == 0) {
    close(report[0]);
    close(go[1]);
    be_first({report[1], go[0], streams});
  }
  close(report[1]);
  close(go[0]);
  fcntl(report[0], F_SETFL, O_NONBLOCK);
  self.report = report[0];
  self.go = go[1];
  self.first = static_cast<pid_t>(pid);
  forget_contents(self.plan);
}

[[noreturn]] static void supervise() {
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  self.signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
  for (;;) {
    // Where the descriptor is negative, poll looks away.
    pollfd watched[] = {{self.report, POLLIN, 0},
                        {self.ctl, POLLIN, 0},
                        {self.outputs[0].fd, POLLIN, 0},
                        {self.outputs[1].fd, POLLIN, 0},
                        {self.signals, POLLIN, 0}};
    if (poll(watched, 5, -1) < 0) continue;
    if (watched[0].revents != 0) on_report();
    if (watched[1].revents != 0) on_orders();
    if (watched[2].revents != 0) pump(self.outputs[0]);
    if (watched[3].revents != 0) pump(self.outputs[1]);
    if (watched[4].revents != 0) on_child();
  }
}

void run_supervisor(int agent) {
  Failure failure;
  self.agent = agent;
  fcntl(agent, F_SETFD, FD_CLOEXEC);
  if (!read_plan(agent, self.plan) || self.plan.folder == nullptr) give_up("the plan did not arrive whole");
  prctl(PR_SET_NAME, "shoal-task", 0, 0, 0);
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  umask(022);
  // It holds little and must outlive what it watches. Where that is forbidden, it goes without.
  int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  bool is_sheltered = score >= 0 && write_text(score, "-999");
  if (score >= 0) close(score);
  if (is_sheltered && self.plan.oom_score == nullptr) self.plan.oom_score = "0";
  self.folder = open(self.plan.folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  CommandStreams theirs;
  if (self.folder < 0) failure.set("%s: %s", self.plan.folder, strerror(errno));
  else if (make_pipes(failure) && make_outputs(theirs, failure)) self.cgroups.open(self.plan, failure);
  if (failure.text[0] != 0) give_up(failure.text);
  start_first(theirs);
  if (theirs.in >= 0) close(theirs.in);
  if (theirs.out >= 0 && theirs.out != theirs.in) close(theirs.out);
  if (theirs.err >= 0 && theirs.err != theirs.in) close(theirs.err);
  if (theirs.terminal >= 0) close(theirs.terminal);
  for (int i = 0; i < self.cgroups.count; i++) close(self.cgroups.fds[i]);
  if (chdir("/") != 0) give_up("no root directory");
  supervise();
}

}  // namespace shoal
