// The relay of published UDP ports: flows of datagrams on one thread, in batches; which backend, it is told.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <deque>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "proxy-list.h"
#include "proxy-reports.h"
#include "proxy-shares.h"
#include "proxy-socket.h"
#include "proxy-supply.h"

namespace shoal {

class Proxy;

/** Datagrams that one call receives or sends. */
constexpr int kDatagramBatch = 64;
/** The longest datagram there is, rounded up. */
constexpr uint32_t kDatagramBytesMax = 64 * 1024;
/** Datagrams that wait while it is asked where their flow goes; and the bytes of all such. */
constexpr size_t kWaitingMax = 16;
constexpr size_t kWaitingBytesMax = 8 << 20;

/** A published UDP port. The main thread gives and withdraws choices; all else is the relay's. */
struct DatagramPort {
  int number;
  uint16_t port;
  Supply supply;
  /** As the relay knows them. */
  std::vector<PlacedSocket> sockets;
};

/** Who speaks with whom, at which published port. All bytes count. */
struct DatagramKey {
  int32_t port = 0;
  /** As the kernel tells it: IPv4 is mapped, and link-local has its interface. */
  Endpoint peer;
  /** The address that it was sent to, 16 bytes; of the kernel's choice if zero. */
  uint8_t local[16] = {};

  bool operator==(const DatagramKey& other) const {
    return memcmp(static_cast<const void*>(this), &other, sizeof *this) == 0;
  }
};
static_assert(sizeof(DatagramKey) == 48, "compared and hashed by its bytes: it has no gaps");

/** Seeded, so that who chooses ports cannot make them collide. */
struct DatagramKeyHash {
  uint64_t seed;
  size_t operator()(const DatagramKey& key) const;
};

/** From whose address to which backend a flow goes: no two may be the same. All bytes count. */
struct DatagramEnds {
  Endpoint client;
  Endpoint backend;

  bool operator==(const DatagramEnds& other) const {
    return memcmp(static_cast<const void*>(this), &other, sizeof *this) == 0;
  }
};
static_assert(sizeof(DatagramEnds) == 56, "compared and hashed by its bytes: it has no gaps");

struct DatagramEndsHash {
  uint64_t seed;
  size_t operator()(const DatagramEnds& ends) const;
};

/**
 * A task that does not take a client under its own address, or to which another node has come with it, says so
 * within a round trip. So long what it was sent is held, to be sent from this node's own address.
 */
constexpr int64_t kSettleNanos = 300'000'000;

/** `kIdle`: it has no backend, and asks for one with its next datagram. */
enum class DatagramState : uint8_t { kFree, kIdle, kAsking, kOpen };

struct DatagramFlow {
  DatagramState state = DatagramState::kFree;
  bool hasAnswer = false;
  bool wasRefused = false;
  /** Its socket has the client's address. */
  bool asClient = false;
  /** No further one is to have, for this backend. */
  bool isPlain = false;
  /** Nobody listens where clients of IPv6 are taken. */
  bool wasRefused6 = false;
  /** `ends` are among those of open flows. */
  bool hasEnds = false;
  uint32_t generation = 0;
  int32_t slot = 0;
  int32_t backend = 0;
  int fd = -1;
  /** Until then what waits has been sent, and is held; 0: it has not. */
  int64_t settleByNanos = 0;
  DatagramEnds ends;
  /** The port's socket that it comes by; -1: that is closed, and another one not there yet. */
  int portFd = -1;
  DatagramKey key;
  /** Goes before each datagram to the backend. */
  uint32_t headerBytes = 0;
  uint8_t header[kProxyHeaderMax];
  uint64_t bytesUp = 0;
  uint64_t bytesDown = 0;
  int64_t lastNanos = 0;
  std::vector<std::vector<uint8_t>> waiting;
  /** Neighbours among all flows, those that were silent the longest first. */
  int32_t before = -1;
  int32_t after = -1;
  /** Its datagrams in the batch at hand: first and last. */
  int first = -1;
  int last = -1;
};

/** Why datagrams were dropped; proxy-binding.ts has the same order. */
enum class DatagramDrop : size_t {
  /** Of a flow that has no place in the table. */
  kFlows = 0,
  /** Too many wait for a choice. */
  kWaiting = 1,
  /** The kernel has no room. */
  kFull = 2,
  /** The kernel refuses it: too long, not allowed, no route. */
  kRefused = 3,
  /** No backend is left for its flow. */
  kNoBackend = 4,
};
constexpr size_t kDatagramDrops = 5;

class DatagramRelay {
 public:
  DatagramRelay(Proxy* proxy, int index, int flowsMax, int64_t idleNanos);
  ~DatagramRelay();

