/*
 * http-task PORT
 *
 * A task behind a published port, as scripts/chaos/http-server.mjs is one, that is as fast at its first request as at any
 * other: answers at once, by SLOT and VERSION of its environment, or slowly at `/slow?ms=N`, and ends in good order: on SIGTERM
 * it takes no new connections, and says with each answer that the connection ends. SIGUSR2 has it take its time for each
 * answer, SIGHUP break off each connection that asks something, both until the next one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define DESCRIPTORS 65536
#define EVENTS 256
#define HEAD 4096
#define CHUNK (16 * 1024)
#define CHUNK_MS 100
#define SLOW_MS 900
#define TICK_MS 10
/* For connections on which nobody asks any more. */
#define GRACE_MS 5000
#define BACKLOG 1024

struct connection {
  int is_open;
  size_t bytes;
  char head[HEAD + 1];
  int is_last;
  /* What is to be sent still, from when on; 0: nothing is due. */
  uint64_t due_ms;
  int chunks_left;
  size_t unsent;
};

static struct connection *connections[DESCRIPTORS];
static int highest, open_count;
static int loop;
static int is_ending, is_slow, is_breaking;
static uint64_t ending_since;
static char who[256];
static char chunk[CHUNK];

static uint64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000ull + t.tv_nsec / 1000000;
}

static void refuse(const char *why) {
  fprintf(stderr, "http-task: %s: %s\n", why, strerror(errno));
  exit(1);
}

static void finish(int fd) {
  connections[fd]->is_open = 0;
  open_count -= 1;
  close(fd);
}

static void break_off(int fd) {
  const struct linger hard = {.l_onoff = 1};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  finish(fd);
}

static void watch(int fd, uint32_t what) {
  struct epoll_event event = {.events = what, .data.fd = fd};
  epoll_ctl(loop, EPOLL_CTL_MOD, fd, &event);
}

/* Sends a whole head or a short answer: a fresh connection's buffer takes it. */
static int say(int fd, const char *text, size_t bytes) {
  if (send(fd, text, bytes, MSG_NOSIGNAL) == (ssize_t)bytes) return 1;
  finish(fd);
  return 0;
}

static void next_request(int fd);

static void answer(int fd) {
  struct connection *c = connections[fd];
  char text[512];
  const int bytes = snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\n%sContent-Length: %zu\r\n\r\n%s",
                             c->is_last ? "Connection: close\r\n" : "", strlen(who), who);
  c->due_ms = 0;
  if (!say(fd, text, bytes)) return;
  if (c->is_last) finish(fd);
  else next_request(fd);
}

static void begin_slowly(int fd, uint64_t ms) {
  struct connection *c = connections[fd];
  char text[256];
  c->chunks_left = (ms + CHUNK_MS - 1) / CHUNK_MS;
  c->unsent = 0;
  c->due_ms = now_ms() + CHUNK_MS;
  const int bytes = snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\n%sContent-Length: %zu\r\n\r\n",
                             c->is_last ? "Connection: close\r\n" : "", (size_t)c->chunks_left * CHUNK);
  say(fd, text, bytes);
}

/* What is due of a slow answer; what the connection does not take waits until it does. */
static void go_on(int fd) {
  struct connection *c = connections[fd];
  while (c->unsent > 0) {
    const ssize_t sent = send(fd, chunk, c->unsent < CHUNK ? c->unsent : CHUNK, MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) {
      watch(fd, EPOLLIN | EPOLLOUT);
      return;
    }
    if (sent < 0) {
      finish(fd);
      return;
    }
    c->unsent -= sent;
  }
  watch(fd, EPOLLIN);
  if (c->chunks_left > 0) return;
  c->due_ms = 0;
  if (c->is_last) finish(fd);
  else next_request(fd);
}

static void take_request(int fd, char *end) {
  struct connection *c = connections[fd];
  const char saved = end[4];
  end[4] = 0;
  unsigned long long ms = 0;
  sscanf(c->head, "GET /slow?ms=%llu", &ms);
  c->is_last = is_ending || strcasestr(c->head, "\r\nconnection: close\r\n") != NULL;
  end[4] = saved;
  c->bytes -= end + 4 - c->head;
  memmove(c->head, end + 4, c->bytes);
  if (is_breaking) break_off(fd);
  else if (ms > 0) begin_slowly(fd, ms);
  else if (is_slow) {
    c->chunks_left = 0;
    c->due_ms = now_ms() + SLOW_MS;
  } else answer(fd);
}

