// What stands by a task from before its first instruction until it is removed, whether its agent lives or not.
//
// The supervisor is in the task's network, mount, UTS and IPC namespaces, and so keeps them. Each run of the command is
// a PID namespace, whose first process is the supervisor's child. In the task's folder they keep
//
//   ctl       a pipe for the agent's words: `go RUN`, `sig N`, `end`
//   life      a pipe whose writing end closes when the supervisor is gone; bytes in it mean "look again"
//   prepared  `PID START`: the supervisor, with its start in clock ticks since boot; all is ready for a run
//   started   `RUN PID START NANOSECONDS`: the command runs since then; its first process, with its start
//   exited    `RUN CODE OOM NANOSECONDS`, then a line of what went wrong; nothing of that run is left
//   log.N     see log-writer.h
//
// Runs count from 1. What the pipes say twice is done once, since an order names the run that it is for.
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <sched.h>
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
/// How often it is asked whether the folder still is there. A watch would take one of the few that a user may have.
constexpr int FOLDER_CHECK_MS = 10000;

enum class Phase { IDLE, STARTING, RUNNING };

struct Supervisor {
  Plan plan;
  Cgroups cgroups;
  int agent = -1;
  int folder = -1, oom_events = -1;
  int ctl = -1, life = -1, signals = -1;
  bool is_ending = false;

