/*
 * http-once RATE TIMEOUT_MS ADDR:PORT...
 *
 * HTTP requests in an open loop, each on a connection of its own: RATE a second, at the targets in turn, begun when they are
 * due whatever became of those before. A line for each as it ends,
 *
 *   DUE TOOK TARGET WHO ERROR
 *
 * the first two in microseconds (DUE of the monotonic clock), TARGET by its place, WHO the first word of the answer; `-` for
 * what there is not. On SIGTERM it begins no more, and ends when those under way have.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define DESCRIPTORS 65536
#define TARGETS 64
#define EVENTS 256
#define HEAD 1024
#define TICK_MS 1
#define TELL_NS 50000000ull

static const char REQUEST[] = "GET / HTTP/1.1\r\nHost: chaos\r\nConnection: close\r\n\r\n";

struct request {
  uint64_t due;
  uint32_t serial;
  int target;
  int is_open;
  int is_asked;
  size_t bytes;
  char head[HEAD + 1];
};

struct target {
  struct sockaddr_storage address;
  socklen_t length;
};

/* What is under way, by descriptor, and in the order of its deadlines. */
static struct request requests[DESCRIPTORS];
static struct { int fd; uint32_t serial; } deadlines[DESCRIPTORS];
static uint32_t first_deadline, last_deadline;
static int under_way;
static struct target targets[TARGETS];
static int loop;
static volatile sig_atomic_t is_ending;

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void on_term(int signal) {
  (void)signal;
  is_ending = 1;
}

static void refuse(const char *why) {
  fprintf(stderr, "http-once: %s\n", why);
  exit(2);
}

static void tell(uint64_t due, int target, const char *who, const char *error) {
  printf("%llu %llu %d %s %s\n", (unsigned long long)(due / 1000),
         (unsigned long long)((now_ns() - due) / 1000), target, who, error);
}

static void end(int fd, const char *who, const char *error) {
  struct request *request = &requests[fd];
  tell(request->due, request->target, who, error);
  request->is_open = 0;
  under_way -= 1;
  close(fd);
}

static void fail(int fd, const char *at, int error) {
  char why[64];
  snprintf(why, sizeof why, "%s %s", at, strerrorname_np(error));
  end(fd, "-", why);
}

static void begin(uint64_t due, int target) {
  struct target *to = &targets[target];
  const int fd = socket(to->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0 || fd >= DESCRIPTORS || last_deadline - first_deadline == DESCRIPTORS) {
    if (fd >= 0) close(fd);
    tell(due, target, "-", fd < 0 ? strerrorname_np(errno) : "too many under way");
    return;
  }
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  struct request *request = &requests[fd];
  request->due = due;
  request->serial += 1;
  request->target = target;
  request->is_open = 1;
  request->is_asked = 0;
  request->bytes = 0;
  under_way += 1;
  deadlines[last_deadline % DESCRIPTORS].fd = fd;
  deadlines[last_deadline % DESCRIPTORS].serial = request->serial;
  last_deadline += 1;
  struct epoll_event event = {.events = EPOLLOUT, .data.fd = fd};
  if (connect(fd, (struct sockaddr *)&to->address, to->length) < 0 && errno != EINPROGRESS)
    fail(fd, "connect", errno);
  else if (epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event) < 0)
    fail(fd, "epoll", errno);
}

/* Whether the answer is whole. */
static int is_answered(struct request *request, const char **error) {
  request->head[request->bytes] = 0;
  const char *body = strstr(request->head, "\r\n\r\n");
  if (body == NULL) {
    if (request->bytes == HEAD) *error = "an answer with too long a head";
    return 0;
  }
  if (strncmp(request->head, "HTTP/1.1 200", 12) != 0) {
    *error = "an answer that is not 200";
    return 0;
  }
  const char *length = strcasestr(request->head, "\r\ncontent-length:");
  if (length == NULL || length > body) {
    *error = "an answer without length";
    return 0;
  }
  const size_t whole = body + 4 - request->head + strtoul(length + 17, NULL, 10);
  if (whole > HEAD) *error = "an answer that is too long";
  return request->bytes >= whole;
}

