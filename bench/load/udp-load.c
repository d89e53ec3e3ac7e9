/*
 * The UDP side of the overlay bench: small programs whose own cost per packet is low and known.
 *
 *   udp-load sink PORT SECONDS              counts what arrives; prints packets, bytes, and the span
 *   udp-load flood ADDR PORT SIZE SECONDS   sends as fast as sendmmsg takes it, 64 packets a call
 *   udp-load echo PORT SECONDS              sends every packet back, in the batches in which it came
 *   udp-load window ADDR PORT SIZE SECONDS OUTSTANDING
 *                                           keeps OUTSTANDING requests in flight at an echo
 *   udp-load pingpong ADDR PORT SIZE SECONDS GAP_US
 *                                           one request at a time; prints latency percentiles in ns
 *   udp-load cores SECONDS                  prints how long a cache line takes to another core and back, in ns
 *
 * Each prints one line of JSON. ADDR may be IPv4 or IPv6. A lost packet is timed out after 50 ms.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BATCH 64
#define SLOT 2048
#define SAMPLES_MAX (4 * 1000 * 1000)
#define LOST_NS 50000000ull

static uint8_t bytes[BATCH][SLOT];
static struct iovec vectors[BATCH];
static struct mmsghdr messages[BATCH];
static struct sockaddr_storage peers[BATCH];

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
  fprintf(stderr, "udp-load: %s: %s\n", what, strerror(errno));
  exit(1);
}

static int any_socket(int port) {
  int fd = socket(AF_INET6, SOCK_DGRAM, 0);
  int zero = 0, size = 8 << 20;
  struct sockaddr_in6 at = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
  if (fd < 0) die("socket");
  setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
  if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size)) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
  if (bind(fd, (struct sockaddr *)&at, sizeof at)) die("bind");
  return fd;
}

static int connected_socket(const char *address, int port) {
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
  int is6 = strchr(address, ':') != NULL;
  int fd = socket(is6 ? AF_INET6 : AF_INET, SOCK_DGRAM, 0);
  if (fd < 0) die("socket");
  if (inet_pton(is6 ? AF_INET6 : AF_INET, address, is6 ? (void *)&v6.sin6_addr : (void *)&v4.sin_addr) != 1) die("address");
  if (connect(fd, is6 ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4, is6 ? sizeof v6 : sizeof v4)) die("connect");
  return fd;
}

static void arm(int with_peers, size_t size) {
  for (int i = 0; i < BATCH; i++) {
    vectors[i].iov_base = bytes[i];
    vectors[i].iov_len = size;
    memset(&messages[i], 0, sizeof messages[i]);
    messages[i].msg_hdr.msg_iov = &vectors[i];
    messages[i].msg_hdr.msg_iovlen = 1;
    if (with_peers) {
      messages[i].msg_hdr.msg_name = &peers[i];
      messages[i].msg_hdr.msg_namelen = sizeof peers[i];
    }
  }
}

static int wait_readable(int fd, int ms) {
  struct pollfd p = {.fd = fd, .events = POLLIN};
  return poll(&p, 1, ms) > 0;
}

static int sink(int port, double seconds) {
  int fd = any_socket(port);
  uint64_t end = now_ns() + (uint64_t)(seconds * 1e9), first = 0, last = 0, packets = 0, total = 0;
  while (now_ns() < end) {
    arm(0, SLOT);
    int n = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
    if (n <= 0) {
      wait_readable(fd, 20);
      continue;
    }
    last = now_ns();
    if (!first) first = last;
    for (int i = 0; i < n; i++) total += messages[i].msg_len;
    packets += (uint64_t)n;
  }
  printf("{\"packets\":%llu,\"bytes\":%llu,\"spanNs\":%llu}\n", (unsigned long long)packets, (unsigned long long)total, (unsigned long long)(last - first));
  return 0;
}

static int flood(const char *address, int port, size_t size, double seconds) {
  int fd = connected_socket(address, port);
  uint64_t end = now_ns() + (uint64_t)(seconds * 1e9), packets = 0;
  arm(0, size);
  while (now_ns() < end) {
    int n = sendmmsg(fd, messages, BATCH, 0);
    if (n > 0) packets += (uint64_t)n;
    else if (errno != ENOBUFS && errno != EAGAIN && errno != ECONNREFUSED) die("sendmmsg");
  }
  printf("{\"packets\":%llu}\n", (unsigned long long)packets);
  return 0;
}

static int echo(int port, double seconds) {
  int fd = any_socket(port);
  uint64_t end = now_ns() + (uint64_t)(seconds * 1e9), packets = 0;
  while (now_ns() < end) {
    arm(1, SLOT);
    int n = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
    if (n <= 0) {
      wait_readable(fd, 20);
      continue;
    }
    for (int i = 0; i < n; i++) vectors[i].iov_len = messages[i].msg_len;
    for (int done = 0; done < n;) {
      int sent = sendmmsg(fd, messages + done, (unsigned)(n - done), 0);
      done += sent > 0 ? sent : 1;
    }
    packets += (uint64_t)n;
  }
  printf("{\"packets\":%llu}\n", (unsigned long long)packets);
  return 0;
}

static int window(const char *address, int port, size_t size, double seconds, int outstanding) {
  int fd = connected_socket(address, port);
  uint64_t start = now_ns(), end = start + (uint64_t)(seconds * 1e9), replies = 0, lost = 0, heard = start;
  int credit = outstanding;
  while (now_ns() < end) {
    while (credit > 0) {
      arm(0, size);
      int n = sendmmsg(fd, messages, (unsigned)(credit < BATCH ? credit : BATCH), 0);
      if (n <= 0) break;
      credit -= n;
    }
    arm(0, SLOT);
    int n = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
    if (n > 0) {
      replies += (uint64_t)n;
      credit += n;
      if (credit > outstanding) credit = outstanding;
      heard = now_ns();
    } else if (!wait_readable(fd, 5) && now_ns() - heard > LOST_NS) {
      lost += (uint64_t)(outstanding - credit);
      credit = outstanding;
      heard = now_ns();
    }
  }
  printf("{\"replies\":%llu,\"lost\":%llu,\"seconds\":%.3f}\n", (unsigned long long)replies, (unsigned long long)lost, (double)(now_ns() - start) / 1e9);
  return 0;
}

static int by_value(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return x < y ? -1 : x > y;
}

static int pingpong(const char *address, int port, size_t size, double seconds, int gap_us) {
  int fd = connected_socket(address, port);
  uint32_t *samples = malloc(sizeof *samples * SAMPLES_MAX);
  uint64_t end = now_ns() + (uint64_t)(seconds * 1e9), lost = 0;
  size_t count = 0;
  uint32_t sequence = 0, heard = 0;
  if (!samples) die("malloc");
  while (now_ns() < end && count < SAMPLES_MAX) {
    uint64_t sent = now_ns();
    sequence++;
    memcpy(bytes[0], &sequence, sizeof sequence);
    if (send(fd, bytes[0], size, 0) < 0 && errno != ECONNREFUSED) die("send");
    for (;;) {
      if (!wait_readable(fd, (int)(LOST_NS / 1000000))) {
        lost++;
        break;
      }
      if (recv(fd, bytes[1], SLOT, MSG_DONTWAIT) < (ssize_t)sizeof heard) continue;
      memcpy(&heard, bytes[1], sizeof heard);
      if (heard != sequence) continue;
      samples[count++] = (uint32_t)(now_ns() - sent);
      break;
    }
    if (gap_us > 0) usleep((useconds_t)gap_us);
  }
  if (count == 0) {
    printf("{\"count\":0,\"lost\":%llu}\n", (unsigned long long)lost);
    return 0;
  }
  qsort(samples, count, sizeof *samples, by_value);
  printf("{\"count\":%zu,\"lost\":%llu,\"p50Ns\":%u,\"p90Ns\":%u,\"p99Ns\":%u,\"maxNs\":%u}\n", count, (unsigned long long)lost, samples[count / 2],
         samples[count * 90 / 100], samples[count * 99 / 100], samples[count - 1]);
  return 0;
}

static void pin(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  if (sched_setaffinity(0, sizeof set, &set)) die("sched_setaffinity");
}

/* The best of many short spells: in the others somebody else had one of the two cores. */
static int cores(double seconds) {
  enum { SPELL = 64 };
  cpu_set_t allowed;
  int core[2], found = 0;
  if (sched_getaffinity(0, sizeof allowed, &allowed)) die("sched_getaffinity");
  for (int i = 0; i < CPU_SETSIZE && found < 2; i++)
    if (CPU_ISSET(i, &allowed)) core[found++] = i;
  if (found < 2) {
    printf("{}\n");
    return 0;
  }
  uint32_t *ball = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (ball == MAP_FAILED) die("mmap");
  pid_t other = fork();
  if (other < 0) die("fork");
  if (other == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pin(core[1]);
    for (uint32_t turn = 1;; turn += 2) {
      while (__atomic_load_n(ball, __ATOMIC_ACQUIRE) != turn) {
      }
      __atomic_store_n(ball, turn + 1, __ATOMIC_RELEASE);
    }
  }
  pin(core[0]);
  uint64_t best = UINT64_MAX, end = now_ns() + (uint64_t)(seconds * 1e9);
  for (uint32_t turn = 1; now_ns() < end;) {
    uint64_t start = now_ns();
    for (int i = 0; i < SPELL; i++, turn += 2) {
      __atomic_store_n(ball, turn, __ATOMIC_RELEASE);
      while (__atomic_load_n(ball, __ATOMIC_ACQUIRE) != turn + 1) {
      }
    }
    uint64_t spell = (now_ns() - start) / SPELL;
    if (spell < best) best = spell;
  }
  kill(other, SIGKILL);
  waitpid(other, NULL, 0);
  printf("{\"roundTripNs\": %llu}\n", (unsigned long long)best);
  return 0;
}

int main(int argc, char **argv) {
  const char *mode = argc > 1 ? argv[1] : "";
  if (!strcmp(mode, "sink") && argc == 4) return sink(atoi(argv[2]), atof(argv[3]));
  if (!strcmp(mode, "cores") && argc == 3) return cores(atof(argv[2]));
  if (!strcmp(mode, "echo") && argc == 4) return echo(atoi(argv[2]), atof(argv[3]));
  size_t size = argc > 4 ? (size_t)atoi(argv[4]) : 0;
  if (size < 4 || size > SLOT) size = 64;
  if (!strcmp(mode, "flood") && argc == 6) return flood(argv[2], atoi(argv[3]), size, atof(argv[5]));
  if (!strcmp(mode, "window") && argc == 7) return window(argv[2], atoi(argv[3]), size, atof(argv[5]), atoi(argv[6]));
  if (!strcmp(mode, "pingpong") && argc == 7) return pingpong(argv[2], atoi(argv[3]), size, atof(argv[5]), atoi(argv[6]));
  fprintf(stderr, "udp-load: see the head of its source for the six modes\n");
  return 2;
}