  // From the main thread.
  /**
   * Binds the port to these places and no others; flows whose address is left end. Starts the thread, if there is none
   * yet.
   *
   * @returns For each 0 or a negative errno.
   */
  std::vector<int32_t> listen(int number, uint16_t port, const std::vector<Place>& places);
  /** Ends its flows and frees the port. @returns What was chosen ahead for it and nobody took. */
  std::vector<int32_t> unlisten(int number);
  Supply* supplyOf(int number);
  void answer(int32_t slot, uint32_t generation, int32_t backend);
  /** Its flows leave the backend; each finds another one with its next datagram. */
  void leaveBackend(int32_t backend);
  void nudge();
  void stop();
  uint32_t take(Report* to, uint32_t most) { return reports_.take(to, most); }
  int flowCount() const { return flowCount_.load(std::memory_order_relaxed); }
  uint64_t drops(size_t reason) const { return drops_[reason].load(std::memory_order_relaxed); }

 private:
  struct Command {
    enum Kind { kListen, kClose, kUnlisten, kAnswer, kLeave, kStop } kind;
    int32_t number = 0;
    uint32_t generation = 0;
    int32_t backend = 0;
    std::shared_ptr<DatagramPort> port = nullptr;
    std::promise<void>* done = nullptr;
    /** Those to add, or to close. */
    std::vector<PlacedSocket> sockets = {};
  };
  struct Opened {
    std::shared_ptr<DatagramPort> port;
    std::vector<PlacedSocket> sockets;
  };
  /** What one system call takes, and room for it. */
  struct Batch {
    mmsghdr messages[kDatagramBatch];
    iovec vectors[kDatagramBatch];
    Endpoint peers[kDatagramBatch];
    alignas(cmsghdr) uint8_t control[kDatagramBatch][64];
    /** Pages of it that no datagram was long enough for cost nothing. */
    std::unique_ptr<uint8_t[]> bytes{new uint8_t[kDatagramBatch * kDatagramBytesMax]};

    /** Makes places from `first` on ready to receive. */
    void arm(int first, bool withPeers);
  };

  bool open();
  void command(Command command);
  /** Has the thread do it, and waits, so that ports are free afterwards; a turn of its loop is short. */
  void commandAndWait(Command command);
  void run();
  int timeoutMillis() const;
  void runCommands();
  void obey(Command& command);
  void addSockets(DatagramPort* port, const std::vector<PlacedSocket>& sockets);
  void closeSockets(int number, const std::vector<PlacedSocket>& sockets);
  void forgetPort(int number);

