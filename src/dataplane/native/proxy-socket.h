// Sockets of the proxy: addresses, listening, connecting.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

namespace shoal {

/** An address and a port; IPv4 as such, never mapped into IPv6. */
struct Endpoint {
  union {
    sockaddr any;
    sockaddr_in v4;
    sockaddr_in6 v6;
  };

  Endpoint();
  /** @param address 16 bytes, IPv4 as `::ffff:a.b.c.d`. */
  Endpoint(const uint8_t address[16], uint16_t port);
  /** Of what the kernel says of a peer. */
  static Endpoint of(const sockaddr_storage& peer);

  bool isSet() const { return any.sa_family != AF_UNSPEC; }
  socklen_t length() const { return any.sa_family == AF_INET ? sizeof v4 : sizeof v6; }
  uint16_t port() const { return ntohs(any.sa_family == AF_INET ? v4.sin_port : v6.sin6_port); }
  void setPort(uint16_t port);
  /** 16 bytes, IPv4 as `::ffff:a.b.c.d`. */
  void writeAddress(uint8_t to[16]) const;
};

/** An address of this host to listen at; the unspecified one stands for all, IPv4 too. */
struct Place {
  in6_addr address = in6addr_any;
  uint32_t scope = 0;

  /** @returns False for what is no literal, or has a zone that is no interface. */
  static bool parse(const std::string& text, Place* place);
  bool isEverywhere() const { return IN6_IS_ADDR_UNSPECIFIED(&address); }
  bool operator==(const Place& other) const {
    return IN6_ARE_ADDR_EQUAL(&address, &other.address) && scope == other.scope;
  }
};

/** A socket of a published port. */
struct PlacedSocket {
  Place place;
  int fd;
};

/** Takes those out of `sockets` that are at none of `places`. */
std::vector<PlacedSocket> takeMisplaced(std::vector<PlacedSocket>* sockets,
                                        const std::vector<Place>& places);
bool hasPlace(const std::vector<PlacedSocket>& sockets, const Place& place);

/** For how long a backend that takes nobody by IPv6 is not asked for that, and how long the one that asks then may take. */
constexpr int64_t kIpv4OnlyNanos = 10'000'000'000;
constexpr int64_t kIpv4OnlyAskNanos = 1'000'000'000;

/**
 * Whether a program listens by IPv4 only, as far as was seen. Known for a while; then one flow finds out
 * anew, and the others go on as before until it has. For any thread.
 */
class Ipv4Only {
 public:
  Ipv4Only() = default;
  /** What was seen of one is not of another. */
  Ipv4Only(Ipv4Only&&) noexcept {}

  /** Whether this flow is to try IPv6. */
  bool letsTry(int64_t nowNanos) const;
  bool isKnown() const { return untilNanos_.load(std::memory_order_relaxed) != 0; }
  void refused(int64_t nowNanos) const {
    untilNanos_.store(nowNanos + kIpv4OnlyNanos, std::memory_order_relaxed);
  }
  void taken() const {
    if (isKnown()) untilNanos_.store(0, std::memory_order_relaxed);
  }

 private:
  /** 0: it is not. */
  mutable std::atomic<int64_t> untilNanos_{0};
};

/** Whose address a backend is spoken to from. */
enum class Way : uint8_t {
  /** The client's, and its port. */
  kClient,
  /** The client's, from any port: its own is in use towards that backend, by this node or another one. */
  kClientAnyPort,
  /** This node's, at the place for clients of IPv6: shows whether anybody listens there. */
  kOwn6,
  /** This node's. */
  kOwn,
};

/** Where connections to a backend go, and what they look like. */
struct Backend {
  Endpoint to;
  /** Namespace file that the connection is made in; empty: this one. */
  std::string netns;
  /** Own address to connect from, if it matters. */
  Endpoint from;
  /** Connects from the client's own address and port (IP_TRANSPARENT), if it has the right to. */
  bool asClient = false;
  /** Where it takes clients of IPv6 under their own addresses, if it does. */
  Endpoint to6;
  Ipv4Only ipv4Only;
  /** SO_MARK; 0: none. */
  uint32_t mark = 0;
  /** Version of the PROXY protocol that it is told of its clients in; 0: it is not. */
  int proxyProtocol = 0;
};

/** The longest header of the PROXY protocol that `writeProxyHeader` makes. */
constexpr uint32_t kProxyHeaderMax = 128;

/**
 * What tells a backend who its client is: the same bytes as wire/proxy-protocol.ts makes.
 *
 * @param type SOCK_STREAM or SOCK_DGRAM.
 * @returns Bytes written to `at`, which has room for `kProxyHeaderMax`.
 */
uint32_t writeProxyHeader(uint8_t* at, int version, int type, const Endpoint& client,
                          const Endpoint& target);

/** What a connection is left to the kernel with, when nothing is said for so long. */
constexpr int kKeepaliveSeconds = 60;

/**
 * Listens at an address of the host; at all of them, IPv4 and IPv6, or IPv4 alone on a host without the other.
 * What is accepted inherits that it does not delay small segments and is kept alive.
 *
 * @returns The descriptor, or a negative errno.
 */
int listenAt(const Place& place, uint16_t port, int backlog);

/**
 * Begins to connect, without waiting.
 *
 * @param client Whom this is for.
 * @param way From whose address it may connect; afterwards, from whose it does.
 * @returns The descriptor, or a negative errno.
 */
int beginConnect(const Backend& backend, const Endpoint& client, int64_t nowNanos, Way* way);

/**
 * Binds a socket of datagrams likewise. Each datagram tells which address it was sent to.
 *
 * @returns The descriptor, or a negative errno.
 */
int bindAt(const Place& place, uint16_t port);

/** Where this flow's client is taken under its own address; null: nowhere, or not now. */
const Endpoint* targetAs(const Backend& backend, const Endpoint& client, int64_t nowNanos);

/** Whether this client is taken by IPv6, and others by IPv4. */
bool isTakenApart(const Backend& backend, const Endpoint& client);

/**
 * A socket whose datagrams go to a backend, and that hears of it when nobody is there.
 *
 * @param client Whom this is for; with port 0 from any port of its address.
 * @param target Where the client may be spoken for by its own address; afterwards null if it is not.
 * @returns The descriptor, or a negative errno.
 */
int connectDatagrams(const Backend& backend, const Endpoint& client, const Endpoint** target);

/** Has the kernel acknowledge the handshake of `beginConnect` now: there is nothing to send with it yet. */
void acknowledgeNow(int fd);

/** Whether an errno of `beginConnect` speaks of this host (nothing is left) and not of the backend. */
bool isOwnFault(int error);

/** Closes with RST, so that the other side does not take this for an end in good order. */
void closeHard(int fd);

}  // namespace shoal
