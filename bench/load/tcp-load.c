/*
 * The TCP side of the ingress bench: small programs whose own cost per connection and request is low.
 *
 *   tcp-load serve PORT SECONDS                     answers; what, says the first byte of a request
 *   tcp-load connect ADDR PORT SECONDS CLIENTS      a connection for each request, one after another
 *   tcp-load connect ADDR PORT SECONDS CLIENTS RATE the same, begun at a fixed rate
 *   tcp-load keep ADDR PORT SECONDS CLIENTS         connections that stay, one request after another
 *   tcp-load keep ADDR PORT SECONDS CLIENTS RATE    requests at a fixed rate, over those connections in turn
 *   tcp-load bulk ADDR PORT SECONDS STREAMS         receives as fast as it comes
 *   tcp-load idle ADDR PORT SECONDS CLIENTS         connections that are asked once, and held; says so in a line
 *
 * A request has 64 bytes: 'c' is answered and the connection closed by the server, 'k' is answered, 'b'
 * is answered by bytes without end. An answer has 256 bytes. With a rate the load is open: latencies count from the moment
 * that a request was due, so one that waits for its turn is not flattered. Each prints one line of JSON.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
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

#define REQUEST 64
#define ANSWER 256
#define CHUNK (256 * 1024)
#define EVENTS 256
#define DESCRIPTORS 65536
#define SAMPLES_MAX (4 * 1000 * 1000)
#define LATE_NS 2000000000ull

enum { CONNECTING, WAITING, READY, RECEIVING };

struct connection {
  uint8_t state;
  uint8_t mode;
  uint32_t bytes;
  uint64_t since;
};

static struct connection connections[DESCRIPTORS];
static uint8_t block[CHUNK];
static struct epoll_event events[EVENTS];
static uint32_t *samples;
static size_t count;
static uint64_t failed;
static int loop;
static struct sockaddr_storage target;
static socklen_t target_length;

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
  fprintf(stderr, "tcp-load: %s: %s\n", what, strerror(errno));
  exit(1);
}

/* Until something comes, or request number `asked` of so many a second is due. */
static int wait_events(uint64_t start, uint64_t asked, double rate) {
  if (rate <= 0) return epoll_wait(loop, events, EVENTS, 20);
  uint64_t due = start + (uint64_t)((double)asked * 1e9 / rate), now = now_ns();
  struct timespec left = {.tv_nsec = due > now ? (long)(due - now < 20000000 ? due - now : 20000000) : 50000};
  return epoll_pwait2(loop, events, EVENTS, &left, NULL);
}

static void watch(int fd, uint32_t what) {
  struct epoll_event event = {.events = what, .data.fd = fd};
  if (epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
}

static void at(const char *address, int port) {
  struct sockaddr_in *v4 = (struct sockaddr_in *)&target;
  struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&target;
  if (strchr(address, ':')) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons((uint16_t)port);
    target_length = sizeof *v6;
    if (inet_pton(AF_INET6, address, &v6->sin6_addr) != 1) die("address");
  } else {
    v4->sin_family = AF_INET;
    v4->sin_port = htons((uint16_t)port);
    target_length = sizeof *v4;
    if (inet_pton(AF_INET, address, &v4->sin_addr) != 1) die("address");
  }
}

static void serve_one(int fd, struct connection *c) {
  for (;;) {
    ssize_t n = recv(fd, block, CHUNK, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
      close(fd);
      return;
    }
    if (c->bytes == 0) c->mode = block[0];
    c->bytes += (uint32_t)n;
    while (c->bytes >= REQUEST) {
      c->bytes -= REQUEST;
      if (c->mode == 'b') break;
      send(fd, block, ANSWER, MSG_NOSIGNAL);
      if (c->mode == 'c') {
        close(fd);
        return;
      }
    }
    if (n < CHUNK) return;
  }
}

static int serve(int port, double seconds) {
  int listener = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0), zero = 0, one = 1;
  struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
  setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (bind(listener, (struct sockaddr *)&any, sizeof any)) die("bind");
  if (listen(listener, 4096)) die("listen");
  watch(listener, EPOLLIN);
  uint64_t end = now_ns() + (uint64_t)(seconds * 1e9);
  while (now_ns() < end) {
    int n = epoll_wait(loop, events, EVENTS, 100);
    for (int i = 0; i < n; i++) {
      int fd = events[i].data.fd;
      if (fd == listener) {
        for (int k = 0; k < 64; k++) {
          int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
          if (client < 0) break;
          if (client >= DESCRIPTORS) die("descriptors");
          memset(&connections[client], 0, sizeof connections[client]);
          watch(client, EPOLLIN | EPOLLOUT | EPOLLET);
        }
        continue;
      }
      struct connection *c = &connections[fd];
      if (c->mode == 'b') {
        /* A client that is gone shows here. */
        if (events[i].events & (EPOLLERR | EPOLLHUP)) {
          close(fd);
          continue;
        }
      } else if (events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP)) serve_one(fd, c);
      if (c->mode == 'b') {
        ssize_t sent;
        do sent = send(fd, block, CHUNK, MSG_NOSIGNAL);
        while (sent == CHUNK);
        if (sent < 0 && errno != EAGAIN) close(fd);
      }
    }
  }
  return 0;
}

