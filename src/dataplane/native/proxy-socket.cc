#include "proxy-socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace shoal {
namespace {

/** Datagrams that wait in the kernel: of one published port, and of one flow's backend. */
constexpr int kPortBufferBytes = 4 << 20;
constexpr int kUpstreamBufferBytes = 512 << 10;
constexpr uint8_t kMappedPrefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool setOption(int fd, int level, int name, int value) {
  return setsockopt(fd, level, name, &value, sizeof value) == 0;
}

void setTcpOptions(int fd) {
  setOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  setOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  setOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, kKeepaliveSeconds);
}

int failed(int fd) {
  const int error = errno;
  close(fd);
  return -error;
}

/** The address as sockets of this family have it: IPv4 is mapped for those of IPv6. */
Endpoint endpointOf(const Place& place, int family, uint16_t port) {
  Endpoint result;
  result.any.sa_family = static_cast<sa_family_t>(family);
  if (family == AF_INET6) {
    result.v6.sin6_addr = place.address;
    result.v6.sin6_scope_id = place.scope;
  } else {
    memcpy(&result.v4.sin_addr, place.address.s6_addr + sizeof kMappedPrefix, 4);
  }
  result.setPort(port);
  return result;
}

/** Whether a host that has refused an IPv6 socket for this with `error` may have no IPv6, but IPv4. */
bool isWorthIpv4(const Place& place, int error) {
  return (error == -EAFNOSUPPORT || error == -EADDRNOTAVAIL) &&
         (place.isEverywhere() || IN6_IS_ADDR_V4MAPPED(&place.address));
}

int listenOn(const Endpoint& own, int backlog) {
  const int family = own.any.sa_family;
  const int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  setTcpOptions(fd);
  if (family == AF_INET6 && !setOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0)) return failed(fd);
  if (bind(fd, &own.any, own.length()) != 0 || listen(fd, backlog) != 0) return failed(fd);
  return fd;
}

int socketHere(int family, int type) {
  const int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  return fd < 0 ? -errno : fd;
}

/** As many bytes of received datagrams as it takes: beyond the host's limit, with the right to. */
void setReceiveBytes(int fd, int bytes) {
  if (!setOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, bytes)) setOption(fd, SOL_SOCKET, SO_RCVBUF, bytes);
}

/** Without SO_REUSEADDR, which would let another program have the port as well. */
int bindDatagrams(const Endpoint& own) {
  const int family = own.any.sa_family;
  const int fd = socketHere(family, SOCK_DGRAM);
  if (fd < 0) return fd;
  const bool isSet = family == AF_INET6 ? setOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0) &&
                                              setOption(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
                                        : setOption(fd, IPPROTO_IP, IP_PKTINFO, 1);
  setReceiveBytes(fd, kPortBufferBytes);
  if (!isSet || bind(fd, &own.any, own.length()) != 0) return failed(fd);
  return fd;
}

/** The namespace that all threads of the proxy are in, to come back to. */
int ownNamespace() {
  static const int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  return fd;
}

int socketIn(const std::string& netns, int family, int type) {
  if (netns.empty()) return socketHere(family, type);
  const int home = ownNamespace();
  if (home < 0) return -errno;
  const int there = open(netns.c_str(), O_RDONLY | O_CLOEXEC);
  if (there < 0) return -errno;
  const bool entered = setns(there, CLONE_NEWNET) == 0;
  const int error = errno;
  close(there);
  if (!entered) return -error;
  const int fd = socketHere(family, type);
  // A thread that stayed there would serve everybody else from the wrong host.
  while (setns(home, CLONE_NEWNET) != 0) usleep(1000);
  return fd;
}

/** Whether an address means the same elsewhere: not loopback, nor link-local. */
bool isKeptElsewhere(const Endpoint& client) {
  if (client.any.sa_family == AF_INET6)
    return !IN6_IS_ADDR_LOOPBACK(&client.v6.sin6_addr) &&
           !IN6_IS_ADDR_LINKLOCAL(&client.v6.sin6_addr);
  const uint32_t address = ntohl(client.v4.sin_addr.s_addr);
  return address >> 24 != 127 && address >> 16 != 0xa9fe;
}

bool becomeTransparent(int fd, const Endpoint& client) {
  const bool isV4 = client.any.sa_family == AF_INET;
  return setOption(fd, isV4 ? IPPROTO_IP : IPPROTO_IPV6, isV4 ? IP_TRANSPARENT : IPV6_TRANSPARENT, 1);
}

