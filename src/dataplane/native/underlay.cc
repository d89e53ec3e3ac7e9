#include "underlay.h"

#include <linux/filter.h>
#include <linux/sock_diag.h>
#include <linux/udp.h>
#include <poll.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace shoal {
namespace {

/** Waits for room in the socket, per flush: what does not fit then is dropped and counted. */
constexpr int kWaitsMax = 8;
constexpr int kWaitMillis = 1;
constexpr int kSendBufferBytes = 4 * 1024 * 1024;
constexpr int64_t kRefusalMicros = 30 * 1000 * 1000;

int setOption(int fd, int level, int name, int value) {
  return setsockopt(fd, level, name, &value, sizeof value);
}

void setBuffer(int fd, int forced, int plain, int bytes) {
  // Forcing passes net.core.rmem_max and needs CAP_NET_ADMIN.
  if (setOption(fd, SOL_SOCKET, forced, bytes) != 0) setOption(fd, SOL_SOCKET, plain, bytes);
}

int openSocket(int family) {
  const int fd = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  if (family == AF_INET6) {
    setOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    setOption(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DONT);
    // Tunnels may leave the outer checksum out over IPv6 too (RFC 6935); hardware often does.
    setOption(fd, IPPROTO_UDP, UDP_NO_CHECK6_RX, 1);
  } else {
    // The outer packet may be fragmented, as the kernel's vxlan device lets it be by default.
    setOption(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT);
  }
  return fd;
}

int bindAnywhere(int fd, int family, uint16_t port) {
  if (family == AF_INET6) {
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_port = htons(port);
    return bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address);
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  return bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address);
}

template <typename T>
std::unique_ptr<T> failed(int fd) {
  const int error = errno;
  close(fd);
  errno = error;
  return nullptr;
}

}  // namespace

int64_t nowMicros() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<int64_t>(now.tv_sec) * 1000000 + now.tv_nsec / 1000;
}

std::unique_ptr<Receiver> openReceiver(int family, const UnderlayConfig& config, Stats* stats) {
  const int fd = openSocket(family);
  if (fd < 0) return nullptr;
  setBuffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, config.receiveBufferBytes);
  setOption(fd, IPPROTO_UDP, UDP_GRO, 1);
  if (bindAnywhere(fd, family, config.udpPort) != 0) return failed<Receiver>(fd);
  return std::make_unique<Receiver>(fd, stats);
}

std::unique_ptr<SendQueue> openSender(int family, Stats* stats, std::vector<VtepAddress>* vteps) {
  const int fd = openSocket(family);
  if (fd < 0) return nullptr;
  setBuffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, kSendBufferBytes);
  // RFC 7348 would have the outer checksum zero over IPv4 (SO_NO_CHECK). It is computed all the
  // same: the kernel cuts no trains for a socket without it (EINVAL), nor does a receiver's GRO join
  // datagrams that lack it; and a device that cannot compute it cannot cut trains either.
  // Nobody reads this socket: what is sent to its port must not fill memory.
  sock_filter nothing = BPF_STMT(BPF_RET | BPF_K, 0);
  const sock_fprog filter{1, &nothing};
  setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter);
  if (bindAnywhere(fd, family, 0) != 0) return failed<SendQueue>(fd);
  return std::make_unique<SendQueue>(fd, stats, vteps);
}

SendQueue::SendQueue(int fd, Stats* stats, std::vector<VtepAddress>* vteps)
    : fd_(fd), stats_(stats), vteps_(vteps) {
  memset(headers_, 0, sizeof headers_);
  memset(controls_, 0, sizeof controls_);
  for (int i = 0; i < kMessagesMax; ++i) {
    cmsghdr* control = reinterpret_cast<cmsghdr*>(controls_[i]);
    control->cmsg_level = IPPROTO_UDP;
    control->cmsg_type = UDP_SEGMENT;
    control->cmsg_len = CMSG_LEN(sizeof(uint16_t));
  }
}

SendQueue::~SendQueue() { close(fd_); }