  void receive(DatagramPort* port, int fd);
  DatagramKey keyOf(int index, const DatagramPort& port) const;
  /** IPv4 as such. */
  static Endpoint clientOf(const DatagramFlow& flow);
  DatagramFlow* find(DatagramPort* port, const DatagramKey& key);
  DatagramFlow* newFlow(const DatagramKey& key);
  bool isSilentForLong(const DatagramFlow& flow) const;
  bool makeRoom();
  void forgetSilentOf(const Endpoint& client);
  DatagramFlow* flowAt(int32_t slot, uint32_t generation);
  DatagramFlow* at(int32_t slot) const { return &(*chunks_[slot / kChunk])[slot % kChunk]; }
  auto finder() const {
    return [this](int32_t slot) { return at(slot); };
  }
  void choose(DatagramFlow* flow, DatagramPort* port);
  void ask(DatagramFlow* flow);
  void connectTo(DatagramFlow* flow, int32_t backend);
  void introduce(DatagramFlow* flow, const Backend& backend);
  void passUp(DatagramFlow* flow, DatagramPort* port);
  void passWaiting(DatagramFlow* flow);
  /** @returns How many of `count` are done with, sent or dropped; fewer: the backend refused. */
  int sendUp(DatagramFlow* flow, const iovec* datagrams, mmsghdr* out, int count, bool* isRetried);
  void wait(DatagramFlow* flow, const iovec& datagram);
  bool hold(DatagramFlow* flow, const iovec& datagram);
  void dropWaiting(DatagramFlow* flow, DatagramDrop reason);
  int connectUpstream(DatagramFlow* flow, const Backend& backend);
  void closeUpstream(DatagramFlow* flow);
  /** @returns Whether it is to go on from this node's own address: by `retryPlain`. */
  bool onRefused(DatagramFlow* flow, int error);
  void retryPlain(DatagramFlow* flow);
  /** Gives its socket back, to send from this node's own address what it had sent, and is held. */
  void becomePlain(DatagramFlow* flow);
  /** Whether it is sent to by IPv6, has not answered, and was seen to listen by IPv4 only. */
  bool isMisled(const DatagramFlow& flow) const;
  void settle(DatagramFlow* flow);
  void settleDue();
  void leave(DatagramFlow* flow);
  void finish(DatagramFlow* flow, FlowEnd end);
  void expire();

  void takeReplies(DatagramFlow* flow);
  void noteFamilies(const DatagramFlow& flow);
  void addressReply(int index, const DatagramFlow& flow);
  void sendReplies();

  void touch(DatagramFlow* flow);
  Report* tell(Told what, const DatagramFlow& flow);
  void drop(DatagramDrop reason, uint64_t count = 1) {
    drops_[static_cast<size_t>(reason)].fetch_add(count, std::memory_order_relaxed);
  }

  static constexpr int kChunk = 256;

  Proxy* proxy_;
  const int flowsMax_;
  ClientShares shares_;
  const int64_t idleNanos_;
  int epoll_ = -1;
  int wakeFd_ = -1;
  std::thread thread_;
  bool isStopping_ = false;
  int64_t nowNanos_ = 0;
  int64_t forgetAfterNanos_ = 0;

  /** As the main thread has opened them. */
  std::unordered_map<int, Opened> opened_;
  std::unordered_map<int, std::shared_ptr<DatagramPort>> ports_;
  std::vector<std::unique_ptr<std::array<DatagramFlow, kChunk>>> chunks_;
  std::vector<int32_t> freeSlots_;
  std::unordered_map<DatagramKey, int32_t, DatagramKeyHash> flows_;
  /** The one that was silent longest first. */
  SlotList heard_;
  size_t waitingBytes_ = 0;
  std::unordered_set<DatagramEnds, DatagramEndsHash> ends_;
  /** Who has been sent something that is held, and since when; the oldest first. */
  struct Settling {
    int32_t slot;
    uint32_t generation;
    int64_t byNanos;
  };
  std::deque<Settling> settling_;
  std::atomic<int> flowCount_{0};
  std::array<std::atomic<uint64_t>, kDatagramDrops> drops_{};

  std::unique_ptr<Batch> up_;
  int next_[kDatagramBatch];
  std::unique_ptr<Batch> down_;
  /** Replies in `down_`, which all go out by this port's socket. */
  int replies_ = 0;
  int replyFd_ = -1;

  ReportBox reports_;
  std::mutex commandsMutex_;
  std::vector<Command> commands_;
  std::atomic<bool> isNudged_{false};
};

}  // namespace shoal