static void next_request(int fd) {
  struct connection *c = connections[fd];
  c->head[c->bytes] = 0;
  char *end = strstr(c->head, "\r\n\r\n");
  if (end != NULL) take_request(fd, end);
  else if (c->bytes == HEAD) break_off(fd);
}

static void on_readable(int fd) {
  struct connection *c = connections[fd];
  char rest[256];
  const int is_full = c->bytes == HEAD;
  const ssize_t got = is_full ? read(fd, rest, sizeof rest) : read(fd, c->head + c->bytes, HEAD - c->bytes);
  if (got < 0 && errno == EAGAIN) return;
  if (got <= 0) {
    finish(fd);
    return;
  }
  if (is_full) {
    break_off(fd);
    return;
  }
  c->bytes += got;
  if (c->due_ms == 0) next_request(fd);
}

static void on_tick(void) {
  const uint64_t now = now_ms();
  for (int fd = 0; fd <= highest; fd += 1) {
    struct connection *c = connections[fd];
    if (c == NULL || !c->is_open) continue;
    if (c->due_ms == 0) {
      if (is_ending && now - ending_since > GRACE_MS) finish(fd);
      continue;
    }
    if (now < c->due_ms) continue;
    if (c->chunks_left == 0 && c->unsent == 0) {
      answer(fd);
      continue;
    }
    if (c->chunks_left == 0) continue;
    c->chunks_left -= 1;
    c->unsent += CHUNK;
    c->due_ms += CHUNK_MS;
    go_on(fd);
  }
}

static void on_accept(int listener) {
  for (;;) {
    const int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    if (fd >= DESCRIPTORS) {
      close(fd);
      return;
    }
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connections[fd] == NULL) connections[fd] = malloc(sizeof(struct connection));
    if (connections[fd] == NULL) refuse("memory");
    memset(connections[fd], 0, offsetof(struct connection, head));
    connections[fd]->due_ms = 0;
    connections[fd]->unsent = 0;
    connections[fd]->chunks_left = 0;
    connections[fd]->is_open = 1;
    open_count += 1;
    if (fd > highest) highest = fd;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event) < 0) finish(fd);
  }
}

static int listen_at(int port) {
  const int fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int on = 1, off = 0;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  struct sockaddr_in6 all = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
  if (fd < 0 || bind(fd, (struct sockaddr *)&all, sizeof all) < 0 || listen(fd, BACKLOG) < 0)
    refuse("listen");
  return fd;
}

static void on_signal(int signals, int *listener) {
  struct signalfd_siginfo info;
  while (read(signals, &info, sizeof info) == sizeof info) {
    if (info.ssi_signo == SIGUSR2) is_slow = !is_slow;
    else if (info.ssi_signo == SIGHUP) is_breaking = !is_breaking;
    else if (!is_ending) {
      is_ending = 1;
      ending_since = now_ms();
      /* Those that the kernel has taken are this task's still. */
      on_accept(*listener);
      close(*listener);
      *listener = -1;
    }
  }
}

int main(int argc, char **argv) {
  const char *slot = getenv("SLOT"), *version = getenv("VERSION");
  snprintf(who, sizeof who, "%s %s\n", slot ? slot : "?", version ? version : "1");
  memset(chunk, 'x', sizeof chunk);
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGUSR2);
  sigaddset(&set, SIGHUP);
  sigprocmask(SIG_BLOCK, &set, NULL);
  const int signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
  int listener = listen_at(argc > 1 ? atoi(argv[1]) : 80);
  loop = epoll_create1(EPOLL_CLOEXEC);
  const int own[] = {signals, listener};
  for (int i = 0; i < 2; i += 1) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = own[i]};
    if (epoll_ctl(loop, EPOLL_CTL_ADD, own[i], &event) < 0) refuse("epoll");
  }
  struct epoll_event events[EVENTS];
  uint64_t ticked = now_ms();
  while (!is_ending || open_count > 0) {
    const int ready = epoll_wait(loop, events, EVENTS, TICK_MS);
    for (int i = 0; i < ready; i += 1) {
      const int fd = events[i].data.fd;
      if (fd == signals) on_signal(signals, &listener);
      else if (fd == listener) on_accept(listener);
      else if (connections[fd] == NULL || !connections[fd]->is_open) continue;
      else if (events[i].events & EPOLLOUT) go_on(fd);
      else on_readable(fd);
    }
    if (now_ms() - ticked < TICK_MS) continue;
    ticked = now_ms();
    on_tick();
  }
  return 0;
}
