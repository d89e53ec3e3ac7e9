// The UDP side: where VXLAN datagrams come from and go to.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "frame.h"
#include "stats.h"

namespace shoal {

struct UnderlayConfig {
  uint16_t udpPort;
  int receiveBufferBytes;
  uint32_t sourcePorts;
};

struct VtepAddress {
  bool known = false;
  sockaddr_storage address;
  socklen_t addressLength = 0;
  /** Datagrams of this size or more are not joined: the route refused it. Until `refusedUntil`. */
  uint32_t refusedSize = UINT32_MAX;
  int64_t refusedUntilMicros = 0;
};

/**
 * One socket to send from, with what is waiting on it.
 *
 * Waiting datagrams are joined while they go to one VTEP and have one size, a shorter one last:
 * the kernel cuts such a train again (UDP_SEGMENT), after one trip through its stack.
 */
class SendQueue {
 public:
  static constexpr int kMessagesMax = 64;
  static constexpr int kPiecesMax = 1024;
  /** UDP_MAX_SEGMENTS of older kernels. */
  static constexpr uint32_t kSegmentsMax = 64;
  /** A UDP payload ends at 65,507 bytes over IPv4, and less with IPv6 options. */
  static constexpr uint32_t kTrainBytesMax = 65000;

  struct Message {
    int vtep;
    uint32_t firstPiece;
    uint32_t pieceCount;
    uint32_t segmentSize;
    uint32_t segments;
    uint32_t bytes;
    bool closed;
  };

  SendQueue(int fd, Stats* stats, std::vector<VtepAddress>* vteps);
  ~SendQueue();
  SendQueue(const SendQueue&) = delete;

  /** Adds a datagram in one or two pieces, which must stay until `flush`. */
  void add(int vtep, const uint8_t* head, uint32_t headLength, const uint8_t* body,
           uint32_t bodyLength);
  void flush();
  bool isEmpty() const { return messageCount_ == 0; }

 private:
  void sendSingly(const Message& message);
  bool waitForRoom(int error);
  void count(const Message& message);
  void drop(uint32_t datagrams) { stats_->at(Stat::kDatagramSendDrops) += datagrams; }

  int fd_;
  Stats* stats_;
  std::vector<VtepAddress>* vteps_;
  int messageCount_ = 0;
  uint32_t pieceCount_ = 0;
  int waitsLeft_ = 0;
  Message messages_[kMessagesMax];
  iovec pieces_[kPiecesMax];
  mmsghdr headers_[kMessagesMax];
  alignas(cmsghdr) uint8_t controls_[kMessagesMax][CMSG_SPACE(sizeof(uint16_t))];
};

/** Datagrams of one read: trains as the kernel joined them (UDP_GRO). */
struct Train {
  const sockaddr_storage* sender;
  uint8_t* bytes;
  uint32_t length;
  /** Size of its datagrams apart from a shorter last one; `length` if it is one datagram. */
  uint32_t segmentSize;
  bool joined;
};

/** The socket that VXLAN arrives on, for one address family. */
class Receiver {
 public:
  /** Enough single datagrams for several flows to be joined to large frames. */
  static constexpr int kTrainsMax = 256;

  Receiver(int fd, Stats* stats);
  ~Receiver();
  Receiver(const Receiver&) = delete;

  int fd() const { return fd_; }
  /** Sets where train `i` of every read goes. */
  void setSlot(int i, uint8_t* bytes, uint32_t length) { pieces_[i] = {bytes, length}; }
  /** Reads up to `trainsMax` trains into the first slots. Returns how many. */
  int read(int trainsMax, Train* trains);
  /** Adds what the full socket has lost since the last call to the counter of drops. */
  void countOverflows();

 private:
  int fd_;
  Stats* stats_;
  uint32_t overflows_ = 0;
  sockaddr_storage senders_[kTrainsMax];
  iovec pieces_[kTrainsMax];
  mmsghdr headers_[kTrainsMax];
  alignas(cmsghdr) uint8_t controls_[kTrainsMax][64];
};

/** Opens the receiving socket of `family`. Returns nullptr with `errno` set. */
std::unique_ptr<Receiver> openReceiver(int family, const UnderlayConfig& config, Stats* stats);
/** Opens a sending socket at any free port. Returns nullptr with `errno` set. */
std::unique_ptr<SendQueue> openSender(int family, Stats* stats, std::vector<VtepAddress>* vteps);

int64_t nowMicros();

}  // namespace shoal