/** To an address that need not be this host's; the port is found when it connects. */
bool bindAsClientAnywhere(int fd, Endpoint client) {
  if (!becomeTransparent(fd, client)) return false;
  setOption(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
  client.setPort(0);
  return bind(fd, &client.any, client.length()) == 0;
}

/** Binds to an address that need not be this host's; another port, where its own is in use. */
bool bindAsClient(int fd, const Endpoint& client) {
  if (!becomeTransparent(fd, client)) return false;
  if (bind(fd, &client.any, client.length()) == 0) return true;
  return errno == EADDRINUSE && bindAsClientAnywhere(fd, client);
}

bool mark(int fd, const Backend& backend) {
  return backend.mark == 0 ||
         setsockopt(fd, SOL_SOCKET, SO_MARK, &backend.mark, sizeof backend.mark) == 0;
}

bool bindAsTold(int fd, const Backend& backend) {
  if (!backend.from.isSet()) return true;
  if (backend.from.port() == 0) setOption(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
  return bind(fd, &backend.from.any, backend.from.length()) == 0;
}

/** From the client's address, or from where the backend is to be reached from. False with `errno` set. */
bool connectFrom(int fd, const Backend& backend, const Endpoint& client, const Endpoint& to,
                 Way way) {
  if (!mark(fd, backend)) return false;
  if (way == Way::kClient && !bindAsClient(fd, client)) return false;
  if (way == Way::kClientAnyPort && !bindAsClientAnywhere(fd, client)) return false;
  if (way == Way::kOwn && !bindAsTold(fd, backend)) return false;
  return connect(fd, &to.any, to.length()) == 0;
}

}  // namespace

bool Ipv4Only::letsTry(int64_t nowNanos) const {
  int64_t until = untilNanos_.load(std::memory_order_relaxed);
  return until == 0 || (until <= nowNanos && untilNanos_.compare_exchange_strong(
                                                 until, nowNanos + kIpv4OnlyAskNanos));
}

Endpoint::Endpoint() { memset(static_cast<void*>(this), 0, sizeof *this); }

Endpoint::Endpoint(const uint8_t address[16], uint16_t port) : Endpoint() {
  if (memcmp(address, kMappedPrefix, sizeof kMappedPrefix) == 0) {
    any.sa_family = AF_INET;
    memcpy(&v4.sin_addr, address + sizeof kMappedPrefix, 4);
  } else {
    any.sa_family = AF_INET6;
    memcpy(&v6.sin6_addr, address, 16);
  }
  setPort(port);
}

Endpoint Endpoint::of(const sockaddr_storage& peer) {
  Endpoint result;
  if (peer.ss_family == AF_INET) {
    memcpy(&result.v4, &peer, sizeof result.v4);
    return result;
  }
  memcpy(&result.v6, &peer, sizeof result.v6);
  if (!IN6_IS_ADDR_V4MAPPED(&result.v6.sin6_addr)) return result;
  return Endpoint(result.v6.sin6_addr.s6_addr, ntohs(result.v6.sin6_port));
}

void Endpoint::setPort(uint16_t port) {
  (any.sa_family == AF_INET ? v4.sin_port : v6.sin6_port) = htons(port);
}

void Endpoint::writeAddress(uint8_t to[16]) const {
  if (any.sa_family == AF_INET) {
    memcpy(to, kMappedPrefix, sizeof kMappedPrefix);
    memcpy(to + sizeof kMappedPrefix, &v4.sin_addr, 4);
  } else {
    memcpy(to, &v6.sin6_addr, 16);
  }
}

bool Place::parse(const std::string& text, Place* place) {
  const size_t at = text.find('%');
  const std::string literal = text.substr(0, at);
  place->scope = at == std::string::npos ? 0 : if_nametoindex(text.c_str() + at + 1);
  if (at != std::string::npos && place->scope == 0) return false;
  if (inet_pton(AF_INET6, literal.c_str(), &place->address) == 1) return true;
  memcpy(place->address.s6_addr, kMappedPrefix, sizeof kMappedPrefix);
  return inet_pton(AF_INET, literal.c_str(), place->address.s6_addr + sizeof kMappedPrefix) == 1;
}

std::vector<PlacedSocket> takeMisplaced(std::vector<PlacedSocket>* sockets,
                                        const std::vector<Place>& places) {
  const auto first = std::partition(sockets->begin(), sockets->end(), [&](const auto& socket) {
    return std::find(places.begin(), places.end(), socket.place) != places.end();
  });
  std::vector<PlacedSocket> taken(first, sockets->end());
  sockets->erase(first, sockets->end());
  return taken;
}

bool hasPlace(const std::vector<PlacedSocket>& sockets, const Place& place) {
  return std::any_of(sockets.begin(), sockets.end(),
                     [&](const PlacedSocket& socket) { return socket.place == place; });
}

int listenAt(const Place& place, uint16_t port, int backlog) {
  const int fd = listenOn(endpointOf(place, AF_INET6, port), backlog);
  return isWorthIpv4(place, fd) ? listenOn(endpointOf(place, AF_INET, port), backlog) : fd;
}

const Endpoint* targetAs(const Backend& backend, const Endpoint& client, int64_t nowNanos) {
  if (!backend.asClient || !isKeptElsewhere(client)) return nullptr;
  if (client.any.sa_family == backend.to.any.sa_family) return &backend.to;
  const bool isOpen = isTakenApart(backend, client) && backend.ipv4Only.letsTry(nowNanos);
  return isOpen ? &backend.to6 : nullptr;
}

bool isTakenApart(const Backend& backend, const Endpoint& client) {
  return client.any.sa_family == AF_INET6 && backend.to6.isSet() &&
         backend.to.any.sa_family != AF_INET6;
}

int beginConnect(const Backend& backend, const Endpoint& client, int64_t nowNanos, Way* way) {
  const Endpoint* target = *way == Way::kOwn6 ? &backend.to6 : nullptr;
  if (*way == Way::kClient) target = targetAs(backend, client, nowNanos);
  if (*way == Way::kClientAnyPort)
    target = isTakenApart(backend, client) ? &backend.to6 : &backend.to;
  if (target == nullptr) *way = Way::kOwn;
  const Endpoint& to = target == nullptr ? backend.to : *target;
  const int fd = socketIn(backend.netns, to.any.sa_family, SOCK_STREAM);
  if (fd < 0) return fd;
  setTcpOptions(fd);
  // The handshake is acknowledged by the first bytes, which usually are there before it is over; see acknowledgeNow.
  setOption(fd, IPPROTO_TCP, TCP_QUICKACK, 0);
  if (connectFrom(fd, backend, client, to, *way) || errno == EINPROGRESS) return fd;
  const int error = failed(fd);
  if (*way == Way::kOwn) return error;
  // Its address and port are in use towards that backend, or may not be used at all.
  *way = *way == Way::kClient ? Way::kClientAnyPort : Way::kOwn;
  return beginConnect(backend, client, nowNanos, way);
}

int bindAt(const Place& place, uint16_t port) {
  const int fd = bindDatagrams(endpointOf(place, AF_INET6, port));
  return isWorthIpv4(place, fd) ? bindDatagrams(endpointOf(place, AF_INET, port)) : fd;
}

int connectDatagrams(const Backend& backend, const Endpoint& client, const Endpoint** target) {
  const bool asClient = *target != nullptr;
  const Endpoint& to = asClient ? **target : backend.to;
  const int fd = socketIn(backend.netns, to.any.sa_family, SOCK_DGRAM);
  if (fd < 0) return fd;
  setReceiveBytes(fd, kUpstreamBufferBytes);
  // One client may have several flows: they are told apart by whom they go to.
  if (asClient && client.port() != 0) setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if (connectFrom(fd, backend, client, to, asClient ? Way::kClient : Way::kOwn)) return fd;
  const int error = failed(fd);
  if (!asClient) return error;
  *target = nullptr;
  return connectDatagrams(backend, client, target);
}

uint32_t writeProxyHeader(uint8_t* at, int version, int type, const Endpoint& client,
                          const Endpoint& target) {
  const int family = client.any.sa_family;
  const bool isKnown = family == target.any.sa_family && family != AF_UNSPEC;
  const bool isV4 = family == AF_INET;
  uint8_t from[16], to[16];
  client.writeAddress(from);
  target.writeAddress(to);
  if (version == 1) {
    char* text = reinterpret_cast<char*>(at);
    if (!isKnown) return static_cast<uint32_t>(snprintf(text, kProxyHeaderMax, "PROXY UNKNOWN\r\n"));
    int length = snprintf(text, kProxyHeaderMax, "PROXY %s", isV4 ? "TCP4" : "TCP6");
    for (const uint8_t* address : {from, to}) {
      // IPv6 in full, which every reader takes.
      for (int i = isV4 ? 12 : 0; i < 16; i += isV4 ? 1 : 2) {
        const int group = isV4 ? address[i] : address[i] << 8 | address[i + 1];
        const char* before = i == (isV4 ? 12 : 0) ? " " : isV4 ? "." : ":";
        length += snprintf(text + length, kProxyHeaderMax - static_cast<size_t>(length),
                           isV4 ? "%s%d" : "%s%x", before, group);
      }
    }
    length += snprintf(text + length, kProxyHeaderMax - static_cast<size_t>(length),
                       " %d %d\r\n", client.port(), target.port());
    return static_cast<uint32_t>(length);
  }
  static const uint8_t signature[12] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
                                        0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};
  const uint32_t addressBytes = isV4 ? 4 : 16;
  const uint32_t length = isKnown ? 2 * addressBytes + 4 : 0;
  memcpy(at, signature, sizeof signature);
  at[12] = 0x21;
  at[13] = static_cast<uint8_t>(!isKnown ? 0 : (isV4 ? 0x10 : 0x20) | (type == SOCK_DGRAM ? 2 : 1));
  at[14] = 0;
  at[15] = static_cast<uint8_t>(length);
  if (!isKnown) return 16;
  uint8_t* next = at + 16;
  for (const uint8_t* address : {from, to}) {
    memcpy(next, address + 16 - addressBytes, addressBytes);
    next += addressBytes;
  }
  for (uint16_t port : {client.port(), target.port()}) {
    *next++ = static_cast<uint8_t>(port >> 8);
    *next++ = static_cast<uint8_t>(port);
  }
  return static_cast<uint32_t>(next - at);
}

void acknowledgeNow(int fd) { setOption(fd, IPPROTO_TCP, TCP_QUICKACK, 1); }

bool isOwnFault(int error) {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM ||
         error == EADDRNOTAVAIL;
}

void closeHard(int fd) {
  const linger now = {1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close(fd);
}

}  // namespace shoal