  // Of the present or last run.
  unsigned long run = 0;
  Phase phase = Phase::IDLE;
  pid_t first = 0;
  /// The words of the first process, before the command is executed.
  int report = -1;
  char words[600];
  size_t word_size = 0;
  int waiting_signal = 0;
  unsigned long oom_kills = 0;

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

[[noreturn]] static void fail_first(int report, int code, const Failure &failure) {
  char text[560];
  snprintf(text, sizeof(text), "%d %s", code, failure.text);
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

[[noreturn]] static void be_first(int report, const CommandStreams &streams) {
  const Plan &plan = self.plan;
  Failure failure;
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  close(self.ctl);
  close(self.life);
  if (!perform_steps(plan, true, failure)) fail_first(report, EXIT_SUPERVISOR, failure);
  pid_t command = plan.with_init ? fork() : 0;
  if (command < 0) {
    failure.set("fork: %s", strerror(errno));
    fail_first(report, EXIT_SUPERVISOR, failure);
  }
  if (command == 0) {
    int code = run_command(plan, self.cgroups, streams, failure);
    fail_first(report, code, failure);
  }
  close_from(0);
  tend(command);
}

// ---- the supervisor

static void kill_first(int signal) {
  if (self.first > 0) kill(self.first, signal);
}

/// Reads the words of the first process; closed without any, the command is being executed.
static void on_report() {
  for (;;) {
    ssize_t got = read(self.report, self.words + self.word_size, sizeof(self.words) - 1 - self.word_size);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      if (got < 0) return;
      break;
    }
    self.word_size += static_cast<size_t>(got);
    if (self.word_size == sizeof(self.words) - 1) break;
  }
  self.words[self.word_size] = 0;
  close(self.report);
  self.report = -1;
  if (self.word_size > 0) return;
  char text[128];
  snprintf(text, sizeof(text), "%lu %d %llu %llu\n", self.run, self.first, start_time_of(self.first), now_ns());
  keep("started", text, false);
  self.phase = Phase::RUNNING;
  wake_agent();
  if (self.waiting_signal != 0) kill_first(self.waiting_signal);
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
  if (stream.fd >= 0) close(stream.fd);
  stream.fd = -1;
}

/// How often the kernel had to kill for memory, since the task was made.
static unsigned long oom_kills() {
  char text[1024];
  ssize_t size = self.oom_events < 0 ? -1 : pread(self.oom_events, text, sizeof(text) - 1, 0);
  if (size <= 0) return 0;
  text[size] = 0;
  char *at = strstr(text, "oom_kill ");
  return at == nullptr ? 0 : strtoul(at + strlen("oom_kill "), nullptr, 10);
}

static void conclude(int code, const char *error) {
  for (OutputStream &stream : self.outputs) drain(stream);
  unsigned long kills = oom_kills();
  char text[760];
  snprintf(text, sizeof(text), "%lu %d %lu %llu\n%s\n", self.run, code, kills - self.oom_kills, now_ns(), error);
  self.oom_kills = kills;
  self.first = 0;
  self.phase = Phase::IDLE;
  keep("exited", text, true);
  wake_agent();
}

static bool make_outputs(CommandStreams &theirs) {
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  theirs.in = theirs.out = theirs.err = null;
  if (null < 0) return false;
  if (self.plan.with_tty) {
    winsize size = {self.plan.rows, self.plan.columns, 0, 0};
    // Of a terminal that is not logged the output is read all the same, into no file.
    if (openpty(&self.outputs[0].fd, &theirs.terminal, nullptr, nullptr, &size) != 0) return false;
    fcntl(self.outputs[0].fd, F_SETFD, FD_CLOEXEC);
  } else if (self.plan.with_log) {
    int out[2], err[2];
    if (pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0) return false;
    self.outputs[0].fd = out[0];
    self.outputs[1].fd = err[0];
    theirs.out = out[1];
    theirs.err = err[1];
  }
  return true;
}

static void close_theirs(const CommandStreams &theirs) {
  if (theirs.out >= 0 && theirs.out != theirs.in) close(theirs.out);
  if (theirs.err >= 0 && theirs.err != theirs.in) close(theirs.err);
  if (theirs.in >= 0) close(theirs.in);
  if (theirs.terminal >= 0) close(theirs.terminal);
}

static void start_run(unsigned long run) {
  self.run = run;
  self.phase = Phase::STARTING;
  self.word_size = 0;
  self.waiting_signal = 0;
  CommandStreams theirs;
  int report[2] = {-1, -1};
  long pid = -1;
  if (make_outputs(theirs) && pipe2(report, O_CLOEXEC) == 0) {
    constexpr unsigned long OWN_OF_RUN = CLONE_NEWPID | CLONE_NEWNS;
    pid = syscall(SYS_clone, OWN_OF_RUN | SIGCHLD, nullptr, nullptr, nullptr, nullptr);
    if (pid == 0) be_first(report[1], theirs);
  }
  int code = errno;
  close_theirs(theirs);
  if (report[1] >= 0) close(report[1]);
  if (pid < 0) {
    if (report[0] >= 0) close(report[0]);
    char text[128];
    snprintf(text, sizeof(text), "namespaces: %s", strerror(code));
    return conclude(EXIT_SUPERVISOR, text);
  }
  fcntl(report[0], F_SETFL, O_NONBLOCK);
  self.report = report[0];
  self.first = static_cast<pid_t>(pid);
}

static void obey(const char *order) {
  int signal = 0;
  unsigned long run = 0;
  if (sscanf(order, "go %lu", &run) == 1) {
    if (self.phase == Phase::IDLE && run == self.run + 1) start_run(run);
  } else if (strcmp(order, "end") == 0) {
    self.is_ending = true;
    kill_first(SIGKILL);
  } else if (sscanf(order, "sig %d", &signal) == 1 && signal > 0 && signal < NSIG) {
    // Between "go" and the program there is nobody who could handle a signal.
    if (self.phase == Phase::STARTING && signal != SIGKILL) self.waiting_signal = signal;
    else kill_first(signal);
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

static void on_child() {
  signalfd_siginfo info;
  if (read(self.signals, &info, sizeof(info)) < 0 && errno != EAGAIN) return;
  int status;
  for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
    if (pid != self.first) continue;
    if (self.report >= 0) on_report();
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    // `127 why`.
    char *why = self.word_size > 0 ? strchr(self.words, ' ') : nullptr;
    conclude(why == nullptr ? code : atoi(self.words), why == nullptr ? "" : why + 1);
  }
}

/// Whoever deletes the folder wants no task any more, and no agent could find it: a lab that was taken down, say.
static void end_without_folder() {
  if (self.is_ending || faccessat(self.folder, "ctl", F_OK, 0) == 0) return;
  self.is_ending = true;
  kill_first(SIGKILL);
}

[[noreturn]] static void supervise() {
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  self.signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
  for (;;) {
    if (self.is_ending && self.first == 0) _exit(0);
    // Where the descriptor is negative, poll looks away.
    pollfd watched[] = {{self.report, POLLIN, 0},
                        {self.ctl, POLLIN, 0},
                        {self.outputs[0].fd, POLLIN, 0},
                        {self.outputs[1].fd, POLLIN, 0},
                        {self.signals, POLLIN, 0}};
    if (poll(watched, 5, FOLDER_CHECK_MS) < 0) continue;
    end_without_folder();
    if (watched[0].revents != 0) on_report();
    if (watched[2].revents != 0) pump(self.outputs[0]);
    if (watched[3].revents != 0) pump(self.outputs[1]);
    if (watched[4].revents != 0) on_child();
    if (watched[1].revents != 0) on_orders();
  }
}

static bool make_pipes(Failure &failure) {
  if (mkfifoat(self.folder, "ctl", 0600) == 0 && mkfifoat(self.folder, "life", 0600) == 0) {
    self.ctl = openat(self.folder, "ctl", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    self.life = openat(self.folder, "life", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  }
  if (self.ctl >= 0 && self.life >= 0) return true;
  failure.set("pipes in %s: %s", self.plan.folder, strerror(errno));
  return false;
}

/// Opens all that the host's view is needed for, then leaves it.
static bool enter_namespaces(Failure &failure) {
  const Plan &plan = self.plan;
  self.folder = open(plan.folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (self.folder < 0) {
    failure.set("%s: %s", plan.folder, strerror(errno));
    return false;
  }
  if (!make_pipes(failure) || !self.cgroups.open(plan, failure)) return false;
  if (plan.oom_events != nullptr) self.oom_events = open(plan.oom_events, O_RDONLY | O_CLOEXEC);
  if (plan.with_log && !self.log.open(self.folder, plan.log_bytes_max, plan.log_files_max)) {
    failure.set("log: %s", strerror(errno));
    return false;
  }
  if (unshare(static_cast<int>(plan.namespaces)) != 0) {
    failure.set("namespaces: %s", strerror(errno));
    return false;
  }
  if (plan.hostname != nullptr && sethostname(plan.hostname, strlen(plan.hostname)) != 0) {
    failure.set("hostname: %s", strerror(errno));
    return false;
  }
  return perform_steps(plan, false, failure);
}

void run_supervisor(int agent) {
  Failure failure;
  self.agent = agent;
  self.outputs[0].name = "stdout";
  self.outputs[1].name = "stderr";
  fcntl(agent, F_SETFD, FD_CLOEXEC);
  if (!read_plan(agent, self.plan) || self.plan.folder == nullptr) give_up("the plan did not arrive whole");
  prctl(PR_SET_NAME, "shoal-task", 0, 0, 0);
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  umask(022);
  // Blocked from the beginning, so that none is lost before somebody waits for them.
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, nullptr);
  // It holds little and must outlive what it watches. Where that is forbidden, it goes without.
  int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  bool is_sheltered = score >= 0 && write_text(score, "-999");
  if (score >= 0) close(score);
  if (is_sheltered && self.plan.oom_score == nullptr) self.plan.oom_score = "0";
  if (!enter_namespaces(failure)) give_up(failure.text);
  forget_contents(self.plan);
  if (chdir("/") != 0) give_up("no root directory");
  char answer[80];
  snprintf(answer, sizeof(answer), "R %d %llu\n", getpid(), start_time_of(getpid()));
  keep("prepared", answer + 2, false);
  answer_agent(answer);
  supervise();
}

}  // namespace shoal