void SendQueue::add(int vtep, const uint8_t* head, uint32_t headLength, const uint8_t* body,
                    uint32_t bodyLength) {
  const uint32_t size = headLength + bodyLength;
  if (size > kTrainBytesMax) {
    drop(1);
    return;
  }
  if (pieceCount_ + 2 > kPiecesMax) flush();
  Message* message = messageCount_ == 0 ? nullptr : &messages_[messageCount_ - 1];
  const bool joins = message != nullptr && !message->closed && message->vtep == vtep &&
                     size <= message->segmentSize && message->bytes + size <= kTrainBytesMax;
  if (joins) {
    message->segments += 1;
    message->bytes += size;
    message->closed = size < message->segmentSize || message->segments == kSegmentsMax;
  } else {
    // A full train leaves while its bytes are still in the cache, and reaches the peer earlier.
    if (message != nullptr && (message->bytes > kTrainBytesMax / 2 || messageCount_ == kMessagesMax))
      flush();
    VtepAddress& address = (*vteps_)[vtep];
    bool refused = size >= address.refusedSize;
    if (refused && nowMicros() > address.refusedUntilMicros) {
      address.refusedSize = UINT32_MAX;
      refused = false;
    }
    message = &messages_[messageCount_++];
    *message = Message{vtep, pieceCount_, 0, size, 1, size, refused};
  }
  if (headLength > 0) pieces_[pieceCount_++] = {const_cast<uint8_t*>(head), headLength};
  if (bodyLength > 0) pieces_[pieceCount_++] = {const_cast<uint8_t*>(body), bodyLength};
  message->pieceCount = pieceCount_ - message->firstPiece;
}

void SendQueue::flush() {
  const int total = messageCount_;
  for (int i = 0; i < total; ++i) {
    const Message& message = messages_[i];
    VtepAddress& vtep = (*vteps_)[message.vtep];
    msghdr& header = headers_[i].msg_hdr;
    header.msg_name = &vtep.address;
    header.msg_namelen = vtep.addressLength;
    header.msg_iov = &pieces_[message.firstPiece];
    header.msg_iovlen = message.pieceCount;
    if (message.segments > 1) {
      const uint16_t size = static_cast<uint16_t>(message.segmentSize);
      memcpy(CMSG_DATA(reinterpret_cast<cmsghdr*>(controls_[i])), &size, sizeof size);
      header.msg_control = controls_[i];
      header.msg_controllen = sizeof controls_[i];
    } else {
      header.msg_control = nullptr;
      header.msg_controllen = 0;
    }
  }
  waitsLeft_ = kWaitsMax;
  for (int next = 0; next < total;) {
    const int sent = total - next == 1
                         ? (sendmsg(fd_, &headers_[next].msg_hdr, 0) < 0 ? -1 : 1)
                         : sendmmsg(fd_, headers_ + next, static_cast<uint32_t>(total - next), 0);
    if (sent > 0) {
      for (int i = next; i < next + sent; ++i) count(messages_[i]);
      next += sent;
      continue;
    }
    const int error = errno;
    if (error == EINTR || waitForRoom(error)) continue;
    const Message& message = messages_[next++];
    if (message.segments > 1 && (error == EIO || error == EINVAL || error == EMSGSIZE)) {
      // Too large for the path, or a route that cannot cut trains: remembered for a while.
      VtepAddress& vtep = (*vteps_)[message.vtep];
      vtep.refusedSize = error == EIO ? 0 : std::min(vtep.refusedSize, message.segmentSize);
      vtep.refusedUntilMicros = nowMicros() + kRefusalMicros;
      sendSingly(message);
    } else {
      drop(message.segments);
    }
  }
  messageCount_ = 0;
  pieceCount_ = 0;
}

void SendQueue::count(const Message& message) {
  stats_->at(Stat::kDatagramsSent) += message.segments;
  stats_->at(Stat::kDatagramBytesSent) += message.bytes;
}

