// The native proxy: accepts, connects and relays on threads of its own; which backend, it is told.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "proxy-datagrams.h"
#include "proxy-flow.h"
#include "proxy-list.h"
#include "proxy-reports.h"
#include "proxy-shares.h"
#include "proxy-socket.h"
#include "proxy-supply.h"

namespace shoal {

constexpr int kFlowsPerChunk = 1024;

struct ProxyConfig {
  int threads = 1;
  int flowsMax = 1024;
  int datagramFlowsMax = 1024;
  int64_t datagramIdleNanos = 0;
  int backendsMax = 1024;
  int backlog = 4096;
  /** Bytes that one flow has moved at a stretch before they are spliced; 0: never. */
  uint32_t spliceAfterBytes = 0;
  int64_t busyPollNanos = 0;
  int64_t silenceNanos = 0;
  /** Called from any thread when JavaScript should come and `take`. */
  std::function<void()> wake;
};

struct Listener {
  int number;
  std::vector<PlacedSocket> sockets;
  Supply supply;
};

class Proxy;

/** One thread with an epoll of its own, and the flows that it carries from their beginning to their end. */
class ProxyThread {
 public:
  ProxyThread(Proxy* proxy, int index);
  ~ProxyThread();

  /** @returns False with `errno` set. */
  bool open();
  void start();
  /** Resets what is open and ends the thread. */
  void stop();

  // From other threads.
  bool watchListener(int number, int fd);
  void forgetListener(int fd);
  void answer(int32_t slot, uint32_t generation, int32_t backend, int32_t connectMillis);
  void resetBackend(int32_t backend);
  void adopt(int fd, int32_t listener, const Endpoint& client);
  /** Has it look at what it was told. */
  void nudge();
  /** Copies out what happened. @returns How many. */
  uint32_t take(Report* to, uint32_t most) { return reports_.take(to, most); }
  int flowCount() const { return flowCount_.load(std::memory_order_relaxed); }

 private:
  struct Command {
    enum Kind { kAnswer, kReset, kAdopt, kStop } kind;
    int32_t slot;
    uint32_t generation;
    int32_t backend;
    int32_t connectMillis;
    int fd;
    Endpoint client;
  };

  void run();
  void goOn();
  int timeoutMillis(int64_t nowNanos) const;
  void onEvent(uint64_t tag, uint32_t events);
  void runCommands();
  void obey(const Command& command);
  void publish();

  void acceptFrom(int number, int listenerFd);
  void refuseOne(int listenerFd, int number);
  void begin(int fd, int32_t listener, const Endpoint& client, Listener* from);
  Flow* newFlow();
  Flow* at(int32_t slot) const {
    return &chunks_[slot / kFlowsPerChunk][slot % kFlowsPerChunk];
  }
  auto finder() const {
    return [this](int32_t slot) { return at(slot); };
  }
  Flow* flowAt(int32_t slot, uint32_t generation);
  void ask(Flow* flow);
  void connectTo(Flow* flow, int32_t backend, int32_t connectMillis, Way way);
  /** From whose address it is connected first. */
  static Way firstWay(const Flow& flow) { return flow.isPlain ? Way::kOwn : Way::kClient; }
  void onConnecting(Flow* flow, uint32_t events);
  void onRefused(Flow* flow);
  void againOtherwise(Flow* flow, int error);
  void onConnected(Flow* flow);
  void onRelaying(Flow* flow, int side, uint32_t events);
  void expire(int64_t nowNanos);

  /** Moves what can be moved. @returns False when the flow is over. */
  bool relay(Flow* flow, int direction);
  enum class Step { kMoved, kBlocked, kNothing, kOver };
  Step flush(Flow* flow, int direction);
  Step copy(Flow* flow, int direction);
  Step splice(Flow* flow, int direction);
  Step onReadFailed(Flow* flow, int direction, int error);
  Step onWriteFailed(Flow* flow, int direction);
  void hold(Direction* direction, const uint8_t* bytes, uint32_t count);
  bool takePipe(Direction* direction);
  void givePipe(Direction* direction);
  void wantOut(Flow* flow, int side);
  void noteAsked(Flow* flow);
  void noteAnswer(Flow* flow);
  void tellSilent();
  void introduce(Flow* flow);
  void noteFamilies(const Flow& flow);
  void noteSilence(const Flow& flow);
  bool finishIfDone(Flow* flow);
  void reset(Flow* flow, FlowEnd end);
  void finish(Flow* flow, FlowEnd end);

