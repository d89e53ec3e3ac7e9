// The relay's thread: its loop, and a flow's life from its first datagram to its silence.
#include "proxy-datagrams.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "proxy.h"

namespace shoal {
namespace {

constexpr int kEventsMax = 128;
/** Tags in epoll's data: above, the generation, or a port's descriptor; below, a flow's slot or the port's number. */
constexpr uint64_t kNumberMask = (1u << 29) - 1;
constexpr uint64_t kPortBit = 1u << 30;
constexpr uint64_t kWakeBit = 1u << 31;
/** Silent flows are looked for no more often. */
constexpr int64_t kExpireNanos = 20'000'000;
/** Where there is no room, this part of the usual silence is enough to lose one's place: a question and its answer are over. */
constexpr int64_t kFullPart = 4;
/** A client that has used up its share is looked through no more often. */
constexpr int64_t kForgetNanos = 100'000'000;

bool watch(int epoll, int fd, uint64_t tag) {
  epoll_event event;
  event.events = EPOLLIN;
  event.data.u64 = tag;
  return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

/** Of an object whose bytes all count. */
template <typename Key>
size_t hashOf(const Key& key, uint64_t seed) {
  uint64_t words[sizeof(Key) / sizeof(uint64_t)];
  memcpy(words, static_cast<const void*>(&key), sizeof words);
  uint64_t hash = seed;
  for (uint64_t word : words) {
    hash = (hash ^ word) * 0x9e3779b97f4a7c15ull;
    hash ^= hash >> 29;
  }
  return hash ^ seed >> 32;
}

}  // namespace

size_t DatagramKeyHash::operator()(const DatagramKey& key) const { return hashOf(key, seed); }

size_t DatagramEndsHash::operator()(const DatagramEnds& ends) const { return hashOf(ends, seed); }

DatagramRelay::DatagramRelay(Proxy* proxy, int index, int flowsMax, int64_t idleNanos)
    : proxy_(proxy),
      flowsMax_(flowsMax),
      shares_(randomSeed(), flowsMax),
      idleNanos_(idleNanos),
      flows_(16, DatagramKeyHash{randomSeed()}),
      ends_(16, DatagramEndsHash{randomSeed()}),
      reports_(index) {}

DatagramRelay::~DatagramRelay() {
  for (int fd : {epoll_, wakeFd_})
    if (fd >= 0) close(fd);
}

// --- From the main thread ---

bool DatagramRelay::open() {
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  wakeFd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (epoll_ < 0 || wakeFd_ < 0 || !watch(epoll_, wakeFd_, kWakeBit)) return false;
  up_ = std::make_unique<Batch>();
  down_ = std::make_unique<Batch>();
  down_->arm(0, false);
  thread_ = std::thread([this] { run(); });
  return true;
}

std::vector<int32_t> DatagramRelay::listen(int number, uint16_t port,
                                           const std::vector<Place>& places) {
  if (!thread_.joinable() && (isStopping_ || !open()))
    return std::vector<int32_t>(places.size(), -errno);
  Opened& opened = opened_[number];
  if (opened.port == nullptr) {
    opened.port = std::make_shared<DatagramPort>();
    opened.port->number = number;
    opened.port->port = port;
  }
  // First those that are left, which may be in the way of others.
  std::vector<PlacedSocket> left = takeMisplaced(&opened.sockets, places);
  if (!left.empty()) {
    Command told{Command::kClose, number};
    told.sockets = std::move(left);
    commandAndWait(std::move(told));
  }
  Command told{Command::kListen, number};
  told.port = opened.port;
  std::vector<int32_t> results;
  for (const Place& place : places) {
    const int fd = hasPlace(opened.sockets, place) ? 0 : bindAt(place, port);
    if (fd > 0) {
      opened.sockets.push_back({place, fd});
      told.sockets.push_back({place, fd});
    }
    results.push_back(std::min(fd, 0));
  }
  command(std::move(told));
  nudge();
  return results;
}

std::vector<int32_t> DatagramRelay::unlisten(int number) {
  const auto found = opened_.find(number);
  if (found == opened_.end()) return {};
  commandAndWait({Command::kUnlisten, number});
  std::vector<int32_t> left = found->second.port->supply.withdraw();
  opened_.erase(found);
  return left;
}

void DatagramRelay::commandAndWait(Command told) {
  std::promise<void> done;
  told.done = &done;
  command(std::move(told));
  nudge();
  done.get_future().wait();
}

Supply* DatagramRelay::supplyOf(int number) {
  const auto found = opened_.find(number);
  return found == opened_.end() ? nullptr : &found->second.port->supply;
}

void DatagramRelay::answer(int32_t slot, uint32_t generation, int32_t backend) {
  command({Command::kAnswer, slot, generation, backend});
}

void DatagramRelay::leaveBackend(int32_t backend) { command({Command::kLeave, 0, 0, backend}); }

void DatagramRelay::command(Command command) {
  std::lock_guard<std::mutex> lock(commandsMutex_);
  commands_.push_back(std::move(command));
}

void DatagramRelay::nudge() {
  if (wakeFd_ < 0 || isNudged_.exchange(true)) return;
  const uint64_t one = 1;
  if (write(wakeFd_, &one, sizeof one) < 0) isNudged_.store(false);
}

void DatagramRelay::stop() {
  if (!thread_.joinable()) return;
  while (!opened_.empty()) unlisten(opened_.begin()->first);
  command({Command::kStop});
  nudge();
  thread_.join();
}

// --- The loop ---

void DatagramRelay::run() {
  epoll_event events[kEventsMax];
  while (!isStopping_) {
    nowNanos_ = monotonicNanos();
    const int count = epoll_wait(epoll_, events, kEventsMax, timeoutMillis());
    nowNanos_ = monotonicNanos();
    for (int i = 0; i < count; ++i) {
      const uint64_t tag = events[i].data.u64;
      const int32_t number = static_cast<int32_t>(tag & kNumberMask);
      if (tag & kWakeBit) {
        uint64_t ignored;
        while (read(wakeFd_, &ignored, sizeof ignored) > 0) {
        }
      } else if (tag & kPortBit) {
        const auto port = ports_.find(number);
        if (port != ports_.end()) receive(port->second.get(), static_cast<int>(tag >> 32));
      } else {
        DatagramFlow* flow = flowAt(number, static_cast<uint32_t>(tag >> 32));
        if (flow != nullptr && flow->state == DatagramState::kOpen) takeReplies(flow);
      }
    }
    sendReplies();
    if (isNudged_.load(std::memory_order_acquire)) runCommands();
    expire();
    settleDue();
    if (reports_.publish(nowNanos_)) proxy_->wake();
  }
}

int DatagramRelay::timeoutMillis() const {
  int64_t due = proxy_->isWaking() ? INT64_MAX : reports_.dueNanos();
  if (heard_.first() >= 0) {
    due = std::min(due, std::max(at(heard_.first())->lastNanos + idleNanos_, nowNanos_ + kExpireNanos));
  }
  if (!settling_.empty()) due = std::min(due, settling_.front().byNanos);
  if (due == INT64_MAX) return -1;
  return static_cast<int>(std::clamp<int64_t>((due - nowNanos_ + 999'999) / 1'000'000, 0, 60'000));
}

void DatagramRelay::runCommands() {
  isNudged_.store(false);
  std::vector<Command> commands;
  {
    std::lock_guard<std::mutex> lock(commandsMutex_);
    commands.swap(commands_);
  }
  for (Command& command : commands) obey(command);
}

void DatagramRelay::obey(Command& command) {
  switch (command.kind) {
    case Command::kListen:
      ports_[command.number] = command.port;
      addSockets(command.port.get(), command.sockets);
      return;
    case Command::kClose:
      closeSockets(command.number, command.sockets);
      command.done->set_value();
      return;
    case Command::kUnlisten:
      forgetPort(command.number);
      // What its flows were is told together with their end.
      if (reports_.publish(nowNanos_)) proxy_->wake();
      command.done->set_value();
      return;
    case Command::kAnswer: {
      DatagramFlow* flow = flowAt(command.number, command.generation);
      if (flow == nullptr || flow->state != DatagramState::kAsking) {
        if (command.backend != 0) reports_.add(Told::kLeft, 0, command.backend, 0, 0);
        return;
      }
      if (command.backend != 0)
        connectTo(flow, command.backend);
      else
        finish(flow, flow->wasRefused ? FlowEnd::kUnreachable : FlowEnd::kNoBackend);
      return;
    }
    case Command::kLeave:
      for (int32_t slot = heard_.first(); slot >= 0; slot = at(slot)->after)
        if (at(slot)->backend == command.backend) leave(at(slot));
      return;
    case Command::kStop:
      isStopping_ = true;
      return;
  }
}

void DatagramRelay::addSockets(DatagramPort* port, const std::vector<PlacedSocket>& sockets) {
  for (const PlacedSocket& socket : sockets) {
    port->sockets.push_back(socket);
    watch(epoll_, socket.fd,
          static_cast<uint64_t>(socket.fd) << 32 | kPortBit | static_cast<uint32_t>(port->number));
  }
  // Flows whose socket was closed go on where another one has their address.
  for (int32_t slot = heard_.first(); slot >= 0;) {
    DatagramFlow* flow = at(slot);
    slot = flow->after;
    if (flow->key.port != port->number || flow->portFd >= 0) continue;
    for (const PlacedSocket& socket : port->sockets) {
      const Place& place = socket.place;
      const bool isHere = memcmp(&place.address, flow->key.local, sizeof flow->key.local) == 0;
      if (isHere || place.isEverywhere()) flow->portFd = socket.fd;
    }
    if (flow->portFd < 0) finish(flow, FlowEnd::kClosed);
  }
}

void DatagramRelay::closeSockets(int number, const std::vector<PlacedSocket>& sockets) {
  const auto found = ports_.find(number);
  if (found == ports_.end()) return;
  std::vector<PlacedSocket>& all = found->second->sockets;
  for (const PlacedSocket& socket : sockets) {
    all.erase(std::remove_if(all.begin(), all.end(),
                             [&](const PlacedSocket& other) { return other.fd == socket.fd; }),
              all.end());
    for (int32_t slot = heard_.first(); slot >= 0; slot = at(slot)->after)
      if (at(slot)->portFd == socket.fd) at(slot)->portFd = -1;
    close(socket.fd);
  }
}

void DatagramRelay::forgetPort(int number) {
  const auto found = ports_.find(number);
  if (found == ports_.end()) return;
  for (int32_t slot = heard_.first(); slot >= 0;) {
    DatagramFlow* flow = at(slot);
    slot = flow->after;
    if (flow->key.port == number) finish(flow, FlowEnd::kClosed);
  }
  for (const PlacedSocket& socket : found->second->sockets) close(socket.fd);
  ports_.erase(found);
}

// --- A flow begins ---

DatagramFlow* DatagramRelay::find(DatagramPort* port, const DatagramKey& key) {
  const auto found = flows_.find(key);
  if (found != flows_.end()) return at(found->second);
  DatagramFlow* flow = newFlow(key);
  if (flow != nullptr) {
    Report* report = tell(Told::kAccepted, *flow);
    const Endpoint client = clientOf(*flow);
    report->clientPort = client.port();
    client.writeAddress(report->client);
    return flow;
  }
  if (reports_.isFull()) return nullptr;
  reports_.add(Told::kAccepted, port->number, 0, 0, 0);
  reports_.add(Told::kEnded, port->number, 0, 0, 0)->detail = static_cast<int32_t>(FlowEnd::kLimit);
  return nullptr;
}

DatagramFlow* DatagramRelay::newFlow(const DatagramKey& key) {
  if (!shares_.take(key.peer)) {
    forgetSilentOf(key.peer);
    if (!shares_.take(key.peer)) return nullptr;
  }
  if (flowCount_.load(std::memory_order_relaxed) >= flowsMax_ && !makeRoom()) {
    shares_.leave(key.peer);
    return nullptr;
  }
  if (freeSlots_.empty()) {
    const int32_t first = static_cast<int32_t>(chunks_.size()) * kChunk;
    chunks_.push_back(std::make_unique<std::array<DatagramFlow, kChunk>>());
    for (int i = kChunk - 1; i >= 0; --i) freeSlots_.push_back(first + i);
  }
  const int32_t slot = freeSlots_.back();
  freeSlots_.pop_back();
  DatagramFlow* flow = at(slot);
  const uint32_t generation = flow->generation + 1;
  *flow = DatagramFlow();
  flow->slot = slot;
  flow->generation = generation;
  flow->state = DatagramState::kIdle;
  flow->key = key;
  flows_[key] = slot;
  flowCount_.fetch_add(1, std::memory_order_relaxed);
  touch(flow);
  return flow;
}

/** For so long that it may lose its place where there is no room. */
bool DatagramRelay::isSilentForLong(const DatagramFlow& flow) const {
  return nowNanos_ - flow.lastNanos >= idleNanos_ / kFullPart;
}

/** The longest silent flow gives its place, if it is silent for long. */
bool DatagramRelay::makeRoom() {
  if (heard_.first() < 0) return false;
  DatagramFlow* flow = at(heard_.first());
  if (flow->state == DatagramState::kAsking || !isSilentForLong(*flow)) return false;
  finish(flow, FlowEnd::kClosed);
  return true;
}

/** Those of a client that has used up its share, so that it costs no one else a place. */
void DatagramRelay::forgetSilentOf(const Endpoint& client) {
  if (nowNanos_ < forgetAfterNanos_) return;
  forgetAfterNanos_ = nowNanos_ + kForgetNanos;
  for (int32_t slot = heard_.first(); slot >= 0 && isSilentForLong(*at(slot));) {
    DatagramFlow* flow = at(slot);
    slot = flow->after;
    if (flow->state != DatagramState::kAsking && shares_.areOne(flow->key.peer, client))
      finish(flow, FlowEnd::kClosed);
  }
}

DatagramFlow* DatagramRelay::flowAt(int32_t slot, uint32_t generation) {
  if (slot < 0 || static_cast<size_t>(slot) >= chunks_.size() * kChunk) return nullptr;
  DatagramFlow* flow = at(slot);
  return flow->state != DatagramState::kFree && flow->generation == generation ? flow : nullptr;
}

void DatagramRelay::choose(DatagramFlow* flow, DatagramPort* port) {
  bool isLow = false;
  int32_t ignored = 0;
  const int32_t backend = port->supply.take(&isLow, &ignored);
  if (isLow) {
    tell(Told::kLow, *flow);
    reports_.urge();
  }
  if (backend == 0)
    ask(flow);
  else
    connectTo(flow, backend);
}

void DatagramRelay::ask(DatagramFlow* flow) {
  flow->state = DatagramState::kAsking;
  Report* report = tell(Told::kAsks, *flow);
  const Endpoint client = clientOf(*flow);
  report->clientPort = client.port();
  report->detail = flow->wasRefused ? 1 : 0;
  client.writeAddress(report->client);
  reports_.urge();
}

void DatagramRelay::connectTo(DatagramFlow* flow, int32_t id) {
  flow->backend = id;
  const Backend* backend = proxy_->backendAt(id);
  const int fd = backend == nullptr ? -ENETUNREACH : connectUpstream(flow, *backend);
  if (fd < 0) {
    if (isOwnFault(-fd))
      finish(flow, FlowEnd::kLimit);
    else
      onRefused(flow, -fd);
    return;
  }
  flow->fd = fd;
  flow->state = DatagramState::kOpen;
  flow->hasAnswer = false;
  if (flow->asClient) {
    flow->settleByNanos = nowNanos_ + kSettleNanos;
    settling_.push_back({flow->slot, flow->generation, flow->settleByNanos});
  }
  introduce(flow, *backend);
  const uint64_t generation = flow->generation;
  if (!watch(epoll_, fd, generation << 32 | static_cast<uint32_t>(flow->slot)))
    finish(flow, FlowEnd::kLimit);
  else
    passWaiting(flow);
}

/** From the client's own address and port, if that may be; where they are in use towards the backend, from another port. */
int DatagramRelay::connectUpstream(DatagramFlow* flow, const Backend& backend) {
  Endpoint client = clientOf(*flow);
  const Endpoint* target = flow->isPlain ? nullptr : targetAs(backend, client, nowNanos_);
  if (target != nullptr) {
    flow->ends.client = client;
    flow->ends.backend = *target;
    flow->hasEnds = ends_.insert(flow->ends).second;
    if (!flow->hasEnds) client.setPort(0);
  }
  const int fd = connectDatagrams(backend, client, &target);
  flow->asClient = target != nullptr;
  if (fd < 0 || !flow->asClient) closeUpstream(flow);
  return fd;
}

void DatagramRelay::closeUpstream(DatagramFlow* flow) {
  if (flow->hasEnds) ends_.erase(flow->ends);
  flow->hasEnds = false;
  if (flow->fd >= 0) close(flow->fd);
  flow->fd = -1;
}

/** Makes what tells the backend who the client is, if it wants to be told. */
void DatagramRelay::introduce(DatagramFlow* flow, const Backend& backend) {
  flow->headerBytes = 0;
  if (backend.proxyProtocol == 0) return;
  const Endpoint target(flow->key.local, ports_.at(flow->key.port)->port);
  flow->headerBytes = writeProxyHeader(flow->header, backend.proxyProtocol, SOCK_DGRAM,
                                       clientOf(*flow), target);
}

// --- Its backend goes ---

/** Nobody is there (ICMP said so, or there is no way): what waits goes elsewhere, and so does what comes. */
bool DatagramRelay::onRefused(DatagramFlow* flow, int error) {
  // Said by the VTEP of the task: another node has come with this client's address and port.
  const bool isForeign = error == EACCES || error == EHOSTUNREACH;
  const bool isRetried = flow->fd >= 0 && flow->asClient && (!flow->hasAnswer || isForeign);
  const Backend* backend = proxy_->backendAt(flow->backend);
  flow->wasRefused6 = isRetried && error == ECONNREFUSED && backend != nullptr &&
                      isTakenApart(*backend, clientOf(*flow));
  becomePlain(flow);
  flow->isPlain = isRetried;
  if (isRetried) return true;
  tell(Told::kFailed, *flow)->detail = 1;
  flow->backend = 0;
  flow->wasRefused = true;
  ask(flow);
  return false;
}

void DatagramRelay::becomePlain(DatagramFlow* flow) {
  closeUpstream(flow);
  // What is held has not arrived.
  flow->settleByNanos = 0;
  flow->isPlain = true;
  flow->state = DatagramState::kAsking;
}

bool DatagramRelay::isMisled(const DatagramFlow& flow) const {
  if (!flow.asClient || flow.hasAnswer || flow.state != DatagramState::kOpen) return false;
  const Backend* backend = proxy_->backendAt(flow.backend);
  return backend != nullptr && backend->ipv4Only.isKnown() &&
         isTakenApart(*backend, clientOf(flow));
}

/** What it was sent as the client, and did not take, goes to it once more. */
void DatagramRelay::retryPlain(DatagramFlow* flow) { connectTo(flow, flow->backend); }

/** What is held has arrived, as far as can be known. */
void DatagramRelay::settle(DatagramFlow* flow) {
  if (flow->settleByNanos == 0) return;
  flow->settleByNanos = 0;
  for (const std::vector<uint8_t>& bytes : flow->waiting) waitingBytes_ -= bytes.size();
  flow->waiting.clear();
}

void DatagramRelay::settleDue() {
  while (!settling_.empty() && settling_.front().byNanos <= nowNanos_) {
    const Settling due = settling_.front();
    settling_.pop_front();
    DatagramFlow* flow = flowAt(due.slot, due.generation);
    if (flow == nullptr || flow->settleByNanos != due.byNanos) continue;
    // Kernels do not tell everybody that nobody listens.
    if (isMisled(*flow)) {
      becomePlain(flow);
      retryPlain(flow);
    } else {
      settle(flow);
    }
  }
}

void DatagramRelay::leave(DatagramFlow* flow) {
  tell(Told::kLeft, *flow);
  closeUpstream(flow);
  settle(flow);
  flow->isPlain = false;
  flow->wasRefused6 = false;
  flow->backend = 0;
  flow->wasRefused = false;
  flow->state = DatagramState::kIdle;
}

void DatagramRelay::finish(DatagramFlow* flow, FlowEnd end) {
  Report* report = tell(Told::kEnded, *flow);
  report->detail = static_cast<int32_t>(end);
  report->numbers[0] = static_cast<double>(flow->bytesUp);
  report->numbers[1] = static_cast<double>(flow->bytesDown);
  settle(flow);
  dropWaiting(flow, end == FlowEnd::kLimit ? DatagramDrop::kFlows : DatagramDrop::kNoBackend);
  closeUpstream(flow);
  flow->backend = 0;
  flow->state = DatagramState::kFree;
  heard_.remove(flow, finder());
  flows_.erase(flow->key);
  shares_.leave(flow->key.peer);
  freeSlots_.push_back(flow->slot);
  flowCount_.fetch_sub(1, std::memory_order_relaxed);
}

void DatagramRelay::expire() {
  while (heard_.first() >= 0) {
    DatagramFlow* flow = at(heard_.first());
    if (flow->lastNanos + idleNanos_ > nowNanos_) return;
    // Its answer is on the way.
    if (flow->state == DatagramState::kAsking)
      touch(flow);
    else
      finish(flow, FlowEnd::kClosed);
  }
}

/** It was heard: the last one to be silent. */
void DatagramRelay::touch(DatagramFlow* flow) {
  flow->lastNanos = nowNanos_;
  if (heard_.last() == flow->slot) return;
  heard_.remove(flow, finder());
  heard_.append(flow, finder());
}

Report* DatagramRelay::tell(Told what, const DatagramFlow& flow) {
  return reports_.add(what, flow.key.port, flow.backend, flow.slot, flow.generation);
}

}  // namespace shoal