static void begin(uint64_t since) {
  int one = 1;
  int fd = socket(target.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (fd < 0 || fd >= DESCRIPTORS) die("socket");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  connections[fd] = (struct connection){.state = CONNECTING, .since = since};
  if (connect(fd, (struct sockaddr *)&target, target_length) && errno != EINPROGRESS) {
    failed++;
    close(fd);
    return;
  }
  watch(fd, EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP);
}

static void ask(int fd, char kind) {
  uint8_t request[REQUEST] = {(uint8_t)kind};
  connections[fd].state = WAITING;
  connections[fd].bytes = 0;
  if (send(fd, request, sizeof request, MSG_NOSIGNAL) != REQUEST) {
    failed++;
    close(fd);
    connections[fd].state = READY;
  }
}

static void sample(uint64_t since) {
  if (count < SAMPLES_MAX) samples[count++] = (uint32_t)((now_ns() - since) / 100);
}

static int by_value(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return x < y ? -1 : x > y;
}

static void report(double seconds) {
  if (count > 0) qsort(samples, count, sizeof *samples, by_value);
  double p50 = count ? samples[count / 2] / 10.0 : 0, p99 = count ? samples[count * 99 / 100] / 10.0 : 0;
  double most = count ? samples[count - 1] / 10.0 : 0;
  printf("{\"count\":%zu,\"failed\":%llu,\"seconds\":%.3f,\"p50Us\":%.1f,\"p99Us\":%.1f,\"maxUs\":%.1f}\n", count, (unsigned long long)failed, seconds, p50, p99, most);
}

/* Connections one after another, or begun when they are due. */
static int run_connect(double seconds, int clients, double rate) {
  uint64_t start = now_ns(), end = start + (uint64_t)(seconds * 1e9), begun = 0, open = 0;
  int paced = rate > 0;
  while (now_ns() < end) {
    if (paced) {
      uint64_t due = (uint64_t)((double)(now_ns() - start) / 1e9 * rate);
      for (; begun < due && open < 10000; begun++, open++) begin(start + (uint64_t)((double)begun * 1e9 / rate));
    } else
      for (; open < (uint64_t)clients; open++) begin(now_ns());
    int n = wait_events(start, begun, rate);
    for (int i = 0; i < n; i++) {
      int fd = events[i].data.fd;
      struct connection *c = &connections[fd];
      if (c->state == CONNECTING && (events[i].events & (EPOLLERR | EPOLLHUP))) {
        failed++;
        open--;
        close(fd);
        continue;
      }
      if (c->state == CONNECTING && (events[i].events & EPOLLOUT)) {
        ask(fd, 'c');
        if (c->state != WAITING) open--;
        continue;
      }
      if (c->state != WAITING || !(events[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLERR))) continue;
      for (;;) {
        ssize_t got = recv(fd, block, CHUNK, 0);
        if (got > 0) {
          c->bytes += (uint32_t)got;
          continue;
        }
        if (got < 0 && errno == EAGAIN) break;
        if (got == 0 && c->bytes == ANSWER) sample(c->since);
        else failed++;
        c->state = READY;
        close(fd);
        open--;
        break;
      }
    }
  }
  report((double)(now_ns() - start) / 1e9);
  return 0;
}

/* Opens so many connections, and waits until all are. */
static int open_all(int *fds, int clients) {
  int held = 0, begun = 0;
  uint64_t give_up = now_ns() + 20000000000ull;
  while (held < clients && now_ns() < give_up) {
    for (; begun < clients && begun - held < 256; begun++) begin(now_ns());
    int n = epoll_wait(loop, events, EVENTS, 100);
    for (int i = 0; i < n; i++) {
      int fd = events[i].data.fd;
      if (connections[fd].state != CONNECTING) continue;
      if (events[i].events & (EPOLLERR | EPOLLHUP)) {
        failed++;
        begun--;
        close(fd);
        if (failed > 1000) return held;
        continue;
      }
      connections[fd].state = READY;
      fds[held++] = fd;
    }
  }
  return held;
}

/* Reads what has come; 1: the answer is whole. */
static int answered(int fd) {
  struct connection *c = &connections[fd];
  for (;;) {
    ssize_t got = recv(fd, block, CHUNK, 0);
    if (got < 0 && errno == EAGAIN) return 0;
    if (got <= 0) {
      failed++;
      close(fd);
      c->state = RECEIVING;
      return 0;
    }
    c->bytes += (uint32_t)got;
    if (c->bytes >= ANSWER) return 1;
  }
}

static int run_keep(double seconds, int clients, double rate) {
  int *fds = calloc((size_t)clients, sizeof *fds);
  int held = open_all(fds, clients);
  if (held == 0) die("no connection");
  uint64_t start = now_ns(), end = start + (uint64_t)(seconds * 1e9), asked = 0;
  int paced = rate > 0, next = 0;
  if (!paced)
    for (int i = 0; i < held; i++) {
      connections[fds[i]].since = now_ns();
      ask(fds[i], 'k');
    }
  while (now_ns() < end) {
    if (paced) {
      uint64_t due = (uint64_t)((double)(now_ns() - start) / 1e9 * rate);
      for (int looked = 0; asked < due && looked < held; looked++, next = (next + 1) % held) {
        struct connection *c = &connections[fds[next]];
        if (c->state != READY) continue;
        c->since = start + (uint64_t)((double)asked++ * 1e9 / rate);
        ask(fds[next], 'k');
      }
    }
    int n = wait_events(start, asked, rate);
    for (int i = 0; i < n; i++) {
      int fd = events[i].data.fd;
      struct connection *c = &connections[fd];
      if (c->state != WAITING || !answered(fd)) continue;
      sample(c->since);
      c->state = READY;
      if (paced) continue;
      c->since = now_ns();
      ask(fd, 'k');
    }
  }
  report((double)(now_ns() - start) / 1e9);
  return 0;
}

static int run_bulk(double seconds, int streams) {
  int *fds = calloc((size_t)streams, sizeof *fds);
  if (open_all(fds, streams) != streams) die("connections");
  for (int i = 0; i < streams; i++) ask(fds[i], 'b');
  uint64_t start = now_ns(), end = start + (uint64_t)(seconds * 1e9), total = 0;
  while (now_ns() < end) {
    int n = epoll_wait(loop, events, EVENTS, 20);
    for (int i = 0; i < n; i++)
      for (int k = 0; k < 64; k++) {
        ssize_t got = recv(events[i].data.fd, block, CHUNK, 0);
        if (got == 0 || (got < 0 && errno != EAGAIN)) die("recv");
        if (got < 0) break;
        total += (uint64_t)got;
      }
  }
  printf("{\"bytes\":%llu,\"failed\":%llu,\"seconds\":%.3f}\n", (unsigned long long)total, (unsigned long long)failed, (double)(now_ns() - start) / 1e9);
  return 0;
}

static int run_idle(double seconds, int clients) {
  int *fds = calloc((size_t)clients, sizeof *fds);
  int held = open_all(fds, clients), heard = 0;
  uint64_t give_up = now_ns() + LATE_NS * 5;
  for (int i = 0; i < held; i++) {
    ask(fds[i], 'k');
    /* Not all at once: the backend's queue of connections that wait is finite. */
    while (heard < i + 1 && now_ns() < give_up) {
      int n = epoll_wait(loop, events, EVENTS, 20);
      for (int k = 0; k < n; k++)
        if (connections[events[k].data.fd].state == WAITING && answered(events[k].data.fd)) {
          connections[events[k].data.fd].state = READY;
          heard++;
        }
    }
  }
  printf("{\"held\":%d,\"heard\":%d,\"failed\":%llu}\n", held, heard, (unsigned long long)failed);
  fflush(stdout);
  usleep((useconds_t)(seconds * 1e6));
  return 0;
}

int main(int argc, char **argv) {
  const char *mode = argc > 1 ? argv[1] : "";
  struct rlimit most;
  getrlimit(RLIMIT_NOFILE, &most);
  most.rlim_cur = most.rlim_max < DESCRIPTORS ? most.rlim_max : DESCRIPTORS;
  setrlimit(RLIMIT_NOFILE, &most);
  signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_TIMERSLACK, 1);
  loop = epoll_create1(0);
  samples = malloc(sizeof *samples * SAMPLES_MAX);
  if (loop < 0 || !samples) die("memory");
  if (!strcmp(mode, "serve") && argc == 4) return serve(atoi(argv[2]), atof(argv[3]));
  if (argc >= 6) {
    double seconds = atof(argv[4]), rate = argc > 6 ? atof(argv[6]) : 0;
    int clients = atoi(argv[5]);
    if (clients < 1 || clients > DESCRIPTORS - 64) clients = 1;
    at(argv[2], atoi(argv[3]));
    if (!strcmp(mode, "connect")) return run_connect(seconds, clients, rate);
    if (!strcmp(mode, "keep")) return run_keep(seconds, clients, rate);
    if (!strcmp(mode, "bulk")) return run_bulk(seconds, clients);
    if (!strcmp(mode, "idle")) return run_idle(seconds, clients);
  }
  fprintf(stderr, "tcp-load: see the head of its source for the modes\n");
  return 2;
}