static void on_readable(int fd) {
  struct request *request = &requests[fd];
  const ssize_t got = read(fd, request->head + request->bytes, HEAD - request->bytes);
  if (got < 0) {
    if (errno != EAGAIN) fail(fd, "read", errno);
    return;
  }
  if (got == 0) {
    end(fd, "-", request->bytes == 0 ? "closed without an answer" : "closed too soon");
    return;
  }
  request->bytes += got;
  const char *error = NULL;
  if (is_answered(request, &error)) {
    char *who = strstr(request->head, "\r\n\r\n") + 4;
    who[strcspn(who, " \r\n")] = 0;
    end(fd, *who == 0 ? "-" : who, "-");
  } else if (error != NULL)
    end(fd, "-", error);
}

static void on_connected(int fd) {
  int error = 0;
  socklen_t length = sizeof error;
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
  if (error != 0) {
    fail(fd, "connect", error);
    return;
  }
  if (send(fd, REQUEST, sizeof REQUEST - 1, MSG_NOSIGNAL) < 0) {
    fail(fd, "write", errno);
    return;
  }
  requests[fd].is_asked = 1;
  struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
  epoll_ctl(loop, EPOLL_CTL_MOD, fd, &event);
}

static void expire(uint64_t timeout) {
  const uint64_t now = now_ns();
  for (; first_deadline != last_deadline; first_deadline += 1) {
    const int fd = deadlines[first_deadline % DESCRIPTORS].fd;
    struct request *request = &requests[fd];
    if (!request->is_open || request->serial != deadlines[first_deadline % DESCRIPTORS].serial)
      continue;
    if (now - request->due < timeout) return;
    end(fd, "-", request->is_asked ? "timeout" : "connect timeout");
  }
}

static void resolve(struct target *target, char *text) {
  char *colon = strrchr(text, ':');
  if (colon == NULL) refuse("a target is ADDR:PORT");
  *colon = 0;
  char *host = text;
  if (*host == '[') {
    host += 1;
    host[strcspn(host, "]")] = 0;
  }
  struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
  struct addrinfo *found;
  if (getaddrinfo(host, colon + 1, &hints, &found) != 0) refuse("a target is ADDR:PORT, both numbers");
  memcpy(&target->address, found->ai_addr, found->ai_addrlen);
  target->length = found->ai_addrlen;
  freeaddrinfo(found);
}

int main(int argc, char **argv) {
  if (argc < 4 || argc - 3 > TARGETS) refuse("RATE TIMEOUT_MS ADDR:PORT...");
  const double rate = atof(argv[1]);
  const uint64_t timeout = strtoull(argv[2], NULL, 10) * 1000000ull;
  const int target_count = argc - 3;
  for (int i = 0; i < target_count; i += 1) resolve(&targets[i], argv[3 + i]);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  signal(SIGTERM, on_term);
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  loop = epoll_create1(EPOLL_CLOEXEC);
  const uint64_t start = now_ns();
  uint64_t begun = 0, told = start;
  struct epoll_event events[EVENTS];
  while (!is_ending || under_way > 0) {
    for (; !is_ending; begun += 1) {
      const uint64_t due = start + begun * 1e9 / rate;
      if (due > now_ns()) break;
      begin(due, begun % target_count);
    }
    const int ready = epoll_wait(loop, events, EVENTS, TICK_MS);
    for (int i = 0; i < ready; i += 1) {
      const int fd = events[i].data.fd;
      if (!requests[fd].is_open) continue;
      if (requests[fd].is_asked) on_readable(fd);
      else on_connected(fd);
    }
    expire(timeout);
    const uint64_t now = now_ns();
    if (now - told < TELL_NS) continue;
    told = now;
    if (fflush(stdout) != 0) return 1;
  }
  return fflush(stdout) == 0 ? 0 : 1;
}