/**
 * While this waits, no TAP is read: a full underlay pushes back on the senders. Bounded, since
 * one stuck socket must not hold up the others.
 */
bool SendQueue::waitForRoom(int error) {
  if (error != EAGAIN && error != ENOBUFS) return false;
  if (waitsLeft_ == 0) return false;
  waitsLeft_ -= 1;
  if (error == ENOBUFS) {
    // The device's queue is full, about which poll knows nothing.
    sched_yield();
    return true;
  }
  pollfd wanted{fd_, POLLOUT, 0};
  poll(&wanted, 1, kWaitMillis);
  return true;
}

void SendQueue::sendSingly(const Message& message) {
  VtepAddress& vtep = (*vteps_)[message.vtep];
  const iovec* piece = &pieces_[message.firstPiece];
  const iovec* end = piece + message.pieceCount;
  while (piece < end) {
    msghdr header{};
    header.msg_name = &vtep.address;
    header.msg_namelen = vtep.addressLength;
    header.msg_iov = const_cast<iovec*>(piece);
    uint32_t size = 0;
    // Datagrams are whole pieces, and only the last one is shorter.
    while (piece < end && size < message.segmentSize) {
      size += static_cast<uint32_t>(piece->iov_len);
      header.msg_iovlen += 1;
      piece += 1;
    }
    ssize_t sent;
    do {
      sent = sendmsg(fd_, &header, 0);
    } while (sent < 0 && (errno == EINTR || waitForRoom(errno)));
    if (sent < 0) {
      drop(1);
      continue;
    }
    stats_->at(Stat::kDatagramsSent) += 1;
    stats_->at(Stat::kDatagramBytesSent) += size;
  }
}

Receiver::~Receiver() { close(fd_); }

Receiver::Receiver(int fd, Stats* stats) : fd_(fd), stats_(stats) {
  memset(headers_, 0, sizeof headers_);
  for (int i = 0; i < kTrainsMax; ++i) {
    msghdr& header = headers_[i].msg_hdr;
    header.msg_name = &senders_[i];
    header.msg_namelen = sizeof senders_[i];
    header.msg_iov = &pieces_[i];
    header.msg_iovlen = 1;
    header.msg_control = controls_[i];
    header.msg_controllen = sizeof controls_[i];
  }
}

/** Asked from time to time: SO_RXQ_OVFL would have the kernel write it with every datagram. */
void Receiver::countOverflows() {
  uint32_t info[SK_MEMINFO_VARS] = {};
  socklen_t size = sizeof info;
  if (getsockopt(fd_, SOL_SOCKET, SO_MEMINFO, info, &size) != 0) return;
  const uint32_t overflows = info[SK_MEMINFO_DROPS];
  stats_->at(Stat::kDatagramReceiveDrops) += static_cast<uint32_t>(overflows - overflows_);
  overflows_ = overflows;
}

int Receiver::read(int trainsMax, Train* trains) {
  const uint32_t count = static_cast<uint32_t>(std::min(trainsMax, kTrainsMax));
  const int received = recvmmsg(fd_, headers_, count, MSG_DONTWAIT, nullptr);
  if (received <= 0) return 0;
  for (int i = 0; i < received; ++i) {
    msghdr& header = headers_[i].msg_hdr;
    Train& train = trains[i];
    train.sender = &senders_[i];
    train.bytes = static_cast<uint8_t*>(pieces_[i].iov_base);
    train.length = headers_[i].msg_len;
    train.segmentSize = train.length;
    train.joined = false;
    for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
      if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
        int size = 0;
        memcpy(&size, CMSG_DATA(c), sizeof size);
        if (size > 0 && static_cast<uint32_t>(size) < train.length) {
          train.segmentSize = static_cast<uint32_t>(size);
          train.joined = true;
        }
      }
    }
    // The kernel shortened these to what it wrote.
    header.msg_namelen = sizeof senders_[i];
    header.msg_controllen = sizeof controls_[i];
  }
  return received;
}

}  // namespace shoal