  void queueConnecting(Flow* flow);
  void unqueueConnecting(Flow* flow);
  bool watch(int fd, uint64_t tag, uint32_t events, int operation);
  uint64_t tagOf(const Flow& flow, int side) const;
  Report* tell(Told what, const Flow& flow);

  Proxy* proxy_;
  int epoll_ = -1;
  int wakeFd_ = -1;
  /** Given up for a moment when no descriptor is left, to be able to refuse somebody. */
  int spareFd_ = -1;
  std::thread thread_;
  bool isStopping_ = false;
  int64_t nowNanos_ = 0;

  std::vector<std::unique_ptr<Flow[]>> chunks_;
  std::vector<int32_t> freeSlots_;
  std::atomic<int> flowCount_{0};
  SlotList connecting_;
  /** In the order in which they were asked, so that the first has been silent for longest. */
  SlotList asked_;
  /** No later than the first of those that connect is to be looked at. */
  int64_t expireNanos_ = INT64_MAX;
  /** Flows that had more than one turn's worth: slot and generation. */
  std::vector<std::pair<int32_t, uint32_t>> again_;
  std::vector<std::pair<int, int>> pipes_;
  std::unique_ptr<uint8_t[]> buffer_;

  ReportBox reports_;

  std::mutex commandsMutex_;
  std::vector<Command> commands_;
  std::atomic<bool> isNudged_{false};
};

class Proxy {
 public:
  explicit Proxy(ProxyConfig config);
  ~Proxy();

  /** @returns False with `errno` set. */
  bool open();
  void stop();

  /** Listens at these places and no others. @returns For each 0 or a negative errno. */
  std::vector<int32_t> listen(int number, uint16_t port, const std::vector<Place>& places);
  /** A published UDP port, numbered among all ports. */
  std::vector<int32_t> listenDatagrams(int number, uint16_t port,
                                       const std::vector<Place>& places) {
    return datagrams_->listen(number, port, places);
  }
  /** No new flows. @returns What was chosen ahead for it and nobody took. */
  std::vector<int32_t> unlisten(int number);
  void give(int number, const int32_t* backends, uint32_t count, int32_t connectMillis);
  std::vector<int32_t> withdraw(int number);
  /** @param id From 1; must not be in use. */
  bool setBackend(int32_t id, Backend backend);
  void removeBackend(int32_t id);
  /** `rows` of thread-and-slot, generation, backend (0: none), milliseconds to connect in. */
  void answer(const int32_t* rows, uint32_t count);
  void resetBackend(int32_t id);
  /** Its flows of datagrams go elsewhere from their next one on. */
  void leaveBackend(int32_t id);
  uint32_t take(Report* to, uint32_t most);
  int flowCount() const {
    return flowCount_.load(std::memory_order_relaxed) + datagrams_->flowCount();
  }
  uint64_t datagramDrops(size_t reason) const { return datagrams_->drops(reason); }

  // For threads.
  const ProxyConfig& config() const { return config_; }
  const Backend* backendAt(int32_t id) const;
  std::shared_mutex& listenersMutex() { return listenersMutex_; }
  Listener* listenerAt(int number);
  /** Whether there is room for one more flow of this client, which is then counted. */
  bool admit(const Endpoint& client);
  void leave(const Endpoint& client);
  /** The thread that shall carry a flow that `own` has accepted. */
  ProxyThread* threadFor(ProxyThread* own);
  void wake();
  /** JavaScript is on its way, and takes what is published until then. */
  bool isWaking() const { return isWaking_.load(); }
  /** JavaScript comes: the next `wake` calls it again. */
  void awake() { isWaking_.store(false); }

 private:
  int listenAlso(Listener* listener, const Place& place, uint16_t port);
  void stopListening(const PlacedSocket& socket);
  /** Of a port of either kind. */
  Supply* supplyOf(int number);

  ProxyConfig config_;
  std::vector<std::unique_ptr<ProxyThread>> threads_;
  std::unique_ptr<DatagramRelay> datagrams_;
  std::shared_mutex listenersMutex_;
  std::unordered_map<int, std::unique_ptr<Listener>> listeners_;
  std::vector<std::unique_ptr<Backend>> backends_;
  std::atomic<int> flowCount_{0};
  std::unique_ptr<ClientShares> shares_;
  std::atomic<bool> isWaking_{false};
  bool isStopped_ = false;
};

}  // namespace shoal
